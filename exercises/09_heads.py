"""Many heads: split the channels, attend in each part, put them together again."""

from torch import Tensor, nn

from nanogpt.config import ModelConfig, choose
from nanogpt.model.attention import ATTENTION_KERNELS, Remember
from nanogpt.model.layers import KERNELS
from nanogpt.model.position import Position


class CausalSelfAttention(nn.Module):
    """Multi-head attention: nh questions asked at once, each in its own hs channels.

    With fewer heads of keys and values (`n_kv_head`; Shazeer 2019, Ainslie et al. 2023) groups of
    questions search the same keys. That loses little and shrinks the cache, which at long
    contexts weighs more than the model. With n_kv_head = n_head it is GPT-2's.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.head_size = config.head_size
        self.widths = [n * config.head_size for n in (config.n_head, *2 * (config.kv_heads,))]
        self.groups = config.n_head // config.kv_heads
        self.attention_dropout = config.attention_dropout
        self.attention = choose(ATTENTION_KERNELS, "model.kernels", config.kernels)
        self.qk_norm = config.qk_norm
        self.rms_norm = choose(KERNELS, "model.kernels", config.kernels).rms_norm
        # Queries, keys and values at once.
        self.c_attn = nn.Linear(config.n_embd, sum(self.widths), bias=config.bias)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x: Tensor,
        order: Position,
        pos: Tensor,
        bias: Tensor | None,
        remember: Remember | None = None,
    ) -> Tensor:
        """(B, T, C) -> (B, T, C). `order` turns queries and keys, `bias` is added to the scores.

        `remember` keeps the new keys and values and gives back those of all tokens so far.
        """
        raise NotImplementedError("your turn")

    def split_heads(self, x: Tensor) -> Tensor:
        """Cut the channels into heads."""
        raise NotImplementedError("your turn")
