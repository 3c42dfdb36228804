"""One rank that counts what it sends in a training step, layout after layout.

    python benchmarks/messages.py FOLDER     with the variables that torchrun sets

FOLDER holds jobs.json, {name: settings}; the first rank writes counts.json beside it,
{name: [counts of a rank, ...]}. Counts are {dimensions: {kind: [messages, bytes]}}. The bytes of a
message are those of the whole tensor that ranks gather, scatter or add up, or that one sends to
another.
"""

import json
import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.tensor.debug import CommDebugMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nanogpt.config import config_from_dict
from nanogpt.training.parallel.loop import ParallelTrainer
from nanogpt.training.parallel.mesh import DIMENSIONS, Ranks, joined

# Torch's operations: what they are called here, and which argument has the whole tensor.
KINDS = {
    "c10d::allreduce_": ("sum", 0),
    "c10d::allgather_": ("gather", 0),
    "c10d::_allgather_base_": ("gather", 0),
    "c10d::_reduce_scatter_base_": ("scatter", 1),
    "c10d::send": ("send", 0),
    "c10d::broadcast_": ("broadcast", 0),
}
RECEIVED = "c10d::recv_"  # whoever sends it has counted it

BOOKKEEPING = (torch.int64, torch.float64)  # the types of all that is no weight or activation

Counts = dict[str, dict[str, list[int]]]


class Count(TorchDispatchMode):
    """Counts messages and their bytes by group and kind, in forward and backward passes."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: Counter[tuple[str, str, bool]] = Counter()
        self.bytes: Counter[tuple[str, str, bool]] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = func.name().partition(".")[0]
        if func.namespace in ("c10d", "_c10d_functional") and name != RECEIVED:
            kind, whole = KINDS[name]  # an operation that is not there ends the count
            group = next(dist.ProcessGroup.unbox(x) for x in args if is_group(x))
            tensors = [x for x in tree_leaves(args[whole]) if isinstance(x, torch.Tensor)]
            key = group.group_name, kind, tensors[0].dtype in BOOKKEEPING
            self.messages[key] += 1
            self.bytes[key] += sum(x.nbytes for x in tensors)
        return func(*args, **(kwargs or {}))

    def by_dimension(self, ranks: Ranks) -> Counts:
        """What was counted, by the dimensions of the groups, such as "data x shard"."""
        found: Counts = {}
        for key, messages in sorted(self.messages.items()):
            group, kind, bookkeeping = key
            name = "bookkeeping" if bookkeeping else dimensions_of(group, ranks)
            if dimensions_of(group, ranks):  # a rank alone sends nothing
                sums = found.setdefault(name, {}).setdefault(kind, [0, 0])
                sums[0] += messages
                sums[1] += self.bytes[key]
        return found


def dimensions_of(group: str, ranks: Ranks) -> str:
    """The dimensions in which the ranks of a group have different places."""
    members = dist.get_process_group_ranks(dist.distributed_c10d._resolve_process_group(group))
    places = torch.stack([(ranks.mesh.mesh == rank).nonzero()[0] for rank in members])
    differ = (places != places[0]).any(0).tolist()
    return " x ".join(name for name, d in zip(DIMENSIONS, differ, strict=True) if d)


def sent(counts: Counts, sizes: Mapping[str, int]) -> dict[str, list[float]]:
    """The messages and bytes that a rank sends in a ring, by the names that a plan has for them.

    `sizes` says how many ranks each dimension has. Each rank sends its share of a tensor that n
    ranks gather or scatter, (n - 1) / n, and of one that they add up twice that (Patarasuk & Yuan
    2009). The sum over the first and the last stage is between two.
    """
    found: dict[str, list[float]] = {}
    for dimensions, kinds in counts.items():
        for kind, (messages, size) in kinds.items():
            n = math.prod(sizes.get(name, 1) for name in dimensions.split(" x "))
            name = dimensions
            if kind == "sum" and set(dimensions.split(" x ")) <= {"data", "context"}:
                name = "data"
            elif dimensions == "shard":
                name = "shard: weights" if kind == "gather" else "shard: gradients"
            elif dimensions == "pipeline":
                n = 2
            share = {"sum": 2 * (n - 1) / n, "send": 1.0}.get(kind, (n - 1) / n)
            if dimensions != "bookkeeping":
                sums = found.setdefault(name, [0, 0])
                sums[0] += messages
                sums[1] += share * size
    return found


def busiest(counts: Sequence[Counts], sizes: Mapping[str, int]) -> dict[str, list[float]]:
    """The most that any rank sends, in each dimension."""
    found: dict[str, list[float]] = {}
    for rank in counts:
        for name, numbers in sent(rank, sizes).items():
            found[name] = list(map(max, found.get(name, numbers), numbers))
    return found


def is_group(x: Any) -> bool:
    """Whether an argument of an operation is a group of ranks."""
    return isinstance(x, torch.ScriptObject) and "ProcessGroup" in str(x._type())


def count(settings: dict[str, Any], run: Path, check: bool) -> Counts:
    """What this rank sends in the second step; in the first, ranks tell each other shapes.

    `check` compares the number of collectives with what torch's own counter says. The hooks of
    that counter stay, so a process can use it once.
    """
    trainer = ParallelTrainer.start(run, config_from_dict(settings))
    trainer.train_step()
    with ExitStack() as stack:
        theirs = stack.enter_context(CommDebugMode()) if check and not trainer.pipeline else None
        ours = stack.enter_context(Count())
        trainer.train_step()
    trainer.loader.close()
    if theirs:
        assert theirs.get_total_counts() == ours.messages.total(), theirs.get_comm_counts()
    return ours.by_dimension(trainer.ranks)


def main(arguments: Sequence[str]) -> None:
    """Count all jobs of a folder."""
    folder = Path(arguments[0])
    jobs = json.loads((folder / "jobs.json").read_text())
    torch.set_num_threads(1)
    found: dict[str, list[Any]] = {}
    with joined(90):
        for name, settings in jobs.items():
            own = count(settings, folder / name, check=not found)
            found[name] = [None] * dist.get_world_size()
            dist.all_gather_object(found[name], own)
        if dist.get_rank() == 0:
            (folder / "counts.json").write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
