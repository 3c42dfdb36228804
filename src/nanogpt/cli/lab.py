"""nanogpt lab: change one thing, see what it does; check an idea of your own."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markdown import Markdown

from nanogpt.cli.plugin import load_plugin
from nanogpt.cli.settings import Parser, check_choices, find_recipe, recipe_folder, run_action
from nanogpt.config import choose, read_toml
from nanogpt.errors import Interrupted, UserError
from nanogpt.lab.contracts import CHECKS, added_since, check_all, snapshot
from nanogpt.lab.report import write_report
from nanogpt.lab.runner import run_study
from nanogpt.lab.study import load_study
from nanogpt.workers import usable_cores

PICTURE = "![validation loss against steps](curves.png)"

ABOUT = """
Try ideas and believe the answers.
"""


def main(arguments: Sequence[str]) -> int:
    """Call the action that is named."""
    return run_action("lab", ABOUT, {"run": run, "check": check}, arguments)


def run(arguments: Sequence[str]) -> int:
    """Run a study and write its report. The same command goes on with one that was stopped."""
    parser = Parser("lab run", "Run a study: the same budget for every arm, several seeds.")
    parser.add_argument("study", help="a TOML file, or the name of one in configs/studies/")
    parser.add_argument("--out", type=Path, help="folder to write (default: studies/NAME)")
    parser.add_argument("--jobs", type=int, default=0, help="runs at a time (default: one a core)")
    options = parser.parse(arguments)
    if options.jobs < 0:
        raise UserError(f"--jobs {options.jobs}: use at least 1")
    path = find_study(options.study)
    recipe = read_toml(path).get("recipe")
    study = load_study(path, read_toml(find_recipe(str(recipe))) if recipe else None)
    for plugin in study.plugins:
        load_plugin(plugin)
    for arm in study.arms:
        check_choices(arm.config)
    out = options.out or Path("studies") / study.name
    console = Console(highlight=False, soft_wrap=True)
    try:
        results = run_study(study, out, options.jobs or usable_cores(), console.print)
    except (KeyboardInterrupt, Interrupted):
        console.print("stopped; the same command goes on from here")
        return 130
    text = write_report(out, study, results)
    console.print(Markdown(text.partition("## What they write")[0].replace(PICTURE, "")))
    console.print(f"\nwritten to {out}: report.md, report.html, curves.png, results.csv")
    return 0


def find_study(name: str) -> Path:
    """A study by its path, or one of ours by its name. Raises UserError if there is none."""
    if Path(name).is_file():
        return Path(name)
    studies = {path.stem: path for path in (recipe_folder() / "studies").glob("*.toml")}
    if Path(name).suffix or "/" in name:
        raise UserError(f"{name}: no such study; use a path, or one of {', '.join(studies)}")
    return choose(studies, "study", name)


def check(arguments: Sequence[str]) -> int:
    """Hold a plugin's variants to what every variant must keep. Exit code 1 if one does not."""
    parser = Parser("lab check", "Hold a plugin's variants to what every variant must keep.")
    parser.add_argument("plugin", type=Path, help="a Python file that adds variants")
    options = parser.parse(arguments)
    before = snapshot()
    load_plugin(str(options.plugin))
    added = added_since(before)
    if not added:
        raise UserError(
            f"{options.plugin} adds no variant; put one into a dictionary, "
            'such as POSITIONS["mine"] = Mine'
        )
    console = Console(highlight=False, soft_wrap=True)
    broken = 0
    for setting, name in added:
        console.print(f"[bold]model.{setting} = {name}[/]")
        for kept, wrong in check_all({setting: name}).items():
            about = (CHECKS[kept].__doc__ or "").partition("\n")[0]
            broken += bool(wrong)
            console.print(f"  {'[red]no [/]' if wrong else '[green]yes[/]'}  {about}")
            if wrong:
                console.print(f"       {wrong}", style="red", markup=False)
    return 1 if broken else 0
