"""A recipe, or a run, as one file."""

import ast
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from nanogpt.config import Config, load_config, with_settings
from nanogpt.eject.bind import bind_attributes, bind_parameters, merge_classes, unwrap_records
from nanogpt.eject.collect import Collector
from nanogpt.eject.fold import Fold
from nanogpt.eject.inline import inline_calls, propagate
from nanogpt.eject.settings import Settings
from nanogpt.eject.write import file_text
from nanogpt.errors import UserError
from nanogpt.files import read_json
from nanogpt.text.batches import BATCHES
from nanogpt.text.dataset import data_folder
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
    refuse(config)
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
    Collector.reach, merge_classes, bind_attributes, bind_parameters, unwrap_records, inline_calls,
    fold, propagate,
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
    if train.precision == "float16":
        raise UserError("train.precision='float16' cannot be ejected: use bfloat16 or float32")


def settings_of_run(run: str | Path) -> Config:
    """The settings of a run as a file keeps them. Raises UserError if there are none.

    Also if its tokenizer cuts words in another way than GPT-2's, or its token files are many.
    """
    run = Path(run)
    check_is_run(run)
    if has_checkpoint(run):
        config = load_state(find_checkpoint(run))[1]
    else:
        config = load_config(run / "config.toml")
    tokenizer = read_json(run / "tokenizer.json")
    if tokenizer.get("type") == "char":
        config = replace(config, data=replace(config.data, tokenizer="char"))
    elif tokenizer.get("pattern") != "gpt2":
        raise UserError(f"{run}: its tokenizer cuts words in a way that cannot be ejected")
    data = data_folder(run, config)
    if not all((data / f"{name}.bin").is_file() for name in ("train", "val")):
        raise UserError(f"{data} should hold train.bin and val.bin; more files cannot be ejected")
    return with_settings(config, data={"folder": os.path.abspath(data)})
