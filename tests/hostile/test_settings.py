"""Settings, sizes and recipes that cannot be: one line, code 2, nothing built, nothing left."""

import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import pytest

from nanogpt.cli import main
from nanogpt.config import Config, section_name
from nanogpt.memory import refuse_beyond
from nanogpt.training.variants import TABLES
from nanogpt.workers import MOST_FOR_A_CORE, usable_cores

from conftest import SMALL, TEXT

TRAIN = ["train", "--run", "new", "--data.source=abc.txt"]

DIGITS = "9" * 5000
# What no setting of a type may be.
WRONG = {
    int: ["", "x", "1.5", "nan", "1e3", "-1", str(2**63), DIGITS],
    float: ["", "x", "nan", "inf", "1e400", "-1", "1e300", "1e-300", DIGITS],
    bool: ["", "maybe", "2", "None"],
}
SETTINGS = {
    f"{section_name(type(section))}.{field.name}": type(getattr(type(section), field.name))
    for section in vars(Config()).values()
    for field in fields(section)
}
ONE_BY_ONE = [
    (f"--{name.replace('_', '-')}={value}", name)
    for name, kind in SETTINGS.items()
    for value in WRONG.get(kind, [])
]
VARIANTS = [
    (f"--{name.replace('_', '-')}={value}", name)
    for name in [*TABLES, "model.kernels", "train.device", "train.precision", "train.compile"]
    for value in ("nonsense", "", "PLAIN ", "x" * 100_000)
    if (name, value) != ("model.attention", "")  # which leaves it to model.kernels
]
MORE = [
    ("--model.n-layer=100000000", "model.n_layer"),
    ("--model.n-embd=1000000000000", "model.n_embd"),
    ("--model.n-head=9000000000000000000", "model.n_head"),
    ("--model.n-head=1000000", "model.n_head"),
    ("--model.context-length=9000000000000000000", "model.context_length"),
    ("--model.n-kv-head=5", "model.n_kv_head"),
    ("--model.vocab-size=0", "model.vocab_size"),
    ("--data.vocab-size=2147483648", "data.vocab_size"),
    ("--data.vocab-size=0", "data.vocab_size"),
    ("--data.val-fraction=1", "data.val_fraction"),
    ("--data.source=", "data.source"),
    ("--data.source= ", "data.source"),
    ("--train.grad-accum-steps=100000000000", "train.grad_accum_steps"),
    ("--train.eval-batches=1000000000000", "train.eval_batches"),
    ("--train.warmup-steps=9000000000000000000", "train.warmup_steps"),
    ("--train.weight-decay=1e300", "train.weight_decay"),
    ("--train.weight-decay=1e20", "train.weight_decay"),
    ("--train.eps=1e20", "train.eps"),
    ("--train.eps=0", "train.eps"),
    ("--model.init-std=1e20", "model.init_std"),
    ("--train.beta1=1", "train.beta1"),
    ("--train.min-lr=1", "train.min_lr"),
    ("--train.decay-share=1.1", "train.decay_share"),
    ("--train.max-steps=0", "train.max_steps"),
    ("--train.targets=nan", "train.targets"),
    ("--train.targets=1.5,inf", "train.targets"),
    ("--train.targets=-1", "train.targets"),
    ("--train.targets=1e999", "train.targets"),
    ("--train.targets=1.5;1.4", "train.targets"),
    ("--train.freeze=nothing.*", "train.freeze"),
    ("--train.freeze=*", "train.freeze"),
    ("--train.device=cuda:99999999999999999999", "train.device"),
    ("--train.device=cpu:x", "train.device"),
    ("--sample.max-new-tokens=1000000000000", "sample.max_new_tokens"),
    ("--sample.top-p=0", "sample.top_p"),
    ("--sample.temperature=1e-9", "sample.temperature"),
]


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A working directory with a text."""
    (tmp_path / "abc.txt").write_text(TEXT)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def complaint_of(arguments: list[str], capsys) -> str:
    """What a command says that must refuse its arguments at once, and leave nothing."""
    before, began = sorted(Path().rglob("*")), time.process_time()
    assert main(arguments) == 2
    assert time.process_time() - began < 10
    assert sorted(Path().rglob("*")) == before
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("nanogpt: ")
    assert shown.err.count("\n") == 1
    assert len(shown.err) < 1100
    return shown.err


@pytest.mark.parametrize(
    ("option", "name"), ONE_BY_ONE + VARIANTS + MORE, ids=lambda text: text[:60]
)
def test_a_setting_that_cannot_be_is_named(option, name, here, capsys):
    assert name in complaint_of([*TRAIN, *SMALL, option], capsys)


@pytest.mark.parametrize(
    "options",
    [
        "train demo --train.batch-size=1000000000",
        "train demo --train.batch-size=9000000000000000000",
        "train demo --train.batch-size=300000",
        "train demo --train.batch-size=1000000 --train.grad-accum-steps=100000",
        "train demo --model.context-length=100000000",
        "train demo --model.n-embd=1000000 --model.n-head=1",
        "train demo --model.n-embd=100000 --model.n-head=1",
        "train demo --model.n-layer=10000 --model.n-embd=10000 --model.n-head=1",
        "train gpt2-124m --train.batch-size=10000",
        "train speedrun --train.batch-size=1000000",
        "train --model.n-embd=20000 --model.n-head=1 --data.source=abc.txt",
        "demo --train.batch-size=1000000000",
        "demo --model.context-length=100000000",
        "demo --model.n-embd=100000 --model.n-head=1",
        "plan --model.n-embd=1000000 --model.n-head=1",
        "lab scaling --train.batch-size=1000000000",
        "lab scaling --model.n-embd=960000",
        "lab run huge.toml",
        "lab run wide.toml",
    ],
)
def test_a_run_that_does_not_fit_is_refused_with_the_number(options, here, capsys):
    arms = '"model.n_embd" = 960\n[vary]\n"train.batch_size" = [4, 1000000000]\n'
    (here / "huge.toml").write_text(f'recipe = "demo"\nbudget.steps = 4\n[settings]\n{arms}')
    arms = '[vary]\n"model.n_embd" = [96, 100000]\n"model.n_head" = [1]\n'
    (here / "wide.toml").write_text(f'recipe = "demo"\nbudget.steps = 4\n{arms}')
    complaint = complaint_of(options.split(), capsys)
    assert "this needs at least " in complaint
    assert "of memory; this machine has " in complaint
    assert "free: lower " in complaint


@pytest.mark.parametrize(
    "option",
    ["--model.context-length=100000000", "--train.batch-size=1000000000",
     "--train.max-steps=9000000000000000000", "--train.batch-size=9000000000000000000"],
)  # fmt: skip
def test_a_plan_may_be_for_another_machine(option, here, capsys):
    assert main(["plan", "demo", option]) == 0
    assert "largest batch that fits into the" in capsys.readouterr().out


def test_a_run_that_is_begun_by_another_program_is_refused_too(here):
    from nanogpt.config import with_settings
    from nanogpt.errors import UserError
    from nanogpt.training.start import Trainer

    config = with_settings(Config(), train={"batch_size": 10**9})
    with pytest.raises(UserError, match=r"this needs at least .* of memory"):
        Trainer.start(here / "new", config)
    assert not (here / "new").exists()


def test_where_the_system_does_not_say_what_is_free_nothing_is_refused():
    refuse_beyond(None, {"train.batch_size": 1e30})


@pytest.mark.parametrize(
    ("option", "what"),
    [
        ("prepare abc.txt --processes 0", "--processes 0: use 1 to "),
        ("prepare abc.txt --processes=-3", "--processes -3: use 1 to "),
        ("prepare abc.txt --processes 100000", "--processes 100000: use 1 to "),
        (f"prepare abc.txt --processes {DIGITS}", "--processes"),
        ("prepare abc.txt --processes 1.5", "--processes"),
        ("tokenizer train abc.txt --processes 0", "--processes 0: use 1 to "),
        ("tokenizer train abc.txt --processes=-1", "--processes -1: use 1 to "),
        ("tokenizer train abc.txt --processes 100000", "--processes 100000: use 1 to "),
        ("tokenizer train abc.txt --vocab-size 2147483648", "vocab_size=2147483648: use at most"),
        ("tokenizer train abc.txt --vocab-size=-1", "vocab_size=-1: use at least"),
        ("tokenizer stats abc.txt --vocab-size 2147483648", "vocab_size=2147483648: use at most"),
        ("lab run optimizer --jobs 0", "--jobs 0: use 1 to "),
        ("lab run optimizer --jobs=-1", "--jobs -1: use 1 to "),
        ("lab run optimizer --jobs 100000", "--jobs 100000: use 1 to "),
        ("lab scaling --jobs 100000", "--jobs 100000: use 1 to "),
        ("lab scaling --minutes nan", "--minutes nan: use a positive number"),
        ("lab scaling --minutes 1e999", "--minutes inf: use a positive number"),
        ("lab scaling --minutes=-1", "--minutes -1.0: use a positive number"),
        ("demo --seconds nan", "--seconds nan: use a finite number, at least 0"),
        ("demo --seconds=-5", "--seconds -5.0: use a finite number, at least 0"),
        ("demo --seconds 1e999", "--seconds inf: use a finite number, at least 0"),
        ("generate run --num-samples 0", "--num-samples 0: use at least 1"),
        ("generate run --num-samples=-1", "--num-samples -1: use at least 1"),
        ("generate run --num-samples 1000000000", "free: lower --num-samples"),
        (f"generate run --num-samples {10**30}", "free: lower --num-samples"),
        (f"generate run --num-samples {DIGITS}", "--num-samples"),
        ("generate run --sample.max-new-tokens=1000000000000", "max_new_tokens"),
        ("evaluate run --batch-size=-1", "--batch-size -1: use at least 1"),
        ("evaluate run --stride=-1", "--stride -1: use at least 1"),
        ("train --train.precision=float16 --train.device=cpu", "float16' is for GPUs"),
        ("train demo --train.precision=float16 --train.device=cpu", "float16' is for GPUs"),
        ("prepare --data.source=", "data.source=''"),
        ("prepare --data.batches=nothing", "data.batches='nothing' is unknown"),
        ("train demoo", "recipe='demoo' is unknown: did you mean demo?"),
        ("train /dev/zero", "/dev/zero: no such recipe"),
        ("plan none.toml", "none.toml: no such recipe"),
        ("lab run nothing", "study='nothing' is unknown"),
    ],
    ids=lambda text: text[:50],
)
def test_an_option_that_cannot_be_is_named(option, what, here, capsys):
    assert what in complaint_of(option.split(" "), capsys)


@pytest.mark.parametrize("rows", [10**6, 10**7])
def test_samples_that_do_not_fit_are_refused_before_they_are_begun(rows, model):
    from nanogpt.cli.generate import refuse_rows
    from nanogpt.errors import UserError

    with pytest.raises(UserError, match="free: lower --num-samples"):
        refuse_rows(model, rows * 100, 16)
    refuse_rows(model, 3, 16)


def test_as_many_processes_as_are_allowed_do_their_work(here, capsys):
    processes = str(MOST_FOR_A_CORE * min(usable_cores(), 1))
    assert main(["prepare", "abc.txt", "--processes", processes, "--data.vocab-size=300"]) == 0


# Recipes that are damaged, each with what its complaint must say.
RECIPES = {
    "empty brackets": (b"[", "is not valid TOML"),
    "no value": (b"[model]\nn_layer =", "is not valid TOML"),
    "a key twice": (b"[model]\nn_layer = 1\nn_layer = 2\n", "is not valid TOML"),
    "a section twice": (b"[model]\nn_layer = 1\n[model]\nn_embd = 8\n", "is not valid TOML"),
    "not UTF-8": (b"[model]\nposition = '\xff\xfe'\n", "is not UTF-8 text"),
    "UTF-16": ("[model]\n".encode("utf-16"), "is not UTF-8 text"),
    "NULs": (b"\0" * 1000, "is not valid TOML"),
    "a NUL in a string": (b"[model]\nposition = 'a\0b'\n", "is not valid TOML"),
    "a NUL in a path": (b'[data]\nsource = "a\\u0000b"\n', "data.source"),
    "a lone surrogate": (b'[data]\nsource = "\\ud800"\n', "is not valid TOML"),
    "5,000 digits": (b"[model]\nn_layer = " + b"9" * 5000, "holds a number or a date"),
    "5,000 hex digits": (b"[model]\nn_layer = 0x" + b"f" * 5000, "model.n_layer"),
    "5,000 hex digits for a float": (b"[train]\nlr = 0x" + b"f" * 5000, "train.lr"),
    "a float of 5,000 digits": (b"[train]\nlr = " + b"9" * 5000 + b".0", "train.lr=inf"),
    "a day that is not": (b"[model]\nn_layer = 2026-02-31\n", "Invalid date"),
    "a day": (b"[model]\nn_layer = 2026-02-01\n", "model.n_layer"),
    "a day for text": (b"[model]\nposition = 2026-02-01\n", "should be a string"),
    "a list for a number": (b"[model]\nn_layer = [1, 2]\n", "model.n_layer"),
    "a table for a number": (b"[model.n_layer]\na = 1\n", "model.n_layer"),
    "a table for text": (b"[model]\nposition = {a = 1}\n", "model.position"),
    "a list for a flag": (b"[model]\nbias = [true]\n", "model.bias"),
    "a string for a number": (b"[model]\nn_layer = 'four'\n", "model.n_layer"),
    "a number for text": (b"[model]\nposition = 3\n", "model.position=3 should be a string"),
    "a flag for a number": (b"[model]\nn_layer = true\n", "model.n_layer"),
    "a fraction for a number": (b"[model]\nn_layer = 1.5\n", "model.n_layer"),
    "nan": (b"[train]\nlr = nan\n", "train.lr"),
    "infinity": (b"[train]\nlr = inf\n", "train.lr"),
    "a number for a section": (b"model = 3\n", "model=3 should be a section"),
    "a list for a section": (b"model = [1]\n", "should be a section"),
    "tables for a section": (b"[[model]]\nn_layer = 1\n", "should be a section"),
    "an unknown section": (b"[modle]\nn_layer = 1\n", "modle is not a section"),
    "an unknown setting": (b"[model]\nn_layr = 1\n", "did you mean n_layer?"),
    "a long unknown setting": (b"[model]\n" + b"n" * 100_000 + b" = 1\n", "is not a setting"),
    "a long string": (b"[model]\nposition = '" + b"x" * 900_000 + b"'\n", "is unknown"),
    "too long": (b"#" * 1_000_001, "is no recipe: it has 1,000,001 characters"),
    "deep lists": (b"a = " + b"[" * 10_000 + b"]" * 10_000, "nests its tables too deep"),
    "rather deep lists": (b"a = " + b"[" * 90 + b"]" * 90, "nests its tables too deep"),
    "deep tables": (b"a = " + b"{b = " * 10_000 + b"1" + b"}" * 10_000, "nests its tables too"),
    "a long dotted key": (b"a." * 10_000 + b"b = 1", "nests its tables too deep"),
    "many long dotted keys": (b"\n".join([b"a." * 150 + b"b = 1"] * 3000), "is not valid TOML"),
    "long dotted keys in a table": (b"a = {" + b"a." * 9000 + b"b = 1}", "nests its tables too"),
    "a long section": (b"[" + b"a." * 10_000 + b"b]\n", "nests its tables too deep"),
    "unclosed lists": (b"a = " + b"[" * 100_000, "recipe.toml"),
}


@pytest.mark.parametrize("command", ["train", "plan", "lab scaling"])
@pytest.mark.parametrize("damage", RECIPES)
def test_a_damaged_recipe_costs_one_line(damage, command, here, capsys):
    data, what = RECIPES[damage]
    (here / "recipe.toml").write_bytes(data)
    complaint = complaint_of([*command.split(), "recipe.toml"], capsys)
    assert "recipe.toml" in complaint
    assert what in complaint


GOOD = {
    "recipe": '"demo"', "seeds": "[1, 2]", "budget": "{steps = 4}",
    "vary": '{"model.position" = ["learned", "none"]}',
}  # fmt: skip
STUDIES = [
    ({"arms": "3"}, "arms=3 should be a list"),
    ({"arms": "[3]"}, "arms=[3]: write [[arms]]"),
    ({"arms": "[]", "vary": None}, "two or more [[arms]]"),
    ({"arms": '[{name = "a"}]', "vary": None}, "two or more [[arms]]"),
    ({"arms": '[{name = "a"}, {name = "a"}]', "vary": None}, "a name of its own"),
    ({"arms": '[{name = "a b"}, {name = "a-b"}]', "vary": None}, "would share a folder"),
    ({"arms": '[{name = "a"}, {name = "A"}]', "vary": None}, "would share a folder"),
    ({"arms": f'[{{name = "a"}}, {{name = "{"b" * 300}"}}]', "vary": None}, "too long a name"),
    ({"arms": '[{name = "a"}, {name = "b"}]'}, "either [vary]"),
    ({"vary": None}, "either [vary]"),
    ({"vary": "3"}, "vary=3 should be a table"),
    ({"vary": "[1]"}, "vary=[1] should be a table"),
    ({"vary": "{}"}, "nothing varies"),
    ({"vary": '{"model.position" = 3}'}, "use a list of values"),
    ({"vary": '{"model.position" = []}'}, "use a list of values"),
    ({"vary": '{"position" = [1, 2]}'}, "position is not a setting"),
    ({"vary": '{"model.position" = ["none", 3]}'}, "model.position=3 should be a string"),
    ({"vary": '{"train.lr" = [1e-3, "x"]}'}, "train.lr='x'"),
    ({"vary": f'{{"train.seed" = {list(range(1001))}}}'}, "more than 1000 arms"),
    (
        {"vary": "{" + ", ".join(f'"train.a{n}" = {list(range(99))}' for n in range(9)) + "}"},
        "more than 1000 arms",
    ),
    ({"seeds": "3"}, "seeds=3 should be a list"),
    ({"seeds": "[]"}, "use some different whole numbers"),
    ({"seeds": "[1, 1]"}, "use some different whole numbers"),
    ({"seeds": "[-1]"}, "use some different whole numbers"),
    ({"seeds": "[1.5]"}, "use some different whole numbers"),
    ({"seeds": "[true]"}, "use some different whole numbers"),
    ({"seeds": '["1"]'}, "use some different whole numbers"),
    ({"seeds": "[[1]]"}, "use some different whole numbers"),
    ({"seeds": f"[{2**63}]"}, "use some different whole numbers"),
    ({"seeds": f"[0x{'f' * 5000}]"}, "use some different whole numbers"),
    ({"budget": "3"}, "budget=3 should be a table"),
    ({"budget": "{}"}, "give one of steps, tokens, seconds"),
    ({"budget": "{steps = 1, tokens = 2}"}, "give one of steps, tokens, seconds"),
    ({"budget": "{hours = 1}"}, "give one of steps, tokens, seconds"),
    ({"budget": '{steps = "4"}'}, "budget.steps='4': use a positive number"),
    ({"budget": "{steps = true}"}, "budget.steps=True: use a positive number"),
    ({"budget": "{steps = nan}"}, "budget.steps=nan: use a positive number"),
    ({"budget": "{steps = inf}"}, "budget.steps=inf: use a positive number"),
    ({"budget": "{steps = -1}"}, "budget.steps=-1: use a positive number"),
    ({"budget": "{steps = 1e25}"}, "train.max_steps"),
    ({"budget": f"{{steps = 0x{'f' * 5000}}}"}, "use a positive number"),
    ({"budget": "{steps = [1]}"}, "use a positive number"),
    ({"settings": "3"}, "settings=3 should be a table"),
    ({"settings": "{n_layer = 3}"}, "n_layer is not a setting: write its section"),
    ({"settings": "{model = 3}"}, "model is not a setting"),
    ({"plugins": '"a.py"'}, "plugins='a.py' should be a list"),
    ({"plugins": "[3]"}, "plugins=[3]: write the names of files"),
    ({"plugins": '["none.py"]'}, "none.py: no such file"),
    ({"question": "3"}, "question=3 should be a string"),
    ({"recipe": "3"}, "recipe='3' is unknown"),
    ({"recipe": '"none.toml"'}, "none.toml: no such recipe"),
    ({"sedes": "[1]"}, "did you mean seeds?"),
]


@pytest.mark.parametrize(("change", "what"), STUDIES, ids=lambda value: str(value)[:60])
def test_a_study_that_cannot_be_costs_one_line(change, what, here, capsys):
    lines = [f"{key} = {value}" for key, value in (GOOD | change).items() if value is not None]
    (here / "study.toml").write_text("\n".join(lines))
    assert what in complaint_of(["lab", "run", "study.toml"], capsys)


@pytest.mark.parametrize("damage", RECIPES)
def test_a_damaged_study_costs_one_line(damage, here, capsys):
    (here / "study.toml").write_bytes(RECIPES[damage][0])
    assert "study.toml" in complaint_of(["lab", "run", "study.toml"], capsys)


@pytest.mark.parametrize("command", ["train", "plan", "lab run"])
def test_a_recipe_that_is_no_file_costs_one_line(command, here, capsys):
    (here / "folder.toml").mkdir()
    (here / "loop.toml").symlink_to("loop.toml")
    for name in ("folder.toml", "loop.toml", "none.toml", ".", "", "x" * 5000 + ".toml"):
        assert name[:100] in complaint_of([*command.split(), name], capsys)


@pytest.mark.parametrize(
    "arguments",
    [
        "train demoo", "train demo --train.lrr=1", "train demo --train.lr=x", "train",
        "train demo --train.batch-size=1000000000", "train demo --train.targets=nan",
        "train --model.n-embd=100", "plan demoo", "plan --model.n-layer=100000000",
        "plan demo --model.n-layer=x", "demo --seconds=x", "demo --train.batch-size=1000000000",
        "prepare none.txt", "prepare abc.txt --processes=0", "prepare --data.vocab-size=2147483648",
        "generate run --num-samples=1000000000", "generate run --sample.top-k=x",
        "generate run --sample.topk=1", "evaluate run --batch-size=0", "evaluate run --stridee=2",
        "lab run nothing", "lab run huge.toml", "lab run optimizer --jobs=0", "lab scaling demoo",
        "lab scaling --minutes=nan", "tokenizer train --vocab-size=x",
    ],
)  # fmt: skip
def test_what_can_be_refused_without_torch_is_refused_before_it_is_loaded(arguments, here):
    """To load it takes a second or more."""
    arms = '[vary]\n"train.batch_size" = [4, 1000000000]\n'
    (here / "huge.toml").write_text(f'recipe = "demo"\nbudget.steps = 4\n{arms}')
    code = (
        "import sys; from nanogpt.cli import main; code = main(sys.argv[1:]);"
        "print(code, 'torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code, *arguments.split()]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "2 False\n", done.stderr


def test_the_forms_of_weights_that_can_be_named_are_those_that_there_are():
    """The command line knows them without torch."""
    from nanogpt.cli import weights
    from nanogpt.generation import packing

    assert tuple(packing.WEIGHTS) == weights.WEIGHTS
