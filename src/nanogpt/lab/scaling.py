"""Scaling laws at home: train a ladder of small models, and let it predict a larger one.

The recipe's own model is the larger one. The ladder are its narrower siblings, each trained on
several lengths of the same text. The law that fits them says beforehand what the recipe's model
will reach on more text than any of them had; then it is trained, to see whether that was true.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean

import numpy as np

from nanogpt.config import Config, with_settings
from nanogpt.errors import UserError
from nanogpt.files import as_csv, claimed, read_json, write_json, write_text, writing
from nanogpt.lab.law import SURE, Law, Point, Uncertainty, bootstrap, fit, need_scipy
from nanogpt.lab.runner import prepare_data, run_study
from nanogpt.lab.study import Arm, Study, data_name, with_steps
from nanogpt.model.gpt import GPT
from nanogpt.text.dataset import tokenizer_of
from nanogpt.text.remote import local_folder
from nanogpt.text.tokenfiles import open_split
from nanogpt.training.timing import seconds_per_step
from nanogpt.workers import usable_cores

WIDTHS = (1 / 6, 1 / 4, 1 / 3, 1 / 2, 2 / 3)  # of the ladder, as shares of the recipe's
TEXTS = (1 / 16, 1 / 8, 1 / 4, 1 / 2)  # and its tokens, as shares of what the recipe's model gets
SEEDS_OF_NEXT = [1, 2]  # two runs beside each other: its noise, too, should be known


@dataclass(frozen=True)
class Findings:
    """What came out."""

    ladder: list[Point]
    law: Law
    uncertainty: Uncertainty
    next: list[Point]  # runs of the recipe's model, one a seed

    @property
    def predicted(self) -> float:
        """What the law says of the recipe's model."""
        return self.law.loss(self.next[0].size, self.next[0].tokens)

    @property
    def expected(self) -> tuple[float, float]:
        """The interval around it."""
        first = self.next[0]
        return self.uncertainty.interval(first.size, first.tokens, len(self.next))

    @property
    def measured(self) -> float:
        """What the recipe's model reached, in the mean of its runs."""
        return mean(point.loss for point in self.next)

    @property
    def held(self) -> bool:
        """Whether that lies where it was expected."""
        low, high = self.expected
        return low <= self.measured <= high


def run_scaling(
    config: Config, folder: Path, minutes: float, jobs: int, say: Callable[[str], None]
) -> Findings:
    """Train the ladder, fit the law, predict the recipe's model, and train that.

    Finished runs are not repeated. Raises UserError as run_study does, and for a folder that was
    begun with another time.
    """
    need_scipy()
    with claimed(folder):
        return run_ladder(config, folder, minutes, jobs, say)


def run_ladder(
    config: Config, folder: Path, minutes: float, jobs: int, say: Callable[[str], None]
) -> Findings:
    """The same, in a folder that is locked."""
    # A target that ended a run early would make its tokens others than planned.
    config = with_settings(config, train={"targets": "", "stop_at_target": False})
    config = prepared(config, folder, say)
    tokens = planned_tokens(config, folder, minutes, jobs, say)
    small = [
        (sibling, round(share * tokens)) for sibling in siblings(config) for share in TEXTS
    ]  # fmt: skip
    ladder = run_points(small, folder, [1], jobs, say)
    law = fit(ladder)
    uncertainty = bootstrap(ladder, law)
    size = size_of(config)
    low, high = uncertainty.interval(size, tokens, len(SEEDS_OF_NEXT))
    say(
        f"predicted for {size:,} weights and {tokens:,} tokens: {law.loss(size, tokens):.3f}, "
        f"between {low:.3f} and {high:.3f}"
    )
    following = run_points([(config, tokens)], folder, SEEDS_OF_NEXT, jobs, say)
    return Findings(ladder, law, uncertainty, following)


def prepared(config: Config, folder: Path, say: Callable[[str], None]) -> Config:
    """The settings with prepared data, and the size of its vocabulary."""
    prepare_data(study_of([Arm("the ladder", config)], [1]), folder, say)
    data = folder / "data" / data_name(config)
    if config.data.folder:
        data = local_folder(config.data.folder)
    vocab_size = tokenizer_of(data, config).vocab_size
    return with_settings(
        config, model={"vocab_size": vocab_size}, data={"folder": str(data.resolve())}
    )


