"""Training on pairs: the chosen answer gets ahead, also of a run that is resumed."""

import json
import math
from pathlib import Path

import pytest
import torch

from nanogpt.cli import main
from nanogpt.config import Config, DataConfig, ModelConfig, PolicyConfig, TrainConfig, with_settings
from nanogpt.errors import UserError
from nanogpt.text.prepare import prepare
from nanogpt.training.checkpoint import find_checkpoint, load_tensors
from nanogpt.training.objective import Preference
from nanogpt.training.policy import PreferenceTrainer
from nanogpt.training.records import Answered, Step, read_metrics
from nanogpt.training.start import Trainer


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Questions of two letters: b is chosen, whatever else was said. Write nothing into it."""
    folder = tmp_path_factory.mktemp("pairs")
    rows = [
        {"prompt": f"{a}{b}", "chosen": "b", "rejected": "a" if b == "b" else b}
        for a in "abcdef"
        for b in "abcdef"
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = str(folder / "pairs.jsonl")
    prepare(DataConfig(source=source, tokenizer="char"), folder / "data", processes=1)
    return folder


def run_on(pairs: Path, **train: object) -> Config:
    """Settings of a run that takes a second."""
    steps = {"max_steps": 8, "batch_size": 16, "eval_interval": 4, "eval_batches": 0}
    rest = {"checkpoint_interval": 5, "sample_interval": 4, "warmup_steps": 0, "lr": 1e-2}
    rest |= {"device": "cpu", "precision": "float32", "min_lr": 1e-2}
    return Config(
        model=ModelConfig(context_length=16, n_layer=1, n_head=2, n_embd=16),
        data=DataConfig(folder=str(pairs / "data")),
        train=TrainConfig(objective="preference", **{**steps, **rest, **train}),
        policy=PolicyConfig(beta=0.5),
    )


def test_the_chosen_answer_gets_ahead(pairs, tmp_path):
    trainer = Trainer.start(tmp_path, run_on(pairs, max_steps=40))
    assert isinstance(trainer, PreferenceTrainer)
    records = list(trainer.run())
    losses = [r.loss for r in records if isinstance(r, Step)]
    looks = [r for r in records if isinstance(r, Answered)]
    assert losses[0] == pytest.approx(math.log(2), abs=1e-6)
    assert looks[0].val_loss == pytest.approx(math.log(2), abs=1e-6)
    assert looks[0].right == 0
    assert losses[-1] < 0.2  # observed 0.0007
    assert looks[-1].val_loss < 0.2
    assert looks[-1].right == 1
    assert {r.questions for r in looks} == {len(trainer.val_batches)}


@pytest.mark.parametrize("stop_after", [1, 6])
def test_a_stopped_and_resumed_run_ends_with_the_same_bits(pairs, tmp_path, stop_after):
    list(Trainer.start(tmp_path / "whole", run_on(pairs)).run())
    trainer = Trainer.start(tmp_path / "parts", run_on(pairs))
    for record in trainer.run():
        if record.step == stop_after:
            trainer.stop()
    list(Trainer.resume(tmp_path / "parts").run())
    one, other = (
        load_tensors(find_checkpoint(tmp_path / n), "model.safetensors") for n in ("whole", "parts")
    )
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_accumulated_gradients_are_those_of_one_batch(pairs, tmp_path):
    """The mean is over pairs, and not over the targets of their answers."""
    found = []
    for size, passes in ((16, 1), (4, 4)):
        config = run_on(pairs, batch_size=size, grad_accum_steps=passes)
        trainer = Trainer.start(tmp_path / str(size), config)
        assert isinstance(trainer.objective, Preference)
        loss = trainer.gradients(trainer.load_batches(0))
        found.append([loss, *(p.grad for p in trainer.model.parameters())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"policy": {"beta": 0.0}}, r"policy\.beta=0\.0: use a positive number"),
        ({"train": {"batch_size": 15}}, r"train\.batch_size=15: use an even number"),
        ({"model": {"context_length": 4}}, r"no pair of at most 4 tokens each"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_written(pairs, tmp_path, changes, words):
    with pytest.raises(UserError, match=words):
        Trainer.start(tmp_path / "run", with_settings(run_on(pairs), **changes))
    assert not (tmp_path / "run").exists()


def test_from_a_file_of_pairs_on_the_command_line(pairs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command = ["train", "--run", "dpo", "--data.source", str(pairs / "pairs.jsonl")]
    command += ["--data.tokenizer", "char", "--train.objective", "preference", "--train.device"]
    command += ["cpu", "--policy.beta", "0.2", "--train.max-steps", "3", "--train.batch-size", "8"]
    command += ["--model.n-layer", "1", "--model.n-head", "2", "--model.n-embd", "16"]
    assert main([*command, "--model.context-length", "16"]) == 0
    assert "right" in capsys.readouterr().out
    assert read_metrics("dpo")[-1]["step"] == 3
    assert main(["generate", "dpo"]) == 0
