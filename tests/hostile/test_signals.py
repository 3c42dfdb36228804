"""Signals at random moments: a kill leaves nothing half-written, and the same command goes on.

The moments are shares of the time that the command takes, drawn from a seed. A machine is never
exactly as fast as before, so a failure here may need several tries to be seen again.
"""

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hostile.damage import contents

from nanogpt.files import read_json
from nanogpt.learn.progress import load_progress
from nanogpt.training.checkpoint import find_checkpoint, has_checkpoint, latest_step, load_tensors
from nanogpt.training.records import read_metrics

from conftest import TEXT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it forks, and looks into /proc")

# A process that has loaded everything. It forks a copy for each command, sends the copy signals,
# and says how the copy ended: loading torch anew takes seconds.
NURSERY = """
import json, os, pty, signal, sys, time, traceback
import torch
torch.set_num_threads(1)
import nanogpt.cli.exercise, nanogpt.cli.export, nanogpt.cli.lab, nanogpt.cli.prepare
import nanogpt.cli.train
import matplotlib; matplotlib.use("Agg")
from matplotlib import pyplot
from nanogpt.cli import main, stop_on_signals

def command(order, output):
    os.setsid()
    os.chdir(order["folder"])
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number in (1, 2):
        os.dup2(output, number)
    code = 1
    try:
        stop_on_signals()
        os.write(ready[1], b"!")
        code = main(order["arguments"])
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
        finally:
            os._exit(code)

for line in sys.stdin:
    order = json.loads(line)
    output = os.open(order["log"], os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    terminal, slave = pty.openpty() if order["terminal"] else (None, output)
    ready = os.pipe()
    process = os.fork()
    if not process:
        command(order, slave)
    os.close(ready[1])
    os.read(ready[0], 1)
    os.close(ready[0])
    while order["after"] and not os.path.exists(order["after"]):
        time.sleep(0.01)
    began, ended = time.monotonic(), False
    for moment, number in order["signals"]:
        while time.monotonic() < began + moment and not ended:
            ended = os.waitpid(process, os.WNOHANG)[0] and os.waitstatus_to_exitcode
            time.sleep(0.001)
        if ended:
            break
        if terminal is not None:
            os.close(terminal)
            os.close(slave)
            terminal = None
        os.kill(process, number)
    code = 0
    if not ended:
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    print(json.dumps([code, time.monotonic() - began]), flush=True)
    os.close(output)
"""

RECIPE = """
[data]
source = "text.txt"
vocab_size = 300
[model]
n_layer = 1
n_head = 1
n_embd = 8
context_length = 8
dropout = 0.1
[train]
max_steps = 40
batch_size = 2
eval_interval = 10
eval_batches = 1
sample_interval = 20
checkpoint_interval = 3
device = "cpu"
precision = "float32"
[sample]
max_new_tokens = 4
"""

STUDY = """
recipe = "tiny.toml"
seeds = [1]
[budget]
steps = 60
[vary]
"model.position" = ["learned", "none"]
"""

SOFTMAX = """
def softmax(x, dim=-1):
    powers = (x - x.amax(dim=dim, keepdim=True)).exp()
    return powers / powers.sum(dim=dim, keepdim=True)
"""


