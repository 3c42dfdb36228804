"""Lion (Chen et al. 2023): every weight moves by the same length, by the sign of the momentum."""

from typing import Any

import torch
from torch import Tensor

from nanogpt.training.optim import OPTIMIZERS, HandWritten


class Lion(HandWritten):
    state_per_weight = 1

    def update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state, (beta1, beta2) = self.state[parameter], group["betas"]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        direction = state["momentum"].lerp(gradient, 1 - beta1).sign()
        state["momentum"].lerp_(gradient, 1 - beta2)
        parameter.mul_(1 - group["lr"] * group["weight_decay"]).sub_(group["lr"] * direction)


OPTIMIZERS["lion"] = Lion
