"""Training: accumulation, exact resume, the best checkpoint, and stopping at any moment."""

import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from nanogpt import files
from nanogpt.config import IGNORED, load_config
from nanogpt.device import resolve
from nanogpt.errors import UserError
from nanogpt.evaluation.loss import evaluate
from nanogpt.generation.sampling import SAMPLERS
from nanogpt.model.gpt import GPT
from nanogpt.text.batches import BATCHES, Batch
from nanogpt.text.formats import load_tokenizer
from nanogpt.text.tokenfiles import end_of_text, write_token_file
from nanogpt.text.tokenizer import CharTokenizer, Tokenizer
from nanogpt.training.checkpoint import find_checkpoint, load_state, load_tensors
from nanogpt.training.load import load
from nanogpt.training.loop import accumulate_gradients, dropout_seed
from nanogpt.training.objective.next_token import NextToken
from nanogpt.training.optim import OPTIMIZERS
from nanogpt.training.records import Reached, Sample, Step, Validation, read_metrics
from nanogpt.training.start import Trainer

from conftest import small_run, tiny

CPU = resolve("cpu", "float32")


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_tensors(find_checkpoint(run), "model.safetensors")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def without_time(records: list[dict]) -> list[dict]:
    timed = ("tokens_per_second", "data_wait")
    return [{k: v for k, v in r.items() if k not in timed} for r in records]


@pytest.mark.parametrize("sizes", [(6,), (3, 3), (1, 2, 3)])
def test_accumulated_gradients_equal_those_of_the_one_large_batch(sizes):
    """Also where the batches hold different numbers of real targets."""
    torch.manual_seed(0)
    model = GPT(tiny()).train()
    ids = np.random.default_rng(0).integers(0, 61, (6, 17))
    x, y = ids[:, :-1], ids[:, 1:].copy()
    y[0, 3:] = IGNORED
    y[5, :15] = IGNORED
    loss = model.loss(model(torch.from_numpy(x)), torch.from_numpy(y))
    expected = torch.autograd.grad(loss, list(model.parameters()))
    cuts = np.cumsum(sizes)[:-1]
    batches = [Batch(*xy) for xy in zip(np.split(x, cuts), np.split(y, cuts), strict=True)]
    mean = accumulate_gradients(NextToken(model), batches, CPU).item()
    assert mean == pytest.approx(loss.item(), abs=1e-6)
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=0, atol=1e-7)  # observed 2e-8


def test_a_run_leaves_the_files_of_the_design(prepared, tmp_path):
    run = tmp_path / "run"
    records = list(Trainer.start(run, small_run(prepared)).run())
    assert [r.step for r in records if isinstance(r, Step)] == list(range(1, 13))
    assert [r.step for r in records if isinstance(r, Validation)] == [0, 4, 8, 12]
    assert [r.step for r in records if isinstance(r, Sample)] == [0, 6, 12]
    assert all(r.sample.startswith("DUKE:") for r in records if isinstance(r, Sample))
    assert {p.name for p in run.iterdir()} == {
        "config.toml",
        "tokenizer.json",
        "metrics.jsonl",
        "checkpoints",
    }
    latest = find_checkpoint(run)
    assert latest.name == "step-000012"
    assert {p.name for p in latest.iterdir()} == {
        "model.safetensors",
        "optimizer.safetensors",
        "state.json",
    }
    state, config = load_state(latest)
    assert state.step == 12
    assert config == load_config(run / "config.toml")
    assert config.model.vocab_size == 300
    assert config.train.precision == "float32"


