"""A model made of tensors that were read from a file, and tensors that are written to one."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from nanogpt.config import ModelConfig
from nanogpt.errors import UserError
from nanogpt.model.gpt import GPT, UntiedHead


def build(
    config: ModelConfig,
    tensors: Mapping[str, Tensor],
    path: str | Path,
    make: Callable[[ModelConfig], GPT] = GPT,
) -> GPT:
    """A model made of these tensors, without a copy. Raises UserError if they do not fit.

    `make` makes the model whose tensors they are, such as a GPT with LoRA.
    """
    path = Path(path)
    layers = len({name.split(".")[1] for name in tensors if name.startswith("h.")})
    if layers != config.n_layer:  # before as many are built
        raise UserError(f"{path} has {layers} layers, but the settings say {config.n_layer}")
    with torch.device("meta"):  # shapes only: fresh weights would be thrown away at once
        model = make(config)
    check_tensors(model, tensors, path)
    if any(name not in tensors for name, _ in model.named_buffers()):
        model = make(config)  # a table that a variant works out is in no file and needs its numbers
    model.load_state_dict(tensors, assign=True)
    return model


def write_tensors(
    path: str | Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Write a safetensors file. Raises OSError, as for any other file, if the disk is full."""
    try:
        save_file(dict(tensors), path, metadata)
    except SafetensorError as error:  # it has the number of the error only in its text
        number = re.search(r"os error (\d+)", str(error))
        if not number:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from None


def check_tensors(model: GPT, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raise UserError naming the first tensor that is missing, too many, or of another kind."""
    ours = model.state_dict()
    for name in sorted(ours.keys() | tensors.keys()):
        found = tuple(tensors[name].shape) if name in tensors else "absent"
        wanted = tuple(ours[name].shape) if name in ours else "absent"
        if found != wanted:
            raise UserError(f"{path}: {name} is {found}, but the settings make it {wanted}")
        if tensors[name].dtype != ours[name].dtype:
            raise UserError(
                f"{path}: {name} is of {tensors[name].dtype}, but should be of {ours[name].dtype}"
            )


def layers_of_tokens(model: GPT) -> list[nn.Embedding]:
    """The layers whose weight has a row for each token: the embedding, and an untied head."""
    head = model.lm_head
    return [model.wte, head] if isinstance(head, UntiedHead) else [model.wte]


def resize_vocabulary(model: GPT, vocab_size: int) -> None:
    """Make room for tokens that were added to the tokenizer; the others keep their vectors.

    A new token starts as the mean of all: unremarkable, so that it does not drown the others
    before it has learned anything (Hewitt 2021). Raises UserError for a smaller vocabulary.
    """
    old, new = model.config.vocab_size, vocab_size - model.config.vocab_size
    if new < 0:
        raise UserError(f"vocab_size={vocab_size} would lose tokens: use at least {old}")
    for layer in layers_of_tokens(model):
        rows = layer.weight.data
        vectors = torch.cat([rows, rows.mean(dim=0, keepdim=True).repeat(new, 1)])
        layer.weight = nn.Parameter(vectors, layer.weight.requires_grad)
        layer.num_embeddings = vocab_size
    model.config = replace(model.config, vocab_size=vocab_size)
