"""Batches: how token files are cut into what the model is trained on.

Four ways, all in BATCHES. Each answers the same question, which tokens make batch number n, as a
pure function of n and the seed: there is no sampler whose state could be lost, so a resumed run
sees exactly the batches that it would have seen.

    random   windows at random places: simple, and right for one pass over much text
    sliding  windows one after another, in shuffled order: each target exactly once per epoch
    packed   the same windows, but no token looks across the border of its document
    padded   documents side by side, the short ones padded

Axes: B sequences in a batch, T positions. Arrays are int64, as embeddings and losses want them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from nanogpt.config import IGNORED, DataConfig
from nanogpt.errors import UserError
from nanogpt.text.tokenfiles import Ids, TokenFile

IntArray = NDArray[np.int64]
ALL = slice(None)  # rows


@dataclass(frozen=True)
class Batch:
    """What the model sees and what it should have said, each (B, T)."""

    ids: IntArray
    targets: IntArray
    # 0 where a token is padding, else the number of its document; tokens see their own document
    # only. None: all tokens are real and of one document.
    documents: IntArray | None = None

    @property
    def real_targets(self) -> int:
        """How many targets count in the loss."""
        return int((self.targets != IGNORED).sum())


def cut(ids: Ids, starts: Sequence[int] | IntArray, length: int) -> tuple[IntArray, IntArray]:
    """Cut windows at the given starts; the targets are the same windows one token later.

    >>> x, y = cut(np.arange(10), [0, 6], length=3)
    >>> x.tolist(), y.tolist()
    ([[0, 1, 2], [6, 7, 8]], [[1, 2, 3], [7, 8, 9]])
    """
    windows = np.stack([ids[s : s + length + 1] for s in starts])  # (B, T + 1)
    windows = windows.astype(np.int64)
    return windows[:, :-1], windows[:, 1:]


def random_windows(
    ids: Ids, context_length: int, batch_size: int, *, seed: int, number: int, rows: slice = ALL
) -> tuple[IntArray, IntArray]:
    """Batch number n of windows at random places: ids (B, T) and targets (B, T)."""
    draw = np.random.default_rng([seed, number])
    starts = draw.integers(0, len(ids) - context_length, size=batch_size)
    return cut(ids, starts[rows], context_length)


def sliding_windows(
    ids: Ids, context_length: int, stride: int
) -> Iterator[tuple[IntArray, IntArray]]:
    """Walk through a text in order: ids (T,) and targets (T,) of one window after another.

    Every token but the first is a target exactly once: a window that overlaps the one before it
    ignores the targets that were already due, and the last window is moved back to end with the
    text. With stride = context_length the windows do not overlap; a smaller stride gives each
    target at least context_length - stride tokens of context, for more work. Raises UserError for
    a stride that would skip targets or never move.

    >>> for x, y in sliding_windows(np.arange(8), context_length=4, stride=2):
    ...     print(x.tolist(), y.tolist())
    [0, 1, 2, 3] [1, 2, 3, 4]
    [2, 3, 4, 5] [-100, -100, 5, 6]
    [3, 4, 5, 6] [-100, -100, -100, 7]
    """
    for n in range(count_sliding_windows(ids, context_length, stride)):
        yield sliding_window(ids, context_length, stride, n)


def count_sliding_windows(ids: Ids, context_length: int, stride: int) -> int:
    """How many windows walk through a text. Raises UserError as sliding_windows does."""
    if not 1 <= stride <= context_length:
        raise UserError(f"stride={stride}: use 1 to the context length, {context_length}")
    end = len(ids) - 1  # the last position that has a target
    return min(end, 1) + max(0, -(-(end - context_length) // stride))


def sliding_window(ids: Ids, context_length: int, stride: int, n: int) -> tuple[IntArray, IntArray]:
    """Window number n of sliding_windows."""
    length = min(context_length, len(ids) - 1)
    start = min(n * stride, len(ids) - 1 - length)
    window = ids[start : start + length + 1].astype(np.int64)
    targets = window[1:].copy()
    done = (n - 1) * stride + length if n else 0  # targets before it were given out
    targets[: done - start] = IGNORED
    return window[:-1], targets


def shuffled(count: int, seed: int, first: int, size: int) -> IntArray:
    """Numbers first to first + size of an endless sequence: 0 to count - 1 in random order, again
    and again, each time in another order.

    >>> shuffled(5, seed=1, first=0, size=5).tolist()
    [4, 0, 1, 2, 3]
    """
    places = np.arange(first, first + size)
    epochs = {epoch: permutation(count, seed, epoch) for epoch in set((places // count).tolist())}
    return np.array([epochs[place // count][place % count] for place in places.tolist()])


@lru_cache(maxsize=2)  # a batch may reach from one epoch into the next
def permutation(count: int, seed: int, epoch: int) -> IntArray:
    """The order in which one epoch goes through its windows."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def padded_batch(
    sequences: Sequence[Sequence[int] | NDArray], pad_id: int = 0
) -> tuple[IntArray, IntArray, IntArray]:
    """Sequences of different length as one batch: ids, targets and documents, each (B, T).

    Short rows are padded on the right. `documents` is 1 where a token is real, else 0; targets of
    the padding and of each row's last token are ignored. T is the longest row's length.

    >>> ids, targets, documents = padded_batch([[5, 6, 7], [8, 9]])
    >>> ids.tolist(), targets.tolist(), documents.tolist()
    ([[5, 6, 7], [8, 9, 0]], [[6, 7, -100], [9, -100, -100]], [[1, 1, 1], [1, 1, 0]])
    """
    if not sequences or not all(len(row) for row in sequences):
        raise UserError("a padded batch needs at least one sequence, and none may be empty")
    shape = len(sequences), max(map(len, sequences))
    ids = np.full(shape, pad_id, dtype=np.int64)  # (B, T)
    targets = np.full(shape, IGNORED, dtype=np.int64)  # (B, T)
    documents = np.zeros(shape, dtype=np.int64)  # (B, T)
    for row, tokens in enumerate(sequences):
        ids[row, : len(tokens)] = tokens
        targets[row, : len(tokens) - 1] = tokens[1:]
        documents[row, : len(tokens)] = 1
    return ids, targets, documents


