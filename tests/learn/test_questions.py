"""Questions, predictions and folded code: what a lesson asks, judges and remembers."""

import html
import re
from pathlib import Path

import pytest

from nanogpt.cli import main
from nanogpt.learn import notebook
from nanogpt.learn.lesson import LESSONS
from nanogpt.learn.models import small_model
from nanogpt.learn.notebook import LEARNER, judged, package_code, predict, reply, self_test
from nanogpt.learn.progress import Progress, load_progress, save_progress
from nanogpt.learn.questions import (
    all_questions,
    draw_questions,
    load_questions,
    question_from,
)
from nanogpt.model.layers import softmax

CHOICE = question_from(
    "5.1", {"text": "Which?", "choices": [["this", "Because."], ["that", "It is not."]]}
)
NUMBER = question_from(
    "5.2",
    {"text": "How many?", "answer": 480, "why": "5 x 96.", "wrong": [[101, "Not a sum."]],
     "tolerance": 0.5},
)  # fmt: skip


def test_an_answer_is_judged_and_explained():
    assert CHOICE.is_right("this")
    assert CHOICE.explanation("this") == "Right. Because."
    assert CHOICE.explanation("that") == "No, it is this. It is not. Because."
    assert CHOICE.explanation("") == "It is this. Because."
    assert sorted(CHOICE.choices) == ["that", "this"]
    assert NUMBER.is_right(480.4)
    assert not NUMBER.is_right(480.6)
    assert NUMBER.explanation(101.2) == "No, it is 480. Not a sum. 5 x 96."
    assert NUMBER.explanation(7) == "No, it is 480. 5 x 96."
    assert NUMBER.choices == []
    assert not NUMBER.is_right("480")


def test_a_right_choice_does_not_always_come_first():
    places = {q.choices.index(q.answer) for q in all_questions() if q.choices}
    assert len(places) >= 3


def test_thirty_questions_come_from_all_lessons_evenly():
    drawn = draw_questions(30, [*LESSONS], seed=1)
    per_lesson = [sum(q.name.startswith(f"{n}.") for q in drawn) for n in LESSONS]
    assert len(drawn) == len({q.name for q in drawn}) == 30
    assert set(per_lesson) == {1, 2}
    again, other = draw_questions(30, [*LESSONS], 1), draw_questions(30, [*LESSONS], 2)
    assert [q.name for q in again] == [q.name for q in drawn] != [q.name for q in other]
    assert len(draw_questions(99, [5])) == 5


def answering(monkeypatch, answers):
    """Let `input` give these answers, then end."""
    given = iter(answers)

    def ask(prompt):
        answer = next(given, None)
        if answer is None:
            raise EOFError
        return answer

    monkeypatch.setattr("builtins.input", ask)


def test_the_test_asks_judges_and_remembers(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("nanogpt.cli.learn.draw_questions", lambda *_: [CHOICE, NUMBER, NUMBER])
    letter = "ab"[CHOICE.choices.index("this")]
    answering(monkeypatch, ["z", letter.upper(), "many", "1,01", ""])
    assert main(["learn", "test"]) == 0
    out = capsys.readouterr().out
    assert "Answer with a, b, or Enter to skip." in out
    assert "Answer with a number, or Enter to skip." in out
    assert "Right. Because." in out
    assert "1 of 3 are right" in out
    assert "Read again: nanogpt learn 5" in out
    assert load_progress("my_gpt").answered == {"5.1": True, "5.2": False}
    answering(monkeypatch, [letter])
    assert main(["learn", "test"]) == 0
    assert "Ended early; what was answered is kept." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--questions", "0"], "--questions 0: use at least 1"),
        (["--lessons", "77"], "there is no lesson 77"),
    ],
)
def test_a_test_that_cannot_be_costs_one_line(arguments, complaint, capsys):
    assert main(["learn", "test", *arguments]) == 2
    assert complaint in capsys.readouterr().err


def text_of(element) -> str:
    """The HTML of what marimo shows, without the colours of its code."""
    return html.unescape(re.sub(r"</?span[^>]*>", "", element.text))


def test_an_answer_stays_folded_until_something_is_predicted():
    form = predict("How many in `{a}`?")
    unanswered = text_of(reply(form, 6, "Two times three.", wrong={5: "Not a sum."}))
    assert "marimo-accordion" in unanswered
    assert "{a}" in text_of(form)

    class Answered:
        def __init__(self, value):
            self.value = {"prediction": value}

    def said(value, right=6, **more):
        return text_of(reply(Answered(value), right, "Two times three.", **more))

    assert "Yes: 6" in said(6, wrong={5: "Not a sum."})
    assert "Yes: 6" in said(6.2, wrong={5: "Not a sum."}, tolerance=0.25)
    assert "It is 6" in said(5, wrong={5: "Not a sum."})
    assert "Not a sum." in said(5, wrong={5: "Not a sum."})
    assert "<em>5</em> is a usual guess" in said(99, wrong={5: "Not a sum."})
    assert "Yes: b" in said("b", right="b", wrong={"a": "No."})


def test_the_questions_of_a_lesson_count_when_they_are_answered(tmp_path, monkeypatch):
    monkeypatch.setenv(LEARNER, str(tmp_path))
    questions = load_questions(1)
    form = self_test(1)
    assert "marimo-accordion" in text_of(judged(1, form))
    assert load_progress(tmp_path).answered == {}

    class Answered:
        def __init__(self):
            self.value = {f"q1_{n}": None for n in range(1, len(questions) + 1)}
            self.value["q1_1"] = questions[0].answer

    said = text_of(judged(1, Answered()))
    assert f"1 of {len(questions)} are right" in said
    assert "not answered yet" in said
    assert load_progress(tmp_path).answered == {"1.1": True}


def test_a_solution_is_folded_until_the_exercise_passes_or_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv(LEARNER, str(tmp_path))
    locked = text_of(package_code(softmax))
    assert "the solution of the exercise softmax" in locked
    assert "exp(" not in locked
    show = notebook.shower(softmax, notebook.exercise_of(softmax), Path(tmp_path))
    assert "def softmax" in text_of(show())
    assert load_progress(tmp_path).shown == ["softmax"]
    assert "exp(" in text_of(package_code(softmax))
    save_progress(tmp_path, Progress(passed=["softmax"]))
    assert "Your softmax passes" in text_of(package_code(softmax))
    assert "the solution" not in text_of(package_code(small_model)), "no exercise: only folded"
    monkeypatch.delenv(LEARNER)
    assert "exp(" in text_of(package_code(softmax)), "a script or a web page: only folded"
