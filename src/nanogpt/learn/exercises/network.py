"""Exercises about the layers: layer norm, GELU, softmax, the loss, the block."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nanogpt.config import ModelConfig
from nanogpt.learn import plain
from nanogpt.learn.exercise import Exercise, Mistake
from nanogpt.learn.exercises.known import known, numbers
from nanogpt.model import gpt, layers
from nanogpt.model.attention import AttentionContext
from nanogpt.model.position import Position

TINY = ModelConfig(vocab_size=11, context_length=8, n_layer=2, n_head=2, n_embd=8)


def norm_cases() -> list[tuple[Any, ...]]:
    one, zero = torch.ones(4), torch.zeros(4)
    return [
        (torch.tensor([1.0, 2.0, 3.0, 6.0]), one, zero),
        (torch.tensor([1.0, 2.0, 3.0, 6.0]), one),  # no bias
        (torch.tensor([1.0, 2.0, 3.0, 6.0]), 2 * one, one),
        (torch.tensor([1e-3, 2e-3, 3e-3, 6e-3]), one, zero),  # eps shows
        (torch.tensor([1e-3, 2e-3, 3e-3, 6e-3]), one, zero, 1e-3),
        (numbers(4, 4), one, zero),
        (numbers(2, 3, 4), numbers(4, seed=1), numbers(4, seed=2)),
    ]


def norm_with(
    dim: Any = -1, correction: int = 0, root: Any = None, center: bool = True,
    gain: bool = True, shift: bool = True,
) -> Any:  # fmt: skip
    """A layer norm that does one thing differently."""

    def normed(x: Tensor, weight: Tensor, bias: Tensor | None = None, eps: float = 1e-5) -> Tensor:
        axis = dim if dim is None or x.ndim > 1 else -1
        mean = x.mean(axis, keepdim=True) if axis is not None else x.mean()
        variance = (
            x.var(axis, keepdim=True, correction=correction) if axis is not None
            else x.var(correction=correction)
        )  # fmt: skip
        if not center:
            variance, mean = x.square().mean(-1, keepdim=True), torch.zeros(())
        y = (x - mean) / (root or (lambda v, e: torch.sqrt(v + e)))(variance, eps)
        y = y * weight if gain else y
        return y + bias if bias is not None and shift else y

    return normed


LAYER_NORM = Exercise(
    name="layer-norm",
    title="Bring every vector to mean 0 and variance 1, then scale and shift it.",
    reference=layers.layer_norm,
    cases=norm_cases,
    lesson=7,
    mistakes=[
        Mistake(
            "variance-of-a-sample",
            "The variance is divided by n - 1, which is torch's default. Here the vector is all "
            "there is, not a sample: divide by n (correction=0).",
            norm_with(correction=1),
        ),
        Mistake(
            "eps-outside",
            "eps is added to the standard deviation. It belongs under the root, next to the "
            "variance: sqrt(variance + eps).",
            norm_with(root=lambda v, eps: torch.sqrt(v) + eps),
        ),
        Mistake(
            "no-eps", "eps is missing: a constant vector would be divided by zero.",
            norm_with(root=lambda v, eps: torch.sqrt(v)),
        ),
        Mistake(
            "no-root",
            "It divides by the variance. Divide by its root, the standard deviation.",
            norm_with(root=lambda v, eps: v + eps),
        ),
        Mistake(
            "wrong-axis",
            "It takes the mean over the wrong axis. Each token is normalized by itself: use the "
            "last axis, the channels.",
            norm_with(dim=-2),
        ),
        Mistake(
            "over-everything",
            "It takes one mean over all tokens. Each token is normalized by itself: use the last "
            "axis alone.",
            norm_with(dim=None),
        ),
        Mistake(
            "no-mean",
            "The mean is not subtracted. That is RMS norm; layer norm subtracts the mean first.",
            norm_with(center=False),
        ),
        Mistake(
            "no-gain", "The learned gain, `weight`, is not used.", norm_with(gain=False),
        ),
        Mistake(
            "no-shift", "The learned shift, `bias`, is not used where there is one.",
            norm_with(shift=False),
        ),
    ],
    hints=(
        "Three steps: mean and variance, then the quotient, then gain and shift.",
        "Take both over the last axis, with keepdim=True, so that they broadcast with x.",
        "(x - mean) / sqrt(variance + eps) * weight + bias. Use correction=0 in the variance, and "
        "leave the bias out where it is None.",
    ),
)  # fmt: skip


GELU = Exercise(
    name="gelu",
    title="GELU, the activation function of GPT-2.",
    reference=layers.gelu,
    cases=lambda: [(torch.tensor([0.0, 1.0]),), (torch.linspace(-4, 4, 9),), (numbers(2, 3),)],
    lesson=7,
    mistakes=[
        Mistake(
            "exact",
            "That is the exact form, with the error function. GPT-2 was trained with the tanh "
            "approximation; the difference, up to 5e-4, shows in its logits.",
            F.gelu,
        ),
        Mistake(
            "sigmoid",
            "That is the approximation x * sigmoid(1.702 x). GPT-2 uses the one with tanh.",
            lambda x: x * torch.sigmoid(1.702 * x),
        ),
        Mistake("silu", "That is SiLU, x * sigmoid(x).", F.silu),
        Mistake("relu", "That is ReLU. It has a corner at 0; GELU is smooth.", F.relu),
        Mistake(
            "no-half",
            "It is twice as large as it should be: 1 + tanh(...) approaches 2 for large x, so it "
            "needs the factor 0.5.",
            lambda x: 2 * layers.gelu(x),
        ),
        Mistake(
            "no-cube",
            "The cube is missing: the argument of tanh contains x + 0.044715 * x**3.",
            lambda x: 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * x)),
        ),
        Mistake(
            "cube-times-ten",
            "The factor of the cube is 0.044715, with a zero after the decimal point.",
            lambda x: 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.44715 * x**3))),
        ),
        Mistake(
            "root-of-pi-halves",
            "The factor inside tanh is sqrt(2 / pi), not its inverse.",
            lambda x: 0.5 * x * (1 + torch.tanh(math.sqrt(math.pi / 2) * (x + 0.044715 * x**3))),
        ),
    ],
    hints=(
        "GELU is x times a number from 0 to 1: about 0 for very negative x, about 1 for large x.",
        "0.5 * x * (1 + tanh(...)): tanh goes from -1 to 1, so 1 + tanh goes from 0 to 2.",
        "The argument of tanh is sqrt(2 / pi) * (x + 0.044715 * x**3).",
    ),
)


def softmax_cases() -> list[tuple[Any, ...]]:
    return [
        (torch.tensor([0.0, 0.0]),),
        (torch.tensor([0.0, math.log(3)]),),
        (torch.tensor([1000.0, 999.0]),),
        (torch.tensor([[-1000.0, -1001.0], [0.0, 1.0]]),),
        (torch.tensor([0.0, -math.inf, 1.0]),),
        (numbers(2, 3, 4),),
        (numbers(3, 3), 0),
    ]


def plain_softmax(x: Tensor, dim: int = -1) -> Tensor:
    return torch.exp(x) / torch.exp(x).sum(dim, keepdim=True)


def softmax_less_all(x: Tensor, dim: int = -1) -> Tensor:
    return plain_softmax(x - x.max(), dim)


SOFTMAX = Exercise(
    name="softmax",
    title="Turn scores into positive weights that sum to 1, without overflow.",
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
    ],
    hints=(
        "exp makes every score positive. Dividing by the sum makes them sum to 1.",
        "exp(1000) is infinite. You can subtract the same number from all scores of a row, and "
        "the quotient does not change.",
        "powers = exp(x - maximum along dim), then powers / sum along dim, both with keepdim=True.",
    ),
)


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
    reference=plain.cross_entropy,
    replaces=layers.cross_entropy,
    adapt=as_called_in_the_model,
    cases=plain_loss_cases,
    lesson=5,
    mistakes=[
        *known(
            "overflow",
            "Large logits give inf or nan: exp overflowed, or the logarithm of a probability of 0 "
            "was taken. Subtract the maximum first, and take the logarithm of the sum of the "
            "exponentials instead of that of the probability.",
            plain_loss_with(log_of_softmax),
            plain_loss_with(log_of_naive_softmax),
            plain_loss_with(log_of_naive_sum),
        ),
        *known(
            "small-number-added",
            "A small number is added to the probabilities before the logarithm. It changes every "
            "loss a little and large losses a lot. Work with logits - log(sum of exp) instead.",
            *(plain_loss_with(lambda x, small=small: torch.log(torch.softmax(x, -1) + small))
              for small in (1e-12, 1e-10, 1e-9, 1e-8, 1e-7, 1e-6, 1e-5)),
            *(plain_loss_with(lambda x, small=small: torch.log(torch.softmax(x, -1).clamp(small)))
              for small in (1e-12, 1e-10, 1e-9, 1e-8, 1e-7, 1e-6, 1e-5)),
        ),
        *known(
            "maximum-of-everything",
            "It subtracts the maximum of the whole tensor. A row far below it becomes log(0): "
            "subtract the maximum of each row.",
            plain_loss_with(lambda x: log_of_naive_sum(x - x.max())),
        ),
        *known(
            "bits",
            "The loss is in bits. In training it is in nats: use the natural logarithm.",
            plain_loss_with(lambda x: torch.log_softmax(x, -1) / math.log(2)),
            plain_loss_with(lambda x: torch.log2(torch.softmax(x, -1))),
        ),
        *known(
            "base-ten", "The logarithm has base 10. Use the natural logarithm.",
            plain_loss_with(lambda x: torch.log_softmax(x, -1) / math.log(10)),
            plain_loss_with(lambda x: torch.log10(torch.softmax(x, -1))),
        ),
        *known(
            "sign",
            "The sign is wrong: the loss is minus the logarithm, and never negative.",
            plain_loss_with(reduced=lambda found: found.mean()),
            plain_loss_with(log_of_softmax, reduced=lambda found: found.mean()),
        ),
        *known(
            "no-softmax",
            "Softmax is missing: logits are not the logarithms of probabilities.",
            plain_loss_with(lambda x: x),
            plain_loss_with(torch.log),
        ),
        *known(
            "softmax-twice",
            "Softmax is applied twice: the probabilities went through it again. Is it in a library "
            "function already?",
            plain_loss_with(lambda x: torch.log_softmax(torch.softmax(x, -1), -1)),
        ),
        *known(
            "no-logarithm",
            "It uses the probability itself. The loss is minus its logarithm.",
            plain_loss_with(lambda x: torch.softmax(x, -1)),
            plain_loss_with(lambda x: torch.softmax(x, -1) - 1),
        ),
        *known(
            "log-of-the-mean",
            "The probabilities are averaged before the logarithm. Take the logarithm of each, then "
            "the mean.",
            plain_loss_with(lambda x: torch.softmax(x, -1), reduced=lambda p: -p.mean().log()),
        ),
        *known(
            "product-of-all",
            "It sums over all tokens of the vocabulary. Only the probability of the target counts.",
            plain_loss_with(picked=lambda logs, targets: logs.sum(-1)),
            plain_loss_with(picked=lambda logs, targets: logs),
            plain_loss_with(picked=lambda logs, targets: logs[:, targets]),
            plain_loss_with(picked=lambda logs, targets: logs[:, targets].sum(-1)),
        ),
        *known(
            "entropy",
            "That is the entropy of the model's distribution. The loss looks at the probability of "
            "the target alone.",
            plain_loss_with(lambda x: torch.softmax(x, -1) * torch.log_softmax(x, -1),
                            lambda logs, targets: logs.sum(-1)),
        ),
        *known(
            "likeliest-token",
            "It uses the largest probability of each row. Use that of the target.",
            plain_loss_with(picked=lambda logs, targets: logs.max(-1).values),
        ),
        *known(
            "softmax-over-rows",
            "Softmax runs over the rows. The probabilities of one row, over the vocabulary, sum to "
            "1: use the last axis.",
            plain_loss_with(lambda x: torch.log_softmax(x, 0)),
        ),
        *known(
            "sum-for-mean", "It gives the sum. Divide by the number of targets.",
            plain_loss_with(reduced=lambda found: -found.sum()),
            plain_loss_with(log_of_softmax, reduced=lambda found: -found.sum()),
        ),
        *known(
            "divided-by-vocabulary",
            "The sum is divided by the wrong number. Divide it by N, the number of targets.",
            lambda logits, targets: plain.cross_entropy(logits, targets) * len(targets)
            / logits.shape[1],
            lambda logits, targets: plain.cross_entropy(logits, targets) / logits.shape[1],
        ),
        *known(
            "not-reduced", "It gives the loss of each row. Give their mean, one number.",
            plain_loss_with(reduced=lambda found: -found),
        ),
        *known(
            "perplexity", "That is the perplexity, exp(loss). Give the loss itself.",
            plain_loss_with(reduced=lambda found: (-found.mean()).exp()),
        ),
        *known(
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
    ]


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


MASKED_LOSS = Exercise(
    name="masked-loss",
    title="The loss that ignores padding: targets of -100 do not count.",
    reference=layers.cross_entropy,
    cases=loss_cases,
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
    ],
    hints=(
        "The loss of a target is minus the logarithm of the probability that the model gave it.",
        "First leave out the rows whose target is -100. The logarithm of a softmax is the score "
        "minus the logarithm of the sum of the exponentials.",
        "shifted = logits - maximum of each row; loss = log(sum of exp(shifted)) - shifted at the "
        "target; `gather` looks that up. Then mean, sum or nothing, as `reduction` says.",
    ),
)  # fmt: skip


def some_block(cls: type[gpt.Block]) -> gpt.Block:
    """A block with weights of which every single one matters."""
    torch.manual_seed(0)
    block = cls(TINY).eval()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return block


def drive_block(cls: type[gpt.Block], x: Tensor) -> Tensor:
    pos = torch.arange(x.shape[1])[None]
    result: Tensor = some_block(cls)(x, AttentionContext(Position(TINY), pos))
    return result


class NoResiduals(gpt.Block):
    def forward(self, x: Tensor, context: AttentionContext) -> Tensor:
        result: Tensor = self.mlp(self.ln_2(self.attn(self.ln_1(x), context)))
        return result


class OneResidual(gpt.Block):
    def forward(self, x: Tensor, context: AttentionContext) -> Tensor:
        x = x + self.attn(self.ln_1(x), context)
        result: Tensor = self.mlp(self.ln_2(x))
        return result


class NormedResidual(gpt.Block):
    def forward(self, x: Tensor, context: AttentionContext) -> Tensor:
        x = self.ln_1(x)
        x = x + self.attn(x, context)
        x = self.ln_2(x)
        result: Tensor = x + self.mlp(x)
        return result


class Parallel(gpt.Block):
    def forward(self, x: Tensor, context: AttentionContext) -> Tensor:
        result: Tensor = x + self.attn(self.ln_1(x), context) + self.mlp(self.ln_2(x))
        return result


class NoNorms(gpt.Block):
    def forward(self, x: Tensor, context: AttentionContext) -> Tensor:
        x = x + self.attn(x, context)
        result: Tensor = x + self.mlp(x)
        return result


class OneNorm(gpt.Block):
    def forward(self, x: Tensor, context: AttentionContext) -> Tensor:
        x = x + self.attn(self.ln_1(x), context)
        result: Tensor = x + self.mlp(self.ln_1(x))
        return result


class MLPFirst(gpt.Block):
    def forward(self, x: Tensor, context: AttentionContext) -> Tensor:
        x = x + self.mlp(self.ln_2(x))
        result: Tensor = x + self.attn(self.ln_1(x), context)
        return result


BLOCK = Exercise(
    name="block",
    title="The Transformer block: attention, then the feed-forward layer; each adds to x.",
    reference=gpt.Block,
    write=("forward",),
    cases=lambda: [(numbers(1, 1, 8),), (numbers(2, 5, 8, seed=1),), (numbers(1, 3, 8),)],
    drive=drive_block,
    describe=lambda x: f"a block with x of shape {tuple(x.shape)}",
    lesson=7,
    mistakes=[
        Mistake(
            "no-residuals",
            "The residual connections are missing: each layer adds its result to x. Without them "
            "the gradient has to pass through every layer, and deep networks do not learn.",
            NoResiduals,
        ),
        Mistake(
            "one-residual",
            "The result of the feed-forward layer replaces x. It is added to x, too.", OneResidual,
        ),
        Mistake(
            "residual-of-the-norm",
            "The results are added to the normalized x. The residual stream itself is not "
            "normalized: only the input of a layer is.",
            NormedResidual,
        ),
        Mistake(
            "post-norm",
            "The norms come after the sums, as in the first Transformer of 2017. GPT-2 normalizes "
            "the input of each layer instead.",
            gpt.PostNormBlock,
        ),
        Mistake(
            "parallel",
            "The feed-forward layer gets x from before attention. It comes after attention, so its "
            "input includes what attention added.",
            Parallel,
        ),
        Mistake(
            "no-norms", "The norms are missing: the input of each layer is normalized.", NoNorms
        ),
        Mistake(
            "one-norm", "The same norm is used twice. ln_2 belongs before the feed-forward layer.",
            OneNorm,
        ),
        Mistake(
            "mlp-first",
            "The feed-forward layer comes before attention. Attention comes first.", MLPFirst,
        ),
    ],
    hints=(
        "Two lines. Each gives x to a norm and then to a layer, and adds the result to x.",
        "First attention after ln_1, then the feed-forward layer after ln_2. The second line uses "
        "the x of the first.",
        "x = x + self.attn(self.ln_1(x), context); then the same with mlp and ln_2, without the "
        "context.",
    ),
)  # fmt: skip
