"""What a candidate makes of a case, as plain data: numbers, texts, lists and tensors.

Plain data can be sent from the process of a learner's file to the process that compares. Nothing
of it can act there: a number that says it equals everything arrives as the number that it holds.
"""

import base64
import copy
import inspect
import json
import math
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

MOST = 10_000  # values of an iterator
DEEPEST = 20  # lists inside lists
LARGEST = 4 << 20  # bytes of one answer
TEXT = 500  # characters of a message or of a value in words


@dataclass(frozen=True)
class Raised:
    """An exception that was raised in place of a result."""

    kinds: tuple[str, ...]  # its class and the classes from which that inherits
    text: str
    line: int  # of the candidate's own file; 0 if it was not there


@dataclass(frozen=True)
class Other:
    """A value that is no plain data: its type, and how it shows itself."""

    kind: str
    text: str


@dataclass(frozen=True)
class Answer:
    """A result, and the gradients that come back through it."""

    result: Any
    gradients: Mapping[str, Tensor] | None = None  # by input or parameter; None: no gradients
    cut: str = ""  # why there are none
    changed: str = ""  # the argument that the candidate changes
    note: str = ""  # what to say of a right answer, such as how much it sent


Drive = Callable[..., Any]


def with_gradients(
    function: Callable[..., Any], inputs: Mapping[str, Any], module: nn.Module | None = None,
    wanted: Sequence[str] | None = None,
) -> Answer:  # fmt: skip
    """Call a function with the inputs in their order, and again to see which gradients come back.

    The gradients are those of a fixed random sum of the results, for the tensors among the inputs
    (or only for those that are `wanted`) and for the parameters of a module. Inside torch.no_grad()
    nobody asks for them.
    """
    if not torch.is_grad_enabled():
        return Answer(function(*inputs.values()))
    parameters = dict(module.named_parameters()) if module else {}
    with torch.set_grad_enabled(not parameters):
        result = function(*inputs.values())
    leaves = {
        name: value.detach().clone().requires_grad_()
        for name, value in inputs.items()
        if isinstance(value, Tensor) and value.is_floating_point() and name in (wanted or inputs)
    }
    asked = [*leaves.values(), *parameters.values()]
    if not asked or wanted == () or not isinstance(result, Tensor):
        return Answer(result)
    # A copy of each leaf, so that a candidate may change it: that is another mistake.
    given = [
        leaves[name].clone() if name in leaves else copy.deepcopy(value)
        for name, value in inputs.items()
    ]
    torch.default_generator.manual_seed(0)
    try:
        again = function(*given)
        if not again.requires_grad:
            return Answer(result)
        generator = torch.Generator().manual_seed(1)
        weights = torch.randn(again.shape, generator=generator, dtype=again.dtype)
        # A single number: for gradients of several, torch first loads sympy.
        found = torch.autograd.grad((again * weights).sum(), asked, allow_unused=True)
    except Exception as error:
        return Answer(result, cut=f"{type(error).__name__}: {error}"[:TEXT])
    named = zip([*leaves, *parameters], asked, found, strict=True)
    return Answer(result, {n: torch.zeros_like(x) if g is None else g for n, x, g in named})


def answer_of(drive: Drive, candidate: Any, case: Sequence[Any]) -> Answer:
    """Let a candidate show what it makes of a case, or what it raises."""
    given = copy.deepcopy(tuple(case))
    # Not torch.manual_seed: it stores a stack trace each time, for devices that may come later.
    torch.default_generator.manual_seed(0)
    try:
        answer = drive(candidate, *given)
        if not isinstance(answer, Answer):
            answer = Answer(answer)
        result = answer.result
        if isinstance(result, Iterator):
            result = list(islice(result, MOST + 1))
            if len(result) > MOST:
                result = Other("iterator", "an iterator that does not end")
        result = plain(result)
        gradients = answer.gradients and {n: g.detach().cpu() for n, g in answer.gradients.items()}
        return Answer(result, gradients, answer.cut, what_changed(case, given), answer.note)
    except Exception as error:
        return Answer(raised(error, candidate), changed=what_changed(case, given))


def raised(error: BaseException, candidate: Any) -> Raised:
    """An exception as plain data."""
    file = file_of(candidate)
    frames = traceback.walk_tb(error.__traceback__)  # which reads no source
    lines = [line for frame, line in frames if frame.f_code.co_filename == file]
    kinds = tuple(f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__)
    return Raised(kinds, in_words(str, error), lines[-1] if lines else 0)


def file_of(candidate: Any) -> str:
    """The file that defines a candidate; empty if there is none."""
    try:
        return inspect.getsourcefile(inspect.unwrap(candidate)) or ""
    except (TypeError, ValueError):
        return ""


def what_changed(before: Sequence[Any], after: Sequence[Any]) -> str:
    """Which argument was changed, as its number from 1; empty if none was."""
    for number, (one, other) in enumerate(zip(before, after, strict=True), 1):
        if isinstance(one, Tensor | np.ndarray | list | dict) and packed(plain(one)) != packed(
            plain(other)
        ):
            return str(number)
    return ""


