"""Replace every occurrence of a pair by a new token."""

from collections.abc import Sequence

from nanogpt.text.bpe import Pair


def merge(ids: Sequence[int], pair: Pair, new_id: int) -> list[int]:
    """Replace every occurrence of a pair, from left to right and without overlap.

    >>> merge([1, 1, 1, 2], (1, 1), 9)
    [9, 1, 2]
    """
    raise NotImplementedError("your turn")
