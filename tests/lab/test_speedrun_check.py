"""Entries to the speedrun: honest ones are accepted, and each way to cheat is noticed."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import mean

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy import stats

import nanogpt.lab.speedrun as speedrun
from nanogpt.cli import main
from nanogpt.config import Config, DataConfig, ModelConfig, TrainConfig, with_settings
from nanogpt.device import resolve
from nanogpt.errors import UserError
from nanogpt.evaluation.loss import evaluate
from nanogpt.files import read_json, sha256, write_json
from nanogpt.lab.judge import p_of_mean_below
from nanogpt.lab.speedrun import GOALS, Goal, Verdict, check_entry
from nanogpt.text.formats import load_tokenizer
from nanogpt.text.prepare import prepare
from nanogpt.text.tokenfiles import open_split, write_token_file
from nanogpt.training.checkpoint import find_checkpoint
from nanogpt.training.records import read_metrics
from nanogpt.training.start import Trainer

from conftest import TEXT

ROOT = Path(__file__).parent.parent.parent
STEPS = 30
SETTINGS = Config(
    model=ModelConfig(context_length=16, n_layer=1, n_head=1, n_embd=16),
    data=DataConfig(tokenizer="char"),
    train=TrainConfig(
        max_steps=STEPS, batch_size=4, lr=2e-2, warmup_steps=0, eval_interval=10, eval_batches=0,
        sample_interval=0, device="cpu", precision="float32",
    ),
)  # fmt: skip

Changes = dict[str, dict[str, object]]


def train(run: Path, text: Path, seed: int, spoil: Callable[[Path], None] = lambda _: None,
          **changes: dict[str, object]) -> Path:  # fmt: skip
    """Train a run as `nanogpt train --data.source TEXT` does; `spoil` gets its token files."""
    config = with_settings(SETTINGS, data={"source": str(text)}, train={"seed": seed})
    config = with_settings(config, **changes)
    prepare(config.data, run / "data", processes=1)
    spoil(run / "data")
    list(Trainer.start(run, config).run())
    return run


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What stands for tiny Shakespeare."""
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(TEXT[:12_000])
    return path


@pytest.fixture(scope="module")
def honest(text: Path) -> list[Path]:
    """An entry of five runs. Read them, and write nothing into them."""
    return [train(text.with_name(f"run-{seed}"), text, seed) for seed in range(1, 6)]


@pytest.fixture(scope="module")
def goal(text: Path) -> Goal:
    """A loss that every one of these runs stays below: an untrained model has ln 30 = 3.4."""
    return Goal("stand-in", sha256(text), 2.8, window=16)


@pytest.fixture
def entry(honest: list[Path], tmp_path: Path) -> list[Path]:
    """The same entry, that a test may spoil."""
    return [shutil.copytree(run, tmp_path / run.name) for run in honest]


def verdict(entry: list[Path], goal: Goal, text: Path | None = None, steps: int = 3) -> Verdict:
    *findings, last = check_entry(entry, goal, text, steps)
    assert isinstance(last, Verdict)
    assert last.findings == findings
    return last


def reason(entry: list[Path], goal: Goal, text: Path, steps: int = 3) -> str:
    """The only reason to reject an entry."""
    reasons = verdict(entry, goal, text, steps).reasons
    assert len(reasons) == 1, reasons
    return reasons[0]


