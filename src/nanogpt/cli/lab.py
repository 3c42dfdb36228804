"""nanogpt lab: check an idea of your own."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from nanogpt.cli.plugin import load_plugin
from nanogpt.cli.settings import Parser, run_action
from nanogpt.errors import UserError
from nanogpt.lab.contracts import CHECKS, added_since, check_all, snapshot

ABOUT = """
Try ideas and believe the answers.
"""


def main(arguments: Sequence[str]) -> int:
    """Call the action that is named."""
    return run_action("lab", ABOUT, {"check": check}, arguments)


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
