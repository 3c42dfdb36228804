"""Judging a learner's file in a process of its own, with limits.

The process that judges has loaded torch and the package. For each file it forks a copy of itself,
which is there at once. The copy runs the learner's code on the cases and writes down what comes
out, as plain data. Only the first process knows the right answers and compares, and no learner's
code ever runs in it. Where a process cannot be forked, because the system has no fork or because it
has threads, a fresh one is started: `python -m nanogpt.learn.judging`. It needs seconds to begin.

The file may run for ever, exit, crash or take all memory: its process ends at its limits, and the
learner gets a sentence about it. This is not a sandbox: see docs/teaching.md.
"""

import faulthandler
import inspect
import json
import linecache
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from types import FunctionType
from typing import IO, Any, TypeVar

import torch

from nanogpt.errors import UserError
from nanogpt.lab.plugin import load_module
from nanogpt.learn import collectives
from nanogpt.learn.answers import Answer, raised, read, written
from nanogpt.learn.exercise import (
    OWN,
    PARTS,
    Exercise,
    Known,
    Verdict,
    answers,
    answers_of_mistakes,
    answers_of_package,
    described,
    not_acceptable,
    verdict_on,
)
from nanogpt.learn.exercises import EXERCISES
from nanogpt.model import attention
from nanogpt.text import batches, bpe
from nanogpt.workers import end_with_parent, hear_signals, signals_held_back, usable_cores

T = TypeVar("T")

SECONDS = 10.0
SECONDS_TO_START = 60.0
BYTES = 4 << 30
BYTES_PRINTED = 16 << 20  # the output has a file of its own, and so have the answers
PRINTED = 2000  # characters of what a file prints that are shown
MOMENT = 0.005  # seconds between two looks at a process

# What else of the package does all that an exercise asks for.
TWINS: dict[Any, list[Any]] = {
    bpe.train_naive: [bpe.train],
    bpe.encode_word: [bpe.merge_steps],
    batches.sliding_windows: [batches.sliding_window],
    attention.attention: [attention.attention_weights],
    collectives.all_reduce: [collectives.reduce_scatter, collectives.all_gather],
}

ENDS = {
    signal.SIGSEGV: "segmentation fault", signal.SIGBUS: "bus error",
    signal.SIGABRT: "aborted", signal.SIGFPE: "floating-point exception",
    signal.SIGILL: "illegal instruction",
}  # fmt: skip


def judge_file(
    path: str | Path, exercise: Exercise, seconds: float = SECONDS
) -> tuple[Verdict, str]:
    """Judge a learner's file; the verdict, and what the file printed."""
    (result,) = judge_files([(path, exercise)], seconds)
    return result


def judge_files(
    files: Iterable[tuple[str | Path, Exercise]], seconds: float = SECONDS
) -> Iterator[tuple[Verdict, str]]:
    """Judge many files, as many at a time as there are cores; results in the order of the files."""
    waiting = iter(files)
    trials: deque[Trial] = deque()
    more = True
    try:
        while more or trials:
            while more and sum(not trial.ended for trial in trials) < usable_cores():
                file = next(waiting, None)
                more = file is not None
                if file:
                    with signals_held_back():  # until it is known that this one must be ended
                        trials.append(Trial(Path(file[0]), file[1], seconds))
            for trial in trials:
                trial.look()
            while trials and trials[0].ended:
                yield trials.popleft().result()
            time.sleep(MOMENT if trials else 0)
    finally:
        for trial in trials:
            trial.end()


