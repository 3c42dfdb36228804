"""What commands print on: a terminal, a file or a pipe."""

from typing import Any, NoReturn

from rich.console import Console
from rich.text import Text

from nanogpt.cli.text import printable


class Screen(Console):
    """rich's console, with two differences.

    No string steers the terminal, such as the name of a file that someone else chose. And a reader
    that has gone, such as `head`, is an error like any other: the command line ends at it.
    """

    def render_str(self, text: str, **how: Any) -> Text:
        """A string as rich draws it, without control characters."""
        return super().render_str(printable(text), **how)

    def on_broken_pipe(self) -> NoReturn:
        """Called while a BrokenPipeError is handled; rich itself would end with code 1."""
        raise
