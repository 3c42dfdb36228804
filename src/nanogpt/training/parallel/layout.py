"""Which part of every tensor a rank has.

As far as weights are concerned, all kinds of parallel training differ in this alone. A `Part` says
it, in the places of the whole tensor. So what one layout writes every other can read, fresh weights
are the same on all, and a norm counts nothing twice.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from nanogpt.model.gpt import GPT
from nanogpt.training.parallel.mesh import Ranks
from nanogpt.training.pieces import Place, copy_overlap, place_of_all

# Along which dimension a parameter is cut over the tensor ranks, and which spans are this rank's.
Cuts = dict[str, tuple[int, list[slice]]]


@dataclass
class Part:
    """What this rank has of a parameter or a buffer."""

    name: str
    shape: torch.Size  # of the whole
    place: Place
    parameter: Tensor  # what the model has, which FSDP wraps
    tensor: Tensor  # its numbers on this rank, as the optimizer moves them
    owned: bool  # by this rank, of all that have the same: it alone writes and measures them
    cut_by: list[str]  # the dimensions over whose ranks the tensor is cut

    def put_into(self, whole: Tensor, numbers: Tensor) -> None:
        """Copy numbers of this part, such as gradients, to their place in a whole tensor."""
        copy_overlap(whole, place_of_all(self.shape), numbers, self.place)

    def cut_from(self, whole: Tensor) -> Tensor:
        """The numbers of a whole tensor that belong to this part."""
        numbers = torch.empty_like(self.tensor)
        copy_overlap(numbers, self.place, whole, place_of_all(self.shape))
        return numbers


class Layout:
    """The parts of all tensors of a model that this rank has, by name.

    Args:
        model: this rank's, cut by pipeline and tensor, perhaps wrapped by FSDP.
        outline: the uncut model, without numbers.
        cuts: how parameters are cut over the tensor ranks.
        borrowed: names of parameters that another rank keeps.
    """

    def __init__(
        self, ranks: Ranks, model: GPT, outline: GPT, cuts: Cuts, borrowed: Iterable[str]
    ) -> None:
        self.ranks, self.outline = ranks, outline.state_dict()
        self.parts: dict[str, Part] = {}
        for name, tensor in model.state_dict(keep_vars=True).items():
            shape, cut_by = self.outline[name].shape, []
            place = place_of_all(shape)
            if name in cuts:
                dim, spans = cuts[name]
                place[dim], cut_by = spans, ["tensor"]
            if isinstance(tensor, DTensor):
                rows = -(-len(tensor) // ranks.size("shard"))  # as FSDP cuts
                place[0] = some_rows(place[0], ranks.place("shard") * rows, rows)
                cut_by = [*cut_by, "shard"]
            copied = {"data", "context", "shard", "tensor"}.difference(cut_by)
            owned = name not in borrowed and not any(map(ranks.place, copied))
            numbers = tensor.to_local().detach() if isinstance(tensor, DTensor) else tensor
            self.parts[name] = Part(name, shape, place, tensor, numbers, owned, cut_by)
        self.by_tensor = {id(part.tensor): part for part in self.parts.values()}

    def all_gather(self, part: Part, numbers: Tensor) -> Tensor:
        """The whole tensor, on every rank that has a part of it.

        Each puts its numbers into zeros, and all are added up: simple, and twice the bytes that
        gathering would send.
        """
        whole = numbers.new_zeros(part.shape)
        part.put_into(whole, numbers)
        for dimension in part.cut_by:
            dist.all_reduce(whole, group=self.ranks.group(dimension))
        return whole

    def gather(self, numbers: Mapping[str, Tensor | None]) -> dict[str, Tensor]:
        """Whole tensors, on the first rank alone, from the numbers of every rank's parts."""
        found = {}
        for name, outline in self.outline.items():
            whole = torch.zeros_like(outline, device=self.ranks.device)
            part, own = self.parts.get(name), numbers.get(name)
            if part and part.owned and own is not None:
                part.put_into(whole, own)
            dist.reduce(whole, 0)
            if self.ranks.first:
                found[name] = whole
        return found

    def scatter(self, model: GPT) -> None:
        """Give every rank its part of the first rank's model; one tensor at a time is whole."""
        for name, whole in model.state_dict().items():
            here = torch.empty_like(whole, device=self.ranks.device)
            if self.ranks.first:
                here.copy_(whole)
            dist.broadcast(here, 0)
            if part := self.parts.get(name):
                part.tensor.data.copy_(part.cut_from(here))


def some_rows(spans: Iterable[slice], first: int, count: int) -> list[slice]:
    """The spans of some rows of what spans are made of.

    >>> some_rows([slice(0, 2), slice(6, 9)], first=1, count=3)
    [slice(1, 2, None), slice(6, 8, None)]
    """
    found, before = [], 0
    for span in spans:
        start = max(span.start, span.start + first - before)
        stop = min(span.stop, span.start + first + count - before)
        found += [slice(start, stop)] if start < stop else []
        before += span.stop - span.start
    return found
