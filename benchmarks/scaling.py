"""What `nanogpt plan --gpus` predicts, beside what others have published.

    python benchmarks/scaling.py          writes the tables of docs/scaling.md, and its picture
    python benchmarks/scaling.py cpu      counts what 2 and 4 processes send, for the same page
    python benchmarks/scaling.py times    how fast 1, 2 and 4 processes train here, beside the plan,
                                          for the same page; wants a quiet machine
    python benchmarks/scaling.py links    measures messages between two processes of this machine

Each published run stands with its source. Nothing here runs on a GPU.
"""

import json
import math
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from messages import busiest

from nanogpt.config import (
    PRESETS,
    Config,
    DataConfig,
    ModelConfig,
    TrainConfig,
    config_from_dict,
    to_toml,
    with_settings,
)
from nanogpt.device import Compute
from nanogpt.text.prepare import prepare
from nanogpt.training.calibrate import error_of_the_left_out, fit, layout_of, read_run
from nanogpt.training.cluster import (
    DIMENSIONS,
    HOURS_TO_FAILURE,
    Job,
    Layout,
    Prediction,
    compare_layouts,
    job_of,
    predict,
    recommended,
    sent_by,
)
from nanogpt.training.gpus import GPUS, find_gpu

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "scaling.md"
PICTURE = ROOT / "docs" / "images" / "scaling-gpus.png"
BFLOAT16 = Compute(torch.device("cuda"), "bfloat16")

NANOGPT = "[nanoGPT](https://github.com/karpathy/nanoGPT) README"
LLMC = "[llm.c](https://github.com/karpathy/llm.c) scripts"
MODDED = "[modded-nanogpt](https://github.com/KellerJordan/modded-nanogpt) records"
NANOCHAT = "[nanochat](https://github.com/karpathy/nanochat) dev/LEADERBOARD.md"
MOSAIC = (
    "[llm-foundry](https://github.com/mosaicml/llm-foundry/tree/main/scripts/train/benchmarking)"
)
MEGATRON = "[Megatron-LM](https://github.com/NVIDIA/Megatron-LM) README"
NARAYANAN = "[Narayanan et al. 2021](https://arxiv.org/abs/2104.04473), table 1"
LLAMA = "[Dubey et al. 2024](https://arxiv.org/abs/2407.21783), table 4"
OURS = "[ours](benchmarks.md#one-gpu)"

GPT2 = ModelConfig(vocab_size=50304)
XL = replace(PRESETS["gpt2-xl"], vocab_size=50304)


def mpt(layers: int, channels: int, heads: int) -> ModelConfig:
    """A model of MosaicML's, whose sequences have 2,048 tokens."""
    return ModelConfig(
        vocab_size=50368, context_length=2048, n_layer=layers, n_embd=channels, n_head=heads
    )


MODERN: dict[str, Any] = {
    "position": "rope", "norm": "rms", "mlp": "relu2", "qk_norm": True, "bias": False,
}  # fmt: skip


@dataclass(frozen=True)
class Published:
    """A run that somebody has timed."""

    name: str
    gpu: str
    model: ModelConfig
    layout: Layout
    seconds: float  # of a step
    source: str
    train: dict[str, Any]

    @property
    def job(self) -> Job:
        """Its sizes."""
        layout = self.layout
        rows = layout.rows * layout.passes * layout.data * layout.shard
        train = TrainConfig(batch_size=rows, **self.train)
        return job_of(Config(model=self.model, train=train), BFLOAT16)


def run(
    name: str,
    gpu: str,
    model: ModelConfig,
    layout: Layout,
    seconds: float,
    source: str,
    **train: Any,
) -> Published:
    """One, with what differs from the defaults of training."""
    return Published(name, gpu, model, layout, seconds, source, train)


def sharded(gpus: int, rows: int, passes: int = 1) -> Layout:
    """All weights shared out over all GPUs."""
    return Layout(shard=gpus, rows=rows, passes=passes)


