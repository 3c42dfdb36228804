"""Which definitions a program reaches. Each is loaded from its module with its settings put in."""

import ast
import importlib.util
import sys
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from nanogpt.eject import tree
from nanogpt.eject.fold import Fold
from nanogpt.eject.settings import Settings
from nanogpt.eject.world import Place, Unit, World, decorator_name
from nanogpt.errors import UserError

# What strings, arrays and tensors have under the same name as something of ours.
FAMILIAR = {*dir(bytes), *dir(str), *dir(dict), *dir(list), *dir(Tensor), *dir(Path)}
TORCH = {"train", "eval", "to", "compile", "parameters"}  # what torch's modules can do themselves
# Methods that Python or torch call.
ALWAYS = ("__init__", "__call__", "__len__", "__getitem__", "__missing__", "forward")
NOWHERE: Any = ast.parse("def nowhere(): pass").body[0]  # the function around what is in none


class Module:
    """A file of source: what it defines and what it imports."""

    def __init__(self, name: str) -> None:
        loaded = sys.modules.get(name)
        spec = None if loaded else importlib.util.find_spec(name)
        path = spec.origin if spec else getattr(loaded, "__file__", "")
        self.tree = tree.parse(Path(str(path)), name)

    @cached_property
    def definitions(self) -> dict[str, Any]:
        """What stands at the top level, by name."""
        found: dict[str, Any] = {}
        for stmt in self.tree.body:
            for name in tree.names_of(stmt):
                found[name] = stmt
            for target, value in tree.pairs(stmt):  # several in one line become a line each
                found[ast.unparse(target)] = one = ast.Assign([target], value, lineno=stmt.lineno)
                tree.move_comments(stmt, one)
        return found

    @cached_property
    def imports(self) -> dict[str, tuple[str, str]]:
        """Where each imported name comes from: a module, and a name in it, empty for itself."""
        found = {}
        for stmt in tree.walk(self.tree):
            for alias in getattr(stmt, "names", []) if hasattr(stmt, "names") else ():
                name = alias.asname or alias.name.partition(".")[0]
                source = getattr(stmt, "module", "")
                found[name] = (source, alias.name) if source else (alias.name, "")
        return found


