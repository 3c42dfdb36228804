"""Batches: which windows come out, what their targets are, and who may look at whom."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanogpt.data import (
    IGNORED,
    padded_batch,
    random_windows,
    sliding_windows,
)
from nanogpt.errors import UserError
from nanogpt.tokenizer import Tokenizer

TOKENIZER = Tokenizer([], special_tokens={"<|endoftext|>": 256})


def test_the_target_is_always_the_next_token():
    """Trap 10: also at the last position of a window."""
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
    """Trap 10: stride below, at and above the context is well defined."""
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
    ids, targets, mask = padded_batch([[1], [2, 3, 4]], pad_id=9)
    assert ids.tolist() == [[1, 9, 9], [2, 3, 4]]
    assert targets.tolist() == [[IGNORED] * 3, [3, 4, IGNORED]]
    assert mask.tolist() == [[1, 0, 0], [1, 1, 1]]


@pytest.mark.parametrize("sequences", [[], [[1], []]])
def test_a_padded_batch_of_nothing_is_refused(sequences):
    with pytest.raises(UserError, match="none may be empty"):
        padded_batch(sequences)