def plain(value: Any, depth: int = 0) -> Any:
    """A value as plain data; whatever else it is becomes Other.

    A value of a class that inherits from a plain one counts as what it holds.
    """
    kind = type(value)
    try:
        if value is None or kind in (bool, int, float, str, Raised, Other):
            return value
        if issubclass(kind, Tensor):
            return plain_tensor(value)
        if issubclass(kind, np.ndarray):
            array = np.array(value, subok=False)
            return array if array.dtype.kind in "biuf" else other(value)
        if issubclass(kind, np.generic):
            return plain(np.generic.item(value))
        if issubclass(kind, int):
            return int.__add__(value, 0)
        if issubclass(kind, float):
            return float.__add__(value, 0.0)
        if issubclass(kind, str):
            return str.__str__(value)
        if depth == DEEPEST:  # it may contain itself
            return other(value)
        if issubclass(kind, list):
            return [plain(part, depth + 1) for part in list.__iter__(value)]
        if issubclass(kind, tuple):
            return tuple(plain(part, depth + 1) for part in tuple.__iter__(value))
        if issubclass(kind, dict):
            items = dict.items(value)
            return {plain(key, depth + 1): plain(part, depth + 1) for key, part in items}
    except Exception:  # whatever a learner's class may do
        pass
    return other(value)


def plain_tensor(value: Tensor) -> Tensor | Other:
    """A tensor without its history, and without what a subclass may do."""
    with torch._C.DisableTorchFunctionSubclass():
        tensor = value.detach().cpu().as_subclass(Tensor)
        if tensor.layout != torch.strided or tensor.is_quantized:
            return other(value)
        return tensor.resolve_conj().resolve_neg().contiguous().clone()


def other(value: Any) -> Other:
    """Something that is no plain data."""
    return Other(type(value).__name__, in_words(repr, value))


def in_words(write: Callable[[Any], str], value: Any) -> str:
    """A value as a text that is valid Unicode and not too long."""
    try:
        text = write(value)
        text = text if len(text) <= TEXT else text[:TEXT] + " ..."
        return text.encode("utf-8", "replace").decode()
    except Exception:  # whatever a learner's class may do
        return f"a {type(value).__name__} that cannot be shown"


def written(answer: Answer) -> str:
    """An answer as one line of JSON."""
    parts = {"result": answer.result, "cut": answer.cut, "changed": answer.changed}
    parts["note"] = in_words(str, answer.note)
    parts["gradients"] = None if answer.gradients is None else dict(answer.gradients)
    text = json.dumps(packed(parts))
    if len(text) > LARGEST:
        return written(Answer(Other(type(answer.result).__name__, "a result that is too large")))
    return text


def read(line: str) -> Answer:
    """The answer that a line holds. Raises ValueError if it holds none."""
    try:
        parts = unpacked(json.loads(line))
        result, gradients = parts["result"], parts["gradients"]
        cut, changed, note = parts["cut"], parts["changed"], parts["note"]
        if not all(isinstance(gradient, Tensor) for gradient in (gradients or {}).values()):
            raise ValueError("a gradient is no tensor")
        return Answer(result, gradients, str(cut), str(changed), str(note))
    except Exception as error:  # a learner's file may have written anything at all
        raise ValueError(f"no answer: {error}") from None


def packed(value: Any) -> Any:
    """Plain data as what JSON knows: each other type is a list that begins with its name."""
    if isinstance(value, Tensor):
        numbers = value.reshape(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b""
        kind = str(value.dtype).removeprefix("torch.")
        return ["tensor", kind, list(value.shape), base64.b64encode(numbers).decode()]
    if isinstance(value, np.ndarray):
        text = base64.b64encode(value.tobytes()).decode()
        return ["array", value.dtype.str, list(value.shape), text]
    if isinstance(value, Raised):
        return ["raised", list(value.kinds), value.text, value.line]
    if isinstance(value, Other):
        return ["other", value.kind, value.text]
    if isinstance(value, list | tuple):
        return [type(value).__name__, *map(packed, value)]
    if isinstance(value, dict):
        return ["dict", *([packed(key), packed(part)] for key, part in value.items())]
    return value


def unpacked(value: Any) -> Any:
    """The plain data that `packed` was given. Raises ValueError and others for anything else."""
    if not isinstance(value, list):
        if isinstance(value, dict):
            raise ValueError("no plain data")
        return value
    kind, *parts = value
    if kind == "tensor":
        dtype = getattr(torch, parts[0])
        data = bytearray(base64.b64decode(parts[2]))
        numbers = torch.frombuffer(data or bytearray(16), dtype=dtype)
        return numbers[: math.prod(parts[1])].reshape(parts[1]).clone()
    if kind == "array":
        dtype = np.dtype(parts[0])
        if dtype.kind not in "biuf":
            raise ValueError("no array of numbers")
        return np.frombuffer(base64.b64decode(parts[2]), dtype).reshape(parts[1]).copy()
    if kind == "raised":
        return Raised(tuple(map(str, parts[0])), str(parts[1]), int(parts[2]))
    if kind == "other":
        return Other(str(parts[0]), str(parts[1]))
    if kind == "dict":
        return {unpacked(key): unpacked(part) for key, part in parts}
    if kind in ("list", "tuple"):
        return (list if kind == "list" else tuple)(map(unpacked, parts))
    raise ValueError(f"no plain data: {kind}")
