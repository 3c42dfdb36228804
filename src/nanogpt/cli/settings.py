"""Settings on the command line: every field of every section becomes an option.

    nanogpt train configs/demo.toml --model.n-layer 4 --train.lr 1e-3

Defaults give way to the recipe, the recipe to the command line.
"""

import argparse
import difflib
import itertools
import json
import math
import os
import re
import sys
import textwrap
from argparse import SUPPRESS
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from nanogpt.cli.streams import shown_meanwhile
from nanogpt.config import (
    Config,
    choose,
    config_from_dict,
    explanations,
    read_toml,
    section_name,
)
from nanogpt.errors import UserError, did_you_mean
from nanogpt.files import check_is_file_or_free, read_text
from nanogpt.lab.plugin import load_plugin
from nanogpt.memory import refuse_impossible

if TYPE_CHECKING:
    from nanogpt.device import Compute

# The settings that people change; `--help` shows these, `--help-all` shows all.
COMMON = (
    "model.context_length", "model.n_layer", "model.n_head", "model.n_embd", "model.dropout",
    "model.position",
    "data.source", "data.folder", "data.tokenizer", "data.vocab_size", "data.batches",
    "train.objective", "train.max_steps", "train.batch_size", "train.grad_accum_steps",
    "train.optimizer", "train.lr", "train.warmup_steps", "train.eval_interval", "train.seed",
    "train.device",
    "sample.prompt", "sample.temperature", "parallel.processes",
)  # fmt: skip

LONGEST_INPUT = 100_000_000  # bytes that are read from standard input

# Given instead of arguments, it makes a command answer with its parser or its actions.
ASK: tuple[str, ...] = ("what can be given here?",)


class Answer(Exception):
    """What a command that was called with ASK can be given: its parser, or its actions."""

    def __init__(self, about: "Parser | Actions") -> None:
        super().__init__()
        self.about = about


Actions = Mapping[str, Callable[[Sequence[str]], int | None]]


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are one line and whose options are never guessed."""

    def __init__(self, command: str, description: str) -> None:
        super().__init__(
            prog=f"nanogpt {command}", description=description, allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        self.add_argument("--plugin", metavar="FILE", help="a Python file that adds variants")
        self.names: list[str] = []  # of recipes or studies that can be given
        self.help_of_hidden: dict[argparse.Action, str] = {}

    def print_help(self, file: Any = None) -> None:
        """Print it, and fail where that fails: argparse's own would not notice."""
        print(self.format_help(), end="", file=file)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see `{self.prog} --help`")

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Parse all arguments. Raises UserError for one that is unknown.

        An option may be written as a recipe writes it, too: --model.n_layer.
        """
        if arguments is ASK:
            raise Answer(self)
        arguments = [*self.words(arguments)]
        if "--help-all" in arguments:
            for action, text in self.help_of_hidden.items():
                action.help = text
            self.print_help()
            self.exit()
        return self.parse_args(arguments)

    def words(self, arguments: Sequence[str]) -> Iterator[str]:
        """The arguments for argparse: options with dashes, and each with its value in one word.

        So a value is never read as an option. Loads the files of --plugin. Raises UserError for an
        option that is unknown or has no value.
        """
        rest = iter(arguments)
        for word in rest:
            option, equals, value = word.partition("=")
            option = option.replace("_", "-") if option.startswith("--") else option
            action = self._option_string_actions.get(option)
            if word == "--":
                yield from (word, *rest)
            elif action is None and is_option(word):
                raise UserError(f"{option} is not an option: {self.meant(option)}")
            elif action is None:
                yield word
            elif action.nargs is not None:
                yield option + equals + value
            else:
                given = value if equals else next(rest, None)
                if given is None:
                    raise UserError(f"{option} needs a value: {option} {action.metavar or 'TEXT'}")
                if given == "--" or (not equals and self.knows(given)):
                    raise UserError(
                        f"{option} needs a value, and {given} is an option; write "
                        f"{option}={given if given != '--' else 'VALUE'} if it is meant"
                    )
                if option == "--plugin":
                    load_plugin(given)
                else:
                    yield f"{option}={given}"

    def knows(self, word: str) -> bool:
        """Whether a word is one of the options, with or without a value."""
        return word.partition("=")[0].replace("_", "-") in self._option_string_actions

    def meant(self, option: str) -> str:
        """The end of an error message about an unknown option."""
        known, name = list(self._option_string_actions), option.lstrip("-")
        for close in (
            [each for each in known if each.rpartition(".")[2] == name],  # --lr for --train.lr
            difflib.get_close_matches(option, known, n=1) if option[:2] == "--" else [],
        ):
            if close:
                return f"did you mean {close[0]}?"
        return f"see `{self.prog} --help`; a text that begins with a dash goes after --"

    def format_usage(self) -> str:
        """One line: with dozens of settings argparse's own would fill the screen."""
        formatter = self._get_formatter()
        formatter.add_usage(None, self._get_positional_actions(), [], "usage: ")
        return formatter.format_help().rstrip() + " [options]\n"

    def format_help(self) -> str:
        self.usage = self.format_usage().removeprefix("usage: ").rstrip()
        return super().format_help()

    def add_recipe(self, explanation: str = "", **more: Any) -> None:
        """Add the argument that names a recipe, and list ours below the options."""
        text = explanation or "a TOML file, or the name of a recipe below"
        self.add_argument("recipe", nargs="?", type=named, help=text, **more)
        self.list_names("recipes", recipes())

    def list_names(self, title: str, files: Mapping[str, Path]) -> None:
        """List files that can be given by name, and what each is."""
        self.names += files
        width = max(map(len, files)) + 4
        lines = [
            textwrap.fill(
                explanation_of(path), 90, initial_indent=f"  {name:<{width - 2}}",
                subsequent_indent=" " * width,
            )
            for name, path in files.items()
        ]  # fmt: skip
        self.epilog = "\n".join([f"{title}:", *lines])

    def add_json(self, keys: str) -> None:
        """Add the option that prints figures for programs instead of people."""
        self.add_argument(
            "--json", action="store_true", help=f"print one JSON object instead: {keys}"
        )

    def add_settings(self, *sections: type, shown: Sequence[str] = ()) -> None:
        """Add one option for each field of the sections.

        --help shows those that are named; else all of a single section, and of several what
        people change.
        """
        if not shown and len(sections) > 1:
            shown = COMMON
        for cls in sections:
            section = section_name(cls)
            group = self.add_argument_group(f"{section} settings", cls.__doc__)
            texts = explanations(cls)
            for field in fields(cls):
                default = getattr(cls, field.name)
                action = group.add_argument(
                    f"--{section}.{field.name.replace('_', '-')}",
                    dest=f"{section}.{field.name}",
                    metavar=type(default).__name__.upper(),
                    default=SUPPRESS,
                    help=f"{texts[field.name]} (default: {default!r})".replace("%", "%%"),
                )
                if shown and action.dest not in shown:
                    self.help_of_hidden[action], action.help = action.help or "", SUPPRESS
        if self.help_of_hidden and "--help-all" not in self._option_string_actions:
            text = f"show all settings: {len(self.help_of_hidden)} more"
            self.add_argument("--help-all", action="store_true", default=SUPPRESS, help=text)


