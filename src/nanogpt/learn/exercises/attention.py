"""Exercises about attention: one head, the causal mask, many heads, the cache, rotation, GPT."""

import math
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from nanogpt.learn.exercise import Exercise, Mistake
from nanogpt.learn.exercises.network import TINY, numbers
from nanogpt.model import attention, gpt, layers, position
from nanogpt.model.cache import KVCache
from nanogpt.model.position import POSITIONS

CHANNELS, HEADS, SIZE = 8, 2, 4


def attention_cases() -> list[tuple[Any, ...]]:
    def qkv(b: int, nh: int, t: int, s: int, hs: int) -> list[Tensor]:
        shapes = ((b, nh, t, hs), (b, nh, s, hs), (b, nh, s, hs))
        return [numbers(*shape, seed=n + t) for n, shape in enumerate(shapes)]

    pos = torch.arange(4)
    return [
        (*qkv(1, 1, 1, 1, 4), torch.zeros(1, 1)),
        (*qkv(1, 1, 2, 2, 4), torch.zeros(2, 2)),
        (*qkv(1, 1, 2, 3, 4), torch.zeros(2, 3)),
        (*qkv(1, 1, 4, 4, 9), attention.causal_bias(pos, pos)),
        (*qkv(2, 3, 4, 4, 16), attention.causal_bias(pos, pos)),
        (*qkv(2, 3, 4, 4, 16), numbers(2, 3, 4, 4, seed=9)),
        tuple(qkv(1, 2, 4, 4, 4)),  # no bias: plainly causal
        tuple(qkv(1, 2, 2, 4, 4)),  # queries of the last two tokens only
    ]


def attention_with(
    scale: Any = None, soft: Any = None, biased: Any = None, ordinary: bool = True
) -> Any:
    """An attention that does one thing differently."""

    def attend(
        q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, dropout: float = 0.0
    ) -> Tensor:
        if bias is None:
            pos = torch.arange(k.shape[-2])
            bias = attention.causal_bias(pos[-q.shape[-2] :], pos)
            if not ordinary:
                bias = torch.zeros_like(bias)
        hs = q.shape[-1]
        scores = q @ k.transpose(-2, -1) / (scale(hs) if scale else math.sqrt(hs))
        if biased:
            return biased(scores, bias, v)
        return (soft or layers.softmax)(scores + bias) @ v

    return attend


def masked_afterwards(scores: Tensor, bias: Tensor, v: Tensor) -> Tensor:
    return layers.softmax(scores).masked_fill(bias == -math.inf, 0) @ v


def added_afterwards(scores: Tensor, bias: Tensor, v: Tensor) -> Tensor:
    return (layers.softmax(scores) + bias) @ v


def zeros_ignored(scores: Tensor, bias: Tensor, v: Tensor) -> Tensor:
    return layers.softmax(scores.masked_fill(bias == -math.inf, 0)) @ v


def causal_from_the_left(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, dropout: float = 0.0
) -> Tensor:
    if bias is None:
        bias = attention.causal_bias(torch.arange(q.shape[-2]), torch.arange(k.shape[-2]))
    return attention.attention(q, k, v, bias, dropout)


def keys_for_queries(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, dropout: float = 0.0
) -> Tensor:
    return attention.attention(k, q, v, bias, dropout)


def values_for_keys(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, dropout: float = 0.0
) -> Tensor:
    return attention.attention(q, v, k, bias, dropout)


