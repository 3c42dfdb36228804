"""Compare each query with each key, and mix the values by the result."""

from torch import Tensor


def attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False,
    dropout: float = 0.0,
) -> Tensor:  # fmt: skip
    """Scaled dot-product attention (Vaswani et al. 2017, section 3.2.1), step by step.

    The values v (B, nh, S, hs), mixed by their `attention_weights` -> (B, nh, T, hs).
    """
    raise NotImplementedError("your turn")
