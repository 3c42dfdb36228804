"""Data parallelism: every rank has a copy of the model, and some rows of every batch.

Each works out the gradients of its own rows. They are added up, and all copies make the same step.
So every step sends one number for each weight, whatever the batch: the more tokens a rank has, the
less it matters. It need not take extra time: the gradients of the last layers travel while
those of the first are worked out (Li et al. 2020, "PyTorch Distributed").

Axes: B batch, T time, C channels.
"""

from collections.abc import Sequence
from functools import partial
from inspect import signature

import numpy as np
import torch.distributed as dist
from torch import Tensor, nn

from nanogpt.config import IGNORED, Config
from nanogpt.text.batches import Batch, Batches
from nanogpt.training.parallel.mesh import ROWS, Ranks
from nanogpt.training.parallel.messages import receive_gradients, send_gradients

BUCKET = 2**22  # gradients that travel in one message; many small ones would cost a start each


class GradientSums:
    """Adds up gradients over the copies of a model while the backward pass goes on.

    Messages have the same gradients on all ranks and go in the same order, the last layers first.
    `passes` are the backward passes of a step: what is sent before the last would be sent again.
    """

    def __init__(self, tensors: Sequence[Tensor], group: dist.ProcessGroup, passes: int) -> None:
        self.group, self.passes = group, passes
        self.buckets: list[list[Tensor]] = []  # the parameters whose gradients travel together
        room = 0
        for parameter in reversed(tensors) if group.size() > 1 else ():
            if parameter.requires_grad:
                if room <= 0:
                    self.buckets.append([])
                    room = BUCKET
                room -= parameter.numel()
                self.buckets[-1].append(parameter)
                hook = partial(self.count, len(self.buckets) - 1)
                parameter.register_post_accumulate_grad_hook(hook)
        self.reset()

    def reset(self) -> None:
        """Nothing has been added up yet."""
        self.awaited = [self.passes * len(bucket) for bucket in self.buckets]
        self.sent: list[tuple[Tensor, dist.Work]] = []

    def count(self, number: int, _parameter: Tensor) -> None:
        """A pass has added to a gradient of a bucket."""
        self.awaited[number] -= 1
        self.send()

    def send(self, incomplete: bool = False) -> None:
        """Put the next buckets on their way: as many as are complete, or all."""
        for number in range(len(self.sent), len(self.buckets)):
            if self.awaited[number] and not incomplete:
                break
            self.sent.append(send_gradients(self.buckets[number], self.group))

    def finish(self) -> None:
        """Wait until all gradients are the sums over all copies."""
        self.send(incomplete=True)
        for bucket, message in zip(self.buckets, self.sent, strict=True):
            receive_gradients(bucket, *message)
        self.reset()


def own_batch(batches: Batches, number: int, config: Config, ranks: Ranks) -> Batch:
    """This rank's part of batch number n: the ranks together read what one would read alone."""
    size, seed = config.train.batch_size, config.train.seed
    rows = ranks.share(size, *ROWS)
    if "rows" in signature(batches.batch).parameters:
        return own_tokens(batches.batch(number, size, seed, rows), config, ranks)
    batch = batches.batch(number, size, seed)  # a plugin's, which reads all rows
    return own_tokens(some_rows(batch, rows), config, ranks)


def some_rows(batch: Batch, rows: slice) -> Batch:
    """Some rows of a batch."""
    documents = None if batch.documents is None else batch.documents[rows]
    return Batch(batch.ids[rows], batch.targets[rows], documents)


def own_tokens(batch: Batch, config: Config, ranks: Ranks) -> Batch:
    """This rank's tokens of its rows, padded where all batches must be of one shape."""
    rows, tokens = config.train.batch_size // ranks.size(*ROWS), batch.ids.shape[1]
    if ranks.size("pipeline", "context", "tensor") > 1:
        tokens = config.model.context_length
    more = [(0, rows - len(batch.ids)), (0, tokens - batch.ids.shape[1])]
    own = ranks.share(tokens, "context")
    documents = None if batch.documents is None else np.pad(batch.documents, more)[:, : own.stop]
    targets = np.pad(batch.targets, more, constant_values=IGNORED)
    return Batch(np.pad(batch.ids, more)[:, own], targets[:, own], documents)


def share_dropout(model: nn.Module, ranks: Ranks) -> None:
    """Let dropout drop on every rank what one process would drop there.

    It draws for the whole batch and keeps its own part: more random numbers, and the same training
    on any number of ranks. (Not with padded batches: they are as long as their longest row, and
    ranks have other rows.)
    """
    for module in model.modules():
        if isinstance(module, nn.Dropout) and module.p:
            module.forward = partial(dropout, module, ranks)  # type: ignore[method-assign]


def dropout(module: nn.Dropout, ranks: Ranks, x: Tensor) -> Tensor:
    """Dropout of this rank's rows and tokens: (B, T, C)."""
    if not module.training:
        return x
    rows = len(x) * ranks.size(*ROWS)
    tokens = x.shape[1] * ranks.size("context", "tensor")
    kept = x.new_empty(rows, tokens, x.shape[2]).bernoulli_(1 - module.p)
    own = kept[ranks.share(rows, *ROWS), ranks.share(tokens, "context", "tensor")]
    return x * own.div_(1 - module.p)