def siblings(config: Config) -> list[Config]:
    """Narrower models, as deep and with as many heads.

    A narrow network bears, and needs, a higher learning rate: it grows as one over the root of
    the width (that of Muon, whose steps have one size, does not). Raises UserError if the recipe's
    model is too narrow to have five of them.
    """
    model, train = config.model, config.train
    step = 2 * model.n_head  # RoPE turns channels in pairs
    widths = [max(step, round(model.n_embd * share / step) * step) for share in WIDTHS]
    if len({*widths, model.n_embd}) <= len(widths):
        raise UserError(
            f"model.n_embd={model.n_embd}: too narrow for a ladder of five narrower models with "
            f"{model.n_head} heads; use {12 * step} or more"
        )
    return [
        with_settings(
            config,
            model={"n_embd": width},
            train={"lr": train.lr * (rate := math.sqrt(model.n_embd / width)),
                   "min_lr": train.min_lr * rate},
        )
        for width in widths
    ]  # fmt: skip


def size_of(config: Config) -> int:
    """The weights that take part in a matrix product; the head is one of them."""
    matrices = {name: p for name, p in GPT(config.model).named_parameters() if p.ndim == 2}
    looked_up = ("wpe.", "wte.") if "lm_head.weight" in matrices else ("wpe.",)
    return sum(p.numel() for name, p in matrices.items() if not name.startswith(looked_up))


def planned_tokens(
    config: Config, folder: Path, minutes: float, jobs: int, say: Callable[[str], None]
) -> int:
    """How many tokens the recipe's model will get, so that everything takes about so long.

    Decided once and then kept, since it depends on the clock. Never more than one pass over the
    text: tokens read again and again teach less, and the law does not know that. The time is that
    of the training steps; starting the runs and measuring them comes on top.
    """
    path = folder / "plan.json"
    asked = {"minutes": minutes, "config": asdict(config)}
    if path.exists():
        plan = read_json(path)
        tokens = plan.pop("tokens", None)
        if plan != asked or not isinstance(tokens, int):
            raise UserError(
                f"{folder} was begun with other settings, another text or another time; go on with "
                "those, or give another --out"
            )
        return tokens
    say("measuring speed")
    at_once = min(jobs, usable_cores())
    threads = usable_cores() // at_once  # as each of the runs will have
    seconds = len(SEEDS_OF_NEXT) * seconds_per_step(config, threads)  # for one step's tokens each
    seconds += sum(TEXTS) * sum(seconds_per_step(sibling, threads) for sibling in siblings(config))
    data = Path(config.data.folder)
    has = open_split(data, "train", tokenizer_of(data, config)).about.count
    steps = min(60 * minutes / seconds * at_once, has / config.tokens_per_step)
    tokens = int(steps) * config.tokens_per_step
    if tokens * min(TEXTS) < 20 * config.tokens_per_step:
        raise UserError(f"--minutes {minutes:g} or the text are too short for a ladder: use more")
    write_json(path, {**asked, "tokens": tokens})
    return tokens


def run_points(
    runs: Sequence[tuple[Config, int]],
    folder: Path,
    seeds: list[int],
    jobs: int,
    say: Callable[[str], None],
) -> list[Point]:
    """Train models on so many tokens each."""
    arms = [
        Arm(
            f"width {config.model.n_embd}, {tokens} tokens",
            with_steps(config, max(1, round(tokens / config.tokens_per_step))),
        )
        for config, tokens in runs
    ]
    results = run_study(study_of(arms, seeds), folder, jobs, say)
    return [
        Point(size_of(config), result["steps"] * config.tokens_per_step, result["val_loss"])
        for (config, _), arm in zip(runs, arms, strict=True)
        for result in results[arm.name]
    ]


def study_of(arms: list[Arm], seeds: list[int]) -> Study:
    """Runs of different lengths, as the runner takes them."""
    return Study("scaling", "How does loss scale?", arms, seeds, ("steps", 0), [])


