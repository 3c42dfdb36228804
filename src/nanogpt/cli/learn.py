"""nanogpt learn: the lessons, what has been done so far, opening one, and a test over all."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from nanogpt.cli.screen import Screen
from nanogpt.cli.settings import Parser, folder_to_write, read_line
from nanogpt.errors import UserError
from nanogpt.files import read_text, write_text
from nanogpt.learn.exercises import EXERCISES
from nanogpt.learn.lesson import LESSONS, STAGES, find_lesson
from nanogpt.learn.notebook import LEARNER
from nanogpt.learn.progress import FOLDER, load_progress, save_progress
from nanogpt.learn.questions import Question, all_questions, draw_questions

# marimo's editor runs nothing by itself. A lesson without its outputs cannot be read.
RUN_AT_ONCE = "_MARIMO_CONFIG_OVERLOAD_RUNTIME_AUTO_INSTANTIATE"

ABOUT = """
The learning path: four stages, with lessons, questions and exercises.

  nanogpt learn          the lessons, and how far you are
  nanogpt learn 5        open lesson 5 in the browser
  nanogpt learn test     thirty questions over all lessons
"""


def number_or_test(text: str) -> int | str:
    """The number of a lesson, or the word `test`. Raises ValueError for anything else."""
    return text if text == "test" else int(text)


def main(arguments: Sequence[str]) -> int:
    """List the stages and lessons, open one of them, or ask questions over all of them."""
    if arguments[:1] == ["test"]:
        return test(arguments[1:])
    parser = Parser("learn", ABOUT)
    parser.add_argument(
        "lesson", nargs="?", type=number_or_test, help="the number of a lesson to open, or `test`"
    )
    parser.add_argument("--folder", type=folder_to_write, default=FOLDER, help=f"default: {FOLDER}")
    parser.add_argument(
        "--app", action="store_true", help="show text and controls without the code"
    )
    parser.add_argument("--port", type=int, help="port of the local server that shows the lesson")
    parser.add_argument("--headless", action="store_true", help="do not open a browser")
    options = parser.parse(arguments)
    if options.lesson is None:
        show_path(options.folder)
        return 0
    if options.lesson == "test":
        raise UserError("put `test` first: nanogpt learn test")
    lesson = find_lesson(options.lesson)
    if importlib.util.find_spec("marimo") is None:
        raise UserError("opening a lesson needs marimo: pip install 'nanogpt[learn]'")
    mine = options.folder / "lessons" / lesson.path.name
    if not mine.exists():  # a learner changes a copy, not the lesson
        write_text(mine, read_text(lesson.path))
    progress = load_progress(options.folder)
    if lesson.number not in progress.lessons:
        progress.lessons.append(lesson.number)
        save_progress(options.folder, progress)
    command = [sys.executable, "-m", "marimo", "run" if options.app else "edit", str(mine)]
    command += ["--host", "127.0.0.1"]
    command += ["--port", str(options.port)] if options.port else []
    command += ["--headless", "--no-token"] if options.headless else []
    environment = {**os.environ, LEARNER: str(options.folder.resolve()), RUN_AT_ONCE: "true"}
    try:
        return subprocess.run(command, env=environment).returncode
    except KeyboardInterrupt:
        return 0


def mark(done: bool) -> str:
    """A tick for what is done."""
    return "[green]✓[/]" if done else " "


def show_path(folder: Path) -> None:
    """The stages, their lessons and exercises, and what has been done."""
    console = Screen(highlight=False, soft_wrap=True)
    progress = load_progress(folder)
    passed, opened = set(progress.passed) & set(EXERCISES), set(progress.lessons) & set(LESSONS)
    names = [question.name for question in all_questions()]
    right = {name for name in names if progress.answered.get(name)}
    for number, stage in STAGES.items():
        console.print(f"[bold]{number}  {stage}[/]")
        for lesson in (each for each in LESSONS.values() if each.stage == number):
            tick = mark(lesson.number in opened)
            mine = [name for name in names if name.startswith(f"{lesson.number}.")]
            known = f"{len(right.intersection(mine))} of {len(mine)}"
            console.print(f"  {tick} {lesson.number:>2}  {lesson.title}  [dim]{known}[/]")
            marks = [
                f"{mark(name in passed)}{name}" + (" (optional)" if exercise.optional else "")
                for name, exercise in EXERCISES.items()
                if exercise.lesson == lesson.number
            ]
            if marks:
                console.print("       " + " ".join(marks))
    console.print(
        f"\n{len(opened)} of {len(LESSONS)} lessons opened, {len(right)} of {len(names)} questions "
        f"right, {len(passed)} of {len(EXERCISES)} exercises pass (in {escape(str(folder))})."
    )
    console.print(
        "Open a lesson: nanogpt learn 1. Test yourself: nanogpt learn test. "
        "Exercises: nanogpt exercise start"
    )


def test(arguments: Sequence[str]) -> int:
    """Ask questions over all lessons, one after the other."""
    parser = Parser("learn test", "Questions over all lessons, drawn anew each time.")
    parser.add_argument("--folder", type=folder_to_write, default=FOLDER, help=f"default: {FOLDER}")
    parser.add_argument("--questions", type=int, default=30, help="how many; default: 30")
    parser.add_argument("--lessons", type=int, nargs="+", default=[*LESSONS], help="default: all")
    parser.add_argument("--seed", type=int, help="draw the same questions again")
    options = parser.parse(arguments)
    if options.questions < 1:
        raise UserError(f"--questions {options.questions}: use at least 1")
    lessons = [find_lesson(number).number for number in options.lessons]
    questions = draw_questions(options.questions, lessons, options.seed)
    console = Screen(highlight=False, soft_wrap=True)
    console.print("Answer with a letter or a number. Enter skips a question; Ctrl-C ends the test.")
    answers: list[tuple[Question, bool]] = []
    progress = load_progress(options.folder)
    try:
        for number, question in enumerate(questions, 1):
            console.print(
                f"\n[bold]{number} of {len(questions)}[/]  [dim]lesson {question.name}[/]"
            )
            right = ask(question, console)
            answers.append((question, right))
            progress.answered[question.name] = right
            save_progress(options.folder, progress)
    except (KeyboardInterrupt, EOFError):
        console.print("\nEnded early; what was answered is kept.")
    console.print(f"\n{sum(right for _, right in answers)} of {len(answers)} are right.")
    again = {int(question.name.partition(".")[0]) for question, right in answers if not right}
    for lesson in sorted(again):
        console.print(f"Read again: nanogpt learn {lesson}  [dim]{LESSONS[lesson].title}[/]")
    return 0


def ask(question: Question, console: Console) -> bool:
    """Ask one question, and say what is right. True if the answer was."""
    console.print(question.text, markup=False)
    letters = dict(zip("abcdefgh", question.choices, strict=False))
    for letter, choice in letters.items():
        console.print(f"  {letter}  {choice}", markup=False)
    while True:
        try:
            text = read_line("> ").strip()
        except UnicodeDecodeError:
            console.print("This is not UTF-8 text.")
            continue
        if not text:
            given: str | float = ""
        elif letters:
            if text.casefold() not in letters:
                console.print(f"Answer with {', '.join(letters)}, or Enter to skip.", markup=False)
                continue
            given = letters[text.casefold()]
        else:
            try:
                given = float(text.replace(",", ""))
            except ValueError:
                console.print("Answer with a number, or Enter to skip.")
                continue
        console.print(question.explanation(given), markup=False, style="dim")
        return question.is_right(given)
