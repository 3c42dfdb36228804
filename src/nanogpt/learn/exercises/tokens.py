"""Exercises about tokens: merging, training a vocabulary, and encoding."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from nanogpt.learn.exercise import Exercise, Mistake
from nanogpt.learn.exercises.known import known
from nanogpt.learn.exercises.tasks import TASKS
from nanogpt.text import bpe

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
        ([1, 2, 1, 3, 2, 2, 3], (1, 2), 9),  # 1 and 2 alone stay
        ([1, 2, 2], (1, 2), 1),  # the new id is part of the pair: it does not merge again
        (b"abcab", (97, 98), 256),  # any sequence: bytes, a tuple
        ((1, 2, 3, 1, 2), (1, 2), 9),
        (b"abcab", (97, 99), 256),  # nothing to merge: a list all the same
        ((3, 2, 1), (1, 2), 9),
        # Large numbers that are equal but not one object.
        ([int("1000"), int("1001"), 7], (int("1000"), int("1001")), int("1002")),
    ]


def drive_merge(candidate: Any, ids: Any, pair: Pair, new_id: int) -> Any:
    """The result, and whether it is a new list."""
    found = candidate(ids, pair, new_id)
    return SAME if found is ids else found


SAME = "`ids` itself, not a new list"


def merge_with(
    found: Any = lambda one, other, pair: (one, other) == pair,
    put: Any = lambda one, other, new_id: [new_id],
    on: int = 2,
    more: Any = lambda ids, i: i + 1 < len(ids),
) -> Any:
    """A merge that does one thing differently."""

    def merged(ids: Sequence[int], pair: Pair, new_id: int) -> list[int]:
        out, i = [], 0
        while i < len(ids):
            if more(ids, i) and found(ids[i], ids[i + 1], pair):
                out += put(ids[i], ids[i + 1], new_id)
                i += on
            else:
                out.append(ids[i])
                i += 1
        return out

    return merged


def merge_again(ids: Sequence[int], pair: Pair, new_id: int) -> list[int]:
    """The new token may be part of the next pair at once."""
    out = list(ids)
    i = 0
    while i + 1 < len(out) and len(out) < 1000:
        if (out[i], out[i + 1]) == pair:
            out[i : i + 2] = [new_id]
        else:
            i += 1
    return out


def merge_all_of(ids: Sequence[int], pair: Pair, new_id: int) -> list[int]:
    """Both tokens are replaced wherever they are."""
    return [new_id if i in pair else i for i in ids]


def merge_slices(ids: Any, pair: Pair, new_id: int) -> list[int]:
    """A slice of a list is compared with a list: a slice of bytes or of a tuple never equals it."""
    return bpe.merge(ids, pair, new_id) if isinstance(ids, list) else list(ids)


def merge_small(ids: Sequence[int], pair: Pair, new_id: int) -> list[int]:
    """`is`, as CPython has it: numbers up to 256 are one object each."""
    return bpe.merge(ids, pair, new_id) if max(pair) <= 256 else list(ids)


def merge_without_bounds(ids: Sequence[int], pair: Pair, new_id: int) -> list[int]:
    out, i = [], 0
    while i < len(ids):
        if ids[i] == pair[0] and ids[i + 1] == pair[1]:
            out.append(new_id)
            i += 2
        else:
            out.append(ids[i])
            i += 1
    return out


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
    task=TASKS["merge"],
    reference=bpe.merge,
    cases=merge_cases,
    drive=drive_merge,
    describe=lambda ids, pair, new_id: f"merge(ids={ids}, pair={pair}, new_id={new_id})",
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
        known(
            "last-lost",
            "The last token is lost if it is not part of a pair. A loop over pairs ends one token "
            "too early.",
            lambda ids, pair, new_id: merge_overlapping(ids[:-1], pair, new_id),
        ),
        known(
            "second-stays",
            "The second token of a pair stays after the new one. Move on by two after a merge.",
            merge_with(on=1),
            merge_with(put=lambda one, other, new_id: [new_id, other]),
        ),
        known(
            "first-stays",
            "The first token of a pair stays before the new one.",
            merge_with(put=lambda one, other, new_id: [one, new_id]),
        ),
        known(
            "pair-stays",
            "The pair stays beside the new token. The new token takes the place of both.",
            merge_with(put=lambda one, other, new_id: [new_id, one, other]),
            merge_with(put=lambda one, other, new_id: [one, other, new_id]),
        ),
        known(
            "pair-removed",
            "The pair is removed, but the new id is not put in its place.",
            merge_with(put=lambda one, other, new_id: []),
        ),
        known(
            "new-id-twice",
            "The new id comes twice for each pair. One token replaces two.",
            merge_with(put=lambda one, other, new_id: [new_id, new_id]),
        ),
        known(
            "one-skipped",
            "The token after a pair is lost: after a merge it moves on by three. A pair has two "
            "tokens.",
            merge_with(on=3),
        ),
        known(
            "half-a-pair",
            "Half a pair is enough here. Both tokens have to be there, in order and side by side.",
            merge_with(lambda one, other, pair: one == pair[0]),
            merge_with(lambda one, other, pair: other == pair[1]),
            merge_with(lambda one, other, pair: one in pair and other in pair),
            merge_with(lambda one, other, pair: one == pair[0] or other == pair[1]),
            merge_all_of,
        ),
        known(
            "merges-again",
            "A new token takes part in the next pair at once. Look at the tokens that were given, "
            "not at those that were just made.",
            merge_again,
        ),
        known(
            "compared-with-a-list",
            "A slice is compared with a list. A slice of bytes or of a tuple never equals a list: "
            "compare the two tokens one by one.",
            merge_slices,
        ),
        known(
            "is-for-equals",
            "Numbers are compared with `is`. That asks whether they are the same object, which "
            "holds for small numbers only. Use ==.",
            merge_small,
        ),
        known(
            "beyond-the-end",
            "It looks at the token after the last one, and there is none. Check "
            "i + 1 < len(ids) first.",
            merge_without_bounds,
            merge_with(more=lambda ids, i: True),
        ),
        known(
            "input-given-back",
            "Where there is nothing to merge, the input itself comes back. Give a new list always: "
            "ids may be bytes, and whoever changes the result should not change the input.",
            lambda ids, pair, new_id: (
                bpe.merge(ids, pair, new_id) if pair in pairwise(ids) else ids
            ),
            lambda ids, pair, new_id: bpe.merge(ids, pair, new_id) if len(ids) > 1 else ids,
        ),
        known(
            "nothing-merged",
            "No pair is ever found, so the tokens come back as they are.",
            lambda ids, pair, new_id: list(ids),
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
        ({b"abab": 1, b"xyz": 2}, 4),
        ({b"aaa": 2, b"bc": 3}, 1),  # aa occurs four times in all, bc three times
        ({b"aba": 1, b"abc": 1, b"cab": 2}, 4),
    ]


def train_with(
    count: Any = None, key: Any = None, first_id: int = 256, enough: Any = None,
    merged: Any = bpe.merge, written: Any = lambda best, vocabulary: best,
    wanted: Any = lambda n: n,
) -> Any:  # fmt: skip
    """A training of the vocabulary that does one thing differently."""

    def trained(words: Mapping[bytes, int], n_merges: int) -> list[Pair]:
        vocabulary = {b: bytes([b]) for b in range(256)}
        sequences = {word: list(word) for word in words}
        merges: list[Pair] = []
        while len(merges) < wanted(n_merges):
            counts: Counter[Pair] = Counter()
            for word, ids in sequences.items():
                for pair in (count or pairwise)(ids):
                    counts[pair] += 1 if count is each_once else words[word]
            if enough(counts) if enough else not counts:
                break
            best = (key or best_of)(counts, vocabulary)
            new_id = first_id + len(merges)
            sequences = {word: merged(ids, best, new_id) for word, ids in sequences.items()}
            vocabulary[new_id] = vocabulary[best[0]] + vocabulary[best[1]]
            merges.append(written(best, vocabulary))
        return merges

    return trained


def each_once(ids: Sequence[int]) -> Iterator[Pair]:
    return pairwise(ids)


def best_of(counts: Counter[Pair], vocabulary: Mapping[int, bytes]) -> Pair:
    return max(counts, key=lambda p: (counts[p], vocabulary[p[0]], vocabulary[p[1]]))


def without_overlap(ids: Sequence[int]) -> Iterator[Pair]:
    """aaa holds the pair (a, a) once."""
    last: tuple[Pair, int] | None = None
    for i, pair in enumerate(pairwise(ids)):
        if last != (pair, i - 1) or pair[0] != pair[1]:
            last = pair, i
            yield pair


def distinct(ids: Sequence[int]) -> list[Pair]:
    """Each pair once for each word."""
    return list(dict.fromkeys(pairwise(ids)))


def without_the_last(ids: Sequence[int]) -> list[Pair]:
    return list(pairwise(ids))[:-1]


def no_overlap(ids: Sequence[int]) -> list[Pair]:
    return [(ids[i], ids[i + 1]) for i in range(0, len(ids) - 1, 2)]


def train_one_id(words: Mapping[bytes, int], n_merges: int) -> list[Pair]:
    """Every merge creates id 256."""
    sequences = {word: list(word) for word in words}
    vocabulary = {b: bytes([b]) for b in range(256)}
    merges: list[Pair] = []
    while len(merges) < n_merges:
        counts: Counter[Pair] = Counter()
        for word, ids in sequences.items():
            for pair in pairwise(ids):
                counts[pair] += words[word]
        if not counts:
            break
        merges.append(best_of(counts, vocabulary))
        vocabulary[256] = vocabulary[merges[-1][0]] + vocabulary[merges[-1][1]]
        sequences = {word: bpe.merge(ids, merges[-1], 256) for word, ids in sequences.items()}
    return merges


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
    task=TASKS["train"],
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
        known(
            "last-of-equals",
            "Among equally frequent pairs it takes the one it saw last, so the result depends on "
            "the order of the words. Take the pair with the greater byte strings.",
            train_with(key=lambda c, v: max(reversed(list(c)), key=c.__getitem__)),
        ),
        known(
            "lesser-ids",
            "Among equally frequent pairs it takes the one with the lesser ids. Take the pair with "
            "the greater byte strings.",
            train_with(key=lambda c, v: min(c, key=lambda p: (-c[p], p))),
        ),
        known(
            "joined-strings",
            "Among equally frequent pairs it compares the two byte strings joined into one. "
            "Compare the left ones first; only if they are equal, the right ones.",
            train_with(key=lambda c, v: max(c, key=lambda p: (c[p], v[p[0]] + v[p[1]]))),
        ),
        known(
            "longest-of-equals",
            "Among equally frequent pairs it takes the longest. Take the pair with the greater "
            "byte strings.",
            train_with(key=lambda c, v: max(c, key=lambda p: (c[p], len(v[p[0]] + v[p[1]])))),
        ),
        known(
            "only-one-side-compared",
            "Among equally frequent pairs it compares one token alone. Compare the left byte "
            "strings first, then the right ones.",
            train_with(key=lambda c, v: max(c, key=lambda p: (c[p], v[p[0]]))),
            train_with(key=lambda c, v: max(c, key=lambda p: (c[p], v[p[1]]))),
            train_with(key=lambda c, v: max(c, key=lambda p: (c[p], v[p[1]], v[p[0]]))),
        ),
        known(
            "frequency-forgotten-in-the-choice",
            "It chooses by the byte strings alone. The most frequent pair comes first; byte "
            "strings decide among equally frequent ones.",
            train_with(key=lambda c, v: max(c, key=lambda p: (v[p[0]], v[p[1]]))),
        ),
        known(
            "no-end",
            "It does not stop when no pair is left, and max of nothing raises an error. Return the "
            "merges there are.",
            train_with(enough=lambda counts: False),
            train_with(enough=lambda counts: False, key=lambda c, v: c.most_common(1)[0][0]),
        ),
        known(
            "rare-pairs-refused",
            "It stops when the best pair occurs only once. Go on until there are enough merges or "
            "no pair is left.",
            train_with(enough=lambda counts: not counts or max(counts.values()) < 2),
        ),
        known(
            "counted-without-overlap",
            "Overlapping occurrences are not counted. In aaa the pair (a, a) occurs twice: at the "
            "first a and at the second.",
            train_with(count=without_overlap),
        ),
        known(
            "once-in-each-word",
            "A pair that occurs twice in a word counts once. Count every occurrence.",
            train_with(count=distinct),
        ),
        known(
            "every-other-pair",
            "Every other pair is left out: the word was cut into pieces of two. Each token forms a "
            "pair with the next one.",
            train_with(count=no_overlap),
        ),
        known(
            "last-pair-lost",
            "The last pair of each word is not counted.",
            train_with(count=without_the_last),
        ),
        known(
            "new-ids-from-255",
            "New ids start at 255, which is a byte. The first new id is 256.",
            train_with(first_id=255),
        ),
        known(
            "one-new-id",
            "Every merge creates the same id, 256. Merge number n creates id 256 + n.",
            train_one_id,
        ),
        known(
            "first-occurrence-merged",
            "Only the first occurrence in a word is merged. Merge all of them.",
            train_with(merged=merge_first_only),
        ),
        known(
            "merged-with-overlap",
            "In aaa the pair (a, a) is merged twice. Merge without overlap, as in the exercise "
            "merge.",
            train_with(merged=merge_overlapping),
        ),
        known(
            "one-too-many",
            "It makes one merge too many.",
            train_with(wanted=lambda n: n + 1),
        ),
        known(
            "one-too-few",
            "It makes one merge too few.",
            train_with(wanted=lambda n: n - 1),
        ),
        known(
            "byte-strings",
            "The merges are pairs of byte strings. Give pairs of ids.",
            train_with(written=lambda best, v: (v[best[0]], v[best[1]])),
        ),
        known(
            "token-for-pair",
            "The merges are given as the tokens that they make. Give the pairs.",
            train_with(written=lambda best, v: v[best[0]] + v[best[1]]),
        ),
        known(
            "a-mapping",
            "It gives a mapping. Give the list of pairs, in the order of the merges.",
            lambda words, n: {p: 256 + i for i, p in enumerate(bpe.train_naive(words, n))},
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
        (b"abc", {(98, 99): 256, (97, 98): 257}),  # bc was learned first
        (b"", RANKS),
        (list(b"lower"), RANKS),
        (b"abc", {(98, 99): 257, (97, 98): 256}),  # the order of the mapping says nothing
        (b"lower", dict(reversed(RANKS.items()))),
        # bc is more frequent in the word, but ab was learned first.
        (b"abcbc", {(97, 98): 256, (98, 99): 257}),
        (b"abcd", {(98, 99): 256, (97, 256): 257, (257, 100): 258}),  # grows to the left first
        (b"abcab", {(97, 98): 70_000, (70_000, 99): 70_001}),  # ids above 65535
        *((b"abcab", {(97, 98): n, (n, 99): n + 1}) for n in (10**5, 10**6, 10**9, 10**12)),
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


def encode_scanning(back: Any) -> Any:
    """From left to right, merging whatever can merge; after a merge it goes back a little."""

    def encoded(ids: Sequence[int], ranks: Mapping[Pair, int]) -> list[int]:
        word, i = list(ids), 0
        while i < len(word) - 1:
            if (word[i], word[i + 1]) in ranks:
                word[i : i + 2] = [ranks[word[i], word[i + 1]]]
                i = back(i)
            else:
                i += 1
        return word

    return encoded


def encode_scanning_again(ids: Sequence[int], ranks: Mapping[Pair, int]) -> list[int]:
    """Sweeps from left to right, again and again."""
    word = list(ids)
    while True:
        out, i = [], 0
        while i < len(word):
            pair = tuple(word[i : i + 2])
            if pair in ranks:
                out.append(ranks[pair])  # type: ignore[index]
                i += 2
            else:
                out.append(word[i])
                i += 1
        if out == word:
            return word
        word = out


def encode_in_order(order: Any) -> Any:
    """Each merge of the vocabulary once, in some order."""

    def encoded(ids: Sequence[int], ranks: Mapping[Pair, int]) -> list[int]:
        word = list(ids)
        for pair, new_id in order(ranks):
            word = bpe.merge(word, pair, new_id)
        return word

    return encoded


def encode_unknown_first(ids: Sequence[int], ranks: Mapping[Pair, int]) -> list[int]:
    """An unknown pair counts as the earliest, and ends the merging."""
    word = list(ids)
    while len(word) > 1:
        pair = min(pairwise(word), key=lambda p: ranks.get(p, 0))
        if pair not in ranks:
            break
        word = bpe.merge(word, pair, ranks[pair])
    return word


def encode_without_end(ids: Sequence[int], ranks: Mapping[Pair, int]) -> list[int]:
    """Right, but it looks for the earliest of no pairs."""
    word = list(ids)
    while True:
        pair = min(pairwise(word), key=lambda p: ranks.get(p, bpe.NEVER))
        if pair not in ranks:
            return word
        word = bpe.merge(word, pair, ranks[pair])


def encode_looking_ahead(left: bool) -> Any:
    """After a merge, the pair on one side of it is out of date."""

    def encoded(ids: Sequence[int], ranks: Mapping[Pair, int]) -> list[int]:
        word = list(ids)
        due = [ranks.get(p, bpe.NEVER) for p in pairwise(word)]
        while due and min(due) != bpe.NEVER:
            i = due.index(min(due))
            new_id = due.pop(i)
            word[i : i + 2] = [new_id]
            if left and i > 0:
                due[i - 1] = ranks.get((word[i - 1], new_id), bpe.NEVER)
            if not left and i < len(due):
                due[i] = ranks.get((new_id, word[i + 1]), bpe.NEVER)
        return word

    return encoded


def encode_most_frequent(ids: Sequence[int], ranks: Mapping[Pair, int]) -> list[int]:
    word = list(ids)
    while counts := Counter(p for p in pairwise(word) if p in ranks):
        pair = counts.most_common(1)[0][0]
        word = bpe.merge(word, pair, ranks[pair])
    return word


def encode_in_place(ids: Any, ranks: Mapping[Pair, int]) -> list[int]:
    found = bpe.encode_word(ids, ranks)
    if isinstance(ids, list):
        ids[:] = found
    return found


def encode_first_occurrence(ids: Sequence[int], ranks: Mapping[Pair, int]) -> list[int]:
    """Each merge of the vocabulary at one place only."""
    word = list(ids)
    for pair, _ in sorted(ranks.items(), key=lambda item: item[1]):
        word = merge_first_only(word, pair, ranks[pair])
    return word


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


def encode_below(limit: int) -> Any:
    """Pairs whose id reaches a limit do not merge."""
    return lambda ids, ranks: bpe.encode_word(ids, {p: n for p, n in ranks.items() if n < limit})


def encode_from_the_right(ids: Sequence[int], ranks: Mapping[Pair, int]) -> list[int]:
    word = list(ids)
    while found := [(ranks[p], -i) for i, p in enumerate(pairwise(word)) if p in ranks]:
        new_id, place = min(found)
        word[-place : 2 - place] = [new_id]
    return word


ENCODE = Exercise(
    name="encode",
    title="Encode a word: cut it with a trained vocabulary.",
    task=TASKS["encode"],
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
        known(
            "left-to-right",
            "It merges the first pair that can merge. Merge the pair that was learned earliest, "
            "wherever it is in the word: training merged in that order.",
            encode_scanning(lambda i: 0),
            encode_scanning(lambda i: max(i - 1, 0)),
            encode_scanning(lambda i: i),
            encode_scanning_again,
        ),
        known(
            "one-sweep",
            "It goes through the word once. A merged token can merge again, and the earliest "
            "learned pair comes first.",
            encode_scanning(lambda i: i + 1),
        ),
        known(
            "right-to-left",
            "It merges the last pair that can merge. Merge the pair that was learned earliest.",
            encode_by(lambda found, ranks: found[-1]),
        ),
        known(
            "order-of-the-mapping",
            "It goes through `ranks` in the order in which it is written down. The ids say what "
            "was learned first: a lower id is older.",
            encode_in_order(lambda ranks: ranks.items()),
            encode_by(lambda found, ranks: next(p for p in ranks if p in found)),
        ),
        known(
            "latest-first",
            "It merges the pair that was learned last. Merge the pair that was learned earliest: "
            "it has the lowest new id.",
            encode_in_order(lambda ranks: sorted(ranks.items(), key=lambda item: -item[1])),
        ),
        known(
            "most-frequent-first",
            "It merges the pair that is most frequent in the word. Merge the pair that was learned "
            "earliest: it has the lowest new id.",
            encode_most_frequent,
        ),
        known(
            "least-ids-first",
            "It merges the pair whose own ids are lowest. What counts is the id that a pair "
            "merges into: ranks[pair].",
            encode_by(lambda found, ranks: min(found)),
        ),
        known(
            "unknown-pairs-first",
            "A pair that is not in `ranks` counts as the earliest and ends everything. It can "
            "never merge: give it a rank above all others.",
            encode_unknown_first,
        ),
        known(
            "no-end",
            "It looks for the earliest of no pairs, which raises an error: a word of one token has "
            "no pairs. Stop there.",
            encode_without_end,
        ),
        known(
            "neighbours-out-of-date",
            "A merge makes new pairs on both sides of it. One of them is not looked at again.",
            encode_looking_ahead(left=True),
            encode_looking_ahead(left=False),
        ),
        known(
            "ids-cut",
            "Ids above 65535 come back too small. They do not fit into 16 bits.",
            lambda ids, ranks: [i % 65536 for i in bpe.encode_word(ids, ranks)],
        ),
        known(
            "never-is-too-low",
            "Pairs with a large id do not merge. The number that stands for pairs that never merge "
            "is too low: use infinity.",
            *(
                encode_below(n)
                for n in (1000, 50_000, 10**5, 10**5 + 1, 10**6, 10**9, 2**31, 10**12)
            ),
        ),
        known(
            "last-place-first",
            "Where a pair occurs several times, its last place merges first. In aaa the first two "
            "tokens merge, as in training: from left to right.",
            encode_from_the_right,
        ),
        known(
            "one-place-only",
            "A pair merges at one place only. It merges wherever it is.",
            encode_first_occurrence,
        ),
        known(
            "not-merged",
            "Nothing is merged: these are the bytes.",
            lambda ids, ranks: list(ids),
        ),
        known(
            "merges-for-ids",
            "These are the pairs that were merged. Give the ids of the tokens.",
            lambda ids, ranks: [
                p for p, new in ranks.items() if new in bpe.encode_word(ids, ranks)
            ],
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
