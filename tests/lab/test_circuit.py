"""Circuits: found in a model whose induction head was made by hand, and measured truly."""

import json
from pathlib import Path

import pytest
import torch
from hand_made import LETTERS, induction_by_hand

from nanogpt.cli import main
from nanogpt.errors import UserError
from nanogpt.lab import circuit
from nanogpt.lab.circuit import Bench, Circuit, Removal, find_circuit
from nanogpt.lab.heads import repeated_tokens
from nanogpt.model.gpt import GPT
from nanogpt.training.load import load

from conftest import tiny

PREVIOUS, INDUCTION = (0, 1), (1, 2)


def search(model: GPT, **settings) -> tuple[list[Removal], Circuit]:
    *removals, found = find_circuit(model, LETTERS, **settings)
    return removals, found


def test_a_circuit_made_by_hand_is_found_and_is_all_of_the_behaviour(monkeypatch):
    removals, found = search(induction_by_hand(monkeypatch))
    assert found.heads == [PREVIOUS, INDUCTION]
    assert found.faithfulness == pytest.approx(1, abs=1e-4)
    assert found.smallest
    assert found.rest == pytest.approx(0, abs=1e-4)
    assert found.lost == pytest.approx([1, 1], abs=0.1)
    assert found.right["model"] == found.right["circuit"] == 1
    assert found.right["none"] < 0.3
    assert [removal.left for removal in removals] == [5, 4, 3, 2, 1, 0]
    assert {(r.layer, r.head) for r in removals[4:]} == {PREVIOUS, INDUCTION}
    assert removals[-1].faithfulness == pytest.approx(0, abs=1e-6)
    assert [max(habits, key=habits.get) for habits in found.habits] == ["previous", "induction"]
    assert all(max(habits.values()) > 0.99 for habits in found.habits)
    assert found.removals == removals


def test_the_paths_of_that_circuit_are_the_ones_that_were_wired(monkeypatch):
    """Each that was wired carries the behaviour, and all the others carry nothing."""
    _, found = search(induction_by_hand(monkeypatch))
    wired = {
        ("drop", None, "h.0.attn.v", 1),
        ("drop", None, "h.1.attn.q", 2),
        ("h.0.attn.kernel", 1, "h.1.attn.k", 2),
        ("drop", None, "h.1.attn.v", 2),
        ("h.1.attn.kernel", 2, "ln_f", None),
    }
    lost = {(p.source, p.source_head, p.sink, p.sink_head): p.lost for p in found.paths}
    assert wired < set(lost)
    for path, amount in lost.items():
        if path in wired:
            assert amount > 0.5, path
        elif path != ("drop", None, "ln_f", None):  # the token itself is a wrong guess: it helps
            assert amount == pytest.approx(0, abs=1e-4), path
    # From the tokens 3 paths into each head, 2 into MLPs, 1 to the logits, and so on.
    assert len(lost) == len(found.paths) == (6 + 2 + 1) + (3 + 2 + 1) + (3 + 1 + 1) + (1 + 1) + 1


def test_of_two_heads_that_do_the_same_one_is_enough(monkeypatch):
    _, found = search(induction_by_hand(monkeypatch, copies=(0, 2)))
    assert len(found.heads) == 2
    assert found.heads[0] == PREVIOUS
    assert found.faithfulness > 0.95


def test_a_search_that_stops_too_early_is_put_right_where_all_sets_can_be_tried(monkeypatch):
    model = induction_by_hand(monkeypatch)
    bench = Bench(model, repeated_tokens(model, LETTERS, 11, start=[0]))
    assert circuit.smaller_set(bench, 5, 0.9) == ([PREVIOUS, INDUCTION], True)
    assert circuit.smaller_set(bench, 2, 0.9) == (None, True)
    monkeypatch.setattr(circuit, "MOST_SETS", 5)
    assert circuit.smaller_set(bench, 2, 0.9) == (None, False)
    assert not search(model)[1].smallest


