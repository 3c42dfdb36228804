"""The attention layer as the package has it: groups, norm, rotation, cache and mask."""

import math
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nanogpt.learn.answers import Answer, with_gradients
from nanogpt.learn.exercise import Exercise, Mistake
from nanogpt.learn.exercises.cache import empty_cache
from nanogpt.learn.exercises.known import checked_kernels, known, numbers, prepared, shaken
from nanogpt.learn.exercises.network import TINY
from nanogpt.learn.exercises.tasks import TASKS
from nanogpt.model import attention, layers
from nanogpt.model.attention import AttentionContext, attention_mask
from nanogpt.model.position import POSITIONS

WAYS_OF_ATTENDING = {
    "plain": "",
    "rope": ", with RoPE, which rotates queries and keys",
    "mask": ", with a mask that hides the first token from the others",
    "norm": ", with qk_norm",
    "cache": ", the last two tokens with a cache of the earlier ones",
    "rope and cache": ", with RoPE, the last two tokens with a cache of the earlier ones",
    "cache, one token": ", the last token with a cache of the earlier ones",
    "fused cache, one token": (
        ", the last token with a cache of the earlier ones, and the fused kernel"
    ),
    "training": ", in training, with a dropout of 1",
    "training weights": ", in training, with a dropout of 1 of the attention weights",
}

SHAKEN = shaken(0.5)


def drive_heads(
    cls: type[attention.CausalSelfAttention], x: Tensor, heads: int, kv_heads: int, way: str
) -> Answer | list[Tensor]:
    """Run the whole layer with weights that all matter; with a cache, give its keys as well.

    Dropout is 1 everywhere, which shows in evaluation if it is not switched off.
    """
    config = replace(
        TINY, n_head=heads, n_kv_head=kv_heads, qk_norm=way == "norm",
        position="rope" if "rope" in way else "none",
        kernels="fused" if "fused" in way else "plain",
    )  # fmt: skip
    layer = prepared(cls, attention.CausalSelfAttention, config, SHAKEN).train("training" in way)
    layer.dropout.p, layer.kernel.rate = 1.0, 1.0
    if way == "training":
        layer.kernel.rate = 0.0
    if way == "training weights":
        layer.dropout.p = 0.0
    new, known = 2 if "cache" in way else x.shape[1], x.shape[1]
    new = 1 if "one token" in way else new
    context = AttentionContext(POSITIONS[config.position](config), torch.arange(known)[None])
    if way == "mask":
        mask = attention_mask(known, known)
        mask[1:, 0] = False
        context = replace(context, mask=mask, causal=False)
    if "cache" not in way:
        with checked_kernels():
            return with_gradients(lambda x: layer(x, context), {"x": x}, layer)
    with torch.no_grad(), checked_kernels():
        cache, old = empty_cache(config, len(x)), context.pos[:, :-new]
        layer(x[:, :-new], replace(context, pos=old, cache=cache, layer=1))
        cache.advance(old)
        context = replace(context, pos=context.pos[:, -new:], cache=cache, layer=1)
        # Nothing is later than one new token, so it needs no mask.
        seen = replace(context, mask=attention_mask(new, known) if new > 1 else None, causal=False)
        return [layer(x[:, -new:], seen), cache.keys, torch.tensor(cache.length)]


