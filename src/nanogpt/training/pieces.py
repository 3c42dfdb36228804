"""Pieces of tensors, in memory and in files.

A piece is a block of numbers, and where it belongs in the whole tensor. Whoever knows that can put
tensors together again, or cut them in another way: what four ranks wrote, two can read, or one.

    model-00000-of-00004.safetensors   the pieces of one rank; the places of each in the header
    model.safetensors                  whole tensors: pieces that happen to be all of it
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from nanogpt.errors import UserError

Place = tuple[slice, ...]  # one slice for each dimension of a tensor


@dataclass(frozen=True)
class Box:
    """A block of numbers: where it is in the whole tensor, and where in a rank's own."""

    whole: Place
    local: Place


def place_of_all(shape: Sequence[int]) -> Place:
    """The place of all numbers of a tensor."""
    return tuple(slice(0, n) for n in shape)


def boxes_of_spans(shape: Sequence[int], dim: int, spans: Iterable[slice]) -> list[Box]:
    """The boxes of a tensor that is made of spans of the whole, along a dimension, in this order.

    >>> [(box.whole[0], box.local[0]) for box in boxes_of_spans((6, 2), 0, [slice(1, 3)])]
    [(slice(1, 3, None), slice(0, 2, None))]
    """
    boxes, done = [], 0
    for span in spans:
        whole, mine = list(place_of_all(shape)), list(place_of_all(shape))
        whole[dim], mine[dim] = span, slice(done, done + span.stop - span.start)
        done = mine[dim].stop
        boxes.append(Box(tuple(whole), tuple(mine)))
    return boxes


def only_rows(boxes: Iterable[Box], rows: slice) -> list[Box]:
    """What boxes have in some rows of the local tensor, which become a tensor of their own."""
    found = []
    for box in boxes:
        place = rows, *box.local[1:]
        window = Box(place, (slice(0, rows.stop - rows.start), *box.local[1:]))
        both = overlap(Box(box.local, box.whole), window)
        found += [Box(*both)] if both else []
    return found


def overlap(a: Box, b: Box) -> tuple[Place, Place] | None:
    """Where two boxes have the same part of the whole: in a's own places, and in b's."""
    in_a, in_b = [], []
    for wa, la, wb, lb in zip(a.whole, a.local, b.whole, b.local, strict=True):
        start, stop = max(wa.start, wb.start), min(wa.stop, wb.stop)
        if stop <= start:
            return None
        in_a.append(slice(la.start + start - wa.start, la.start + stop - wa.start))
        in_b.append(slice(lb.start + start - wb.start, lb.start + stop - wb.start))
    return tuple(in_a), tuple(in_b)


def cut(whole: Tensor, boxes: Iterable[Box], like: Tensor) -> Tensor:
    """The numbers of some boxes of a whole tensor, of the shape, type and device of `like`."""
    found = torch.empty_like(like)
    for box in boxes:
        found[box.local] = whole[box.whole].to(found)
    return found


@dataclass(frozen=True)
class Piece:
    """Numbers that a rank writes, and where they belong."""

    numbers: Tensor
    shape: Sequence[int]  # of the whole
    boxes: list[Box]

    def header(self) -> dict[str, Any]:
        """The places, as JSON has them."""
        boxes = [
            [[(s.start, s.stop) for s in place] for place in (box.whole, box.local)]
            for box in self.boxes
        ]
        return {"shape": list(self.shape), "boxes": boxes}


class PieceFiles:
    """The tensors of a checkpoint, whoever wrote it: `kind` is model or optimizer.

    `names` are those of its files, as state.json has them: a merge may have left others.
    Nothing is read but what is asked for. Raises UserError for files that cannot be read.
    """

    def __init__(self, checkpoint: Path, kind: str, names: Iterable[str]) -> None:
        self.checkpoint = checkpoint
        self.found: dict[str, list[tuple[Any, list[Box]]]] = {}
        self.shapes: dict[str, list[int]] = {}
        for path in (checkpoint / name for name in sorted(names) if name.startswith(kind)):
            try:
                file = safe_open(path, "pt")
                headers = json.loads((file.metadata() or {}).get("pieces", "{}"))
            except (OSError, SafetensorError, ValueError) as error:
                raise UserError(
                    f"{path} cannot be read ({error}); use another checkpoint"
                ) from None
            for name in sorted(file.keys()):
                shape = file.get_slice(name).get_shape()
                header = headers.get(name, Piece(torch.empty(0), shape, []).header())
                self.shapes[name] = header["shape"]
                boxes = [
                    Box(*(tuple(slice(*ends) for ends in place) for place in box))
                    for box in header["boxes"]
                ]
                entry = file, boxes or [Box(place_of_all(shape), place_of_all(shape))]
                self.found.setdefault(name, []).append(entry)

    def read(self, name: str, boxes: Iterable[Box], like: Tensor) -> Tensor:
        """The numbers of some boxes of a tensor, of the shape and type of `like`.

        Raises UserError if they are not all there.
        """
        result, missing = torch.empty_like(like, device="cpu"), like.numel()
        for wanted in boxes:
            for file, stored in self.found.get(name, []):
                for box in stored:
                    both = overlap(wanted, box)
                    if both:
                        part = file.get_slice(name)[both[1]]
                        result[both[0]] = part.to(result)
                        missing -= part.numel()
        if missing:
            raise UserError(
                f"{self.checkpoint}: {missing} numbers of {name} are missing; use another one"
            )
        return result

    def whole(self, name: str) -> Tensor:
        """A whole tensor."""
        file, shape = self.found[name][0][0], self.shapes[name]
        if not shape:
            return file.get_tensor(name)
        like = file.get_slice(name)[:0].new_empty(shape)
        return self.read(name, [Box(place_of_all(shape), place_of_all(shape))], like)
