"""Look up a vector for each token, and add a vector for its position."""

from torch import Tensor


def embed(ids: Tensor, wte: Tensor, wpe: Tensor) -> Tensor:
    """A vector for each token: that of the token itself and that of its position, added up.

    Args:
        ids: token ids, whole numbers (B, T): B texts of T tokens.
        wte: the token embeddings, (V, C): row i belongs to token i.
        wpe: the position embeddings, (context length, C): row t belongs to position t. The
            first token of each text is at position 0. T is at most the context length.

    Returns (B, T, C).

    >>> wte, wpe = torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([[10.0], [20.0]])
    >>> embed(torch.tensor([[2, 0]]), wte, wpe).flatten()
    tensor([13., 21.])
    """
    raise NotImplementedError("your turn")
