"""nanogpt lab: change one thing, see what it does; check an idea of your own."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markdown import Markdown
from rich.table import Table

from nanogpt.cli.screen import Screen
from nanogpt.cli.settings import (
    Parser,
    by_name,
    find_recipe,
    folder_to_write,
    init_of,
    load_settings,
    named,
    named_path,
    refuse_untrainable,
    run_action,
    studies,
    with_weights,
)
from nanogpt.cli.weights import add_model_options, load_model
from nanogpt.config import DataConfig, ModelConfig, TrainConfig, read_toml
from nanogpt.errors import Interrupted, UserError
from nanogpt.files import write_json
from nanogpt.lab.plugin import load_plugin
from nanogpt.lab.runner import run_study
from nanogpt.lab.study import flat, load_study
from nanogpt.memory import refuse_impossible
from nanogpt.workers import number_of_processes

if TYPE_CHECKING:
    from nanogpt.lab.circuit import Circuit

PATHS_SHOWN = 12

SCALING_PICTURE = "![loss against tokens and against size](scaling.png)"

# On a terminal, until the next run is done: that may take minutes.
AT_WORK = "running; Ctrl-C stops, and the same command goes on from there"

ABOUT = """
Try ideas and believe the answers.
"""


def main(arguments: Sequence[str]) -> int:
    """Call the action that is named."""
    return run_action(
        "lab", ABOUT,
        {"run": run, "scaling": scaling, "heads": heads, "circuit": circuit, "check": check},
        arguments,
    )  # fmt: skip


def run(arguments: Sequence[str]) -> int:
    """Run a study and write its report. The same command continues one that was stopped."""
    parser = Parser("lab run", "Run a study: the same budget for every arm, several seeds.")
    parser.add_argument("study", type=named, help="a TOML file, or the name of a study below")
    parser.list_names("studies", studies())
    parser.add_argument(
        "--out", type=folder_to_write, help="folder to write (default: studies/NAME)"
    )
    parser.add_argument("--jobs", type=int, help="runs at a time (default: one a core)")
    options = parser.parse(arguments)
    jobs = number_of_processes("--jobs", options.jobs)
    path = find_study(options.study)
    study = load_study(path, recipe_of(read_toml(path)))
    for arm in study.arms:
        refuse_impossible(arm.config)
    from nanogpt.device import resolve
    from nanogpt.lab.report import PICTURE, write_report
    from nanogpt.training.variants import check_choices

    for plugin in study.plugins:
        load_plugin(plugin)
    at_once = min(jobs, len(study.arms) * len(study.seeds))
    for arm in study.arms:
        check_choices(arm.config)
        compute = resolve(arm.config.train.device, arm.config.train.precision)
        refuse_untrainable(arm.config, compute, at_once)
    out = options.out or Path("studies") / study.name
    console = Screen(highlight=False, soft_wrap=True)
    try:
        with console.status(AT_WORK):
            results = run_study(study, out, jobs, console.print)
    except (KeyboardInterrupt, Interrupted) as error:
        return stopped(error, console)
    text = write_report(out, study, results)
    console.print(Markdown(text.partition("## What they write")[0].replace(PICTURE, "")))
    console.print(f"\nwritten to {out}: report.md, report.html, curves.png, results.csv")
    return 0


def recipe_of(study: Mapping[str, Any]) -> dict[str, Any]:
    """The values of the recipe that a study names, with the shape of the weights it begins with.

    Raises UserError if there is no such recipe, or no such weights.
    """
    recipe, settings = study.get("recipe"), study.get("settings")
    values = read_toml(find_recipe(str(recipe))) if recipe else {}
    init = flat(settings).get("train.init", "") if isinstance(settings, Mapping) else ""
    return with_weights(values, init if init and isinstance(init, str) else init_of(values))


def find_study(name: str) -> Path:
    """A study by its path, or one of ours by its name. Raises UserError if there is none."""
    return Path(name) if Path(name).is_file() else by_name(studies(), "study", name)


def stopped(error: BaseException, console: Console) -> int:
    """Say why, and that nothing is lost; the exit code of an interruption."""
    if str(error):
        console.print(str(error), markup=False)
    console.print("stopped; the same command goes on from here")
    return 130


def scaling(arguments: Sequence[str]) -> int:
    """Fit a scaling law to a ladder of small models, predict a recipe's own, and train that."""
    parser = Parser("lab scaling", "How loss falls with size and text, and what comes next.")
    parser.add_recipe("whose model is to be predicted (default: demo)", default="demo")
    parser.add_argument("--minutes", type=float, default=12.0, help="how long it may take, about")
    parser.add_argument(
        "--out", type=folder_to_write, help="folder to write (default: studies/scaling)"
    )
    parser.add_argument("--jobs", type=int, help="runs at a time (default: one a core)")
    parser.add_settings(ModelConfig, DataConfig, TrainConfig)
    options = parser.parse(arguments)
    jobs = number_of_processes("--jobs", options.jobs)
    if not 0 < options.minutes < math.inf:
        raise UserError(f"--minutes {options.minutes}: use a positive number")
    config = load_settings(options.recipe, options, trains=True)
    from nanogpt.lab.scaling import run_scaling, write_scaling

    out = options.out or Path("studies") / "scaling"
    console = Screen(highlight=False, soft_wrap=True)
    try:
        with console.status(AT_WORK):
            findings = run_scaling(config, out, options.minutes, jobs, console.print)
    except (KeyboardInterrupt, Interrupted) as error:
        return stopped(error, console)
    text = write_scaling(out, findings)
    console.print(Markdown(text.replace(SCALING_PICTURE, "")))
    console.print(f"\nwritten to {out}: report.md, scaling.png, results.csv")
    return 0


