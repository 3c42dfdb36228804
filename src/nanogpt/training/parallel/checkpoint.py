"""Checkpoints of many ranks: each writes what it has, while training goes on.

    checkpoints/step-000500/model-00002-of-00004.safetensors       this rank's pieces of weights
                            optimizer-00002-of-00004.safetensors   and of the optimizer's state
                            state.json                             as one process writes it

No rank ever has the whole. A thread writes copies of the numbers. When all ranks have written, the
first gives the folder its name. What one layout wrote any other can read: see `training/pieces`.

Torch's distributed checkpoints do the same, but keep their index as a pickle.
"""

from collections import ChainMap
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import Optimizer

from nanogpt.config import Config
from nanogpt.errors import UserError
from nanogpt.files import write_json
from nanogpt.training import checkpoint
from nanogpt.training.parallel.layout import Layout
from nanogpt.training.parallel.mesh import Ranks
from nanogpt.training.pieces import Piece, PieceFiles, write_pieces

Pieces = dict[str, dict[str, Piece]]  # by kind of file and name
T = TypeVar("T")


def pieces_of(layout: Layout, optimizer: Optimizer) -> Pieces:
    """Copies of what this rank has to write."""
    found: Pieces = {"model": {}, "optimizer": {}}
    for part in layout.parts.values():
        if part.owned and part.tensor.numel():
            numbers = part.tensor.detach().to("cpu", copy=True)
            found["model"][part.name] = Piece(numbers, part.shape, part.place)
            for key, value in optimizer.state.get(part.tensor, {}).items():
                copy = torch.as_tensor(value).to("cpu", copy=True)
                where = (part.shape, part.place) if copy.ndim else ((), [])
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
        self, folder: Path, pieces: Pieces, state: checkpoint.TrainState, config: Config, best: bool
    ) -> None:
        """Write this rank's files; the first rank then makes a checkpoint of all of them."""
        path = folder / f"step-{state.step:06d}"
        hidden = folder / f".{path.name}.by{self.ranks.world}"  # other ranks leave other files
        number = f"{self.ranks.number:05d}-of-{self.ranks.world:05d}"
        files = {f"{kind}-{number}.safetensors": named for kind, named in pieces.items()}

        def write_own() -> dict[str, str]:
            hidden.mkdir(parents=True, exist_ok=True)
            return {name: write_pieces(hidden / name, named) for name, named in files.items()}

        def publish() -> None:
            saved = checkpoint.Saved(checkpoint.FORMAT, state, asdict(config), hashes)
            write_json(hidden / "state.json", asdict(saved))
            if path.exists():
                path.rename(folder / f".{path.name}.again.old")
            hidden.rename(path)
            checkpoint.point_at(folder, path.name, best)

        hashes = dict(ChainMap(*self.on_all_ranks(write_own)))
        self.on_first_rank(publish)

    def on_all_ranks(self, work: Callable[[], T]) -> list[T]:
        """Do some work on every rank. All get all results, or all raise the first UserError."""
        own: tuple[Any, str] = None, ""
        try:
            own = work(), ""
        except UserError as error:
            own = None, str(error)
        except OSError as error:
            place = f"rank {self.ranks.number}: {error.filename}"
            own = None, f"{place}: {error.strerror}; make room"
        everybody = [own] * self.ranks.world
        dist.all_gather_object(everybody, own, group=self.group)
        for _, trouble in everybody:
            if trouble:
                raise UserError(trouble)
        return [result for result, _ in everybody]  # type: ignore[misc]

    def on_first_rank(self, work: Callable[[], None]) -> None:
        """Do some work on the first rank; the others wait."""
        self.on_all_ranks(work if self.ranks.first else lambda: None)

    def merge(self, run: Path) -> None:
        """Make of the checkpoints what one process would have written."""

        def merge_both() -> None:
            for name in ("latest", "best"):
                if (run / "checkpoints" / name).exists():
                    checkpoint.merge(checkpoint.find_checkpoint(run, name))

        self.on_first_rank(merge_both)

    def restore(self, folder: Path, layout: Layout, optimizer: Optimizer) -> None:
        """Fill weights and the optimizer's state, whichever layout wrote them.

        Raises UserError if a file is missing or damaged.
        """
        hashes = checkpoint.read_saved(folder).sha256
        checked = sorted(hashes)[self.ranks.number :: self.ranks.world]
        self.on_all_ranks(lambda: checkpoint.check_intact(folder, {n: hashes[n] for n in checked}))
        weights, moments = (PieceFiles(folder, kind, hashes) for kind in ("model", "optimizer"))
        for part in layout.parts.values():
            part.tensor.data.copy_(weights.read(part.name, part.place, part.tensor))
        states: dict[str, dict[str, Tensor]] = {name: {} for name in layout.parts}
        for name, shape in moments.shapes.items():
            parameter, _, key = name.rpartition(".")
            if parameter in states:
                place, like = layout.parts[parameter].place, layout.parts[parameter].tensor
                found = moments.read(name, place, like) if shape else moments.whole(name)
                states[parameter][key] = found
        moved = (tensor for group in optimizer.param_groups for tensor in group["params"])
        state = {n: states[layout.by_tensor[id(x)].name] for n, x in enumerate(moved)}
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
