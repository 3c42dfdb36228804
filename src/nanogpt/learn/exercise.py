"""An exercise: a function of the package to write again, and a judge that says what is wrong.

The judge runs the learner's function and the package's on the same small cases. Where they differ,
it looks for a reason: each exercise knows the mistakes that people make, as functions that make
them. If one of these gives exactly what the learner's gives, that was the mistake, however it was
written. Otherwise the judge says where the results differ, in words.
"""

import ast
import copy
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nanogpt.errors import UserError, did_you_mean
from nanogpt.learn.answers import Answer, Raised, answer_of, plain, with_gradients
from nanogpt.learn.differences import (
    difference,
    difference_of_gradients,
    first_row,
    how_far,
    shown,
    where_it_differs,
)

YOUR_TURN = "your turn"  # what a stub says
OWN = "This is the package's own"  # what it says while a learner's file is judged


@dataclass(frozen=True)
class Mistake:
    """Something that people get wrong: what to say of it, and a function that does it."""

    name: str
    diagnosis: str
    wrong: Callable[..., Any] | tuple[Callable[..., Any], ...]  # several, if people write several

    @property
    def variants(self) -> tuple[Callable[..., Any], ...]:
        """All the functions that do it."""
        return self.wrong if isinstance(self.wrong, tuple) else (self.wrong,)


@dataclass(frozen=True, eq=False)
class Exercise:
    """A function or a class of the package to write again.

    `drive` makes a candidate show what it does in a case; a function is simply called, and the
    gradients of its tensors are compared, too: of all of them, or of those that `gradients` names.
    Of a class the learner writes only the methods in `write`; the others are given.

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
    drive: Callable[..., Any] | None = None
    gradients: Sequence[str] | None = None
    describe: Callable[..., str] | None = None  # a case in words; by default as a call
    optional: bool = False  # a second step: what the package does with more options
    played: bool = True  # the model that `play` trains uses it
    task: str = ""
    adapt: Callable[[Any], Any] | None = None
    replaces: Any = None

    @property
    def symbol(self) -> str:
        """The name that the learner's file has to define."""
        return self.reference.__name__

    @property
    def arguments(self) -> list[str]:
        """What the values of a case are called."""
        function = self.drive or self.reference
        names = list(inspect.signature(function).parameters)
        if self.drive:
            kinds = [p.kind for p in inspect.signature(function).parameters.values()]
            varied = inspect.Parameter.VAR_POSITIONAL in kinds
            names = [] if varied else names[1:]
        return names

    def shown_by(self, candidate: Any, *case: Any) -> Any:
        """What a candidate shows in a case."""
        if self.drive:
            return self.drive(candidate, *case)
        inputs = dict(zip(self.arguments, case, strict=False))
        return with_gradients(candidate, inputs, wanted=self.gradients)

    @property
    def in_model(self) -> bool:
        """Whether the real model has a place for it, so that `play` can use it."""
        own = not self.reference.__module__.startswith("nanogpt.learn")
        return self.played and (self.replaces is not None or own)


@dataclass(frozen=True)
class Verdict:
    """What the judge says."""

    passed: bool
    mistake: str = ""  # the name of a known one
    diagnosis: str = ""
    example: str = ""


def judge(exercise: Exercise, candidate: Any) -> Verdict:
    """Compare a candidate with the package on every case."""
    if problem := not_acceptable(exercise.reference, candidate):
        return Verdict(False, *problem)
    results, gradients = (list(answers(exercise, candidate, part)) for part in PARTS)
    return verdict_on(exercise, results, gradients)


PARTS = (False, True)  # first the results of all cases, then their gradients


def answers(exercise: Exercise, candidate: Any, gradients: bool) -> Iterator[Answer]:
    """What a candidate shows in each case, with gradients or without.

    They are asked for apart, because wrong shapes can crash a backward pass of torch's.
    """
    for case in exercise.cases():
        with torch.set_grad_enabled(gradients):
            yield answer_of(exercise.shown_by, candidate, case)


@cache
def answers_of_package(exercise: Exercise) -> list[Answer]:
    """What is right in each case."""
    return list(answers(exercise, exercise.reference, gradients=True))


@dataclass(frozen=True)
class Known:
    """What one function that makes a mistake gives in each case."""

    name: str
    answers: Sequence[Answer]
    effects: Sequence[int]  # the cases in which that is wrong


@cache
def answers_of_mistakes(exercise: Exercise) -> list[Known]:
    """What each known mistake makes of each case; several times if people write it in many ways."""
    right, known = answers_of_package(exercise), []
    for mistake in exercise.mistakes:
        for wrong in mistake.variants:
            theirs = list(answers(exercise, wrong, gradients=False))
            pairs = enumerate(zip(right, theirs, strict=True))
            effects = [n for n, (one, other) in pairs if difference(one.result, other.result)]
            known.append(Known(mistake.name, theirs, effects))
    return known


