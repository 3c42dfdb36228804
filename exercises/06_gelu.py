"""GELU, the activation function of GPT-2."""

from torch import Tensor


def gelu(x: Tensor) -> Tensor:
    """A smooth ReLU: x times the share of a normal distribution below x (Hendrycks & Gimpel 2016).

    GPT-2 uses this approximation with tanh. It differs from the exact form by up to 5e-4, enough
    to show in the logits.
    """
    raise NotImplementedError("your turn")
