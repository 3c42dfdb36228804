"""Roll-outs: many answers at once, with the probabilities with which they were drawn.

Every question is read once, and its keys and values are copied for each of its answers. Answers
that have ended leave the batch. What an answer draws depends on its own number alone, not on which
others are still there.

Axes: Q questions, B answers, T time, V vocabulary.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nanogpt.errors import UserError
from nanogpt.model.cache import KVCache
from nanogpt.model.gpt import GPT, evaluating

CROWDED = 0.75  # rows leave when no more than this share of them goes on: leaving copies the cache


@dataclass(frozen=True)
class RollOut:
    """One answer."""

    ids: list[int]  # with the token that ends it, unless it became too long
    log_probabilities: list[float]  # of its ids as they were drawn, at the temperature, in nats
    entropies: list[float]  # of the distributions that they were drawn from, in nats

    @property
    def length(self) -> int:
        """Tokens, the one that ends it included."""
        return len(self.ids)


@torch.no_grad()
def roll_out(
    model: GPT, prompts: Sequence[Sequence[int]], endings: Collection[int], max_new_tokens: int,
    seed: int, copies: int = 1, temperature: float = 1.0, tokens: int | None = None,
) -> list[RollOut]:  # fmt: skip
    """Draw answers to each prompt, `copies` of them: those to one prompt follow each other.

    An answer ends with one of the tokens `endings`, or after max_new_tokens. At temperature 0 each
    token is the likeliest. Log-probabilities are those of the distribution that is drawn from: at a
    temperature of 1 the model's own, at another one those of logits / temperature. Only the first
    `tokens` ids are drawn, if that is given: the others are padding of the vocabulary. The result
    is a pure function of the weights and the arguments. Raises UserError where question and answer
    do not fit into the context, and for a model whose weights are not numbers.
    """
    logits, cache, documents = read_prompts(model, prompts, max_new_tokens)
    source = torch.arange(len(prompts), device=model.device).repeat_interleave(copies)
    logits, documents = logits[source], documents if documents is None else documents[source]
    keep_rows(cache, source)
    # Drawn on the CPU, so that a seed gives the same answers on every device.
    chances = torch.rand(
        max_new_tokens, len(source), generator=torch.Generator().manual_seed(seed)
    ).to(model.device)
    ends = torch.tensor(sorted(endings), dtype=torch.long, device=model.device)
    alive = torch.arange(len(source), device=model.device)  # the rows that are still there
    going_on = torch.ones_like(alive, dtype=torch.bool)
    steps = []
    for chance in chances:
        chosen, log_probability, entropy = draw(logits[:, :tokens], chance[alive], temperature)
        steps.append((alive, chosen, log_probability, entropy))
        going_on &= torch.isin(chosen, ends, invert=True)
        left = int(going_on.sum())
        if not left or len(steps) == max_new_tokens:
            break
        if left <= CROWDED * len(alive):
            keep_rows(cache, going_on)
            alive, chosen = alive[going_on], chosen[going_on]
            documents = documents if documents is None else documents[going_on]
            going_on = going_on[going_on]
        logits = read(model, chosen[:, None], cache, documents)
    return collect(steps, len(source), endings)


def read_prompts(
    model: GPT, prompts: Sequence[Sequence[int]], room: int
) -> tuple[Tensor, KVCache, Tensor | None]:
    """Read each prompt once: logits (Q, V), the cache, and documents (Q, T) if lengths differ.

    Shorter prompts are padded on the left. The cache, and `documents`, have room for the answers.
    """
    width = max(map(len, prompts), default=0)
    if not all(prompts) or not width:
        raise UserError("a prompt without a token cannot be continued: give at least one")
    if width + room > model.config.context_length:
        raise UserError(
            f"a question of {width} tokens and an answer of {room} do not fit into "
            f"model.context_length={model.config.context_length}: lower max_new_tokens"
        )
    config = replace(model.config, context_length=width + room)
    cache = KVCache(config, len(prompts), model.device, model.dtype)
    padded = [[0] * (width - len(prompt)) + list(prompt) for prompt in prompts]
    documents = None
    if any(len(prompt) < width for prompt in prompts):
        documents = torch.ones(len(prompts), width + room, dtype=torch.long)
        for row, prompt in enumerate(prompts):
            documents[row, : width - len(prompt)] = 0
        documents = documents.to(model.device)
    logits = read(model, torch.tensor(padded, device=model.device), cache, documents)
    return logits, cache, documents


def read(model: GPT, ids: Tensor, cache: KVCache, documents: Tensor | None) -> Tensor:
    """Read ids (B, T) after those in the cache: the logits of what comes next, (B, V)."""
    if documents is not None:
        documents = documents[:, : cache.length + ids.shape[1]]
    with evaluating(model):
        x = model.hidden_states(ids, documents=documents, cache=cache)
        logits = model.head(x[:, -1])
    if logits.isnan().any():
        raise UserError("the model's weights are not numbers; use an earlier checkpoint")
    return logits


def keep_rows(cache: KVCache, rows: Tensor) -> None:
    """Let a cache hold these of its rows, each as often as it is named."""
    cache.keys, cache.values = cache.keys[:, rows], cache.values[:, rows]
    cache.pos = cache.pos[rows]


def draw(logits: Tensor, chance: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """The next token of each row, its log-probability, and the entropy: (B, V) and (B) -> each (B).

    `chance` (B) is a number from 0 to 1 for each row: the first token is drawn that brings the sum
    of the probabilities above it.

    >>> logits = torch.tensor([[0.25, 0.5, 0.25]]).log().repeat(3, 1)
    >>> draw(logits, torch.tensor([0.1, 0.5, 0.8]), temperature=1.0)[0]
    tensor([0, 1, 2])
    """
    log_p = (logits.float() / (temperature or 1.0)).log_softmax(-1)
    p = log_p.exp()
    if temperature:
        # With 64 bits the product is below the whole sum, as a chance of 24 bits is below 1.
        sums = p.double().cumsum(-1)
        chosen = torch.searchsorted(sums, chance[:, None].double() * sums[:, -1:], right=True)
    else:
        chosen = log_p.argmax(-1, keepdim=True)
    found = log_p.gather(-1, chosen)[:, 0]
    entropy = -torch.where(p > 0, p * log_p, 0.0).sum(-1)
    return chosen[:, 0], found, entropy


def collect(
    steps: Sequence[tuple[Tensor, Tensor, Tensor, Tensor]], rows: int, endings: Collection[int]
) -> list[RollOut]:
    """Put the answers together from what was drawn step by step; nothing follows an end."""
    found = [RollOut([], [], []) for _ in range(rows)]
    for step in steps:
        for row, token, log_probability, entropy in zip(*(x.tolist() for x in step), strict=True):
            answer = found[row]
            if not answer.ids or answer.ids[-1] not in endings:
                answer.ids.append(token)
                answer.log_probabilities.append(log_probability)
                answer.entropies.append(entropy)
    return found
