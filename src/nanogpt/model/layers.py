"""The layers that a Transformer is made of, apart from attention.

Each computation stands here as a plain function, written by hand. Torch has the same computation
as one fused kernel, which is faster because it goes through memory once. `KERNELS` puts the two
side by side, the tests hold them equal, and the setting `model.kernels` switches between them.

Axes: B batch, T time, C channels, V vocabulary.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanogpt.config import IGNORED, ModelConfig, choose


def softmax(x: Tensor, dim: int = -1) -> Tensor:
    """Turn scores into positive weights that sum to 1: exp(x) over the sum of exp(x).

    Subtracting the maximum changes nothing in the quotient and keeps exp from overflowing.

    >>> softmax(torch.tensor([0.0, math.log(3)]))
    tensor([0.2500, 0.7500])
    """
    powers = torch.exp(x - x.amax(dim, keepdim=True))
    return powers / powers.sum(dim, keepdim=True)


def cross_entropy(logits: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
    """How surprised the model is by the targets: -log of the probability it gave each, in nats.

    logits (N, V), targets (N,) with -100 where there is nothing to predict. The mean or the sum
    over the real targets, or with "none" the loss of each of them.

    >>> cross_entropy(torch.tensor([[0.0, math.log(3)]]), torch.tensor([1]))  # -log 0.75
    tensor(0.2877)
    """
    real = targets != IGNORED  # (N)
    logits, targets = at_least_float32(logits[real]), targets[real]
    # log softmax, written so that exp cannot overflow: see softmax.
    shifted = logits - logits.amax(-1, keepdim=True)
    log_sums = torch.log(torch.exp(shifted).sum(-1))
    losses = log_sums - shifted.gather(-1, targets[:, None])[:, 0]
    if reduction == "none":
        return losses
    return losses.mean() if reduction == "mean" else losses.sum()


def at_least_float32(x: Tensor) -> Tensor:
    """Numbers of 16 bits are too coarse for sums of many; finer ones stay as they are."""
    return x.float() if x.dtype.itemsize < 4 else x


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """Give each vector mean 0 and variance 1, then a learned gain and shift (Ba et al. 2016).

    x (..., C) -> (..., C). It keeps activations in the range where gradients are healthy, however
    deep the network is.
    """
    mean = x.mean(-1, keepdim=True)
    variance = x.var(-1, keepdim=True, correction=0)
    x = (x - mean) / torch.sqrt(variance + eps) * weight
    return x if bias is None else x + bias


def rms_norm(x: Tensor, weight: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """Divide each vector by its root mean square, then apply a learned gain if there is one.

    x (..., C) -> (..., C).

    >>> rms_norm(torch.tensor([3.0, 4.0]), eps=0.0)  # mean square 12.5
    tensor([0.8485, 1.1314])
    """
    x = x / torch.sqrt(x.square().mean(-1, keepdim=True) + eps)
    return x if weight is None else x * weight


def gelu(x: Tensor) -> Tensor:
    """A smooth ReLU: x times the share of a normal distribution below x (Hendrycks & Gimpel 2016).

    GPT-2 uses this approximation with tanh. It differs from the exact form by up to 5e-4, enough
    to show in the logits.
    """
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


class Kernels(NamedTuple):
    """One implementation of each computation of this module."""

    cross_entropy: Callable[..., Tensor]
    layer_norm: Callable[..., Tensor]
    rms_norm: Callable[..., Tensor]
    gelu: Callable[[Tensor], Tensor]


def fused_layer_norm(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """Torch's kernel for `layer_norm`."""
    return F.layer_norm(x, weight.shape, weight, bias, eps)


