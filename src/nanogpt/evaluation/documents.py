"""The loss of a text token by token and document by document."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from nanogpt.config import choose
from nanogpt.device import Compute
from nanogpt.errors import UserError
from nanogpt.evaluation.loss import Score, token_losses
from nanogpt.model.gpt import GPT
from nanogpt.text.batches import BATCHES
from nanogpt.text.tokenfiles import TokenFile, end_of_text
from nanogpt.text.tokenizer import BaseTokenizer

Losses = NDArray[np.float32]


@dataclass(frozen=True)
class DocumentScore:
    """The loss of one document, its end-of-text token included."""

    number: int  # from 1
    start: int  # of its first token in the text
    tokens: int  # predicted ones
    loss: float  # nats per token
    bits_per_byte: float


def text_losses(
    model: GPT,
    tokens: TokenFile,
    compute: Compute,
    batch_size: int = 16,
    stride: int = 0,
    separator: int | None = None,
) -> Losses:
    """The loss in nats of every token of a text but the first: (N - 1). See loss.token_losses.

    Raises UserError for a text of fewer than two tokens, and for a model whose losses are NaN.
    """
    parts = list(token_losses(model, tokens.ids, compute, batch_size, stride, separator))
    if not parts:
        raise UserError("the text is too short to evaluate: it needs at least two tokens")
    losses = np.concatenate(parts)
    if np.isnan(losses).any():
        raise UserError("the model's weights are not numbers; use an earlier checkpoint")
    return losses


def separator_of(batches: str, tokenizer: BaseTokenizer) -> int | None:
    """The token that keeps documents apart for a model trained on this kind of batches.

    None where training let tokens see other documents than their own.
    """
    kind = choose(BATCHES, "data.batches", batches)
    return end_of_text(tokenizer) if kind.documents_apart else None


def text_score(losses: Losses, tokens: TokenFile) -> Score:
    """The mean of the losses of single tokens."""
    return Score(float(losses.mean(dtype=np.float64)), len(losses), tokens.bytes_per_token)


def document_scores(
    tokens: TokenFile, losses: Losses, tokenizer: BaseTokenizer
) -> Iterator[DocumentScore]:
    """The score of each document by itself. The first token of the text has no loss."""
    ids = np.asarray(tokens.ids[:])
    end = end_of_text(tokenizer)
    ends = np.flatnonzero(ids == end) + 1 if end is not None else np.array([], dtype=int)
    edges = [0, *ends.tolist()]
    if edges[-1] < len(ids):
        edges.append(len(ids))
    for number, (start, stop) in enumerate(pairwise(edges), 1):
        part = losses[max(start - 1, 0) : stop - 1]
        predicted = ids[max(start, 1) : stop].tolist()
        text = tokenizer.decode_bytes(i for i in predicted if i != end)
        if len(part) and text:
            total = float(part.sum(dtype=np.float64))
            bits = total / math.log(2) / len(text)
            yield DocumentScore(number, start, len(part), total / len(part), bits)


def excerpts(text: str, length: int, count: int) -> list[str]:
    """About `length` characters of a text, from `count` places at equal distances.

    >>> excerpts("abcdefgh", 4, 2)
    ['ab', 'ef']
    """
    each = max(1, min(length, len(text)) // count)
    return [text[n * len(text) // count :][:each] for n in range(count)]
