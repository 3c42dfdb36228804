"""The text of a file: what it is, settings as constants, definitions in the order to read them."""

import ast
import builtins
import re
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

from nanogpt.eject import tree
from nanogpt.eject.collect import Collector
from nanogpt.eject.settings import SECTIONS
from nanogpt.eject.tree import WIDTH
from nanogpt.eject.world import Unit
from nanogpt.errors import UserError

# The parts of a file. Functions of the program stand here by their names, others by their module.
PARTS = {
    "": ("DEVICE",),
    "The tokenizer: from text to ids and back.": (
        "text.splitter", "text.bpe", "text.tokenizer", "load_tokenizer", "encode", "split",
    ),
    "Batches: what the model is trained on.": (
        "config", "text.tokenfiles", "text.batches", "evaluation.loss", "open_batches",
    ),
    "The model: from ids to scores of the next token.": (
        "model.layers", "model.position", "model.attention", "model.gpt",
    ),
    "Training.": (
        "training.optim", "training.loop", "begin", "train", "gradients", "validate", "batch_loss",
        "on_device", "autocast",
    ),
    "Sampling: from scores to text.": (
        "generation.sampling", "generation.reader", "sample", "next_token", "seen_in",
    ),
    "Checkpoints, which the package nanogpt reads and writes, too.": (
        "files", "restore", "save", "write_tensors", "read_tensors",
    ),
    " ": ("main",),
}  # fmt: skip
ORDER = [(part, name) for part, names in PARTS.items() for name in names]
ABOUT = '''"""{name} in one file: model, training and sampling, made by `nanogpt eject`.

    python {file} train RUN             trains, or goes on from the last checkpoint
    python {file} sample RUN [PROMPT]   lets the model of a run continue a text

RUN is a folder, from which the package nanogpt can generate, export and resume, too.

{axes}
"""'''
AXES = {"B": "batch", "T": "time", "S": "key time", "C": "channels", "V": "vocabulary",
        "nh": "heads", "nkv": "heads of keys and values", "hs": "head size"}  # fmt: skip
START = 'if __name__ == "__main__":\n    main(sys.argv[1:])\n'


def file_text(world: Collector, name: str, file: str) -> str:
    """All of a file. Raises UserError if settings are used in a way that it cannot keep."""
    for unit in world.units.values():
        shorten_docstrings(unit.node)
        finish_types(world, unit)
    settings, used = world.settings, used_names(world)
    if settings.config.train.device != "auto":
        world.units["DEVICE"].node.value = ast.Constant(settings.config.train.device)
    for unit in world.units.values():
        write_settings(world, unit, used)
        if "CONFIG" in {n.id for n in tree.walk(unit.node) if isinstance(n, ast.Name)}:
            raise UserError(f"{unit.name} uses settings in a way that cannot be ejected")
    text = dict.fromkeys(PARTS, "")
    for unit in sorted(world.units.values(), key=lambda unit: place_of(unit, world)):
        part = ORDER[place_of(unit, world)[0]][0]
        text[part] = text[part] or (f"# {part}\n\n" if part.strip() else "")
        text[part] += tree.text_of(as_record(unit.node)) + "\n\n"
    said = "".join(text.values())
    axes = [f"{a} {what}" for a, what in AXES.items() if re.search(rf"[(, ]{a}[,) ]", said)]
    about = textwrap.fill(f"Axes: {', '.join(axes)}.", WIDTH)
    name, file = (re.sub(r'["\\\n]', "", word) for word in (name, file))  # in a docstring
    parts = [
        ABOUT.format(name=name, file=file, axes=about),
        "\n".join(import_lines(world)),
        "\n".join(settings.lines(used)),
        *text.values(),
        START,
    ]
    return tree.formatted("\n\n".join(part for part in parts if part))


def as_record(node: Any) -> Any:
    """A class that was a data class, as one again: see collect.with_constructor."""
    inits = [s for s in getattr(node, "body", []) if getattr(s, "name", "") == "__init__"]
    for init in inits if hasattr(node, "record") else ():
        given = init.args.args[1:]
        fields: list[Any] = [ast.AnnAssign(ast.Name(a.arg), a.annotation, None, 1) for a in given]
        for field, default in zip(fields[::-1], init.args.defaults[::-1], strict=False):
            field.value = default
        for stmt in init.body:
            for field in fields:
                if ast.unparse(stmt).startswith(f"self.{field.target.id} ="):
                    tree.move_comments(stmt, field)
        at = node.body.index(init)
        node.body[at : at + 1] = []
        node.body[1:1] = fields
        node.decorator_list = [ast.parse("dataclass(frozen=True)", mode="eval").body]
    return node


def place_of(unit: Unit, world: Collector) -> tuple[int, float, int]:
    """Where a definition stands: the number of its part, a line there, and a line of its module.

    One of another module, such as a plugin, stands before the first of ours for which it is there,
    but after those of ours that it needs when it is defined.
    """
    own = own_place(unit)
    if own:
        return *own, 0
    index, line = min(ours_around(unit, world, named_in), default=(0, 0.0))
    after = [(index, line + 0.5) for index, line in ours_around(unit, world, needed_by)]
    return *max([(index, line - 0.5), *after]), unit.line


