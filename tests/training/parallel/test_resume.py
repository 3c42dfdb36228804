"""What one layout has saved another goes on with, and the end is that of an undisturbed run."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from test_equal import check_equal, largest_difference

from nanogpt.cli import main
from nanogpt.errors import UserError
from nanogpt.training.checkpoint import find_checkpoint, load_tensors, merge
from nanogpt.training.pieces import Piece, PieceFiles, write_pieces
from nanogpt.training.start import Trainer

ALONE = {"data": 0, "shard": 1, "tensor": 1, "context": 1, "pipeline": 1}


def resumed(run, stop_at=None, **parallel):
    """A job that goes on with a run on another layout, perhaps not to its end."""
    return {"resume": str(run), "changes": {"parallel": ALONE | parallel}, "stop_at": stop_at}


@pytest.fixture(scope="module")
def one(worlds):
    return worlds.alone(train={"optimizer": "muon"})


@pytest.fixture(scope="module")
def stopped(worlds):
    """A run of four ranks that was stopped after five steps."""
    settings = worlds.settings({"data": 2, "shard": 2}, train={"optimizer": "muon"})
    return worlds.together(4, {"first": {"settings": settings, "stop_at": 5}})["first"]


@pytest.fixture(scope="module")
def two_ranks(worlds, stopped):
    """The run of four ranks goes on, and so does one of two, on one layout after the other."""
    run = shutil.copytree(stopped.run, worlds.new_folder() / "run")
    assert len(list(find_checkpoint(run).glob("model-*-of-00004.safetensors"))) == 4
    settings = worlds.settings({"data": 2}, train={"optimizer": "muon"})
    chain = {"shard": 8, "tensor": 12, "pipeline": 16, "context": None}
    return worlds.together(2, {
        "second": resumed(run, 12, tensor=2), "first": {"settings": settings, "stop_at": 4},
        **{name: resumed("first/run", stop_at, **{name: 2}) for name, stop_at in chain.items()},
    })  # fmt: skip


def test_four_ranks_then_two_then_one(one, two_ranks, capsys):
    outcome = two_ranks["second"]
    assert outcome.said == ""
    run = outcome.run
    command = ["train", "--resume", str(run)]
    assert main(command) == 2
    assert "tensor 2 needs 2 processes, not 1" in capsys.readouterr().err
    # Whoever asks for one process gets one, and need not know the layout of the run.
    assert main([*command, "--parallel.processes", "1"]) == 0
    assert "from now on each has a whole copy of the model" in capsys.readouterr().out
    assert largest_difference(one.trained, outcome.trained) < 2e-5
    assert [r["step"] for r in outcome.records if "loss" in r] == list(range(1, 21))


def test_every_mode_goes_on_with_what_another_has_saved(one, two_ranks):
    first = two_ranks["first"]
    assert [outcome.said for outcome in two_ranks.values()] == [""] * 6
    check_equal(one, first)
    assert sorted(path.name for path in find_checkpoint(first.run).iterdir()) == [
        "model.safetensors", "optimizer.safetensors", "state.json",
    ]  # fmt: skip


def test_unmerged_and_merged_checkpoints_hold_the_same(stopped, tmp_path):
    run = shutil.copytree(stopped.run, tmp_path / "run")
    checkpoint = find_checkpoint(run)
    names = ("model.safetensors", "optimizer.safetensors")
    before = [load_tensors(checkpoint, name) for name in names]
    merge(checkpoint)
    after = [load_file(checkpoint / name) for name in names]
    assert all(largest_difference(a, b) == 0 for a, b in zip(before, after, strict=True))


def test_commands_read_what_many_ranks_have_saved(stopped, capsys):
    assert main(["generate", str(stopped.run), "--sample.max-new-tokens", "5"]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(stopped.run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["loss_nats_per_token"] < 6


@pytest.mark.parametrize("how", ["missing", "damaged"])
def test_a_file_of_a_rank_that_is_not_what_it_was(worlds, stopped, tmp_path, how):
    run = shutil.copytree(stopped.run, tmp_path / "run")
    file = sorted(find_checkpoint(run).glob("model-*"))[2]
    if how == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(UserError, match=file.name):
        Trainer.resume(run, parallel=ALONE)


def test_pieces_are_put_together_from_any_cut(tmp_path):
    whole = torch.arange(35.0).view(7, 5)

    def write(number, *spans):
        place = [[slice(*span) for span in spans], [slice(0, 5)]]
        numbers = torch.cat([whole[slice(*span)] for span in spans])
        file = tmp_path / f"model-{number}.safetensors"
        write_pieces(file, {"x": Piece(numbers, (7, 5), place)})

    def files():
        return PieceFiles(tmp_path, "model", [path.name for path in tmp_path.iterdir()])

    write(0, (2, 5))
    write(1, (0, 2), (5, 7))
    assert torch.equal(files().whole("x"), whole)
    columns = [[slice(0, 7)], [slice(3, 5), slice(0, 1)]]
    found = files().read("x", columns, torch.empty(7, 3))
    assert torch.equal(found, whole[:, [3, 4, 0]])
    (tmp_path / "model-1.safetensors").unlink()
    with pytest.raises(UserError, match="20 numbers of x are missing"):
        files().whole("x")
