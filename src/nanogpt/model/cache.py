"""The KV cache: keys and values of the tokens read so far."""

import torch
from torch import Tensor

from nanogpt.config import ModelConfig


class KVCache:
    """The keys and values of the tokens read so far, so that a new token need not redo the old.

    They never change, because no token sees the ones after it. The memory for a whole context is
    taken at once: 2 * n_layer * context_length * nkv * hs numbers for each row.
    """

    def __init__(
        self, config: ModelConfig, rows: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        shape = (config.n_layer, rows, config.kv_heads, config.context_length, config.head_size)
        self.keys = torch.empty(shape, device=device, dtype=dtype)
        self.values = torch.empty(shape, device=device, dtype=dtype)
        self.pos = torch.empty(rows, config.context_length, device=device, dtype=torch.long)
        self.length = 0  # tokens read

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Keep new tokens' keys and values (B, nkv, T, hs); give all so far (B, nkv, S, hs)."""
        end = self.length + k.shape[2]
        self.keys[layer, :, :, self.length : end] = k
        self.values[layer, :, :, self.length : end] = v
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]

    def positions(self, pos: Tensor) -> Tensor:
        """Keep new tokens' positions, (T) or (B, T); give all so far, (S) or (B, S)."""
        end = self.length + pos.shape[-1]
        self.pos[:, self.length : end] = pos
        return self.pos[:, :end] if pos.ndim == 2 else self.pos[0, :end]
