"""An exercise: a function of the package to write again, and a judge that says what is wrong.

The judge runs the learner's function and the package's on the same small cases. Where they differ,
it looks for a reason: each exercise knows the mistakes that people make, as functions that make
them. If one of these gives exactly what the learner's gives, that was the mistake, however it was
written.
"""

import ast
import copy
import inspect
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nanogpt.errors import UserError, did_you_mean

RELATIVE, ABSOLUTE = 1e-4, 2e-6  # float32 sums in another order differ by less
YOUR_TURN = "your turn"  # what a stub says
SHOWN = 16  # numbers of a tensor that an example writes out


@dataclass(frozen=True)
class Mistake:
    """Something that people get wrong: what to say of it, and a function that does it."""

    name: str
    diagnosis: str
    wrong: Callable[..., Any]


@dataclass(frozen=True, eq=False)
class Exercise:
    """A function or a class of the package to write again.

    `drive` makes a candidate show what it does in a case; a function is simply called. Of a class
    the learner writes only the methods in `write`; the others are given.

    `task` is the docstring of the stub (of its class, if it is one) where the package's own would
    give the solution away. Of a plain form, `adapt` makes what `play` puts into the model, in place
    of `replaces`; by default the candidate itself takes the place of the reference.
    """

    name: str
    title: str
    reference: Callable[..., Any]
    cases: Callable[[], list[tuple[Any, ...]]]  # the smallest first
    mistakes: Sequence[Mistake]
    hints: tuple[str, str, str]
    lesson: int
    write: tuple[str, ...] = ()
    drive: Callable[..., Any] = field(default=lambda candidate, *case: candidate(*case))
    describe: Callable[..., str] | None = None  # a case in words; by default as a call
    optional: bool = False  # a second step: what the package does with more options
    task: str = ""
    adapt: Callable[[Any], Any] | None = None
    replaces: Any = None

    @property
    def symbol(self) -> str:
        """The name that the learner's file has to define."""
        return self.reference.__name__

    @property
    def in_model(self) -> bool:
        """Whether the real model has a place for it, so that `play` can use it."""
        return self.replaces is not None or not self.reference.__module__.startswith(
            "nanogpt.learn"
        )


@dataclass(frozen=True)
class Verdict:
    """What the judge says."""

    passed: bool
    mistake: str = ""  # the name of a known one
    diagnosis: str = ""
    example: str = ""


@dataclass(frozen=True)
class Raised:
    """What a candidate raised, in place of a result."""

    error: Exception
    line: int  # of the candidate's own file; 0 if it was not there


def judge(
    exercise: Exercise,
    candidate: Callable[..., Any],
    say: Callable[[str], None] = lambda case: None,
) -> Verdict:
    """Compare a candidate with the package on every case. `say` is told the case that is next."""
    if problem := not_acceptable(exercise.reference, candidate):
        return Verdict(False, *problem)
    cases = exercise.cases()
    found: list[Any] = []
    for case in cases:
        say(described(exercise, case))
        given = copy.deepcopy(case)
        found.append(result_of(exercise, candidate, given))
        if changed := what_changed(case, given):
            return Verdict(
                False,
                "changes-its-input",
                f"It changes its input: {changed} is different afterwards. Work on a copy, or make "
                "a new value.",
                described(exercise, case),
            )
    expected = [result_of(exercise, exercise.reference, copy.deepcopy(case)) for case in cases]
    failing = [n for n in range(len(cases)) if difference(expected[n], found[n])]
    if not failing:
        return Verdict(True)
    first = found[failing[0]]
    if isinstance(first, Raised) and repr(first.error) == repr(NotImplementedError(YOUR_TURN)):
        return Verdict(False, "not-written", "It is not written yet.")
    mistake, shows = recognised(exercise, cases, expected, found, len(failing))
    n = shows if mistake else failing[0]
    place, right, got = narrowed(expected[n], found[n])
    example = f"{described(exercise, cases[n])}{place}\n  expected  {shown(right)}"
    example += f"\n  got       {shown(got)}"
    if mistake:
        return Verdict(False, mistake.name, mistake.diagnosis, example)
    return Verdict(False, "", difference(right, got), example)


