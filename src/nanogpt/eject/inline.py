"""Functions that are put where they are called, and names that stand for one value."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from nanogpt.eject import tree
from nanogpt.eject.collect import Collector
from nanogpt.eject.world import Place, arguments_of

CITED = re.compile(r"\([^()]*\d{4}[^()]*\)")  # a source: such functions keep their name
LONG = {1: 75, 2: 37}  # characters of what stands for a call, by the number of calls
KEPT = {"batch", "forward", "__init__", "__call__", "main"}
LATER = ast.Lambda | ast.ListComp | ast.GeneratorExp | ast.IfExp | ast.For | ast.While
PLAIN = ast.Assign | ast.Return | ast.Expr | ast.AnnAssign | ast.AugAssign


def inline_calls(world: Collector) -> None:
    """Put functions that are one expression, or that are called once, where they are called."""
    read_properties(world)
    open_constructors(world)
    calls = world.calls()
    counts = Counter(id(called.function) for _, _, called in calls)
    changed: set[int] = set()  # functions in which the calls may be others now
    for call, place, called in calls:
        touched = {id(place.function), id(called.function)} & changed
        opened = None if touched or called.name == world.root else opened_up(call, called)
        if opened is None or place.function is called.function:
            continue
        before, result = opened
        count = counts[id(called.function)]
        if not before and not stays(called, result, count):
            tree.replaced(place.function, call, result)
        elif count > 1 or not fits(call, called, place) or not put_before(call, place, *opened):
            continue
        elif called.cls is not None:
            called.cls.body.remove(called.function)
        changed.add(id(place.function))


def read_properties(world: Collector) -> None:
    """Put what a property returns in its place, and methods for other names of them."""
    world.forget()
    for place in world.places():
        for node in [n for n in tree.walk(place.function) if isinstance(n, ast.Attribute)]:
            other = world.class_value(world.cls(getattr(node.value, "id", "")), node.attr)
            if isinstance(other, ast.Attribute):  # another class's, under a name of its own
                node.value, node.attr = tree.clone(other.value), other.attr
            found = world.method(node, place)
            if found and "property" in found.decorators:
                before, result = opened_up(ast.Call(node, [], []), found) or ([ast.Pass()], node)
                if not before and not stays(found, result, 1):
                    tree.replaced(place.function, node, result)


def open_constructors(world: Collector) -> None:
    """Make functions of classes that only hand arguments on to a class of a library."""
    for name, cls in world.classes.items():
        match [stmt for stmt in cls.body if not tree.is_docstring(stmt)]:
            case [
                ast.FunctionDef(name="__init__", body=[*_, ast.Expr(ast.Call() as made)]) as init
            ]:
                alone = len(tree.body_of(init)) == 1 and not world.bases(cls)
                if alone and ast.unparse(made.func) == "super().__init__":
                    made.func, init.body = cls.bases[0], [ast.Return(made)]
                    init.name, init.args.args = name, init.args.args[1:]
                    world.units[name].node = init


def opened_up(call: ast.Call, called: Place) -> tuple[list[ast.stmt], ast.expr] | None:
    """A call as the statements of what it calls, and its result; None if it has to stay."""
    given, function = arguments_of(call, called), called.function
    leaves = [n for n in tree.walk(function) if isinstance(n, ast.Return | ast.Yield)]
    if given is None or any(leaf is not function.body[-1] for leaf in leaves):
        return None
    if called.decorators - {"staticmethod", "classmethod", "property"}:
        return None
    values = {**called.defaults, **given}
    theirs, reads = tree.stores(function), tree.loads(ast.Module(function.body, []))
    if called.bound:
        own, func = function.args.args[0].arg, call.func
        receiver: Any = func.value if called.name == getattr(func, "attr", "") else func  # type: ignore
        values[own] = ast.Name("self") if ast.unparse(receiver) == "super()" else receiver
        if reads[own] and (not is_atom(values[own]) or called.name in ("forward", "__call__")):
            return None
    again = {n for part in tree.walk(function) if isinstance(part, LATER) for n in tree.loads(part)}
    moved = {
        n for n, v in values.items()
        if theirs[n] == 1 and (is_atom(v) or (reads[n] <= 1 and n not in again))
    }  # fmt: skip
    before: list[Any] = [
        ast.Assign([ast.Name(n, ast.Store())], v, lineno=0)
        for n, v in values.items() if n not in moved and not is_same(n, v)
    ]  # fmt: skip
    others = {n for p, v in values.items() for n in tree.loads(v) if n != p}
    if {n for n in theirs if n not in moved} & others:
        return None
    body = [tree.substituted(tree.clone(s), {n: values[n] for n in moved})
            for s in tree.body_of(function)]  # fmt: skip
    result = body.pop().value if isinstance(body[-1], ast.Return) else None
    return [*before, *body], result or ast.Constant(None)


def is_same(name: str, value: ast.expr) -> bool:
    """Whether an argument is a variable of the parameter's name."""
    return isinstance(value, ast.Name) and value.id == name


