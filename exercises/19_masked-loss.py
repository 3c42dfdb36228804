"""The loss that ignores padding: targets of -100 do not count."""

from torch import Tensor


def cross_entropy(logits: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
    """The loss where some targets do not count, such as padding.

    Args:
        logits: a score for each token of the vocabulary, (N, V), of any size.
        targets: the right token of each row, whole numbers (N,); -100 where there is nothing to
            predict. At least one target is real. The tensor stays as it is.
        reduction: "mean" for the mean over the real targets, "sum" for their sum, or "none" for
            the loss of each real target: (number of real targets,).

    The loss of a target is -log(probability of the target), in nats, as in the exercise
    cross-entropy. Rows whose target is -100 do not appear in the result in any way, not even
    if their scores are infinite.

    >>> logits = torch.tensor([[0.0, math.log(3)], [5.0, 1.0]])
    >>> cross_entropy(logits, torch.tensor([1, -100]))  # -log 0.75
    tensor(0.2877)
    """
    raise NotImplementedError("your turn")
