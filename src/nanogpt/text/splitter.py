"""How text is cut into words before byte-pair encoding."""

import re

import regex

# BPE never merges across the borders of these chunks, so that "dog", "dog." and "dog!" share a
# token. A word keeps the space before it. From OpenAI's releases of GPT-2 and of tiktoken.
PATTERNS = {
    "gpt2": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "cl100k": (
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
        r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
    ),
}


# The same for text that is all ASCII, where letters and digits are few and Python's own regular
# expressions are twice as fast. A test holds the two forms equal.
ASCII_PATTERNS = {
    "gpt2": r"'(?:[sdmt]|ll|ve|re)| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+",
    "cl100k": (
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\nA-Za-z0-9]?+[A-Za-z]++|[0-9]{1,3}+| ?[^\sA-Za-z0-9]++[\r\n]*+"
        r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
    ),
}


class Splitter:
    """Cuts text into the words across whose borders BPE never merges.

    `pattern` is a name from PATTERNS or a regular expression without groups.

    >>> Splitter("gpt2")("It's 2 o'clock.")
    ['It', "'s", ' 2', ' o', "'", 'clock', '.']
    """

    def __init__(self, pattern: str) -> None:
        self._find = regex.compile(PATTERNS.get(pattern, pattern)).findall
        ascii_pattern = ASCII_PATTERNS.get(pattern)
        self._find_ascii = re.compile(ascii_pattern, re.ASCII).findall if ascii_pattern else None

    def __call__(self, text: str) -> list[str]:
        if self._find_ascii and text.isascii():
            return self._find_ascii(text)
        return self._find(text)


def portable(pattern: str) -> str:
    """A split pattern as the package `tokenizers` reads it.

    Its engine takes {1,3}+ for a group that repeats, where others take it for one that does not
    give back; at the end of an alternative the two {1,3} are the same.
    """
    return pattern.replace("{1,3}+", "{1,3}")
