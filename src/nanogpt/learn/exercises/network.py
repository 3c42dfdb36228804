"""Exercises about the parts of a block: the norm, the activation function, the block itself."""

import math
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanogpt.config import ModelConfig
from nanogpt.learn.answers import Answer, with_gradients
from nanogpt.learn.exercise import Exercise, Mistake
from nanogpt.learn.exercises.known import known, numbers, prepared, shaken
from nanogpt.learn.exercises.tasks import TASKS
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
        (torch.tensor([1e-3, 2e-3, 3e-3, 6e-3]), 2 * one, one, 1e-3),
        (torch.tensor([10_000.0, 10_001.0, 10_002.0, 10_005.0]), one, zero),  # a large mean
        (torch.tensor([3.0, 3.0, 3.0, 3.0]), one, zero),  # all equal: the variance is 0
        (numbers(4, 4), one, zero),
        (numbers(4, 4, scale=1e-3), one, zero, 1e-6),
        (numbers(3, 2, 4), numbers(4, seed=1)),
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


def norm_as(
    mean: Any = lambda x: x.mean(-1, keepdim=True),
    spread: Any = lambda x, eps: torch.sqrt(x.var(-1, keepdim=True, correction=0) + eps),
    scaled: Any = lambda y, weight, bias: y * weight if bias is None else y * weight + bias,
) -> Any:
    """A layer norm of other parts."""

    def normed(x: Tensor, weight: Tensor, bias: Tensor | None = None, eps: float = 1e-5) -> Tensor:
        found: Tensor = scaled((x - mean(x)) / spread(x, eps), weight, bias)
        return found

    return normed


def rooted(variance: Any, add: Any = lambda v, eps: torch.sqrt(v + eps)) -> Any:
    return lambda x, eps: add(variance(x), eps)


def length_of(x: Tensor) -> Tensor:
    """The length of each vector around its mean."""
    return torch.linalg.vector_norm(x - x.mean(-1, keepdim=True), dim=-1, keepdim=True)


def square_mean(x: Tensor) -> Tensor:
    return x.square().mean(-1, keepdim=True)


