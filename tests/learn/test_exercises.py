"""Exercises: right is right however it is written, and wrong is told why."""

import ast
import csv
import inspect
import io
import json
import textwrap
from dataclasses import replace
from pathlib import Path

import learners_right
import pytest
import torch
from learners_right import RIGHT
from learners_wrong import WRONG

from nanogpt.cli import main
from nanogpt.cli.exercise import counted, file_of
from nanogpt.config import load_config
from nanogpt.generation import sampling
from nanogpt.learn.exercise import judge, stub_of
from nanogpt.learn.exercises import EXERCISES
from nanogpt.learn.play import play, settings_for, substituted
from nanogpt.learn.progress import Progress, save_progress
from nanogpt.model import attention, layers
from nanogpt.training import optim

ROOT = Path(__file__).parents[2]

every_exercise = pytest.mark.parametrize("name", EXERCISES)


@every_exercise
def test_every_style_passes_but_the_imported_solution_does_not(name):
    assert judge(EXERCISES[name], EXERCISES[name].reference).mistake == "the-packages-own"
    assert len(RIGHT[name]) >= 3
    for solution in RIGHT[name]:
        verdict = judge(EXERCISES[name], solution)
        assert verdict.passed, (solution, verdict)


@pytest.mark.parametrize(
    ("name", "mistake"), [(name, mistake) for name, wrong in WRONG.items() for mistake in wrong]
)
def test_what_a_learner_gets_wrong_is_diagnosed(name, mistake):
    verdict = judge(EXERCISES[name], WRONG[name][mistake])
    assert verdict.mistake == mistake, verdict
    assert verdict.diagnosis
    assert verdict.example


def test_learners_mistakes_are_collected_for_every_exercise():
    assert set(WRONG) == set(EXERCISES)


def test_the_guide_for_teachers_counts_the_known_mistakes_right():
    guide = (ROOT / "docs/teaching.md").read_text()
    known = len({(name, m.name) for name, exercise in EXERCISES.items() for m in exercise.mistakes})
    assert f"It knows {known} mistakes" in " ".join(guide.split())


@every_exercise
def test_every_known_mistake_is_told_apart_from_all_others(name):
    exercise = EXERCISES[name]
    for mistake in exercise.mistakes:
        for wrong in mistake.variants:
            assert judge(exercise, wrong).mistake == mistake.name
        assert mistake.diagnosis.endswith(".")


@every_exercise
def test_a_stub_has_the_signature_and_the_text_of_the_package_and_does_nothing(name):
    exercise = EXERCISES[name]
    scope: dict = {}
    exec(stub_of(exercise), scope)
    stub = scope[exercise.symbol]
    assert judge(exercise, stub).mistake == "not-written"
    (written,) = ast.parse(textwrap.dedent(inspect.getsource(exercise.reference))).body
    (given,) = [
        n for n in ast.parse(stub_of(exercise)).body if getattr(n, "name", "") == exercise.symbol
    ]
    pairs = [(written, given)]
    if exercise.write:
        pairs = [
            (one, other)
            for one, other in zip(written.body, given.body, strict=True)
            if getattr(one, "name", "") in exercise.write
        ]
        assert len(pairs) == len(exercise.write)
    if exercise.task:
        assert ast.get_docstring(given) == textwrap.dedent(exercise.task).strip()
    else:
        assert ast.get_docstring(given) == ast.get_docstring(written)
    for one, other in pairs:
        assert ast.dump(one.args) == ast.dump(other.args)
        assert other is given or ast.get_docstring(one) == ast.get_docstring(other)


def test_a_task_takes_the_place_of_the_docstring():
    def docstring_in_stub(name, task):
        stub = stub_of(replace(EXERCISES[name], task=task))
        (given,) = [n for n in ast.parse(stub).body if hasattr(n, "args") or hasattr(n, "bases")]
        assert "your turn" in stub
        return ast.get_docstring(given)

    several = "What to do.\n\nx holds numbers.\n    Four spaces stay."
    for name in ("softmax", "adamw"):
        assert docstring_in_stub(name, several) == several
        assert docstring_in_stub(name, "One line.") == "One line."


def test_a_plain_form_takes_its_place_in_the_model_and_the_later_of_two_counts():
    def twice(x):
        return 2 * layers.gelu(x)

    plain = replace(
        EXERCISES["merge"], replaces=layers.gelu, adapt=lambda candidate: candidate(twice)
    )
    with substituted({plain: lambda function: function}):
        assert layers.KERNELS["plain"].gelu is twice
    with substituted({plain: lambda function: function, EXERCISES["gelu"]: RIGHT["gelu"][0]}):
        assert layers.KERNELS["plain"].gelu is RIGHT["gelu"][0]