class Heads(attention.CausalSelfAttention):
    """Attention whose parts can be done differently."""

    def forward(self, x: Tensor, context: AttentionContext) -> Tensor:
        q, k, v = map(self.split_heads, self.parts(x))
        q, k = self.rotated(*self.normed(q, k), context)
        k, v = self.cached(k, v, context)
        if self.groups > 1:
            k, v = self.repeated(k), self.repeated(v)
        return self.projected(self.merged(self.attended(q, k, v, context)))

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self.c_attn(x).split(self.widths, dim=-1)
        return q, k, v

    def normed(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        return (self.rms_norm(q), self.rms_norm(k)) if self.qk_norm else (q, k)

    def rotated(self, q: Tensor, k: Tensor, context: AttentionContext) -> tuple[Tensor, Tensor]:
        return context.position.rotate(q, k, context.pos)

    def cached(self, k: Tensor, v: Tensor, context: AttentionContext) -> tuple[Tensor, Tensor]:
        return context.cache.update(context.layer, k, v) if context.cache else (k, v)

    def repeated(self, x: Tensor) -> Tensor:
        return x.repeat_interleave(self.groups, dim=1)

    def attended(self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext) -> Tensor:
        result: Tensor = self.kernel(q, k, v, context.mask, context.causal)
        return result

    def merged(self, y: Tensor) -> Tensor:
        return y.transpose(1, 2).flatten(2)

    def projected(self, y: Tensor) -> Tensor:
        result: Tensor = self.dropout(self.c_proj(y))
        return result


class MergedWrongly(Heads):
    def merged(self, y: Tensor) -> Tensor:
        return y.reshape(y.shape[0], y.shape[2], -1)


class MergedInTurns(Heads):
    def merged(self, y: Tensor) -> Tensor:
        return y.permute(0, 2, 3, 1).flatten(2)


class ViewForTranspose(Heads):
    def split_heads(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], -1, x.shape[1], self.head_size)


class SplitInTurns(Heads):
    def split_heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.head_size, -1)).permute(0, 3, 1, 2)


class KeysFirst(Heads):
    def parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = super().parts(x)
        return (k, q, v) if q.shape == k.shape else (q, k, v)


class ValuesSecond(Heads):
    def parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = super().parts(x)
        return q, v, k


class NotProjected(Heads):
    def projected(self, y: Tensor) -> Tensor:
        return y


class ResidualInside(Heads):
    def parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        self.came_in = x
        return super().parts(x)

    def projected(self, y: Tensor) -> Tensor:
        return self.came_in + super().projected(y)


