"""The house rules, checked."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

import nanogpt

PACKAGE = Path(nanogpt.__file__).parent
ROOT = Path(__file__).parent.parent

# The reading order. No module imports one further down, and none imports the command line.
CORE = [
    "errors", "files", "workers", "config", "device", "corpus", "bpe", "tokenizer", "tokenfiles",
    "data", "layers", "position", "attention", "model", "trace", "sampling", "generate", "evaluate",
    "optim", "huggingface", "checkpoint", "train",
]  # fmt: skip

SOURCES = sorted(PACKAGE.rglob("*.py"))


def imports_of(path: Path) -> set[str]:
    """The nanogpt modules that a file imports, by their path inside the package."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        found |= {name.removeprefix("nanogpt.") for name in names if name.startswith("nanogpt.")}
    return found


def test_the_reading_order_names_every_core_module():
    modules = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    assert modules == set(CORE)


@pytest.mark.parametrize("module", CORE)
def test_no_module_imports_one_further_down(module):
    allowed = set(CORE[: CORE.index(module)])
    assert imports_of(PACKAGE / f"{module}.py") <= allowed


def test_the_core_can_be_read_in_an_afternoon():
    texts = [(PACKAGE / f"{module}.py").read_text() for module in CORE]
    assert sum(bool(line.strip()) for text in texts for line in text.splitlines()) < 3950


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
        assert not re.search(r"\.forward\(", path.read_text()), path


@pytest.mark.parametrize("module", CORE)
def test_the_core_returns_and_yields_and_never_prints(module):
    tree = ast.parse((PACKAGE / f"{module}.py").read_text())
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert "print" not in {call.id for call in calls if isinstance(call, ast.Name)}


def test_nothing_is_pickled():
    """Trap 21: unpickling a file runs whatever is in it."""
    for path in SOURCES:
        text = path.read_text()
        assert not re.search(r"import pickle|pickle\.\w|torch\.save\(", text), path
        for line in re.findall(r".*torch\.load\(.*", text):
            assert "weights_only=True" in line, path


def test_the_readme_lists_every_file_of_the_core_in_reading_order():
    readme = (ROOT / "README.md").read_text()
    places = [readme.find(f"`{module}.py`") for module in CORE]
    assert -1 not in places, CORE[places.index(-1)]
    assert places == sorted(places)


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
