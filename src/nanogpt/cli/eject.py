"""nanogpt eject: one file that holds a recipe, and nothing else."""

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from nanogpt.cli.screen import Screen
from nanogpt.cli.settings import (
    Parser,
    file_to_write,
    load_settings,
    named,
    recipes,
    settings_in,
)
from nanogpt.cli.streams import shown_meanwhile
from nanogpt.config import (
    Config,
    DataConfig,
    ModelConfig,
    SampleConfig,
    TrainConfig,
    config_from_dict,
)
from nanogpt.errors import UserError
from nanogpt.files import write_text

if TYPE_CHECKING:
    import argparse


def main(arguments: Sequence[str]) -> None:
    """Write the file."""
    parser = Parser(
        "eject",
        "Write a recipe as one file: tokenizer, batches, model, optimizer, loop, checkpoints and\n"
        "sampling, without any branch or setting that the recipe does not use. It needs torch and\n"
        "numpy alone, computes the same numbers, and shares its checkpoints with nanogpt.",
    )
    parser.add_argument("recipe", type=named, help="a run, a TOML file, or the name of a recipe")
    parser.add_argument("file", type=file_to_write, help="the file to write, such as my_gpt.py")
    parser.add_argument("--force", action="store_true", help="replace a file that is there")
    parser.list_names("recipes", recipes())
    parser.add_settings(ModelConfig, DataConfig, TrainConfig, SampleConfig)
    options = parser.parse(arguments)
    if options.file.exists() and not options.force:
        raise UserError(f"{options.file} exists: name another file, or add --force")
    config = settings_of(options)
    with shown_meanwhile("loading torch ..."):
        from nanogpt.eject.eject import eject
        from nanogpt.eject.settings import FOLDER
    path = Path(options.recipe)
    name = path.stem if path.suffix == ".toml" else path.resolve().name
    with Screen(stderr=True).status("taking out what it does not use ..."):
        text = eject(config, name, options.file.name)
    write_text(options.file, text)
    count = sum(bool(line.strip()) for line in text.split("\n"))
    console = Screen(soft_wrap=True, highlight=False)
    console.print(f"{options.file}: {count} lines. Train, and let it write:\n", markup=False)
    folder = config.data.folder or FOLDER
    if not Path(folder, "tokenizer.json").exists():
        console.print(shlex.join(preparing(config.data, folder)), markup=False)
    for action in ("train", "sample"):
        words = ["python", str(options.file), action, f"runs/{name}-file"]
        console.print(shlex.join(words), markup=False)


def preparing(data: DataConfig, folder: str) -> list[str]:
    """The command that makes the token files."""
    from nanogpt.text.dataset import ORDERED

    usual, words = DataConfig(), ["nanogpt", "prepare", "--data.folder", folder]
    for name in ORDERED:
        value = getattr(data, name)
        if value != getattr(usual, name):
            text = str(value).lower() if isinstance(value, bool) else str(value)
            words += [f"--data.{name.replace('_', '-')}", text]
    return words


def settings_of(options: "argparse.Namespace") -> Config:
    """The settings of the recipe or the run, with those of the command line."""
    if not Path(options.recipe).is_dir():
        return load_settings(options.recipe, options)
    from nanogpt.eject.eject import settings_of_run

    values = asdict(settings_of_run(options.recipe))
    for section, settings in settings_in(options).items():
        values[section] = {**values[section], **settings}
    return config_from_dict(values)
