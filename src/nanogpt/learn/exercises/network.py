"""Exercises about the layers: norms, bends, softmax, the block, the whole network, the loss."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nanogpt.config import ModelConfig
from nanogpt.learn.exercise import Exercise, Mistake
from nanogpt.model import gpt, layers
from nanogpt.model.attention import causal_bias

TINY = ModelConfig(vocab_size=11, context_length=8, n_layer=2, n_head=2, n_embd=8)


def numbers(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    """Some normal numbers, the same at every call."""
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def norm_cases() -> list[tuple[Any, ...]]:
    one, zero = torch.ones(4), torch.zeros(4)
    return [
        (torch.tensor([1.0, 2.0, 3.0, 6.0]), (4,), one, zero, 1e-5),
        (torch.tensor([1.0, 2.0, 3.0, 6.0]), (4,), one, None, 1e-5),
        (torch.tensor([1.0, 2.0, 3.0, 6.0]), (4,), 2 * one, one, 1e-5),
        (torch.tensor([1e-3, 2e-3, 3e-3, 6e-3]), (4,), one, zero, 1e-5),  # eps shows
        (torch.tensor([1e-3, 2e-3, 3e-3, 6e-3]), (4,), one, zero, 1e-3),
        (numbers(4, 4), (4,), one, zero, 1e-5),
        (numbers(2, 3, 4), (4,), numbers(4, seed=1), numbers(4, seed=2), 1e-5),
    ]


def norm_with(
    dim: Any = -1, correction: int = 0, root: Any = None, center: bool = True,
    gain: bool = True, shift: bool = True,
) -> Any:  # fmt: skip
    """A layer norm that does one thing differently."""

    def normed(
        x: Tensor, size: Sequence[int], weight: Tensor, bias: Tensor | None, eps: float
    ) -> Tensor:
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
    title="Bring every vector to mean 0 and variance 1, then stretch and shift it.",
    reference=layers.layer_norm,
    cases=norm_cases,
    lesson=6,
    mistakes=[
        Mistake(
            "variance-of-a-sample",
            "The variance is divided by n - 1, which is torch's default. Here the vector is all "
            "there is, not a sample: divide by n (correction=0).",
            norm_with(correction=1),
        ),
        Mistake(
            "eps-outside",
            "eps is added to the deviation. It belongs under the root, beside the variance: "
            "sqrt(variance + eps).",
            norm_with(root=lambda v, eps: torch.sqrt(v) + eps),
        ),
        Mistake(
            "no-eps", "eps is missing: a constant vector would be divided by zero.",
            norm_with(root=lambda v, eps: torch.sqrt(v)),
        ),
        Mistake(
            "no-root", "It divides by the variance. Divide by its root, the deviation.",
            norm_with(root=lambda v, eps: v + eps),
        ),
        Mistake(
            "wrong-axis",
            "It takes the mean over the wrong axis. Every token is brought to size by itself: use "
            "the last axis, the channels.",
            norm_with(dim=-2),
        ),
        Mistake(
            "over-everything",
            "It takes one mean over all tokens. Every token is brought to size by itself: use the "
            "last axis alone.",
            norm_with(dim=None),
        ),
        Mistake(
            "no-mean", "The mean is not taken away. That is RMS norm; layer norm centres first.",
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
        "Three lines: mean, variance, and the quotient; then gain and shift.",
        "Both over the last axis, with keepdim=True, so that they fit x again.",
        "(x - mean) / sqrt(variance + eps) * weight + bias, with correction=0 in the variance, and "
        "without bias where it is None.",
    ),
)  # fmt: skip


GELU = Exercise(
    name="gelu",
    title="The bend of GPT-2's feed-forward layer.",
    reference=layers.gelu,
    cases=lambda: [(torch.tensor([0.0, 1.0]),), (torch.linspace(-4, 4, 9),), (numbers(2, 3),)],
    lesson=6,
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
        Mistake("relu", "That is ReLU: it has a corner at 0, and GELU has none.", F.relu),
        Mistake(
            "no-half",
            "It is twice as large as it should be: for large x the bracket 1 + tanh is 2.",
            lambda x: 2 * layers.gelu(x),
        ),
        Mistake(
            "no-cube",
            "The cube is missing: inside tanh stands x + 0.044715 x^3.",
            lambda x: 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * x)),
        ),
        Mistake(
            "cube-times-ten",
            "The factor of the cube is 0.044715, with a zero behind the point.",
            lambda x: 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.44715 * x**3))),
        ),
        Mistake(
            "root-of-pi-halves",
            "The factor inside tanh is sqrt(2 / pi), not its inverse.",
            lambda x: 0.5 * x * (1 + torch.tanh(math.sqrt(math.pi / 2) * (x + 0.044715 * x**3))),
        ),
    ],
    hints=(
        "x times a number between 0 and 1: about 0 for very negative x, about 1 for large x.",
        "0.5 * x * (1 + tanh(...)): tanh runs from -1 to 1, so the bracket runs from 0 to 2.",
        "Inside tanh stands sqrt(2 / pi) * (x + 0.044715 * x**3).",
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
    title="Turn scores into shares that sum to 1, without overflow.",
    reference=layers.softmax,
    cases=softmax_cases,
    lesson=7,
    mistakes=[
        Mistake(
            "overflow",
            "Large scores give inf / inf, which is not a number. Take away the maximum first: it "
            "changes nothing in the quotient, and exp of numbers up to 0 cannot overflow.",
            plain_softmax,
        ),
        Mistake(
            "maximum-of-everything",
            "It takes away the maximum of the whole tensor. A row far below it becomes 0 / 0; take "
            "away the maximum of each row.",
            softmax_less_all,
        ),
        Mistake(
            "axis-ignored",
            "`dim` is not used: it always works along the last axis.",
            lambda x, dim=-1: layers.softmax(x),
        ),
        Mistake(
            "first-axis",
            "It works along the first axis where none is given. The default is the last.",
            lambda x, dim=0: layers.softmax(x, dim),
        ),
        Mistake(
            "over-everything",
            "The shares of all rows together sum to 1. Each row should: sum along `dim`.",
            lambda x, dim=-1: (
                torch.exp(x - x.amax(dim, keepdim=True))
                / torch.exp(x - x.amax(dim, keepdim=True)).sum()
            ),
        ),
        Mistake(
            "not-divided",
            "The results do not sum to 1: divide by the sum of the powers.",
            lambda x, dim=-1: torch.exp(x - x.amax(dim, keepdim=True)),
        ),
        Mistake(
            "logarithm",
            "These are logarithms of shares (log softmax).",
            lambda x, dim=-1: torch.log_softmax(x, dim),
        ),
    ],
    hints=(
        "exp makes every score positive; dividing by the sum makes them shares.",
        "exp(1000) is infinite. Something can be taken away from all scores of a row without "
        "changing the quotient.",
        "powers = exp(x - maximum along dim); powers / sum along dim. Use keepdim=True for both.",
    ),
)


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
    """-100 taken for a place counted from the end, or for token 0: it is scored, not skipped."""
    return -torch.log_softmax(logits, -1).gather(-1, targets.clamp(min=0)[:, None])[:, 0]


CROSS_ENTROPY = Exercise(
    name="cross-entropy",
    title="How surprised the model is, in the mean over what it had to predict.",
    reference=layers.cross_entropy,
    cases=loss_cases,
    lesson=8,
    mistakes=[
        Mistake(
            "mean-over-ignored",
            "The sum is right, but it is divided by the number of all targets. Those with -100 are "
            "not there: divide by the number of the others.",
            loss_with(reduce=lambda losses, targets: losses.sum() / len(targets)),
        ),
        Mistake(
            "ignored-counted",
            "Targets of -100 are scored as if they were token 0. Leave them out.",
            loss_with(losses=losses_of_all),
        ),
        Mistake(
            "overflow",
            "Large logits give inf or nan: exp overflowed, or the logarithm of a share of 0 was "
            "taken. Take away the maximum, and take the logarithm of the sum instead of the share.",
            loss_with(logarithm=lambda x, dim: torch.log(torch.softmax(x, dim))),
        ),
        Mistake(
            "bits",
            "The loss is in bits. In training it is in nats: the natural logarithm.",
            loss_with(logarithm=lambda x, dim: torch.log_softmax(x, dim) / math.log(2)),
        ),
        Mistake(
            "sign", "The sign is wrong: surprise is minus the logarithm, and never negative.",
            loss_with(logarithm=lambda x, dim: -torch.log_softmax(x, dim)),
        ),
        Mistake(
            "no-softmax", "It takes logits for logarithms of probabilities: softmax is missing.",
            loss_with(logarithm=lambda x, dim: x),
        ),
        Mistake(
            "no-logarithm", "It takes the share itself. The loss is minus its logarithm.",
            loss_with(logarithm=torch.softmax),
        ),
        Mistake(
            "sum-for-mean", "It gives the sum where the mean is asked for.",
            loss_with(reduce=lambda losses, targets: losses.sum()),
        ),
    ],
    hints=(
        "For each token: minus the logarithm of the probability that the model gave the right one.",
        "Leave out the rows whose target is -100, before anything else. The logarithm of a softmax "
        "is the score less the logarithm of the sum of the exponentials.",
        "shifted = logits - maximum of each row; loss = log(sum of exp(shifted)) - shifted at the "
        "target, which `gather` picks out. Then mean, sum or nothing, as `reduction` says.",
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


def drive_block(cls: type[gpt.Block], x: Tensor, how: str) -> Tensor:
    order, pos = gpt.POSITIONS["none"](TINY), torch.arange(x.shape[1])
    block = some_block(cls)
    bias, remember = None, None
    if how == "bias":
        bias = causal_bias(pos, pos)
        bias[1:, 0] = -math.inf
    if how == "remember":  # what it gives back is not what it was given

        def remember(k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
            return 2 * k, v + 1

    result: Tensor = block(x, order, pos, bias, remember)
    return result


class NoResiduals(gpt.Block):
    def forward(self, x: Tensor, *how: Any) -> Tensor:
        result: Tensor = self.mlp(self.ln_2(self.attn(self.ln_1(x), *how)))
        return result


class HowForgotten(gpt.Block):
    def forward(self, x: Tensor, *how: Any) -> Tensor:
        x = x + self.attn(self.ln_1(x), *how[:2], None)
        result: Tensor = x + self.mlp(self.ln_2(x))
        return result


class OneResidual(gpt.Block):
    def forward(self, x: Tensor, *how: Any) -> Tensor:
        x = x + self.attn(self.ln_1(x), *how)
        result: Tensor = self.mlp(self.ln_2(x))
        return result


class NormedResidual(gpt.Block):
    def forward(self, x: Tensor, *how: Any) -> Tensor:
        x = self.ln_1(x)
        x = x + self.attn(x, *how)
        x = self.ln_2(x)
        result: Tensor = x + self.mlp(x)
        return result


class Parallel(gpt.Block):
    def forward(self, x: Tensor, *how: Any) -> Tensor:
        result: Tensor = x + self.attn(self.ln_1(x), *how) + self.mlp(self.ln_2(x))
        return result


class NoNorms(gpt.Block):
    def forward(self, x: Tensor, *how: Any) -> Tensor:
        x = x + self.attn(x, *how)
        result: Tensor = x + self.mlp(x)
        return result


class OneNorm(gpt.Block):
    def forward(self, x: Tensor, *how: Any) -> Tensor:
        x = x + self.attn(self.ln_1(x), *how)
        result: Tensor = x + self.mlp(self.ln_1(x))
        return result


class ThinksFirst(gpt.Block):
    def forward(self, x: Tensor, *how: Any) -> Tensor:
        x = x + self.mlp(self.ln_2(x))
        result: Tensor = x + self.attn(self.ln_1(x), *how)
        return result


BLOCK = Exercise(
    name="block",
    title="Look around, then think; each adds to the stream.",
    reference=gpt.Block,
    write=("forward",),
    cases=lambda: [
        (numbers(1, 1, 8), ""), (numbers(2, 5, 8, seed=1), ""), (numbers(1, 3, 8), "bias"),
        (numbers(1, 3, 8), "remember"),
    ],
    drive=drive_block,
    describe=lambda x, how: f"a block reading x of shape {tuple(x.shape)}"
    + (f", with a {how} in `how`" if how else ""),
    lesson=6,
    mistakes=[
        Mistake(
            "no-residuals",
            "The residual connections are missing: each layer adds its result to x. Without them "
            "the gradient has to pass through everything, and deep networks do not learn.",
            NoResiduals,
        ),
        Mistake(
            "one-residual", "The feed-forward layer replaces x. It adds to x, too.", OneResidual
        ),
        Mistake(
            "residual-of-the-norm",
            "It adds to the normed x. The stream itself stays as it is: only what goes into a "
            "layer is normed.",
            NormedResidual,
        ),
        Mistake(
            "post-norm",
            "The norms stand behind the sums, as in the first Transformer of 2017. GPT-2 norms "
            "what goes into a layer.",
            gpt.PostNormBlock,
        ),
        Mistake(
            "how-not-handed-on",
            "Attention gets nothing of `how`, which holds position, bias and cache: hand all of "
            "it on, self.attn(..., *how).",
            HowForgotten,
        ),
        Mistake(
            "parallel",
            "The feed-forward layer reads x as it was before attention. It comes after it, and "
            "reads what attention added.",
            Parallel,
        ),
        Mistake("no-norms", "The norms are missing: what goes into a layer is normed.", NoNorms),
        Mistake(
            "one-norm", "The same norm is used twice. ln_2 belongs before the feed-forward layer.",
            OneNorm,
        ),
        Mistake(
            "thinks-first", "The feed-forward layer comes before attention. It comes after it.",
            ThinksFirst,
        ),
    ],
    hints=(
        "Two lines. Each takes x, gives it to a norm and a layer, and adds the result to x.",
        "First attention behind ln_1, then the feed-forward layer behind ln_2, which reads what "
        "the first line made.",
        "x = x + self.attn(self.ln_1(x), *how); then the same with mlp and ln_2, without how.",
    ),
)  # fmt: skip
