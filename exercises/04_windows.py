"""Cut a text into windows of inputs and targets."""

from collections.abc import Iterator

from nanogpt.text.batches import IntArray
from nanogpt.text.tokenfiles import Ids


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
    raise NotImplementedError("your turn")
