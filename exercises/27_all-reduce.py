"""The sum of the tensors of all ranks, on every rank, from send and receive."""

from torch import Tensor

from nanogpt.learn.ranks import Rank


def all_reduce(x: Tensor, rank: Rank) -> Tensor:
    """The sum of the tensors of all ranks, on every rank.

    All ranks call this function at once, each with its own tensor. rank.number is the number of
    this rank, from 0, and rank.size is the number of ranks, from 1. A rank knows its own tensor
    only, and two ways to others: rank.send(tensor, to) sends a tensor to rank number `to` and
    does not wait. rank.receive(source) waits for the next tensor from rank number `source`.
    Whatever is sent has to be received.

    Args:
        x: the tensor of this rank. All ranks have one shape, which may be any. It stays as it
            is.
        rank: this rank.

    Returns a tensor of the shape of x, the same on every rank. Any way that gives the sum
    passes; the judge says how much it sends.

    >>> run_ranks(2, lambda rank: all_reduce(torch.tensor([10.0**rank.number]), rank)).results
    [tensor([11.]), tensor([11.])]
    """
    raise NotImplementedError("your turn")