LAYER_NORM = Exercise(
    name="layer-norm",
    title="Bring every vector to mean 0 and variance 1, then scale and shift it.",
    task=TASKS["layer-norm"],
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
        known(
            "std-of-torch",
            "x.std divides by n - 1, and eps is added to it. Divide the variance by n "
            "(correction=0), and put eps under the root: sqrt(variance + eps).",
            norm_as(spread=lambda x, eps: x.std(-1, keepdim=True) + eps),
            norm_as(spread=lambda x, eps: x.std(-1, keepdim=True)),
        ),
        known(
            "eps-ignored",
            "The argument `eps` is not used: another number stands in its place.",
            *(norm_as(spread=lambda x, eps, e=e: torch.sqrt(
                x.var(-1, keepdim=True, correction=0) + e)) for e in (1e-5, 1e-6, 1e-8, 1e-12)),
        ),
        known(
            "bias-always-added",
            "The bias is added even where it is None. Leave it out then.",
            norm_as(scaled=lambda y, weight, bias: y * weight + bias),
        ),
        known(
            "axis-by-number",
            "The axis is counted from the front. x may have any number of axes: count the channels "
            "from the end, -1.",
            *(norm_as(
                lambda x, n=n: x.mean(n, keepdim=True),
                lambda x, eps, n=n: torch.sqrt(x.var(n, keepdim=True, correction=0) + eps),
            ) for n in (1, 2)),
        ),
        known(
            "no-keepdim",
            "keepdim=True is missing. Without it the mean has lost its last axis, and is "
            "subtracted from the wrong numbers or does not fit.",
            norm_as(
                lambda x: x.mean(-1), lambda x, eps: torch.sqrt(x.var(-1, correction=0) + eps)
            ),
            norm_as(lambda x: x.mean(-1)),
            norm_as(spread=lambda x, eps: torch.sqrt(x.var(-1, correction=0) + eps)),
        ),
        known(
            "sum-for-mean",
            "The squares are added up, not averaged. The variance is the mean of the squares.",
            norm_as(spread=lambda x, eps: torch.sqrt(
                x.var(-1, keepdim=True, correction=0) * x.shape[-1] + eps)),
            norm_as(spread=lambda x, eps: length_of(x) + eps),
            norm_as(spread=lambda x, eps: length_of(x)),
        ),
        known(
            "variance-around-zero",
            "The mean is subtracted from x, but not in the variance. Take the mean square of "
            "x - mean.",
            norm_as(spread=rooted(square_mean)),
        ),
        known(
            "mean-not-subtracted",
            "x is divided by its standard deviation, but the mean is not subtracted from it.",
            norm_as(mean=lambda x: 0.0),
        ),
        known(
            "not-divided",
            "The mean is subtracted, but nothing is divided by the standard deviation.",
            norm_as(spread=lambda x, eps: 1.0),
        ),
        known(
            "mean-of-squares-less-square-of-mean",
            "The variance is the mean of the squares minus the square of the mean. Where the mean "
            "is large, nearly all digits cancel. Subtract the mean first, then square.",
            norm_as(spread=rooted(lambda x: square_mean(x) - x.mean(-1, keepdim=True) ** 2)),
            norm_as(spread=rooted(
                lambda x: (square_mean(x) - x.mean(-1, keepdim=True) ** 2).clamp(min=0)
            )),
            norm_as(spread=rooted(
                lambda x: (square_mean(x) - x.mean(-1, keepdim=True) ** 2).abs()
            )),
        ),
        known(
            "absolute-deviation",
            "It divides by the mean absolute deviation. Take the root of the mean square.",
            norm_as(spread=lambda x, eps: (
                (x - x.mean(-1, keepdim=True)).abs().mean(-1, keepdim=True) + eps
            )),
        ),
        known(
            "multiplied-by-spread",
            "It multiplies by the standard deviation. Divide by it.",
            norm_as(spread=lambda x, eps: 1 / torch.sqrt(
                x.var(-1, keepdim=True, correction=0) + eps)),
        ),
        known(
            "largest-and-smallest",
            "It brings the vector between its smallest and its largest number. Use mean and "
            "standard deviation.",
            norm_as(
                lambda x: x.amin(-1, keepdim=True),
                lambda x, eps: x.amax(-1, keepdim=True) - x.amin(-1, keepdim=True) + eps,
            ),
        ),
        known(
            "no-gain-and-shift", "Neither `weight` nor `bias` is used.",
            norm_as(scaled=lambda y, weight, bias: y),
        ),
        known(
            "shift-before-gain",
            "The bias is added before the gain, so it is scaled, too. Multiply first, then add.",
            norm_as(scaled=lambda y, weight, bias: (y + (0 if bias is None else bias)) * weight),
        ),
        known(
            "gain-around-one",
            "The gain is 1 + weight. In GPT-2 it is the weight itself, which starts at 1.",
            norm_as(scaled=lambda y, weight, bias: y * (1 + weight) + (
                0 if bias is None else bias)),
        ),
        known(
            "gain-and-shift-swapped", "`weight` is added and `bias` multiplied. Swap them.",
            norm_as(scaled=lambda y, weight, bias: y + weight if bias is None
                    else y * bias + weight),
        ),
    ],
    hints=(
        "Three steps: mean and variance, then the quotient, then gain and shift.",
        "Take both over the last axis, with keepdim=True, so that they broadcast with x.",
        "(x - mean) / sqrt(variance + eps) * weight + bias. Use correction=0 in the variance, and "
        "leave the bias out where it is None.",
    ),
)  # fmt: skip


def gelu_with(
    factor: float = math.sqrt(2 / math.pi), cube: Any = lambda x: x + 0.044715 * x**3,
    finished: Any = lambda x, t: 0.5 * x * (1 + t), tanh: Any = torch.tanh,
) -> Any:  # fmt: skip
    """A GELU that does one thing differently."""

    def activation(x: Tensor) -> Tensor:
        found: Tensor = finished(x, tanh(factor * cube(x)))
        return found

    return activation


def tanh_by_exp(x: Tensor) -> Tensor:
    return (torch.exp(2 * x) - 1) / (torch.exp(2 * x) + 1)


def tanh_by_two_exps(x: Tensor) -> Tensor:
    return (torch.exp(x) - torch.exp(-x)) / (torch.exp(x) + torch.exp(-x))