def test_the_loss_falls_and_the_schedule_reaches_the_optimizer(prepared, tmp_path):
    """A schedule that is computed and never set."""
    config = small_run(prepared, max_steps=60, lr=1e-2, min_lr=1e-3, warmup_steps=4)
    trainer = Trainer.start(tmp_path / "run", config)
    records = list(trainer.run())
    steps = [r for r in records if isinstance(r, Step)]
    assert steps[0].lr == pytest.approx(1e-2 / 5)
    assert max(r.lr for r in steps) == pytest.approx(1e-2)
    assert trainer.optimizer.param_groups[1]["lr"] == steps[-1].lr < 1.1e-3
    validations = [r.val_loss for r in records if isinstance(r, Validation)]
    assert validations[-1] < validations[0] - 2


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("stop_after", [1, 6, 11])
def test_a_stopped_and_resumed_run_ends_with_the_same_bits(
    prepared, tmp_path, optimizer, stop_after
):
    """Parameters, optimizer, best loss, batches, dropout and metrics."""
    config = small_run(prepared, optimizer=optimizer)
    list(Trainer.start(tmp_path / "whole", config).run())
    trainer = Trainer.start(tmp_path / "parts", config)
    for record in trainer.run():
        if record.step == stop_after:
            trainer.stop()
    assert trainer.state.step == stop_after
    assert find_checkpoint(tmp_path / "parts").name == f"step-{stop_after:06d}"
    list(Trainer.resume(tmp_path / "parts").run())
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert same(weights(whole), weights(parts))
    ends = [find_checkpoint(run) for run in (whole, parts)]
    assert same(*(load_tensors(end, "optimizer.safetensors") for end in ends))
    assert load_state(ends[0])[0].best_loss == load_state(ends[1])[0].best_loss
    assert without_time(read_metrics(whole)) == without_time(read_metrics(parts))


def test_a_run_killed_without_warning_resumes_to_the_same_bits(prepared, tmp_path):
    """Records written after the last checkpoint are dropped, and their steps done again."""
    config = small_run(prepared)
    list(Trainer.start(tmp_path / "whole", config).run())
    for record in Trainer.start(tmp_path / "running", config).run():
        if record.step == 7:  # what is on disk now is what a kill would leave
            shutil.copytree(tmp_path / "running", tmp_path / "killed")
    assert read_metrics(tmp_path / "killed")[-1]["step"] == 7
    assert find_checkpoint(tmp_path / "killed").name == "step-000005"
    with (tmp_path / "killed" / "metrics.jsonl").open("a") as metrics:
        metrics.write('{"step": 7, "lo')
    list(Trainer.resume(tmp_path / "killed").run())
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "killed"))
    whole, again = (read_metrics(tmp_path / name) for name in ("whole", "killed"))
    assert without_time(whole) == without_time(again)


def test_closing_the_iterator_saves_too(prepared, tmp_path):
    """A reader of the progress that goes away must not cost the progress."""
    records = Trainer.start(tmp_path / "run", small_run(prepared)).run()
    while next(records).step < 3:
        pass
    records.close()
    assert find_checkpoint(tmp_path / "run").name == "step-000003"


def test_a_run_refuses_to_go_on_with_other_data(prepared, tmp_path):
    """The vocabulary has the same size, so nothing else would notice."""
    run = tmp_path / "run"
    list(Trainer.start(run, small_run(prepared, max_steps=2)).run())
    tokenizer = load_tokenizer(prepared / "tokenizer.json")
    write_token_file(prepared / "train.bin", ["Another text altogether. " * 99], tokenizer)
    with pytest.raises(UserError, match=r"prepared has changed since .*run began"):
        Trainer.resume(run)
    other = Tokenizer.train(["Another text altogether. "], 300)
    write_token_file(prepared / "train.bin", ["Another text altogether. " * 99], other)
    with pytest.raises(UserError, match="made with another tokenizer"):
        Trainer.resume(run)


