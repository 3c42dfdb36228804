"""Lessons: they run, they quote the package and do not repeat it, and their controls work."""

import ast
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import nanogpt
from nanogpt.cli import main
from nanogpt.config import with_settings
from nanogpt.learn.exercise import judge
from nanogpt.learn.exercises import EXERCISES
from nanogpt.learn.lesson import LESSONS, STAGES, is_as_lessons_say, small_config, source
from nanogpt.learn.progress import Progress, save_progress
from nanogpt.text.tokenizer import CharTokenizer, Tokenizer

PACKAGE = Path(nanogpt.__file__).parent
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
    "--disable-component-update", "--no-first-run",
]  # fmt: skip

every_lesson = pytest.mark.parametrize("lesson", LESSONS.values(), ids=lambda x: x.name)


def names_of_the_package() -> set[str]:
    """Functions and classes at the top of any of our files."""
    return {
        node.name
        for path in PACKAGE.rglob("*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
    }


@pytest.fixture(scope="module")
def folder_of_lessons(tmp_path_factory) -> Path:
    """Where all lessons run, so that their small model is trained once."""
    return tmp_path_factory.mktemp("lessons")


@every_lesson
def test_a_lesson_runs_as_a_script_in_a_minute(lesson, folder_of_lessons):
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, str(lesson.path)],
        cwd=folder_of_lessons,
        env={**os.environ, "MPLBACKEND": "Agg"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - began < 180  # a minute, on a machine that has nothing else to do


@every_lesson
def test_a_lesson_quotes_the_package_and_defines_none_of_it_again(lesson):
    text = lesson.path.read_text()
    defined = {
        node.name
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
    }
    assert not (defined - {"_"}) & names_of_the_package()
    assert "source(" in text
    for part in ("After this lesson you can", "**Predict", ".form()", "mo.ui.slider", "**Papers.**",
                 "Your turn"):  # fmt: skip
        assert part in text, part


@every_lesson
def test_a_lesson_ends_with_its_exercises(lesson):
    text = lesson.path.read_text()
    asked = set(re.findall(r"nanogpt exercise check ([\w-]+)", text))
    mine = {name for name, exercise in EXERCISES.items() if exercise.lesson == lesson.number}
    assert asked
    assert asked <= set(EXERCISES)
    assert mine <= asked, "an exercise of this lesson that it does not ask for"
    assert lesson.stage in STAGES


def test_every_exercise_has_a_lesson():
    assert {exercise.lesson for exercise in EXERCISES.values()} <= set(LESSONS)
    assert list(LESSONS) == list(range(1, 13))
    assert {lesson.stage for lesson in LESSONS.values()} == set(STAGES)


def test_every_notebook_is_a_lesson():
    folder = next(iter(LESSONS.values())).path.parent
    assert {lesson.path for lesson in LESSONS.values()} == set(folder.glob("*.py"))


def test_a_quoted_source_is_the_source():
    quoted = source(judge)
    assert quoted.startswith("*exercise.py, line ")
    assert "def judge(" in quoted


def test_the_path_shows_lessons_and_what_passes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["learn"]) == 0
    out = capsys.readouterr().out
    assert all(title in out for title in STAGES.values())
    assert "0 of 12 lessons opened, 0 of 18 exercises pass" in out
    assert all(f" {name}" in out for name in EXERCISES)
    save_progress(Path("my_gpt"), Progress(passed=["merge"]))
    monkeypatch.setattr("subprocess.run", lambda command: Done())
    assert main(["learn", "5"]) == 0
    assert main(["learn", "5"]) == 0
    capsys.readouterr()
    main(["learn"])
    out = capsys.readouterr().out
    assert "1 of 12 lessons opened, 1 of 18 exercises pass" in out
    assert "✓  5  One head by hand" in out
    assert "✓merge" in out
    assert main(["learn", "99"]) == 2
    assert "there is no lesson 99" in capsys.readouterr().err


def test_a_lesson_is_opened_as_a_copy_that_its_learner_may_change(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    opened = []
    monkeypatch.setattr("subprocess.run", lambda command: opened.append(command[4]) or Done())
    assert main(["learn", "3"]) == 0
    copy = Path("my_gpt/lessons/03_tokens.py")
    assert opened == [str(copy)]
    assert copy.read_text() == LESSONS[3].path.read_text()
    copy.write_text("changed")
    main(["learn", "3"])
    assert copy.read_text() == "changed"


class Done:
    """What a command leaves that went well."""

    returncode = 0


@pytest.mark.parametrize(
    ("change", "suits"),
    [
        ({}, True),
        ({"position": "rope"}, False),
        ({"n_layer": 3}, True),
        ({"context_length": 32}, False),
    ],
)
def test_lessons_look_into_the_learners_own_demo_if_it_is_what_they_speak_of(change, suits):
    config = with_settings(small_config(1), model=change)
    words = Tokenizer([(97, 98 + n) for n in range(255)], special_tokens={"<|endoftext|>": 511})
    assert is_as_lessons_say(config, words) == suits
    assert not is_as_lessons_say(config, CharTokenizer("abc"))


def test_without_marimo_a_lesson_says_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["learn", "5"]) == 2
    assert "pip install 'nanogpt[learn]'" in capsys.readouterr().err


@pytest.fixture
def page(request, tmp_path):
    """A lesson in a browser, on a port of its own."""
    browser_path = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser_path is None:
        pytest.skip("no chromium here")
    from playwright.sync_api import sync_playwright

    number, port = request.param
    command = [sys.executable, "-m", "nanogpt", "learn", str(number), "--app", "--headless"]
    server = subprocess.Popen(
        [*command, "--port", str(port)], cwd=tmp_path, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    try:
        with sync_playwright() as play:
            browser = play.chromium.launch(executable_path=browser_path, args=FLAGS)
            page = browser.new_page(viewport={"width": 1000, "height": 6000})
            deadline = time.monotonic() + 60
            while True:
                try:
                    page.goto(f"http://127.0.0.1:{port}/")
                    break
                except Exception:
                    assert time.monotonic() < deadline
                    time.sleep(0.5)
            yield page
            browser.close()
    finally:
        os.killpg(server.pid, 15)
        server.communicate()


@pytest.mark.parametrize(
    "page", [(3, 27183), (5, 31415)], indirect=True, ids=["tokens", "attention"]
)
def test_moving_a_slider_changes_a_picture(page):
    page.get_by_role("heading", name="Your turn").wait_for(timeout=120_000)
    slider = page.get_by_role("slider").nth(1)  # the first of lesson 3 changes a table
    slider.wait_for(timeout=120_000)
    before = settled(page)
    slider.focus()
    slider.press("ArrowRight")
    deadline = time.monotonic() + 60
    while pictures(page) == before:
        assert time.monotonic() < deadline
        time.sleep(0.2)


def pictures(page) -> list[str]:
    """The data of all pictures; locators look into shadow roots, too."""
    return page.locator("img").evaluate_all("images => images.map(image => image.src)")


def settled(page) -> list[str]:
    """The pictures, as soon as there are some that stay the same for three seconds."""
    deadline = time.monotonic() + 120
    while True:
        before = pictures(page)
        time.sleep(3)
        if before and pictures(page) == before:
            return before
        assert time.monotonic() < deadline
