"""Self-attention: every token asks a question of all tokens before it and mixes their answers.

Axes: B batch, T query time, S key time, C channels, nh heads, hs = C / nh head size.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanogpt.config import ModelConfig, choose
from nanogpt.layers import KERNELS, softmax
from nanogpt.position import Position


def causal_bias(q_pos: Tensor, k_pos: Tensor) -> Tensor:
    """What hides the future: 0 where a query may look at a key, -inf where the key comes later.

    (..., T) and (..., S) -> (..., T, S). It is -inf and not merely a large negative number, since
    a model can learn to outweigh any number.

    >>> causal_bias(torch.arange(3), torch.arange(3))
    tensor([[0., -inf, -inf],
            [0., 0., -inf],
            [0., 0., 0.]])
    """
    future = k_pos[..., None, :] > q_pos[..., :, None]  # (..., T, S)
    return torch.zeros(future.shape, device=future.device).masked_fill(future, -math.inf)


def attention(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, dropout: float = 0.0
) -> Tensor:
    """Scaled dot-product attention (Vaswani et al. 2017, section 3.2.1), step by step.

    q (B, nh, T, hs), k and v (B, nh, S, hs), bias broadcastable to (B, nh, T, S) -> (B, nh, T, hs).
    Without a bias S must be T, and attention is plainly causal: token t sees tokens 0 to t.

    Why divide by sqrt(hs): the product of two random vectors of length hs has that standard
    deviation, and softmax of large numbers is a one-hot choice with vanishing gradients.
    """
    if bias is None:
        pos = torch.arange(q.shape[-2], device=q.device)
        bias = causal_bias(pos, pos)
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])  # (B, nh, T, S)
    weights = softmax(scores + bias)  # (B, nh, T, S)
    weights = F.dropout(weights, dropout)  # (B, nh, T, S)
    return weights.to(v.dtype) @ v  # (B, nh, T, hs)


def fused_attention(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, dropout: float = 0.0
) -> Tensor:
    """The same in one kernel that never stores the T x S scores (Dao et al. 2022)."""
    if bias is not None:
        bias = bias.to(q.dtype)
    return F.scaled_dot_product_attention(q, k, v, bias, dropout, is_causal=bias is None)


ATTENTION_KERNELS: dict[str, Callable[..., Tensor]] = {
    "plain": attention,
    "fused": fused_attention,
}


class CausalSelfAttention(nn.Module):
    """Multi-head attention: nh questions asked at once, each in its own hs channels."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.n_head = config.n_head
        self.attention_dropout = config.attention_dropout
        self.attention = choose(ATTENTION_KERNELS, "model.kernels", config.kernels)
        self.qk_norm = config.qk_norm
        self.rms_norm = choose(KERNELS, "model.kernels", config.kernels).rms_norm
        # Queries, keys and values at once.
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd, bias=config.bias)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, order: Position, pos: Tensor, bias: Tensor | None) -> Tensor:
        """(B, T, C) -> (B, T, C). `order` turns queries and keys, `bias` is added to the scores."""
        q, k, v = self.c_attn(x).chunk(3, dim=-1)  # (B, T, C)
        q, k, v = map(self.split_heads, (q, k, v))  # (B, nh, T, hs)
        if self.qk_norm:  # scores stay below sqrt(hs), at any learning rate (Henry et al. 2020)
            q, k = (self.rms_norm(x, x.shape[-1:], None, 1e-5) for x in (q, k))  # (B, nh, T, hs)
        q, k = order.rotate(q, k, pos)  # (B, nh, T, hs)
        dropout = self.attention_dropout if self.training else 0.0
        y = self.attention(q, k, v, bias, dropout)  # (B, nh, T, hs)
        y = y.transpose(1, 2).flatten(2)  # (B, T, C)
        return self.dropout(self.c_proj(y))  # (B, T, C)

    def split_heads(self, x: Tensor) -> Tensor:
        """Cut the channels into heads."""
        return x.unflatten(-1, (self.n_head, -1)).transpose(1, 2)  # (B, nh, T, hs)
