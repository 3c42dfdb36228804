"""nanogpt exercise: write the parts of a GPT, and learn what is wrong and how to fix it."""

import io
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from nanogpt.cli.screen import Screen
from nanogpt.cli.settings import (
    Parser,
    file_to_write,
    find_recipe,
    folder_to_write,
    named_path,
    run_action,
)
from nanogpt.config import config_from_dict, read_toml
from nanogpt.errors import UserError
from nanogpt.files import as_csv, write_text
from nanogpt.lab.plugin import load_module
from nanogpt.learn.exercise import Exercise, Verdict, find_exercise, stub_of
from nanogpt.learn.exercises import EXERCISES
from nanogpt.learn.judging import judge_files
from nanogpt.learn.progress import FOLDER, load_progress, save_progress

if TYPE_CHECKING:
    from nanogpt.learn.play import Played

SAME = 0.01  # nats; in a short run another order of summation changes the loss by less

ABOUT = f"""
Write the parts of a GPT yourself: {len(EXERCISES)} exercises, in the order in which it is built.
"""


def main(arguments: Sequence[str]) -> int:
    """Call the action that is named."""
    actions = {"start": start, "check": check, "hint": hint, "play": play_with, "grade": grade}
    return run_action("exercise", ABOUT, actions, arguments)


def exercise_parser(action: str, description: str) -> Parser:
    """A parser that knows the learner's folder."""
    parser = Parser(f"exercise {action}", description)
    parser.add_argument("--folder", type=folder_to_write, default=FOLDER, help=f"default: {FOLDER}")
    return parser


def check_folder(folder: Path) -> None:
    """Raise UserError if there is no such folder: a name with a typing error makes none."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; `nanogpt exercise start` makes it")


def file_of(exercise: Exercise, folder: Path) -> Path:
    """Where the learner's version of an exercise is, such as my_gpt/01_merge.py."""
    return folder / f"{list(EXERCISES).index(exercise.name) + 1:02}_{exercise.name}.py"


def start(arguments: Sequence[str]) -> None:
    """Write the files to fill in to a folder of your own; existing files stay."""
    parser = exercise_parser("start", "Write the files to fill in to a folder of your own.")
    options = parser.parse(arguments)
    console = Screen(highlight=False, soft_wrap=True)
    for exercise in EXERCISES.values():
        path = file_of(exercise, options.folder)
        if not path.exists():
            write_text(path, stub_of(exercise))
            console.print(f"[bold]{escape(str(path))}[/]  {exercise.title}{optional(exercise)}")
        else:
            console.print(f"[dim]{escape(str(path))}  exists and stays as it is[/]")
    first = next(iter(EXERCISES.values()))
    console.print(
        f"\nFill in the first one, {file_of(first, options.folder)}, and check it: "
        f"nanogpt exercise check {first.name}",
        markup=False,
    )


def check(arguments: Sequence[str]) -> int:
    """Judge one exercise, several, or all of them.

    Exit code 1 if one does not pass; an optional one counts only if it is named.
    """
    parser = exercise_parser("check", "Judge exercises: what is right, what is wrong and why.")
    parser.add_argument("names", nargs="*", metavar="EXERCISE", help="default: all")
    parser.names += EXERCISES
    options = parser.parse(arguments)
    chosen = [find_exercise(EXERCISES, name) for name in options.names] or [*EXERCISES.values()]
    check_folder(options.folder)
    console = Screen(highlight=False, soft_wrap=True)
    passed: list[Exercise] = []
    for exercise, (verdict, printed) in judged(chosen, options.folder):
        show_verdict(exercise, verdict, printed, console)
        passed += [exercise] if verdict.passed else []
        progress = load_progress(options.folder)  # another command may have changed it meanwhile
        if verdict.passed and exercise.name not in progress.passed:
            progress.passed.append(exercise.name)
        elif not verdict.passed and exercise.name in progress.passed:
            progress.passed.remove(exercise.name)
        save_progress(options.folder, progress)
    if len(chosen) > 1:
        console.print(f"\n{counted(passed, chosen)}")
    asked = chosen if options.names else [e for e in chosen if not e.optional]
    return 0 if all(exercise in passed for exercise in asked) else 1


def counted(passed: Sequence[Exercise], chosen: Sequence[Exercise]) -> str:
    """How many pass, such as "12 of 20 pass, 2 of 5 optional"."""
    parts = []
    for kind, word in ((False, " pass"), (True, " optional")):
        all_of, some = ([e for e in group if e.optional is kind] for group in (chosen, passed))
        parts += [f"{len(some)} of {len(all_of)}{word}"] if all_of else []
    return ", ".join(parts)