def copied(gpus: int, rows: int, passes: int = 1) -> Layout:
    """A copy of the model on every GPU."""
    return Layout(data=gpus, rows=rows, passes=passes)


# Seconds are those of the source, or tokens of a step by its tokens a second.
RUNS = [
    run("GPT-2 124M", "h200", GPT2, copied(1, 32, 16), 524_288 / 547_630, OURS),
    run("GPT-2 XL", "h200", XL, copied(1, 8), 8192 / 41_696, OURS),
    run("GPT-2 XL, blocks computed again", "h200", XL, copied(1, 8), 8192 / 34_806, OURS,
        activation_checkpointing="block"),
    # About four days for 600,000 steps, with all evaluations.
    run("GPT-2 124M", "a100", GPT2, copied(8, 12, 5), 4 * 86_400 / 600_000, NANOGPT),
    run("GPT-2 124M", "a100", GPT2, copied(8, 64), 0.300, LLMC),
    run("GPT-2 350M", "a100", replace(PRESETS["gpt2-medium"], vocab_size=50304), copied(8, 64),
        0.820, LLMC),
    run("GPT-2 774M", "a100", replace(PRESETS["gpt2-large"], vocab_size=50304), copied(8, 32, 2),
        1.7, LLMC),
    run("GPT-2 1558M", "h100", XL, copied(8, 16, 8), 2.80, LLMC),
    run("GPT-2 124M by llm.c", "h100", GPT2, copied(8, 64), 0.140, MODDED),
    run("124M, record of October 2024", "h100", replace(GPT2, **MODERN), copied(8, 64), 0.14182,
        MODDED, optimizer="muon"),
    # Three of four layers see 1,024 tokens, the fourth 2,048: 1,280 on average.
    run("d24, run 1", "h100",
        ModelConfig(vocab_size=32768, context_length=2048, n_layer=24, n_embd=1536, n_head=12,
                    window=1280, **MODERN),
        copied(8, 16, 2), 10_949.467 / 16_704, NANOCHAT, optimizer="muon"),
    run("MPT 125M", "a100", mpt(12, 768, 12), sharded(8, 32, 2), 1_048_576 / 1_133_901, MOSAIC),
    run("MPT 1B", "a100", mpt(24, 2048, 16), sharded(8, 14, 4), 917_504 / 164_109, MOSAIC),
    run("MPT 7B", "a100", mpt(32, 4096, 32), sharded(8, 6, 2), 196_608 / 37_130, MOSAIC),
    run("MPT 13B", "a100", mpt(40, 5120, 40), sharded(8, 2, 3), 98_304 / 18_097, MOSAIC),
    run("MPT 30B", "a100", mpt(48, 7168, 64), sharded(8, 3, 21), 1_032_192 / 7330, MOSAIC,
        activation_checkpointing="block"),
    run("MPT 70B", "a100", mpt(80, 8192, 64), sharded(64, 8, 4), 4_194_304 / 26_274, MOSAIC,
        activation_checkpointing="block"),
    run("MPT 1B", "h100", mpt(24, 2048, 16), sharded(8, 14), 229_376 / 363_645, MOSAIC),
    run("MPT 1B", "h100", mpt(24, 2048, 16), sharded(64, 20), 2_621_440 / 2_841_754, MOSAIC),
    run("MPT 3B", "h100", mpt(32, 2560, 20), sharded(64, 6, 3), 2_359_296 / 1_441_663, MOSAIC),
    run("MPT 7B", "h100", mpt(32, 4096, 32), sharded(8, 6), 98_304 / 85_144, MOSAIC),
    run("MPT 13B", "h100", mpt(40, 5120, 40), sharded(64, 2), 262_144 / 307_209, MOSAIC),
    run("MPT 30B", "h100", mpt(48, 7168, 64), sharded(32, 14, 3), 2_752_512 / 73_860, MOSAIC,
        activation_checkpointing="block"),
    run("MPT 70B", "h100", mpt(80, 8192, 64), sharded(64, 8, 4), 4_194_304 / 66_523, MOSAIC,
        activation_checkpointing="block"),
]  # fmt: skip


