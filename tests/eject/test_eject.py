"""A file that eject makes computes what the package computes, bit for bit."""

import ast
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from nanogpt.cli import main
from nanogpt.config import Config, load_config, with_settings
from nanogpt.eject.eject import eject, settings_of_run
from nanogpt.errors import UserError
from nanogpt.generation.stream import generate_text
from nanogpt.lab.plugin import load_plugin
from nanogpt.text.tokenfiles import write_token_file
from nanogpt.text.tokenizer import CharTokenizer
from nanogpt.training.checkpoint import find_checkpoint, load_state
from nanogpt.training.load import load
from nanogpt.training.records import Step, Validation
from nanogpt.training.start import Trainer
from nanogpt.training.variants import TABLES, added_since, snapshot

from conftest import MODERN, TEXT, small_run

ROOT = Path(__file__).parent.parent.parent
REFUSED = {"train.objective", "policy.reward"}  # what is learned otherwise than the next token
LATER = ("tutor-answers", "tutor-policy")  # stages that begin with the weights of another
RECIPES = [p for p in sorted(ROOT.glob("configs/*.toml")) if p.stem not in LATER]
PLUGINS = sorted((ROOT / "tests" / "plugins").glob("*.py"))
CHOICES = [(setting, name) for setting, table in TABLES.items() for name in table
           if setting not in REFUSED]  # fmt: skip


def module_of(text: str) -> ModuleType:
    """The file as a module of its own, without a process of its own."""
    module = ModuleType("ejected")
    exec(compile(text, "ejected", "exec"), vars(module))
    return module


def curve_of_package(run: Path, config: Config) -> list[dict]:
    """What the package's training says."""
    found = []
    for r in Trainer.start(run, config).run():
        if isinstance(r, Step):
            found.append({"step": r.step, "loss": r.loss, "lr": r.lr, "grad_norm": r.grad_norm})
        if isinstance(r, Validation):
            found.append({"step": r.step, "val_loss": r.val_loss})
    return found


def check(config: Config, folder: Path, temperature: float = 0.0) -> str:
    """Loss curves, texts and checkpoints of the package and of the file are the same.

    And the file is clean by the rules of the package: nothing in it is without a use.
    """
    text = eject(config)
    assert ruff("check --ignore D1", text) == ""  # plugins explain what they like
    module = module_of(text)
    curve = [r for r in module.train(folder / "file", []) if "sample" not in r]
    assert curve == curve_of_package(folder / "package", config)
    settings = replace(config.sample, temperature=temperature, max_new_tokens=40)
    module.TEMPERATURE, module.MAX_NEW_TOKENS = temperature, 40
    tokenizer = module.load_tokenizer()
    texts = []
    for name in ("file", "package"):  # each opens what the other has written
        model, _, state = module.begin(folder / name, tokenizer)
        assert state["step"] == curve[-1]["step"]
        texts.append(module.sample(model, tokenizer, config.sample.prompt))
        loaded = load(folder / name)
        texts.append("".join(generate_text(loaded.model, loaded.tokenizer, settings)))
    assert texts[0]
    assert len(set(texts)) == 1
    return text


def ruff(command: str, text: str) -> str:
    """What ruff complains of in a text, by the rules of the package."""
    options = ["--config", str(ROOT / "pyproject.toml"), "--quiet", "-"]
    words = [sys.executable, "-m", "ruff", *command.split(), *options]
    return subprocess.run(words, input=text, capture_output=True, text=True).stdout


def lines(text: str) -> int:
    """How many lines are not blank."""
    return sum(bool(line.strip()) for line in text.split("\n"))


def lines_of_part(text: str, heading: str) -> int:
    """How many lines are not blank in a part of a file, with its heading."""
    part = text.partition(f"\n# {heading}")[2]
    return lines(re.split(r"\n# [A-Z][^\n]*\n\n|\n\ndef main", part)[0])


