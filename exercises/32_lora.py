"""A frozen linear layer, and a correction of low rank beside it."""

from torch import Tensor


def lora(
    x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float
) -> Tensor:
    """A linear layer and its correction of low rank (Hu et al. 2021): W x + bias + scale B (A x).

    To multiply B by A first would be right, but wasteful: the product is as large as W.

    Args:
        x: the vectors, (..., in), with any number of axes before the last one.
        weight: the matrix W, (out, in). `bias`: (out), or None if the layer has none.
        a: the matrix A, (r, in): it makes r numbers of each vector.
        b: the matrix B, (out, r).
        scale: the factor of the correction.

    Returns (..., out).

    >>> x = torch.tensor([1.0, 2.0])
    >>> a, b = torch.tensor([[1.0, 1.0]]), torch.tensor([[0.0], [1.0]])
    >>> lora(x, torch.eye(2), None, a, b, scale=10.0)  # A x = 3, so B (A x) = (0, 3)
    tensor([ 1., 32.])
    """
    raise NotImplementedError("your turn")
