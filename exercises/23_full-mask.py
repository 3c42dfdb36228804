"""The attention mask: hide the future, and whatever else a token may not see."""

import torch
from torch import Tensor


def attention_mask(
    new: int, known: int, window: int = 0, same: Tensor | None = None,
    device: torch.device | None = None,
) -> Tensor:  # fmt: skip
    """Which keys each query may look at: the future hidden, and what else is asked for.

    Args:
        new: the number of queries, T. They belong to the last `new` of the `known` tokens; the
            earlier ones are in a cache.
        known: the number of keys, S: one for each token.
        window: how far back a token sees: with window=2 itself and one token before it. 0 means
            no limit.
        same: None, or booleans (B, T, S): True where query and key are of one document. A token
            sees no other document. Padding is of no document, not even the same as itself; but
            every token sees itself, so that no row is empty.
        device: where to make the mask; None is torch's default.

    Returns booleans (T, S), or with `same` (B, 1, T, S): the axis of 1 is for the heads. True
    where a query may look at a key. No token sees a later one, whatever else is given.

    >>> attention_mask(2, 3, window=2)
    tensor([[ True,  True, False],
            [False,  True,  True]])
    """
    raise NotImplementedError("your turn")