def heads(arguments: Sequence[str]) -> None:
    """Find previous-token, induction and first-token heads in a trained model."""
    parser = Parser("lab heads", "Score what each attention head looks at in repeated tokens.")
    add_model_options(parser)
    parser.add_argument(
        "--out", type=folder_to_write, help="folder to write (default: the run's own)"
    )
    parser.add_argument(
        "--repeat-after", type=int, metavar="N",
        help="tokens before they repeat (default: what fits, at most 128)",
    )  # fmt: skip
    parser.add_argument("--top", type=int, default=3, help="heads to name for each habit")
    options = parser.parse(arguments)
    if options.top < 1:
        raise UserError(f"--top {options.top}: use at least 1")
    if options.repeat_after is not None and options.repeat_after < 4:
        raise UserError(f"--repeat-after {options.repeat_after}: use at least 4")
    from nanogpt.lab.heads import HABITS, LONGEST, score_heads, write_heads

    model, tokenizer, _ = load_model(options)
    found = score_heads(model, tokenizer, options.repeat_after or LONGEST)
    table = Table("habit", "layer", "head", "share of its attention", box=None)
    for habit in HABITS:
        for layer, head, score in found.strongest(habit, options.top):
            table.add_row(habit, str(layer), str(head), f"{score:.3f}")
    console = Screen(highlight=False, soft_wrap=True)
    console.print(table)
    console.print(f"a head that looks everywhere alike has {found.chance:.3f}")
    out = options.out or (options.run if options.run.is_dir() else Path())
    paths = write_heads(out, found, f"{options.run}: attention in repeated random tokens")
    console.print(f"written to {out}: {', '.join(path.name for path in paths)}")


