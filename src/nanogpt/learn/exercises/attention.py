"""Exercises about attention: one head; then all that the package's own attention can do."""

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from nanogpt.learn.exercise import Exercise, Mistake
from nanogpt.learn.exercises.known import known, numbers
from nanogpt.learn.exercises.network import TINY
from nanogpt.model import attention, gpt, layers, position
from nanogpt.model.attention import AttentionContext, attention_mask, same_document
from nanogpt.model.cache import KVCache
from nanogpt.model.position import POSITIONS

HEADS, SIZE = 2, 4  # of the model TINY


def attention_cases() -> list[tuple[Any, ...]]:
    def qkv(b: int, nh: int, t: int, s: int, hs: int) -> list[Tensor]:
        shapes = ((b, nh, t, hs), (b, nh, s, hs), (b, nh, s, hs))
        return [numbers(*shape, seed=n + t) for n, shape in enumerate(shapes)]

    added = numbers(2, 3, 4, 4, seed=9)
    # The score of each visible key is -5e9: softmax would prefer a hidden key with -1e9.
    large, value = torch.full((1, 1, 2, 1), 1e5), torch.tensor([1.0, 2.0]).view(1, 1, 2, 1)
    return [
        (*qkv(1, 1, 1, 1, 4),),
        (*qkv(1, 1, 2, 2, 4),),
        (*qkv(1, 1, 1, 3, 4),),
        (*qkv(1, 2, 3, 3, 4),),
        (*qkv(1, 2, 4, 4, 4), None, True),
        (*qkv(1, 1, 4, 4, 9), attention_mask(4, 4, window=3)),
        (*qkv(2, 3, 2, 4, 16), attention_mask(2, 4, window=2)),
        (*qkv(2, 3, 4, 4, 16), attention_mask(4, 4, window=2)),
        (*qkv(2, 3, 4, 4, 16), added),
        (*qkv(2, 3, 4, 4, 16), torch.where(attention_mask(4, 4), added, -math.inf)),
        (large, -0.5 * large, value, attention_mask(2, 2, window=1)),
    ]


def attention_with(
    scale: Any = math.sqrt, soft: Any = layers.softmax, mixed: Any = None, when: Any = None
) -> Any:
    """An attention that does one thing differently.

    `mixed` gets scores, mask and softmax; `when` says whether to hide the future.
    """

    def attend(
        q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False,
        dropout: float = 0.0,
    ) -> Tensor:  # fmt: skip
        scores = q @ k.transpose(-2, -1) / scale(q.shape[-1])
        if when(mask, causal) if when else causal:
            return masked_before(scores, attention_mask(*scores.shape[-2:]), soft) @ v
        return (soft(scores) if mask is None else (mixed or masked_before)(scores, mask, soft)) @ v

    return attend


def masked_before(scores: Tensor, mask: Tensor, soft: Any, hidden: float = -math.inf) -> Tensor:
    hides = mask.dtype == torch.bool
    weights: Tensor = soft(scores.masked_fill(~mask, hidden) if hides else scores + mask)
    return weights


def masked_afterwards(scores: Tensor, mask: Tensor, soft: Any) -> Tensor:
    if mask.dtype != torch.bool:
        return masked_before(scores, mask, soft)
    weights: Tensor = soft(scores).masked_fill(~mask, 0)
    return weights


def added_afterwards(scores: Tensor, mask: Tensor, soft: Any) -> Tensor:
    if mask.dtype == torch.bool:
        return masked_before(scores, mask, soft)
    weights: Tensor = soft(scores) + mask
    return weights


def mask_upside_down(scores: Tensor, mask: Tensor, soft: Any) -> Tensor:
    return masked_before(scores, ~mask if mask.dtype == torch.bool else mask, soft)


def attention_of(choose: Any) -> Any:
    """Attention that takes queries, keys and values for one another."""

    def attend(
        q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False,
        dropout: float = 0.0,
    ) -> Tensor:  # fmt: skip
        q, k, v = choose(q, k, v)
        return attention.attention(q, k, v, mask, causal)

    return attend


