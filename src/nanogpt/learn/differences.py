"""How a result differs from the right one, in words: what is wrong with it, and where."""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations, pairwise, permutations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nanogpt.learn.answers import Answer, Other, Raised

RELATIVE, ABSOLUTE = 1e-4, 2e-6  # float32 sums in another order differ by less
GRADIENTS = 1e-3  # of the largest gradient of a tensor: sums of many, and nobody reads the digits
SHOWN = 8  # numbers of a row that are written out
LONG = 120  # characters of a value

# What the axes of a result are called, by their number.
AXES: dict[int, tuple[str, ...]] = {
    1: ("position",),
    2: ("row", "column"),
    3: ("row of the batch", "token", "channel"),
    4: ("row of the batch", "head", "token", "channel"),
    5: ("layer", "row of the batch", "head", "token", "channel"),
}

# Factors that a formula may have lost.
CONSTANTS = {
    "log2(e)": math.log2(math.e), "ln(10)": math.log(10), "pi": math.pi, "2 pi": 2 * math.pi,
    "180 / pi": 180 / math.pi, "sqrt(pi / 2)": math.sqrt(math.pi / 2), "sqrt(2)": math.sqrt(2),
}  # fmt: skip

# Errors that deserve a sentence of their own.
PLAINLY = {
    "builtins.RecursionError": "It calls itself again and again. A recursion needs a case in which "
    "it stops.",
    "builtins.MemoryError": "It needs more memory than the check allows. Does something grow "
    "without end?",
    "builtins.KeyboardInterrupt": "It raises KeyboardInterrupt, as Ctrl-C does. Remove that.",
}


def difference(right: Any, got: Any) -> str:
    """How a result differs from the right one, as a sentence; empty if it does not."""
    if isinstance(got, Raised) or isinstance(right, Raised):
        return difference_of_errors(right, got)
    if isinstance(right, Tensor | np.ndarray):
        return difference_of_tensors(torch.as_tensor(right), got)
    if isinstance(right, Mapping):
        if not isinstance(got, Mapping) or set(right) != set(got):
            return f"It gives {shown(got)}; right is {shown(right)}."
        return next((text for key in right if (text := difference(right[key], got[key]))), "")
    if isinstance(right, list | tuple):
        return difference_of_lists(right, got)
    if isinstance(right, float) and isinstance(got, float | int) and near(right, got):
        return ""
    if isinstance(right, float) and isinstance(got, float | int | Tensor):
        return difference_of_tensors(torch.tensor(right), torch.as_tensor(got))
    if isinstance(right, Other):
        same = isinstance(got, Other) and got.kind == right.kind
        return "" if same else f"It gives {kind(got)}; expected is {kind(right)}."
    if right is None and got is None:
        return ""
    if got is None or isinstance(got, Tensor | np.ndarray | list | tuple | Mapping | Other):
        return f"It gives {kind(got)}; expected is {kind(right)}."
    if isinstance(right, bool) != isinstance(got, bool) or right != got:
        return f"It gives {shown(got)}; right is {shown(right)}."
    return ""


def difference_of_errors(right: Any, got: Any) -> str:
    """The same where one of the two was raised."""
    if not isinstance(got, Raised):
        return f"It should raise an error: {shown(right)}."
    if isinstance(right, Raised):
        wanted = name_of(right)
        same = right.kinds[0] in got.kinds
        return "" if same else f"It raises {name_of(got)} where the package raises {wanted}."
    if got.kinds[0] == "builtins.OSError" and "File too large" in got.text:
        return "It prints too much: the check keeps 16 MiB."
    return PLAINLY.get(got.kinds[0]) or f"It raises {shown(got)}."


