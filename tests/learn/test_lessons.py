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

import nanogpt.learn.questions
from nanogpt.cli import main
from nanogpt.config import with_settings
from nanogpt.learn.exercise import judge
from nanogpt.learn.exercises import EXERCISES
from nanogpt.learn.lesson import LESSONS, STAGES
from nanogpt.learn.models import is_as_lessons_say, small_config
from nanogpt.learn.notebook import LEARNER, source
from nanogpt.learn.progress import Progress, load_progress, save_progress
from nanogpt.learn.questions import load_questions
from nanogpt.text.tokenizer import CharTokenizer, Tokenizer

PACKAGE = Path(nanogpt.__file__).parent
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
    "--disable-component-update", "--no-first-run",
]  # fmt: skip

every_lesson = pytest.mark.parametrize("lesson", LESSONS.values(), ids=lambda x: x.name)


def names_of_the_package() -> set[str]:
    """Functions and classes at the top of our files, but for those that write a file of its own."""
    return {
        node.name
        for path in PACKAGE.rglob("*.py")
        if path.parent.name != "eject"
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
    assert "package_code(" in text
    assert "\n@app.cell\n" in text, "no cell of code is visible"
    for part in ("After this lesson you can", "subplots(", "mo.ui.slider", "**Papers.**"):
        assert part in text, part


@every_lesson
def test_a_lesson_asks_for_predictions_and_says_why_a_usual_guess_is_wrong(lesson):
    calls = [n for n in ast.walk(ast.parse(lesson.path.read_text())) if isinstance(n, ast.Call)]
    named = [c for c in calls if isinstance(c.func, ast.Name)]
    replies = [c for c in named if c.func.id == "reply"]
    assert len([c for c in named if c.func.id == "predict"]) == len(replies) >= 3
    for call in replies:
        (wrong,) = [k.value for k in call.keywords if k.arg == "wrong"]
        assert not isinstance(wrong, ast.Dict) or wrong.keys


@every_lesson
def test_a_lesson_ends_with_five_questions_and_its_exercises(lesson):
    text = lesson.path.read_text()
    assert f"self_test({lesson.number})" in text
    assert f"judged({lesson.number}, " in text
    questions = load_questions(lesson.number)
    assert len(questions) == 5
    for question in questions:
        assert question.wrong, "no reason why another answer is wrong"
        assert question.is_right(question.answer)
        assert len({question.answer, *question.wrong}) == len(question.wrong) + 1
        assert not any(map(question.is_right, question.wrong))
        assert all(reason.endswith((".", "?", "`")) for reason in question.wrong.values())
    asked = set(re.findall(r"nanogpt exercise check ([\w-]+)", text))
    mine = {name for name, exercise in EXERCISES.items() if exercise.lesson == lesson.number}
    assert mine <= asked <= set(EXERCISES)


def terms_of_the_glossary() -> list[tuple[str, int]]:
    """Each form of each term, the longest first, with the lesson that introduces it."""
    text = (PACKAGE.parent.parent / "docs" / "glossary.md").read_text()
    found = []
    for term, lesson in re.findall(r"^\| \*\*(.+?)\*\* \|.*\| (\d*) \|$", text, re.M):
        if term.startswith("head ("):
            continue  # both meanings belong to lesson 1
        forms = re.sub(r" \(.*?\)", "", term).split(", ")
        found += [(form, int(lesson or 99)) for form in forms if form not in EVERYDAY]
    return sorted(found, key=lambda pair: -len(pair[0]))


# Terms that are also plain words; there is no telling which is meant.
EVERYDAY = {
    "activation", "arm", "bias", "judge", "key", "rank", "recipe", "run", "study", "value", "trace",
}  # fmt: skip


def texts_of(lesson) -> list[str]:
    """The strings of a notebook; what is computed inside of them is a 1."""
    said = []
    for node in ast.walk(ast.parse(lesson.path.read_text())):
        if isinstance(node, ast.JoinedStr):
            parts = (p.value if isinstance(p, ast.Constant) else "1" for p in node.values)
            said.append("".join(map(str, parts)))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            said.append(node.value)
    return said


def prose_of(lesson) -> str:
    """What a lesson says in words, its questions included, its code and its papers left out."""
    said = [text for text in texts_of(lesson) if len(text.split()) >= 4]
    said = [text.partition("**Papers.**")[0] for text in said]
    for q in load_questions(lesson.number):
        said += [q.text, str(q.answer), q.why, *map(str, q.wrong), *q.wrong.values()]
    text = "\n".join(said)
    return re.sub(r"```.*?```|`[^`]*`|https?://\S+", " ", text, flags=re.S)


def uses(term: str) -> str:
    """A pattern for a term in a text, its plural included."""
    term = term if term.endswith("ss") else term.removesuffix("s")
    words = re.escape(term).replace(r"\ ", r"[\s-]+").replace(r"\-", r"[\s-]")
    plural = words[:-1] + "(?:y|ies)" if term.endswith("y") else words + "(?:s|es)?"
    return rf"(?<![\w-]){plural}(?![\w])"


@every_lesson
def test_no_lesson_uses_a_term_before_the_lesson_that_introduces_it(lesson):
    prose, early = prose_of(lesson), []
    for term, introduced in terms_of_the_glossary():
        places = [m.start() for m in re.finditer(uses(term), prose, re.I)]
        if places and introduced > lesson.number:
            around = prose[max(0, places[0] - 40) : places[0] + 60].replace("\n", " ")
            early.append(f"{term} (lesson {introduced}): ...{around}...")
        prose = re.sub(uses(term), " ", prose, flags=re.I)  # a longer term is no use of a shorter
    assert not early, "\n".join(early)


def test_a_term_is_introduced_in_bold_where_the_glossary_says():
    bold = {
        lesson.number: [b for t in texts_of(lesson) for b in re.findall(r"\*\*(.+?)\*\*", t, re.S)]
        for lesson in LESSONS.values()
    }
    missing = [
        f"lesson {lesson}: {term}"
        for term, lesson in terms_of_the_glossary()
        if lesson in bold and not any(re.search(uses(term), text, re.I) for text in bold[lesson])
    ]
    assert not missing, "\n".join(missing)


def test_the_questions_of_the_path_have_their_place_in_a_lesson():
    guide = (PACKAGE.parent.parent / "docs" / "teaching.md").read_text()
    rows = re.findall(r"^\| (\d+) \| .+ \| (\d+) \| (.+) \|$", guide, re.M)
    assert [int(number) for number, _, _ in rows] == list(range(1, 75))
    for _, lesson, place in rows:
        headings = re.findall(r"^ *#+ (.+?) *$", LESSONS[int(lesson)].path.read_text(), re.M)
        assert place in [re.sub(r"^\d+\. ", "", heading) for heading in headings], place


def test_every_exercise_has_a_lesson():
    lessons = [exercise.lesson for exercise in EXERCISES.values()]
    assert lessons == sorted(lessons), "exercises stand in lesson order"
    assert set(lessons) <= set(LESSONS)
    assert list(LESSONS) == list(range(1, 21))
    assert {lesson.stage for lesson in LESSONS.values()} == set(STAGES)


def test_every_notebook_is_a_lesson():
    folder = next(iter(LESSONS.values())).path.parent
    assert {lesson.path for lesson in LESSONS.values()} == set(folder.glob("*.py"))
    questions = Path(nanogpt.learn.questions.__file__).parent.glob("*.toml")
    assert {lesson.path.stem for lesson in LESSONS.values()} == {path.stem for path in questions}


def test_the_runs_of_the_scaling_lesson_are_those_of_the_study():
    study = PACKAGE.parent.parent / "docs" / "studies" / "scaling" / "results.csv"
    measured = [line.split(",")[:3] for line in study.read_text().splitlines()[1:]]
    said = re.findall(r"^ +(\d+) (\d+) ([\d.]+)$", LESSONS[17].path.read_text(), re.M)
    assert [list(run) for run in said] == measured


def test_a_quoted_source_is_the_source():
    quoted = source(judge)
    assert quoted.startswith("*exercise.py, line ")
    assert "def judge(" in quoted


def test_the_path_shows_lessons_and_what_passes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["learn"]) == 0
    out = capsys.readouterr().out
    assert all(title in out for title in STAGES.values())
    exercises = f"of {len(EXERCISES)} exercises pass"
    assert f"0 of 20 lessons opened, 0 of 100 questions right, 0 {exercises}" in out
    assert all(f" {name}" in out for name in EXERCISES)
    assert "cache (optional)" in out
    progress = Progress(passed=["merge"], answered={"6.1": True, "6.2": False, "gone": True})
    save_progress(Path("my_gpt"), progress)
    monkeypatch.setattr("subprocess.run", lambda command, env: Done())
    assert main(["learn", "6"]) == 0
    assert main(["learn", "6"]) == 0
    capsys.readouterr()
    main(["learn"])
    out = capsys.readouterr().out
    assert f"1 of 20 lessons opened, 1 of 100 questions right, 1 {exercises}" in out
    assert "✓  6  How a token looks at others  1 of 5" in out
    assert "✓merge" in out
    assert main(["learn", "99"]) == 2
    assert "there is no lesson 99" in capsys.readouterr().err


