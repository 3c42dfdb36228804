"""What a setting becomes in the file: a constant at its top, a value in its place, or nothing."""

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any

from nanogpt.config import Config, explanations
from nanogpt.eject import tree

SECTIONS = ("model", "data", "train", "sample")
# What is switched off is not in the file. These are off where they are 1, all others at 0.
OFF_AT_1 = ("pad_vocab_to", "top_p", "repetition_penalty")
# Numbers that hardly anyone changes are no constants where they are as by default.
RARE = (("model", "init_std"), ("train", "eps"), ("sample", "seed"))
TEXTS = ("folder", "prompt")  # that are constants
OPEN = ("temperature",)  # whose branches stay, whatever the value is now
RENAMED = {("sample", "seed"): "SAMPLE_SEED"}
FOLDER = "data"  # of the token files, where the settings name none
FILES = "where train.bin, val.bin and tokenizer.json are, as `nanogpt prepare` makes them"


class Settings:
    """The settings of a file, and which of them have become constants."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.values: dict[str, Any] = {}  # of the constants, by their names
        self.known: dict[str, Any] = {}  # those by which conditions are decided
        self.origin: dict[str, tuple[str, str]] = {}

    def expression(self, section: str, name: str, fold: Callable[[ast.expr], ast.expr]) -> ast.expr:
        """What stands for a setting in the code, or for what follows from settings."""
        part = getattr(self.config, section)
        value, constant = getattr(part, name), RENAMED.get((section, name), name.upper())
        if callable(value):
            return ast.Call(ast.Name(name), [], [])  # only a value made of it is in the file
        if isinstance(getattr(type(part), name, None), property):
            found = fold(returned(getattr(type(part), name).fget, section))
            if not isinstance(found, ast.Call):
                return found
        elif self.is_value(section, name, value):
            return ast.Constant(value)
        self.values[constant] = value or FOLDER if name == "folder" else value
        self.origin[constant] = section, name
        if name not in OPEN:
            self.known[constant] = self.values[constant]
        return ast.Name(constant)

    def is_value(self, section: str, name: str, value: Any) -> bool:
        """Whether a setting is no constant, but written in its place."""
        if isinstance(value, bool | str):
            return name not in TEXTS
        default = getattr(type(getattr(self.config, section)), name)
        off = value == (1 if name in OFF_AT_1 else 0) and name not in OPEN
        return off or ((section, name) in RARE and value == default)

    def kept(self, section: str, used: set[str]) -> dict[str, str]:
        """What a checkpoint keeps of a section: constants, and values that are not the default."""
        part = getattr(self.config, section)
        found = {}
        for field in fields(part):
            constant = RENAMED.get((section, field.name), field.name.upper())
            value = getattr(part, field.name)
            if constant in used and self.origin.get(constant) == (section, field.name):
                found[field.name] = constant
            elif value != field.default:
                found[field.name] = ast.unparse(ast.Constant(value)).replace("'", '"')
        return found

    def lines(self, used: set[str]) -> Iterator[str]:
        """The constants that the file uses, each with its explanation."""
        for section in SECTIONS:
            part = type(getattr(self.config, section))
            said, order = explanations(part) | {"folder": FILES}, [f.name for f in fields(part)]
            names = [n for n, origin in self.origin.items() if origin[0] == section and n in used]
            if len(names) > 1:
                yield f"# {(part.__doc__ or '').partition('.')[0]}."
            for name in sorted(
                names, key=lambda n: [*order, self.origin[n][1]].index(self.origin[n][1])
            ):
                field = self.origin[name][1]
                own = inspect.getdoc(getattr(part, field)) or ""
                text = said.get(field) or own[:1].lower() + own[1:]
                text = text if field in TEXTS else text.partition(";")[0].rstrip(".")
                line = f"{name} = {self.values[name]!r}"
                fits = len(line) + len(text) + 4 <= tree.WIDTH
                yield f"{line}  # {text}" if fits else f"# {text}\n{line}"


def returned(getter: Any, section: str) -> ast.expr:
    """What a property of the settings returns, in terms of CONFIG."""
    parsed: Any = ast.parse(textwrap.dedent(inspect.getsource(getter)))
    owner = ast.Attribute(ast.Name("CONFIG"), section)
    return tree.substituted(parsed.body[0].body[-1].value, {"self": owner})
