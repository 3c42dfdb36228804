"""What a learner has done so far: progress.json in the learner's own folder."""

from dataclasses import asdict, dataclass, field
from pathlib import Path

from nanogpt.errors import UserError
from nanogpt.files import checked, read_json, write_json

FOLDER = Path("my_gpt")


@dataclass
class Progress:
    """What passed, was asked for, opened and answered."""

    passed: list[str] = field(default_factory=list)  # exercises
    hints: dict[str, int] = field(default_factory=dict)  # how many of each exercise
    shown: list[str] = field(default_factory=list)  # exercises whose solution was shown
    lessons: list[int] = field(default_factory=list)  # lessons that were opened
    answered: dict[str, bool] = field(default_factory=dict)  # questions: whether the last was right


def load_progress(folder: str | Path) -> Progress:
    """What is written there; nothing yet if the folder is new. Raises UserError if damaged."""
    folder = Path(folder)
    path = folder / "progress.json"
    if not path.exists():
        return Progress()
    try:
        progress = checked(Progress, read_json(path))
        if min(progress.hints.values(), default=1) > 0:
            return progress
    except UserError:
        pass
    raise UserError(f"{path} is damaged; remove it, and check the exercises again")


def save_progress(folder: str | Path, progress: Progress) -> None:
    """Write it down."""
    folder = Path(folder)
    write_json(folder / "progress.json", asdict(progress))
