"""What requests to the explorer, and its answers, have in common."""

import json
from collections.abc import Iterator
from typing import Annotated, Any

from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from nanogpt.errors import UserError, one_line

TENSORS = "application/octet-stream"  # a safetensors file

Ids = Annotated[list[int], Field(max_length=1_000_000)]


class Body(BaseModel):
    """A request. A field that does not exist is a mistake, not something to pass over."""

    model_config = ConfigDict(extra="forbid", strict=True)


def in_lines(values: Iterator[dict[str, Any]]) -> StreamingResponse:
    """An answer piece by piece: one JSON value a line, as they come; see `as_lines`."""
    return StreamingResponse(as_lines(values), media_type="application/x-ndjson")


def in_a_line(error: UserError | OSError) -> str:
    """What went wrong, for the page. The files of a run may be damaged, or go while it is shown."""
    if isinstance(error, OSError):
        return one_line(f"{error.filename}: {error.strerror}; the run may have changed: try again")
    return one_line(str(error))


def as_lines(values: Iterator[dict[str, Any]]) -> Iterator[str]:
    """One JSON value a line. What goes wrong on the way is a last line {"error": ...}."""
    try:
        for value in values:
            yield json.dumps(value) + "\n"
    except (UserError, OSError) as error:
        yield json.dumps({"error": in_a_line(error)}) + "\n"
