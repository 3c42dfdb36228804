"""`bpe.encode_word` for words of thousands of bytes, in n log n steps."""

import heapq
from collections.abc import Mapping, Sequence

Pair = tuple[int, int]

GONE = -1  # marks the right part of a merge in a linked list


def encode_long_word(ids: Sequence[int], ranks: Mapping[Pair, int]) -> list[int]:
    """What `bpe.encode_word` gives, by a heap and a linked list.

    A word of this length is no word of a language: base64, or a million times the letter a.
    """
    word = list(ids)
    following = [*range(1, len(word)), -1]
    before = list(range(-1, len(word) - 1))
    places: dict[int, list[int]] = {}  # what a pair merges into -> where its left parts are
    pairs: dict[int, Pair] = {}
    heap: list[int] = []  # the keys of `places`

    def note(left: int, right: int) -> None:
        pair = word[left], word[right]
        new_id = ranks.get(pair)
        if new_id is None:
            return
        if new_id in places:
            places[new_id].append(left)
            return
        places[new_id], pairs[new_id] = [left], pair
        heapq.heappush(heap, new_id)

    for left in range(len(word) - 1):
        note(left, left + 1)
    while heap:
        new_id = heapq.heappop(heap)
        pair = pairs[new_id]
        # All of them are known: a merge was learned after those that made its parts.
        for left in sorted(places.pop(new_id)):
            right = following[left]
            if right < 0 or (word[left], word[right]) != pair:
                continue  # one of the two has merged with another neighbour meanwhile
            word[left], word[right] = new_id, GONE
            following[left] = following[right]
            if following[left] >= 0:
                before[following[left]] = left
                note(left, following[left])
            if before[left] >= 0:
                note(before[left], left)
    return [i for i in word if i != GONE]