def test_a_lesson_is_opened_as_a_copy_that_its_learner_may_change(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    opened = []
    monkeypatch.setattr(
        "subprocess.run", lambda command, env: opened.append((command[4], env[LEARNER])) or Done()
    )
    assert main(["learn", "3"]) == 0
    copy = Path("my_gpt/lessons/03_tokens.py")
    assert opened == [(str(copy), str(tmp_path / "my_gpt"))]
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
        ({"head": "untied"}, False),
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

    number, port, *view = request.param
    command = [sys.executable, "-m", "nanogpt", "learn", str(number), "--headless", *view]
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
    "page",
    [(3, 27183, "--app"), (6, 31415, "--app")],
    indirect=True,
    ids=["tokens", "attention"],
)
def test_moving_a_slider_changes_a_picture(page):
    page.get_by_role("heading", name="Your turn").wait_for(timeout=240_000)
    slider = page.get_by_role("slider").nth(1)
    slider.wait_for(timeout=240_000)
    before = settled(page)
    slider.focus()
    slider.press("ArrowRight")
    deadline = time.monotonic() + 60
    while pictures(page) == before:
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.parametrize("page", [(4, 16180)], indirect=True, ids=["embeddings"])
def test_a_prediction_is_answered_and_questions_are_judged_and_counted(page, tmp_path):
    """In the editor, which would not run a notebook by itself."""
    judge_button = page.get_by_role("button", name="Judge my answers")
    judge_button.wait_for(timeout=240_000)
    number = page.locator("input[inputmode], input[type=number]").first
    number.fill("77")
    number.press("Tab")
    page.get_by_role("button", name="I predict").first.click()
    page.get_by_text(re.compile("^It is [0-9]")).first.wait_for(timeout=60_000)
    (choice,) = [q.answer for q in load_questions(4) if q.choices][:1]
    # On a busy machine the page may still replace its parts, and a click on an old one is lost.
    counted = page.get_by_text("1 of 5 are right")
    deadline = time.monotonic() + 240
    while not counted.count():
        assert time.monotonic() < deadline
        page.get_by_role("radio", name=choice).last.click()
        judge_button.click()
        time.sleep(10)
    progress = load_progress(tmp_path / "my_gpt")
    assert list(progress.answered.values()) == [True]
    assert progress.lessons == [4]


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