@pytest.fixture(scope="module")
def characters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Token files of characters."""
    folder = tmp_path_factory.mktemp("characters")
    tokenizer = CharTokenizer.train([TEXT])
    write_token_file(folder / "train.bin", [TEXT[:-4000]], tokenizer)
    write_token_file(folder / "val.bin", [TEXT[-4000:]], tokenizer)
    tokenizer.save(folder / "tokenizer.json")
    return folder


def shrunk(recipe: Path, prepared: Path, characters: Path) -> Config:
    """A recipe with the sizes of a moment."""
    config = load_config(recipe)
    folder = characters if config.data.tokenizer == "char" else prepared
    train = {"max_steps": 20, "batch_size": 4, "eval_interval": 10, "warmup_steps": 3}
    train |= {"grad_accum_steps": min(2, config.train.grad_accum_steps), "checkpoint_interval": 8}
    train |= {"eval_batches": min(2, config.train.eval_batches), "snapshots": 0}
    train |= {"sample_interval": min(20, config.train.sample_interval)}
    train |= {"device": "cpu", "precision": "float32", "compile": "off"}
    if not config.train.warmup_steps:
        del train["warmup_steps"]
    sizes = {"context_length": 16, "n_layer": 2, "n_head": 2, "n_embd": 32}
    return with_settings(config, model=sizes, data={"folder": str(folder)}, train=train)


@pytest.fixture(autouse=True)
def _tables_as_before():
    before = snapshot()
    yield
    for setting, table in TABLES.items():
        table.clear()
        table.update(before[setting])
    for name in [name for name in sys.modules if name.startswith("nanogpt_plugin_")]:
        del sys.modules[name]


@pytest.mark.parametrize(
    "recipe",
    [
        pytest.param(
            path,
            id=path.stem,
            marks=[pytest.mark.slow] if path.stem in ("speedrun-large", "induction-heads") else [],
        )
        for path in RECIPES
    ],
)
def test_a_recipe_as_a_file_computes_the_same(recipe, prepared_once, characters, tmp_path):
    text = check(shrunk(recipe, prepared_once, characters), tmp_path)
    assert ruff("check", text) == ""
    assert ruff("format", text) == text


@pytest.mark.slow
@pytest.mark.parametrize(("setting", "name"), CHOICES)
def test_each_variant_as_a_file_computes_the_same(setting, name, prepared_once, tmp_path):
    section, key = setting.split(".")
    check(with_settings(small_run(prepared_once, max_steps=20), **{section: {key: name}}), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("path", PLUGINS, ids=lambda path: path.stem)
def test_a_variant_of_a_plugin_is_carried_along(path, prepared_once, tmp_path):
    before = snapshot()
    load_plugin(str(path))
    ((setting, name),) = added_since(before)
    section, key = setting.split(".")
    if setting in REFUSED:  # a reward needs the objective that asks for it
        asked = {"train": {"objective": "policy"}} | {section: {key: name}}
        with pytest.raises(UserError, match=r"train\.objective=.* cannot be ejected"):
            eject(with_settings(Config(), **asked))
        return
    check(with_settings(small_run(prepared_once, max_steps=20), **{section: {key: name}}), tmp_path)


COUNTING = """
from nanogpt.generation.sampling import SAMPLERS, Sampler

class Counting(Sampler):
    def __init__(self, config, rows):
        super().__init__(config, rows)
        self.count = 0

    def filter(self, logits):
        self.count += 1
        return super().filter(logits) * (1 + self.count % 3)

