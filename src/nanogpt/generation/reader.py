"""Generation: predict a token, append it, repeat.

The first prediction reads the whole prompt (prefill); each further one reads a single token and
takes the rest from the cache (decode).

Axes: B batch, T time, V vocabulary.
"""

import math
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from nanogpt.config import SampleConfig, choose
from nanogpt.errors import UserError
from nanogpt.generation.sampling import SAMPLERS
from nanogpt.model.cache import KVCache
from nanogpt.model.gpt import GPT, evaluating


def forgotten(length: int, context_length: int) -> int:
    """How many of a text's first tokens the model no longer sees.

    None up to the context length. Then the text is forgotten in blocks of half a context: dropping
    a token shifts the positions of all others, so everything has to be read again, and this way
    that is needed once in half a context only.

    >>> [forgotten(n, 8) for n in (8, 9, 12, 13)]
    [0, 4, 4, 8]
    """
    block = max(1, context_length // 2)
    return max(0, math.ceil((length - context_length) / block)) * block


# What a row has in an empty cache: no text begins there, so it cannot be continued.
NOTHING = (-1, -1)


class Reader:
    """Texts that grow, one in each row, and what a model expects to come next in each.

    Prompts may differ in length: the shorter ones are padded on the left, and no row sees the
    padding. What a row sees depends on its own text alone. Raises UserError for an empty prompt.
    Without the cache every prediction reads everything anew: slower, the same logits.
    """

    def __init__(self, model: GPT, prompts: Sequence[Sequence[int]], use_cache: bool = True):
        self.model = model
        self.rows = [list(prompt) for prompt in prompts]
        if not all(self.rows):
            raise UserError("a prompt without a token cannot be continued: give at least one")
        self.cache: KVCache | None = None
        self.use_cache = use_cache
        self.in_cache = [NOTHING] * len(self.rows)  # from where to where of each row
        self.documents: Tensor | None = None  # (B, context length), where rows differ in length

    def append(self, row: int, tokens: Sequence[int]) -> None:
        """Add tokens to one row; the next prediction reads them."""
        self.rows[row].extend(tokens)

    def predict(self) -> Tensor:
        """Logits (B, V) of what comes next in each row."""
        length = self.model.config.context_length
        visible = [(forgotten(len(row), length), len(row)) for row in self.rows]
        new = self.continues(visible)
        if new:
            ids = torch.tensor([row[-new:] for row in self.rows])  # (B, T)
        else:
            ids = self.start_over([self.rows[n][start:] for n, (start, _) in enumerate(visible)])
        known = ids.shape[1] + (self.cache.length if self.cache else 0)
        documents = None if self.documents is None else self.documents[:, :known]
        with evaluating(self.model):
            ids = ids.to(self.model.device)
            x = self.model.hidden_states(ids, documents=documents, cache=self.cache)  # (B, T, C)
            logits = self.model.head(x[:, -1])  # (B, V)
        self.in_cache = visible  # not before: what was interrupted is not in the cache
        return logits

    def continues(self, visible: list[tuple[int, int]]) -> int:
        """How many tokens each row has beyond the cache; 0 if the cache cannot be continued.

        It can where no row has forgotten anything and all have grown by the same number.
        """
        pairs = list(zip(self.in_cache, visible, strict=True))
        grown = {new[1] - old[1] for old, new in pairs}
        forgot = any(old[0] != new[0] for old, new in pairs)
        if self.cache is None or forgot or len(grown) > 1:
            return 0
        longest = max(end - start for start, end in self.in_cache)
        return grown.pop() if self.cache.length == longest else 0  # else a pass was cut short

    def start_over(self, texts: list[list[int]]) -> Tensor:
        """Empty the cache and stack the texts, padded on the left, as ids (B, T)."""
        self.in_cache = [NOTHING] * len(self.rows)
        length, device = self.model.config.context_length, self.model.device
        if self.use_cache:
            if self.cache is None:
                self.cache = KVCache(self.model.config, len(texts), device, self.model.dtype)
            self.cache.clear()
        width = max(map(len, texts))
        self.documents = None
        if any(len(text) < width for text in texts):
            self.documents = torch.ones(len(texts), length, dtype=torch.long, device=device)
            for row, text in enumerate(texts):
                self.documents[row, : width - len(text)] = 0
        return torch.tensor([[0] * (width - len(text)) + text for text in texts])  # (B, T)


class NextTokens(NamedTuple):
    """One more token in every row."""

    chosen: Tensor  # (B)
    logits: Tensor  # (B, V), what the model said, before temperature and filters


def generate(
    reader: Reader, config: SampleConfig, tokens: Collection[int] = ()
) -> Iterator[NextTokens]:
    """Continue the texts of a reader without end, one token per row at a time.

    Only ids in `tokens` are chosen, if any are named: a model may have more rows than the tokenizer
    has tokens. Raises UserError for a model whose weights are not numbers.
    """
    rows = range(len(reader.rows))
    sampler = choose(SAMPLERS, "sample.sampler", config.sampler)(config, len(rows))
    size, seen = reader.model.config.vocab_size, None
    ruled_out = [i for i in range(size) if i not in tokens] if tokens else []
    while True:
        logits = reader.predict()
        if logits.isnan().any():
            raise UserError("the model's weights are not numbers; use an earlier checkpoint")
        if ruled_out:
            logits[:, ruled_out] = -math.inf
        if config.repetition_penalty != 1:
            if seen is None:
                seen = torch.zeros_like(logits, dtype=torch.bool)
            for row in rows:
                seen[row, reader.rows[row]] = True
        chosen = sampler(logits, seen)  # (B)
        for row, token in enumerate(chosen.tolist()):
            reader.append(row, [token])
        yield NextTokens(chosen, logits)