ATTENTION = Exercise(
    name="attention",
    title="Compare each query with each key, and mix the values by the result.",
    reference=attention.attention,
    cases=attention_cases,
    lesson=6,
    mistakes=[
        Mistake(
            "no-scale",
            "The scores are not divided by sqrt(hs). The product of two random vectors of length "
            "hs has that standard deviation. Without the division softmax picks one key, and the "
            "gradients vanish.",
            attention_with(scale=lambda hs: 1.0),
        ),
        Mistake(
            "scale-without-root",
            "The scores are divided by hs. Divide them by the square root of hs.",
            attention_with(scale=lambda hs: hs),
        ),
        Mistake(
            "scale-upside-down", "The scores are multiplied by sqrt(hs). Divide them by it.",
            attention_with(scale=lambda hs: hs**-0.5),
        ),
        Mistake(
            "softmax-over-queries",
            "Softmax runs over the queries. The weights of one query, over all keys, sum to 1: use "
            "the last axis.",
            attention_with(soft=lambda x: layers.softmax(x, -2)),
        ),
        Mistake(
            "softmax-over-heads",
            "Softmax runs over the heads. It runs over the keys: use the last axis.",
            attention_with(soft=lambda x: layers.softmax(x, 1)),
        ),
        Mistake(
            "no-softmax", "Softmax is missing: scores are not weights.",
            attention_with(soft=lambda x: x),
        ),
        Mistake(
            "mask-after-softmax",
            "The mask is applied after softmax. The weights that are left do not sum to 1, because "
            "the hidden keys took part in the sum. Apply the mask to the scores.",
            attention_with(mixed=masked_afterwards),
        ),
        Mistake(
            "added-after-softmax",
            "A mask of numbers is added after softmax. Add it to the scores.",
            attention_with(mixed=added_afterwards),
        ),
        Mistake(
            "hidden-as-zero",
            "The scores of hidden keys are set to 0. exp(0) is 1, so these keys still count. Set "
            "them to minus infinity: its exp is 0.",
            attention_with(mixed=lambda s, m, soft: masked_before(s, m, soft, 0.0)),
        ),
        Mistake(
            "hidden-as-small-number",
            "The scores of hidden keys are set to a large negative number. A model can learn "
            "scores below any number; only minus infinity hides a key for certain.",
            attention_with(mixed=lambda s, m, soft: masked_before(s, m, soft, -1e9)),
        ),
        Mistake(
            "mask-ignored", "The mask is not used, so each query sees all keys.",
            attention_with(mixed=lambda scores, mask, soft: soft(scores)),
        ),
        Mistake(
            "mask-upside-down",
            "The mask hides what it should show: True means that a query may look at a key.",
            attention_with(mixed=mask_upside_down),
        ),
        Mistake(
            "booleans-added",
            "A boolean mask is added to the scores: True adds 1, False adds 0, and nothing is "
            "hidden. Set the scores to minus infinity where the mask is False.",
            attention_with(mixed=lambda scores, mask, soft: soft(scores + mask)),
        ),
        Mistake(
            "causal-ignored",
            "`causal` is not used: with causal=True no query sees a key after its own.",
            attention_with(when=lambda mask, causal: False),
        ),
        Mistake(
            "always-causal",
            "The future is hidden even if nobody asks for it. Without a mask, and with "
            "causal=False, each query sees all keys.",
            attention_with(when=lambda mask, causal: mask is None),
        ),
        Mistake(
            "keys-and-queries-swapped",
            "Keys and queries are swapped. Each query mixes the values; each row of the scores "
            "belongs to one query.",
            attention_of(lambda q, k, v: (k, q, v)),
        ),
        Mistake(
            "keys-and-values-swapped",
            "Keys and values are swapped: keys are compared, values are mixed.",
            attention_of(lambda q, k, v: (q, v, k)),
        ),
    ],
    hints=(
        "Four steps: compute scores, apply the mask, apply softmax, mix the values.",
        "A score is the product of a query and a key, divided by the square root of hs. Softmax "
        "makes each row of scores sum to 1. The result is a weighted sum of the values.",
        "q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1]) has the shape (B, nh, T, S). "
        "`attention_weights` in the package says what the two kinds of mask mean.",
    ),
)  # fmt: skip


