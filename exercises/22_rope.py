"""Rotary positions (RoPE): rotate pairs of channels."""

from torch import Tensor


def apply_rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate pairs of channels, each by its own angle (Su et al. 2021).

    Channel i is paired with channel i + hs / 2: together they are a point in the plane. It is
    rotated around the origin, counterclockwise: a point (1, 0) goes to (cos, sin).

    Args:
        x: queries or keys (B, nh, T, hs); hs is even. It stays as it is.
        cos, sin: the cosines and sines of the angles, one for each pair. Their last axis has
            hs / 2 numbers, and with the axes before it they broadcast with x: (hs / 2,),
            (T, hs / 2), or (B, 1, T, hs / 2) where rows stand at different positions.

    Returns a tensor of the shape of x.

    >>> x = torch.tensor([1.0, 5.0, 0.0, 0.0]).view(1, 1, 1, 4)
    >>> apply_rotary(x, torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0])).flatten().tolist()
    [0.0, 5.0, 1.0, 0.0]
    """
    raise NotImplementedError("your turn")
