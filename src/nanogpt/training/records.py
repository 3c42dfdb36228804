"""What a run writes down about itself: one record a line in metrics.jsonl."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nanogpt.errors import UserError
from nanogpt.files import checked, read_text


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

    @property
    def score(self) -> float:
        """What should become smaller: `best` and train.targets go by it."""
        return self.val_loss


@dataclass(frozen=True)
class Answered(Validation):
    """What a look at the validation text showed, and how its questions were answered."""

    right: float  # share of the questions whose answer comes to what was expected
    questions: int

    @property
    def score(self) -> float:
        """The share that was not right."""
        return 1 - self.right


@dataclass(frozen=True)
class Rollout:
    """What the answers of one step were like, before its updates."""

    step: int
    reward: float  # mean of all answers
    length: float  # mean, in tokens
    entropy: float  # mean of the distributions that tokens were drawn from, in nats
    distance: float  # from the reference model, in nats per token


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


@dataclass(frozen=True)
class Chosen:
    """The number of threads on a CPU has changed."""

    step: int  # steps done before
    threads: int
    most: int  # that there are


Record = Step | Validation | Rollout | Sample | Reached | Chosen

# The kind of a record, by a value that no later kind has.
KINDS: dict[str, type[Record]] = {
    "loss": Step, "right": Answered, "val_loss": Validation, "reward": Rollout, "sample": Sample,
    "target": Reached, "threads": Chosen,
}  # fmt: skip


def check_is_run(folder: str | Path) -> None:
    """Raise UserError if there is no such folder."""
    if not Path(folder).is_dir():
        raise UserError(f"{folder}: no such run folder; name one that `nanogpt train` made")


def read_metrics(folder: str | Path) -> list[dict[str, Any]]:
    """The records of a run in order, as plain values.

    A last line that a crash cut off is left out. Raises UserError naming any other damaged line.
    """
    path = Path(folder) / "metrics.jsonl"
    if not path.exists():
        raise UserError(f"{path} is missing; restore it, or make an empty file")
    lines = read_text(path).split("\n")
    records = []
    for number, line in enumerate(lines, 1):
        try:
            values = json.loads(line)
            kind = next((KINDS[key] for key in KINDS if key in values), Step)
            records.append(asdict(checked(kind, values)))
        except (ValueError, TypeError, RecursionError):  # UserError is a ValueError
            if number < len(lines):
                raise UserError(f"{path} line {number} is damaged; remove that line") from None
    return records
