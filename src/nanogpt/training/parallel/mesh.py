"""Which process does what: the ranks of a training, on a mesh of five dimensions.

    pipeline  every rank has some of the layers, and hands activations on to the next
    data      every rank has a copy of the model, and some rows of every batch
    context   every rank has a part of every sequence
    shard     as data, but the ranks share out the weights of one copy, and lend them to each other
    tensor    every rank has some of the heads and channels of every matrix

A rank has a place in each dimension. There it works with the ranks whose places are the same in all
others: its group. The dimension that says most comes last, because neighbours are in one machine.
"""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.rendezvous import rendezvous

from nanogpt.config import DIMENSIONS, ParallelConfig

ROWS = ("data", "shard")  # dimensions over which the rows of a batch are shared out
TOKENS = ("data", "context", "shard")  # and over which all of its tokens are


@contextmanager
def joined(timeout: float) -> Iterator[tuple[dist.ProcessGroup, dist.Store, dist.Store]]:
    """Meet the other processes, and leave them at the end: gloo for CPUs, NCCL for GPUs.

    Ranks wait `timeout` seconds for each other, and in the group that is given as long as it takes.
    The stores are boards on which all can write: one of this attempt, and one that outlives it.
    """
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    limit = timedelta(seconds=timeout)
    board, number, world = next(rendezvous("env://", timeout=limit))
    # What an attempt before this one wrote is still there, such as the addresses of dead ranks.
    store = dist.PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), board)
    backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
    dist.init_process_group(backend, store=store, rank=number, world_size=world, timeout=limit)
    try:
        yield dist.new_group(backend="gloo", timeout=timedelta(days=30)), store, board
    finally:
        dist.destroy_process_group()


class Ranks:
    """The place of this process on the mesh, and the groups in which it works."""

    def __init__(self, settings: ParallelConfig, device: torch.device) -> None:
        self.device = device
        self.number, self.world = dist.get_rank(), dist.get_world_size()
        self.first = self.number == 0  # who speaks and writes for all
        self.sizes = settings.sizes(self.world)
        shape = tuple(self.sizes.values())
        self.mesh = init_device_mesh(device.type, shape, mesh_dim_names=DIMENSIONS)
        self.copies = self.mesh["data", "context"]._flatten("copies").get_group()
        self.tokens = self.mesh[TOKENS]._flatten("tokens").get_group()
        self.limit = timedelta(seconds=settings.timeout)  # a new group waits half an hour
        for group in (*self.mesh.get_all_groups(), self.copies, self.tokens):
            group.set_timeout(self.limit)

    def size(self, *names: str) -> int:
        """How many ranks there are in these dimensions together."""
        return math.prod(self.sizes[name] for name in names)

    def place(self, *names: str) -> int:
        """The place of this rank among them, counted from 0; the last dimension counts fastest."""
        place = 0
        for name in names:
            place = place * self.sizes[name] + self.mesh.get_local_rank(name)
        return place

    def group(self, name: str) -> dist.ProcessGroup:
        """The ranks that differ from this one in a dimension alone."""
        return self.mesh.get_group(name)

    def share(self, count: int, *names: str) -> slice:
        """This rank's part of `count` things that the ranks of some dimensions share out."""
        return share(count, self.place(*names), self.size(*names))

    def all_gather(self, numbers: Tensor) -> list[list[float]]:
        """A few numbers of every rank, by rank."""
        own = numbers.to(self.device, torch.float64)
        rows = [torch.empty_like(own) for _ in range(self.world)]
        dist.all_gather(rows, own)
        return [row.tolist() for row in rows]


def share(count: int, place: int, size: int) -> slice:
    """The part of `count` things that falls to one of `size` ranks, as even as can be.

    >>> [share(5, place, 2) for place in (0, 1)]
    [slice(0, 2, None), slice(2, 5, None)]
    """
    return slice(count * place // size, count * (place + 1) // size)
