"""nanogpt evaluate --questions: how many questions a model answers right."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from itertools import islice
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from nanogpt.cli.screen import Screen
from nanogpt.cli.settings import Parser, named, print_json
from nanogpt.cli.text import printable
from nanogpt.config import SampleConfig, choose
from nanogpt.errors import UserError
from nanogpt.evaluation.questions import Graded, accuracy, grade, read_questions
from nanogpt.evaluation.rewards import REWARDS
from nanogpt.text.conversations import reply_prompt

if TYPE_CHECKING:
    from nanogpt.model.gpt import GPT
    from nanogpt.text.tokenizer import BaseTokenizer

SHOWN = 5  # wrong answers
# Options of `evaluate` that are about the loss of a text.
OF_LOSS = ("text", "stride", "documents", "tokens", "references", "novelty")


def add_options(parser: Parser) -> None:
    """Add what has to do with questions."""
    parser.add_argument(
        "--questions", type=named, metavar="FILE",
        help="conversations that end with the expected answer: how many does the model get right?",
    )  # fmt: skip
    parser.add_argument("--reward", default="exact", help="what makes an answer right (exact)")
    parser.add_argument("--max-new-tokens", type=int, default=64, help="longest answer (64)")
    parser.add_argument("--temperature", type=float, default=0.0, help="of answers (0: greedy)")


def check(options: argparse.Namespace) -> None:
    """Raise UserError for what does not go with --questions, before a model is loaded."""
    choose(REWARDS, "--reward", options.reward)
    sampling(options)
    for name in OF_LOSS if options.questions else ():
        if getattr(options, name):
            shown = "a text" if name == "text" else f"--{name}"
            raise UserError(f"{shown} does nothing beside --questions; leave one of them out")
    usual = {"reward": "exact", "max_new_tokens": 64, "temperature": 0.0}
    for name, value in ({} if options.questions else usual).items():
        if getattr(options, name) != value:
            raise UserError(f"--{name.replace('_', '-')} is for --questions FILE; name one")


def answer(options: argparse.Namespace, model: "GPT", tokenizer: "BaseTokenizer") -> None:
    """Ask the model every question of the file, and print how many answers are right."""
    from nanogpt.generation.replies import ask

    questions = read_questions(options.questions)
    settings = sampling(options)
    asked = [question.messages for question in questions]
    room = model.config.context_length
    long = sum(len(reply_prompt(tokenizer, messages)) > room for messages in asked)
    with Screen(stderr=True).status(f"answering {len(questions):,} questions ..."):
        answers = list(ask(model, tokenizer, asked, settings, options.batch_size))
    graded = grade(questions, answers, options.reward)
    if options.json:
        print_json(figures(graded, options.reward, settings, long))
    else:
        console = Screen(soft_wrap=True, highlight=False)
        show(graded, options.reward, console)
        if long:
            console.print(
                f"[yellow]questions longer than the context of {room} tokens: {long:,}; the model "
                "saw only their ends[/]"
            )


def sampling(options: argparse.Namespace) -> SampleConfig:
    """How answers are drawn: by temperature alone."""
    return SampleConfig(
        temperature=options.temperature, max_new_tokens=options.max_new_tokens, top_k=0
    )


def mean_reward(graded: Sequence[Graded]) -> float:
    """The mean of all rewards."""
    return sum(each.reward for each in graded) / len(graded)


def figures(
    graded: Sequence[Graded], reward: str, settings: SampleConfig, long: int
) -> dict[str, object]:
    """The findings as --json prints them; so many questions were too long for the context."""
    found = accuracy(graded)
    return {
        "accuracy": found.share,
        "interval_95": list(found.interval),
        "right": found.right,
        "questions": found.count,
        "too_long": long,
        "reward": reward,
        "mean_reward": mean_reward(graded),
        "protocol": {key: value for key, value in asdict(settings).items() if key != "prompt"},
        "answers": [
            {"name": each.question.name, "expected": each.question.expected}
            | {"answer": each.answer, "reward": each.reward}
            for each in graded
        ],
    }


def show(graded: Sequence[Graded], reward: str, console: Console) -> None:
    """The share of right answers, its interval, and a few that are wrong."""
    found = accuracy(graded)
    low, high = found.interval
    console.print(
        f"accuracy       {found.share:.1%}   ({low:.1%} to {high:.1%} with 95 % confidence)\n"
        f"[dim]{found.right:,} of {found.count:,} answers are right, by the reward {reward!r}[/]"
    )
    if any(0 < each.reward < 1 for each in graded):
        console.print(f"mean reward    {mean_reward(graded):.4f}")
    wrong = [each for each in graded if not each.right]
    if wrong:
        table = Table("wrong", "expected", "answered", box=None, header_style="bold")
        for each in islice(wrong, SHOWN):
            texts = (each.question.messages[-1].content, each.question.expected, each.answer)
            table.add_row(*(Text(shortened(text)) for text in texts))
        console.print()
        console.print(table)


def shortened(text: str) -> str:
    """A text as a cell of a table: one line, the beginning of a long one."""
    line = printable(text).replace("\n", "⏎")
    return line if len(line) <= 60 else line[:57] + "..."
