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

from nanogpt.data import IGNORED, IntArray, TokenFile, random_windows, sliding_windows
from nanogpt.device import Compute
from nanogpt.errors import UserError
from nanogpt.model import GPT


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


@torch.no_grad()
def mean_loss(
    model: GPT, batches: Iterable[tuple[IntArray, IntArray]], compute: Compute
) -> tuple[float, int]:
    """Mean cross-entropy over all targets of all batches, and their number.

    The model's training mode is left as it was. Raises UserError if there is nothing to predict.
    """
    was_training = model.training
    model.eval()
    total, count = 0.0, 0
    for ids, targets in batches:
        x, y = (torch.from_numpy(a).to(compute.device) for a in (ids, targets))
        with compute.autocast():
            total += float(model.loss(model(x), y, reduction="sum"))
        count += int((targets != IGNORED).sum())
    model.train(was_training)
    if not count:
        raise UserError("the text is too short to evaluate: it needs at least two tokens")
    return total / count, count


def estimate(
    model: GPT, tokens: TokenFile, compute: Compute, batch_size: int, batches: int, seed: int
) -> Score:
    """A quick look during training: the loss on a fixed sample of windows.

    The windows depend on the seed alone, never on the step, so every look sees the same text, and
    looking more often changes nothing in the training.
    """
    length = model.config.context_length
    sample = (
        random_windows(tokens.ids, length, batch_size, seed=seed, step=i) for i in range(batches)
    )
    return Score(*mean_loss(model, sample, compute), tokens.bytes_per_token)


def evaluate(
    model: GPT, tokens: TokenFile, compute: Compute, batch_size: int = 16, stride: int = 0
) -> Score:
    """The loss over a whole text, every token but the first being predicted exactly once.

    Windows of the context length move on by `stride` tokens, by default half the context length;
    so all but the first predictions see at least that much of the text before them. A smaller
    stride gives more context, a lower loss, and takes longer.
    """
    length = model.config.context_length
    windows = sliding_windows(tokens.ids, length, stride or default_stride(length))
    return Score(*mean_loss(model, batched(windows, batch_size), compute), tokens.bytes_per_token)


def default_stride(context_length: int) -> int:
    """Half the context length."""
    return max(1, context_length // 2)


def batched(
    windows: Iterable[tuple[IntArray, IntArray]], batch_size: int
) -> Iterable[tuple[IntArray, IntArray]]:
    """Stack single windows (T) into batches (B, T)."""
    windows = iter(windows)
    while chunk := list(islice(windows, batch_size)):
        ids, targets = zip(*chunk, strict=True)
        yield np.stack(ids), np.stack(targets)


def unigram_bits_per_byte(train: TokenFile, val: TokenFile) -> float:
    """The score of a model that knows only how often each token occurs in the training text."""
    counts = (
        np.bincount(train.ids, minlength=train.about.vocab_size) + 1.0
    )  # no token is impossible
    bits = -np.log2(counts / counts.sum())
    return float(bits[val.ids].sum()) / val.about.bytes
