"""nanogpt assistant: from a base model to an assistant that answers, in three stages."""

import argparse
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from nanogpt.cli.display import watch
from nanogpt.cli.prepare import prepare_with_progress
from nanogpt.cli.screen import Screen
from nanogpt.cli.settings import Parser, load_settings, named_path, settings_in
from nanogpt.cli.text import printable
from nanogpt.cli.train import describe, free_folder, undone_on_mistake
from nanogpt.config import ModelConfig, PolicyConfig, SampleConfig, TrainConfig
from nanogpt.errors import UserError
from nanogpt.evaluation.questions import Graded, accuracy, grade, read_questions
from nanogpt.files import claimed, write_json
from nanogpt.text.dataset import data_folder
from nanogpt.text.prepare import Prepared
from nanogpt.text.tokenizer import END_OF_TEXT
from nanogpt.text.tutor import HELD_OUT, LONGER, TASKS
from nanogpt.text.worlds import TOY
from nanogpt.training.records import check_is_run

if TYPE_CHECKING:
    from nanogpt.model.gpt import GPT
    from nanogpt.text.tokenizer import BaseTokenizer
    from nanogpt.training.start import Trainer


@dataclass(frozen=True)
class Stage:
    """One run of the assistant's."""

    name: str  # of its folder
    title: str
    recipe: str
    init: str  # the stage whose weights it begins with; empty: fresh ones
    short: str  # its name in tables


STAGES = [
    Stage("base", "A base model, from pages of statements", "tutor-base", "", "base model"),
    Stage("answers", "Fine-tuning, on demonstrations", "tutor-answers", "base", "fine-tuned"),
    Stage("policy", "Reinforcement, of what turned out right", "tutor-policy", "answers",
          "reinforced"),
    Stage("control", "For comparison: more fine-tuning, as long as the reinforcement took",
          "tutor-answers", "answers", "more fine-tuning"),
]  # fmt: skip
SHORT = {stage.name: stage.short for stage in STAGES}
ANSWER = SampleConfig(temperature=0.0, top_k=0, max_new_tokens=40)
SHOWN = 20  # answers, before and after
QUESTION = 32  # characters of the longest question to learn from, with its tokens for roles

WHAT_NEXT = """\
everything is in {run}: a run for each stage, and results.json

what to try next
  nanogpt chat {run}/policy --sample.temperature 0   ask it yourself
  nanogpt evaluate {run}/policy --questions toy:tutor-longer
  nanogpt assistant --demonstrations 20000         when is more fine-tuning better?
  nanogpt train tutor-policy --init {run}/answers --run runs/hacked --policy.reward contains"""


def main(arguments: Sequence[str]) -> int:
    """Run all stages and show what each has changed. Returns the exit code."""
    began = time.perf_counter()
    parser = Parser("assistant", "Pretrain, fine-tune and reinforce a model that answers.")
    folder = Path("runs/assistant")
    parser.add_argument("--run", type=named_path, default=folder, help="folder to write")
    parser.add_argument(
        "--resume", type=named_path, metavar="RUN", help="go on with the stages of a folder"
    )
    parser.add_argument(
        "--demonstrations", type=int, default=0,
        help="conversations to fine-tune on, up to 20,000 (those of the recipe: 1,000)",
    )  # fmt: skip
    parser.add_argument(
        "--no-control", dest="control", action="store_false",
        help="leave out the fine-tuning that takes as long as the reinforcement",
    )  # fmt: skip
    # What is given holds for every stage; a later stage has the shape of the first.
    parser.add_settings(ModelConfig, TrainConfig, PolicyConfig)
    options = parser.parse(arguments)
    if options.demonstrations < 0:
        raise UserError(f"--demonstrations {options.demonstrations}: use a positive number")
    for name in ("init", "objective"):
        if name in settings_in(options).get("train", {}):
            raise UserError(f"--train.{name} is for single runs: use `nanogpt train tutor-policy`")
    stages = STAGES if options.control else STAGES[:-1]
    refuse_mistakes(stages, options)
    if options.resume:
        check_is_run(options.resume / STAGES[0].name)
    run, console = options.resume or free_folder(options.run), Screen()
    with claimed(run):
        assistant = Assistant(run, options, console)
        for number, stage in enumerate(stages, start=1):
            console.rule(f"{number}. {stage.title}", align="left")
            if not assistant.train(stage):
                return 130
        show(assistant.graded, console)
        write_json(run / "results.json", assistant.results())
    console.rule(f"Done in {time.perf_counter() - began:.0f} seconds", align="left")
    text = WHAT_NEXT.format(run=shlex.quote(str(run)))
    console.print(text, highlight=False, markup=False, soft_wrap=True)
    if sys.stdin.isatty() and console.is_terminal:
        from nanogpt.cli import chat

        chat.main([str(run / "policy"), "--sample.temperature", "0"])
    return 0


