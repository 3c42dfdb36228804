"""Settings on the command line: every field of every section becomes an option.

    nanogpt train configs/demo.toml --model.n-layer 4 --train.lr 1e-3

Defaults give way to the recipe, the recipe to the command line.
"""

import argparse
import os
import sys
from argparse import SUPPRESS
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from importlib.resources import files
from pathlib import Path
from typing import Any, NoReturn

from nanogpt.config import (
    Config,
    choose,
    config_from_dict,
    explanations,
    read_toml,
    section_name,
)
from nanogpt.errors import UserError, did_you_mean


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are one line and whose options are never guessed."""

    def __init__(self, command: str, description: str) -> None:
        super().__init__(prog=f"nanogpt {command}", description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see `{self.prog} --help`")

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Parse all arguments. Raises UserError for one that is unknown.

        An option may be written as a recipe writes it, too: --model.n_layer.
        """
        end = arguments.index("--") if "--" in arguments else len(arguments)
        arguments = [*map(with_dashes, arguments[:end]), *arguments[end:]]
        # Unknown options come first: what stands behind one may look like another argument.
        known = [option for action in self._actions for option in action.option_strings]
        for argument in arguments:
            option = argument.partition("=")[0]
            if argument == "--":
                break
            if option.startswith("--") and option not in known:
                raise UserError(f"{option} is not an option: {did_you_mean(option, known)}")
        return self.parse_args(arguments)

    def add_settings(self, *sections: type) -> None:
        """Add one option for each field of the sections."""
        for cls in sections:
            section = section_name(cls)
            group = self.add_argument_group(f"{section} settings", cls.__doc__)
            texts = explanations(cls)
            for field in fields(cls):
                default = getattr(cls, field.name)
                group.add_argument(
                    f"--{section}.{field.name.replace('_', '-')}",
                    dest=f"{section}.{field.name}",
                    metavar=type(default).__name__.upper(),
                    default=SUPPRESS,
                    help=f"{texts[field.name]} (default: {default!r})".replace("%", "%%"),
                )


def with_dashes(argument: str) -> str:
    """An option with dashes for its underscores; its value and any other argument as they are.

    >>> with_dashes("--model.n_layer=4"), with_dashes("--sample.prompt=a_b"), with_dashes("a_b")
    ('--model.n-layer=4', '--sample.prompt=a_b', 'a_b')
    """
    option, equals, value = argument.partition("=")
    return option.replace("_", "-") + equals + value if option.startswith("--") else argument


def settings_in(arguments: argparse.Namespace) -> dict[str, dict[str, str]]:
    """The settings that were given on the command line, by section."""
    nested: dict[str, dict[str, str]] = {}
    for key, value in vars(arguments).items():
        section, dot, name = key.partition(".")
        if dot:
            nested.setdefault(section, {})[name] = value
    return nested


def load_settings(recipe: str | None, arguments: argparse.Namespace) -> Config:
    """Defaults, then the recipe, then the command line. Raises UserError for what cannot be.

    Where training begins with other weights and there is no recipe, their shape and their
    tokenizer stand in for one.
    """
    values: dict[str, Any] = read_toml(find_recipe(recipe)) if recipe else {}
    init = getattr(arguments, "train.init", "")
    if init and not recipe:
        values = settings_of_weights(Path(init))
    for section, settings in settings_in(arguments).items():
        values[section] = {**values.get(section, {}), **settings}
    from nanogpt.device import resolve
    from nanogpt.training.variants import check_choices

    try:
        config = config_from_dict(values)
        check_choices(config)
        resolve(config.train.device, config.train.precision)
    except UserError as error:
        raise UserError(f"{recipe}: {error}" if recipe else str(error)) from None
    return config


def settings_of_weights(path: Path) -> dict[str, Any]:
    """The shape and the tokenizer of a run, or of a folder of Hugging Face's."""
    from nanogpt.interop.huggingface import hugging_face_config
    from nanogpt.training.checkpoint import find_checkpoint, load_state
    from nanogpt.training.load import hugging_face_folder, own_tokenizer

    folder = hugging_face_folder(path)
    if folder:
        model = hugging_face_config(folder)
        tokenizer = own_tokenizer(folder)
    else:
        model = load_state(find_checkpoint(path))[1].model
        tokenizer = str(path / "tokenizer.json")
    return {"model": asdict(model), "data": {"tokenizer": tokenizer}}


def find_recipe(name: str) -> Path:
    """A recipe by its path, or one of ours by its name. Raises UserError if there is none."""
    if Path(name).is_file():
        return Path(name)
    recipes = {path.stem: path for path in recipe_folder().glob("*.toml")}
    if Path(name).suffix or "/" in name:
        raise UserError(
            f"{name}: no such recipe; use a path, or one of {', '.join(sorted(recipes))}"
        )
    return choose(recipes, "recipe", name)


def recipe_folder() -> Path:
    """The recipes: inside an installed package, or beside the source in a checkout."""
    package = Path(str(files("nanogpt")))
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent.parent / "configs"


def run_action(
    command: str,
    about: str,
    actions: Mapping[str, Callable[[Sequence[str]], int | None]],
    arguments: Sequence[str],
) -> int:
    """Call the action that the first argument names, and return its exit code.

    Raises UserError if there is none such.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"usage: nanogpt {command} {' | '.join(actions)}\n\n{about.strip()}")
        for name, action in actions.items():
            print(f"  {name:<8}{(action.__doc__ or '').partition('.')[0]}")
        return 0
    if arguments[0] not in actions:
        raise UserError(f"{arguments[0]!r} is no action: {did_you_mean(arguments[0], actions)}")
    return actions[arguments[0]](arguments[1:]) or 0


def read_argument(text: str) -> str:
    """The argument itself, or all of standard input where it is "-", as UTF-8.

    Raises UserError for what is not.
    """
    data = sys.stdin.buffer.read() if text == "-" else os.fsencode(text)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"the input is not UTF-8 text (byte {error.start}); convert it") from None
