"""Settings: TOML in and out, every mistake named with its fix."""

import tomllib
from dataclasses import asdict, fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanogpt.config import (
    Config,
    DataConfig,
    ModelConfig,
    ParallelConfig,
    PolicyConfig,
    SampleConfig,
    TrainConfig,
    config_from_dict,
    explanations,
    load_config,
    to_toml,
)
from nanogpt.errors import UserError

RECIPES = sorted((Path(__file__).parent.parent / "configs").glob("*.toml"))
SECTIONS = [
    ModelConfig,
    DataConfig,
    TrainConfig,
    SampleConfig,
    PolicyConfig,
    ParallelConfig,
]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_loads(recipe):
    assert isinstance(load_config(recipe), Config)


@pytest.mark.parametrize("section", SECTIONS)
def test_every_setting_is_explained_beside_it(section):
    assert list(explanations(section)) == [f.name for f in fields(section)]


@given(st.text(), st.floats(1e-9, 1e3), st.integers(0, 2**60))
def test_settings_survive_the_round_trip_through_toml(prompt, lr, seed):
    config = Config(
        train=TrainConfig(lr=lr, min_lr=lr / 2, seed=seed), sample=SampleConfig(prompt=prompt)
    )
    assert config_from_dict(tomllib.loads(to_toml(config))) == config


def test_toml_explains_every_key():
    text = to_toml(Config())
    assert "n_layer = 12                      # Transformer blocks\n" in text
    assert text.count("  # ") == sum(len(fields(section)) for section in SECTIONS)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": {"n_layr": 4}}, "model.n_layr is not a setting: did you mean n_layer?"),
        ({"modle": {}}, "modle is not a section of settings: did you mean model?"),
        ({"model": 3}, "model=3 should be a section: write [model] above its keys"),
        ({"model": {"n_layer": "four"}}, "model.n_layer='four' should be of type int"),
        ({"model": {"n_layer": 2.5}}, "model.n_layer=2.5 should be of type int"),
        ({"model": {"n_layer": True}}, "model.n_layer=True should be of type int"),
        ({"model": {"position": 3}}, 'model.position=3 should be a string: write "3"'),
        ({"model": {"n_layer": 0}}, "model.n_layer=0: use at least 1"),
        ({"model": {"dropout": 1.0}}, "model.dropout=1.0: use a share from 0 to below 1"),
        ({"data": {"vocab_size": 256}}, "data.vocab_size=256: use at least 257"),
        ({"data": {"val_fraction": 1}}, "data.val_fraction=1.0: use a share between 0 and 1"),
        ({"train": {"lr": -1}}, "train.lr=-1.0: use a positive number"),
        ({"train": {"lr": "nan"}}, "train.lr=nan: use a finite number"),
        ({"train": {"min_lr": 1}}, "train.min_lr=1.0: use 0 to train.lr=0.001"),
        ({"train": {"beta2": 1}}, "train.beta2=1.0: use a number from 0 to below 1"),
        ({"sample": {"temperature": -1}}, "sample.temperature=-1.0: use 0 for greedy, or at least"),
        ({"sample": {"temperature": 1e-9}}, "sample.temperature=1e-09: use 0 for greedy, or at"),
        ({"sample": {"seed": 2**64}}, "sample.seed=18446744073709551616: use a number below 2**63"),
        ({"sample": {"prompt": "a\ud800"}}, "sample.prompt='a\\ud800': use text that is valid Uni"),
        ({"train": {"grad_clip": "inf"}}, "train.grad_clip=inf: use a finite number"),
    ],
)
def test_an_impossible_setting_is_named_with_its_mend(values, message):
    with pytest.raises(UserError) as error:
        config_from_dict(values)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("n_embd", "n_head", "fix"),
    [(100, 12, "use n_head=10 or n_embd=96"), (7, 12, "use n_head=7 or n_embd=12")],
)
def test_heads_that_do_not_divide_the_channels_get_two_ways_out(n_embd, n_head, fix):
    message = f"model.n_embd={n_embd} is not divisible by model.n_head={n_head}: {fix}"
    with pytest.raises(UserError) as error:
        ModelConfig(n_embd=n_embd, n_head=n_head)
    assert str(error.value) == message


def test_a_whole_number_serves_as_a_float():
    assert config_from_dict({"train": {"lr": 1, "min_lr": 0}}).train.lr == 1.0


def test_what_is_not_toml_is_named(tmp_path):
    (tmp_path / "a.toml").write_text("[model\n")
    with pytest.raises(UserError, match=r"a\.toml is not valid TOML"):
        load_config(tmp_path / "a.toml")
    (tmp_path / "b.toml").write_text("[model]\nn_layr = 4\n")
    with pytest.raises(UserError, match=r"b\.toml: model\.n_layr is not a setting"):
        load_config(tmp_path / "b.toml")


def test_defaults_are_the_smallest_gpt2():
    assert asdict(ModelConfig())["n_layer"] == 12
