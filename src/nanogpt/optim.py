"""How weights move: the optimizer, its parameter groups, and the learning rate over time."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from nanogpt.config import TrainConfig, choose


class AdamW(Optimizer):
    """Adam with decoupled weight decay (Kingma & Ba 2015; Loshchilov & Hutter 2019), by hand.

    Each weight moves by the running mean of its gradient, divided by the root of the running mean
    of its square: by about lr per step, whatever the scale of the gradient. Decay shrinks the
    weights directly instead of passing through those means.

    The state has torch.optim.AdamW's names, so either optimizer continues the other's run.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self.update(parameter, parameter.grad, group)
        return loss

    def update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        """Move one parameter tensor, in place."""
        state = self.state[parameter]
        if not state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        state["step"] += 1
        step, (beta1, beta2) = state["step"].item(), group["betas"]
        mean = state["exp_avg"].lerp_(gradient, 1 - beta1)
        square = state["exp_avg_sq"].mul_(beta2).add_((1 - beta2) * gradient**2)
        # Both means start at zero; dividing by what they have seen so far removes that bias.
        mean_now = mean / (1 - beta1**step)
        square_now = square / (1 - beta2**step)
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.sub_(group["lr"] * mean_now / (square_now.sqrt() + group["eps"]))


class FusedAdamW(torch.optim.AdamW):
    """Torch's AdamW, which updates all tensors in one pass over memory."""

    def __init__(self, params: Iterable[Any], **settings: Any) -> None:
        super().__init__(params, fused=True, **settings)


OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {"adamw": AdamW, "fused-adamw": FusedAdamW}


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices and embeddings decay towards zero; biases and the gains of norms do not.

    A gain pulled to zero would switch its channel off, and a bias has no scale to keep in check.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


def build_optimizer(model: nn.Module, config: TrainConfig) -> Optimizer:
    """The optimizer that the settings name, for all parameters of the model."""
    return choose(OPTIMIZERS, "train.optimizer", config.optimizer)(
        parameter_groups(model, config.weight_decay),
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
    )


def cosine(progress: float) -> float:
    """Half a cosine wave from 1 down to 0 (Loshchilov & Hutter 2017): slow, fast, slow."""
    return 0.5 * (1 + math.cos(math.pi * progress))


def constant(progress: float) -> float:
    """No decay at all."""
    return 1.0


# Each maps progress after the warm-up, 0 to 1, to a share of the way from min_lr (0) to lr (1).
SCHEDULES: dict[str, Callable[[float], float]] = {"cosine": cosine, "constant": constant}


def learning_rate(step: int, config: TrainConfig) -> float:
    """The learning rate of a step, counted from 0: a linear climb, then the schedule.

    The climb gives Adam's means time to settle before large steps are taken with them. Its first
    step is already above zero, and step `warmup_steps` is the first with the full rate. The
    schedule ends at `max_steps`; from there on the rate stays at its end.

    >>> config = TrainConfig(lr=1.0, min_lr=0.1, warmup_steps=4, max_steps=24)
    >>> [round(learning_rate(step, config), 3) for step in (0, 3, 4, 14, 24, 99)]
    [0.2, 0.8, 1.0, 0.55, 0.1, 0.1]
    """
    if step < config.warmup_steps:
        return config.lr * (step + 1) / (config.warmup_steps + 1)
    length = max(1, config.max_steps - config.warmup_steps)
    progress = min(1.0, (step - config.warmup_steps) / length)
    share = choose(SCHEDULES, "train.schedule", config.schedule)(progress)
    return config.min_lr + share * (config.lr - config.min_lr)
