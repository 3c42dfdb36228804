"""A model made of tensors that were read from a file."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from nanogpt.config import ModelConfig
from nanogpt.errors import UserError
from nanogpt.model.gpt import GPT


def build(config: ModelConfig, tensors: Mapping[str, Tensor], path: Path) -> GPT:
    """A model made of these tensors, without a copy. Raises UserError if they do not fit."""
    with torch.device("meta"):  # shapes only: fresh weights would be thrown away at once
        model = GPT(config)
    check_tensors(model, tensors, path)
    if any(name not in tensors for name, _ in model.named_buffers()):
        model = GPT(config)  # a table that a variant works out is in no file and needs its numbers
    model.load_state_dict(tensors, assign=True)
    return model


def check_tensors(model: GPT, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raise UserError naming the first tensor that is missing, too many, or of another shape."""
    ours = {name: tensor.shape for name, tensor in model.state_dict().items()}
    for name in sorted(ours.keys() | tensors.keys()):
        found = tuple(tensors[name].shape) if name in tensors else "absent"
        wanted = tuple(ours[name]) if name in ours else "absent"
        if found != wanted:
            raise UserError(f"{path}: {name} is {found}, but the settings make it {wanted}")