class Trial:
    """One file in a process of its own, from its start to its verdict."""

    def __init__(self, path: Path, exercise: Exercise, seconds: float) -> None:
        self.path, self.exercise, self.seconds = path, exercise, seconds
        self.missing, self.late = not path.exists(), False
        self.ended = self.missing
        if self.missing:
            return
        self.folder = tempfile.TemporaryDirectory()
        self.place = Path(self.folder.name)
        self.process: Forked | subprocess.Popen[bytes]
        if can_fork():
            self.process = Forked(lambda: in_own_process(exercise, path.resolve(), self.place))
        else:
            self.process = fresh_process(exercise, path.resolve(), self.place)
        self.deadline = time.monotonic() + SECONDS_TO_START
        self.ready = False

    def look(self) -> None:
        """See whether the process has ended, and end it if its time is up."""
        if self.ended:
            return
        if not self.ready and (self.place / "answers").exists():
            self.ready = True  # to load torch does not count for the learner
            self.deadline = time.monotonic() + self.seconds
        if self.process.poll() is not None:
            self.end()
        elif time.monotonic() > self.deadline:
            self.late = True
            self.end()

    def end(self) -> None:
        """End the process and everything that it has started."""
        if self.ended:
            return
        self.ended = True
        if self.process.poll() is None:  # it may not have a session of its own yet
            os.kill(self.process.pid, signal.SIGKILL)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def result(self) -> tuple[Verdict, str]:
        """The verdict, and what the file printed."""
        if self.missing:
            said = f"There is no {self.path}: `nanogpt exercise start` puts it there."
            return Verdict(False, "missing", said), ""
        try:
            text = (self.place / "printed").read_bytes().decode(errors="replace")
            # What follows the last line break is not complete.
            lines = (self.place / "answers").read_text("utf-8", "replace").split("\n")[:-1]
        except FileNotFoundError:
            text, lines = "", []
        verdict = self.verdict(lines)
        self.folder.cleanup()
        return verdict, text if len(text) <= PRINTED else text[:PRINTED] + " ..."

    def verdict(self, lines: list[str]) -> Verdict:
        """What the lines mean that the process has written, and how it ended."""
        exercise = self.exercise
        cases = exercise.cases()
        problem = next((line for line in lines if line.startswith("!")), "")
        if problem:
            _, name, said = problem.split("\t", 2)
            return Verdict(False, name, said)
        try:
            found = readable(lines)
        except ValueError as error:
            said = f"What the file sent to the judge cannot be read: {error}."
            return Verdict(False, "unreadable", said)
        results, gradients = found[: len(cases)], found[len(cases) :]
        verdict = verdict_on(exercise, results, gradients, right_answers, known_mistakes)
        if not verdict.passed or len(found) == len(PARTS) * len(cases):
            return verdict
        place = len(found) % len(cases)
        return self.what_ended_it("" if not self.ready else described(exercise, cases[place]))

    def what_ended_it(self, case: str) -> Verdict:
        """What to say of a file that did not get through all cases."""
        imported = (self.place / "imported").exists()
        case = case if imported else ""
        where = "in this case" if imported else "while the file was imported"
        code = self.process.returncode or 0
        if self.late or -code == getattr(signal, "SIGXCPU", 0):
            if not imported:
                where += ", before any function was called"
            said = f"It was not finished after {self.seconds:g} seconds, {where}. "
            return Verdict(False, "never-ends", said + "Is there an endless loop?", case)
        if -code in ENDS:
            said = f"Python itself crashed {where} ({ENDS[signal.Signals(-code)]}). "
            said += "A recursion without end can do that, and so can wrong shapes or indices "
            return Verdict(False, "crashes", said + "in a library.", case)
        if code < 0:
            said = f"The program was killed {where}. Does it use all memory?"
            return Verdict(False, "killed", said, case)
        said = f"The file ended the program {where} (exit code {code}). "
        return Verdict(False, "ends-by-itself", said + "It should only define the function.", case)


def readable(lines: Sequence[str]) -> list[Answer]:
    """The answers that the lines hold. Raises ValueError if one before the last holds none."""
    found = []
    for number, line in enumerate(lines, 1):
        try:
            found.append(read(line))
        except ValueError:
            if number < len(lines):  # the last one may have been cut off for lack of memory
                found.append(read(line))  # once more: this process may have lacked it, too
    return found