class Collector(World):
    """A world that loads definitions when something in it names them."""

    def __init__(self, settings: Settings, module: str, root: str) -> None:
        super().__init__(root, settings.values)
        self.settings = settings
        self.modules: dict[str, Module] = {}
        self.imports: dict[str, tuple[str, str]] = {}
        self.complete = False  # whether all that is reached has been loaded
        self.read: dict[str, set[str]] = {}  # attributes, with the classes of their objects
        self.load(tree.name(root, module)).node.args.args.pop()  # type: ignore[union-attr]

    def module(self, name: str) -> Module:
        """A module of the package, or a plugin that was loaded, read once."""
        self.modules[name] = self.modules.get(name) or Module(name)
        return self.modules[name]

    def find(self, name: str, home: str) -> str:
        """The module that defines a name of another; empty if it is not ours, but an import."""
        module = self.module(home) if home else None
        if module and name in module.definitions:
            return home
        source, inner = module.imports.get(name, ("", "")) if module else ("", "")
        if source.partition(".")[0] == "nanogpt" and inner:
            if inner != name:
                raise UserError(f"{home} imports {inner} as {name}: eject needs its own name")
            return self.find(inner, source)
        if source:
            self.imports[name] = (source, inner)
        return ""

    def definition(self, name: Any) -> Any:
        """The definition that a name stands for, as it is in the source; None if it is not ours."""
        home = self.find(name.id, getattr(name, "home", ""))
        return self.module(home).definitions[name.id] if home else None

    def load(self, name: Any) -> Unit | None:
        """The definition that a name stands for. Raises UserError for two of one name."""
        home, unit = self.find(name.id, getattr(name, "home", "")), self.units.get(name.id)
        if not home or (unit and unit.module == home):
            return unit
        original = self.module(home).definitions[name.id]
        if unit and not tree.same(original, self.module(unit.module).definitions[name.id]):
            raise UserError(
                f"two definitions are called {name.id}, in {unit.module} and {home}: "
                "eject cannot put both into one file"
            )
        node = with_settings_put_in(with_constructor(tree.clone(original)))
        self.units[name.id] = unit = Unit(name.id, node, home, original.lineno)
        unit.node = Fold(self).visit(node)
        return unit

    def entry(self, table: ast.Name, name: Any) -> Any:
        """What a table holds under a name, as it is in the source; None if it is no table.

        Raises UserError if the entry is not written out.
        """
        key, node = f"{table.id}[{name!r}]", self.definition(table)
        if not isinstance(getattr(node, "value", None), ast.Dict):
            return None
        keys = [f"{table.id}[{ast.unparse(k)}]" for k in node.value.keys]
        found = dict(zip(keys, node.value.values, strict=True))
        for plugin in [n for n in sys.modules if n.startswith("nanogpt_plugin_")]:
            added = [pair for stmt in self.module(plugin).tree.body for pair in tree.pairs(stmt)]
            found |= {ast.unparse(target): value for target, value in added}
        if key not in found:
            raise UserError(f"{key} is not written out: eject cannot find its source")
        return tree.clone(found[key])

    def mentions(self, name: Any) -> bool:
        """Whether anything may give a value to an attribute or a key of this name."""
        for node in (node for unit in self.units.values() for node in tree.walk(unit.node)):
            keys = [getattr(key, "value", None) for key in getattr(node, "keys", [])]
            if name in keys or (getattr(node, "attr", "") == name and not tree.is_read(node)):
                return True
        return not self.complete

    # What is used.

    def reach(self) -> None:
        """Load what is used; drop definitions, methods and attributes that are not."""
        self.read = {}
        live: dict[str, Unit] = {}
        used: dict[int, tuple[Any, Place]] = {}  # code, with where it stands
        names, size, done, known = {(self.root, ""): ast.Name(self.root)}, -1, 0, 0
        while size != (size := len(used) + len(names) + sum(map(len, self.read.values()))):
            new = [*used.values()][done if known == len(self.classes) else 0 :]
            done, known = len(used), len(self.classes)
            self.forget()
            for node, place in new:
                found = self.note(node, place)
                names |= {(name.id, getattr(name, "home", "")): name for name in found}
            live |= {unit.name: unit for unit in filter(None, map(self.load, names.values()))}
            for unit in live.values():
                used.setdefault(id(unit), start_of(unit))
                for method in unit.node.body if tree.is_class(unit.node) else ():
                    if tree.is_method(method) and self.is_used(unit.node, method.name):
                        used.setdefault(id(method), (method, Place(method, unit.node)))
        self.units = live
        self.forget()
        for cls in self.classes.values():
            cls.body = [s for s in cls.body if not tree.is_method(s) or id(s) in used]
            self.drop_attributes(cls)

    def note(self, node: Any, place: Place) -> list[ast.Name]:
        """The names that code refers to; notes the attributes that it reads."""
        own, names = tree.stores(node), []
        for inner in tree.walk(node, tree.TYPES):
            if isinstance(inner, ast.Name) and tree.is_read(inner) and inner.id not in own:
                names.append(inner)
            elif isinstance(inner, ast.Attribute) and tree.is_read(inner):
                named = getattr(inner.value, "id", "")
                kind = named if self.cls(named) else self.type_of(inner.value, place)
                if self.cls(kind):
                    self.read.setdefault(inner.attr, set()).add(kind)
                elif named not in self.imports and inner.attr not in FAMILIAR | TORCH:
                    self.read.setdefault(inner.attr, set()).add("")
        return names

    def is_used(self, cls: ast.ClassDef, name: str) -> bool:
        """Whether what a class defines under a name is read, or is called by Python or torch."""
        owners = self.read.get(name, set())
        for owner in filter(None, map(self.cls, owners)):
            defines = [c for c in self.ancestors(owner) if name in names_in(c)]
            if cls in self.heirs(owner) or cls in (defines[:1] or self.ancestors(owner)):
                return True
        return "" in owners or name in ALWAYS

    def drop_attributes(self, cls: ast.ClassDef) -> None:
        """Remove what is given to attributes that nobody reads, and an empty constructor."""
        for block in filter(None, tree.blocks(cls)):
            kept = [stmt for stmt in block if not self.is_unread(cls, stmt)]
            block[:] = kept or [ast.Pass()]
        cls.body = [stmt for stmt in cls.body if not is_empty(stmt)] or [ast.Pass()]

    def is_unread(self, cls: ast.ClassDef, stmt: ast.stmt) -> bool:
        """Whether a statement only sets attributes that nobody reads."""
        in_class = stmt in cls.body
        if in_class and isinstance(stmt, ast.AnnAssign) and stmt.value is None:
            return True  # says only of which type an attribute is
        found = [(t.attr if tree.is_self(t) else ast.unparse(t) if in_class else "", v)
                 for t, v in tree.pairs(stmt)]  # fmt: skip
        return bool(found) and all(
            name and not self.is_used(cls, name) and (tree.is_pure(v) or self.holds_nothing(v))
            for name, v in found
        )

    def holds_nothing(self, value: Any) -> bool:
        """Whether an expression makes an object of a class of ours without attributes."""
        cls = self.cls(getattr(getattr(value, "func", None), "id", ""))
        return cls is not None and self.lookup(cls, "__init__") is None


