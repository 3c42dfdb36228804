"""The judge: a file in a process of its own, plain data, and a diagnosis in words."""

import inspect
import math
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from learners_right import RIGHT, GPTPlain, HeadsView, hidden_scores
from torch import nn

from nanogpt.errors import UserError
from nanogpt.learn import judging
from nanogpt.learn.answers import Answer, Other, Raised, plain, read, with_gradients, written
from nanogpt.learn.differences import difference, shown, where_it_differs
from nanogpt.learn.exercise import (
    Exercise,
    Mistake,
    answers_of_package,
    described,
    judge,
    verdict_on,
)
from nanogpt.learn.exercises import EXERCISES
from nanogpt.learn.judging import judge_file, judge_files
from nanogpt.model import layers


def judged(text: str, name: str, folder: Path, seconds: float = 60):
    path = folder / "01_mine.py"
    path.write_text(text)
    return judge_file(path, EXERCISES[name], seconds)


ENDINGS = {
    "an endless loop": (
        "def merge(ids, pair, new_id):\n    while True:\n        pass\n",
        "never-ends", "in this case. Is there an endless loop?",
        "merge(ids=[1, 2], pair=(1, 2), new_id=9)",
    ),
    "an endless file": ("while True:\n    pass\n", "never-ends", "while the file was imported", ""),
    "too much output": (
        "def merge(ids, pair, new_id):\n    for _ in range(20):\n        print('x' * (1 << 20))\n",
        "", "It prints too much: the check keeps 16 MiB.", "merge(",
    ),
    "an exit": (
        "def merge(ids, pair, new_id):\n    raise SystemExit(3)\n",
        "ends-by-itself", "exit code 3", "merge(ids=[1, 2], pair=(1, 2), new_id=9)",
    ),
    "an exit while it is imported": (
        "raise SystemExit\n", "ends-by-itself", "while the file was imported (exit code 0)", "",
    ),
    "Ctrl-C": (
        "def merge(ids, pair, new_id):\n    raise KeyboardInterrupt\n",
        "", "It raises KeyboardInterrupt, as Ctrl-C does.", "merge(",
    ),
    "Ctrl-C while it is imported": (
        "raise KeyboardInterrupt\n", "cannot-be-read", "raises KeyboardInterrupt, as Ctrl-C", "",
    ),
    "a crash": (
        "import ctypes\n\n\ndef merge(ids, pair, new_id):\n    ctypes.string_at(0)\n",
        "crashes", "Python itself crashed in this case (segmentation fault).", "merge(ids=[1, 2]",
    ),
    "killed": (
        "import os\n\n\ndef merge(ids, pair, new_id):\n    os.kill(os.getpid(), 9)\n",
        "killed", "The program was killed in this case.", "merge(ids=[1, 2]",
    ),
    "deep recursion": (
        "def merge(ids, pair, new_id):\n    return merge(ids, pair, new_id)\n",
        "", "It calls itself again and again.", "RecursionError",
    ),
    "a file that raises": (
        "import math\nmath.nothing\n", "cannot-be-read", "line 2: AttributeError", "",
    ),
    "a file that is no Python": (
        "def merge(ids, pair, new_id)\n", "cannot-be-read", "line 1: SyntaxError", "",
    ),
    "another name": (
        "def merged(ids, pair, new_id):\n    return ids\n",
        "not-defined", "The file does not define `merge`; it defines merged.", "",
    ),
    "an exception": (
        "def merge(ids, pair, new_id):\n    return {}[99]\n",
        "", "It raises KeyError: 99 (line 2).", "merge(ids=[1, 2]",
    ),
    "no return": (
        "def merge(ids, pair, new_id):\n    ids = list(ids)\n",
        "", "It gives nothing (is a return missing?)", "got       None",
    ),
    "a wrong type": (
        "def merge(ids, pair, new_id):\n    return 'text'\n",
        "", "It gives a value of type str", "got       'text'",
    ),
    "wrong arguments": (
        "def merge(ids, pair):\n    return ids\n",
        "other-signature", "The package calls it as merge(ids", "does not work with yours",
    ),
    "what cannot be compared": (
        "import numpy\n\n\ndef merge(ids, pair, new_id):\n    return numpy.array([1, None])\n",
        "", "It gives a value of type ndarray", "merge(",
    ),
    "an error that is none of ours": (
        "def merge(ids, pair, new_id):\n    raise NotImplementedError('not for me')\n",
        "", "It raises NotImplementedError: not for me (line 2).", "merge(",
    ),
    "memory, bit by bit": (
        "def merge(ids, pair, new_id):\n    kept = []\n    for n in range(48):\n"
        "        kept.append(bytes(128 << 20))\n    return kept\n",
        "", "It needs more memory than the check allows.", "MemoryError",
    ),
    "all memory": (
        "def merge(ids, pair, new_id):\n    return [0] * 10**12\n",
        "", "It needs more memory than the check allows.", "MemoryError",
    ),
    "a result that is too large": (
        "import torch\n\n\ndef merge(ids, pair, new_id):\n    return torch.zeros(10**7)\n",
        "", "It gives a value of type Tensor", "a result that is too large",
    ),
    "an object that cannot be shown": (
        "class Odd:\n    def __repr__(self):\n        return 1 / 0\n\n\n"
        "def merge(ids, pair, new_id):\n    return Odd()\n",
        "", "It gives a value of type Odd", "a Odd that cannot be shown",
    ),
    "an error that is no text": (
        "def merge(ids, pair, new_id):\n    raise ValueError('\\ud800')\n",
        "", "It raises ValueError", "merge(",
    ),
    "its input": (
        "def merge(ids, pair, new_id):\n    ids.clear()\n    return []\n",
        "changes-its-input", "`ids` is different afterwards", "merge(",
    ),
}  # fmt: skip