ATTENTION = Exercise(
    name="attention",
    title="Compare every query with every key, and mix the values accordingly.",
    reference=attention.attention,
    cases=attention_cases,
    lesson=5,
    mistakes=[
        Mistake(
            "no-scale",
            "The scores are not divided by sqrt(hs). A product of two random vectors of length hs "
            "has that deviation; without it softmax picks one key and hardly learns.",
            attention_with(scale=lambda hs: 1.0),
        ),
        Mistake(
            "scale-without-root", "The scores are divided by hs. Divide by its root.",
            attention_with(scale=lambda hs: hs),
        ),
        Mistake(
            "scale-upside-down", "The scores are multiplied by sqrt(hs). Divide by it.",
            attention_with(scale=lambda hs: hs**-0.5),
        ),
        Mistake(
            "softmax-over-queries",
            "softmax runs over the queries. The shares of one query, over all keys, sum to 1: use "
            "the last axis.",
            attention_with(soft=lambda x: layers.softmax(x, -2)),
        ),
        Mistake(
            "softmax-over-heads", "softmax runs over the heads. Use the last axis, the keys.",
            attention_with(soft=lambda x: layers.softmax(x, 1)),
        ),
        Mistake(
            "no-softmax", "softmax is missing: scores are not shares.",
            attention_with(soft=lambda x: x),
        ),
        Mistake(
            "mask-after-softmax",
            "What is hidden is set to 0 after softmax, so the shares that are left do not sum to "
            "1, and the hidden keys have had their say. Add the bias to the scores.",
            attention_with(biased=masked_afterwards),
        ),
        Mistake(
            "bias-after-softmax", "The bias is added after softmax. It is added to the scores.",
            attention_with(biased=added_afterwards),
        ),
        Mistake(
            "hidden-as-zero",
            "Hidden scores become 0. exp(0) is 1, so they are seen all the same: they become "
            "minus infinity, of which exp is 0.",
            attention_with(biased=zeros_ignored),
        ),
        Mistake(
            "bias-ignored", "The bias is not used, so every token sees the future.",
            attention_with(biased=lambda scores, bias, v: layers.softmax(scores) @ v),
        ),
        Mistake(
            "not-causal-alone",
            "Without a bias every token sees all others. Attention is then plainly causal: the "
            "queries belong to the last T of the S tokens, and see none after their own.",
            attention_with(ordinary=False),
        ),
        Mistake(
            "causal-from-the-left",
            "Without a bias the queries are taken for the first T of the S tokens. They are the "
            "last T: with a cache, a new token sees all the old ones.",
            causal_from_the_left,
        ),
        Mistake(
            "keys-and-queries-swapped",
            "Keys and queries are swapped: the answer to who looks at whom is the wrong way round.",
            keys_for_queries,
        ),
        Mistake(
            "keys-and-values-swapped",
            "Keys and values are swapped: keys are compared, values are mixed.", values_for_keys,
        ),
    ],
    hints=(
        "Four steps: scores, bias, softmax, mix.",
        "Scores are products of every query with every key, over the root of hs. softmax makes "
        "each row of them sum to 1. The values are mixed in those shares.",
        "q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1]) has the shape (B, nh, T, S). Where no "
        "bias is given, `attention_weights` in the package shows which is meant.",
    ),
)  # fmt: skip


def mask_cases() -> list[tuple[Any, ...]]:
    at = torch.arange
    return [
        (at(1), at(1)),
        (at(2), at(2)),
        (at(3), at(3)),
        (at(2, 4), at(4)),  # the last two of four
        (at(4), at(4), 2),
        (at(3, 5), at(5), 3),
    ]


def mask_with(hidden: Any, value: float = -math.inf, shown: float = 0.0) -> Any:
    """A causal mask that does one thing differently: what is hidden at which distance."""

    def bias(q_pos: Tensor, k_pos: Tensor, window: int = 0) -> Tensor:
        distance = q_pos[:, None] - k_pos
        where = hidden(distance, window)
        return torch.full(where.shape, shown).masked_fill(where, value)

    return bias


def ordinary(distance: Tensor, window: int) -> Tensor:
    return (distance < 0) | (distance >= window if window else False)


