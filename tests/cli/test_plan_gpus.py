"""nanogpt plan --gpus: a table for people, figures for programs, a command that starts it."""

import json
import re
import shlex

import pytest

from nanogpt.cli import main
from nanogpt.cli.settings import Parser, load_settings
from nanogpt.config import Config, ParallelConfig, TrainConfig, load_config, to_toml

GPT2 = ["plan", "gpt2-124m", "--gpus"]


def shown(capsys, *arguments: str) -> str:
    assert main([*arguments]) == 0
    return capsys.readouterr().out


def refused(capsys, *arguments: str) -> str:
    assert main([*arguments]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def test_a_plan_for_64_gpus_says_what_to_set_what_limits_and_what_it_costs(capsys):
    text = shown(capsys, *GPT2, "64", "--gpu", "h100")
    header, *rows = text.splitlines()
    assert header.split() == [
        "data", "shard", "at", "once", "memory", "step", "of", "the", "peak", "costs", "most",
    ]  # fmt: skip
    assert re.search(r"^ +64 +8 x 1 +[\d.]+ GB +[\d.]+ ms +\d\d\.\d% +memory \d+%", text, re.M)
    assert "is recommended. Start it on every node with:" in text
    assert "torchrun --nnodes 8 --nproc-per-node 8 --rdzv-backend c10d" in text
    assert re.search(r"^time of a step: matrices \d+%, memory \d+%", text, re.M)
    assert re.search(r"^memory of a rank: weights [\d.]+ MB, gradients", text, re.M)
    assert re.search(r"^19,073 steps of 524,288 tokens: [\d.]+ min, \$[\d.]+$", text, re.M)
    assert len(rows) < 25


def test_the_plan_as_json_has_the_same_figures(capsys):
    plan = json.loads(shown(capsys, *GPT2, "8", "--gpu", "a100", "--json"))
    assert (plan["gpu"], plan["gpus"], plan["gpus_per_node"]) == ("A100", 8, 8)
    assert plan["tokens_per_step"] == 524_288
    assert plan["parameters"] == 124_475_904  # the vocabulary is rounded up to 50,304
    best = plan["recommended"]
    assert best["layout"] == {"pipeline": 1, "data": 8, "context": 1, "shard": 1, "tensor": 1}
    assert best["sent_bytes_per_step"] == {"data": 2 * 7 / 8 * 4 * 124_475_904}
    assert best["memory_bytes"]["weights"] == 4 * 124_475_904
    uses = [size for use, size in best["memory_bytes"].items() if use != "total"]
    assert best["memory_bytes"]["total"] == pytest.approx(sum(uses))
    assert best["seconds_per_step"] == pytest.approx(sum(best["seconds"].values()))
    flops = plan["flops_per_token"] * 524_288
    peak = 8 * plan["peak_flops_per_second"]
    assert best["efficiency"] == pytest.approx(flops / best["seconds_per_step"] / peak)
    assert best["dollars"] == pytest.approx(best["hours"] * 8 * 1.3)
    assert best["hours"] == pytest.approx(best["seconds_per_step"] * 19_073 / 3600)
    assert len(plan["layouts"]) > 20
    assert plan["fit"] is None


@pytest.mark.parametrize("gpus", ["1", "8", "64", "1024"])
def test_the_recommended_command_is_one_that_train_accepts(gpus, capsys):
    plan = json.loads(shown(capsys, *GPT2, gpus, "--json"))
    words = shlex.split(plan["recommended"]["command"])
    parser = Parser("train", "")
    parser.add_recipe()
    parser.add_settings(TrainConfig, ParallelConfig)
    options = parser.parse(words[words.index("train") + 1 :])
    config = load_settings(options.recipe, options)
    assert config.tokens_per_step == 524_288
    layout = plan["recommended"]["layout"]
    for name in ("shard", "tensor", "pipeline", "context"):
        assert getattr(config.parallel, name) == layout[name]
    assert config.train.batch_size % (layout["data"] * layout["shard"]) == 0
    started = re.search(r"--nnodes (\d+) --nproc-per-node (\d+)", plan["recommended"]["command"])
    if int(gpus) > 8:
        assert int(started[1]) * int(started[2]) == int(gpus)


def test_a_layout_that_someone_has_decided_on_is_compared_alone(capsys):
    plan = json.loads(shown(capsys, *GPT2, "16", "--parallel.tensor", "4", "--json"))
    assert {each["layout"]["tensor"] for each in plan["layouts"]} == {4}


def test_a_run_puts_the_plan_right(capsys, tmp_path):
    config = load_config("configs/gpt2-124m.toml")
    slow = {"loss": 1.0, "lr": 0.1, "grad_norm": 1.0, "data_wait": 0.0, "tokens_per_second": 3e5}
    (tmp_path / "config.toml").write_text(to_toml(config))
    lines = [json.dumps({"step": n, **slow}) + "\n" for n in range(1, 9)]
    (tmp_path / "metrics.jsonl").write_text("".join(lines))
    text = shown(capsys, *GPT2, "8", "--fit", str(tmp_path))
    assert "mean error 0.0%, largest 0.0%" in text
    assert re.search(r"matrices reach \d\d% of the peak", text)
    plain, fitted = (
        json.loads(shown(capsys, *GPT2, "8", "--json", *more))
        for more in ([], ["--fit", str(tmp_path)])
    )
    run = fitted["fit"]["runs"][0]
    assert run["seconds_per_step"] == pytest.approx(524_288 / 3e5)
    assert run["predicted_seconds"] == pytest.approx(524_288 / 3e5, rel=1e-3)
    assert (
        fitted["recommended"]["seconds_per_step"] > 1.2 * plain["recommended"]["seconds_per_step"]
    )


def test_the_command_says_what_was_asked_and_differs_from_the_recipe(capsys):
    more = ["--model.n-layer", "24", "--train.lr", "3e-4", "--sample.prompt", "Once upon"]
    text = shown(capsys, *GPT2, "8", *more)
    assert "train gpt2-124m --model.n-layer 24 --train.lr 3e-4 --sample.prompt 'Once upon'" in text
    assert "parallel.shard 1" not in text


def test_this_machine_can_be_planned_for(capsys):
    small = ["--model.n-layer=2", "--model.n-embd=32", "--model.n-head=2"]
    text = shown(capsys, "plan", "demo", "--gpus", "2", "--gpu", "cpu", *small)
    assert "torchrun --standalone --nproc-per-node 2 -m nanogpt train demo" in text
    assert "$" not in text


LARGE = ["--model.n-layer=96", "--model.n-head=96", "--model.n-embd=12288"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--gpu", "h100"], "--gpu and --fit need the number of GPUs: add --gpus 8"),
        (["--fit", "runs/none"], "need the number of GPUs"),
        (["--gpus", "0"], "--gpus 0: use a number from 1 to 100000"),
        (["--gpus", "many"], "invalid int value: 'many'"),
        (["--gpus", "8", "--model.attention-dropout=0.1"], "attention_dropout=0.1: use 0 here"),
        (["--gpus", "12"], "a node has 8 H100; use 8 or 16"),
        (["--gpus", "8", "--gpu", "h10"], "did you mean h100?"),
        (["--gpus", "8", "--fit", "runs/none"], "runs/none: no such run folder"),
        (["--gpus", "8", "--train.precision=float32"], "GPUs are planned in 16 bits"),
        (["--gpus", "8", *LARGE], "the model fits into no layout of 8 H100: it needs at least"),
        (["--gpus", "16", "--parallel.tensor=5"], "--parallel.tensor 5 is no layout of 16 ranks"),
    ],
)
def test_mistakes_cost_one_line(arguments, said, capsys):
    assert said in refused(capsys, "plan", "gpt2-124m", *arguments)


def test_the_settings_of_a_plan_are_those_of_a_run():
    assert Config().parallel == ParallelConfig()
