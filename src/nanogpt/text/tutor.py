"""The world of `nanogpt assistant`: small questions whose answers a program can check.

It comes in two forms. A *corpus* holds statements in a notation of its own, page after page, and
nobody speaks in it. In *conversations* a user asks the same things in words, and the assistant
answers. For some tasks it shows its working first; what counts stands after the last "=":

    corpus   sort dbac? abcd          17+25? 7+5=12 1+2+1=4 =42
    user     sort the letters of dbac          what is 17+25?
    assistant   abcd                           7+5=12 1+2+1=4 =42

What a question is about, its letters or its two numbers, is its *matter*. A hash of the matter says
on which side the question is: for training, for validation, or held out. All tasks and both forms
have the same sides, so nothing that is held out was ever seen in any form.
"""

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain, zip_longest
from string import ascii_lowercase

from nanogpt.text.conversations import Message, conversation
from nanogpt.text.corpus import Document, hashed_share

TRAINING, VALIDATION, HELD_OUT = "training", "validation", "held-out"
LONGER = "longer"  # longer words and numbers than on any other side

PAGES, STATEMENTS = 1000, 100  # of the corpus, and on each page
CONVERSATIONS = 20_000
EXAMINATION = 1200  # questions of each examination, as many of every task
EVERY = 10  # one page, or conversation, in so many is for validation


@dataclass(frozen=True)
class Problem:
    """Something to find out."""

    matter: str  # what it is about: all that is asked about it is on one side
    notation: str  # as the corpus asks
    question: str  # as a user asks
    reply: str  # the working, if there is any, then "=" and the answer; else the answer alone


def numbers(draw: random.Random, longer: bool) -> tuple[int, int]:
    """Two numbers below 100, or of three digits."""
    smallest, largest = (100, 999) if longer else (0, 99)
    return draw.randint(smallest, largest), draw.randint(smallest, largest)


def length(draw: random.Random, longer: bool) -> int:
    """How many letters a word has."""
    return draw.randint(6, 7) if longer else draw.randint(2, 5)


def add(draw: random.Random, longer: bool) -> Problem:
    """A sum, digit by digit from the right; each step adds what the one before it carried."""
    a, b = numbers(draw, longer)
    steps, carry = [], 0
    for x, y in zip_longest(reversed(str(a)), reversed(str(b)), fillvalue="0"):
        total = int(x) + int(y) + carry
        steps.append(f"{x}+{y}+{carry}={total}" if carry else f"{x}+{y}={total}")
        carry = total // 10
    reply = f"{' '.join(steps)} ={a + b}"
    return Problem(f"{min(a, b)} {max(a, b)}", f"{a}+{b}", f"what is {a}+{b}?", reply)


def larger(draw: random.Random, longer: bool) -> Problem:
    """The larger of two numbers."""
    a, b = numbers(draw, longer)
    question = f"which is larger {a} or {b}?"
    return Problem(f"{min(a, b)} {max(a, b)}", f"max {a} {b}", question, str(max(a, b)))


def about_a_word(
    notation: str, question: str, answer: Callable[[str], str], draw: random.Random, longer: bool
) -> Problem:
    """What is asked about a word of random letters; {} in notation and question is the word."""
    word = "".join(draw.choices(ascii_lowercase, k=length(draw, longer)))
    matter = "".join(sorted(word))  # so that no question has the letters of one on another side
    return Problem(matter, notation.format(word), question.format(word), answer(word))


def count(draw: random.Random, longer: bool) -> Problem:
    """How often a letter is in a word: it is said so often, then the number."""
    letter, *others = draw.sample(ascii_lowercase, 3)
    letters = length(draw, longer)
    times = draw.randint(0, letters)  # every number as often, so that none is a good guess
    found = [letter] * times + draw.choices(others, k=letters - times)
    draw.shuffle(found)
    word, reply = "".join(found), f"{letter * times}={times}"
    question = f"how many {letter} in {word}?"
    return Problem("".join(sorted(word)), f"count {letter} in {word}", question, reply)


TASKS: dict[str, Callable[[random.Random, bool], Problem]] = {
    "add": add,
    "larger": larger,
    "copy": partial(about_a_word, "copy {}", "say {}", str),
    "reverse": partial(about_a_word, "reverse {}", "spell {} backwards", lambda word: word[::-1]),
    "sort": partial(
        about_a_word, "sort {}", "sort the letters of {}", lambda word: "".join(sorted(word))
    ),
    "count": count,
}


def side_of(matter: str) -> str:
    """Where all questions about a matter belong: a tenth is held out, a twentieth validates.

    Two digits are always for training: the working of longer sums says what they make.

    >>> [side_of(matter) for matter in ("0 0", "ab", "17 25")]
    ['training', 'training', 'held-out']
    """
    if re.fullmatch(r"\d \d", matter):
        return TRAINING
    share = hashed_share(matter)
    return HELD_OUT if share < 0.1 else VALIDATION if share < 0.15 else TRAINING


def draw_problem(draw: random.Random, side: str, task: str = "") -> Problem:
    """A random problem of one side; of one task, if it is named."""
    make = TASKS[task or draw.choice(list(TASKS))]
    while True:
        problem = make(draw, side == LONGER)
        if side in (LONGER, side_of(problem.matter)):
            return problem


def sides(documents: int) -> Iterator[tuple[int, str]]:
    """Number the documents of a source; one in ten is for validation."""
    for number in range(1, documents + 1):
        yield number, TRAINING if number % EVERY else VALIDATION


def corpus() -> Iterator[Document]:
    """Pages of statements, always the same ones."""
    draw = random.Random("corpus")
    for number, side in sides(PAGES):
        problems = (draw_problem(draw, side) for _ in range(STATEMENTS))
        text = "".join(f"{problem.notation}? {problem.reply}\n" for problem in problems)
        yield Document(VALIDATION if side == VALIDATION else f"page {number}", text)


def as_document(name: str, *problems: Problem) -> Document:
    """A conversation in which the user asks, and the assistant answers."""
    turns = [[Message("user", p.question), Message("assistant", p.reply)] for p in problems]
    return conversation(name, list(chain(*turns)))


def demonstrations() -> Iterator[Document]:
    """Conversations of one question or two, always the same ones."""
    draw = random.Random("conversations")
    for number, side in sides(CONVERSATIONS):
        problems = [draw_problem(draw, side) for _ in range(draw.randint(1, 2))]
        yield as_document(VALIDATION if side == VALIDATION else f"chat {number}", *problems)


def examination(side: str) -> Iterator[tuple[str, Problem]]:
    """Questions that are all different, each with the name of its task; the tasks in turn."""
    draw, seen, names = random.Random(side), set[str](), list(TASKS)
    while len(seen) < EXAMINATION:
        task = names[len(seen) % len(names)]
        problem = draw_problem(draw, side, task)
        if problem.question not in seen:
            seen.add(problem.question)
            yield task, problem


def examined(side: str) -> Iterator[Document]:
    """The questions of an examination as conversations, with names such as "sort 5"."""
    for number, (task, problem) in enumerate(examination(side), start=1):
        yield as_document(f"{task} {number}", problem)


DIVIDED = ("tutor-base", "tutor")  # sources that say themselves what is for validation
SOURCES: dict[str, Callable[[], Iterator[Document]]] = {
    "tutor-base": corpus,
    "tutor": demonstrations,
    "tutor-held-out": partial(examined, HELD_OUT),
    "tutor-longer": partial(examined, LONGER),
}