MASK = Exercise(
    name="mask",
    title="Hide the future.",
    reference=attention.causal_bias,
    cases=mask_cases,
    lesson=5,
    mistakes=[
        Mistake(
            "sees-the-next",
            "Every token sees the one after it, which is the one it has to predict. Hide every key "
            "whose position is greater than the query's.",
            mask_with(lambda d, w: (d < -1) | (d >= w if w else False)),
        ),
        Mistake(
            "blind-to-itself",
            "No token sees itself, and the first sees nothing at all: softmax over nothing is not "
            "a number. Hide only what comes later.",
            mask_with(lambda d, w: (d <= 0) | (d >= w if w else False)),
        ),
        Mistake(
            "past-hidden", "The past is hidden and the future is seen. It should be the other way.",
            mask_with(lambda d, w: (d > 0) | (d >= w if w else False)),
        ),
        Mistake(
            "small-number",
            "Hidden scores get a large negative number. A model can learn scores that outweigh any "
            "number; only -inf is never outweighed.",
            mask_with(ordinary, value=-1e9),
        ),
        Mistake(
            "smaller-number",
            "Hidden scores get a large negative number. A model can learn scores that outweigh any "
            "number; only -inf is never outweighed.",
            mask_with(ordinary, value=-1e4),
        ),
        Mistake(
            "ones-and-zeros",
            "These are ones and zeros. The bias is added to the scores: 0 where a key is seen, "
            "-inf where it is hidden.",
            mask_with(ordinary, value=0.0, shown=1.0),
        ),
        Mistake(
            "window-ignored", "The window is not used: it hides the distant past as well.",
            mask_with(lambda d, w: d < 0),
        ),
        Mistake(
            "window-too-wide",
            "The window is one too wide: with window=2 a token sees itself and one before it.",
            mask_with(lambda d, w: (d < 0) | (d > w if w else False)),
        ),
    ],
    hints=(
        "Work out for each query and each key how far back the key is.",
        "q_pos[:, None] - k_pos gives all distances, (T, S). Negative ones are the future.",
        "Zeros of that shape, filled with -inf where the distance is below 0 or, if there is a "
        "window, at or above it: `masked_fill`.",
    ),
)  # fmt: skip


WAYS_OF_ATTENDING = {
    "plain": "",
    "rope": ", with RoPE, which turns queries and keys",
    "hidden": ", with a bias that hides the first token",
    "norm": ", with qk_norm",
    "cache": ", the last two tokens with a cache of those before them",
    "rope and cache": ", with RoPE, the last two tokens with a cache of those before them",
}


def drive_heads(
    cls: type[attention.CausalSelfAttention], x: Tensor, heads: int, kv_heads: int, way: str
) -> Tensor:
    """Run the whole layer with weights of which every single one matters."""
    config = replace(
        TINY, n_head=heads, n_kv_head=kv_heads, kernels="plain", qk_norm=way == "norm",
        position="rope" if "rope" in way else "none",
    )  # fmt: skip
    torch.manual_seed(0)
    layer = cls(config).eval()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    order, pos = POSITIONS[config.position](config), torch.arange(x.shape[1])
    bias, remember = None, None
    if way == "hidden":
        bias = attention.causal_bias(pos, pos)
        bias[1:, 0] = -math.inf
    if "cache" in way:
        cache = KVCache(config, len(x), x.device, x.dtype)
        remember = partial(cache.append, 0)
        layer(x[:, :-2], order, pos[:-2], None, remember)
        cache.length = x.shape[1] - 2
        x, pos = x[:, -2:], pos[-2:]
    with torch.no_grad():
        result: Tensor = layer(x, order, pos, bias, remember)
    return result