def mask_cases() -> list[tuple[Any, ...]]:
    return [
        (1, 1),
        (2, 2),
        (3, 3),
        (2, 4),  # the last two of four
        (4, 4, 2),
        (2, 5, 3),
        (3, 3, 0, same_document(torch.tensor([[1, 1, 2]]), 3)),
        (3, 3, 0, same_document(torch.tensor([[0, 1, 1]]), 3)),  # padding first
        (2, 4, 2, same_document(torch.tensor([[1, 1, 1, 1], [0, 1, 2, 2]]), 2)),
    ]


def mask_with(
    seen: Any = lambda d, window: (d >= 0) & ((d < window) if window else True),
    documents: Any = lambda visible, same, d: visible & (same | (d == 0)),
    queries: Any = lambda new, known: torch.arange(known - new, known),
    result: Any = lambda visible: visible,
) -> Any:
    """An attention mask that does one thing differently; d is how far back each key is."""

    def mask(
        new: int, known: int, window: int = 0, same: Tensor | None = None, device: Any = None
    ) -> Tensor:
        distance = queries(new, known)[:, None] - torch.arange(known)
        visible = seen(distance, window)
        if same is not None:
            visible = documents(visible, same, distance)[:, None]
        found: Tensor = result(visible)
        return found

    return mask


FULL_MASK = Exercise(
    name="full-mask",
    title="The attention mask: hide the future, and whatever else a token may not see.",
    reference=attention.attention_mask,
    cases=mask_cases,
    lesson=11,
    optional=True,
    mistakes=[
        Mistake(
            "sees-the-next",
            "Each token sees the next token, and that is the token it has to predict. Hide every "
            "key that comes after the query.",
            mask_with(seen=lambda d, w: (d >= -1) & ((d < w) if w else True)),
        ),
        Mistake(
            "blind-to-itself",
            "No token sees itself, and the first token sees nothing at all: softmax over nothing "
            "is not a number. Hide only the keys after the query.",
            mask_with(seen=lambda d, w: (d > 0) & ((d < w) if w else True)),
        ),
        Mistake(
            "past-hidden",
            "The past is hidden and the future is visible. It should be the other way round.",
            mask_with(seen=lambda d, w: (d <= 0) & ((d < w) if w else True)),
        ),
        Mistake(
            "upside-down",
            "The mask is True where a key is hidden. It should be True where a query may look.",
            mask_with(result=lambda visible: ~visible),
        ),
        Mistake(
            "queries-from-the-first",
            "The queries are taken for the first `new` of the `known` tokens. They are the last "
            "ones: with a cache, a new token sees all the old tokens.",
            mask_with(queries=lambda new, known: torch.arange(new)),
        ),
        Mistake(
            "ones-and-zeros",
            "These are ones and zeros. A mask of numbers is added to the scores, and adding 0 "
            "hides nothing. Give True and False, as a comparison does.",
            mask_with(result=lambda visible: visible.float()),
        ),
        Mistake(
            "numbers-to-add",
            "These are numbers to add to the scores: 0 and minus infinity. Give True where a query "
            "may look and False elsewhere.",
            mask_with(result=lambda visible: visible.float().log()),
        ),
        Mistake(
            "window-ignored", "The window is not used: it hides the distant past as well.",
            mask_with(seen=lambda d, w: d >= 0),
        ),
        Mistake(
            "window-too-wide",
            "The window is too wide by one: with window=2 a token sees itself and one token "
            "before it.",
            mask_with(seen=lambda d, w: (d >= 0) & ((d <= w) if w else True)),
        ),
        Mistake(
            "documents-ignored",
            "`same` is not used, so tokens see other documents and padding.",
            mask_with(documents=lambda visible, same, d: visible.expand(same.shape)),
        ),
        Mistake(
            "padding-sees-nothing",
            "Padding sees nothing, not even itself: softmax over nothing is not a number. Let "
            "each token see itself.",
            mask_with(documents=lambda visible, same, d: visible & same),
        ),
        Mistake(
            "future-of-its-document",
            "With `same`, tokens see the future of their own document. The document mask hides "
            "something in addition: combine the two masks with `&`.",
            mask_with(documents=lambda visible, same, d: same | (d == 0)),
        ),
    ],
    hints=(
        "Work out for each query and each key how far back the key is.",
        "The queries have the numbers known - new to known - 1, the keys 0 to known - 1. "
        "query[:, None] - key gives all distances, (T, S). Negative distances are the future.",
        "distance >= 0, and with a window `& (distance < window)`. With `same`, combine with "
        "`same | (distance == 0)` and add an axis for the heads: [:, None].",
    ),
)  # fmt: skip