GELU = Exercise(
    name="gelu",
    title="GELU, the activation function of GPT-2.",
    task=TASKS["gelu"],
    reference=layers.gelu,
    cases=lambda: [
        (torch.tensor([0.0, 1.0]),),
        (torch.linspace(-4, 4, 9),),
        (numbers(2, 3),),
        (torch.tensor([-1000.0, -50.0, 50.0, 1000.0]),),
    ],
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
        known(
            "other-digits",
            "The factor of the cube has other digits: it is 0.044715.",
            *(
                gelu_with(cube=lambda x, c=c: x + c * x**3)
                for c in (
                    0.044175,
                    0.0447,
                    0.045,
                    0.04,
                    0.0044715,
                    0.044751,
                    0.047715,
                    0.044517,
                )
            ),
        ),
        known(
            "square-for-cube",
            "x is squared inside tanh. Take the cube, x**3.",
            gelu_with(cube=lambda x: x + 0.044715 * x**2),
        ),
        known(
            "fourth-power",
            "x has the wrong power inside tanh. Take the cube, x**3.",
            gelu_with(cube=lambda x: x + 0.044715 * x**4),
            gelu_with(cube=lambda x: 1 + 0.044715 * x**3),
            gelu_with(cube=lambda x: x * (x + 0.044715 * x**3)),
        ),
        known(
            "cube-of-everything",
            "The factor 0.044715 is inside the cube. Only x is cubed: 0.044715 * x**3.",
            gelu_with(cube=lambda x: x + (0.044715 * x) ** 3),
            gelu_with(cube=lambda x: (x + 0.044715 * x) ** 3),
            gelu_with(cube=lambda x: (x + 0.044715) ** 3),
        ),
        known(
            "cube-alone",
            "x itself is missing beside the cube: the argument contains x + 0.044715 * x**3.",
            gelu_with(cube=lambda x: 0.044715 * x**3),
        ),
        known(
            "cube-subtracted",
            "The cube is subtracted. Add it: x + 0.044715 * x**3.",
            gelu_with(cube=lambda x: x - 0.044715 * x**3),
        ),
        known(
            "cube-unscaled",
            "The factor sqrt(2 / pi) belongs to x and to the cube: put x + 0.044715 * x**3 in "
            "parentheses.",
            lambda x: 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * x + 0.044715 * x**3)),
        ),
        known(
            "another-factor",
            "The factor inside tanh is another number. It is sqrt(2 / pi), about 0.798: the root "
            "of the whole quotient.",
            *(
                gelu_with(factor)
                for factor in (
                    1.0,
                    2 / math.pi,
                    math.sqrt(2) / math.pi,
                    2 / math.sqrt(math.pi),
                    math.sqrt(2),
                    math.sqrt(2 * math.pi),
                    1 / math.sqrt(math.pi),
                    math.pi / 2,
                    0.8,
                    0.79,
                    0.7,
                    1 / math.sqrt(2),
                    math.sqrt(math.pi) / 2,
                    0.7071,
                    math.sqrt(1 / math.pi),
                )
            ),
        ),
        known(
            "no-x",
            "x itself is missing in front: 0.5 * x * (1 + tanh(...)).",
            gelu_with(finished=lambda x, t: 0.5 * (1 + t)),
        ),
        known(
            "no-one",
            "The 1 is missing: 0.5 * x * (1 + tanh(...)).",
            gelu_with(finished=lambda x, t: 0.5 * x * t),
            gelu_with(finished=lambda x, t: x * t),
        ),
        known(
            "half-of-tanh-alone",
            "Half of tanh is taken alone. The factor is (1 + tanh(z)) / 2: half of the sum.",
            gelu_with(finished=lambda x, t: x * (1 + 0.5 * t)),
        ),
        known(
            "no-half-and-no-one",
            "It is x + tanh(...). Multiply: 0.5 * x * (1 + tanh(...)).",
            gelu_with(finished=lambda x, t: x + t),
            gelu_with(finished=lambda x, t: 0.5 * (x + t)),
            gelu_with(finished=lambda x, t: 0.5 * x + t),
            gelu_with(finished=lambda x, t: 0.5 * x * 1 + t),
        ),
        known(
            "minus",
            "tanh is subtracted. Add it: 0.5 * x * (1 + tanh(...)).",
            gelu_with(finished=lambda x, t: 0.5 * x * (1 - t)),
        ),
        known(
            "tanh-overflows",
            "tanh is computed from exp, which overflows: inf / inf is not a number. Use "
            "torch.tanh.",
            gelu_with(tanh=tanh_by_exp),
            gelu_with(tanh=tanh_by_two_exps),
        ),
        known(
            "erf-without-root",
            "That is the exact form, but without the division by sqrt(2) inside erf. And GPT-2 "
            "uses the approximation with tanh.",
            lambda x: 0.5 * x * (1 + torch.erf(x)),
        ),
        known(
            "erf-of-the-approximation",
            "The two forms are mixed: the polynomial with x**3 belongs to tanh, not to erf.",
            gelu_with(tanh=torch.erf),
        ),
        known(
            "sigmoid-of-the-approximation",
            "The two forms are mixed: 1 + tanh(z) is 2 * sigmoid(2 z).",
            gelu_with(tanh=torch.sigmoid),
            gelu_with(finished=lambda x, t: x * t, tanh=torch.sigmoid),
        ),
        known(
            "another-activation",
            "That is another activation function. GPT-2 uses GELU in the tanh approximation.",
            torch.tanh,
            torch.sigmoid,
            F.elu,
            F.leaky_relu,
            F.softplus,
            F.mish,
            F.selu,
        ),
    ],
    hints=(
        "GELU is x times a number from 0 to 1: about 0 for very negative x, about 1 for large x.",
        "0.5 * x * (1 + tanh(...)): tanh goes from -1 to 1, so 1 + tanh goes from 0 to 2.",
        "The argument of tanh is sqrt(2 / pi) * (x + 0.044715 * x**3).",
    ),
)