def document_numbers(ids: IntArray, separator: int) -> IntArray:
    """Number the documents in each row from 1: (B, T) -> (B, T).

    A token that ends a text opens the next one: it is the last target of the document before it,
    and the first input of the next. So a model learns both when to stop and how to begin,
    and no target is lost.

    >>> document_numbers(np.array([[5, 6, 0, 7, 8, 0]]), separator=0).tolist()
    [[1, 1, 2, 2, 2, 3]]
    """
    return 1 + (ids == separator).cumsum(axis=1)  # (B, T)


class Batches:
    """Batches of one kind from one text. A subclass says what batch number n is.

    Args:
        tokens: the text.
        context_length: T, the longest sequence.
        separator: the id that closes a document, if there is one.
        settings: what else there is to know, such as `stride`.

    Raises UserError for a stride that would skip targets.
    """

    documents_apart = False  # whether no token sees another document than its own

    def __init__(
        self, tokens: TokenFile, context_length: int, separator: int | None = None,
        settings: DataConfig | None = None,
    ) -> None:  # fmt: skip
        self.tokens = tokens
        self.context_length = context_length
        self.separator = known_separator(separator) if self.documents_apart else separator
        self.settings = settings or DataConfig()
        self.stride = self.settings.stride or context_length
        if self.stride > context_length:
            raise UserError(
                f"data.stride={self.stride}: use 0 to the context length, {context_length}"
            )

    def batch(self, number: int, batch_size: int, seed: int, rows: slice = ALL) -> Batch:
        """Batch number n, or some of its rows: a pure function of the arguments."""
        raise NotImplementedError(f"{type(self).__name__}.batch")


