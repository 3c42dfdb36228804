"""The world of questions: the answers are right, and no side has seen what another holds."""

import random
import re
from collections import Counter

import pytest

from nanogpt.config import DataConfig
from nanogpt.evaluation.rewards import exact
from nanogpt.text.sources import load_split, stream_documents
from nanogpt.text.tutor import (
    EXAMINATION,
    HELD_OUT,
    LONGER,
    SOURCES,
    TASKS,
    TRAINING,
    VALIDATION,
    draw_problem,
    examination,
    side_of,
)

# What a person would answer, found in another way than the package does it.
SOLUTIONS = {
    "add": lambda words: str(sum(map(int, words[2].rstrip("?").split("+")))),
    "larger": lambda words: max(words[3], words[5].rstrip("?"), key=int),
    "copy": lambda words: words[1],
    "reverse": lambda words: "".join(reversed(words[1])),
    "sort": lambda words: "".join(c for a in map(chr, range(97, 123)) for c in words[4] if c == a),
    "count": lambda words: str(sum(c == words[2] for c in words[4].rstrip("?"))),
}


def matter_of(text: str) -> str:
    """What a statement or a question is about, read from its text alone."""
    numbers = sorted(int(n) for n in "".join(c if c.isdigit() else " " for c in text).split())
    if numbers:
        return " ".join(map(str, numbers))
    return "".join(sorted(text.removesuffix(" backwards").rstrip("?").split()[-1]))


def matters(data: DataConfig, side: str) -> set[str]:
    """Everything that one side of a source is about."""
    found = set()
    for document in getattr(load_split(data), side):
        questions = [m.content for m in document.messages if m.role == "user"]
        lines = [line.split("?")[0] for line in document.text.splitlines()]
        found |= set(map(matter_of, questions or lines))
    return found


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("side", [TRAINING, LONGER])
def test_answers_are_right(task, side):
    draw = random.Random(1)
    for _ in range(200):
        problem = draw_problem(draw, side, task)
        assert exact(problem.reply, SOLUTIONS[task](problem.question.split()))


def test_working_is_right():
    """Each step is a true sum, and together they say every digit of the result."""
    draw = random.Random(2)
    for side in [TRAINING, LONGER] * 100:
        reply = draw_problem(draw, side, "add").reply
        *steps, result = reply.split()
        sums = [step.split("=") for step in steps]
        assert all(sum(map(int, left.split("+"))) == int(right) for left, right in sums)
        *before, last = [right for _, right in sums]
        assert result == "=" + last + "".join(right[-1] for right in reversed(before))


def test_no_side_has_seen_what_another_holds():
    corpus, chats = DataConfig(source="toy:tutor-base"), DataConfig(source="toy:tutor")
    seen = matters(corpus, "train") | matters(chats, "train")
    validation = matters(corpus, "val") | matters(chats, "val")
    held_out = {matter_of(problem.question) for _, problem in examination(HELD_OUT)}
    assert min(map(len, (seen, validation, held_out))) > 400
    assert not seen & validation
    assert not seen & held_out
    assert not validation & held_out


def test_longer_questions_are_longer_than_all_others():
    def size(text):
        word = matter_of(text)
        return max(map(len, word.split())) if word[0].isdigit() else len(word)

    def found(side):
        sizes = {}
        for task, problem in examination(side):
            sizes.setdefault(task, []).append(size(problem.question))
        return {task: (min(some), max(some)) for task, some in sizes.items()}

    usual, longer = found(HELD_OUT), found(LONGER)
    assert all(usual[task][1] < longer[task][0] for task in TASKS)
    assert longer["add"] == (3, 3)
    assert longer["copy"] == (6, 7)


def test_an_examination_asks_all_tasks_alike_and_nothing_twice():
    names = [document.name.split()[0] for document in SOURCES["tutor-held-out"]()]
    assert set(Counter(names).values()) == {EXAMINATION // len(TASKS)}
    questions = [problem.question for _, problem in examination(HELD_OUT)]
    assert len(set(questions)) == EXAMINATION


def test_sources_are_always_the_same():
    for name in SOURCES:
        data = DataConfig(source=f"toy:{name}", max_documents=20)
        assert list(stream_documents(data)) == list(stream_documents(data))


def test_a_tenth_is_for_validation_however_few_documents_are_taken():
    for few in (10, 50, 400):
        split = load_split(DataConfig(source="toy:tutor", max_documents=few))
        assert len(split.val) == few // 10
        assert len(split.train) == few - few // 10
        assert {document.name for document in split.val} == {VALIDATION}


def test_counts_cannot_be_guessed():
    """The best guess without a look at the word is right in less than half of the cases."""
    counts = Counter(
        p.reply.rpartition("=")[2] for task, p in examination(HELD_OUT) if task == "count"
    )
    assert max(counts.values()) < 0.4 * counts.total()


def test_the_hash_decides_for_all_tasks():
    sides = Counter(side_of(f"{a} {b}") for a in range(100) for b in range(a, 100))
    shares = {side: n / sides.total() for side, n in sides.items()}
    assert shares[HELD_OUT] == pytest.approx(0.1, abs=0.02)
    assert shares[VALIDATION] == pytest.approx(0.05, abs=0.02)


def test_the_working_of_a_sum_answers_no_question_of_another_side():
    draw = random.Random(0)
    for _ in range(1000):
        reply = draw_problem(draw, TRAINING, "add").reply
        steps = re.findall(r"(?<![\d+])(\d)\+(\d)=", reply)
        assert steps
        assert {side_of(" ".join(sorted(step))) for step in steps} == {TRAINING}