def difference_of_lists(right: Sequence[Any], got: Any) -> str:
    """The same for lists: their length, then the first value that is wrong."""
    if not isinstance(got, list | tuple):
        return f"It gives {kind(got)}; expected is {kind(right)}."
    if len(right) != len(got):
        return f"It gives {len(got)} values instead of {len(right)}."
    return next((t for a, b in zip(right, got, strict=True) if (t := difference(a, b))), "")


def difference_of_tensors(right: Tensor, got: Any) -> str:
    """The same for tensors: the type, the shape, then the values."""
    if not isinstance(got, Tensor | np.ndarray):
        return (
            f"It gives {kind(got)}; expected is a tensor or numpy array of shape "
            f"{tuple(right.shape)}."
        )
    got = torch.as_tensor(got)
    finer = got.is_complex() or (got.is_floating_point() and not right.is_floating_point())
    if finer or (got.dtype == torch.bool) != (right.dtype == torch.bool):
        return f"It gives values of type {name_of(got)}; right is {name_of(right)}."
    if got.shape != right.shape:
        return (
            f"The shape is {tuple(got.shape)} and should be {tuple(right.shape)}. Fix that first, "
            "then the values can be compared."
        )
    close = are_close(right, got)
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


def near(right: float, got: float) -> bool:
    """The same as are_close for two numbers, and faster."""
    return abs(got - right) <= ABSOLUTE + RELATIVE * abs(right)


def are_close(right: Tensor, got: Tensor) -> Tensor:
    """Which values of two tensors of one shape agree."""
    return torch.isclose(got.double(), right.double(), RELATIVE, ABSOLUTE, equal_nan=True)


def difference_of_gradients(right: Answer, got: Answer) -> str:
    """How the gradients differ, as a sentence; empty if they do not, or if there are none."""
    if not right.gradients:
        return ""
    if got.gradients is None:
        reason = f" ({got.cut})" if got.cut else ""
        return (
            f"The values are right, but the result does not carry gradients{reason}. The model "
            "could not learn through it. detach(), torch.no_grad(), .item(), .tolist() and numpy "
            "cut gradients off: compute with tensors alone."
        )
    for name, wanted in right.gradients.items():
        found = got.gradients.get(name)
        if not wanted.isfinite().all():
            continue
        if found is None or found.shape != wanted.shape or (not found.any() and wanted.any()):
            return (
                f"The values are right, but no gradient reaches `{name}`. Something cuts it off, "
                "such as detach(), torch.no_grad(), .item() or numpy."
            )
        apart = (found - wanted).abs().max() if wanted.numel() else torch.zeros(())
        if not apart <= GRADIENTS * wanted.abs().max() + 1e-5:
            return (
                f"The values are right, but the gradient of `{name}` is not. A part of the "
                "computation is cut off from it, for example by detach(), torch.no_grad(), .item() "
                "or numpy."
            )
    return ""


def how_far(right: Any, got: Any) -> float:
    """How far a result is from the right one, for choosing the case to show: 0 where it is not."""
    right, got = narrowed(right, got)[1:]
    if not difference(right, got):
        return 0.0
    if isinstance(right, Tensor | np.ndarray) and isinstance(got, Tensor | np.ndarray):
        one, other = torch.as_tensor(right), torch.as_tensor(got)
        if one.shape == other.shape and not other.is_complex():
            apart = ((other.double() - one.double()).abs() / (1 + one.double().abs())).max().item()
            return apart if math.isfinite(apart) else 1e9
    return 1.0


def narrowed(right: Any, got: Any, place: str = "") -> tuple[str, Any, Any]:
    """The first parts of two lists of tensors that differ, and where they are."""
    if isinstance(right, Mapping) and isinstance(got, Mapping) and set(right) == set(got):
        for key in right:
            if difference(right[key], got[key]):
                return narrowed(right[key], got[key], f"{place or ', in the result'}[{key!r}]")
    lists = isinstance(right, list | tuple) and isinstance(got, list | tuple)
    if (
        lists
        and len(right) == len(got)
        and any(isinstance(x, Tensor | np.ndarray | list | tuple) for x in right)
    ):
        for number, (a, b) in enumerate(zip(right, got, strict=True)):
            if difference(a, b):
                return narrowed(a, b, f"{place or ', in the result'}[{number}]")
    return place, right, got