WAYS_OF_ATTENDING = {
    "plain": "",
    "rope": ", with RoPE, which rotates queries and keys",
    "mask": ", with a mask that hides the first token from the others",
    "norm": ", with qk_norm",
    "cache": ", the last two tokens with a cache of the earlier ones",
    "rope and cache": ", with RoPE, the last two tokens with a cache of the earlier ones",
}


def drive_heads(
    cls: type[attention.CausalSelfAttention], x: Tensor, heads: int, kv_heads: int, way: str
) -> Tensor | list[Tensor]:
    """Run the whole layer with weights that all matter; with a cache, give its keys as well."""
    config = replace(
        TINY, n_head=heads, n_kv_head=kv_heads, kernels="plain", qk_norm=way == "norm",
        position="rope" if "rope" in way else "none",
    )  # fmt: skip
    torch.manual_seed(0)
    layer = cls(config).eval()
    new, known = 2 if "cache" in way else x.shape[1], x.shape[1]
    context = AttentionContext(POSITIONS[config.position](config), torch.arange(known)[None])
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
        if way == "mask":
            mask = attention_mask(known, known)
            mask[1:, 0] = False
            context = replace(context, mask=mask, causal=False)
        if "cache" not in way:
            result: Tensor = layer(x, context)
            return result
        cache, old = empty_cache(config, len(x)), context.pos[:, :-new]
        layer(x[:, :-new], replace(context, pos=old, cache=cache, layer=1))
        cache.advance(old)
        context = replace(context, pos=context.pos[:, -new:], cache=cache, layer=1)
        seen = replace(context, mask=attention_mask(new, known), causal=False)
        return [layer(x[:, -new:], seen), cache.keys]


def empty_cache(config: Any, rows: int, cls: type[KVCache] = KVCache) -> KVCache:
    """A cache whose memory is zero: a candidate that reads too far gets the same every time."""
    cache = cls(config, rows, torch.device("cpu"), torch.float32)
    for memory in (cache.keys, cache.values, cache.pos):
        memory.zero_()
    return cache


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
        result: Tensor = self.c_proj(y)
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


class RepeatedInTurns(Heads):
    def repeated(self, x: Tensor) -> Tensor:
        return x.repeat(1, self.groups, 1, 1)


GROUPED_HEADS = Exercise(
    name="grouped-heads",
    title="Many heads: split the channels, attend in each part, join the results.",
    reference=attention.CausalSelfAttention,
    write=("forward", "split_heads"),
    cases=lambda: [
        (numbers(1, 1, 8), 2, 2, "plain"), (numbers(1, 3, 8), 2, 2, "plain"),
        (numbers(2, 5, 8, seed=1), 2, 2, "plain"), (numbers(2, 4, 8, seed=2), 4, 2, "plain"),
        *((numbers(1, 4, 8, seed=3), 2, 2, way) for way in WAYS_OF_ATTENDING),
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


ROWS_DIFFER = -1  # in a list of parts: each row has positions of its own
CLEAR = 0  # in a list of parts: the cache is emptied, as it is when a text outgrows the context


def drive_cache(cls: type[KVCache], *sizes: int) -> list[Tensor]:
    """Add parts of so many tokens to both layers, as a model does; collect what comes back."""
    cache = empty_cache(TINY, 2, cls)
    found: list[Tensor] = []
    for number, size in enumerate(sizes):
        if size == ROWS_DIFFER:
            continue
        if size == CLEAR:
            cache.clear()
            continue
        pos = 3 * torch.arange(size)[None] + 5 * number + 1  # (1, T), any numbers will do
        if ROWS_DIFFER in sizes:
            pos = torch.cat([pos, pos + 1])  # (B, T)
        found.append(cache.key_positions(pos).clone())
        for layer in range(TINY.n_layer):
            k = numbers(2, HEADS, size, SIZE, seed=10 * number + layer)
            keys, values = cache.update(layer, k, -k)
            found += [keys.clone(), values.clone()]
        cache.advance(pos)
    return found


class Stale(KVCache):
    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        self.keys[layer, :, :, : k.shape[2]] = k
        self.values[layer, :, :, : k.shape[2]] = v
        end = self.length + k.shape[2]
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]


class OnlyNew(KVCache):
    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        super().update(layer, k, v)
        return k, v


class OnlyOld(KVCache):
    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        super().update(layer, k, v)
        end = self.length
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]