class Heads(attention.CausalSelfAttention):
    """Attention whose parts can be done differently."""

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self.c_attn(x).split(self.widths, dim=-1)
        return q, k, v

    def merged(self, y: Tensor) -> Tensor:
        return y.transpose(1, 2).flatten(2)

    def projected(self, y: Tensor) -> Tensor:
        result: Tensor = self.c_proj(y)
        return result

    def forward(
        self, x: Tensor, order: Any, pos: Tensor, bias: Tensor | None, remember: Any = None
    ) -> Tensor:
        q, k, v = map(self.split_heads, self.parts(x))
        q, k = self.turned(*self.sized(q, k), order, pos)
        k, v = self.remembered(k, v, remember)
        if self.groups > 1:
            k, v = self.repeated(k), self.repeated(v)
        return self.projected(self.merged(self.attended(q, k, v, bias)))

    def sized(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        if not self.qk_norm:
            return q, k
        q, k = (self.rms_norm(x, x.shape[-1:], None, 1e-5) for x in (q, k))
        return q, k

    def turned(self, q: Tensor, k: Tensor, order: Any, pos: Tensor) -> tuple[Tensor, Tensor]:
        q, k = order.rotate(q, k, pos)
        return q, k

    def remembered(self, k: Tensor, v: Tensor, remember: Any) -> tuple[Tensor, Tensor]:
        return remember(k, v) if remember else (k, v)

    def attended(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
        return self.attention(q, k, v, bias)

    def repeated(self, x: Tensor) -> Tensor:
        return x.repeat_interleave(self.groups, dim=1)


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


class NotSized(Heads):
    def sized(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        return q, k


class NotTurned(Heads):
    def turned(self, q: Tensor, k: Tensor, order: Any, pos: Tensor) -> tuple[Tensor, Tensor]:
        return q, k


class NotRemembered(Heads):
    def remembered(self, k: Tensor, v: Tensor, remember: Any) -> tuple[Tensor, Tensor]:
        return k, v


class SeesEverything(Heads):
    def attended(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
        return self.attention(q, k, v)


class RepeatedInTurns(Heads):
    def repeated(self, x: Tensor) -> Tensor:
        return x.repeat(1, self.groups, 1, 1)


MANY_HEADS = Exercise(
    name="heads",
    title="Many heads: split the channels, attend in each part, put them together again.",
    reference=attention.CausalSelfAttention,
    write=("forward", "split_heads"),
    cases=lambda: [
        (numbers(1, 1, 8), 2, 2, "plain"), (numbers(1, 3, 8), 2, 2, "plain"),
        (numbers(2, 5, 8, seed=1), 2, 2, "plain"), (numbers(2, 4, 8, seed=2), 4, 2, "plain"),
        *((numbers(1, 4, 8, seed=3), 2, 2, way) for way in WAYS_OF_ATTENDING),
    ],
    drive=drive_heads,
    describe=lambda x, heads, kv_heads, way: (
        f"{heads} heads, {kv_heads} of keys, reading x of shape {tuple(x.shape)}"
        + WAYS_OF_ATTENDING[way]
    ),
    lesson=5,
    mistakes=[
        Mistake(
            "merged-without-transpose",
            "The heads are put together in the wrong order: (B, nh, T, hs) was reshaped as it "
            "lies in memory, so tokens are mixed with heads. Swap heads and tokens first.",
            MergedWrongly,
        ),
        Mistake(
            "merged-in-turns",
            "The heads are put together channel by channel in turns. Each head's channels stay "
            "side by side.",
            MergedInTurns,
        ),
        Mistake(
            "view-for-transpose",
            "The channels were reshaped to (B, nh, T, hs) at once, which cuts the memory in the "
            "wrong places. Cut the channels into (nh, hs) first, then swap heads and tokens.",
            ViewForTranspose,
        ),
        Mistake(
            "split-in-turns",
            "Channels go to the heads in turns. The first hs channels are the first head's.",
            SplitInTurns,
        ),
        Mistake(
            "keys-first",
            "c_attn gives queries, keys, values in this order; queries and keys are swapped.",
            KeysFirst,
        ),
        Mistake(
            "values-second",
            "c_attn gives queries, keys, values in this order; keys and values are swapped.",
            ValuesSecond,
        ),
        Mistake(
            "not-projected", "c_proj is missing: it lets the heads' results mix.", NotProjected
        ),
        Mistake(
            "residual-inside", "x is added here. The block does that, outside.", ResidualInside
        ),
        Mistake(
            "groups-in-turns",
            "With fewer key heads, each serves a group of neighbouring query heads; here they are "
            "repeated in turns. Use repeat_interleave.",
            RepeatedInTurns,
        ),
        Mistake(
            "not-turned",
            "Queries and keys are not turned: order.rotate(q, k, pos) is where position encodings "
            "such as RoPE do their work.",
            NotTurned,
        ),
        Mistake(
            "not-remembered",
            "The cache is not used. If there is a `remember`, it takes the new keys and values "
            "and gives those of all tokens so far.",
            NotRemembered,
        ),
        Mistake(
            "bias-ignored",
            "The bias is not used: it says what else is hidden, and which scores to change.",
            SeesEverything,
        ),
        Mistake(
            "qk-norm-ignored", "With qk_norm, queries and keys are brought to one size.", NotSized
        ),
    ],
    hints=(
        "c_attn gives queries, keys and values side by side. Cut them apart, then cut each into "
        "heads: (B, T, C) becomes (B, nh, T, hs).",
        "unflatten the channels into (nh, hs), and swap the axes of tokens and heads. Turn, "
        "remember and repeat as the docstring says, then attend.",
        "Behind attention, the way back: transpose(1, 2), flatten(2), c_proj.",
    ),
)  # fmt: skip


ROWS_DIFFER = -1  # in a list of parts: each row has positions of its own
ANEW = 0  # in a list of parts: the cache is emptied, as it is when a text outgrows the context


def drive_cache(cls: type[KVCache], *sizes: int) -> list[Tensor]:
    """Append parts of so many tokens to both layers, as a model does; keep what comes back."""
    cache = cls(TINY, 2, torch.device("cpu"), torch.float32)
    for memory in (cache.keys, cache.values, cache.pos):
        memory.zero_()  # whoever reads too far should read the same every time
    found: list[Tensor] = []
    for number, size in enumerate(sizes):
        if size == ANEW:
            cache.length = 0
            continue
        pos = 3 * torch.arange(size) + 5 * cache.length  # whatever they are, they are kept
        if ROWS_DIFFER in sizes:
            pos = torch.stack([pos, pos + 1])
        if size == ROWS_DIFFER:
            continue
        found.append(cache.positions(pos).clone())
        for layer in range(TINY.n_layer):
            k = numbers(2, HEADS, size, SIZE, seed=10 * number + layer)
            keys, values = cache.append(layer, k, -k)
            found += [keys.clone(), values.clone()]
        cache.length += size
    return found


class Stale(KVCache):
    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        self.keys[layer, :, :, : k.shape[2]] = k
        self.values[layer, :, :, : k.shape[2]] = v
        end = self.length + k.shape[2]
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]


class OnlyNew(KVCache):
    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        super().append(layer, k, v)
        return k, v


class OnlyOld(KVCache):
    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        super().append(layer, k, v)
        end = self.length
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]


class EverythingGiven(KVCache):
    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        super().append(layer, k, v)
        return self.keys[layer], self.values[layer]


class OneLayer(KVCache):
    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return super().append(0, k, v)


class Swapped(KVCache):
    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        keys, values = super().append(layer, k, v)
        return values, keys


class CountsEveryLayer(KVCache):
    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        found = super().append(layer, k, v)
        self.length += k.shape[2]
        return found


class StalePositions(KVCache):
    def positions(self, pos: Tensor) -> Tensor:
        super().positions(pos)
        return pos


class NeverAnew(KVCache):
    """Keeps everything it was ever given."""

    def __init__(self, *how: Any) -> None:
        super().__init__(*how)
        self.kept: dict[Any, Tensor] = {}

    def behind(self, key: Any, x: Tensor, dim: int) -> Tensor:
        self.kept[key] = torch.cat([self.kept[key], x], dim) if key in self.kept else x
        return self.kept[key]

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return self.behind(("k", layer), k, 2), self.behind(("v", layer), v, 2)

    def positions(self, pos: Tensor) -> Tensor:
        return self.behind("pos", pos, -1)


CACHE = Exercise(
    name="cache",
    title="Keep keys and values, so that a new token need not read the old ones again.",
    reference=KVCache,
    write=("append", "positions"),
    cases=lambda: [(1,), (3,), (1, 1), (3, 1), (2, 3, 1), (3, 1, ANEW, 2, 1), (2, 1, ROWS_DIFFER)],
    drive=drive_cache,
    describe=lambda *sizes: (
        f"parts of {', '.join(str(n) for n in sizes if n >= 0)} tokens, 0 for begun anew with "
        f"length=0{', positions by row' if ROWS_DIFFER in sizes else ''}: positions, then keys and "
        "values by layer"
    ),
    lesson=7,
    mistakes=[
        Mistake(
            "stale-place",
            "New keys are written over the first ones. They belong behind the `length` tokens that "
            "have been read.",
            Stale,
        ),
        Mistake(
            "only-new", "It gives back the new keys alone. Attention needs those of all so far.",
            OnlyNew,
        ),
        Mistake(
            "only-old",
            "It gives back the old keys alone. A token sees itself, so the new ones are needed, "
            "too: up to length + T.",
            OnlyOld,
        ),
        Mistake(
            "all-memory",
            "It gives back the memory of the whole context; what lies behind the new tokens is "
            "nothing yet. Cut it at length + T.",
            EverythingGiven,
        ),
        Mistake("one-layer", "All layers share one place. Each has keys of its own.", OneLayer),
        Mistake("swapped", "Keys and values are swapped in what it gives back.", Swapped),
        Mistake(
            "counts-every-layer",
            "The length grows with every layer. All layers read the same tokens: the model moves "
            "the length on, once, when they are through.",
            CountsEveryLayer,
        ),
        Mistake(
            "never-anew",
            "It keeps what was there before the length went back to 0. That is how a cache is "
            "emptied: only the first `length` tokens count.",
            NeverAnew,
        ),
        Mistake(
            "stale-positions", "`positions` gives back the new positions alone, not those of all.",
            StalePositions,
        ),
    ],
    hints=(
        "The memory is there already: self.keys has a place for every layer, row, head and token.",
        "New tokens go to the places from self.length on; what is given back ends behind them.",
        "end = self.length + k.shape[2]; write into [layer, :, :, self.length:end], give back "
        "[layer, :, :, :end]. The same for values, and for positions.",
    ),
)  # fmt: skip


def turn_cases() -> list[tuple[Any, ...]]:
    quarter = (torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0]))
    angles = torch.arange(3)[:, None] * torch.tensor([1.0, 0.1])
    return [
        (torch.tensor([1.0, 0.0, 0.0, 0.0]).view(1, 1, 1, 4), *quarter),
        (torch.tensor([1.0, 5.0, 2.0, 7.0]).view(1, 1, 1, 4), *quarter),
        (numbers(2, 2, 3, 4), angles.cos(), angles.sin()),
    ]


