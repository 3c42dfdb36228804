"""The number of threads of a run: measured, written down, and the same after a pause."""

import shutil
import time

import pytest
import torch

from nanogpt.cli import main
from nanogpt.training import threads
from nanogpt.training.checkpoint import find_checkpoint, load_state, load_tensors
from nanogpt.training.records import read_metrics
from nanogpt.training.start import Trainer
from nanogpt.training.threads import RECENT, Threads, faster, limited_to

from conftest import small_run


@pytest.fixture(autouse=True)
def two_threads():
    with limited_to(2):
        yield


def work_of(one: float, two: float):
    """Work that takes so many seconds on one thread and on two."""
    return lambda: time.sleep(one if torch.get_num_threads() == 1 else two)


@pytest.mark.parametrize(
    ("one", "two", "chosen"),
    [(0.005, 0.05, 1), (0.05, 0.005, 2), (0.02, 0.02, 2)],
)
def test_one_thread_is_taken_where_it_is_clearly_faster(one, two, chosen):
    assert faster(work_of(one, two), most=2, now=2) == chosen


def test_long_work_is_tried_once(monkeypatch):
    monkeypatch.setattr(threads, "AT_MOST", 0.01)
    tried = []
    for now in (1, 2):
        assert faster(lambda: tried.append(time.sleep(0.02)), 2, now) == now
    assert len(tried) == 2


def test_half_the_speed_is_a_reason_for_doubt():
    watched = Threads(work_of(0.01, 0.001), 2, now=0)
    assert watched.doubtful
    assert watched.choose() == 2
    for _ in range(3 * RECENT):
        watched.notice(100, occasion=True)
        assert not watched.doubtful
    for n in range(RECENT):  # a few slow steps are none, and many are
        watched.notice(40, occasion=False)
        assert watched.doubtful == (n >= RECENT // 2)
    watched.work = work_of(0.001, 0.01)
    assert watched.choose() == torch.get_num_threads() == 1
    watched.notice(40, occasion=False)
    assert not watched.doubtful
    watched.notice(40, occasion=True)  # perhaps the machine is free again
    assert watched.doubtful


def scripted(monkeypatch, *chosen):
    """Let the measurements come out like this; the work is done all the same.

    How busy the machine of the test is raises no doubt.
    """
    left = list(chosen)
    monkeypatch.setattr(threads, "DROPPED", 0.0)

    def found(work, most, now):
        work()
        return left.pop(0)

    monkeypatch.setattr(threads, "faster", found)
    return left


def weights(run):
    return load_tensors(find_checkpoint(run), "model.safetensors")


@pytest.mark.parametrize("chosen", [1, 2])
def test_a_choice_changes_nothing_else(chosen, prepared, tmp_path, monkeypatch):
    """The run is the one with so many threads; the look at the time has moved no weight."""
    scripted(monkeypatch, chosen)
    list(Trainer.start(tmp_path / "free", small_run(prepared, eval_interval=99)).run())
    fixed = small_run(prepared, eval_interval=99, threads=chosen)
    list(Trainer.start(tmp_path / "fixed", fixed).run())
    free, by_hand = weights(tmp_path / "free"), weights(tmp_path / "fixed")
    assert all(torch.equal(free[name], by_hand[name]) for name in by_hand)
    assert torch.get_num_threads() == 2, "as before the run"
    noted = [r for r in read_metrics(tmp_path / "free") if "threads" in r]
    assert noted == ([{"step": 0, "threads": 1, "most": 2}] if chosen == 1 else [])


def test_a_resumed_run_keeps_the_choice_and_goes_on_with_the_same_bits(
    prepared, tmp_path, monkeypatch
):
    config = small_run(prepared, max_steps=6, eval_interval=99)
    scripted(monkeypatch, 1, 1)
    list(Trainer.start(tmp_path / "whole", config).run())
    first = Trainer.start(tmp_path / "paused", config)
    for record in first.run():
        if record.step == 3:
            first.stop()
    assert load_state(find_checkpoint(tmp_path / "paused"))[0].threads == 1
    assert scripted(monkeypatch) == []  # a measurement would find no result
    seen = []
    resumed = Trainer.resume(tmp_path / "paused")
    seen += [torch.get_num_threads() for _ in resumed.run()]
    assert set(seen) == {1}
    one, other = weights(tmp_path / "whole"), weights(tmp_path / "paused")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_change_after_the_checkpoint_is_forgotten_with_its_step(prepared, tmp_path, monkeypatch):
    scripted(monkeypatch, 1, 2)
    config = small_run(prepared, max_steps=6, eval_interval=3, checkpoint_interval=3)
    for record in Trainer.start(tmp_path / "running", config).run():
        if record.step == 4:  # what is on disk now is what a kill would leave
            shutil.copytree(tmp_path / "running", tmp_path / "killed")

    def noted():
        found = [r for r in read_metrics(tmp_path / "killed") if "threads" in r]
        return [(r["step"], r["threads"]) for r in found]

    assert noted() == [(0, 1), (3, 2)]
    resumed = Trainer.resume(tmp_path / "killed")
    assert (resumed.state.step, resumed.state.threads) == (3, 1)
    assert noted() == [(0, 1)]


def test_a_change_is_said_and_written_down(prepared, tmp_path, monkeypatch, capsys):
    scripted(monkeypatch, 1, 2)
    options = [f"--data.folder={prepared}", f"--run={tmp_path / 'run'}", "--train.max-steps=4"]
    options += ["--train.eval-interval=2", "--train.batch-size=2", "--train.eval-batches=1"]
    shape = ["--model.n-layer=1", "--model.n-embd=8", "--model.n-head=1"]
    shape += ["--model.context-length=8"]
    assert main(["train", *options, *shape, "--sample.max-new-tokens=2"]) == 0
    shown = capsys.readouterr().out
    assert "step      0  computing on 1 of 2 threads, as other programs run" in shown
    assert "step      2  computing on 2 of 2 threads\n" in shown
    noted = [r["threads"] for r in read_metrics(tmp_path / "run") if "threads" in r]
    assert noted == [1, 2]
