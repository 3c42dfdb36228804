"""What is always the same: parameters, attributes, fields of records; and classes with one heir."""

import ast
import functools
from typing import Any

from nanogpt.eject import tree
from nanogpt.eject.collect import Collector, names_in
from nanogpt.eject.world import Place, arguments_of

PLAIN = {"Tensor", "NDArray", "int", "float", "bool", "str", "list", "dict", "tuple"}  # types

# Classes.


def merge_classes(world: Collector) -> None:
    """Make one class of a class and the only one that inherits from it."""
    for name, cls in world.classes.items():
        heirs = [heir for heir in world.classes.values() if cls in world.bases(heir)]
        if len(heirs) == 1 and not is_named(world, name) and not asks_base(heirs[0], names_in(cls)):
            merge(cls, heirs[0])
            del world.units[name]
            for unit in world.units.values():
                for node in tree.walk(unit.node):
                    if isinstance(node, ast.Name) and node.id == name:
                        node.id = heirs[0].name


def is_named(world: Collector, name: str) -> bool:
    """Whether a class is made or named anywhere but as a base and a type."""
    skipped = (*tree.TYPES, "bases")
    return any(tree.loads(unit.node, skipped)[name] for unit in world.units.values())


def asks_base(cls: ast.ClassDef, names: set[str]) -> bool:
    """Whether a class calls methods of its base by super()."""
    return any(ast.unparse(node) in {f"super().{name}" for name in names}
               for node in tree.walk(cls) if isinstance(node, ast.Attribute))  # fmt: skip


def merge(base: ast.ClassDef, heir: ast.ClassDef) -> None:
    """Move what a class has, and its heir has not, into the heir."""
    own = [s for s in heir.body if not tree.is_docstring(s) and not isinstance(s, ast.Pass)]
    moved = [s for s in base.body if not {*tree.names_of(s)} & names_in(heir)]
    heir.body = [s for s in heir.body if tree.is_docstring(s)]
    heir.body += [s for s in moved if not tree.is_docstring(s)] + own
    heir.body.sort(key=lambda s: 2 * tree.is_method(s) - ("__init__" in tree.names_of(s)))
    heir.bases = [b for b in heir.bases if ast.unparse(b) != base.name] + base.bases
    heir.decorator_list = heir.decorator_list or base.decorator_list


# Attributes.


def bind_attributes(world: Collector) -> None:
    """Put the value of an attribute that is always the same in its place."""
    world.forget()
    given = values_of_attributes(world)
    known: dict[tuple[str, str], ast.expr] = {}
    for cls in world.classes.values():
        names = ["", *(member.name for member in world.family(cls))]
        for attr in {attr for _, attr in given}:
            values = [value for name in names for value in given.get((name, attr), [])]
            if len(values) == 1 and world.is_constant(values[0]):
                known[cls.name, attr] = values[0]
    for place in world.places():
        for node in reversed(
            [n for n in tree.walk(place.function) if isinstance(n, ast.Attribute)]
        ):
            key = world.type_of(node.value, place), node.attr
            if key in known and tree.is_read(node):
                tree.replaced(place.function, node, tree.clone(known[key]))
    world.forget()


def values_of_attributes(world: Collector) -> dict[tuple[str, str], list[Any]]:
    """What attributes are given, by class and name; without a class if another object's is set.

    None stands for what is not seen, such as what `self.count += 1` makes.
    """
    found: dict[tuple[str, str], list[Any]] = {}
    for unit in world.units.values():
        assigned = [pair for node in tree.walk(unit.node) for pair in tree.pairs(node)]
        values = {id(target): value for target, value in assigned}
        for node in tree.walk(unit.node):
            if isinstance(node, ast.Attribute) and not tree.is_read(node):
                owner = unit.name if tree.is_self(node) else ""
                found.setdefault((owner, node.attr), []).append(values.get(id(node)))
        for stmt in unit.node.body if tree.is_class(unit.node) else ():
            for name in tree.names_of(stmt):
                value = getattr(stmt, "value", None) if len(tree.names_of(stmt)) == 1 else None
                found.setdefault((unit.name, name), []).append(value)
    return found


# Parameters.


