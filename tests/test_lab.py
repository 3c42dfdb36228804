"""The lab: a plugin's variants are used like ours and held to the same contract."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from test_cli import SMALL

from nanogpt.cli import main
from nanogpt.lab.contracts import TABLES, added_since, check_all, snapshot

ROOT = Path(__file__).parent.parent
IDEA = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "extending.md").read_text(), re.S)[1]

# What a learner gets wrong -> which check says so, and a word of what it says.
BROKEN = {
    "sees the future": (
        "def embed(self, x, pos):\n        return x + x.mean(1, keepdim=True)",
        "causality", "token 0 sees tokens that come later",
    ),
    "counts from zero in every part": (
        "def embed(self, x, pos):\n"
        "        return x + torch.outer(torch.arange(x.shape[1]), torch.linspace(0, 1, 24))",
        "cache", "are positions counted from 0 in each part?",
    ),
    "counts filling": (
        "def embed(self, x, pos):\n"
        "        return x + torch.outer(torch.arange(x.shape[1]), torch.linspace(0, 1, 24))",
        "padding", "filling before it changes",
    ),
    "learns nothing": (
        "def __init__(self, config):\n        super().__init__(config)\n"
        "        self.idle = torch.nn.Parameter(torch.ones(3))",
        "gradients", "wpe.idle gets no gradient",
    ),
    "does not collapse": (
        "def collapse(self):\n        pass\n\n    def embed(self, x, pos):\n"
        "        return x + pos[..., None] * torch.linspace(0, 1, 24)",
        "collapse", "it still adds",
    ),
    "raises": ("def embed(self, x, pos):\n        return x @ x", "causality", "RuntimeError: "),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _dictionaries_as_they_were():
    before = snapshot()
    yield
    for setting, table in TABLES.items():
        table.clear()
        table.update(before[setting])


def plugin(folder: Path, body: str) -> Path:
    path = folder / "idea.py"
    path.write_text(
        "import torch\nfrom nanogpt.position import POSITIONS, Position\n\n"
        f"class Idea(Position):\n    {body}\n\nPOSITIONS['idea'] = Idea\n"
    )
    return path


@pytest.mark.parametrize("mistake", BROKEN)
def test_each_mistake_is_found_by_its_check(mistake, tmp_path, capsys):
    body, check, words = BROKEN[mistake]
    assert main(["lab", "check", str(plugin(tmp_path, body))]) == 1
    assert words in " ".join(capsys.readouterr().out.split())
    found = check_all({"position": "idea"})
    assert found[check]
    assert words in found[check]


def test_a_norm_that_looks_at_later_tokens_is_found(tmp_path, capsys):
    path = tmp_path / "norm.py"
    path.write_text(
        "from torch import nn\nfrom nanogpt.layers import NORMS\n"
        "class Peek(nn.Identity):\n    def forward(self, x):\n"
        "        return x - x.mean(1, keepdim=True)\n"
        "NORMS['peek'] = Peek\n"
    )
    assert main(["lab", "check", str(path)]) == 1
    assert "token 0 sees tokens that come later" in capsys.readouterr().out


def test_the_idea_of_the_docs_is_ten_lines_and_sound(tmp_path, capsys):
    path = tmp_path / "my_idea.py"
    path.write_text(IDEA)
    body = IDEA[IDEA.index("class") : IDEA.index("POSITIONS[")]
    assert len([line for line in body.splitlines() if line.strip()]) <= 11
    assert main(["lab", "check", str(path)]) == 0
    out = capsys.readouterr().out
    assert "model.position = log" in out
    assert out.count("yes") == 7


def test_an_idea_is_trained_and_generates_in_processes_of_their_own(tmp_path):
    """Nothing but --plugin leads to it."""
    (tmp_path / "my_idea.py").write_text(IDEA)
    (tmp_path / "text.txt").write_text("If 3 kings hold the crown, then 9 fools will pay. " * 80)

    def nanogpt(*arguments: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "nanogpt", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    train = [
        "train",
        "--data.source",
        "text.txt",
        "--model.position",
        "log",
        "--run",
        "run",
        *SMALL,
    ]
    without = nanogpt(*train)
    assert without.returncode == 2
    assert "model.position='log' is unknown" in without.stderr
    done = nanogpt(*train, "--plugin", "my_idea.py")
    assert done.returncode == 0, done.stderr
    generate = ["generate", "run", "--prompt", "If"]
    assert nanogpt(*generate, "--plugin=my_idea.py").stdout.startswith("If")
    assert nanogpt(*generate).returncode == 2


MISTAKES = {
    "no file": (["--plugin", "none.py"], "--plugin none.py: no such file"),
    "no name": (["--plugin"], "--plugin FILE: no such file"),
    "not Python": (["--plugin", "text.txt"], "--plugin text.txt: not a Python file"),
    "syntax": (["--plugin", "syntax.py"], "syntax.py line 2: SyntaxError"),
    "raises": (["--plugin", "raises.py"], "raises.py line 3: ZeroDivisionError"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_plugin_that_cannot_be_loaded_costs_one_line(mistake, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("hello")
    Path("syntax.py").write_text("x = 1\ndef f(:\n")
    Path("raises.py").write_text("x = 1\n\ny = x / 0\n")
    arguments, complaint = MISTAKES[mistake]
    assert main(["plan", *arguments]) == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert error.count("\n") == 1


def test_a_plugin_without_a_variant_is_told_so(tmp_path, capsys):
    (tmp_path / "empty.py").write_text("x = 1\n")
    assert main(["lab", "check", str(tmp_path / "empty.py")]) == 2
    assert "adds no variant; put one into a dictionary" in capsys.readouterr().err


def test_a_replaced_variant_counts_as_added():
    before = snapshot()
    TABLES["norm"]["layer"] = TABLES["norm"]["rms"]
    assert added_since(before) == [("norm", "layer")]
