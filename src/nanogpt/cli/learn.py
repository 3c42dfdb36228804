"""nanogpt learn: the lessons, what has been done so far, and opening one."""

import importlib.util
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from nanogpt.cli.settings import Parser
from nanogpt.errors import UserError
from nanogpt.files import read_text, write_text
from nanogpt.learn.exercises import EXERCISES
from nanogpt.learn.lesson import LESSONS, STAGES, find_lesson
from nanogpt.learn.progress import FOLDER, load_progress, save_progress


def main(arguments: Sequence[str]) -> int:
    """List the stages and lessons, or open one of them."""
    parser = Parser("learn", "The learning path: four stages, with lessons and exercises.")
    parser.add_argument("lesson", nargs="?", type=int, help="the number of a lesson to open")
    parser.add_argument("--folder", type=Path, default=FOLDER, help=f"default: {FOLDER}")
    parser.add_argument(
        "--app", action="store_true", help="show text and controls without the code"
    )
    parser.add_argument("--port", type=int, help="port of the local server that shows the lesson")
    parser.add_argument("--headless", action="store_true", help="do not open a browser")
    options = parser.parse(arguments)
    if options.lesson is None:
        show_path(options.folder)
        return 0
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
    try:
        return subprocess.run(command).returncode
    except KeyboardInterrupt:
        return 0


def mark(done: bool) -> str:
    """A tick for what is done."""
    return "[green]✓[/]" if done else " "


def show_path(folder: Path) -> None:
    """The stages, their lessons and exercises, and what has been done."""
    console = Console(highlight=False, soft_wrap=True)
    progress = load_progress(folder)
    passed, opened = set(progress.passed) & set(EXERCISES), set(progress.lessons) & set(LESSONS)
    for number, stage in STAGES.items():
        console.print(f"[bold]{number}  {stage}[/]")
        for lesson in (each for each in LESSONS.values() if each.stage == number):
            tick = mark(lesson.number in opened)
            console.print(f"  {tick} {lesson.number:>2}  {lesson.title}")
            mine = [name for name, e in EXERCISES.items() if e.lesson == lesson.number]
            if mine:
                marks = (f"{mark(name in passed)}{name}" for name in mine)
                console.print("       " + " ".join(marks))
    console.print(
        f"\n{len(opened)} of {len(LESSONS)} lessons opened, "
        f"{len(passed)} of {len(EXERCISES)} exercises pass (in {escape(str(folder))})."
    )
    console.print("Open a lesson: nanogpt learn 1. Exercises: nanogpt exercise start")
