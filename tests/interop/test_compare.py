"""nanogpt compare: honest about what agrees, and about what does not."""

import json
import re

import pytest
import torch
from transformers import AutoModelForCausalLM

from nanogpt.cli import main
from nanogpt.cli.compare import verdict
from nanogpt.config import SampleConfig
from nanogpt.interop import compare as side_by_side
from nanogpt.interop.compare import Comparison, Pair, differences, lines_run
from nanogpt.interop.huggingface import export
from nanogpt.model.gpt import GPT
from nanogpt.text.tokenizer import Tokenizer

from conftest import TEXT, tiny


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(side_by_side, "ROUNDS", 1)


def test_a_run_and_its_twin_in_transformers_are_the_same_model(small_trained_run, capsys):
    assert main(["compare", str(small_trained_run), "--new-tokens", "9"]) == 0
    report = (small_trained_run / "compare" / "report.md").read_text()
    assert "**The same model**" in report, report
    assert "The same model" in " ".join(capsys.readouterr().out.split())
    assert re.search(r"greedy tokens that agree \| 8 of 8", report)
    lines = re.search(r"lines run in one forward pass \| (\d+) \| (\d+)", report)
    assert 20 < int(lines[1]) < int(lines[2])
    assert (small_trained_run / "compare" / "report.png").stat().st_size > 10_000


def test_a_comparison_as_json(small_trained_run, capsys):
    assert main(["compare", str(small_trained_run), "--new-tokens", "5", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["same_model"] is True
    assert found["architecture"] == "GPT2LMHeadModel"
    assert found["largest_logit_difference"] < 1e-3
    assert found["greedy_ids"]["nanogpt"] == found["greedy_ids"]["transformers"]
    speed = found["training_tokens_per_second"]
    assert speed["ratio"] == pytest.approx(speed["nanogpt"] / speed["transformers"])
    assert (small_trained_run / "compare" / "report.md").exists()


def test_one_changed_weight_is_noticed(tmp_path):
    torch.manual_seed(0)
    model = GPT(tiny(vocab_size=300)).eval()
    tokenizer = Tokenizer.train([TEXT], 300)
    export(tmp_path / "out", model, tokenizer, SampleConfig(), "")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    ids = torch.randint(300, (1, 12))
    assert max(differences(model, theirs, ids)[:2]) < 1e-5
    with torch.no_grad():
        theirs.transformer.h[1].mlp.c_fc.weight[0, 0] += 0.5
    logits, _, gradients = differences(model, theirs, ids)
    assert logits > 1e-3
    assert max(gradients.values()) > 1e-4


def comparison(**changes: object) -> Comparison:
    same = Pair(1.0, 1.0)
    values = {
        "architecture": "GPT2LMHeadModel", "parameters": 1, "tokens": 1, "same_ids": True,
        "logits": 1e-6, "loss": 0.0, "gradients": {"x": 1e-7}, "greedy_ours": [1],
        "greedy_theirs": [1], "training": same, "generating": same, "memory": same,
        "start": same, "lines": Pair(49.0, 443.0), "files": same,
    }  # fmt: skip
    return Comparison(**values | changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"same_ids": False},
        {"logits": 0.1},
        {"logits": float("nan")},
        {"gradients": {"x": 0.1}},
        {"greedy_theirs": [2]},
    ],
)
def test_the_verdict_is_no_if_anything_differs(changes):
    assert verdict(comparison()).startswith("**The same model**")
    assert verdict(comparison(**changes)).startswith("**Not the same model**")


def test_lines_are_those_that_run(tmp_path):
    source = "def f(x):\n    if x:\n        return 1\n    y = 2\n    return y\n"
    (tmp_path / "m.py").write_text(source)
    scope: dict = {}
    exec(compile(source, str(tmp_path / "m.py"), "exec"), scope)
    assert lines_run(lambda: scope["f"](True), tmp_path) == (2, 1)
    assert lines_run(lambda: scope["f"](False), tmp_path) == (3, 1)
    assert lines_run(lambda: scope["f"](False), tmp_path / "elsewhere") == (0, 0)


def test_what_cannot_be_compared_costs_one_line(small_trained_run, tmp_path, capsys):
    assert main(["compare", "none"]) == 2
    assert "none: no such run folder" in capsys.readouterr().err
    assert main(["compare", str(small_trained_run), "--new-tokens", "0"]) == 2
    assert "--new-tokens 0: use at least 1" in capsys.readouterr().err
