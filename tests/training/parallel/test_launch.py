"""Processes that start, stop and die: one message that names the rank, and the same end."""

import math
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from test_equal import largest_difference
from worlds import run_ranks

from nanogpt.cli import main
from nanogpt.config import Config, ModelConfig, config_from_dict, load_config, to_toml
from nanogpt.errors import UserError
from nanogpt.model.gpt import GPT
from nanogpt.training.checkpoint import find_checkpoint, load_tensors
from nanogpt.training.parallel.limits import refuse_model
from nanogpt.training.records import read_metrics

SMALL = [
    "--model.n-layer", "2", "--model.n-head", "2", "--model.n-embd", "16",
    "--model.context-length", "16", "--train.batch-size", "4", "--train.device", "cpu",
    "--train.precision", "float32", "--train.eval-batches", "1", "--train.eval-interval", "1000",
    "--train.sample-interval", "0", "--train.checkpoint-interval", "20", "--train.compile", "off",
    "--parallel.timeout", "60",
]  # fmt: skip


TWO = ["--parallel.processes", "2"]


class Training:
    """`nanogpt train` as a person starts it, and its processes."""

    def __init__(self, run, data, steps, *more):
        self.run = run
        command = [
            sys.executable, "-m", "nanogpt", "train", "--data.folder", str(data), "--run", str(run),
            "--train.max-steps", str(steps), *SMALL, *more,
        ]  # fmt: skip
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
        )  # fmt: skip

    def after(self, records, timeout=120):
        """The ranks' processes, once there are so many records."""
        metrics, end = self.run / "metrics.jsonl", time.time() + timeout
        while not metrics.exists() or metrics.read_text().count("\n") < records:
            assert time.time() < end, self.end(1)
            assert self.process.poll() is None, self.process.communicate()[0]
            time.sleep(0.02)
        folders = (p for p in Path("/proc").iterdir() if p.name.isdecimal())
        return {rank: pid for pid, rank in filter(None, map(self.child, folders))}

    def child(self, folder):
        try:
            parent = re.search(r"PPid:\s+(\d+)", (folder / "status").read_text())[1]
            rank = re.search(rb"\0RANK=(\d+)\0", (folder / "environ").read_bytes())
        except (OSError, TypeError):
            return None
        ours = parent == str(self.process.pid) and rank
        return (int(folder.name), int(rank[1])) if ours else None

    def end(self, timeout=120):
        """The exit code, and what was printed."""
        try:
            said = self.process.communicate(timeout=timeout)[0]
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        return self.process.returncode, said


def last_weights(run):
    return load_tensors(find_checkpoint(run), "model.safetensors")


@pytest.fixture(scope="module")
def calm(worlds):
    """A run of two processes that nobody disturbs."""
    training = Training(worlds.new_folder() / "run", worlds.data, 150, "--parallel.processes", "2")
    code, said = training.end()
    assert code == 0, said
    assert "Warning" not in said
    assert "by 2 processes" in said
    assert said.count("parameters:") == 1  # one rank speaks for all
    return training.run


def test_a_run_of_two_processes_leaves_what_one_leaves(calm):
    assert sorted(path.name for path in calm.iterdir()) == [
        "checkpoints", "config.toml", "loss.png", "metrics.jsonl", "samples.md", "tokenizer.json",
    ]  # fmt: skip
    assert len([r for r in read_metrics(calm) if "loss" in r]) == 150
    assert load_config(calm / "config.toml").parallel.processes == 2


def test_killed_ranks_are_replaced_and_the_end_is_the_same(calm, worlds):
    run = worlds.new_folder() / "run"
    more = ["--parallel.processes", "2", "--parallel.restarts", "2"]
    training = Training(run, worlds.data, 150, *more)
    os.kill(training.after(60)[1], signal.SIGKILL)
    code, said = training.end()
    assert code == 0, said
    assert largest_difference(last_weights(calm), last_weights(run)) == 0


@pytest.mark.parametrize("how", ["SIGKILL", "SIGTERM"])
def test_what_ends_a_run_says_it_once(worlds, how):
    run = worlds.new_folder() / "run"
    training = Training(run, worlds.data, 100_000, "--parallel.processes", "2")
    ranks = training.after(30)
    if how == "SIGKILL":
        os.kill(ranks[1], signal.SIGKILL)
        code, said = training.end()
        assert (code, said.count("nanogpt:")) == (2, 1)
        assert "rank 1 died (SIGKILL)" in said
        return
    training.process.send_signal(signal.SIGTERM)
    code, said = training.end()
    assert code == 130
    stopped = int(re.search(r"stopped at step ([\d,]+)", said)[1].replace(",", ""))
    assert find_checkpoint(run).name == f"step-{stopped:06d}"


