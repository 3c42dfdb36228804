"""The documentation builds, and what surrounds the code agrees with it."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import nanogpt
from nanogpt.cli import COMMANDS
from nanogpt.learn.lesson import LESSONS, READING_PATH

ROOT = Path(__file__).parent.parent
WORKFLOWS = sorted(ROOT.glob(".github/workflows/*.yml"))
FORMS = sorted(ROOT.glob(".github/ISSUE_TEMPLATE/*.yml"))
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z]+):", MAKEFILE, re.MULTILINE))


def parsed(path: Path) -> Any:
    return yaml.safe_load(path.read_text("utf-8"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The documentation as a site, with lessons only if `make lessons` has been run before."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    # --strict makes a failure of every warning: dead links, missing anchors, pages left out.
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_of_the_navigation_exists(site):
    front = (site / "index.html").read_text("utf-8")
    pages = set(re.findall(r'<a href="([^"#:]+)" class="md-nav__link', front))
    assert len(pages) > 30
    for page in pages:
        assert (site / page / "index.html").exists(), page


def test_every_study_package_and_lesson_has_its_place_on_the_site(site):
    front = (site / "index.html").read_text("utf-8")
    for study in ROOT.glob("docs/studies/*/report.md"):
        assert f'href="studies/{study.parent.name}/report/"' in front
    for package in Path(nanogpt.__file__).parent.glob("*/__init__.py"):
        assert f'href="reference/{package.parent.name}/"' in front
    lessons = (site / "lessons" / "index.html").read_text("utf-8")
    assert all(lesson.title in lessons for lesson in LESSONS.values())


def test_the_reference_holds_docstrings_source_and_worked_examples(site):
    page = (site / "reference" / "model" / "index.html").read_text("utf-8")
    assert 'id="nanogpt.model.gpt.GPT"' in page
    assert "Source code in" in page
    text = (site / "reference" / "text" / "index.html").read_text("utf-8")
    assert "&gt;&gt;&gt;" in text
    assert "<blockquote>" not in text  # what Markdown makes of >>> outside a block of code


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.stem)
def test_workflows_parse_and_call_only_what_exists(path):
    workflow = parsed(path)
    assert workflow["permissions"] == {"contents": "read"}  # jobs ask for more where they need it
    for name, job in workflow["jobs"].items():
        assert job["runs-on"]
        assert set([job["needs"]] if "needs" in job else []) <= set(workflow["jobs"]), name
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step), step
            command = step.get("run", "")
            assert set(re.findall(r"\bmake ([a-z]+)", command)) <= TARGETS, command
            for script in re.findall(r"\.ci/[\w.]+", command):
                assert (ROOT / script).exists(), command


def test_ci_covers_the_systems_and_versions_that_are_promised():
    matrix = parsed(ROOT / ".github/workflows/ci.yml")["jobs"]["test"]["strategy"]["matrix"]
    assert {name.partition("-")[0] for name in matrix["os"]} == {"ubuntu", "macos", "windows"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == f">={matrix['python'][0]}"


@pytest.mark.parametrize("path", FORMS, ids=lambda p: p.stem)
def test_issue_forms_parse(path):
    form = parsed(path)
    if path.stem == "config":
        return
    assert form["name"]
    assert form["description"]
    ids = [field["id"] for field in form["body"]]
    assert len(set(ids)) == len(ids)
    assert all(field["attributes"]["label"] for field in form["body"])


def test_documents_name_only_make_targets_and_files_that_exist():
    for name in ("README.md", "CONTRIBUTING.md"):
        text = (ROOT / name).read_text("utf-8")
        assert set(re.findall(r"(?:^|`)make ([a-z]+)", text, re.MULTILINE)) <= TARGETS, name
    named = re.findall(
        r"`((?:src|tests|configs|docs|exercises|\.github)/[\w./-]+|[\w-]+\.(?:toml|cff|txt|md))`",
        (ROOT / "CONTRIBUTING.md").read_text("utf-8"),
    )
    assert len(named) > 30
    templates = {"src/nanogpt/cli/NAME.py", "src/nanogpt/learn/questions/NN_name.toml"}
    for path in set(named) - templates:
        assert (ROOT / path).exists(), path


def test_contributing_names_only_what_the_package_has():
    """A recipe that names a dictionary which is gone sends a contributor the wrong way."""
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    source = "".join(p.read_text("utf-8") for p in Path(nanogpt.__file__).parent.rglob("*.py"))
    for name in set(re.findall(r"`([A-Z]\w+)`", text)):
        assert re.search(rf"^(?:class )?{name}\b", source, re.MULTILINE), name


def test_make_help_lists_every_target():
    done = subprocess.run(
        ["make", "--no-print-directory", "help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert {line.split()[1] for line in done.stdout.splitlines()} == TARGETS
    assert all(len(line.split()) > 3 for line in done.stdout.splitlines())


def test_versions_that_stand_in_two_places_agree():
    constraints = (ROOT / "constraints.txt").read_text()
    ruff = re.search(r"^ruff==(.+)$", constraints, re.MULTILINE)[1]
    hooks = {
        hook["repo"]: hook["rev"] for hook in parsed(ROOT / ".pre-commit-config.yaml")["repos"]
    }
    assert hooks["https://github.com/astral-sh/ruff-pre-commit"] == f"v{ruff}"
    assert parsed(ROOT / "CITATION.cff")["version"] == nanogpt.__version__


def test_the_reading_path_is_checked_strictly():
    overrides = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]["overrides"]
    strict = next(o["module"] for o in overrides if o.get("disallow_untyped_calls"))
    assert {f"nanogpt.{module}" for module in READING_PATH} <= set(strict)


def test_readers_of_the_readme_can_type_its_commands():
    """`.ci/readme.py` runs them; this holds that it finds them, and that they are commands."""
    sys.path.insert(0, str(ROOT / ".ci"))
    try:
        import readme
    finally:
        sys.path.pop(0)
    found = readme.commands((ROOT / "README.md").read_text("utf-8"))
    ours = [command for command in found if command[0] == "nanogpt"]
    assert len(ours) > 10
    assert {command[1] for command in ours} <= set(COMMANDS)