class Nursery:
    """The process above."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-c", NURSERY], stdin=-1, stdout=-1, text=True
        )

    def run(
        self, arguments: str, *signals: tuple[float, int], after: str = "", terminal: bool = False
    ) -> tuple[int, float, str]:
        """The exit code of a command, the seconds that it took, and what it said.

        The signals come so many seconds after its start, or after there is a file.
        """
        log = self.folder / "log.txt"
        order = {
            "arguments": arguments.split(), "folder": str(self.folder), "log": str(log),
            "signals": signals, "after": after, "terminal": terminal,
        }  # fmt: skip
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        code, seconds = json.loads(self.process.stdout.readline())
        return code, seconds, log.read_text()


@dataclass(frozen=True)
class Work:
    """A command that is interrupted, and what of its result must be as if it never had been."""

    command: Callable[[Path], str]  # given the folder of its result
    result: Callable[[Path], Any]
    check: Callable[[Path, Any], None]  # after a kill, given the result of a whole run
    ends: tuple[int, ...] = (0,)  # exit codes of a command that got to its end


def untimed(run: Path) -> list[dict[str, Any]]:
    """The metrics, without what depends on the clock."""
    timed = ("tokens_per_second", "data_wait")
    return [{k: v for k, v in r.items() if k not in timed} for r in read_metrics(run)]


def named(folder: Path) -> dict[str, Any]:
    """All files under a name of their own: what a kill cut off has one that begins with a dot."""
    files = contents(folder)
    return {k: v for k, v in files.items() if not any(p.startswith(".") for p in Path(k).parts)}


def trained(run: Path) -> dict[str, Any]:
    """All files of a run that do not depend on the clock."""
    kept = named(run)
    for name in [*kept]:
        if name.endswith(("state.json", "metrics.jsonl", "loss.png")):
            kept[name] = None
    return kept | {"untimed": untimed(run)}


def whole_run(run: Path, whole: dict[str, Any]) -> None:
    """Every checkpoint and every file with a final name is whole."""
    for name in ("best", "latest"):
        if (run / "checkpoints" / name).exists():
            checkpoint = run / "checkpoints" / (run / "checkpoints" / name).read_text().strip()
            # Writing the best again replaces it; a kill may come between two moves.
            assert name == "best" or checkpoint.is_dir()
    for checkpoint in run.glob("checkpoints/step-*"):
        for name in ("model.safetensors", "optimizer.safetensors"):
            assert load_tensors(checkpoint, name)
    same_files({k: v for k, v in named(run).items() if k.startswith(("data/", "tok"))}, whole)


def same_files(found: dict[str, bytes | None], whole: dict[str, Any]) -> None:
    """Whatever is there under a name of its own is whole."""
    for name, content in found.items():
        assert content == whole[name], name


def whole_tokens(out: Path, whole: dict[str, Any]) -> None:
    same_files(named(out), whole)


def all_or_nothing(out: Path, whole: dict[str, Any]) -> None:
    assert not out.exists() or contents(out) == whole


def studied(out: Path) -> list[list[str]]:
    """The figures of a study that do not depend on the clock."""
    rows = (out / "results.csv").read_text().splitlines()
    return [row.split(",")[:5] for row in rows]


def whole_results(out: Path, whole: list[list[str]]) -> None:
    for result in out.glob("runs/*/result.json"):
        assert read_json(result)["steps"] == 60


def whole_progress(folder: Path, whole: Any) -> None:
    assert load_progress(folder).passed in ([], ["softmax"])


def train_command(run: Path) -> str:
    """What a person would type: --resume, as soon as there is something to resume."""
    return f"train --resume {run}" if has_checkpoint(run) else f"train tiny.toml --run {run}"


WORKS = {
    "prepare": Work(
        lambda out: f"prepare text.txt --data.folder={out} --data.vocab-size=400 "
        "--data.shard-tokens=20000 --processes=2",
        named, whole_tokens,
    ),
    "train": Work(train_command, trained, whole_run),
    "export": Work(lambda out: f"export base {out}", contents, all_or_nothing),
    "study": Work(lambda out: f"lab run order.toml --jobs=2 --out={out}", studied, whole_results),
    "grade": Work(
        lambda out: f"exercise check softmax embed --folder={out}",
        lambda out: load_progress(out).passed, whole_progress, ends=(0, 1),
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """A folder with a text, a recipe, a study and a trained run; and the process that forks."""
    folder = tmp_path_factory.mktemp("signals")
    (folder / "text.txt").write_text(TEXT * 12)
    (folder / "tiny.toml").write_text(RECIPE)
    (folder / "order.toml").write_text(STUDY)
    nursery = Nursery(folder)
    code, _, said = nursery.run("train tiny.toml --run base --train.max-steps=3")
    assert code == 0, said
    yield nursery
    nursery.process.kill()
    nursery.process.communicate()


def begin(nursery: Nursery, name: str, label: str) -> Path:
    """The folder of a result, with what must be in it before."""
    out = nursery.folder / label / name  # with the same last part: reports mention it
    shutil.rmtree(out, ignore_errors=True)
    if name == "grade":
        out.mkdir(parents=True)
        (out / "06_softmax.py").write_text(SOFTMAX)
    return out


@pytest.fixture(scope="module")
def whole(nursery: Nursery) -> Callable[[str], tuple[Any, float]]:
    """The result of a command that nothing interrupts, and the seconds it takes."""
    known: dict[str, tuple[Any, float]] = {}

    def find(name: str) -> tuple[Any, float]:
        if name not in known:
            out = begin(nursery, name, "whole")
            code, seconds, said = nursery.run(WORKS[name].command(out))
            assert code in WORKS[name].ends, said
            known[name] = WORKS[name].result(out), seconds
        return known[name]

    return find


def finish(nursery: Nursery, name: str, out: Path, expected: Any) -> None:
    """Give the command again: it ends well, and with the same bytes."""
    if name == "export" and out.exists():  # it was done, and is not written over
        assert contents(out) == expected
        return
    code, _, said = nursery.run(WORKS[name].command(out))
    assert code in WORKS[name].ends, said
    assert WORKS[name].result(out) == expected


def die(nursery: Nursery, name: str, deaths: int, expected: Any, seconds: float) -> None:
    """Kill a command so often, at random moments; in the end it must be done."""
    draw, work = random.Random(f"{name} {deaths}"), WORKS[name]
    out, tries = begin(nursery, name, "killed"), 0
    while deaths:
        code, _, said = nursery.run(work.command(out), (draw.uniform(0, seconds), signal.SIGKILL))
        tries += 1
        assert tries < 200
        assert "Traceback" not in said, said
        if code == -signal.SIGKILL:
            deaths -= 1
            work.check(out, expected)
        else:
            assert code in work.ends, said
            assert work.result(out) == expected
            out = begin(nursery, name, "killed")
    finish(nursery, name, out, expected)


@pytest.mark.parametrize(("name", "deaths"), [
    ("prepare", 1), ("train", 2), ("export", 1), ("grade", 1),
])  # fmt: skip
def test_a_kill_at_any_moment_costs_nothing_that_was_done(name, deaths, nursery, whole):
    die(nursery, name, deaths, *whole(name))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "deaths"), [
    ("prepare", 14), ("train", 16), ("export", 8), ("study", 4), ("grade", 8),
])  # fmt: skip
def test_fifty_kills(name, deaths, nursery, whole):
    die(nursery, name, deaths, *whole(name))


@pytest.mark.parametrize("sent", ["SIGTERM", "SIGHUP", "SIGINT"])
@pytest.mark.parametrize("name", ["prepare", "train", "export", "grade"])
def test_a_polite_end_is_one(name, sent, nursery, whole):
    """Exit code 130 and no traceback; the same command then ends with the same bytes."""
    expected, seconds = whole(name)
    out = begin(nursery, name, sent)
    moment = random.Random(f"{name} {sent}").uniform(0.1, 0.8) * seconds
    code, _, said = nursery.run(WORKS[name].command(out), (moment, signal.Signals[sent]))
    assert code in (130, *WORKS[name].ends), said
    assert "Traceback" not in said, said
    WORKS[name].check(out, expected)
    finish(nursery, name, out, expected)


def test_ctrl_c_twice_ends_training_at_once_and_costs_the_steps_since_the_last_checkpoint(
    nursery, whole
):
    expected, _ = whole("train")
    out = begin(nursery, "train", "twice")
    moments = [(0.05, signal.SIGINT), (0.052, signal.SIGINT)]
    began = str(out / "metrics.jsonl")
    code, _, said = nursery.run(WORKS["train"].command(out), *moments, after=began)
    assert code == 130, said
    assert "Traceback" not in said, said
    finish(nursery, "train", out, expected)


@pytest.mark.parametrize("name", ["prepare", "train"])
def test_a_pause_changes_nothing(name, nursery, whole):
    """SIGSTOP, as Ctrl-Z, and SIGCONT."""
    expected, seconds = whole(name)
    out = begin(nursery, name, "paused")
    moments = [(seconds / 2, signal.SIGSTOP), (seconds / 2 + 0.5, signal.SIGCONT)]
    code, _, said = nursery.run(WORKS[name].command(out), *moments)
    assert code == 0, said
    assert WORKS[name].result(out) == expected


def test_a_closed_terminal_does_not_cost_the_steps_since_the_last_checkpoint(nursery):
    """It may send several signals, and nothing can be printed to it any more."""
    run = nursery.folder / "closed"
    settings = "--train.max-steps=1000000 --train.checkpoint-interval=1000000"
    quiet = "--train.eval-interval=1000000 --train.sample-interval=0"
    signals = [(2.0, signal.SIGHUP), (2.01, signal.SIGHUP), (2.02, signal.SIGHUP)]
    command = f"train tiny.toml --run {run} {settings} {quiet}"
    nursery.run(command, *signals, after=str(run / "metrics.jsonl"), terminal=True)
    assert latest_step(run) > 10
    assert find_checkpoint(run).name == f"step-{latest_step(run):06d}"
    assert read_metrics(run)[-1]["step"] == latest_step(run)


def test_no_process_is_left_of_what_was_killed(nursery):
    """Neither those that prepare nor those that judge."""
    deadline = time.monotonic() + 20
    while True:
        left = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                if Path(path / "cwd").readlink() == nursery.folder:
                    left.append((path / "cmdline").read_text())
            except OSError:  # it has ended
                continue
        if not left:
            return
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