def recognised(
    exercise: Exercise,
    cases: Sequence[tuple[Any, ...]],
    expected: Sequence[Any],
    found: Sequence[Any],
    failing: int,
) -> tuple[Mistake | None, int]:
    """The mistake that explains what is wrong, and the first case that shows it.

    A candidate may contain other mistakes as well, so not every case has to fit. To rule out
    coincidence, three in four of a mistake's own effects have to be there, and they have to explain
    more than half of the failing cases. If several mistakes fit, the one that explains most counts.
    """
    best: tuple[int, Mistake | None, int] = (failing // 2, None, 0)
    for mistake in exercise.mistakes:
        theirs = [result_of(exercise, mistake.wrong, copy.deepcopy(case)) for case in cases]
        effects = [n for n in range(len(cases)) if difference(expected[n], theirs[n])]
        there = [n for n in effects if not difference(theirs[n], found[n])]
        if len(there) > best[0] and 4 * len(there) >= 3 * len(effects):
            best = len(there), mistake, there[0]
    return best[1], best[2]


def not_acceptable(reference: Callable[..., Any], candidate: Any) -> tuple[str, str] | None:
    """What is wrong before anything is run: the name of a mistake, and what to say of it."""
    if candidate is reference:
        return "the-packages-own", (
            "That is the package's own function, imported. Write it here: otherwise the check only "
            "compares the package with itself."
        )
    if inspect.isclass(candidate) or not inspect.isfunction(reference):
        return None
    parameters = inspect.signature(reference).parameters.values()
    needed = [p.name for p in parameters if p.default is p.empty]
    optional = {p.name: p.default for p in parameters if p.default is not p.empty}
    try:
        signature = inspect.signature(candidate)
        signature.bind(*needed, *optional.values())
        signature.bind(*needed, **optional)
    except TypeError:
        return "other-signature", (
            f"The package calls it as {reference.__name__}{inspect.signature(reference)}, and that "
            "does not work here. Keep the signature of the stub."
        )
    except ValueError:  # some built-in functions have no signature
        pass
    return None


def result_of(exercise: Exercise, candidate: Callable[..., Any], case: tuple[Any, ...]) -> Any:
    """What a candidate makes of a case: a result, or what it raised."""
    torch.manual_seed(0)
    try:
        result = exercise.drive(candidate, *case)
        return list(result) if isinstance(result, Iterator) else result
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        file = file_of(candidate)
        lines = [frame.lineno or 0 for frame in frames if frame.filename == file]
        return Raised(error, lines[-1] if lines else 0)


def file_of(candidate: Callable[..., Any]) -> str:
    """The file that defines a candidate; empty if there is none."""
    try:
        return inspect.getsourcefile(inspect.unwrap(candidate)) or ""
    except TypeError:
        return ""


def what_changed(before: tuple[Any, ...], after: tuple[Any, ...]) -> str:
    """Which argument was changed; empty if none was."""
    for number, (one, other) in enumerate(zip(before, after, strict=True), 1):
        if isinstance(one, Tensor | np.ndarray | list | dict) and difference(one, other):
            return f"argument {number}"
    return ""


def difference(right: Any, got: Any) -> str:
    """How a result differs from the right one, as a sentence; empty if it does not."""
    try:
        return how_it_differs(right, got)
    except Exception:  # a result can be of any type at all
        return f"It gives {kind(got)}. That cannot be compared with {kind(right)}."


def how_it_differs(right: Any, got: Any) -> str:
    """The same, for results that can be compared."""
    if isinstance(got, Raised) or isinstance(right, Raised):
        if isinstance(got, Raised) and isinstance(right, Raised):
            same = type(got.error) is type(right.error)
            return "" if same else f"It raises {shown(got)}."
        return (
            f"It raises {shown(got)}." if isinstance(got, Raised) else "It should raise an error."
        )
    if isinstance(right, Tensor | np.ndarray):
        return difference_of_tensors(torch.as_tensor(right), got)
    if isinstance(right, Mapping):
        if not isinstance(got, Mapping) or set(right) != set(got):
            return f"It gives {shown(got)}; right is {shown(right)}."
        return next((text for key in right if (text := difference(right[key], got[key]))), "")
    if isinstance(right, list | tuple):
        if not isinstance(got, list | tuple):
            return f"It gives {kind(got)}; expected is {kind(right)}."
        if len(right) != len(got):
            return f"It gives {len(got)} values instead of {len(right)}."
        return next((t for a, b in zip(right, got, strict=True) if (t := difference(a, b))), "")
    if isinstance(right, float) and isinstance(got, float | int | Tensor):
        return difference_of_tensors(torch.tensor(right), torch.as_tensor(got))
    if isinstance(got, Tensor | np.ndarray) or bool(right != got):
        return f"It gives {shown(got)}; right is {shown(right)}."
    return ""


def difference_of_tensors(right: Tensor, got: Any) -> str:
    """The same for tensors: the type, the shape, then the first value that is wrong."""
    if not isinstance(got, Tensor | np.ndarray):
        return (
            f"It gives {kind(got)}; expected is a tensor or numpy array of shape "
            f"{tuple(right.shape)}."
        )
    got = torch.as_tensor(np.ascontiguousarray(got) if isinstance(got, np.ndarray) else got).cpu()
    finer = got.is_complex() or (got.is_floating_point() and not right.is_floating_point())
    if finer or (got.dtype == torch.bool) != (right.dtype == torch.bool):
        return f"It gives values of type {got.dtype}; right is {right.dtype}."
    if got.shape != right.shape:
        return (
            f"The shape is {tuple(got.shape)} and should be {tuple(right.shape)}. Fix that first, "
            "then the values can be compared."
        )
    close = torch.isclose(
        got.detach().double(), right.detach().double(), RELATIVE, ABSOLUTE, equal_nan=True
    )
    if close.all():
        return ""
    if not right.ndim:
        return f"It gives {got.item():.5g}; right is {right.item():.5g}."
    share = 1 - close.double().mean().item()
    place = tuple((~close).nonzero()[0].tolist())
    return (
        f"{share:.0%} of the values are wrong, the first at {list(place)}: "
        f"{got[place].item():.5g} instead of {right[place].item():.5g}."
    )


def narrowed(right: Any, got: Any, place: str = "") -> tuple[str, Any, Any]:
    """The first parts of two lists of tensors that differ, and where they are."""
    lists = isinstance(right, list | tuple) and isinstance(got, list | tuple)
    if (
        lists
        and len(right) == len(got)
        and any(isinstance(x, Tensor | list | tuple) for x in right)
    ):
        for number, (a, b) in enumerate(zip(right, got, strict=True)):
            if difference(a, b):
                return narrowed(a, b, f"{place or ', in the result'}[{number}]")
    return place, right, got


def described(exercise: Exercise, case: tuple[Any, ...]) -> str:
    """A case in words, or as a call in which a long tensor appears as its shape."""
    if exercise.describe:
        return exercise.describe(*case)
    return f"{exercise.symbol}({', '.join(map(shown, case))})"


def kind(value: Any) -> str:
    """The type of a value, in words."""
    if value is None:
        return "nothing (is a return missing?)"
    return f"a value of type {type(value).__name__}"


def shown(value: Any) -> str:
    """A value as one line."""
    if isinstance(value, Raised):
        try:
            text = f"{type(value.error).__name__}: {value.error}".removesuffix(": ")
        except Exception:
            text = type(value.error).__name__
        return f"{text} (line {value.line})" if value.line else text
    if isinstance(value, np.ndarray) and value.dtype.kind not in "biuf":
        return repr(value)
    if isinstance(value, Tensor | np.ndarray):
        tensor = torch.as_tensor(value).detach()
        if tensor.numel() > SHOWN:
            return f"a tensor of shape {tuple(tensor.shape)}"
        rounded = torch.round(tensor.double(), decimals=4)
        whole = not tensor.is_floating_point()
        return str(tensor.tolist() if whole else rounded.tolist())
    if isinstance(value, tuple) and any(isinstance(part, Tensor | np.ndarray) for part in value):
        return f"({', '.join(map(shown, value))})"
    try:
        text = repr(value)
    except Exception:  # whatever a learner's class may do
        text = f"a {type(value).__name__} that cannot be shown"
    return text if len(text) <= 200 else text[:200] + " ..."


def stub_of(exercise: Exercise) -> str:
    """The file that a learner starts from: signature and docstring of the package's function.

    `exercise.task` takes the place of that docstring, if there is one.
    """
    source = textwrap.dedent(inspect.getsource(exercise.reference))
    lines = source.splitlines()
    (node,) = ast.parse(source).body
    assert isinstance(node, ast.FunctionDef | ast.ClassDef)
    to_write = [node] if isinstance(node, ast.FunctionDef) else [
        part for part in node.body
        if isinstance(part, ast.FunctionDef) and part.name in exercise.write
    ]  # fmt: skip
    for part in sorted(to_write, key=lambda part: -part.lineno):  # from below: lines keep numbers
        rest = part.body[1:] if ast.get_docstring(part) and len(part.body) > 1 else part.body
        indent = " " * rest[0].col_offset
        lines[rest[0].lineno - 1 : part.end_lineno] = [
            f'{indent}raise NotImplementedError("{YOUR_TURN}")'
        ]
    if exercise.task:
        first = node.body[0]
        after = first.end_lineno or 0 if ast.get_docstring(node) else first.lineno - 1
        lines[first.lineno - 1 : after] = docstring(exercise.task, first.col_offset)
    code = "\n".join(lines)
    # The stub of a class has the imports that the package's own methods use.
    imports = imports_for(exercise, source if exercise.write else code)
    head = f'"""{exercise.title}"""\n\n{imports}'
    return f"{head.strip()}\n\n\n{code}\n"


def docstring(text: str, indent: int) -> list[str]:
    """A text as the lines of a docstring, indented by so many spaces."""
    text = textwrap.dedent(text).strip()
    text += "\n" if "\n" in text else ""
    return textwrap.indent(f'"""{text}"""', " " * indent).splitlines()


def imports_for(exercise: Exercise, code: str) -> str:
    """The imports of the package's file, and its own names, that the code uses."""
    module = inspect.getmodule(exercise.reference)
    assert module is not None
    tree = ast.parse(inspect.getsource(module))
    used = {node.id for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)}
    found, own = [], []
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [n for n in node.names if (n.asname or n.name.partition(".")[0]) in used]
            if names:
                kept = copy.copy(node)
                kept.names = names
                found.append(ast.unparse(kept))
        own += [name for name in defined_names(node) if name in used and name != exercise.symbol]
    if own:
        found.append(f"from {module.__name__} import {', '.join(sorted(set(own)))}")
    groups: list[list[str]] = [[], [], []]
    for line in sorted(found, key=lambda line: (line.startswith("from"), line)):
        package = line.split()[1].partition(".")[0]
        groups[0 if package in sys.stdlib_module_names else 1 + (package == "nanogpt")].append(line)
    return "\n\n".join("\n".join(group) for group in groups if group)


def defined_names(node: ast.stmt) -> list[str]:
    """The names that a statement at the top of a file defines."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return [node.target.id]
    if isinstance(node, ast.Assign):
        return [target.id for target in node.targets if isinstance(target, ast.Name)]
    return []


def find_exercise(exercises: Mapping[str, Exercise], name: str) -> Exercise:
    """An exercise by its name. Raises UserError with the names there are."""
    if name not in exercises:
        raise UserError(f"{name!r} is no exercise: {did_you_mean(name, exercises)}")
    return exercises[name]