def test_optional_exercises_are_counted_apart():
    first, second, third = list(EXERCISES.values())[:3]
    further = replace(third, optional=True)
    chosen = [first, second, further]
    assert counted([first], chosen) == "1 of 2 pass, 0 of 1 optional"
    assert counted([further], [further]) == "1 of 1 optional"
    assert counted([first, second], [first, second]) == "2 of 2 pass"


@every_exercise
def test_there_are_three_hints(name):
    assert len({hint for hint in EXERCISES[name].hints if hint.endswith(".")}) == 3


def test_the_folder_of_exercises_holds_the_stubs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["exercise", "start"]) == 0
    made = {path.name: path.read_text() for path in Path("my_gpt").glob("*.py")}
    kept = {path.name: path.read_text() for path in (ROOT / "exercises").glob("*.py")}
    assert made == kept, "delete them, then: nanogpt exercise start --folder exercises"
    assert len(made) == len(EXERCISES)


@pytest.mark.parametrize(
    "damaged",
    ['{"passed": "merge"}', '{"hints": {"merge": -1}}', '{"lessons": ["a"]}', '{"hints": 3}',
     '{"other": 1}', '{"passed": [1]}'],
)  # fmt: skip
def test_damaged_progress_costs_one_line(damaged, learner, capsys):
    (learner / "progress.json").write_text(damaged)
    assert main(["exercise", "hint", "merge"]) == 2
    assert "progress.json is damaged; remove it" in capsys.readouterr().err


def test_a_folder_may_have_any_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["exercise", "start", "--folder", "d[/x]"]) == 0
    assert "d[/x]/01_" in capsys.readouterr().out
    assert main(["exercise", "hint", "merge", "--folder", "d[/x]"]) == 0
    assert main(["learn", "--folder", "e[red]"]) == 0
    assert "(in e[red])" in capsys.readouterr().out


def mine(name: str) -> Path:
    """The learner's file for an exercise."""
    return file_of(EXERCISES[name], Path("my_gpt"))


@pytest.fixture
def learner(tmp_path, monkeypatch) -> Path:
    """A folder with one right solution, one wrong one, and stubs."""
    monkeypatch.chdir(tmp_path)
    assert main(["exercise", "start"]) == 0
    merge = inspect.getsource(RIGHT["merge"][0]).replace("merge_flag", "merge")
    mine("merge").write_text(merge)
    gelu = inspect.getsource(WRONG["gelu"]["exact"]).replace("gelu_exact", "gelu")
    mine("gelu").write_text("import math\nimport torch\n" + gelu)
    return Path("my_gpt")


def test_checking_says_right_or_wrong_and_writes_it_down(learner, capsys):
    assert main(["exercise", "start"]) == 0  # again: nothing is overwritten
    assert "def merge(ids, pair, new_id):" in mine("merge").read_text()
    capsys.readouterr()
    assert main(["exercise", "check", "merge", "gelu", "rope"]) == 1
    out = capsys.readouterr().out
    assert "right  merge" in out
    assert "wrong  gelu" in out
    assert "tanh approximation" in out
    assert "to do  rope" in out
    assert "1 of 3 pass" in out
    assert json.loads((learner / "progress.json").read_text())["passed"] == ["merge"]
    progress = json.loads((learner / "progress.json").read_text())
    (learner / "progress.json").write_text(json.dumps({**progress, "passed": ["merge", "rope"]}))
    assert main(["exercise", "check", "merge"]) == 0
    mine("merge").write_text("def merge(ids, pair, new_id):\n    return ids\n")
    assert main(["exercise", "check", "merge"]) == 1
    assert json.loads((learner / "progress.json").read_text())["passed"] == ["rope"]


def test_of_two_mistakes_the_one_that_explains_most_is_named():
    """A variance divided by n - 1, and also an error where there is no bias."""
    exact = WRONG["layer-norm"]["variance-of-a-sample"]

    def and_an_error_without_a_bias(x, weight, bias=None, eps=1e-5):
        if bias is None:
            raise TypeError("unsupported operand")
        return exact(x, weight, bias, eps)

    verdict = judge(EXERCISES["layer-norm"], and_an_error_without_a_bias)
    assert verdict.mistake == "variance-of-a-sample"

    def one_case_alone(x, weight, bias=None, eps=1e-5):
        y = RIGHT["layer-norm"][0](x, weight, bias, eps)
        return y if x.ndim == 1 else y + 1

    assert judge(EXERCISES["layer-norm"], one_case_alone).mistake == ""


