"""The optimizer: the mean of the gradients, divided by their typical size."""

from typing import Any

import torch
from torch import Tensor

from nanogpt.training.optim import HandWritten


class AdamW(HandWritten):
    """Adam with decoupled weight decay (Kingma & Ba 2015; Loshchilov & Hutter 2019), by hand.

    Each weight moves by the running mean of its gradient, divided by the root of the running mean
    of its square: by about lr per step, whatever the scale of the gradient. Decay shrinks the
    weights directly instead of passing through those means.

    The state has torch.optim.AdamW's names, so either optimizer continues the other's run.
    """

    def update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        raise NotImplementedError("your turn")
