"""Fine-tuning with LoRA: what a run trains, what it writes, and how it goes on."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from nanogpt.cli import main
from nanogpt.config import Config, ParallelConfig, TrainConfig
from nanogpt.errors import UserError
from nanogpt.interop.huggingface import export
from nanogpt.model.build import resize_vocabulary
from nanogpt.model.gpt import GPT, HEADS, LMHead
from nanogpt.model.lora import add_lora, lora_tensors, plain_tensors
from nanogpt.training.checkpoint import (
    TrainState,
    find_checkpoint,
    load_for_training,
    load_tensors,
    load_weights,
    save_checkpoint,
)
from nanogpt.training.load import load
from nanogpt.training.optim import OPTIMIZERS, build_optimizer
from nanogpt.training.records import Step
from nanogpt.training.snapshots import find_snapshots, load_snapshot
from nanogpt.training.start import Trainer

from conftest import small_run, tiny


@pytest.fixture
def tune(trained_run, prepared):
    """Settings that fine-tune a small trained run with LoRA."""

    def settings(**train: object) -> Config:
        return small_run(prepared, **{"init": str(trained_run()), "lora_rank": 4, **train})

    return settings


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def tensors(run: Path, name: str) -> dict[str, torch.Tensor]:
    return load_tensors(find_checkpoint(run), name)


def test_only_the_thin_matrices_move_and_the_loss_falls(tune, tmp_path, trained_run):
    trainer = Trainer.start(tmp_path / "run", tune(lr=1e-2))
    losses = [r.loss for r in trainer.run() if isinstance(r, Step)]
    assert losses[-1] < losses[0]
    base, added = tensors(tmp_path / "run", "base.safetensors"), lora_tensors(trainer.model)
    assert same(base, tensors(trained_run(), "model.safetensors"))
    assert same(tensors(tmp_path / "run", "model.safetensors"), added)
    assert all(name.endswith(("lora_a", "lora_b")) for name in added)
    assert all(bool(x.any()) for x in added.values())
    kept = {name.rpartition(".")[0] for name in tensors(tmp_path / "run", "optimizer.safetensors")}
    assert kept == set(added)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("stop_after", [3, 5])
def test_it_resumes_to_the_same_bits(optimizer, stop_after, tune, tmp_path):
    config = tune(optimizer=optimizer, snapshots=3)
    list(Trainer.start(tmp_path / "whole", config).run())
    trainer = Trainer.start(tmp_path / "parts", config)
    for record in trainer.run():
        if record.step == stop_after:
            trainer.stop()
    list(Trainer.resume(tmp_path / "parts").run())
    for name in ("model", "base", "optimizer"):
        file = f"{name}.safetensors"
        assert same(tensors(tmp_path / "whole", file), tensors(tmp_path / "parts", file)), name


def test_what_is_loaded_is_a_plain_model_that_computes_the_same(tune, tmp_path):
    trainer = Trainer.start(tmp_path / "run", tune(lr=1e-2, snapshots=2))
    list(trainer.run())
    ids = torch.randint(256, (2, 16))
    expected = trainer.model.eval()(ids)
    for checkpoint in ("latest", "best"):
        found = load(tmp_path / "run", checkpoint).model
        assert not lora_tensors(found)
    found = load(tmp_path / "run").model
    torch.testing.assert_close(found(ids), expected, rtol=0, atol=1e-5)
    snapshots = find_snapshots(tmp_path / "run")
    last = load_snapshot(snapshots[12], trainer.config.model)
    torch.testing.assert_close(last(ids), expected, rtol=0, atol=0.01)  # of 16 bits
    export(tmp_path / "hf", found, trainer.tokenizer, trainer.config.sample, "")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "hf").eval()
    torch.testing.assert_close(theirs(ids).logits, expected, rtol=0, atol=1e-4)


def test_a_hugging_face_folder_is_fine_tuned_with_a_shorter_context(tune, tmp_path, trained_run):
    model, tokenizer, config = load(trained_run())
    export(tmp_path / "hf", model, tokenizer, config.sample, "")
    tuning = tune(init=str(tmp_path / "hf"))
    tuning = replace(tuning, model=replace(tuning.model, context_length=8))
    trainer = Trainer.start(tmp_path / "run", tuning)
    ids = torch.randint(256, (2, 8))
    torch.testing.assert_close(trainer.model.eval()(ids), model(ids), rtol=0, atol=1e-5)
    list(trainer.run())
    assert load(tmp_path / "run").model.config.context_length == 8
    longer = replace(tuning, model=replace(tuning.model, context_length=32))
    with pytest.raises(UserError, match=r"model\.context_length=32, but .*hf has 16"):
        Trainer.start(tmp_path / "longer", longer)


def test_the_base_is_on_the_disk_once_and_in_every_checkpoint(tune, tmp_path):
    trainer = Trainer.start(tmp_path / "run", tune(lr=1e-2, checkpoint_interval=1))
    files = set()
    for _ in trainer.run():
        found = list((tmp_path / "run" / "checkpoints").glob("step-*/base.safetensors"))
        files.update(os.stat(file).st_ino for file in found)
    assert len(files) == 1
    last = find_checkpoint(tmp_path / "run")
    sizes = {file.name: file.stat().st_size for file in last.iterdir()}
    assert sizes["model.safetensors"] < sizes["base.safetensors"] / 2


def test_where_there_are_no_links_the_base_is_written_again(tune, tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    trainer = Trainer.start(tmp_path / "run", tune(checkpoint_interval=1, max_steps=3))
    list(trainer.run())
    state = trainer.model.state_dict()
    base = tensors(tmp_path / "run", "base.safetensors")
    assert all(torch.equal(base[name], state[name]) for name in base)


def test_a_checkpoint_alone_is_enough(tune, tmp_path):
    """Copied to another run folder, without the checkpoint that wrote the base first."""
    list(Trainer.start(tmp_path / "run", tune(checkpoint_interval=3)).run())
    expected = load(tmp_path / "run").model.state_dict()
    copied, last = tmp_path / "copy" / "checkpoints", find_checkpoint(tmp_path / "run")
    shutil.copytree(last, copied / last.name)
    shutil.copy(tmp_path / "run" / "tokenizer.json", tmp_path / "copy")
    shutil.rmtree(tmp_path / "run")
    assert same(load(tmp_path / "copy").model.state_dict(), expected)


@pytest.mark.parametrize("name", ["base", "model"])
def test_a_damaged_file_is_named(name, tune, tmp_path):
    list(Trainer.start(tmp_path / "run", tune(max_steps=2)).run())
    path = find_checkpoint(tmp_path / "run") / f"{name}.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    for action in (load, Trainer.resume):
        with pytest.raises(UserError, match=rf"{name}\.safetensors is damaged"):
            action(tmp_path / "run")
    path.unlink()
    with pytest.raises(UserError, match=rf"{name}\.safetensors cannot be read"):
        load(tmp_path / "run")


def test_new_tokens_survive_a_checkpoint(tune, tmp_path):
    trainer = Trainer.start(tmp_path / "run", tune(max_steps=2))
    model, config = load(trainer.config.train.init).model, trainer.config
    resize_vocabulary(model, model.config.vocab_size + 3)
    add_lora(model, config.train, new_tokens=3)
    model.wte.lora_rows.data.normal_()
    state, optimizer = TrainState(7, None, 0.0, ""), build_optimizer(model, config.train)
    save_checkpoint(tmp_path / "run", model, optimizer, state, replace(config, model=model.config))
    checkpoint = find_checkpoint(tmp_path / "run")
    again = load_for_training(checkpoint, model.config)
    assert same(again.state_dict(), model.state_dict())
    assert same(load_weights(checkpoint, model.config).state_dict(), plain_tensors(model))


def test_lora_teaches_no_new_tokens_to_an_untied_head():
    """The head would need rows of its own for them."""
    model = GPT(tiny(head="untied"))
    with pytest.raises(UserError, match=r"model\.head='untied': LoRA teaches new tokens only"):
        add_lora(model, TrainConfig(lora_rank=2), new_tokens=3)
    add_lora(GPT(tiny(head="untied")), TrainConfig(lora_rank=2))


def test_lora_keeps_what_a_plugins_head_computes(monkeypatch):
    class Half(LMHead):
        def forward(self, x, weight):
            return super().forward(x, weight) / 2

    monkeypatch.setitem(HEADS, "half", Half)
    with pytest.raises(UserError, match=r"model\.head='half': LoRA teaches new tokens only"):
        add_lora(GPT(tiny(head="half")), TrainConfig(lora_rank=2), new_tokens=3)


def test_a_compiled_run_follows_the_same_losses(tune, tmp_path):
    losses = []
    for setting in ("off", "on"):
        config = tune(compile=setting)
        config = replace(config, model=replace(config.model, dropout=0.0))
        trainer = Trainer.start(tmp_path / setting, config)
        add_rows(trainer)
        losses.append([trainer.train_step().loss for _ in range(4)])
        assert bool(trainer.not_compiled) is (setting == "off")
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


def add_rows(trainer: Trainer) -> None:
    """Let the last tokens of a run be new ones."""
    from nanogpt.model.lora import LoRAEmbedding, LoRAHead

    model = trainer.model
    model.wte = LoRAEmbedding(model.wte, 40)
    model.lm_head = LoRAHead(model.wte)
    trainer.optimizer = build_optimizer(model, trainer.config.train)


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"init": ""}, r"train\.lora_rank=4: name weights to begin with: --init FOLDER"),
        ({"lora_on": "h.7.*"}, r"train\.lora_on: 'h\.7\.\*' fits no linear layer"),
        ({"lora_rank": 16}, r"train\.lora_rank=16: use less than the 16 of h\.0\.attn\.c_attn"),
        ({"lora_alpha": 0.0}, r"train\.lora_alpha=0\.0: use a positive number"),
        ({"lora_rank": -1}, r"train\.lora_rank=-1: use at least 0"),
        ({"freeze": "*"}, "leaves nothing to train"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(train, message, tune, tmp_path):
    with pytest.raises(UserError, match=message):
        Trainer.start(tmp_path / "run", tune(**train))
    assert not (tmp_path / "run").exists()


def test_several_processes_are_refused_before_anything_starts(tune, tmp_path, capsys):
    config = tune()
    with pytest.raises(UserError, match=r"train\.lora_rank=4: use 0, or one process"):
        replace(config, parallel=ParallelConfig(processes=2)).sizes(2)
    command = ["train", "--init", config.train.init, "--data.folder", config.data.folder]
    command += ["--train.lora-rank", "4", "--run", str(tmp_path / "run")]
    assert main([*command, "--parallel.processes", "2"]) == 2
    assert not (tmp_path / "run").exists()
    list(Trainer.start(tmp_path / "run", tune(max_steps=2)).run())
    assert main(["train", "--resume", str(tmp_path / "run"), "--parallel.processes", "2"]) == 2
    assert main(["plan", "demo", "--train.lora-rank", "4", "--gpus", "2"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 3
    assert all("train.lora_rank=4: use 0" in line for line in said)
