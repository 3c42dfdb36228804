"""Mistakes that a person can fix, kept apart from bugs."""

import difflib
from collections.abc import Iterable

LONGEST = 1000  # characters of a line; an argument may be a megabyte long


class UserError(ValueError):
    """A wrong file, setting or prompt. The message names the thing and the fix, in one line.

    The command line prints the message alone and exits with code 2; every other exception is a bug
    of ours and keeps its traceback.
    """


class Interrupted(UserError):
    """Work that was cut short from outside, and may go on where it stopped."""


class Notice(UserWarning):
    """Something that a person should know of, and that stops nothing: one line on stderr."""


def one_line(message: str, longest: int = LONGEST) -> str:
    """A message without line breaks; of a very long one, its beginning and its end.

    >>> one_line("a\\nb  c"), one_line("abcdefghijkl", longest=10)
    ('a b c', 'abc ... jkl')
    """
    text = " ".join(message.split())
    half = longest // 2 - 2
    return text if len(text) <= longest else f"{text[:half]} ... {text[-half:]}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of an error message about an unknown name.

    >>> did_you_mean("n_layr", ["n_layer", "n_head"])
    'did you mean n_layer?'
    >>> did_you_mean("zzz", ["n_layer", "n_head"])
    'use one of n_layer, n_head'
    """
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else "use one of " + ", ".join(known)
