"""nanogpt speedrun: enter runs into the table of docs/speedrun.md."""

import argparse
import sys
from collections.abc import Sequence

from nanogpt.cli.screen import Screen
from nanogpt.cli.settings import Parser, named_path, run_action
from nanogpt.cli.streams import shown_meanwhile
from nanogpt.config import choose
from nanogpt.training.records import check_is_run

ABOUT = """
Train to a given loss with as little arithmetic and time as you can, and prove it.
"""


def main(arguments: Sequence[str]) -> int:
    """Call the action that is named."""
    return run_action("speedrun", ABOUT, {"check": check}, arguments)


def check(arguments: Sequence[str]) -> int:
    """Hold an entry to the rules: runs that differ in their seed alone. Exit code 1 if rejected."""
    parser = Parser("speedrun check", "Hold an entry to the rules of docs/speedrun.md.")
    parser.add_argument(
        "runs", type=named_path, nargs="+", help="five run folders, of the seeds 1 to 5"
    )
    parser.add_argument(
        "--goal", default="speedrun", metavar="RECIPE",
        help="what is to be reached: speedrun (1.8857) or speedrun-large (1.4697)",
    )  # fmt: skip
    parser.add_argument(
        "--text", type=named_path, metavar="FILE",
        help="the text of the goal (default: where the runs had it from)",
    )  # fmt: skip
    parser.add_argument(
        "--replay", type=steps_or_all, metavar="STEPS", default=None,
        help="steps of each run to train again: a number, or all (default: 20)",
    )  # fmt: skip
    options = parser.parse(arguments)
    for run in options.runs:
        check_is_run(run)
    with shown_meanwhile("loading torch ..."):
        from nanogpt.lab.speedrun import GOALS, STEPS, Verdict, check_entry

    goal = choose(GOALS, "--goal", options.goal)
    console = Screen(highlight=False, soft_wrap=True)
    checked = 0
    with console.status("measuring ...") as status:

        def report(step: int, steps: int) -> None:
            where = f"run {checked + 1} of {len(options.runs)}"
            status.update(f"{where}: step {step:,} of {steps:,} trained again ...")

        steps = options.replay or STEPS
        for found in check_entry(options.runs, goal, options.text, steps, report):
            if isinstance(found, Verdict):
                break
            checked += 1
            said = f"held-out loss {found.loss:.4f}" if found.steps else "not measured"
            again = f"{found.steps:,} of {found.run.config.train.max_steps:,} steps trained again"
            console.print(f"{found.run.folder}: {said}, {again}", markup=False)
    assert isinstance(found, Verdict)
    if found.reasons:
        console.print("[bold red]rejected[/]")
        for reason in found.reasons:
            console.print(f"  {reason}", markup=False)
        return 1
    console.print("[bold green]accepted[/]; its row of the table:\n")
    console.print(f"{found.HEAD}\n{found.row}", markup=False)
    return 0


def steps_or_all(text: str) -> int:
    """A number of steps. Raises ArgumentTypeError for what is none."""
    if text == "all":
        return sys.maxsize
    if not text.isdecimal() or not int(text[:19]):
        raise argparse.ArgumentTypeError(f"{text[:20]!r}: use a number of steps from 1, or all")
    return int(text[:19])
