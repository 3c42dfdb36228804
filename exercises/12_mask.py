"""The causal mask: no token sees a later token."""

from torch import Tensor


def causal_mask(T: int) -> Tensor:
    """The causal mask: which keys each of T queries may look at.

    Args:
        T: the number of tokens, from 1. Each token has a query and a key.

    Returns booleans (T, T): row t belongs to query t, column s to key s. True where the query
    may look: at its own token and at all earlier ones.
    """
    raise NotImplementedError("your turn")
