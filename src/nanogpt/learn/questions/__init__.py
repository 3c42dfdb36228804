"""The questions at the end of each lesson, one TOML file a lesson, and the judge of an answer.

    [[question]]
    text = "What does the model give for each token of the text?"
    choices = [
        ["a probability for each token of the vocabulary", "Yes: ..."],
        ["the next token", "No: the token is drawn afterwards."],
    ]

The first choice is the right one; they are shuffled before anybody sees them. A question whose
answer is a number has `answer`, `why`, and `wrong = [[24, "why not 24"]]`, and may have a
`tolerance`.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanogpt.config import read_toml
from nanogpt.learn.lesson import LESSONS

FOLDER = Path(__file__).parent


@dataclass(frozen=True, kw_only=True, eq=False)
class Question:
    """A question with several choices, or with a number as its answer.

    `answer` is the right one, and `why` explains it. `wrong` explains other answers: all other
    choices, or numbers that people often give.
    """

    name: str  # lesson and number, such as "5.2"
    text: str
    answer: str | float
    why: str
    wrong: Mapping[str | float, str]
    tolerance: float = 0.0  # of a number

    @property
    def choices(self) -> list[str]:
        """All choices, in an order that is always the same; none if a number is asked for."""
        if not isinstance(self.answer, str):
            return []
        choices = [self.answer, *map(str, self.wrong)]
        random.Random(self.name).shuffle(choices)
        return choices

    def is_right(self, given: str | float) -> bool:
        """Whether an answer is right."""
        if isinstance(self.answer, str) or isinstance(given, str):
            return given == self.answer
        return abs(given - self.answer) <= self.tolerance + 1e-9

    def explanation(self, given: str | float) -> str:
        """What to say about an answer: why it is right, or why not."""
        if self.is_right(given):
            return f"Right. {self.why}"
        near = [
            why for value, why in self.wrong.items()
            if value == given
            or (not isinstance(value, str) and not isinstance(given, str)
            and abs(value - given) <= self.tolerance)
        ]  # fmt: skip
        start = "No, it is" if given != "" else "It is"
        return " ".join([f"{start} {shown(self.answer)}.", *near[:1], self.why])


def shown(answer: str | float) -> str:
    """An answer as text; whole numbers without a decimal point."""
    return answer if isinstance(answer, str) else f"{answer:,.10g}"


def load_questions(lesson: int) -> list[Question]:
    """The questions of a lesson. Raises UserError if there is no such lesson, or no file."""
    table = read_toml(FOLDER / f"{LESSONS[lesson].path.stem}.toml")
    return [
        question_from(f"{lesson}.{number}", entry)
        for number, entry in enumerate(table["question"], 1)
    ]


def question_from(name: str, entry: Mapping[str, Any]) -> Question:
    """A question from its entry in a file."""
    if "choices" in entry:
        (answer, why), *others = entry["choices"]
        return Question(name=name, text=entry["text"], answer=answer, why=why, wrong=dict(others))
    return Question(
        name=name,
        text=entry["text"],
        answer=float(entry["answer"]),
        why=entry["why"],
        wrong={float(value): why for value, why in entry.get("wrong", [])},
        tolerance=float(entry.get("tolerance", 0.0)),
    )


def all_questions() -> list[Question]:
    """The questions of all lessons, in order."""
    return [question for lesson in LESSONS for question in load_questions(lesson)]


def draw_questions(number: int, lessons: Sequence[int], seed: int | None = None) -> list[Question]:
    """Some questions of some lessons, in lesson order, as many of each lesson as possible."""
    draw = random.Random(seed)
    piles = [load_questions(lesson) for lesson in lessons]
    for pile in piles:
        draw.shuffle(pile)
    deck = [(turn, draw.random(), q) for pile in piles for turn, q in enumerate(pile)]
    chosen = [q for _, _, q in sorted(deck, key=lambda card: card[:2])[:number]]
    return sorted(chosen, key=lambda q: tuple(map(int, q.name.split("."))))
