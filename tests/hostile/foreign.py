"""What the tests of foreign files share: one line on stderr, soon, and ways to spoil bytes."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import pytest

from nanogpt.cli import main


class TooSlowError(BaseException):
    """Raised inside what takes too long; the code under test does not catch it."""


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Stop what takes longer."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TooSlowError(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def complaint(capsys: pytest.CaptureFixture[str], *arguments: object, seconds: float = 10) -> str:
    """The one line on stderr of a command that is refused."""
    capsys.readouterr()
    with within(seconds):
        assert main([str(argument) for argument in arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("nanogpt: ")
    assert len(lines[0]) < 700
    return lines[0]


def spoiled(content: bytes) -> dict[str, bytes]:
    """A file cut off at several places, with a byte changed, without its beginning, and empty."""
    size = len(content)
    ways = {f"cut at {n} of 8": content[: size * n // 8] for n in range(1, 8)}
    ways["last byte gone"] = content[:-1]
    ways["first byte gone"] = content[1:]
    for n in range(8):
        place = size * n // 8
        flipped = bytes([content[place] ^ 0xFF])
        ways[f"byte {n} of 8 changed"] = content[:place] + flipped + content[place + 1 :]
    return ways