class EverythingGiven(KVCache):
    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        super().update(layer, k, v)
        return self.keys[layer], self.values[layer]


class OneLayer(KVCache):
    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return super().update(0, k, v)


class Swapped(KVCache):
    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        keys, values = super().update(layer, k, v)
        return values, keys


class CountsEveryLayer(KVCache):
    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        found = super().update(layer, k, v)
        self.length += k.shape[2]
        return found

    def advance(self, pos: Tensor) -> None:
        self.pos[:, self.length - pos.shape[1] : self.length] = pos


class OnlyNewPositions(KVCache):
    def key_positions(self, pos: Tensor) -> Tensor:
        return pos.expand(len(self.pos), -1)


class PositionsNotStored(KVCache):
    def advance(self, pos: Tensor) -> None:
        self.length += pos.shape[1]


class NeverAdvances(KVCache):
    def advance(self, pos: Tensor) -> None:
        self.pos[:, self.length : self.length + pos.shape[1]] = pos


class NeverCleared(KVCache):
    """Keeps everything it was ever given."""

    def __init__(self, *settings: Any) -> None:
        super().__init__(*settings)
        self.kept: dict[Any, Tensor] = {}

    def appended(self, key: Any, x: Tensor, dim: int) -> Tensor:
        self.kept[key] = torch.cat([self.kept[key], x], dim) if key in self.kept else x
        return self.kept[key]

    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return self.appended(("k", layer), k, 2), self.appended(("v", layer), v, 2)

    def key_positions(self, pos: Tensor) -> Tensor:
        return self.appended("pos", pos.expand(len(self.pos), -1), 1)


CACHE = Exercise(
    name="cache",
    title="The KV cache: store keys and values, so that old tokens are not computed again.",
    reference=KVCache,
    write=("update", "key_positions", "advance"),
    cases=lambda: [
        (1,), (3,), (1, 1), (3, 1), (2, 3, 1), (3, 1, CLEAR, 2, 1), (2, 1, ROWS_DIFFER),
    ],
    drive=drive_cache,
    describe=lambda *sizes: (
        f"parts of {', '.join(str(n) for n in sizes if n > 0)} tokens"
        f"{', cleared after the second' if CLEAR in sizes else ''}"
        f"{', with positions that differ by row' if ROWS_DIFFER in sizes else ''}: for each part "
        "the positions, then keys and values by layer"
    ),
    lesson=12,
    optional=True,
    mistakes=[
        Mistake(
            "stale-place",
            "New keys overwrite the first ones. They belong after the `length` tokens that are in "
            "the cache.",
            Stale,
        ),
        Mistake(
            "only-new",
            "`update` gives the new keys alone. Attention needs the keys of all tokens so far.",
            OnlyNew,
        ),
        Mistake(
            "only-old",
            "`update` gives the old keys alone. A token sees itself, so it needs the new keys, "
            "too: cut at length + T.",
            OnlyOld,
        ),
        Mistake(
            "all-memory",
            "`update` gives the memory of the whole context. The places after the new tokens hold "
            "nothing yet: cut at length + T.",
            EverythingGiven,
        ),
        Mistake(
            "one-layer",
            "All layers use the same memory. Each layer has keys and values of its own.", OneLayer,
        ),
        Mistake("swapped", "`update` gives keys and values in the wrong order.", Swapped),
        Mistake(
            "counts-every-layer",
            "`update` changes the length, so it grows with every layer. All layers see the same "
            "new tokens: only `advance` changes the length, once, after all layers.",
            CountsEveryLayer,
        ),
        Mistake(
            "not-advanced",
            "`advance` does not change the length, so the next tokens overwrite these.",
            NeverAdvances,
        ),
        Mistake(
            "positions-not-stored",
            "`advance` does not store the positions of the new tokens. `key_positions` needs them "
            "later: write them to self.pos.",
            PositionsNotStored,
        ),
        Mistake(
            "only-new-positions",
            "`key_positions` gives the new positions alone, not those of all keys.",
            OnlyNewPositions,
        ),
        Mistake(
            "never-cleared",
            "Old keys come back after `clear` has set the length to 0. Only the first `length` "
            "tokens are in the cache.",
            NeverCleared,
        ),
    ],
    hints=(
        "The memory is already there: self.keys has a place for every layer, row, head and token.",
        "New tokens go to the places from self.length on. `update` gives everything up to and "
        "including the new tokens.",
        "end = self.length + k.shape[2]; write to [layer, :, :, self.length:end], give "
        "[layer, :, :, :end]. `advance` does the same with self.pos and then sets self.length.",
    ),
)  # fmt: skip


