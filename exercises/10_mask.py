"""Hide the future."""

from torch import Tensor


def causal_bias(q_pos: Tensor, k_pos: Tensor, window: int = 0) -> Tensor:
    """What hides the future: 0 where a query may look at a key, -inf where the key comes later.

    (T) and (S) -> (T, S). It is -inf and not merely a large negative number, since a model can
    learn to outweigh any number. A window hides the distant past as well (Beltagy et al. 2020):
    a query sees its own token and the window - 1 before it, and layer by layer what it sees
    reaches further back. Written so, hidden scores are computed and thrown away.

    >>> causal_bias(torch.arange(3), torch.arange(3))
    tensor([[0., -inf, -inf],
            [0., 0., -inf],
            [0., 0., 0.]])
    >>> causal_bias(torch.arange(3), torch.arange(3), window=2)
    tensor([[0., -inf, -inf],
            [0., 0., -inf],
            [-inf, 0., 0.]])
    """
    raise NotImplementedError("your turn")