@pytest.mark.parametrize("ending", ENDINGS.values(), ids=list(ENDINGS))
def test_whatever_a_file_does_its_learner_gets_a_sentence(ending, tmp_path):
    text, mistake, said, example = ending
    verdict, _ = judged(text, "merge", tmp_path, 4 if mistake == "never-ends" else 60)
    assert not verdict.passed
    assert verdict.mistake == mistake, verdict
    assert said in verdict.diagnosis
    assert example in verdict.example + verdict.diagnosis


def test_what_was_wrong_before_a_file_hung_is_said(tmp_path):
    text = (
        "def merge(ids, pair, new_id):\n    while len(ids) > 4:\n        pass\n"
        "    return ids[: len(ids) // 2]\n"
    )
    verdict, _ = judged(text, "merge", tmp_path, 3)
    assert verdict.mistake != "never-ends"
    assert "merge(ids=" in verdict.example


def test_a_fresh_process_judges_alike(tmp_path, monkeypatch):
    monkeypatch.setattr(judging, "can_fork", lambda: False)
    own = "from nanogpt.model import layers\n\n\ndef softmax(x, dim=-1):\n    {}\n"
    library = own.format("return x.softmax(dim)")
    assert judged(library, "softmax", tmp_path)[0].passed
    wrapped = own.format("return layers.softmax(x, dim)")
    assert judged(wrapped, "softmax", tmp_path)[0].mistake == "the-packages-own"


def test_many_files_are_judged_in_their_order(tmp_path):
    texts = {
        "slow": "import time\ntime.sleep(1)\ndef softmax(x, dim=-1):\n    return x.softmax(dim)\n",
        "wrong": "def softmax(x, dim=-1):\n    return x\n",
        "right": "def softmax(x, dim=-1):\n    return x.softmax(dim)\n",
    }
    for name, text in texts.items():
        (tmp_path / f"{name}.py").write_text(text)
    names = ["slow", "wrong", "missing", "right"]
    files = [(tmp_path / f"{name}.py", EXERCISES["softmax"]) for name in names]
    verdicts = [verdict for verdict, _ in judge_files(files)]
    assert [verdict.passed for verdict in verdicts] == [True, False, False, True]
    assert verdicts[2].mistake == "missing"


def test_a_learners_own_helpers_are_found_and_taken_for_nothing_else(tmp_path):
    (tmp_path / "helper.py").write_text("FACTOR = 1\n")
    (tmp_path / "random.py").write_text("raise ImportError('this is mine')\n")
    verdict, _ = judged("import helper\nimport random\n" + MERGE, "merge", tmp_path)
    assert verdict.passed, verdict


MERGE = inspect.getsource(RIGHT["merge"][0]).replace("merge_flag", "merge")


def test_what_a_learners_file_has_started_ends_with_it(tmp_path):
    text = (
        "import pathlib\nimport subprocess\nchild = subprocess.Popen(['sleep', '600'])\n"
        "pathlib.Path('child').write_text(str(child.pid))\n"
        "def merge(ids, pair, new_id):\n    return []\n"
    )
    judged(text, "merge", tmp_path)
    status = Path("/proc") / (tmp_path / "child").read_text() / "stat"
    deadline = time.monotonic() + 30  # a busy machine may take a moment to end what was killed
    while status.exists() and " Z " not in status.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_what_a_file_prints_is_kept_apart(tmp_path, capfd):
    verdict, printed = judged("print('looking at', 7)\n" + MERGE, "merge", tmp_path)
    assert verdict.passed
    assert printed == "looking at 7\n"
    assert capfd.readouterr().out == ""


