"""Recording: every activation by its name, and a model that does not notice."""

import csv
from pathlib import Path

import pytest
import torch

from nanogpt.cli import main
from nanogpt.config import ModelConfig
from nanogpt.errors import UserError
from nanogpt.lab.heads import HABITS, repeated_tokens, score_heads, write_heads
from nanogpt.model.cache import KVCache
from nanogpt.model.gpt import GPT
from nanogpt.model.position import POSITIONS, Position
from nanogpt.model.trace import activation_names, record
from nanogpt.text.tokenizer import CharTokenizer
from nanogpt.training.load import load

from conftest import tiny

IDS = torch.randint(61, (2, 11), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
@pytest.mark.parametrize("kernels", ["plain", "fused"])
@pytest.mark.parametrize("change", [{}, {"n_kv_head": 1}, {"window": 4}, {"position": "alibi"}])
def test_recording_changes_nothing_and_leaves_nothing(change, kernels):
    model = GPT(tiny(kernels=kernels, **change)).eval()
    before = model(IDS)
    kernel = model.h[0].attn.kernel
    with record(model) as seen:
        watched = model(IDS)
    assert torch.equal(watched, before)
    assert set(seen) == set(activation_names(model))
    assert not kernel._forward_hooks
    seen.clear()
    model(IDS)
    assert not seen


@torch.no_grad()
def test_the_parts_add_up_to_the_network(model):
    with record(model) as seen:
        logits = model(IDS)
    shape = (*IDS.shape, model.config.n_embd)
    stream = seen["drop"]
    for block in ("h.0", "h.1"):
        middle = stream + seen[f"{block}.attn"]
        assert torch.equal(seen[f"{block}.ln_2"], model.get_submodule(f"{block}.ln_2")(middle))
        stream = middle + seen[f"{block}.mlp"]
        assert torch.equal(seen[block], stream)
    assert seen["ln_f"].shape == shape
    assert torch.equal(model.head(seen["ln_f"]), logits)


@torch.no_grad()
def test_the_weights_are_those_that_mixed_the_values(model):
    with record(model) as seen:
        model(IDS)
    weights = seen["h.1.attn.weights"]
    assert weights.shape == (2, 3, 11, 11)
    assert torch.allclose(weights.sum(-1), torch.ones(2, 3, 11))
    assert not weights.triu(1).any()
    mixed = weights @ seen["h.1.attn.v"]
    given = model.h[1].attn.c_proj(mixed.transpose(1, 2).flatten(2))
    assert torch.allclose(given, seen["h.1.attn"], atol=1e-6)


@torch.no_grad()
def test_with_a_cache_a_new_token_looks_at_all_of_them(model):
    cache = KVCache(model.config, 2, model.device, model.dtype)
    model(IDS[:, :10], cache=cache)
    with record(model, "*.weights") as seen:
        model(IDS[:, 10:], cache=cache)
    with record(model, "*.weights") as whole:
        model(IDS)
    assert set(seen) == {"h.0.attn.weights", "h.1.attn.weights"}
    for name, weights in seen.items():
        assert torch.allclose(weights, whole[name][:, :, 10:], atol=1e-6)


def test_a_second_run_replaces_what_was_recorded_and_dropout_stays_what_it_is():
    model = GPT(tiny(attention_dropout=0.5, dropout=0.1)).train()
    torch.manual_seed(1)
    before = model(IDS)
    with record(model) as seen:
        model(IDS.flip(0))
        torch.manual_seed(1)
        assert torch.equal(model(IDS), before)
    assert torch.equal(seen["ln_f"], model.ln_f(seen["h.1"]))
    assert torch.equal(seen["wte"], model.wte(IDS))


def test_gradients_flow_through_what_was_recorded(model):
    with record(model, "h.0") as seen:
        logits = model(IDS)
    (gradient,) = torch.autograd.grad(logits.sum(), seen["h.0"])
    assert gradient.abs().max() > 0


def test_a_pattern_that_fits_nothing_is_told_and_an_error_leaves_no_hook(model):
    with pytest.raises(UserError, match=r"h\.9\.attn' fits no activation"):
        record(model, "h.*", "h.9.attn").__enter__()
    with pytest.raises(UserError, match="do not fit"), record(model) as seen:
        model(torch.zeros(1, 99, dtype=torch.long))
    model(IDS)
    assert not seen


LETTERS = CharTokenizer("abcdefgh", ["<|end|>"])


class Habits(Position):
    """Three heads that look at the token before, at what followed last time, and at the first."""

    def bias(self, q_pos, k_pos):
        distance = q_pos[:, :, None] - k_pos[:, None, :]
        first = k_pos[:, None, :].expand_as(distance) == 0
        return 50.0 * torch.stack([distance == 1, distance == 7, first], dim=1)


@pytest.fixture
def creature(monkeypatch) -> GPT:
    """A model of one layer whose three heads have a habit each."""
    monkeypatch.setitem(POSITIONS, "habits", Habits)
    shape = {"vocab_size": 9, "context_length": 16, "n_layer": 1, "n_head": 3, "n_embd": 24}
    model = GPT(ModelConfig(**shape, position="habits")).eval()
    torch.nn.init.zeros_(model.h[0].attn.c_attn.weight)
    return model


def test_heads_of_known_habits_get_their_scores(creature):
    heads = score_heads(creature, LETTERS)
    for number, habit in enumerate(HABITS):
        scores = [0.0, 0.0, 0.0]
        scores[number] = 1.0
        assert heads.scores[habit].tolist() == [pytest.approx(scores, abs=1e-6)]
        assert heads.strongest(habit) == [(0, number, pytest.approx(1))]


def test_scores_and_pictures_are_those_of_their_layer_and_head(tmp_path):
    """Of two unlike layers, against attention that is worked out by itself."""
    torch.manual_seed(3)
    model = GPT(tiny(vocab_size=9, init_std=0.4, dropout=0.3)).train()
    heads = score_heads(model, LETTERS)
    ids = repeated_tokens(model, LETTERS)
    with torch.no_grad(), record(model.eval(), "*.weights") as seen:
        model(ids)
    write_heads(tmp_path, heads, "two layers")
    rows = list(csv.DictReader((tmp_path / "heads.csv").read_text().splitlines()))
    for layer, head in ((0, 0), (0, 2), (1, 0), (1, 1)):
        weights = seen[f"h.{layer}.attn.weights"][:, head]
        assert torch.allclose(heads.weights[layer, head], weights[0], atol=1e-6)
        expected = torch.stack([weights[:, q, q - 7] for q in range(8, 16)]).mean().item()
        assert heads.scores["induction"][layer, head].item() == pytest.approx(expected, abs=1e-6)
        (row,) = (r for r in rows if (r["layer"], r["head"]) == (str(layer), str(head)))
        assert float(row["induction"]) == pytest.approx(expected, abs=1e-3)


def test_a_head_that_looks_everywhere_alike_scores_as_chance_says(creature):
    creature.wpe.bias = Position(creature.config).bias
    heads = score_heads(creature, LETTERS)
    assert heads.chance == pytest.approx(sum(1 / n for n in range(9, 17)) / 8)
    for habit in HABITS:
        assert torch.allclose(heads.scores[habit], torch.tensor(heads.chance))


def test_repeated_tokens_are_different_ordinary_and_the_same_at_every_call(creature):
    ids = repeated_tokens(creature, LETTERS)
    assert torch.equal(ids, repeated_tokens(creature, LETTERS))
    assert torch.equal(ids[:, :8], ids[:, 8:])
    assert all(len(set(row.tolist())) == 8 for row in ids)
    assert not set(ids.flatten().tolist()) & set(LETTERS.special_tokens.values())
    small = GPT(tiny(context_length=7)).eval()
    with pytest.raises(UserError, match="a context of 8 tokens"):
        repeated_tokens(small, LETTERS)


def test_the_command_writes_every_head_into_the_run(small_trained_run, capsys):
    assert main(["lab", "heads", str(small_trained_run), "--top", "2"]) == 0
    out = capsys.readouterr().out
    assert [out.count(f"\n {habit}") for habit in HABITS] == [2, 2, 2]
    assert "looks everywhere alike has" in out
    rows = list(csv.DictReader((small_trained_run / "heads.csv").read_text().splitlines()))
    assert len(rows) == 2 * 2
    assert all(0 <= float(row[habit]) <= 1 for row in rows for habit in HABITS)
    assert (small_trained_run / "heads.png").stat().st_size > 10_000
    assert main(["lab", "heads", str(small_trained_run), "--top", "0"]) == 2
    assert "--top 0: use at least 1" in capsys.readouterr().err
    assert main(["lab", "heads", str(small_trained_run), "--repeat-after", "3"]) == 2
    assert "--repeat-after 3: use at least 4" in capsys.readouterr().err


def test_the_distance_of_the_repetition_can_be_chosen_and_a_window_limits_it(creature):
    assert repeated_tokens(creature, LETTERS, 5).shape[1] == 10
    windowed = GPT(tiny(window=4)).eval()
    assert repeated_tokens(windowed, LETTERS).shape[1] == 8
    for layer in windowed.h:
        torch.nn.init.zeros_(layer.attn.c_attn.weight)
    heads = score_heads(windowed, LETTERS)
    assert heads.chance == pytest.approx(1 / 4)
    assert torch.allclose(heads.scores["previous"], torch.tensor(1 / 4))


@pytest.mark.slow
def test_the_recipe_grows_an_induction_head(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = ["--train.max-steps=500", "--train.eval-interval=500", "--data.max-documents=200"]
    assert main(["train", "induction-heads", *settings, "--run=run"]) == 0
    model, tokenizer, _ = load(Path("run"))
    found = score_heads(model, tokenizer, 20)
    assert found.strongest("induction")[0][0] == 1  # in the second layer
    assert found.strongest("induction")[0][2] > 0.5
    assert found.strongest("previous")[0][0] == 0  # which reads what the first has noted
    assert found.strongest("previous")[0][2] > 0.5
