"""Byte-pair encoding, as pure functions (Sennrich et al. 2016; byte-level as in GPT-2).

Text is bytes, and there are only 256 of them, so a vocabulary of bytes never meets an unknown
character. But a byte says little, and sequences of bytes are long. BPE builds a better vocabulary
by one rule: find the pair of neighbours that occurs most often, make it a new token, repeat.
Common words end up as one token; rare words are cut into pieces that are themselves common.

A token is an integer id. Ids 0..255 are the single bytes; merge number n creates id 256 + n.
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from nanogpt.text.long_words import encode_long_word
from nanogpt.text.places import Places

Pair = tuple[int, int]

NEVER = 2**62  # the rank of a pair that does not merge: later than every merge
LONG_WORD = 200  # bytes; from here on rescanning a word costs more than a heap


def count_pairs(words: Mapping[bytes, int]) -> Counter[Pair]:
    """How often each pair of neighbouring bytes occurs; `words` maps a word to its frequency.

    >>> count_pairs({b"aab": 2, b"ab": 1})[97, 98]
    3
    """
    counts: defaultdict[Pair, int] = defaultdict(int)  # adds faster than a Counter does
    for word, frequency in words.items():
        for pair in pairwise(word):
            counts[pair] += frequency
    return Counter(counts)


def merge(ids: Sequence[int], pair: Pair, new_id: int) -> list[int]:
    """Replace every occurrence of a pair, from left to right and without overlap.

    >>> merge([1, 1, 1, 2], (1, 1), 9)
    [9, 1, 2]
    """
    merged = []
    i = 0
    while i < len(ids):
        if i + 1 < len(ids) and (ids[i], ids[i + 1]) == pair:
            merged.append(new_id)
            i += 2
        else:
            merged.append(ids[i])
            i += 1
    return merged


def train_naive(words: Mapping[bytes, int], n_merges: int) -> list[Pair]:
    """The definition of BPE training: recount all pairs, merge the best one, repeat.

    Among equally frequent pairs the lexicographically greater pair of byte strings wins, so the
    result depends on the words and their frequencies alone. Fewer merges come back if nothing is
    left to merge. Slow: `train` gives the same merges much sooner.

    >>> train_naive({b"low": 5, b"lower": 2}, 2) == [(111, 119), (108, 256)]  # "ow", then "low"
    True
    """
    vocabulary = [bytes([b]) for b in range(256)]
    sequences: dict[bytes, list[int]] = {word: list(word) for word in words}
    merges: list[Pair] = []
    while len(merges) < n_merges:
        counts: Counter[Pair] = Counter()
        for word, ids in sequences.items():
            for pair in pairwise(ids):
                counts[pair] += words[word]
        if not counts:
            break
        best = max(counts, key=lambda p: (counts[p], vocabulary[p[0]], vocabulary[p[1]]))
        new_id = 256 + len(merges)
        sequences = {word: merge(ids, best, new_id) for word, ids in sequences.items()}
        vocabulary.append(vocabulary[best[0]] + vocabulary[best[1]])
        merges.append(best)
    return merges


def descending(token: bytes) -> tuple[int, ...]:
    """A sort key that turns the order of byte strings around.

    The 1 is above every -byte, so that a prefix sorts after its continuations.

    >>> sorted([b"a", b"ab", b"b"], key=descending)
    [b'b', b'ab', b'a']
    """
    return *(-byte for byte in token), 1


def train(words: Mapping[bytes, int], n_merges: int) -> list[Pair]:
    """The merges of `train_naive`, by incremental counting: no merge ever recounts the corpus.

    A merge changes only the places where its pair stands, and their neighbours; `Places` knows
    them. The best pair comes from a heap. A pair's count can only fall after it was pushed (a new
    pair always contains the newest id), so an entry that promises too much is corrected when it
    surfaces.
    """
    places = Places(words)
    counts = count_pairs(words)
    order = [descending(bytes([b])) for b in range(256)]  # id -> sort key
    vocabulary = [bytes([b]) for b in range(256)]
    heap = [(-count, order[a], order[b], (a, b)) for (a, b), count in counts.items()]
    heapq.heapify(heap)
    merges: list[Pair] = []
    while heap and len(merges) < n_merges:
        promised, key_a, key_b, best = heapq.heappop(heap)
        count = counts[best]
        if count < -promised:
            if count > 0:
                heapq.heappush(heap, (-count, key_a, key_b, best))
            continue
        new_id = 256 + len(merges)
        merges.append(best)
        vocabulary.append(vocabulary[best[0]] + vocabulary[best[1]])
        order.append(descending(vocabulary[new_id]))
        changes = places.merge(best, new_id)
        for pair, change in changes.items():
            counts[pair] += change
            if change > 0:
                heapq.heappush(heap, (-change, order[pair[0]], order[pair[1]], pair))
    return merges


def merge_steps(ids: Sequence[int], ranks: Mapping[Pair, int]) -> Iterator[list[int]]:
    """The definition of BPE encoding: the word at first and after each merge, the oldest first.

    >>> list(merge_steps(b"low", {(111, 119): 256, (108, 256): 257}))
    [[108, 111, 119], [108, 256], [257]]
    """
    word = list(ids)
    yield word
    while len(word) > 1:
        pair = min(pairwise(word), key=lambda p: ranks.get(p, NEVER))
        if pair not in ranks:
            return
        word = merge(word, pair, ranks[pair])
        yield word


def encode_word(ids: Sequence[int], ranks: Mapping[Pair, int]) -> list[int]:
    """Apply all merges to one word. What a merge did not touch is not looked at again.

    The result is the last of the `merge_steps`. A lower rank (the new id) was learned earlier.

    >>> encode_word(b"lower", {(111, 119): 256, (108, 256): 257})  # "ow", then "low"
    [257, 101, 114]
    """
    if len(ids) > LONG_WORD:
        return encode_long_word(ids, ranks)
    word = list(ids)
    rank_of = ranks.get
    due = [rank_of(pair, NEVER) for pair in pairwise(word)]  # due[i]: what i and i + 1 merge into
    while due:
        new_id = min(due)
        if new_id == NEVER:
            break
        i = due.index(new_id)
        word[i : i + 2] = [new_id]
        del due[i]
        if i > 0:
            due[i - 1] = rank_of((word[i - 1], new_id), NEVER)
        if i < len(due):
            due[i] = rank_of((new_id, word[i + 1]), NEVER)
    return word