def optional(exercise: Exercise) -> str:
    """What stands beside an optional exercise."""
    return "  [dim](optional)[/]" if exercise.optional else ""


def judged(
    exercises: Sequence[Exercise], folder: Path
) -> Iterator[tuple[Exercise, tuple[Verdict, str]]]:
    """Judge several of a learner's files, as many at a time as there are cores."""
    verdicts = judge_files((file_of(exercise, folder), exercise) for exercise in exercises)
    yield from zip(exercises, verdicts, strict=True)


def show_verdict(exercise: Exercise, verdict: Verdict, printed: str, console: Console) -> None:
    """The verdict, the smallest example that shows it, and what the file printed."""
    mark = "[green]right[/]" if verdict.passed else "[red]wrong[/]"
    if verdict.mistake == "not-written":
        mark = "[dim]to do[/]"
    console.print(f"{mark}  [bold]{exercise.name}[/]  [dim]{exercise.title}[/]{optional(exercise)}")
    if verdict.diagnosis:
        console.print(f"       {verdict.diagnosis}", markup=False)
    if verdict.example:
        console.print(
            "       " + verdict.example.replace("\n", "\n       "), markup=False, style="dim"
        )
    if printed.strip() and not verdict.passed:
        console.print("       it printed:\n" + printed.rstrip(), markup=False, style="dim")
    if not verdict.passed:
        console.print(f"       [dim]nanogpt exercise hint {exercise.name}[/]")


def hint(arguments: Sequence[str]) -> None:
    """Give the next of three hints, from a first idea to nearly the solution."""
    parser = exercise_parser(
        "hint", "The next of three hints, from a first idea to nearly the solution."
    )
    parser.add_argument("name", metavar="EXERCISE")
    parser.names += EXERCISES
    options = parser.parse(arguments)
    exercise = find_exercise(EXERCISES, options.name)
    check_folder(options.folder)
    progress = load_progress(options.folder)
    given = min(progress.hints.get(exercise.name, 0), len(exercise.hints))
    number = min(given + 1, len(exercise.hints))
    console = Screen(highlight=False, soft_wrap=True)
    if given == len(exercise.hints):
        console.print("[dim]That was the last hint; here are all of them again.[/]")
    for n, text in enumerate(exercise.hints[:number], 1):
        console.print(f"{n}. {text}", markup=False, style="dim" if n < number else "")
    progress.hints[exercise.name] = number
    save_progress(options.folder, progress)


def play_with(arguments: Sequence[str]) -> int:
    """Train and generate with the package's functions, then with your own."""
    # Only here: a check should not wait for the trainer.
    from rich.progress import Progress, TaskID

    from nanogpt.learn.play import draw_both, play, settings_for
    from nanogpt.training.records import Record, Step

    parser = exercise_parser("play", "Train a small model with your own functions in it.")
    parser.add_argument("--steps", type=int, default=300, help="steps of each of the two runs")
    options = parser.parse(arguments)
    if options.steps < 10:
        raise UserError(f"--steps {options.steps}: use at least 10")
    check_folder(options.folder)
    passed = load_progress(options.folder).passed
    usable = [exercise for exercise in EXERCISES.values() if exercise.in_model]
    exercises = [exercise for exercise in usable if exercise.name in passed]
    others = [name for name, exercise in EXERCISES.items() if not exercise.in_model]
    if not exercises:
        raise UserError(
            f"no exercise in {options.folder} passes yet that has a place in the model "
            f"({', '.join(others)} have none): `nanogpt exercise check` says what is wrong"
        )
    candidates = {exercise: candidate_of(exercise, options.folder) for exercise in exercises}
    names = [exercise.name for exercise in exercises]
    config = settings_for(
        config_from_dict(read_toml(find_recipe("demo"))), exercises, options.steps
    )
    console = Screen(highlight=False, soft_wrap=True)
    if left_out := [name for name in others if name in passed]:
        console.print(f"[dim]left out: the model has no place for {', '.join(left_out)}[/]")
    runs: list[Played] = []
    for title, used in (("the package", {}), (f"your {', '.join(names)}", candidates)):
        console.print(f"[bold]with {title}[/]")
        with tempfile.TemporaryDirectory() as folder, Progress(console=console) as bar:
            training = bar.add_task("training", total=options.steps)
            evaluation = bar.add_task("evaluation", total=1.0)

            def show(record: Record, task: TaskID = training, bar: Progress = bar) -> None:
                if isinstance(record, Step):
                    bar.update(task, completed=record.step)

            def evaluated(share: float, task: TaskID = evaluation, bar: Progress = bar) -> None:
                bar.update(task, completed=share)

            try:
                runs.append(play(Path(folder), config, used, show, evaluated))
            except (Exception, SystemExit) as error:
                raise_in_words(error, options.folder)
                raise
        console.print(f"loss of the whole validation text {runs[-1].held_out:.4f}\n")
        console.print(runs[-1].text, markup=False, style="dim")
    ours, yours = runs
    draw_both(options.folder / "play.png", ours, yours, names)
    apart, said = comparison(ours, yours, f"{len(names)} of its {len(usable)} parts")
    console.print(f"\n{said}\nSee {options.folder / 'play.png'}", markup=False)
    return 0 if apart < SAME else 1