class RandomWindows(Batches):
    """Windows that begin anywhere and reach across documents."""

    def batch(self, number: int, batch_size: int, seed: int, rows: slice = ALL) -> Batch:
        ids, T = self.tokens.ids, self.context_length
        return Batch(*random_windows(ids, T, batch_size, seed=seed, number=number, rows=rows))


class SlidingWindows(Batches):
    """Windows one after another, shuffled: each target exactly once per epoch."""

    def batch(self, number: int, batch_size: int, seed: int, rows: slice = ALL) -> Batch:
        ids, length, stride = self.tokens.ids, self.context_length, self.stride
        count = count_sliding_windows(ids, length, stride)
        chosen = shuffled(count, seed, number * batch_size, batch_size)[rows].tolist()
        windows = [sliding_window(ids, length, stride, n) for n in chosen]
        x, y = (np.stack(arrays) for arrays in zip(*windows, strict=True))  # (B, T)
        return Batch(x, y)


class PackedDocuments(SlidingWindows):
    """Sliding windows in which no token sees another document.

    The attention mask is block-diagonal: each document is a block. Raises UserError if the
    tokenizer has no end-of-text token, without which borders are unknown.
    """

    documents_apart = True

    def batch(self, number: int, batch_size: int, seed: int, rows: slice = ALL) -> Batch:
        whole = super().batch(number, batch_size, seed, rows)
        return Batch(
            whole.ids, whole.targets, document_numbers(whole.ids, known_separator(self.separator))
        )


class PaddedDocuments(Batches):
    """Documents side by side, the short ones padded.

    Longer documents go on in further rows. Each target comes exactly once per epoch. Raises
    UserError if the tokenizer has no end-of-text token, without which borders are unknown.
    """

    documents_apart = True

    def __init__(
        self, tokens: TokenFile, context_length: int, separator: int | None = None,
        settings: DataConfig | None = None,
    ) -> None:  # fmt: skip
        super().__init__(tokens, context_length, separator, settings)
        closing, context_length = known_separator(self.separator), self.context_length
        found, done = [np.array([0])], 0
        for chunk in self.tokens.chunks():
            found.append(done + np.flatnonzero(chunk == closing))
            done += len(chunk)
        # A document begins with the token that closes the one before it, and ends with its own.
        borders = np.unique(np.concatenate([*found, [done - 1]]))
        begins, ends = borders[:-1], borders[1:]
        rows_of = -(-(ends - begins) // context_length)  # rows that each document takes
        row = np.arange(rows_of.sum()) - np.repeat(rows_of.cumsum() - rows_of, rows_of)
        self.starts = np.repeat(begins, rows_of) + row * context_length
        # The last token of a row is only a target.
        self.lasts = np.minimum(self.starts + context_length, np.repeat(ends, rows_of))

    def batch(self, number: int, batch_size: int, seed: int, rows: slice = ALL) -> Batch:
        chosen = shuffled(len(self.starts), seed, number * batch_size, batch_size)[rows]
        places = zip(self.starts[chosen].tolist(), self.lasts[chosen].tolist(), strict=True)
        texts = [self.tokens.ids[start : last + 1] for start, last in places]
        ids, targets, documents = padded_batch(texts)
        documents[targets == IGNORED] = 0  # a row's last token is a target and no input
        return Batch(ids[:, :-1], targets[:, :-1], documents[:, :-1])


def known_separator(separator: int | None) -> int:
    """The separator itself. Raises UserError if there is none."""
    if separator is None:
        raise UserError(
            "this tokenizer has no end-of-text token, so documents cannot be told apart: "
            "use data.batches=random or sliding"
        )
    return separator


BATCHES: dict[str, type[Batches]] = {
    "random": RandomWindows,
    "sliding": SlidingWindows,
    "packed": PackedDocuments,
    "padded": PaddedDocuments,
}