SAMPLERS["counting"] = Counting
"""


def test_two_definitions_of_one_name_are_one_line(tmp_path):
    mine = COUNTING.replace("class", "def softmax(x):\n    return x\n\nclass", 1)
    mine = mine.replace("super().filter(logits)", "softmax(super().filter(logits))")
    (tmp_path / "mine.py").write_text(mine)
    load_plugin(str(tmp_path / "mine.py"))
    with pytest.raises(UserError, match="two definitions are called softmax"):
        eject(with_settings(Config(), sample={"sampler": "counting"}))


def test_what_is_counted_up_is_no_constant(prepared_once, tmp_path):
    """An attribute is given a value in one place only, and changes nevertheless."""
    (tmp_path / "counting.py").write_text(COUNTING)
    load_plugin(str(tmp_path / "counting.py"))
    config = with_settings(small_run(prepared_once), sample={"sampler": "counting"})
    assert "self.count += 1" in check(config, tmp_path, temperature=0.8)


TANGLED = """
from dataclasses import dataclass, replace

from torch import Tensor

from nanogpt.generation.sampling import SAMPLERS, Sampler


@dataclass(frozen=True)
class Scale:
    factor: float
    shift: Tensor | None


def scaled(x: Tensor, scale: Scale) -> Tensor:
    return moved(x * scale.factor, scale.shift)


def moved(x: Tensor, shift: Tensor | None) -> Tensor:
    if shift is None:
        return x
    return x + shift


def doubled(x: Tensor) -> Tensor:
    'With a source (Nobody 2000) it stays a function.'
    return x * 2


def even(n: int) -> bool:
    return odd(n - 1) if n else True


def odd(n: int) -> bool:
    return even(n - 1) if n else False


class Base(Sampler):
    def filter(self, logits):
        return super().filter(logits)


class Tangled(Base):
    def more(self, logits: Tensor, extra: Tensor = None) -> Tensor:
        if extra is None:
            return logits
        return logits + extra

    def filter(self, logits):
        logits = self.more(self.more(super().filter(logits)), 0.5 * logits)
        scale = Scale(2.0 if even(logits.shape[0]) else 0.5, doubled(logits))
        later = replace(scale, shift=None)
        return scaled(scaled(logits, scale), later)


