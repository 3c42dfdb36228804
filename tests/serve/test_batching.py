"""Texts that share a batch grow as if each were alone, whenever the others join and leave."""

import time
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nanogpt.config import SampleConfig
from nanogpt.device import resolve
from nanogpt.evaluation.loss import token_losses
from nanogpt.generation.reader import Reader, generate
from nanogpt.model.gpt import GPT
from nanogpt.serve.answers import Choice
from nanogpt.serve.batching import Batcher, Busy, Guess, Row, score
from nanogpt.serve.settings import LimitsConfig
from nanogpt.text.tokenizer import CharTokenizer

from conftest import tiny

LETTERS = CharTokenizer([chr(ord("A") + n) for n in range(58)])  # the model has 3 rows more

MODELS = {
    "gpt2": {}, "rope": {"position": "rope"}, "alibi": {"position": "alibi"},
    "sinusoidal": {"position": "sinusoidal"}, "window": {"window": 5},
    "grouped heads": {"n_kv_head": 1, "position": "rope", "norm": "rms", "qk_norm": True},
    "plain": {"kernels": "plain"},
}  # fmt: skip


def make_batcher(rows: int = 3, waiting: int = 100, **changes: object) -> Batcher:
    torch.manual_seed(0)
    model = GPT(tiny(init_std=0.3, **changes)).eval()
    return Batcher(model, LETTERS, LimitsConfig(rows=rows, waiting=waiting), separator=None)


def play(batcher: Batcher, arrivals: dict[int, list[Row]]) -> None:
    """Let rows arrive before steps by number, and go on until all have ended, without a thread."""
    number = 0
    while arrivals or batcher.running or batcher.waiting:
        batcher.waiting.extend(arrivals.pop(number, []))
        batcher.admit()
        batcher.step()
        number += 1


def alone(batcher: Batcher, ids: list[int], row: Row) -> tuple[list[int], list[float]]:
    """What `generate` says without any company, and how likely it is."""
    reader = Reader(batcher.model, [ids])
    steps = list(islice(generate(reader, row.config, LETTERS.vocabulary), len(row.said)))
    likely = [float(s.logits.log_softmax(-1)[0, s.chosen]) for s in steps]
    return [int(step.chosen) for step in steps], likely


def check(batcher: Batcher, prompts: list[list[int]], rows: list[Row]) -> None:
    for ids, row in zip(prompts, rows, strict=True):
        tokens, likely = alone(batcher, ids, row)
        assert [guess.token for guess, _ in row.said] == tokens
        # Observed: 4e-6. Sums over padded rows are added in another order.
        assert [g.log_probability for g, _ in row.said] == pytest.approx(likely, abs=1e-4)


config = st.builds(
    SampleConfig,
    max_new_tokens=st.integers(1, 40), temperature=st.sampled_from([0.0, 0.7, 1.5]),
    top_k=st.sampled_from([0, 3]), repetition_penalty=st.sampled_from([1.0, 1.3]),
    seed=st.integers(0, 99),
)  # fmt: skip
text = st.lists(st.integers(0, 57), min_size=1, max_size=40)  # the model sees 16


@pytest.mark.parametrize("changes", MODELS.values(), ids=MODELS)
@settings(max_examples=8)
@given(requests=st.lists(st.tuples(text, config, st.integers(0, 30)), min_size=1, max_size=7))
def test_texts_that_join_at_odd_moments_say_what_they_would_say_alone(changes, requests):
    batcher = make_batcher(**changes)
    rows = [Row([*ids], chosen) for ids, chosen, _ in requests]
    arrivals: dict[int, list[Row]] = {}
    for row, (_, _, moment) in zip(rows, requests, strict=True):
        arrivals.setdefault(moment, []).append(row)
    play(batcher, arrivals)
    check(batcher, [ids for ids, _, _ in requests], rows)


def test_what_is_in_fresh_memory_is_never_seen():
    """torch.empty gives what lay there before, and zero times NaN is NaN."""
    batcher = make_batcher()
    for part in batcher.batch.cache.room[:2]:
        part.fill_(torch.nan)
    prompts = [[1, 2], [3, 4, 5, 6, 7, 8, 9], [5], [6, 7, 8]]
    rows = [Row([*ids], SampleConfig(max_new_tokens=9 + n)) for n, ids in enumerate(prompts)]
    play(batcher, {0: rows[:2], 3: rows[2:]})
    check(batcher, prompts, rows)


