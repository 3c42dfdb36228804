"""nanogpt plan --gpus: which layout to train in on many GPUs, and what limits it."""

import shlex
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict
from statistics import mean
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from nanogpt.cli.screen import Screen
from nanogpt.cli.settings import Parser, find_recipe, named_path, print_json, settings_in
from nanogpt.config import Config, check, config_from_dict, read_toml
from nanogpt.errors import UserError
from nanogpt.memory import amount

if TYPE_CHECKING:
    from nanogpt.device import Compute
    from nanogpt.training.calibrate import Fit
    from nanogpt.training.cluster import Prediction

SHOWN = 6  # layouts in the table
WIDEST = 110  # characters of the table; a narrow terminal breaks its lines
SHOWN_DIMENSIONS = ("data", "shard", "tensor", "pipeline", "context")
LARGEST = 100_000  # GPUs; a plan for more would take minutes


def add_options(parser: Parser) -> None:
    """Add the options of a plan for several GPUs."""
    parser.add_argument("--gpus", type=int, metavar="N", help="compare layouts over so many GPUs")
    parser.add_argument("--gpu", metavar="NAME", help="which: h100 (default), a100, ...; cpu: here")
    parser.add_argument(
        "--fit", action="append", type=named_path, metavar="RUN",
        help="predict from the measured steps of a run on such GPUs; may be given several times",
    )  # fmt: skip


def show_layouts(config: Config, options: Namespace) -> None:
    """Compare the layouts, recommend one, and say how to start it.

    Raises UserError if there is none, or if the model fits none.
    """
    from nanogpt.training.calibrate import fit, read_run
    from nanogpt.training.cluster import compare_layouts, job_of, nearest_fix, recommended
    from nanogpt.training.gpus import find_gpu
    from nanogpt.training.plan import with_expected_vocabulary

    if not 1 <= options.gpus <= LARGEST:
        raise UserError(f"--gpus {options.gpus}: use a number from 1 to {LARGEST}")
    check(not config.train.lora_rank, config.train, "lora_rank", "use 0 with --gpus, or no --gpus")
    if options.gpus > 1:
        check(not config.model.attention_dropout, config.model, "attention_dropout", "use 0 here")
    compute = compute_of(config, options.gpu or "h100")
    gpu, fitted = find_gpu(options.gpu or "h100", compute), None
    if options.fit:
        fitted = fit(gpu, [read_run(folder, compute) for folder in options.fit])
        gpu = fitted.gpu
    job = job_of(with_expected_vocabulary(config), compute)
    found = compare_layouts(job, options.gpus, gpu, wanted(options))
    best = recommended(found)
    if best is None:
        smallest = found[0]
        raise UserError(
            f"the model fits into no layout of {options.gpus} {gpu.name}: it needs at least "
            f"{amount(smallest.bytes)} a rank, which has {amount(gpu.among(options.gpus).memory)}; "
            + nearest_fix(job, options.gpus, gpu)
        )
    command = command_of(options, best)
    if options.json:
        print_json(figures(found, best, command, fitted))
        return
    console = Screen(highlight=False, soft_wrap=True)
    if fitted:
        show_fit(fitted, console)
    show_table(found, best, console)
    show_best(best, command, console)


def compute_of(config: Config, name: str) -> "Compute":
    """The precision of a training there. Raises UserError for one that the table does not know."""
    import torch

    from nanogpt.device import Compute, resolve

    if name.lower() == "cpu":
        return resolve("cpu", config.train.precision)
    if config.train.precision == "float32":
        raise UserError("train.precision='float32': GPUs are planned in 16 bits; use auto")
    return Compute(torch.device("cuda"), "bfloat16")


def wanted(options: Namespace) -> dict[str, int]:
    """The dimensions that are given on the command line, such as --parallel.tensor 2."""
    from nanogpt.training.cluster import DIMENSIONS

    said = settings_in(options).get("parallel", {})
    return {name: int(said[name]) for name in DIMENSIONS if name in said}


def command_of(options: Namespace, best: "Prediction") -> str:
    """The command that starts the training on each node."""
    from nanogpt.training.cluster import DIMENSIONS

    given = {
        f"{section}.{name}": value
        for section, values in settings_in(options).items()
        for name, value in values.items()
        if section != "parallel" or name not in DIMENSIONS  # the layout says these
    }
    one = {f"parallel.{name}": 1 for name in DIMENSIONS if name != "data"}
    settings = {**one, **given, **best.layout.settings()}
    recipe = read_toml(find_recipe(options.recipe)) if options.recipe else {}
    usual = asdict(config_from_dict(recipe))
    flags = []
    for name, value in settings.items():
        section, _, key = name.partition(".")
        if str(value) != str(usual[section][key]):
            flags.append(f"--{name.replace('_', '-')} {shlex.quote(str(value))}")
    gpus = options.gpus
    if gpus == 1:
        start = "nanogpt train"
    elif gpus <= best.gpu.node:
        start = f"torchrun --standalone --nproc-per-node {gpus} -m nanogpt train"
    else:
        nodes = gpus // best.gpu.node
        start = (
            f"torchrun --nnodes {nodes} --nproc-per-node {best.gpu.node} --rdzv-backend c10d "
            "--rdzv-endpoint FIRST_NODE:29500 -m nanogpt train"
        )
    return " ".join([start, options.recipe or "RECIPE", *flags])


