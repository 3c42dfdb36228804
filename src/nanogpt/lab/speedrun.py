"""Whether an entry to the speedrun is accepted: the rules of docs/speedrun.md.

An entry is some runs that differ in their seed alone. Nothing that a run says about itself is
believed: the check prepares the text, measures the weights on the whole held-out split, trains the
first steps again, and takes the time of those.
"""

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nanogpt.config import Config, DataConfig, ParallelConfig, shown, with_settings
from nanogpt.device import measured_flops, resolve
from nanogpt.errors import UserError
from nanogpt.evaluation.loss import batch_losses, mean_loss, stacked
from nanogpt.files import file_size, sha256
from nanogpt.lab.judge import LEVEL, p_of_mean_below, spread
from nanogpt.model.gpt import GPT
from nanogpt.model.size import flops_per_token
from nanogpt.text.batches import sliding_windows
from nanogpt.text.dataset import Tokens, data_folder, open_tokens, settings_of_files
from nanogpt.text.prepare import prepare
from nanogpt.text.remote import is_url
from nanogpt.text.tokenfiles import TokenFile
from nanogpt.text.tokenizer import BaseTokenizer
from nanogpt.training.checkpoint import (
    TrainState,
    find_checkpoint,
    load_state,
    load_tokenizer_of,
    load_weights,
)
from nanogpt.training.records import Step, read_metrics
from nanogpt.training.start import Trainer
from nanogpt.training.timing import WARM_UP

RUNS = 5  # of an entry; whoever may add more until the test is passed passes it in the end
STEPS = 20  # that are trained again, unless more are asked for

# How far a repeated loss may lie from the first one, in nats. The same machine gives the same bits,
# others round differently. configs/speedrun.toml with plain kernels instead of fused ones differed
# by 7e-7 within 20 steps and by 6e-5 within 280; bfloat16 differed from float32 by 6e-3 within 20.
TOLERANCE, TOLERANCE_OF_16_BITS = 1e-3, 2e-2
# Differences grow with every step. A run of 1,100 steps on one thread and on two differed by 6e-5
# within 100 steps, by 1.3e-2 within all, and by 1.1e-3 in the held-out loss of the end.
EARLY, TOLERANCE_LATER = 100, 5e-2

# Settings that every run must have.
REQUIRED: dict[str, Any] = {
    "data.tokenizer": "char", "data.val_fraction": 0.1, "train.init": "",
    "train.objective": "next-token", "train.eval_batches": 0,
}  # fmt: skip
# Settings of the check's own runs: nothing but steps, however the machine does them.
AGAIN: dict[str, Any] = {
    "device": "auto", "compile": "off", "eval_interval": 10**9, "eval_batches": 1,
    "sample_interval": 0, "checkpoint_interval": 10**9, "snapshots": 0, "tensorboard": False,
    "targets": "", "stop_at_target": False,
}  # fmt: skip
# Settings in which the runs of an entry may differ: where files are, and what a machine decides.
FREE = (
    "train.seed", "train.compile", "train.device", "train.threads", "data.source", "data.folder",
)  # fmt: skip


# Hears how far the repeated training of a run is: steps done, and steps in all.
Report = Callable[[int, int], None]


@dataclass(frozen=True)
class Goal:
    """A loss to reach on the held-out tenth of a text."""

    name: str  # of the recipe that reaches for it
    text: str  # SHA-256 of the file
    loss: float  # nats per character
    window: int  # characters; longer windows have fewer beginnings, and so a lower loss


TINY_SHAKESPEARE = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
GOALS = {
    goal.name: goal
    for goal in (
        Goal("speedrun", TINY_SHAKESPEARE, 1.8857, 64),
        Goal("speedrun-large", TINY_SHAKESPEARE, 1.4697, 256),
    )
}


@dataclass(frozen=True)
class Run:
    """A run as its latest checkpoint tells it."""

    folder: Path
    state: TrainState
    config: Config
    model: GPT


@dataclass(frozen=True)
class Text:
    """The text of a goal, as the check itself has prepared it."""

    folder: Path  # of the token files
    tokenizer: BaseTokenizer
    tokens: Tokens