def where_it_differs(right: Any, got: Any, sizes: Sequence[int] = ()) -> str:
    """What is wrong with a result that nobody foresaw, in words; empty if nothing can be said.

    `sizes` are lengths that occur in the case: a factor may be one of them, or its root.
    """
    _, right, got = narrowed(right, got)
    if isinstance(right, list | tuple) and isinstance(got, list | tuple):
        return where_lists_differ(right, got)
    if not isinstance(right, Tensor | np.ndarray | float | int):
        return ""
    if not isinstance(got, Tensor | np.ndarray | float | int) or isinstance(right, bool):
        return ""
    one, other = torch.as_tensor(right), torch.as_tensor(got)
    if one.shape != other.shape:
        return where_shapes_differ(one, other)
    if other.is_complex() or torch.bool in (one.dtype, other.dtype):
        return where_masks_differ(one, other) if one.dtype == other.dtype else ""
    one, other = one.double(), other.double()
    if text := not_a_number(one, other):
        return text
    return one_thing_for_all(one, other, sizes) or moved(one, other) or which_parts(one, other)


def where_shapes_differ(right: Tensor, got: Tensor) -> str:
    """What has happened to the axes, if that can be seen."""
    if right.ndim == got.ndim and sorted(right.shape) == sorted(got.shape):
        for order in permutations(range(right.ndim)):
            turned = got.permute(order)
            if turned.shape == right.shape and bool(are_close(right, turned).all()):
                return "The values are right, but the axes are in another order: transpose it."
    if right.numel() == got.numel() and bool(are_close(right.flatten(), got.flatten()).all()):
        return "The values are right: only the shape is not."
    return ""


def where_masks_differ(right: Tensor, got: Tensor) -> str:
    """The same for tensors of truth values."""
    if right.dtype != torch.bool:
        return ""
    if bool((right != got).all()):
        return "True and False are swapped everywhere."
    more, less = (got & ~right).any(), (right & ~got).any()
    kinds = "True where False is right" if more else "False where True is right"
    kinds = "wrong in both directions" if more and less else f"only {kinds}"
    return " ".join((f"It is {kinds}.", which_parts(right, got) or moved(right, got))).strip()


def not_a_number(right: Tensor, got: Tensor) -> str:
    """Where nan or inf has come from nowhere."""
    for bad, name, reason in (
        (got.isnan() & ~right.isnan(), "nan (not a number)", "0 / 0, inf / inf or inf - inf"),
        (got.isinf() & ~right.isinf(), "inf", "an overflow, or a division by 0"),
    ):
        if bad.any():
            where = places(bad)
            return f"It gives {name}{where and f' in {where}'}. That comes from {reason}."
    return ""