def show_table(found: Sequence["Prediction"], best: "Prediction", console: Console) -> None:
    """The fastest layouts, and the two that everyone knows, even if they do not fit."""
    plain = [p for p in found if p.layout.kinds == 0 or p.layout.shard == p.layout.ranks]
    chosen = [p for p in found if p.fits][:SHOWN]
    chosen += [p for p in [best, *plain] if p not in chosen]
    # A dimension has a column where a layout uses it.
    used = [name for name in SHOWN_DIMENSIONS if any(getattr(p.layout, name) > 1 for p in chosen)]
    table = Table(box=None, header_style="bold")
    for name in (*used, "at once", "memory", "step", "of the peak", "costs most"):
        table.add_column(name, no_wrap=True)
    for each in chosen:
        layout = each.layout
        sizes = [str(size) if (size := getattr(layout, name)) > 1 else "" for name in used]
        name, share = each.loss
        time = seconds(each.step) if each.fits else "does not fit"
        peak, most = (f"{each.efficiency:.1%}", f"{name} {share:.0%}") if each.fits else ("", "")
        table.add_row(
            *sizes, f"{layout.rows} x {layout.passes}", amount(each.bytes), time, peak, most,
            style="bold green" if each is best else None,
        )  # fmt: skip
    console.width = max(console.width, WIDEST)
    console.print(table)
    console.print(
        "[dim]at once: sequences that a rank has in hand, and how often in a step. of the peak: "
        "the\nmodel's operations, of what all GPUs could do. costs most: after the matrices.[/]"
    )


def show_best(best: "Prediction", command: str, console: Console) -> None:
    """The layout that is recommended: where its time goes, what it costs, how to start it."""
    job, layout = best.job, best.layout
    spent = sorted(best.seconds.items(), key=lambda each: -each[1])
    parts = ", ".join(f"{name} {s / best.step:.0%}" for name, s in spent if s > best.step / 200)
    sends = ", ".join(f"{name} {amount(what.bytes)}" for name, what in best.sent.items())
    uses = ", ".join(f"{name} {amount(size)}" for name, size in best.memory.items() if size)
    where = "" if layout.ranks <= best.gpu.node else " on every node"
    which = "" if layout.ranks == 1 else f"[bold]{layout}[/] is recommended. "
    console.print(f"\n{which}Start it{where} with:\n")
    console.print(f"  {command}\n")
    console.print(f"time of a step: {parts}")
    console.print(f"memory of a rank: {uses}")
    if sends:
        console.print(f"a rank sends each step: {sends}")
    from nanogpt.cli.plan import duration

    cost = "" if best.dollars is None else f", ${best.dollars:,.{0 if best.dollars > 100 else 2}f}"
    console.print(
        f"{job.steps:,} steps of {job.tokens:,} tokens: {duration(best.hours * 3600)}{cost}"
        + (f", {best.interruptions:.1f} failures to expect" if best.interruptions >= 0.1 else "")
    )


def show_fit(fitted: "Fit", console: Console) -> None:
    """What the runs say, and how well it explains them."""
    table = Table("measured run", "layout", "step", "predicted", box=None, header_style="bold")
    for run, step in zip(fitted.runs, fitted.predicted, strict=True):
        table.add_row(run.name, str(run.layout), seconds(run.seconds), seconds(step))
    console.print(table)
    console.print(accuracy(fitted) + "\n")


def accuracy(fitted: "Fit") -> str:
    """How far the fit is from the runs, and what it says of the machine."""
    from nanogpt.training.calibrate import error_of_the_left_out

    says = [f"matrices reach {fitted.gpu.share:.0%} of the peak"]
    says += [f"{name} x {f:.2g}" for name, f in fitted.factors.items() if name != "compute"]
    errors = f"mean error {mean(fitted.errors):.1%}, largest {max(fitted.errors):.1%}"
    left_out = error_of_the_left_out(fitted.gpu, fitted.runs)
    if left_out is not None:
        errors += f"; of a run that is left out {left_out:.1%}"
    return f"{', '.join(says)}; {errors}"


def seconds(value: float) -> str:
    """A time as a person says it.

    >>> seconds(0.0123), seconds(4.56)
    ('12.3 ms', '4.56 s')
    """
    return f"{value * 1e3:.1f} ms" if value < 1 else f"{value:.2f} s"


def figures(
    found: Sequence["Prediction"], best: "Prediction", command: str, fitted: "Fit | None"
) -> dict[str, Any]:
    """The comparison as --json prints it."""
    job, gpu = best.job, best.gpu
    return {
        "gpu": gpu.name,
        "gpus": best.layout.ranks,
        "gpus_per_node": gpu.node,
        "peak_flops_per_second": gpu.among(best.layout.ranks).peak,
        "parameters": job.weights,
        "flops_per_token": job.flops,
        "tokens_per_step": job.tokens,
        "steps": job.steps,
        "recommended": figures_of(best) | {"command": command},
        "layouts": [figures_of(each) for each in found],
        "fit": fitted and {
            "share_of_peak": fitted.gpu.share,
            "factors": fitted.factors,
            "runs": [
                {"run": run.name, "seconds_per_step": run.seconds, "predicted_seconds": step}
                for run, step in zip(fitted.runs, fitted.predicted, strict=True)
            ],
        },
    }  # fmt: skip


def figures_of(each: "Prediction") -> dict[str, Any]:
    """One layout as --json prints it."""
    layout = each.layout
    from nanogpt.training.cluster import DIMENSIONS

    return {
        "layout": {name: getattr(layout, name) for name in DIMENSIONS},
        "schedule": layout.schedule,
        "sequences_at_once": layout.rows,
        "passes": layout.passes,
        "settings": layout.settings(),
        "fits": each.fits,
        "memory_bytes": each.memory | {"total": each.bytes},
        "sent_bytes_per_step": {name: what.bytes for name, what in each.sent.items()},
        "seconds_per_step": each.step,
        "seconds": each.seconds,
        "efficiency": each.efficiency,
        "tokens_per_second": each.job.tokens / each.step,
        "hours": each.hours,
        "dollars": each.dollars,
        "interruptions": each.interruptions,
    }
