"""Judging a learner's file in a process of its own, with limits: `python -m nanogpt.learn.judging`.

Whatever the file does, an endless loop, an exit, all memory, it ends there, and the learner gets a
sentence about it.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from nanogpt.errors import UserError
from nanogpt.files import read_json, write_json, write_text
from nanogpt.lab.plugin import load_module
from nanogpt.learn.exercise import Exercise, Verdict, judge
from nanogpt.learn.exercises import EXERCISES
from nanogpt.workers import end_with_parent

SECONDS = 10.0
SECONDS_TO_START = 60.0
BYTES = 4 << 30
BYTES_PRINTED = 16 << 20  # in a file of its own; the verdict is another
PRINTED = 2000  # characters of what a file prints that are shown


def judge_file(path: Path, exercise: Exercise, seconds: float = SECONDS) -> tuple[Verdict, str]:
    """Judge a learner's file; the verdict, and what the file printed."""
    if not path.exists():
        said = f"There is no {path}: `nanogpt exercise start` puts it there."
        return Verdict(False, "missing", said), ""
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        command = [
            sys.executable,
            "-P",  # or a learner's random.py would be taken for Python's
            "-m",
            "nanogpt.learn.judging",
            exercise.name,
            str(path.resolve()),
        ]
        with (place / "printed").open("wb") as printed:
            process = subprocess.Popen(
                [*command, temporary],
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=printed,
                start_new_session=True,
                cwd=path.resolve().parent,  # its own helpers are found, and nobody else's
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
            try:
                wait_until_ready(process, place)
                code = process.wait(seconds)
                verdict = verdict_in(place, code)
            except subprocess.TimeoutExpired:
                verdict = out_of_time(place, seconds)
            finally:
                with suppress(ProcessLookupError):  # whatever it has started ends, too
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        text = (place / "printed").read_bytes().decode(errors="replace")
        return verdict, text if len(text) <= PRINTED else text[:PRINTED] + " ..."


def wait_until_ready(process: "subprocess.Popen[bytes]", place: Path) -> None:
    """Until torch is loaded, which is no fault of the learner's; a minute at most."""
    deadline = time.monotonic() + SECONDS_TO_START
    while not (place / "ready").exists() and process.poll() is None:
        if time.monotonic() > deadline:
            raise subprocess.TimeoutExpired(process.args, SECONDS_TO_START)
        time.sleep(0.02)


def verdict_in(place: Path, code: int) -> Verdict:
    """What the process left, or what its end means."""
    if (place / "verdict.json").exists():
        return Verdict(**read_json(place / "verdict.json"))
    how = "it was killed; does it take all memory?" if code < 0 else f"exit code {code}"
    return Verdict(
        False, "ends-by-itself",
        f"The file ended the program by itself ({how}). It should define the function and return.",
        case_in(place),
    )  # fmt: skip


def out_of_time(place: Path, seconds: float) -> Verdict:
    """What to say of a file that never ends."""
    case = case_in(place)
    where = "in this case" if case else "while it was being read, before any function was called"
    return Verdict(
        False,
        "never-ends",
        f"It was not ready after {seconds:g} seconds, {where}. Is there a loop that never ends?",
        case,
    )


def case_in(place: Path) -> str:
    """The case that was being tried, if there was one."""
    return (place / "case").read_text() if (place / "case").exists() else ""


def main(name: str, path: Path, place: Path) -> None:
    """Judge one file and write verdict.json."""
    limit_resources()
    exercise = EXERCISES[name]
    (place / "ready").touch()
    sys.path.insert(0, str(path.parent))
    try:
        module = load_module(path)
    except UserError as error:
        write_verdict(place, Verdict(False, "cannot-be-read", f"It cannot be read: {error}"))
        return
    candidate = getattr(module, exercise.symbol, None)
    if not callable(candidate):
        names = [n for n, v in vars(module).items() if callable(v) and n[0] != "_"]
        write_verdict(
            place,
            Verdict(
                False,
                "not-defined",
                f"It defines no `{exercise.symbol}`, which is what is asked for"
                + (f"; there is {', '.join(names[:5])}." if names else "."),
            ),
        )
        return
    write_verdict(place, judge(exercise, candidate, lambda case: write_text(place / "case", case)))


def write_verdict(place: Path, verdict: Verdict) -> None:
    """Leave the verdict for the process that waits for it."""
    written = {
        key: value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
        for key, value in asdict(verdict).items()  # a learner's text may be no Unicode
    }
    write_json(place / "verdict.json", written)


def limit_resources() -> None:
    """What grows or runs for ever should meet a limit before the machine does."""
    try:
        import resource
    except ImportError:  # Windows has no such limits
        return
    limits = {
        resource.RLIMIT_DATA: BYTES,
        resource.RLIMIT_FSIZE: BYTES_PRINTED,
        # The clock of the waiting process is sooner; this one outlives it.
        resource.RLIMIT_CPU: int(SECONDS_TO_START + 2 * SECONDS),
    }
    for kind, limit in limits.items():
        _, most = resource.getrlimit(kind)
        resource.setrlimit(
            kind, (limit if most == resource.RLIM_INFINITY else min(limit, most), most)
        )


if __name__ == "__main__":
    end_with_parent()
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
