"""Checkpoints of many ranks: each writes what it has, while training goes on.

    checkpoints/step-000500/model-00002-of-00004.safetensors       this rank's pieces of weights
                            optimizer-00002-of-00004.safetensors   and of the optimizer's state
                            state.json                             as one process writes it

No rank ever has the whole. A thread writes copies of the numbers. When all ranks have written, the
first gives the folder its name. What one layout wrote any other can read: see `training/pieces`.

Torch's distributed checkpoints do the same, but keep their index as a pickle.
"""

import json
import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.optim import Optimizer

from nanogpt.config import Config
from nanogpt.errors import UserError
from nanogpt.files import sha256, write_json
from nanogpt.model.build import write_tensors
from nanogpt.training.checkpoint import (
    FORMAT,
    Saved,
    TrainState,
    check_intact,
    find_checkpoint,
    merge,
    point_at,
    read_saved,
)
from nanogpt.training.parallel.layout import Layout
from nanogpt.training.parallel.mesh import Ranks
from nanogpt.training.pieces import Box, Piece, PieceFiles

Pieces = dict[str, dict[str, Piece]]  # by kind of file and name


def pieces_of(layout: Layout, optimizer: Optimizer) -> Pieces:
    """Copies of what this rank has to write."""
    found: Pieces = {"model": {}, "optimizer": {}}
    for part in layout.parts.values():
        if part.counts and part.tensor.numel():
            own = part.tensor.to("cpu", copy=True)
            found["model"][part.name] = Piece(own, part.shape, part.boxes)
            for key, value in optimizer.state.get(part.tensor, {}).items():
                copy = torch.as_tensor(value).to("cpu", copy=True)
                where = (part.shape, part.boxes) if copy.ndim else ((), [Box((), ())])
                found["optimizer"][f"{part.name}.{key}"] = Piece(copy, *where)
    return found


class Saver:
    """Writes checkpoints beside the training, one at a time, and reads them."""

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        # A group of its own, so that its messages and those of the training do not mix.
        self.group = dist.new_group(backend="gloo", timeout=ranks.limit)
        self.thread = ThreadPoolExecutor(1)
        self.writing: Future[None] | None = None

    def save(self, folder: Path, layout: Layout, optimizer: Optimizer, *state: Any) -> None:
        """Copy what this rank has, and begin to write it as soon as the last one is written."""
        self.finish()
        pieces = pieces_of(layout, optimizer)
        self.writing = self.thread.submit(self.write, folder / "checkpoints", pieces, *state)

    def finish(self) -> None:
        """Wait until all is written. Raises UserError if a rank could not write."""
        writing, self.writing = self.writing, None
        if writing:
            writing.result()

    def write(
        self, folder: Path, pieces: Pieces, state: TrainState, config: Config, best: bool
    ) -> None:
        """Write this rank's files; the first rank then makes a checkpoint of all of them."""
        path = folder / f"step-{state.step:06d}"
        hidden = folder / f".{path.name}.unfinished"
        hashes: dict[str, str] = {}
        with self.all_or_none():
            hidden.mkdir(parents=True, exist_ok=True)
            for kind, named in pieces.items():
                file = (
                    hidden / f"{kind}-{self.ranks.number:05d}-of-{self.ranks.world:05d}.safetensors"
                )
                header = json.dumps({name: piece.header() for name, piece in named.items()})
                numbers = {name: piece.numbers for name, piece in named.items()}
                write_tensors(file, numbers, {"pieces": header})
                with file.open("rb") as opened:
                    os.fsync(opened.fileno())
                hashes[file.name] = sha256(file)
        for theirs in self.tell(hashes):
            hashes |= theirs
        with self.all_or_none():
            if self.ranks.first:
                for file in hidden.iterdir():
                    if file.name not in hashes:  # of more ranks, which were killed at this step
                        file.unlink()
                saved = Saved(FORMAT, state, asdict(config), hashes)
                write_json(hidden / "state.json", asdict(saved))
                if path.exists():
                    path.rename(folder / f".{path.name}.again.old")
                hidden.rename(path)
                point_at(folder, path.name, best)

    @contextmanager
    def all_or_none(self) -> Iterator[None]:
        """What every rank does here all have done afterwards, or all raise UserError."""
        trouble = ""
        try:
            yield
        except UserError as error:
            trouble = str(error)
        except OSError as error:
            trouble = f"rank {self.ranks.number}: {error.filename}: {error.strerror}; make room"
        for found in filter(None, self.tell(trouble)):
            raise UserError(found)

    def tell(self, mine: Any) -> list[Any]:
        """What every rank has to say, by rank."""
        everybody = [None] * self.ranks.world
        dist.all_gather_object(everybody, mine, group=self.group)
        return everybody

    def merge(self, run: Path) -> None:
        """Make of the checkpoints what one process would have written."""
        with self.all_or_none():
            for name in ("latest", "best") if self.ranks.first else ():
                if (run / "checkpoints" / name).exists():
                    merge(find_checkpoint(run, name))

    def restore(self, checkpoint: Path, layout: Layout, optimizer: Optimizer) -> None:
        """Fill weights and the optimizer's state, whichever layout wrote them.

        Raises UserError if a file is missing or damaged, or belongs to another optimizer.
        """
        hashes = read_saved(checkpoint).sha256
        mine = sorted(hashes)[self.ranks.number :: self.ranks.world]  # each checks some of them
        with self.all_or_none():
            check_intact(checkpoint, {name: hashes[name] for name in mine})
        weights, moments = (PieceFiles(checkpoint, kind, hashes) for kind in ("model", "optimizer"))
        by_name: dict[str, list[str]] = {}
        for name in moments.shapes:
            by_name.setdefault(name.rpartition(".")[0], []).append(name)
        states = []
        for part in layout.parts.values():
            part.tensor.copy_(weights.read(part.name, part.boxes, part.tensor))
        for tensor in (tensor for group in optimizer.param_groups for tensor in group["params"]):
            part = layout.by_tensor[id(tensor)]
            states.append({
                name.rpartition(".")[2]: moments.read(name, part.boxes, tensor)
                if moments.shapes[name] else moments.whole(name)
                for name in by_name.get(part.name, ())
            })  # fmt: skip
        optimizer.load_state_dict({**optimizer.state_dict(), "state": dict(enumerate(states))})
