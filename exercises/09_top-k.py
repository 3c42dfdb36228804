"""Rule out all but the k likeliest tokens."""

from torch import Tensor


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Rule out all but the k likeliest tokens (Fan et al. 2018).

    Args:
        logits: a score for each token, (B, V); each row is a choice of its own. Some may be
            minus infinity already. The tensor stays as it is.
        k: how many tokens to keep. 0 switches this off: nothing is ruled out. The same goes for
            a k of V or more.

    Returns logits of the same shape. A token that is ruled out has minus infinity, all others
    keep their score. Tokens as likely as the k-th stay, too, so there may be more than k.

    >>> keep_top_k(torch.tensor([[1.0, 3.0, 2.0]]), 2)
    tensor([[-inf, 3., 2.]])
    """
    raise NotImplementedError("your turn")
