"""The optimizer: the mean of the gradients, divided by their typical size."""

from typing import Any

import torch
from torch import Tensor

from nanogpt.training.optim import HandWritten


class AdamW(HandWritten):
    """Adam with decoupled weight decay (Kingma & Ba 2015; Loshchilov & Hutter 2019), by hand.

    update moves one parameter tensor, and gives None. It is called once for each tensor in each
    step, without gradients being recorded.

    Args of update:
        parameter: the weights. Change them in place.
        gradient: the gradient of the loss, of the same shape. It stays as it is.
        group: the settings: group["lr"], group["betas"] (beta1, beta2), group["eps"] and
            group["weight_decay"]. They may change from step to step.

    self.state[parameter] is a dictionary for this tensor, empty at first. Keep in it, under
    these names: "step", the number of steps so far, including this one; "exp_avg", the running
    mean of the gradient; "exp_avg_sq", the running mean of its square. Both means start at
    zeros of the shape of parameter. A running mean keeps the share beta of itself and takes the
    share 1 - beta of what is new: beta1 for the gradient, beta2 for the square. With torch's
    names either optimizer continues the other's run.

    A step: first the weights shrink by the share lr * weight_decay of themselves. Then each
    weight moves against the running mean, by lr times the mean divided by the root of the mean
    square plus eps (eps is added to the root). Both means are corrected for their start at 0
    before that: each is divided by the sum of the shares of all gradients in it, 1 - beta to
    the power of the step. What is stored stays uncorrected.
    """

    def update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        raise NotImplementedError("your turn")
