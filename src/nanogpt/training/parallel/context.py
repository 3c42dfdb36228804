"""Context parallelism: every rank has a part of every sequence.

A long sequence costs activations for each of its tokens, on every layer; a rank keeps those of its
own. Only attention looks at others, and there only at their keys and values. So to a rank, the
tokens before its own are what the past is in generation: a KV cache. This one keeps nothing; it
asks the other ranks, layer by layer.

The last rank sees most and works longest. Systems for very long texts give each rank a part of the
beginning and one of the end (Dubey et al. 2024, "Llama 3"), or pass keys round in a ring (Liu
et al. 2023), so that messages travel during the arithmetic.

Axes: B batch, T time on this rank, S key time, nkv heads of keys and values, hs head size.
"""

from typing import Any

import torch
from torch import Tensor

from nanogpt.model.attention import AttentionContext
from nanogpt.model.cache import KVCache
from nanogpt.model.gpt import GPT
from nanogpt.training.parallel.mesh import Ranks
from nanogpt.training.parallel.messages import gather_tokens


class KeysOfOthers:
    """Takes the place of a `KVCache`: the keys and values of the ranks before this one."""

    def __init__(self, ranks: Ranks, tokens: int) -> None:
        self.group = ranks.group("context")
        self.length = ranks.place("context") * tokens  # tokens before those of this rank

    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """This rank's keys and values (B, nkv, T, hs); those of all up to it (B, nkv, S, hs)."""
        own = torch.stack([k, v]).movedim(3, 1)  # (2, T, B, nkv, hs)
        known = gather_tokens(own, self.group)[:, : self.length + k.shape[2]]
        k, v = known.movedim(1, 3)
        return k, v

    def key_positions(self, pos: Tensor) -> Tensor:
        """The positions of all keys, where those of this rank's tokens are pos (B, T): (B, S)."""
        return gather_tokens(pos, self.group)[:, : self.length + pos.shape[1]]


def cut_context(model: GPT, ranks: Ranks) -> None:
    """Let a model that gets a rank's tokens see those before them."""
    alone = model.context

    def context(ids: Tensor, documents: Tensor | None, _cache: KVCache | None) -> AttentionContext:
        others: Any = KeysOfOthers(ranks, ids.shape[1])
        return alone(ids, documents, others)

    model.context = context  # type: ignore[method-assign, assignment]
