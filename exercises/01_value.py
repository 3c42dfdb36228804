"""Autograd: numbers that remember how they were computed, and the chain rule."""

import math
from collections.abc import Sequence

from nanogpt.learn.autograd import in_order


class Value:
    """A number that remembers how it was computed.

    Four methods are yours: __add__, __mul__, tanh and backward. An operation gives a new Value
    that knows its inputs, as pairs of (input, local derivative): how much the result changes
    when this input changes a little. `other` may be a Value or a plain number; self.of(other)
    makes a Value of either. Operations do not change their inputs.

    backward takes no argument and gives None. It adds, to the `grad` of every number that this
    one was computed from, the derivative of this number with respect to that one. The grad of
    this number itself becomes 1. A number may have been used several times. backward may be
    called again, for the same result or for another one that shares with it only numbers
    without inputs: their gradients add up. `in_order(result)` is a list of all numbers that a
    result depends on, each after its own inputs; the result is last.

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
        raise NotImplementedError("your turn")

    def __mul__(self, other: "Value | float") -> "Value":
        """The product: if one factor changes, the change is multiplied by the other factor."""
        raise NotImplementedError("your turn")

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
        raise NotImplementedError("your turn")

    def backward(self) -> None:
        """Add to the grad of every number that this one depends on the derivative of this one.

        The order matters: a number passes its gradient on only when it has all of it, so each
        number comes after everything that was computed from it.
        """
        raise NotImplementedError("your turn")

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
