"""Part of the reward for part of the answer: the share of characters that are right."""

from nanogpt.evaluation.rewards import REWARDS, outcome


def partial(answer: str, expected: str) -> float:
    """1 if both come to the same, less if only some characters do.

    >>> partial("answer: 45", "42")
    0.5
    """
    said, wanted = outcome(answer), outcome(expected)
    same = sum(a == b for a, b in zip(said, wanted, strict=False))
    return same / max(len(said), len(wanted), 1)


REWARDS["partial"] = partial
