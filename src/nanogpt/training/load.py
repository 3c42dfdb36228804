"""Open anything that was trained: a run, a Hugging Face folder, a model by its name."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from nanogpt.config import PRESETS, Config, ModelConfig
from nanogpt.errors import UserError
from nanogpt.interop.huggingface import fetch, from_pretrained, hugging_face_config
from nanogpt.model.gpt import GPT
from nanogpt.text.formats import find_tokenizer
from nanogpt.text.tokenizer import BaseTokenizer
from nanogpt.training.checkpoint import (
    find_checkpoint,
    load_state,
    load_tokenizer_of,
    load_weights,
)


class Loaded(NamedTuple):
    """What it takes to generate."""

    model: GPT
    tokenizer: BaseTokenizer
    config: Config


def load(source: str | Path, checkpoint: str = "latest") -> Loaded:
    """Model, tokenizer and settings, ready to generate.

    `source` is a run folder, a Hugging Face folder, or what is fetched: a published size of GPT-2
    by name, or hub:NAME. `checkpoint` is "latest" or "best". Raises UserError if it is none of
    them.
    """
    run = Path(source)
    folder = hugging_face_folder(run)
    if folder:
        model, tokenizer = from_pretrained(folder), find_tokenizer(own_tokenizer(folder))
        if tokenizer.vocab_size > model.config.vocab_size:
            raise UserError(
                f"{folder}: the tokenizer has {tokenizer.vocab_size:,} tokens, but the model "
                f"{model.config.vocab_size:,}; put its own tokenizer.json into the folder"
            )
        return Loaded(model, tokenizer, Config(model=model.config))
    path = find_checkpoint(run, checkpoint)
    state, config = load_state(path)
    tokenizer = load_tokenizer_of(run, state, config)
    return Loaded(load_weights(path, config.model).eval(), tokenizer, config)


def load_model(source: str | Path) -> GPT:
    """The model alone, of a folder that may lack a tokenizer. Raises UserError as `load` does."""
    folder = hugging_face_folder(Path(source))
    return from_pretrained(folder) if folder else load(source).model


def shape_and_tokenizer(source: str | Path) -> tuple[ModelConfig, str]:
    """The shape of what `load` opens, and where its tokenizer is, without the weights.

    Raises UserError if there is nothing to open, or if a run has not the tokenizer it began with.
    """
    folder = hugging_face_folder(Path(source))
    if folder:
        return hugging_face_config(folder), own_tokenizer(folder)
    state, config = load_state(find_checkpoint(source))
    load_tokenizer_of(source, state, config)
    return config.model, str(Path(source) / "tokenizer.json")


def with_shape_of(values: Mapping[str, Any], init: str) -> dict[str, Any]:
    """Settings by section, with the shape and the tokenizer of the weights they begin with.

    A section `model` of their own stays as it is. Raises UserError if there are no such weights.
    """
    model, tokenizer = shape_and_tokenizer(init)
    if "model" in values:
        return dict(values)
    data = {"tokenizer": tokenizer, **values.get("data", {})}
    return {**values, "model": asdict(model), "data": data}


def hugging_face_folder(source: str | Path) -> Path | None:
    """The Hugging Face folder that is meant, fetched if need be; None if it is a run."""
    source = Path(source)
    if (source / "config.json").exists():
        return source
    name = str(source)
    if name.startswith("hub:") or (name in PRESETS and not source.exists()):
        return fetch(name.removeprefix("hub:"))
    return None


def own_tokenizer(folder: str | Path) -> str:
    """The tokenizer in a Hugging Face folder, by its path; GPT-2's if it has none."""
    folder = Path(folder)
    files = ("tokenizer.json", "vocab.json")
    # The whole path: a folder may be called gpt2, which is also the name of a tokenizer.
    return str(folder.resolve()) if any((folder / file).exists() for file in files) else "gpt2"
