"""The lab: a plugin's variants are used like ours and held to the same contract."""

import math
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from matplotlib import pyplot

from nanogpt.cli import main
from nanogpt.config import load_config
from nanogpt.device import resolve
from nanogpt.errors import UserError
from nanogpt.lab.contracts import CHECKS, about, check_all
from nanogpt.lab.judge import differences, spread
from nanogpt.lab.report import draw_curves
from nanogpt.lab.runner import write_settings
from nanogpt.lab.study import load_study
from nanogpt.training.variants import TABLES, added_since, snapshot

from conftest import SMALL

ROOT = Path(__file__).parents[2]
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
    "counts padding": (
        "def embed(self, x, pos):\n"
        "        return x + torch.outer(torch.arange(x.shape[1]), torch.linspace(0, 1, 24))",
        "padding", "padding before it changes",
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
        "import torch\nfrom nanogpt.model.position import POSITIONS, Position\n\n"
        f"class Idea(Position):\n    {body}\n\nPOSITIONS['idea'] = Idea\n"
    )
    return path


@pytest.mark.parametrize("mistake", BROKEN)
def test_each_mistake_is_found_by_its_check(mistake, tmp_path, capsys):
    body, check, words = BROKEN[mistake]
    assert main(["lab", "check", str(plugin(tmp_path, body))]) == 1
    assert words in " ".join(capsys.readouterr().out.split())
    found = check_all("model.position", "idea")
    assert words in found[about(CHECKS[check])]


