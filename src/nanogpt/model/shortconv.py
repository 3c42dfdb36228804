"""A short causal convolution: what the last few tokens say, whatever attention looks at.

Axes: B batch, T query time, S key time, nh heads, hs head size.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanogpt.config import ModelConfig

REACH = 8  # tokens, the token itself included


class ShortConvolution(nn.Module):
    """In each head a learned weight for each of the last few distances.

    The letters right before a token say most about the one after it. Softmax has to learn where
    they are, from positions; a weight for each distance simply takes them. Dong et al. (2022,
    "CSWin") add such a convolution of the values to attention, in images; So et al. (2021,
    "Primer") found one for texts by a search.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        # Three axes: these are numbers for each head, and not a matrix that Muon could turn.
        self.taps = nn.Parameter(torch.zeros(config.n_head, REACH, 1))

    def weights(self, new: int, known: int, mask: Tensor | None) -> Tensor:
        """The weights that the last `new` of `known` tokens give: (nh, T, S), or (B, nh, T, S)."""
        distance = torch.arange(known - new, known)[:, None] - torch.arange(known)  # (T, S)
        near = (distance >= 0) & (distance < REACH)
        weights = self.taps[:, distance.clamp(0, REACH - 1), 0] * near.to(self.taps.device)
        return weights if mask is None else weights * visible(mask)

    def forward(self, v: Tensor, new: int, mask: Tensor | None) -> Tensor:
        """These weights times the values (B, nh, S, hs): (B, nh, T, hs)."""
        if mask is not None:
            return self.weights(new, v.shape[-2], mask).to(v.dtype) @ v  # (B, nh, T, hs)
        # The same without a matrix. Before the first token there is nothing.
        reached = v[..., -(new + REACH - 1) :, :]
        padded = F.pad(reached, (0, 0, new + REACH - 1 - reached.shape[-2], 0))
        padded = padded.contiguous(memory_format=torch.channels_last)  # twice as fast on a CPU
        kernel = self.taps.to(v.dtype).flip(1)[:, None]
        return F.conv2d(padded, kernel, groups=len(kernel))


def visible(mask: Tensor) -> Tensor:
    """Where a query may look, of a mask of True and False or of numbers added to scores."""
    return mask if mask.dtype == torch.bool else mask > -math.inf