def test_a_run_can_be_resumed_from_anywhere(prepared, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    list(Trainer.start(Path("run"), small_run(Path("prepared"), max_steps=2)).run())
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert Trainer.resume(Path("../run")).state.step == 2


def test_what_a_crash_left_half_written_is_removed(prepared, tmp_path):
    run = tmp_path / "run"
    (run / "checkpoints" / ".step-000001.abc").mkdir(parents=True)
    list(Trainer.start(run, small_run(prepared, max_steps=2)).run())
    assert not list(run.glob("checkpoints/.step-*"))


def test_files_have_the_permissions_that_the_umask_leaves(prepared, tmp_path):
    previous = os.umask(0o027)
    try:
        list(Trainer.start(tmp_path / "run", small_run(prepared, max_steps=2)).run())
    finally:
        os.umask(previous)
    paths = list((tmp_path / "run").rglob("*"))
    assert {oct(p.stat().st_mode & 0o777) for p in paths if p.is_file()} == {"0o640"}
    assert {oct(p.stat().st_mode & 0o777) for p in paths if p.is_dir()} == {"0o750"}


def test_a_run_stopped_before_its_first_checkpoint_starts_again(prepared, tmp_path):
    Trainer.start(tmp_path / "run", small_run(prepared))
    trainer = Trainer.resume(tmp_path / "run")
    assert trainer.state.step == 0
    assert [r.step for r in trainer.run()][-1] == 12


def test_looking_more_often_changes_nothing(prepared, tmp_path):
    """Evaluation and samples must not draw from the stream that training draws from."""
    for name, interval in {"often": 1, "rarely": 12}.items():
        config = small_run(prepared, eval_interval=interval, sample_interval=interval)
        list(Trainer.start(tmp_path / name, config).run())
    assert same(weights(tmp_path / "often"), weights(tmp_path / "rarely"))


def test_best_is_never_overwritten_by_something_worse(prepared, tmp_path):
    """A learning rate that ruins the model late must leave the early best alone."""
    config = small_run(prepared, max_steps=8, eval_interval=2, lr=1e-2, min_lr=1e-2, warmup_steps=0)
    trainer = Trainer.start(tmp_path / "run", config)
    for record in trainer.run():
        if record.step == 4 and isinstance(record, Validation):
            with torch.no_grad():  # from here on the model is worse than at the start
                for parameter in trainer.model.parameters():
                    parameter.mul_(20)
    losses = {r["step"]: r["val_loss"] for r in read_metrics(tmp_path / "run") if "val_loss" in r}
    assert losses[6] > losses[4]
    assert find_checkpoint(tmp_path / "run", "best").name == "step-000004"
    assert find_checkpoint(tmp_path / "run").name == "step-000008"
    assert load_state(find_checkpoint(tmp_path / "run"))[0].best_loss == losses[4]
    left = {p.name for p in (tmp_path / "run" / "checkpoints").glob("step-*")}
    assert left == {"step-000004", "step-000008"}


def test_a_loss_that_blows_up_stops_the_run_before_the_weights_are_spoilt(prepared, tmp_path):
    trainer = Trainer.start(tmp_path / "run", small_run(prepared))
    with torch.no_grad():
        trainer.model.ln_f.weight[0] = float("inf")
    before = {k: v.clone() for k, v in trainer.model.state_dict().items()}
    with pytest.raises(
        UserError, match=r"training diverged at step 1, batch 0 .*gradients: wte.* train\.lr below"
    ):
        trainer.train_step()
    assert same(before, trainer.model.state_dict())


@pytest.mark.parametrize(("weight", "usable"), [(1e38, True), (math.inf, False)])
def test_a_checkpoint_is_recommended_only_if_its_weights_are_numbers(
    prepared, tmp_path, weight, usable
):
    trainer = Trainer.start(tmp_path / "run", small_run(prepared))
    trainer.train_step()
    with torch.no_grad():
        trainer.model.ln_f.weight[:] = weight
    with pytest.raises(UserError) as stop:
        trainer.train_step()
    assert ("the checkpoint of step 1 is from before" in str(stop.value)) is usable
    assert (tmp_path / "run" / "checkpoints").exists() is usable


def test_a_checkpoint_that_holds_spoilt_weights_is_not_recommended(prepared, tmp_path):
    trainer = Trainer.start(tmp_path / "run", small_run(prepared))
    trainer.train_step()
    with torch.no_grad():
        trainer.model.ln_f.weight[:] = math.inf
    trainer.save()  # as at the interval of checkpoints
    with pytest.raises(UserError) as stop:
        trainer.train_step()
    assert "checkpoint" not in str(stop.value)


def test_clipping_bounds_the_step_and_zero_turns_it_off(prepared, tmp_path):
    for clip, bounded in ((1e-3, True), (0.0, False)):
        trainer = Trainer.start(tmp_path / f"{clip}", small_run(prepared, grad_clip=clip))
        norm = trainer.train_step().grad_norm
        after = torch.stack([p.grad.norm() for p in trainer.model.parameters()]).norm().item()
        assert norm > 0.1
        assert after == pytest.approx(1e-3 if bounded else norm, rel=1e-3)


def test_dropout_seeds_differ_by_seed_and_step():
    assert len({dropout_seed(*parts) for parts in [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2)]}) == 5


