"""GELU, the activation function of GPT-2."""

from torch import Tensor


def gelu(x: Tensor) -> Tensor:
    """GELU in the tanh approximation, the activation function of GPT-2 (Hendrycks & Gimpel 2016).

    x times a number from 0 to 1. This number is (1 + tanh(z)) / 2, where z is
    root(2 / pi) (x + 0.044715 x^3).

    Args:
        x: a float tensor of any shape, with numbers of any size.

    Returns a tensor of the shape of x.
    """
    raise NotImplementedError("your turn")