def explanation_of(path: Path) -> str:
    """A study's question, or the first sentence of the comment at the top of a recipe."""
    question = read_toml(path).get("question")
    if question:
        return str(question)
    lines = itertools.takewhile(lambda line: line.startswith("#"), read_text(path).splitlines())
    comment = " ".join(line.lstrip("# ") for line in lines)
    return re.split(r"(?<=[.?]) (?=[A-Z`])", comment)[0]


def is_option(word: str) -> bool:
    """Whether argparse takes a word for an option: a dash that begins no number and no sentence.

    >>> [is_option(word) for word in ("--a-b", "-x", "-", "-1", "-.5", "- a")]
    [True, True, False, False, False, False]
    """
    name = word.partition("=")[0]
    return bool(re.match(r"-(?!\d+$|\d*\.\d+$).", word, re.S)) and " " not in name


def named_path(text: str) -> Path:
    """A path on the command line. Raises ArgumentTypeError for one that names nothing we can use.

    It must be valid Unicode, because it is written into settings, reports and commands to copy.
    """
    if not text:
        raise argparse.ArgumentTypeError("the path is empty; name a file or a folder")
    try:
        text.encode()
        os.stat(text)
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(f"{text!r} is not UTF-8; rename it") from None
    except FileNotFoundError:
        pass
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text}: {error.strerror}; name another path") from None
    return Path(text)


def file_to_write(text: str) -> Path:
    """A path on the command line for a file of ours: nothing else may be there."""
    path = named_path(text)
    try:
        check_is_file_or_free(path)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return path


def folder_to_write(text: str) -> Path:
    """A path on the command line for a folder of ours: no file may be there."""
    path = named_path(text)
    if path.exists() and not path.is_dir():
        raise argparse.ArgumentTypeError(f"{path} is no folder; name another")
    return path


def named(text: str) -> str:
    """A path, or the name of something of ours. Raises ArgumentTypeError as named_path does."""
    named_path(text)
    return text


def settings_in(arguments: argparse.Namespace) -> dict[str, dict[str, str]]:
    """The settings that were given on the command line, by section."""
    nested: dict[str, dict[str, str]] = {}
    for key, value in vars(arguments).items():
        section, dot, name = key.partition(".")
        if dot:
            nested.setdefault(section, {})[name] = value
    return nested


def load_settings(
    recipe: str | None, arguments: argparse.Namespace, trains: bool = False
) -> Config:
    """Defaults, then the recipe, then the command line. Raises UserError for impossible settings.

    Where training begins with other weights, and the recipe has no section `model`, shape and
    tokenizer are theirs. A command that trains a model is refused here if the model is too large
    for the machine. What can be said without torch is said before it is loaded.
    """
    values: dict[str, Any] = {} if recipe is None else read_toml(find_recipe(recipe))
    if recipe is not None and not values:
        raise UserError(f"{recipe} holds no settings; name another recipe")
    values = with_weights(values, getattr(arguments, "train.init", init_of(values)))
    for section, settings in settings_in(arguments).items():
        values[section] = {**values.get(section, {}), **settings}
    try:
        config = config_from_dict(values)
        if trains:
            refuse_impossible(config)
        with shown_meanwhile("loading torch ..."):
            from nanogpt.device import resolve
            from nanogpt.training.variants import check_choices

        check_choices(config)
        compute = resolve(config.train.device, config.train.precision)
        if trains and config.parallel.parts == 1:  # else see `nanogpt plan RECIPE --gpus N`
            refuse_untrainable(config, compute)
    except UserError as error:
        raise UserError(f"{recipe}: {error}" if recipe else str(error)) from None
    return config