def test_a_norm_that_looks_at_later_tokens_is_found(tmp_path, capsys):
    path = tmp_path / "norm.py"
    path.write_text(
        "from torch import nn\nfrom nanogpt.model.layers import NORMS\n"
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
    assert out.count("yes") == 9


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
    "no file": (["--plugin", "none.py"], "none.py: no such file"),
    "no name": (["--plugin"], "--plugin needs a value: --plugin FILE"),
    "not Python": (["--plugin", "text.txt"], "text.txt: not a Python file"),
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
    assert "adds no variant; put one into a table" in capsys.readouterr().err


def test_a_replaced_variant_counts_as_added():
    before = snapshot()
    TABLES["model.norm"]["layer"] = TABLES["model.norm"]["rms"]
    assert added_since(before) == [("model.norm", "layer")]


STUDY = """
question = "Does order matter?"
seeds = [1, 2]

[budget]
steps = 40

[settings]
"data.source" = "text.txt"
"data.vocab_size" = 300
"model.n_layer" = 1
"model.n_head" = 1
"model.n_embd" = 16
"model.context_length" = 16
"train.batch_size" = 4
"train.eval_batches" = 2
"sample.max_new_tokens" = 5

[vary]
"model.position" = ["learned", "none"]
"""


@pytest.fixture
def study(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    text = "".join(f"If {n} kings hold the crown, then {n * n} fools pay. " for n in range(300))
    Path("text.txt").write_text(text)
    Path("order.toml").write_text(STUDY)
    return Path("order.toml")


def figures(folder: Path) -> list[list[str]]:
    """The results without those that depend on the clock."""
    rows = (folder / "results.csv").read_text().splitlines()
    return [row.split(",")[:6] for row in rows]


def test_runs_of_one_study_are_of_one_code(study, tmp_path):
    """A plugin that was fixed may be used by runs that were not begun, and by no others."""
    mine = tmp_path / "mine.py"
    mine.write_text("x = 1\n")
    study.write_text(f'plugins = ["{mine}"]\n{STUDY}')
    found, place = load_study(study), tmp_path / "place"
    place.mkdir()

    def write() -> None:
        write_settings(found, tmp_path, found.arms[0], 1, place, 1, "float32")

    write()
    mine.write_text("x = 2\n")
    write()
    (place / "result.json").write_text("{}")
    write()
    mine.write_text("x = 3\n")
    with pytest.raises(UserError, match="was run before a plugin was changed; remove it, or give"):
        write()


def test_seeds_that_measured_at_other_steps_share_a_curve(study, tmp_path, monkeypatch):
    """In a budget of seconds every seed does another number of steps."""
    found, drawn = load_study(study), {}
    curves = [[[0, 5.0], [10, 4.0], [20, 3.0]], [[0, 5.0], [12, 2.0], [24, 1.0]]]
    runs = [{"curve": curve, "measured": 1.0} for curve in curves]
    monkeypatch.setattr(pyplot, "close", lambda figure: drawn.update(axes=figure.axes[0]))
    draw_curves(tmp_path / "curves.png", found, {found.arms[0].name: runs})
    (line,) = drawn["axes"].lines
    assert [*line.get_xdata()] == [11, 22]
    assert [*line.get_ydata()] == [3.0, 2.0]


def test_a_study_is_run_reported_and_not_run_again(study, capsys):
    assert main(["lab", "run", "order.toml"]) == 0
    out = capsys.readouterr().out
    assert "4 of 4 runs" in out
    folder = Path("studies/order")
    report = (folder / "report.md").read_text()
    for part in ("# Does order matter?", "2 arms, 2 seeds each, 40 steps a run", "position none",
                 "Larger than the noise?", "### position learned"):  # fmt: skip
        assert part in report
    page = (folder / "report.html").read_text()
    assert "<table>" in page
    assert 'src="data:image/png;base64,' in page
    assert (folder / "curves.png").stat().st_size > 10_000
    assert len(figures(folder)) == 1 + 4
    before = {path: path.stat().st_mtime_ns for path in folder.glob("runs/*/result.json")}
    assert main(["lab", "run", "order.toml"]) == 0
    assert "4 of 4 runs are finished" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in before} == before
    study.write_text(STUDY.replace("steps = 40", "steps = 41"))
    assert main(["lab", "run", "order.toml"]) == 2
    assert "was run with other settings; remove it, or give" in capsys.readouterr().err


def test_the_report_of_a_toy_world_states_its_floor(study):
    from nanogpt.text.worlds import WORLDS

    toy = STUDY.replace('"text.txt"', '"toy:copy"').replace("steps = 40", "steps = 2")
    study.write_text(toy.replace("[settings]", '[settings]\n"data.max_documents" = 30'))
    assert main(["lab", "run", "order.toml"]) == 0
    floor = f"No model can go below {WORLDS['copy'].floor():.4f}"
    assert floor in Path("studies/order/report.md").read_text()


def test_all_runs_of_a_study_have_the_precision_that_was_decided_once(study, monkeypatch):
    # Not what this machine would choose for each run by itself.
    decided = "float32" if resolve().precision == "bfloat16" else "bfloat16"
    monkeypatch.setattr("nanogpt.lab.runner.precision_of", lambda *_: decided)
    study.write_text(STUDY.replace("steps = 40", "steps = 2"))
    assert main(["lab", "run", "order.toml"]) == 0
    runs = list(Path("studies/order/runs").glob("*/run/config.toml"))
    assert len(runs) == 4
    assert {load_config(path).train.precision for path in runs} == {decided}


def test_a_study_that_is_killed_goes_on_and_gives_the_same_report(study):
    """SIGKILL to the command: its runs end with it, and the next call resumes them."""
    width = '"model.n_embd" = 16'  # and one precision, which each study would measure by itself
    study.write_text(STUDY.replace(width, f'{width}\n"train.precision" = "float32"'))
    command = [sys.executable, "-m", "nanogpt", "lab", "run", "order.toml", "--jobs", "2"]
    assert subprocess.run([*command, "--out", "whole"], capture_output=True).returncode == 0
    process = subprocess.Popen([*command, "--out", "killed"], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(Path("killed").glob("runs/*/run/checkpoints/latest")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(1.5)  # the runs notice within half a second
    finished = len(list(Path("killed").glob("runs/*/result.json")))
    assert finished < 4
    assert subprocess.run([*command, "--out", "killed"], capture_output=True).returncode == 0
    assert figures(Path("killed")) == figures(Path("whole"))


def test_a_run_that_fails_is_named_with_what_it_said(study, capsys):
    study.write_text(STUDY.replace('"model.n_embd" = 16', '"model.n_embd" = 16\n"train.lr" = 1e30'))
    assert main(["lab", "run", "order.toml", "--jobs", "1"]) == 2
    error = capsys.readouterr().err
    assert "position-learned-seed-1 failed: " in error
    assert "log.txt" in error


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("seeds", "sedes"), "sedes is not a key of a study: did you mean seeds?"),
        (("steps = 40", "stesp = 40"), "give one of steps, tokens, seconds"),
        (("steps = 40", "steps = 0"), "budget.steps=0: use a positive number"),
        (("steps = 40", "steps = 4\ntokens = 9"), "give one of steps, tokens, seconds"),
        (("[1, 2]", "[1, 1]"), "use some different whole numbers"),
        (("[1, 2]", '"a"'), "seeds='a' should be a list"),
        (('["learned", "none"]', '"learned"'), "use a list of values"),
        (('["learned", "none"]', '["learned"]'), "nothing varies"),
        (('"model.position"', '"position"'), "position is not a setting: write its section"),
        (('"model.position"', '"model.positoin"'), "did you mean position?"),
        (('"none"]', '"nothing"]'), "model.position='nothing' is unknown"),
        (("[vary]", "[vari]"), "vari is not a key of a study: did you mean vary?"),
    ],
)
def test_a_study_that_cannot_be_costs_one_line(study, change, complaint, capsys):
    study.write_text(STUDY.replace(*change))
    assert main(["lab", "run", "order.toml"]) == 2
    assert complaint in capsys.readouterr().err
    assert not Path("studies").exists()


