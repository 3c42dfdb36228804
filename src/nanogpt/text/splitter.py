"""How text is cut into words before byte-pair encoding, and where it may be cut before that."""

import math
import re
from collections.abc import Callable, Iterable

import regex

from nanogpt.errors import UserError

# BPE never merges across the borders of these words, so "dog", "dog." and "dog!" share a token. A
# word keeps the space before it. From OpenAI's releases of GPT-2 and of tiktoken.
PATTERNS = {
    "gpt2": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "cl100k": (
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
        r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
    ),
    # A new word begins where a capital follows a small letter; a contraction is part of its word.
    "o200k": (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
        r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
        r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
}


# The same for text that is all ASCII. It has few letters and digits, and Python's own regular
# expressions are twice as fast there. A test holds the two forms equal.
ASCII_PATTERNS = {
    "gpt2": r"'(?:[sdmt]|ll|ve|re)| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+",
    "cl100k": (
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\nA-Za-z0-9]?+[A-Za-z]++|[0-9]{1,3}+| ?[^\sA-Za-z0-9]++[\r\n]*+"
        r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
    ),
    "o200k": (
        r"[^\r\nA-Za-z0-9]?(?:[A-Z]*[a-z]+|[A-Z]+)(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
        r"|[0-9]{1,3}| ?[^\sA-Za-z0-9]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
}


PATTERN_SECONDS = 2  # for a pattern that is not ours, and ten more for a million characters
LONGEST_PATTERN = 5000  # characters; those of well-known tokenizers have up to 400
MOST_REPEATS = 100_000  # the engine copies what is repeated, {1,3} of {1,3} nine times


class Splitter:
    """Cuts text into words. BPE never merges across the borders of words.

    `pattern` is a name from PATTERNS or a regular expression without groups. What it does not match
    is a word, too, so nothing of a text is lost. Raises UserError for a pattern that cannot be read
    or has groups, and when it is used, if it is too slow or loses some of the text.

    >>> Splitter("gpt2")("It's 2 o'clock.")
    ['It', "'s", ' 2', ' o', "'", 'clock', '.']
    >>> Splitter(r"\\w+")("hello, world")
    ['hello', ', ', 'world']
    """

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern if len(pattern) < 80 else pattern[:80] + " ..."
        compiled = compiled_pattern(pattern)
        if compiled.groups:
            raise UserError(
                f"the split pattern {self._pattern!r} has groups: write (?:...) for (...)"
            )
        self._find = compiled.findall
        # Ours match every character. Another may leave some out: its parts and what is between.
        self._parts = None if pattern in PATTERNS else compiled_pattern(f"({pattern})")
        ascii_pattern = ASCII_PATTERNS.get(pattern)
        self._find_ascii = re.compile(ascii_pattern, re.ASCII).findall if ascii_pattern else None

    def __call__(self, text: str) -> list[str]:
        if self._find_ascii and text.isascii():
            return self._find_ascii(text)
        if self._parts:
            return self._split_by_another(self._parts, text)
        return self._find(text)

    def _split_by_another(self, parts: "regex.Pattern[str]", text: str) -> list[str]:
        """Split by a pattern that is not ours. It may need time that doubles with each letter."""
        try:
            seconds = PATTERN_SECONDS + len(text) / 100_000
            words = [part for part in parts.split(text, timeout=seconds) if part]
        except TimeoutError:
            reason = "takes too long"
        except (MemoryError, RecursionError):
            reason = "takes too much memory"
        else:
            if "".join(words) == text:
                return words
            reason = "loses some of the text"
        raise UserError(
            f"the split pattern {self._pattern!r} {reason}; use {' or '.join(PATTERNS)}"
        )


def compiled_pattern(pattern: str) -> "regex.Pattern[str]":
    """A name from PATTERNS or a regular expression, compiled. Raises UserError if it is neither."""
    try:
        if len(pattern) > LONGEST_PATTERN:
            raise ValueError(f"it has over {LONGEST_PATTERN:,} characters")
        counts = [int(n) for n in re.findall(r"(?<=[{,])\d+(?=[,}])", pattern)]
        if math.prod(max(1, n) for n in counts) > MOST_REPEATS:
            raise ValueError(f"its repeats multiply to over {MOST_REPEATS:,}")
        return regex.compile(PATTERNS.get(pattern, pattern))
    except (regex.error, ValueError, OverflowError, RecursionError, MemoryError) as error:
        raise UserError(f"the split pattern {pattern[:80]!r} cannot be used ({error})") from None


def portable(pattern: str) -> str:
    """A split pattern as the package `tokenizers` reads it.

    Its engine reads {1,3}+ as a group that repeats; others read it as one that does not give back.
    At the end of an alternative, {1,3} alone is the same as the second.
    """
    return pattern.replace("{1,3}+", "{1,3}")


def special_pattern(names: Iterable[str]) -> regex.Pattern[str]:
    """A regular expression with one group that finds special tokens; without any, nothing.

    >>> special_pattern(["<|end|>", "<|end|>oftext"]).split("a<|end|>oftext")
    ['a', '<|end|>oftext', '']
    """
    # Of two special tokens that start alike, the longer one must be tried first.
    longest_first = map(regex.escape, sorted(names, key=len, reverse=True))
    return regex.compile("(" + ("|".join(longest_first) or "(?!)") + ")")


# Where a text may be cut so that both parts give the words of the whole. There are two questions. A
# file may be cut at any good place: piece_end. A stream should give all that it can: settled_end.


def piece_end(text: str) -> int:
    """Where a piece of a long text may end, whichever of PATTERNS splits it; 0 if nowhere.

    That is after a line break that stands alone, or before a space between two letters.

    >>> piece_end("one two\\nthree"), piece_end("one two"), piece_end("a\\n\\nb")
    (8, 3, 0)
    """
    # In o200k a slash belongs to the punctuation and the line break before it.
    for sign, pattern in (("\n", r"(?<=\S\n)(?=[^\s/])"), (" ", r"(?<=[^\W\d_])(?= [^\W\d_])")):
        if sign not in text:  # millions of letters, say
            continue
        # A place near the end is good enough. The whole text is searched only if there is none.
        for start in (max(0, len(text) - 2**12), 0):
            places = [m.start() for m in re.finditer(pattern, text[start:])]
            if places:
                return start + places[-1]
    return 0


def settled_end(text: str, split: Callable[[str], list[str]], special: Iterable[str] = ()) -> int:
    """Where the words begin that further text could still change: what is before them is settled.

    `special` are the special tokens that are recognised; half of one may be at the end. A pattern
    of your own has to cut each word by its own text, the next word and the white space around them.

    >>> settled_end("one two three ", Splitter("gpt2")), settled_end("a<|e", str.split, ["<|end|>"])
    (3, 0)
    """
    names = list(special)
    end, start = len(text), 0
    for length in range(min(max(map(len, names), default=1) - 1, len(text)), 0, -1):
        if any(name.startswith(text[-length:]) for name in names):
            end -= length
            break
    for match in special_pattern(names).finditer(text, endpos=end):
        start = match.end()  # after a whole special token everything starts anew
    # The last word may grow, and in o200k it may join the one before it: "we" and "'l", then "l".
    # How white space is cut depends on what follows it.
    words = 0
    for word in reversed(split(text[start:end])):
        words += not word.isspace()
        if words > 2:
            break
        end -= len(word)
    return end