def test_a_run_that_is_there_stays_as_it_is(calm, worlds):
    before = {path: path.read_bytes() for path in calm.rglob("*") if path.is_file()}
    with pytest.raises(AssertionError, match="is not empty; choose another --run"):
        arguments = ["--data.folder", str(worlds.data), "--run", str(calm), *SMALL]
        run_ranks(2, ["-m", "nanogpt", "train", *arguments], 60)
    assert {path: path.read_bytes() for path in calm.rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_ranks_end_with_a_launcher_that_is_killed(worlds):
    training = Training(worlds.new_folder() / "run", worlds.data, 100_000, *TWO)
    ranks = training.after(30)
    training.process.kill()
    try:
        training.process.communicate(timeout=30)  # waits until nobody can write to the pipe
    finally:
        for process in ranks.values():
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


@pytest.mark.slow
def test_a_killed_rank_of_a_pipeline_is_named_without_a_traceback(worlds):
    more = [*TWO, "--parallel.pipeline", "2"]
    training = Training(worlds.new_folder() / "run", worlds.data, 100_000, *more)
    os.kill(training.after(30)[0], signal.SIGKILL)
    code, said = training.end()
    assert (code, said.count("nanogpt:"), said.count("Traceback")) == (2, 1, 0)
    assert "rank 0 died (SIGKILL)" in said
    assert "stopped" not in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stopped", "layout"),
    [(0, "data 2"), (1, "data 2"), (1, "tensor 2 data 2"), (1, "tensor 2 pipeline 2")],
)
def test_a_rank_that_hangs_is_named_after_the_time_limit(worlds, stopped, layout):
    words = layout.split()
    count = math.prod(map(int, words[1::2]))
    run = worlds.new_folder() / "run"
    more = ["--parallel.processes", str(count), "--parallel.timeout", "10"]
    for name, size in zip(words[::2], words[1::2], strict=True):
        more += [f"--parallel.{name}", size]
    training = Training(run, worlds.data, 100_000, *more)
    os.kill(training.after(30)[stopped], signal.SIGSTOP)
    code, said = training.end()
    assert (code, said.count("nanogpt:")) == (2, 1)
    assert f"rank {stopped} has not answered for 10 s" in said


@pytest.mark.slow
def test_kills_at_many_moments(calm, worlds):
    for records in (1, 21, 100):
        run = worlds.new_folder() / "run"
        more = ["--parallel.processes", "2", "--parallel.restarts", "1"]
        training = Training(run, worlds.data, 150, *more)
        os.kill(training.after(records)[records % 2], signal.SIGKILL)
        code, said = training.end()
        assert code == 0, said
        assert largest_difference(last_weights(calm), last_weights(run)) == 0


@pytest.fixture(scope="module")
def refusals(worlds):
    """What two ranks say of two jobs."""
    wild = worlds.settings({"shard": 2}, train={"lr": 1e25, "grad_clip": 0, "warmup_steps": 0})
    rows = worlds.settings({"data": 2}, train={"batch_size": 7})
    return worlds.together(2, {"wild": {"settings": wild}, "rows": {"settings": rows}})


def test_no_number_names_the_rank(refusals):
    said = refusals["wild"].said
    assert re.fullmatch(r"rank \d met a loss or a gradient that is no number at step \d: .*", said)


IMPOSSIBLE = {
    "heads": ({"tensor": 2}, {"model": {"n_head": 3}}, "model.n_head=3: use a multiple of 2 ranks"),
    "processes": ({"tensor": 4}, {}, "tensor 4 needs 4 processes, not 2"),
    "rows": ({"data": 2}, {"train": {"batch_size": 7}}, "train.batch_size=7"),
    "tokens": ({"context": 2}, {"model": {"context_length": 15}}, "model.context_length=15"),
    "layers": ({"pipeline": 2}, {"model": {"n_layer": 1}}, "model.n_layer=1: use at least 2"),
    "parts": (
        {"pipeline": 2, "microbatches": 3},
        {},
        "4 sequences cannot go through 1f1b in 3 parts",
    ),
    "few parts": ({"pipeline": 2, "microbatches": 1}, {}, "a divisor of 4, at least 2"),
    "dropout": ({"pipeline": 2}, {"model": {"dropout": 0.1}}, "model.dropout=0.1"),
    "attention": ({"data": 2}, {"model": {"attention_dropout": 0.1}}, "attention_dropout=0.1"),
    "precision": ({"data": 2}, {"train": {"precision": "float16"}}, "train.precision='float16'"),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_what_cannot_be_is_refused_before_any_process_starts(
    worlds, name, capsys, tmp_path, monkeypatch
):
    parallel, changes, said = IMPOSSIBLE[name]
    monkeypatch.setattr("torch.distributed.launcher.api.elastic_launch", None)  # starts them
    settings = config_from_dict(worlds.settings({**parallel, "processes": 2}, **changes))
    (tmp_path / "recipe.toml").write_text(to_toml(settings))
    run = tmp_path / "run"
    assert main(["train", str(tmp_path / "recipe.toml"), "--run", str(run)]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not run.exists()


def test_ranks_that_torchrun_started_refuse_what_cannot_be(refusals):
    assert "train.batch_size=7: use a multiple of 2 ranks" in refusals["rows"].said
    assert not refusals["rows"].run.exists()


def test_a_tensor_that_no_rank_would_get_is_named():
    model = GPT(ModelConfig(n_layer=1, n_head=1, n_embd=8, vocab_size=8, context_length=8))
    model.h[0].mlp.table = torch.ones(3)
    with pytest.raises(UserError, match=r"h\.0\.mlp\.table is a tensor .*register_buffer"):
        refuse_model(Config(), model, {})


def test_an_unknown_schedule_is_refused_without_a_pipeline(worlds, capsys, tmp_path):
    given = ["--data.folder", str(worlds.data), "--run", str(tmp_path / "run"), *SMALL]
    assert main(["train", *given, "--parallel.schedule", "2f2b"]) == 2
    assert "parallel.schedule='2f2b' is unknown" in capsys.readouterr().err


def test_far_too_many_processes_are_refused(worlds, capsys, tmp_path):
    given = ["--data.folder", str(worlds.data), "--run", str(tmp_path / "run"), *SMALL]
    assert main(["train", *given, "--parallel.processes", "1000"]) == 2
    assert "--parallel.processes 1000: use 1 to" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_one_process_refuses_a_layout_for_many(worlds, capsys, tmp_path):
    given = ["--data.folder", str(worlds.data), "--run", str(tmp_path / "run"), *SMALL]
    assert main(["train", *given, "--parallel.tensor", "2"]) == 2
    assert "needs 2 processes, not 1" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