def one_thing_for_all(right: Tensor, got: Tensor, sizes: Sequence[int]) -> str:
    """What has been done to every value alike: a sign, a factor, a sum, a function."""
    here = right.isfinite() & got.isfinite()
    one, other = right[here], got[here]
    if not one.numel() or not are_close(one.isfinite(), got[right.isfinite()].isfinite()).all():
        return ""
    alone = one.numel() == 1
    if bool(are_close(-one, other).all()) and bool(one.any()):
        return "Every value has the wrong sign." if not alone else "The sign is wrong."
    who = "It" if alone else "Every value"
    if bool((other == 0).all()):
        return f"{who} is 0."
    small = one.abs() < 1e-6
    ratio = (other / one)[~small]
    if len(ratio) and bool(are_close(ratio.mean().expand_as(ratio), ratio).all()):
        factor = ratio.mean().item()
        known = factor_in_words(factor, sizes) if factor else ""
        if factor and bool(are_close(one * factor, other).all()) and (known or not alone):
            if 0 < abs(factor) < 1:
                return f"{who} is {1 / factor:.4g} times too small{known}."
            return f"{who} is {factor:.4g} times too large{known}."
    if not alone and bool(are_close((other - one).mean().expand_as(one), other - one).all()):
        by = (other - one).mean().item()
        return f"{who} is too {'large' if by > 0 else 'small'} by {abs(by):.4g}."
    changes = {
        "the logarithm": one.log(), "the exponential": one.exp(), "the square": one.square(),
        "the square root": one.sqrt(), "the reciprocal": 1 / one, "1 minus the": 1 - one,
        "the absolute value": one.abs(),
    }  # fmt: skip
    for name, changed in changes.items():
        if bool(are_close(changed, other).all()):
            of = "right value" if name.endswith("the") else "of the right value"
            return f"{who} is {name} {of}."
    if not alone and right.ndim and bool(here.all()):
        if bool(are_close(right.softmax(-1), got).all()):
            return "These are the right values after one more softmax."
        if right.ndim > 1:
            return each_row_alike(right, got)
    return ""


def factor_in_words(factor: float, sizes: Sequence[int]) -> str:
    """Where a factor may come from, such as ": that is sqrt(8)"; empty if nobody knows."""
    size = max(abs(factor), 1 / abs(factor))
    for number in sorted({n for n in sizes if n > 1}):
        for name, value in ((f"sqrt({number})", math.sqrt(number)), (f"{number}", number)):
            if abs(size - value) < 1e-3 * value:
                return f": that is {name}" if name != f"{size:.4g}" else ", a size that occurs here"
    for name, value in CONSTANTS.items():
        if abs(size - value) < 1e-3 * value:
            return f": that is {name}"
    return ""


def each_row_alike(right: Tensor, got: Tensor) -> str:
    """Whether each row is off by a factor or a sum of its own."""
    if right.shape[-1] < 2:
        return ""
    safe = torch.where(right.abs() < 1e-6, torch.nan, right)
    ratio = got / safe
    mean = ratio.nanmean(-1, keepdim=True)
    if bool(are_close(right * mean, got).all()) and bool(mean.isfinite().all()):
        return "Each row is right but for a factor of its own. Is it divided by the wrong number?"
    apart = got - right
    if bool(are_close(apart.mean(-1, keepdim=True).expand_as(apart), apart).all()):
        return "Each row is right but for a number that is added to all of it."
    return ""


def moved(right: Tensor, got: Tensor) -> str:
    """Whether the right values are in the wrong places: turned, shifted, or in another order."""
    if right.ndim and bool(are_close(right, got).all()):
        return ""
    names = axes_of(right)
    for axis, name in enumerate(names):
        if right.shape[axis] < 2 or constant(right, axis):
            continue
        if bool(are_close(right.flip(axis), got).all()):
            return f"The order is reversed along the axis of the {name}s."
        if right.shape[axis] > 2:
            inner, first, last = right.shape[axis] - 1, 0, 1
            for shift, way in ((first, "one place too late"), (last, "one place too early")):
                there = right.narrow(axis, shift, inner)
                here = got.narrow(axis, 1 - shift, inner)
                if bool(are_close(there, here).all()):
                    return f"The values come {way} along the axis of the {name}s."
    for a, b in combinations(range(right.ndim), 2):
        square = right.shape[a] == right.shape[b] > 1
        if square and bool(are_close(right.transpose(a, b), got).all()):
            return f"It is transposed: the axes {a} and {b} are swapped."
    one, other = right.flatten().sort().values, got.flatten().sort().values
    if right.numel() > 3 and len(right.unique()) > 3 and bool(are_close(one, other).all()):
        return "The values are right but in another order. Look at reshape, view and transpose."
    return ""


