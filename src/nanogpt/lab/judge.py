"""Which differences are larger than the noise between seeds.

Two runs that differ in nothing but their seed end at different losses. A difference between two
arms says something only where it is larger than that. Tukey's test (1949) looks at all pairs at
once: it takes the noise from all arms together, and calls any pair of equals different in at most
one study of a hundred. It assumes that the noise is about as large in every arm.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from nanogpt.errors import UserError

LEVEL = 0.01  # how often a study of equals may show a difference


@dataclass(frozen=True)
class Difference:
    """Two arms and what lies between them."""

    one: str
    other: str
    by: float  # mean of one less mean of the other
    p: float  # how often chance alone makes some pair of the study differ so much

    @property
    def real(self) -> bool:
        """Whether it is larger than the noise."""
        return self.p < LEVEL


def differences(values: Mapping[str, Sequence[float]]) -> list[Difference]:
    """All pairs of arms, each with some values, one a seed: the most certain first.

    With a single value in every arm nothing is known of the noise, and p is not a number. Raises
    UserError if scipy is missing.
    """
    try:
        from scipy.stats import studentized_range
    except ImportError:
        raise UserError("judging a study needs scipy: pip install 'nanogpt[lab]'") from None

    arms = list(values)
    freedom = sum(len(v) - 1 for v in values.values())
    scatter = sum((x - mean(v)) ** 2 for v in values.values() for x in v)
    noise = scatter / freedom if freedom else math.nan
    found = []
    for n, one in enumerate(arms):
        for other in arms[n + 1 :]:
            by = mean(values[one]) - mean(values[other])
            share = (1 / len(values[one]) + 1 / len(values[other])) / 2
            p = math.nan
            if noise > 0:
                span = abs(by) / math.sqrt(noise * share)
                p = float(studentized_range.sf(span, len(arms), freedom))
            elif noise == 0:
                p = 0.0 if by else 1.0
            found.append(Difference(one, other, by, p))
    return sorted(found, key=lambda d: (math.isnan(d.p), d.p, -abs(d.by)))


def spread(values: Sequence[float]) -> float:
    """The standard deviation between seeds; not a number for a single one."""
    return stdev(values) if len(values) > 1 else math.nan
