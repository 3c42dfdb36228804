"""The gradient of the loss with respect to the logits, by hand."""

from torch import Tensor


def cross_entropy_gradient(logits: Tensor, targets: Tensor) -> Tensor:
    """The gradient of the loss with respect to the logits, worked out by hand, without autograd.

    The loss is that of the exercise cross-entropy: the mean over N rows of -log(probability of
    the target), where the probabilities are the softmax of the logits. The gradient says for
    each logit how fast the loss grows with it.

    Args:
        logits: a score for each token of the vocabulary, (N, V), of any size.
        targets: the right token of each row, whole numbers (N,) from 0 to V - 1.

    Returns a tensor (N, V). You may use `softmax` of nanogpt.model.layers, or your own.

    >>> cross_entropy_gradient(torch.tensor([[0.0, 0.0]]), torch.tensor([1]))
    tensor([[ 0.5000, -0.5000]])
    """
    raise NotImplementedError("your turn")