def prepare_block(block: nn.Module) -> None:
    """Weights of which every single one matters.

    Dropout is 0.5 everywhere, which shows in evaluation if it is not switched off.
    """
    SHAKEN(block.eval())
    for module in block.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.5


SHAKEN = shaken(0.3)


def drive_block(cls: type[gpt.Block], x: Tensor, masked: bool = False) -> Answer:
    context = AttentionContext(Position(TINY), torch.arange(x.shape[1])[None])
    if masked:  # a window of one: each token sees itself alone
        context = replace(context, mask=torch.eye(x.shape[1], dtype=torch.bool), causal=False)
    block = prepared(cls, gpt.Block, TINY, prepare_block)
    return with_gradients(lambda x: block(x, context), {"x": x}, block)


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


def block_with(forward: Any) -> type[gpt.Block]:
    """A block with another forward pass."""
    return type("Block", (gpt.Block,), {"forward": forward})


BLOCK = Exercise(
    name="block",
    title="The Transformer block: attention, then the feed-forward layer; each adds to x.",
    task=TASKS["block"],
    reference=gpt.Block,
    write=("forward",),
    cases=lambda: [(numbers(1, 1, 8),), (numbers(2, 5, 8, seed=1),), (numbers(1, 3, 8),),
                   (numbers(1, 3, 8), True)],
    drive=drive_block,
    describe=lambda x, masked=False: (
        f"a block with x of shape {tuple(x.shape)}"
        + (" and a mask in the context: each token sees itself alone" if masked else "")
    ),
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
        known(
            "attention-lost",
            "The second sum starts from the x that came in, so what attention added is lost. Keep "
            "the first sum: x = x + ...",
            block_with(lambda s, x, c: x + s.mlp(s.ln_2(x + s.attn(s.ln_1(x), c)))),
        ),
        known(
            "no-sum-between",
            "There is one sum for both layers. Each layer adds its own result to x.",
            block_with(lambda s, x, c: x + s.mlp(s.ln_2(s.attn(s.ln_1(x), c)))),
        ),
        known(
            "no-sum-around-attention",
            "The result of attention replaces x. It is added to x.",
            block_with(lambda s, x, c: (y := s.attn(s.ln_1(x), c)) + s.mlp(s.ln_2(y))),
        ),
        known(
            "norms-after-the-layers",
            "The results are normalized before they are added. Normalize the input of each layer, "
            "not its result.",
            block_with(
                lambda s, x, c: (y := x + s.ln_1(s.attn(x, c))) + s.ln_2(s.mlp(y))
            ),
            block_with(
                lambda s, x, c: (y := x + s.ln_1(s.attn(x, c))) + s.mlp(s.ln_2(y))
            ),
            block_with(
                lambda s, x, c: (y := x + s.attn(s.ln_1(x), c)) + s.ln_2(s.mlp(y))
            ),
        ),
        known(
            "half-post-norm",
            "One norm comes after its sum. Both norms come before their layers.",
            block_with(lambda s, x, c: (y := s.ln_1(x + s.attn(x, c))) + s.mlp(s.ln_2(y))),
            block_with(lambda s, x, c: s.ln_2((y := x + s.attn(s.ln_1(x), c)) + s.mlp(y))),
        ),
        known(
            "half-normed-residual",
            "In one of the two sums the normalized x is added. Add to the x that is not "
            "normalized.",
            block_with(
                lambda s, x, c: (y := (n := s.ln_1(x)) + s.attn(n, c)) + s.mlp(s.ln_2(y))
            ),
            block_with(
                lambda s, x, c: (n := s.ln_2(x + s.attn(s.ln_1(x), c))) + s.mlp(n)
            ),
        ),
        known(
            "ln_1-missing", "ln_1 is missing: the input of attention is normalized, too.",
            block_with(lambda s, x, c: (y := x + s.attn(x, c)) + s.mlp(s.ln_2(y))),
        ),
        known(
            "ln_2-missing",
            "ln_2 is missing: the input of the feed-forward layer is normalized, too.",
            block_with(lambda s, x, c: (y := x + s.attn(s.ln_1(x), c)) + s.mlp(y)),
        ),
        known(
            "norms-swapped",
            "The norms are swapped: ln_1 belongs to attention, ln_2 to the feed-forward layer.",
            block_with(lambda s, x, c: (y := x + s.attn(s.ln_2(x), c)) + s.mlp(s.ln_1(y))),
        ),
        known(
            "one-norm", "The same norm is used twice. ln_2 belongs before the feed-forward layer.",
            block_with(lambda s, x, c: (y := x + s.attn(s.ln_2(x), c)) + s.mlp(s.ln_2(y))),
        ),
        known(
            "normed-once",
            "x is normalized once, and both layers get that. ln_2 normalizes the sum after "
            "attention.",
            block_with(lambda s, x, c: x + s.attn(n := s.ln_1(x), c) + s.mlp(n)),
            block_with(lambda s, x, c: x + s.attn(n := s.ln_1(x), c) + s.mlp(s.ln_2(n))),
        ),
        known(
            "no-attention", "Attention is missing, or its result is thrown away.",
            block_with(lambda s, x, c: x + s.mlp(s.ln_2(x))),
        ),
        known(
            "no-mlp", "The feed-forward layer is missing, or its result is thrown away.",
            block_with(lambda s, x, c: x + s.attn(s.ln_1(x), c)),
        ),
        known(
            "attention-twice", "Attention runs twice. After it comes the feed-forward layer.",
            block_with(lambda s, x, c: (
                (y := x + s.attn(s.ln_1(x), c)) + s.attn(s.ln_2(y), c)
            )),
            block_with(lambda s, x, c: (
                (y := x + s.attn(s.ln_1(x), c)) + s.attn(s.ln_1(y), c)
            )),
        ),
        known(
            "x-added-twice", "x is added once too often.",
            block_with(lambda s, x, c: (
                x + (y := x + s.attn(s.ln_1(x), c)) + s.mlp(s.ln_2(y))
            )),
            block_with(lambda s, x, c: 2 * x + s.attn(s.ln_1(x), c) + s.mlp(
                s.ln_2(2 * x + s.attn(s.ln_1(x), c)))),
        ),
        known(
            "normed-twice",
            "There is a norm too many: the result of the block is not normalized. ln_f follows "
            "after the last block.",
            block_with(lambda s, x, c: s.ln_2(
                (y := x + s.attn(s.ln_1(x), c)) + s.mlp(s.ln_2(y)))),
            block_with(lambda s, x, c: s.ln_1(
                (y := x + s.attn(s.ln_1(x), c)) + s.mlp(s.ln_2(y)))),
        ),
        known(
            "averaged", "The sums are halved. Add the results as they are.",
            block_with(lambda s, x, c: (
                (y := (x + s.attn(s.ln_1(x), c)) / 2) + s.mlp(s.ln_2(y))) / 2),
        ),
        known(
            "multiplied", "x is multiplied by the result of a layer. Add it.",
            block_with(lambda s, x, c: (y := x * s.attn(s.ln_1(x), c)) * s.mlp(s.ln_2(y))),
        ),
        known(
            "context-replaced",
            "Attention gets another context than the block. Give it `context` as it is: it says "
            "what is hidden and holds the cache.",
            block_with(lambda s, x, c: (y := x + s.attn(s.ln_1(x), AttentionContext(
                c.position, c.pos))) + s.mlp(s.ln_2(y))),
            block_with(lambda s, x, c: (y := x + s.attn(s.ln_1(x), AttentionContext(
                c.position, c.pos, causal=False))) + s.mlp(s.ln_2(y))),
        ),
        known(
            "dropout-in-evaluation",
            "Dropout is on in evaluation. The layers have their own, which knows whether the model "
            "is in training; F.dropout has to be told: training=self.training.",
            block_with(lambda s, x, c: (
                y := x + F.dropout(s.attn(s.ln_1(x), c), s.mlp.dropout.p)
            ) + F.dropout(s.mlp(s.ln_2(y)), s.mlp.dropout.p)),
            block_with(lambda s, x, c: (y := x + s.attn(s.ln_1(x), c)) + F.dropout(
                s.mlp(s.ln_2(y)), s.mlp.dropout.p)),
            block_with(lambda s, x, c: F.dropout(
                (y := x + s.attn(s.ln_1(x), c)) + s.mlp(s.ln_2(y)), s.mlp.dropout.p)),
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
