"""What a lesson shows: the package's code, folded; predictions; and the questions at its end."""

import inspect
import os
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nanogpt.learn.exercise import Exercise
from nanogpt.learn.exercises import EXERCISES
from nanogpt.learn.progress import load_progress, save_progress
from nanogpt.learn.questions import load_questions, shown

LEARNER = "NANOGPT_LEARNER"  # where `nanogpt learn` says whose progress to read and write


def source(*things: Callable[..., Any]) -> str:
    """The source of functions and classes as it is in the package, as Markdown."""
    parts = []
    for thing in things:
        lines, _ = inspect.getsourcelines(thing)
        code = textwrap.dedent("".join(lines)).rstrip()
        parts.append(f"*{place_of(thing)}*\n\n```python\n{code}\n```")
    return "\n\n".join(parts)


def place_of(thing: Callable[..., Any]) -> str:
    """Where a function or class is defined, such as "layers.py, line 40"."""
    thing = inspect.unwrap(thing)  # a decorator stands in another file
    file = inspect.getsourcefile(thing)
    return f"{Path(file).name}, line {inspect.getsourcelines(thing)[1]}" if file else ""


def package_code(*things: Callable[..., Any]) -> Any:
    """Functions and classes of the package, folded. Returns an element for marimo.

    The solution of an exercise opens by itself as soon as the learner's own passes. Opened earlier,
    it is remembered as shown.
    """
    import marimo as mo

    folds = []
    for thing in things:
        exercise, name = exercise_of(thing), getattr(thing, "__name__", "code")
        title = f"The package's {name} ({place_of(thing)})"
        folder = os.environ.get(LEARNER)
        if exercise is None or folder is None:  # nobody whose progress counts: a script, a web page
            folds.append(mo.accordion({title: mo.md(source(thing))}))
            continue
        progress = load_progress(folder)
        if exercise.name in progress.passed:
            title = f"Your {exercise.name} passes. {title}"
            folds.append(mo.accordion({title: mo.md(source(thing))}, expanded=True))
        elif exercise.name in progress.shown:
            folds.append(mo.accordion({title: mo.md(source(thing))}, expanded=True))
        else:
            title += f": the solution of the exercise {exercise.name}. Show it before you wrote it?"
            folds.append(mo.accordion({title: shower(thing, exercise, Path(folder))}, lazy=True))
    return mo.vstack(folds)


def exercise_of(thing: Any) -> Exercise | None:
    """The exercise whose solution this is."""
    for exercise in EXERCISES.values():
        if thing is exercise.reference or thing is getattr(exercise, "replaces", None):
            return exercise
    return None


def shower(thing: Callable[..., Any], exercise: Exercise, folder: Path) -> Callable[[], Any]:
    """A function that shows a solution, and remembers that it was shown."""

    def show() -> Any:
        import marimo as mo

        progress = load_progress(folder)
        if exercise.name not in progress.shown:
            progress.shown.append(exercise.name)
            save_progress(folder, progress)
        return mo.md(source(thing))

    return show


def predict(question: str, choices: list[str] | None = None, step: float | None = None) -> Any:
    """Ask for a number, or for one of several choices. Returns a form for marimo."""
    import marimo as mo

    element: Any
    if choices is None:
        element = mo.ui.number(value=None, step=step, label="your prediction:")
    else:
        element = mo.ui.radio(choices)
    words = with_braces(textwrap.dedent(question).strip())
    text = mo.md(f"**Predict.** {words}\n\n{{prediction}}")
    return text.batch(prediction=element).form(submit_button_label="I predict")


def with_braces(text: str) -> str:
    """A text in which marimo finds no names to fill in."""
    return text.replace("{", "{{").replace("}", "}}")


def reply(
    form: Any,
    right: str | float,
    why: str,
    wrong: Mapping[Any, str],
    tolerance: float = 0.0,
) -> Any:
    """What to say about a prediction. `wrong` says why the usual wrong guesses are wrong.

    Until something is predicted, the answer stays folded. Returns an element for marimo.
    """
    import marimo as mo

    guess = (form.value or {}).get("prediction")
    wrong = {key: textwrap.dedent(text).strip() for key, text in wrong.items()}
    why = textwrap.dedent(why).strip()
    usual = "\n\n".join(f"*{shown(key)}* is a usual guess. {text}" for key, text in wrong.items())
    if guess is None:
        answer = mo.md(f"**{shown(right)}.** {why}\n\n{usual}")
        return mo.accordion({"The answer, once you have a prediction": answer})
    numbers = not isinstance(right, str)
    if guess == right or (numbers and abs(guess - right) <= tolerance + 1e-9):
        return mo.md(f"**Yes: {shown(right)}.** {why}")
    near = [
        text
        for key, text in wrong.items()
        if key == guess or (numbers and abs(key - guess) <= tolerance)
    ]
    return mo.md("\n\n".join([f"**It is {shown(right)}.** {why}", near[0] if near else usual]))


def self_test(lesson: int) -> Any:
    """The questions at the end of a lesson. Returns a form for marimo."""
    import marimo as mo

    text, elements = [], {}
    for question in load_questions(lesson):
        key = "q" + question.name.replace(".", "_")
        text.append(f"**{question.name}** {with_braces(question.text)}\n\n{{{key}}}")
        choices = question.choices
        elements[key] = mo.ui.radio(choices) if choices else mo.ui.number(value=None)
    return mo.md("\n\n".join(text)).batch(**elements).form(submit_button_label="Judge my answers")


def judged(lesson: int, form: Any) -> Any:
    """What to say about the answers. They count for `nanogpt learn`."""
    import marimo as mo

    questions = load_questions(lesson)
    given = {name: value for name, value in (form.value or {}).items() if value is not None}
    if not given:
        answers = (f"**{q.name}** {shown(q.answer)}. {q.why}" for q in questions)
        return mo.accordion({"The answers, once you have given yours": mo.md("\n\n".join(answers))})
    lines, right = [], {}
    for question in questions:
        answer = given.get("q" + question.name.replace(".", "_"))
        if answer is None:
            lines.append(f"**{question.name}** not answered yet")
            continue
        right[question.name] = question.is_right(answer)
        lines.append(f"**{question.name}** {question.explanation(answer)}")
    if folder := os.environ.get(LEARNER):
        progress = load_progress(folder)
        progress.answered.update(right)
        save_progress(folder, progress)
    lines.append(f"{sum(right.values())} of {len(questions)} are right.")
    return mo.md("\n\n".join(lines))
