"""Exercises about training: AdamW and the learning rate."""

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from nanogpt.config import TrainConfig
from nanogpt.learn.exercise import Exercise, Mistake
from nanogpt.learn.exercises.known import known, numbers
from nanogpt.learn.exercises.tasks import TASKS
from nanogpt.training import optim

STATE = ("step", "exp_avg", "exp_avg_sq")  # torch's names: either optimizer continues the other's


def drive_adamw(
    cls: type[optim.AdamW], weights: Tensor, gradients: list[Tensor], settings: dict[str, Any],
    state: bool = False, lrs: tuple[float, ...] = (),
) -> Any:  # fmt: skip
    """Take one step for each gradient; the weights after each, or the state after all of them.

    With `lrs` each step has its own learning rate, as with a schedule, and the second parameter is
    in a group of its own, whose weight decay is another.
    """
    first = torch.nn.Parameter(weights.clone())
    second = torch.nn.Parameter(torch.zeros(2))  # each has a state of its own
    groups = [{"params": [first]}, {"params": [second], "weight_decay": 0.5}]
    optimizer = cls(groups if lrs else [first, second], **settings)
    found: list[Any] = []
    for number, gradient in enumerate(gradients):
        for group in optimizer.param_groups if lrs else ():
            group["lr"] = lrs[number]
        first.grad, second.grad = gradient.clone(), torch.tensor([1.0, -2.0])
        optimizer.step()
        found += [first.detach().clone(), second.detach().clone()]
        if not torch.equal(first.grad, gradient):
            found.append("the gradient was changed")
    if not state:
        return found
    kept = {name: optimizer.state[first].get(name, "missing") for name in STATE}
    return {**kept, "step": int(kept["step"])} if kept["step"] != "missing" else kept


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
        (one, [one, 2 * one], usual, True),
        (one, 3 * [one], {**usual, "weight_decay": 0.1}, False, (0.1, 0.05, 0.2)),
        (2 * one, 2 * [one], {**usual, "betas": (0.5, 0.5), "eps": 0.1, "weight_decay": 0.1}),
    ]


class OtherAdamW(optim.HandWritten):
    """AdamW whose parts can be done differently."""

    def update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = 0
            state["exp_avg"], state["exp_avg_sq"] = (
                torch.zeros_like(parameter),
                torch.zeros_like(parameter),
            )
        self.count(state)
        beta1, beta2 = self.betas(group)
        lr, decay = group["lr"], group["weight_decay"]
        gradient = self.gradient(parameter, gradient, decay)
        state["exp_avg"] = beta1 * state["exp_avg"] + self.fresh(beta1) * gradient
        state["exp_avg_sq"] = beta2 * state["exp_avg_sq"] + self.fresh(beta2) * self.squared(
            gradient
        )
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
        return state["exp_avg"] / (1 - beta1**n), state["exp_avg_sq"] / (1 - beta2**n)

    def step_size(self, m: Tensor, v: Tensor, lr: float, eps: float) -> Tensor:
        return lr * m / (v.sqrt() + eps)

    def move(self, parameter: Tensor, step: Tensor, lr: float, decay: float) -> None:
        parameter.mul_(1 - lr * decay).sub_(step)


class NoCorrection(OtherAdamW):
    def corrected(self, state: Any, beta1: float, beta2: float) -> tuple[Tensor, Tensor]:
        return state["exp_avg"], state["exp_avg_sq"]


class CorrectsOneLate(OtherAdamW):
    def corrected(self, state: Any, beta1: float, beta2: float) -> tuple[Tensor, Tensor]:
        n = state["step"] + 1
        return state["exp_avg"] / (1 - beta1**n), state["exp_avg_sq"] / (1 - beta2**n)


class AlwaysFirstStep(OtherAdamW):
    def corrected(self, state: Any, beta1: float, beta2: float) -> tuple[Tensor, Tensor]:
        return state["exp_avg"] / (1 - beta1), state["exp_avg_sq"] / (1 - beta2)


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


class OtherNames(OtherAdamW):
    def update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        known = {name: state.pop(f"my_{name}") for name in STATE if f"my_{name}" in state}
        state.update(known)
        super().update(parameter, gradient, group)
        for name in STATE:
            state[f"my_{name}"] = state.pop(name)


class Forgets(OtherAdamW):
    def update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        self.state[parameter].clear()
        super().update(parameter, gradient, group)