def edit_metrics(run: Path, change: Callable[[list[dict]], None]) -> None:
    """Change the records of a run."""
    records = read_metrics(run)
    change(records)
    (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def edit_state(run: Path, change: Callable[[dict], None]) -> None:
    """Change what the checkpoint says about itself."""
    path = find_checkpoint(run) / "state.json"
    values = read_json(path)
    change(values)
    write_json(path, values)


def test_an_honest_entry_is_accepted_and_gets_its_row(honest, goal):
    """Its text is found where the runs had it from. All steps are repeated."""
    found = verdict(honest, goal, steps=STEPS)
    assert found.reasons == []
    losses = [finding.loss for finding in found.findings]
    assert found.p == stats.ttest_1samp(losses, goal.loss, alternative="less").pvalue < 0.01
    for finding in found.findings:
        last = read_metrics(finding.run.folder)[-1]
        assert finding.loss == pytest.approx(last["val_loss"], abs=1e-6)
    # 16 x 30 numbers of the embedding and 12 x 16 x 16 of the block, the constants, attention.
    weights = found.findings[0].run.model.num_parameters() - 16 * 16
    assert found.flops == (6 * weights + 12 * 16 * 16) * 4 * 16 * STEPS
    cells = [cell.strip() for cell in found.row.strip("|").split("|")]
    assert len(cells) == found.HEAD.count("|") - 1
    assert cells[:4] == ["run", "2.8", "5", f"{STEPS}"]
    assert cells[4].startswith(f"{mean(losses):.4f} ± ")
    assert cells[-1] == f"{STEPS}"
    normalised = float(cells[7]) * float(cells[8])
    assert 0 < float(cells[9]) == pytest.approx(normalised, rel=0.5, abs=0.1)


def test_steps_that_are_trained_again_give_the_same_bits(honest, text, tmp_path):
    run = speedrun.read_run(honest[1])
    again = speedrun.train_again(run.config, speedrun.prepare_text(text, tmp_path), STEPS)
    losses = [record["loss"] for record in read_metrics(run.folder) if "loss" in record]
    assert again.losses == losses
    assert all(torch.equal(a, b) for a, b in zip(*map(parameters, (again, run)), strict=True))


def test_a_longer_context_is_no_shorter_way_to_the_goal(honest, goal):
    """What counts is the loss in windows of the goal; the records are held to the run's own."""
    in_its_own = verdict(honest, goal)
    in_shorter = verdict(honest, replace(goal, window=4, loss=5.0))
    assert in_shorter.reasons == in_its_own.reasons == []
    for own, shorter in zip(in_its_own.findings, in_shorter.findings, strict=True):
        model, folder = shorter.run.model, shorter.run.folder
        model.config = replace(model.config, context_length=4)
        tokens = open_split(folder / "data", "val", load_tokenizer(folder / "tokenizer.json"))
        expected = evaluate(model, tokens, resolve("cpu", "float32"), stride=4).loss
        assert own.loss != shorter.loss == pytest.approx(expected, rel=1e-6)


def test_each_step_that_is_trained_again_is_reported(honest, goal):
    """Repeating all of a large entry takes more than an hour."""
    said = []
    list(check_entry(honest[:2], goal, steps=3, report=lambda *step: said.append(step)))
    assert said == [(1, 3), (2, 3), (3, 3)] * 2


def parameters(what: speedrun.Again | speedrun.Run) -> list[torch.Tensor]:
    return list(what.model.parameters())


def test_the_docs_have_the_head_of_the_rows_and_the_hash_of_the_text():
    page = (ROOT / "docs" / "speedrun.md").read_text()
    assert f"\n{Verdict.HEAD}\n" in page
    assert all(goal.text in page for goal in GOALS.values())


def test_each_goal_is_that_of_its_recipe():
    for goal in GOALS.values():
        recipe = (ROOT / "configs" / f"{goal.name}.toml").read_text()
        assert f'{goal.loss}"' in recipe


def test_p_is_that_of_students_test():
    """(4 - 2) / (1 / sqrt(3)) = 3.46 with two degrees of freedom; computed from the density."""
    t = np.linspace(-2000, -(12**0.5), 4_000_001)
    density = 1 / (2 + t**2) ** 1.5  # of Student's t with two degrees of freedom
    assert p_of_mean_below([1, 2, 3], 4) == pytest.approx(np.trapezoid(density, t), rel=1e-3)
    assert p_of_mean_below([1, 2, 3], 0) > 0.95
    assert np.isnan(p_of_mean_below([1, 1], 4))


# The five cheats.


def test_validation_text_in_the_training_file_is_noticed(entry, goal, text):
    def add_held_out(data: Path) -> None:
        tokens = speedrun.prepare_text(text, data.with_name("honest"))
        ids = [*tokens.tokens.train.ids, *tokens.tokens.val.ids]
        write_token_file(data / "train.bin", [tokens.tokenizer.decode(ids)], tokens.tokenizer)

    shutil.rmtree(entry[2])
    train(entry[2], text, 3, add_held_out)
    first, second = verdict(entry, goal, text).reasons
    assert first.endswith(
        "run-3: its training text is not that of the goal; 100% of the held-out text is in it"
    )
    assert second.endswith("its weights come from other token files than those of the text")


def test_measuring_on_part_of_the_split_is_noticed(entry, goal, text):
    shutil.rmtree(entry[0])
    train(entry[0], text, 1, train={"eval_batches": 2})
    first, *others = verdict(entry, goal, text).reasons
    assert first.endswith("train.eval_batches is 2, and the rules say 0")
    assert others == ["train.eval_batches differs between the runs: 0, 2"]
    shutil.rmtree(entry[0])
    train(entry[0], text, 1, data={"val_fraction": 0.05})
    first, *others = verdict(entry, goal, text).reasons
    assert "data.val_fraction is 0.05, and the rules say 0.1" in first


def test_a_changed_text_is_noticed(entry, goal, text, tmp_path):
    """Also when the token files are exchanged after the training, and the fingerprint, too."""
    other = tmp_path / "other.txt"
    other.write_text(text.read_text().replace("fools", "foolz"))
    shutil.rmtree(entry[4])
    train(entry[4], other, 5)
    reasons = verdict(entry, goal, text).reasons
    assert "run-5: its tokenizer is not that of the text" in reasons[0]

    other.write_text(text.read_text().replace("kings", "sking"))
    shutil.rmtree(entry[4])
    train(entry[4], other, 5)
    reasons = verdict(entry, goal, text).reasons
    assert "run-5: its training text is not that of the goal" in reasons[0]
    assert reasons[1].endswith("its held-out text is not that of the goal")
    assert reasons[2].endswith("its weights come from other token files than those of the text")

    shutil.rmtree(entry[4] / "data")
    shutil.copytree(entry[0] / "data", entry[4] / "data")
    assert "its weights come from other token files" in reason(entry, goal, text)
    tokens = read_json(find_checkpoint(entry[0]) / "state.json")["state"]["tokens"]
    edit_state(entry[4], lambda values: values["state"].update(tokens=tokens))
    assert "run-5: the loss of step 1 is " in verdict(entry, goal, text).reasons[0]


def test_a_run_that_went_on_from_other_weights_is_noticed(entry, goal, text, tmp_path):
    """Also when its settings deny it, and when the metrics of an honest run are put beside it."""
    before = train(tmp_path / "before", text, 9, train={"max_steps": 5})
    honest = shutil.copytree(entry[1], tmp_path / "honest")
    shutil.rmtree(entry[1])
    train(entry[1], text, 2, train={"init": str(before)})
    assert "train.init is " in verdict(entry, goal, text).reasons[0]

    edit_state(entry[1], lambda values: values["config"]["train"].update(init=""))
    reasons = verdict(entry, goal, text).reasons
    assert len(reasons) == 1
    assert "run-2: the loss of step 1 is " in reasons[0]

    # The honest metrics, but for the loss that the weights are known to have.
    loss = read_metrics(entry[1])[-1]["val_loss"]
    shutil.copy(honest / "metrics.jsonl", entry[1])
    assert "the held-out loss is " in reason(entry, goal, text)
    edit_metrics(entry[1], lambda records: records[-1].update(val_loss=loss))
    assert verdict(entry, goal, text).reasons == []  # three steps cannot tell, all of them can
    assert "; trained again, " in reason(entry, goal, text, STEPS)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda records: records[1].update(loss=records[1]["loss"] - 0.01), "loss of step 1 is"),
        (lambda records: records[1].update(loss=float("nan")), "the loss of step 1 is nan"),
        (lambda records: records[-1].update(val_loss=1.0), "the held-out loss is 1.0000 in"),
        (lambda records: records.pop(), "has no held-out loss after the last step"),
        (lambda records: records.pop(8), "does not have each step once, in order"),
        (lambda records: records.clear(), "does not have each step once, in order"),
        (lambda records: records[3].update(lr="low"), "metrics.jsonl line 4 is damaged"),
    ],
    ids=["a loss", "no number", "the last loss", "without the last", "a gap", "empty", "damaged"],
)  # fmt: skip
def test_edited_metrics_are_noticed(entry, goal, text, change, said):
    edit_metrics(entry[3], change)
    reasons = verdict(entry, goal, text).reasons
    assert "run-4" in reasons[0]
    assert said in reasons[0]


