"""Snapshots: whole files at log-spaced steps, and a training that does not notice them."""

import random
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_train import KILLED, same, weights

from nanogpt.config import TrainConfig, load_config
from nanogpt.errors import UserError
from nanogpt.training.load import load
from nanogpt.training.records import Step
from nanogpt.training.snapshots import find_snapshots, load_snapshot, snapshot_steps
from nanogpt.training.start import Trainer

from conftest import small_run

STEPS = [0, 1, 2, 5, 12]  # of 5 snapshots in 12 steps


def kept(run: Path) -> dict[int, dict[str, torch.Tensor]]:
    return {step: load_file(path) for step, path in find_snapshots(run).items()}


@pytest.mark.parametrize("most", [1, 2, 3, 50, 6000, 2**40])
@pytest.mark.parametrize("number", [0, 1, 2, 3, 12, 40])
def test_steps_are_log_spaced_with_both_ends(number, most):
    steps = snapshot_steps(TrainConfig(snapshots=number, max_steps=most, warmup_steps=0))
    assert steps == sorted(set(steps))
    assert len(steps) <= number
    if number:
        assert steps[-1] == most
    if number > 1:
        assert steps[0] == 0
    if most == 2**40 and number == 12:
        ratios = [b / a for a, b in pairwise(steps[1:])]
        assert len(steps) == 12
        assert min(ratios) == pytest.approx(2**4, rel=1e-3) == max(ratios)


def test_snapshots_never_change_the_training(prepared, tmp_path):
    list(Trainer.start(tmp_path / "without", small_run(prepared)).run())
    list(Trainer.start(tmp_path / "with", small_run(prepared, snapshots=5)).run())
    assert same(weights(tmp_path / "without"), weights(tmp_path / "with"))
    assert not (tmp_path / "without" / "snapshots").exists()
    assert [*kept(tmp_path / "with")] == STEPS


def test_they_are_the_weights_of_their_step_in_two_bytes_a_number(prepared, tmp_path):
    trainer = Trainer.start(tmp_path, small_run(prepared, snapshots=5))
    live = {0: {k: x.clone() for k, x in trainer.model.state_dict().items()}}
    for record in trainer.run():
        if isinstance(record, Step):
            live[record.step] = {k: x.clone() for k, x in trainer.model.state_dict().items()}
    for step, tensors in kept(tmp_path).items():
        assert same(tensors, {k: x.half() for k, x in live[step].items()})
    for path in find_snapshots(tmp_path).values():
        assert path.stat().st_size < 2 * trainer.model.num_parameters() + 4000  # a header of names


def test_the_model_of_a_snapshot_runs_and_the_last_is_the_model(prepared, tmp_path):
    list(Trainer.start(tmp_path, small_run(prepared, snapshots=3)).run())
    model, _, config = load(tmp_path)
    ids = torch.arange(16)[None]
    found = find_snapshots(tmp_path)
    with torch.no_grad():
        # Observed: 1.3e-3, at logits of up to 1.
        assert torch.allclose(load_snapshot(found[12], config.model)(ids), model(ids), atol=5e-3)
        assert not torch.allclose(load_snapshot(found[0], config.model)(ids), model(ids), atol=5e-2)
    found[12].write_bytes(found[12].read_bytes()[:-9])
    with pytest.raises(UserError, match=r"step-000012\.safetensors cannot be read"):
        load_snapshot(found[12], config.model)


@pytest.mark.parametrize("stop_after", [1, 4, 7])
def test_a_resumed_run_has_the_same_ones(stop_after, prepared, tmp_path):
    config = small_run(prepared, snapshots=5)
    list(Trainer.start(tmp_path / "whole", config).run())
    trainer = Trainer.start(tmp_path / "stopped", config)
    for record in trainer.run():
        if record.step == stop_after:
            trainer.stop()
    assert [*kept(tmp_path / "stopped")] == [s for s in STEPS if s <= stop_after]
    list(Trainer.resume(tmp_path / "stopped").run())
    whole, stopped = kept(tmp_path / "whole"), kept(tmp_path / "stopped")
    assert [*whole] == [*stopped]
    assert all(same(whole[step], stopped[step]) for step in whole)


def test_kills_at_any_moment_leave_whole_files_and_the_same_ones_in_the_end(prepared, tmp_path):
    config = small_run(prepared, max_steps=12, checkpoint_interval=3, snapshots=12)
    list(Trainer.start(tmp_path / "whole", config).run())
    run, draw, deaths = tmp_path / "killed", random.Random(2), 0
    Trainer.start(run, config)
    code = -1
    while code:
        command = [sys.executable, "-c", KILLED, str(run), "0", str(draw.randint(1, 16))]
        code = subprocess.run(command, check=False).returncode
        deaths += code != 0
        assert deaths < 60
        kept(run)  # each of them can be read
    assert deaths >= 4
    whole, killed = kept(tmp_path / "whole"), kept(run)
    assert [*whole] == [*killed]
    assert all(same(whole[step], killed[step]) for step in whole)
    names = {path.name for path in (run / "snapshots").iterdir()}
    assert names == {path.name for path in (tmp_path / "whole" / "snapshots").iterdir()}


def test_a_run_that_reaches_its_target_early_keeps_its_end(prepared, tmp_path):
    settings = {"targets": "99", "stop_at_target": True, "snapshots": 3}
    list(Trainer.start(tmp_path, small_run(prepared, **settings)).run())
    assert [*kept(tmp_path)] == [0, 1, 4]


def test_snapshots_of_an_earlier_start_and_of_steps_to_come_are_dropped(prepared, tmp_path):
    folder = tmp_path / "snapshots"
    folder.mkdir()
    for name in ("step-000000.safetensors", "step-000003.safetensors", "notes.txt"):
        (folder / name).write_text("old")
    trainer = Trainer.start(tmp_path, small_run(prepared, snapshots=2))
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]
    list(trainer.run())
    assert [*kept(tmp_path)] == [0, 12]


def test_the_demo_keeps_twelve():
    demo = load_config(Path(__file__).parents[2] / "configs" / "demo.toml")
    assert len(snapshot_steps(demo.train)) == 12