def test_bfloat16_keeps_float32_weights_and_trains(prepared, tmp_path):
    trainer = Trainer.start(
        tmp_path / "run", small_run(prepared, precision="bfloat16", max_steps=4)
    )
    records = [r for r in trainer.run() if isinstance(r, Step)]
    assert all(np.isfinite(r.loss) for r in records)
    assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}


@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing"])
@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_a_damaged_checkpoint_is_named(prepared, tmp_path, name, damage):
    run = tmp_path / "run"
    list(Trainer.start(run, small_run(prepared, max_steps=2)).run())
    path = find_checkpoint(run) / name
    content = path.read_bytes()
    if damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        path.write_bytes(content[:-5] + bytes([content[-5] ^ 255]) + content[-4:])
    else:
        path.unlink()
    with pytest.raises(UserError, match=name):
        Trainer.resume(run)


def test_weights_that_do_not_fit_the_settings_are_named_with_both_shapes(prepared, tmp_path):
    run = tmp_path / "run"
    list(Trainer.start(run, small_run(prepared, max_steps=2)).run())
    path = find_checkpoint(run) / "state.json"
    values = json.loads(path.read_text())
    values["config"]["model"]["context_length"] = 32
    path.write_text(json.dumps(values))
    with pytest.raises(
        UserError, match=r"wpe\.weight is \(16, 16\), but the settings make it \(32, 16\)"
    ):
        load(run)


def test_a_full_disk_leaves_the_last_checkpoint_whole(prepared, tmp_path, monkeypatch):
    run = tmp_path / "run"
    trainer = Trainer.start(run, small_run(prepared))
    before = {}

    def full(*_):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        for record in trainer.run():
            if record.step == 6 and isinstance(record, Step):
                before = weights(run)
                monkeypatch.setattr("nanogpt.training.checkpoint.write_json", full)
    assert same(before, weights(run))
    assert not [p for p in (run / "checkpoints").iterdir() if p.name.startswith(".")]


def test_a_crash_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    files.write_text(path, "old")
    with pytest.raises(ZeroDivisionError), files.writing(path) as file:
        file.write(b"new")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