def test_state_belongs_to_each_tensor_and_keys_are_rotated_before_they_are_cached():
    """Found by a reviewer: both once passed, and both are wrong in a real model."""

    class OneState(learners_right.AdamPlain):
        def update(self, parameter, gradient, group):
            self.shared = self.__dict__.setdefault("shared", {})
            self.shared["t"] = self.shared.get("t", 0) + 1
            self.state[parameter].setdefault("m", torch.zeros_like(parameter))
            self.state[parameter].setdefault("v", torch.zeros_like(parameter))
            self.state[parameter]["t"] = self.shared["t"] - 1
            super().update(parameter, gradient, group)

    assert not judge(EXERCISES["adamw"], OneState).passed

    class RotatedTooLate(attention.CausalSelfAttention):
        def forward(self, x, context):
            q, k, v = (self.split_heads(part) for part in self.c_attn(x).split(self.widths, -1))
            if self.qk_norm:
                q, k = self.rms_norm(q), self.rms_norm(k)
            if context.cache:
                k, v = context.cache.update(context.layer, k, v)
            position, pos = context.position, context.pos
            everywhere = pos if pos.shape[1] == k.shape[2] else pos[:, -1:]
            q, k = position.rotate(q, q, pos)[0], position.rotate(k, k, everywhere)[1]
            k, v = (part.repeat_interleave(self.groups, 1) for part in (k, v))
            y = self.kernel(q, k, v, context.mask, context.causal)
            return self.c_proj(y.transpose(1, 2).flatten(2))

    assert not judge(EXERCISES["heads"], RotatedTooLate).passed


def test_a_right_all_reduce_is_told_how_much_it_sends():
    naive, *_, ring = RIGHT["all-reduce"]
    said = judge(EXERCISES["all-reduce"], naive).diagnosis
    assert "sent 3 times its tensor. A ring needs 1.5 times" in said
    said = judge(EXERCISES["all-reduce"], ring).diagnosis
    assert said.startswith("Each of 4 ranks sent 1.5 times its tensor: 2 (n - 1) / n")
    one_by_one, _, one_vector = RIGHT["average-gradients"]
    assert "single all-reduce" in judge(EXERCISES["average-gradients"], one_by_one).diagnosis
    assert "single all-reduce" not in judge(EXERCISES["average-gradients"], one_vector).diagnosis


def test_ranks_that_wait_for_ever_are_named_in_the_example():
    verdict = judge(EXERCISES["all-reduce"], WRONG["all-reduce"]["all-wait"])
    assert "rank 0 waits for rank 1, rank 1 waits for rank 0" in verdict.example


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("while rank.number == 1: pass", "rank 1 was not finished after 5 seconds"),
        ("raise SystemExit(3)", "ended the program in this case (exit code 3)"),
        ("return x + rank.size[0]", "TypeError: 'int' object is not subscriptable (line 2)"),
        ("return c.reduce_scatter([x], rank)", "the package's own function"),
    ],
)
def test_what_happens_on_one_rank_ends_the_check_in_a_sentence(body, said, learner, capsys):
    text = f"def all_reduce(x, rank):\n    {body}\nimport nanogpt.learn.collectives as c\n"
    mine("all-reduce").write_text(text)
    assert main(["exercise", "check", "all-reduce"]) == 1
    assert said in " ".join(capsys.readouterr().out.split())


def test_play_says_which_exercises_have_no_place_in_the_model(learner, capsys):
    save_progress(learner, Progress(passed=["all-reduce", "value"]))
    assert main(["exercise", "play"]) == 2
    assert "parallel-mlp, answers-only, advantage, lora have none" in capsys.readouterr().err


def test_hints_come_one_after_the_other(learner, capsys):
    capsys.readouterr()
    shown = []
    for _ in range(4):
        assert main(["exercise", "hint", "attention"]) == 0
        shown.append(capsys.readouterr().out)
    first, second, third = EXERCISES["attention"].hints
    found = [[hint in text for hint in (first, second, third)] for text in shown]
    assert found == [[True, False, False], [True, True, False], [True] * 3, [True] * 3]
    assert "That was the last hint" in shown[3]