def is_atom(node: ast.AST) -> bool:
    """Whether an expression may be written more than once."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return isinstance(node, ast.Name | ast.Constant)


def stays(called: Place, new: ast.expr, count: int) -> bool:
    """Whether a call says more than what it stands for."""
    parts = new.elts if isinstance(new, ast.Tuple) else [new]
    match tree.body_of(called.function):
        case [ast.Return(ast.Name(name))] if name in called.parameters:
            return False  # it gives back what it gets
    if all(map(is_atom, parts)) or called.name[:1].isupper():  # a class that became a function
        return False
    if called.name in KEPT and called.cls is not None and (count > 1 or called.name == "batch"):
        return True
    cited = CITED.search(ast.get_docstring(called.function) or "")
    return bool(cited and called.cls is None) or len(ast.unparse(new)) > LONG.get(count, 25)


def fits(call: ast.Call, called: Place, place: Place) -> bool:
    """Whether it reads well if the statements of a function stand in the only one that calls it."""
    body, free = tree.body_of(place.function), place.cls is None or place.function.decorator_list
    if len(body) == 1 and isinstance(body[0], ast.Return) and free and place.name not in KEPT:
        return False  # it will be put in place itself
    if ast.unparse(call.func).startswith("super()"):
        return True
    short = len(body) == 1 or len(tree.body_of(called.function)) <= 3
    cited = CITED.search(ast.get_docstring(called.function) or "")
    ours = called.cls is None or called.cls is place.cls
    return short and ours and not cited and called.name not in KEPT


def put_before(call: ast.Call, place: Place, before: list[ast.stmt], result: ast.expr) -> bool:
    """Write statements before the one that holds a call, if that changes nothing."""
    block = place.function.body
    for index, stmt in enumerate(block):
        first: Any = stmt.iter if isinstance(stmt, ast.For) else stmt
        if not isinstance(first, PLAIN | ast.expr) or not comes_first(first, call):
            continue
        if isinstance(stmt, ast.Assign) and isinstance(call.func, ast.Name):
            return False  # of a plain function only the last thing that is computed
        taken = set(tree.loads(stmt) - tree.loads(call))
        if not isinstance(stmt, ast.Return):  # what comes after it may read them
            taken |= set(tree.stores(place.function)) - set(map(ast.unparse, targets(stmt)))
        if taken & set(tree.stores(ast.Module(before, []))):
            return False
        alone = isinstance(stmt, ast.Expr) and stmt.value is call and tree.is_pure(result)
        block[index : index + 1] = [
            *before,
            *([] if alone else [tree.replaced(stmt, call, result)]),
        ]
        return True
    return False


def targets(stmt: ast.stmt) -> list[ast.expr]:
    """What a statement gives values to."""
    return [target for target, _ in tree.pairs(stmt)]


def comes_first(stmt: ast.AST, call: ast.Call) -> bool:
    """Whether a statement makes a call, and computes nothing that matters before it."""
    inside = {id(n) for n in tree.walk(call)}
    for node in tree.walk(stmt):
        if id(node) not in inside:
            holds = any(inner is call for inner in tree.walk(node))
            if isinstance(node, LATER if holds else ast.Call):
                return False
    return any(node is call for node in tree.walk(stmt))


# Names inside one function.


def propagate(world: Collector) -> None:
    """Put what a name stands for in its place, and drop values that nobody reads."""
    for place in world.places():
        for _ in range(50):
            found = next(replaceable(world, place.function), None)
            if found is not None:
                drop(place.function, found[0], found[1])
                values = {found[1]: found[2]}
                place.function.body = [tree.substituted(s, values) for s in place.function.body]
                continue
            unread = next(useless(world, place.function), None)
            if unread is None:
                break
            drop(place.function, *unread)


def drop(function: ast.FunctionDef, stmt: ast.stmt, name: str) -> None:
    """Remove the part of an assignment that gives a name its value."""
    rest = [(t, v) for t, v in tree.pairs(stmt) if ast.unparse(t) != name]
    new: list[ast.stmt] = []
    if rest:
        target, value = rest[0]
        if len(rest) > 1:
            target, value = ast.Tuple([t for t, _ in rest]), ast.Tuple([v for _, v in rest])
        new = [ast.Assign([target], value, lineno=0)]
        new[0].above, new[0].beside = stmt.above, stmt.beside  # type: ignore[attr-defined]
    for block in tree.blocks(function):
        if stmt in block:
            block[block.index(stmt) : block.index(stmt) + 1] = new


def assignments(function: ast.AST) -> Iterator[tuple[ast.stmt, str, ast.expr]]:
    """Statements that give names a value: statement, name, value."""
    for node in tree.walk(function):
        for target, value in tree.pairs(node):
            if isinstance(target, ast.Name):
                yield node, target.id, value


def replaceable(
    world: Collector, function: ast.FunctionDef
) -> Iterator[tuple[ast.stmt, str, ast.expr]]:
    """Assignments whose value can stand wherever the name does."""
    written, read = tree.stores(function), tree.loads(function)
    for stmt, name, value in assignments(function):
        if written[name] != 1 or not read[name]:
            continue
        fixed = all(written[n] <= 1 for n in tree.loads(value))
        alias = isinstance(value, ast.Name) and (written[value.id] == 1 or world.is_constant(value))
        mutable = isinstance(value, ast.List)
        short = world.is_constant(value) and len(ast.unparse(value)) < 25 and not mutable
        empty = ast.unparse(value) == "set(())"
        shape = isinstance(value, ast.Subscript) and isinstance(value.slice, ast.Constant)
        owner: Any = value.value if shape else value  # type: ignore[attr-defined]
        chain = read[name] == 1 and isinstance(owner, ast.Attribute) and is_atom(owner)
        chain = chain and not tree.sets_attribute(function, owner.attr)
        if fixed and (alias or short or empty or (chain and not in_loop(function, name, stmt))):
            yield stmt, name, value


def in_loop(function: ast.FunctionDef, name: str, stmt: ast.stmt) -> bool:
    """Whether a name is read in a loop that it is not set in."""
    loops = [n for n in tree.walk(function) if isinstance(n, ast.For | ast.While)]
    return any(tree.loads(loop)[name] and stmt not in tree.walk(loop) for loop in loops)


def useless(world: Collector, function: ast.FunctionDef) -> Iterator[tuple[ast.stmt, str]]:
    """Assignments whose value nobody reads."""
    read = tree.loads(function)
    for stmt, name, value in assignments(function):
        if not read[name] and (tree.is_pure(value) or world.is_constant(value)):
            yield stmt, name
