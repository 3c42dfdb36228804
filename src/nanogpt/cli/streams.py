"""The three standard streams, which may be closed, full, or a pipe whose reader has gone."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

STREAMS = ("standard output", "standard error")


class Output(io.FileIO):
    """Standard output or standard error, whose errors name it; it writes nothing after one.

    Otherwise Python would write again when it ends, fail again, and say so.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number, "w", closefd=False)

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            error.filename = STREAMS[self.fileno() - 1]
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            raise


def output(number: int, stream: Any) -> io.TextIOWrapper:
    """A standard stream that can be written, in place of the one that Python made.

    What it cannot show becomes a question mark.
    """
    if stream and stream.isatty():
        stream.reconfigure(errors="replace")
        return stream
    return io.TextIOWrapper(
        io.BufferedWriter(Output(number)), errors="replace", line_buffering=number == 2,
        encoding=stream.encoding if stream else "utf-8",
        write_through=stream is not None and stream.write_through,
    )  # fmt: skip


def open_standard_streams() -> None:
    """Make the three streams usable, however the program was started.

    A closed stream would give its number to the next file that is opened. What is printed to it is
    lost; standard input stays None, and whoever reads it says so.
    """
    for number, mode in enumerate((os.O_RDONLY, os.O_WRONLY, os.O_WRONLY)):
        try:
            os.set_blocking(number, True)  # a full pipe makes us wait
        except OSError:
            os.open(os.devnull, mode)  # takes the lowest free number: this one
    sys.stdout, sys.stderr = output(1, sys.stdout), output(2, sys.stderr)


def complain(text: str) -> None:
    """Print to standard error, which may be full or gone: the exit code says enough then."""
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)


@contextmanager
def shown_meanwhile(text: str) -> Iterator[None]:
    """Show on a terminal what takes a few seconds, and remove it at the end.

    Spaces remove it on any terminal, except one that is too narrow for the text: that shows none.
    """
    stream = sys.stderr
    shown = stream.isatty() and not 0 < os.get_terminal_size(stream.fileno()).columns <= len(text)
    if shown:
        print(text, end="\r", file=stream, flush=True)
    try:
        yield
    finally:
        if shown:
            print(" " * len(text), end="\r", file=stream, flush=True)