def test_budgets_of_tokens_are_steps_of_every_arm(tmp_path):
    path = tmp_path / "s.toml"
    path.write_text(
        "[budget]\ntokens = 32768\n[[arms]]\nname='short'\n'model.context_length'=64\n"
        "'train.batch_size'=8\n[[arms]]\nname='long'\n'model.context_length'=256\n"
        "'train.batch_size'=4\n"
    )
    short, long = load_study(path).arms
    assert (short.name, short.config.train.max_steps) == ("short", 64)
    assert (long.name, long.config.train.max_steps) == ("long", 32)
    assert long.config.train.warmup_steps == 8  # a quarter at most


def test_every_study_of_ours_can_be_read(monkeypatch):
    from nanogpt.cli.settings import find_recipe
    from nanogpt.config import read_toml
    from nanogpt.training.variants import check_choices

    studies = sorted((ROOT / "configs" / "studies").glob("*.toml"))
    assert studies
    for path in studies:
        recipe = read_toml(find_recipe(read_toml(path)["recipe"]))
        for arm in load_study(path, recipe).arms:
            check_choices(arm.config)


def test_equals_are_hardly_ever_called_different():
    """In a hundred studies of five equal arms at most five show a difference: here, about one."""
    noise = np.random.default_rng(0)
    shown = 0
    for _ in range(100):
        values = {f"arm {n}": noise.normal(2.0, 0.01, 3).tolist() for n in range(5)}
        shown += any(difference.real for difference in differences(values))
    assert shown <= 5


def test_a_planted_difference_is_found_and_told_apart_from_noise():
    noise = np.random.default_rng(1)
    found, wrong = 0, 0
    for _ in range(100):
        values = {f"arm {n}": noise.normal(2.0, 0.01, 3).tolist() for n in range(4)}
        values["better"] = noise.normal(1.93, 0.01, 3).tolist()
        pairs = differences(values)
        found += sum(d.real for d in pairs if "better" in (d.one, d.other))
        wrong += sum(d.real for d in pairs if "better" not in (d.one, d.other))
    assert found >= 380  # of 400
    assert wrong <= 5  # of 600


def test_the_test_is_tukeys():
    from scipy.stats import tukey_hsd

    values = {"a": [1.0, 1.2, 1.1], "b": [1.5, 1.4, 1.7], "c": [1.1, 1.3, 1.5]}
    expected = tukey_hsd(*values.values())
    names = list(values)
    for pair in differences(values):
        i, j = names.index(pair.one), names.index(pair.other)
        assert pair.p == pytest.approx(expected.pvalue[i, j])
        assert pair.by == pytest.approx(expected.statistic[i, j])


@pytest.mark.parametrize("arms", [2, 3, 6])
def test_what_is_called_real_is_what_chance_does_once_in_a_hundred(arms):
    """With a noise of known size, the difference at the border is called by its p and no other."""
    border = 0
    for tenths in range(20, 140):
        values = {f"arm {n}": [1.0, 1.1, 1.2] for n in range(arms)}
        values["arm 0"] = [value + tenths / 100 for value in values["arm 0"]]
        first = differences(values)[0]
        assert first.real == (first.p < 0.01)
        border += 0.005 < first.p < 0.02
    assert border >= 2


def test_one_seed_says_nothing_about_noise():
    (pair,) = differences({"a": [1.0], "b": [2.0]})
    assert math.isnan(pair.p)
    assert not pair.real
    assert math.isnan(spread([1.0]))


def test_runs_without_any_noise_differ_or_do_not():
    same, other = {"a": [1.0, 1.0], "b": [1.0, 1.0]}, {"a": [1.0, 1.0], "b": [2.0, 2.0]}
    assert [d.real for d in differences(same) + differences(other)] == [False, True]


def test_missing_scipy_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    with pytest.raises(UserError, match=r"needs scipy: pip install 'nanogpt\[lab\]'"):
        differences({"a": [1.0], "b": [2.0]})
