"""Many heads: split the channels, attend in each part, join the results."""

from torch import Tensor, nn

from nanogpt.config import ModelConfig, choose
from nanogpt.model.attention import ATTENTION_KERNELS, AttentionContext
from nanogpt.model.layers import KERNELS, StackedLinear


class CausalSelfAttention(nn.Module):
    """Multi-head attention: nh questions asked at once, each in its own hs channels.

    With fewer heads of keys and values (`n_kv_head`; Shazeer 2019, Ainslie et al. 2023) groups of
    questions search the same keys. That loses little and shrinks the cache, which at long
    contexts weighs more than the model. With n_kv_head = n_head it is GPT-2's.
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
        self.widths = [n * config.head_size for n in (config.n_head, *2 * (config.kv_heads,))]
        self.c_attn = StackedLinear(config.n_embd, self.widths, bias=config.bias)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, context: AttentionContext) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        raise NotImplementedError("your turn")

    def split_heads(self, x: Tensor) -> Tensor:
        """Cut the channels into heads."""
        raise NotImplementedError("your turn")