def rotary_cases() -> list[tuple[Any, ...]]:
    quarter = (torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0]))
    angles = torch.arange(3)[:, None] * torch.tensor([1.0, 0.1])
    return [
        (torch.tensor([1.0, 0.0, 0.0, 0.0]).view(1, 1, 1, 4), *quarter),
        (torch.tensor([1.0, 5.0, 2.0, 7.0]).view(1, 1, 1, 4), *quarter),
        (numbers(2, 2, 3, 4), angles.cos(), angles.sin()),
    ]


def rotate_neighbours(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x[..., ::2], x[..., 1::2]
    return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2)


def rotate_with(first: Any, second: Any) -> Any:
    """A rotation with other formulas for its two halves."""

    def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        a, b = x.chunk(2, dim=-1)
        return torch.cat([first(a, b, cos, sin), second(a, b, cos, sin)], dim=-1)

    return rotated


ROTATION = Exercise(
    name="rope",
    title="Rotary positions (RoPE): rotate pairs of channels.",
    reference=position.apply_rotary,
    cases=rotary_cases,
    lesson=11,
    mistakes=[
        Mistake(
            "neighbours",
            "Neighbouring channels are paired. Here channel i is paired with i + hs / 2. Both "
            "ways work, but weights trained with one do not work with the other.",
            rotate_neighbours,
        ),
        Mistake(
            "backwards", "It rotates in the wrong direction: the signs of sin are swapped.",
            rotate_with(
                lambda a, b, cos, sin: a * cos + b * sin, lambda a, b, cos, sin: b * cos - a * sin
            ),
        ),
        Mistake(
            "not-a-rotation",
            "The second half has the wrong sign, so it is not a rotation. A rotation gives "
            "a cos - b sin and a sin + b cos.",
            rotate_with(
                lambda a, b, cos, sin: a * cos - b * sin, lambda a, b, cos, sin: a * sin - b * cos
            ),
        ),
        Mistake(
            "both-plus", "Both signs are plus. One of them is minus: a cos - b sin.",
            rotate_with(
                lambda a, b, cos, sin: a * cos + b * sin, lambda a, b, cos, sin: a * sin + b * cos
            ),
        ),
        Mistake(
            "halves-swapped", "The two halves of the result are swapped.",
            rotate_with(
                lambda a, b, cos, sin: a * sin + b * cos, lambda a, b, cos, sin: a * cos - b * sin
            ),
        ),
        Mistake(
            "half-rotated", "Only the first half is rotated. The second half changes, too.",
            rotate_with(lambda a, b, cos, sin: a * cos - b * sin, lambda a, b, cos, sin: b),
        ),
        Mistake(
            "sin-and-cos-swapped", "sin and cos are swapped: an angle of 0 should change nothing.",
            rotate_with(
                lambda a, b, cos, sin: a * sin - b * cos, lambda a, b, cos, sin: a * cos + b * sin
            ),
        ),
    ],
    hints=(
        "Each pair of channels is a point in the plane. Rotate it by its angle.",
        "Cut x into two halves: a holds the first channel of each pair, b the second.",
        "a becomes a cos - b sin, b becomes a sin + b cos. Concatenate the two halves.",
    ),
)  # fmt: skip


