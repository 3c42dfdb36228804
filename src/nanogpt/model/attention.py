"""Self-attention: every token asks a question of all tokens before it and mixes their answers.

Axes: B batch, T query time, S key time, C channels, nh heads, nkv heads of keys and values,
hs = C / nh head size.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanogpt.config import ModelConfig, choose
from nanogpt.model.cache import KVCache
from nanogpt.model.flex import masked_attention
from nanogpt.model.layers import KERNELS, StackedLinear, softmax
from nanogpt.model.position import Position


def attention_mask(
    new: int, known: int, window: int = 0, same: Tensor | None = None,
    device: torch.device | None = None,
) -> Tensor:  # fmt: skip
    """Which keys a query may look at, True where it may: (T, S).

    The queries are the last `new` of `known` tokens, and none sees a token after its own. A window
    hides the distant past as well (Beltagy et al. 2020): a query sees its own token and the
    window - 1 before it, and layer by layer what it sees reaches further back. With `same`, see
    `same_document`, it sees no other document and no padding either: (B, 1, T, S).

    >>> attention_mask(3, 3)
    tensor([[ True, False, False],
            [ True,  True, False],
            [ True,  True,  True]])
    >>> attention_mask(2, 3, window=2)
    tensor([[ True,  True, False],
            [False,  True,  True]])
    """
    key = torch.arange(known, device=device)  # (S)
    distance = key[known - new :, None] - key  # (T, S)
    visible = distance >= 0  # (T, S)
    if window:
        visible = visible & (distance < window)  # (T, S)
    if same is not None:
        # Padding sees itself, and nobody sees padding: softmax over nothing would not be a number.
        visible = (visible & (same | (distance == 0)))[:, None]  # (B, 1, T, S)
    return visible


def same_document(documents: Tensor, new: int) -> Tensor:
    """Which tokens belong to the document of each of the last `new`: (B, S) -> (B, T, S).

    Documents are numbered from 1; 0 is padding and belongs to nothing.

    >>> same_document(torch.tensor([[0, 1, 1, 2]]), new=2).int()
    tensor([[[0, 1, 1, 0],
             [0, 0, 0, 1]]], dtype=torch.int32)
    """
    query, key = documents[:, -new:, None], documents[:, None, :]
    return (key > 0) & (query == key)  # (B, T, S)


def attention_weights(
    q: Tensor, k: Tensor, mask: Tensor | None = None, causal: bool = False
) -> Tensor:
    """How much each query takes from each key: positive, and 1 in all for each query.

    q (B, nh, T, hs), k (B, nh, S, hs) -> (B, nh, T, S). The mask broadcasts to that shape: True
    where a query may look, or numbers that are added to the scores. `causal` hides the future
    where queries and keys are the same tokens.

    Why divide by sqrt(hs): the product of two random vectors of length hs has that standard
    deviation, and softmax of large numbers is a one-hot choice with vanishing gradients. Why -inf
    and not a large negative number: a model can learn to outweigh any number.
    """
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])  # (B, nh, T, S)
    hidden = attention_mask(q.shape[-2], k.shape[-2], device=q.device) if causal else mask
    if hidden is not None:
        hides = hidden.dtype == torch.bool
        scores = scores.masked_fill(~hidden, -math.inf) if hides else scores + hidden
    return softmax(scores)  # (B, nh, T, S)


def attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False,
    dropout: float = 0.0,
) -> Tensor:  # fmt: skip
    """Scaled dot-product attention (Vaswani et al. 2017, section 3.2.1), step by step.

    The values v (B, nh, S, hs), mixed by their `attention_weights` -> (B, nh, T, hs).
    """
    weights = F.dropout(attention_weights(q, k, mask, causal), dropout)  # (B, nh, T, S)
    return weights.to(v.dtype) @ v  # (B, nh, T, hs)


class PlainAttention(nn.Module):
    """Attention as plain products of matrices (Vaswani et al. 2017). Takes what `attention` takes.

    As a module it can be exchanged. A variant that hides more than the mask says so in `weights`.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.rate = config.attention_dropout

    @property
    def dropout(self) -> float:
        """The share of attention weights that is zeroed now."""
        return self.rate if self.training else 0.0

    def weights(
        self, q: Tensor, k: Tensor, mask: Tensor | None = None, causal: bool = False
    ) -> Tensor:
        """The attention weights of which the result is made: (B, nh, T, S)."""
        return attention_weights(q, k, mask, causal)

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False
    ) -> Tensor:
        return attention(q, k, v, mask, causal, self.dropout)


class FusedAttention(PlainAttention):
    """Attention in one kernel that never stores the T x S scores (Dao et al. 2022)."""

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False
    ) -> Tensor:
        fitting = mask if mask is None or mask.dtype == torch.bool else mask.to(q.dtype)
        return F.scaled_dot_product_attention(q, k, v, fitting, self.dropout, is_causal=causal)


