"""Cut a text into windows of inputs and targets."""

from collections.abc import Iterator

from nanogpt.text.batches import IntArray
from nanogpt.text.tokenfiles import Ids


def sliding_windows(
    ids: Ids, context_length: int, stride: int
) -> Iterator[tuple[IntArray, IntArray]]:
    """Walk through a text in order: the inputs and targets of one window after another.

    Args:
        ids: the token ids of a text, a numpy array (N,) of whole numbers, often uint16. It
            stays as it is.
        context_length: the length of a window, at least 1.
        stride: window n starts n * stride tokens after the first one.

    Yields pairs (inputs, targets), each an int64 array (T,). T is context_length, or N - 1 for
    a text that is too short for that. The target of each input is the next token of the text.
    Each token but the first is a target exactly once: where a window overlaps with earlier
    ones, the targets that were due before are -100. The last window is moved back, so that its
    last target is the last token. There are no more windows than needed; a text of one token
    has none.

    Raises UserError (of nanogpt.errors) for a stride below 1 or above context_length.

    >>> for x, y in sliding_windows(np.arange(8), context_length=4, stride=2):
    ...     print(x.tolist(), y.tolist())
    [0, 1, 2, 3] [1, 2, 3, 4]
    [2, 3, 4, 5] [-100, -100, 5, 6]
    [3, 4, 5, 6] [-100, -100, -100, 7]
    """
    raise NotImplementedError("your turn")
