"""nanogpt compare: the same model here and in Hugging Face Transformers, in one report."""

import platform
from collections.abc import Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markdown import Markdown

from nanogpt.cli.screen import Screen
from nanogpt.cli.settings import Parser, folder_to_write, named_path, print_json
from nanogpt.cli.weights import check_model
from nanogpt.config import PRESETS
from nanogpt.errors import UserError
from nanogpt.evaluation.references import text_of
from nanogpt.files import write_text, writing
from nanogpt.text.corpus import shakespeare
from nanogpt.text.dataset import data_folder
from nanogpt.text.formats import gpt2_tokenizer
from nanogpt.text.tokenfiles import open_split
from nanogpt.text.tokenizer import BaseTokenizer

if TYPE_CHECKING:
    from nanogpt.interop.compare import Comparison, Pair
    from nanogpt.model.gpt import GPT

# What Transformers has that is not here. Engineering, and worth its price where it is needed.
THEIRS_ONLY = """\
| Transformers has | here |
|---|---|
| hundreds of architectures, vision and speech among them | GPT-2 and its modern variants |
| the published weights of all of them | GPT-2's sizes, and your own runs |
| beam search, assisted and constrained decoding, dozens of filters | six ways to sample |
| quantization in many formats | int8 weights |
| caches that are paged, quantized, offloaded | one preallocated cache |
| adapters, a Trainer with callbacks, logging to many services | a loop to read, metrics.jsonl |
| chat templates, tool use, pipelines for tasks | text in, text out |
| attention kernels for many devices | torch's fused attention, and the same by hand |
"""


def main(arguments: Sequence[str]) -> None:
    """Compare, print the report, and write it."""
    parser = Parser("compare", "The same model here and in Transformers: numbers, speed, size.")
    parser.add_argument(
        "run", type=named_path, help=f"a run folder, or {', '.join(PRESETS)} untrained"
    )
    parser.add_argument("--checkpoint", default="latest", choices=["latest", "best"])
    parser.add_argument("--new-tokens", type=int, default=40, help="greedy tokens (default: 40)")
    parser.add_argument(
        "--out", type=folder_to_write, help="folder of the report (default: in the run)"
    )
    parser.add_json(
        "architecture, parameters, tokens, same_model, same_ids, largest differences (of logits, "
        "loss in nats, gradients), greedy ids, and pairs of nanogpt and transformers: "
        "tokens_per_second in training and generating, start_seconds, memory_megabytes, lines, "
        "files; report: the folder of the report"
    )
    options = parser.parse(arguments)
    if options.new_tokens < 1:
        raise UserError(f"--new-tokens {options.new_tokens}: use at least 1")
    check_model(options.run)
    from nanogpt.interop.compare import compare

    model, tokenizer, text, is_run = what_to_compare(options.run, options.checkpoint)
    out = options.out or (options.run / "compare" if is_run else Path(f"compare-{options.run}"))
    with Screen(stderr=True).status("comparing ...") as status:
        found = compare(
            model, tokenizer, text, options.new_tokens, options.run if is_run else None,
            lambda doing: status.update(f"{doing} ..."),
        )  # fmt: skip
    name = str(options.run) if is_run else f"{options.run} with random weights"
    report = written_report(name, found, tokenizer)
    draw(found, out / "report.png", name)
    write_text(out / "report.md", report)
    if options.json:
        print_json(figures(found) | {"report": str(out)})
        return
    console = Screen(soft_wrap=True, highlight=False)
    console.print(Markdown(report.replace("![speed, memory and size](report.png)\n\n", "")))
    console.print(f"\nwritten to {out}/report.md and report.png")


def what_to_compare(run: Path, checkpoint: str) -> tuple["GPT", BaseTokenizer, str, bool]:
    """Model, tokenizer, a text, and whether it is a run."""
    import torch

    from nanogpt.model.gpt import GPT
    from nanogpt.training.load import hugging_face_folder, load

    if not run.exists() and str(run) in PRESETS:
        torch.manual_seed(0)
        model = GPT(PRESETS[str(run)]).eval()
        return model, gpt2_tokenizer(), next(shakespeare()).text[:20_000], False
    model, tokenizer, config = load(run, checkpoint)
    if hugging_face_folder(run):
        return model, tokenizer, next(shakespeare()).text[:20_000], True
    held_out = open_split(data_folder(run, config), "val", tokenizer)
    text = text_of(held_out, tokenizer)[:20_000].decode("utf-8", "ignore")
    return model, tokenizer, text, True


