"""Rewards: what an answer is worth, beside the one that was expected.

A reward is a plain function of two texts that returns a number. It says nothing of how to do
better; training finds that out by trying. So it also finds out what the function overlooks.
"""

import re
from collections.abc import Callable
from typing import SupportsFloat

from nanogpt.config import HUGE, choose
from nanogpt.errors import UserError

# What stands before the result, where an answer shows its working: "7+5=12, answer: 42", "#### 42".
MARK = re.compile(r"=|answer:|####", re.IGNORECASE)


def outcome(answer: str) -> str:
    """What an answer comes to: what stands after its last mark, or else all of it.

    >>> outcome("17+25: 7+5=12, 1+2+1=4, answer: 42"), outcome(" 42")
    ('42', '42')
    """
    return MARK.split(answer)[-1].strip()


def exact(answer: str, expected: str) -> float:
    """1 if both come to the same, else 0; the working before the result is free.

    >>> exact("7+5=12, answer: 42", "42"), exact("41, answer: 43", "42"), exact("", "42")
    (1.0, 0.0, 0.0)
    """
    return float(outcome(answer) == outcome(expected))


def contains(answer: str, expected: str) -> float:
    """1 if the expected result stands anywhere in the answer, else 0.

    Lenient, and with a hole: whoever says everything also says what is right.

    >>> contains("I think 42.", "42"), contains("40 41 42 43 44", "42"), contains("41", "42")
    (1.0, 1.0, 0.0)
    """
    result = outcome(expected)
    return float(result in answer if result else not answer.strip())  # nothing is in everything


REWARDS: dict[str, Callable[[str, str], float]] = {"exact": exact, "contains": contains}


def worth(reward: str, answer: str, expected: str) -> float:
    """What the reward of this name gives for an answer.

    Raises UserError if there is no such reward, or if it gives no number, or one far too large.

    >>> worth("exact", "41", "42")
    0.0
    """
    value: object = choose(REWARDS, "policy.reward", reward)(answer, expected)
    if not isinstance(value, SupportsFloat) or not abs(float(value)) < HUGE:
        raise UserError(
            f"policy.reward={reward} gives {value!r:.40} for the answer {answer!r:.40}: let it "
            "return a number"
        )
    return float(value)
