"""How good is a model? Loss, perplexity and bits per byte.

Loss per token depends on how the text was cut into tokens; bits per byte do not, so they compare
models with any tokenizer, and compression programs too.

Axes: B sequences in a batch, T positions.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nanogpt.device import Compute, to_device
from nanogpt.errors import UserError
from nanogpt.model.gpt import GPT, evaluating
from nanogpt.text.batches import Batch, Batches, document_numbers, sliding_windows
from nanogpt.text.tokenfiles import Ids, TokenFile


@dataclass(frozen=True)
class Score:
    """The result of an evaluation."""

    loss: float  # mean cross-entropy, nats per token
    tokens: int  # how many targets that is the mean of
    bytes_per_token: float

    @property
    def perplexity(self) -> float:
        """Among how many equally likely tokens the model is as unsure, on average."""
        return math.exp(min(self.loss, 700.0))

    @property
    def bits_per_byte(self) -> float:
        """Bits that the model needs to store one byte of this text."""
        return self.loss / math.log(2) / self.bytes_per_token


def tensors(batch: Batch, device: torch.device) -> tuple[Tensor, Tensor, Tensor | None]:
    """Ids, targets and documents of a batch on a device, each (B, T); None if it has no borders."""
    ids, targets = (to_device(a, device) for a in (batch.ids, batch.targets))
    documents = None if batch.documents is None else to_device(batch.documents, device)
    return ids, targets, documents


def batch_losses(
    model: GPT, batches: Iterable[Batch], compute: Compute
) -> Iterator[NDArray[np.float32]]:
    """The loss in nats of every real target, batch by batch, without dropout."""
    for batch in batches:
        ids, targets, documents = tensors(batch, compute.device)
        with evaluating(model), compute.autocast():
            losses = model.loss(model(ids, documents=documents), targets, reduction="none")
        yield losses.float().cpu().numpy()


def mean_loss(parts: Iterable[NDArray[np.float32]]) -> tuple[float, int]:
    """The mean of all losses, and their number. Raises UserError if there are none."""
    total, count = 0.0, 0
    for losses in parts:
        total += float(losses.sum(dtype=np.float64))
        count += len(losses)
    if not count:
        raise UserError("nothing to predict: use a longer text, or a context that answers fit into")
    return total / count, count


def estimate(
    model: GPT, batches: Batches, compute: Compute, batch_size: int, count: int, seed: int
) -> Score:
    """A quick look during training: the loss on the first `count` batches.

    They depend on the seed alone, never on the step, so every look sees the same text, and looking
    more often changes nothing in the training.
    """
    sample = (batches.batch(number, batch_size, seed) for number in range(count))
    return Score(*mean_loss(batch_losses(model, sample, compute)), batches.tokens.bytes_per_token)


def token_losses(
    model: GPT, ids: Ids, compute: Compute, batch_size: int = 16, stride: int = 0,
    separator: int | None = None,
) -> Iterator[NDArray[np.float32]]:  # fmt: skip
    """The loss in nats of every token of a text but the first, in order, some at a time.

    Windows of the context length move on by `stride` tokens, by default half the context length;
    so all but the first predictions see at least that much of the text before them, and each token
    is predicted exactly once. A smaller stride gives more context, a lower loss, and takes longer.
    Where a separator is given, no token sees another document than its own, as in packed training.
    """
    length = model.config.context_length
    windows = sliding_windows(ids, length, stride or default_stride(length))
    return batch_losses(model, stacked(windows, batch_size, separator), compute)


def stacked(windows: Iterator, batch_size: int, separator: int | None) -> Iterator[Batch]:
    """Windows in batches. A separator keeps documents apart."""
    while some := list(islice(windows, batch_size)):
        ids, targets = (np.stack(arrays) for arrays in zip(*some, strict=True))  # (B, T)
        yield Batch(ids, targets, None if separator is None else document_numbers(ids, separator))


def evaluate(
    model: GPT, tokens: TokenFile, compute: Compute, batch_size: int = 16, stride: int = 0,
    separator: int | None = None,
) -> Score:  # fmt: skip
    """The mean loss over a whole text: see token_losses.

    Raises UserError if there is nothing to predict.
    """
    losses = token_losses(model, tokens.ids, compute, batch_size, stride, separator)
    return Score(*mean_loss(losses), tokens.bytes_per_token)


def default_stride(context_length: int) -> int:
    """Half the context length."""
    return max(1, context_length // 2)
