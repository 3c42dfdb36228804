"""Exercises about probabilities and the loss: softmax, cross-entropy, and the loss with padding."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nanogpt.learn import plain
from nanogpt.learn.answers import Answer, with_gradients
from nanogpt.learn.exercise import Exercise, Mistake
from nanogpt.learn.exercises.known import known, numbers
from nanogpt.learn.exercises.tasks import TASKS
from nanogpt.model import layers


def softmax_cases() -> list[tuple[Any, ...]]:
    return [
        (torch.tensor([0.0, 0.0]),),
        (torch.tensor([0.0, math.log(3)]),),
        (torch.tensor([1000.0, 999.0]),),
        (torch.tensor([[-1000.0, -1001.0], [0.0, 1.0]]),),
        (torch.tensor([0.0, -math.inf, 1.0]),),
        (numbers(2, 3, 4),),
        (numbers(3, 3), 0),
        (numbers(2, 3, 4), 1),
        (torch.tensor([[0.0, 1000.0], [1.0, 0.0]]), 0),
        (torch.tensor([-3.0, -1.0, -2.0]),),
        (torch.tensor([-1000.0, -1000.0, 0.0]),),
        (torch.tensor([0.0, 60.0, 120.0]),),
    ]


def plain_softmax(x: Tensor, dim: int = -1) -> Tensor:
    return torch.exp(x) / torch.exp(x).sum(dim, keepdim=True)


def softmax_less_all(x: Tensor, dim: int = -1) -> Tensor:
    return plain_softmax(x - x.max(), dim)


def softmax_with(
    less: Any = lambda x, dim: x.amax(dim, keepdim=True), power: Any = torch.exp,
    total: Any = lambda p, dim: p.sum(dim, keepdim=True),
) -> Any:  # fmt: skip
    """A softmax that does one thing differently."""

    def weights(x: Tensor, dim: int = -1) -> Tensor:
        powers = power(x - less(x, dim))
        found: Tensor = powers / total(powers, dim)
        return found

    return weights


SOFTMAX = Exercise(
    name="softmax",
    title="Turn scores into positive weights that sum to 1, without overflow.",
    task=TASKS["softmax"],
    reference=layers.softmax,
    cases=softmax_cases,
    lesson=5,
    mistakes=[
        Mistake(
            "overflow",
            "Large scores give inf / inf, which is not a number. Subtract the maximum first: the "
            "quotient stays the same, and exp of numbers up to 0 cannot overflow.",
            plain_softmax,
        ),
        Mistake(
            "maximum-of-everything",
            "It subtracts the maximum of the whole tensor. A row far below it becomes 0 / 0: "
            "subtract the maximum of each row.",
            softmax_less_all,
        ),
        Mistake(
            "axis-ignored",
            "`dim` is not used: the function always works along the last axis.",
            lambda x, dim=-1: layers.softmax(x),
        ),
        Mistake(
            "first-axis",
            "It works along the first axis if `dim` is not given. The default is the last axis.",
            lambda x, dim=0: layers.softmax(x, dim),
        ),
        Mistake(
            "over-everything",
            "The weights of all rows together sum to 1. Each row should sum to 1: sum along `dim`.",
            lambda x, dim=-1: (
                torch.exp(x - x.amax(dim, keepdim=True))
                / torch.exp(x - x.amax(dim, keepdim=True)).sum()
            ),
        ),
        Mistake(
            "not-divided",
            "The results do not sum to 1: divide by the sum of the exponentials.",
            lambda x, dim=-1: torch.exp(x - x.amax(dim, keepdim=True)),
        ),
        Mistake(
            "logarithm",
            "These are the logarithms of the weights (log softmax).",
            lambda x, dim=-1: torch.log_softmax(x, dim),
        ),
        known(
            "overflow",
            "Large scores give inf / inf, which is not a number. Subtract the maximum first: the "
            "quotient stays the same, and exp of numbers up to 0 cannot overflow.",
            softmax_with(less=lambda x, dim: 0),
            lambda x, dim=-1: plain_softmax(x, -1),
        ),
        known(
            "clamped",
            "Large scores are cut off. Then they all count the same. Subtract the maximum: that "
            "changes nothing in the quotient.",
            *(
                softmax_with(lambda x, dim: 0, lambda x, most=most: x.clamp(max=most).exp())
                for most in (10, 20, 50, 80, 88)
            ),
            *(
                softmax_with(lambda x, dim: 0, lambda x, most=most: x.clamp(-most, most).exp())
                for most in (10, 20, 50, 80, 88)
            ),
            lambda x, dim=-1: torch.nan_to_num(plain_softmax(x, dim)),
        ),
        known(
            "no-keepdim",
            "keepdim=True is missing. Without it the sum or the maximum has lost an axis, and "
            "belongs to the wrong numbers or does not fit.",
            softmax_with(less=lambda x, dim: x.amax(dim)),
            softmax_with(total=lambda p, dim: p.sum(dim)),
            softmax_with(lambda x, dim: x.amax(dim), total=lambda p, dim: p.sum(dim)),
            softmax_with(lambda x, dim: x.max(), total=lambda p, dim: p.sum(dim)),
            softmax_with(lambda x, dim: 0, total=lambda p, dim: p.sum(dim)),
        ),
        known(
            "maximum-of-another-axis",
            "The maximum is taken along another axis than the sum. All scores of one sum have to "
            "be lowered by the same number: use `dim` for both.",
            softmax_with(less=lambda x, dim: x.amax(-1, keepdim=True)),
            softmax_with(less=lambda x, dim: x.amax(0, keepdim=True)),
        ),
        known(
            "sum-of-another-axis",
            "The sum is taken along another axis than `dim`.",
            softmax_with(total=lambda p, dim: p.sum(-1, keepdim=True)),
            softmax_with(total=lambda p, dim: p.sum(0, keepdim=True)),
        ),
        known(
            "mean-subtracted",
            "The mean is subtracted. Scores far above it still overflow: subtract the maximum.",
            softmax_with(less=lambda x, dim: x.mean(dim, keepdim=True)),
        ),
        known(
            "minimum-subtracted",
            "The minimum is subtracted, so large scores still overflow. Subtract the maximum.",
            softmax_with(less=lambda x, dim: x.amin(dim, keepdim=True)),
        ),
        known(
            "divided-by-the-maximum",
            "The scores are divided by the maximum. Subtract it: only that leaves the quotient as "
            "it is.",
            softmax_with(lambda x, dim: 0, lambda x: torch.exp(x / x.amax(-1, keepdim=True))),
        ),
        known(
            "absolute-maximum",
            "The largest absolute value is subtracted. If all scores are very negative, every exp "
            "becomes 0. Subtract the maximum itself.",
            softmax_with(less=lambda x, dim: x.abs().amax(dim, keepdim=True)),
        ),
        known(
            "no-exp",
            "exp is missing: scores can be negative, weights cannot.",
            lambda x, dim=-1: x / x.sum(dim, keepdim=True),
            softmax_with(power=lambda x: x),
            lambda x, dim=-1: (
                (x - x.amin(dim, keepdim=True))
                / (x - x.amin(dim, keepdim=True)).sum(dim, keepdim=True)
            ),
        ),
        known(
            "squares",
            "The scores are squared. Take exp of them.",
            lambda x, dim=-1: x**2 / (x**2).sum(dim, keepdim=True),
        ),
        known(
            "another-base",
            "The base of the powers is not e. Use exp.",
            softmax_with(power=torch.exp2),
            softmax_with(power=lambda x: torch.pow(10.0, x)),
        ),
        known(
            "minus",
            "exp is taken of minus the scores, so the lowest gets the largest weight.",
            lambda x, dim=-1: layers.softmax(-x, dim),
            softmax_with(power=lambda x: torch.exp(-x)),
        ),
        known(
            "twice",
            "It is applied twice, so the weights are nearly equal.",
            lambda x, dim=-1: layers.softmax(layers.softmax(x, dim), dim),
        ),
        known(
            "sigmoid",
            "That is sigmoid, each score by itself. The weights of a row compete: divide by the "
            "sum of their exponentials.",
            lambda x, dim=-1: torch.sigmoid(x),
        ),
        known(
            "one-hot",
            "That is a choice of the largest score. Softmax gives every score a weight.",
            lambda x, dim=-1: (x == x.amax(dim, keepdim=True)).float(),
        ),
        known(
            "one-more-in-the-sum",
            "The sum has 1 more, or another number. Then the weights do not sum to 1.",
            softmax_with(total=lambda p, dim: 1 + p.sum(dim, keepdim=True)),
            softmax_with(total=lambda p, dim: p.mean(dim, keepdim=True)),
        ),
        known(
            "dim-reversed",
            "`dim` is counted from the wrong end.",
            lambda x, dim=-1: layers.softmax(x, -1 - dim),
        ),
    ],
    hints=(
        "exp makes every score positive. Dividing by the sum makes them sum to 1.",
        "exp(1000) is infinite. You can subtract the same number from all scores of a row, and "
        "the quotient does not change.",
        "powers = exp(x - maximum along dim), then powers / sum along dim, both with keepdim=True.",
    ),
)


SMALL = (1e-12, 1e-10, 1e-9, 1e-8, 1e-7, 1e-6, 1e-5)  # what people add to a probability


def plain_loss_cases() -> list[tuple[Any, ...]]:
    return [
        (torch.tensor([[0.0, 0.0]]), torch.tensor([0])),
        (torch.tensor([[0.0, math.log(3)]]), torch.tensor([1])),
        (torch.tensor([[0.0, 2.0], [1.0, 0.0]]), torch.tensor([1, 1])),
        (torch.tensor([[1000.0, 0.0]]), torch.tensor([1])),
        (torch.tensor([[1000.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0])),
        (torch.tensor([[1000.0, 1001.0], [0.0, 1.0]]), torch.tensor([0, 1])),
        (numbers(3, 3), torch.tensor([2, 0, 2])),
        (numbers(5, 7), torch.tensor([3, 1, 0, 6, 3])),
    ]


def plain_loss_with(
    logarithm: Any = lambda x: torch.log_softmax(x, -1),
    picked: Any = lambda logs, targets: logs[torch.arange(len(targets)), targets],
    reduced: Any = lambda found: -found.mean(),
) -> Any:
    """A plain cross-entropy that does one thing differently."""

    def lost(logits: Tensor, targets: Tensor) -> Tensor:
        found: Tensor = reduced(picked(logarithm(logits), targets))
        return found

    return lost


def log_of_softmax(x: Tensor) -> Tensor:
    return torch.log(torch.softmax(x, -1))


def log_of_naive_softmax(x: Tensor) -> Tensor:
    return torch.log(torch.exp(x) / torch.exp(x).sum(-1, keepdim=True))


def log_of_naive_sum(x: Tensor) -> Tensor:
    return x - torch.log(torch.exp(x).sum(-1, keepdim=True))


def as_called_in_the_model(mine: Any) -> Any:
    """A plain cross-entropy as the package calls it: with targets to ignore, and reductions."""

    def cross_entropy(logits: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
        real = targets != layers.IGNORED
        logits, targets = layers.at_least_float32(logits[real]), targets[real]
        if reduction == "none":
            rows = zip(logits.split(1), targets.split(1), strict=True)
            return torch.stack([mine(*row) for row in rows])
        mean: Tensor = mine(logits, targets)
        return mean if reduction == "mean" else mean * len(targets)

    return cross_entropy


CROSS_ENTROPY = Exercise(
    name="cross-entropy",
    title="How surprised the model is by the right tokens, on average.",
    task=TASKS["cross-entropy"],
    reference=plain.cross_entropy,
    replaces=layers.cross_entropy,
    adapt=as_called_in_the_model,
    cases=plain_loss_cases,
    lesson=5,
    mistakes=[
        known(
            "overflow",
            "Large logits give inf or nan: exp overflowed, or the logarithm of a probability of 0 "
            "was taken. Subtract the maximum first, and take the logarithm of the sum of the "
            "exponentials instead of that of the probability.",
            plain_loss_with(log_of_softmax),
            plain_loss_with(log_of_naive_softmax),
            plain_loss_with(log_of_naive_sum),
        ),
        known(
            "small-number-added",
            "A small number is added to the probabilities before the logarithm. It changes every "
            "loss a little and large losses a lot. Work with logits - log(sum of exp) instead.",
            *(plain_loss_with(lambda x, small=small: torch.log(torch.softmax(x, -1) + small))
              for small in SMALL),
            *(plain_loss_with(lambda x, small=small: torch.log(torch.softmax(x, -1).clamp(small)))
              for small in SMALL),
        ),
        known(
            "maximum-of-everything",
            "It subtracts the maximum of the whole tensor. A row far below it becomes log(0): "
            "subtract the maximum of each row.",
            plain_loss_with(lambda x: log_of_naive_sum(x - x.max())),
        ),
        known(
            "bits",
            "The loss is in bits. In training it is in nats: use the natural logarithm.",
            plain_loss_with(lambda x: torch.log_softmax(x, -1) / math.log(2)),
            plain_loss_with(lambda x: torch.log2(torch.softmax(x, -1))),
        ),
        known(
            "base-ten", "The logarithm has base 10. Use the natural logarithm.",
            plain_loss_with(lambda x: torch.log_softmax(x, -1) / math.log(10)),
            plain_loss_with(lambda x: torch.log10(torch.softmax(x, -1))),
        ),
        known(
            "sign",
            "The sign is wrong: the loss is minus the logarithm, and never negative.",
            plain_loss_with(reduced=lambda found: found.mean()),
            plain_loss_with(log_of_softmax, reduced=lambda found: found.mean()),
        ),
        known(
            "no-softmax",
            "Softmax is missing: logits are not the logarithms of probabilities.",
            plain_loss_with(lambda x: x),
            plain_loss_with(torch.log),
        ),
        known(
            "softmax-twice",
            "Softmax is applied twice: the probabilities went through it again. F.cross_entropy "
            "and log_softmax contain a softmax.",
            plain_loss_with(lambda x: torch.log_softmax(torch.softmax(x, -1), -1)),
        ),
        known(
            "no-logarithm",
            "It uses the probability itself. The loss is minus its logarithm.",
            plain_loss_with(lambda x: torch.softmax(x, -1)),
            plain_loss_with(lambda x: torch.softmax(x, -1) - 1),
        ),
        known(
            "log-of-the-mean",
            "The probabilities are averaged before the logarithm. Take the logarithm of each, then "
            "the mean.",
            plain_loss_with(lambda x: torch.softmax(x, -1), reduced=lambda p: -p.mean().log()),
        ),
        known(
            "product-of-all",
            "It sums over all tokens of the vocabulary. Only the probability of the target counts.",
            plain_loss_with(picked=lambda logs, targets: logs.sum(-1)),
            plain_loss_with(picked=lambda logs, targets: logs),
        ),
        known(
            "all-rows-at-all-targets",
            "Every row is scored at the targets of all rows. Row n has one target: use "
            "[torch.arange(N), targets], or gather.",
            plain_loss_with(picked=lambda logs, targets: logs[:, targets]),
            plain_loss_with(picked=lambda logs, targets: logs[:, targets].sum(-1)),
        ),
        known(
            "entropy",
            "That is the entropy of the model's distribution. The loss looks at the probability of "
            "the target alone.",
            plain_loss_with(lambda x: torch.softmax(x, -1) * torch.log_softmax(x, -1),
                            lambda logs, targets: logs.sum(-1)),
        ),
        known(
            "likeliest-token",
            "It uses the largest probability of each row. Use that of the target.",
            plain_loss_with(picked=lambda logs, targets: logs.max(-1).values),
        ),
        known(
            "softmax-over-rows",
            "Softmax runs over the rows. The probabilities of one row, over the vocabulary, sum to "
            "1: use the last axis.",
            plain_loss_with(lambda x: torch.log_softmax(x, 0)),
        ),
        known(
            "sum-for-mean", "It gives the sum. Divide by the number of targets.",
            plain_loss_with(reduced=lambda found: -found.sum()),
            plain_loss_with(log_of_softmax, reduced=lambda found: -found.sum()),
        ),
        known(
            "divided-by-vocabulary",
            "The sum is divided by the wrong number. Divide it by N, the number of targets.",
            lambda logits, targets: plain.cross_entropy(logits, targets) * len(targets)
            / logits.shape[1],
            lambda logits, targets: plain.cross_entropy(logits, targets) / logits.shape[1],
        ),
        known(
            "not-reduced", "It gives the loss of each row. Give their mean, one number.",
            plain_loss_with(reduced=lambda found: -found),
        ),
        known(
            "perplexity", "That is the perplexity, exp(loss). Give the loss itself.",
            plain_loss_with(reduced=lambda found: (-found.mean()).exp()),
        ),
        known(
            "squared", "These are squared errors. The loss is minus the logarithm of the "
            "probability of the target.",
            lambda logits, targets: (
                (torch.softmax(logits, -1) - F.one_hot(targets, logits.shape[1])) ** 2
            ).mean(),
            lambda logits, targets: (
                (torch.softmax(logits, -1) - F.one_hot(targets, logits.shape[1])) ** 2
            ).sum(-1).mean(),
        ),
    ],
    hints=(
        "The loss of a target is minus the logarithm of the probability that the model gave it.",
        "The logarithm of a softmax is the score minus the logarithm of the sum of the "
        "exponentials. Subtract the maximum of each row first, so that exp cannot overflow.",
        "shifted = logits - maximum of each row; loss = log(sum of exp(shifted)) - shifted at the "
        "target; shifted[torch.arange(N), targets] looks that up. Then the mean.",
    ),
)  # fmt: skip


def loss_cases() -> list[tuple[Any, ...]]:
    return [
        (torch.tensor([[0.0, 0.0]]), torch.tensor([0])),
        (torch.tensor([[0.0, math.log(3)]]), torch.tensor([1])),
        (torch.tensor([[0.0, 2.0], [1.0, 0.0]]), torch.tensor([1, 1])),
        (torch.tensor([[0.0, 2.0], [1.0, 0.0], [3.0, 1.0]]), torch.tensor([1, -100, 0])),
        (torch.tensor([[1000.0, 0.0]]), torch.tensor([1])),
        (numbers(5, 7), torch.tensor([3, -100, 0, 6, -100])),
        (numbers(5, 7), torch.tensor([3, -100, 0, 6, -100]), "sum"),
        (numbers(5, 7), torch.tensor([3, -100, 0, 6, -100]), "none"),
        (torch.tensor([[0.0, 2.0], [1.0, 0.0]]), torch.tensor([0, 0])),
        (torch.tensor([[1000.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0])),
        (numbers(3, 3), torch.tensor([2, 0, 2]), "none"),
        (numbers(4, 101), torch.tensor([100, -100, 1, 0])),  # -100 is an index, too
        (numbers(4, 101), torch.tensor([100, -100, 1, 0]), "sum"),
        *(
            (
                torch.tensor([[0.0, 2.0], [math.inf, 1.0], [3.0, 1.0]]),
                torch.tensor([1, -100, 0]),
                how,
            )
            for how in ("mean", "sum")
        ),
    ]


def drive_masked(
    candidate: Any, logits: Tensor, targets: Tensor, reduction: str | None = None
) -> Answer:
    """With gradients where all scores are finite; with infinite ones torch's own are nan."""
    inputs = {"logits": logits, "targets": targets}
    if reduction is not None:
        inputs["reduction"] = reduction  # type: ignore[assignment]
    return with_gradients(candidate, inputs, wanted=None if logits.isfinite().all() else ())


