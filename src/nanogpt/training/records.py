"""What a run writes down about itself: one record a line in metrics.jsonl."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanogpt.files import read_text


@dataclass(frozen=True)
class Step:
    """What one optimizer step did."""

    step: int  # steps done, this one included
    loss: float  # of the step's batch, nats per token, before the update; auxiliary losses included
    lr: float
    grad_norm: float  # before clipping
    tokens_per_second: float
    data_wait: float  # share of the step's time spent waiting for its batches


@dataclass(frozen=True)
class Validation:
    """What a look at the validation text showed."""

    step: int
    val_loss: float  # nats per token
    bits_per_byte: float


@dataclass(frozen=True)
class Sample:
    """What the model writes at this point."""

    step: int
    sample: str  # prompt and continuation


@dataclass(frozen=True)
class Reached:
    """A target that the validation loss has just reached."""

    step: int
    target: float
    seconds: float  # spent training until then, without evaluation


Record = Step | Validation | Sample | Reached


def read_metrics(folder: str | Path) -> list[dict[str, Any]]:
    """The records of a run in order; a line cut off by a crash ends the list."""
    folder = Path(folder)
    records = []
    for line in read_text(folder / "metrics.jsonl").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records