@pytest.mark.parametrize("factor", [1.0001, 0.9999])
def test_weights_changed_after_the_training_gain_nothing(entry, goal, text, factor):
    """Nothing, though machines may differ by more: those of the repeated training count.

    The lower loss would gain by itself, the higher one of a lucky run by scattering less.
    """
    honest = verdict(entry, goal, text).findings[3].loss
    path = find_checkpoint(entry[3]) / "model.safetensors"
    save_file({name: x * factor for name, x in load_file(path).items()}, path)
    edit_state(entry[3], lambda values: values["sha256"].update({path.name: sha256(path)}))
    few, whole = (verdict(entry, goal, text, steps).findings[3] for steps in (5, STEPS))
    assert few.reasons == whole.reasons == []
    assert few.loss != honest
    assert whole.loss == honest


@pytest.mark.parametrize(
    ("step", "wrong", "noticed"), [(5, 0.01, True), (20, 0.01, False), (20, 0.1, True)]
)
def test_rounding_may_grow_with_the_steps(entry, goal, text, monkeypatch, step, wrong, noticed):
    """Late losses of an honest run differ on another machine; early ones hardly."""
    monkeypatch.setattr(speedrun, "EARLY", 10)

    def change(records):
        (record,) = [r for r in records if r["step"] == step and "loss" in r]
        record["loss"] += wrong

    edit_metrics(entry[2], change)
    reasons = verdict(entry, goal, text, STEPS).reasons
    assert [f"the loss of step {step} is" in reason for reason in reasons] == [True] * noticed


