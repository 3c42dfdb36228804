"""How surprised the model is by the right tokens, on average."""

from torch import Tensor


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """How surprised the model is by the right tokens: the mean of -log(probability), in nats.

    Args:
        logits: a score for each token of the vocabulary, (N, V). The probabilities of row n are
            the softmax of its scores. Scores may be of any size, such as 1000.
        targets: the right token of each row, whole numbers (N,) from 0 to V - 1.

    Returns the mean over the N rows, a tensor without axes.

    >>> cross_entropy(torch.tensor([[0.0, math.log(3)]]), torch.tensor([1]))  # -log 0.75
    tensor(0.2877)
    """
    raise NotImplementedError("your turn")