OWN_SOFTMAX = "def softmax(x, dim=-1):\n    {}\n"
EQUAL = "    def __eq__(self, other):\n        return True\n    __hash__ = None\n"

CHEATS = {
    "a wrapper": (
        "softmax",
        "from nanogpt.model import layers\n" + OWN_SOFTMAX.format("return layers.softmax(x, dim)"),
        "the-packages-own",
    ),
    "another name for it": ("softmax", "from nanogpt.model.layers import *\n", "the-packages-own"),
    "a helper that does it all": (
        "attention",
        "from nanogpt.model.attention import attention_weights\n"
        "def attention(q, k, v, mask=None, causal=False, dropout=0.0):\n"
        "    return attention_weights(q, k, mask, causal) @ v\n",
        "the-packages-own",
    ),
    "the fast twin": (
        "train",
        "from nanogpt.text import bpe\ndef train_naive(words, n_merges):\n"
        "    return bpe.train(words, n_merges)\n",
        "the-packages-own",
    ),
    "importlib": (
        "softmax",
        "import importlib\nlayers = importlib.import_module('nanogpt.model.layers')\n"
        + OWN_SOFTMAX.format("return layers.softmax(x, dim)"),
        "the-packages-own",
    ),
    "importlib.reload": (
        "softmax",
        "import importlib\nimport nanogpt.model.layers as layers\n"
        "softmax = importlib.reload(layers).softmax\n",
        "the-packages-own",
    ),
    "a new import": (
        "softmax",
        "import sys\ndel sys.modules['nanogpt.model.layers']\n"
        "from nanogpt.model.layers import softmax as theirs\n"
        + OWN_SOFTMAX.format("return theirs(x, dim)"),
        "the-packages-own",
    ),
    "the file of the package": (
        "softmax",
        "import nanogpt.model.layers as layers\nexec(open(layers.__file__).read())\n",
        "the-packages-own",
    ),
    "the source of the function": (
        "softmax",
        "import inspect\nimport torch\nfrom nanogpt.model import layers\n"
        "exec('from torch import Tensor\\n' + inspect.getsource(layers.softmax))\n",
        "cannot-be-read",
    ),
    "functools.partial": (
        "softmax",
        "import functools\nfrom nanogpt.model import layers\n"
        "softmax = functools.partial(layers.softmax)\n",
        "the-packages-own",
    ),
    "the judge's own reference": (
        "softmax",
        "from nanogpt.learn.exercises import EXERCISES\n"
        + OWN_SOFTMAX.format("return EXERCISES['softmax'].reference(x, dim)"),
        "the-packages-own",
    ),
    "a subclass": (
        "block",
        "from nanogpt.model import gpt\nclass Block(gpt.Block):\n    pass\n",
        "the-packages-own",
    ),
    "a subclass that asks its parent": (
        "cache",
        "from nanogpt.model import cache\nclass KVCache(cache.KVCache):\n"
        "    def update(self, layer, k, v):\n        return super().update(layer, k, v)\n",
        "the-packages-own",
    ),
    "__code__ of the package's function": (
        "softmax",
        "from nanogpt.model import layers\n"
        + OWN_SOFTMAX.format("return x")
        + "softmax.__code__ = layers.softmax.__code__\n",
        "the-packages-own",
    ),
    "the package's function made as wrong": (
        "softmax",
        "from nanogpt.model import layers\n"
        + OWN_SOFTMAX.format("return x")
        + "layers.softmax.__code__ = softmax.__code__\n",
        None,
    ),
    "torch.isclose": (
        "softmax",
        "import torch\ntorch.isclose = lambda x, *_, **__: torch.ones_like(x, dtype=torch.bool)\n"
        + OWN_SOFTMAX.format("return x"),
        None,
    ),
    "the judge": (
        "softmax",
        "from nanogpt.learn import differences, exercise, judging\n"
        "for module in (differences, exercise, judging):\n"
        "    module.difference = lambda right, got: ''\n"
        "    module.verdict_on = lambda *_: exercise.Verdict(True)\n"
        + OWN_SOFTMAX.format("return x"),
        None,
    ),
    "a verdict written": (
        "softmax",
        "import json\nimport pathlib\nimport tempfile\n"
        "for folder in pathlib.Path(tempfile.gettempdir()).glob('tmp*'):\n"
        "    if (folder / 'printed').exists():\n"
        "        (folder / 'verdict.json').write_text(json.dumps({'passed': True}))\n"
        "        (folder / 'answers').write_text('{\"passed\": true}\\n' * 14)\n"
        + OWN_SOFTMAX.format("return x"),
        None,
    ),
    "a number that equals everything": (
        "merge",
        "class All(int):\n" + EQUAL + "def merge(ids, pair, new_id):\n"
        "    return [All(0) for _ in range(len(ids))]\n",
        None,
    ),
    "a list that equals everything": (
        "merge",
        "class All(list):\n" + EQUAL + "def merge(ids, pair, new_id):\n    return All()\n",
        None,
    ),
    "a tensor that equals everything": (
        "softmax",
        "import torch\nclass All(torch.Tensor):\n"
        "    @classmethod\n    def __torch_function__(cls, func, types, args=(), kwargs=None):\n"
        "        return torch.ones(()).bool() if 'close' in str(func) else torch.zeros(())\n"
        + OWN_SOFTMAX.format("return torch.ones_like(x).as_subclass(All)"),
        None,
    ),
    "an object that equals everything": (
        "schedule",
        "class All:\n" + EQUAL + "def learning_rate(step, config):\n    return All()\n",
        "",
    ),
    "an exit with a good code": (
        "softmax", "import os\n" + OWN_SOFTMAX.format("os._exit(0)"), "ends-by-itself",
    ),
    "a fork": (
        "softmax",
        "import os\nif os.fork():\n    os._exit(0)\n" + OWN_SOFTMAX.format("return x"),
        None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("cheat", CHEATS.values(), ids=list(CHEATS))
def test_a_cheat_does_not_pass(cheat, tmp_path):
    name, text, mistake = cheat
    right = torch.isclose, layers.softmax.__code__
    verdict, _ = judged(text, name, tmp_path)
    assert not verdict.passed
    if mistake is not None:
        assert verdict.mistake == mistake, verdict
    assert (torch.isclose, layers.softmax.__code__) == right  # of this process


@pytest.mark.parametrize("name", EXERCISES)
def test_a_learners_file_passes_where_the_package_is_closed(name, tmp_path):
    """What an exercise shows must not need what it asks for."""
    folder = str(Path(__file__).parent)
    text = f"import sys\nsys.path.append({folder!r})\nfrom learners_right import *\n"
    text += f"{EXERCISES[name].symbol} = RIGHT[{name!r}][0]\n"
    verdict, printed = judged(text, name, tmp_path)
    assert verdict.passed, (verdict, printed)


def test_a_copied_solution_passes_because_honest_ones_look_the_same(tmp_path):
    source = inspect.getsource(layers.softmax)
    verdict, _ = judged(f"import torch\nfrom torch import Tensor\n{source}", "softmax", tmp_path)
    assert verdict.passed


class Sly(int):
    def __eq__(self, other):
        return True

    __hash__ = None


def test_answers_survive_the_way_between_processes():
    values = {
        "numbers": [1, -(10**30), 1.5, math.inf, True, None, "tensor", ("a", [])],
        "tensor": torch.randn(2, 3),
        "half": torch.randn(3).bfloat16(),
        "complex": torch.tensor([1 + 2j]),
        "empty": torch.zeros(0, 4, dtype=torch.long),
        "scalar": torch.tensor(2.5, dtype=torch.float64),
        "array": np.arange(6, dtype=np.uint16).reshape(2, 3),
        (1, 2): Raised(("builtins.ValueError", "builtins.Exception"), "no", 3),
        "other": Other("Odd", "<odd>"),
    }
    found = read(written(Answer(plain(values), {"x": torch.ones(2)}, "cut", "1", "well")))
    assert (found.cut, found.note) == ("cut", "well")
    assert found.changed == "1"
    assert torch.equal(found.gradients["x"], torch.ones(2))
    assert list(found.result) == list(values)
    for key, value in values.items():
        got = found.result[key]
        assert type(got) is type(value)
        if isinstance(value, torch.Tensor | np.ndarray):
            assert got.dtype == value.dtype
            assert got.shape == value.shape
            assert bool((got == value).all())
        else:
            assert got == value
    assert type(plain([Sly(3)])[0]) is int
    circle = []
    circle.append(circle)
    assert isinstance(plain(torch.nn.Parameter(torch.ones(1))), torch.Tensor)
    assert isinstance(plain(object()), Other)
    assert shown(plain(circle)).startswith("[[[")


@pytest.mark.parametrize(
    "line",
    ['{"passed": true}', "[]", '["dict"]', "12", "no json", '["other"]', "[[[]]]",
     '["dict", ["result", ["tensor", "float32", [3], "AAAA"]]]',
     '["dict", ["result", ["tensor", "nn", [3], "AAAA"]]]',
     '["dict", ["result", 1], ["cut", ""], ["changed", ""], ["gradients", ["dict", ["x", 1]]]]'],
)  # fmt: skip
def test_what_is_no_answer_is_refused(line):
    with pytest.raises(ValueError):  # noqa: PT011
        read(line)


def cut_by(how):
    def layer_norm(x, weight, bias=None, eps=1e-5):
        return RIGHT["layer-norm"][0](how(x), weight, bias, eps)

    return layer_norm


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (lambda x: x.detach(), "no gradient reaches `x`"),
        (lambda x: torch.tensor(x.tolist()), "no gradient reaches `x`"),
        (lambda x: torch.from_numpy(x.numpy()), "Can't call numpy() on Tensor that requires grad"),
        (lambda x: x.detach() + 0.5 * (x - x.detach()), "the gradient of `x` is not"),
    ],
)
def test_a_gradient_that_is_cut_off_is_found(how, said):
    verdict = judge(EXERCISES["layer-norm"], cut_by(how))
    assert verdict.mistake == "no-gradient"
    assert said in verdict.diagnosis