SAMPLERS["tangled"] = Tangled
"""


def test_a_plugin_whose_parts_need_each_other_and_give_none(prepared_once, tmp_path):
    """What its types say too much of is no knowledge: a None that comes is asked for."""
    (tmp_path / "tangled.py").write_text(TANGLED)
    load_plugin(str(tmp_path / "tangled.py"))
    config = with_settings(small_run(prepared_once), sample={"sampler": "tangled"})
    text = check(config, tmp_path, temperature=0.8)
    assert "if extra is None" in text
    assert "if shift is None" in text


MODELS = [
    {"n_kv_head": 1}, {"window": 3}, {"qk_norm": True}, {"zero_init": True}, {"bias": False},
    {"attention_dropout": 0.1}, {"kernels": "plain"}, {**MODERN, "window": 5, "n_kv_head": 1},
    {"position": "alibi", "window": 3},
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS, ids=str)
def test_other_settings_of_the_model_as_a_file_compute_the_same(model, prepared_once, tmp_path):
    check(with_settings(small_run(prepared_once, max_steps=20), model=model), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "sample",
    [{"top_p": 0.9}, {"min_p": 0.1, "top_k": 0}, {"repetition_penalty": 1.5}, {"prompt": ""}],
    ids=str,
)
def test_what_is_drawn_is_the_same(sample, prepared_once, tmp_path):
    check(with_settings(small_run(prepared_once), sample=sample), tmp_path, temperature=0.8)


def test_the_files_are_short_and_need_torch_and_numpy_alone():
    """nanoGPT's model.py, train.py and sample.py have 599 lines, without a tokenizer.

    The tokenizer, and writing and reading the package's checkpoints, are counted apart.
    """
    known = {*sys.stdlib_module_names, "torch", "numpy"}
    for name, limit, limit_in_all in (("gpt2-124m", 296, 443), ("speedrun", 400, 504)):
        text = eject(load_config(ROOT / "configs" / f"{name}.toml"), name)
        apart = [lines_of_part(text, heading) for heading in ("The tokenizer", "Checkpoints")]
        assert min(apart) >= 20, name
        assert lines(text) - sum(apart) <= limit, name
        assert lines(text) <= limit_in_all, name
        imports = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Import)]
        assert {a.name.partition(".")[0] for n in imports for a in n.names} <= known
        froms = [n.module for n in ast.walk(ast.parse(text)) if isinstance(n, ast.ImportFrom)]
        assert {module.partition(".")[0] for module in froms} <= known


def test_the_tokenizer_is_the_one_that_lies_beside_the_tokens(prepared_once, characters, tmp_path):
    """Whatever the recipe would train by itself."""
    assert "class Tokenizer" in check(
        shrunk(ROOT / "configs" / "speedrun.toml", prepared_once, prepared_once), tmp_path / "a"
    )
    assert "class CharTokenizer" in check(
        shrunk(ROOT / "configs" / "demo.toml", characters, characters), tmp_path / "b"
    )


def test_token_files_that_the_file_could_not_read_are_one_line(prepared_once, tmp_path):
    data = shutil.copytree(prepared_once, tmp_path / "data")
    config = small_run(data)
    ids = np.fromfile(data / "val.bin", "<u2")
    (data / "val.json").unlink()
    header = np.zeros(256, "<i4")  # of llm.c
    header[:3] = 20240520, 1, len(ids)
    (data / "val.bin").write_bytes(header.tobytes() + ids.tobytes())
    with pytest.raises(UserError, match=r"val\.bin is more than plain ids"):
        eject(config)
    (data / "val.bin").write_bytes(ids.tobytes())
    eject(config)
    (data / "val.bin").rename(data / "val-00000-of-00001.bin")
    with pytest.raises(UserError, match=r"val\.bin is missing"):
        eject(config)
    (data / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"tokenizer\.json is missing"):
        eject(config)
    for path in data.glob("*.bin"):
        path.unlink()
    eject(config)  # nothing is there yet
    config = with_settings(config, data={"folder": "s3://bucket/data"})
    with pytest.raises(UserError, match="is a URL"):
        eject(config)


def test_a_file_says_what_is_missing(prepared_once, tmp_path, monkeypatch):
    """In one line, before it trains or writes noise."""
    monkeypatch.chdir(tmp_path)
    for recipe, kind in (("demo", "`"), ("speedrun", " --data.tokenizer char`")):
        module = module_of(eject(load_config(ROOT / "configs" / f"{recipe}.toml")))
        with pytest.raises(SystemExit, match=rf"prepare TEXT --data\.folder data{kind}"):
            module.main(["train", "run"])
    with pytest.raises(SystemExit, match="typo has no checkpoint: train it first"):
        module_of(eject(small_run(prepared_once))).main(["sample", "typo"])
    assert not [*tmp_path.iterdir()]


def test_ctrl_c_costs_no_step(prepared_once, tmp_path):
    config = small_run(
        prepared_once, max_steps=10**6, eval_interval=10**6, checkpoint_interval=10**6
    )
    (tmp_path / "my_gpt.py").write_text(eject(config))
    command = [sys.executable, str(tmp_path / "my_gpt.py"), "train", str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        seen = next(line for line in process.stdout if line.startswith("step 3 "))
        process.send_signal(signal.SIGINT)
        last = [seen, *process.stdout][-1]
    assert process.returncode == 0
    assert load_state(find_checkpoint(tmp_path / "run"))[0].step == int(last.split()[1])


def test_no_line_is_there_for_another_setting():
    """Whoever reads the file would look for what brings the program there."""
    config = load_config(ROOT / "configs" / "speedrun-large.toml")
    assert config.model.window
    text = eject(config)
    assert "mask is None" not in text
    assert "conv2d" not in text  # a window hides something, and then it is a sum
    for sample, gone in (
        ({"top_k": 0}, "keep_top_k"),
        ({"repetition_penalty": 1.5}, "seen = None"),
    ):
        assert gone not in eject(
            with_settings(load_config(ROOT / "configs" / "demo.toml"), sample=sample)
        )


def test_a_part_of_a_plugin_stands_where_it_is_used(tmp_path):
    load_plugin(str(ROOT / "tests" / "plugins" / "t5_bias.py"))
    text = eject(with_settings(Config(), model={"position": "t5"}))
    order = ["\n# The model:", "\nBUCKETS = ", "\nclass T5Bias", "\nclass GPT", "\n# Training."]
    assert sorted(order, key=text.index) == order


@pytest.mark.parametrize("name", ['q"""z', "x\\Uy", "v1.5"])
def test_any_name_can_stand_at_the_top(name):
    text = eject(load_config(ROOT / "configs" / "demo.toml"), name, name + ".py")
    assert ast.get_docstring(ast.parse(text)).startswith(name.replace('"', "").replace("\\", ""))


