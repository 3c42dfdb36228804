"""Compare each query with each key, and mix the values by the result."""

from torch import Tensor


def attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False,
    dropout: float = 0.0,
) -> Tensor:  # fmt: skip
    """Scaled dot-product attention (Vaswani et al. 2017): mix the values of all keys.

    The score of a query and a key is their dot product, divided by the root of the head size.
    Softmax of the scores of one query, over all keys, gives its attention weights. The result
    for this query is the sum of the values, each times its weight.

    Args:
        q: queries (B, nh, T, hs): B texts, nh heads, T tokens, hs numbers each.
        k, v: keys and values (B, nh, S, hs). S may differ from T.
        mask: None, or a tensor that broadcasts to (B, nh, T, S). Booleans: True where a query
            may look at a key; the weight of all others is exactly 0, however low the scores
            are. Numbers: they are added to the scores.
        causal: whether to hide from each query the keys that come later. Then T equals S, and
            there is no mask.
        dropout: the share of the attention weights that F.dropout sets to 0. It is 0 outside of
            training.

    Returns (B, nh, T, hs).
    """
    raise NotImplementedError("your turn")
