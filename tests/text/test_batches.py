"""Batches: which windows come out, what their targets are, and who may look at whom."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nanogpt.config import IGNORED, DataConfig
from nanogpt.errors import UserError
from nanogpt.evaluation.loss import tensors
from nanogpt.model.gpt import GPT
from nanogpt.text.batches import (
    BATCHES,
    Batches,
    PaddedDocuments,
    count_sliding_windows,
    padded_batch,
    random_windows,
    sliding_windows,
)
from nanogpt.text.tokenfiles import TokenFile, write_token_file
from nanogpt.text.tokenizer import CharTokenizer, Tokenizer

from conftest import tiny

SEPARATOR = 256
BYTES = Tokenizer([], special_tokens={"<|endoftext|>": SEPARATOR})


def test_the_target_is_always_the_next_token():
    """Also at the last position of a window."""
    ids = np.arange(1000, dtype=np.uint16)
    x, y = random_windows(ids, 8, 64, seed=1, number=2)
    assert x.shape == y.shape == (64, 8)
    assert x.dtype == y.dtype == np.int64
    assert (y == x + 1).all()
    assert (np.diff(x) == 1).all()


def test_random_windows_depend_on_their_address_alone():
    ids = np.arange(5000)
    address = {"seed": 1, "number": 2}
    first = random_windows(ids, 8, 16, **address)[0]
    np.random.default_rng().random()
    assert (random_windows(ids, 8, 16, **address)[0] == first).all()
    for part in address:
        other = random_windows(ids, 8, 16, **{**address, part: 9})[0]
        assert (other != first).any(), part


def test_random_windows_reach_both_ends_of_the_text():
    ids = np.arange(12)
    starts = {
        int(s)
        for step in range(40)
        for s in random_windows(ids, 8, 8, seed=0, number=step)[0][:, 0]
    }
    assert starts == {0, 1, 2, 3}


@given(st.integers(2, 60), st.integers(1, 20), st.data())
def test_sliding_windows_give_every_target_exactly_once(n, context_length, data):
    """Stride below, at and above the context is well defined."""
    stride = data.draw(st.integers(1, context_length))
    ids = np.arange(n)
    given_out = []
    for x, y in sliding_windows(ids, context_length, stride):
        assert x.shape == y.shape == (min(context_length, n - 1),)
        real = y != IGNORED
        assert (y[real] == x[real] + 1).all()
        given_out += y[real].tolist()
    assert given_out == list(range(1, n))


@pytest.mark.parametrize("stride", [0, -1, 5])
def test_a_stride_that_skips_or_stands_still_is_refused(stride):
    with pytest.raises(UserError, match=f"stride={stride}: use 1 to the context length, 4"):
        list(sliding_windows(np.arange(9), 4, stride))


def test_a_padded_batch_marks_what_is_real():
    ids, targets, documents = padded_batch([[1], [2, 3, 4]], pad_id=9)
    assert ids.tolist() == [[1, 9, 9], [2, 3, 4]]
    assert targets.tolist() == [[IGNORED] * 3, [3, 4, IGNORED]]
    assert documents.tolist() == [[1, 0, 0], [1, 1, 1]]


@pytest.mark.parametrize("sequences", [[], [[1], []]])
def test_a_padded_batch_of_nothing_is_refused(sequences):
    with pytest.raises(UserError, match="none may be empty"):
        padded_batch(sequences)


def token_file(tmp_path, texts: list[str]) -> TokenFile:
    return write_token_file(tmp_path / "train.bin", texts, BYTES)


TEXTS = ["Who's there?", "Nay.", "x", "Stand, and unfold yourself! " * 3, "Long live the king!"]


def targets_of_an_epoch(batches: Batches, rows: int, batch_size: int) -> Counter:
    """Each place in the text that was a target, by how often, in the first `rows` rows."""
    places: Counter = Counter()
    ids = batches.tokens.ids[:].tolist()
    for number in range(rows // batch_size):
        batch = batches.batch(number, batch_size, seed=3)
        assert batch.ids.shape == batch.targets.shape
        for x, y in zip(batch.ids.tolist(), batch.targets.tolist(), strict=True):
            places.update(
                (token, target) for token, target in zip(x, y, strict=True) if target >= 0
            )
    expected = Counter(pairwise(ids))
    assert places.keys() <= expected.keys()
    return Counter({pair: places[pair] / expected[pair] for pair in expected})


@pytest.mark.parametrize("stride", [0, 3, 7])
@pytest.mark.parametrize("kind", ["sliding", "packed"])
def test_an_epoch_of_sliding_windows_has_each_target_exactly_once(kind, stride, tmp_path):
    tokens = token_file(tmp_path, TEXTS)
    batches = BATCHES[kind](tokens, 7, SEPARATOR, DataConfig(stride=stride))
    rows = count_sliding_windows(tokens.ids, 7, stride or 7)
    assert set(targets_of_an_epoch(batches, rows, 1).values()) == {1}
    assert set(targets_of_an_epoch(batches, 6 * rows, 3).values()) == {6}  # across epochs, too


def test_an_epoch_of_padded_documents_has_each_target_exactly_once(tmp_path):
    batches = PaddedDocuments(token_file(tmp_path, TEXTS), 7, SEPARATOR)
    assert set(targets_of_an_epoch(batches, len(batches.starts), 1).values()) == {1}
    assert set(targets_of_an_epoch(batches, 4 * len(batches.starts), 2).values()) == {4}


@pytest.mark.parametrize("kind", ["sliding", "packed", "padded"])
def test_epochs_differ_in_order_and_seeds_too(kind, tmp_path):
    batches = BATCHES[kind](token_file(tmp_path, TEXTS), 7, SEPARATOR)
    rows = 18
    first, second, other = (
        [batches.batch(n, 1, seed).ids.tolist() for n in range(start, start + rows)]
        for start, seed in ((0, 1), (10 * rows, 1), (0, 2))
    )
    assert first != second
    assert first != other


@pytest.mark.parametrize("kind", BATCHES)
def test_a_batch_is_a_pure_function_of_its_number_and_the_seed(kind, tmp_path):
    tokens = token_file(tmp_path, TEXTS)
    one, two = (BATCHES[kind](tokens, 7, SEPARATOR) for _ in range(2))
    for number in (5, 0, 5, 40):
        a, b = one.batch(number, 3, seed=1), two.batch(number, 3, seed=1)
        assert (a.ids == b.ids).all()
        assert (a.targets == b.targets).all()


@pytest.mark.parametrize("kernels", ["plain", "fused"])
@pytest.mark.parametrize("kind", ["packed", "padded"])
def test_each_document_of_a_batch_is_read_as_if_it_stood_alone(kind, kernels, tmp_path):
    """No token looks across a border, positions begin anew: logits and loss are those alone."""
    torch.manual_seed(0)
    model = GPT(tiny(vocab_size=257, context_length=24, kernels=kernels)).eval()
    batches = BATCHES[kind](token_file(tmp_path, TEXTS), 24, SEPARATOR)
    several = 0
    for number in range(4):
        batch = batches.batch(number, 2, seed=1)
        ids, targets, numbers = tensors(batch, torch.device("cpu"))
        logits = model(ids, documents=numbers)
        total = 0.0
        for row in range(2):
            documents = [d for d in numbers[row].unique().tolist() if d]
            several += len(documents) > 1
            for document in documents:
                mine = numbers[row] == document
                assert (ids[row][mine][1:] != SEPARATOR).all()  # it can only open a document
                alone = model(ids[row][mine][None])
                torch.testing.assert_close(logits[row][mine], alone[0], rtol=0, atol=1e-5)
                total += model.loss(alone, targets[row][mine][None], reduction="sum").item()
        assert model.loss(logits, targets, reduction="sum").item() == pytest.approx(total, abs=1e-3)
        assert model.loss(logits, targets).item() == pytest.approx(
            total / batch.real_targets, abs=1e-5
        )
    assert several or kind == "padded"


@pytest.mark.parametrize("kind", ["packed", "padded"])
def test_documents_without_a_border_cannot_be_told_apart(kind, tmp_path):
    tokens = write_token_file(tmp_path / "a.bin", ["abc"], CharTokenizer("abc"))
    with pytest.raises(UserError, match=r"use data\.batches=random or sliding"):
        BATCHES[kind](tokens, 2, None).batch(0, 1, seed=0)


def test_a_long_document_takes_several_rows(tmp_path):
    batches = PaddedDocuments(token_file(tmp_path, ["abcdefgh", "xy"]), 3, SEPARATOR)
    rows = [batches.batch(n, 1, seed=0) for n in range(4)]
    found = sorted((row.ids[0].tolist(), row.targets[0].tolist()) for row in rows)
    end = SEPARATOR
    assert found == sorted(
        [
            ([*b"abc"], [*b"bcd"]), ([*b"def"], [*b"efg"]), ([*b"gh"], [*b"h", end]),
            ([end, *b"xy"], [*b"xy", end]),
        ]
    )  # fmt: skip
