"""nanogpt plan: what a run will need, before anything runs."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from nanogpt.cli.cluster import add_options, show_layouts
from nanogpt.cli.screen import Screen
from nanogpt.cli.settings import Parser, load_settings, print_json
from nanogpt.config import DataConfig, ModelConfig, ParallelConfig, SampleConfig, TrainConfig
from nanogpt.errors import UserError

if TYPE_CHECKING:
    from nanogpt.training.plan import Plan


def main(arguments: Sequence[str]) -> None:
    """Print parameters, operations, memory, time and cost of a recipe."""
    parser = Parser("plan", "What a run will need: parameters, operations, memory, time, cost.")
    parser.add_recipe()
    parser.add_json(
        "parameters (by part), flops_per_token, tokens_per_step, steps, flops, memory_bytes "
        "(by use), with LoRA memory_bytes_without_lora, cache_bytes_per_sequence, free_bytes, "
        "largest_batch_sequences, times (device, peak_flops_per_second, seconds, dollars); with "
        "--gpus layouts, recommended"
    )
    add_options(parser)
    parser.add_settings(ModelConfig, DataConfig, TrainConfig, SampleConfig, ParallelConfig)
    options = parser.parse(arguments)
    if options.gpus is None and (options.gpu or options.fit):
        raise UserError("--gpu and --fit need the number of GPUs: add --gpus 8")
    config = load_settings(options.recipe, options)
    if options.gpus is not None:
        show_layouts(config, options)
        return
    from nanogpt.device import resolve
    from nanogpt.training.plan import plan_run

    compute = resolve(config.train.device, config.train.precision)
    with Screen(stderr=True).status("running one layer and two ..."):
        plan = plan_run(config, compute)
    if options.json:
        print_json(figures(plan))
        return
    console = Screen(highlight=False, soft_wrap=True)
    show_parameters(plan, console)
    show_memory(plan, str(compute.device), console)
    show_time(plan, console)


def figures(plan: "Plan") -> dict[str, Any]:
    """The plan as --json prints it."""
    whole = plan.memory_without_lora
    return {
        "parameters": {
            **{part or "others": count for part, count in plan.parameters.items()},
            "total": sum(plan.parameters.values()),
        },
        "flops_per_token": plan.flops_per_token,
        "tokens_per_step": plan.tokens_per_step,
        "steps": plan.steps,
        "flops": plan.flops,
        "memory_bytes": asdict(plan.memory) | {"total": plan.memory.total},
        **({"memory_bytes_without_lora": asdict(whole) | {"total": whole.total}} if whole else {}),
        "cache_bytes_per_sequence": plan.cache_bytes,
        "free_bytes": plan.free_bytes,
        "largest_batch_sequences": plan.largest_batch,
        "times": [
            {"device": time.device, "peak_flops_per_second": time.peak_flops}
            | {"seconds": time.seconds, "dollars": time.dollars}
            for time in plan.times
        ],
    }


def show_parameters(plan: "Plan", console: Console) -> None:
    """Parameters by kind of module."""
    from nanogpt.training.plan import PARTS

    total = sum(plan.parameters.values())
    table = Table("parameters", "", "", box=None, header_style="bold")
    for part, count in plan.parameters.items():
        tied = part == "wte" and "lm_head" not in plan.parameters
        name = f"{PARTS[part]}, also the head" if tied else PARTS[part]
        table.add_row(name, f"{count:,}", f"{count / total:.0%}")
    table.add_row("all", f"{total:,}", "", style="bold")
    console.print(table)


def show_memory(plan: "Plan", device: str, console: Console) -> None:
    """Memory by use, and the largest batch that fits."""
    columns = {"GB": plan.memory}
    if plan.memory_without_lora:
        columns = {"with LoRA, GB": plan.memory, "without": plan.memory_without_lora}
    table = Table("memory in training", *columns, box=None, header_style="bold")
    for name in asdict(plan.memory):
        table.add_row(name, *(f"{getattr(m, name) / 1e9:.3f}" for m in columns.values()))
    table.add_row("all", *(f"{m.total / 1e9:.3f}" for m in columns.values()), style="bold")
    console.print()
    console.print(table)
    console.print(f"cache of one sequence in generation: {plan.cache_bytes / 1e6:,.1f} MB")
    if plan.free_bytes is None:
        console.print("largest batch that fits: this system does not say how much memory is free")
        return
    fits = f"{plan.largest_batch:,} sequences" if plan.largest_batch else "none"
    console.print(
        f"largest batch that fits into the {plan.free_bytes / 1e9:.1f} GB free on {device}: {fits}"
        + ("" if plan.largest_batch else "; make the model or the context smaller")
    )


def show_time(plan: "Plan", console: Console) -> None:
    """How long all steps take, here and on GPUs, and what those cost."""
    from nanogpt.training.plan import USUAL_SHARE

    console.print(
        f"\n[bold]{plan.flops_per_token / 1e6:,.1f} million[/] operations per token, "
        f"{plan.tokens_per_step:,} tokens per step, {plan.steps:,} steps: "
        f"[bold]{plan.flops:.2e}[/] operations"
    )
    share = f"at {USUAL_SHARE:.0%} of the peak"
    table = Table(share, "peak, TFLOP/s", "time", "cost", box=None, header_style="bold")
    for time in plan.times:
        teraflops = time.peak_flops / 1e12
        cost = "" if time.dollars is None else f"${time.dollars:,.2f}"
        peak = f"{teraflops:.0f}" if teraflops >= 10 else f"{teraflops:.2g}"
        table.add_row(time.device, peak, duration(time.seconds), cost)
    console.print(table)


def duration(seconds: float) -> str:
    """Seconds as a person says them.

    >>> duration(4), duration(300), duration(9000), duration(10**6)
    ('4 s', '5.0 min', '2.5 h', '11.6 days')
    """
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.0f} s"