def test_no_gradients_at_all_are_found_in_functions_and_classes():
    @torch.no_grad()
    def softmax(x, dim=-1):
        return x.softmax(dim)

    verdict = judge(EXERCISES["softmax"], softmax)
    assert verdict.mistake == "no-gradient"
    assert "the result does not carry gradients" in verdict.diagnosis
    assert "softmax(x=" in verdict.example

    class Cut(RIGHT["block"][0]):
        def forward(self, x, context):
            return super().forward(x.detach(), context)

    verdict = judge(EXERCISES["block"], Cut)
    assert verdict.mistake == "no-gradient"
    assert "no gradient reaches `x`" in verdict.diagnosis

    class CutInside(HeadsView):
        def forward(self, x, context):
            with torch.no_grad():
                scale = super().forward(x, context)
            return scale + 0 * x

    assert judge(EXERCISES["grouped-heads"], CutInside).mistake == "no-gradient"

    class NoGradient(GPTPlain):
        hidden_states = torch.no_grad()(GPTPlain.hidden_states)

    assert judge(EXERCISES["gpt-cached"], NoGradient).mistake == "no-gradient"


def test_a_choice_needs_no_gradients():
    def keep_top_k(logits, k):
        return RIGHT["top-k"][0](logits, k).detach()

    assert judge(EXERCISES["top-k"], keep_top_k).passed


