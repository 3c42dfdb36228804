"""How many answers to questions are right, and how sure that is.

A question is a conversation whose last message, the assistant's, is the answer that is expected.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from nanogpt.config import DataConfig
from nanogpt.errors import UserError
from nanogpt.evaluation.rewards import worth
from nanogpt.text.conversations import Message
from nanogpt.text.sources import stream_documents

Z = 1.959964  # standard deviations: 95 % of a normal distribution lie nearer to its mean


@dataclass(frozen=True)
class Question:
    """What is asked, and what should be answered."""

    name: str  # where it stands, such as "sums.jsonl:3"
    messages: tuple[Message, ...]
    expected: str


@dataclass(frozen=True)
class Graded:
    """An answer, and what it is worth."""

    question: Question
    answer: str
    reward: float

    @property
    def right(self) -> bool:
        """Whether it counts as right: rewards go up to 1."""
        return self.reward >= 1


@dataclass(frozen=True)
class Accuracy:
    """The share of answers that are right, and between which shares the true one lies (95 %)."""

    right: int
    count: int

    @property
    def share(self) -> float:
        """The share itself."""
        return self.right / self.count

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's interval: see wilson."""
        return wilson(self.right, self.count)


def wilson(right: int, count: int) -> tuple[float, float]:
    """Between which shares the true one lies, with 95 % confidence (Wilson 1927).

    Unlike share ± 2 standard errors, it never leaves 0 to 1, and it stays wide where all or none of
    a few answers are right.

    >>> [round(share, 3) for share in wilson(10, 10)]
    [0.722, 1.0]
    """
    share, weight = right / count, Z**2 / count
    middle = (share + weight / 2) / (1 + weight)
    spread = Z / (1 + weight) * math.sqrt(share * (1 - share) / count + Z**2 / (4 * count**2))
    return max(0.0, middle - spread), min(1.0, middle + spread)


def read_questions(source: str) -> list[Question]:
    """The questions of a file of conversations.

    Raises UserError if there are none, and, naming its place, for a conversation that does not end
    with an answer of the assistant to something.
    """
    found = []
    for document in stream_documents(DataConfig(source=source)):
        *asked, answer = document.messages or (None,)
        if answer is None or answer.role != "assistant" or not asked:
            raise UserError(
                f"{document.name} is no question: it should be a conversation whose last message "
                "is the assistant's answer"
            )
        found.append(Question(document.name, tuple(asked), answer.content))
    if not found:
        raise UserError(f"{source} holds no questions; add some")
    return found


def grade(questions: Sequence[Question], answers: Sequence[str], reward: str) -> list[Graded]:
    """What each answer is worth beside the expected one, by the reward of this name.

    Raises UserError for a reward that is no number.
    """
    return [
        Graded(question, answer, worth(reward, answer, question.expected))
        for question, answer in zip(questions, answers, strict=True)
    ]


def accuracy(graded: Sequence[Graded]) -> Accuracy:
    """How many answers are right."""
    return Accuracy(sum(each.right for each in graded), len(graded))
