"""How much better an answer is than its group."""

from torch import Tensor


def advantages(rewards: Tensor, group_size: int, normalize: bool = False) -> Tensor:
    """How much better each answer is than its group: the answers to the same question.

    Args:
        rewards: what each answer is worth, (N), any numbers. It stays as it is. The answers to
            one question follow each other.
        group_size: how many answers there are to each question, at least 2. It divides N.
        normalize: whether to divide by the standard deviation of the group, too. It is torch's,
            with n - 1, and 0.0001 is added to it.

    Returns the advantages, (N), in the order of the rewards. The advantages of a group sum to
    0.

    >>> advantages(torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0]), group_size=4)
    tensor([ 0.7500, -0.2500, -0.2500, -0.2500,  0.0000,  0.0000,  0.0000,  0.0000])
    """
    raise NotImplementedError("your turn")
