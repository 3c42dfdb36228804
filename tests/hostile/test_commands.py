"""Hostile arguments: each costs exit code 2, one line that can be read, and nothing on disk."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nanogpt.cli import main
from nanogpt.text.tokenizer import CharTokenizer

from conftest import SMALL, TEXT

# Where a command reads a path: its arguments, with {} in the path's place.
READS = [
    "generate {}", "evaluate {}", "chat {}", "compare {}", "export {} new", "lab heads {}",
    "train --resume {}", "train demo --init {}", "train --init {} --run new", "evaluate run {}",
    "data show {}", "train demo --data.folder {}", "train --data.source {} --run new",
    "prepare {}", "prepare abc.txt --data.tokenizer {} --data.folder new",
    "tokenizer train {}", "tokenizer stats {}", "tokenizer stats abc.txt --tokenizer {}",
    "tokenizer encode x --tokenizer {}", "tokenizer decode 1 --tokenizer {}",
    "tokenizer explain x --tokenizer {}", "tokenizer compare x --tokenizer {}",
    "train {}", "plan {}", "lab run {}", "lab scaling {}", "lab check {}",
    "plan --plugin {}", "exercise check --folder {}", "exercise hint merge --folder {}",
    "exercise play --folder {}", "exercise grade {}",
]  # fmt: skip

# Where a command writes.
WRITES = [
    "train --data.source abc.txt --run {}", "prepare abc.txt --data.folder {}",
    "tokenizer train abc.txt --vocab-size 260 --out {}",
    "tokenizer stats abc.txt --vocab-size 260 --out {}", "data show --out {}", "export run {}",
    "lab heads run --out {}", "exercise start --folder {}", "exercise grade learner --csv {}",
    "exercise grade learner --report {}",
]  # fmt: skip

# Names that nothing can be read from or written to.
NOWHERE = {
    "below a file": "abc.txt/below",
    "a loop of links": "loop",
    "below a loop": "loop/below",
    "too long": "long" * 200,
    "a deep path": "deep/" * 3000,
    "a megabyte": "m" * 1_000_000,
    "not UTF-8": "caf\udce9",
}
# Names at which there is nothing to read.
UNREADABLE = NOWHERE | {
    "empty": "",
    "missing": "no-such-thing",
    "a newline": "new\nline",
    "escape codes": "red\x1b[31m\x07",
    "right to left": "\u202egnp.exe",
    "only spaces": "   ",
    "a damaged file": "binary",
    "an empty file": "nothing.txt",
    "an empty folder": "folder",
}
# Names at which nothing can be written: what is there is no file, or no folder.
UNWRITABLE = NOWHERE | {"empty": ""}
NO_FILE = {"a folder": "folder", "a pipe": "fifo"}
NO_FOLDER = {"a file": "abc.txt"}

# What is no mistake where it stands.
FINE = {("exercise check --folder {}", "an empty folder")}


@pytest.fixture(scope="module")
def world(trained_run: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run and with things that hostile names lead to."""
    folder = tmp_path_factory.mktemp("world")
    shutil.copytree(trained_run(), folder / "run")
    (folder / "abc.txt").write_text(TEXT)
    (folder / "nothing.txt").write_text("")
    (folder / "binary").write_bytes(bytes(range(256)) * 9)
    (folder / "loop").symlink_to("loop")
    (folder / "folder").mkdir()
    # In place of a real device: a test that fails must not harm the machine.
    os.mkfifo(folder / "fifo")
    (folder / "learner").mkdir()
    (folder / "learner" / "01_merge.py").write_text("merge = 1\n")
    CharTokenizer("abc").save(folder / "chars.json")
    return folder


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    """What is in a folder: the size and the time of each file."""
    found = {}
    for path in sorted(folder.rglob("*")):
        about = path.lstat()
        found[str(path)] = (about.st_size, about.st_mtime_ns) if path.is_file() else (0, 0)
    return found


class TooLong(Exception):
    """No command expects it."""


@contextmanager
def at_most(seconds: int) -> Iterator[None]:
    """End what takes longer."""

    def stop(*_: object) -> None:
        raise TooLong

    previous = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def costs_one_line(arguments: list[str], world: Path, capsys) -> str:
    """Check that these arguments are refused as a mistake is, and give the complaint."""
    before = contents(world)
    with at_most(10):
        assert main(arguments) == 2
    captured = capsys.readouterr()
    complaint = captured.err
    assert complaint.startswith("nanogpt: ")
    assert complaint.endswith("\n")
    assert complaint[:-1].isprintable()  # so it is one line, too
    assert len(complaint) < 1050
    assert captured.out == ""
    assert contents(world) == before
    return complaint


def table(lines: list[str], names: dict[str, str]) -> list:
    """Each command with each name, as parameters of a test."""
    return [
        pytest.param([word.replace("{}", name) for word in line.split()], name, id=f"{line}-{kind}")
        for line in lines
        for kind, name in names.items()
        if (line, kind) not in FINE
    ]


@pytest.mark.parametrize(
    ("arguments", "name"),
    table(READS, UNREADABLE)
    + table(WRITES, UNWRITABLE)
    + table([line for line in WRITES if "out" in line or "grade" in line], NO_FILE)
    + table([line for line in WRITES if "run" in line or "folder" in line], NO_FOLDER),
)
def test_a_hostile_path_costs_one_line_that_names_it(arguments, name, world, monkeypatch, capsys):
    monkeypatch.chdir(world)
    complaint = costs_one_line(arguments, world, capsys)
    parts = "".join(c if c.isprintable() else "\n" for c in name).split()
    longest = max(parts, key=len, default="")[:9]
    assert (longest in complaint) if longest else complaint


STRANGE = {"a newline": "new\nline", "escape codes": "red\x1b[31m\x07", "right to left": "\u202ex"}


@pytest.mark.filterwarnings("ignore:Glyph")  # as the command line does
@pytest.mark.parametrize("name", STRANGE.values(), ids=STRANGE)
@pytest.mark.parametrize(
    "line",
    ["tokenizer train abc.txt --vocab-size 260 --out {}", "export run {}", "data show --out {}",
     "exercise start --folder {}", "exercise grade learner --report {}", "lab heads run --out {}",
     "train --run {} --data.source abc.txt SMALL"],
)  # fmt: skip
def test_a_strange_name_works_and_never_steers_the_terminal(
    line, name, world, tmp_path, monkeypatch, capsys
):
    here = shutil.copytree(world, tmp_path / "here", symlinks=True)
    monkeypatch.chdir(here)
    words = line.replace("SMALL", " ".join(SMALL)).split()
    assert main([word.replace("{}", name) for word in words]) == 0
    assert (here / name).exists()
    captured = capsys.readouterr()
    shown = captured.out + captured.err
    assert all(c.isprintable() or c == "\n" for c in shown), shown