def test_a_client_that_leaves_frees_its_place_at_once():
    batcher = make_batcher(rows=1)
    first, second = Row([1], SampleConfig(max_new_tokens=9999)), Row([2], SampleConfig())
    batcher.waiting.extend([first, second])
    batcher.admit()
    batcher.step()
    assert batcher.running == [first]
    first.gone = True
    batcher.admit()
    assert batcher.running == [second]
    batcher.step()
    assert batcher.batch.rows == [second]


def test_a_text_that_takes_too_long_ends_and_one_that_waited_too_long_is_refused():
    batcher = make_batcher(rows=1)
    soon = time.monotonic() + 0.05
    rows = [Row([1], SampleConfig(max_new_tokens=10**6), deadline=soon) for _ in range(2)]
    batcher.submit(rows)
    batcher.thread.join(1)
    batcher.close()
    assert [row.finish for row in rows] == ["length", "busy"]
    assert rows[0].said
    assert not rows[1].said


def test_a_prompt_whose_scores_came_too_late_is_refused():
    """It has nothing to give; "length" would say that its score is empty."""
    batcher = make_batcher()
    row = Row([1, 2], SampleConfig(), deadline=time.monotonic() - 1)
    row.scores_prompt = True
    batcher.running = [row]
    batcher.admit()
    assert row.finish == "busy"


@pytest.mark.parametrize(("stopped", "count"), [(False, 3), (True, 2)])
def test_the_end_of_a_document_has_a_score_and_a_stop_string_has_none(stopped, count):
    """The harness cuts off the last score, as that of the one token that was drawn."""
    row = Row([0, 1], SampleConfig(max_new_tokens=1))
    row.prompt = [Guess(0, None, []), Guess(1, -1.0, [])]
    row.said, row.finish, row.text.stopped = [(Guess(2, -2.0, []), "")], "stop", stopped
    choice = Choice(row, CharTokenizer("ab", ["<|endoftext|>"]), "ab", echo=True)
    text, tokens = choice.more()
    assert text == "ab"
    assert [token.guess.log_probability for token in tokens] == [None, -1.0, -2.0][:count]


def test_more_texts_than_places_are_refused_whole():
    batcher = make_batcher(rows=1, waiting=1)
    with pytest.raises(Busy):
        batcher.submit([Row([1], SampleConfig()) for _ in range(3)])
    assert not batcher.waiting
    rows = [Row([1], SampleConfig(max_new_tokens=10**6)) for _ in range(2)]
    batcher.submit(rows)
    with pytest.raises(Busy):
        batcher.submit([Row([1], SampleConfig())])
    batcher.close()
    assert all(row.finish for row in rows)
    with pytest.raises(Busy):
        batcher.submit([Row([1], SampleConfig())])


def test_a_batch_that_fails_leaves_a_server_that_works(caplog):
    batcher = make_batcher()
    bad, good = Row([10**6], SampleConfig()), Row([1, 2], SampleConfig(max_new_tokens=5))
    batcher.submit([bad])
    deadline = time.monotonic() + 10
    while not bad.finish and time.monotonic() < deadline:
        time.sleep(0.01)
    assert bad.finish == "error"
    assert "IndexError" in caplog.text
    batcher.submit([good])
    while not good.finish and time.monotonic() < deadline:
        time.sleep(0.01)
    batcher.close()
    check(batcher, [[1, 2]], [good])


@pytest.mark.parametrize("length", [1, 2, 16, 17, 50])
@pytest.mark.parametrize("separator", [None, 7])
def test_scores_of_a_prompt_are_those_of_the_evaluation(length, separator):
    batcher = make_batcher()
    ids = np.random.default_rng(0).integers(0, 10, length)
    scores = list(score(batcher.model, ids.tolist(), 2, batcher.ruled_out, separator))
    parts = token_losses(batcher.model, ids, resolve("cpu", "float32"), separator=separator)
    expected = [-loss for part in parts for loss in part.tolist()]
    assert [guess.token for guess in scores] == ids.tolist()
    assert scores[0].log_probability is None
    # Observed: 5e-7.
    assert [guess.log_probability for guess in scores[1:]] == pytest.approx(expected, abs=1e-5)
    for guess in scores[1:]:
        (first, most), (_, second) = guess.likeliest
        assert first < 58
        assert most >= second
        assert guess.log_probability <= most or guess.token >= 58
