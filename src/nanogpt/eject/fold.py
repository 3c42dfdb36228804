"""What can be simplified without looking further than one definition.

Settings and variants are put in, conditions that are known are decided, arithmetic with nothing
goes. Nothing here changes a result by a single bit.
"""

import ast
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nanogpt.eject import tree

if TYPE_CHECKING:
    from nanogpt.eject.collect import Collector

UNKNOWN = object()
SHORTCUTS = ("encode_long_word",)  # calls that give what the rest of the function gives, sooner
OPERATORS: dict[type, Callable[..., Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul,
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le,
    ast.Gt: operator.gt, ast.GtE: operator.ge, ast.Not: operator.not_, ast.USub: operator.neg,
    ast.Is: operator.is_, ast.IsNot: operator.is_not,
}  # fmt: skip

# What stands on the left becomes what stands on the right. A single letter is any expression. 0 and
# 1 are 0.0 and 1.0, too: nobody multiplies by 1.0 only to make a float of an integer.
RULES = [
    tuple(map(tree.expression, rule.split("  ->  ")))
    for rule in (
        "x + 0  ->  x", "0 + x  ->  x", "x - 0  ->  x", "x - x  ->  0",
        "x * 1  ->  x", "1 * x  ->  x", "0.0 * x  ->  0.0", "x // 1  ->  x", "x // x  ->  1",
        "--x  ->  x", "x if c else x  ->  x", "step < 0  ->  False", "x[ALL]  ->  x",
        "N_HEAD * (N_EMBD // N_HEAD)  ->  N_EMBD", "x not in set(())  ->  True",
        "[x] * 1  ->  [x]", "[x] * 2  ->  [x, x]", "2 * [x]  ->  [x, x]",
        "sum([x])  ->  x", "sum([x, x, x])  ->  3 * x", "sum([x, y, y])  ->  x + 2 * y",
        "sum((0.0 for m in x), 0.0)  ->  0.0", "x.split([y, y, y], dim=-1)  ->  x.split(y, dim=-1)",
        "nn.Linear(x, y, bias=True)  ->  nn.Linear(x, y)", "cast(t, x)  ->  x",
        # What only `nanogpt plan` reads.
        "{'weight_decay': x, 'lr_factor': y, 'state_per_weight': 1}"
        "  ->  {'weight_decay': x, 'lr_factor': y}",
        "nn.Identity(c)(x)  ->  x", "nn.Dropout(0.0)(x)  ->  x",
    )
]  # fmt: skip


def value_of(node: Any, known: Mapping[str, Any]) -> Any:
    """The value of an expression of constants, or UNKNOWN."""
    operands: list[ast.expr] = []
    match node:
        case ast.Constant():
            return node.value
        case ast.Name(id=name):
            return known.get(name, UNKNOWN)
        case ast.Attribute(value=ast.Name(id="CONFIG")):
            return True  # a section of settings, in `settings or DataConfig()`
        case ast.UnaryOp(operand=operand):
            operands = [operand]
        case ast.BinOp(left=left, right=right) | ast.Compare(left=left, comparators=[right]):
            operands = [left, right]
    op = node.ops[0] if isinstance(node, ast.Compare) else getattr(node, "op", None)
    values = [value_of(operand, known) for operand in operands]
    if not values or UNKNOWN in values or type(op) not in OPERATORS:
        return UNKNOWN
    return OPERATORS[type(op)](*values)


class Fold(ast.NodeTransformer):
    """Simplifies expressions and statements from the inside out."""

    def __init__(self, world: "Collector") -> None:
        self.world, self.settings = world, world.settings

    def visit(self, node: ast.AST) -> Any:
        """Simplify what is inside a node, then the node."""
        self.generic_visit(node)
        simplify = getattr(self, f"visit_{type(node).__name__}", None)
        new = simplify(node) if simplify else node
        for pattern, result in RULES if isinstance(new, ast.expr) else ():
            found: dict[str, ast.expr] = {}
            if type(pattern) is type(new) and tree.matches(pattern, new, found):
                dropped = [found[name] for name in found.keys() - tree.loads(result).keys()]
                if all(map(tree.is_pure, dropped)):
                    return tree.substituted(tree.clone(result), found)
        return new

    def truth(self, node: ast.expr) -> bool | None:
        """Whether a condition holds, if that is known."""
        value = value_of(node, self.settings.known)
        if isinstance(node, ast.BoolOp) and all(map(tree.is_pure, node.values)):
            stops = isinstance(node.op, ast.Or)
            value = stops if stops in map(self.truth, node.values) else UNKNOWN
        return None if value is UNKNOWN else bool(value)

    # Settings and variants.

    def visit_Attribute(self, node: ast.Attribute) -> Any:
        match node:
            case ast.Attribute(value=ast.Attribute(value=ast.Name(id="CONFIG"), attr=section)):
                return self.settings.expression(section, node.attr, self.visit)
            case ast.Attribute(value=ast.Call(func=ast.Name() as name, args=args)):
                cls = self.world.definition(name)
                if "NamedTuple" in map(ast.unparse, getattr(cls, "bases", [])):
                    fields = [f for s in cls.body if isinstance(s, ast.AnnAssign)
                              for f in tree.names_of(s)]  # fmt: skip
                    return args[fields.index(node.attr)]
        return node

    def visit_Subscript(self, node: ast.Subscript) -> Any:
        match node:
            case ast.Subscript(value=ast.Name() as table, slice=ast.Constant(value=str(name))):
                return self.world.entry(table, name) or node
        return node

    def visit_Call(self, node: ast.Call) -> Any:
        node.args = flat(node.args)
        match node:
            case ast.Call(ast.Name("choose"), [ast.Name() as table, _, ast.Constant(value=name)]):
                return self.visit(self.world.entry(table, name))
            case ast.Call(ast.Name("asdict"), [ast.Call(keywords=[changed])]):
                if "CONFIG" in tree.loads(node):  # which settings are constants is known in the end
                    return ast.Call(ast.Name("SETTINGS"), [changed.value.values[0]], [])  # type: ignore
            case ast.Call(ast.Name("replace"), [ast.Attribute(value=ast.Name("CONFIG"))], [size]):
                return size.value  # of the vocabulary
            case ast.Call(ast.Name("replace"), [value]) if self.world.complete:
                node.keywords = [k for k in node.keywords if k.arg in self.world.read]
                return node if node.keywords else value
            case ast.Call(ast.Name("getattr"), [_, ast.Constant(value=name), default]):
                return node if self.world.mentions(name) else default
            case ast.Call(ast.Attribute(attr="get"), [ast.Constant(value=name), default]):
                return node if self.world.mentions(name) else default
            case ast.Call(ast.Name("max"), [ast.Constant(least), value]):
                found = value_of(value, self.settings.known)
                return value if found is not UNKNOWN and found >= least else node
            case ast.Call(ast.Lambda(parameters, body)):
                names = [a.arg for a in parameters.args]
                values = dict(zip(names, node.args, strict=True))
                return self.visit(tree.substituted(tree.clone(body), values))
        return node

    # Expressions.

    def visit_IfExp(self, node: ast.IfExp) -> Any:
        known = self.truth(node.test)
        return node if known is None else node.body if known else node.orelse

    def visit_BoolOp(self, node: ast.BoolOp) -> Any:
        stops, values = isinstance(node.op, ast.Or), []
        for n, value in enumerate(node.values):
            known = self.truth(value)
            if known is stops or known is None or n == len(node.values) - 1:
                values.append(value)
            if known is stops:
                break
        node.values = values
        return values[0] if len(values) == 1 else node

    def visit_UnaryOp(self, node: ast.UnaryOp) -> Any:
        known = self.truth(node.operand) if isinstance(node.op, ast.Not) else None
        return node if known is None else ast.Constant(not known)

    def visit_Compare(self, node: ast.Compare) -> Any:
        known = self.truth(node)
        return node if known is None or not tree.is_pure(node) else ast.Constant(known)

    def visit_List(self, node: ast.List | ast.Tuple) -> Any:
        node.elts = flat(node.elts)
        return node

    visit_Tuple = visit_List

    def visit_JoinedStr(self, node: ast.JoinedStr) -> Any:
        parts: list[Any] = []
        for part in node.values:
            inner = getattr(part, "value", None)
            known = inner if isinstance(part, ast.FormattedValue) else part
            text = isinstance(known, ast.Constant) and isinstance(known.value, str)
            if text and parts and isinstance(parts[-1], ast.Constant):
                parts[-1] = ast.Constant(parts[-1].value + known.value)  # type: ignore[union-attr]
            else:
                parts.append(known if text else part)
        node.values = parts
        return node

    def visit_comprehension(self, node: ast.comprehension) -> Any:
        node.ifs = [self.tested(test) for test in node.ifs if self.truth(test) is not True]
        return node

    def tested(self, node: ast.expr) -> ast.expr:
        """A condition of which only the truth matters, without the parts that are known."""
        if isinstance(node, ast.BoolOp):
            known = not isinstance(node.op, ast.Or)
            node.values = [v for v in node.values if self.truth(v) is not known]
            return node if len(node.values) > 1 else node.values[0]
        return node

    # Statements.

    def visit_If(self, node: ast.If) -> Any:
        known = self.truth(node.test)
        if known is not None:
            return in_place_of(node, node.body if known else node.orelse)
        node.test = self.tested(node.test)
        return None if is_guard(node.body) and not node.orelse else node

    def visit_While(self, node: ast.While) -> Any:
        node.test = self.tested(node.test)
        return node

    def visit_Try(self, node: ast.Try) -> Any:
        guards = all(is_guard(handler.body) for handler in node.handlers)
        return [*node.body, *node.orelse] if guards and not node.finalbody else node

    def visit_With(self, node: ast.With) -> Any:
        nothing = ast.unparse(node.items[0].context_expr) == "nullcontext()"
        return in_place_of(node, node.body) if nothing else node

    def visit_For(self, node: ast.For) -> Any:
        match node.target, node.iter:  # whose number nobody reads
            case ast.Tuple(elts=[number, each]), ast.Call(ast.Name("enumerate"), [many]):
                if not any(tree.loads(stmt)[ast.unparse(number)] for stmt in node.body):
                    node.target, node.iter = each, many
        return node

    def visit_Assign(self, node: ast.Assign) -> Any:
        found = tree.pairs(node)  # `x = x`
        same = [ast.unparse(target) == ast.unparse(value) for target, value in found]
        return None if found and all(same) else node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> Any:
        node.body = reachable(node.body)
        return node


def flat(nodes: Sequence[ast.expr]) -> list[ast.expr]:
    """Expressions in which `*(a, b)` is written out."""
    found: list[ast.expr] = []
    for node in nodes:
        inner = node.value if isinstance(node, ast.Starred) else None
        found += inner.elts if isinstance(inner, ast.Tuple | ast.List) else [node]
    return found


def in_place_of(node: ast.stmt, statements: Sequence[ast.stmt]) -> list[ast.stmt]:
    """Statements that take another's place, and its comments with it."""
    for first in statements[:1]:
        tree.move_comments(node, first)
    return list(statements)


def is_guard(body: Sequence[ast.stmt]) -> bool:
    """Whether statements do nothing but complain, or give sooner what the rest gives."""
    match body[-1:]:
        case [ast.Return(ast.Call(ast.Name(name)))]:
            return name in SHORTCUTS
        case [ast.Raise(ast.Call(ast.Name("UserError")))]:
            return True
    return False


def reachable(body: Sequence[ast.stmt]) -> list[ast.stmt]:
    """The statements up to the first that leaves the block."""
    found: list[ast.stmt] = []
    for stmt in body:
        bare = isinstance(stmt, ast.AnnAssign) and stmt.value is None  # says only of which type
        found += [] if bare or isinstance(stmt, ast.Pass) else [stmt]
        for name in ("body", "orelse") if not isinstance(stmt, ast.FunctionDef) else ():
            block = getattr(stmt, name, None)
            if block or (name == "body" and isinstance(block, list)):
                setattr(stmt, name, reachable(block))
        if isinstance(stmt, ast.Return | ast.Raise | ast.Break | ast.Continue):
            break
    return found or [ast.Pass()]