def refuse_mistakes(stages: Sequence[Stage], options: argparse.Namespace) -> None:
    """Raise UserError for settings of any stage, so that nothing is refused after minutes."""
    room = 0
    for stage in stages:
        settings = {**settings_for(stage, options), "train.init": ""}
        config = load_settings(stage.recipe, argparse.Namespace(**settings))
        room = room or config.model.context_length  # the later ones have the shape of the first
        needed = config.policy.max_new_tokens + QUESTION
        if config.train.objective == "policy" and room < needed:
            raise UserError(
                f"model.context_length={room}: use at least {needed}, for a question and "
                f"policy.max_new_tokens={config.policy.max_new_tokens}"
            )


def settings_for(stage: Stage, options: argparse.Namespace) -> dict[str, Any]:
    """The settings of a stage that differ from its recipe's."""
    given = {key: value for key, value in vars(options).items() if "." in key}
    if stage.init:
        given = {key: value for key, value in given.items() if not key.startswith("model.")}
    if options.demonstrations and stage.recipe == "tutor-answers":
        given["data.max_documents"] = options.demonstrations
    return given


class Assistant:
    """The runs of the stages, each in a folder of its own, and how well they answer."""

    def __init__(self, run: Path, options: argparse.Namespace, console: Console) -> None:
        self.run, self.options, self.console = run, options, console
        self.trainers: dict[str, Trainer] = {}
        self.graded: dict[str, dict[str, list[Graded]]] = {}  # by stage, then by side

    def train(self, stage: Stage) -> bool:
        """Train a stage, or what is left of it, and examine it. False if it was interrupted."""
        from nanogpt.training.checkpoint import has_checkpoint
        from nanogpt.training.report import write_loss_plot, write_reward_plot
        from nanogpt.training.start import Trainer

        folder, console, name = self.run / stage.name, self.console, stage.name
        trainer = Trainer.resume(folder) if has_checkpoint(folder) else self.begin(stage)
        describe(trainer, console)
        complete = trainer.complete or watch(trainer, console)
        write_loss_plot(folder)
        write_reward_plot(folder)
        if not complete:
            resume = f"nanogpt assistant --resume {shlex.quote(str(self.run))}"
            console.print(f"stopped; to go on: {resume}", soft_wrap=True)
            return False
        self.trainers[name] = trainer
        with console.status("asking what it has never seen ..."):
            self.graded[name] = examine(trainer.model, trainer.tokenizer)
        found = accuracy(self.graded[name][HELD_OUT])
        console.print(
            f"[bold]right[/]  {found.share:.1%} of {found.count:,} held-out questions, after "
            f"{trainer.state.seconds:.0f} s of training", highlight=False,
        )  # fmt: skip
        return True

    def begin(self, stage: Stage) -> "Trainer":
        """Prepare the text of a stage, and start its run."""
        from nanogpt.training.start import Trainer

        folder, console = self.run / stage.name, self.console
        settings = settings_for(stage, self.options)
        if stage.init:
            settings["train.init"] = str(self.run / stage.init)
        if stage.name == "control":
            settings["train.max_steps"] = self.steps_as_long_as("policy")
        config = load_settings(stage.recipe, argparse.Namespace(**settings), trains=True)
        with undone_on_mistake(folder):
            prepared = prepare_with_progress(config.data, data_folder(folder, config), console)
            show_example(prepared, console)
            return Trainer.start(folder, config)

    def steps_as_long_as(self, name: str) -> int:
        """How many steps of fine-tuning take as long as a stage took, on this machine."""
        fine_tuning = self.trainers["answers"].state
        seconds = self.trainers[name].state.seconds
        return max(1, round(seconds * fine_tuning.step / fine_tuning.seconds))

    def results(self) -> dict[str, Any]:
        """What was found, as results.json has it."""
        return {
            name: {
                "steps": self.trainers[name].state.step,
                "seconds": self.trainers[name].state.seconds,
                "tasks": {t: figures(some) for t, some in by_task(sides[HELD_OUT]).items()},
                **{side: figures(graded) for side, graded in sides.items()},
            }
            for name, sides in self.graded.items()
        }


