"""Streams that are closed, full, abandoned, narrow or slow: no command ends in a traceback.

The second half of this file is a program of its own. It imports everything once, and then starts
each command as a fork of itself with the streams of a condition, which saves seconds for each.
"""

import contextlib
import fcntl
import importlib
import json
import os
import pty
import shutil
import subprocess
import sys
import tempfile
import termios
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from struct import pack

import pytest

from nanogpt.cli import COMMANDS, main, run

sys.path.append(str(Path(__file__).parent.parent))  # where it runs as a program
from conftest import SMALL, TEXT

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/dev/full, pty")

PLUGIN = Path(__file__).parent.parent / "plugins" / "lion.py"
TINY = " ".join(SMALL)

# Each command, in a form that takes a moment. Some write files: to a folder of their own each time.
LINES = [
    "--help", "--version", "train --help", "generate run", "generate run --explain",
    "evaluate run", "evaluate run --json --documents", "export run NEW", "chat run",
    "data show --out NEW/batches.png", "plan TINY", "plan TINY --json", "learn",
    "prepare abc.txt --data.folder NEW", "train --data.source abc.txt --run NEW TINY",
    f"lab check {PLUGIN}", "lab heads run --out NEW", "exercise start --folder NEW",
    "exercise check merge --folder learner", "exercise hint merge --folder learner",
    "exercise grade learner", "completion bash", "completion zsh", "completion fish",
    "tokenizer train abc.txt --vocab-size 260 --out NEW/t.json", "tokenizer encode hello",
    "tokenizer decode 17", "tokenizer explain hello", "tokenizer compare hello",
    "tokenizer stats abc.txt --vocab-size 260 --out NEW/t.png", "learn test --folder NEW",
    "serve --help", "explore --help", "publish --help", "assistant --help",
    "eject demo NEW.py --force",
    "demo --seconds 1 --data.source abc.txt --run NEW TINY", "speedrun check --help",
]  # fmt: skip
LISTENING = ["tokenizer encode -", "tokenizer decode", "generate run --prompt -", "chat run",
             "learn test --folder NEW"]  # fmt: skip
MISTAKES = ["trian", "train --lr 3", "evaluate no-run", "tokenizer encode", "lab run no-study"]


