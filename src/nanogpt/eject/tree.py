"""Python as a tree that keeps its comments, back to text, and what all passes ask of trees.

Python's own parser reads the source. It leaves comments out, so they are found by Python's
tokenizer and kept on the statements that they belong to. Ruff lays the text out in the end.
"""

import ast
import io
import subprocess
import sys
import tokenize
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from nanogpt.errors import UserError

TYPES = ("annotation", "returns")  # fields of a tree that are types
PRAGMA = ("# fmt:", "# type:", "# noqa")  # comments that are for tools
WIDTH = 100  # characters of a line
BESIDE = "#beside "  # marks a comment that goes to the end of the line before it
FIXES = "I,F401,UP,SIM300,C4,RET504"  # what ruff corrects: imports, old forms


def parse(path: Path, module: str) -> ast.Module:
    """A file as a tree. Statements have comments, names their module, numbers their own form.

    `above` are the comments on lines of their own before a statement, `beside` is the one at the
    end of its first part, `home` the module of a name.
    """
    text = path.read_text("utf-8")
    alone: dict[int, str] = {}
    trailing: dict[int, str] = {}
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT and not token.string.startswith(PRAGMA):
            where = trailing if token.line[: token.start[1]].strip() else alone
            where[token.start[0]] = token.string
    tree, lines = ast.parse(text), text.split("\n")
    for node in walk(without_loads(tree)):
        if isinstance(node, ast.Name):
            node.home = module  # type: ignore[attr-defined]
        elif isinstance(node, ast.stmt):
            note_comments(node, alone, trailing)
        elif isinstance(node, ast.Constant) and node.lineno == node.end_lineno:
            line = lines[node.lineno - 1].encode()
            written = line[node.col_offset : node.end_col_offset].decode()
            if type(node.value) in (int, float) or written.startswith('r"'):
                node.value = as_written(node.value, written)
    return tree


def note_comments(stmt: ast.stmt, alone: dict[int, str], trailing: Mapping[int, str]) -> None:
    """Give a statement the comments that belong to it."""
    body: list[ast.stmt] = getattr(stmt, "body", [])
    first = min([stmt.lineno, *(d.lineno for d in getattr(stmt, "decorator_list", []))])
    last = body[0].lineno - 1 if body else stmt.end_lineno or stmt.lineno
    above: list[str] = []
    while first - 1 in alone:
        first -= 1
        above.insert(0, alone.pop(first))
    beside = trailing.get(last) or trailing.get(stmt.lineno, "")
    stmt.above, stmt.beside = above, beside  # type: ignore[attr-defined]


def without_loads(tree: ast.AST) -> ast.AST:
    """A tree in which a name that is read does not say so, as in what the passes make."""
    for node in walk(tree):
        if isinstance(getattr(node, "ctx", None), ast.Load):
            del node.ctx
    return tree


def expression(text: str) -> Any:
    """A text as an expression."""
    return without_loads(ast.parse(text, mode="eval").body)


def move_comments(old: Any, new: Any) -> None:
    """Give a statement the comments of one that it takes the place of, before its own."""
    new.above = [*getattr(old, "above", []), *getattr(new, "above", [])]
    new.beside = getattr(new, "beside", "") or getattr(old, "beside", "")


def name(text: str, module: str) -> ast.Name:
    """A name as it stands in a module."""
    node = ast.Name(text)
    node.home = module  # type: ignore[attr-defined]
    return node


def function(name: str, parameters: Sequence[str]) -> Any:
    """A function that does nothing."""
    made: Any = ast.parse(f"def {name}({', '.join(parameters)}): pass").body[0]
    made.body = []
    return made


def as_written(value: Any, text: str) -> Any:
    """A constant that is written as it was in the source, such as 10_000 or 1e-5."""
    kind = type(value)
    return type(kind.__name__, (kind,), {"__repr__": lambda self: text})(value)


# From tree to text.


def text_of(node: Any) -> str:
    """A definition as text, with its comments."""
    tree = clone(ast.Module([node], []))
    for inner in walk(tree):
        for name in ("body", "orelse", "finalbody"):
            body = getattr(inner, name, None)
            if isinstance(body, list) and body:
                setattr(inner, name, [s for stmt in body for s in with_comments(stmt)])
    found: list[str] = []
    for line in ast.unparse(ast.fix_missing_locations(tree)).split("\n"):
        _, mark, comment = line.partition(BESIDE)
        if not mark:
            found.append(line)
        elif len(found[-1]) + 2 + len(comment) <= WIDTH:
            found[-1] += "  " + comment
        else:
            before = found[-1]
            indent = before[: len(before) - len(before.lstrip())]
            found.insert(-1, indent + comment)
    return "\n".join(found) + "\n"