def test_faithfulness_is_what_the_formula_says_from_weights_that_are_zeroed(monkeypatch):
    """The heads here give vectors whose mean over a text is removed by hand, in the weights."""
    model = induction_by_hand(monkeypatch)
    ids = repeated_tokens(model, LETTERS, 11, start=[0])
    bench = Bench(model, ids)
    assert ids.shape == (16, 23)
    assert (ids[:, 0] == 0).all()

    def score(model) -> float:
        logits = model(ids).log_softmax(-1)
        found = [logits[b, t, ids[b, t + 1]] for b in range(16) for t in range(12, 22)]
        return torch.stack(found).mean().item()

    with torch.no_grad():
        everything = score(model)
        # Without the notes, queries find nothing and the second head gives a mean over the past.
        model.h[0].attn.c_proj.weight.zero_()
        no_notes = score(model)
    model = induction_by_hand(monkeypatch)
    kept = [head for head in bench.heads if head != PREVIOUS]
    assert bench.all == pytest.approx(everything, abs=1e-5)
    # A note that is the same everywhere moves all scores alike: as good as none.
    bench = Bench(induction_by_hand(monkeypatch), ids)
    assert bench.score(kept) == pytest.approx(no_notes, abs=1e-4)
    expected = (no_notes - bench.none) / (everything - bench.none)
    assert bench.faithfulness(kept) == pytest.approx(expected, abs=1e-4)


def test_the_same_seed_finds_the_same_and_another_one_reads_other_texts(monkeypatch):
    model = induction_by_hand(monkeypatch)
    assert search(model, seed=3) == search(model, seed=3)
    assert search(model, seed=3)[1].ids != search(model, seed=4)[1].ids


def test_what_cannot_be_is_one_line(monkeypatch):
    model = induction_by_hand(monkeypatch)
    for keep in (0, -1, 1.01, float("nan")):
        with pytest.raises(UserError, match="cannot be kept; use a share above 0"):
            search(model, keep=keep)
    fresh = GPT(tiny(vocab_size=13, context_length=40)).eval()
    with pytest.raises(UserError, match="does not copy repeated tokens by attention"):
        search(fresh)
    with pytest.raises(UserError, match="a context of 8 tokens"):
        search(GPT(tiny(vocab_size=13, context_length=7)).eval())


@pytest.mark.parametrize("block", ["post-norm", "no-residual"])
def test_blocks_that_do_not_add_to_the_stream_have_no_paths(block):
    torch.manual_seed(0)
    model = GPT(tiny(vocab_size=13, context_length=40, block=block)).eval()
    bench = object.__new__(Bench)  # whose model does not copy
    bench.model, bench.ids = model, torch.zeros(1, 9, dtype=torch.long)
    assert circuit.trace_paths(bench, []) == []


def test_the_command_writes_what_it_finds(small_trained_run, monkeypatch, capsys):
    monkeypatch.setattr(
        "nanogpt.cli.lab.load_model", lambda _: (induction_by_hand(monkeypatch), LETTERS, 0)
    )
    assert main(["lab", "circuit", str(small_trained_run), "--repeat-after", "9"]) == 0
    out = capsys.readouterr().out
    assert "faithfulness 100.0% with 2 of 6 heads" in out
    assert "no smaller set keeps enough" in out
    assert "h.0.attn.kernel, head 1  h.1.attn.k, head 2" in out
    found = json.loads((small_trained_run / "circuit.json").read_text())
    assert found["heads"] == [[0, 1], [1, 2]]
    assert found["length"] == 9
    for wrong in (["--repeat-after", "3"], ["--seed", "-1"], ["--keep", "2"]):
        assert main(["lab", "circuit", str(small_trained_run), *wrong]) == 2
        assert wrong[1] in capsys.readouterr().err


@pytest.mark.slow
def test_the_recipe_grows_a_circuit_of_few_heads(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = ["--train.max-steps=500", "--train.eval-interval=500", "--data.max-documents=200"]
    assert main(["train", "induction-heads", *settings, "--run=run"]) == 0
    model, tokenizer, _ = load(Path("run"))
    *_, found = find_circuit(model, tokenizer)
    assert found.faithfulness >= 0.9
    assert found.right["circuit"] > 0.9
    assert found.smallest
    assert len(found.heads) <= 4
    assert {layer for layer, _ in found.heads} == {0, 1}
