"""The KV cache: store keys and values, so that old tokens are not computed again."""

import torch
from torch import Tensor

from nanogpt.config import ModelConfig


class KVCache:
    """The KV cache: keys and values of the tokens so far, so that they are computed once.

    __init__ has made the memory: self.keys and self.values, each (n_layer, B, nkv, context
    length, hs), self.pos (B, context length), and self.length = 0, the number of tokens that
    are in the cache. What lies after the first self.length tokens means nothing. `clear` sets
    the length to 0.

    In a forward pass the model asks for `key_positions(pos)`, then calls `update(layer, k, v)`
    for each layer, then `advance(pos)` once. Three methods are yours:

    update stores the keys and values of T new tokens, k and v (B, nkv, T, hs), for one layer,
    after those that are in the cache. It gives all so far, old and new, as a pair (keys,
    values), each (B, nkv, S, hs). It does not change self.length: the other layers follow.

    key_positions gives the positions of all keys, old and new, (B, S), and changes nothing.
    `pos` holds the positions of the new tokens: (B, T), or (1, T) where all rows are alike.
    Positions are what was given, not places in the cache.

    advance makes the new tokens old: it stores their positions `pos`, (B, T) or (1, T), and
    adds them to self.length. It gives None.
    """

    def __init__(
        self, config: ModelConfig, rows: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        shape = (config.n_layer, rows, config.kv_heads, config.context_length, config.head_size)
        self.keys = torch.empty(shape, device=device, dtype=dtype)
        self.values = torch.empty(shape, device=device, dtype=dtype)
        self.pos = torch.empty(rows, config.context_length, device=device, dtype=torch.long)
        self.length = 0  # tokens in the cache

    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Add new tokens' keys and values (B, nkv, T, hs); give all so far (B, nkv, S, hs)."""
        raise NotImplementedError("your turn")

    def key_positions(self, pos: Tensor) -> Tensor:
        """The positions of all keys, where those of the new tokens are pos (B, T): (B, S)."""
        raise NotImplementedError("your turn")

    def advance(self, pos: Tensor) -> None:
        """All layers are through: from now on the new tokens, at positions (B, T), are old."""
        raise NotImplementedError("your turn")

    def clear(self) -> None:
        """Forget everything."""
        self.length = 0
