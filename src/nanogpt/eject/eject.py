"""A recipe, or a run, as one file."""

import ast
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import torch

from nanogpt.config import Config, load_config, with_settings
from nanogpt.eject.bind import (
    bind_attributes,
    bind_parameters,
    merge_classes,
    narrow_types,
    unwrap_records,
)
from nanogpt.eject.collect import Collector
from nanogpt.eject.fold import Fold
from nanogpt.eject.inline import inline_calls, propagate
from nanogpt.eject.settings import FOLDER, Settings
from nanogpt.eject.write import file_text
from nanogpt.errors import UserError
from nanogpt.files import read_json
from nanogpt.model.gpt import GPT
from nanogpt.text.batches import BATCHES
from nanogpt.text.dataset import data_folder
from nanogpt.text.formats import load_tokenizer
from nanogpt.text.remote import is_url
from nanogpt.text.tokenfiles import read_token_file, token_dtype
from nanogpt.training.checkpoint import find_checkpoint, has_checkpoint, load_state
from nanogpt.training.records import check_is_run
from nanogpt.training.variants import check_choices

PROGRAM, ROOT = "nanogpt.eject.program", "main"  # from where everything else is reached


def eject(config: Config, name: str = "A recipe", file: str = "my_gpt.py") -> str:
    """The text of a file that does what these settings say, and nothing else.

    Raises UserError for settings that a file of its own cannot keep, and if ruff, which lays the
    text out, is not installed.
    """
    check_choices(config)
    config = fitting(config)
    refuse(config)
    # Shapes without numbers: layers complain of sizes that do not fit, but for those that compute.
    with torch.device("meta"), suppress(RuntimeError):
        GPT(config.model)
    world = Collector(Settings(config), PROGRAM, ROOT)
    repeat(world, LOADING)
    world.complete = True
    repeat(world, PASSES)
    return file_text(world, name, file)


def repeat(world: Collector, passes: Sequence[Callable[[Collector], None]]) -> None:
    """Run passes over a program until nothing changes."""
    before = ""
    while before != (now := "".join(ast.dump(unit.node) for unit in world.units.values())):
        before = now
        for run in passes:
            run(world)


def fold(world: Collector) -> None:
    """Simplify each definition for itself."""
    for unit in world.units.values():
        unit.node = Fold(world).visit(unit.node)


LOADING = (Collector.reach, fold, propagate)
PASSES = (
    Collector.reach, merge_classes, bind_attributes, bind_parameters, narrow_types, unwrap_records,
    inline_calls, fold, propagate,
)  # fmt: skip


def refuse(config: Config) -> None:
    """Raise UserError for what a file cannot do."""
    train = config.train
    for setting, value, kept in (
        ("train.init", train.init, ""),
        ("train.freeze", train.freeze, ""),
        ("train.lora_rank", train.lora_rank, 0),
        ("train.objective", train.objective, "next-token"),
        ("train.activation_checkpointing", train.activation_checkpointing, "none"),
    ):
        if value != kept:
            raise UserError(f"{setting}={value!r} cannot be ejected: use {kept!r}")
    apart = BATCHES[config.data.batches].documents_apart
    if apart and config.data.tokenizer == "char" and not config.data.roles:
        raise UserError(
            f"data.batches={config.data.batches!r} needs a tokenizer with an end of text: "
            "use random or sliding"
        )
    if config.data.stride > config.model.context_length:
        raise UserError(
            f"data.stride={config.data.stride}: use 0 to the context length, "
            f"{config.model.context_length}"
        )
    if train.precision == "float16":
        raise UserError("train.precision='float16' cannot be ejected: use bfloat16 or float32")


def settings_of_run(run: str | Path) -> Config:
    """The settings of a run. Raises UserError if there are none."""
    run = Path(run)
    check_is_run(run)
    if has_checkpoint(run):
        config = load_state(find_checkpoint(run))[1]
    else:
        config = load_config(run / "config.toml")
    data = data_folder(run, config)
    path = next(
        (f / "tokenizer.json" for f in (data, run) if (f / "tokenizer.json").exists()), None
    )
    config = with_settings(config, data={"folder": os.path.abspath(data)})
    return with_kind(config, path) if path else config


def fitting(config: Config) -> Config:
    """The settings with the kind of tokenizer that lies in data.folder, if there are tokens.

    Raises UserError for a tokenizer and for token files that a file of its own cannot read.
    """
    if is_url(config.data.folder):
        raise UserError(f"data.folder={config.data.folder} is a URL: copy the files, for eject")
    data = Path(config.data.folder or FOLDER)
    path = data / "tokenizer.json"
    if not path.exists() and not any(data.glob("*.bin")):
        return config
    if not path.exists():
        raise UserError(f"{path} is missing: copy the tokenizer of these token files there")
    config, tokenizer = with_kind(config, path), load_tokenizer(path)
    for name in ("train", "val"):
        path = data / f"{name}.bin"
        if not path.exists():
            raise UserError(f"{path} is missing: eject needs one file for each of train and val")
        ids = read_token_file(path, tokenizer).ids
        if path.stat().st_size != token_dtype(tokenizer.vocab_size).itemsize * len(ids):
            raise UserError(f"{path} is more than plain ids, which alone can be ejected")
    return config


def with_kind(config: Config, path: Path) -> Config:
    """The settings with the kind of tokenizer in a file. Raises UserError for another kind."""
    values = read_json(path)
    kind = values.get("type")
    if kind != "char" and (kind != "bpe" or values.get("pattern") != "gpt2"):
        raise UserError(f"{path} cuts text in a way that cannot be ejected")
    same = (config.data.tokenizer == "char") == (kind == "char")
    return config if same else with_settings(config, data={"tokenizer": kind})
