"""Bring every vector to mean 0 and variance 1, then scale and shift it."""

from torch import Tensor


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """Give each vector mean 0 and variance 1, then scale and shift it (Ba et al. 2016).

    Mean and variance are those of the C numbers of one vector. The variance is the mean of the
    squared differences from the mean. The standard deviation is the root of variance plus eps,
    so that a vector of equal numbers is not divided by 0.

    Args:
        x: vectors (..., C), with any number of axes before the last.
        weight: the learned gain, (C,): each channel is multiplied by it.
        bias: the learned shift, (C,), added after that; or None for no shift.
        eps: a small number.

    Returns a tensor of the shape of x.
    """
    raise NotImplementedError("your turn")