def write_scaling(folder: str | Path, findings: Findings) -> str:
    """Write report.md, scaling.png and results.csv; the report is returned."""
    folder = Path(folder)
    rows = [
        [p.size, p.tokens, f"{p.loss:.4f}", f"{findings.law.loss(p.size, p.tokens):.4f}"]
        for p in [*findings.ladder, *findings.next]
    ]
    write_text(folder / "results.csv", as_csv([["size", "tokens", "loss", "law"], *rows]))
    draw_scaling(folder / "scaling.png", findings)
    report = as_markdown(findings)
    write_text(folder / "report.md", report)
    return report


def as_markdown(findings: Findings) -> str:
    """The prediction first, then the law, then every run."""
    low, high = findings.expected
    last = findings.next[0]
    misses = [abs(p.loss / findings.law.loss(p.size, p.tokens) - 1) for p in findings.ladder]
    verdict = "**The prediction held.**" if findings.held else "**The prediction did not hold.**"
    numbers = [
        f"| {name} | {plain(value)} | "
        f"{' to '.join(map(plain, findings.uncertainty.number(name)))} |"
        for name, value in findings.law.numbers().items()
    ]
    rows = [
        f"| {p.size:,} | {p.tokens:,} | {p.loss:.4f} | {findings.law.loss(p.size, p.tokens):.4f} |"
        for p in [*findings.ladder, *findings.next]
    ]
    return "\n".join([
        "# What will the next size reach?",
        "",
        f"{len(findings.ladder)} small runs, of {findings.ladder[0].size:,} to "
        f"{findings.ladder[-1].size:,} weights, say that {last.size:,} weights will end at "
        f"**{findings.predicted:.3f}** after {last.tokens:,} tokens, and with {SURE:.0%} "
        f"certainty between {low:.3f} and {high:.3f}. {len(findings.next)} runs of it ended at "
        f"**{findings.measured:.3f}** in the mean. {verdict}",
        "",
        "![loss against tokens and against size](scaling.png)",
        "",
        "## The law",
        "",
        "loss(N, D) = E + A / N^a + B / D^b, in nats per token, N weights in matrix products, D "
        f"tokens. It misses the runs of the ladder by {mean(misses):.2%} in the mean. The "
        f"intervals hold {SURE:.0%} of the laws that noise of that size could have led to.",
        "",
        "| number | value | interval |",
        "|---|---|---|",
        *numbers,
        "",
        "## The runs",
        "",
        "| weights | tokens | loss | law |",
        "|---|---|---|---|",
        *rows,
        "",
    ])  # fmt: skip


def plain(value: float) -> str:
    """A number with four digits, and nothing of what is nearly 0.

    >>> plain(6.16423), plain(1.8e-14)
    ('6.164', '0')
    """
    return f"{round(value, 6):.4g}"


def draw_scaling(path: Path, findings: Findings) -> None:
    """Left, loss against tokens for each size; right, against size for each length of text."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 5), sharey=True, layout="constrained")
    points, (last, *_) = [*findings.ladder, *findings.next], findings.next
    for axes, across, along in ((left, "size", "tokens"), (right, "tokens", "size")):
        kinds = sorted({getattr(point, across) for point in points})
        ends = np.array([getattr(point, along) for point in points])
        line = np.geomspace(ends.min(), ends.max(), 60)
        for number, kind in enumerate(kinds):
            color = plt.get_cmap("viridis")(0.9 * number / len(kinds))
            chosen = [point for point in points if getattr(point, across) == kind]
            label = f"{kind:,} {'weights' if across == 'size' else 'tokens'}"
            axes.plot([getattr(p, along) for p in chosen], [p.loss for p in chosen], "o",
                      color=color, label=label)  # fmt: skip
            fitted = [
                findings.law.loss(*((kind, x) if across == "size" else (x, kind))) for x in line
            ]
            axes.plot(line, fitted, color=color, lw=1)
        low, high = findings.expected
        middle = findings.predicted
        axes.errorbar([getattr(last, along)], [middle], [[middle - low], [high - middle]],
                      fmt="_", color="#d1602b", capsize=6, ms=14, label="predicted")  # fmt: skip
        axes.set_xscale("log")
        axes.set_xlabel("tokens" if along == "tokens" else "weights")
        axes.legend(frameon=False, fontsize=8)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    left.set_ylabel("validation loss, nats per token")
    figure.suptitle("Points are runs, lines are the law that was fitted to the ladder")
    with writing(path) as file:
        figure.savefig(file, format="png", dpi=110)
    plt.close(figure)
