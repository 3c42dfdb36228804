"""Many heads: cut the channels, attend in each part, join the results."""

from torch import Tensor

from nanogpt.learn.plain import Layer


def multi_head_attention(x: Tensor, c_attn: Layer, c_proj: Layer, n_head: int) -> Tensor:
    """Multi-head attention: attend in n_head parts of the channels, each by itself.

    Args:
        x: the vectors of the tokens, (B, T, C).
        c_attn: a function such as a linear layer: x (B, T, C) -> (B, T, 3 C). Its first C
            channels are the queries, then come the keys, then the values.
        c_proj: a function that mixes the results of the heads: (B, T, C) -> (B, T, C).
        n_head: the number of heads. It divides C. Head 0 has the first hs = C / n_head channels
            of the queries, of the keys and of the values, head 1 the next hs, and so on.

    In each head: attention as in the exercise attention, and no token sees a later one. The
    results of the heads are joined in the same order, side by side, and go through c_proj.
    Returns (B, T, C). Nothing is added to x here: the block does that.

    You may use `attention` of nanogpt.model.attention, or your own.
    """
    raise NotImplementedError("your turn")