def figures(found: "Comparison") -> dict[str, Any]:
    """The comparison as --json prints it."""
    pairs = {
        "training_tokens_per_second": found.training,
        "generating_tokens_per_second": found.generating,
        "start_seconds": found.start,
        "memory_megabytes": found.memory,
        "lines_in_a_forward_pass": found.lines,
        "files_in_a_forward_pass": found.files,
    }
    return {
        "architecture": found.architecture,
        "parameters": found.parameters,
        "tokens": found.tokens,
        "same_model": found.same_model,
        "same_ids": found.same_ids,
        "largest_logit_difference": found.logits,
        "loss_difference_nats": found.loss,
        "largest_gradient_differences": found.gradients,
        "greedy_ids": {"nanogpt": found.greedy_ours, "transformers": found.greedy_theirs},
        **{
            name: {"nanogpt": pair.ours, "transformers": pair.theirs, "ratio": pair.ratio}
            for name, pair in pairs.items()
        },
    }


def verdict(found: "Comparison") -> str:
    """What a student should take home, in one line."""
    if not found.same_model:
        return (
            "**Not the same model**: see which of the numbers above differ; that is a bug worth "
            "reporting."
        )
    return (
        "**The same model**: same ids, same numbers up to rounding, same text; "
        f"here it trains at {found.training.ratio:.2f} times and writes at "
        f"{found.generating.ratio:.2f} times the speed there, and a forward pass runs through "
        f"{found.lines.ours:.0f} lines instead of {found.lines.theirs:.0f}."
    )


def written_report(name: str, found: "Comparison", tokenizer: BaseTokenizer) -> str:
    """The report as Markdown."""
    import torch

    from nanogpt.training.report import fenced

    worst = max(found.gradients, key=lambda n: found.gradients[n])
    agree = sum(a == b for a, b in zip(found.greedy_ours, found.greedy_theirs, strict=True))
    rows = [
        figure("training, tokens/s", found.training, ",.0f"),
        figure("generating, tokens/s", found.generating, ",.1f"),
        figure("from start to first logits, s", found.start, ".1f"),
        figure("memory until then, MB", found.memory, ",.0f"),
        figure("lines run in one forward pass", found.lines, ".0f"),
        figure("in so many files", found.files, ".0f"),
    ]
    same = "the same" if found.same_ids else "DIFFERENT"
    text = fenced(tokenizer.decode(found.greedy_ours))
    return f"""# {name} here and in Transformers

The same {found.parameters:,} weights as a nanogpt model and as a `{found.architecture}`.

## Same numbers

| | |
|---|---|
| ids of a text of {found.tokens:,} tokens | {same} |
| largest difference of the logits | {found.logits:.1e} |
| difference of the loss | {found.loss:.1e} |
| largest difference of {len(found.gradients)} gradients | {found.gradients[worst]:.1e} ({worst}) |
| greedy tokens that agree | {agree} of {len(found.greedy_ours)} |

The greedy text:

{text}

## Speed, memory, size

![speed, memory and size](report.png)

| | nanogpt | Transformers | ratio |
|---|---|---|---|
{chr(10).join(rows)}

Speeds are medians of steps that alternate in one process, in float32; generation uses packed
weights here. Start-up and memory are those of a fresh process. Lines are counted while they
run, those of torch on neither side.

## What the library has that is not here

{THEIRS_ONLY}
{verdict(found)}

{date.today()}, torch {version("torch")}, transformers {version("transformers")}, \
{torch.get_num_threads()} threads, {platform.machine()}.
"""


def figure(name: str, pair: "Pair", form: str) -> str:
    """One row of a table."""
    return f"| {name} | {pair.ours:{form}} | {pair.theirs:{form}} | {pair.ratio:.2f} |"


def draw(found: "Comparison", path: str | Path, name: str) -> None:
    """Bars: speed, start-up and memory, lines."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    charts = {
        "training, tokens/s": found.training,
        "generating, tokens/s": found.generating,
        "start-up, s": found.start,
        "memory, MB": found.memory,
        "lines run": found.lines,
    }
    plot, axes = plt.subplots(1, len(charts), figsize=(11, 3), layout="constrained")
    plot.suptitle(f"{name}: nanogpt and Transformers", parse_math=False)
    for chart, (title, pair) in zip(axes, charts.items(), strict=True):
        bars = chart.bar(
            ["nanogpt", "Transformers"], [pair.ours, pair.theirs], color=["#1f5a99", "#c9b28a"]
        )
        chart.bar_label(bars, fmt=lambda v: f"{v:,.0f}" if v >= 100 else f"{v:.3g}")
        chart.set_title(title, fontsize=10)
        chart.set_yticks([])
        chart.margins(y=0.15)
        chart.spines[["top", "right", "left"]].set_visible(False)
    with writing(Path(path)) as file:
        plot.savefig(file, format="png", dpi=110)
    plt.close(plot)
