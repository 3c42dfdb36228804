"""Compare every query with every key, and mix the values accordingly."""

from torch import Tensor


def attention(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, dropout: float = 0.0
) -> Tensor:
    """Scaled dot-product attention (Vaswani et al. 2017, section 3.2.1), step by step.

    Values v (B, nh, S, hs), mixed in the shares of `attention_weights` -> (B, nh, T, hs).
    """
    raise NotImplementedError("your turn")
