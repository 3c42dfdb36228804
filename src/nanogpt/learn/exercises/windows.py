"""The exercise about windows: cutting a text into inputs and targets."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np

from nanogpt.config import IGNORED
from nanogpt.errors import UserError
from nanogpt.learn.exercise import Exercise, Mistake
from nanogpt.learn.exercises.known import known
from nanogpt.learn.exercises.tasks import TASKS
from nanogpt.text import batches

Windows = Iterator[tuple[Any, Any]]


def window_cases() -> list[tuple[Any, ...]]:
    return [
        (np.arange(3), 2, 2),
        (np.arange(5), 2, 2),
        (np.arange(8), 4, 2),
        (np.arange(9), 4, 3),
        (np.arange(6), 2, 2),
        (np.arange(4), 8, 8),  # shorter than one window
        (np.arange(20, 33), 5, 5),
        (np.arange(20, 33), 5, 3),
        (np.arange(20, 33), 5, 1),
        (np.arange(2), 4, 1),
        (np.arange(1), 4, 4),  # nothing to predict
        (np.arange(5), 4, 2),  # exactly one window
        (np.arange(9), 4, 4),  # exactly two
        (np.arange(60_000, 60_009, dtype=np.uint16), 4, 2),  # as token files hold them
        (np.arange(8), 4, 5),
        (np.arange(4), 8, 3),
        (np.arange(8), 4, 0),
    ]


def drive_windows(candidate: Any, ids: Any, context_length: int, stride: int) -> list[Any]:
    """The windows, and whether their type is what embeddings and losses want."""
    found = list(islice(candidate(ids, context_length, stride), 100))  # a stride of 0 has no end
    return [(x, y, *(str(part.dtype).split(".")[-1] for part in (x, y))) for x, y in found]


def windows_with(
    start: Any = lambda n, end, length, stride: min(n * stride, end - length),
    done: Any = lambda n, length, stride: (n - 1) * stride + length if n else 0,
    more: Any = lambda covered, n, end, length, stride: covered < end,
    ignored: int = IGNORED,
    length_of: Any = lambda end, length: min(length, end),
    checked: type[Exception] | None = UserError,
    type_of: Any = np.int64,
) -> Any:
    """Windows that do one thing differently."""

    def windows(ids: Any, context_length: int, stride: int) -> Windows:
        if checked and not 1 <= stride <= context_length:
            raise checked("stride")
        end = len(ids) - 1
        n = covered = 0
        while more(covered, n, end, context_length, stride) and n < 100:
            length = length_of(end, context_length)
            first = start(n, end, length, stride)
            x = np.array(ids[first : first + length])[: end - first]
            x = x.astype(type_of) if type_of else x
            y = np.array(ids[first + 1 : first + length + 1]).astype(np.int64)
            if (old := done(n, context_length, stride) - first) > 0:
                y[:old] = ignored
            yield x, y
            covered, n = max(covered, first + len(x)), n + 1

    return windows


def windows_with_the_new_ignored(ids: Any, context_length: int, stride: int) -> Windows:
    for x, y in batches.sliding_windows(ids, context_length, stride):
        new = y != IGNORED
        whole = np.append(x[1:], y[-1])
        yield x, whole if new.all() else np.where(new, IGNORED, whole)


def windows_with_hidden_inputs(ids: Any, context_length: int, stride: int) -> Windows:
    for x, y in batches.sliding_windows(ids, context_length, stride):
        yield np.where(y == IGNORED, IGNORED, x), y


def windows_sharing_memory(ids: Any, context_length: int, stride: int) -> Windows:
    """Inputs and targets are views of one window."""
    for x, y in batches.sliding_windows(ids, context_length, stride):
        x[1:][(y == IGNORED)[:-1]] = IGNORED
        yield x, y


def windows_sharing_one_text(ids: Any, context_length: int, stride: int) -> Windows:
    """All windows are views of one copy of the text."""
    text = np.array(ids).astype(np.int64)
    first = 0
    for n, (x, y) in enumerate(batches.sliding_windows(ids, context_length, stride)):
        first = min(n * stride, len(text) - 1 - len(x))
        text[first + 1 : first + 1 + int((y == IGNORED).sum())] = IGNORED
        yield text[first : first + len(x)], text[first + 1 : first + 1 + len(x)]


def windows_ignoring_the_same(ids: Any, context_length: int, stride: int) -> Windows:
    for n, (x, _) in enumerate(batches.sliding_windows(ids, context_length, stride)):
        end = len(ids) - 1
        first = min(n * stride, end - len(x))
        y = np.array(ids[first + 1 : first + len(x) + 1]).astype(np.int64)
        y[: context_length - stride if n else 0] = IGNORED
        yield x, y


def windows_padded(inputs: int, targets: int) -> Any:
    """The last window stays where it is and is padded."""

    def windows(ids: Any, context_length: int, stride: int) -> Windows:
        if not 1 <= stride <= context_length:
            raise UserError("stride")
        for x, y in windows_with(start=lambda n, end, length, stride: n * stride)(
            ids, context_length, stride
        ):
            short = (0, min(context_length, len(ids) - 1) - len(x))
            yield (
                np.pad(x, short, constant_values=inputs),
                np.pad(y, short, constant_values=targets),
            )

    return windows


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


def windows_of_any_stride(ids: Any, context_length: int, stride: int) -> Windows:
    if 1 <= stride <= context_length:
        yield from batches.sliding_windows(ids, context_length, stride)


def windows_of_their_type(ids: Any, context_length: int, stride: int) -> Windows:
    for x, y in batches.sliding_windows(ids, context_length, stride):
        yield x.astype(ids.dtype), y.astype(ids.dtype)


WINDOWS = Exercise(
    name="windows",
    title="Cut a text into windows of inputs and targets.",
    task=TASKS["windows"],
    reference=batches.sliding_windows,
    cases=window_cases,
    drive=drive_windows,
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
        known(
            "end-lost",
            "The end of the text is lost if no whole window is left. Move the last window back, so "
            "that it ends with the text.",
            windows_with(
                more=lambda c, n, end, length, stride: (
                    end > 0 and n * stride + min(length, end) <= end
                )
            ),
            windows_with(more=lambda c, n, end, length, stride: n * stride + length <= end),
            windows_with(more=lambda c, n, end, length, stride: n * stride + length < end),
        ),
        known(
            "last-window-short",
            "The last window is shorter than the others. Move it back, so that it ends with the "
            "text and has as much context as the others.",
            windows_with(start=lambda n, end, length, stride: n * stride),
        ),
        known(
            "last-window-padded",
            "The last window is padded. Move it back, so that it ends with the text: then all of "
            "it is text.",
            *(windows_padded(i, t) for i in (0, IGNORED) for t in (IGNORED, 0)),
        ),
        known(
            "one-window-too-many",
            "There is one window too many: all its targets were due before. Stop when the text is "
            "covered.",
            windows_with(more=lambda c, n, end, length, stride: n * stride < end),
            windows_with(
                more=lambda c, n, end, length, stride: n * stride + length <= end + stride
            ),
            windows_with(more=lambda c, n, end, length, stride: n * stride + 1 < end),
            windows_with(
                more=lambda c, n, end, length, stride: (
                    end > 0 and n * stride + min(length, end) <= end + stride
                )
            ),
            windows_with(
                more=lambda c, n, end, length, stride: (
                    n < ((end - length) // stride + 2 if end > length else min(end, 1))
                )
            ),
            windows_with(more=lambda c, n, end, length, stride: n <= end // stride and end > 0),
        ),
        known(
            "short-text-lost",
            "A text shorter than a window gives nothing. Give one window of the length that there "
            "is.",
            windows_with(more=lambda c, n, end, length, stride: c < end and length <= end),
        ),
        known(
            "first-window-ignored",
            "The first window ignores targets, too. No window came before it, so all its targets "
            "count.",
            windows_with(done=lambda n, length, stride: (n - 1) * stride + length),
        ),
        known(
            "same-number-ignored",
            "Every window ignores context_length - stride targets. The last one is moved back and "
            "overlaps more: ignore every target that was due before.",
            windows_ignoring_the_same,
        ),
        known(
            "stride-ignored-targets",
            "The wrong number of targets is ignored. Windows overlap by context_length - stride "
            "targets: these are the ones that were due before.",
            windows_with(done=lambda n, length, stride: n * stride if n else 0),
            windows_with(done=lambda n, length, stride: n * stride + stride if n else 0),
            windows_with(done=lambda n, length, stride: (n - 1) * stride + length - 1 if n else 0),
            windows_with(done=lambda n, length, stride: (n - 1) * stride + length + 1 if n else 0),
        ),
        known(
            "new-targets-ignored",
            "The new targets are ignored, and the old ones count again. It should be the other way "
            "round.",
            windows_with_the_new_ignored,
        ),
        known(
            "inputs-ignored",
            "Inputs are -100 where the target was due before. Only targets are ignored: the inputs "
            "are the context.",
            windows_with_hidden_inputs,
            windows_sharing_memory,
            windows_sharing_one_text,
        ),
        known(
            "ignored-as-minus-one",
            "Targets that do not count are -1. Use -100: the loss ignores it.",
            windows_with(ignored=-1),
        ),
        known(
            "targets-one-too-far",
            "The targets are two tokens later. The target of each token is the next token.",
            lambda ids, c, s: (
                (x, np.append(y[1:], IGNORED)) for x, y in batches.sliding_windows(ids, c, s)
            ),
        ),
        known(
            "kept-16-bits",
            "The ids keep the type of the token file. Embeddings and losses want int64: use "
            "astype(np.int64).",
            windows_with(type_of=None),
        ),
        known(
            "stride-not-checked",
            "The stride is not checked. A stride of 0 never moves, and one above the context "
            "length skips targets: raise UserError for both.",
            windows_with(checked=None),
        ),
        known(
            "another-error",
            "A wrong stride raises another kind of error. Raise UserError of nanogpt.errors.",
            windows_with(checked=ValueError),
            windows_with(checked=AssertionError),
        ),
        known(
            "stride-not-checked",
            "The stride is not checked. A stride of 0 never moves, and one above the context "
            "length skips targets: raise UserError for both.",
            windows_of_any_stride,
        ),
        known(
            "type-of-the-file",
            "The targets have the type of the ids. Token files hold uint16, in which -100 is "
            "65436, a token like any other. Convert to int64 first.",
            windows_of_their_type,
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