def fused_rms_norm(x: Tensor, weight: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """RMS norm in torch's own kernel."""
    return F.rms_norm(x, x.shape[-1:], weight, eps)


def fused_gelu(x: Tensor) -> Tensor:
    """GELU in torch's own kernel."""
    return F.gelu(x, approximate="tanh")


def fused_cross_entropy(logits: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
    """Torch's kernel for `cross_entropy`."""
    logits = at_least_float32(logits)
    losses = F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction=reduction)
    return losses if reduction != "none" else losses[targets != IGNORED]


KERNELS = {
    "plain": Kernels(cross_entropy, layer_norm, rms_norm, gelu),
    "fused": Kernels(fused_cross_entropy, fused_layer_norm, fused_rms_norm, fused_gelu),
}


class LayerNorm(nn.Module):
    """Layer norm with its learned gain and shift: (B, T, C) -> (B, T, C)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(config.n_embd))
        self.bias = nn.Parameter(torch.zeros(config.n_embd)) if config.bias else None
        self.layer_norm = choose(KERNELS, "model.kernels", config.kernels).layer_norm

    def forward(self, x: Tensor) -> Tensor:
        return self.layer_norm(x, self.weight, self.bias)


class RMSNorm(nn.Module):
    """Divide vectors by their root mean square (Zhang & Sennrich 2019): (B, T, C) -> (B, T, C).

    Layer norm without the mean and the shift. Of what layer norm does, bringing vectors to one size
    turned out to be what helps, and this is cheaper. Equal to layer norm on vectors of mean zero.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(config.n_embd))
        self.rms_norm = choose(KERNELS, "model.kernels", config.kernels).rms_norm

    def forward(self, x: Tensor) -> Tensor:
        return self.rms_norm(x, self.weight)


# Without norms the size of the stream grows from block to block, and training soon fails.
NORMS: dict[str, type[nn.Module]] = {"layer": LayerNorm, "rms": RMSNorm, "none": nn.Identity}


class StackedLinear(nn.Linear):
    """A linear layer of several matrices, one above the other: (..., in) -> (..., sum(rows)).

    To compute them at once is faster. `rows` says where one ends and the next begins.
    """

    def __init__(self, inputs: int, rows: Sequence[int], bias: bool) -> None:
        super().__init__(inputs, sum(rows), bias=bias)
        self.rows = list(rows)


class MLP(nn.Module):
    """The feed-forward layer: widen fourfold, apply GELU, narrow again: (B, T, C) -> (B, T, C).

    Attention moves information between positions; this layer works on each position alone, and
    holds two thirds of a block's parameters. A variant says how wide it is and what its activation
    function does.
    """

    matrices = 1  # in c_fc

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = self.width(config)
        self.c_fc = StackedLinear(config.n_embd, [width] * self.matrices, bias=config.bias)
        self.c_proj = nn.Linear(width, config.n_embd, bias=config.bias)
        self.gelu = choose(KERNELS, "model.kernels", config.kernels).gelu
        self.dropout = nn.Dropout(config.dropout)

    @staticmethod
    def width(config: ModelConfig) -> int:
        """How many channels the layer has inside."""
        return 4 * config.n_embd

    def activation(self, x: Tensor) -> Tensor:
        """The nonlinearity: what makes two linear maps more than one."""
        return self.gelu(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.c_proj(self.activation(self.c_fc(x))))  # (B, T, C)


class SquaredReLU(MLP):
    """The feed-forward layer with max(x, 0) squared for GELU (So et al. 2021, "Primer").

    Found by a search over architectures. Most channels are exactly zero for most tokens, and it
    costs two simple operations where GELU needs a tanh.
    """

    def activation(self, x: Tensor) -> Tensor:
        return F.relu(x).square()


class SwiGLU(MLP):
    """The feed-forward layer with a gate (Shazeer 2020): one half decides how much of the other.

    Products let the layer compare channels, which no function of a single channel can do; Llama
    and most models since use it. The layer is 8/3 instead of 4 times as wide, for as many
    parameters.
    """

    matrices = 2

    @staticmethod
    def width(config: ModelConfig) -> int:
        return 8 * math.ceil(config.n_embd / 3)

    def activation(self, x: Tensor) -> Tensor:
        gate, value = x.chunk(2, dim=-1)
        return gate * torch.sigmoid(gate) * value


MLPS: dict[str, type[MLP]] = {"gelu": MLP, "relu2": SquaredReLU, "swiglu": SwiGLU}
