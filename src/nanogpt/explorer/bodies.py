"""What requests to the explorer have in common."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

TENSORS = "application/octet-stream"  # a safetensors file

Ids = Annotated[list[int], Field(max_length=1_000_000)]


class Body(BaseModel):
    """A request. A field that does not exist is a mistake, not something to pass over."""

    model_config = ConfigDict(extra="forbid", strict=True)