WAYS_OF_READING = {
    "whole": "the ids {}",
    "cache": "the ids {} with a cache, two at a time",
    "documents": "the ids {}; the first row holds one token of padding, then two documents",
    "documents, cache": "the same with a cache, two at a time: {}",
    "alibi": "the ids {} with ALiBi, which adds to the scores",
}


def drive_gpt(cls: type[gpt.GPT], way: str, *ids: list[int]) -> list[Tensor]:
    """The hidden states of rows of ids, all at once or in parts with a cache."""
    torch.manual_seed(0)
    network = cls(replace(TINY, position="alibi") if way == "alibi" else TINY).eval()
    rows = torch.tensor(ids)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        documents = None
        if "documents" in way:  # padding, then two documents; the other rows are one document
            documents = torch.ones_like(rows)
            documents[0] = torch.tensor([0, 1, 1, *[2] * (rows.shape[1] - 3)])
        if "cache" not in way:
            return [network.hidden_states(rows, documents=documents)]
        cache = empty_cache(network.config, len(rows))
        found, end = [], 0
        for part in rows.split(2, dim=1):
            end += part.shape[1]
            seen = None if documents is None else documents[:, :end]
            found.append(network.hidden_states(part, documents=seen, cache=cache))
        return [*found, torch.tensor(cache.length), cache.keys]


class OtherGPT(gpt.GPT):
    """A GPT-2 whose forward pass can be done differently, part by part."""

    def hidden_states(
        self, ids: Tensor, *, documents: Tensor | None = None, cache: KVCache | None = None
    ) -> Tensor:
        context = self.seen(ids, documents, cache)
        x = self.embedded(ids, context)
        for layer, block in self.blocks():
            x = block(x, self.of_layer(context, layer))
        if cache:
            self.finish(cache, context)
        return self.normed(x)

    def seen(self, ids: Tensor, documents: Any, cache: Any) -> AttentionContext:
        return self.context(ids, documents, cache)

    def embedded(self, ids: Tensor, context: AttentionContext) -> Tensor:
        return self.wpe.embed(self.wte(ids), context.pos)

    def blocks(self) -> Any:
        return enumerate(self.h)

    def of_layer(self, context: AttentionContext, layer: int) -> AttentionContext:
        return replace(context, layer=layer)

    def finish(self, cache: KVCache, context: AttentionContext) -> None:
        cache.advance(context.pos)

    def normed(self, x: Tensor) -> Tensor:
        result: Tensor = self.ln_f(x)
        return result


class NoPositions(OtherGPT):
    def embedded(self, ids: Tensor, context: AttentionContext) -> Tensor:
        result: Tensor = self.wte(ids)
        return result


class CountsFromZero(OtherGPT):
    def embedded(self, ids: Tensor, context: AttentionContext) -> Tensor:
        return self.wpe.embed(self.wte(ids), torch.arange(ids.shape[1])[None])


class CountsThroughDocuments(OtherGPT):
    def embedded(self, ids: Tensor, context: AttentionContext) -> Tensor:
        old, new = context.cache.length if context.cache else 0, ids.shape[1]
        return self.wpe.embed(self.wte(ids), gpt.positions(new, old + new))


class DocumentsIgnored(OtherGPT):
    def seen(self, ids: Tensor, documents: Any, cache: Any) -> AttentionContext:
        return self.context(ids, None, cache)


class CacheNotUsed(OtherGPT):
    def seen(self, ids: Tensor, documents: Any, cache: Any) -> AttentionContext:
        return self.context(ids, None if documents is None else documents[:, -ids.shape[1] :])

    def finish(self, cache: KVCache, context: AttentionContext) -> None:
        pass


class NeverAdvanced(OtherGPT):
    def finish(self, cache: KVCache, context: AttentionContext) -> None:
        pass