def test_gradients_are_those_of_what_is_given():
    model = nn.Linear(2, 2)
    answer = with_gradients(lambda x, n: model(x) * n, {"x": torch.ones(1, 2), "n": 3}, model)
    assert set(answer.gradients) == {"x", "weight", "bias"}
    assert answer.result.requires_grad is False
    assert torch.allclose(answer.gradients["x"], answer.gradients["bias"] @ model.weight)


def attention_dropping(where):
    def attention(q, k, v, mask=None, causal=False, dropout=0.0):
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
        if where == "scores":
            scores = F.dropout(scores, dropout)
        weights = hidden_scores(scores, mask, causal).softmax(-1)
        if where == "unscaled":
            weights = weights * (torch.rand_like(weights) >= dropout)
        if where == "right":
            weights = F.dropout(weights, dropout)
        y = weights @ v
        return F.dropout(y, dropout) if where == "result" else y

    return attention


@pytest.mark.parametrize(
    ("where", "mistake"),
    [
        ("nowhere", "dropout-ignored"), ("scores", "dropout-of-the-scores"),
        ("result", "dropout-of-the-result"), ("unscaled", "dropout-unscaled"), ("right", ""),
    ],
)  # fmt: skip
def test_dropout_of_attention_weights(where, mistake):
    verdict = judge(EXERCISES["attention"], attention_dropping(where))
    assert verdict.passed is (where == "right")
    assert verdict.mistake == mistake


class AlwaysDropping(HeadsView):
    def forward(self, x, context):
        training, self.training = self.training, True
        y = super().forward(x, context)
        self.training = training
        return y


class NeverDropping(HeadsView):
    def forward(self, x, context):
        training, self.training = self.training, False
        y = super().forward(x, context)
        self.training = training
        return y


class GPTAlways(GPTPlain):
    def hidden_states(self, ids, *, documents=None, cache=None):
        training = self.drop.training
        self.drop.train()
        x = super().hidden_states(ids, documents=documents, cache=cache)
        self.drop.train(training)
        return x


class GPTNever(GPTPlain):
    def hidden_states(self, ids, *, documents=None, cache=None):
        training = self.drop.training
        self.drop.eval()
        x = super().hidden_states(ids, documents=documents, cache=cache)
        self.drop.train(training)
        return x