def loss_with(logarithm: Any = torch.log_softmax, reduce: Any = None, losses: Any = None) -> Any:
    """A cross-entropy that does one thing differently."""

    def lost(logits: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
        real = targets != layers.IGNORED
        if losses:
            found: Tensor = losses(logits, targets)
        else:
            found = -logarithm(logits[real], -1).gather(-1, targets[real][:, None])[:, 0]
        if reduction == "none":
            return found
        if reduction == "sum":
            return found.sum()
        mean: Tensor = reduce(found, targets) if reduce else found.mean()
        return mean

    return lost


def losses_of_all(logits: Tensor, targets: Tensor) -> Tensor:
    """-100 taken for token 0: it is scored, not skipped."""
    return -torch.log_softmax(logits, -1).gather(-1, targets.clamp(min=0)[:, None])[:, 0]


def reduced(losses: Tensor, reduction: str) -> Tensor:
    return {"mean": losses.mean(), "sum": losses.sum(), "none": losses}[reduction]


def masked_with(
    logarithm: Any = lambda x: torch.log_softmax(x, -1),
    real: Any = lambda targets: targets != layers.IGNORED,
    picked: Any = lambda logs, targets: logs[torch.arange(len(targets)), targets],
    none: Any = lambda found, real: found,
    rows: Any = None,
) -> Any:
    """A masked loss that does one thing differently."""

    def lost(logits: Tensor, targets: Tensor, reduction: str = "mean") -> Any:
        kept = real(targets)
        logits, targets = rows(logits, targets) if rows else (logits[kept], targets[kept])
        found = -picked(logarithm(logits), targets)
        return none(found, kept) if reduction == "none" else reduced(found, reduction)

    return lost


def times_zero(logits: Tensor, targets: Tensor, reduction: str) -> Tensor:
    """Ignored losses are computed and multiplied by 0."""
    real, found = targets != layers.IGNORED, losses_of_all(logits, targets)
    if reduction == "none":
        return found[real]
    total = (found * real).sum()
    return total if reduction == "sum" else total / real.sum()


MASKED_LOSS = Exercise(
    name="masked-loss",
    title="The loss that ignores padding: targets of -100 do not count.",
    task=TASKS["masked-loss"],
    reference=layers.cross_entropy,
    cases=loss_cases,
    drive=drive_masked,
    lesson=8,
    mistakes=[
        Mistake(
            "mean-over-ignored",
            "The sum is right, but it is divided by the number of all targets. Targets of -100 do "
            "not count: divide by the number of the others.",
            loss_with(reduce=lambda losses, targets: losses.sum() / len(targets)),
        ),
        Mistake(
            "ignored-counted",
            "Targets of -100 are scored as if they were token 0. Leave them out.",
            loss_with(losses=losses_of_all),
        ),
        Mistake(
            "overflow",
            "Large logits give inf or nan: exp overflowed, or the logarithm of a probability of 0 "
            "was taken. Subtract the maximum first, and take the logarithm of the sum of the "
            "exponentials instead of that of the probability.",
            loss_with(logarithm=lambda x, dim: torch.log(torch.softmax(x, dim))),
        ),
        Mistake(
            "bits",
            "The loss is in bits. In training it is in nats: use the natural logarithm.",
            loss_with(logarithm=lambda x, dim: torch.log_softmax(x, dim) / math.log(2)),
        ),
        Mistake(
            "sign",
            "The sign is wrong: the loss is minus the logarithm, and never negative.",
            loss_with(logarithm=lambda x, dim: -torch.log_softmax(x, dim)),
        ),
        Mistake(
            "no-softmax",
            "Softmax is missing: logits are not the logarithms of probabilities.",
            loss_with(logarithm=lambda x, dim: x),
        ),
        Mistake(
            "no-logarithm",
            "It uses the probability itself. The loss is minus its logarithm.",
            loss_with(logarithm=torch.softmax),
        ),
        Mistake(
            "sum-for-mean", "It gives the sum where the mean is asked for.",
            loss_with(reduce=lambda losses, targets: losses.sum()),
        ),
        known(
            "ignored-times-zero",
            "The losses of ignored rows are multiplied by 0. Their scores may be infinite, and "
            "0 times infinity is not a number: select the real rows instead.",
            lambda logits, targets, reduction="mean": times_zero(logits, targets, reduction),
        ),
        known(
            "sum-for-all",
            'With "sum" the mean is multiplied by the number of all targets. It is the sum over '
            "the real ones.",
            lambda logits, targets, reduction="mean": layers.cross_entropy(
                logits, targets, reduction) * (
                    len(targets) / (targets != -100).sum() if reduction == "sum" else 1),
        ),
        known(
            "ignored-stay-as-zeros",
            'With "none" the ignored targets are still there, as zeros. Give the losses of the '
            "real targets alone.",
            masked_with(none=lambda found, real: torch.zeros(len(real)).masked_scatter(
                real, found)),
        ),
        known(
            "ignored-counted",
            "Targets of -100 are scored as if they were tokens. Leave them out.",
            lambda logits, targets, reduction="mean": reduced(
                -torch.log_softmax(logits, -1)[torch.arange(len(targets)), targets], reduction
            ),
            lambda logits, targets, reduction="mean": reduced(
                -torch.log_softmax(logits, -1).gather(-1, targets[:, None])[:, 0], reduction
            ),
            lambda logits, targets, reduction="mean": F.cross_entropy(
                logits, targets, reduction=reduction, ignore_index=-1
            ),
            lambda logits, targets, reduction="mean": reduced(
                -(F.one_hot(targets.clamp(min=0), logits.shape[1]) * torch.log_softmax(logits, -1))
                .sum(-1), reduction
            ),
        ),
        known(
            "token-zero-ignored",
            "Targets of 0 are left out, too. 0 is a token like any other; only -100 is ignored.",
            masked_with(real=lambda targets: targets > 0),
            masked_with(real=lambda targets: (targets != -100) & (targets != 0)),
        ),
        known(
            "small-number-added",
            "A small number is added to the probabilities before the logarithm. It changes every "
            "loss a little and large losses a lot. Work with logits - log(sum of exp) instead.",
            *(masked_with(lambda x, small=small: torch.log(torch.softmax(x, -1) + small))
              for small in SMALL),
            *(masked_with(lambda x, small=small: torch.log(torch.softmax(x, -1).clamp(small)))
              for small in SMALL),
        ),
        known(
            "maximum-of-everything",
            "It subtracts the maximum of the whole tensor. A row far below it becomes log(0): "
            "subtract the maximum of each row.",
            masked_with(lambda x: log_of_naive_sum(x - x.max())),
        ),
        known(
            "overflow",
            "Large logits give inf or nan: exp overflowed, or the logarithm of a probability of 0 "
            "was taken. Subtract the maximum first, and take the logarithm of the sum of the "
            "exponentials instead of that of the probability.",
            masked_with(log_of_naive_softmax),
            masked_with(log_of_naive_sum),
        ),
        known(
            "softmax-twice",
            "Softmax is applied twice: the probabilities went through it again. F.cross_entropy "
            "and log_softmax contain a softmax.",
            masked_with(lambda x: torch.log_softmax(torch.softmax(x, -1), -1)),
            masked_with(lambda x: torch.log_softmax(torch.log_softmax(x, -1).exp(), -1)),
        ),
        known(
            "softmax-over-rows",
            "Softmax runs over the rows. The probabilities of one row, over the vocabulary, sum to "
            "1: use the last axis.",
            masked_with(lambda x: torch.log_softmax(x, 0)),
        ),
        known(
            "reduction-ignored", "`reduction` is not used: it always gives the mean.",
            lambda logits, targets, reduction="mean": layers.cross_entropy(logits, targets),
            lambda logits, targets, reduction="mean": layers.cross_entropy(
                logits, targets, "sum" if reduction == "sum" else "mean"
            ),
            lambda logits, targets, reduction="mean": layers.cross_entropy(
                logits, targets, "none" if reduction == "none" else "mean"
            ),
        ),
        known(
            "reductions-mixed-up",
            "The reductions are mixed up, or one of them gives something else: a mean, a sum, or "
            "with \"none\" the loss of each real target.",
            *(lambda logits, targets, reduction="mean", other=other: layers.cross_entropy(
                logits, targets, other[reduction]
            ) for other in (
                {"mean": "sum", "sum": "mean", "none": "none"},
                {"mean": "mean", "sum": "sum", "none": "sum"},
                {"mean": "mean", "sum": "none", "none": "none"},
            )),
        ),
        known(
            "sum-divided-by-vocabulary",
            "The sum is divided by the wrong number. Divide by the number of real targets.",
            lambda logits, targets, reduction="mean": layers.cross_entropy(
                logits, targets, "sum" if reduction == "mean" else reduction
            ) / (logits.shape[1] if reduction == "mean" else 1),
        ),
        known(
            "ignored-logits-zero",
            "The logits of ignored rows are set to 0, and such a row still counts with log V. "
            "Leave the rows out.",
            masked_with(rows=lambda logits, targets: (
                logits.masked_fill((targets == -100)[:, None], 0.0), targets.clamp(min=0)
            )),
        ),
        known(
            "likeliest-token",
            "It uses the largest probability of each row. Use that of the target.",
            masked_with(picked=lambda logs, targets: logs.max(-1).values),
        ),
        known(
            "perplexity", "That is the perplexity, exp(loss). Give the loss itself.",
            lambda logits, targets, reduction="mean": layers.cross_entropy(
                logits, targets, reduction
            ).exp(),
        ),
    ],
    hints=(
        "The loss of a target is minus the logarithm of the probability that the model gave it.",
        "First leave out the rows whose target is -100. The logarithm of a softmax is the score "
        "minus the logarithm of the sum of the exponentials.",
        "shifted = logits - maximum of each row; loss = log(sum of exp(shifted)) - shifted at the "
        "target; `gather` looks that up. Then mean, sum or nothing, as `reduction` says.",
    ),
)  # fmt: skip
