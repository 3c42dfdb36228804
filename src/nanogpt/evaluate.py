"""How good is a model? Loss, perplexity and bits per byte.

Loss per token depends on how the text was cut into tokens; bits per byte do not, so they compare
models with any tokenizer, and compression programs too.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from nanogpt.data import Batch, Batches, IntArray, document_numbers, sliding_windows
from nanogpt.device import Compute
from nanogpt.errors import UserError
from nanogpt.model import GPT
from nanogpt.tokenfiles import TokenFile


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


def summed_loss(model: GPT, batch: Batch, compute: Compute) -> Tensor:
    """Cross-entropy in nats, summed over the real targets of a batch."""
    ids, targets = (torch.from_numpy(a).to(compute.device) for a in (batch.ids, batch.targets))
    mask = None if batch.mask is None else torch.from_numpy(batch.mask).to(compute.device)
    with compute.autocast():
        return model.loss(model(ids, mask), targets, reduction="sum")


@torch.no_grad()
def mean_loss(model: GPT, batches: Iterable[Batch], compute: Compute) -> tuple[float, int]:
    """Mean cross-entropy over all targets of all batches, and their number.

    The model's training mode is left as it was. Raises UserError if there is nothing to predict.
    """
    was_training = model.training
    model.eval()
    total, count = 0.0, 0
    for batch in batches:
        total += float(summed_loss(model, batch, compute))
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


def evaluate(
    model: GPT,
    tokens: TokenFile,
    compute: Compute,
    batch_size: int = 16,
    stride: int = 0,
    separator: int | None = None,
) -> Score:
    """The loss over a whole text, every token but the first being predicted exactly once.

    Windows of the context length move on by `stride` tokens, by default half the context length;
    so all but the first predictions see at least that much of the text before them. A smaller
    stride gives more context, a lower loss, and takes longer. Where a separator is given, no token
    sees another document than its own, as in packed training.
    """
    length = model.config.context_length
    windows = sliding_windows(tokens.ids, length, stride or default_stride(length))
    batches = stacked(windows, batch_size, separator)
    return Score(*mean_loss(model, batches, compute), tokens.bytes_per_token)


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


def unigram_bits_per_byte(train: TokenFile, val: TokenFile) -> float:
    """The score of a model that knows only how often each token occurs in the training text."""
    counts = np.ones(train.about.vocab_size)  # no token is impossible
    for chunk in train.chunks():
        counts += np.bincount(chunk, minlength=len(counts))
    bits = -np.log2(counts / counts.sum())
    return sum(float(bits[chunk].sum()) for chunk in val.chunks()) / val.about.bytes