@pytest.mark.parametrize(
    ("name", "candidate", "mistake"),
    [
        ("grouped-heads", AlwaysDropping, "dropout-in-evaluation"),
        ("grouped-heads", NeverDropping, "no-dropout"),
        ("gpt-cached", GPTAlways, "dropout-in-evaluation"),
        ("gpt-cached", GPTNever, "no-dropout"),
    ],
)
def test_dropout_in_training_only(name, candidate, mistake):
    assert judge(EXERCISES[name], candidate).mistake == mistake


def test_windows_of_a_token_file_and_of_impossible_strides():
    def of_the_file(ids, context_length, stride):
        for x, y in RIGHT["windows"][0](ids, context_length, stride):
            yield x.astype(ids.dtype), y.astype(ids.dtype)

    assert judge(EXERCISES["windows"], of_the_file).mistake == "type-of-the-file"

    def unchecked(ids, context_length, stride):
        try:
            yield from RIGHT["windows"][0](ids, context_length, stride)
        except UserError:
            return

    assert judge(EXERCISES["windows"], unchecked).mistake == "stride-not-checked"

    def other_error(ids, context_length, stride):
        if not 0 < stride <= context_length:
            raise ValueError(stride)
        return RIGHT["windows"][0](ids, context_length, stride)

    verdict = judge(EXERCISES["windows"], other_error)
    assert verdict.mistake == "another-error"
    assert "ValueError" in verdict.example


def test_an_endless_iterator_ends():
    def windows(ids, context_length, stride):
        while True:
            yield ids, ids

    assert not judge(EXERCISES["windows"], windows).passed


def test_the_state_of_adamw_has_the_promised_names():
    class Renamed(RIGHT["adamw"][0]):
        def update(self, parameter, gradient, group):
            state = self.state[parameter]
            for mine, theirs in (("m", "exp_avg"), ("v", "exp_avg_sq"), ("t", "step")):
                if mine in state:
                    state[theirs] = state.pop(mine)
            super().update(parameter, gradient, group)
            for mine, theirs in (("m", "exp_avg"), ("v", "exp_avg_sq"), ("t", "step")):
                state[mine] = state.pop(theirs)

    assert judge(EXERCISES["adamw"], Renamed).mistake == "other-names"


def exercise_with(cases, right, mistakes):
    """An exercise about one function of x."""
    return Exercise(
        name="small", title="", reference=right, cases=lambda: [(case,) for case in cases],
        mistakes=[Mistake(name, f"{name}.", wrong) for name, wrong in mistakes.items()],
        hints=("", "", ""), lesson=1,
    )  # fmt: skip


def double(x):
    return 2 * x


def test_a_mistake_in_one_branch_only_is_recognised():
    exercise = exercise_with(range(1, 9), double, {"plus": lambda x: x + 2, "zero": lambda x: 0})
    # Two of seven effects, and nothing else is wrong.
    assert judge(exercise, lambda x: x + 2 if x in (3, 4) else 2 * x).mistake == "plus"
    # A coincidence: what is there explains one of two failing cases, with one of its effects.
    assert judge(exercise, lambda x: {3: 5, 4: 99}.get(x, 2 * x)).mistake == ""


def test_a_single_failing_case_needs_a_single_explanation():
    mistakes = {"plus": lambda x: x + 3, "square": lambda x: x * x - 4}
    exercise = exercise_with([1, 2, 3, 4, 5], double, mistakes)
    assert judge(exercise, lambda x: 7 if x == 4 else 2 * x).mistake == "plus"
    both = exercise_with([1, 2, 3, 4, 5], double, {**mistakes, "seven": lambda x: 7})
    assert judge(both, lambda x: 7 if x == 4 else 2 * x).mistake == ""


def test_an_error_of_the_learners_is_no_evidence_against_a_mistake():
    exercise = exercise_with([1, 2, 3, 4, 5], double, {"plus": lambda x: x + 3})

    def raises_too(x):
        if x == 5:
            raise IndexError
        return x + 3

    assert judge(exercise, raises_too).mistake == "plus"

    def mostly_raises(x):
        if x > 2:
            raise IndexError
        return x + 3

    assert judge(exercise, mostly_raises).mistake == ""


def test_of_several_ways_to_make_a_mistake_one_is_enough():
    exercise = exercise_with(
        [1, 2, 3], double, {"one more": (lambda x: 2 * x + 1, lambda x: x + 1)}
    )
    assert judge(exercise, lambda x: x + 1).mistake == "one more"
    assert judge(exercise, lambda x: 2 * x + 1).mistake == "one more"
    assert judge(exercise, lambda x: 3 * x + 1).mistake == ""


