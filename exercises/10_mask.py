"""The attention mask: hide the future, and whatever else a token may not see."""

import torch
from torch import Tensor


def attention_mask(
    new: int, known: int, window: int = 0, same: Tensor | None = None,
    device: torch.device | None = None,
) -> Tensor:  # fmt: skip
    """Which keys a query may look at, True where it may: (T, S), or (B, 1, T, S) with documents.

    The queries are the last `new` of `known` tokens, and none sees a token after its own. A window
    hides the distant past as well (Beltagy et al. 2020): a query sees its own token and the
    window - 1 before it, and layer by layer what it sees reaches further back. With `same`, see
    `same_document`, it sees no other document and no padding either. Every mask is made here.

    >>> attention_mask(3, 3)
    tensor([[ True, False, False],
            [ True,  True, False],
            [ True,  True,  True]])
    >>> attention_mask(2, 3, window=2)
    tensor([[ True,  True, False],
            [False,  True,  True]])
    """
    raise NotImplementedError("your turn")