def turn_neighbours(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x[..., ::2], x[..., 1::2]
    return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2)


def turn_with(first: Any, second: Any) -> Any:
    """A rotation with other formulas for its two halves."""

    def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        a, b = x.chunk(2, dim=-1)
        return torch.cat([first(a, b, cos, sin), second(a, b, cos, sin)], dim=-1)

    return turned


ROTATION = Exercise(
    name="rope",
    title="Rotary positions: turn pairs of channels.",
    reference=position.turn,
    cases=turn_cases,
    lesson=10,
    mistakes=[
        Mistake(
            "neighbours",
            "It pairs neighbouring channels. Here channel i goes with i + hs / 2; either works, "
            "but weights trained with one are lost on the other.",
            turn_neighbours,
        ),
        Mistake(
            "backwards", "It turns the other way round: the signs of sin are swapped.",
            turn_with(
                lambda a, b, cos, sin: a * cos + b * sin, lambda a, b, cos, sin: b * cos - a * sin
            ),
        ),
        Mistake(
            "not-a-rotation",
            "The second half has the sign of the first, so lengths change. A rotation is "
            "a cos - b sin and a sin + b cos.",
            turn_with(
                lambda a, b, cos, sin: a * cos - b * sin, lambda a, b, cos, sin: a * sin - b * cos
            ),
        ),
        Mistake(
            "both-plus", "Both signs are plus. One of them is minus: a cos - b sin.",
            turn_with(
                lambda a, b, cos, sin: a * cos + b * sin, lambda a, b, cos, sin: a * sin + b * cos
            ),
        ),
        Mistake(
            "halves-swapped", "The two halves of the result are swapped.",
            turn_with(
                lambda a, b, cos, sin: a * sin + b * cos, lambda a, b, cos, sin: a * cos - b * sin
            ),
        ),
        Mistake(
            "half-turned", "Only the first half is turned; the second stays as it was.",
            turn_with(lambda a, b, cos, sin: a * cos - b * sin, lambda a, b, cos, sin: b),
        ),
        Mistake(
            "sin-and-cos-swapped", "sin and cos are swapped: an angle of 0 should change nothing.",
            turn_with(
                lambda a, b, cos, sin: a * sin - b * cos, lambda a, b, cos, sin: a * cos + b * sin
            ),
        ),
    ],
    hints=(
        "Each pair of channels is a point in the plane. Turn it by its angle.",
        "Cut x into two halves: a holds the first of every pair, b the second.",
        "a becomes a cos - b sin, b becomes a sin + b cos; put the halves side by side again.",
    ),
)  # fmt: skip


