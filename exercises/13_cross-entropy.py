"""How surprised the model is by the right tokens, on average."""

from torch import Tensor


def cross_entropy(logits: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
    """How surprised the model is by the targets: -log of the probability it gave each, in nats.

    logits (N, V), targets (N,) with -100 where there is nothing to predict. The mean or the sum
    over the real targets, or with "none" the loss of each of them.

    >>> cross_entropy(torch.tensor([[0.0, math.log(3)]]), torch.tensor([1]))  # -log 0.75
    tensor(0.2877)
    """
    raise NotImplementedError("your turn")