class FlexAttention(FusedAttention):
    """Attention on a GPU without computing what the mask hides: for windows and documents."""

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False
    ) -> Tensor:
        if mask is None or self.dropout or q.device.type != "cuda":
            return super().forward(q, k, v, mask, causal)
        return masked_attention(q, k, v, mask)


REACH = 8  # of a short convolution, in tokens, the token itself included


class ShortConvAttention(FusedAttention):
    """Attention, and in each head a fixed share of the last few values, by their distance.

    The letters right before a token say most about the one after it. Softmax has to learn where
    they are, from positions; a learned weight for each distance simply takes them (as CSWin does
    in images: Dong et al. 2022). Under a mask it makes the T x S weights, as plain attention does.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        # Three axes: these are numbers for each head, and not a matrix that Muon could turn.
        self.taps = nn.Parameter(torch.zeros(config.n_head, REACH, 1))

    def weights(
        self, q: Tensor, k: Tensor, mask: Tensor | None = None, causal: bool = False
    ) -> Tensor:
        return super().weights(q, k, mask, causal) + self.fixed(q.shape[-2], k.shape[-2], mask)

    def fixed(self, new: int, known: int, mask: Tensor | None = None) -> Tensor:
        """The fixed weights of the last `new` of `known` tokens: (nh, T, S), or (B, nh, T, S)."""
        key = torch.arange(known, device=self.taps.device)  # (S)
        distance = key[known - new :, None] - key  # (T, S)
        near = (distance >= 0) & (distance < REACH)
        weights = self.taps[:, distance.clamp(0, REACH - 1), 0] * near  # (nh, T, S)
        if mask is None:
            return weights
        return weights * (mask if mask.dtype == torch.bool else mask > -math.inf)

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False
    ) -> Tensor:
        y = super().forward(q, k, v, mask, causal)
        if mask is not None:
            return y + self.fixed(q.shape[-2], v.shape[-2], mask).to(v.dtype) @ v  # (B, nh, T, hs)
        # A convolution along the row of values; before the first token there is nothing.
        last = slice(1 - REACH - q.shape[-2], None)
        near = F.pad(v[..., last, :], (0, 0, REACH - 1, 0))[..., last, :]
        near = near.contiguous(memory_format=torch.channels_last)  # twice as fast on a CPU
        kernel = self.taps.to(v.dtype).flip(1)[:, None]
        return y + F.conv2d(near, kernel, groups=len(kernel))  # (B, nh, T, hs)


ATTENTION_KERNELS: dict[str, type[PlainAttention]] = {
    "plain": PlainAttention,
    "fused": FusedAttention,
    "flex": FlexAttention,
    "short-conv": ShortConvAttention,
}


@dataclass(frozen=True)
class AttentionContext:
    """What attention needs to know beside x, about the tokens of all rows."""

    position: Position  # rotates queries and keys
    pos: Tensor  # (B, T), or (1, T) where all rows are alike: where the tokens stand
    mask: Tensor | None = None  # what else to hide, or to add to the scores, if anything
    causal: bool = True  # hide the future; False where the mask does, or nothing is later
    cache: KVCache | None = None  # the keys and values of earlier tokens
    layer: int = 0


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
        self.widths = [config.n_embd, *2 * [config.kv_heads * config.head_size]]
        self.c_attn = StackedLinear(config.n_embd, self.widths, bias=config.bias)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, context: AttentionContext) -> Tensor:
        q, k, v = self.c_attn(x).split(self.widths, dim=-1)
        q = self.split_heads(q)  # (B, nh, T, hs)
        k, v = self.split_heads(k), self.split_heads(v)  # (B, nkv, T, hs)
        if self.qk_norm:  # scores stay below sqrt(hs), at any learning rate (Henry et al. 2020)
            q, k = self.rms_norm(q), self.rms_norm(k)
        q, k = context.position.rotate(q, k, context.pos)
        if context.cache:
            k, v = context.cache.update(context.layer, k, v)  # (B, nkv, S, hs)
        if self.groups > 1:
            k, v = (x.repeat_interleave(self.groups, dim=1) for x in (k, v))  # (B, nh, S, hs)
        y = self.kernel(q, k, v, context.mask, context.causal)  # (B, nh, T, hs)
        y = y.transpose(1, 2).flatten(2)  # (B, T, C)
        return self.dropout(self.c_proj(y))  # (B, T, C)

    def split_heads(self, x: Tensor) -> Tensor:
        """Cut the channels into heads."""
        return x.unflatten(-1, (-1, self.head_size)).transpose(1, 2)