def examine(model: "GPT", tokenizer: "BaseTokenizer") -> dict[str, list[Graded]]:
    """A model's answers to the questions that are held out, and to longer ones than all others."""
    from nanogpt.generation.replies import ask

    found = {}
    for side in (HELD_OUT, LONGER):
        questions = read_questions(f"{TOY}tutor-{side}")
        asked = [question.messages for question in questions]
        found[side] = grade(questions, list(ask(model, tokenizer, asked, ANSWER, 256)), "exact")
    return found


def figures(graded: Sequence[Graded]) -> dict[str, Any]:
    """How many answers are right, with the interval, as plain values."""
    found = accuracy(graded)
    return {"right": found.right, "questions": found.count, "interval_95": list(found.interval)}


def by_task(graded: Sequence[Graded]) -> dict[str, list[Graded]]:
    """Answers by the task that was asked."""
    found: dict[str, list[Graded]] = {task: [] for task in TASKS}
    for each in graded:
        found[each.question.name.partition(" ")[0]].append(each)
    return found


def show_example(prepared: Prepared, console: Console) -> None:
    """What a stage learns from: how much it is, and its beginning."""
    tokens = prepared.files["train"]
    beginning = prepared.tokenizer.decode(tokens.ids[:180].tolist())
    console.print(
        f"[bold]text[/]   {tokens.about.documents:,} documents, {tokens.about.count:,} tokens",
        highlight=False,
    )
    shown = Text(printable(beginning), style="italic dim", overflow="ellipsis")
    console.print(Padding(Text("\n").join(shown.split(END_OF_TEXT)[:4]), (0, 0, 0, 7)))


def show(graded: Mapping[str, Mapping[str, Sequence[Graded]]], console: Console) -> None:
    """What the models answer, and how much of it is right."""
    console.rule("What they answer", align="left")
    show_answers({SHORT[name]: sides[HELD_OUT] for name, sides in graded.items()}, console)
    console.rule("How much of it is right", align="left")
    table = Table("% right", *(SHORT[name] for name in graded), box=None, header_style="bold")
    for column in table.columns[1:]:
        column.justify = "right"
    held_out = [accuracy(sides[HELD_OUT]) for sides in graded.values()]
    table.add_row("held-out questions", *(percent(each.share) for each in held_out), style="bold")
    table.add_row("  95 % interval", *("-".join(map(percent, each.interval)) for each in held_out))
    for task in TASKS:
        some = [accuracy(by_task(sides[HELD_OUT])[task]).share for sides in graded.values()]
        table.add_row(f"  {task}", *map(percent, some))
    longer = [accuracy(sides[LONGER]).share for sides in graded.values()]
    table.add_row("longer than in training", *map(percent, longer))
    console.print(table)


def show_answers(graded: Mapping[str, Sequence[Graded]], console: Console) -> None:
    """The first questions, and the answers of three stages; right ones are green."""
    three = dict(islice(graded.items(), 3))
    table = Table("question", *three, box=None, header_style="bold")
    for row in islice(zip(*three.values(), strict=True), SHOWN):
        cells = [Text(one_line(x.answer), style="green" if x.right else "red") for x in row]
        table.add_row(row[0].question.messages[-1].content, *cells)
    for column in table.columns:
        column.no_wrap, column.overflow = True, "ellipsis"
    console.print(table)


def one_line(answer: str) -> str:
    """The beginning of an answer, in one line."""
    return printable(answer).replace("\n", "⏎")[:24]


def percent(share: float) -> str:
    """A share as a table shows it."""
    return f"{100 * share:.1f}"