def played(world: Path, lines: list[str], **streams: object) -> list[tuple[str, int, str, str]]:
    """Run each line with these streams: the line, the exit code, what it printed, its errors."""
    jobs = [
        line.replace("NEW", f"new/{number}").replace("TINY", TINY).split()
        for number, line in enumerate(lines)
    ]
    done = subprocess.run(
        [sys.executable, __file__], input=json.dumps({"jobs": jobs, **streams}), cwd=world,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    return [(line, *result) for line, result in zip(lines, results, strict=True)]


@pytest.fixture
def world(trained_run: Callable[..., Path], tmp_path: Path) -> Path:
    """A folder with a run, a text and a learner's folder."""
    shutil.copytree(trained_run(), tmp_path / "run")
    (tmp_path / "abc.txt").write_text(TEXT)
    assert main(["exercise", "start", "--folder", str(tmp_path / "learner")]) == 0
    return tmp_path


def test_every_command_is_here():
    assert {line.split()[0] for line in LINES} >= {*COMMANDS} - {"compare"}  # which takes too long


some_and_all = pytest.mark.parametrize(
    "lines",
    [pytest.param(LINES[::4], id="some"), pytest.param(LINES, id="all", marks=pytest.mark.slow)],
)


@some_and_all
def test_a_reader_that_has_gone_ends_every_command_quietly(lines, world):
    """`nanogpt evaluate run | head -1`: the code that a shell knows from every other program."""
    for line, code, _, errors in played(world, lines, stdout="abandoned"):
        assert code == 141, (line, errors)
        assert errors == "" or (line, "Traceback" in errors) == ("exercise grade learner", False)


@some_and_all
def test_a_full_disk_under_the_output_is_one_line(lines, world):
    for line, code, _, errors in played(world, lines, stdout="full"):
        assert code == 2, (line, errors)
        complaint = errors.splitlines()[-1]  # the progress of a grading comes before it
        assert complaint.startswith("nanogpt: standard output: No space left on device; "), line
        assert errors.count("\n") == 1 + (line == "exercise grade learner"), line


@some_and_all
def test_a_closed_output_changes_nothing_else(lines, world):
    usual = {line: code for line, code, _, _ in played(world, lines, stdout="file")}
    shutil.rmtree(world / "new", ignore_errors=True)
    for line, code, _, errors in played(world, lines, stdout="closed"):
        assert code == usual[line], (line, errors)
        assert "Traceback" not in errors, line


@some_and_all
def test_a_closed_input_is_one_line_for_those_who_read_it(lines, world):
    for line, code, _, errors in played(world, LISTENING, stdin="closed", stdout="file"):
        assert code == 2, (line, errors)
        assert errors.startswith("nanogpt: standard input is closed; "), line
    rest = [line for line in lines if line not in LISTENING]
    for line, code, _, errors in played(world, rest, stdin="closed", stdout="file"):
        assert code in (0, 1), (line, errors)  # 1: an exercise that is not written yet
        assert "Traceback" not in errors, line


@pytest.mark.parametrize("where", ["closed", "full", "abandoned"])
def test_a_mistake_that_nobody_can_read_keeps_its_exit_code(where, world):
    for line, code, printed, _ in played(world, MISTAKES, stdout="file", stderr=where):
        assert (code, printed) == (2, ""), line


NARROW = {"COLUMNS": "1", "LINES": "1"}


@pytest.mark.parametrize(
    ("width", "environment"),
    [
        pytest.param(80, {"TERM": "dumb", "NO_COLOR": "1"}, id="no colours"),
        pytest.param(1, {"PYTHONIOENCODING": "ascii", **NARROW}, id="one column, ascii"),
        pytest.param(80, {"TERM": "xterm"}, id="usual", marks=pytest.mark.slow),
        pytest.param(1, {"TERM": "xterm"}, id="one column", marks=pytest.mark.slow),
        pytest.param(0, {"TERM": "dumb"}, id="no size", marks=pytest.mark.slow),
        pytest.param(80, {"LANG": "C", "LC_ALL": "C"}, id="no language", marks=pytest.mark.slow),
    ],
)
def test_every_terminal_will_do(width, environment, world):
    lines = ["trian", "data show --out NEW/b.png", "learn", "evaluate run --documents",
             "tokenizer compare naïve", "train --data.source abc.txt --run NEW TINY"]  # fmt: skip
    results = played(world, lines, stdout="terminal", width=width, environment=environment)
    for line, code, printed, _ in results:
        assert code == (2 if line == "trian" else 0), (line, printed)
        assert "Traceback" not in printed, line
        assert not ("NO_COLOR" in environment and "\x1b[3" in printed), (line, printed)
    assert results[0][2].endswith("did you mean train?\r\n")


def test_a_terminal_shows_at_once_what_takes_a_while_and_a_pipe_does_not(world):
    for line, _, printed, _ in played(world, ["evaluate run"], stdout="terminal", width=80):
        assert printed.startswith("loading evaluate ...\r" + " " * 20 + "\r"), line
    for line, _, printed, errors in played(world, ["evaluate run"], stdout="file"):
        assert "loading" not in printed + errors, line


def test_a_slow_reader_gets_everything(world):
    """Also where the pipe is one that does not wait, as some programs leave it."""
    for (line, code, printed, errors), (_, _, whole, _) in zip(
        played(world, ["completion bash", "train --help-all"], stdout="slow"),
        played(world, ["completion bash", "train --help-all"], stdout="file"),
        strict=True,
    ):
        assert (code, errors) == (0, ""), line
        assert printed == whole, line
        assert len(whole) > 8000, line


# The program.


def opened(kind: str, width: int) -> tuple[int, int | None]:
    """A stream of a kind: the descriptor to write to, and the one to read what was written."""
    if kind == "full":
        return os.open("/dev/full", os.O_WRONLY), None
    if kind == "file":
        handle, path = tempfile.mkstemp()
        reading = os.open(path, os.O_RDONLY)
        os.unlink(path)
        return handle, reading
    if kind == "terminal":
        reading, writing = pty.openpty()
        fcntl.ioctl(writing, termios.TIOCSWINSZ, pack("HHHH", 24, width, 0, 0))
        return writing, reading
    reading, writing = os.pipe()
    if kind == "abandoned":
        os.close(reading)
        return writing, None
    os.set_blocking(writing, False)  # slow
    return writing, reading


def all_of(reading: int | None, pause: float) -> str:
    """Everything that is written, until nobody can write any more."""
    parts = []
    while reading is not None:
        time.sleep(pause)
        try:
            part = os.read(reading, 16384)
        except OSError:  # how a terminal ends
            break
        if not part:
            break
        parts.append(part)
    return b"".join(parts).decode(errors="replace")


def child(arguments: list[str], streams: dict[int, int | None], environment: dict) -> None:
    """Become the command, with these descriptors as its standard streams; None is closed."""
    for number, descriptor in streams.items():
        if descriptor is not None:
            os.dup2(descriptor, number)
    for number, descriptor in streams.items():
        if descriptor is None:
            os.close(number)
    os.environ.update(environment)
    encoding = os.environ.get("PYTHONIOENCODING", "utf-8")
    sys.argv = ["nanogpt", *arguments]
    # As Python finds them when it starts.
    sys.stdin, sys.stdout, sys.stderr = (
        None if descriptor is None else open(number, mode, encoding=encoding, closefd=False)  # noqa: SIM115
        for (number, descriptor), mode in zip(streams.items(), "rww", strict=True)
    )
    code: object = 120  # what Python ends with if it cannot write what is left
    try:
        run()
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        os._exit(code if isinstance(code, int) else 1)
    os._exit(120)


def play(jobs: list[list[str]], stdin: str = "null", stdout: str = "file", stderr: str = "file",
         width: int = 80, environment: dict | None = None) -> None:  # fmt: skip
    """Run each job in a fork, and print the exit codes and what was written as JSON."""
    for command in COMMANDS:
        importlib.import_module(f"nanogpt.cli.{command}")
    results = []
    for arguments in jobs:
        kinds = {1: stdout, 2: "terminal" if stdout == "terminal" else stderr}
        pairs = {n: (None, None) if kind == "closed" else opened(kind, width)
                 for n, kind in kinds.items()}  # fmt: skip
        if stdout == "terminal":
            pairs[2] = pairs[1]
        given = None if stdin == "closed" else os.open(os.devnull, os.O_RDONLY)
        process = os.fork()
        if not process:
            child(arguments, {0: given, 1: pairs[1][0], 2: pairs[2][0]}, environment or {})
        for descriptor in {given, pairs[1][0], pairs[2][0]} - {None}:
            os.close(descriptor)
        pause = 0.02 if stdout == "slow" else 0
        if stdout == "file":  # a file ends before it is written
            code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
            printed = all_of(pairs[1][1], pause)
        else:
            printed = all_of(pairs[1][1], pause)
            code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        errors = "" if stdout == "terminal" else all_of(pairs[2][1], 0)
        results.append((code, printed, errors))
    print(json.dumps(results))


if __name__ == "__main__":
    play(**json.loads(sys.stdin.read()))
