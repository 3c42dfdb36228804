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
    heap: list[tuple[int, int, Pair]] = []  # (new id, place of the left part, pair)

    def push(left: int, right: int) -> None:
        if left >= 0 and right >= 0:
            pair = word[left], word[right]
            if pair in ranks:
                heapq.heappush(heap, (ranks[pair], left, pair))

    for left in range(len(word) - 1):
        push(left, left + 1)
    while heap:
        new_id, left, pair = heapq.heappop(heap)
        right = following[left]
        if right < 0 or (word[left], word[right]) != pair:
            continue  # one of the two has merged with another neighbour meanwhile
        word[left], word[right] = new_id, GONE
        following[left] = following[right]
        if following[left] >= 0:
            before[following[left]] = left
        push(before[left], left)
        push(left, following[left])
    return [i for i in word if i != GONE]
