"""Exercises about gradients: autograd with single numbers, and the gradient of the loss."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from nanogpt.learn import autograd, plain
from nanogpt.learn.exercise import Exercise
from nanogpt.learn.exercises.known import known, numbers
from nanogpt.learn.exercises.tasks import TASKS
from nanogpt.model.layers import softmax

Value = autograd.Value
Inputs = Sequence[tuple[Any, float]]


def short_and_long(a: Any, b: Any) -> Any:
    """A short and a long path lead back from the result to `product`."""
    product = a * b
    return product + (product * a).tanh()


def long_and_short(a: Any, b: Any) -> Any:
    product = a * b
    return (product + b).tanh() * product


# What the cases compute. `of two losses` calls backward twice: the gradients of a and b add up.
EXPRESSIONS: dict[str, Callable[[Any, Any], Any]] = {
    "a + b": lambda a, b: a + b,
    "a * b": lambda a, b: a * b,
    "a.tanh()": lambda a, b: a.tanh(),
    "a + 3": lambda a, b: a + 3,
    "2 * a": lambda a, b: 2 * a,
    "a + a": lambda a, b: a + a,
    "a * a": lambda a, b: a * a,
    "a * b + b": lambda a, b: a * b + b,
    "(a * b).tanh()": lambda a, b: (a * b).tanh(),
    "(a - b) ** 2": lambda a, b: (a - b) ** 2,
    "c + (c * a).tanh() with c = a * b": short_and_long,
    "(c + b).tanh() * c with c = a * b": long_and_short,
}
TWO_LOSSES = "a * b, then of a + b"
TWICE = "a * b, twice"


def drive_value(cls: type[Value], expression: str, a: float, b: float) -> list[float]:
    """Compute an expression, go backward, and give the result and both gradients."""
    x, y = cls(a), cls(b)
    if expression == TWO_LOSSES:
        (x * y).backward()
        result = x + y
    elif expression == TWICE:
        result = x * y
        result.backward()
    else:
        result = EXPRESSIONS[expression](x, y)
    result.backward()
    shown = [float(number) for number in (result.data, x.grad, y.grad, result.grad)]
    return shown[:3] if expression == TWICE else shown


def value_with(
    add: Any = lambda a, b: [(a, 1.0), (b, 1.0)],
    mul: Any = lambda a, b: [(a, b.data), (b, a.data)],
    tanh: Any = lambda x, result: 1 - result**2,
    sums: tuple[Any, Any, Any] = (lambda a, b: a + b, lambda a, b: a * b, math.tanh),
    backward: Any = Value.backward,
    of: Any = None,
) -> type[Value]:
    """A Value that does one thing differently; all numbers computed from it are of its class."""

    class Other(Value):
        def __add__(self, other: Any) -> "Other":
            other = (of or Other.of)(other)
            return Other(sums[0](self.data, other.data), add(self, other))

        def __mul__(self, other: Any) -> "Other":
            other = (of or Other.of)(other)
            return Other(sums[1](self.data, other.data), mul(self, other))

        def __pow__(self, exponent: float) -> "Other":
            result = super().__pow__(exponent)
            return Other(result.data, result.inputs)

        def tanh(self) -> "Other":
            result = sums[2](self.data)
            return Other(result, [(self, tanh(self.data, result))])

        @staticmethod
        def of(number: Any) -> "Other":
            return number if isinstance(number, Value) else Other(float(number))  # type: ignore

        __radd__, __rmul__ = __add__, __mul__

    Other.backward = backward  # type: ignore[method-assign]
    return Other


def backward_with(
    order: Any = lambda result: reversed(autograd.in_order(result)),
    start: Any = 1.0,
    give: Any = lambda source, derivative, value: source.grad + derivative * value.grad,
    cleared: Any = lambda order: filter(lambda value: value.inputs, order),
) -> Any:
    """A backward that does one thing differently."""

    def backward(self: Any) -> None:
        for value in cleared(autograd.in_order(self)):
            value.grad = 0.0
        if start is not None:
            self.grad = start(self) if callable(start) else start
        for value in order(self):
            for source, derivative in value.inputs:
                source.grad = give(source, derivative, value)

    return backward


def level_by_level(result: Any) -> list[Any]:
    """Breadth first, each number once: some pass their gradient on before they have all of it."""
    order = [result]
    for value in order:
        order += [source for source, _ in value.inputs if source not in order]
    return order


def depth_first(result: Any, order: list[Any] | None = None) -> list[Any]:
    """Depth first, each number once, in the order of the first visit."""
    order = [] if order is None else order
    if result not in order:
        order.append(result)
        for source, _ in result.inputs:
            depth_first(source, order)
    return order


def every_path_with_all(result: Any) -> list[Any]:
    """Each number as often as paths lead to it: its whole gradient is passed on every time."""
    return [result, *(v for source, _ in result.inputs for v in every_path_with_all(source))]


def recursively(self: Any) -> None:
    """Each number passes on all it has as soon as it gets something."""
    self.grad = self.grad or 1.0
    for source, derivative in self.inputs:
        source.grad += derivative * self.grad
        recursively(source)


VALUE = Exercise(
    name="value",
    title="Autograd: numbers that remember how they were computed, and the chain rule.",
    task=TASKS["value"],
    reference=Value,
    write=("__add__", "__mul__", "tanh", "backward"),
    cases=lambda: [
        *((text, 3.0, -2.0) for text in EXPRESSIONS if "tanh" not in text),
        *((text, 0.5, -1.5) for text in EXPRESSIONS if "tanh" in text),
        (TWO_LOSSES, 3.0, -2.0), (TWICE, 3.0, -2.0),
    ],
    drive=drive_value,
    describe=lambda text, a, b: (
        f"a = {a:g}, b = {b:g}, backward of {text}: the result, then the gradients of a, of b"
        + (" and of the result itself" if text != TWICE else "")
    ),
    lesson=2,
    mistakes=[
        known(
            "gradient-overwritten",
            "A gradient is overwritten where a number is used twice. What comes back on several "
            "paths adds up: use += for grad.",
            value_with(backward=backward_with(give=lambda s, d, v: d * v.grad)),
            value_with(backward=backward_with(
                give=lambda s, d, v: d * v.grad, cleared=lambda order: []
            )),
        ),
        known(
            "wrong-order",
            "A number passes its gradient on before it has all of it. Each number comes after "
            "everything that was computed from it: go through reversed(in_order(self)).",
            value_with(backward=backward_with(level_by_level)),
            value_with(backward=backward_with(depth_first)),
        ),
        known(
            "passed-on-twice",
            "A number that is used twice passes its whole gradient on twice. Each number passes it "
            "on once, when it has all of it.",
            value_with(backward=backward_with(every_path_with_all)),
            value_with(backward=recursively),
        ),
        known(
            "no-start",
            "The gradient of the result itself is not set to 1, so every gradient is 0. A number "
            "changes by exactly as much as itself.",
            value_with(backward=backward_with(start=None)),
            value_with(backward=backward_with(start=0.0)),
        ),
        known(
            "starts-with-the-result",
            "The gradient of the result is set to its data. It is 1: a number changes by exactly "
            "as much as itself.",
            value_with(backward=lambda self: backward_with(start=self.data)(self)),
        ),
        known(
            "no-chain-rule",
            "The local derivatives are not multiplied by the gradient of the result. The chain "
            "rule: source.grad += derivative * value.grad.",
            value_with(backward=backward_with(give=lambda s, d, v: s.grad + d)),
            value_with(backward=backward_with(give=lambda s, d, v: d)),
        ),
        known(
            "derivative-missing",
            "Every gradient is passed on unchanged: the local derivative is not used.",
            value_with(backward=backward_with(give=lambda s, d, v: s.grad + v.grad)),
        ),
        known(
            "chain-added",
            "The derivative and the gradient are added. The chain rule multiplies them.",
            value_with(backward=backward_with(give=lambda s, d, v: s.grad + d + v.grad)),
        ),
        known(
            "one-level",
            "Only the numbers just before the result get a gradient. Go on from there to their "
            "inputs, and so on. in_order(self) has all numbers, the result last: reverse it.",
            value_with(backward=backward_with(lambda result: [result])),
            value_with(backward=backward_with(autograd.in_order)),
        ),
        known(
            "start-added",
            "1 is added to the gradient of the result, so a second backward counts more than the "
            "first. It becomes 1 each time.",
            value_with(backward=backward_with(
                start=lambda value: value.grad + 1,
                cleared=lambda order: [v for v in order[:-1] if v.inputs],
            )),
            value_with(backward=backward_with(
                start=lambda value: value.grad + 1, cleared=lambda order: [])),
        ),
        known(
            "weights-reset",
            "The gradients of the inputs start again at 0 in each backward. Those of two losses "
            "add up until somebody zeroes them.",
            value_with(backward=backward_with(cleared=lambda order: order)),
        ),
        known(
            "factors-of-their-own",
            "In a product each factor has itself as derivative. It is the other factor: if a "
            "changes by 1, a * b changes by b.",
            value_with(mul=lambda a, b: [(a, a.data), (b, b.data)]),
        ),
        known(
            "product-like-a-sum",
            "The derivatives of a product are 1, as in a sum. The derivative of a * b with respect "
            "to a is b.",
            value_with(mul=lambda a, b: [(a, 1.0), (b, 1.0)]),
        ),
        known(
            "product-of-both",
            "The derivatives of a product are the product itself. With respect to a it is b alone.",
            value_with(mul=lambda a, b: [(a, a.data * b.data), (b, a.data * b.data)]),
        ),
        known(
            "sum-like-a-product",
            "The derivatives of a sum are its terms. They are 1: if a changes by 1, a + b changes "
            "by 1, however large b is.",
            value_with(add=lambda a, b: [(a, b.data), (b, a.data)]),
            value_with(add=lambda a, b: [(a, a.data), (b, b.data)]),
        ),
        known(
            "one-input",
            "Only the first of two inputs gets a gradient. A sum and a product depend on both.",
            value_with(mul=lambda a, b: [(a, b.data)]),
            value_with(add=lambda a, b: [(a, 1.0)]),
            value_with(add=lambda a, b: [(a, 1.0)], mul=lambda a, b: [(a, b.data)]),
        ),
        known(
            "inputs-forgotten",
            "The new number does not know its inputs, so no gradient reaches them. Give "
            "Value(result, [(input, derivative), ...]).",
            value_with(add=lambda a, b: []),
            value_with(mul=lambda a, b: []),
            value_with(add=lambda a, b: [], mul=lambda a, b: []),
        ),
        known(
            "tanh-of-the-input",
            "The derivative of tanh is computed from its input. It is 1 - result**2, where result "
            "is tanh(x) and not x.",
            value_with(tanh=lambda x, result: 1 - x**2),
        ),
        known(
            "tanh-not-squared",
            "The derivative of tanh lacks the square: it is 1 - result**2.",
            value_with(tanh=lambda x, result: 1 - result),
        ),
        known(
            "tanh-as-its-derivative",
            "The derivative of tanh is not tanh. Only exp is its own derivative; here it is "
            "1 - result**2.",
            value_with(tanh=lambda x, result: result),
            value_with(tanh=lambda x, result: 1.0),
            value_with(tanh=lambda x, result: result * (1 - result)),
        ),
        known(
            "tanh-sign",
            "The sign of the derivative of tanh is wrong: tanh rises everywhere, so the derivative "
            "is positive. It is 1 - result**2.",
            value_with(tanh=lambda x, result: result**2 - 1),
            value_with(tanh=lambda x, result: 1 + result**2),
        ),
        known(
            "not-tanh",
            "The function itself is another one. tanh(x) is math.tanh(x), with values from -1 "
            "to 1.",
            value_with(sums=(lambda a, b: a + b, lambda a, b: a * b, math.tan)),
            value_with(sums=(
                lambda a, b: a + b, lambda a, b: a * b, lambda x: 1 / (1 + math.exp(-x))
            )),
            value_with(
                sums=(lambda a, b: a + b, lambda a, b: a * b, lambda x: 1 / (1 + math.exp(-x))),
                tanh=lambda x, result: result * (1 - result),
            ),
        ),
        known(
            "plain-numbers",
            "A plain number such as 3 is not accepted. Turn it into a Value first: "
            "other = self.of(other).",
            value_with(of=lambda number: number),
        ),
    ],
    hints=(
        "Each operation gives a new Value: its result, and for each input a pair of the input and "
        "the local derivative. Try what happens to the result if one input changes by 0.001.",
        "Sum: derivatives 1 and 1. Product: for each factor the other one. tanh: 1 - result**2. "
        "backward sets self.grad to 1 and goes through reversed(in_order(self)).",
        "In backward, for each value and each of its inputs: source.grad += derivative * "
        "value.grad. Write other = self.of(other) first where `other` may be a plain number.",
    ),
)  # fmt: skip


def gradient_cases() -> list[tuple[Any, ...]]:
    return [
        (torch.tensor([[0.0, 0.0]]), torch.tensor([1])),
        (torch.tensor([[0.0, math.log(3)]]), torch.tensor([0])),
        (torch.tensor([[0.0, math.log(3)], [0.0, 0.0]]), torch.tensor([1, 1])),
        (torch.tensor([[1000.0, 0.0]]), torch.tensor([1])),
        (numbers(3, 3), torch.tensor([2, 0, 2])),
        (numbers(5, 7), torch.tensor([3, 0, 6, 3, 1])),
    ]


def gradient_with(
    probabilities: Any = softmax,
    right: Any = lambda p, y: torch.nn.functional.one_hot(y, p.shape[1]),
    divided: Any = lambda g: g / len(g),
) -> Any:
    """A gradient of the loss that does one thing differently."""

    def gradient(logits: Tensor, targets: Tensor) -> Tensor:
        p = probabilities(logits.detach())
        found: Tensor = divided(p - right(p, targets))
        return found

    return gradient


def hot(p: Tensor, y: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(y, p.shape[1])


def gradient_of_probabilities(logits: Tensor, targets: Tensor) -> Tensor:
    p = softmax(logits.detach())
    return -hot(p, targets) / p / len(p)


LOSS_GRADIENT = Exercise(
    name="loss-gradient",
    title="The gradient of the loss with respect to the logits, by hand.",
    task=TASKS["loss-gradient"],
    reference=plain.cross_entropy_gradient,
    cases=gradient_cases,
    lesson=5,
    mistakes=[
        known(
            "not-divided",
            "The gradient is that of the sum. The loss is a mean over N targets, so divide by N.",
            gradient_with(divided=lambda g: g),
        ),
        known(
            "one-part-divided",
            "Only one of the two parts is divided by N. Subtract first, then divide the whole.",
            lambda logits, targets: softmax(logits) - hot(logits, targets) / len(logits),
            lambda logits, targets: softmax(logits) / len(logits) - hot(logits, targets),
        ),
        known(
            "divided-by-too-much",
            "It is divided by the wrong number. The mean is over the N targets, not over the V "
            "tokens of the vocabulary.",
            gradient_with(divided=lambda g: g / g.shape[1]),
            gradient_with(divided=lambda g: g / g.numel()),
        ),
        known(
            "sign",
            "The sign is wrong. A larger logit of the right token lowers the loss, so its gradient "
            "is negative: p - 1.",
            gradient_with(divided=lambda g: -g / len(g)),
            gradient_with(divided=lambda g: -g),
        ),
        known(
            "target-not-subtracted",
            "These are the probabilities alone. Subtract 1 from the probability of each target.",
            gradient_with(right=lambda p, y: 0),
            gradient_with(right=lambda p, y: 0, divided=lambda g: g),
        ),
        known(
            "target-alone",
            "Only the logit of the target gets a gradient. All logits take part in the sum of the "
            "softmax: each of the others gets its probability.",
            gradient_with(divided=lambda g: torch.where(g < 0, g, 0) / len(g)),
            gradient_with(divided=lambda g: torch.where(g < 0, g, 0)),
            gradient_with(probabilities=torch.zeros_like),
            gradient_with(probabilities=torch.zeros_like, divided=lambda g: g),
        ),
        known(
            "no-softmax",
            "The 1 is subtracted from the logits. Turn them into probabilities with softmax first.",
            gradient_with(probabilities=lambda x: x),
            gradient_with(probabilities=lambda x: x, divided=lambda g: g),
        ),
        known(
            "log-softmax",
            "These are logarithms of probabilities. The gradient has the probabilities themselves.",
            gradient_with(probabilities=lambda x: torch.log_softmax(x, -1)),
        ),
        known(
            "with-respect-to-probabilities",
            "That is the gradient with respect to the probabilities, -1/p. Go on through softmax "
            "to the logits: together it becomes p minus 1 at the target.",
            gradient_of_probabilities,
            lambda logits, targets: gradient_of_probabilities(logits, targets) * len(logits),
        ),
        known(
            "through-softmax-alone",
            "That is the derivative of softmax alone, p * (1 - p). The loss is the logarithm of "
            "it: with it the gradient becomes p minus 1 at the target.",
            gradient_with(right=lambda p, y: p**2),
            gradient_with(right=lambda p, y: p**2, divided=lambda g: g),
            gradient_with(
                right=lambda p, y: 2 * p - p**2 + 0 * p,
                divided=lambda g: g / len(g),
            ),
        ),
        known(
            "softmax-over-rows",
            "Softmax runs over the rows. Each row has its own probabilities: use the last axis.",
            gradient_with(probabilities=lambda x: softmax(x, 0)),
            gradient_with(probabilities=lambda x: softmax(x, 0), divided=lambda g: g),
        ),
        known(
            "overflow",
            "Large logits give inf / inf, which is not a number. Subtract the maximum of each row "
            "before exp, as in the exercise softmax.",
            gradient_with(probabilities=lambda x: x.exp() / x.exp().sum(-1, keepdim=True)),
        ),
        known(
            "all-rows-at-all-targets",
            "The 1 is subtracted in every row at every target. Row n has one target: use "
            "p[torch.arange(N), targets].",
            gradient_with(right=lambda p, y: hot(p, y).sum(0).clamp(max=1).expand_as(p)),
        ),
        known(
            "row-for-column",
            "The indices are swapped: rows are the targets, columns the vocabulary.",
            gradient_with(right=lambda p, y: torch.zeros_like(p).index_fill(0, y.clamp(
                max=len(p) - 1), 1)),
        ),
    ],
    hints=(
        "Take one row, and ask how the loss changes if the logit of the target grows a little, and "
        "how if another logit grows.",
        "The loss of a row is log(sum of exp(logits)) - logit of the target. The derivative of the "
        "first part with respect to each logit is its probability.",
        "p = softmax(logits), then subtract 1 at p[torch.arange(N), targets], then divide by N.",
    ),
)  # fmt: skip
