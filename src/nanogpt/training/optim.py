"""How weights move: the optimizer, its parameter groups, and the learning rate over time."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from nanogpt.config import TrainConfig, choose
from nanogpt.model.gpt import GPT
from nanogpt.model.layers import StackedLinear

Groups = list[dict[str, Any]]


def decay_groups(model: GPT, config: TrainConfig, apart: Iterable[Tensor] = ()) -> Groups:
    """The parameters in two groups: matrices and embeddings, which may decay, and all others.

    A gain pulled to zero would switch its channel off, and a bias has no scale to keep in check.
    Parameters that are `apart`, or frozen, are in neither group. `lr_factor` is by how much a
    group's learning rate differs from that of the schedule.
    """
    left_out = set(apart)
    rest = [p for p in model.parameters() if p.requires_grad and p not in left_out]
    matrices, others = [p for p in rest if p.ndim >= 2], [p for p in rest if p.ndim < 2]
    return [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]


class HandWritten(Optimizer):
    """What the hand-written optimizers share: settings, and a walk over all parameters."""

    state_per_weight = 2  # numbers that it keeps for each weight

    @classmethod
    def parameter_groups(cls, model: GPT, config: TrainConfig) -> Groups:
        """Parameters that are treated alike, with what is particular to them."""
        return decay_groups(model, config)

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 1e-2,
    ) -> None:  # fmt: skip
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self.update(parameter, parameter.grad, group)

    def update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        """Move one parameter tensor, in place."""
        raise NotImplementedError


class SGD(HandWritten):
    """Stochastic gradient descent with momentum (Polyak 1964): downhill, with inertia.

    All weights share one learning rate, however different the scales of their gradients are; for
    Transformers that is a poor fit. Adam was made for this. Decay is decoupled, as in AdamW.
    """

    state_per_weight = 1

    def update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        momentum = state["momentum"].mul_(group["betas"][0]).add_(gradient)
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.sub_(group["lr"] * momentum)


class AdamW(HandWritten):
    """Adam with decoupled weight decay (Kingma & Ba 2015; Loshchilov & Hutter 2019), by hand.

    Each weight moves by the running mean of its gradient, divided by the root of the running mean
    of its square: by about lr per step, whatever the scale of the gradient. Decay shrinks the
    weights directly instead of passing through those means.

    The state has torch.optim.AdamW's names, so either optimizer continues the other's run.
    """

    def update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
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

    state_per_weight, parameter_groups = AdamW.state_per_weight, AdamW.parameter_groups

    def __init__(
        self, params: Iterable[Any], lr: float, betas: tuple[float, float], eps: float
    ) -> None:
        super().__init__(params, lr, betas, eps, fused=True)


def orthogonalize(matrix: Tensor, steps: int = 5) -> Tensor:
    """About the nearest matrix whose singular values are all 1: (..., N, M) -> (..., N, M).

    Newton and Schulz's iteration, five rounds of a polynomial that pushes every singular value
    towards 1, tuned for speed over precision: they end between 0.7 and 1.2 (Jordan et al. 2024),
    but for those that began a hundred times smaller than the largest.
    Only matrix products, so it is fast wherever those are.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrix.shape[-2] > matrix.shape[-1]
    x = matrix.mT if tall else matrix
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon(AdamW):
    """Momentum, made orthogonal, for the matrices inside the blocks; AdamW for everything else.

    A gradient matrix is dominated by a few directions, and a step along it moves little else.
    Setting all of its singular values to 1 moves every direction alike (Jordan et al. 2024,
    "Muon"). A layer such as c_attn is several matrices: `rows` says how many rows each has.
    """

    @classmethod
    def parameter_groups(cls, model: GPT, config: TrainConfig) -> Groups:
        """The matrices inside the blocks, each with its rows, after all the rest."""
        rows = {m.weight: m.rows for m in model.h.modules() if isinstance(m, StackedLinear)}
        matrices = [p for p in model.h.parameters() if p.ndim == 2 and p.requires_grad]
        rate, decay = config.muon_lr / config.lr, config.weight_decay
        ours = {"weight_decay": decay, "lr_factor": rate, "state_per_weight": 1}
        groups = [{"params": [p], "rows": rows.get(p, [len(p)]), **ours} for p in matrices]
        return decay_groups(model, config, apart=matrices) + groups

    def update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        if "rows" not in group:
            super().update(parameter, gradient, group)
            return
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        momentum = state["momentum"].lerp_(gradient, 1 - 0.95)
        ahead = gradient.lerp(momentum, 0.95)  # Nesterov: where the momentum is about to be
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.sub_(self.way(parameter, ahead, group))

    def way(self, parameter: Tensor, ahead: Tensor, group: dict[str, Any]) -> Tensor:
        """How far each number of a layer goes: its matrices one by one, made orthogonal."""
        matrices = ahead.split(group["rows"])
        # Tall matrices get longer steps, so that outputs change alike whatever the shape.
        ways = [max(1.0, m.shape[0] / m.shape[1]) ** 0.5 * orthogonalize(m) for m in matrices]
        return group["lr"] * torch.cat(ways)


OPTIMIZERS: dict[str, Any] = {
    "adamw": AdamW,
    "fused-adamw": FusedAdamW,
    "muon": Muon,
    "sgd": SGD,
}


def build_optimizer(model: GPT, config: TrainConfig) -> Optimizer:
    """The optimizer that the settings name, for all parameters of the model."""
    kind = choose(OPTIMIZERS, "train.optimizer", config.optimizer)
    return kind(
        kind.parameter_groups(model, config),
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
    )


def cosine(progress: float) -> float:
    """Half a cosine wave from 1 down to 0 (Loshchilov & Hutter 2017): slow, fast, slow."""
    return 0.5 * (1 + math.cos(math.pi * progress))


def trapezoidal(progress: float, decay_share: float) -> float:
    """Stay at the top, then fall in a straight line (Zhai et al. 2022; Hägele et al. 2024).

    Nothing but the fall needs to know where the run ends, and high rates last longer.
    """
    return min(1.0, (1 - progress) / decay_share)


# Each gets the progress after the warm-up, 0 to 1, the step, and the settings; it gives how far the
# rate is on its way from min_lr (0) to lr (1).
SCHEDULES: dict[str, Callable[[float, int, TrainConfig], float]] = {
    "cosine": lambda progress, step, config: cosine(progress),
    "constant": lambda progress, step, config: 1.0,
    "trapezoidal": lambda progress, step, config: trapezoidal(progress, config.decay_share),
}


def learning_rate(step: int, config: TrainConfig) -> float:
    """The learning rate of a step, counted from 0: a linear climb if any, then the schedule.

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
    share = choose(SCHEDULES, "train.schedule", config.schedule)(progress, step, config)
    return config.min_lr + share * (config.lr - config.min_lr)
