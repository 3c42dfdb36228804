"""Judging a learner's file in a process of its own, with limits: `python -m nanogpt.learn.judging`.

The file may run for ever, exit, or take all memory: the process ends at its limits, and the learner
gets a sentence about it.
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
BYTES_PRINTED = 16 << 20  # the output has a file of its own, and so has the verdict
PRINTED = 2000  # characters of what a file prints that are shown


def judge_file(
    path: str | Path, exercise: Exercise, seconds: float = SECONDS
) -> tuple[Verdict, str]:
    """Judge a learner's file; the verdict, and what the file printed."""
    path = Path(path)
    if not path.exists():
        said = f"There is no {path}: `nanogpt exercise start` puts it there."
        return Verdict(False, "missing", said), ""
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        command = [
            sys.executable,
            "-P",  # otherwise a learner's random.py would replace Python's
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
                cwd=path.resolve().parent,  # finds the file's own helpers, and no others
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
            try:
                wait_until_ready(process, place)
                code = process.wait(seconds)
                verdict = verdict_in(place, code)
            except subprocess.TimeoutExpired:
                verdict = out_of_time(place, seconds)
            finally:
                with suppress(ProcessLookupError):  # what it has started ends, too
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        text = (place / "printed").read_bytes().decode(errors="replace")
        return verdict, text if len(text) <= PRINTED else text[:PRINTED] + " ..."


def wait_until_ready(process: "subprocess.Popen[bytes]", place: Path) -> None:
    """Wait until torch is loaded, a minute at most. That time does not count for the learner."""
    deadline = time.monotonic() + SECONDS_TO_START
    while not (place / "ready").exists() and process.poll() is None:
        if time.monotonic() > deadline:
            raise subprocess.TimeoutExpired(process.args, SECONDS_TO_START)
        time.sleep(0.02)


def verdict_in(place: Path, code: int) -> Verdict:
    """The verdict that the process wrote, or what its end means."""
    if (place / "verdict.json").exists():
        return Verdict(**read_json(place / "verdict.json"))
    how = "it was killed; does it use all memory?" if code < 0 else f"exit code {code}"
    return Verdict(
        False, "ends-by-itself",
        f"The file ended the program ({how}). It should only define the function.",
        case_in(place),
    )  # fmt: skip


def out_of_time(place: Path, seconds: float) -> Verdict:
    """What to say of a file that never ends."""
    case = case_in(place)
    where = (
        "in this case" if case else "while the file was imported, before any function was called"
    )
    return Verdict(
        False,
        "never-ends",
        f"It was not finished after {seconds:g} seconds, {where}. Is there an endless loop?",
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
        write_verdict(
            place, Verdict(False, "cannot-be-read", f"The file cannot be imported: {error}")
        )
        return
    candidate = getattr(module, exercise.symbol, None)
    if not callable(candidate):
        names = [n for n, v in vars(module).items() if callable(v) and n[0] != "_"]
        write_verdict(
            place,
            Verdict(
                False,
                "not-defined",
                f"The file does not define `{exercise.symbol}`"
                + (f"; it defines {', '.join(names[:5])}." if names else "."),
            ),
        )
        return
    write_verdict(place, judge(exercise, candidate, lambda case: write_text(place / "case", case)))


def write_verdict(place: Path, verdict: Verdict) -> None:
    """Write the verdict for the process that waits for it."""
    written = {
        key: value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
        for key, value in asdict(verdict).items()  # a learner's text may not be valid Unicode
    }
    write_json(place / "verdict.json", written)


def limit_resources() -> None:
    """A file that grows or runs for ever should reach a limit before the machine does."""
    try:
        import resource
    except ImportError:  # Windows does not have this module
        return
    limits = {
        resource.RLIMIT_DATA: BYTES,
        resource.RLIMIT_FSIZE: BYTES_PRINTED,
        # The waiting process ends this one sooner, unless it was killed itself.
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