def circuit(arguments: Sequence[str]) -> None:
    """Find the smallest set of heads that copies repeated text as the whole model does."""
    from nanogpt.lab.circuit import KEEP, LENGTH, Removal, find_circuit

    parser = Parser("lab circuit", "The smallest set of heads that keeps copying repeated text.")
    add_model_options(parser)
    parser.add_argument(
        "--out", type=folder_to_write, help="folder to write (default: the run's own)"
    )
    parser.add_argument(
        "--keep", type=float, default=KEEP,
        help=f"faithfulness to keep, a share of what all heads add (default: {KEEP})",
    )  # fmt: skip
    parser.add_argument(
        "--repeat-after", type=int, default=LENGTH,
        help=f"tokens before they repeat (default: {LENGTH})",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of the random tokens (default: 0)")
    options = parser.parse(arguments)
    if options.repeat_after < 4:
        raise UserError(f"--repeat-after {options.repeat_after}: use at least 4")
    if not 0 <= options.seed < 2**63:
        raise UserError(f"--seed {options.seed}: use a number from 0 to below 2**63")
    model, tokenizer, _ = load_model(options)
    console = Screen(highlight=False, soft_wrap=True)
    began = time.perf_counter()
    with console.status("taking heads away ..."):
        for found in find_circuit(
            model, tokenizer, options.keep, options.repeat_after, options.seed
        ):
            if isinstance(found, Removal):
                console.print(
                    f"[dim]without layer {found.layer}, head {found.head}: "
                    f"{found.left} left keep {found.faithfulness:.1%}[/]"
                )
            else:
                show_circuit(found, console)
    console.print(f"found in {time.perf_counter() - began:.1f} s")
    out = options.out or (options.run if options.run.is_dir() else Path())
    write_json(out / "circuit.json", asdict(found))
    console.print(f"written to {out}: circuit.json")


def show_circuit(found: "Circuit", console: Console) -> None:
    """The heads of a circuit, how much they keep, and the paths that matter most."""
    table = Table("layer", "head", "lost without it", box=None)
    for (layer, head), lost in zip(found.heads, found.lost, strict=True):
        table.add_row(str(layer), str(head), f"{lost:.1%}")
    console.print(table)
    proof = "no smaller set keeps enough" if found.smallest else "too many heads to try all sets"
    console.print(
        f"faithfulness {found.faithfulness:.1%} with {len(found.heads)} of "
        f"{len(found.removals)} heads, on other texts than the search ({proof})\n"
        f"right guesses: model {found.right['model']:.1%}, circuit {found.right['circuit']:.1%}, "
        f"no heads {found.right['none']:.1%}; all other heads keep {found.rest:.1%}"
    )
    table = Table("from", "to", "lost without this path", box=None)
    for path in sorted(found.paths, key=lambda path: -path.lost)[:PATHS_SHOWN]:
        ends = [(path.source, path.source_head), (path.sink, path.sink_head)]
        names = [at if head is None else f"{at}, head {head}" for at, head in ends]
        table.add_row(*names, f"{path.lost:.1%}")
    console.print(table)


def check(arguments: Sequence[str]) -> int:
    """Hold a plugin's variants to what every variant must keep. Exit code 1 if one does not."""
    parser = Parser("lab check", "Hold a plugin's variants to what every variant must keep.")
    parser.add_argument("plugin", type=named_path, help="a Python file that adds variants")
    options = parser.parse(arguments)
    from nanogpt.lab.contracts import check_all
    from nanogpt.training.variants import added_since, snapshot

    before = snapshot()
    load_plugin(str(options.plugin))
    added = added_since(before)
    if not added:
        raise UserError(
            f"{options.plugin} adds no variant; put one into a table, "
            'such as POSITIONS["mine"] = Mine'
        )
    console = Screen(highlight=False, soft_wrap=True)
    broken = 0
    for setting, name in added:
        console.print(f"[bold]{setting} = {name}[/]")
        for question, wrong in check_all(setting, name).items():
            broken += bool(wrong)
            console.print(f"  {'[red]no [/]' if wrong else '[green]yes[/]'}  {question}")
            if wrong:
                console.print(f"       {wrong}", style="red", markup=False)
    return 1 if broken else 0