def bind_parameters(world: Collector) -> None:
    """Remove parameters that always get the same value, or that nobody reads."""
    calls = world.calls()
    handed_on = named_without_call(world)
    for place in world.places():
        found = [call for call, _, called in calls if called.function is place.function]
        given = [arguments_of(call, place) for call in found]
        named = place.cls.name if place.cls and place.name == "__init__" else place.name
        if not found or None in given or named in handed_on or is_overridden(world, place):
            continue
        if all(set(place.parameters) <= set(g) for g in given if g is not None):
            place.function.args.defaults = []
        for name in place.parameters:
            values = [g.get(name, place.defaults.get(name)) for g in given if g is not None]
            if None not in values:
                bind_parameter(world, place, name, values, found)  # type: ignore[arg-type]


def bind_parameter(
    world: Collector, place: Place, name: str, values: list[ast.expr], calls: list[ast.Call]
) -> None:
    """Remove one parameter if its values allow it."""
    body = ast.Module(place.function.body, [])
    read = any(isinstance(n, ast.Name) and n.id == name for n in tree.walk(body))
    alike = world.is_constant(values[0]) and all(tree.same(value, values[0]) for value in values)
    if alike and not tree.stores(body)[name]:
        place.function.body = tree.substituted(body, {name: values[0]}).body
    elif read or not all(map(tree.is_pure, values)):
        return
    index, args, defaults = place.parameters.index(name), place.function.args, place.defaults
    for call in calls:
        if index < len(call.args):
            del call.args[index]
        call.keywords = [k for k in call.keywords if k.arg != name]
    args.args = [a for a in args.args if a.arg != name]
    args.defaults = [defaults[a.arg] for a in args.args if a.arg in defaults]


def narrow_types(world: Collector) -> None:
    """Take None out of the types of parameters that never get it, and decide who asks for it."""
    calls = world.calls()
    elsewhere, set_later = named_without_call(world) | named_in_constants(world), replaced(world)
    for place in world.places():
        found = [(call, caller) for call, caller, called in calls
                 if called.function is place.function]  # fmt: skip
        given = [(arguments_of(call, place), caller) for call, caller in found]
        named = place.cls.name if place.cls and place.name == "__init__" else place.name
        all_seen = found and named not in elsewhere and not is_overridden(world, place)
        for arg in place.function.args.args if all_seen else ():
            if arg.arg in set_later and place.name == "__init__":
                continue
            kinds = alternatives(arg.annotation)
            values = [(g.get(arg.arg, place.defaults.get(arg.arg)), caller)
                      for g, caller in given if g is not None]  # fmt: skip
            rest = [kind for kind in kinds if ast.unparse(kind) != "None"]
            narrower = len(rest) < len(kinds) and len(values) == len(given)
            if narrower and all(is_something(world, value, caller) for value, caller in values):
                arg.annotation = functools.reduce(lambda a, b: ast.BinOp(a, ast.BitOr(), b), rest)
        for node in [n for n in tree.walk(place.function) if isinstance(n, ast.Compare)]:
            match node:
                case ast.Compare(ast.Name() as name, [ast.Is() | ast.IsNot() as op],
                                 [ast.Constant(value=None)]):  # fmt: skip
                    if is_something(world, name, place):
                        known = ast.Constant(isinstance(op, ast.IsNot))
                        tree.replaced(place.function, node, known)


def alternatives(kind: ast.expr | None) -> list[ast.expr]:
    """The types of which a type is one: A | B -> A, B."""
    if isinstance(kind, ast.BinOp):
        return alternatives(kind.left) + alternatives(kind.right)
    return [] if kind is None else [kind]


def replaced(world: Collector) -> set[str]:
    """The fields of records that `replace` sets."""
    nodes = [node for unit in world.units.values() for node in tree.walk(unit.node)]
    calls = [n for n in nodes if isinstance(n, ast.Call) and ast.unparse(n.func) == "replace"]
    return {str(keyword.arg) for call in calls for keyword in call.keywords}


def named_in_constants(world: Collector) -> set[str]:
    """What is named outside of functions, where calls are not seen."""
    units = [u.node for u in world.units.values() if not tree.is_method(u.node)]
    return {name for node in units if not tree.is_class(node) for name in tree.loads(node)}


