"""Data parallelism: every rank has a copy of the model, and some rows of every batch.

Each works out the gradients of its own rows. They are added up, and all copies make the same step.
So every step sends one number for each weight, whatever the batch: the more tokens a rank has, the
less it matters. It need not take extra time: the gradients of the last layers travel while
those of the first are worked out (Li et al. 2020, "PyTorch Distributed").

Axes: B batch, T time, C channels.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from inspect import signature

import numpy as np
import torch.distributed as dist
from torch import Tensor, nn

from nanogpt.config import IGNORED, TrainConfig
from nanogpt.text.batches import Batch, Batches
from nanogpt.training.parallel.layout import Part
from nanogpt.training.parallel.mesh import ROWS, Ranks
from nanogpt.training.parallel.messages import receive_sum, send_sum

BUCKET = 2**22  # gradients that travel in one message; many small ones would cost a start each


class GradientSums:
    """Adds up gradients over the copies of a model while the backward pass goes on.

    `passes` are the backward passes of a step: what is sent before the last would be sent again.
    """

    def __init__(self, parts: Iterable[Part], group: dist.ProcessGroup, passes: int) -> None:
        self.group, self.passes = group, passes
        self.counts: Counter[str] = Counter()
        self.complete: list[Part] = []  # gradients that are not yet on their way
        self.sent: list[tuple[Sequence[Tensor], Tensor, dist.Work]] = []
        for part in parts if group.size() > 1 else ():
            if part.parameter.requires_grad:
                part.parameter.register_post_accumulate_grad_hook(partial(self.count, part))

    def count(self, part: Part, _parameter: Tensor) -> None:
        """A pass has added to a gradient. After the last it is sent, with others."""
        self.counts[part.name] += 1
        if self.counts[part.name] == self.passes:
            self.complete.append(part)
            if sum(p.tensor.numel() for p in self.complete) >= BUCKET:
                self.send()

    def send(self) -> None:
        """Put the complete gradients on their way."""
        gradients = [part.gradient() for part in self.complete]
        self.complete = []
        if gradients:
            self.sent.append(send_sum([g for g in gradients if g is not None], self.group))

    def finish(self) -> None:
        """Wait until all gradients are the sums over all copies."""
        self.send()
        for message in self.sent:
            receive_sum(*message)
        self.counts, self.sent = Counter(), []


def own_rows(batches: Batches, number: int, settings: TrainConfig, ranks: Ranks) -> Batch:
    """This rank's rows of batch number n: the ranks together read what one would read alone."""
    rows = ranks.share(settings.batch_size, *ROWS)
    if "rows" in signature(batches.batch).parameters:
        return batches.batch(number, settings.batch_size, settings.seed, rows)
    return only(batches.batch(number, settings.batch_size, settings.seed), rows)  # a plugin's


def only(batch: Batch, rows: slice) -> Batch:
    """Some rows of a batch."""
    documents = None if batch.documents is None else batch.documents[rows]
    return Batch(batch.ids[rows], batch.targets[rows], documents)


def padded(batch: Batch, rows: int, tokens: int) -> Batch:
    """A batch with so many rows and columns; those that are added count for nothing."""
    more = [(0, rows - len(batch.ids)), (0, tokens - batch.ids.shape[1])]
    targets = np.pad(batch.targets, more, constant_values=IGNORED)
    documents = None if batch.documents is None else np.pad(batch.documents, more)
    return Batch(np.pad(batch.ids, more), targets, documents)


class SharedDropout(nn.Module):
    """Dropout that drops on every rank what one process would drop there.

    It draws for the whole batch and keeps its own part: more random numbers, and the same training
    on any number of ranks. (Not with padded batches: they are as long as their longest row, and
    ranks have other rows.)
    """

    def __init__(self, rate: float, ranks: Ranks) -> None:
        super().__init__()
        self.rate, self.ranks = rate, ranks

    def forward(self, x: Tensor) -> Tensor:
        """This rank's rows and tokens, (B, T, C)."""
        if not self.training or not self.rate:
            return x
        ranks, along = self.ranks, ("context", "tensor")
        rows, tokens = len(x) * ranks.size(*ROWS), x.shape[1] * ranks.size(*along)
        kept = x.new_empty(rows, tokens, x.shape[2]).bernoulli_(1 - self.rate)
        mine = kept[ranks.share(rows, *ROWS), ranks.share(tokens, *along)]
        return x * mine.div_(1 - self.rate)


def share_dropout(model: nn.Module, ranks: Ranks) -> None:
    """Exchange every dropout for one that all ranks share."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Dropout):
                setattr(module, name, SharedDropout(child.p, ranks))
