"""Pieces of tensors, in memory and in files.

A piece is a block of numbers, and its place in the whole tensor. Whoever knows that can put tensors
together again, or cut them in another way: what four ranks wrote, two can read, or one.

    model-00000-of-00004.safetensors   the pieces of one rank; the place of each in the header
    model.safetensors                  whole tensors: pieces that happen to be all of it
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from nanogpt.errors import UserError
from nanogpt.files import sha256
from nanogpt.model.build import write_tensors

# Along each dimension of the whole tensor, the spans that a piece is made of, in this order.
Place = list[list[slice]]


def place_of_all(shape: Sequence[int]) -> Place:
    """The place of a whole tensor."""
    return [[slice(0, n)] for n in shape]


def overlaps(a: Sequence[slice], b: Sequence[slice]) -> Iterator[tuple[slice, slice]]:
    """What spans of two pieces have in common, as each of them counts its own numbers.

    >>> list(overlaps([slice(0, 2), slice(4, 6)], [slice(1, 5)]))
    [(slice(1, 2, None), slice(0, 1, None)), (slice(2, 3, None), slice(3, 4, None))]
    """
    in_a = 0
    for x in a:
        in_b = 0
        for y in b:
            start, stop = max(x.start, y.start), min(x.stop, y.stop)
            if start < stop:
                to_a, to_b = in_a - x.start, in_b - y.start
                yield slice(start + to_a, stop + to_a), slice(start + to_b, stop + to_b)
            in_b += y.stop - y.start
        in_a += x.stop - x.start


def copy_overlap(target: Tensor, target_place: Place, source: Any, source_place: Place) -> int:
    """Copy what two pieces of a tensor have in common. Returns how many numbers that is."""
    count = 0
    for pairs in product(*map(overlaps, target_place, source_place)):
        numbers = source[tuple(there for _, there in pairs)]
        target[tuple(here for here, _ in pairs)] = numbers
        count += numbers.numel()
    return count


@dataclass(frozen=True)
class Piece:
    """Numbers that a rank writes, and where they belong."""

    numbers: Tensor
    shape: Sequence[int]  # of the whole
    place: Place

    def header(self) -> dict[str, Any]:
        """The place, as JSON has it."""
        place = [[(span.start, span.stop) for span in spans] for spans in self.place]
        return {"shape": list(self.shape), "place": place}


def write_pieces(path: Path, pieces: Mapping[str, Piece]) -> str:
    """Write a file of pieces, and wait until the disk has it. Returns its SHA-256."""
    header = json.dumps({name: piece.header() for name, piece in pieces.items()})
    numbers = {name: piece.numbers for name, piece in pieces.items()}
    write_tensors(path, numbers, {"pieces": header})
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return sha256(path)


class PieceFiles:
    """The tensors of a checkpoint, whoever wrote it: `kind` is model or optimizer.

    `names` are those of its files, as state.json has them: a merge may have left others.
    Nothing is read but what is asked for. Raises UserError for files that cannot be read.
    """

    def __init__(self, checkpoint: Path, kind: str, names: Iterable[str]) -> None:
        self.checkpoint = checkpoint
        self.found: dict[str, list[tuple[Any, Place]]] = {}
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
                header = headers.get(name, {"shape": shape, "place": [[(0, n)] for n in shape]})
                self.shapes[name] = header["shape"]
                place = [[slice(*ends) for ends in spans] for spans in header["place"]]
                self.found.setdefault(name, []).append((file, place))

    def read(self, name: str, place: Place, like: Tensor) -> Tensor:
        """A piece of a tensor, of the shape and type of `like`.

        Raises UserError if it is not all there.
        """
        result, missing = torch.empty_like(like, device="cpu"), like.numel()
        for file, stored in self.found.get(name, []):
            missing -= copy_overlap(result, place, file.get_slice(name), stored)
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
        return self.read(name, place_of_all(shape), like)