def with_comments(stmt: ast.stmt) -> Iterator[ast.stmt]:
    """A statement and its comments, as statements that are written like comments."""
    for comment in getattr(stmt, "above", []):
        yield ast.Expr(ast.Name(comment))
    value = getattr(stmt, "value", None)
    if isinstance(stmt, ast.Return | ast.Assign) and isinstance(value, ast.Tuple) and value.elts:
        stmt.value = ast.Name(ast.unparse(ast.fix_missing_locations(value))[1:-1])  # no brackets
    beside = getattr(stmt, "beside", "")
    mark = ast.Expr(ast.Name(BESIDE + beside))
    if beside and hasattr(stmt, "body") and not is_docstring(stmt.body[0]):
        stmt.body.insert(0, mark)
    yield stmt
    if beside and not hasattr(stmt, "body"):
        yield mark


def formatted(text: str) -> str:
    """A text as ruff lays it out. Raises UserError if ruff is not installed."""
    options = ["--line-length", str(WIDTH), "--target-version", "py311", "--isolated", "-"]
    for command in (
        ["check", "--fix", "--unsafe-fixes", "--select", FIXES, "--quiet"],
        ["format", "--quiet"],
    ):
        arguments = [sys.executable, "-m", "ruff", *command, *options]
        done = subprocess.run(arguments, input=text, capture_output=True, text=True)
        if "No module" in done.stderr:
            raise UserError("eject needs ruff: pip install ruff")
        if not done.stdout:  # a mistake of ours
            raise RuntimeError(f"ruff cannot read what was made: {done.stderr}")
        text = done.stdout
    return text


# What all passes ask of trees.


def walk(node: ast.AST, skip: Collection[str] = ()) -> Iterator[Any]:
    """Every node of a tree, from the first to the last, but for the fields to skip."""
    todo = [node]
    while todo:
        node = todo.pop()
        yield node
        inner: list[ast.AST] = []
        for name, value in node.__dict__.items():
            if name in skip:
                continue
            if isinstance(value, list):
                inner += [item for item in value if isinstance(item, ast.AST)]
            elif isinstance(value, ast.AST) and not isinstance(value, ast.expr_context):
                inner.append(value)
        todo += reversed(inner)


def clone(node: Any) -> Any:
    """A deep copy, faster than that of the module copy."""
    if not isinstance(node, ast.AST):
        return node
    new = type(node)()
    for name, value in node.__dict__.items():
        copied = [clone(item) for item in value] if isinstance(value, list) else clone(value)
        setattr(new, name, copied)
    return new


def substituted(node: Any, values: Mapping[str, ast.expr]) -> Any:
    """A tree, changed in place, in which expressions stand for names, or for "name.attribute"."""

    class Substitution(ast.NodeTransformer):
        """Puts the expressions in."""

        def visit_Name(self, inner: ast.Name) -> Any:
            return clone(values[inner.id]) if inner.id in values and is_read(inner) else inner

        def visit_Attribute(self, inner: ast.Attribute) -> Any:
            text = f"{getattr(inner.value, 'id', '')}.{inner.attr}"
            return clone(values[text]) if text in values else self.generic_visit(inner)

        def visit_Lambda(self, inner: ast.Lambda) -> Any:
            hidden = {a.arg for a in inner.args.args}
            rest = {name: value for name, value in values.items() if name not in hidden}
            inner.body = substituted(inner.body, rest)
            return inner

    return Substitution().visit(node)


def replaced(root: ast.AST, old: ast.AST, new: ast.AST) -> Any:
    """A tree in which one node stands in the place of another. It is changed in place."""

    class Replacing(ast.NodeTransformer):
        """Puts the node in."""

        def visit(self, node: ast.AST) -> Any:
            return new if node is old else self.generic_visit(node)

    return Replacing().visit(root)


def is_read(node: ast.AST) -> bool:
    """Whether a name or an attribute is read, not given a value."""
    return not isinstance(getattr(node, "ctx", None), ast.Store | ast.Del)


def loads(tree: ast.AST, skip: Collection[str] = ()) -> Counter[str]:
    """How often each name is read."""
    return Counter(n.id for n in walk(tree, skip) if isinstance(n, ast.Name) and is_read(n))


def stores(tree: ast.AST) -> Counter[str]:
    """How often each name is given a value; parameters count."""
    found: Counter[str] = Counter()
    for node in walk(tree):
        if isinstance(node, ast.Name) and not is_read(node):
            found[node.id] += 1
        elif isinstance(node, ast.arg):
            found[node.arg] += 1
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
            found[node.name] += 1
    return found


def sets_attribute(tree: ast.AST, attr: str) -> bool:
    """Whether code gives a value to an attribute of this name."""
    return any(getattr(n, "attr", "") == attr and not is_read(n) for n in walk(tree))


