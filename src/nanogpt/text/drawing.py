"""Batches as a person can look at them: the words, their targets, who may look at whom.

Axes: B sequences in a batch, T positions.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nanogpt.config import IGNORED
from nanogpt.files import writing
from nanogpt.text.batches import Batch, IntArray

Name = Callable[[int], str]  # how one token is written
Visible = Callable[[Batch, int], NDArray[np.bool_]]  # which token of a row may look at which


def token_names(batch: Batch, name: Name) -> tuple[list[list[str]], list[list[str]]]:
    """Inputs and targets of a batch as strings, "" for an ignored target: two lists (B, T)."""
    ids, targets = (
        [["" if i == IGNORED else name(i) for i in row] for row in array.tolist()]
        for array in (batch.ids, batch.targets)
    )
    return ids, targets


def document_numbers_of(batch: Batch) -> IntArray:
    """The number of the document that each token is in, 0 for padding: (B, T)."""
    return np.ones_like(batch.ids) if batch.documents is None else batch.documents


def row_with_most_documents(batch: Batch) -> int:
    """The row that shows most about how documents are kept apart."""
    return max(range(len(batch.ids)), key=lambda n: len(set(document_numbers_of(batch)[n])))


def draw_batches(
    drawn: Mapping[str, Batch], name: Name, visible: Visible, path: str | Path
) -> None:
    """A picture: for each kind of batches the tokens, their targets, and the mask of one row."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 2.9 * len(drawn)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(drawn), 2, squeeze=False, width_ratios=[4, 1])
    for (kind, batch), (left, right) in zip(drawn.items(), grid, strict=True):
        ids, targets = token_names(batch, name)
        numbers = document_numbers_of(batch)
        left.imshow(
            np.where(numbers > 0, (numbers - 1) % 8 + 1, 0), cmap="Pastel1_r", vmin=0, vmax=8,
            aspect="auto",
        )  # fmt: skip
        for y, (inputs, outputs) in enumerate(zip(ids, targets, strict=True)):
            for x, (token, target) in enumerate(zip(inputs, outputs, strict=True)):
                shown = token if numbers[y, x] else "·"
                left.text(x, y - 0.15, shown, ha="center", parse_math=False, fontsize=9)
                left.text(
                    x, y + 0.3, f"→ {target or '–'}", ha="center", parse_math=False, fontsize=8,
                    color="#a03010" if target else "#999999",
                )  # fmt: skip
        left.set_title(f"{kind}: token above, its target below, coloured by document", loc="left")
        left.set_yticks(range(len(ids)), [f"row {n}" for n in range(len(ids))])
        row = row_with_most_documents(batch)
        right.imshow(visible(batch, row), cmap="Blues", vmin=0, vmax=1.4)
        right.set_title(f"row {row}: who looks at whom", loc="left")
        for axes in (left, right):
            axes.set_xticks([])
            axes.tick_params(length=0)
        right.set_yticks([])
    with writing(Path(path)) as file:
        figure.savefig(file, format="png", dpi=100)