def constant(x: Tensor, axis: int) -> bool:
    """Whether nothing changes along an axis."""
    return bool(are_close(x, x.narrow(axis, 0, 1).expand_as(x)).all())


def which_parts(right: Tensor, got: Tensor) -> str:
    """Which tokens, heads or rows are wrong, where others are right."""
    wrong = ~are_close(right, got)
    if not wrong.any():
        return ""
    where = places(wrong)
    one = where.startswith("the ") and not where.startswith("the values")
    texts = [f"Only {where} {'is' if one else 'are'} wrong."] if where else []
    both = right.isfinite() & got.isfinite()
    if right.is_floating_point() and not where and both.any():
        apart = (got - right)[both].abs().max().item()
        if 0 < apart < 5e-3 * right[right.isfinite()].abs().max().item():
            texts.append(
                f"The values are nearly right: they differ by at most {apart:.2g}. Look at small "
                "terms, such as eps, and at approximations."
            )
    if right.ndim > 1 and right.is_floating_point():
        ones, sums = right.sum(-1), got.sum(-1)
        if bool(are_close(torch.ones_like(ones), ones).all()) and not bool(
            are_close(ones, sums).all()
        ):
            worst = sums.flatten()[(sums - 1).abs().argmax()].item()
            texts.append(f"Each row should sum to 1, and one sums to {worst:.4g}.")
    return " ".join(texts)


def places(wrong: Tensor) -> str:
    """Where a tensor of truth values is True, by its axes; empty if that is nothing special."""
    found = []
    if wrong.ndim >= 2 and wrong.shape[-1] == wrong.shape[-2] > 2 and (text := diagonal(wrong)):
        return text
    for axis, name in enumerate(axes_of(wrong)):
        rest = [n for n in range(wrong.ndim) if n != axis]
        bad = wrong.any(dim=rest) if rest else wrong
        if not bad.all():
            found.append(indices(bad.nonzero()[:, 0].tolist(), len(bad), name))
    return ", ".join(found)


def indices(bad: Sequence[int], length: int, name: str) -> str:
    """Some of the indices of an axis in words, such as "the last token"."""
    if len(bad) == 1:
        where = {0: "the first", length - 1: "the last"}.get(bad[0])
        return f"the {where.split()[1]} {name}" if where else f"{name} {bad[0]}"
    plural = name.replace("row of", "rows of") if name.startswith("row of") else f"{name}s"
    if bad[-1] == length - 1 and all(b - a == 1 for a, b in pairwise(bad)):
        return f"{plural} from {bad[0]} on"
    if bad[0] == 0 and all(b - a == 1 for a, b in pairwise(bad)):
        return f"{plural} up to {bad[-1]}"
    if len(bad) > 2 and all(b - a == 2 for a, b in pairwise(bad)):
        return f"every second of the {plural}, from {bad[0]} on"
    return f"{plural} {', '.join(map(str, bad[:6]))}{' ...' if len(bad) > 6 else ''}"


def diagonal(wrong: Tensor) -> str:
    """The same for all that is on, above or below the diagonal."""
    size = wrong.shape[-1]
    wrong = wrong.reshape(-1, size, size).any(0)
    itself = torch.eye(size, dtype=torch.bool)
    above = torch.ones(size, size, dtype=torch.bool).triu(1)
    for part, name in ((itself, "on"), (above, "above"), (above.T, "below")):
        if torch.equal(wrong, part):
            return f"the values {name} the diagonal"
    return ""


def axes_of(x: Tensor) -> Sequence[str]:
    """What the axes of a tensor are called."""
    return AXES.get(x.ndim, tuple(f"axis {n} place" for n in range(x.ndim)))


