"""The definitions of a file that is being made: what type an expression has, what a call calls."""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from nanogpt.eject import tree

Function = ast.FunctionDef
MANY = ("list", "Iterator", "Iterable", "Sequence", "tuple")


@dataclass
class Unit:
    """A definition at the top level of the file: a function, a class or an assignment."""

    name: str
    node: Any
    module: str
    line: int


@dataclass(eq=False)
class Place:
    """A function, and the class that it is a method of."""

    function: Function
    cls: ast.ClassDef | None = None

    @property
    def name(self) -> str:
        """The function's own name."""
        return self.function.name

    @property
    def decorators(self) -> set[str]:
        """What its decorators are called."""
        return set(map(decorator_name, self.function.decorator_list))

    @property
    def bound(self) -> bool:
        """Whether the first parameter is the object, or the class, itself."""
        return self.cls is not None and "staticmethod" not in self.decorators

    @property
    def parameters(self) -> list[str]:
        """The names that a call gives values to, in order."""
        names = [arg.arg for arg in self.function.args.args]
        return names[1:] if self.bound else names

    @property
    def defaults(self) -> dict[str, ast.expr]:
        """The values of parameters that a call may leave out."""
        args = self.function.args
        return dict(zip([a.arg for a in args.args][::-1], args.defaults[::-1], strict=False))