WAYS_OF_READING = {
    "whole": "reading the ids {}",
    "cache": "reading the ids {} with a cache, two at a time",
    "documents": "reading the ids {}; in the first row one of filling, then two documents",
    "documents, cache": "the same with a cache, two at a time: {}",
    "alibi": "reading the ids {} with ALiBi, which adds to the scores",
}


def drive_gpt(cls: type[gpt.GPT], change: str, *ids: list[int]) -> list[Tensor]:
    """Read rows of ids, all at once or in parts with a cache."""
    torch.manual_seed(0)
    network = cls(replace(TINY, position="alibi") if change == "alibi" else TINY).eval()
    rows = torch.tensor(ids)
    # Filling, then two documents; the other rows are a single document.
    mask = torch.ones_like(rows)
    mask[0] = torch.tensor([0, *[1] * 2, *[2] * (rows.shape[1] - 3)])[: rows.shape[1]]
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        if change == "documents":
            return [network.read(rows, mask)]
        if "cache" not in change:
            return [network.read(rows)]
        cache = KVCache(network.config, len(rows), network.device, network.dtype)
        for memory in (cache.keys, cache.values, cache.pos):
            memory.zero_()
        found, end = [], 0
        for part in rows.split(2, dim=1):
            end += part.shape[1]
            seen = mask[:, :end] if "documents" in change else None
            found.append(network.read(part, seen, cache))
        return [*found, torch.tensor(cache.length), cache.keys]