def with_weights(values: dict[str, Any], init: str) -> dict[str, Any]:
    """The values of a recipe, with the shape and the tokenizer of the weights it begins with.

    Raises UserError if there are no such weights.
    """
    if not init:
        return values
    from nanogpt.training.load import with_shape_of

    return with_shape_of(values, init)


def init_of(values: Mapping[str, Any]) -> str:
    """The weights that a recipe begins with; what is no name is refused later, with the rest."""
    train = values.get("train")
    init = train.get("init") if isinstance(train, dict) else ""
    return init if isinstance(init, str) else ""


def refuse_untrainable(config: Config, compute: "Compute", at_once: int = 1) -> None:
    """Raise UserError for what this machine cannot train, before anything is prepared for it."""
    from nanogpt.training.plan import refuse_beyond_memory

    if (compute.device.type, compute.precision) == ("cpu", "float16"):
        raise UserError("train.precision='float16' is for GPUs: on a CPU use float32 or bfloat16")
    refuse_beyond_memory(config, compute, at_once)


def variants() -> dict[str, Mapping[str, Any]]:
    """The settings that name a variant, with the variants there are."""
    from nanogpt.model.layers import KERNELS
    from nanogpt.training.variants import TABLES

    return {**TABLES, "model.kernels": KERNELS}


def find_recipe(name: str) -> Path:
    """A recipe by its path, or one of ours by its name. Raises UserError if there is none."""
    if Path(name).is_file():
        return Path(name)
    return by_name(recipes(), "recipe", name)


def recipes() -> dict[str, Path]:
    """Our recipes, by name."""
    return toml_files(recipe_folder())


def studies() -> dict[str, Path]:
    """Our studies, by name."""
    return toml_files(recipe_folder() / "studies")


def toml_files(folder: Path) -> dict[str, Path]:
    """The TOML files of a folder, by name, in alphabetical order."""
    return dict(sorted((path.stem, path) for path in folder.glob("*.toml")))


def by_name(files: Mapping[str, Path], kind: str, name: str) -> Path:
    """One of our files by its name. Raises UserError with the names there are."""
    if Path(name).suffix or "/" in name:
        raise UserError(f"{name}: no such {kind}; use a path, or one of {', '.join(files)}")
    return choose(files, kind, name)


def recipe_folder() -> Path:
    """The recipes: inside an installed package, or beside the source in a checkout."""
    package = Path(str(files("nanogpt")))
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent.parent / "configs"


def run_action(command: str, about: str, actions: Actions, arguments: Sequence[str]) -> int:
    """Call the action that the first argument names, and return its exit code.

    Raises UserError for an unknown name.
    """
    if arguments is ASK:
        raise Answer(actions)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"usage: nanogpt {command} {' | '.join(actions)}\n\n{about.strip()}")
        for name, action in actions.items():
            print(f"  {name:<8}{(action.__doc__ or '').partition('.')[0]}")
        return 0
    if arguments[0] not in actions:
        raise UserError(f"{arguments[0]!r} is not an action: {did_you_mean(arguments[0], actions)}")
    return actions[arguments[0]](arguments[1:]) or 0


def read_argument(text: str) -> str:
    """The argument itself, or all of standard input where it is "-", as UTF-8.

    Raises UserError for what is not, for a closed standard input, and for one that does not end.
    """
    if text == "-":
        data = standard_input().buffer.read(LONGEST_INPUT + 1)
        if len(data) > LONGEST_INPUT:
            raise UserError(
                f"standard input holds more than {LONGEST_INPUT / 1e6:.0f} MB; give less of it, or "
                "prepare it as a file"
            )
    else:
        data = os.fsencode(text)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"the input is not UTF-8 text (byte {error.start}); convert it") from None


def read_line(prompt: str) -> str:
    """A line that a person types. Raises EOFError at the end of the input, UserError if closed."""
    if not standard_input().isatty():
        print(prompt, end="", flush=True)  # input() would not say if nobody reads it
        prompt = ""
    return input(prompt)


def standard_input() -> TextIO:
    """Standard input. Raises UserError if it is closed."""
    if sys.stdin is None:
        raise UserError("standard input is closed; connect it to a terminal, a file or a pipe")
    return sys.stdin


def print_json(values: Mapping[str, Any]) -> None:
    """Print one JSON object. Numbers that JSON cannot hold, such as NaN, become null."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {str(key): plain(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [plain(inner) for inner in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    print(json.dumps(plain(values), indent=1, ensure_ascii=False))