def own_place(unit: Unit) -> tuple[int, float] | None:
    """Where a definition of the package stands; None if it is of another module."""
    module = unit.module.removeprefix("nanogpt.")
    places = (index for index, (_, name) in enumerate(ORDER) if name in (unit.name, module))
    return next(((index, float(unit.line)) for index in places), None)


def ours_around(
    unit: Unit, world: Collector, step: Callable[[Unit, Collector], list[Unit]]
) -> list[tuple[int, float]]:
    """The places of ours to which a step leads, or several over definitions of other modules."""
    found, left, seen = [], [unit], {unit.name}
    while left:
        for other in step(left.pop(), world):
            place = own_place(other)
            if place:
                found.append(place)
            elif other.name not in seen:
                left.append(other)
                seen.add(other.name)
    return found


def needed_by(unit: Unit, world: Collector) -> list[Unit]:
    """What a definition names in bases and types, so that it has to be there before."""
    parts = [getattr(n, part, None) for n in tree.walk(unit.node) for part in tree.TYPES]
    parts += getattr(unit.node, "bases", [])
    names = [n.id for part in filter(None, parts) for n in tree.walk(part) if hasattr(n, "id")]
    return [world.units[name] for name in names if name in world.units]


def named_in(unit: Unit, world: Collector) -> list[Unit]:
    """The definitions that name one."""
    return [other for other in world.units.values() if tree.loads(other.node)[unit.name]]


def shorten_docstrings(node: Any) -> None:
    """Keep of each docstring what it says first, without worked examples."""
    for body in [[node], *tree.blocks(node)]:
        for stmt in filter(tree.is_docstring, body):
            room = WIDTH - (10 if body is node.body else 14)
            text = " ".join(stmt.value.value.strip().split("\n\n")[0].split())
            text = re.split(r" Raises UserError| See `", text)[0]
            if len(text) > room:  # the first sentence alone
                text = re.split(r"(?<=\.) (?=[A-Za-z`])", text)[0]
            indent = "\n" + (4 if body is node.body else 8) * " "
            lines = textwrap.wrap(text, room)
            text = text if len(text) <= room else indent.join(lines) + indent
            stmt.value = ast.Constant(text)


def used_names(world: Collector) -> set[str]:
    """All names that stand in the definitions."""
    nodes = (node for unit in world.units.values() for node in tree.walk(unit.node))
    return {node.id for node in nodes if isinstance(node, ast.Name)}


def finish_types(world: Collector, unit: Unit) -> None:
    """Write types in names that the file knows."""
    for node in tree.walk(unit.node):
        for part in ("annotation", "returns"):
            if getattr(node, part, None) is not None:
                setattr(node, part, finished(getattr(node, part), world) or ast.Name("Any"))


def finished(node: ast.expr, world: Collector) -> ast.expr | None:
    """A type with aliases written out, of alternatives those that are there; None if none is."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        node = ast.parse(node.value, mode="eval").body
    if isinstance(node, ast.BinOp):
        left, right = finished(node.left, world), finished(node.right, world)
        return ast.BinOp(left, ast.BitOr(), right) if left and right else left or right
    for name in [n for n in tree.walk(node) if isinstance(n, ast.Name)]:
        if name.id in world.units or name.id in dir(builtins):
            continue
        definition = world.definition(name)
        if isinstance(definition, ast.Assign):
            alias = finished(tree.clone(definition.value), world)
            node = tree.substituted(node, {name.id: alias or ast.Name("Any")})
        elif definition is not None:
            return None
    return node


def import_lines(world: Collector) -> Iterator[str]:
    """The imports of all names that the definitions use; ruff removes and sorts."""
    found = {
        "sys": ("sys", ""),
        "Any": ("typing", "Any"),
        "dataclass": ("dataclasses", "dataclass"),
    }
    for name, (module, inner) in sorted((found | world.imports).items()):
        alias = f" as {name}" if name not in (inner, module.partition(".")[0]) else ""
        yield f"from {module} import {inner}{alias}" if inner else f"import {module}{alias}"


def write_settings(world: Collector, unit: Unit, used: set[str]) -> None:
    """Write out the dictionary of all settings, several to a line."""
    for node in tree.walk(unit.node):
        value = getattr(node, "value", None)
        if isinstance(value, ast.Call) and ast.unparse(value.func) == "SETTINGS":
            node.value = ast.Name(dictionary(world, value.args[0], used))


def dictionary(world: Collector, vocab_size: ast.expr, used: set[str]) -> str:
    """The text of a dictionary of settings, in lines that ruff leaves as they are."""
    lines = ["{"]
    for section in SECTIONS:
        items = world.settings.kept(section, used)
        if section == "model":
            items["vocab_size"] = ast.unparse(vocab_size)
        found = [f'"{name}": {value}'.replace(" ", "\0") for name, value in items.items()]
        text = f'"{section}":\0{{{", ".join(found)}}},'
        lines += textwrap.wrap(
            text, WIDTH - 4, initial_indent="    ", subsequent_indent=8 * " ",
            break_on_hyphens=False, break_long_words=False,
        )  # fmt: skip
    return "\n    ".join([*lines, "}  # fmt: skip"]).replace("\0", " ")