class OtherGPT(gpt.GPT):
    """GPT-2's reading whose parts can be done differently."""

    def start(self, ids: Tensor, pos: Tensor) -> Tensor:
        return self.wpe.embed(self.wte(ids), pos)

    def end(self, x: Tensor) -> Tensor:
        return self.ln_f(x)

    def blocks(self) -> Any:
        return enumerate(self.h)

    def where(self, ids: Tensor, mask: Tensor | None, length: int) -> Tensor:
        return gpt.positions(ids, mask, length)

    def hidden(self, pos: Tensor, mask: Tensor | None, cache: Any) -> Tensor | None:
        return self.attention_bias(pos, mask, cache)

    def move_on(self, cache: Any, length: int) -> None:
        cache.length = length

    def read(
        self, ids: Tensor, attention_mask: Tensor | None = None, cache: Any | None = None
    ) -> Tensor:
        length = ids.shape[1] + (cache.length if cache else 0)
        pos = self.where(ids, attention_mask, length)
        bias = self.hidden(pos, attention_mask, cache)
        x = self.start(ids, pos)
        for number, block in self.blocks():
            remember = (lambda k, v, n=number: cache.append(n, k, v)) if cache else None
            x = block(x, self.wpe, pos, bias, remember)
        if cache:
            self.move_on(cache, length)
        return self.end(x)


class NoPositions(OtherGPT):
    def start(self, ids: Tensor, pos: Tensor) -> Tensor:
        return self.wte(ids)


class NoFinalNorm(OtherGPT):
    def end(self, x: Tensor) -> Tensor:
        return x


class BlocksBackwards(OtherGPT):
    def blocks(self) -> Any:
        return reversed(list(enumerate(self.h)))


class FirstBlockOnly(OtherGPT):
    def blocks(self) -> Any:
        return ((number, self.h[0]) for number, _ in enumerate(self.h))


class CountsFromZero(OtherGPT):
    def where(self, ids: Tensor, mask: Tensor | None, length: int) -> Tensor:
        return torch.arange(ids.shape[1])


class CountsThroughDocuments(OtherGPT):
    def where(self, ids: Tensor, mask: Tensor | None, length: int) -> Tensor:
        return gpt.positions(ids, None, length)