def test_no_stranger_is_asked_for_files(entry, goal, text):
    address = {"folder": "http://127.0.0.1:9/data"}
    edit_state(entry[2], lambda values: values["config"]["data"].update(address))
    with pytest.raises(UserError, match=r"run-3: data\.folder=http.* is a URL; copy the files"):
        verdict(entry, goal, text)


def test_missing_metrics_are_noticed(entry, goal, text):
    (entry[3] / "metrics.jsonl").unlink()
    assert "metrics.jsonl is missing" in reason(entry, goal, text)


# The other rules.


def test_five_runs_are_needed_and_nobody_chooses_their_seeds(honest, goal, text):
    assert "an entry has 5 runs, and this one has 4" in reason(honest[:4], goal, text)
    twice = [*honest[:4], honest[0]]
    assert reason(twice, goal, text).startswith("the seeds are 1, 1, 2, 3, 4, and the rules say")


def test_only_the_seed_differs(entry, goal, text):
    shutil.rmtree(entry[2])
    train(entry[2], text, 3, train={"lr": 1e-2})
    assert reason(entry, goal, text) == "train.lr differs between the runs: 0.01, 0.02"


def test_settings_that_differ_at_the_end_of_a_long_text_differ(honest, goal, text):
    """Else each seed could train with the setting that suits it."""
    runs = [speedrun.read_run(run) for run in honest]
    padded = [" " * 90, " " * 90 + "wte.*"]
    configs = [with_settings(run.config, train={"freeze": padded[n > 2]})
               for n, run in enumerate(runs)]  # fmt: skip
    runs = [replace(run, config=config) for run, config in zip(runs, configs, strict=True)]
    (why,) = speedrun.wrong_together(runs)
    assert why.startswith("train.freeze differs between the runs")


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-3), ("bfloat16", 2e-2)])
def test_no_precision_makes_the_machine_slow(
    honest, text, tmp_path, monkeypatch, precision, tolerance
):
    """The seconds are multiplied by the speed of the machine: the same one for all entries."""
    config = with_settings(speedrun.read_run(honest[0]).config, train={"precision": precision})
    products = []
    monkeypatch.setattr(speedrun, "measured_flops", lambda *of: products.append(of) or 1e12)
    again = speedrun.train_again(config, speedrun.prepare_text(text, tmp_path), 1)
    assert [dtype for _, dtype in products] == [torch.float32]
    assert again.tolerance == tolerance


