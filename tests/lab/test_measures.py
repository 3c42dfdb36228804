"""Studies whose arms are compared by something else than the loss on their own text."""

import csv
import json
import re
from pathlib import Path

import pytest

from nanogpt.cli import main
from nanogpt.lab.report import best_first, verdicts
from nanogpt.lab.study import MEASURES

SMALL_MODEL = """
"data.tokenizer" = "char"
"model.n_layer" = 1
"model.n_head" = 1
"model.n_embd" = 16
"model.context_length" = 16
"train.batch_size" = 16
"train.eval_batches" = 1
"sample.max_new_tokens" = 4
"""

# Questions of two letters; the answer is always b.
REWARDED = f"""
question = "Which reward teaches the answer?"
seeds = [1, 2]
measure = "right"
budget.steps = 12

[settings]
"data.source" = "letters.jsonl"
"train.objective" = "policy"
"train.lr" = 1e-2
"train.min_lr" = 1e-2
"policy.max_new_tokens" = 4
{SMALL_MODEL}

[vary]
"policy.reward" = ["exact", "contains"]
"""

ELSEWHERE = f"""
question = "What does it make of another text?"
seeds = [1]
text = "other.txt"
budget.steps = 40

[settings]
"data.source" = "text.txt"
"train.lr" = 2e-2
{SMALL_MODEL}

[vary]
"model.n_embd" = [8, 16]
"""


@pytest.fixture(autouse=True)
def _texts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = [
        {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": "b"}]}
        for q in (a + b for a in "abcdef" for b in "abcdef")
    ]
    Path("letters.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    Path("text.txt").write_text("a b c d e f " * 300)
    Path("other.txt").write_text("ffff eeee dddd " * 300)


def measured(name: str) -> list[dict[str, str]]:
    with Path(f"studies/{name}/results.csv").open() as file:
        return list(csv.DictReader(file))


def test_arms_are_compared_by_the_share_of_right_answers():
    Path("rewarded.toml").write_text(REWARDED)
    assert main(["lab", "run", "rewarded.toml"]) == 0
    report = Path("studies/rewarded/report.md").read_text()
    assert MEASURES["right"].meaning in report
    assert "| arm | right |" in report
    rows = measured("rewarded")
    for row in rows:
        place = Path("studies/rewarded/runs") / f"reward-{row['arm'].split()[1]}-seed-{row['seed']}"
        lines = (place / "run" / "metrics.jsonl").read_text().splitlines()
        last = [r["right"] for r in map(json.loads, lines) if "right" in r][-1]
        assert float(row["measured"]) == last
    table = re.findall(r"^\| reward \w+ \| (\S+)", report, re.M)
    assert table[0] >= table[1]  # more is better


def test_arms_are_measured_on_another_text():
    Path("elsewhere.toml").write_text(ELSEWHERE)
    assert main(["lab", "run", "elsewhere.toml"]) == 0
    assert "The text is other.txt." in Path("studies/elsewhere/report.md").read_text()
    for row in measured("elsewhere"):
        own, other = float(row["bits_per_byte"]), float(row["measured"])
        assert other > own + 0.5  # it has never seen two equal letters in a row


def test_more_is_better_where_the_measure_says_so():
    results = {"low": [{"measured": 0.1}, {"measured": 0.11}], "high": [{"measured": 0.9}] * 2}
    assert [arm for arm, _ in best_first(results, MEASURES["right"])] == ["high", "low"]
    assert [arm for arm, _ in best_first(results, MEASURES["bits_per_byte"])] == ["low", "high"]
    assert "| high | low | 0.79" in verdicts(results, MEASURES["right"])
    assert "| low | high | 0.79" in verdicts(results, MEASURES["bits_per_byte"])


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('measure = "right"', 'measure = "rigth"', "did you mean right"),
        ('"train.objective" = "policy"', "", "needs train.objective=policy"),
        ('measure = "right"', 'measure = "entropy"\ntext = "a.txt"', "only bits_per_byte"),
    ],
)
def test_an_impossible_measure_is_refused(old, new, said, capsys):
    Path("rewarded.toml").write_text(REWARDED.replace(old, new))
    assert main(["lab", "run", "rewarded.toml"]) == 2
    assert said in capsys.readouterr().err
    assert not Path("studies").exists()