@dataclass(frozen=True)
class Again:
    """The first steps of a run, trained once more."""

    losses: list[float]  # of each step, nats per character
    seconds: float  # of a step, the median
    model: GPT  # after them
    matrix_flops: float  # per second, of a product of matrices at that time, in float32
    tolerance: float  # how far the first losses may lie from those of the run, in nats

    def allowed(self, step: int) -> float:
        """How far a loss may lie from that of the run after so many steps, in nats."""
        return self.tolerance if step <= EARLY else TOLERANCE_LATER


@dataclass(frozen=True)
class Finding:
    """What the check found out about one run."""

    run: Run
    reasons: list[str]  # to reject it
    loss: float = math.nan  # on the whole held-out split in windows of the goal, nats per character
    steps: int = 0  # that were trained again
    seconds: float = math.nan  # of one of them
    matrix_flops: float = math.nan  # per second, of a product of matrices on this machine


@dataclass(frozen=True)
class Verdict:
    """What the check found out about an entry: it is accepted if there is no reason against it."""

    goal: Goal
    findings: list[Finding]
    reasons: list[str]
    p: float  # that chance alone gives so low a mean
    flops: int  # of one run
    matrix_flops: float  # per second, of a product of matrices on this machine

    HEAD = (
        "| entry | goal | runs | steps | loss | p | TFLOP | seconds here | TFLOP/s of a matrix "
        "product here | seconds at 1 TFLOP/s | steps repeated |"
    )

    @property
    def row(self) -> str:
        """A row of the table in docs/speedrun.md, below HEAD."""
        first = self.findings[0].run
        losses = [finding.loss for finding in self.findings]
        steps = first.config.train.max_steps
        # All runs do the same work: the fastest is the one that other programs disturbed least.
        seconds = steps * min(finding.seconds for finding in self.findings)
        speed = self.matrix_flops / 1e12
        normalised = seconds * speed
        name = first.folder.resolve().name.replace("|", "-")
        cells = [
            name.rstrip("-_0123456789") or name, f"{self.goal.loss}", f"{len(losses)}",
            f"{steps:,}", f"{mean(losses):.4f} ± {spread(losses):.4f}", f"{self.p:.1g}",
            f"{self.flops / 1e12:.3g}", f"{seconds:,.1f}", f"{speed:.2g}",
            f"{normalised:.2g}" if normalised < 99 else f"{normalised:,.0f}",
            f"{min(finding.steps for finding in self.findings):,}",
        ]  # fmt: skip
        return f"| {' | '.join(cells)} |"


def check_entry(
    folders: Sequence[Path],
    goal: Goal,
    text: Path | None = None,
    steps: int = STEPS,
    report: Report = lambda *_: None,
) -> Iterator[Finding | Verdict]:
    """What is found out about each run, then the verdict on all of them.

    The text is that of the goal; by default it is looked for where the runs had it from. So many
    steps of each run are trained again, and each of them is reported. Raises UserError for a folder
    that holds no finished checkpoint, and for another text.
    """
    runs = [read_run(folder) for folder in folders]
    path = text or source_of(runs, goal)
    file_size(path)
    if sha256(path) != goal.text:
        raise UserError(f"{path} is not the text of the goal {goal.name}; its SHA-256 is another")
    with tempfile.TemporaryDirectory() as folder:
        prepared = prepare_text(path, Path(folder, "data"))
        findings = []
        for run in runs:
            findings.append(check_run(run, prepared, goal.window, steps, report))
            yield findings[-1]
    losses = [finding.loss for finding in findings]
    p = math.nan if any(map(math.isnan, losses)) else p_of_mean_below(losses, goal.loss)
    reasons = [f"{f.run.folder}: {reason}" for f in findings for reason in f.reasons]
    reasons += wrong_together(runs)
    if not reasons and not p < LEVEL:
        found = f"the mean loss {mean(losses):.4f} is not below {goal.loss}"
        reasons.append(f"{found} with p < {LEVEL}: p is {p:.2g}")
    config = runs[0].config
    flops = flops_per_token(runs[0].model) * config.tokens_per_step * config.train.max_steps
    speed = max(finding.matrix_flops for finding in findings)
    yield Verdict(goal, findings, reasons, p, flops, speed)


