"""The assistant's stages, shortened by settings and in a smaller world."""

import importlib
import json
import re

import pytest
import torch

from nanogpt.cli import main
from nanogpt.cli.assistant import WHAT_NEXT
from nanogpt.cli.completion import asked
from nanogpt.config import load_config
from nanogpt.text import tutor
from nanogpt.training.load import load_model
from nanogpt.training.loop import TrainingLoop
from nanogpt.training.records import read_metrics

SHORT = [
    "--train.max-steps=2", "--train.batch-size=16", "--train.eval-interval=2",
    "--train.eval-batches=1", "--train.warmup-steps=1",
    "--model.n-layer=1", "--model.n-head=2", "--model.n-embd=16",
]  # fmt: skip


@pytest.fixture(autouse=True)
def small_world(monkeypatch):
    monkeypatch.setattr(tutor, "PAGES", 10)
    monkeypatch.setattr(tutor, "CONVERSATIONS", 100)
    monkeypatch.setattr(tutor, "EXAMINATION", 24)


def test_all_stages_run_and_each_begins_with_the_one_before(tmp_path, capsys):
    run = tmp_path / "assistant"
    assert main(["assistant", "--run", str(run), *SHORT, "--demonstrations", "50"]) == 0
    shown = capsys.readouterr().out
    assert re.findall(r"^(\d)\. ", shown, re.MULTILINE) == ["1", "2", "3", "4"]
    assert shown.count("<|user|>") >= 2  # what the later stages learn from
    assert f"nanogpt chat {run}/policy" in shown

    configs = {name: load_config(run / name / "config.toml") for name in ("base", "answers")}
    configs |= {name: load_config(run / name / "config.toml") for name in ("policy", "control")}
    assert [config.train.init for config in configs.values()] == [
        "", str(run / "base"), str(run / "answers"), str(run / "answers"),
    ]  # fmt: skip
    objectives = [config.train.objective for config in configs.values()]
    assert objectives == ["next-token", "answers", "policy", "answers"]
    assert {config.model for config in configs.values()} == {configs["base"].model}
    assert {configs[name].data.max_documents for name in ("answers", "control")} == {50}
    assert configs["policy"].data.max_documents == 0
    assert any("reward" in record for record in read_metrics(run / "policy"))

    results = json.loads((run / "results.json").read_text())
    assert list(results) == list(configs)
    for found in results.values():
        assert found["held-out"]["questions"] == found["longer"]["questions"] == 24
        assert list(found["tasks"]) == list(tutor.TASKS)
        assert sum(task["questions"] for task in found["tasks"].values()) == 24
    # The control trains for as long as the reinforcement took, at the pace of the fine-tuning.
    pace = results["answers"]["seconds"] / results["answers"]["steps"]
    expected = results["policy"]["seconds"] / pace
    assert results["control"]["steps"] == max(1, round(expected))


def test_without_the_control(tmp_path, capsys):
    run = tmp_path / "assistant"
    assert main(["assistant", "--run", str(run), "--no-control", *SHORT]) == 0
    assert sorted(path.name for path in run.iterdir() if path.is_dir()) == [
        "answers", "base", "policy",
    ]  # fmt: skip
    assert "more fine-tuning" not in capsys.readouterr().out.partition("what to try next")[0]


def test_what_it_suggests_can_be_typed():
    lines = re.findall(r"^  nanogpt (.*?)(?:  .*)?$", WHAT_NEXT.format(run="runs/a"), re.MULTILINE)
    assert len(lines) == 4
    for command, *words in map(str.split, lines):
        asked(importlib.import_module(f"nanogpt.cli.{command}").main).parse(words)


def test_interrupted_it_goes_on_where_it_was(tmp_path, capsys, monkeypatch):
    """Once in each stage; what is left is what an undisturbed one ends with."""

    def step_and_stop(loop):
        if loop.state.step == 0:  # of every stage
            loop.stop()
        return whole_step(loop)

    undisturbed, run = tmp_path / "undisturbed", tmp_path / "assistant"
    assert main(["assistant", "--run", str(undisturbed), "--no-control", *SHORT]) == 0
    whole_step = TrainingLoop.train_step
    monkeypatch.setattr(TrainingLoop, "train_step", step_and_stop)
    assert main(["assistant", "--run", str(run), "--no-control", *SHORT]) == 130
    for _ in ("answers", "policy"):
        assert f"nanogpt assistant --resume {run}" in capsys.readouterr().out
        assert not (run / "results.json").exists()
        assert main(["assistant", "--resume", str(run), "--no-control", *SHORT]) == 130
    assert main(["assistant", "--resume", str(run), "--no-control", *SHORT]) == 0
    assert (run / "results.json").exists()
    for stage in ("base", "answers", "policy"):
        one, other = (load_model(folder / stage).state_dict() for folder in (undisturbed, run))
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_folder_without_stages_cannot_go_on(tmp_path, capsys):
    assert main(["assistant", "--resume", str(tmp_path)]) == 2
    assert "no such run folder" in capsys.readouterr().err


MISTAKES = {
    "of the last stage": (["--policy.group-size=7"], "policy.group_size=7 does not divide"),
    "of the first stage": (["--model.n-embd=130"], "model.n_embd=130 is not divisible"),
    "another start": (["--train.init=x"], "--train.init is for single runs"),
    "another objective": (["--train.objective=answers"], "--train.objective is for single runs"),
    "no room": (["--model.context-length=32"], "model.context_length=32: use at least 56"),
    "too few": (["--demonstrations=-1"], "--demonstrations -1: use a positive number"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_said_before_anything_is_trained(mistake, tmp_path, capsys):
    options, complaint = MISTAKES[mistake]
    assert main(["assistant", "--run", str(tmp_path / "new"), *options]) == 2
    assert complaint in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_recipe_without_a_model_takes_that_of_its_weights(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shape = ["--model.n-layer=1", "--model.n-head=2", "--model.n-embd=16"]
    steps = ["--train.max-steps=2", "--train.batch-size=8", "--train.eval-batches=1"]
    assert main(["train", "tutor-answers"]) == 2  # nothing to begin with
    assert "runs/tutor-base" in capsys.readouterr().err
    assert main(["train", "tutor-base", *shape, *steps]) == 0
    assert main(["train", "tutor-answers", *steps]) == 0
    base, answers = (load_config(f"runs/tutor-{n}/config.toml") for n in ("base", "answers"))
    assert answers.model == base.model
    assert answers.data.tokenizer == "runs/tutor-base/tokenizer.json"
    assert main(["train", "tutor-answers", *steps, "--model.n-embd=32"]) == 2
    assert "has 16: set it to that" in capsys.readouterr().err


@pytest.mark.parametrize("start", ["train = 3", "[train]\ninit = 3", "[train.init]\na = 1"])
def test_weights_that_are_no_name_are_one_line(start, tmp_path, capsys):
    (tmp_path / "recipe.toml").write_text(start + "\n")
    assert main(["train", str(tmp_path / "recipe.toml"), "--run", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
