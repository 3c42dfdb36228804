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
    "data show {}", "train demo --data.folder {}", "train --data.source {} --run new SMALL",
    "prepare {}", "prepare abc.txt --data.tokenizer {} --data.folder new",
    "tokenizer train {}", "tokenizer stats {}", "tokenizer stats abc.txt --tokenizer {}",
    "tokenizer encode x --tokenizer {}", "tokenizer decode 1 --tokenizer {}",
    "tokenizer explain x --tokenizer {}", "tokenizer compare x --tokenizer {}",
    "train {}", "plan {}", "lab run {}", "lab scaling {}", "lab check {}",
    "plan --plugin {}", "exercise check --folder {}", "exercise hint merge --folder {}",
    "exercise play --folder {}", "exercise grade {}",
    "explore --no-browser {}", "publish {} new.html", "serve {}", "lab circuit {}",
    "speedrun check {}", "speedrun check run --text {}",
]  # fmt: skip

# Where a command writes.
WRITES = [
    "train --data.source abc.txt --run {} SMALL", "prepare abc.txt --data.folder {}",
    "tokenizer train abc.txt --vocab-size 260 --out {}",
    "tokenizer stats abc.txt --vocab-size 260 --out {}", "data show --out {}", "export run {}",
    "lab heads run --out {}", "exercise start --folder {}", "exercise grade learner --csv {}",
    "exercise grade learner --report {}", "publish run {}",
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
FINE = {
    ("exercise check --folder {}", "an empty folder"),
    ("exercise hint merge --folder {}", "an empty folder"),
    ("publish run {}", "a file"),  # which is replaced
    ("train demo --data.folder {}", "empty"),  # as in a recipe: none
    ("prepare abc.txt --data.folder {}", "empty"),
}


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
    (folder / "learner" / "02_merge.py").write_text("merge = 1\n")
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


def words_of(line: str, name: str) -> list[str]:
    """The arguments of a line, with a name in its place."""
    return [word.replace("{}", name) for word in line.replace("SMALL", " ".join(SMALL)).split()]


def table(lines: list[str], names: dict[str, str]) -> list:
    """Each command with each name, as parameters of a test."""
    return [
        pytest.param(words_of(line, name), name, id=f"{line}-{kind}")
        for line in lines
        for kind, name in names.items()
        if (line, kind) not in FINE
    ]


@pytest.mark.parametrize(
    ("arguments", "name"),
    table(READS, UNREADABLE)
    + table(WRITES, UNWRITABLE)
    + table(
        [line for line in WRITES if line.startswith(("tok", "data", "exercise grade", "publish"))],
        NO_FILE,
    )
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
    here = shutil.copytree(world, tmp_path / "here", True, shutil.ignore_patterns("fifo"))
    monkeypatch.chdir(here)
    assert main(words_of(line, name)) == 0
    assert (here / name).exists()
    captured = capsys.readouterr()
    shown = captured.out + captured.err
    assert all(c.isprintable() or c == "\n" for c in shown), shown


HUGE = "ab " * 350_000
WORDS = {
    "an unknown command": (["trian"], "did you mean train?"),
    "no command": ([""], "'' is not a command"),
    "a command of a megabyte": ([HUGE], "is not a command"),
    "escape codes for a command": (["\x1b[2J"], "is not a command"),
    "half a character for a command": (["\udce9"], "is not a command"),
    "an unknown action": (["lab", "rnu"], "did you mean run?"),
    "an action of a megabyte": (["tokenizer", HUGE], "is not an action"),
    "no action": (["exercise", ""], "'' is not an action"),
    "an option for an action": (["data", "--out", "x"], "'--out' is not an action"),
    "an unknown option": (["train", "--lr", "3"], "did you mean --train.lr?"),
    "an unknown short option": (["train", "-x"], "-x is not an option: see `nanogpt train --help`"),
    "a bundle of short options": (["generate", "run", "-hx"], "-hx is not an option"),
    "an option of a megabyte": (["train", "--" + "x" * 10**6], "is not an option"),
    "an option without a name": (["train", "--=3"], "-- is not an option"),
    "an option that is cut off": (["generate", "run", "--num-sample", "2"], "did you mean --num-s"),
    "an option without a value": (["generate", "run", "--prompt"], "--prompt needs a value"),
    "an option for a value": (["generate", "run", "--prompt", "--explain"], "--prompt=--explain"),
    "a plugin for a value": (["generate", "run", "--prompt", "--plugin=evil.py"], "is an option"),
    "dashes for a value": (["generate", "run", "--prompt", "--"], "--prompt needs a value"),
    "dashes as a value": (["generate", "run", "--prompt=--"], "--prompt needs a value"),
    "a value for a flag": (["generate", "run", "--explain=yes"], "ignored explicit argument"),
    "a plugin without a file": (["plan", "--plugin"], "--plugin needs a value: --plugin FILE"),
    "a plugin without a name": (["plan", "--plugin="], "no such file; name a Python file"),
    "a plugin before nothing": (["--plugin"], "no such file; name a Python file"),
    "a plugin that is a folder": (["--plugin=folder", "plan"], "folder: no such file"),
    "a plugin after two dashes": (["generate", "run", "--", "--plugin=evil.py"], "unrecognized"),
    "a word too many": (["export", "run", "new", "more"], "unrecognized arguments: more"),
    "nothing": (["export"], "required: run, folder"),
    "no number": (["generate", "run", "--num-samples", "many"], "invalid int value: 'many'"),
    "half a number": (["generate", "run", "--num-samples", "1.5"], "invalid int value"),
    "a number of 9,999 digits": (["generate", "run", "--num-samples", "9" * 9999], "invalid int"),
    "an empty number": (["evaluate", "run", "--batch-size", ""], "invalid int value: ''"),
    "a number twice": (["evaluate", "run", "--stride=4", "--stride=99"], "stride=99"),
    "not a number": (["demo", "--seconds", "nan"], "--seconds nan: use a finite number"),
    "no minutes": (["lab", "scaling", "--minutes", "nan"], "--minutes nan: use a positive number"),
    "a choice of a megabyte": (["generate", "run", "--weights", HUGE], "invalid choice"),
    "a kind in another alphabet": (["tokenizer", "train", "--kind", "сhar"], "invalid choice"),
    "an unknown shell": (["completion", "cmd"], "invalid choice: 'cmd'"),
    "an unknown lesson": (["learn", "99"], "there is no lesson 99"),
    "a lesson that is no number": (["learn", "one"], "argument lesson"),
    "test after the options": (["learn", "--app", "test"], "put `test` first"),
    "no questions": (["learn", "test", "--questions", "0"], "--questions 0: use at least 1"),
    "lessons that are none": (["learn", "test", "--lessons", "0"], "there is no lesson 0"),
    "an unknown exercise": (["exercise", "hint", "x" * 10**6], "is no exercise"),
    "an exercise of another alphabet": (["exercise", "check", "mеrge"], "did you mean merge?"),
    "half a character for a text": (["tokenizer", "encode", "\udce9"], "is not UTF-8 text"),
    "half a character for a prompt": (["generate", "run", "--prompt=\udce9"], "not UTF-8 text"),
    "a text that begins with a dash": (["tokenizer", "encode", "-hello"], "goes after --"),
    "a negative id": (["tokenizer", "decode", "-1"], "'-1' is not an id"),
    "ids of a megabyte": (["tokenizer", "decode", "9" * 10**6], "is not an id"),
    "an id in another alphabet": (["tokenizer", "decode", "²"], "is not an id"),
    "an unknown recipe": (["train", "dmeo"], "did you mean demo?"),
    "settings without a section": (["plan", "demo", "--n-layer", "2"], "did you mean --model.n-l"),
    "an unknown study": (["lab", "run", "positoins"], "did you mean positions?"),
    "no plugin to check": (["lab", "check", "abc.txt"], "abc.txt"),
    "a checkpoint elsewhere": (["generate", "run", "--checkpoint", "../x"], "invalid choice"),
    "a huge stop": (["generate", "run", "--stop", HUGE, "--num-samples", "0"], "use at least 1"),
}  # fmt: skip


@pytest.mark.parametrize("words", WORDS)
def test_hostile_words_cost_one_line(words, world, monkeypatch, capsys):
    monkeypatch.chdir(world)
    evil = world.parent / "evil.py"
    evil.write_text("from pathlib import Path\nPath('ran').touch()\n")
    arguments, message = WORDS[words]
    arguments = [argument.replace("evil.py", str(evil)) for argument in arguments]
    assert message in costs_one_line(arguments, world, capsys)


@pytest.mark.parametrize(
    ("arguments", "printed"),
    [(["--", "--plugin=x.py"], "--plugin=x.py"), (["--", "-hello"], "-hello"),
     (["--tokenizer=gpt2", "- a dash"], "- a dash"), (["--a sentence"], "--a sentence"),
     (["--tokenizer", "none", "--tokenizer", "gpt2", "twice"], "twice"),
     (["naïve 🎭"], "naïve 🎭"), (["a\x1b[31mb"], "a\x1b[31mb"), (["x" * 10**6], "x" * 10**6)],
    ids=["after dashes", "a dash", "a dash and a space", "dashes", "twice", "unicode", "codes",
         "a megabyte"],
)  # fmt: skip
def test_a_strange_text_is_encoded_as_it_is(arguments, printed, capsysbinary):
    with at_most(30):
        assert main(["tokenizer", "encode", *arguments]) == 0
        ids = capsysbinary.readouterr().out.decode().split()
        assert main(["tokenizer", "decode", *ids]) == 0
    assert capsysbinary.readouterr().out.decode() == printed + "\n"


@pytest.mark.parametrize("prompt", ["-- a dash", "-5 apples", "", "DUKE: 🎭", "DUKE " * 200_000])
def test_a_strange_prompt_is_continued(prompt, world, monkeypatch, capsys):
    monkeypatch.chdir(world)
    with at_most(30):
        assert main(["generate", "run", f"--prompt={prompt}"]) == 0
    assert capsys.readouterr().out.startswith(prompt)
    if len(prompt) < 100:
        assert main(["generate", "run", "--prompt", prompt]) == 0
        assert capsys.readouterr().out.startswith(prompt)