def where_lists_differ(right: Sequence[Any], got: Sequence[Any]) -> str:
    """The same for lists: an end that is missing, something twice, another order."""
    a, b = list(right), list(got)
    if not b:
        return "The list is empty."
    if not difference(a, b[::-1]):
        return "The order is reversed."
    for one, other, what in ((a, b, "missing"), (b, a, "too much")):
        n = len(one) - len(other)
        if n > 0:
            many = "value is" if n == 1 else f"{n} values are"
            if not difference(one[: len(other)], other):
                return f"The last {many} {what}."
            if not difference(one[n:], other):
                return f"The first {many} {what}."
    if sorted(map(repr, a)) == sorted(map(repr, b)):
        return "The values are right but in another order."
    if len(a) == len(b):
        wrong = [n for n, (x, y) in enumerate(zip(a, b, strict=True)) if difference(x, y)]
        text = ""
        if len(wrong) < len(a):
            where = indices(wrong, len(a), "value")
            text = f"Only {where} {'are' if len(wrong) > 1 else 'is'} wrong."
        apart = {y - x for x, y in zip(a, b, strict=True) if type(x) is type(y) is int}
        if len(apart) == 1 and len(wrong) == len(a):
            (by,) = apart
            text = f"Every value is too {'large' if by > 0 else 'small'} by {abs(by)}."
        return text
    first = next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if difference(x, y)), 0)
    return f"The first value that differs is number {first}, counted from 0."


def kind(value: Any) -> str:
    """The type of a value, in words."""
    if value is None:
        return "nothing (is a return missing?)"
    if isinstance(value, Other):
        return f"a value of type {value.kind}"
    return f"a value of type {type(value).__name__}"


def name_of(value: Raised | Tensor) -> str:
    """The name of an exception's class, or of a tensor's type of number."""
    if isinstance(value, Tensor):
        return str(value.dtype).removeprefix("torch.")
    return value.kinds[0].rpartition(".")[2]


def shown(value: Any) -> str:
    """A value as one line; of a long tensor its shape."""
    if isinstance(value, Raised):
        text = f"{name_of(value)}: {value.text}".removesuffix(": ")
        return f"{text} (line {value.line})" if value.line else text
    if isinstance(value, Other):
        return value.text
    if isinstance(value, np.ndarray) and value.dtype.kind not in "biuf":
        return repr(value)
    if isinstance(value, Tensor | np.ndarray):
        tensor = torch.as_tensor(value)
        if tensor.numel() > SHOWN or tensor.is_complex():
            return f"a tensor of shape {tuple(tensor.shape)}"
        return numbers_of(tensor)
    if isinstance(value, list | tuple) and any(isinstance(x, Tensor | np.ndarray) for x in value):
        text = ", ".join(map(shown, value))
        text = f"[{text}]" if isinstance(value, list) else f"({text})"
    else:
        text = repr(value)
    return text if len(text) <= LONG else text[:LONG] + " ..."


def numbers_of(x: Tensor) -> str:
    """The numbers of a tensor, four places after the point."""
    if not x.is_floating_point():
        return str(x.tolist())
    return str(torch.round(x.double(), decimals=4).tolist())


def first_row(right: Any, got: Any) -> tuple[str, str, str]:
    """Where two results differ first, what is right there, and what is wrong."""
    place, right, got = narrowed(right, got)
    both = isinstance(right, Tensor | np.ndarray) and isinstance(got, Tensor | np.ndarray)
    if both:
        one, other = torch.as_tensor(right), torch.as_tensor(got)
        if one.shape == other.shape and one.numel() > SHOWN and not other.is_complex():
            row = tuple((~are_close(one, other)).nonzero()[0].tolist())[:-1]
            at = f", {'row' if row else 'values'} {list(row) if row else ''}".rstrip()
            one, other = one[row], other[row]
            if len(one) > SHOWN:
                start = int((~are_close(one, other)).nonzero()[0]) // SHOWN * SHOWN
                one, other = one[start : start + SHOWN], other[start : start + SHOWN]
                at += f" from {start}"
            return place + at, numbers_of(one), numbers_of(other)
    return place, shown(right), shown(got)