def pairs(stmt: ast.AST) -> list[tuple[ast.expr, ast.expr]]:
    """The targets and values of an assignment, one by one where both are tuples."""
    if isinstance(stmt, ast.AnnAssign) and stmt.value is not None:
        return [(stmt.target, stmt.value)]
    if not isinstance(stmt, ast.Assign) or len(stmt.targets) != 1:
        return []
    target, value = stmt.targets[0], stmt.value
    both = isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple)
    if both and not any(isinstance(e, ast.Starred) for e in (*target.elts, *value.elts)):  # type: ignore
        return list(zip(target.elts, value.elts, strict=True))  # type: ignore[attr-defined]
    return [(target, value)]


def blocks(tree: ast.AST) -> Iterator[list[ast.stmt]]:
    """Every list of statements in a tree, to be changed in place."""
    for node in walk(tree):
        for name in ("body", "orelse", "finalbody"):
            body = getattr(node, name, None)
            if isinstance(body, list):
                yield body


def is_docstring(stmt: ast.AST) -> bool:
    """Whether a statement is a text that stands for itself."""
    value = getattr(stmt, "value", None)
    text = isinstance(value, ast.Constant) and isinstance(value.value, str)
    return isinstance(stmt, ast.Expr) and text


def is_self(node: ast.AST) -> TypeGuard[ast.Attribute]:
    """Whether an expression is an attribute of self."""
    owner = node.value if isinstance(node, ast.Attribute) else None
    return isinstance(owner, ast.Name) and owner.id == "self"


def is_class(node: ast.AST) -> TypeGuard[ast.ClassDef]:
    """Whether a definition is a class."""
    return isinstance(node, ast.ClassDef)


def is_method(node: ast.AST) -> TypeGuard[ast.FunctionDef]:
    """Whether a statement of a class is a method."""
    return isinstance(node, ast.FunctionDef)


def same(a: ast.AST, b: ast.AST) -> bool:
    """Whether two trees are the same code."""
    return ast.dump(a) == ast.dump(b)


def matches(pattern: Any, node: Any, found: dict[str, Any]) -> bool:
    """Whether a tree is like a pattern, in which a name of one letter is any expression."""
    if isinstance(pattern, list) and isinstance(node, list):
        pairs = zip(pattern, node, strict=False)
        return len(pattern) == len(node) and all(matches(p, n, found) for p, n in pairs)
    if not isinstance(pattern, ast.AST):
        numbers = isinstance(pattern, int | float) and isinstance(node, int | float)
        return pattern == node and (numbers or isinstance(node, type(pattern)))
    if isinstance(pattern, ast.Name) and len(pattern.id) == 1 and isinstance(node, ast.expr):
        first = found.setdefault(pattern.id, node)
        return first is node or (same(first, node) and is_pure(node))
    fields = [name for name in pattern._fields if name not in ("ctx", "kind", "type_comment")]
    alike = type(pattern) is type(node)
    return alike and all(
        matches(getattr(pattern, name), getattr(node, name, None), found) for name in fields
    )


def names_of(stmt: ast.stmt) -> list[str]:
    """What a statement defines."""
    if isinstance(stmt, ast.FunctionDef | ast.ClassDef):
        return [stmt.name]
    if isinstance(stmt, ast.AnnAssign):
        return [ast.unparse(stmt.target)]
    return [t.id for t, _ in pairs(stmt) if isinstance(t, ast.Name)]


def is_pure(node: ast.AST) -> bool:
    """Whether an expression may be left out, or computed elsewhere: it changes nothing."""
    impure = (ast.Call, ast.Yield, ast.YieldFrom, ast.NamedExpr)
    return all(not isinstance(n, impure) or is_pure_call(n) for n in walk(node))


PURE_CALLS = {
    "len", "Path", "range", "list", "dict", "tuple", "min", "max", "int", "float", "bytes", "map",
    "sorted", "set", "Splitter", "special_pattern", "WordCache", "cast", "math.sqrt", "end_of_text",
    "torch.arange",
}  # fmt: skip


def is_pure_call(node: ast.AST) -> bool:
    """Whether a call is known to change nothing."""
    if not isinstance(node, ast.Call):
        return False
    name = ast.unparse(node.func)
    return name in PURE_CALLS or name.endswith((".sum", ".modules")) or does_nothing(node)


def does_nothing(node: ast.AST | None) -> bool:
    """Whether an expression makes a layer that gives what it gets."""
    known = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    return known and ast.unparse(node).startswith(("nn.Identity(", "nn.Dropout(0.0)"))  # type: ignore


def body_of(function: ast.FunctionDef) -> Sequence[ast.stmt]:
    """The statements of a function without its docstring."""
    return [stmt for stmt in function.body if not is_docstring(stmt)]
