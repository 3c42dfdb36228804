"""How a training step is divided among ranks, in plain form: what lesson 18 and its exercises use.

`training/parallel` does the same on real machines.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from nanogpt.learn.collectives import all_reduce, copied, summed
from nanogpt.learn.ranks import Rank
from nanogpt.model.layers import gelu


def average_gradients(gradients: Sequence[Tensor], targets: int, rank: Rank) -> list[Tensor]:
    """The gradients of the mean loss over the real targets of all ranks, on every rank.

    `gradients` are those of the mean loss over this rank's own real targets; `targets` is how many
    these are. Every target weighs the same, however unevenly the ranks share them. One message
    for all tensors: each message costs time by itself.
    """
    count = gradients[0].new_tensor([targets])
    everything = torch.cat([*(g.flatten() * targets for g in gradients), count])
    *sums, total = all_reduce(everything, rank).split([*(g.numel() for g in gradients), 1])
    return [part.view_as(g) / total for part, g in zip(sums, gradients, strict=True)]


def parallel_mlp(
    x: Tensor, w_fc: Tensor, b_fc: Tensor, w_proj: Tensor, b_proj: Tensor, rank: Rank
) -> Tensor:
    """The feed-forward layer on n ranks, each with 1/n of the hidden channels.

    x (B, T, C), the same on all ranks -> (B, T, C). w_fc (H, C), b_fc (H), w_proj (C, H) and
    b_proj (C) are those of the whole layer, H its hidden channels; n divides H. GELU looks at each
    channel alone, so nothing moves until the end. There each rank has a term of the sum over the
    hidden channels: one all-reduce (Shoeybi et al. 2019, "Megatron-LM", section 3).
    """
    width = len(w_fc) // rank.size
    mine = slice(rank.number * width, (rank.number + 1) * width)
    hidden = gelu(F.linear(copied(x, rank), w_fc[mine], b_fc[mine]))  # (B, T, H / n)
    return summed(F.linear(hidden, w_proj[:, mine]), rank) + b_proj  # (B, T, C)


class Job(NamedTuple):
    """What a rank of a pipeline does from start to end: one microbatch, forward or back."""

    back: bool
    microbatch: int
    start: int
    end: int


FORWARD, BACK = 1, 2  # units of time: going back takes two products for each one of going forward


def pipeline_order(
    rank: int, ranks: int, microbatches: int, schedule: str
) -> list[tuple[bool, int]]:
    """What a rank of a pipeline does, one after the other: pairs of (back, number of microbatch).

    "gpipe" takes all microbatches forward, then all back (Huang et al. 2019). "1f1b" goes back with
    each as soon as it can, so that fewer are on their way (Narayanan et al. 2019, "PipeDream").

    >>> pipeline_order(0, 2, 3, "1f1b")  # two on their way, then one back, one forward
    [(False, 0), (False, 1), (True, 0), (False, 2), (True, 1), (True, 2)]
    """
    ahead = microbatches if schedule == "gpipe" else min(microbatches, ranks - rank)
    order = [(False, number) for number in range(ahead)]
    for number in range(microbatches):
        order.append((True, number))
        if number + ahead < microbatches:
            order.append((False, number + ahead))
    return order


def pipeline_times(ranks: int, microbatches: int, schedule: str) -> list[list[Job]]:
    """When each rank of a pipeline does what: a list of jobs for each rank.

    A job starts when the rank has done its last one, and the neighbour has sent what it needs.
    """
    orders = [pipeline_order(rank, ranks, microbatches, schedule) for rank in range(ranks)]
    ends: dict[tuple[int, bool, int], int] = {}  # by rank, direction and microbatch
    jobs: list[list[Job]] = [[] for _ in range(ranks)]
    while any(orders):
        for rank, order in enumerate(orders):
            if not order:
                continue
            back, number = order[0]
            # The last rank goes back when it has gone forward; others need the rank after them.
            needed = (rank + 1, True, number) if back else (rank - 1, False, number)
            if back and rank == ranks - 1:
                needed = (rank, False, number)
            if needed in ends or (rank == 0 and not back):
                free = jobs[rank][-1].end if jobs[rank] else 0
                start = max(free, ends.get(needed, 0))
                ends[rank, back, number] = start + (BACK if back else FORWARD)
                jobs[rank].append(Job(back, number, start, ends[rank, back, number]))
                order.pop(0)
    return jobs


def bubble(jobs: Sequence[Sequence[Job]]) -> float:
    """The share of the time in which the ranks of a pipeline have nothing to do.

    It is (n - 1) / (m + n - 1) with n ranks and m microbatches.

    >>> round(bubble(pipeline_times(ranks=4, microbatches=4, schedule="gpipe")), 3)  # 3 / 7
    0.429
    """
    length = max(job.end for rank in jobs for job in rank)
    busy = sum(job.end - job.start for rank in jobs for job in rank)
    return 1 - busy / (length * len(jobs))
