"""Exercises about tokens: merging, training a vocabulary, encoding, and cutting windows."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from nanogpt.config import IGNORED
from nanogpt.learn.exercise import Exercise, Mistake
from nanogpt.text import batches, bpe

Pair = tuple[int, int]


def merge_cases() -> list[tuple[Any, ...]]:
    return [
        ([1, 2], (1, 2), 9),
        ([], (1, 2), 9),
        ([1], (1, 2), 9),
        ([1, 2, 3], (1, 2), 9),
        ([3, 1, 2], (1, 2), 9),
        ([1, 2, 3, 1, 2], (1, 2), 9),
        ([1, 1, 1], (1, 1), 9),
        ([1, 1, 1, 1, 2], (1, 1), 9),
        ([2, 1, 3], (1, 2), 9),
        ([1, 2, 2, 1, 2, 2], (1, 2), 9),
    ]


def merge_overlapping(ids: Sequence[int], pair: Pair, new_id: int) -> list[int]:
    out: list[int] = []
    used = False
    for i, one in enumerate(ids):
        if i + 1 < len(ids) and (one, ids[i + 1]) == pair:
            out.append(new_id)
            used = True
        elif used:
            used = False
        else:
            out.append(one)
    return out


def merge_first_only(ids: Sequence[int], pair: Pair, new_id: int) -> list[int]:
    for i, found in enumerate(pairwise(ids)):
        if found == pair:
            return [*ids[:i], new_id, *ids[i + 2 :]]
    return list(ids)


def merge_from_the_right(ids: Sequence[int], pair: Pair, new_id: int) -> list[int]:
    return bpe.merge(ids[::-1], (pair[1], pair[0]), new_id)[::-1]


def merge_without_the_last(ids: Sequence[int], pair: Pair, new_id: int) -> list[int]:
    out, i = [], 0
    while i < len(ids) - 1:
        if (ids[i], ids[i + 1]) == pair:
            out.append(new_id)
            i += 2
        else:
            out.append(ids[i])
            i += 1
    return out


def merge_either_order(ids: Sequence[int], pair: Pair, new_id: int) -> list[int]:
    out, i = [], 0
    while i < len(ids):
        if (
            i + 1 < len(ids)
            and {ids[i], ids[i + 1]} == set(pair)
            and (ids[i] != ids[i + 1] or pair[0] == pair[1])
        ):
            out.append(new_id)
            i += 2
        else:
            out.append(ids[i])
            i += 1
    return out


MERGE = Exercise(
    name="merge",
    title="Replace every occurrence of a pair by a new token.",
    reference=bpe.merge,
    cases=merge_cases,
    lesson=3,
    mistakes=[
        Mistake(
            "overlap",
            "Occurrences overlap. In 1 1 1 the pair (1, 1) is merged once, not twice: after a "
            "merge, continue after both of its tokens.",
            merge_overlapping,
        ),
        Mistake(
            "first-only",
            "Only the first occurrence is replaced. Continue to the end of the list.",
            merge_first_only,
        ),
        Mistake(
            "from-the-right",
            "It merges from right to left. In 1 1 1 the first two tokens are merged: training and "
            "encoding must agree on that.",
            merge_from_the_right,
        ),
        Mistake(
            "last-lost",
            "The last token is lost if it is not part of a pair. A loop over pairs ends one token "
            "too early.",
            merge_without_the_last,
        ),
        Mistake(
            "either-order",
            "(2, 1) is not (1, 2): the order inside a pair matters.",
            merge_either_order,
        ),
    ],
    hints=(
        "Go through the list once with an index. At each position there are two possibilities.",
        "If this token and the next one are the pair, append the new id and move on by two. "
        "Otherwise append this token and move on by one.",
        "A `while i < len(ids)` loop can move on by two. Check `i + 1 < len(ids)` before you look "
        "at the next token, so that the last token is appended, too.",
    ),
)


def train_cases() -> list[tuple[Any, ...]]:
    return [
        ({b"aa": 1}, 1),
        ({b"ab": 1, b"cd": 1}, 1),  # a tie: cd is greater
        ({b"cd": 1, b"ab": 1}, 2),
        ({b"ab": 3, b"cdcd": 1}, 1),  # ab occurs three times, cd twice
        ({b"ab": 1}, 5),  # nothing is left after one merge
        ({}, 2),
        ({b"low": 5, b"lower": 2, b"newest": 6, b"widest": 3}, 10),
        ({b"aaaa": 2, b"aab": 3}, 3),
        # A tie in which the greater id is the lesser string: 256 is "ab", 99 is "c".
        ({b"ab": 9, b"abx": 2, b"cx": 2}, 2),
        ({b"ab": 9, b"aba": 2, b"az": 2}, 2),  # ab+a against a+z: the pairs, not what they spell
        ({b"aaa": 1, b"bc": 1, b"bcd": 1}, 1),  # aa occurs twice in aaa, overlapping or not
        ({b"aaaa": 1, b"bcbc": 1}, 1),
        ({b"ab": 1}, 0),
    ]


def train_with(count: Any = None, key: Any = None, first_id: int = 256) -> Any:
    """A training of the vocabulary that does one thing differently."""

    def trained(words: Mapping[bytes, int], n_merges: int) -> list[Pair]:
        vocabulary = {b: bytes([b]) for b in range(256)}
        sequences = {word: list(word) for word in words}
        merges: list[Pair] = []
        while len(merges) < n_merges:
            counts: Counter[Pair] = Counter()
            for word, ids in sequences.items():
                for pair in (count or pairwise)(ids):
                    counts[pair] += 1 if count is each_once else words[word]
            if not counts:
                break
            best = (key or best_of)(counts, vocabulary)
            new_id = first_id + len(merges)
            sequences = {word: bpe.merge(ids, best, new_id) for word, ids in sequences.items()}
            vocabulary[new_id] = vocabulary[best[0]] + vocabulary[best[1]]
            merges.append(best)
        return merges

    return trained


def each_once(ids: Sequence[int]) -> Iterator[Pair]:
    return pairwise(ids)


def best_of(counts: Counter[Pair], vocabulary: Mapping[int, bytes]) -> Pair:
    return max(counts, key=lambda p: (counts[p], vocabulary[p[0]], vocabulary[p[1]]))


def train_across_words(words: Mapping[bytes, int], n_merges: int) -> list[Pair]:
    return bpe.train_naive({b"".join(word * n for word, n in words.items()): 1}, n_merges)


def train_counting_once(words: Mapping[bytes, int], n_merges: int) -> list[Pair]:
    merges: list[Pair] = []
    counts = bpe.count_pairs(words)
    vocabulary = {b: bytes([b]) for b in range(256)}
    while counts and len(merges) < n_merges:
        merges.append(best_of(counts, vocabulary))
        del counts[merges[-1]]
    return merges


TRAIN = Exercise(
    name="train",
    title="Train a vocabulary: the most frequent pair becomes a token, again and again.",
    reference=bpe.train_naive,
    cases=train_cases,
    lesson=3,
    mistakes=[
        Mistake(
            "frequency-ignored",
            "Every word counts once. The pairs of a word that occurs five times count five times.",
            train_with(count=each_once),
        ),
        Mistake(
            "first-of-equals",
            "Among equally frequent pairs it takes the one it saw first, so the result depends on "
            "the order of the words. Take the pair with the greater byte strings.",
            train_with(key=lambda counts, vocabulary: max(counts, key=counts.__getitem__)),
        ),
        Mistake(
            "least-of-equals",
            "Among equally frequent pairs it takes the one with the lesser byte strings. Take the "
            "greater one.",
            train_with(
                key=lambda counts, v: min(counts, key=lambda p: (-counts[p], v[p[0]], v[p[1]]))
            ),
        ),
        Mistake(
            "ids-compared",
            "Among equally frequent pairs it compares ids. Compare the byte strings: a new id is "
            "greater than any byte, but its byte string may sort before that of a byte.",
            train_with(key=lambda counts, vocabulary: max(counts, key=lambda p: (counts[p], p))),
        ),
        Mistake(
            "rarest",
            "It merges the rarest pair. The most frequent pair saves the most tokens.",
            train_with(
                key=lambda counts, v: max(counts, key=lambda p: (-counts[p], v[p[0]], v[p[1]]))
            ),
        ),
        Mistake(
            "new-ids-from-257",
            "New ids start at 257. Bytes have the ids 0 to 255, so the first new id is 256.",
            train_with(first_id=257),
        ),
        Mistake(
            "not-recounted",
            "The pairs are counted once, before the first merge. A merge makes new pairs with its "
            "own token, and makes other pairs rarer: count again after each merge.",
            train_counting_once,
        ),
        Mistake(
            "across-words",
            "Pairs reach from one word into the next. Count pairs inside words only: which words "
            "stand side by side is chance.",
            train_across_words,
        ),
    ],
    hints=(
        "Repeat three steps: count all pairs, choose one, merge it everywhere.",
        "Keep a list of ids for each word, and count its pairs as often as the word occurs. Stop "
        "when there are enough merges or no pair is left.",
        "To choose a pair, use max with a key of three parts: the count, the bytes of the left "
        "token, the bytes of the right token. Keep a list of byte strings, one for each id.",
    ),
)


RANKS = {(111, 119): 256, (108, 256): 257, (101, 114): 258, (257, 258): 259, (119, 101): 260}


def encode_cases() -> list[tuple[Any, ...]]:
    return [
        (b"x", RANKS),
        (b"ow", RANKS),
        (b"low", RANKS),
        (b"owe", RANKS),  # ow and we share a w; ow was learned first
        (b"wer", RANKS),  # er before we, though we comes first
        (b"lower", RANKS),
        (b"owow", RANKS),
        (b"zzz", RANKS),
        (b"lowlower", RANKS),
        (b"aaa", {(97, 97): 256}),
        (b"aaaaa", {(97, 97): 256, (256, 97): 257}),
        (b"abc", {(97, 98): 256, (98, 99): 257, (97, 257): 258}),  # abc is a token, but ab is older
    ]


def encode_by(choose: Any) -> Any:
    """An encoder that chooses the next merge differently."""

    def encoded(ids: Sequence[int], ranks: Mapping[Pair, int]) -> list[int]:
        word = list(ids)
        while found := [pair for pair in pairwise(word) if pair in ranks]:
            pair = choose(found, ranks)
            word = bpe.merge(word, pair, ranks[pair])
        return word

    return encoded


def encode_once(ids: Sequence[int], ranks: Mapping[Pair, int]) -> list[int]:
    steps = bpe.merge_steps(ids, ranks)
    return [word for word, _ in zip(steps, range(2), strict=False)][-1]


def encode_longest(ids: Sequence[int], ranks: Mapping[Pair, int]) -> list[int]:
    texts = {b: bytes([b]) for b in range(256)}
    for (a, b), new_id in sorted(ranks.items(), key=lambda item: item[1]):
        texts[new_id] = texts[a] + texts[b]
    known = {text: i for i, text in texts.items()}
    word, out = bytes(ids), []
    while word:
        length = max(n for n in range(1, len(word) + 1) if word[:n] in known)
        out.append(known[word[:length]])
        word = word[length:]
    return out


ENCODE = Exercise(
    name="encode",
    title="Encode a word: cut it with a trained vocabulary.",
    reference=bpe.encode_word,
    cases=encode_cases,
    lesson=3,
    mistakes=[
        Mistake(
            "left-to-right",
            "It merges the first pair that can merge. Merge the pair that was learned earliest, "
            "wherever it is in the word: training merged in that order.",
            encode_by(lambda found, ranks: found[0]),
        ),
        Mistake(
            "latest-first",
            "It merges the pair that was learned last. Merge the pair that was learned earliest: "
            "it has the lowest new id.",
            encode_by(lambda found, ranks: max(found, key=ranks.__getitem__)),
        ),
        Mistake(
            "one-round",
            "It stops after one merge. A merged token can merge again.",
            encode_once,
        ),
        Mistake(
            "longest-match",
            "It takes the longest token that fits, from the left. That is how WordPiece works. BPE "
            "repeats the merges in the order in which they were learned.",
            encode_longest,
        ),
    ],
    hints=(
        "Do to the word what training did, in the same order.",
        "Of all pairs that can merge, merge the one with the lowest new id. Repeat until no pair "
        "can merge.",
        "Use `min(pairwise(word), key=...)` with a key that is infinite for pairs not in `ranks`, "
        "then `merge` of nanogpt.text.bpe, the first exercise. A word of one token has no pairs.",
    ),
)


def window_cases() -> list[tuple[Any, ...]]:
    return [
        (np.arange(3), 2, 2),
        (np.arange(5), 2, 2),
        (np.arange(8), 4, 2),
        (np.arange(9), 4, 3),
        (np.arange(6), 2, 2),
        (np.arange(4), 8, 8),  # shorter than one window
        (np.arange(20, 33), 5, 5),
    ]


Windows = Iterator[tuple[Any, Any]]


def windows_unshifted(ids: Any, context_length: int, stride: int) -> Windows:
    for x, _ in batches.sliding_windows(ids, context_length, stride):
        yield x, x


def windows_shifted_back(ids: Any, context_length: int, stride: int) -> Windows:
    for x, y in batches.sliding_windows(ids, context_length, stride):
        yield y, x


def windows_seen_twice(ids: Any, context_length: int, stride: int) -> Windows:
    for x, _ in batches.sliding_windows(ids, context_length, stride):
        yield x, ids[x[0] - ids[0] + 1 :][: len(x)]


def windows_whole_only(ids: Any, context_length: int, stride: int) -> Windows:
    for number, (x, y) in enumerate(batches.sliding_windows(ids, context_length, stride)):
        if number * stride + context_length <= len(ids) - 1:
            yield x, y


def windows_without_overlap(ids: Any, context_length: int, stride: int) -> Windows:
    yield from batches.sliding_windows(ids, context_length, context_length)


def windows_ignoring_zero(ids: Any, context_length: int, stride: int) -> Windows:
    for x, y in batches.sliding_windows(ids, context_length, stride):
        yield x, np.where(y == IGNORED, 0, y)


WINDOWS = Exercise(
    name="windows",
    title="Cut a text into windows of inputs and targets.",
    reference=batches.sliding_windows,
    cases=window_cases,
    lesson=8,
    mistakes=[
        Mistake(
            "targets-not-shifted",
            "The targets equal the inputs, so the model sees what it has to predict and learns "
            "nothing. The target of each token is the next token.",
            windows_unshifted,
        ),
        Mistake(
            "shifted-backwards",
            "Inputs and targets are swapped: each target is the token before, not the next token.",
            windows_shifted_back,
        ),
        Mistake(
            "targets-twice",
            "Where windows overlap, the same targets come twice. Set the targets that the previous "
            "window already had to -100, so that each token counts once.",
            windows_seen_twice,
        ),
        Mistake(
            "end-lost",
            "The end of the text is lost if no whole window is left. Move the last window back, so "
            "that it ends with the text.",
            windows_whole_only,
        ),
        Mistake(
            "stride-ignored",
            "The stride is not used: each window starts where the previous one ends.",
            windows_without_overlap,
        ),
        Mistake(
            "ignored-as-zero",
            "Targets that do not count are 0, but 0 is a token. Use -100: the loss ignores it.",
            windows_ignoring_zero,
        ),
    ],
    hints=(
        "A window of T inputs needs T + 1 tokens of the text: the targets are one token later.",
        "Each token but the first should be a target exactly once. Work out which targets a "
        "window shares with the previous one, and set those to -100.",
        "Window n starts at min(n * stride, last possible start). The targets of earlier windows "
        "end at (n - 1) * stride + context_length; set every target before that to -100.",
    ),
)
