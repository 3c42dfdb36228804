"""The feed-forward layer on n ranks, each with a part of the hidden channels."""

from torch import Tensor

from nanogpt.learn.ranks import Rank


def parallel_mlp(
    x: Tensor, w_fc: Tensor, b_fc: Tensor, w_proj: Tensor, b_proj: Tensor, rank: Rank
) -> Tensor:
    """The feed-forward layer of GPT-2, computed by n ranks together.

    All ranks call this function at once, with the same x. The layer has H hidden channels, and
    n divides H. Rank r computes the hidden channels from r H / n to (r + 1) H / n. It must not
    use rows or columns of the matrices that belong to other channels: in a real run they are
    not there.

    Args:
        x: the vectors of the tokens, (B, T, C), the same on every rank.
        w_fc, b_fc: the first linear map, from C to H channels: (H, C) and (H,).
        w_proj, b_proj: the second one, from H to C channels: (C, H) and (C,).
        rank: this rank, with rank.number and rank.size.

    Returns (B, T, C), the same on every rank: b_proj + w_proj gelu(w_fc x + b_fc), for each
    token. GELU is `gelu` of nanogpt.model.layers.

    Gradients have to come back, too: each rank needs the whole gradient of x, and that of its
    own rows and columns. Messages carry none. Two functions of nanogpt.learn.collectives do:
    copied(x, rank) gives x as it is, and on the way back adds up the gradients of all ranks.
    summed(x, rank) adds up x over all ranks, and on the way back gives the gradient as it is.
    """
    raise NotImplementedError("your turn")