SCRIPT = """
import sys
from nanogpt.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_saves_a_checkpoint_and_the_run_goes_on(prepared, tmp_path, sent):
    run = tmp_path / "run"
    command = [sys.executable, "-c", SCRIPT, "train", "--run", str(run)]
    command += [
        f"--data.folder={prepared}",
        "--train.max-steps=50000",
        "--train.eval-interval=50000",
    ]
    command += ["--model.n-layer=1", "--model.n-head=1", "--model.n-embd=8"]
    command += ["--model.context-length=8", "--train.batch-size=2", "--sample.max-new-tokens=2"]
    command += ["--train.eval-batches=1", "--train.checkpoint-interval=50000"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )
    metrics = run / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while not (metrics.exists() and metrics.stat().st_size > 2000) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(sent)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert f"nanogpt train --resume {run}\n" in output
    stopped_at = int(re.search(r"stopped at step ([\d,]+)", output).group(1).replace(",", ""))
    assert 0 < stopped_at < 50_000
    assert (run / "loss.png").exists()
    trainer = Trainer.resume(run)
    assert trainer.state.step == stopped_at
    assert trainer.train_step().step == stopped_at + 1


def test_targets_are_recorded_once_and_the_last_one_may_end_the_run(prepared, tmp_path):
    config = small_run(prepared, max_steps=40, eval_interval=2, lr=1e-2, targets="5.0, 4.5, 0.1")
    records = list(Trainer.start(tmp_path / "all", config).run())
    reached = [r for r in records if isinstance(r, Reached)]
    assert [r.target for r in reached] == [5.0, 4.5]
    losses = {r.step: r.val_loss for r in records if isinstance(r, Validation)}
    for record in reached:
        assert losses[record.step] <= record.target
        assert all(loss > record.target for step, loss in losses.items() if step < record.step)
        assert 0 < record.seconds < 60
    assert records[-1].step == 40

    settings = {"targets": "4.5", "stop_at_target": True}
    trainer = Trainer.start(tmp_path / "some", small_run(prepared, **{**settings, "max_steps": 40,
                            "eval_interval": 2, "lr": 1e-2}))  # fmt: skip
    list(trainer.run())
    assert trainer.complete
    assert trainer.state.step == reached[1].step
    assert list(Trainer.resume(tmp_path / "some").run()) == []  # it stays complete


def test_the_whole_validation_text_is_measured_if_asked(prepared, tmp_path):
    trainer = Trainer.start(tmp_path / "run", small_run(prepared, eval_batches=0))
    expected = evaluate(trainer.model, trainer.tokens.val, CPU, stride=16)
    assert expected.tokens == len(trainer.tokens.val.ids) - 1
    assert trainer.validate().val_loss == pytest.approx(expected.loss, abs=1e-6)


@pytest.mark.parametrize("kind", BATCHES)
def test_every_kind_of_batch_resumes_to_the_same_bits(kind, prepared, tmp_path):
    config = small_run(prepared, grad_accum_steps=2)
    config = replace(config, data=replace(config.data, batches=kind))
    list(Trainer.start(tmp_path / "whole", config).run())
    trainer = Trainer.start(tmp_path / "stopped", config)
    for record in trainer.run():
        if record.step == 5:
            trainer.stop()
    list(Trainer.resume(tmp_path / "stopped").run())
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "stopped"))


# A run that kills itself, as a power cut would: after so many steps, or in the middle of writing,
# when so many files have been flushed or moved.
KILLED = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from nanogpt.training.records import Step
from nanogpt.training.start import Trainer

steps, writes = int(sys.argv[2]), int(sys.argv[3])

def counted(original):
    def call(*arguments):
        global writes
        writes -= 1
        if writes == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments)
    return call

trainer = Trainer.resume(Path(sys.argv[1]))
os.fsync, Path.replace = counted(os.fsync), counted(Path.replace)
for record in trainer.run():
    if isinstance(record, Step):
        steps -= 1
        if steps == 0:
            os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_process_killed_at_any_moment_resumes_to_the_same_bits(prepared, tmp_path):
    """At random steps, and inside the writing of a checkpoint, again and again until it is done."""
    config = small_run(prepared, max_steps=20, checkpoint_interval=3)
    list(Trainer.start(tmp_path / "whole", config).run())
    run, draw, deaths = tmp_path / "killed", random.Random(1), 0
    Trainer.start(run, config)
    while True:
        moment = draw.choice([(draw.randint(1, 9), 0), (0, draw.randint(1, 30))])
        command = [sys.executable, "-c", KILLED, str(run), *map(str, moment)]
        code = subprocess.run(command, check=False).returncode
        if code == 0:
            break
        assert code == -signal.SIGKILL
        deaths += 1
        assert deaths < 60
    assert deaths >= 4
    assert same(weights(tmp_path / "whole"), weights(run))
    whole, again = (read_metrics(folder) for folder in (tmp_path / "whole", run))
    assert without_time(whole) == without_time(again)


def test_fine_tuning_begins_with_the_weights_of_a_run(prepared, tmp_path):
    list(Trainer.start(tmp_path / "base", small_run(prepared)).run())
    config = small_run(prepared, init=str(tmp_path / "base"), lr=1e-4, max_steps=3)
    trainer = Trainer.start(tmp_path / "tuned", config)
    assert same(weights(tmp_path / "base"), trainer.model.state_dict())
    list(trainer.run())
    assert not same(weights(tmp_path / "base"), weights(tmp_path / "tuned"))
    other = replace(config, model=replace(config.model, n_layer=3))
    with pytest.raises(UserError, match=r"model\.n_layer=3, but .*base has 2: set it to that"):
        Trainer.start(tmp_path / "other", other)


def test_fine_tuning_begins_with_hugging_faces_weights(prepared, tmp_path):
    tokenizer = load_tokenizer(prepared / "tokenizer.json")
    shape = {"vocab_size": tokenizer.vocab_size, "n_positions": 16, "n_embd": 16}
    theirs = GPT2LMHeadModel(GPT2Config(**shape, n_layer=2, n_head=2)).eval()
    theirs.save_pretrained(tmp_path / "theirs")
    trainer = Trainer.start(tmp_path / "run", small_run(prepared, init=str(tmp_path / "theirs")))
    ids = torch.randint(tokenizer.vocab_size, (2, 9))
    trainer.model.eval()
    torch.testing.assert_close(trainer.model(ids), theirs(ids).logits, rtol=0, atol=1e-5)


def test_frozen_parameters_stay_and_the_others_move(prepared, tmp_path):
    config = small_run(prepared, freeze="wte.*, h.0.*", max_steps=6, checkpoint_interval=3)
    trainer = Trainer.start(tmp_path / "run", config)
    before = {name: p.clone() for name, p in trainer.model.state_dict().items()}
    for record in trainer.run():
        if record.step == 4:
            trainer.stop()
    list(Trainer.resume(tmp_path / "run").run())
    for name, after in weights(tmp_path / "run").items():
        frozen = name.startswith(("wte.", "h.0."))
        assert torch.equal(before[name], after) is frozen, name
    for pattern, message in {"h.9.*": "'h.9.*' fits no parameter", "*": "nothing to train"}.items():
        with pytest.raises(UserError, match=re.escape(message)):
            Trainer.start(tmp_path / "no", small_run(prepared, freeze=pattern))


def test_a_compiled_run_follows_the_same_losses(prepared, tmp_path):
    losses = []
    for setting in ("off", "on"):
        config = small_run(prepared, compile=setting)
        config = replace(config, model=replace(config.model, dropout=0.0, n_layer=1))
        trainer = Trainer.start(tmp_path / setting, config)
        losses.append([trainer.train_step().loss for _ in range(4)])
        assert bool(trainer.not_compiled) is (setting == "off")
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


def test_a_model_that_cannot_be_compiled_trains_all_the_same(prepared, tmp_path, monkeypatch):
    """And says so."""

    def failing(objective):
        def call(*_):
            raise torch._dynamo.exc.TorchDynamoException("no compiler today")

        return call

    monkeypatch.setattr(torch, "compile", failing)
    trainer = Trainer.start(tmp_path / "run", small_run(prepared, compile="on"))
    assert trainer.not_compiled == ""
    assert np.isfinite(trainer.train_step().loss)
    assert trainer.not_compiled == "it failed (no compiler today)"
    assert load_config(tmp_path / "run" / "config.toml").train.compile == "off"


def test_float16_scales_the_loss_and_trains(prepared, tmp_path):
    trainer = Trainer.start(tmp_path / "run", small_run(prepared, precision="float16", max_steps=4))
    assert trainer.scaler.is_enabled()
    losses = [r.loss for r in trainer.run() if isinstance(r, Step)]
    assert all(map(np.isfinite, losses))
    reference = Trainer.start(tmp_path / "ref", small_run(prepared, max_steps=4))
    expected = [r.loss for r in reference.run() if isinstance(r, Step)]
    assert losses == pytest.approx(expected, rel=0.02)


def test_whether_to_compile_is_decided_once_for_the_whole_run(prepared, tmp_path):
    """A resumed run that computes otherwise would not end with the same bits."""
    Trainer.start(tmp_path / "run", small_run(prepared))
    assert load_config(tmp_path / "run" / "config.toml").train.compile == "off"


def test_a_changed_token_file_is_noticed_when_a_run_goes_on(prepared, tmp_path):
    list(Trainer.start(tmp_path / "run", small_run(prepared, max_steps=2)).run())
    content = (prepared / "train.bin").read_bytes()
    (prepared / "train.bin").write_bytes(content[2:] + content[:2])
    with pytest.raises(UserError, match=r"train\.bin has changed since it was prepared"):
        Trainer.resume(tmp_path / "run")


def test_packing_without_borders_is_refused_before_anything_is_written(prepared, tmp_path):
    alphabet = CharTokenizer("abc")
    for name in ("train", "val"):
        write_token_file(tmp_path / "chars" / f"{name}.bin", ["abc" * 50], alphabet)
    alphabet.save(tmp_path / "chars" / "tokenizer.json")
    config = small_run(tmp_path / "chars")
    config = replace(config, data=replace(config.data, batches="packed"),
                     sample=replace(config.sample, prompt="a"))  # fmt: skip
    with pytest.raises(UserError, match="documents cannot be told apart"):
        Trainer.start(tmp_path / "run", config)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("change", [{"mlp": "relu2"}, {"qk_norm": True}, {"bias": False}])
def test_weights_of_another_architecture_are_refused(change, prepared, tmp_path):
    list(Trainer.start(tmp_path / "base", small_run(prepared, max_steps=1)).run())
    config = small_run(prepared, init=str(tmp_path / "base"))
    config = replace(config, model=replace(config.model, **change))
    with pytest.raises(UserError, match=f"model.{next(iter(change))}=.*set it to that"):
        Trainer.start(tmp_path / "tuned", config)


def test_saving_leaves_the_optimizer_of_a_frozen_model_whole(prepared, tmp_path):
    trainer = Trainer.start(tmp_path / "run", small_run(prepared, freeze="wte.*", max_steps=2))
    list(trainer.run())
    state = trainer.optimizer.state_dict()["state"]
    assert len(state) == len(list(trainer.model.parameters())) - 1


def test_each_group_moves_at_its_own_rate(prepared, tmp_path):
    """Muon's matrices have a rate of their own, and both rates follow the schedule."""
    config = small_run(prepared, optimizer="muon", lr=1e-2, muon_lr=5e-2, warmup_steps=1)
    trainer = Trainer.start(tmp_path / "run", config)
    for expected in (5e-3, 1e-2):
        assert trainer.train_step().lr == pytest.approx(expected)
        rates = {"rows" in g: g["lr"] for g in trainer.optimizer.param_groups}
        assert rates == pytest.approx({False: expected, True: 5 * expected})


