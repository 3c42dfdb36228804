"""Attention that skips what a mask hides, for windows and documents on a GPU.

Axes: B batch, T query time, S key time, nh heads, hs head size.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor


def masked_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Attention with a mask, in blocks of 128 x 128 scores.

    q (B, nh, T, hs), k and v (B, nh, S, hs), mask as there -> (B, nh, T, hs). A block that the mask
    hides as a whole is never computed (Dong et al. 2024, "Flex Attention"): with a window, time
    grows with T and not with its square. For GPUs alone.
    """
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    kernel = flex_attention if torch.compiler.is_compiling() else compiled_kernel()
    while mask.ndim < 4:
        mask = mask[None]
    rows, heads, new, known = mask.shape
    hides = mask.dtype == torch.bool

    def at(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return mask[b if rows > 1 else 0, h if heads > 1 else 0, query, key]

    def visible(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return at(b, h, query, key) if hides else at(b, h, query, key) > -torch.inf

    def with_bias(score: Tensor, b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return score + at(b, h, query, key)

    blocks = create_block_mask(visible, rows, heads, new, known, device=mask.device)
    result: Tensor = kernel(q, k, v, block_mask=blocks, score_mod=None if hides else with_bias)
    return result


@cache
def compiled_kernel() -> Any:
    """Torch's function, which is slow until it is compiled for its mask."""
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)