class AdvancedByEveryBlock(OtherGPT):
    def blocks(self) -> Any:
        for layer, block in enumerate(self.h):
            yield layer, block
            if self.latest.cache:
                self.latest.cache.advance(self.latest.pos)

    def of_layer(self, context: AttentionContext, layer: int) -> AttentionContext:
        self.latest = super().of_layer(context, layer)
        return self.latest

    def finish(self, cache: KVCache, context: AttentionContext) -> None:
        pass


class LayerNotGiven(OtherGPT):
    def of_layer(self, context: AttentionContext, layer: int) -> AttentionContext:
        return context


class BlocksBackwards(OtherGPT):
    def blocks(self) -> Any:
        return reversed(list(enumerate(self.h)))


class FirstBlockOnly(OtherGPT):
    def blocks(self) -> Any:
        return ((layer, self.h[0]) for layer, _ in enumerate(self.h))


class NoFinalNorm(OtherGPT):
    def normed(self, x: Tensor) -> Tensor:
        return x


GPT_CACHED = Exercise(
    name="gpt-cached",
    title="The forward pass of GPT-2, from ids to hidden states.",
    reference=gpt.GPT,
    write=("hidden_states",),
    cases=lambda: [
        ("whole", [3]), ("whole", [3, 1, 4]), ("whole", [3, 1, 4, 1, 5], [9, 2, 6, 5, 3]),
        ("cache", [3, 1, 4, 1, 5]), ("documents", [3, 1, 4, 1, 5], [2, 7, 1, 8, 2]),
        ("documents, cache", [3, 1, 4, 1, 5], [2, 7, 1, 8, 2]), ("alibi", [3, 1, 4, 1, 5]),
    ],
    drive=drive_gpt,
    describe=lambda way, *ids: WAYS_OF_READING[way].format(ids),
    lesson=12,
    optional=True,
    mistakes=[
        Mistake(
            "no-positions",
            "The positions are not embedded, so the model does not know the order of the tokens.",
            NoPositions,
        ),
        Mistake(
            "positions-from-zero",
            "Positions start at 0 in every part of a text, and count on across documents. "
            "context.pos has the right ones: with a cache the ids continue a text.",
            CountsFromZero,
        ),
        Mistake(
            "positions-across-documents",
            "Positions count on from one document of a row into the next. context.pos starts each "
            "document at 0.",
            CountsThroughDocuments,
        ),
        Mistake(
            "documents-ignored",
            "`documents` is not used, so tokens see the other documents of their row. Give it to "
            "self.context.",
            DocumentsIgnored,
        ),
        Mistake(
            "cache-not-used",
            "The cache is not used: every part is computed as if nothing came before it. Give the "
            "cache to self.context.",
            CacheNotUsed,
        ),
        Mistake(
            "not-advanced",
            "The cache does not advance, so the next part overwrites this one. Call cache.advance "
            "after the blocks.",
            NeverAdvanced,
        ),
        Mistake(
            "advanced-by-every-block",
            "The cache advances after every block. All blocks see the same new tokens: advance "
            "once, after the last block.",
            AdvancedByEveryBlock,
        ),
        Mistake(
            "layer-not-given",
            "All blocks use the cache of layer 0. Tell each block its number: "
            "replace(context, layer=layer).",
            LayerNotGiven,
        ),
        Mistake(
            "blocks-backwards", "The blocks run from the last to the first. Go through self.h in "
            "order.",
            BlocksBackwards,
        ),
        Mistake(
            "one-block", "The first block runs every time. Go through all of self.h.",
            FirstBlockOnly,
        ),
        Mistake(
            "no-final-norm",
            "The final norm, ln_f, is missing. The residual stream grows from block to block, and "
            "the head needs vectors of one size.",
            NoFinalNorm,
        ),
    ],
    hints=(
        "Embed tokens and positions, send them through the blocks, apply the final norm.",
        "self.context(ids, documents, cache) says where the tokens stand (context.pos) and what "
        "they may see. Every block gets x and the context with the number of its layer.",
        "for layer, block in enumerate(self.h): x = block(x, replace(context, layer=layer)). "
        "After the blocks call cache.advance(context.pos) if there is a cache.",
    ),
)  # fmt: skip