class World:
    """The definitions, which become fewer and shorter."""

    def __init__(self, root: str, values: Mapping[str, Any]) -> None:
        self.root = root
        self.values = values  # of settings that are constants
        self.units: dict[str, Unit] = {}
        self.forget()

    def forget(self) -> None:
        """Types have to be found out again: the program has changed."""
        self.types: dict[tuple[int, str], str] = {}
        self.givers: dict[int, list[Any]] = {}  # what gives values to variables, by function

    # What there is.

    @property
    def classes(self) -> dict[str, ast.ClassDef]:
        """The classes among the definitions."""
        return {name: unit.node for name, unit in self.units.items() if tree.is_class(unit.node)}

    def cls(self, name: str) -> ast.ClassDef | None:
        """A class of ours by its name."""
        unit = self.units.get(name)
        return unit.node if unit and tree.is_class(unit.node) else None

    def places(self) -> Iterator[Place]:
        """All functions and methods."""
        for unit in list(self.units.values()):
            if tree.is_method(unit.node):
                yield Place(unit.node)
            elif tree.is_class(unit.node):
                yield from (
                    Place(stmt, unit.node) for stmt in [*unit.node.body] if tree.is_method(stmt)
                )

    def bases(self, cls: ast.ClassDef) -> list[ast.ClassDef]:
        """The classes of ours that a class inherits from directly."""
        found = [self.cls(base.id) for base in cls.bases if isinstance(base, ast.Name)]
        return [base for base in found if base is not None]

    def ancestors(self, cls: ast.ClassDef) -> list[ast.ClassDef]:
        """A class and what it inherits from, directly or not."""
        return [cls, *(c for base in self.bases(cls) for c in self.ancestors(base))]

    def family(self, cls: ast.ClassDef) -> list[ast.ClassDef]:
        """A class, what it inherits from, and all that inherit from it."""
        return self.ancestors(cls) + [c for c in self.heirs(cls) if c is not cls]

    def heirs(self, cls: ast.ClassDef) -> list[ast.ClassDef]:
        """A class and all that inherit from it, directly or not."""
        return [c for c in self.classes.values() if cls in self.ancestors(c)]

    def lookup(self, cls: ast.ClassDef | None, name: str) -> Place | None:
        """The method that a class has under a name, perhaps by inheritance."""
        value = self.class_value(cls, name)
        owners = self.ancestors(cls) if cls and isinstance(value, ast.FunctionDef) else []
        return next((Place(value, owner) for owner in owners if value in owner.body), None)  # type: ignore

    def class_value(self, cls: ast.ClassDef | None, name: str) -> ast.AST | None:
        """What a class, or one that it inherits from, defines under a name."""
        for owner in self.ancestors(cls) if cls else []:
            for stmt in owner.body:
                if tree.is_method(stmt) and stmt.name == name:
                    return stmt
                for target, value in tree.pairs(stmt):
                    if isinstance(target, ast.Name) and target.id == name:
                        return value
        return None

    # Types: the name of a class of ours; "[X]" for many of it, "(X,Y)" for several; "" if unknown.

    def type_of(self, node: ast.AST | None, place: Place) -> str:
        """The type of an expression in a function."""
        match node:
            case ast.Name(id="self"):
                return place.cls.name if place.cls else ""
            case ast.Name(id=name):
                return self.remembered(place.function, name, lambda: self.variable(name, place))
            case ast.Attribute(value=value, attr=attr):
                owner = self.cls(self.type_of(value, place))
                if owner is None:
                    return ""
                return self.remembered(owner, attr, lambda: self.attribute(owner, attr))
            case ast.Call(func=ast.Attribute(attr="ModuleList"), args=[ast.GeneratorExp(elt=elt)]):
                return f"[{self.type_of(elt, place)}]"
            case ast.Call(func=ast.Name(id="replace"), args=[value, *_]):
                return self.type_of(value, place)
            case ast.Call(func=ast.Attribute(attr="to" | "train" | "eval", value=value)):
                return self.type_of(value, place)
            case ast.Call(func=ast.Name(id=name)) if self.cls(name):
                return name
            case ast.Call():
                called = self.resolve(node, place)
                return self.annotated(called.function.returns) if called else ""
        return ""

    def remembered(self, node: ast.AST, name: str, find: Any) -> str:
        """A type that is found out once."""
        key = id(node), name
        if key not in self.types:
            self.types[key] = ""  # while it is being found out
            self.types[key] = find()
        return self.types[key]

    def annotated(self, annotation: ast.AST | None) -> str:
        """The type that an annotation names."""
        match annotation:
            case ast.BinOp(left=left, right=right):
                return self.annotated(left) or self.annotated(right)
            case ast.Subscript(value=ast.Name(id="tuple"), slice=ast.Tuple(elts=elements)):
                return "(" + ",".join(map(self.annotated, elements)) + ")"
            case ast.Subscript(value=ast.Name(id=name), slice=inner) if name in MANY:
                return f"[{self.annotated(inner)}]"
            case ast.Name(id=name) if self.cls(name):
                return name
        return ""

    def variable(self, name: str, place: Place) -> str:
        """The type of a variable: what its annotation says, or what it is given."""
        for arg in place.function.args.args:
            if arg.arg == name and self.annotated(arg.annotation):
                return self.annotated(arg.annotation)
        for node in self.giving(place.function):
            found = ""
            for target, value in tree.pairs(node):
                if isinstance(target, ast.Name) and target.id == name:
                    found = self.type_of(value, place)
                elif isinstance(target, ast.Tuple):
                    names = [getattr(e, "id", "") for e in target.elts]
                    kinds = self.type_of(value, place).strip("()").split(",")
                    if name in names and len(kinds) == len(names):
                        found = kinds[names.index(name)]
            if isinstance(node, ast.For | ast.comprehension):
                match node.target, node.iter:
                    case ast.Tuple(elts=[_, ast.Name(id=each)]), ast.Call(args=[many]):  # enumerate
                        found = self.element(many, place) if each == name else ""
                    case ast.Name(id=each), many:
                        found = self.element(many, place) if each == name else ""
            if found:
                return found
        return ""

    def giving(self, function: Function) -> list[Any]:
        """The assignments and loops of a function."""
        if id(function) not in self.givers:
            kinds = ast.Assign | ast.AnnAssign | ast.For | ast.comprehension
            found = [n for n in tree.walk(function) if isinstance(n, kinds)]
            self.givers[id(function)] = found
        return self.givers[id(function)]

    def element(self, many: Any, place: Place) -> str:
        """The type of what a loop over an expression gives."""
        for node in self.giving(place.function) if isinstance(many, ast.Name) else ():
            for target, value in tree.pairs(node):
                made = isinstance(value, ast.ListComp | ast.GeneratorExp)
                if made and ast.unparse(target) == many.id:
                    return self.type_of(value.elt, place)  # type: ignore[attr-defined]
        return self.type_of(many, place).strip("[]")

    def attribute(self, owner: ast.ClassDef, attr: str) -> str:
        """The type of an attribute: that of what it is given."""
        for cls in self.ancestors(owner):
            for method in filter(tree.is_method, cls.body):
                for target, value in (pair for n in self.giving(method) for pair in tree.pairs(n)):
                    if tree.is_self(target) and target.attr == attr:
                        found = self.type_of(value, Place(method, cls))
                        if found:
                            return found
        return ""

    # Calls.

    def resolve(self, call: ast.Call, place: Place) -> Place | None:
        """The function or method of ours that is called."""
        func = call.func
        if isinstance(func, ast.Name) and func.id in self.units:
            node = self.units[func.id].node
            if tree.is_class(node):
                return self.lookup(node, "__init__")
            return Place(node) if tree.is_method(node) else None
        if isinstance(func, ast.Attribute):
            called = self.method(func, place)
            if called:
                return called
        kind = self.cls(self.type_of(func, place))
        return self.only(kind, "forward") or self.only(kind, "__call__")

    def method(self, func: ast.Attribute, place: Place) -> Place | None:
        """The method of ours that `x.name` is."""
        if ast.unparse(func.value) == "super()":
            bases = self.bases(place.cls) if place.cls else []
            return self.lookup(bases[0], func.attr) if bases else None
        named = self.cls(func.value.id) if isinstance(func.value, ast.Name) else None
        if named:
            return self.lookup(named, func.attr)
        return self.only(self.cls(self.type_of(func.value, place)), func.attr)

    def only(self, cls: ast.ClassDef | None, name: str) -> Place | None:
        """The method of an object, unless a class that inherits has another."""
        heirs = self.heirs(cls) if cls else []
        others = [s for c in heirs if c is not cls for s in c.body if name in tree.names_of(s)]
        return None if others else self.lookup(cls, name)

    def calls(self) -> list[tuple[ast.Call, Place, Place]]:
        """Every call of something of ours: the call, where it stands, what it calls."""
        self.forget()
        found = []
        for place in self.places():
            for node in tree.walk(place.function):
                called = self.resolve(node, place) if isinstance(node, ast.Call) else None
                if called:
                    found.append((node, place, called))
        return found

    def is_constant(self, node: ast.AST | None) -> bool:
        """Whether an expression is made of constants, settings and definitions alone."""
        match node:
            case ast.Constant():
                return True
            case ast.Name(id=name):
                return name in self.values or name in self.units or name == "CONFIG"
            case ast.UnaryOp(operand=operand):
                return self.is_constant(operand)
            case ast.BinOp(left=left, right=right):
                return self.is_constant(left) and self.is_constant(right)
            case ast.List(elts=[_, *_] as elements) | ast.Tuple(elts=elements):
                return len(elements) < 4 and all(map(self.is_constant, elements))
            case ast.Attribute(value=ast.Name(id="math" | "torch" | "nn" | "CONFIG")):
                return True
            case ast.Call(func=ast.Name(id=name), args=[], keywords=[]):
                return self.is_nothing(name)
        return tree.does_nothing(node)

    def is_nothing(self, name: str) -> bool:
        """Whether a class of ours makes objects that hold nothing, so that all are alike."""
        cls = self.cls(name)
        return hasattr(cls, "record") and not any(map(tree.is_method, cls.body))  # type: ignore


def decorator_name(node: ast.expr) -> str:
    """What a decorator is called."""
    node = node.func if isinstance(node, ast.Call) else node
    return ast.unparse(node).rpartition(".")[2]


def arguments_of(call: ast.Call, called: Place) -> dict[str, ast.expr] | None:
    """The values that a call gives to parameters; None if that cannot be seen."""
    stars = [a for a in call.args if isinstance(a, ast.Starred)]
    stars += [k for k in call.keywords if k.arg is None]  # type: ignore[misc]
    names, args = called.parameters, called.function.args
    if stars or len(call.args) > len(names) or args.vararg or args.kwarg:
        return None
    return dict(zip(names, call.args, strict=False)) | {str(k.arg): k.value for k in call.keywords}