def test_an_iterator_that_was_left_behind_does_not_undo_later_steps(prepared, tmp_path):
    """As when a cell of a notebook is run again: the old generator is closed after the new run."""
    records = Trainer.start(tmp_path, small_run(prepared)).run()
    while next(records).step < 5:
        pass
    records.close()
    old = Trainer.resume(tmp_path).run()
    assert next(old).step == 6  # which no checkpoint holds yet
    list(Trainer.resume(tmp_path).run())
    old.close()
    assert find_checkpoint(tmp_path).name == "step-000012"


def test_starting_in_the_folder_of_a_run_is_refused(prepared, tmp_path):
    list(Trainer.start(tmp_path, small_run(prepared, max_steps=2)).run())
    before = (tmp_path / "metrics.jsonl").read_text()
    with pytest.raises(UserError, match="holds a run: name another folder, or resume that run"):
        Trainer.start(tmp_path, small_run(prepared, max_steps=3))
    assert (tmp_path / "metrics.jsonl").read_text() == before


def test_weights_with_more_rows_than_the_tokenizer_has_tokens_are_fine_tuned(prepared, tmp_path):
    """Published models often have a vocabulary that is rounded up."""
    shape = {"vocab_size": 320, "n_positions": 16, "n_embd": 16, "n_layer": 2, "n_head": 2}
    GPT2LMHeadModel(GPT2Config(**shape)).save_pretrained(tmp_path / "theirs")
    config = small_run(prepared, init=str(tmp_path / "theirs"), max_steps=2)
    trainer = Trainer.start(tmp_path / "run", config)
    list(trainer.run())
    assert trainer.model.config.vocab_size == 320
    assert Trainer.resume(tmp_path / "run").model.config.vocab_size == 320


