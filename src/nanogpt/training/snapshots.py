"""Snapshots: the weights at several moments of a training, small, so that it can be watched again.

    snapshots/step-000010.safetensors   the weights alone, in float16

A model changes most at the beginning, so the steps are spaced evenly on a logarithmic scale. A
snapshot is for looking at; only a checkpoint can be trained further.
"""

import re
from dataclasses import replace
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from nanogpt.config import ModelConfig, TrainConfig
from nanogpt.errors import UserError
from nanogpt.files import writing
from nanogpt.model.build import build
from nanogpt.model.gpt import GPT
from nanogpt.model.lora import plain_tensors

NAME = re.compile(r"step-([0-9]{6,18})\.safetensors")
UNFINISHED = re.compile(r"\.step-[0-9]{6,18}\.safetensors\.\w+")  # what a kill leaves


def snapshot_steps(settings: TrainConfig) -> list[int]:
    """The steps after which weights are kept: 0, the last, and others between, log-spaced.

    As many as train.snapshots says, fewer where the rounded steps coincide.

    >>> snapshot_steps(TrainConfig(snapshots=6, max_steps=1000, warmup_steps=0))
    [0, 1, 6, 32, 178, 1000]
    >>> snapshot_steps(TrainConfig(snapshots=1, max_steps=1000))
    [1000]
    """
    last, between = settings.max_steps, settings.snapshots - 2
    steps = {round(last ** (n / between)) for n in range(between)} if between > 0 else set()
    ends = [0, last][-settings.snapshots :] if settings.snapshots else []
    return sorted(steps.union(ends))


def find_snapshots(run: str | Path) -> dict[int, Path]:
    """The snapshots of a run by their steps, in order; whatever has another name is left out."""
    folder = Path(run) / "snapshots"
    named = [(NAME.fullmatch(path.name), path) for path in folder.glob("step-*.safetensors")]
    return dict(sorted((int(name[1]), path) for name, path in named if name and path.is_file()))


def save_snapshot(run: str | Path, model: GPT, step: int) -> Path:
    """Write the weights in float16, those of LoRA merged; the file is whole or absent.

    Returns its path.
    """
    path = Path(run) / "snapshots" / f"step-{step:06d}.safetensors"
    with writing(path) as file:
        file.write(save({name: halved(x) for name, x in plain_tensors(model).items()}))
    return path


def halved(x: Tensor) -> Tensor:
    """Float16, half the size, with three decimal digits; what counts or marks stays as it is."""
    return (x.half() if x.is_floating_point() else x).cpu().contiguous()


def load_snapshot(path: str | Path, config: ModelConfig) -> GPT:
    """The model of a snapshot, in float32. Raises UserError naming a file that is damaged.

    The size of its vocabulary is the file's: training takes it from the tokenizer.
    """
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} cannot be read ({error}); use another snapshot") from None
    floats = {k: x.float() if x.is_floating_point() else x for k, x in tensors.items()}
    if "wte.weight" in floats:
        config = replace(config, vocab_size=len(floats["wte.weight"]))
    return build(config, floats, path).eval()


def drop_later(run: str | Path, step: int) -> None:
    """Remove the snapshots of steps that will be done again, and what a kill left unfinished."""
    for path in (Path(run) / "snapshots").glob("*"):
        name = NAME.fullmatch(path.name)
        if UNFINISHED.fullmatch(path.name) or (name and int(name[1]) > step):
            path.unlink()
