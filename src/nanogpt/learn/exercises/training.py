"""Exercises about training and sampling: AdamW, the learning rate, top-k."""

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from nanogpt.config import TrainConfig
from nanogpt.generation import sampling
from nanogpt.learn.exercise import Exercise, Mistake
from nanogpt.learn.exercises.known import known, numbers
from nanogpt.training import optim


def drive_adamw(
    cls: type[optim.AdamW], weights: Tensor, gradients: list[Tensor], settings: dict[str, Any]
) -> list[Tensor]:
    """Take one step for each gradient, and collect the weights after each."""
    first = torch.nn.Parameter(weights.clone())
    second = torch.nn.Parameter(torch.zeros(2))  # each has a state of its own
    optimizer = cls([first, second], **settings)
    found = []
    for gradient in gradients:
        first.grad, second.grad = gradient.clone(), torch.tensor([1.0, -2.0])
        optimizer.step()
        found += [first.detach().clone(), second.detach().clone()]
    return found


def adamw_cases() -> list[tuple[Any, ...]]:
    one = torch.tensor([1.0])
    usual = {"lr": 0.1, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.0}
    gradients = [numbers(2, 3, seed=seed) for seed in range(4)]
    return [
        (one, [one], usual),
        (one, [one, -3 * one], usual),
        (one, [0 * one], {**usual, "weight_decay": 0.1}),  # decay alone
        (one, [one, 2 * one], {**usual, "weight_decay": 0.1}),
        (0 * one, [1e-4 * one, 3e-4 * one], {**usual, "eps": 1e-4}),  # eps shows
        (numbers(2, 3, seed=9), gradients, {**usual, "weight_decay": 0.1, "betas": (0.8, 0.95)}),
    ]


