"""GELU, the activation function of GPT-2."""

from torch import Tensor


def gelu(x: Tensor) -> Tensor:
    """GELU in the tanh approximation, the activation function of GPT-2 (Hendrycks & Gimpel 2016).

    x times a number from 0 to 1. This number is (1 + tanh(z)) / 2. z is the root of 2 / pi,
    times the sum of x and 0.044715 times the cube of x.

    Args:
        x: a float tensor of any shape, with numbers of any size.

    Returns a tensor of the shape of x.
    """
    raise NotImplementedError("your turn")