def names_in(cls: ast.ClassDef) -> set[str]:
    """What a class defines itself."""
    return {name for stmt in cls.body for name in tree.names_of(stmt)}


def start_of(unit: Unit) -> tuple[Any, Place]:
    """What is used of a definition at once: of a class all but its methods."""
    node = unit.node
    if not tree.is_class(node):
        return node, Place(node if tree.is_method(node) else NOWHERE)
    rest = [stmt for stmt in node.body if not tree.is_method(stmt)]
    return ast.ClassDef(node.name, node.bases, [], rest, node.decorator_list), Place(NOWHERE, node)


def is_empty(method: ast.stmt) -> bool:
    """Whether a method is a constructor that only calls that of the base class."""
    if not tree.is_method(method) or method.name != "__init__" or method.args.args[1:]:
        return False
    return {ast.unparse(stmt) for stmt in tree.body_of(method)} <= {"pass", "super().__init__()"}


def with_constructor(cls: Any) -> Any:
    """A data class as a plain class, whose constructor says what it does: see write.as_record."""
    if tree.is_class(cls) and "dataclass" in map(decorator_name, cls.decorator_list):
        fields: list[Any] = [s for s in cls.body if isinstance(s, ast.AnnAssign)]
        init = tree.function("__init__", ["self", *(f.target.id for f in fields)])
        init.args.defaults = [f.value for f in fields if f.value is not None]
        for arg, field in zip(init.args.args[1:], fields, strict=True):
            arg.annotation = field.annotation
            stored = ast.Attribute(ast.Name("self"), arg.arg, ast.Store())
            init.body.append(ast.Assign([stored], ast.Name(arg.arg), lineno=0))
            tree.move_comments(field, init.body[-1])
        rest = [s for s in cls.body if s not in fields and "__post_init__" not in tree.names_of(s)]
        cls.body, cls.decorator_list = [*rest, init], []
        cls.record = True  # type: ignore[attr-defined]
    return cls


def with_settings_put_in(definition: Any) -> Any:
    """A definition in which CONFIG stands for parameters that hold settings.

    A function that asks for the size of the vocabulary gets that in place of the settings. All
    parameters are of one kind: those that have to be given by name may be.
    """
    for node in tree.walk(definition):
        values: dict[str, Any] = {}
        if not tree.is_method(node):
            continue
        node.args.args += node.args.kwonlyargs
        node.args.defaults += [default for default in node.args.kw_defaults if default is not None]
        node.args.kwonlyargs, node.args.kw_defaults = [], []
        for arg in node.args.args:
            section = section_of(arg.annotation)
            if section:
                config = ast.Name("CONFIG")
                values[arg.arg] = config if section == "config" else ast.Attribute(config, section)
            size = f"{arg.arg}.vocab_size"
            if section == "model" and size in map(ast.unparse, tree.walk(node)):
                values[size] = ast.Name("vocab_size")
                arg.arg, arg.annotation = "vocab_size", ast.Name("int")
        if values:
            node.body = [tree.substituted(stmt, values) for stmt in node.body]
    return definition


def section_of(annotation: ast.AST | None) -> str:
    """The section of settings that a type names, "config" for all; empty for other types."""
    for node in tree.walk(annotation) if annotation is not None else ():
        if isinstance(node, ast.Name) and node.id.endswith("Config"):
            return node.id.removesuffix("Config").lower() or "config"
    return ""
