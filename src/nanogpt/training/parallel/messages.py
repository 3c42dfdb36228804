"""What ranks say to each other in a forward pass, and what that means for gradients.

Gather (torch: all-gather): every rank gets the tokens of all. Scatter (reduce-scatter): the tokens
of all are added up, and every rank gets its part of the sum. One is the gradient of the other: what
all have got, all send gradients for. An all-reduce is a scatter and then a gather.

Axes: B batch, T time, n ranks.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

# Newer versions of torch have new names for them.
all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


class GatherTokens(torch.autograd.Function):
    """The tokens of all ranks, one after the other: (B, T / n, ...) -> (B, T, ...)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        parts = x.new_empty(group.size(), *x.shape)  # (n, B, T / n, ...)
        all_gather(parts.flatten(0, 1), x.contiguous(), group=group)
        return parts.transpose(0, 1).flatten(1, 2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ScatterTokens.apply(gradients[0], ctx.group), None


class ScatterTokens(torch.autograd.Function):
    """The sum over all ranks, of which each gets its tokens: (B, T, ...) -> (B, T / n, ...)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        parts = x.unflatten(1, (group.size(), -1)).transpose(0, 1).contiguous()
        own = torch.empty_like(parts[0])  # (B, T / n, ...)
        reduce_scatter(own, parts.flatten(0, 1), group=group)
        return own

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return GatherTokens.apply(gradients[0], ctx.group), None


class SumOverRanks(torch.autograd.Function):
    """The sum over all ranks, of which all compute the same loss: each has the gradient already."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        total = x.clone()
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


gather_tokens: Callable[[Tensor, dist.ProcessGroup], Tensor] = GatherTokens.apply
scatter_tokens: Callable[[Tensor, dist.ProcessGroup], Tensor] = ScatterTokens.apply
sum_over_ranks: Callable[[Tensor, dist.ProcessGroup], Tensor] = SumOverRanks.apply


def send_gradients(tensors: Sequence[Tensor], group: dist.ProcessGroup) -> tuple[Tensor, dist.Work]:
    """Begin to add up the gradients of tensors over some ranks, all in one message.

    A rank may have no gradient where another has one: it had no use for an expert. It then sends
    -0.0, the only number that changes no sum, not even 0.0.
    """
    gradients = [torch.full_like(x, -0.0) if x.grad is None else x.grad + 0.0 for x in tensors]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    return flat, dist.all_reduce(flat, group=group, async_op=True)


def receive_gradients(tensors: Sequence[Tensor], flat: Tensor, work: dist.Work) -> None:
    """Wait for the sums, which become the gradients. A tensor that no rank used still has none."""
    work.wait()
    for x, total in zip(tensors, flat.split([x.numel() for x in tensors]), strict=True):
        used = x.grad is not None or not (total.signbit() & (total == 0)).all()
        x.grad = total.view_as(x) if used else None
