"""The program that files are made from computes what the package computes."""

import random
from dataclasses import replace

import pytest

from nanogpt.eject.program import begin, load_tokenizer, sample, split, train
from nanogpt.generation.stream import generate_text
from nanogpt.text.splitter import Splitter
from nanogpt.training.load import load
from nanogpt.training.records import Step, Validation
from nanogpt.training.start import Trainer

from conftest import PARTS, random_text, small_run


@pytest.mark.parametrize("optimizer", ["fused-adamw", "muon"])
def test_losses_text_and_checkpoints_are_those_of_a_trainer(optimizer, prepared_once, tmp_path):
    config = small_run(prepared_once, optimizer=optimizer, grad_accum_steps=2)
    expected = []
    for r in Trainer.start(tmp_path / "trainer", config).run():
        if isinstance(r, Step):
            expected.append({"step": r.step, "loss": r.loss, "lr": r.lr, "grad_norm": r.grad_norm})
        if isinstance(r, Validation):
            expected.append({"step": r.step, "val_loss": r.val_loss})
    found = [r for r in train(tmp_path / "program", config) if "sample" not in r]
    assert found == expected
    loaded = load(tmp_path / "program")
    settings = replace(config.sample, temperature=0.0, max_new_tokens=40)
    text = "".join(generate_text(loaded.model, loaded.tokenizer, settings))
    tokenizer = load_tokenizer(config.data)
    model, _, state = begin(tmp_path / "trainer", tokenizer, config)
    assert state["step"] == 12
    prompt = config.sample.prompt
    assert text
    assert sample(model, tokenizer, prompt, replace(config, sample=settings)) == text


def test_each_goes_on_from_the_checkpoint_of_the_other(prepared_once, tmp_path):
    config = small_run(prepared_once, max_steps=6)
    longer = small_run(prepared_once, max_steps=9)
    list(Trainer.start(tmp_path / "trainer", config).run())
    list(train(tmp_path / "program", config))
    losses = [r["loss"] for r in train(tmp_path / "trainer", longer) if "loss" in r]
    trainer = Trainer.resume(tmp_path / "program", train={"max_steps": 9})
    assert losses == [r.loss for r in trainer.run() if isinstance(r, Step)]
    assert len(losses) == 3


def test_words_are_those_of_the_splitter():
    draw = random.Random(0)
    splitter = Splitter("gpt2")
    for _ in range(300):
        text = random_text(draw, PARTS)
        assert split(text) == splitter(text)
