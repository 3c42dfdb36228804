"""What `import nanogpt` gives, and the lines of Python that the README shows."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import nanogpt
from nanogpt.config import config_from_dict, load_config
from nanogpt.errors import UserError
from nanogpt.text.formats import load_tokenizer
from nanogpt.training.checkpoint import find_checkpoint, load_state
from nanogpt.training.records import read_metrics
from nanogpt.training.report import write_loss_plot
from nanogpt.training.start import Trainer

README = (Path(__file__).parent.parent / "README.md").read_text()
EXAMPLE = re.search(r"```python\n(.*?)```", README, re.S)[1]

TINY = {
    "data": {"max_documents": 12, "vocab_size": 300, "tokenizer": "char"},
    "model": {"n_layer": 1, "n_head": 1, "n_embd": 8, "context_length": 8},
    "train": {"max_steps": 2, "eval_batches": 1, "sample_interval": 0, "precision": "float32"},
}


def test_the_readme_trains_and_samples_in_ten_lines_of_python(tmp_path, monkeypatch, capsys):
    """Statements, however many lines each takes."""
    monkeypatch.chdir(tmp_path)
    quick = EXAMPLE.replace('"max_steps": 100', '"max_steps": 5')
    assert quick != EXAMPLE
    exec(compile(quick, "README.md", "exec"), {})
    out = capsys.readouterr().out
    assert out.startswith("ROMEO:")
    assert float(out.splitlines()[-1]) > 1
    assert Path("my-hf/config.json").exists()
    assert len(EXAMPLE.splitlines()) <= 14


def test_the_public_names_are_shown_and_are_there():
    names = dir(nanogpt)
    assert {
        "GPT", "ModelConfig", "Config", "Tokenizer", "Trainer", "load", "from_pretrained",
        "prepare", "train", "generate", "evaluate", "export",
    } <= set(names)  # fmt: skip
    for name in names:
        found = getattr(nanogpt, name)
        assert name == "__version__" or found.__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        nanogpt.nothing  # noqa: B018


def test_importing_the_package_loads_nothing_heavy():
    code = "import sys, nanogpt; print({'torch', 'numpy', 'regex'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_training_takes_settings_by_section_shows_records_and_overwrites_nothing(tmp_path):
    records = []
    trainer = nanogpt.train(str(tmp_path / "run"), show=records.append, **TINY)
    assert trainer.state.step == 2
    assert [r.step for r in records if hasattr(r, "loss")] == [1, 2]
    with pytest.raises(UserError, match=r"holds a run: name another folder, or resume"):
        nanogpt.train(tmp_path / "run", **TINY)
    with pytest.raises(UserError, match="not both"):
        nanogpt.train(tmp_path / "other", nanogpt.Config(), **TINY)
    with pytest.raises(UserError, match="did you mean n_layer"):
        nanogpt.train(tmp_path / "other", model={"n_layr": 1})
    assert not (tmp_path / "other").exists()


def test_weights_to_begin_with_bring_their_shape_and_tokenizer(tmp_path):
    first = nanogpt.train(tmp_path / "one", **TINY)
    train = TINY["train"] | {"init": str(tmp_path / "one")}
    second = nanogpt.train(tmp_path / "two", data={"max_documents": 12}, train=train)
    assert second.config.model == first.config.model
    assert second.tokenizer.to_dict() == first.tokenizer.to_dict()


def test_one_process_is_not_called_several(tmp_path):
    with pytest.raises(UserError, match=r"parallel\.processes=4, but there is 1: start them"):
        nanogpt.train(tmp_path / "run", **TINY, parallel={"processes": 4})
    assert not (tmp_path / "run").exists()


def test_generating_and_evaluating_take_texts(tmp_path):
    nanogpt.train(tmp_path / "run", **TINY)
    model, tokenizer, _ = nanogpt.load(str(tmp_path / "run"))
    text = nanogpt.generate(model, tokenizer, "Who", max_new_tokens=5, temperature=0)
    assert text.startswith("Who")
    assert text == nanogpt.generate(model, tokenizer, "Who", max_new_tokens=5, temperature=0)
    with pytest.raises(UserError, match=r"sample\.temprature is not a setting"):
        nanogpt.generate(model, tokenizer, "Who", temprature=1.0)
    file = tmp_path / "text.txt"
    file.write_text("Who's there?")
    score = nanogpt.evaluate(model, tokenizer, "Who's there?")
    assert score == nanogpt.evaluate(model, tokenizer, file)
    assert (score.tokens, score.bytes_per_token) == (11, 1.0)


def test_preparing_takes_settings_of_the_data(tmp_path):
    source = tmp_path / "text.txt"
    source.write_text("To be, or not to be. " * 300)
    prepared = nanogpt.prepare(source, str(tmp_path / "data"), vocab_size=280)
    assert prepared.tokenizer.vocab_size <= 280
    assert (tmp_path / "data" / "train.bin").exists()


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"n_layer": 2.0}, r"model\.n_layer=2\.0: use a value of type int"),
        ({"bias": 1}, r"model\.bias=1: use a value of type bool"),
        ({"position": None}, r"model\.position=None: use a value of type str"),
    ],
)
def test_a_setting_of_the_wrong_type_is_told_at_once(changes, complaint):
    with pytest.raises(UserError, match=complaint):
        nanogpt.ModelConfig(**changes)


def test_paths_may_be_text_everywhere(tmp_path):
    run = str(tmp_path / "run")
    nanogpt.train(run, **TINY)
    model, tokenizer, config = nanogpt.load(run)
    assert Trainer.resume(run).complete
    assert read_metrics(run)[0]["step"] == 0
    assert load_state(str(find_checkpoint(run)))[0].step == 2
    assert load_config(run + "/config.toml") == config
    tokenizer.save(run + "/again.json")
    assert load_tokenizer(run + "/again.json").to_dict() == tokenizer.to_dict()
    assert write_loss_plot(run).name == "loss.png"
    folder = str(tmp_path / "hf")
    nanogpt.export(model, tokenizer, folder)
    assert nanogpt.from_pretrained(folder).config.n_layer == 1
    with pytest.raises(UserError, match=r"nanogpt\.load"):
        nanogpt.from_pretrained(run)
    with pytest.raises(UserError, match="nanogpt prepare"):
        Trainer.start(str(tmp_path / "no"), config_from_dict({"data": {"folder": "/nowhere"}}))
