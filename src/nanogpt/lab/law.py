"""How loss falls with the size of the model and the length of the text.

    loss(N, D) = E + A / N^a + B / D^b        (Hoffmann et al. 2022, "Chinchilla", section 3.3)

N is the number of weights that take part in a matrix product, D the number of tokens trained on. E
is what no model of any size could learn from any amount of this text; the second term is the price
of a finite model, the third that of a finite text.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nanogpt.errors import UserError

DRAWS = 300  # of the bootstrap
SURE = 0.9  # share of cases that an interval should cover
STEEPEST = 3.0  # neither power is looked for beyond

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Point:
    """One run: its size, its tokens, and the loss it ended with, in nats per token."""

    size: int
    tokens: int
    loss: float


@dataclass(frozen=True)
class Law:
    """The five numbers of the law, as fitted.

    A and B are losses of a model of one weight and of a text of one token, far from anything that
    was measured. Fitted instead are the two terms in the middle of the runs.
    """

    values: tuple[float, ...]  # E, size term, a, text term, b
    middle: tuple[float, float]  # geometric means of the runs' sizes and tokens

    def loss(self, size: float, tokens: float) -> float:
        """What a model of that size reaches after so many tokens."""
        return float(law(self.values, size / self.middle[0], tokens / self.middle[1]))

    def numbers(self) -> dict[str, float]:
        """E, A, a, B, b as the law is usually written."""
        floor, size_term, a, text_term, b = self.values
        size, tokens = self.middle
        return {"E": floor, "A": size_term * size**a, "a": a, "B": text_term * tokens**b, "b": b}


def need_scipy() -> Any:
    """What fits the law. Raises UserError if scipy is missing."""
    try:
        from scipy.optimize import least_squares
    except ImportError:
        raise UserError("fitting a law needs scipy: pip install 'nanogpt[lab]'") from None
    return least_squares


def law(values: Any, size: Any, tokens: Any) -> Any:
    """The law itself; sizes and tokens are relative to the middle of the runs."""
    floor, size_term, a, text_term, b = values
    return floor + size_term * size**-a + text_term * tokens**-b


def fit(points: Sequence[Point], near: Law | None = None) -> Law:
    """The law that misses the runs least: squares of log loss, outliers counting less (Huber).

    It is looked for from several starts, or near a law of runs of the same sizes and texts.
    Raises UserError if scipy is missing, or if there are too few runs to tell size from text.
    """
    least_squares = need_scipy()
    sizes = np.array([point.size for point in points], dtype=float)
    tokens = np.array([point.tokens for point in points], dtype=float)
    losses = np.array([point.loss for point in points])
    if len(points) < 6 or len(set(sizes)) < 3 or len(set(tokens)) < 3:
        raise UserError("a law needs six runs or more, of three different sizes and texts")
    if not losses.min() > 0:
        raise UserError("a loss of 0 leaves nothing to fit: use a text that is harder to learn")
    middle = (float(np.exp(np.log(sizes).mean())), float(np.exp(np.log(tokens).mean())))
    sizes, tokens, least = sizes / middle[0], tokens / middle[1], losses.min()

    def misses(values: Floats) -> Floats:
        return np.log(law(values, sizes, tokens) / losses)

    lowest = np.array([0, 0, 0.01, 0, 0.01])
    highest = np.array([least, 10 * least, STEEPEST, 10 * least, STEEPEST])

    def descend(start: Floats) -> Any:
        inside = np.clip(start, lowest + 0.001 * highest, 0.999 * highest)
        bounds = (lowest, highest)
        return least_squares(misses, inside, bounds=bounds, loss="huber", f_scale=0.01)

    starts = [
        np.array([floor * least, (1 - floor) * least / 2, power, (1 - floor) * least / 2, power])
        for floor in (0.3, 0.8)
        for power in (0.2, 0.6)
    ]
    if near:
        starts = [np.array(near.values)]
    best = min(map(descend, starts), key=lambda result: result.cost)
    return Law(tuple(best.x.tolist()), middle)


@dataclass(frozen=True)
class Uncertainty:
    """What noise can have done: other laws that it could have led to, and how large it is."""

    laws: list[Law]
    noise: Floats  # of a single run, in log loss

    def interval(self, size: int, tokens: int, runs: int = 1) -> tuple[float, float]:
        """Where the mean of new runs should lie: the law's uncertainty and the runs' own noise."""
        draw = np.random.default_rng(1)
        return middle_of(
            [
                other.loss(size, tokens) * math.exp(draw.choice(self.noise, runs).mean())
                for other in self.laws
                for _ in range(10)
            ]
        )

    def number(self, name: str) -> tuple[float, float]:
        """Where a number of the law should lie, such as "a"."""
        return middle_of([other.numbers()[name] for other in self.laws])


def middle_of(values: Sequence[float]) -> tuple[float, float]:
    """The interval in which nine in ten of the values lie."""
    low, high = np.quantile(values, [(1 - SURE) / 2, (1 + SURE) / 2])
    return float(low), float(high)


def bootstrap(points: Sequence[Point], fitted: Law, draws: int = DRAWS) -> Uncertainty:
    """Fit again and again to runs that the law and its own residuals could have produced.

    Five numbers were fitted, so the residuals are a little too small; they are widened by as much.
    """
    noise = np.array([math.log(p.loss / fitted.loss(p.size, p.tokens)) for p in points])
    noise *= math.sqrt(len(points) / max(1, len(points) - len(fitted.values)))
    draw = np.random.default_rng(0)
    laws = []
    for _ in range(draws):
        missed = draw.choice(noise, len(points))
        again = [
            Point(p.size, p.tokens, fitted.loss(p.size, p.tokens) * math.exp(miss))
            for p, miss in zip(points, missed, strict=True)
        ]
        laws.append(fit(again, near=fitted))
    return Uncertainty(laws, noise)