def test_the_mask_of_one_branch_is_recognised():
    """As many write it: the mask after softmax, but only where it is a boolean one."""
    right = attention_dropping("right")

    def attention(q, k, v, mask=None, causal=False, dropout=0.0):
        if mask is not None and mask.dtype == torch.bool and q.shape[1] == 1:
            weights = (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).softmax(-1)
            return weights.masked_fill(~mask, 0) @ v
        return right(q, k, v, mask, causal, dropout)

    assert judge(EXERCISES["attention"], attention).mistake == "mask-after-softmax"


GRID = torch.arange(1.0, 25.0).view(2, 3, 4) ** 1.5


@pytest.mark.parametrize(
    ("right", "got", "said"),
    [
        (GRID, -GRID, "Every value has the wrong sign."),
        (GRID, GRID * 8**0.5, "Every value is 2.828 times too large: that is sqrt(8)."),
        (GRID, GRID / 4, "Every value is 4 times too small"),
        (GRID, GRID / math.log(2), "1.443 times too large: that is log2(e)."),
        (GRID, GRID + 3, "Every value is too large by 3."),
        (GRID, GRID.log(), "Every value is the logarithm of the right value."),
        (GRID / 9, (GRID / 9).exp(), "Every value is the exponential of the right value."),
        (GRID, 0 * GRID, "Every value is 0."),
        (GRID, GRID.softmax(-1), "These are the right values after one more softmax."),
        (GRID, GRID * torch.arange(1, 4)[:, None], "Each row is right but for a factor of its own"),
        (GRID, GRID + torch.arange(1, 4)[:, None], "for a number that is added to all of it"),
        (GRID, GRID.flip(1), "The order is reversed along the axis of the tokens."),
        (GRID, GRID.roll(1, 2), "one place too late along the axis of the channels."),
        (GRID, GRID.roll(-1, 1), "one place too early along the axis of the tokens."),
        (GRID[0], GRID[0].T, "the axes are in another order: transpose it."),
        (GRID[:, :2, :2], GRID[:, :2, :2].mT, "the axes 1 and 2 are swapped."),
        (GRID, GRID.view(2, 4, 3).mT, "right but in another order."),
        (GRID, GRID.view(6, 4), "The values are right: only the shape is not."),
        (GRID, torch.cat([GRID[:1], GRID[1:] + 1.5 * GRID[1:] ** 2]),
         "Only the last row of the batch is wrong."),
        (GRID, torch.cat([GRID[:, :1], GRID[:, 1:].sin()], 1), "Only tokens from 1 on are wrong."),
        (GRID, torch.cat([GRID[..., :3].sin(), GRID[..., 3:]], 2),
         "Only channels up to 2 are wrong."),
        (GRID, GRID * (1 + 1e-3 * torch.randn(2, 3, 4)), "nearly right: they differ by at most"),
        (GRID, GRID.masked_fill(GRID > 100, math.nan), "nan (not a number) in"),
        (GRID, GRID.masked_fill(GRID > 0, math.inf), "It gives inf. That comes from"),
        (GRID.softmax(-1), GRID.softmax(-1) + torch.rand(2, 3, 4), "Each row should sum to 1, and"),
        (torch.ones(3, 3).tril() > 0, torch.ones(3, 3).tril() < 1,
         "True and False are swapped everywhere."),
        (torch.ones(3, 3).tril() > 0, torch.ones(3, 3) > 0,
         "only True where False is right. Only the values above the diagonal are wrong."),
        (torch.ones(3, 3).tril() > 0, torch.ones(3, 3).tril(-1) > 0,
         "only False where True is right. Only the values on the diagonal are wrong."),
        ([1, 2, 3], [3, 2, 1], "The order is reversed."),
        ([1, 2, 3], [1, 2], "The last value is missing."),
        ([1, 2, 3], [2, 3], "The first value is missing."),
        ([1, 2], [1, 2, 2, 2], "The last 2 values are too much."),
        ([1, 2, 3], [2, 1, 3], "right but in another order."),
        ([1, 2, 3], [2, 3, 4], "Every value is too large by 1."),
        ([1, 2, 3], [1, 9, 3], "Only value 1 is wrong."),
        ([1, 2, 3], [1, 9, 9, 3], "The first value that differs is number 1, counted from 0."),
        ([1, 2], [], "The list is empty."),
        (0.5, -0.5, "The sign is wrong."),
        (torch.arange(8.0) ** 2 + 1, torch.arange(8.0) ** 2 + 1 + torch.arange(8) % 2,
         "every second of the positions, from 1 on"),
    ],
)  # fmt: skip
def test_where_it_differs(right, got, said):
    assert said in where_it_differs(right, got, (8, 3))
    assert difference(right, got)


