"""The ladder of docs/speedrun.md: what each idea since GPT-2 is worth, in time to a given loss.

    python benchmarks/speedrun.py tinyshakespeare.txt

For each rung the shortest schedule is found that reaches the loss, on a grid of lengths and with
one seed; then three other seeds run it. What is done is kept in docs/speedrun.json, so the script
can be stopped and goes on where it was. Time is steps times the median time of a step, taken in
turns at the end: the search may share the machine with other work, the timing may not.
"""

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from nanogpt.config import Config, DataConfig, load_config, with_settings
from nanogpt.files import write_json, write_text
from nanogpt.text.prepare import prepare
from nanogpt.training.start import Trainer

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "docs" / "speedrun.json"
PAGE = ROOT / "docs" / "speedrun.md"
PICTURE = ROOT / "docs" / "images" / "speedrun.png"

TARGET = 1.8857
SEARCH_SEED, SEEDS = 0, (1, 2, 3)
LENGTHS = (200, 250, 300, 350, 400, 500, 600, 800, 1000, 1300, 1700, 2200, 2800, 3600)
LOOKS = 15  # at the validation text in a run
QUIET: dict[str, Any] = {"targets": "", "sample_interval": 0, "checkpoint_interval": 10**6}

# Title and what changes, on top of all rungs before.
RUNGS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("GPT-2's recipe, 4 layers of 128", {}, {}),
    (
        "2 layers of 64, batches of 32, five times the rate",
        {"n_layer": 2, "n_head": 2, "n_embd": 64},
        {"batch_size": 32, "lr": 5e-3, "min_lr": 5e-4, "warmup_steps": 20, "weight_decay": 0.0},
    ),
    ("Muon for the matrices", {}, {"optimizer": "muon", "muon_lr": 0.03, "beta2": 0.95}),
    ("RoPE", {"position": "rope"}, {}),
    ("RMS norm, no biases", {"norm": "rms", "bias": False}, {}),
    ("squared ReLU", {"mlp": "relu2"}, {}),
    ("QK norm", {"qk_norm": True}, {}),
    ("projections start at zero", {"zero_init": True}, {}),
    (
        "rates constant, then straight to zero",
        {},
        {"schedule": "trapezoidal", "decay_share": 0.5, "min_lr": 0.0, "warmup_steps": 0},
    ),
    ("embeddings faster", {}, {"lr": 15e-3}),
    ("a short convolution beside attention", {"attention": "short-conv"}, {}),
]


def settings_of(rung: int, data: Path) -> Config:
    """The settings of a rung: GPT-2's, changed by every rung up to it."""
    config = load_config(ROOT / "configs" / "shakespeare-char.toml")
    config = with_settings(config, data={"folder": str(data)}, train=QUIET)
    for _, model, train in RUNGS[: rung + 1]:
        config = with_settings(config, model=model, train=train)
    return config