def verdict_on(
    exercise: Exercise,
    found: Sequence[Answer],
    gradients: Sequence[Answer],
    package: Callable[[Exercise], list[Answer]] = answers_of_package,
    mistakes: Callable[[Exercise], list[Known]] = answers_of_mistakes,
) -> Verdict:
    """Judge a candidate by its answers, and by those with gradients. No learner's code runs here.

    `package` and `mistakes` give the right answers, and the wrong ones that are known. A candidate
    that did not get through all cases is judged by the first ones.
    """
    cases, right = exercise.cases()[: len(found)], package(exercise)[: len(found)]
    for case, answer in zip(cases, found, strict=True):
        if isinstance(answer.result, Raised) and answer.result.text.startswith(OWN):
            return Verdict(False, "the-packages-own", OWN_FUNCTION, described(exercise, case))
        if isinstance(answer.result, Raised) and is_to_do(answer.result):
            return Verdict(False, "not-written", "It is not written yet.")
    for case, answer in zip(cases, found, strict=True):
        if answer.changed:
            return Verdict(
                False, "changes-its-input", changes_input(exercise, answer.changed),
                described(exercise, case),
            )  # fmt: skip
    failing = [n for n in range(len(cases)) if difference(right[n].result, found[n].result)]
    if not failing:
        return verdict_on_gradients(exercise, right, gradients)
    name, shows = recognised(found, mistakes(exercise), failing)
    n = to_show(right, found, shows or failing)
    place, wanted, got = first_row(right[n].result, found[n].result)
    example = f"{described(exercise, cases[n])}{place}\n  expected  {wanted}\n  got       {got}"
    if name:
        diagnosis = next(m.diagnosis for m in exercise.mistakes if m.name == name)
        return Verdict(False, name, diagnosis, example)
    return Verdict(False, "", in_words(exercise, right, found, failing, n), example)


def verdict_on_gradients(
    exercise: Exercise, right: Sequence[Answer], found: Sequence[Answer]
) -> Verdict:
    """The same where all results are right."""
    for case, one, other in zip(exercise.cases(), right, found, strict=False):
        if text := difference_of_gradients(one, other):
            return Verdict(False, "no-gradient", text, described(exercise, case))
    return Verdict(True, diagnosis=found[-1].note if found else "")


def is_to_do(error: Raised) -> bool:
    """Whether a stub has said that it is still a stub."""
    return error.kinds[0] == "builtins.NotImplementedError" and error.text == YOUR_TURN


def changes_input(exercise: Exercise, number: str) -> str:
    """What to say of a candidate that changes an argument, which is given by its number."""
    names = exercise.arguments
    name = f"`{names[int(number) - 1]}`" if int(number) <= len(names) else f"argument {number}"
    return (
        f"It changes its input: {name} is different afterwards. Work on a copy, or make a new "
        "value."
    )


def recognised(
    found: Sequence[Answer], mistakes: Sequence[Known], failing: Sequence[int]
) -> tuple[str, list[int]]:
    """The name of the mistake that explains what is wrong, and the cases that show it.

    A mistake that explains all failing cases counts, if there are at least two: people make it in
    one branch only, so some of its effects may be absent. With a single failing case it counts if
    no other mistake explains that, too. A candidate may contain other mistakes as well. Then three
    in four of a mistake's own effects have to be there, to rule out coincidence, and they have to
    explain more than half of the failing cases; half is enough if all effects are there. Among
    several, the one counts that explains most, then the one of whose effects most are there.

    A candidate that raises an error where the mistake alone would not is no evidence against it.
    """
    fits: dict[str, tuple[tuple[bool, int, float], list[int]]] = {}
    for known in mistakes:
        theirs = [answer.result for answer in known.answers]
        effects = [n for n in known.effects if n < len(found)]
        there = [n for n in effects if not difference(theirs[n], found[n].result)]
        explained = [n for n in failing if n in there]
        if not explained:
            continue
        share, half = len(there) / len(effects), 2 * len(explained) - len(failing)
        open_ones = [
            n for n in failing
            if not isinstance(found[n].result, Raised) or isinstance(theirs[n], Raised)
        ]  # fmt: skip
        all_of_them = explained == open_ones and half >= 0
        if all_of_them or (half > 0 and share >= 3 / 4) or (half == 0 and share == 1):
            rank = all_of_them, len(explained), share
            if known.name not in fits or rank > fits[known.name][0]:
                fits[known.name] = rank, explained
    if not fits:
        return "", []
    name = max(fits, key=lambda name: fits[name][0])
    (all_of_them, _, share), explained = fits[name]
    if len(explained) == 1 and len(fits) > 1 and share < 1:
        return "", []
    return name, explained


def to_show(right: Sequence[Answer], found: Sequence[Answer], among: Sequence[int]) -> int:
    """The case whose result is furthest from the right one; among about equals the smallest."""

    def distance(n: int) -> int:
        far = how_far(right[n].result, found[n].result)
        return min(1, int(np.floor(np.log10(far)))) if far > 0 else -99

    return max(among, key=lambda n: (distance(n), -n))