def test_a_run_whose_plugin_is_missing_is_not_resumed(prepared, tmp_path, monkeypatch):
    monkeypatch.setitem(SAMPLERS, "mine", SAMPLERS["standard"])
    config = small_run(prepared, max_steps=2)
    config = replace(config, sample=replace(config.sample, sampler="mine"))
    list(Trainer.start(tmp_path, config).run())
    monkeypatch.delitem(SAMPLERS, "mine")
    with pytest.raises(UserError, match=r"sample\.sampler='mine' is unknown"):
        Trainer.resume(tmp_path)


def test_a_run_with_documents_apart_is_measured_with_documents_apart(prepared, tmp_path):
    tokenizer = load_tokenizer(prepared / "tokenizer.json")
    lines = [f"{n} fools will pay for it." for n in range(60)]
    write_token_file(prepared / "val.bin", lines, tokenizer)
    config = small_run(prepared, max_steps=1, eval_batches=0)
    config = replace(config, data=replace(config.data, batches="packed"))
    trainer = Trainer.start(tmp_path / "run", config)
    val, end = trainer.tokens.val, end_of_text(tokenizer)
    apart = evaluate(trainer.model, val, CPU, stride=16, separator=end).loss
    together = evaluate(trainer.model, val, CPU, stride=16).loss
    assert abs(apart - together) > 1e-5
    assert trainer.evaluate(stride=16).loss == pytest.approx(apart, abs=1e-7)
