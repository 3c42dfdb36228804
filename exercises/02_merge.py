"""Replace every occurrence of a pair by a new token."""

from collections.abc import Sequence

from nanogpt.text.bpe import Pair


def merge(ids: Sequence[int], pair: Pair, new_id: int) -> list[int]:
    """Replace every occurrence of a pair by a new id, from left to right and without overlap.

    Args:
        ids: token ids: a list, a tuple or bytes. It stays as it is.
        pair: the two ids to look for, in this order and side by side.
        new_id: the id that takes the place of both.

    Returns a list, a new one even if there is nothing to merge. Tokens outside of
    the pair keep their order. A new id does not merge again, even if it is part of the pair.

    >>> merge([1, 1, 1, 2], (1, 1), 9)
    [9, 1, 2]
    """
    raise NotImplementedError("your turn")