def in_words(
    exercise: Exercise,
    right: Sequence[Answer],
    found: Sequence[Answer],
    failing: Sequence[int],
    n: int,
) -> str:
    """What to say where no mistake is recognised: what is wrong, where, and in which cases."""
    case = exercise.cases()[n]
    one, other = right[n].result, found[n].result
    sizes = {size for x in case if isinstance(x, Tensor | np.ndarray) for size in x.shape}
    where = where_it_differs(one, other, sorted(sizes))
    pairs = ((right[n].result, found[n].result) for n in failing)
    if where and any(where_it_differs(*pair, sorted(sizes)) != where for pair in pairs):
        where = f"In this case {where[0].lower()}{where[1:]}"  # elsewhere it looks different
    refused = [n for n, answer in enumerate(right) if isinstance(answer.result, Raised)]
    texts = [where or difference(one, other), which_cases(exercise, failing, refused)]
    return " ".join(text for text in texts if text)


def which_cases(exercise: Exercise, failing: Sequence[int], refused: Sequence[int]) -> str:
    """What only the failing cases have in common, such as "only with `mask`"; or empty.

    The cases in which an error is right say nothing, unless they fail.
    """
    cases = exercise.cases()
    if len(failing) == len(cases):
        return ""
    properties: dict[str, list[int]] = {}
    for n, case in enumerate(cases):
        for said in properties_of(exercise, case):
            if n in failing or n not in refused:
                properties.setdefault(said, []).append(n)
    for said, those in properties.items():
        if those == list(failing):
            return f"It is wrong only {said}."
    for said, those in properties.items():
        if len(failing) > 1 and set(failing) < set(those) and len(those) <= len(cases) // 2:
            return f"It is wrong only {said}, in {len(failing)} of {len(those)} such cases."
    return f"It is wrong in {len(failing)} of {len(cases)} cases."


def properties_of(exercise: Exercise, case: Sequence[Any]) -> list[str]:
    """What can be said of a case, each as the end of a sentence: "with `mask`"."""
    said: list[str] = []
    named = dict(zip(exercise.arguments, case, strict=False))
    said += [f"without `{name}`" for name in exercise.arguments if named.get(name) is None]
    for name, value in named.items():
        if isinstance(value, str):
            said += [f"with `{word}`" for word in words(value)]
        if value is None:
            continue
        if isinstance(value, bool):
            said += [f"with {name}={value}"]
        elif isinstance(value, int | str):
            said += [f"with {name}={value!r}"]
        elif isinstance(value, Tensor | np.ndarray):
            said += [f"with `{name}`", f"with `{name}` of type {value.dtype}"]
            said += [f"where `{name}` has {value.ndim} axes"]
            if value.ndim > 1:
                said += [f"where `{name}` has {'several rows' if len(value) > 1 else 'one row'}"]
            if value.ndim == 4 and value.shape[1] > 1:
                said += [f"where `{name}` has several heads"]
    if not exercise.arguments:
        said += [f"with `{word}`" for x in case if isinstance(x, str) for word in words(x)]
    tensors = {n: x for n, x in named.items() if isinstance(x, Tensor) and x.ndim > 2}
    for one, other in zip(tensors, list(tensors)[1:], strict=False):
        if tensors[one].shape[-2] != tensors[other].shape[-2]:
            said += [f"where `{one}` and `{other}` have different lengths"]
    numbers = [(n, x) for n, x in named.items() if isinstance(x, int) and not isinstance(x, bool)]
    for one, number in numbers:
        for other, value in named.items():
            if isinstance(value, list | np.ndarray) and number >= len(value):
                said += [f"where `{other}` has at most {one} values"]
        for other, limit in numbers:
            if other != one and number < limit:
                said += [f"where {one} is less than {other}"]
    return list(dict.fromkeys(said))


def words(text: str) -> list[str]:
    """The words of a text, such as the name of a way in which a class is driven."""
    return [word for word in re.findall(r"\w+", text) if word not in ("a", "and", "of", "one")]


OWN_FUNCTION = (
    "That is the package's own function, imported. Write it yourself: otherwise the check only "
    "compares the package with itself."
)


def not_acceptable(reference: Callable[..., Any], candidate: Any) -> tuple[str, str] | None:
    """What is wrong before anything is run: the name of a mistake, and what to say of it."""
    if candidate is reference:
        return "the-packages-own", OWN_FUNCTION
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
            "does not work with yours. Keep the signature of the stub."
        )
    except ValueError:  # some built-in functions have no signature
        pass
    return None


def described(exercise: Exercise, case: Sequence[Any]) -> str:
    """A case in words, or as a call in which a long tensor appears as its shape."""
    if exercise.describe:
        return exercise.describe(*case)
    names = list(inspect.signature(exercise.reference).parameters)
    values = (f"{name}={shown(plain(x))}" for name, x in zip(names, case, strict=False))
    return f"{exercise.symbol}({', '.join(values)})"


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
