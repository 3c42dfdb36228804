"""GPUs and the links between them, as far as a training's speed follows from them.

Memory, its bandwidth and NVLink are from NVIDIA's data sheets, PCI Express from its standard.
Makers add up both directions of a link; here stands one. `device.KNOWN_PEAKS` has the operations.
"""

import math
import time
from dataclasses import dataclass, replace

import torch

from nanogpt.device import KNOWN_PEAKS, Compute, measured_flops
from nanogpt.errors import UserError, did_you_mean
from nanogpt.memory import free_memory

# What NCCL reaches of a link. Inside a node its own model says 235 of an A100's 300 GB/s
# (NCCL, src/graph/tuning.cc); of a network card of 50 GB/s its authors expect 46 to 48
# (NVIDIA/nccl-tests, issue 290).
REACHED_INSIDE, REACHED_OUTSIDE = 0.78, 0.94

# Seconds that NCCL counts for a hop of a ring, and for the start of a collective (the same file).
NVLINK_HOP, PCIE_HOP, NETWORK_HOP, START = 3.4e-6, 5.7e-6, 9.6e-6, 8.4e-6

# The share of the peak that matrix products reach. Hopper's is ours: with it the step of GPT-2 124M
# on an H200 (docs/benchmarks.md) is predicted within 1 %. Ampere's lies between llm.c's steps of
# GPT-2 on eight A100 and those of MosaicML's models of 1 to 13 billion weights (docs/scaling.md).
# The share of others, B200 included, is a guess near Hopper's.
HOPPER, AMPERE, OTHERS = 0.59, 0.70, 0.60


@dataclass(frozen=True)
class Link:
    """What connects two ranks."""

    bandwidth: float  # bytes a second that a rank sends through it
    latency: float  # seconds for a message without contents


@dataclass(frozen=True)
class Gpu:
    """A GPU, and the machine that it is in."""

    name: str
    peak: float  # dense operations a second in 16 bits
    memory: float  # bytes
    bandwidth: float  # bytes a second from and to its memory
    inside: Link  # to the others of its node
    outside: Link  # its part of the network between nodes
    share: float = OTHERS  # of the peak, that matrix products reach
    node: int = 8  # GPUs in a node
    start: float = START  # seconds before a collective begins
    overlaps: bool = True  # whether messages travel while it computes
    divided: bool = False  # whether the ranks of a node share out all of this between them

    def among(self, ranks: int) -> "Gpu":
        """What one of so many ranks has."""
        if not self.divided:
            return self
        sizes = (self.peak, self.memory, self.bandwidth)
        peak, memory, bandwidth = (size / ranks for size in sizes)
        return replace(self, peak=peak, memory=memory, bandwidth=bandwidth)


def gpu(
    name: str, memory: float, bandwidth: float, inside: float, outside: float, share: float = OTHERS
) -> Gpu:
    """One with so many GB, and GB/s of memory and links, by a name from KNOWN_PEAKS."""
    nvlink = inside > 64  # the fastest PCI Express here has 64 GB/s
    return Gpu(
        name, KNOWN_PEAKS[name], memory * 1e9, bandwidth * 1e9,
        Link(REACHED_INSIDE * inside * 1e9, NVLINK_HOP if nvlink else PCIE_HOP),
        Link(REACHED_OUTSIDE * outside * 1e9, NETWORK_HOP), share,
    )  # fmt: skip


# GB, then GB/s: memory, its bandwidth, NVLink or PCI Express (version 4: 32, version 3: 16), the
# network. The last is a GPU's part of the network of a node with eight. DGX systems have a card of
# 400 Gbit/s for each H100, H200 and B200, of 200 for each A100, and four of 100 for eight V100. The
# largest machines of AWS have 400 Gbit/s for eight L40S (g6e.48xlarge), and 100 for eight L4 (g6),
# A10 (g5) and T4 (g4dn). Cards that people put into their own machines get 10 Gbit/s, a guess.
TABLE = [
    gpu("B200", 180, 8000, 900, 50, HOPPER),
    gpu("H200", 141, 4800, 450, 50, HOPPER),
    gpu("H100", 80, 3350, 450, 50, HOPPER),
    gpu("A100", 80, 2039, 300, 25, AMPERE),
    gpu("L40S", 48, 864, 32, 6.25),
    gpu("L4", 24, 300, 32, 1.56),
    gpu("A10", 24, 600, 32, 1.56),
    gpu("RTX 4090", 24, 1008, 32, 0.16),
    gpu("RTX 3090", 24, 936, 32, 0.16),
    gpu("V100", 32, 900, 150, 6.25),
    gpu("T4", 16, 300, 16, 1.56),
]
GPUS = {each.name.lower().replace(" ", "-"): each for each in TABLE}

# What gloo reaches between processes on one machine: `python benchmarks/scaling.py links`.
GLOO, GLOO_START = Link(1.2e9, 20e-6), 150e-6


def find_gpu(name: str, compute: Compute) -> Gpu:
    """A GPU of the table, or `cpu` for this machine. Raises UserError for another name."""
    if name.lower() == "cpu":
        return this_machine(compute)
    key = name.lower().replace(" ", "-")
    if key not in GPUS:
        raise UserError(f"--gpu {name} is not known: {did_you_mean(key, [*GPUS, 'cpu'])}")
    return GPUS[key]


def this_machine(compute: Compute) -> Gpu:
    """This machine's cores and memory, which its processes share out."""
    dtype = getattr(torch, compute.precision)
    return Gpu(
        "CPU", measured_flops(torch.device("cpu"), dtype), free_memory() or math.inf,
        measured_bandwidth(), GLOO, GLOO, 0.8, 10**6, GLOO_START, overlaps=False, divided=True,
    )  # fmt: skip


def measured_bandwidth(size: int = 2**24) -> float:
    """Bytes a second that a copy of so many numbers reads and writes here, the best of several."""
    x, y, fastest = torch.ones(size), torch.ones(size), math.inf
    for _ in range(5):
        begin = time.perf_counter()
        y.copy_(x)
        fastest = min(fastest, time.perf_counter() - begin)
    return 2 * x.nbytes / fastest