def test_a_file_goes_on_from_a_run_and_the_run_from_the_file(prepared_once, tmp_path):
    config = small_run(prepared_once, max_steps=6)
    trainer = Trainer.start(tmp_path / "run", config)
    list(trainer.run())
    module = module_of(eject(settings_of_run(tmp_path / "run")))
    module.MAX_STEPS = 9
    first = [r["loss"] for r in module.train(tmp_path / "run", []) if "loss" in r]
    assert len(first) == 3
    list(Trainer.start(tmp_path / "other", config).run())
    resumed = Trainer.resume(tmp_path / "other", train={"max_steps": 9})
    assert first == [r.loss for r in resumed.run() if isinstance(r, Step)]
    again = Trainer.resume(tmp_path / "run", train={"max_steps": 10})
    assert [r.step for r in again.run() if isinstance(r, Step)] == [10]


def test_the_command_writes_a_file_and_replaces_none(prepared_once, tmp_path, capsys):
    file = tmp_path / "my_gpt.py"
    command = ["eject", "demo", str(file), "--data.folder", str(prepared_once)]
    assert main([*command, "--train.device", "cpu", "--train.precision", "float32"]) == 0
    said = capsys.readouterr().out
    assert "my_gpt.py" in said
    assert "nanogpt prepare" not in said  # the tokens are there
    text = file.read_text()
    assert 'DEVICE = "cpu"\n' in text
    assert main(command) == 2
    assert "--force" in capsys.readouterr().err
    assert file.read_text() == text
    assert main([*command, "--force", "--model.n-layer", "3"]) == 0
    assert "N_LAYER = 3" in file.read_text()
    assert 'DEVICE = "cuda" if torch.cuda.is_available() else "cpu"\n' in file.read_text()
    capsys.readouterr()
    assert main(["eject", "speedrun", str(tmp_path / "a b.py"), "--data.source=my.txt"]) == 0
    said = capsys.readouterr().out
    prepared = "nanogpt prepare --data.folder data --data.source my.txt --data.tokenizer char\n"
    assert f"\n{prepared}python '{tmp_path}/a b.py' train runs/speedrun-file\n" in said


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["nosuch"], "nosuch"),
        (["demo", "--train.freeze", "wte.*"], "train.freeze"),
        (["demo", "--train.activation-checkpointing", "block"], "activation_checkpointing"),
        (["demo", "--train.objective", "answers"], "train.objective"),
        (["demo", "--train.lora-rank", "4"], "train.lora_rank"),
        (["speedrun", "--data.batches", "packed"], "data.batches"),
        (["speedrun", "--data.stride", "65"], "data.stride=65"),
        (["speedrun", "--model.n-embd", "6"], "needs an even head size"),
        (["."], "checkpoint"),
    ],
)
def test_what_cannot_be_ejected_is_one_line(arguments, named, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["eject", arguments[0], "my_gpt.py", *arguments[1:]]) == 2
    error = capsys.readouterr().err
    assert named in error or "config.toml" in error
    assert len(error.splitlines()) == 1
    assert not Path("my_gpt.py").exists()
