"""Encoding much text: look up words seen before, use several processes, never hold a whole stream.

The ids are those of `Tokenizer.encode`. The methods of Tokenizer lead here.
"""

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from nanogpt.text.splitter import Splitter, settled_end
from nanogpt.workers import grouped, map_in_order


class WordCache(dict[str, bytes]):
    """The ids of words seen before, four bytes each. Words repeat: most of a text is found here."""

    limit = 500_000  # bounded memory, whatever the text

    def __init__(self, encode_word: Callable[[str], Sequence[int]]) -> None:
        super().__init__()
        self.encode_word = encode_word

    def __missing__(self, word: str) -> bytes:
        if len(self) >= self.limit:
            self.clear()
        ids = self[word] = array("I", self.encode_word(word)).tobytes()
        return ids


# A word of more characters is no word of a language: base64, DNA, a line of one sign. Learning from
# all of a text in which nothing else occurs would take hours, and more memory than there is.
LONG_WORD = 1000
PART = 100  # characters; such a word is learned from in parts
SAMPLE = 2_000_000  # characters of such words that are learned from
SAMPLE_OF_SHARE = 100_000  # of those, in what one process takes at a time
SHARE = 1_000_000  # characters of texts that a process encodes at a time


def count_words(
    texts: Iterable[str], pattern: str, processes: int, whole: bool = False
) -> Counter[str]:
    """How often each word occurs: all that training needs to know of a text.

    Words of more than LONG_WORD characters are counted in parts, and only SAMPLE characters of
    them, unless they are wanted whole.
    """
    words: Counter[str] = Counter()
    room = SAMPLE
    work = partial(count_share, Splitter(pattern), whole=whole)
    for counts, parts in map_in_order(work, grouped(texts, len), processes):
        words.update(counts)
        if room > 0:
            words.update(parts)
            room -= sum(map(len, parts))
    return words


def count_share(
    split: Callable[[str], list[str]], texts: Sequence[str], whole: bool = False
) -> tuple[Counter[str], Counter[str]]:
    """What one process of count_words does with its share of the texts: words, parts of words."""
    words: Counter[str] = Counter()
    for text in texts:
        words.update(split(text))
    parts: Counter[str] = Counter()
    room = SAMPLE_OF_SHARE
    for word in [] if whole else [word for word in words if len(word) > LONG_WORD]:
        count = words.pop(word)
        for start in range(0, min(len(word), room), PART):
            parts[word[start : start + PART]] += count
        room -= len(word)
    return words, parts


def encode_batch(
    texts: Sequence[str], encode: Callable[[str], NDArray[np.uint32]], processes: int
) -> list[list[int]]:
    """Encode many texts in several processes. The result is that of one process."""
    # Several shares for each process: whoever is done first takes the next one.
    share = max(1, min(SHARE, sum(map(len, texts)) // (8 * max(1, processes))))
    shares = map_in_order(partial(encode_share, encode), grouped(texts, len, share), processes)
    return [ids.tolist() for share in shares for ids in share]


def encode_share(
    encode: Callable[[str], NDArray[np.uint32]], texts: Sequence[str]
) -> list[NDArray[np.uint32]]:
    """What one process of encode_batch does with its share of the texts."""
    return [encode(text) for text in texts]


def encode_stream(
    stream: Iterable[str],
    encode: Callable[[str], list[int]],
    split: Callable[[str], list[str]],
    special: Sequence[str],
) -> Iterator[int]:
    """Encode strings as they come, holding back what further text could still change."""
    held = ""
    for text in stream:
        held += text
        cut = settled_end(held, split, special)
        yield from encode(held[:cut])
        held = held[cut:]
    yield from encode(held)
