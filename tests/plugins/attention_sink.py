"""A sliding window that keeps the first token in sight (Xiao et al. 2023, "attention sinks")."""

import torch
from torch import Tensor

from nanogpt.model.attention import ATTENTION_KERNELS, PlainAttention, attention_mask

WINDOW = 8


class Sink(PlainAttention):
    def visible(self, q: Tensor, k: Tensor, mask: Tensor | None) -> Tensor:
        seen = attention_mask(q.shape[-2], k.shape[-2], WINDOW)
        seen |= attention_mask(q.shape[-2], k.shape[-2]) & (torch.arange(k.shape[-2]) == 0)
        if mask is None or mask.dtype == torch.bool:
            return seen if mask is None else seen & mask
        return mask.masked_fill(~seen, -torch.inf)

    def weights(self, q, k, mask=None, causal=False):
        return super().weights(q, k, self.visible(q, k, mask))

    def forward(self, q, k, v, mask=None, causal=False):
        return super().forward(q, k, v, self.visible(q, k, mask))


ATTENTION_KERNELS["sink"] = Sink
