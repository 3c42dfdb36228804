"""What many ranks do together, by hand: each function is called by all ranks at once.

They go around a ring: each rank sends to the next one and receives from the one before, so all
links work at the same time (Patarasuk & Yuan 2009). torch has the same as all_reduce, all_gather
and reduce_scatter in torch.distributed. `copied`, `summed` and `gathered` are the same for tensors
with gradients: what one direction adds up, the other copies.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nanogpt.learn.ranks import Rank


def reduce_scatter(pieces: Sequence[Tensor], rank: Rank) -> Tensor:
    """Rank i gets the sum of everybody's piece i, where each rank has a piece for each rank.

    Each rank sends all its pieces but one: (n - 1) / n of what it has.
    """
    me, n = rank.number, rank.size
    kept = list(pieces)
    for step in range(1, n):
        rank.send(kept[(me - step) % n], to=(me + 1) % n)
        arriving = (me - step - 1) % n
        kept[arriving] = kept[arriving] + rank.receive((me - 1) % n)
    return kept[me]


def all_gather(piece: Tensor, rank: Rank) -> list[Tensor]:
    """Every rank gets the pieces of all ranks, in the order of the ranks.

    Each rank sends n - 1 pieces: its own, then those that arrive.
    """
    me, n = rank.number, rank.size
    found = {me: piece}
    for step in range(n - 1):
        rank.send(found[(me - step) % n], to=(me + 1) % n)
        found[(me - step - 1) % n] = rank.receive((me - 1) % n)
    return [found[number] for number in range(n)]


def all_reduce(x: Tensor, rank: Rank) -> Tensor:
    """The sum of the tensors of all ranks, on every rank. All have one shape.

    First each rank adds up one piece of the sum, then all pass their pieces around. Each rank sends
    2 (n - 1) / n of its tensor: less than twice, however many ranks there are.
    """
    pieces = x.flatten().tensor_split(rank.size)
    return torch.cat(all_gather(reduce_scatter(pieces, rank), rank)).view_as(x)


class Copied(torch.autograd.Function):
    """See copied."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rank: Rank) -> Tensor:
        """The same on every rank."""
        ctx.rank = rank
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        """Each rank knows the gradient of its own use; they add up."""
        return all_reduce(gradient, ctx.rank), None


class Summed(torch.autograd.Function):
    """See summed."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rank: Rank) -> Tensor:
        """The sum over the ranks."""
        return all_reduce(x, rank)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        """Every term of a sum has the gradient of the sum."""
        return gradient, None


class Gathered(torch.autograd.Function):
    """See gathered."""

    @staticmethod
    def forward(ctx: Any, piece: Tensor, rank: Rank, dim: int) -> Tensor:
        """All pieces, joined."""
        pieces = all_gather(piece, rank)
        ctx.rank, ctx.dim, ctx.sizes = rank, dim, [p.shape[dim] for p in pieces]
        return torch.cat(pieces, dim)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        """All ranks used this rank's piece: it gets the sum of their gradients."""
        return reduce_scatter(gradient.split(ctx.sizes, ctx.dim), ctx.rank), None, None


def copied(x: Tensor, rank: Rank) -> Tensor:
    """A tensor that all ranks have alike, and that each uses in its own way.

    Nothing moves on the way forward. On the way back the gradients of all ranks are added up with
    an all-reduce (Shoeybi et al. 2019, "Megatron-LM", section 3: the operator f).
    """
    found: Tensor = Copied.apply(x, rank)
    return found


def summed(x: Tensor, rank: Rank) -> Tensor:
    """The sum over all ranks, which all use alike from here on.

    An all-reduce on the way forward; nothing moves on the way back (Megatron-LM: the operator g).
    """
    found: Tensor = Summed.apply(x, rank)
    return found


def gathered(piece: Tensor, rank: Rank, dim: int = 0) -> Tensor:
    """The pieces of all ranks, joined along `dim`, which each rank uses in its own way.

    An all-gather on the way forward; on the way back a reduce-scatter, so that each rank gets the
    gradient of its own piece.
    """
    found: Tensor = Gathered.apply(piece, rank, dim)
    return found
