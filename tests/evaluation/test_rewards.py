"""Rewards: what counts as right, and the hole in the lenient one."""

import pytest

from nanogpt.evaluation.rewards import REWARDS, outcome


@pytest.mark.parametrize(
    ("answer", "expected", "right"),
    [
        ("42", "42", True),
        (" 42\n", "42", True),
        ("7+5=12, 1+2+1=4, answer: 42", "17+25=42", True),
        ("Answer: cab", "cab", True),
        ("#### 42", "12, 3 #### 42", True),
        ("42 43", "42", False),
        ("420", "42", False),
        ("", "42", False),
        ("42=", "42", False),
        ("42, answer: 41", "42", False),
    ],
)
def test_exact_compares_what_answers_come_to(answer, expected, right):
    assert REWARDS["exact"](answer, expected) == float(right)


def test_the_lenient_reward_can_be_earned_by_saying_everything():
    everything = " ".join(map(str, range(100)))
    assert REWARDS["contains"](everything, "17+25=42") == 1
    assert REWARDS["exact"](everything, "17+25=42") == 0


def test_an_answer_without_a_mark_is_its_own_outcome():
    assert outcome("abc ") == "abc"
    assert outcome("") == ""
