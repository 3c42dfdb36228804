"""The KV cache: store keys and values, so that old tokens are not computed again."""

import torch
from torch import Tensor

from nanogpt.config import ModelConfig


class KVCache:
    """Keys and values of every layer, and the positions of their tokens.

    The memory for a whole context is taken at once: 2 * n_layer * context_length * nkv * hs
    numbers for each row. Within a forward pass each layer calls `update`; after it the model calls
    `advance`. So a pass that was cut short in its layers leaves no trace.
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
