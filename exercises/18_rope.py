"""Rotary positions (RoPE): rotate pairs of channels."""

from torch import Tensor


def apply_rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate each pair of channels (i, i + hs / 2) of x (..., T, hs).

    >>> x = torch.tensor([1.0, 5.0, 0.0, 0.0]).view(1, 1, 1, 4)
    >>> apply_rotary(x, torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0])).flatten().tolist()
    [0.0, 5.0, 1.0, 0.0]
    """
    raise NotImplementedError("your turn")
