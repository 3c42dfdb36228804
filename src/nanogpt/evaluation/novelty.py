"""How much of a generated text is new, and how much is copied from what the model has read.

Every text shares short runs of words with every other; "of the" is no plagiarism. So the measure is
always taken of held-out human text as well, which copied nothing: what the model shares beyond that
it has by heart (McCoy et al. 2023).
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LENGTHS = (1, 2, 3, 4, 5, 7, 10)  # words
WORD = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True)
class Novelty:
    """What a text shares with another."""

    words: int
    novel: dict[int, float]  # share of its runs of n words that the other does not contain
    longest: str  # the longest run of words that the other contains
    longest_words: int


class Known:
    """A text that was read, ready to be asked for runs of words."""

    def __init__(self, text: str) -> None:
        self.numbers: dict[str, int] = {}
        self.ids = self.number(WORD.findall(text))

    def number(self, words: Sequence[str]) -> NDArray[np.uint64]:
        """A number for each word, the same for the same word."""
        known = self.numbers
        return np.array([known.setdefault(w, len(known)) for w in words], dtype=np.uint64)

    def contains(self, ids: NDArray[np.uint64], n: int) -> NDArray[np.bool_]:
        """Whether each run of n words occurs in the text."""
        return np.isin(run_hashes(ids, n), run_hashes(self.ids, n))

    def novelty(self, texts: Sequence[str]) -> Novelty:
        """What several texts together share with this one; no run goes across two of them."""
        words = [WORD.findall(text) for text in texts]
        ids = [self.number(w) for w in words]
        novel = {}
        for n in LENGTHS:
            found = np.concatenate([self.contains(row, n) for row in ids])
            if len(found):
                novel[n] = 1 - float(found.mean())
        longest, copied = 0, ""
        for row, own_words in zip(ids, words, strict=True):
            for start, n in self.longer_runs(row, longest):
                longest, copied = n, " ".join(own_words[start : start + n])
        return Novelty(sum(map(len, words)), novel, copied, longest)

    def longer_runs(self, ids: NDArray[np.uint64], best: int) -> Iterator[tuple[int, int]]:
        """Runs (start, length) that occur in the text, each longer than the one before and `best`.

        If a run of n words occurs, so do its parts; so the longest is found by doubling and
        halving the length.
        """
        low, high = best, best + 1
        while high <= len(ids) and (found := self.contains(ids, high)).any():
            yield int(found.argmax()), high
            low, high = high, 2 * high
        high = min(high, len(ids) + 1)
        while high - low > 1:
            middle = (low + high) // 2
            found = self.contains(ids, middle)
            if found.any():
                yield int(found.argmax()), middle
                low = middle
            else:
                high = middle


def run_hashes(ids: NDArray[np.uint64], n: int) -> NDArray[np.uint64]:
    """A hash of each run of n numbers; equal runs have equal hashes, others almost never.

    It is put together from the hashes of two overlapping halves, so it takes log n passes.

    >>> a = run_hashes(np.array([1, 2, 3, 1, 2], dtype=np.uint64), 2)
    >>> bool(a[0] == a[3]), bool(a[0] == a[1])
    (True, False)
    """
    if len(ids) < n:
        return ids[:0]
    hashes, length = mixed(ids), 1
    while length < n:
        step = min(length, n - length)
        hashes = mixed(hashes[:-step] + mixed(hashes[step:]) * np.uint64(0x9E3779B97F4A7C15))
        length += step
    return hashes


def mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Spread the bits of each number (the finalizer of splitmix64; Steele et al. 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