class MaskIgnored(OtherGPT):
    def hidden(self, pos: Tensor, mask: Tensor | None, cache: Any) -> Tensor | None:
        return self.attention_bias(pos if pos.ndim == 1 else pos[0], None, cache)


class NeverMovesOn(OtherGPT):
    def move_on(self, cache: Any, length: int) -> None:
        pass


class NoBiasAtAll(OtherGPT):
    def hidden(self, pos: Tensor, mask: Tensor | None, cache: Any) -> Tensor | None:
        super().hidden(pos, mask, cache)
        return None


class CacheNotUsed(OtherGPT):
    def read(
        self, ids: Tensor, attention_mask: Tensor | None = None, cache: Any | None = None
    ) -> Tensor:
        mask = attention_mask[:, -ids.shape[1] :] if attention_mask is not None else None
        return super().read(ids, mask, None)


class BiasIgnored(OtherGPT):
    def hidden(self, pos: Tensor, mask: Tensor | None, cache: Any) -> Tensor | None:
        found = super().hidden(pos, mask, cache)
        return found if mask is not None else None


GPT = Exercise(
    name="gpt",
    title="GPT-2's way from ids to what the head compares with every token.",
    reference=gpt.GPT,
    write=("read",),
    cases=lambda: [
        ("whole", [3]), ("whole", [3, 1, 4]), ("whole", [3, 1, 4, 1, 5], [9, 2, 6, 5, 3]),
        ("cache", [3, 1, 4, 1, 5]), ("documents", [3, 1, 4, 1, 5], [2, 7, 1, 8, 2]),
        ("documents, cache", [3, 1, 4, 1, 5], [2, 7, 1, 8, 2]), ("alibi", [3, 1, 4, 1, 5]),
    ],
    drive=drive_gpt,
    describe=lambda change, *ids: WAYS_OF_READING[change].format(ids),
    lesson=6,
    mistakes=[
        Mistake(
            "no-positions", "The positions are not embedded: the order of tokens is lost.",
            NoPositions,
        ),
        Mistake(
            "no-final-norm",
            "The final norm, ln_f, is missing: without it the stream is read at whatever size it "
            "has grown to.",
            NoFinalNorm,
        ),
        Mistake("blocks-backwards", "The blocks run from the last to the first.", BlocksBackwards),
        Mistake("one-block", "The first block runs every time. Go through self.h.", FirstBlockOnly),
        Mistake(
            "positions-from-zero",
            "Positions are counted from 0 in every part and across documents. With a cache the "
            "ids continue a text; `positions(ids, attention_mask, length)` knows.",
            CountsFromZero,
        ),
        Mistake(
            "positions-across-documents",
            "Positions go on counting into the next document of a row. Give the mask to "
            "`positions`: each document is counted from 0.",
            CountsThroughDocuments,
        ),
        Mistake(
            "mask-ignored", "Tokens see other documents of their row: the mask is not given to "
            "`attention_bias`.",
            MaskIgnored,
        ),
        Mistake(
            "cache-stands-still",
            "The cache's length does not move on, so the next part overwrites this one.",
            NeverMovesOn,
        ),
        Mistake(
            "cache-not-used",
            "The cache is not used: the blocks get no `remember`, and every part is read as if "
            "nothing had come before it.",
            CacheNotUsed,
        ),
        Mistake(
            "no-bias-at-all",
            "What `attention_bias` gives is not handed to the blocks: masks and encodings that "
            "work on scores do nothing.",
            NoBiasAtAll,
        ),
        Mistake(
            "bias-ignored",
            "What `attention_bias` gives is not handed to the blocks, so position encodings that "
            "work on scores do nothing.",
            BiasIgnored,
        ),
    ],
    hints=(
        "Embed tokens and positions, send them through the blocks, norm the result.",
        "`positions` and `attention_bias` say where the tokens stand and what they may see; every "
        "block gets x, self.wpe, the positions, the bias, and how to remember.",
        "For block number n, remember is `partial(cache.append, n)`, or None without a cache. "
        "Behind the blocks, set cache.length, and return self.ln_f(x).",
    ),
)  # fmt: skip
