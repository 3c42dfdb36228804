"""How the model knows the order of tokens.

Attention by itself is blind to order: it sees a set. Order can enter in exactly three places, so a
position encoding has three hooks. The base class leaves all of them as they are; that is itself a
variant, a model whose only sense of order is that it cannot see the future.

`pos` holds the position of each token, counted from 0: (T,), or (B, T) where rows differ.
"""

import torch
from torch import Tensor, nn

from nanogpt.config import ModelConfig


class Position(nn.Module):
    """No position encoding (Haviv et al. 2022), and the interface of all others."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()

    def embed(self, x: Tensor, pos: Tensor) -> Tensor:
        """Add order to the token embeddings x (B, T, C)."""
        return x

    def rotate(self, q: Tensor, k: Tensor, pos: Tensor) -> tuple[Tensor, Tensor]:
        """Turn queries and keys, each (B, nh, T, hs), by their positions."""
        return q, k

    def bias(self, q_pos: Tensor, k_pos: Tensor) -> Tensor | None:
        """What to add to the attention scores, (nh, T, S) or (B, nh, T, S), or None."""
        return None


class Learned(Position):
    """One learned vector for each position, added to the token's (GPT-2)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.weight = nn.Parameter(torch.empty(config.context_length, config.n_embd))

    def embed(self, x: Tensor, pos: Tensor) -> Tensor:
        return x + self.weight[pos]  # (B, T, C)


POSITIONS: dict[str, type[Position]] = {"learned": Learned, "none": Position}