ODD = st.sampled_from([0.0, -0.0, 1e-9, 1e-6, 1.0, -2.0, 1e30, math.inf, -math.inf, math.nan])


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([(1,), (3,), (2, 3), (1, 2, 3)]), st.data())
def test_whatever_two_tensors_hold_can_be_put_in_words(shape, data):
    """A factor of 0 once ended the judge with a division by zero."""
    size = math.prod(shape)
    one, other = (
        torch.tensor(data.draw(st.lists(ODD, min_size=size, max_size=size))).view(shape)
        for _ in range(2)
    )
    assert isinstance(where_it_differs(one, other, (8, 3)), str)
    assert isinstance(difference(one, other), str)


def test_only_where_a_case_has_something_it_is_said():
    right = RIGHT["layer-norm"][1]

    def wrong_without_bias(x, weight, bias=None, eps=1e-5):
        return right(x, weight, bias, eps) if bias is not None else right(x, weight) * 5 + 1

    verdict = judge(EXERCISES["layer-norm"], wrong_without_bias)
    assert verdict.mistake == ""
    assert "It is wrong only without `bias`." in verdict.diagnosis

    def wrong_for_rows(x, weight, bias=None, eps=1e-5):
        y = right(x, weight, bias, eps)
        return y if x.ndim == 1 else y.sin()

    assert "wrong only where `x` has" in judge(EXERCISES["layer-norm"], wrong_for_rows).diagnosis

    class WrongWithCache(GPTPlain):
        def hidden_states(self, ids, *, documents=None, cache=None):
            x = super().hidden_states(ids, documents=documents, cache=cache)
            return x + torch.rand(x.shape) if cache else x

    verdict = judge(EXERCISES["gpt-cached"], WrongWithCache)
    assert "It is wrong only with `cache`." in verdict.diagnosis


def test_the_case_with_the_largest_difference_is_shown_and_only_its_first_wrong_row():
    right = RIGHT["layer-norm"][0]

    def wrong(x, weight, bias=None, eps=1e-5):
        y = right(x, weight, bias, eps)
        if x.ndim == 1:
            return y + 1e-3
        return torch.cat([y[..., :1, :], y[..., 1:, :] + 100 * torch.rand(y[..., 1:, :].shape)], -2)

    example = judge(EXERCISES["layer-norm"], wrong).example
    assert example.startswith("layer_norm(x=a tensor of shape")
    assert ", row [" in example
    assert "expected  [" in example
    assert len(example.splitlines()) == 3
    assert max(map(len, example.splitlines())) < 200


def test_a_case_is_described_with_the_names_of_its_arguments():
    exercise = EXERCISES["merge"]
    assert described(exercise, ([1], (1, 2), 9)) == "merge(ids=[1], pair=(1, 2), new_id=9)"


@pytest.mark.parametrize("name", EXERCISES)
def test_an_unknown_mistake_gets_words_in_every_exercise(name):
    exercise = EXERCISES[name]

    def slightly(value):
        if isinstance(value, torch.Tensor):
            return value.logical_not() if value.dtype == torch.bool else value + 1
        if isinstance(value, np.ndarray | int | float):
            return value + 1
        if isinstance(value, list | tuple):
            return type(value)(map(slightly, value))
        return {k: slightly(v) for k, v in value.items()} if isinstance(value, dict) else value

    right = answers_of_package(exercise)
    found = [replace(answer, result=slightly(answer.result)) for answer in right]
    verdict = verdict_on(exercise, found, found, mistakes=lambda exercise: [])
    assert not verdict.passed
    assert verdict.diagnosis.endswith(".")
    assert "  expected  " in verdict.example
    assert verdict_on(exercise, right, right).passed


JUDGED_TWICE = """
import os, sys
from nanogpt.learn.exercises import EXERCISES
from nanogpt.learn.judging import judge_file
judge_file(sys.argv[1], EXERCISES["softmax"])
start = os.times()
assert judge_file(sys.argv[1], EXERCISES["softmax"])[0].passed
# Seconds of processors, of this process and its copies.
print(sum(os.times()[:4]) - sum(start[:4]))
"""


def test_a_learner_waits_for_nothing_but_torch(tmp_path):
    """A second file is judged at once, because the first process has loaded everything."""
    (tmp_path / "mine.py").write_text("def softmax(x, dim=-1):\n    return x.softmax(dim)\n")
    alone = [sys.executable, "-c", JUDGED_TWICE, str(tmp_path / "mine.py")]  # without threads
    used = subprocess.run(alone, capture_output=True, text=True, check=True).stdout
    assert float(used) < 1.5
