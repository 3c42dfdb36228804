"""Automatic differentiation in plain Python: how a gradient arises, one number at a time.

Each operation stores two things: its result, and for each of its inputs the local derivative: how
much the result changes when that input changes a little. `backward` walks from the loss back to the
weights and multiplies local derivatives on the way. That is the chain rule. torch does the same
with whole tensors.
"""

import math
import random
from collections.abc import Sequence


class Value:
    """A number that remembers how it was computed.

    >>> x, w = Value(3.0), Value(-2.0)
    >>> loss = (w * x + 1.0) ** 2
    >>> loss.backward()
    >>> loss.data, w.grad, x.grad
    (25.0, -30.0, 20.0)
    """

    def __init__(self, data: float, inputs: Sequence[tuple["Value", float]] = ()) -> None:
        """A number, and what it was computed from: pairs of (input, local derivative)."""
        self.data = data
        self.grad = 0.0  # derivative of the loss with respect to this number
        self.inputs = tuple(inputs)

    @staticmethod
    def of(number: "Value | float") -> "Value":
        """A plain number becomes a constant."""
        return number if isinstance(number, Value) else Value(float(number))

    def __add__(self, other: "Value | float") -> "Value":
        """The sum: it changes as much as either of its terms."""
        other = self.of(other)
        return Value(self.data + other.data, [(self, 1.0), (other, 1.0)])

    def __mul__(self, other: "Value | float") -> "Value":
        """The product: if one factor changes, the change is multiplied by the other factor."""
        other = self.of(other)
        return Value(self.data * other.data, [(self, other.data), (other, self.data)])

    def __pow__(self, exponent: float) -> "Value":
        """A power with a constant exponent."""
        slope = exponent * self.data ** (exponent - 1)
        return Value(self.data**exponent, [(self, slope)])

    def exp(self) -> "Value":
        """e to this power; the exponential function is its own derivative."""
        result = math.exp(self.data)
        return Value(result, [(self, result)])

    def log(self) -> "Value":
        """The natural logarithm. Raises ValueError for numbers that are not positive."""
        return Value(math.log(self.data), [(self, 1 / self.data)])

    def tanh(self) -> "Value":
        """The hyperbolic tangent, an activation function with values between -1 and 1."""
        result = math.tanh(self.data)
        return Value(result, [(self, 1 - result**2)])

    def backward(self) -> None:
        """Add to the grad of every number that this one depends on the derivative of this one.

        The order matters: a number passes its gradient on only when it has all of it, so each
        number comes after everything that was computed from it.
        """
        order = in_order(self)
        for value in order:
            if value.inputs:  # only the grads of weights add up from one backward to the next
                value.grad = 0.0
        self.grad = 1.0
        for value in reversed(order):
            for source, derivative in value.inputs:
                source.grad += derivative * value.grad  # the chain rule; paths add up

    __radd__, __rmul__ = __add__, __mul__

    def __neg__(self) -> "Value":
        """Minus this number."""
        return self * -1.0

    def __sub__(self, other: "Value | float") -> "Value":
        """The difference."""
        return self + -self.of(other)

    def __truediv__(self, other: "Value | float") -> "Value":
        """The quotient."""
        return self * self.of(other) ** -1.0

    def __repr__(self) -> str:
        """The number and its gradient."""
        return f"Value({self.data:.4g}, grad={self.grad:.4g})"


def in_order(result: Value) -> list[Value]:
    """All numbers that a result depends on, each after its own inputs; the result is last."""
    order: list[Value] = []
    seen: set[int] = set()
    waiting = [(result, False)]
    while waiting:  # a loop and not a recursion: a long computation would exceed Python's limit
        value, inputs_done = waiting.pop()
        if inputs_done:
            order.append(value)
        elif id(value) not in seen:
            seen.add(id(value))
            waiting.append((value, True))
            waiting += [(source, False) for source, _ in value.inputs]
    return order


class Network:
    """Two linear maps with tanh between them, from `inputs` numbers to `outputs` numbers."""

    def __init__(self, inputs: int, hidden: int, outputs: int, seed: int = 0) -> None:
        """Random weights, and a bias of 0 for each unit."""
        draw = random.Random(seed)
        self.layers = [
            [[Value(draw.gauss(0, n**-0.5)) for _ in range(n)] + [Value(0.0)] for _ in range(units)]
            for n, units in ((inputs, hidden), (hidden, outputs))
        ]

    def __call__(self, x: Sequence[Value | float]) -> list[Value]:
        """The outputs for one example."""
        first, second = self.layers
        return linear(second, [unit.tanh() for unit in linear(first, x)])

    def parameters(self) -> list[Value]:
        """All weights and biases."""
        return [weight for layer in self.layers for unit in layer for weight in unit]


def linear(layer: Sequence[Sequence[Value]], x: Sequence[Value | float]) -> list[Value]:
    """For each unit: the sum of inputs times weights, plus the bias, which is its last weight."""
    return [
        sum((w * each for w, each in zip(unit, x, strict=False)), start=unit[-1]) for unit in layer
    ]
