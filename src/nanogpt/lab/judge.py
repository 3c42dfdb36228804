"""Which differences are larger than the noise between seeds.

Two runs that differ in nothing but their seed end at different losses. A difference between two
arms says something only where it is larger than that. Tukey's test (1949) looks at all pairs at
once: it takes the noise from all arms together, and calls any pair of equals different in at most
one study of a hundred. It assumes that the noise is about as large in every arm.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import mean, stdev
from typing import Any

from nanogpt.errors import UserError

LEVEL = 0.01  # how often a study of equals may show a difference


@dataclass(frozen=True)
class Difference:
    """Two arms and what lies between them."""

    one: str
    other: str
    by: float  # mean of one less mean of the other
    span: float  # that, in standard errors of a mean; not a number where nothing is known of noise
    arms: int  # how many the study has
    freedom: int  # values beyond one for each arm: how well the noise is known

    @property
    def real(self) -> bool:
        """Whether it is larger than the noise."""
        return self.span > largest_span_of_equals(self.arms, self.freedom)

    @property
    def p(self) -> float:
        """How often chance alone makes some pair of such a study differ so much."""
        if math.isnan(self.span) or math.isinf(self.span):
            return 0.0 if self.span > 0 else math.nan
        return float(studentized_range().sf(self.span, self.arms, self.freedom))


def differences(values: Mapping[str, Sequence[float]]) -> list[Difference]:
    """All pairs of arms, each with some values, one a seed: the most certain first.

    Raises UserError if scipy is missing.
    """
    studentized_range()
    arms = list(values)
    freedom = sum(len(v) - 1 for v in values.values())
    scatter = sum((x - mean(v)) ** 2 for v in values.values() for x in v)
    noise = scatter / freedom if freedom else math.nan
    found = []
    for n, one in enumerate(arms):
        for other in arms[n + 1 :]:
            by = mean(values[one]) - mean(values[other])
            share = (1 / len(values[one]) + 1 / len(values[other])) / 2
            span = abs(by) / math.sqrt(noise * share) if noise else math.inf if by else 0.0
            found.append(Difference(one, other, by, span, len(arms), freedom))
    return sorted(found, key=lambda d: (-d.span, -abs(d.by)))


@cache
def largest_span_of_equals(arms: int, freedom: int) -> float:
    """Where a difference begins to be real: finding it takes a moment, so it is remembered."""
    return float(studentized_range().isf(LEVEL, arms, freedom)) if freedom else math.inf


def p_of_mean_below(values: Sequence[float], bound: float) -> float:
    """How often chance alone gives values with so low a mean if the true mean is the bound.

    The one-sided t-test (Student 1908); not a number for values that do not differ. Raises
    UserError if scipy is missing.

    >>> round(p_of_mean_below([1.0, 2.0, 3.0], bound=4.0), 3)
    0.037
    """
    if len(set(values)) < 2:
        return math.nan
    test = scipy_stats().ttest_1samp
    return float(test(list(values), bound, alternative="less").pvalue)


def studentized_range() -> Any:
    """The distribution that Tukey's test looks its spans up in."""
    return scipy_stats().studentized_range


def scipy_stats() -> Any:
    """The tests and distributions of scipy. Raises UserError if it is missing."""
    try:
        import scipy.stats
    except ImportError:
        raise UserError("judging a study needs scipy: pip install 'nanogpt[lab]'") from None
    return scipy.stats


def spread(values: Sequence[float]) -> float:
    """The standard deviation between seeds; not a number for a single one, or for one of none."""
    known = len(values) > 1 and not any(map(math.isnan, values))
    return stdev(values) if known else math.nan
