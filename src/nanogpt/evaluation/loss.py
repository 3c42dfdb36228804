"""How good is a model? Loss, perplexity and bits per byte.

Loss per token depends on how the text was cut into tokens; bits per byte do not, so they compare
models with any tokenizer, and compression programs too.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nanogpt.device import Compute
from nanogpt.errors import UserError
from nanogpt.model.gpt import GPT
from nanogpt.text.batches import Batch, Batches, IntArray, document_numbers, sliding_windows
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


def losses_of(model: GPT, batch: Batch, compute: Compute, reduction: str = "sum") -> Tensor:
    """Cross-entropy in nats: the sum over the real targets of a batch, or each by itself."""
    ids, targets = (torch.from_numpy(a).to(compute.device) for a in (batch.ids, batch.targets))
    mask = None if batch.mask is None else torch.from_numpy(batch.mask).to(compute.device)
    with compute.autocast():
        return model.loss(model(ids, mask), targets, reduction=reduction)


@torch.no_grad()
def mean_loss(model: GPT, batches: Iterable[Batch], compute: Compute) -> tuple[float, int]:
    """Mean cross-entropy over all targets of all batches, and their number.

    The model's training mode is left as it was. Raises UserError if there is nothing to predict.
    """
    was_training = model.training
    model.eval()
    total, count = 0.0, 0
    for batch in batches:
        total += float(losses_of(model, batch, compute))
        count += batch.real_targets
    model.train(was_training)
    if not count:
        raise UserError("the text is too short to evaluate: it needs at least two tokens")
    return total / count, count


def estimate(
    model: GPT, batches: Batches, compute: Compute, batch_size: int, count: int, seed: int
) -> Score:
    """A quick look during training: the loss on the first `count` batches.

    They depend on the seed alone, never on the step, so every look sees the same text, and looking
    more often changes nothing in the training.
    """
    sample = (batches.batch(number, batch_size, seed) for number in range(count))
    return Score(*mean_loss(model, sample, compute), batches.tokens.bytes_per_token)


@torch.no_grad()
def token_losses(
    model: GPT,
    ids: Ids,
    compute: Compute,
    batch_size: int = 16,
    stride: int = 0,
    separator: int | None = None,
) -> Iterator[NDArray[np.float32]]:
    """The loss in nats of every token of a text but the first, in order, some at a time.

    Windows of the context length move on by `stride` tokens, by default half the context length;
    so all but the first predictions see at least that much of the text before them, and each token
    is predicted exactly once. A smaller stride gives more context, a lower loss, and takes longer.
    Where a separator is given, no token sees another document than its own, as in packed training.
    """
    length = model.config.context_length
    windows = sliding_windows(ids, length, stride or default_stride(length))
    was_training = model.training
    model.eval()
    for batch in stacked(windows, batch_size, separator):
        yield losses_of(model, batch, compute, "none").cpu().numpy()
    model.train(was_training)


def evaluate(
    model: GPT,
    tokens: TokenFile,
    compute: Compute,
    batch_size: int = 16,
    stride: int = 0,
    separator: int | None = None,
) -> Score:
    """The mean loss over a whole text: see token_losses.

    Raises UserError if there is nothing to predict.
    """
    total, count = 0.0, 0
    for losses in token_losses(model, tokens.ids, compute, batch_size, stride, separator):
        total += float(losses.sum(dtype=np.float64))
        count += len(losses)
    if not count:
        raise UserError("the text is too short to evaluate: it needs at least two tokens")
    return Score(total / count, count, tokens.bytes_per_token)


def default_stride(context_length: int) -> int:
    """Half the context length."""
    return max(1, context_length // 2)


def stacked(
    windows: Iterable[tuple[IntArray, IntArray]], batch_size: int, separator: int | None
) -> Iterable[Batch]:
    """Stack single windows (T) into batches (B, T)."""
    windows = iter(windows)
    while chunk := list(islice(windows, batch_size)):
        ids, targets = (np.stack(arrays) for arrays in zip(*chunk, strict=True))  # (B, T)
        yield Batch(ids, targets, None if separator is None else document_numbers(ids, separator))