class NotNormed(Heads):
    def normed(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        return q, k


class NotRotated(Heads):
    def rotated(self, q: Tensor, k: Tensor, context: AttentionContext) -> tuple[Tensor, Tensor]:
        return q, k


class NotCached(Heads):
    def cached(self, k: Tensor, v: Tensor, context: AttentionContext) -> tuple[Tensor, Tensor]:
        return k, v


class CachedInTheFirstLayer(Heads):
    def cached(self, k: Tensor, v: Tensor, context: AttentionContext) -> tuple[Tensor, Tensor]:
        return super().cached(k, v, replace(context, layer=0))


class MaskNotGiven(Heads):
    def attended(self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext) -> Tensor:
        return super().attended(q, k, v, replace(context, mask=None))


class NeverCausal(Heads):
    def attended(self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext) -> Tensor:
        return super().attended(q, k, v, replace(context, causal=False))


class DropoutNotUsed(Heads):
    def projected(self, y: Tensor) -> Tensor:
        result: Tensor = self.c_proj(y)
        return result


class DropoutBeforeProjection(Heads):
    def projected(self, y: Tensor) -> Tensor:
        result: Tensor = self.c_proj(self.dropout(y))
        return result


class DropoutAlways(Heads):
    def projected(self, y: Tensor) -> Tensor:
        return F.dropout(self.c_proj(y), self.dropout.p)


class WeightsNotDropped(Heads):
    def attended(self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext) -> Tensor:
        return attention.attention(q, k, v, context.mask, context.causal)


class WeightsAlwaysDropped(Heads):
    def attended(self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext) -> Tensor:
        return attention.attention(q, k, v, context.mask, context.causal, self.kernel.rate)


class RepeatedInTurns(Heads):
    def repeated(self, x: Tensor) -> Tensor:
        return x.repeat(1, self.groups, 1, 1)


def heads_as(**parts: Any) -> type[Heads]:
    """Attention with some parts done differently."""
    return type("CausalSelfAttention", (Heads,), parts)


def split_as(cut: Any) -> Any:
    return heads_as(split_heads=lambda self, x: cut(x, self.head_size))


def other_roles(choose: Any) -> type[Heads]:
    """Queries, keys and values, after the cut into heads, in other roles."""
    return heads_as(
        attended=lambda self, q, k, v, c: self.kernel(*choose(q, k, v), c.mask, c.causal)
    )


def normed_before_the_cut(self: Heads, x: Tensor) -> Any:
    q, k, v = Heads.parts(self, x)
    return (self.rms_norm(q), self.rms_norm(k), v) if self.qk_norm else (q, k, v)


class RotatedLate(Heads):
    """Keys are stored as they are and rotated afterwards, at some positions."""

    def places(self, context: AttentionContext, known: int) -> Tensor:
        return context.pos

    def rotated_keys(self, k: Tensor, context: AttentionContext, new: int) -> Tensor:
        return context.position.rotate(k, k, self.places(context, k.shape[2]))[1]

    def forward(self, x: Tensor, context: AttentionContext) -> Tensor:
        q, k, v = map(self.split_heads, self.parts(x))
        q, k = self.normed(q, k)
        k, v = self.cached(k, v, context)
        q, _ = context.position.rotate(q, q, context.pos)
        k = self.rotated_keys(k, context, q.shape[2])
        if self.groups > 1:
            k, v = self.repeated(k), self.repeated(v)
        return self.projected(self.merged(self.attended(q, k, v, context)))


class RotatedLateFromZero(RotatedLate):
    def places(self, context: AttentionContext, known: int) -> Tensor:
        return torch.arange(known)[None]


class OnlyNewRotated(RotatedLate):
    """Of the stored keys only the new ones are rotated; the old ones never were."""

    def rotated_keys(self, k: Tensor, context: AttentionContext, new: int) -> Tensor:
        _, late = context.position.rotate(k[:, :, -new:], k[:, :, -new:], context.pos)
        return torch.cat([k[:, :, :-new], late], 2)


class RepeatedEarly(Heads):
    """The repeated key heads go into the cache."""

    def cached(self, k: Tensor, v: Tensor, context: AttentionContext) -> tuple[Tensor, Tensor]:
        if self.groups > 1:
            k, v = Heads.repeated(self, k), Heads.repeated(self, v)
        return super().cached(k, v, context)

    def repeated(self, x: Tensor) -> Tensor:
        return x


class AlwaysCausal(Heads):
    def attended(self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext) -> Tensor:
        return super().attended(q, k, v, replace(context, mask=None, causal=True))


class AlwaysCausalFromTheFirst(Heads):
    def attended(self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, None, is_causal=True)


def attended_with(weights_of: Any) -> type[Heads]:
    """Attention by hand in the layer, with other weights."""

    def attended(self: Heads, q: Tensor, k: Tensor, v: Tensor, c: AttentionContext) -> Tensor:
        mask = attention_mask(q.shape[2], k.shape[2]) if c.causal else c.mask
        scores = q @ k.transpose(-2, -1) / math.sqrt(self.head_size)
        later = torch.zeros_like(scores).bool() if mask is None else ~mask
        result: Tensor = F.dropout(weights_of(scores, later), self.kernel.dropout) @ v
        return result

    return heads_as(attended=attended)


def usual(scores: Tensor, later: Tensor) -> Tensor:
    return layers.softmax(scores.masked_fill(later, -math.inf))


GROUPED_HEADS = Exercise(
    name="grouped-heads",
    title="Many heads: split the channels, attend in each part, join the results.",
    task=TASKS["grouped-heads"],
    reference=attention.CausalSelfAttention,
    write=("forward", "split_heads"),
    cases=lambda: [
        (numbers(1, 1, 8), 2, 2, "plain"), (numbers(1, 3, 8), 2, 2, "plain"),
        (numbers(2, 5, 8, seed=1), 2, 2, "plain"), (numbers(2, 4, 8, seed=2), 4, 2, "plain"),
        (numbers(2, 3, 8, seed=5), 4, 1, "plain"),
        *((numbers(1, 4, 8, seed=3), 2, 2, way) for way in WAYS_OF_ATTENDING),
        (numbers(2, 5, 8, seed=4), 4, 2, "norm"), (numbers(2, 5, 8, seed=4), 4, 2, "cache"),
        (numbers(2, 5, 8, seed=6), 4, 2, "rope and cache"),
    ],
    drive=drive_heads,
    describe=lambda x, heads, kv_heads, way: (
        f"{heads} query heads, {kv_heads} key heads, x of shape {tuple(x.shape)}"
        + WAYS_OF_ATTENDING[way]
    ),
    lesson=12,
    optional=True,
    mistakes=[
        Mistake(
            "merged-without-transpose",
            "The heads are joined in the wrong order: (B, nh, T, hs) was reshaped as it lies in "
            "memory, so tokens are mixed with heads. Swap heads and tokens first.",
            MergedWrongly,
        ),
        Mistake(
            "merged-in-turns",
            "The heads are joined in turns, channel by channel. The channels of one head stay side "
            "by side.",
            MergedInTurns,
        ),
        Mistake(
            "view-for-transpose",
            "The channels were reshaped to (B, nh, T, hs) in one step, which cuts the memory in "
            "the wrong places. Cut the channels into (nh, hs) first, then swap heads and tokens.",
            ViewForTranspose,
        ),
        Mistake(
            "split-in-turns",
            "The channels are dealt out to the heads in turns. The first hs channels belong to the "
            "first head.",
            SplitInTurns,
        ),
        Mistake(
            "keys-first",
            "Queries and keys are swapped: c_attn gives queries, keys, values in this order.",
            KeysFirst,
        ),
        Mistake(
            "values-second",
            "Keys and values are swapped: c_attn gives queries, keys, values in this order.",
            ValuesSecond,
        ),
        Mistake(
            "not-projected", "c_proj is missing: it mixes the results of the heads.", NotProjected
        ),
        Mistake(
            "residual-inside", "x is added here. The block adds it, outside of attention.",
            ResidualInside,
        ),
        Mistake(
            "groups-in-turns",
            "The key heads are repeated in turns. Each of them serves a group of neighbouring "
            "query heads: use repeat_interleave.",
            RepeatedInTurns,
        ),
        Mistake(
            "not-rotated",
            "Queries and keys are not rotated. Position encodings such as RoPE work in "
            "context.position.rotate(q, k, context.pos).",
            NotRotated,
        ),
        Mistake(
            "not-cached",
            "The cache is not used. If context.cache is there, its `update` takes the new keys and "
            "values and gives those of all tokens so far.",
            NotCached,
        ),
        Mistake(
            "cached-in-the-first-layer",
            "Every layer uses the cache of layer 0. Give context.layer to the cache's `update`.",
            CachedInTheFirstLayer,
        ),
        Mistake(
            "mask-ignored",
            "The mask is not used. Give context.mask to the kernel: it says what is hidden, or "
            "what is added to the scores.",
            MaskNotGiven,
        ),
        Mistake(
            "causal-ignored",
            "The future is not hidden. Give context.causal to the kernel as well as the mask.",
            NeverCausal,
        ),
        Mistake(
            "qk-norm-ignored",
            "qk_norm is not used: if it is set, queries and keys go through rms_norm.", NotNormed,
        ),
        Mistake(
            "no-dropout",
            "self.dropout is not used: in training it follows c_proj.", DropoutNotUsed,
        ),
        Mistake(
            "dropout-before-projection",
            "Dropout comes before c_proj. It follows it.", DropoutBeforeProjection,
        ),
        Mistake(
            "dropout-in-evaluation",
            "Dropout stays on in evaluation. A module such as self.dropout knows whether it is in "
            "training; F.dropout has to be told: training=self.training.",
            (DropoutAlways, WeightsAlwaysDropped),
        ),
        Mistake(
            "weights-not-dropped",
            "In training, dropout of the attention weights is missing. self.kernel applies it; "
            "another function has to be given self.kernel.dropout.",
            WeightsNotDropped,
        ),
        known(
            "norm-before-the-cut",
            "qk_norm works on all channels at once. Norm each head by itself, after the cut.",
            heads_as(parts=normed_before_the_cut, normed=lambda self, q, k: (q, k)),
        ),
        known(
            "one-normed", "With qk_norm both queries and keys go through rms_norm.",
            heads_as(normed=lambda s, q, k: (s.rms_norm(q), k) if s.qk_norm else (q, k)),
            heads_as(normed=lambda s, q, k: (q, s.rms_norm(k)) if s.qk_norm else (q, k)),
        ),
        known(
            "always-normed", "Queries and keys are normed without qk_norm, too.",
            heads_as(normed=lambda s, q, k: (s.rms_norm(q), s.rms_norm(k))),
        ),
        known(
            "one-rotated",
            "Only the queries or only the keys are rotated. Both are: then their product depends "
            "on the distance alone.",
            heads_as(rotated=lambda s, q, k, c: (c.position.rotate(q, k, c.pos)[0], k)),
            heads_as(rotated=lambda s, q, k, c: (q, c.position.rotate(q, k, c.pos)[1])),
        ),
        known(
            "values-rotated",
            "The values are rotated. Only queries and keys are: positions belong to the scores.",
            heads_as(cached=lambda s, k, v, c: Heads.cached(
                s, k, c.position.rotate(v, v, c.pos)[0], c)),
        ),
        known(
            "positions-from-zero",
            "The rotation counts from 0 in every part of a text. context.pos has the right "
            "positions: with a cache the tokens continue a text.",
            heads_as(rotated=lambda s, q, k, c: c.position.rotate(
                q, k, torch.arange(q.shape[2])[None])),
        ),
        known(
            "positions-from-one",
            "The positions are off by one. Use context.pos as it is.",
            heads_as(rotated=lambda s, q, k, c: (
                c.position.rotate(q, q, c.pos + 1)[0], c.position.rotate(k, k, c.pos)[1])),
        ),
        known(
            "rotated-twice", "Queries and keys are rotated twice.",
            heads_as(rotated=lambda s, q, k, c: c.position.rotate(
                *c.position.rotate(q, k, c.pos), c.pos)),
        ),
        known(
            "stored-before-rotation",
            "Keys are stored before they are rotated, and rotated afterwards at the positions of "
            "the new tokens. Rotate first: a key in the cache keeps its own position.",
            RotatedLate,
            RotatedLateFromZero,
            OnlyNewRotated,
        ),
        known(
            "repeated-before-the-cache",
            "The key heads are repeated before they are stored. The cache holds n_kv_head heads: "
            "store first, then repeat.",
            RepeatedEarly,
        ),
        known(
            "not-repeated",
            "Key heads or value heads are not repeated, so there are fewer of them than query "
            "heads. Repeat each self.groups times.",
            heads_as(repeated=lambda s, x: x),
        ),
        known(
            "split-into-thirds",
            "c_attn(x) is cut into three equal parts. With fewer key heads the parts differ: split "
            "by self.widths.",
            heads_as(parts=lambda s, x: s.c_attn(x).chunk(3, dim=-1)),
            heads_as(parts=lambda s, x: s.c_attn(x).split(x.shape[-1], dim=-1)),
        ),
        known(
            "cached-values-swapped",
            "The cache is used with keys and values swapped: update(layer, k, v) gives keys, "
            "values in this order.",
            heads_as(cached=lambda s, k, v, c: c.cache.update(c.layer, k, v)[::-1]
                     if c.cache else (k, v)),
            heads_as(cached=lambda s, k, v, c: c.cache.update(c.layer, v, k)
                     if c.cache else (k, v)),
            heads_as(cached=lambda s, k, v, c: c.cache.update(c.layer, v, k)[::-1]
                     if c.cache else (k, v)),
        ),
        known(
            "update-thrown-away",
            "The cache is updated, but what `update` gives back is not used: attention needs the "
            "keys and values of all tokens so far.",
            heads_as(cached=lambda s, k, v, c: (
                c.cache.update(c.layer, k, v) if c.cache else None, (k, v))[1]),
            heads_as(cached=lambda s, k, v, c: (c.cache.update(c.layer, k, v)[0], v)
                     if c.cache else (k, v)),
            heads_as(cached=lambda s, k, v, c: (k, c.cache.update(c.layer, k, v)[1])
                     if c.cache else (k, v)),
        ),
        known(
            "advanced-inside",
            "The cache advances in the layer. The model does that, once, after all layers.",
            heads_as(cached=lambda s, k, v, c: (
                c.cache.update(c.layer, k, v), c.cache.advance(c.pos))[0]
                if c.cache else (k, v)),
        ),
        known(
            "causal-without-a-mask",
            "Attention is causal wherever there is no mask. One new token with a cache has no mask "
            "and sees all keys: give context.causal to the kernel.",
            heads_as(attended=lambda s, q, k, v, c: s.kernel(q, k, v, c.mask, c.mask is None)),
        ),
        known(
            "always-causal",
            "The mask of the context is not used, and the future is hidden instead. Give both, "
            "context.mask and context.causal, to the kernel.",
            AlwaysCausal,
            AlwaysCausalFromTheFirst,
            heads_as(attended=lambda s, q, k, v, c: F.scaled_dot_product_attention(
                q, k, v, c.mask if c.mask is not None and c.cache else None,
                is_causal=not (c.mask is not None and c.cache))),
        ),
        known(
            "view-without-contiguous",
            "After a transpose the memory is not in order, and `view` refuses. Use reshape or "
            "flatten, or contiguous() before view.",
            heads_as(merged=lambda s, y: y.transpose(1, 2).view(y.shape[0], y.shape[2], -1)),
        ),
        known(
            "heads-not-transposed",
            "Heads and tokens are not swapped before attention, so each token compares its heads "
            "with each other. Attention needs (B, nh, T, hs).",
            heads_as(
                split_heads=lambda s, x: x.unflatten(-1, (-1, s.head_size)),
                merged=lambda s, y: y.flatten(2),
            ),
        ),
        known(
            "keys-mixed", "The keys are mixed in place of the values.",
            other_roles(lambda q, k, v: (q, k, k)),
        ),
        known(
            "queries-as-keys", "Queries are compared with queries. Compare them with the keys.",
            other_roles(lambda q, k, v: (q, q, v)),
            other_roles(lambda q, k, v: (k, k, v)),
        ),
        known(
            "projected-twice", "c_proj is applied twice. Apply it once, at the end.",
            heads_as(projected=lambda s, y: s.dropout(s.c_proj(s.c_proj(y)))),
        ),
        known(
            "one-head",
            "There is one head of all channels. Cut the channels into heads, and attend in each.",
            heads_as(attended=lambda s, q, k, v, c: s.split_heads(s.kernel(
                *(y.transpose(1, 2).flatten(2)[:, None] for y in (q, k, v)), c.mask, c.causal
            )[:, 0])),
        ),
        known(
            "no-scale", "The scores are not divided by sqrt(hs). self.kernel does it.",
            attended_with(lambda s, later: usual(s * 2 if s.shape[1] == 2 else s * 2**0.5, later)),
        ),
        known(
            "scaled-by-all-channels",
            "The scores are divided by sqrt(C). Each head has hs channels: divide by sqrt(hs).",
            attended_with(lambda s, later: usual(s / math.sqrt(s.shape[1]), later)),
        ),
        known(
            "softmax-over-queries", "Softmax runs over the queries. Use the last axis, the keys.",
            attended_with(lambda s, later: layers.softmax(s.masked_fill(later, -math.inf), -2)),
        ),
        known(
            "mask-after-softmax",
            "The mask is applied after softmax. Set hidden scores to minus infinity before it.",
            attended_with(lambda s, later: layers.softmax(s).masked_fill(later, 0)),
        ),
        known(
            "hidden-as-zero",
            "The scores of hidden keys are set to 0, and exp(0) is 1. Use minus infinity.",
            attended_with(lambda s, later: layers.softmax(s.masked_fill(later, 0))),
        ),
        known(
            "no-softmax", "Softmax is missing: scores are not weights.",
            attended_with(lambda s, later: s.masked_fill(later, 0)),
        ),
    ],
    hints=(
        "c_attn gives queries, keys and values side by side. Split them, then cut each into heads: "
        "(B, T, C) becomes (B, nh, T, hs).",
        "Unflatten the channels into (nh, hs), and swap the axes of tokens and heads. Then norm, "
        "rotate, update the cache, repeat the key heads, and call self.kernel.",
        "After attention, undo the cut: transpose(1, 2), flatten(2), c_proj. The context holds "
        "position, pos, mask, causal, cache and layer.",
    ),
)  # fmt: skip
