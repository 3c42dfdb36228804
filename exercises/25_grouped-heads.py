"""Many heads: split the channels, attend in each part, join the results."""

from torch import Tensor, nn

from nanogpt.config import ModelConfig, choose
from nanogpt.model.attention import ATTENTION_KERNELS, AttentionContext
from nanogpt.model.layers import KERNELS, StackedLinear


class CausalSelfAttention(nn.Module):
    """Multi-head attention as the package has it: with groups, norm, rotation, cache and mask.

    forward and split_heads are yours. __init__ has made self.head_size (hs), self.groups (query
    heads for each key head), self.widths (the channels of queries, keys and values in c_attn's
    result), self.c_attn and self.c_proj (linear maps), self.qk_norm (whether to norm),
    self.rms_norm, self.dropout, and self.kernel(q, k, v, mask, causal), which is attention.

    forward takes x (B, T, C) and gives (B, T, C). In this order: c_attn, and its result split
    by self.widths; heads cut, (B, nh, T, hs) for queries and (B, nkv, T, hs) for keys and
    values; if self.qk_norm, queries and keys through self.rms_norm; rotation by
    context.position.rotate(q, k, context.pos), which gives queries and keys; if there is a
    context.cache, its update(context.layer, k, v), which gives all keys and values so far; each
    key head, and each value head, repeated for the self.groups neighbouring query heads that
    share it; the kernel with context.mask and context.causal; the heads joined; c_proj; and
    self.dropout.

    split_heads takes (B, T, n * hs) and gives (B, n, T, hs), for any number n of heads.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.head_size = config.head_size
        self.groups = config.n_head // config.kv_heads
        kernel = choose(ATTENTION_KERNELS, "model.attention", config.attention or config.kernels)
        self.kernel = kernel(config)
        self.qk_norm = config.qk_norm
        self.rms_norm = choose(KERNELS, "model.kernels", config.kernels).rms_norm
        # Queries, keys and values at once.
        self.widths = [config.n_embd, *2 * [config.kv_heads * config.head_size]]
        self.c_attn = StackedLinear(config.n_embd, self.widths, bias=config.bias)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, context: AttentionContext) -> Tensor:
        raise NotImplementedError("your turn")

    def split_heads(self, x: Tensor) -> Tensor:
        """Cut the channels into heads."""
        raise NotImplementedError("your turn")