def test_a_run_does_all_of_its_steps(entry, goal, text):
    """Stopping where the held-out loss is low would be choosing by it."""
    shutil.rmtree(entry[2])
    train(entry[2], text, 3, train={"targets": "3.3", "stop_at_target": True})
    first = verdict(entry, goal, text).reasons[0]
    assert f"it did 10 of {STEPS} steps, and the rules say all" in first


def test_a_mean_that_is_not_surely_below_the_goal_is_rejected(honest, goal, text):
    losses = [finding.loss for finding in verdict(honest, goal, text).findings]
    barely = replace(goal, loss=mean(losses) + 1e-4)
    assert " is not below " in reason(honest, barely, text)
    far = replace(goal, loss=min(losses) - 0.1)
    assert " is not below " in reason(honest, far, text)


def test_the_text_is_that_of_the_goal_and_is_asked_for_where_it_is_not_found(
    entry, goal, text, tmp_path
):
    other = tmp_path / "other.txt"
    other.write_text("no")
    with pytest.raises(UserError, match="is not the text of the goal stand-in"):
        verdict(entry, goal, other)
    for run in entry:
        values = read_json(run / "data" / "prepared.json")
        write_json(run / "data" / "prepared.json", {**values, "source": str(other)})
    with pytest.raises(UserError, match="not where the runs had it from: use --text FILE"):
        verdict(entry, goal)


# The command.


def test_the_command_says_what_came_out(entry, goal, text, capsys, monkeypatch):
    monkeypatch.setitem(speedrun.GOALS, "speedrun", goal)
    runs = [str(run) for run in entry]
    assert main(["speedrun", "check", *runs, "--replay", "all"]) == 0
    printed = capsys.readouterr().out
    assert printed.count(f"{STEPS} of {STEPS} steps trained again") == 5
    assert "accepted" in printed
    assert printed.splitlines()[-2] == Verdict.HEAD
    assert printed.splitlines()[-1].startswith("| run | 2.8 | 5 |")

    edit_metrics(entry[0], lambda records: records[-1].update(val_loss=1.0))
    edit_metrics(entry[1], lambda records: records[-1].update(val_loss=1.0))
    assert main(["speedrun", "check", *runs, "--replay=2", "--text", str(text)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-3] == "rejected"
    assert all("the held-out loss is 1.0000" in line for line in lines[-2:])

    for wrong, said in {
        "--goal=fast": "--goal='fast' is unknown: use one of speedrun, speedrun-large",
        "--replay=0": "'0': use a number of steps from 1, or all",
        "--text=none.txt": "none.txt: no such file",
    }.items():
        assert main(["speedrun", "check", *runs, wrong]) == 2
        captured = capsys.readouterr()
        assert said in captured.err
        assert captured.out == ""
