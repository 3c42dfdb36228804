"""The larger ladder of docs/speedrun.md: loss against arithmetic, which is the same on any machine.

    nanogpt train speedrun-large --run runs/large-1 --train.seed 1 --train.stop-at-target false \\
        --train.precision float32 --data.source tinyshakespeare.txt
    python benchmarks/speedrun_large.py runs/large-*

Reads finished runs of the recipe configs/speedrun-large.toml, with whatever settings were changed,
and writes the part "The larger ladder" of the page and its picture. A run takes from ten minutes
to half an hour on two cores; it can be stopped, and `nanogpt train --resume RUN` goes on with it.
"""

import inspect
import shlex
import statistics
import sys
import textwrap
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from page import replace_part

from nanogpt.config import Config, load_config, with_settings
from nanogpt.lab.judge import spread
from nanogpt.lab.speedrun import FREE, GOALS, held_out_loss, read_run
from nanogpt.model.gpt import GPT
from nanogpt.model.size import flops_per_token
from nanogpt.text.dataset import data_folder, open_tokens
from nanogpt.training.checkpoint import load_tokenizer_of
from nanogpt.training.optim import Muon, orthogonalize
from nanogpt.training.records import read_metrics

ROOT = Path(__file__).parent.parent
RECIPE = with_settings(  # in the precision of an entry
    load_config(ROOT / "configs" / "speedrun-large.toml"), train={"precision": "float32"}
)
PICTURE = ROOT / "docs" / "images" / "speedrun-large.png"
ROUNDS = inspect.signature(orthogonalize).parameters["steps"].default
GOAL = GOALS["speedrun-large"]
# Settings that do not change what is learned, and how.
ASIDE = (*FREE, "model.vocab_size", "train.stop_at_target", "train.targets", "train.eval_interval",
         "train.checkpoint_interval")  # fmt: skip


@dataclass(frozen=True)
class Finished:
    """A run that did all its steps."""

    changes: str  # of the recipe's settings, as options
    seed: int
    steps: int
    tokens: int  # of a step
    tflop: float  # of the model
    tflop_of_muon: float
    losses: dict[int, float]  # step -> held-out loss in windows of the context, nats per character
    loss: float  # after the last step, in windows of the goal


def read(folder: Path) -> Finished:
    """What a run says of itself; `nanogpt speedrun check` does not believe it."""
    run = read_run(folder)
    config, steps = run.config, run.config.train.max_steps
    if run.state.step != steps:
        sys.exit(f"{folder} did {run.state.step:,} of {steps:,} steps: --resume it")
    losses = {r["step"]: r["val_loss"] for r in read_metrics(folder) if "val_loss" in r}
    model = flops_per_token(run.model) * config.tokens_per_step * steps / 1e12
    muon = flops_of_muon(run.model, config) * steps / 1e12
    seed, tokens = config.train.seed, config.tokens_per_step
    tokenizer = load_tokenizer_of(folder, run.state, config)
    text = open_tokens(data_folder(folder, config), config, tokenizer).val
    loss = held_out_loss(run.model, text, GOAL.window)
    return Finished(changes(config), seed, steps, tokens, model, muon, losses, loss)


def changes(config: Config) -> str:
    """The settings that differ from the recipe's, as options of the command line."""
    options = []
    for section, values in asdict(config).items():
        for key, value in values.items():
            name, usual = f"{section}.{key}", getattr(getattr(RECIPE, section), key)
            if value != usual and name not in ASIDE:
                value = str(value).lower() if isinstance(value, bool) else str(value)
                options.append(f"`--{name.replace('_', '-')} {shlex.quote(value)}`")
    return " ".join(options) or "the recipe"


def flops_of_muon(model: GPT, config: Config) -> int:
    """Operations of one step for making matrices orthogonal: three products of matrices a round."""
    if config.train.optimizer != "muon":
        return 0
    flops = 0
    for group in Muon.parameter_groups(model, config.train):
        for parameter in group["params"] if "rows" in group else ():
            for rows in group["rows"]:
                short, long = sorted((rows, parameter.shape[1]))
                flops += ROUNDS * 2 * short**2 * (2 * long + short)
    return flops


def table(groups: dict[str, list[Finished]]) -> str:
    """A row for each way to train."""
    lines = ["| what is changed | steps | tokens a step | TFLOP | and of Muon | seeds | loss | "
             "in windows of the context |",
             "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for name, runs in groups.items():
        loss, in_context = (
            f"{statistics.mean(x):.4f}" + (f" ± {spread(x):.4f}" if len(x) > 1 else "")
            for x in ([run.loss for run in runs], [run.losses[run.steps] for run in runs])
        )
        lines.append(
            f"| {name} | {runs[0].steps:,} | {runs[0].tokens:,} | {runs[0].tflop:.1f} | "
            f"{runs[0].tflop_of_muon:.1f} | {len(runs)} | {loss} | {in_context} |"
        )
    return "\n".join(lines)


def draw(groups: dict[str, list[Finished]]) -> None:
    """Loss against arithmetic, a line for each way to train."""
    figure = Figure(figsize=(9, 6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, runs in groups.items():
        steps = sorted(set.intersection(*({*run.losses} - {0} for run in runs)))
        means = [statistics.mean(run.losses[step] for run in runs) for step in steps]
        x = [runs[0].tflop * step / runs[0].steps for step in steps]
        axes.plot(x, means, "o-", ms=3, label=textwrap.fill(name.replace("`", ""), 64))
    axes.axhline(GOAL.loss, color="grey", ls=":", lw=1)
    axes.annotate(f"{GOAL.loss}", (0, GOAL.loss), va="bottom", color="grey", fontsize=9)
    axes.set_ylim(1.42, 1.9)
    axes.set_xlim(left=0)
    axes.set_xlabel("arithmetic of the model, TFLOP")
    axes.set_ylabel("validation loss in windows of the context, nats per character")
    axes.legend(frameon=False, fontsize=9)
    axes.grid(alpha=0.25)
    figure.savefig(PICTURE, dpi=110)


def main() -> None:
    """Read the runs, write the page's part and the picture."""
    if len(sys.argv) < 2:
        sys.exit("usage: python benchmarks/speedrun_large.py RUN...")
    found: dict[str, list[Finished]] = defaultdict(list)
    for folder in sys.argv[1:]:
        run = read(Path(folder))
        if run.seed in [other.seed for other in found[run.changes]]:
            sys.exit(f"{folder} has the seed of another run with the same settings: leave it out")
        found[run.changes].append(run)
    groups = dict(sorted(found.items(), key=lambda item: -statistics.mean(r.loss for r in item[1])))
    draw(groups)
    text = f"## The larger ladder\n\n{table(groups)}\n\n"
    text += "`python benchmarks/speedrun_large.py RUN...` writes this part from finished runs.\n\n"
    text += "![Validation loss against arithmetic](images/speedrun-large.png)\n"
    replace_part(text, ROOT / "docs" / "speedrun.md")


if __name__ == "__main__":
    main()