def run(config: Config, steps: int, seed: int, looks: int) -> list[tuple[int, float]]:
    """Train; the validation loss over the whole text after every so many steps."""
    config = with_settings(config, train={"max_steps": steps, "seed": seed, "eval_interval": 10**6})
    losses = []
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer.start(Path(folder), config)
        while trainer.state.step < steps:
            trainer.train_step()
            step = trainer.state.step
            if step == steps or step % max(1, steps // looks) == 0:
                losses.append((step, trainer.validate().val_loss))
    return losses


def find_length(config: Config, results: dict[str, Any], rung: int) -> int:
    """The shortest schedule on the grid that ends below the target."""
    if rung == 0:
        return config.train.max_steps  # the recipe as it is
    for steps in LENGTHS:
        key = f"{rung} search {steps}"
        if key not in results:
            save(results, key, run(config, steps, SEARCH_SEED, looks=1)[-1][1])
            print(f"{RUNGS[rung][0]}: {steps} steps, {results[key]:.4f}", flush=True)
        if results[key] <= TARGET:
            return steps
    return LENGTHS[-1]


def save(results: dict[str, Any], key: str, value: Any) -> None:
    """Keep a result, beside those that another process may have kept meanwhile."""
    results |= (json.loads(RESULTS.read_text()) if RESULTS.exists() else {}) | {key: value}
    write_json(RESULTS, results)


def climb(data: Path, results: dict[str, Any], rung: int) -> None:
    """Everything but the timing of one rung."""
    config = settings_of(rung, data)
    steps = find_length(config, results, rung)
    for seed in SEEDS:
        key = f"{rung} run {seed}"
        if key not in results:
            save(results, key, run(config, steps, seed, LOOKS))
            print(f"{RUNGS[rung][0]}: seed {seed}, {results[key][-1][1]:.4f}", flush=True)


def time_steps(data: Path, results: dict[str, Any]) -> None:
    """The median seconds of a step of each rung, in turns."""
    trainers = []
    for rung in range(len(RUNGS)):
        folder = Path(tempfile.mkdtemp())
        config = with_settings(settings_of(rung, data), train={"compile": "off"})
        trainers.append(Trainer.start(folder, config))
    times: list[list[float]] = [[] for _ in RUNGS]
    for _ in range(12):
        for rung, trainer in enumerate(trainers):
            for n in range(4):
                start = time.perf_counter()
                trainer.train_step()
                if n:  # the first of a turn finds the other's data in the caches
                    times[rung].append(time.perf_counter() - start)
    save(results, "seconds per step", [statistics.median(spent) for spent in times])
    save(results, "torch", torch.__version__)
    save(results, "threads", torch.get_num_threads())


def steps_to_target(losses: list[tuple[int, float]]) -> float:
    """Where the line between two looks crosses the target; infinite if it never does."""
    before = (0, 4.2)
    for step, loss in losses:
        if loss <= TARGET:
            share = (before[1] - TARGET) / (before[1] - loss)
            return before[0] + share * (step - before[0])
        before = step, loss
    return float("inf")


def write_page(results: dict[str, Any]) -> None:
    """Replace the part "Measured" of the page, and draw the picture."""
    lines = ["| rung | steps | ms per step | seconds to the loss, three seeds | final loss |",
             "|---|---|---|---|---|"]  # fmt: skip
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for rung, (title, _, _) in enumerate(RUNGS):
        per_step = results["seconds per step"][rung]
        runs = [results[f"{rung} run {seed}"] for seed in SEEDS]
        seconds = sorted(steps_to_target(losses) * per_step for losses in runs)
        shown = ", ".join("not" if s == float("inf") else f"{s:.1f}" for s in seconds)
        final = statistics.mean(losses[-1][1] for losses in runs)
        lines.append(
            f"| {'+ ' * bool(rung)}{title} | {runs[0][-1][0]:,} | {1000 * per_step:.1f} | {shown} "
            f"| {final:.4f} |"
        )
        x = [step * per_step for step, _ in runs[0]]
        y = [statistics.mean(losses[n][1] for losses in runs) for n in range(len(x))]
        colour = "black" if rung == 0 else f"C{rung - 1}"
        axes.plot(x, y, label=title, color=colour, lw=2.2 if rung in (0, len(RUNGS) - 1) else 1.2)
    axes.axhline(TARGET, color="grey", ls=":", lw=1)
    axes.set_xscale("log")
    axes.set_xlabel("seconds of training, two cores")
    axes.set_ylabel("validation loss, nats per character")
    axes.set_ylim(1.8, 3.05)
    axes.legend(frameon=False, fontsize=9)
    axes.grid(alpha=0.25)
    figure.savefig(PICTURE, dpi=110)
    text = PAGE.read_text().partition("## Measured")[0].rstrip()
    text += "\n\n## Measured\n\n" + "\n".join(lines)
    text += (
        f"\n\ntorch {results['torch']}, float32, {results['threads']} threads. Steps are those of "
        "the schedule; seconds are those until the\nloss is reached, without evaluation. A run "
        "that ended above the loss says `not`.\n"
    )
    write_text(PAGE, text)


def main() -> None:
    """Climb the rungs that were not climbed yet, time all of them, write the page."""
    if len(sys.argv) < 2:
        sys.exit("usage: python benchmarks/speedrun.py TEXT [RUNG ...]")
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        prepare(DataConfig(source=sys.argv[1], tokenizer="char"), data, 1)
        for rung in map(int, sys.argv[2:] or range(len(RUNGS))):
            climb(data, results, rung)
        if not sys.argv[2:]:
            time_steps(data, results)
            write_page(results)


if __name__ == "__main__":
    main()
