"""Self-attention: every token asks a question of all tokens before it and mixes their answers.

Axes: B batch, T query time, S key time, C channels, nh heads, nkv heads of keys and values,
hs = C / nh head size.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanogpt.config import ModelConfig, choose
from nanogpt.model.layers import KERNELS, softmax
from nanogpt.model.position import Position


def causal_bias(q_pos: Tensor, k_pos: Tensor, window: int = 0) -> Tensor:
    """What hides the future: 0 where a query may look at a key, -inf where the key comes later.

    (T) and (S) -> (T, S). It is -inf and not merely a large negative number, since a model can
    learn to outweigh any number. A window hides the distant past as well (Beltagy et al. 2020):
    a query sees its own token and the window - 1 before it, and layer by layer what it sees
    reaches further back. Written so, hidden scores are computed and thrown away.

    >>> causal_bias(torch.arange(3), torch.arange(3))
    tensor([[0., -inf, -inf],
            [0., 0., -inf],
            [0., 0., 0.]])
    >>> causal_bias(torch.arange(3), torch.arange(3), window=2)
    tensor([[0., -inf, -inf],
            [0., 0., -inf],
            [-inf, 0., 0.]])
    """
    distance = q_pos[:, None] - k_pos  # (T, S)
    hidden = distance < 0  # (T, S)
    if window:
        hidden = hidden | (distance >= window)  # (T, S)
    return torch.zeros(hidden.shape, device=hidden.device).masked_fill(hidden, -math.inf)


def attention_weights(q: Tensor, k: Tensor, bias: Tensor | None = None) -> Tensor:
    """Where each query looks: a share for each key, and the shares of a query sum to 1.

    q (B, nh, T, hs), k (B, nh, S, hs), bias broadcastable to (B, nh, T, S) -> (B, nh, T, S).
    Without a bias attention is plainly causal: the queries belong to the last T of the S tokens,
    and each sees the tokens up to its own.

    Why divide by sqrt(hs): the product of two random vectors of length hs has that standard
    deviation, and softmax of large numbers is a one-hot choice with vanishing gradients.
    """
    if bias is None:
        pos = torch.arange(k.shape[-2], device=q.device)
        bias = causal_bias(pos[-q.shape[-2] :], pos)
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])  # (B, nh, T, S)
    return softmax(scores + bias)  # (B, nh, T, S)


def attention(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, dropout: float = 0.0
) -> Tensor:
    """Scaled dot-product attention (Vaswani et al. 2017, section 3.2.1), step by step.

    Values v (B, nh, S, hs), mixed in the shares of `attention_weights` -> (B, nh, T, hs).
    """
    weights = F.dropout(attention_weights(q, k, bias), dropout)  # (B, nh, T, S)
    return weights.to(v.dtype) @ v  # (B, nh, T, hs)


def fused_attention(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, dropout: float = 0.0
) -> Tensor:
    """The same in one kernel that never stores the T x S scores (Dao et al. 2022)."""
    new, known = q.shape[-2], k.shape[-2]
    if bias is None and 1 < new < known:  # the kernel's own causal mask takes T for S
        pos = torch.arange(known, device=q.device)
        bias = causal_bias(pos[-new:], pos)
    if bias is not None:
        bias = bias.to(q.dtype)
    causal = bias is None and new == known
    return F.scaled_dot_product_attention(q, k, v, bias, dropout, is_causal=causal)


# Takes the keys and values of new tokens, gives those of all tokens: KVCache.append of one layer.
Remember = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

ATTENTION_KERNELS: dict[str, Callable[..., Tensor]] = {
    "plain": attention,
    "fused": fused_attention,
}


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
        q, k, v = self.c_attn(x).split(self.widths, dim=-1)
        q = self.split_heads(q)  # (B, nh, T, hs)
        k, v = self.split_heads(k), self.split_heads(v)  # (B, nkv, T, hs)
        if self.qk_norm:  # scores stay below sqrt(hs), at any learning rate (Henry et al. 2020)
            q, k = (self.rms_norm(x, x.shape[-1:], None, 1e-5) for x in (q, k))
        q, k = order.rotate(q, k, pos)
        if remember:
            k, v = remember(k, v)  # (B, nkv, S, hs)
        if self.groups > 1:
            k, v = (x.repeat_interleave(self.groups, dim=1) for x in (k, v))  # (B, nh, S, hs)
        dropout = self.attention_dropout if self.training else 0.0
        y = self.attention(q, k, v, bias, dropout)  # (B, nh, T, hs)
        y = y.transpose(1, 2).flatten(2)  # (B, T, C)
        return self.dropout(self.c_proj(y))  # (B, T, C)

    def split_heads(self, x: Tensor) -> Tensor:
        """Cut the channels into heads."""
        return x.unflatten(-1, (-1, self.head_size)).transpose(1, 2)