def large_runs() -> Iterator[tuple[str, str, Prediction, float, str]]:
    """Runs of thousands of GPUs: name, GPU, prediction, seconds of a step, source."""
    # 163 TFLOP/s on each of 3,072 A100, forward passes that were done again included: 96 B T L C^2
    # (1 + T / 6C + V / 16LC) operations a step (their equation 3).
    b, t, layers, c, v = 3072, 2048, 128, 25600, 51200
    model = ModelConfig(vocab_size=v, context_length=t, n_layer=layers, n_embd=c, n_head=160)
    train = TrainConfig(batch_size=b, activation_checkpointing="block")
    job = job_of(Config(model=model, train=train), BFLOAT16)
    layout = Layout(data=6, tensor=8, pipeline=64, schedule="interleaved", passes=b // 6)
    flops = 96 * b * t * layers * c**2 * (1 + t / (6 * c) + v / (16 * layers * c))
    prediction = predict(job, layout, GPUS["a100"])
    yield "GPT 1T", "a100", prediction, flops / 3072 / 163e12, NARAYANAN
    # Llama 3 405B has another feed-forward layer and an untied head, so its sizes stand here.
    c, inside, keys, layers, v = 16384, 53248, 1024, 126, 128_256
    cut = 2 * c * c + 2 * c * keys + 3 * c * inside
    llama = Job(
        layers=layers, heads=8, channels=c, keys=keys, kept=6 * c + 2 * keys + 3 * inside,
        results=3 * c + 2 * keys + 2 * inside, cut=cut, whole=2 * c, vocabulary=v, positions=v * c,
        last=c, state=2.0, context=8192, attention=12 * c * 8192,
        flops=6 * (layers * cut + v * c) + 12 * layers * c * 8192,
        sequences=2048, steps=1, itemsize=2, checkpointing="none", pipelines=True,
    )  # fmt: skip
    for data, share in ((64, 0.43), (128, 0.41)):
        layout = Layout(
            data=data, tensor=8, pipeline=16, schedule="interleaved", passes=2048 // data
        )
        prediction = predict(llama, layout, GPUS["h100"])
        seconds = llama.flops * llama.tokens / (share * layout.ranks * GPUS["h100"].peak)
        yield "Llama 3 405B", "h100", prediction, seconds, LLAMA
    # The README does not say in which layouts; these are the ones that are recommended here.
    model = ModelConfig(
        vocab_size=131_072, context_length=4096, n_layer=96, n_embd=12288, n_head=96
    )
    for gpus, share in ((96, 0.47), (4608, 0.42)):
        job = job_of(Config(model=model, train=TrainConfig(batch_size=1152)), BFLOAT16)
        prediction = best_of(job, gpus)
        assert prediction is not None
        seconds = job.flops * job.tokens / (share * gpus * GPUS["h100"].peak)
        yield "GPT-3 175B", "h100", prediction, seconds, MEGATRON


def best_of(job: Job, gpus: int, gpu: str = "h100") -> Prediction | None:
    """What is recommended; None if the model fits into no layout."""
    return recommended(compare_layouts(job, gpus, GPUS[gpu]))


def published() -> str:
    """The table of published runs, and how far the predictions are from them."""
    rows = []
    for each in RUNS:
        prediction = predict(each.job, each.layout, GPUS[each.gpu])
        rows.append((each.name, each.gpu, prediction, each.seconds, each.source))
    rows += large_runs()
    lines = [
        "| run | on | layout | published | predicted | difference |",
        "|---|---|---|---|---|---|",
    ]
    differences = []
    for name, gpu, predicted, seconds, source in rows:
        peak = predicted.layout.ranks * GPUS[gpu].peak
        job = predicted.job
        difference = predicted.step / seconds - 1
        differences.append(difference)
        lines.append(
            f"| {name}, {source} | {predicted.layout.ranks:,} {gpu.upper()} | {predicted.layout} | "
            f"{said(seconds)}, {job.flops * job.tokens / seconds / peak:.0%} | "
            f"{said(predicted.step)}, {predicted.efficiency:.0%} | {difference:+.0%} |"
        )
    sizes = sorted(map(abs, differences))
    within = sum(size <= 0.15 for size in sizes)
    return "\n".join(lines) + (
        f"\n\nThe median difference is {statistics.median(sizes):.0%}, the largest "
        f"{sizes[-1]:.0%}; {within} of {len(sizes)} are within 15 %."
    )


def said(seconds: float) -> str:
    """A time of a step.

    >>> said(0.3), said(5.286)
    ('300 ms', '5.29 s')
    """
    return f"{seconds * 1e3:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"


MODELS = {
    "GPT-2 124M": (GPT2, 512),
    "GPT-2 XL": (XL, 1024),
    "GPT-3 175B": (
        ModelConfig(vocab_size=50304, context_length=2048, n_layer=96, n_embd=12288, n_head=96),
        1536,
    ),
}
POWERS = [2**n for n in range(15)]


def jobs() -> dict[str, Job]:
    """The models of the picture, each with the batch that it was published with, about."""
    return {
        name: job_of(Config(model=model, train=TrainConfig(batch_size=rows)), BFLOAT16)
        for name, (model, rows) in MODELS.items()
    }


def growth() -> dict[str, list[tuple[int, Prediction]]]:
    """Each model on 1 to 16,384 H100, the batch as it is: the best layout of each number."""
    found = {}
    for name, job in jobs().items():
        rows = []
        for gpus in POWERS:
            try:
                best = best_of(job, gpus)
            except ValueError:  # nothing is left to share out
                continue
            if best:
                rows.append((gpus, best))
        found[name] = rows
    return found


def limits(found: dict[str, list[tuple[int, Prediction]]]) -> str:
    """What is recommended as GPUs become more, and what costs most."""
    lines = [
        "| model | GPUs | recommended | memory | step | of the peak | costs most |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, rows in found.items():
        for gpus, best in rows:
            if gpus in (1, 8, 64, 512, 1024, 4096, 16384):
                what, share = best.loss
                lines.append(
                    f"| {name} | {gpus:,} | {best.layout} | {best.bytes / 1e9:.1f} GB | "
                    f"{said(best.step)} | {best.efficiency:.0%} | {what}, {share:.0%} of the step |"
                )
    return "\n".join(lines)


def draw(found: dict[str, list[tuple[int, Prediction]]]) -> None:
    """The picture: efficiency by number of GPUs, and what a step of GPT-2 XL is spent on."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for name, rows in found.items():
        left.plot([n for n, _ in rows], [p.efficiency for _, p in rows], marker="o", label=name)
    left.set(title="Efficiency, with the batch as it is", ylabel="share of the peak", ylim=(0, 0.6))
    left.legend()
    rows = found["GPT-2 XL"]
    kinds = [
        "matrices", "memory", "uneven work", "data", "shard", "tensor", "context", "pipeline",
        "bubble",
    ]  # fmt: skip
    shares = [[p.seconds.get(kind, 0.0) / p.step for _, p in rows] for kind in kinds]
    colors = ["#4c72b0", "#8fb0d9", "#c8c8c8", "#dd8452", "#f0b48a", "#55a868", "#9ed3a8",
              "#c44e52", "#e8a0a2"]  # fmt: skip
    right.stackplot([n for n, _ in rows], shares, labels=kinds, colors=colors)
    right.set(title="What a step of GPT-2 XL is spent on", ylabel="share of the step", ylim=(0, 1))
    right.legend(loc="lower left", fontsize=8, ncols=2)
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_xticks([4**n for n in range(8)], [f"{4**n:,}" for n in range(8)])
        axes.set_xlabel("H100")
        axes.set_xlim(1, POWERS[-1])
    figure.savefig(PICTURE, dpi=110)


def failures(minutes: float = 1.0) -> str:
    """How often a GPU fails, and what that costs if a checkpoint stops the training for a minute.

    Whoever saves every t seconds loses t / 2 and a restart at each failure, and the time to save in
    every t; t = sqrt(2 * saving * between failures) loses least (Young 1974).
    """
    lines = [
        "| GPUs | hours between failures | save every | time lost |",
        "|---|---|---|---|",
    ]
    saving = 60 * minutes
    for gpus in (8, 64, 512, 1024, 4096, 10_000, 100_000):
        between = HOURS_TO_FAILURE / gpus * 3600
        every = math.sqrt(2 * saving * between)
        lost = saving / every + every / 2 / between
        lines.append(f"| {gpus:,} | {between / 3600:,.1f} | {every / 60:,.0f} min | {lost:.1%} |")
    return "\n".join(lines)


def batches() -> str:
    """The batch beyond which more tokens in a step hardly save steps, by the loss.

    2e8 / loss^(1 / 0.21) tokens (Kaplan et al. 2020, equation 1.4), the loss in nats a token.
    """
    lines = [
        "| loss | tokens in a step | sequences of 1,024 |",
        "|---|---|---|",
    ]
    for loss in (4.0, 3.28, 2.85, 2.5, 2.0):
        tokens = 2e8 / loss ** (1 / 0.21)
        lines.append(f"| {loss} | {tokens / 1e6:.1f} million | {tokens / 1024:,.0f} |")
    return "\n".join(lines)


def replaced(page: str, name: str, part: str) -> str:
    """The page with what stands between two comments exchanged."""
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    return re.sub(
        f"{start}.*?{end}", lambda _: f"{start}\n\n{part}\n\n{end}", page, flags=re.DOTALL
    )


def talk(rank: int, ranks: int, folder: str) -> None:
    """One process: how long sums of small and large tensors take."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=ranks
    )
    for size in (1, 2**10, 2**16, 2**20, 2**24):
        x, times = torch.ones(size), []
        for _ in range(12):
            dist.barrier()
            start = time.perf_counter()
            dist.all_reduce(x)
            times.append(time.perf_counter() - start)
        seconds = statistics.median(times)
        if rank == 0:
            sent = 2 * (ranks - 1) / ranks * x.nbytes / seconds
            print(f"{x.nbytes:>12,} bytes {seconds * 1e6:>10,.0f} us {sent / 1e9:>6.2f} GB/s")
    dist.destroy_process_group()


# A small model on few processes; what the ranks send depends on nothing else.
DATA = DataConfig(source="shakespeare", vocab_size=1024)
SMALL: dict[str, dict[str, Any]] = {
    "model": {"n_layer": 4, "n_head": 4, "n_embd": 192, "context_length": 64},
    "train": {
        "batch_size": 16, "device": "cpu", "precision": "float32", "compile": "off",
        "max_steps": 40, "eval_interval": 1000, "eval_batches": 1, "sample_interval": 0,
    },
}  # fmt: skip
COUNTED = [
    {"data": 2}, {"shard": 2}, {"tensor": 2}, {"context": 2}, {"pipeline": 2},
    {"pipeline": 2, "schedule": "interleaved"}, {"data": 4}, {"shard": 4}, {"tensor": 4},
    {"context": 4}, {"pipeline": 4}, {"data": 2, "shard": 2}, {"data": 2, "tensor": 2},
    {"shard": 2, "tensor": 2}, {"shard": 2, "pipeline": 2}, {"tensor": 2, "pipeline": 2},
]  # fmt: skip
TIMED = [
    {"data": 1}, {"data": 2}, {"shard": 2}, {"tensor": 2}, {"context": 2}, {"pipeline": 2},
    {"data": 4}, {"shard": 4}, {"tensor": 4}, {"data": 2, "shard": 2},
]  # fmt: skip
FLOAT32 = Compute(torch.device("cpu"), "float32")


def small_run(parallel: dict[str, Any], folder: Path) -> tuple[Config, Layout]:
    """The settings of a run on several processes, and its layout."""
    config = config_from_dict({**SMALL, "parallel": parallel, "data": {"folder": str(folder)}})
    config = with_settings(config, model={"vocab_size": DATA.vocab_size})
    layout = layout_of(config, folder)
    return with_settings(config, parallel={"processes": layout.ranks}), layout


def counted(folder: Path) -> str:
    """The table of messages: what ranks were seen to send in a step, and what was predicted."""
    prepare(DATA, folder / "data", 1)
    lines = [
        "| layout | dimension | messages | bytes sent | predicted |",
        "|---|---|---|---|---|",
    ]
    for ranks in (2, 4):
        runs = {str(n): small_run(parallel, folder / "data") for n, parallel in enumerate(COUNTED)}
        runs = {name: run for name, run in runs.items() if run[1].ranks == ranks}
        place = folder / f"ranks-{ranks}"
        place.mkdir()
        jobs = {name: asdict(run[0]) for name, run in runs.items()}
        (place / "jobs.json").write_text(json.dumps(jobs))
        command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
        script = Path(__file__).parent / "messages.py"
        subprocess.run([sys.executable, *command, script, place], check=True)
        found = json.loads((place / "counts.json").read_text())
        for name, (config, layout) in runs.items():
            sizes = {d: getattr(layout, d) for d in DIMENSIONS}
            plan, shown = sent_by(job_of(config, FLOAT32), layout), f"{layout}"
            for dimension, (messages, size) in busiest(found[name], sizes).items():
                predicted = plan[dimension]
                lines.append(
                    f"| {shown} | {dimension} | {messages:,} | {size:,.0f} | "
                    f"{predicted.messages:,.0f}, {predicted.bytes:,.0f} |"
                )
                shown = ""
    return "\n".join(lines)


def timed(folder: Path) -> str:
    """How long steps take on 1, 2 and 4 processes, and how well a plan predicts that."""
    if os.getloadavg()[0] > 1:
        raise SystemExit("other programs use this machine; try again when it is quiet")
    prepare(DATA, folder / "data", 1)
    # The processes of a run share out all cores, as the plan has it.
    all_cores = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    runs = []
    for n, parallel in enumerate(TIMED):
        config = small_run(parallel, folder / "data")[0]
        recipe = folder / f"{n}.toml"
        recipe.write_text(to_toml(config))
        command = [sys.executable, "-m", "nanogpt", "train", recipe, "--run", folder / str(n)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=all_cores)
        runs.append(read_run(folder / str(n), FLOAT32))
    machine = find_gpu("cpu", FLOAT32)
    fitted, left_out = fit(machine, runs), error_of_the_left_out(machine, runs)
    lines = ["| layout | step | predicted | difference |", "|---|---|---|---|"]
    for run, seconds in zip(runs, fitted.predicted, strict=True):
        one = runs[0].seconds
        lines.append(
            f"| {run.layout} | {run.seconds / one:.2f} | {seconds / one:.2f} | "
            f"{seconds / run.seconds - 1:+.0%} |"
        )
    return "\n".join(lines) + (
        f"\n\nOne process takes 1.00. Of a run that it does not know, the plan is "
        f"{left_out:.0%} away on average."
    )


def main(arguments: Sequence[str]) -> None:
    """Write the page's tables and picture, or measure this machine."""
    measures = {"cpu": counted, "times": timed}
    with tempfile.TemporaryDirectory() as folder:
        if arguments == ["links"]:
            mp.spawn(talk, (2, folder), 2)
            return
        if arguments and arguments[0] in measures:
            part = measures[arguments[0]](Path(folder))
            print(part)
            PAGE.write_text(replaced(PAGE.read_text(), arguments[0], part))
            return
    found = growth()
    draw(found)
    page = PAGE.read_text()
    parts = {
        "published": published(), "limits": limits(found), "failures": failures(),
        "batches": batches(),
    }  # fmt: skip
    for name, part in parts.items():
        page = replaced(page, name, part)
        print(part, end="\n\n")
    PAGE.write_text(page)


if __name__ == "__main__":
    main(sys.argv[1:])
