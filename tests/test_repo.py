"""The house rules, checked."""

import ast
import importlib
import re
import subprocess
from pathlib import Path

import pytest

import nanogpt
from nanogpt.learn.lesson import READING_PATH

PACKAGE = Path(nanogpt.__file__).parent
ROOT = Path(__file__).parent.parent

# Packages in the order in which they may use each other: only what stands further up. `text` and
# `model` do not know each other, and no more do `generation` and `evaluation`.
ORDER = {
    "base": [], "text": ["base"], "model": ["base"],
    "generation": ["base", "text", "model"], "evaluation": ["base", "text", "model"],
    "interop": ["base", "text", "model", "generation", "evaluation"],
    "training": ["base", "text", "model", "generation", "evaluation", "interop"],
    "lab": ["base", "text", "model", "generation", "evaluation", "interop", "training"],
    "eject": ["base", "text", "model", "generation", "evaluation", "interop", "training"],
    "learn": ["base", "text", "model", "generation", "evaluation", "interop", "training", "lab"],
    "serve": ["base", "text", "model", "generation", "evaluation", "interop", "training"],
    "explorer": [
        "base", "text", "model", "generation", "evaluation", "interop", "training", "lab", "learn",
        "serve",
    ],
}  # fmt: skip
BASE = {"config", "device", "errors", "files", "memory", "workers"}

SOURCES = sorted(PACKAGE.rglob("*.py"))


def package_of(module: str) -> str:
    """The package of a module that is named by its path inside nanogpt, such as "model.gpt"."""
    first = module.partition(".")[0]
    return "base" if first in BASE else first


def imports_of(path: Path) -> set[str]:
    """The nanogpt modules that a file imports, by their path inside the package."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
            if node.module == "nanogpt":
                names = [f"nanogpt.{alias.name}" for alias in node.names]
        found |= {name.removeprefix("nanogpt.") for name in names if name.startswith("nanogpt.")}
    return found


@pytest.mark.parametrize("package", [*ORDER, "cli"])
def test_packages_import_only_from_packages_below_them(package):
    if package == "base":
        files = [PACKAGE / f"{name}.py" for name in BASE]
    else:
        files = sorted((PACKAGE / package).rglob("*.py"))
    allowed = {package, *ORDER.get(package, [*ORDER])}
    for path in files:
        for module in imports_of(path) - {"__version__"}:
            assert package_of(module) in allowed, f"{path.relative_to(PACKAGE)}: {module}"


def test_every_package_has_a_place_in_the_order():
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert packages == {*ORDER, "cli"} - {"base"}
    assert {path.stem for path in PACKAGE.glob("*.py")} == BASE | {"__init__", "__main__", "api"}


def test_every_package_says_what_lives_there():
    for package in {*ORDER, "cli"} - {"base"}:
        said = ast.get_docstring(ast.parse((PACKAGE / package / "__init__.py").read_text())) or ""
        if package != "cli":  # which has a list of its commands
            for path in (PACKAGE / package).glob("[!_]*.py"):
                assert re.search(rf"\b{path.stem}\b", said), f"{package} does not name {path.stem}"


def test_the_reading_path_can_be_read_in_an_afternoon():
    texts = [(PACKAGE / f"{m.replace('.', '/')}.py").read_text() for m in READING_PATH]
    assert sum(bool(line.strip()) for text in texts for line in text.splitlines()) < 2000


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_functions_are_short_and_public_ones_are_documented(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 60, f"{path.name}: {node.name} is too long"
            # A method may be documented by its class or its base class, a wrong function of an
            # exercise by the mistake that it stands for; any other function may not.
            if "exercises" in path.parts:
                continue
            if isinstance(node, ast.ClassDef) or node.col_offset == 0:
                assert ast.get_docstring(node), f"{path.name}: {node.name} has no docstring"


def test_modules_are_called_and_never_forwarded():
    """module(x) runs hooks, module.forward(x) does not."""
    for path in SOURCES:
        assert not re.search(r"(?<!super\(\))\.forward\(", path.read_text()), path


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_the_library_returns_and_yields_and_never_prints(path):
    if "cli" in path.parts or path.name == "program.py":  # which is a program of its own
        return
    tree = ast.parse(path.read_text())
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert "print" not in {call.id for call in calls if isinstance(call, ast.Name)}


def test_nothing_is_pickled():
    """Unpickling a file runs whatever is in it."""
    for path in SOURCES:
        text = path.read_text()
        assert not re.search(r"import pickle|pickle\.\w|torch\.save\(", text), path
        for line in re.findall(r".*torch\.load\(.*", text):
            assert "weights_only=True" in line, path


def test_pictures_and_files_that_the_docs_name_exist():
    for document in [ROOT / "README.md", *ROOT.glob("docs/**/*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_no_model_or_data_is_committed():
    command = ["git", "ls-files"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\n")):
        assert not name.endswith((".safetensors", ".bin", ".pt", ".npy")), name
        assert "__marimo__" not in name, name  # what the notebook's server remembers
        assert (ROOT / name).stat().st_size < 500_000, name


def resolve(place: str) -> object:
    """What a place such as "model.gpt.GPT.head" names; raises if there is no such thing."""
    parts = place.split(".")
    for n in range(len(parts) - 1, 0, -1):
        try:
            found = importlib.import_module("nanogpt." + ".".join(parts[:n]))
        except ModuleNotFoundError:
            continue
        for name in parts[n:]:
            fields = getattr(found, "__dataclass_fields__", {})
            found = fields[name] if name in fields else getattr(found, name)
        return found
    raise AssertionError(f"there is no {place}")


def test_every_term_of_the_glossary_stands_in_the_code_where_it_says():
    text = (ROOT / "docs" / "glossary.md").read_text()
    rows = re.findall(r"^\| \*\*(.+?)\*\* \| .+ \| (.+) \| \d* \|$", text, re.M)
    assert len(rows) > 70
    for term, places in rows:
        for place in re.findall(r"`([\w.]+)`", places):
            assert resolve(place) is not None, f"{term}: {place}"
    assert [term.casefold() for term, _ in rows] == sorted(term.casefold() for term, _ in rows)


def test_the_readme_lists_the_reading_path_in_its_order():
    readme = (ROOT / "README.md").read_text()
    files = [f"| `{module.replace('.', '/')}.py` |" for module in READING_PATH]
    places = [readme.find(file) for file in files]
    assert -1 not in places, files[places.index(-1)]
    assert places == sorted(places)


def test_the_readme_and_the_packages_list_every_package():
    readme = (ROOT / "README.md").read_text()
    for package in {*ORDER, "cli"} - {"base"}:
        assert f"| `{package}/` |" in readme


# Words of our own where the field has one; what a learner would search for stands beside each.
PRIVATE = {
    r"\bmend(s|ed|ing)?\b": "fix",
    r"\bfilling\b|\bfilled up\b": "padding, padded",
    r"\bbends?\b": "activation function",
    r"\blest\b": "so that ... not",
    r"\bbesides\b": "also, beside",
    r"of Hugging Face's\b": "the Hugging Face folder",
}


def test_we_write_the_words_of_the_field():
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in listed.stdout.split():
        if not name.endswith((".py", ".md", ".toml")) or name == "tests/test_repo.py":
            continue
        text = (ROOT / name).read_text()
        for word, better in PRIVATE.items():
            found = re.search(word, text, re.I)
            assert not found, f"{name}: {found.group()!r}: write {better!r}"
