"""How weights move: the optimizer, its parameter groups, and the learning rate over time."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from nanogpt.config import TrainConfig, choose


class ByHand(Optimizer):
    """What the hand-written optimizers share: settings, and a walk over all parameters."""

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
        raise NotImplementedError


class SGD(ByHand):
    """Stochastic gradient descent with momentum (Polyak 1964): downhill, with inertia.

    All weights share one learning rate, however different the scales of their gradients are; for
    Transformers that is a poor fit, which is what Adam mends. Decay is decoupled, as in AdamW.
    """

    def update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        momentum = state["momentum"].mul_(group["betas"][0]).add_(gradient)
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.sub_(group["lr"] * momentum)


class AdamW(ByHand):
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

    def __init__(self, params: Iterable[Any], **settings: Any) -> None:
        super().__init__(params, fused=True, **settings)


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
    "Muon"). Matrices have the group option "muon"; c_attn is three of them, one above the other.
    """

    def update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        if not group.get("muon"):
            super().update(parameter, gradient, group)
            return
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        momentum = state["momentum"].lerp_(gradient, 1 - 0.95)
        ahead = gradient.lerp(momentum, 0.95)  # Nesterov: where the momentum is about to be
        rows, columns = parameter.shape
        parts = 3 if rows == 3 * columns else 1
        step = orthogonalize(ahead.view(parts, rows // parts, columns)).reshape(rows, columns)
        # Tall matrices get longer steps, so that outputs change alike whatever the shape.
        scale = max(1.0, rows / parts / columns) ** 0.5
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.sub_(group["lr"] * scale * step)


OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "adamw": AdamW,
    "fused-adamw": FusedAdamW,
    "muon": Muon,
    "sgd": SGD,
}


def parameter_groups(model: nn.Module, config: TrainConfig) -> list[dict[str, Any]]:
    """Matrices and embeddings decay towards zero; biases and the gains of norms do not.

    A gain pulled to zero would switch its channel off, and a bias has no scale to keep in check.
    With Muon the matrices inside the blocks form a group of their own. `lr_factor` is by how much
    a group's learning rate differs from that of the schedule.
    """
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    turned = {p for name, p in named if config.optimizer == "muon" and is_block_matrix(name, p)}
    rest = [p for _, p in named if p not in turned]
    groups = [
        {"params": [p for p in rest if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
    ]
    if turned:
        matrices = {"params": [p for _, p in named if p in turned], "muon": True}
        factor = config.muon_lr / config.lr
        groups.append(matrices | {"weight_decay": config.weight_decay, "lr_factor": factor})
    return [{"lr_factor": 1.0} | group for group in groups]


def is_block_matrix(name: str, parameter: Tensor) -> bool:
    """Whether a parameter is a linear map inside a block, not an embedding, gain or bias."""
    return parameter.ndim == 2 and name.startswith("h.")


def build_optimizer(model: nn.Module, config: TrainConfig) -> Optimizer:
    """The optimizer that the settings name, for all parameters of the model."""
    return choose(OPTIMIZERS, "train.optimizer", config.optimizer)(
        parameter_groups(model, config),
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


# Each maps progress after the warm-up, 0 to 1, to a share of the way from min_lr (0) to lr (1).
SCHEDULES: dict[str, Callable[[float, TrainConfig], float]] = {
    "cosine": lambda progress, _: cosine(progress),
    "constant": lambda *_: 1.0,
    "trapezoidal": lambda progress, config: trapezoidal(progress, config.decay_share),
}


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
    share = choose(SCHEDULES, "train.schedule", config.schedule)(progress, config)
    return config.min_lr + share * (config.lr - config.min_lr)
