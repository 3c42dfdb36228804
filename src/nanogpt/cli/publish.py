"""nanogpt publish: the page on a model as one file."""

from collections.abc import Sequence

from nanogpt.cli.screen import Screen
from nanogpt.cli.settings import Parser, named_path
from nanogpt.cli.streams import shown_meanwhile
from nanogpt.cli.weights import check_model
from nanogpt.errors import UserError

ABOUT = """
Write the page of `nanogpt explore` as one file with the model inside. It opens by a double click,
without Python and without a network, and can be put on any web site.

  nanogpt publish runs/demo demo.html
"""


def main(arguments: Sequence[str]) -> None:
    """Write the page."""
    parser = Parser("publish", ABOUT)
    parser.add_argument("run", type=named_path, help="a run folder, such as runs/demo")
    parser.add_argument("page", type=named_path, help="the file to write, such as demo.html")
    parser.add_argument("--text", help="what the page begins with, and what its replay shows")
    options = parser.parse(arguments)
    check_model(options.run)
    with shown_meanwhile("reading the model at each of its snapshots ..."):
        from nanogpt.explorer.publish import TEXT, publish
        from nanogpt.explorer.runs import find_runs

        runs = find_runs([options.run])
        if len(runs) > 1:
            raise UserError(f"{options.run} holds {len(runs)} runs: name one, {', '.join(runs)}")
        (run,) = runs.values()
        size = publish(run, options.page, TEXT if options.text is None else options.text)
    Screen(soft_wrap=True, highlight=False).print(f"{options.page}: {size / 1e6:.1f} MB")
