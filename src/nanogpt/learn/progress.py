"""What a learner has done so far: progress.json in the learner's own folder."""

from dataclasses import asdict, dataclass, field
from pathlib import Path

from nanogpt.errors import UserError
from nanogpt.files import read_json, write_json

FOLDER = Path("my_gpt")


@dataclass
class Progress:
    """Exercises that passed, how many hints were asked for, and lessons that were opened."""

    passed: list[str] = field(default_factory=list)
    hints: dict[str, int] = field(default_factory=dict)
    lessons: list[int] = field(default_factory=list)


def load_progress(folder: str | Path) -> Progress:
    """What is written there; nothing yet if the folder is new. Raises UserError if damaged."""
    folder = Path(folder)
    path = folder / "progress.json"
    if not path.exists():
        return Progress()
    try:
        progress = Progress(**read_json(path))
        for kind, values in ((str, progress.passed), (int, progress.lessons)):
            if not isinstance(values, list) or not all(type(value) is kind for value in values):
                raise TypeError
        if not all(type(n) is int and n > 0 for n in dict(progress.hints).values()):
            raise TypeError
        return progress
    except (TypeError, ValueError):
        raise UserError(f"{path} is damaged; remove it, and check the exercises again") from None


def save_progress(folder: str | Path, progress: Progress) -> None:
    """Write it down."""
    folder = Path(folder)
    write_json(folder / "progress.json", asdict(progress))