class OtherAdamW(optim.HandWritten):
    """AdamW whose parts can be done differently."""

    def update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = 0
            state["m"], state["v"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        self.count(state)
        beta1, beta2 = self.betas(group)
        lr, decay = group["lr"], group["weight_decay"]
        gradient = self.gradient(parameter, gradient, decay)
        state["m"] = beta1 * state["m"] + self.fresh(beta1) * gradient
        state["v"] = beta2 * state["v"] + self.fresh(beta2) * self.squared(gradient)
        m, v = self.corrected(state, beta1, beta2)
        step = self.step_size(m, v, lr, group["eps"])
        self.move(parameter, step, lr, decay)

    def count(self, state: dict[str, Any]) -> None:
        state["step"] += 1

    def betas(self, group: dict[str, Any]) -> tuple[float, float]:
        beta1, beta2 = group["betas"]
        return beta1, beta2

    def gradient(self, parameter: Tensor, gradient: Tensor, decay: float) -> Tensor:
        return gradient

    def fresh(self, beta: float) -> float:
        return 1 - beta

    def squared(self, gradient: Tensor) -> Tensor:
        return gradient**2

    def corrected(self, state: Any, beta1: float, beta2: float) -> tuple[Tensor, Tensor]:
        n = state["step"]
        return state["m"] / (1 - beta1**n), state["v"] / (1 - beta2**n)

    def step_size(self, m: Tensor, v: Tensor, lr: float, eps: float) -> Tensor:
        return lr * m / (v.sqrt() + eps)

    def move(self, parameter: Tensor, step: Tensor, lr: float, decay: float) -> None:
        parameter.mul_(1 - lr * decay).sub_(step)


class NoCorrection(OtherAdamW):
    def corrected(self, state: Any, beta1: float, beta2: float) -> tuple[Tensor, Tensor]:
        return state["m"], state["v"]


class CorrectsOneLate(OtherAdamW):
    def corrected(self, state: Any, beta1: float, beta2: float) -> tuple[Tensor, Tensor]:
        n = state["step"] + 1
        return state["m"] / (1 - beta1**n), state["v"] / (1 - beta2**n)


class AlwaysFirstStep(OtherAdamW):
    def corrected(self, state: Any, beta1: float, beta2: float) -> tuple[Tensor, Tensor]:
        return state["m"] / (1 - beta1), state["v"] / (1 - beta2)


class CoupledDecay(OtherAdamW):
    def gradient(self, parameter: Tensor, gradient: Tensor, decay: float) -> Tensor:
        return gradient + decay * parameter

    def move(self, parameter: Tensor, step: Tensor, lr: float, decay: float) -> None:
        parameter.sub_(step)


class DecayAfter(OtherAdamW):
    def move(self, parameter: Tensor, step: Tensor, lr: float, decay: float) -> None:
        parameter.sub_(step).mul_(1 - lr * decay)


class DecayWithoutRate(OtherAdamW):
    def move(self, parameter: Tensor, step: Tensor, lr: float, decay: float) -> None:
        parameter.mul_(1 - decay).sub_(step)


class NoDecay(OtherAdamW):
    def move(self, parameter: Tensor, step: Tensor, lr: float, decay: float) -> None:
        parameter.sub_(step)


class GrowingDecay(OtherAdamW):
    def move(self, parameter: Tensor, step: Tensor, lr: float, decay: float) -> None:
        parameter.mul_(1 + lr * decay).sub_(step)


class EpsInside(OtherAdamW):
    def step_size(self, m: Tensor, v: Tensor, lr: float, eps: float) -> Tensor:
        return lr * m / (v + eps).sqrt()


class NoRoot(OtherAdamW):
    def step_size(self, m: Tensor, v: Tensor, lr: float, eps: float) -> Tensor:
        return lr * m / (v + eps)


class BetasSwapped(OtherAdamW):
    def betas(self, group: dict[str, Any]) -> tuple[float, float]:
        beta1, beta2 = group["betas"]
        return beta2, beta1


class NotAveraged(OtherAdamW):
    def fresh(self, beta: float) -> float:
        return 1.0


class Uphill(OtherAdamW):
    def move(self, parameter: Tensor, step: Tensor, lr: float, decay: float) -> None:
        parameter.mul_(1 - lr * decay).add_(step)


class OneCounterForAll(OtherAdamW):
    counted = 0

    def count(self, state: dict[str, Any]) -> None:
        self.counted += 1
        state["step"] = self.counted


class Forgets(OtherAdamW):
    def update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        self.state[parameter].clear()
        super().update(parameter, gradient, group)


ADAMW = Exercise(
    name="adamw",
    title="The optimizer: the mean of the gradients, divided by their typical size.",
    reference=optim.AdamW,
    write=("update",),
    cases=adamw_cases,
    drive=drive_adamw,
    describe=lambda weights, gradients, settings: (
        f"weights {weights.tolist()}, {len(gradients)} steps with "
        f"{', '.join(f'{key}={value}' for key, value in settings.items())}"
    ),
    lesson=9,
    mistakes=[
        Mistake(
            "no-bias-correction",
            "The bias correction is missing. Both means start at zero, so they are too small at "
            "first: divide each by 1 - beta ** step.",
            NoCorrection,
        ),
        Mistake(
            "step-counted-twice",
            "The correction is one step ahead: the first step has the number 1, not 2.",
            CorrectsOneLate,
        ),
        Mistake(
            "step-never-counted",
            "Every step is corrected as if it were the first one. Count the steps in the state.",
            AlwaysFirstStep,
        ),
        Mistake(
            "coupled-decay",
            "The decay is added to the gradient. That is Adam with an L2 term: weights with large "
            "gradients hardly decay. AdamW shrinks the weights themselves.",
            CoupledDecay,
        ),
        Mistake(
            "decay-after",
            "The weights decay after the step, so the step decays, too. Decay first.",
            DecayAfter,
        ),
        Mistake(
            "decay-without-rate",
            "The decay ignores the learning rate. A step multiplies the weights by "
            "1 - lr * weight_decay, so the schedule controls the decay, too.",
            DecayWithoutRate,
        ),
        Mistake("no-decay", "The weights do not decay at all.", NoDecay),
        Mistake("decay-grows", "The decay makes the weights larger: multiply by 1 - lr * decay.",
                GrowingDecay),
        Mistake(
            "eps-inside", "eps is under the root. AdamW adds it to the root.", EpsInside
        ),
        Mistake(
            "no-root",
            "The mean is divided by the mean square. Divide it by the root: then a step is about "
            "lr, whatever the size of the gradient.",
            NoRoot,
        ),
        Mistake(
            "betas-swapped",
            "The betas are swapped: the first belongs to the mean of the gradients.", BetasSwapped,
        ),
        Mistake(
            "not-averaged",
            "The whole gradient is added to the means. To get a mean, add 1 - beta of it.",
            NotAveraged,
        ),
        Mistake("uphill", "It goes uphill: subtract the step, do not add it.", Uphill),
        Mistake(
            "one-counter-for-all",
            "The steps of all parameters are counted together. Each parameter tensor has its own "
            "state: count in self.state[parameter].",
            OneCounterForAll,
        ),
        Mistake(
            "state-lost",
            "The means start again at every step. Keep them in self.state[parameter].",
            Forgets,
        ),
    ],
    hints=(
        "Keep two running means for each weight: one of the gradient, one of its square.",
        "Correct both means for their start at zero. Let the weights decay. Then step by the mean "
        "divided by the root of the mean square.",
        "mean / (1 - beta1 ** step), square / (1 - beta2 ** step), parameter.mul_(1 - lr * decay), "
        "parameter.sub_(lr * mean / (square.sqrt() + eps)).",
    ),
)  # fmt: skip


def schedule_cases() -> list[tuple[Any, ...]]:
    config = TrainConfig(lr=1.0, min_lr=0.1, warmup_steps=4, max_steps=24)
    steps = [(step, config) for step in (0, 1, 3, 4, 5, 14, 20, 23, 24, 30)]
    flat = TrainConfig(lr=1.0, min_lr=0.1, warmup_steps=0, max_steps=10, schedule="constant")
    line = replace(config, schedule="trapezoidal", decay_share=0.5)
    return [*steps, (0, flat), (9, flat), (18, line)]


def rate_with(
    warm: Any = None, progress: Any = None, shape: Any = None, least: Any = None
) -> Any:  # fmt: skip
    """A schedule that does one thing differently."""

    def rate(step: int, config: TrainConfig) -> float:
        if step < config.warmup_steps:
            return (warm or (lambda s, c: c.lr * (s + 1) / (c.warmup_steps + 1)))(step, config)
        length = max(1, config.max_steps - config.warmup_steps)
        done = (progress or (lambda s, c, n: min(1.0, (s - c.warmup_steps) / n)))(
            step, config, length
        )
        share = shape(done) if shape and config.schedule == "cosine" else (
            optim.SCHEDULES[config.schedule](done, step, config)
        )  # fmt: skip
        low = config.min_lr if least is None or config.schedule != "cosine" else least
        return low + share * (config.lr - low)

    return rate


def always_cosine(step: int, config: TrainConfig) -> float:
    if step < config.warmup_steps:
        return optim.learning_rate(step, config)
    length = max(1, config.max_steps - config.warmup_steps)
    done = min(1.0, (step - config.warmup_steps) / length)
    return config.min_lr + optim.cosine(done) * (config.lr - config.min_lr)


SCHEDULE = Exercise(
    name="schedule",
    title="The learning rate: a linear warm-up, then half a cosine wave down.",
    reference=optim.learning_rate,
    cases=schedule_cases,
    describe=lambda step, config: (
        f"step {step} with lr={config.lr}, min_lr={config.min_lr}, warmup_steps="
        f"{config.warmup_steps}, max_steps={config.max_steps}, schedule={config.schedule!r}"
    ),
    lesson=9,
    mistakes=[
        Mistake(
            "zero-at-first",
            "The first step has a learning rate of 0, so it does nothing. The warm-up starts at "
            "lr / (warmup_steps + 1).",
            rate_with(warm=lambda s, c: c.lr * s / c.warmup_steps),
        ),
        Mistake(
            "top-too-early",
            "The last step of the warm-up already has the full rate. Step `warmup_steps` is the "
            "first step with the full rate.",
            rate_with(warm=lambda s, c: c.lr * (s + 1) / c.warmup_steps),
        ),
        Mistake(
            "no-warmup", "There is no warm-up: the first steps have the full rate.",
            rate_with(warm=lambda s, c: c.lr),
        ),
        Mistake(
            "no-fall",
            "The rate hardly falls after the warm-up, or not at all. Half a cosine wave takes it "
            "down to min_lr: cos(pi * progress).",
            rate_with(shape=lambda done: 1.0),
        ),
        Mistake(
            "degrees",
            "The cosine takes radians, but it gets degrees, so it jumps up and down. Half a wave "
            "is pi, not 180.",
            rate_with(shape=lambda done: 0.5 * (1 + math.cos(180 * done))),
        ),
        Mistake(
            "whole-wave",
            "It is a whole wave: the rate rises again towards the end. Half a wave is "
            "cos(pi * progress).",
            rate_with(shape=lambda done: 0.5 * (1 + math.cos(2 * math.pi * done))),
        ),
        Mistake(
            "quarter-wave",
            "It is a quarter of a wave, so it falls too late. Half a wave goes from 1 to -1.",
            rate_with(shape=lambda done: math.cos(math.pi * done / 2)),
        ),
        Mistake(
            "line", "The rate falls in a straight line. The schedule asks for a cosine.",
            rate_with(shape=lambda done: 1 - done),
        ),
        Mistake(
            "to-zero", "The rate falls to 0. It should end at min_lr.", rate_with(least=0.0)
        ),
        Mistake(
            "warmup-counted",
            "The warm-up counts as part of the fall, so the rate drops when the warm-up ends. "
            "Progress starts at 0 after the warm-up.",
            rate_with(progress=lambda s, c, n: min(1.0, s / c.max_steps)),
        ),
        Mistake(
            "length-with-warmup",
            "The fall takes max_steps steps, so the run ends before the rate is at min_lr. The "
            "warm-up is part of max_steps: subtract it.",
            rate_with(progress=lambda s, c, n: min(1.0, (s - c.warmup_steps) / c.max_steps)),
        ),
        Mistake(
            "rises-again",
            "The rate rises again after max_steps. From there on it should stay at min_lr.",
            rate_with(progress=lambda s, c, n: (s - c.warmup_steps) / n),
        ),
        Mistake(
            "always-cosine",
            "It is always a cosine. Look up config.schedule in SCHEDULES.", always_cosine
        ),
    ],
    hints=(
        "Two parts: the warm-up before step warmup_steps, and the fall after it.",
        "In the warm-up, step n has (n + 1) / (warmup_steps + 1) of the rate. After it, work out "
        "the progress through the rest of the run, from 0 to 1 and never more.",
        "`SCHEDULES[config.schedule](progress, step, config)` gives the share of the way from "
        "min_lr to lr that is left.",
    ),
)  # fmt: skip


def top_k_cases() -> list[tuple[Any, ...]]:
    return [
        (torch.tensor([[1.0, 3.0, 2.0]]), 1),
        (torch.tensor([[1.0, 3.0, 2.0]]), 2),
        (torch.tensor([[1.0, 3.0, 2.0]]), 0),
        (torch.tensor([[1.0, 3.0, 2.0]]), 3),
        (torch.tensor([[1.0, 3.0, 2.0]]), 9),
        (torch.tensor([[2.0, 1.0, 2.0, 2.0]]), 2),  # a tie with the second
        (torch.tensor([[-5.0, -4.0, -6.0]]), 1),
        (numbers(3, 8), 3),
    ]


def top_k_with(hidden: float = -math.inf, ties: bool = True, wrong_k: Any = None) -> Any:
    """A top-k that does one thing differently."""

    def kept(logits: Tensor, k: int) -> Tensor:
        if k == 0 or k >= logits.shape[-1]:
            return wrong_k(logits, k) if wrong_k else logits
        top = logits.topk(k)
        if ties:
            return torch.where(logits < top.values[:, -1:], hidden, logits)
        return torch.full_like(logits, hidden).scatter(-1, top.indices, top.values)

    return kept


def smallest_k(logits: Tensor, k: int) -> Tensor:
    return -sampling.keep_top_k(-logits, k)


def top_k_of_all(logits: Tensor, k: int) -> Tensor:
    if k == 0 or k >= logits.shape[-1]:
        return logits
    return logits.masked_fill(logits < logits.flatten().topk(k).values[-1], -math.inf)


def above_the_kth(logits: Tensor, k: int) -> Tensor:
    if k == 0 or k >= logits.shape[-1]:
        return logits
    return logits.masked_fill(logits <= logits.topk(k).values[:, -1:], -math.inf)


def unchecked_k(logits: Tensor, k: int) -> Tensor:
    return logits.masked_fill(logits < logits.topk(k).values[:, -1:], -math.inf) if k else logits


TOP_K = Exercise(
    name="top-k",
    title="Rule out all but the k likeliest tokens.",
    reference=sampling.keep_top_k,
    cases=top_k_cases,
    lesson=5,
    mistakes=[
        Mistake(
            "ties-dropped",
            "Some tokens as likely as the k-th are ruled out, and their ids decide which. Keep all "
            "tokens that are not below the k-th.",
            top_k_with(ties=False),
        ),
        Mistake(
            "kth-ruled-out", "The k-th itself is ruled out: compare with <, not with <=.",
            above_the_kth,
        ),
        Mistake(
            "hidden-as-zero",
            "Logits that are ruled out become 0. A logit of 0 still has a probability, and "
            "negative logits even gain. Set them to minus infinity.",
            top_k_with(hidden=0.0),
        ),
        Mistake(
            "small-number",
            "Logits that are ruled out get a large negative number. Only minus infinity has the "
            "probability 0.",
            top_k_with(hidden=-1e9),
        ),
        Mistake(
            "smaller-number",
            "Logits that are ruled out get a large negative number. Only minus infinity has the "
            "probability 0.",
            top_k_with(hidden=-1e4),
        ),
        Mistake(
            "k-of-zero",
            "k = 0 rules out everything. k = 0 switches top-k off: keep all tokens.",
            top_k_with(wrong_k=lambda x, k: x if k else torch.full_like(x, -math.inf)),
        ),
        Mistake(
            "k-too-large",
            "A k larger than the vocabulary raises an error. Keep all tokens then.",
            unchecked_k,
        ),
        Mistake("smallest", "It keeps the k least likely tokens.", smallest_k),
        Mistake(
            "over-all-rows",
            "It keeps the k likeliest tokens of the whole batch. Keep k tokens in each row.",
            top_k_of_all,
        ),
    ],
    hints=(
        "Find the k-th largest logit of each row. Everything below it is ruled out.",
        "logits.topk(k).values is sorted, the largest first. Keep a last axis of 1, so that the "
        "k-th logit broadcasts over its row.",
        "masked_fill(logits < kth, -math.inf). Before that, return the logits as they are for "
        "k = 0, and for k >= V.",
    ),
)  # fmt: skip
