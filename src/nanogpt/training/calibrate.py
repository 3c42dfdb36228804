"""Measured steps put right what `cluster` predicts for other numbers of GPUs.

Three numbers are unknown before anything has run: how much of the peak a rank reaches, how much of
a link's bandwidth, and how long a message takes to start. One run tells the first. Runs on two
numbers of ranks tell the second, three the third. Each is a factor on what `gpus` says.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import mean, median

from nanogpt.config import Config, load_config
from nanogpt.device import Compute
from nanogpt.errors import UserError
from nanogpt.training.cluster import Job, Layout, job_of, predict
from nanogpt.training.gpus import Gpu, Link
from nanogpt.training.parallel.limits import microbatches
from nanogpt.training.records import check_is_run, read_metrics
from nanogpt.training.timing import WARM_UP

FACTORS = ("compute", "bandwidth", "latency")
FINEST = 1e-4  # of a logarithm; the search halves its steps down to it


@dataclass(frozen=True)
class Measured:
    """A run that was timed."""

    name: str
    job: Job
    layout: Layout
    seconds: float  # of a step


@dataclass(frozen=True)
class Fit:
    """What fits the runs best, and how well it does."""

    gpu: Gpu  # as the runs say it is
    factors: dict[str, float]  # of those in FACTORS that the runs tell
    runs: Sequence[Measured]

    @cached_property
    def predicted(self) -> list[float]:
        """Seconds of a step of each run."""
        return [predict(run.job, run.layout, self.gpu).step for run in self.runs]

    @property
    def errors(self) -> list[float]:
        """How far each prediction is from what was measured, as a share of it."""
        pairs = zip(self.predicted, self.runs, strict=True)
        return [abs(seconds / run.seconds - 1) for seconds, run in pairs]


def read_run(folder: Path, compute: Compute) -> Measured:
    """A run as its folder tells it: sizes, layout, and the median time of its steps.

    Raises UserError for a folder without enough steps, or with settings that are no layout.
    """
    check_is_run(folder)
    config = load_config(folder / "config.toml")
    speeds = [r["tokens_per_second"] for r in read_metrics(folder) if "tokens_per_second" in r]
    speeds = [speed for speed in speeds[WARM_UP:] if speed > 0]
    if not speeds:
        raise UserError(f"{folder} has fewer than {WARM_UP + 1} steps; train it for longer")
    return Measured(
        str(folder), job_of(config, compute), layout_of(config, folder),
        config.tokens_per_step / median(speeds),
    )  # fmt: skip


def layout_of(config: Config, folder: Path) -> Layout:
    """The layout that a run's settings say."""
    said = config.parallel
    data = said.data or max(1, said.processes // said.parts)
    rows, passes = config.train.batch_size / (data * said.shard), config.train.grad_accum_steps
    batches = passes
    if said.pipeline > 1:
        parts = microbatches(config, data * said.parts)
        rows, passes = rows / parts, passes * parts
    schedule = "interleaved" if said.schedule == "interleaved" else "1f1b"
    if rows < 1 or rows != int(rows):
        raise UserError(
            f"{folder}: train.batch_size={config.train.batch_size} is not divisible by the "
            "ranks and parts of its layout; name another run"
        )
    return Layout(
        data=data, context=said.context, shard=said.shard, tensor=said.tensor,
        pipeline=said.pipeline, schedule=schedule, rows=int(rows), passes=passes, batches=batches,
    )  # fmt: skip


def fit(gpu: Gpu, runs: Sequence[Measured]) -> Fit:
    """What the runs say of a GPU: the factors at which the logarithms of all steps miss least.

    As many factors as the runs can tell; the others stay 1.
    """
    worlds = {run.layout.ranks for run in runs}
    factors = dict.fromkeys(FACTORS[: min(len(worlds), len(FACTORS))], 0.0)

    def miss(tried: dict[str, float]) -> float:
        corrected = scaled(gpu, tried)
        logs = (math.log(predict(r.job, r.layout, corrected).step / r.seconds) for r in runs)
        # What the runs do not tell stays what the table says.
        return sum(log**2 for log in logs) + 1e-9 * sum(log**2 for log in tried.values())

    least, step = miss(factors), 0.5
    while step > FINEST:
        tries = [{**factors, name: factors[name] + s} for name in factors for s in (step, -step)]
        best = min(tries, key=miss)
        if miss(best) < least:
            factors, least = best, miss(best)
        else:
            step /= 2
    return Fit(scaled(gpu, factors), {name: math.exp(f) for name, f in factors.items()}, runs)


def scaled(gpu: Gpu, logs: dict[str, float]) -> Gpu:
    """A GPU whose speeds are so many times those of the table, in logarithms."""
    compute, bandwidth, latency = (math.exp(logs.get(name, 0.0)) for name in FACTORS)

    def link(of: Link) -> Link:
        return Link(of.bandwidth * bandwidth, of.latency * latency)

    return replace(
        gpu, share=gpu.share * compute, bandwidth=gpu.bandwidth * compute,
        inside=link(gpu.inside), outside=link(gpu.outside), start=gpu.start * latency,
    )  # fmt: skip


def error_of_the_left_out(gpu: Gpu, runs: Sequence[Measured]) -> float | None:
    """The mean error for a run that the fit does not know, if there are three or more."""
    if len(runs) < 3:
        return None
    errors = []
    for n, run in enumerate(runs):
        others = [*runs[:n], *runs[n + 1 :]]
        seconds = predict(run.job, run.layout, fit(gpu, others).gpu).step
        errors.append(abs(seconds / run.seconds - 1))
    return mean(errors)
