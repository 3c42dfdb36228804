"""The report of a study: Markdown, HTML, a picture of the curves, and all figures as CSV."""

import base64
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from nanogpt.files import as_csv, write_text, writing
from nanogpt.lab.judge import LEVEL, differences, spread
from nanogpt.lab.study import MEASURES, Measure, Study
from nanogpt.text.worlds import find_world
from nanogpt.training.report import fenced

Results = Mapping[str, Sequence[Mapping[str, Any]]]  # by arm, one a seed

COLUMNS = (
    "measured",
    "val_loss",
    "bits_per_byte",
    "parameters",
    "steps",
    "seconds",
    "tokens_per_second",
)
SHOWN_PAIRS = 30
PICTURE = "![what was measured during training](curves.png)"


def write_report(folder: str | Path, study: Study, results: Results) -> str:
    """Write everything into the study's folder; the Markdown is returned."""
    folder = Path(folder)
    draw_curves(folder / "curves.png", study, results)
    write_text(folder / "results.csv", as_csv(rows_of(study, results)))
    text = as_markdown(study, results)
    write_text(folder / "report.md", text)
    write_text(folder / "report.html", as_html(study, text, folder / "curves.png"))
    return text


def as_markdown(study: Study, results: Results) -> str:
    """The tables, what is larger than the noise, and samples side by side."""
    kind, amount = study.budget
    parts = [f"# {study.question}"]
    measure = MEASURES[study.measure]
    parts.append(
        f"{len(study.arms)} arms, {len(study.seeds)} seeds each, {amount:,.0f} {kind} a run. "
        f"{measure.meaning}{f' The text is {study.text}.' if study.text else ''}"
    )
    parts.append(table_of_arms(results, measure))
    worlds = {arm.config.data.source for arm in study.arms}
    world = find_world(worlds.pop()) if len(worlds) == 1 else None
    if world and study.measure == "bits_per_byte" and not study.text:
        parts.append(f"No model can go below {world.floor():.4f}, the entropy of this toy world.")
    parts.append(PICTURE)
    parts.append("## Larger than the noise?\n\n" + verdicts(results, measure))
    parts.append("## What they write")
    for arm, runs in results.items():
        parts.append(f"### {arm}\n\n{fenced(runs[0]['sample'])}")
    return "\n\n".join(parts) + "\n"


def best_first(results: Results, measure: Measure) -> list[tuple[str, Sequence[Mapping[str, Any]]]]:
    """The arms with their runs."""
    sign = -1 if measure.more else 1
    return sorted(results.items(), key=lambda item: sign * average(item[1], "measured"))


def table_of_arms(results: Results, measure: Measure) -> str:
    """One row an arm, the best first."""
    titles = f"| arm | {measure.name} | ± | loss | parameters | steps | tokens/s | MB |"
    rows = [titles, "|" + "---|" * 8]
    for arm, runs in best_first(results, measure):
        noise = spread([run["measured"] for run in runs])
        rows.append(
            f"| {arm} | {average(runs, 'measured'):.4f} | "
            f"{'' if math.isnan(noise) else f'{noise:.4f}'} | {average(runs, 'val_loss'):.4f} | "
            f"{runs[0]['parameters']:,} | {average(runs, 'steps'):,.0f} | "
            f"{average(runs, 'tokens_per_second'):,.0f} | {average(runs, 'memory_mb'):,.0f} |"
        )
    return "\n".join(rows)


def average(runs: Sequence[Mapping[str, Any]], key: str) -> float:
    """The mean of a figure over seeds."""
    return mean(run[key] for run in runs)


def verdicts(results: Results, measure: Measure) -> str:
    """Every pair of arms, and whether it differs by more than seeds do."""
    found = differences({a: [r["measured"] for r in runs] for a, runs in results.items()})
    judged = (
        "Judged by Tukey's test over all pairs: where nothing differs, it calls some pair "
        f"different in {LEVEL:.0%} of studies. Noise is the scatter between seeds, of all arms."
    )
    if any(math.isnan(difference.span) for difference in found):
        return "With one seed an arm nothing is known of the noise: give two or more."
    rows = ["| better | worse | by | p | larger than the noise |", "|---|---|---|---|---|"]
    for pair in found[:SHOWN_PAIRS]:
        first = (pair.by > 0) == measure.more
        better, worse = (pair.one, pair.other) if first else (pair.other, pair.one)
        answer = "**yes**" if pair.real else "no"
        rows.append(f"| {better} | {worse} | {abs(pair.by):.4f} | {pair.p:.2g} | {answer} |")
    if len(found) > SHOWN_PAIRS:
        rows.append(f"\nThe {SHOWN_PAIRS} most certain of {len(found)} pairs.")
    return "\n".join([judged, "", *rows])


def rows_of(study: Study, results: Results) -> list[list[Any]]:
    """One row a run, below their names."""
    return [["arm", "seed", *COLUMNS]] + [
        [arm, seed, *(run[column] for column in COLUMNS)]
        for arm, runs in results.items()
        for seed, run in zip(study.seeds, runs, strict=True)
    ]


def as_html(study: Study, markdown: str, picture: Path) -> str:
    """The same as one page that can be sent: the picture is inside."""
    from markdown_it import MarkdownIt

    data = base64.b64encode(picture.read_bytes()).decode()
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)
    body = body.replace('src="curves.png"', f'src="data:image/png;base64,{data}"')
    style = (
        "body{font:16px/1.5 system-ui;max-width:60rem;margin:2rem auto;padding:0 1rem}"
        "td,th{padding:.2rem .8rem;text-align:left}tr:nth-child(even){background:#f3f3f3}"
        "pre{background:#f7f7f7;padding:.8rem;white-space:pre-wrap}img{max-width:100%}"
    )
    title = study.name.replace("&", "&amp;").replace("<", "&lt;")
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f"<style>{style}</style>{body}</html>\n"
    )


def draw_curves(path: Path, study: Study, results: Results) -> None:
    """What was measured during training: the mean of the seeds, from the least to the most."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    ordered = best_first(results, MEASURES[study.measure])
    for number, (arm, runs) in enumerate(ordered):
        # The first, second, ... measurement of each seed: in a budget of seconds, every seed
        # comes to another number of steps and measures at steps of its own.
        curves = [[point for point in run["curve"] if point[0]] for run in runs]
        looks = [list(zip(*look, strict=True)) for look in zip(*curves, strict=False)]
        steps = [mean(steps) for steps, _ in looks]
        color = plt.get_cmap("tab10")(number % 10)
        middle = [mean(values) for _, values in looks]
        least = [min(values) for _, values in looks]
        most = [max(values) for _, values in looks]
        style = "-" if number < 10 else "--"
        axes.plot(steps, middle, style, color=color, label=arm)
        axes.fill_between(steps, least, most, color=color, alpha=0.2, lw=0)
    axes.set_xlabel("step")
    axes.set_ylabel(f"{MEASURES[study.measure].name}, validation")
    axes.set_title(study.question, parse_math=False, wrap=True)
    axes.legend(frameon=False, fontsize=8)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    with writing(path) as file:
        figure.savefig(file, format="png", dpi=110)
    plt.close(figure)
