"""Questions: what is right is counted, and the interval says how sure that is."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanogpt.errors import UserError
from nanogpt.evaluation.questions import Z, accuracy, grade, read_questions, wilson
from nanogpt.evaluation.rewards import REWARDS
from nanogpt.text.conversations import Message


@given(st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilsons_bounds_are_the_shares_that_just_fit_the_count(pair):
    """At its bounds the count is Z standard deviations away: a quadratic equation."""
    right, count = pair
    p = right / count
    # (p - x)^2 = Z^2 x (1 - x) / count
    z = Z**2 / count
    roots = sorted(np.roots([1 + z, -(2 * p + z), p * p]).real)
    assert wilson(right, count) == pytest.approx(roots, abs=2e-6)  # observed 1e-7
    low, high = wilson(right, count)
    assert 0 <= low <= p + 1e-12
    assert p - 1e-12 <= high <= 1


def test_the_interval_holds_the_true_share_nineteen_times_in_twenty():
    draw = np.random.default_rng(0)
    for share in (0.1, 0.5, 0.9):
        bounds = [wilson(int(n), 100) for n in draw.binomial(100, share, size=2000)]
        held = np.mean([low <= share <= high for low, high in bounds])
        assert 0.925 < held < 0.975  # observed 0.94 to 0.96


def write(path, *conversations):
    """A file of conversations, given as roles and texts in turn."""
    rows = [
        {"messages": [{"role": role, "content": text} for role, text in messages]}
        for messages in conversations
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


SUM = [("system", "Be brief."), ("user", "2+3?"), ("assistant", "5")]


def test_the_last_message_is_the_expected_answer(tmp_path):
    first, second = read_questions(write(tmp_path / "sums.jsonl", SUM, [*SUM, *SUM[1:]]))
    assert (first.name, first.expected) == ("sums.jsonl:1", "5")
    assert first.messages == (Message("system", "Be brief."), Message("user", "2+3?"))
    assert len(second.messages) == 4


@pytest.mark.parametrize("messages", [SUM[:2], SUM[2:]], ids=["no answer", "nothing asked"])
def test_what_is_no_question_is_named(messages, tmp_path):
    with pytest.raises(UserError, match=r"sums\.jsonl:2 is no question"):
        read_questions(write(tmp_path / "sums.jsonl", SUM, messages))


def test_a_text_holds_no_questions(tmp_path):
    (tmp_path / "a.txt").write_text("2+3? 5")
    with pytest.raises(UserError, match=r"a\.txt is no question"):
        read_questions(str(tmp_path / "a.txt"))
    (tmp_path / "b.jsonl").write_text("")
    with pytest.raises(UserError, match=r"b\.jsonl holds no questions"):
        read_questions(str(tmp_path / "b.jsonl"))


def test_an_answer_is_right_from_a_reward_of_one_on(tmp_path, monkeypatch):
    questions = read_questions(write(tmp_path / "sums.jsonl", SUM, SUM, SUM))
    monkeypatch.setitem(REWARDS, "half", lambda answer, expected: answer.count(expected) / 2)
    graded = grade(questions, ["5", "55", ""], "half")
    assert [each.reward for each in graded] == [0.5, 1, 0]
    assert [each.right for each in graded] == [False, True, False]
    found = accuracy(graded)
    assert (found.share, found.interval) == (pytest.approx(1 / 3), wilson(1, 3))
