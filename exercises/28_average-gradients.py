"""The gradient average of data parallelism: every target weighs the same."""

from collections.abc import Sequence

from torch import Tensor

from nanogpt.learn.ranks import Rank


def average_gradients(gradients: Sequence[Tensor], targets: int, rank: Rank) -> list[Tensor]:
    """The gradient of the mean loss over all targets, where each rank has some of them.

    All ranks call this function at once. Each has computed the gradients of a mean: over its
    own targets. Padding makes the numbers of real targets unlike. Right is what one rank would
    get with all targets in one batch: every target weighs the same.

    Args:
        gradients: the gradient of each tensor of the model, in a list: those of the mean loss
            over this rank's own targets. On a rank without targets they are 0. They stay as
            they are.
        targets: the number of real targets of this rank, from 0. Some rank has one.
        rank: this rank, with rank.number and rank.size.

    Returns a list of tensors of the same shapes, the same on every rank. You may use
    all_reduce(x, rank) of nanogpt.learn.collectives, or your own.

    >>> two, six = torch.tensor([2.0]), torch.tensor([6.0])
    >>> mine = ([two], 1), ([six], 3)
    >>> run_ranks(2, lambda rank: average_gradients(*mine[rank.number], rank)).results
    [[tensor([5.])], [tensor([5.])]]
    """
    raise NotImplementedError("your turn")