def read_run(folder: Path) -> Run:
    """A run with its weights. Raises UserError if it has no whole checkpoint."""
    checkpoint = find_checkpoint(folder)
    state, config = load_state(checkpoint)
    if is_url(config.data.folder):  # whoever checks an entry asks no stranger's address
        raise UserError(f"{folder}: data.folder={config.data.folder} is a URL; copy the files")
    return Run(folder, state, config, load_weights(checkpoint, config.model))


def source_of(runs: Sequence[Run], goal: Goal) -> Path:
    """The text that a run was prepared from. Raises UserError if none was from that of the goal."""
    for run in runs:
        files = replace(run.config.data, folder=str(data_folder(run.folder, run.config)))
        path = Path(settings_of_files(files).source)
        if path.is_file() and sha256(path) == goal.text:
            return path
    raise UserError(f"the text of {goal.name} is not where the runs had it from: use --text FILE")


def prepare_text(path: Path, folder: Path) -> Text:
    """Cut a text into its two splits and encode it, a token for each character."""
    share = REQUIRED["data.val_fraction"]
    data = DataConfig(source=str(path.resolve()), tokenizer="char", val_fraction=share)
    made = prepare(data, folder, processes=1)
    return Text(folder, made.tokenizer, Tokens(made.files["train"], made.files["val"]))


def check_run(run: Run, text: Text, window: int, steps: int, report: Report) -> Finding:
    """Hold one run to the rules. A run that breaks the first two is not measured."""
    try:
        reasons = [*wrong_settings(run), *wrong_data(run, text)]
        if reasons:
            return Finding(run, reasons)
        held_out, context = text.tokens.val, run.model.config.context_length
        loss = held_out_loss(run.model, held_out, window)
        again = train_again(run.config, text, min(steps, run.state.step), report)
        whole = len(again.losses) == run.state.step
        # What counts is what came out here. The weights of the run may have learned from the
        # held-out text afterwards, a little; or a lucky one was spoilt, so that the runs scatter
        # less.
        counts = held_out_loss(again.model, held_out, window) if whole else loss
        own = held_out_loss(run.model, held_out, context)
        reasons += wrong_records(run, own, again)
        if not abs(counts - loss) <= again.allowed(len(again.losses)):
            reasons.append(
                f"its weights have a held-out loss of {loss:.4f}; trained again, {counts:.4f}"
            )
        return Finding(run, reasons, counts, len(again.losses), again.seconds, again.matrix_flops)
    except UserError as error:  # a file that is damaged, or missing
        return Finding(run, [str(error)])


def wrong_settings(run: Run) -> Iterator[str]:
    """Settings that break the rules, and steps that were not done."""
    for name, wanted in REQUIRED.items():
        found = setting(run.config, name)
        if found != wanted:
            yield f"{name} is {shown(found)}, and the rules say {shown(wanted)}"
    done, due = run.state.step, run.config.train.max_steps
    if done != due:  # whoever stops where the held-out loss is low has chosen by it
        yield f"it did {done:,} of {due:,} steps, and the rules say all: train.stop_at_target=false"


def setting(config: Config, name: str) -> Any:
    """A setting by its name, such as train.lr."""
    section, _, key = name.partition(".")
    return getattr(getattr(config, section), key)


def wrong_together(runs: Sequence[Run]) -> Iterator[str]:
    """What is wrong with the runs as an entry: too few, chosen seeds, different settings."""
    seeds = sorted(run.config.train.seed for run in runs)
    if len(runs) != RUNS:
        yield f"an entry has {RUNS} runs, and this one has {len(runs)}"
    if seeds != [*range(1, len(runs) + 1)]:  # nobody can train fifty and hand in the best five
        yield f"the seeds are {', '.join(map(str, seeds))}, and the rules say 1, 2, 3 and so on"
    for section, values in asdict(runs[0].config).items():
        for key in values:
            name = f"{section}.{key}"
            found = {setting(run.config, name) for run in runs}
            if len(found) > 1 and name not in FREE:
                yield f"{name} differs between the runs: {', '.join(sorted(map(shown, found)))}"


