"""How the objective is executed: what is computed twice to save memory, what is compiled.

Apart from rounding, nothing here changes what a step computes, only how fast and in how much
memory. The plain forms stand in model/layers.py, and the tests hold the fast ones equal to them.

Axes: N tokens, C channels, V vocabulary.
"""

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

from nanogpt.config import IGNORED, TrainConfig, choose
from nanogpt.device import Compute, compile_or_why_not
from nanogpt.model.attention import AttentionContext
from nanogpt.model.gpt import GPT
from nanogpt.model.layers import MLP, fused_cross_entropy, fused_gelu
from nanogpt.model.size import flops_per_token
from nanogpt.training.objective import OBJECTIVES

# Results that take long to compute: those of matrix products and of attention.
EXPENSIVE = [
    torch.ops.aten.mm.default,
    torch.ops.aten.addmm.default,
    torch.ops.aten.bmm.default,
    torch.ops.aten._scaled_dot_product_flash_attention.default,
    torch.ops.aten._scaled_dot_product_efficient_attention.default,
    torch.ops.aten._scaled_dot_product_cudnn_attention.default,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
]

# Which activations of a block are kept for the backward pass (Chen et al. 2016): all of them; none
# but the block's input, so that a third more is computed; or only those that take long to compute.
ACTIVATION_CHECKPOINTING: dict[str, dict[str, Any] | None] = {
    "none": None,
    "block": {},
    "selective": {"context_fn": partial(create_selective_checkpoint_contexts, EXPENSIVE)},
}

PART = 128  # columns of the logits that are summed up at a time


def build_objective(
    model: GPT, settings: TrainConfig, compute: Compute, tokens: int
) -> tuple[nn.Module, str]:
    """The objective as it will be executed for so many tokens, and why it is not compiled.

    The second is empty if it is. Raises UserError for a setting that is unknown.
    """
    checkpoint_activations(model, settings.activation_checkpointing)
    not_compiled = compile_or_why_not(settings.compile, compute, flops_per_token(model) * tokens)
    objective = choose(OBJECTIVES, "train.objective", settings.objective)(model)
    if not_compiled:
        return objective, not_compiled
    if compute.device.type == "cuda":
        suit_compiler(model)
    return torch.compile(objective), ""  # type: ignore[return-value]


def checkpoint_activations(model: GPT, kind: str) -> None:
    """Let every block compute activations again in the backward pass instead of keeping them."""
    how = choose(ACTIVATION_CHECKPOINTING, "train.activation_checkpointing", kind)
    if how is not None:
        for block in model.h:
            block.forward = partial(again, block, how)


def again(block: nn.Module, how: dict[str, Any], x: Tensor, context: AttentionContext) -> Tensor:
    """What a block computes, from which the backward pass computes it again: (B, T, C)."""
    forward = type(block).forward
    result: Tensor = checkpoint(forward, block, x, context, use_reentrant=False, **how)
    return result


def suit_compiler(model: GPT) -> None:
    """Exchange what torch.compile makes slow GPU kernels of, and keep the stream in 16 bits.

    On an H200 (GPT-2 124M, bfloat16) the loss takes 3.3 ms for 4.6 ms, and a step 5 % less time
    because residual connections move half as many bytes.
    """
    model.cross_entropy = cross_entropy
    model.drop.register_forward_hook(lambda _module, _inputs, x: in_autocast_type(x))
    for module in model.modules():
        if isinstance(module, MLP) and module.gelu is fused_gelu:
            module.gelu = gelu


def in_autocast_type(x: Tensor) -> Tensor:
    """Activations in the type of the matrix products, which may have 16 bits: (B, T, C)."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


def gelu(x: Tensor) -> Tensor:
    """The same function as `layers.gelu`: (1 + tanh(u)) / 2 is sigmoid(2u), and one exp."""
    return x * torch.sigmoid(math.sqrt(8 / math.pi) * (x + 0.044715 * x**3))


def cross_entropy(logits: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
    """The same function as `layers.cross_entropy`, fast where it is a sum and V fits."""
    if reduction != "sum" or logits.shape[-1] % PART:
        return fused_cross_entropy(logits, targets, reduction)
    return SumOfCrossEntropies.apply(logits, targets)


class SumOfCrossEntropies(torch.autograd.Function):
    """The sum of all losses, and its gradient p - one-hot, each in one pass over the logits.

    The compiler keeps a part of 128 logits in registers, where it reads a whole row twice, or
    rescales a running sum at every number.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        """logits (N, V), targets (N) -> ()."""
        parts = logits.float().unflatten(-1, (-1, PART)).logsumexp(-1)
        log_sums = parts.logsumexp(-1)
        found = logits.gather(-1, targets.clamp(min=0)[:, None])[:, 0].float()
        ctx.save_for_backward(logits, targets, log_sums)
        return torch.where(targets != IGNORED, log_sums - found, 0.0).sum()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """The gradient of the logits: (N, V)."""
        logits, targets, log_sums = ctx.saved_tensors
        p = torch.exp(logits.float() - log_sums[:, None])
        one_hot = targets[:, None] == torch.arange(logits.shape[-1], device=logits.device)
        factor = torch.where(targets != IGNORED, gradients[0], 0.0)[:, None]
        return ((p - one_hot.float()) * factor).to(logits.dtype), None
