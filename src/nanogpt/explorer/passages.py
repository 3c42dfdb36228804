"""Where the model read this: the places of the training text that end as a text ends.

The longest run of tokens before the end of the text that also occurs in the training text, then
the next shorter one, and so on: for each length, how often it occurs and what came next. A model
of such counts alone is an n-gram model of any length (Liu et al. 2024, "Infini-gram"); what the
network predicts beyond them it did not look up.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nanogpt.errors import UserError
from nanogpt.text.tokenfiles import CHUNK, Ids
from nanogpt.text.tokenizer import BaseTokenizer

LIMIT = 2**26  # tokens that are looked through: a larger text would take longer than a person waits
KEPT = 2**16  # places that are kept of one length; there is no need to see all of "the"


@dataclass(frozen=True)
class Ending:
    """How often the last `length` tokens of a text occur in another, and what follows there."""

    length: int
    count: int  # with a next token
    following: dict[int, int]  # next token -> how often, the most frequent first


@dataclass(frozen=True)
class Passages:
    """What was found: all lengths, longest first, and the places of the longest ones."""

    endings: list[Ending]
    places: list[tuple[int, int]]  # (where the next token stands, how many tokens before it match)
    searched: int  # tokens looked through
    total: int  # tokens that there are


def find_passages(ids: Ids, ending: Sequence[int], most: int = 8, limit: int = LIMIT) -> Passages:
    """The places of `ids` that end like `ending`, and what follows there; at most `most` places.

    Raises UserError for an empty ending.

    >>> found = find_passages(np.array([1, 2, 3, 1, 2, 4, 2, 5]), [9, 1, 2])
    >>> [(e.length, e.count, e.following) for e in found.endings]
    [(2, 2, {3: 1, 4: 1}), (1, 3, {3: 1, 4: 1, 5: 1})]
    >>> found.places
    [(2, 2), (5, 2), (7, 1)]
    """
    if not len(ending):
        raise UserError("there is no text yet; write at least one token")
    searched = min(len(ids), limit)
    ends = np.concatenate(
        [
            start + np.flatnonzero(ids[start : min(start + CHUNK, searched)] == ending[-1])
            for start in range(0, searched, CHUNK)
        ]
    )
    ends = ends[ends + 1 < len(ids)]  # the last token of all has none that follows
    endings: list[Ending] = []
    places: list[list[int]] = []
    for length in range(1, len(ending) + 1):
        if length > 1:
            ends = ends[ends - (length - 1) >= 0]
            ends = ends[gather(ids, ends - (length - 1)) == ending[-length]]
        if not len(ends):
            break
        endings.append(Ending(length, len(ends), most_frequent(gather(ids, ends + 1))))
        places.append(ends[:KEPT].tolist())
    return Passages(endings[::-1], longest_first(places[::-1], most), searched, len(ids))


def gather(ids: Ids, places: NDArray) -> NDArray:
    """The ids at some places, which may be spread over several files; places are in order."""
    if isinstance(ids, np.ndarray):
        return ids[places]
    parts, start = [], 0
    for array, end in zip(ids.arrays, ids.ends, strict=True):
        stop = int(np.searchsorted(places, end))
        parts.append(array[places[start:stop] - (end - len(array))])
        start = stop
    return np.concatenate(parts)


def most_frequent(ids: NDArray, most: int = 12) -> dict[int, int]:
    """The most frequent ids and how often they occur."""
    values, counts = np.unique(ids, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:most]
    return {int(values[i]): int(counts[i]) for i in order}


def longest_first(places: Sequence[Sequence[int]], most: int) -> list[tuple[int, int]]:
    """At most `most` different places, those with the longest match first.

    `places` are lists of where matches end, the longest matches first.
    """
    found: dict[int, int] = {}
    for n, ends in enumerate(places):
        for end in ends:
            if len(found) == most:
                break
            found.setdefault(end + 1, len(places) - n)
    return list(found.items())


def show_passages(
    found: Passages, ids: Ids, tokenizer: BaseTokenizer, context: int = 24
) -> dict[str, Any]:
    """Passages as plain values for a page: texts before, matched, next and after, by place."""

    def text(start: int, stop: int) -> str:
        return tokenizer.decode(ids[max(0, start) : max(0, stop)].tolist())

    passages = [
        {
            "place": place,
            "length": length,
            "before": text(place - length - context, place - length),
            "match": text(place - length, place),
            "next": {"id": int(ids[place : place + 1][0]), "text": text(place, place + 1)},
            "after": text(place + 1, place + 1 + context),
        }
        for place, length in found.places
    ]
    endings = [
        {
            "length": ending.length,
            "count": ending.count,
            "following": [
                {"id": id, "text": tokenizer.decode([id]), "count": count}
                for id, count in ending.following.items()
            ],
        }
        for ending in found.endings
    ]
    return {
        "passages": passages, "endings": endings,
        "searched": found.searched, "total": found.total,
    }  # fmt: skip