class Forked:
    """A copy of this process that calls a function and ends; with the methods of Popen."""

    def __init__(self, function: Callable[[], None]) -> None:
        self.returncode: int | None = None
        # The warnings are about threads inside libraries, which stay idle.
        with signals_held_back(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.pid = os.fork()
        if not self.pid:
            code = 1
            try:
                function()
                code = 0
            except SystemExit as stop:
                code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
            except BaseException:
                traceback.print_exc()
            finally:
                with suppress(BaseException):
                    sys.stdout.flush()
                os._exit(code & 255)  # nothing of the first process is ended or written twice

    def poll(self) -> int | None:
        """The exit code, or minus the number of a signal; None while it runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self) -> int:
        """The same, when it has ended."""
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode


def can_fork() -> bool:
    """Whether a copy of this process would work: threads and CUDA do not survive a fork."""
    # threading.active_count() does not see the threads that test runners and notebooks start.
    alone = len(sys._current_frames()) == 1 and not torch.cuda.is_initialized()
    return sys.platform == "linux" and alone


def fresh_process(exercise: Exercise, path: Path, place: Path) -> "subprocess.Popen[bytes]":
    """The same as a new Python, which first has to load torch."""
    # -P: otherwise a learner's random.py would replace Python's.
    command = [sys.executable, "-P", "-m", "nanogpt.learn.judging", exercise.name, str(path)]
    with (place / "printed").open("wb") as printed:
        return subprocess.Popen(
            [*command, str(place)], stdin=subprocess.DEVNULL, stdout=printed, stderr=printed,
            start_new_session=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip


def apart(
    function: Callable[[Exercise], list[Known]], exercises: Sequence[Exercise]
) -> list[list[Known]]:
    """Call a function of the package for each exercise, each in a forked copy.

    It may run backward passes. Where there is a GPU, autograd starts threads for these, and a
    process that has done so cannot be forked again.
    """
    if not can_fork():
        return [function(exercise) for exercise in exercises]

    def call(exercise: Exercise, file: IO[str]) -> None:
        prepare_torch()
        for known in function(exercise):
            lines = [json.dumps([known.name, *known.effects]), *map(written, known.answers)]
            file.write("\n".join(lines) + "\n\n")
        file.flush()

    found = []
    with ExitStack() as files:
        started = []
        for exercise in exercises:
            file = files.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8"))
            started.append((Forked(partial(call, exercise, file)), file))
        for process, file in started:
            if process.wait():
                raise RuntimeError("the package's own answers cannot be computed")
            file.seek(0)
            found.append([known_from(part) for part in file.read().split("\n\n") if part])
    return found


def known_from(text: str) -> Known:
    """A Known from its lines: a name with the cases that it gets wrong, then its answers."""
    head, *lines = text.split("\n")
    name, *effects = json.loads(head)
    return Known(name, [read(line) for line in lines], effects)


def as_known(exercise: Exercise) -> list[Known]:
    """The package's own answers, which are wrong in no case."""
    return [Known("", answers_of_package(exercise), [])]


@cache
def right_answers(exercise: Exercise) -> list[Answer]:
    """See exercise.answers_of_package."""
    return list(apart(as_known, [exercise])[0][0].answers)


@cache
def known_mistakes(exercise: Exercise) -> list[Known]:
    """See exercise.answers_of_mistakes; a part of them on each core."""
    mistakes = exercise.mistakes
    size = math.ceil(len(mistakes) / usable_cores())
    parts = [mistakes[n : n + size] for n in range(0, len(mistakes), size)]
    found = apart(answers_of_mistakes, [replace(exercise, mistakes=part) for part in parts])
    return [known for part in found for known in part]


def in_own_process(exercise: Exercise, path: Path, place: Path) -> None:
    """What the forked copy does first: it becomes like a fresh process, in its own session."""
    os.setsid()
    faulthandler.disable()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    descriptor = os.open(place / "printed", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    for number, target in enumerate((null, descriptor, descriptor)):
        os.dup2(target, number)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", closefd=False, errors="replace")  # noqa: SIM115
    sys.stderr = open(2, "w", 1, closefd=False, errors="replace")  # noqa: SIM115
    run_file(exercise, path, place)


def prepare_torch() -> None:
    """One thread, and no compiler.

    An optimizer of torch's loads the compiler, which takes a second, only to switch it off for one
    of its methods. It does not if it finds this note that it has been done.
    """
    torch.set_num_threads(1)
    method = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    setattr(method, "__dynamo_disable", method)


def run_file(exercise: Exercise, path: Path, place: Path) -> None:
    """Run a learner's file on the cases, and write an answer a line to the file `answers`."""
    hear_signals()
    limit_resources()
    end_with_parent()
    prepare_torch()
    close_solution(exercise)
    os.chdir(path.parent)  # finds the file's own helpers, and no others
    sys.path.insert(0, str(path.parent))
    with (place / "answers").open("w", encoding="utf-8", buffering=1) as file:
        candidate = candidate_in(path, exercise)
        if isinstance(candidate, Problem):
            file.write(f"!\t{candidate.name}\t{' '.join(candidate.said.split())}\n")
            return
        (place / "imported").touch()
        try:
            for part in PARTS:
                for answer in answers(exercise, candidate, part):
                    file.write(written(answer) + "\n")
        except KeyboardInterrupt as stop:
            file.write(written(Answer(raised(stop, candidate))) + "\n")


class Problem(tuple[str, str]):
    """Why a file cannot even be tried: the name of a mistake, and what to say."""

    @property
    def name(self) -> str:
        """The name of the mistake."""
        return self[0]

    @property
    def said(self) -> str:
        """What to say of it."""
        return self[1]


def candidate_in(path: Path, exercise: Exercise) -> Any:
    """What a learner's file defines for an exercise, or the Problem with it."""
    try:
        module = load_module(path)
    except UserError as error:
        name = "the-packages-own" if OWN in str(error) else "cannot-be-read"
        return Problem((name, f"The file cannot be imported: {error}"))
    except KeyboardInterrupt:
        said = "The file raises KeyboardInterrupt, as Ctrl-C does, while it is imported."
        return Problem(("cannot-be-read", said))
    candidate = getattr(module, exercise.symbol, None)
    if not callable(candidate):
        names = [n for n, v in vars(module).items() if callable(v) and n[0] != "_"]
        defines = f"; it defines {', '.join(names[:5])}." if names else "."
        said = f"The file does not define `{exercise.symbol}`{defines}"
        return Problem(("not-defined", said))
    problem = not_acceptable(exercise.reference, candidate)
    return Problem(problem) if problem else candidate


def close_solution(exercise: Exercise) -> None:
    """Make the package's own solution useless in this process, wherever it is known.

    Its code is exchanged, so no import, wrapper or subclass reaches it. The files of the package
    that are loaded are closed to reading, so it cannot be compiled again.
    """
    parts = [exercise.reference, *TWINS.get(exercise.reference, [])]
    parts += [exercise.replaces] if inspect.isfunction(exercise.replaces) else []
    for part in parts:
        for name in exercise.write if inspect.isclass(part) else [""]:
            function = part.__dict__[name] if name else part
            if isinstance(function, FunctionType):
                own = f"{part.__name__}.{name}" if name else part.__name__
                function.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
                function.__code__ = refusing(own, function.__code__.co_freevars)
    own_modules = [m for n, m in sys.modules.items() if n.partition(".")[0] == "nanogpt"]
    paths = (getattr(m, name, None) for m in own_modules for name in ("__file__", "__cached__"))
    files = {os.path.realpath(path) for path in paths if path}
    linecache.clearcache()

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        named = event == "open" and isinstance(arguments[0], str | bytes)
        if named and os.path.realpath(os.fsdecode(arguments[0])) in files:
            raise PermissionError(f"{OWN} source; it is closed while your file is judged")

    sys.addaudithook(refuse)


def refusing(name: str, free: tuple[str, ...]) -> Any:
    """The code of a function that says whose it is."""
    said = f"{OWN} `{name}`. Write it yourself."
    scope: dict[str, Any] = {}
    exec(f"def refuse(*_, **__):\n    raise RuntimeError({said!r})", scope)
    return scope["refuse"].__code__.replace(co_freevars=free)


def limit_resources() -> None:
    """A file that grows or runs for ever should reach a limit before the machine does."""
    try:
        import resource
    except ImportError:  # Windows does not have this module
        return
    limits = {
        resource.RLIMIT_DATA: BYTES,
        resource.RLIMIT_FSIZE: BYTES_PRINTED,
        resource.RLIMIT_CORE: 0,
        # The waiting process ends this one sooner, unless it was killed itself.
        resource.RLIMIT_CPU: int(SECONDS_TO_START + 2 * SECONDS),
    }
    for kind, limit in limits.items():
        _, most = resource.getrlimit(kind)
        resource.setrlimit(
            kind, (limit if most == resource.RLIM_INFINITY else min(limit, most), most)
        )


if __name__ == "__main__":
    run_file(EXERCISES[sys.argv[1]], Path(sys.argv[2]), Path(sys.argv[3]))