def divisor(beta: float, n: float) -> float:
    """1 - beta ** step with steps from 0; as Python has it, a division by 0 raises an error."""
    if n == 1:
        raise ZeroDivisionError
    return 1 - beta ** (n - 1)


def adamw_with(
    settings: Any = lambda self, group: group,
    seen: Any = lambda p, g, s: g,
    mean: Any = lambda m, g, beta: beta * m + (1 - beta) * g,
    square: Any = lambda v, g, beta: beta * v + (1 - beta) * g**2,
    correct_m: Any = lambda m, beta, n: m / (1 - beta**n),
    correct_v: Any = lambda v, beta, n: v / (1 - beta**n),
    step: Any = lambda m, v, s: s["lr"] * m / (v.sqrt() + s["eps"]),
    moved: Any = lambda p, step, s: p * (1 - s["lr"] * s["weight_decay"]) - step,
    kept: Any = lambda old, corrected: old,
    put: Any = lambda p, new: p.copy_(new),
    counted: Any = lambda n: n + 1,
) -> type[optim.HandWritten]:  # fmt: skip
    """Another AdamW whose parts can be done differently."""

    class Other(optim.HandWritten):
        def update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
            s, state = settings(self, group), self.state[parameter]
            if not state:
                state["step"] = torch.tensor(0.0)
                state["exp_avg"] = torch.zeros_like(parameter)
                state["exp_avg_sq"] = torch.zeros_like(parameter)
            (beta1, beta2), g = s["betas"], seen(parameter, gradient, s)
            state["step"] = counted(state["step"])
            n = state["step"].item()
            m, v = mean(state["exp_avg"], g, beta1), square(state["exp_avg_sq"], g, beta2)
            m_now, v_now = correct_m(m, beta1, n), correct_v(v, beta2, n)
            state["exp_avg"], state["exp_avg_sq"] = kept(m, m_now), kept(v, v_now)
            put(parameter, moved(parameter, step(m_now, v_now, s), s))

    return Other


