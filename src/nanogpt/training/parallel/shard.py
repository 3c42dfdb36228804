"""Sharding: ranks share out the weights, gradients and optimizer state of one model.

Each rank keeps a piece of every tensor. Before a block computes, the ranks gather its weights, and
afterwards drop them; in the backward pass again. Of the gradients each gets the sum of its own
piece (Rajbhandari et al. 2020, "ZeRO"; Zhao et al. 2023, "PyTorch FSDP"). Memory falls with the
number of ranks, for half as many bytes again as copies of the model send. With copies as well
(HSDP), weights travel among the ranks that share one, and sums of gradients between copies.

Torch's `fully_shard` does this, and fetches the next block while one computes.
"""

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from nanogpt.device import PRECISIONS, Compute
from nanogpt.training.parallel.mesh import Ranks


def shard_model(
    root: nn.Module, blocks: nn.Module, ranks: Ranks, compute: Compute
) -> list[FSDPModule]:
    """Share out the weights of every block, and those of the rest together; returns all these.

    In bfloat16 weights travel in 16 bits, and the residual stream has as many; gradients are added
    up in 32. The loss is a sum over all ranks, so gradients are sums, too, and no means.
    """
    half = None if compute.precision == "float32" else PRECISIONS[compute.precision]
    policy = MixedPrecisionPolicy(param_dtype=half, reduce_dtype=torch.float32)
    mesh = ranks.mesh["shard"]
    if ranks.copies.size() > 1:
        rows = ranks.mesh.mesh[ranks.place("pipeline"), ..., ranks.place("tensor")].flatten(0, 1)
        groups = [ranks.copies, ranks.group("shard")]
        names = ("copies", "shard")
        mesh = DeviceMesh.from_group(groups, ranks.device.type, rows, mesh_dim_names=names)
    found: list[FSDPModule] = []
    for module in (*blocks.children(), root):
        sharded = fully_shard(module, mesh=mesh, mp_policy=policy)
        sharded.set_gradient_divide_factor(1.0)
        # Without it gloo is asked for a product that it does not have, and NCCL divides.
        sharded.set_force_sum_reduction_for_comms(True)
        found.append(sharded)
    return found