def test_many_learners_are_graded_each_by_itself(learner, tmp_path, capsys):
    for path in learner.glob("*.py"):
        if path.name not in {mine(name).name for name in ("merge", "gelu", "rope")}:
            path.unlink()  # a process each
    vandal = tmp_path / "vandal"
    vandal.mkdir()
    (vandal / mine("merge").name).write_text(
        "import pathlib\nfor path in pathlib.Path().rglob('*.json'):\n    path.write_text('{}')\n"
        "raise SystemExit\n"
    )
    capsys.readouterr()
    assert (
        main(
            [
                "exercise",
                "grade",
                str(learner),
                str(vandal),
                "--csv",
                "marks.csv",
                "--report",
                "said.txt",
            ]
        )
        == 0
    )
    rows = list(csv.DictReader(io.StringIO(Path("marks.csv").read_text())))
    assert [row["passed"] for row in rows] == ["1", "0"]
    assert (rows[0]["merge"], rows[0]["gelu"], rows[0]["rope"]) == ("right", "exact", "not-written")
    assert (rows[1]["merge"], rows[1]["gelu"]) == ("ends-by-itself", "missing")
    assert list(rows[0])[3:] == list(EXERCISES)
    said = Path("said.txt").read_text()
    assert said.startswith("my_gpt\n\nwrong  gelu")
    assert "tanh approximation" in said
    assert "expected" in said
    assert "wrong  merge" in said.partition(str(vandal))[2]
    assert "The file ended the program" in said
    assert "rope" not in said  # which is not written


def test_a_learners_functions_are_put_everywhere_and_taken_out_again():
    softmax, adamw = EXERCISES["softmax"].reference, EXERCISES["adamw"].reference
    mine, other = RIGHT["softmax"][1], RIGHT["adamw"][0]
    with substituted({EXERCISES["softmax"]: mine, EXERCISES["adamw"]: other}):
        assert layers.softmax is attention.softmax is sampling.softmax is mine
        assert optim.OPTIMIZERS["adamw"] is other
        assert EXERCISES["softmax"].reference is softmax
    assert layers.softmax is attention.softmax is sampling.softmax is softmax
    assert optim.OPTIMIZERS["adamw"] is adamw
    gelu = RIGHT["gelu"][1]
    with pytest.raises(ZeroDivisionError), substituted({EXERCISES["gelu"]: gelu}):
        assert layers.KERNELS["plain"].gelu is gelu
        raise ZeroDivisionError
    assert layers.KERNELS["plain"].gelu is layers.gelu


def test_playing_uses_every_part(tmp_path):
    """Each of the learner's parts is called: the plain forms, then those with more options."""
    called = set()

    def counted(name, original):
        if inspect.isclass(original):
            wrapped = type(original.__name__, (original,), {})
            method = EXERCISES[name].write[0]

            def count(self, *args, **kwargs):
                called.add(name)
                return getattr(super(wrapped, self), method)(*args, **kwargs)

            setattr(wrapped, method, count)
            return wrapped

        def function(*args, **kwargs):
            called.add(name)
            return original(*args, **kwargs)

        return function

    usable = [exercise for exercise in EXERCISES.values() if exercise.in_model]
    first = {e.replaces or e.reference: e for e in reversed(usable)}  # of those about one part
    for chosen in ([*first.values()], usable):
        candidates = {e: counted(e.name, e.reference) for e in chosen}
        config = settings_for(load_config(ROOT / "configs/demo.toml"), chosen, 10)
        shares = []
        play(tmp_path / str(len(chosen)), config, candidates, evaluated=shares.append)
        assert shares == sorted(shares)
        assert shares[-1] == 1
    assert called == {exercise.name for exercise in usable}


def test_playing_trains_the_same_model_with_the_learners_parts(learner, capsys):
    solutions = inspect.getsource(learners_right)
    for name, exercise in EXERCISES.items():
        text = f"{solutions}\n\n{exercise.symbol} = RIGHT[{name!r}][0]\n"
        mine(name).write_text(text)
    save_progress(learner, Progress(passed=[*EXERCISES]))  # that these pass is another test
    capsys.readouterr()
    assert main(["exercise", "play", "--steps", "10"]) == 0
    out = capsys.readouterr().out
    assert "the model has no place for value, embed" in out
    parts = sum(exercise.in_model for exercise in EXERCISES.values())
    assert f"both wrote the same text. It is one model, and {parts} of its {parts} parts" in out
    assert (learner / "play.png").stat().st_size > 10_000
    mine("softmax").write_text("def softmax(x, dim=-1):\n    return x / 0 + nothing\n")
    assert main(["exercise", "play", "--steps", "10"]) == 2
    assert f"{mine('softmax').name} line 2: NameError" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["play"], "my_gpt: no such folder; `nanogpt exercise start` makes it"),
        (["play", "--steps", "3"], "--steps 3: use at least 10"),
        (["check"], "my_gpt: no such folder; `nanogpt exercise start` makes it"),
        (["check", "atention"], "'atention' is no exercise: did you mean attention?"),
        (["hint", "nothing"], "'nothing' is no exercise"),
        (["hint", "merge", "--folder", "typo"], "typo: no such folder"),
        (["grade", "nobody"], "nobody: no such folder"),
        (["grade", "."], ". has none of the exercises"),
    ],
)
def test_what_is_not_there_costs_one_line(arguments, complaint, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["exercise", *arguments]) == 2
    assert complaint in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
