"""Exercises about the KV cache, and about the GPT-2 that uses it."""

import math
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nanogpt.errors import UserError
from nanogpt.learn.answers import Answer, with_gradients
from nanogpt.learn.exercise import Exercise, Mistake
from nanogpt.learn.exercises.known import known, numbers, prepared, shaken
from nanogpt.learn.exercises.network import TINY
from nanogpt.learn.exercises.tasks import TASKS
from nanogpt.model import gpt
from nanogpt.model.attention import AttentionContext
from nanogpt.model.cache import KVCache

HEADS, SIZE = 2, 4  # of the model TINY


def empty_cache(config: Any, rows: int, cls: type[KVCache] = KVCache) -> KVCache:
    """A cache whose memory is zero: a candidate that reads too far gets the same every time."""
    cache = cls(config, rows, torch.device("cpu"), torch.float32)
    for memory in (cache.keys, cache.values, cache.pos):
        memory.zero_()
    return cache


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


def cache_with(**parts: Any) -> type[KVCache]:
    """A cache with some methods done differently."""
    return type("KVCache", (KVCache,), parts)


def update_with(
    start: Any = lambda self, k: self.length,
    end: Any = lambda self, k: self.length + k.shape[2],
    stored: Any = lambda k, v: (k, v),
    layer_of: Any = lambda layer: layer,
    until: Any = None,
) -> type[KVCache]:
    """An `update` that does one thing differently."""

    def update(self: KVCache, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        first, last, at = start(self, k), end(self, k), layer_of(layer)
        self.keys[at, :, :, first:last], self.values[at, :, :, first:last] = stored(k, v)
        cut = until(self, k) if until else last
        return self.keys[at, :, :, :cut], self.values[at, :, :, :cut]

    return cache_with(update=update)


def advance_with(
    pos_of: Any = lambda self, pos: pos,
    length: Any = lambda self, pos: self.length + pos.shape[1],
    start: Any = lambda self, pos: self.length,
) -> type[KVCache]:
    """An `advance` that does one thing differently."""

    def advance(self: KVCache, pos: Tensor) -> None:
        first = start(self, pos)
        self.pos[:, first : first + pos.shape[1]] = pos_of(self, pos)
        self.length = length(self, pos)

    return cache_with(advance=advance)


def update_one_token(self: KVCache, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """As if tokens came one by one."""
    self.keys[layer, :, :, self.length] = k[:, :, -1]
    self.values[layer, :, :, self.length] = v[:, :, -1]
    end = self.length + k.shape[2]
    return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]


def update_at_the_end(self: KVCache, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """The last token goes to its place, the others nowhere."""
    end = self.length + k.shape[2]
    self.keys[layer, :, :, end - 1], self.values[layer, :, :, end - 1] = k[:, :, -1], v[:, :, -1]
    return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]


def update_in_front(self: KVCache, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    keys, values = KVCache.update(self, layer, k, v)
    old = self.length
    return (torch.cat([k, keys[:, :, :old]], 2), torch.cat([v, values[:, :, :old]], 2))


def update_returning(choose: Any) -> type[KVCache]:
    """Stores everything rightly and gives something else."""
    return cache_with(
        update=lambda self, layer, k, v: choose(*KVCache.update(self, layer, k, v), k, v)
    )


class CountsTheLastLayer(KVCache):
    """The last layer counts the tokens, and advance counts them again."""

    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        found = super().update(layer, k, v)
        self.length += k.shape[2] if layer == len(self.keys) - 1 else 0
        return found


class CountsTwice(KVCache):
    """Every layer counts the tokens, and advance counts them again."""

    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        found = super().update(layer, k, v)
        self.length += k.shape[2]
        return found


def update_everywhere(keys: bool, values: bool) -> type[KVCache]:
    """Stores keys or values in all layers at once."""

    def update(self: KVCache, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        start, end = self.length, self.length + k.shape[2]
        self.keys[slice(None) if keys else layer, :, :, start:end] = k
        self.values[slice(None) if values else layer, :, :, start:end] = v
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]

    return cache_with(update=update)


CACHE = Exercise(
    name="cache",
    title="The KV cache: store keys and values, so that old tokens are not computed again.",
    task=TASKS["cache"],
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
        known(
            "counted-in-update",
            "update counts the new tokens, and advance counts them again. update leaves "
            "self.length as it is; advance alone adds to it.",
            CountsTheLastLayer,
            CountsTwice,
        ),
        known(
            "all-layers-at-once",
            "Keys or values are stored in all layers at once: the index of the layer is missing "
            "in self.keys[layer, ...] or self.values[layer, ...].",
            update_everywhere(False, True),
            update_everywhere(True, False),
        ),
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
        known(
            "keys-as-values", "The keys are stored as values, too.",
            update_with(stored=lambda k, v: (k, k)),
            update_with(stored=lambda k, v: (v, v)),
            update_returning(lambda keys, values, k, v: (keys, keys)),
        ),
        known(
            "swapped", "`update` gives keys and values in the wrong order.",
            update_with(stored=lambda k, v: (v, k)),
        ),
        known(
            "stale-place",
            "New keys overwrite the first ones. They belong after the `length` tokens that are in "
            "the cache.",
            update_with(start=lambda self, k: 0, end=lambda self, k: k.shape[2],
                        until=lambda self, k: self.length + k.shape[2]),
        ),
        known(
            "one-place-off", "New keys are off by one place: the first one goes to self.length.",
            update_with(start=lambda self, k: self.length + 1,
                        end=lambda self, k: self.length + 1 + k.shape[2]),
            update_with(until=lambda self, k: self.length + k.shape[2] - 1),
            update_with(until=lambda self, k: self.length + k.shape[2] + 1),
        ),
        known(
            "last-token-alone",
            "Only the last of the new tokens is stored. A part may have several: store all T.",
            cache_with(update=update_one_token),
            cache_with(update=update_at_the_end),
        ),
        known(
            "new-tokens-in-front", "New keys come before the old ones. They come after them.",
            cache_with(update=update_in_front),
        ),
        known(
            "another-axis-counted",
            "The new tokens are counted on the wrong axis. k is (B, nkv, T, hs): T is k.shape[2].",
            update_with(end=lambda self, k: self.length + k.shape[1]),
            update_with(end=lambda self, k: self.length + k.shape[0]),
            update_with(end=lambda self, k: self.length + k.shape[3]),
            update_with(until=lambda self, k: self.length + k.shape[1]),
            cache_with(update=lambda self, layer, k, v: (
                self.keys[layer, :, :, : self.length + k.shape[1]].copy_(k),
                KVCache.update(self, layer, k, v))[1]),
        ),
        known(
            "one-layer",
            "All layers use the same memory. Each layer has keys and values of its own.",
            update_with(layer_of=lambda layer: -1),
        ),
        known(
            "one-row", "Only the first row of the batch is stored or given.",
            update_returning(lambda keys, values, k, v: (keys[:1], values[:1])),
        ),
        known(
            "nothing-given", "`update` gives nothing: a return is missing.",
            update_returning(lambda keys, values, k, v: None),
        ),
        known(
            "only-keys-given", "`update` gives the keys alone. Give both: keys, values.",
            update_returning(lambda keys, values, k, v: keys),
        ),
        known(
            "one-of-both-new",
            "`update` gives all keys, but the new values alone, or the other way round.",
            update_returning(lambda keys, values, k, v: (keys, v)),
            update_returning(lambda keys, values, k, v: (k, values)),
        ),
        known(
            "rows-not-expanded",
            "pos may be (1, T), one row for all. Expand it to the rows of the cache before you "
            "join it with the old ones.",
            cache_with(key_positions=lambda self, pos: torch.cat(
                [self.pos[:, : self.length], pos], dim=1)),
        ),
        known(
            "one-row-of-positions",
            "`key_positions` gives one row. The rows may differ: give (B, S).",
            cache_with(key_positions=lambda self, pos: KVCache.key_positions(self, pos)[:1]),
            cache_with(key_positions=lambda self, pos: torch.cat(
                [self.pos[:1, : self.length], pos], dim=1)),
        ),
        known(
            "only-old-positions",
            "`key_positions` gives the old positions alone. The new tokens are keys, too.",
            cache_with(key_positions=lambda self, pos: self.pos[:, : self.length]),
        ),
        known(
            "all-places", "`key_positions` gives the whole memory. Cut it at the keys there are.",
            cache_with(key_positions=lambda self, pos: self.pos),
        ),
        known(
            "counted-positions",
            "The positions are counted, not stored: they differ from the places in the cache, for "
            "example with documents. Store `pos`.",
            advance_with(lambda self, pos: torch.arange(
                self.length, self.length + pos.shape[1]).expand(len(self.pos), -1)),
            cache_with(key_positions=lambda self, pos: torch.arange(
                self.length + pos.shape[1]).expand(len(self.pos), -1)),
            advance_with(lambda self, pos: torch.arange(pos.shape[1]).expand(len(self.pos), -1)),
        ),
        known(
            "positions-in-front", "The new positions come before the old ones.",
            cache_with(key_positions=lambda self, pos: torch.cat(
                [pos.expand(len(self.pos), -1), self.pos[:, : self.length]], dim=1)),
        ),
        known(
            "first-row-of-positions",
            "The positions of the first row are stored for all rows. They may differ.",
            advance_with(lambda self, pos: pos[:1]),
            cache_with(key_positions=lambda self, pos: KVCache.key_positions(self, pos[:1])),
        ),
        known(
            "length-replaced",
            "The length is set to the number of new tokens. Add it: they come after the old ones.",
            advance_with(length=lambda self, pos: pos.shape[1]),
        ),
        known(
            "length-of-another-axis",
            "The length grows by the wrong number. pos is (B, T): T is pos.shape[1].",
            advance_with(length=lambda self, pos: self.length + pos.shape[0]),
            advance_with(length=lambda self, pos: self.length + 1),
            advance_with(length=lambda self, pos: self.length + pos.numel()),
            advance_with(length=lambda self, pos: self.length + len(self.pos)),
        ),
        known(
            "length-from-positions",
            "The length is taken from the positions. They differ from the places in the cache: add "
            "the number of new tokens, pos.shape[1].",
            advance_with(length=lambda self, pos: int(pos.max()) + 1),
            advance_with(length=lambda self, pos: int(pos[0, -1]) + 1),
        ),
        known(
            "positions-in-the-first-places",
            "The positions of new tokens overwrite the first ones. Write them from self.length on.",
            advance_with(start=lambda self, pos: 0),
        ),
        known(
            "length-before-the-positions",
            "The length grows before the positions are written, so they land after the new "
            "tokens. Write first, then set the length.",
            advance_with(start=lambda self, pos: min(
                self.length + pos.shape[1], self.pos.shape[1] - pos.shape[1])),
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


WAYS_OF_READING = {
    "whole": "the ids {}",
    "cache": "the ids {} with a cache, two at a time",
    "documents": "the ids {}; the first row holds one token of padding, then two documents",
    "documents, cache": "the same with a cache, two at a time: {}",
    "alibi": "the ids {} with ALiBi, which adds to the scores",
    "training": "the ids {} in training, where the dropout of the embeddings is 1",
    "flat": "ids of one axis, {}",
}

SHAKEN = shaken(0.3)


def drive_gpt(cls: type[gpt.GPT], way: str, *ids: list[int]) -> Answer | list[Tensor]:
    """The hidden states of rows of ids, all at once or in parts with a cache.

    Dropout of the embeddings is 1, which shows in evaluation if it is not switched off.
    """
    config = replace(TINY, position="alibi") if way == "alibi" else TINY
    network = prepared(cls, gpt.GPT, config, SHAKEN)
    network.train(way == "training").drop.p = 1.0
    rows = torch.tensor(ids[0] if way == "flat" else ids)
    documents = None
    if "documents" in way:  # padding, then two documents; the other rows are one document
        documents = torch.ones_like(rows)
        documents[0] = torch.tensor([0, 1, 1, *[2] * (rows.shape[1] - 3)])
    if "cache" not in way:
        return with_gradients(lambda: network.hidden_states(rows, documents=documents), {}, network)
    with torch.no_grad():
        cache = empty_cache(network.config, len(rows))
        found, end = [], 0
        for part in rows.split(2, dim=1):
            end += part.shape[1]
            seen = None if documents is None else documents[:, :end]
            found.append(network.hidden_states(part, documents=seen, cache=cache))
        length = cache.length
        return [*found, torch.tensor(length), cache.keys, cache.pos[:, :length]]


class OtherGPT(gpt.GPT):
    """A GPT-2 whose forward pass can be done differently, part by part."""

    def hidden_states(
        self, ids: Tensor, *, documents: Tensor | None = None, cache: KVCache | None = None
    ) -> Tensor:
        self.check(ids)
        context = self.seen(ids, documents, cache)
        x = self.dropped(self.embedded(ids, context))
        for layer, block in self.blocks():
            x = block(x, self.of_layer(context, layer))
        if cache:
            self.finish(cache, context)
        return self.normed(x)

    def check(self, ids: Tensor) -> None:
        if ids.ndim != 2:
            raise UserError("use (B, T)")

    def seen(self, ids: Tensor, documents: Any, cache: Any) -> AttentionContext:
        return self.context(ids, documents, cache)

    def embedded(self, ids: Tensor, context: AttentionContext) -> Tensor:
        return self.wpe.embed(self.wte(ids), context.pos)

    def dropped(self, x: Tensor) -> Tensor:
        result: Tensor = self.drop(x)
        return result

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


class NotDropped(OtherGPT):
    def dropped(self, x: Tensor) -> Tensor:
        return x


class AlwaysDropped(OtherGPT):
    def dropped(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.drop.p)


class NoFinalNorm(OtherGPT):
    def normed(self, x: Tensor) -> Tensor:
        return x


def gpt_as(**parts: Any) -> type[OtherGPT]:
    """A GPT-2 with some parts done differently."""
    return type("GPT", (OtherGPT,), parts)


class Between(OtherGPT):
    """Something happens around each block."""

    def around(self, block: Any, x: Tensor, context: AttentionContext) -> Tensor:
        result: Tensor = block(x, context)
        return result

    def hidden_states(
        self, ids: Tensor, *, documents: Tensor | None = None, cache: KVCache | None = None
    ) -> Tensor:
        self.check(ids)
        context = self.seen(ids, documents, cache)
        x = self.dropped(self.embedded(ids, context))
        for layer, block in self.blocks():
            x = self.around(block, x, self.of_layer(context, layer))
        if cache:
            self.finish(cache, context)
        return self.normed(x)


def around(each: Any, **parts: Any) -> type[Between]:
    return type("GPT", (Between,), {"around": each, **parts})


def unnormed(self: Any, x: Tensor) -> Tensor:
    return x


class EmbeddingsEachTime(Between):
    start: Tensor

    def around(self, block: Any, x: Tensor, context: AttentionContext) -> Tensor:
        first = context.layer == 0
        self.start = x if first else self.start
        result: Tensor = block(self.start, context)
        return result


class FlatIds(gpt.GPT):
    """Ids of one row are accepted without the axis of the batch."""

    def hidden_states(
        self, ids: Tensor, *, documents: Tensor | None = None, cache: KVCache | None = None
    ) -> Tensor:
        ids = ids if ids.ndim == 2 else ids[None]
        return super().hidden_states(ids, documents=documents, cache=cache)


def assert_two_axes(ids: Tensor) -> None:
    if ids.ndim != 2:
        raise ValueError("use (B, T)")


class UncheckedIds(OtherGPT):
    """Whatever error comes up for ids that are not (B, T)."""

    def check(self, ids: Tensor) -> None:
        pass


GPT_CACHED = Exercise(
    name="gpt-cached",
    title="The forward pass of GPT-2, from ids to hidden states.",
    task=TASKS["gpt-cached"],
    reference=gpt.GPT,
    write=("hidden_states",),
    cases=lambda: [
        ("whole", [3]), ("whole", [3, 1, 4]), ("whole", [3, 1, 4, 1, 5], [9, 2, 6, 5, 3]),
        ("cache", [3, 1, 4, 1, 5]), ("documents", [3, 1, 4, 1, 5], [2, 7, 1, 8, 2]),
        ("documents, cache", [3, 1, 4, 1, 5], [2, 7, 1, 8, 2]), ("alibi", [3, 1, 4, 1, 5]),
        ("training", [3, 1, 4]), ("whole", [*range(8)]), ("whole", [*range(9)]),  # one too many
        ("cache", [*range(8)]), ("cache", [*range(9)]), ("flat", [3, 1, 4]),
        ("cache", [3, 1]),
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
        Mistake(
            "no-dropout",
            "self.drop is not used: in training it follows the embeddings.", NotDropped,
        ),
        Mistake(
            "dropout-in-evaluation",
            "Dropout stays on in evaluation. self.drop knows whether the model is in training; "
            "F.dropout has to be told: training=self.training.",
            AlwaysDropped,
        ),
        known(
            "embeddings-scaled",
            "The token embeddings are multiplied by sqrt(C), as in the first Transformer of 2017. "
            "GPT-2 does not do that.",
            gpt_as(embedded=lambda s, ids, c: s.wpe.embed(
                s.wte(ids) * math.sqrt(s.config.n_embd), c.pos)),
            gpt_as(embedded=lambda s, ids, c: s.wpe.embed(s.wte(ids), c.pos) * math.sqrt(
                s.config.n_embd)),
        ),
        known(
            "positions-from-one", "Positions start at 1. Use context.pos as it is.",
            gpt_as(embedded=lambda s, ids, c: s.wpe.embed(s.wte(ids), c.pos + 1)),
        ),
        known(
            "positions-twice", "The positions are added more than once.",
            gpt_as(embedded=lambda s, ids, c: s.wpe.embed(s.wpe.embed(s.wte(ids), c.pos), c.pos)),
            around(lambda s, block, x, c: block(s.wpe.embed(x, c.pos), c)),
        ),
        known(
            "tokens-forgotten", "The tokens are not embedded: these are the positions alone.",
            gpt_as(embedded=lambda s, ids, c: s.wpe.embed(0 * s.wte(ids), c.pos)),
        ),
        known(
            "last-block-left-out", "The last block does not run.",
            gpt_as(blocks=lambda s: list(enumerate(s.h))[:-1]),
        ),
        known(
            "first-block-left-out", "The first block does not run.",
            gpt_as(blocks=lambda s: list(enumerate(s.h))[1:]),
        ),
        known(
            "blocks-ignored",
            "The blocks are not used, or their results are thrown away: write x = block(...).",
            around(lambda s, block, x, c: (block(x, c), x)[1]),
            around(lambda s, block, x, c: x),
        ),
        known(
            "blocks-from-the-embedding",
            "Every block gets the embeddings. Each block gets the result of the one before it.",
            EmbeddingsEachTime,
        ),
        known(
            "residual-outside",
            "x is added to the result of each block. The residual connections are inside the "
            "blocks already.",
            around(lambda s, block, x, c: x + block(x, c)),
        ),
        known(
            "norm-in-the-loop",
            "ln_f is applied in each round of the loop. It comes once, after the last block.",
            around(lambda s, block, x, c: s.ln_f(block(x, c)), normed=unnormed),
            around(lambda s, block, x, c: s.ln_f(block(x, c))),
            around(lambda s, block, x, c: block(s.ln_f(x), c)),
            around(lambda s, block, x, c: block(s.ln_f(x), c), normed=unnormed),
        ),
        known(
            "norm-before-the-blocks", "ln_f is applied to the embeddings. It comes after the last "
            "block.",
            gpt_as(dropped=lambda s, x: s.ln_f(s.drop(x)), normed=unnormed),
        ),
        known(
            "norm-twice", "ln_f is applied twice.",
            gpt_as(normed=lambda s, x: s.ln_f(s.ln_f(x))),
        ),
        known(
            "logits",
            "These are logits. hidden_states ends before the head: give ln_f(x), (B, T, C).",
            gpt_as(normed=lambda s, x: s.head(s.ln_f(x))),
            gpt_as(normed=lambda s, x: s.ln_f(x) @ s.wte.weight.T),
        ),
        known(
            "last-token-alone", "Only the last token has hidden states. Give all, (B, T, C).",
            gpt_as(normed=lambda s, x: s.ln_f(x[:, -1:])),
            gpt_as(normed=lambda s, x: s.ln_f(x)[:, -1]),
        ),
        known(
            "layer-not-given",
            "All blocks use the cache of one layer. Tell each block its number: "
            "replace(context, layer=layer).",
            gpt_as(of_layer=lambda s, c, layer: replace(c, layer=len(s.h) - 1)),
        ),
        known(
            "layers-from-one",
            "The layers are counted from 1. The cache counts them from 0.",
            gpt_as(of_layer=lambda s, c, layer: replace(c, layer=layer + 1)),
        ),
        known(
            "advanced-before",
            "The cache advances before the blocks have run, so their keys land after an empty "
            "place. Advance after the last block.",
            gpt_as(dropped=lambda s, x: s.drop(x), seen=lambda s, ids, d, cache: (
                c := gpt.GPT.context(s, ids, d, cache), cache.advance(c.pos) if cache else None
            )[0], finish=lambda s, cache, c: None),
        ),
        known(
            "positions-from-zero-stored",
            "The cache is told positions that start at 0 in every part. cache.advance stores what "
            "it gets: give it context.pos.",
            gpt_as(finish=lambda s, cache, c: cache.advance(
                torch.arange(c.pos.shape[1]).expand_as(c.pos))),
            gpt_as(finish=lambda s, cache, c: cache.advance(
                torch.arange(cache.length, cache.length + c.pos.shape[1])[None])),
        ),
        known(
            "dropout-before-positions",
            "Dropout comes before the positions are added. self.drop follows them.",
            gpt_as(embedded=lambda s, ids, c: s.wpe.embed(s.drop(s.wte(ids)), c.pos),
                   dropped=lambda s, x: x),
        ),
        known(
            "advanced-twice", "The cache advances twice.",
            gpt_as(finish=lambda s, cache, c: (cache.advance(c.pos), cache.advance(c.pos))),
        ),
        known(
            "documents-of-the-new",
            "With a cache only the documents of the new tokens are given. self.context needs those "
            "of the old tokens, too.",
            gpt_as(seen=lambda s, ids, d, cache: s.context(
                ids, None if d is None else d[:, -ids.shape[1] :], cache)),
        ),
        known(
            "flat-ids",
            "Ids of one axis are accepted. They have to be (B, T): raise UserError otherwise, "
            "which says what to do.",
            FlatIds,
        ),
        known(
            "ids-not-checked",
            "Ids that are not (B, T) raise some other error. Check ids.ndim first, and raise "
            "UserError of nanogpt.errors.",
            UncheckedIds,
            gpt_as(check=lambda s, ids: assert_two_axes(ids)),
        ),
        known(
            "context-from-nothing",
            "Neither documents nor cache are given to self.context.",
            gpt_as(seen=lambda s, ids, d, cache: s.context(ids)),
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