def is_something(world: Collector, node: ast.expr | None, place: Place) -> bool:
    """Whether an expression in a function is surely not None: its type says so."""
    match node:
        case ast.Name(id=name) if tree.stores(place.function)[name] == 1:  # parameters count, too
            pairs = [pair for stmt in world.giving(place.function) for pair in tree.pairs(stmt)]
            values = [value for target, value in pairs if ast.unparse(target) == name]
            return is_something(world, values[0], place) if values else has_type(world, place, name)
        case ast.Attribute(value=ast.Name(id=owner), attr=attr):
            cls = world.cls(world.type_of(node.value, place))
            init = world.lookup(cls, "__init__") if hasattr(cls, "record") else None
            sure = (
                is_something(world, node.value, place) and tree.stores(place.function)[owner] == 1
            )
            return init is not None and sure and has_type(world, init, attr)
        case ast.Call():
            called = world.resolve(node, place)
            made = called is not None and called.name != "__init__"
            return called is not None and made and is_plain(world, called.function.returns)
    return False


def has_type(world: Collector, place: Place, parameter: str) -> bool:
    """Whether a parameter has a type without None, and no default that is None."""
    kind = next((a.annotation for a in place.function.args.args if a.arg == parameter), None)
    default = place.defaults.get(parameter)
    return is_plain(world, kind) and not tree.same(default or kind, ast.Constant(None))  # type: ignore


def is_plain(world: Collector, kind: ast.expr | None) -> bool:
    """Whether a type is one, of ours or known, that None does not belong to."""
    match kind:
        case ast.Name(id=name):
            return name in PLAIN or world.cls(name) is not None
        case ast.Subscript(value=ast.Name(id=name)):
            return name in PLAIN
    return False


def is_overridden(world: Collector, place: Place) -> bool:
    """Whether a method exists more than once in a family of classes, or is the root."""
    family = world.family(place.cls) if place.cls and place.name != "__init__" else []
    methods = [s for cls in family for s in cls.body if place.name in tree.names_of(s)]
    return len(methods) > 1 or place.name == world.root


def named_without_call(world: Collector) -> set[str]:
    """The names of functions and methods that are handed on instead of called."""
    found = set()
    for unit in world.units.values():
        calls = [n for n in tree.walk(unit.node) if isinstance(n, ast.Call)]
        called = {id(n.args[-1] if ast.unparse(n.func) == "isinstance" else n.func) for n in calls}
        for node in tree.walk(unit.node, ("annotation", "returns", "bases")):
            if id(node) in called or not tree.is_read(node):
                continue
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) != "CONFIG":
                found.add(node.attr)
            elif isinstance(node, ast.Name) and node.id in world.units:
                found.add(node.id)
    return found


# Records.


def unwrap_records(world: Collector) -> None:
    """Let a data class that only holds one value be that value."""
    for cls in world.classes.values():
        match [stmt for stmt in cls.body if not tree.is_docstring(stmt)]:
            case [ast.FunctionDef("__init__", ast.arguments(args=[_, field]), [_])]:
                if hasattr(cls, "record"):
                    unwrap(world, cls, field)


def unwrap(world: Collector, cls: ast.ClassDef, field: ast.arg) -> None:
    """Write the value of a record for the record."""
    world.forget()
    for place in world.places():
        unwrap_in(place, world, cls, field)
    for unit in world.units.values():
        for node in tree.walk(unit.node):
            for part in tree.TYPES:
                if getattr(node, part, None) is not None:
                    kind = tree.substituted(
                        getattr(node, part), {cls.name: field.annotation or ast.Name("Any")}
                    )
                    setattr(node, part, kind)
    del world.units[cls.name]


def unwrap_in(place: Place, world: Collector, cls: ast.ClassDef, field: ast.arg) -> None:
    """Write the value of a record for the record in a function, and its name for a variable."""
    local = tree.stores(place.function)
    ours = [n for n in local if world.type_of(ast.Name(n), place) == cls.name]
    for node in [*tree.walk(place.function)]:
        if isinstance(node, ast.Attribute) and world.type_of(node.value, place) == cls.name:
            tree.replaced(place.function, node, node.value)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == cls.name:
            value = [*node.args, *(k.value for k in node.keywords)][0]
            tree.replaced(place.function, node, value)
    for node in tree.walk(place.function) if len(ours) == 1 and field.arg not in local else ():
        part = "arg" if isinstance(node, ast.arg) else "id"
        if getattr(node, part, "") == ours[0]:
            setattr(node, part, field.arg)