ADAMW = Exercise(
    name="adamw",
    title="The optimizer: the mean of the gradients, divided by their typical size.",
    task=TASKS["adamw"],
    reference=optim.AdamW,
    write=("update",),
    cases=adamw_cases,
    drive=drive_adamw,
    describe=lambda weights, gradients, settings, state=False, lrs=(): (
        f"{'the state after ' if state else ''}weights {weights.tolist()}, {len(gradients)} steps "
        f"with {', '.join(f'{key}={value}' for key, value in settings.items())}"
        + (f", then lr={lrs}, the second parameter in another group" if lrs else "")
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
        Mistake(
            "other-names",
            "The steps are right, but the state has other names than torch's: step, exp_avg and "
            "exp_avg_sq. With these names either optimizer continues a run of the other.",
            OtherNames,
        ),
        known(
            "parameter-rebound",
            "The weights do not change: `parameter = ...` gives the name to a new tensor. Change "
            "the tensor itself, with parameter.mul_, sub_ or copy_, or with -=.",
            adamw_with(put=lambda p, new: None),
        ),
        known(
            "rebound-after-decay",
            "Only the decay changes the weights. `parameter = parameter - ...` gives the name to a "
            "new tensor: subtract in place, with sub_ or -=.",
            adamw_with(moved=lambda p, step, s: p * (1 - s["lr"] * s["weight_decay"])),
        ),
        known(
            "no-decay",
            "The weights do not decay at all.",
            adamw_with(moved=lambda p, step, s: p - step),
        ),
        known(
            "gradient-changed",
            "It changes the gradient. Work with a copy: others may still need it.",
            adamw_with(square=lambda v, g, beta: beta * v + (1 - beta) * g.mul_(g)),
            adamw_with(seen=lambda p, g, s: g.add_(s["weight_decay"] * p)),
        ),
        known(
            "defaults-for-group",
            "It takes lr, betas, eps or weight_decay from self.defaults. The group has the ones "
            "that count now: the schedule changes its lr, and groups decay differently.",
            adamw_with(settings=lambda self, group: self.defaults),
            adamw_with(settings=lambda self, group: {**group, "lr": self.defaults["lr"]}),
            adamw_with(settings=lambda self, group: self.param_groups[0]),
            adamw_with(settings=lambda self, group: {
                **group, "weight_decay": self.defaults["weight_decay"]}),
        ),
        known(
            "one-correction",
            "Only one of the two means is corrected. Both start at zero: divide the mean by "
            "1 - beta1 ** step and the mean square by 1 - beta2 ** step.",
            adamw_with(correct_v=lambda v, beta, n: v),
            adamw_with(correct_m=lambda m, beta, n: m),
        ),
        known(
            "correction-without-power",
            "The beta is not taken to the power of the step. The correction is 1 - beta ** step.",
            adamw_with(correct_m=lambda m, beta, n: m / (1 - beta * n),
                       correct_v=lambda v, beta, n: v / (1 - beta * n)),
        ),
        known(
            "correction-multiplied",
            "It multiplies by the correction. Both means are too small at first: divide by "
            "1 - beta ** step.",
            adamw_with(correct_m=lambda m, beta, n: m * (1 - beta**n),
                       correct_v=lambda v, beta, n: v * (1 - beta**n)),
        ),
        known(
            "corrected-means-kept",
            "The corrected means are stored and corrected again in the next step. Store the means "
            "as they are; the corrected ones are for this step alone.",
            adamw_with(kept=lambda old, corrected: corrected),
        ),
        known(
            "step-from-zero",
            "The first step has the number 0, so 1 - beta ** 0 is 0, and it divides by zero. Count "
            "first: the first step has the number 1.",
            adamw_with(correct_m=lambda m, beta, n: m / (1 - beta ** (n - 1)),
                       correct_v=lambda v, beta, n: v / (1 - beta ** (n - 1))),
            adamw_with(correct_m=lambda m, beta, n: m / divisor(beta, n),
                       correct_v=lambda v, beta, n: v / divisor(beta, n)),
        ),
        known(
            "square-not-squared",
            "The second mean is that of the gradient. It is the mean of its square.",
            adamw_with(square=lambda v, g, beta: beta * v + (1 - beta) * g),
            adamw_with(square=lambda v, g, beta: beta * v + (1 - beta) * g.abs()),
        ),
        known(
            "square-of-the-whole",
            "1 - beta2 is squared, too. Square the gradient alone.",
            adamw_with(square=lambda v, g, beta: beta * v + ((1 - beta) * g) ** 2),
        ),
        known(
            "weights-of-the-mean-swapped",
            "The old mean and the new gradient have each other's weights: beta belongs to the old "
            "mean, 1 - beta to the gradient.",
            adamw_with(mean=lambda m, g, beta: (1 - beta) * m + beta * g,
                       square=lambda v, g, beta: (1 - beta) * v + beta * g**2),
        ),
        known(
            "one-beta",
            "Both means use the same beta. The first belongs to the mean, the second to the mean "
            "square.",
            adamw_with(settings=lambda self, group: {**group, "betas": (group["betas"][0],) * 2}),
            adamw_with(settings=lambda self, group: {**group, "betas": (group["betas"][1],) * 2}),
        ),
        known(
            "betas-ignored", "`betas` of the group is not used: other numbers stand there.",
            *(adamw_with(settings=lambda self, group, betas=betas: {**group, "betas": betas})
              for betas in ((0.9, 0.999), (0.9, 0.99), (0.9, 0.95))),
        ),
        known(
            "no-eps", "eps is missing: a weight without gradients would be divided by zero.",
            adamw_with(step=lambda m, v, s: s["lr"] * m / v.sqrt()),
        ),
        known(
            "eps-ignored", "`eps` of the group is not used: another number stands there.",
            adamw_with(settings=lambda self, group: {**group, "eps": 1e-8}),
        ),
        known(
            "eps-inside", "eps is under the root. AdamW adds it to the root.",
            adamw_with(step=lambda m, v, s: s["lr"] * m / torch.sqrt(v + s["eps"] ** 2)),
        ),
        known(
            "eps-before-correction",
            "eps is added before the correction of the mean square. Correct first, take the root, "
            "then add eps.",
            adamw_with(
                correct_v=lambda v, beta, n: (v, beta, n),
                step=lambda m, v, s: (
                    s["lr"] * math.sqrt(1 - v[1] ** v[2]) * m / (v[0].sqrt() + s["eps"])
                ),
            ),
            adamw_with(
                correct_v=lambda v, beta, n: ((v.sqrt() + 1e-4) / (1 - beta**n) ** 0.5) ** 2,
                step=lambda m, v, s: s["lr"] * m / v.sqrt(),
            ),
        ),
        known(
            "lr-ignored", "The learning rate is not used in the step.",
            adamw_with(step=lambda m, v, s: m / (v.sqrt() + s["eps"])),
        ),
        known(
            "decay-with-lr-squared",
            "The learning rate counts twice in the decay. Shrink by 1 - lr * weight_decay.",
            adamw_with(moved=lambda p, step, s: p * (1 - s["lr"] ** 2 * s["weight_decay"]) - step),
        ),
        known(
            "decay-by-a-constant",
            "The same number is subtracted from every weight. Decay is a share of the weight: "
            "multiply it by 1 - lr * weight_decay.",
            adamw_with(moved=lambda p, step, s: p - s["lr"] * s["weight_decay"] - step),
        ),
        known(
            "decay-multiplied",
            "The weights are multiplied by lr * weight_decay. Multiply by 1 minus that.",
            adamw_with(moved=lambda p, step, s: p * s["lr"] * s["weight_decay"] - step),
        ),
        known(
            "gradient-for-mean",
            "The step uses the gradient itself. Use its running mean.",
            adamw_with(mean=lambda m, g, beta: (1 - beta) * g / (1 - beta),
                       correct_m=lambda m, beta, n: m),
        ),
        known(
            "largest-square",
            "The largest mean square so far is kept (AMSGrad). Adam uses the present one.",
            adamw_with(square=lambda v, g, beta: torch.maximum(v, beta * v + (1 - beta) * g**2)),
        ),
        known(
            "momentum-alone",
            "The step is the mean of the gradients, as in SGD with momentum. Divide it by the root "
            "of the mean square.",
            adamw_with(step=lambda m, v, s: s["lr"] * m),
        ),
        known(
            "norm-for-square",
            "One number, the size of the whole gradient, divides all weights. Each weight has its "
            "own mean square.",
            adamw_with(square=lambda v, g, beta: beta * v + (1 - beta) * (g**2).mean()),
            adamw_with(square=lambda v, g, beta: beta * v + (1 - beta) * (g**2).sum()),
        ),
        known(
            "divided-by-the-square-of-the-root",
            "The mean is multiplied by the root. Divide by it.",
            adamw_with(step=lambda m, v, s: s["lr"] * m * (v.sqrt() + s["eps"])),
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
    steps = [(step, config) for step in (0, 1, 3, 4, 5, 14, 20, 23, 24, 27, 30)]
    flat = TrainConfig(lr=1.0, min_lr=0.1, warmup_steps=0, max_steps=10, schedule="constant")
    line = replace(config, schedule="trapezoidal", decay_share=0.5)
    short = TrainConfig(lr=1.0, min_lr=0.1, warmup_steps=4, max_steps=4)
    cold = TrainConfig(lr=1.0, min_lr=0.1, warmup_steps=0, max_steps=10)
    flat_warm = replace(flat, warmup_steps=4, max_steps=24)
    return [
        *steps,
        (0, flat),
        (9, flat),
        (12, flat),
        (18, line),
        (8, line),
        (23, line),
        (30, line),
        (2, short),
        (5, short),
        (0, cold),
        (5, cold),
        (2, flat_warm),
        (30, flat_warm),
        (10, replace(config, min_lr=0.0)),
        (2, replace(config, lr=0.5)),
        (14, replace(config, lr=0.5)),
    ]


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


def rate_as(
    low: Any = lambda share, c: c.min_lr + share * (c.lr - c.min_lr),
    done: Any = lambda s, c: min(1.0, (s - c.warmup_steps) / max(1, c.max_steps - c.warmup_steps)),
    shares: Any = lambda done, s, c: optim.SCHEDULES[c.schedule](done, s, c),
    end: Any = None,
    warm: Any = lambda s, c: c.lr * (s + 1) / (c.warmup_steps + 1),
    in_warmup: Any = lambda s, c: s < c.warmup_steps,
    shift: int = 0,
) -> Any:
    """A schedule of other parts; `end` gives the rate from max_steps on."""

    def rate(step: int, config: TrainConfig) -> Any:
        step += shift
        if in_warmup(step, config):
            return warm(step, config)
        if end and step >= config.max_steps:
            return end(config)
        return low(shares(done(step, config), step, config), config)

    return rate


def only(known: dict[str, Any]) -> Any:
    """Shares of the schedules that somebody wrote, each by itself."""
    return lambda done, s, c: known[c.schedule](done)


def with_cosine(wave: Any) -> Any:
    """The package's shares, but for another wave in place of the cosine."""
    return lambda done, s, c: (
        wave(done) if c.schedule == "cosine" else optim.SCHEDULES[c.schedule](done, s, c)
    )


def half_wave(done: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * done))


SCHEDULE = Exercise(
    name="schedule",
    title="The learning rate: a linear warm-up, then half a cosine wave down.",
    task=TASKS["schedule"],
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
        known(
            "zero-at-first",
            "The first step has a learning rate of 0, so it does nothing. The warm-up starts at "
            "lr / (warmup_steps + 1).",
            rate_as(warm=lambda s, c: c.lr * s / (c.warmup_steps + 1)),
            rate_as(warm=lambda s, c: c.lr * s / max(1, c.warmup_steps)),
        ),
        known(
            "floor",
            "min_lr cuts off a wave that falls to 0. The wave itself ends at min_lr: "
            "min_lr + share * (lr - min_lr).",
            rate_as(lambda share, c: max(c.min_lr, share * c.lr)),
        ),
        known(
            "lr-added-on-top",
            "The wave has the height lr on top of min_lr, so it starts above lr. Its height is "
            "lr - min_lr.",
            rate_as(lambda share, c: c.min_lr + share * c.lr),
        ),
        known(
            "min_lr-missing", "min_lr is not added: the rate falls to 0 or below it.",
            rate_as(lambda share, c: share * (c.lr - c.min_lr)),
            rate_as(lambda share, c: share * c.lr),
        ),
        known(
            "upside-down", "The rate rises from min_lr to lr. It should fall.",
            rate_as(lambda share, c: c.lr - share * (c.lr - c.min_lr)),
            rate_as(shares=lambda done, s, c: 0.5 * (1 - math.cos(math.pi * done))
                    if c.schedule == "cosine" else optim.SCHEDULES[c.schedule](done, s, c)),
        ),
        known(
            "division-by-zero",
            "Where the warm-up is as long as the run it divides by zero. Divide by at least 1.",
            rate_as(done=lambda s, c: min(
                1.0, (s - c.warmup_steps) / (c.max_steps - c.warmup_steps))),
        ),
        known(
            "division-by-no-warmup",
            "Without a warm-up it divides by zero. Divide by warmup_steps + 1, or only in the "
            "warm-up.",
            lambda step, config: (
                step / config.warmup_steps, optim.learning_rate(step, config))[1],
        ),
        known(
            "every-end-at-min_lr",
            "From max_steps on the rate is min_lr, whatever the schedule. It stays where the "
            "schedule ends; a constant one ends at lr.",
            rate_as(end=lambda c: c.min_lr),
        ),
        known(
            "zero-at-the-end",
            "After max_steps the rate is 0. It stays where the schedule ends.",
            rate_as(end=lambda c: 0.0),
        ),
        known(
            "lr-at-the-end",
            "After max_steps the rate is lr again. It stays where the schedule ends.",
            rate_as(end=lambda c: c.lr),
        ),
        known(
            "always-cosine",
            "It is always a cosine. Look up config.schedule in SCHEDULES.",
            rate_as(shares=lambda done, s, c: 1.0 if c.schedule == "constant" else half_wave(done)),
            rate_as(shares=lambda done, s, c: half_wave(done)),
            rate_as(shares=lambda done, s, c: half_wave(done), end=lambda c: c.min_lr),
        ),
        known(
            "schedules-missing",
            "It knows some schedules only. SCHEDULES of nanogpt.training.optim has them all: "
            "SCHEDULES[config.schedule](progress, step, config).",
            rate_as(shares=only({"cosine": half_wave})),
            rate_as(shares=only({"cosine": half_wave, "constant": lambda done: 1.0})),
        ),
        known(
            "no-pi", "The cosine gets the progress alone. Half a wave is pi times the progress.",
            rate_as(shares=with_cosine(lambda done: 0.5 * (1 + math.cos(done)))),
        ),
        known(
            "degrees",
            "The cosine takes radians, but it gets degrees, so it jumps up and down. Half a wave "
            "is pi, not 180.",
            rate_as(shares=with_cosine(
                lambda done: 0.5 * (1 + math.cos(math.degrees(math.pi * done))))),
            rate_as(shares=with_cosine(
                lambda done: 0.5 * (1 + math.cos(math.radians(math.pi * done))))),
        ),
        known(
            "no-half",
            "The factor 0.5 is missing: 1 + cos(...) goes from 2 to 0.",
            rate_as(shares=with_cosine(lambda done: 1 + math.cos(math.pi * done))),
        ),
        known(
            "no-one",
            "The 1 is missing: 0.5 * (1 + cos(...)) goes from 1 to 0. The cosine alone goes below "
            "0.",
            rate_as(shares=with_cosine(lambda done: math.cos(math.pi * done))),
            rate_as(shares=with_cosine(lambda done: 0.5 * math.cos(math.pi * done))),
            rate_as(shares=with_cosine(lambda done: 0.5 + math.cos(math.pi * done))),
        ),
        known(
            "sine", "It is a sine. A cosine starts at the top.",
            rate_as(shares=with_cosine(lambda done: 0.5 * (1 + math.sin(math.pi * done)))),
        ),
        known(
            "exponential", "The rate falls exponentially. The schedule asks for a cosine.",
            rate_as(shares=with_cosine(lambda done: math.exp(-done))),
            rate_as(shares=with_cosine(lambda done: math.exp(-5 * done))),
            rate_as(shares=with_cosine(lambda done: 0.1**done)),
            rate_as(shares=with_cosine(lambda done: (1 - done) ** 2)),
        ),
        known(
            "one-step-ahead",
            "It is one step ahead: steps are counted from 0. Step `warmup_steps` is the first with "
            "the full rate, and the progress there is 0.",
            rate_as(done=lambda s, c: min(1.0, (s + 1 - c.warmup_steps) / max(
                1, c.max_steps - c.warmup_steps))),
            rate_as(shift=1),
        ),
        known(
            "one-step-late",
            "The rate is that of the step before. Steps are counted from 0.",
            rate_as(shift=-1),
            rate_as(done=lambda s, c: max(0.0, min(1.0, (s - 1 - c.warmup_steps) / max(
                1, c.max_steps - c.warmup_steps)))),
        ),
        known(
            "end-one-step-early",
            "The schedule ends one step too early. It is at its end at max_steps, not at "
            "max_steps - 1.",
            rate_as(done=lambda s, c: min(1.0, (s - c.warmup_steps) / max(
                1, c.max_steps - 1 - c.warmup_steps))),
        ),
        known(
            "end-one-step-late",
            "The schedule ends one step too late. It is at its end at max_steps.",
            rate_as(done=lambda s, c: min(1.0, (s - c.warmup_steps) / (
                c.max_steps + 1 - c.warmup_steps))),
        ),
        known(
            "warmup-from-min_lr",
            "The warm-up starts at min_lr. It starts at lr / (warmup_steps + 1).",
            rate_as(warm=lambda s, c: c.min_lr + (c.lr - c.min_lr) * s / c.warmup_steps),
            rate_as(warm=lambda s, c: c.min_lr + (c.lr - c.min_lr) * (s + 1) / c.warmup_steps),
            rate_as(warm=lambda s, c: c.min_lr + (c.lr - c.min_lr) * (s + 1) / (
                c.warmup_steps + 1)),
        ),
        known(
            "warmup-too-long",
            "The warm-up lasts one step too long. Step `warmup_steps` is the first with the full "
            "rate.",
            rate_as(in_warmup=lambda s, c: s <= c.warmup_steps,
                    warm=lambda s, c: c.lr * s / max(1, c.warmup_steps)),
            rate_as(in_warmup=lambda s, c: s <= c.warmup_steps,
                    warm=lambda s, c: c.lr * (s + 1) / max(1, c.warmup_steps)),
            rate_as(warm=lambda s, c: c.lr * (s + 1) / (c.warmup_steps + 2)),
        ),
        known(
            "warmup-of-the-whole-run",
            "The warm-up is divided by max_steps. It lasts warmup_steps.",
            rate_as(warm=lambda s, c: c.lr * (s + 1) / c.max_steps),
            rate_as(warm=lambda s, c: c.lr * s / c.max_steps),
        ),
        known(
            "warmup-without-lr", "The warm-up ignores lr: it goes up to 1.",
            rate_as(warm=lambda s, c: (s + 1) / (c.warmup_steps + 1)),
        ),
        known(
            "warmup-counted",
            "The warm-up counts as part of the fall, so the rate drops when the warm-up ends. "
            "Progress starts at 0 after the warm-up.",
            rate_as(done=lambda s, c: min(1.0, s / max(1, c.max_steps - c.warmup_steps))),
        ),
        known(
            "no-fall",
            "The rate hardly falls after the warm-up, or not at all. Half a cosine wave takes it "
            "down to min_lr: cos(pi * progress).",
            rate_as(shares=with_cosine(lambda done: 1.0 if done < 1 else 0.0)),
            rate_as(done=lambda s, c: min(1, (s - c.warmup_steps) // max(
                1, c.max_steps - c.warmup_steps))),
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