def comparison(ours: "Played", yours: "Played", parts: str) -> tuple[float, str]:
    """How far apart the losses of two runs are at most, and that in words."""
    pairs = zip(ours.losses, yours.losses, strict=True)
    apart = max(abs(ours.held_out - yours.held_out), *(abs(a - b) for (_, a), (_, b) in pairs))
    if apart < SAME and ours.text == yours.text:
        return apart, (
            f"The losses never differ by more than {apart:.1g}, and both wrote the same text. It "
            f"is one model, and {parts} are yours."
        )
    texts = ", and the two texts differ." if ours.text != yours.text else "."
    return apart, (
        f"The losses differ by up to {apart:.2g}{texts} If that is more than rounding, your parts "
        "do something that no case of the check tests."
    )


def candidate_of(exercise: Exercise, folder: Path) -> Any:
    """The learner's version. Raises UserError if it is no longer there."""
    path = file_of(exercise, folder)
    if not path.exists():
        raise UserError(f"{path} is gone; check the exercises again")
    try:
        candidate = getattr(load_module(path), exercise.symbol, None)
    except SystemExit:
        raise UserError(f"{path} ends the program; remove the exit") from None
    if candidate is None:
        raise UserError(f"{path} defines no {exercise.symbol}; check the exercises again")
    return candidate


def raise_in_words(error: BaseException, folder: Path) -> None:
    """Raise UserError if an error comes from one of the learner's files."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if Path(frame.filename).parent == folder.resolve():
            raise UserError(
                f"{frame.filename} line {frame.lineno}: {type(error).__name__}: {error}"
            ) from None


def grade(arguments: Sequence[str]) -> None:
    """Mark the folders of many learners, each file in a process of its own."""
    parser = Parser("exercise grade", "Mark the folders of many learners.")
    parser.add_argument("folders", nargs="+", type=named_path, metavar="FOLDER")
    parser.add_argument(
        "--csv", type=file_to_write, help="file to write (default: standard output)"
    )
    parser.add_argument(
        "--report", type=file_to_write, help="file for what `check` would say of each wrong answer"
    )
    options = parser.parse(arguments)
    for folder in options.folders:
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder; name the folders of learners")
        if not any(file_of(exercise, folder).exists() for exercise in EXERCISES.values()):
            raise UserError(f"{folder} has none of the exercises; name the folder that holds them")
    progress = Screen(stderr=True, highlight=False, soft_wrap=True)
    header = ["folder", "passed", "optional", *EXERCISES]
    rows: list[list[Any]] = []
    report = ""
    for number, folder in enumerate(options.folders, 1):
        results = list(judged([*EXERCISES.values()], folder))
        passed = [exercise for exercise, (verdict, _) in results if verdict.passed]
        further = sum(exercise.optional for exercise in passed)
        marks = [mark_of(verdict) for _, (verdict, _) in results]
        rows.append([str(folder), len(passed) - further, further, *marks])
        if options.csv:  # after each learner, so that nothing is lost
            write_text(options.csv, as_csv([header, *rows]))
        report += f"{folder}\n\n{said_of(results)}\n"
        if options.report:
            write_text(options.report, report)
        count = counted(passed, [exercise for exercise, _ in results])
        done = f"{number} of {len(options.folders)}  {folder}: {count}"
        progress.print(done, markup=False)
    if not options.csv:
        print(as_csv([header, *rows]), end="")


def said_of(results: Sequence[tuple[Exercise, tuple[Verdict, str]]]) -> str:
    """What `check` says of each answer that is wrong, as plain text."""
    text = io.StringIO()
    console = Screen(file=text, soft_wrap=True, highlight=False, color_system=None)
    for exercise, (verdict, printed) in results:
        if not verdict.passed and verdict.mistake not in ("missing", "not-written"):
            show_verdict(exercise, verdict, printed, console)
    return text.getvalue()


def mark_of(verdict: Verdict) -> str:
    """How a verdict appears in a table: "right", the name of a mistake, or "wrong"."""
    return "right" if verdict.passed else verdict.mistake or "wrong"
