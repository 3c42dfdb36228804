"""Shell completion and help: what can be typed is offered, and explained."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nanogpt.cli import COMMANDS, main
from nanogpt.cli.settings import COMMON, recipes, studies
from nanogpt.model.position import POSITIONS


def script_for(shell: str, folder: Path) -> Path:
    """The script of a shell, in a file."""
    command = [sys.executable, "-m", "nanogpt", "completion", shell]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    (folder / shell).write_text(text)
    return folder / shell


@pytest.fixture(scope="module")
def script(tmp_path_factory) -> Path:
    """The script for bash, in a file."""
    return script_for("bash", tmp_path_factory.mktemp("completion"))


def offered(script: Path, *words: str) -> list[str]:
    """What bash offers for the last of these words."""
    code = """
        source "$1"; shift
        COMP_WORDS=(nanogpt "$@"); COMP_CWORD=$#
        _nanogpt
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    command = ["bash", "-c", code, "bash", str(script), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")


@needs_bash
def test_bash_completes_commands_and_actions(script):
    assert offered(script, "") == list(COMMANDS)
    assert offered(script, "tra") == ["train"]
    assert offered(script, "lab", "") == ["run", "scaling", "heads", "circuit", "check"]


@needs_bash
def test_bash_completes_options_and_their_values(script):
    assert offered(script, "train", "--model.n-e") == ["--model.n-embd"]
    assert offered(script, "train", "demo", "--res") == ["--resume"]
    assert offered(script, "train", "--model.position", "") == list(POSITIONS)
    assert offered(script, "tokenizer", "train", "--kind", "") == ["bpe", "char"]
    assert offered(script, "train", "--plug") == ["--plugin"]


@needs_bash
def test_bash_completes_names_and_leaves_the_rest_to_files(script):
    assert offered(script, "train", "") == list(recipes())
    assert offered(script, "lab", "run", "") == list(studies())
    assert offered(script, "completion", "") == ["bash", "zsh", "fish"]
    for words in (["train", "--plugin", ""], ["train", "--run", ""], ["generate", ""]):
        assert offered(script, *words) == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_accepts_its_script(shell, tmp_path):
    path = script_for(shell, tmp_path)
    assert "induction-heads" in path.read_text()
    assert "--plugin" in path.read_text() or "-l plugin" in path.read_text()
    if shutil.which(shell):
        subprocess.run([shell, "-n", str(path)], check=True)


def shown(arguments: list[str], capsys) -> str:
    assert main(arguments) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", ["train", "plan", "demo", "lab scaling"])
def test_help_shows_what_people_change_and_help_all_shows_everything(command, capsys):
    few = shown([*command.split(), "--help"], capsys)
    everything = shown([*command.split(), "--help-all"], capsys)
    settings = [f"--{name.replace('_', '-')} " for name in COMMON]
    if command == "lab scaling":
        settings = [name for name in settings if not name.startswith("--sample")]
    if command in ("demo", "lab scaling"):  # which train by one process
        settings = [name for name in settings if not name.startswith("--parallel")]
    assert all(setting in few and setting in everything for setting in settings)
    assert few.count("\n  --") < 36
    for rare in ("--train.eps ", "--model.kernels ", "--data.shard-tokens "):
        assert rare not in few
        assert rare in everything
    assert few.startswith(f"usage: nanogpt {command} ")
    assert "[options]\n" in few.partition("\n\n")[0] + "\n"


def test_hidden_settings_are_options_like_all_others(capsys):
    assert main(["plan", "demo", "--train.eps", "1e-7", "--json"]) == 0
    capsys.readouterr()
    assert main(["plan", "demo", "--train.epps", "1e-7"]) == 2
    assert "did you mean --train.eps?" in capsys.readouterr().err


def test_help_lists_recipes_and_studies_with_what_they_are(capsys):
    text = " ".join(shown(["train", "--help"], capsys).split())
    assert "induction-heads Two layers in which induction heads appear within minutes" in text
    assert all(f" {name} " in text for name in recipes())
    text = shown(["lab", "run", "--help"], capsys)
    assert "warmup           Is a warm-up needed?" in text
    assert all(f"  {name} " in text for name in studies())
