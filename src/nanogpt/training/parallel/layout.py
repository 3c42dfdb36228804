"""Which part of every tensor a rank has.

As far as weights are concerned, all kinds of parallel training differ in this alone. A `Part` says
it, in the places of the whole tensor. So what one layout writes every other can read, fresh weights
are the same on all, and a norm counts nothing twice.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from nanogpt.model.gpt import GPT
from nanogpt.training.parallel.mesh import Ranks
from nanogpt.training.pieces import Box, boxes_of_spans, cut, only_rows

# Along which dimension a parameter is cut over the tensor ranks, and which spans are this rank's.
Spans = dict[str, tuple[int, list[slice]]]


@dataclass
class Part:
    """What this rank has of a parameter or a buffer."""

    name: str
    shape: torch.Size  # of the whole
    boxes: list[Box]
    parameter: Tensor  # what the model has, which FSDP wraps
    tensor: Tensor  # its numbers, plain, as the optimizer moves them
    counts: bool  # here, of all ranks that have the same: it is written and measured once
    cut_by: list[str]  # the dimensions over whose ranks the tensor is cut

    def gradient(self) -> Tensor | None:
        """The gradient of these numbers."""
        return None if self.parameter.grad is None else plain(self.parameter.grad)


def plain(tensor: Tensor) -> Tensor:
    """The numbers of this rank, in the same memory."""
    return tensor.to_local().detach() if isinstance(tensor, DTensor) else tensor.detach()


class Layout:
    """The parts of all tensors of a model that this rank has, by name.

    Args:
        model: this rank's, cut by pipeline and tensor, perhaps wrapped by FSDP.
        whole: the uncut model, of which only names and shapes count.
        spans: how parameters are cut over the tensor ranks.
        borrowed: names of parameters that another rank keeps.
    """

    def __init__(
        self, ranks: Ranks, model: GPT, whole: GPT, spans: Spans, borrowed: Iterable[str]
    ) -> None:
        self.ranks, self.whole = ranks, whole.state_dict()
        self.parts: dict[str, Part] = {}
        for name, tensor in model.state_dict(keep_vars=True).items():
            shape = self.whole[name].shape
            boxes = boxes_of_spans(shape, *spans.get(name, (0, [slice(0, len(self.whole[name]))])))
            cut_by = ["tensor"] if name in spans else []
            if isinstance(tensor, DTensor):
                each = -(-len(tensor) // ranks.size("shard"))  # rows, as FSDP cuts
                ends = (min(len(tensor), each * (ranks.place("shard") + n)) for n in (0, 1))
                boxes, cut_by = only_rows(boxes, slice(*ends)), [*cut_by, "shard"]
            alike = {"data", "context", "shard", "tensor"}.difference(cut_by)
            counts = name not in borrowed and not any(map(ranks.place, alike))
            part = Part(name, shape, boxes, tensor, plain(tensor), counts, cut_by)
            self.parts[name] = part
        self.by_tensor = {id(part.tensor): part for part in self.parts.values()}

    def put_together(self, part: Part, numbers: Tensor) -> Tensor:
        """The whole tensor, from what every rank that has some of it has, such as gradients.

        Each puts its numbers into zeros, and all are added up: simple, and twice the bytes that
        gathering would send.
        """
        whole = numbers.new_zeros(part.shape)
        for box in part.boxes:
            whole[box.whole] = numbers[box.local]
        for dimension in part.cut_by:
            dist.all_reduce(whole, group=self.ranks.group(dimension))
        return whole

    def on_first_rank(self, name: str) -> Tensor:
        """A whole tensor on the first rank; of no use on the others."""
        part = self.parts.get(name)
        whole = torch.zeros_like(self.whole[name], device=self.ranks.device)
        for box in part.boxes if part and part.counts else ():
            whole[box.whole] = part.tensor[box.local]  # type: ignore[union-attr]
        dist.reduce(whole, 0)
        return whole

    def fill_from_first_rank(self, model: GPT) -> None:
        """Give every rank its part of the first rank's model; one tensor at a time is whole."""
        for name, whole in model.state_dict().items():
            here = torch.empty_like(whole, device=self.ranks.device)
            if self.ranks.first:
                here.copy_(whole)
            dist.broadcast(here, 0)
            if part := self.parts.get(name):
                part.tensor.copy_(cut(here, part.boxes, part.tensor))