def wrong_data(run: Run, text: Text) -> Iterator[str]:
    """Token files that are not those of the text, and weights that learned from other files."""
    folder, wanted = data_folder(run.folder, run.config), text.tokens
    tokenizer = load_tokenizer_of(run.folder, run.state, run.config)
    if tokenizer.fingerprint() != text.tokenizer.fingerprint():
        yield "its tokenizer is not that of the text"
        return
    found = open_tokens(folder, run.config, tokenizer)
    train, val = found.train.ids[:], wanted.val.ids[:]
    if not np.array_equal(train, wanted.train.ids[:]):
        yield (
            "its training text is not that of the goal; "
            f"{share_inside(train, val):.0%} of the held-out text is in it"
        )
    if not np.array_equal(found.val.ids[:], val):
        yield "its held-out text is not that of the goal"
    if run.state.tokens != wanted.fingerprint:
        yield "its weights come from other token files than those of the text"


def share_inside(ids: NDArray, others: NDArray, length: int = 64) -> float:
    """Which share of the other ids, cut into pieces of so many, stands in the ids."""
    inside = ids.astype(others.dtype).tobytes()
    pieces = [others[n : n + length].tobytes() for n in range(0, len(others) - length + 1, length)]
    return mean(piece in inside for piece in pieces) if pieces else 0.0


def held_out_loss(model: GPT, text: TokenFile, window: int) -> float:
    """Nats per character of a whole text, in float32.

    Windows of so many characters follow each other without overlap, so each character but the first
    is predicted once. They are shorter where the model's context is.
    """
    compute = resolve("auto", "float32")
    length = min(window, model.config.context_length)
    windows = stacked(sliding_windows(text.ids, length, length), 16, None)
    return mean_loss(batch_losses(model.to(compute.device), windows, compute))[0]


def train_again(config: Config, text: Text, steps: int, report: Report = lambda *_: None) -> Again:
    """Train the first steps of a run once more, on the text that the check has prepared."""
    fixed = {**AGAIN, "threads": torch.get_num_threads()}
    config = with_settings(config, data={"folder": str(text.folder)}, train=fixed)
    config = replace(config, parallel=ParallelConfig())
    losses, seconds = [], []
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer.start(folder, config)
        with closing(trainer.run()) as records:
            for record in islice((r for r in records if isinstance(r, Step)), steps):
                losses.append(record.loss)
                seconds.append(config.tokens_per_step / record.tokens_per_second)
                report(len(losses), steps)
        # On the threads of the steps, and in float32 whatever the run takes: else whoever chooses
        # a precision that is slow here would have a slow machine.
        speed = measured_flops(trainer.compute.device, torch.float32)
    exact = trainer.compute.precision == "float32"  # and not what the run says
    tolerance = TOLERANCE if exact else TOLERANCE_OF_16_BITS
    usual = median(seconds[WARM_UP:] or seconds)
    return Again(losses, usual, trainer.model, speed, tolerance)


def wrong_records(run: Run, loss: float, again: Again) -> Iterator[str]:
    """Losses in metrics.jsonl that are missing, or are not those that the check finds.

    `loss` is that of the held-out split in windows of the model's context, as the run measures it.
    """
    records = read_metrics(run.folder)
    said = [record for record in records if "loss" in record]
    if [record["step"] for record in said] != [*range(1, run.state.step + 1)]:
        yield "metrics.jsonl does not have each step once, in order"
    for step, (here, record) in enumerate(zip(again.losses, said, strict=False), 1):
        if not abs(record["loss"] - here) <= again.allowed(step):
            there = f"{record['loss']:.4f} in metrics.jsonl"
            yield f"the loss of step {step} is {there}, {here:.4f} here"
            break
    last = [r["val_loss"] for r in records if "val_loss" in r and r["step"] == run.state.step]
    if not last:
        yield "metrics.jsonl has no held-out loss after the last step"
    elif not abs(last[-1] - loss) <= again.tolerance:
        yield f"the held-out loss is {last[-1]:.4f} in metrics.jsonl, {loss:.4f} here"
