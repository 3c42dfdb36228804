"""Token files and batches: what is on disk, which windows come out, and what their targets are."""

import hashlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanogpt.data import (
    IGNORED,
    check_ids,
    check_length,
    padded_batch,
    random_windows,
    read_token_file,
    sliding_windows,
    write_token_file,
)
from nanogpt.errors import UserError
from nanogpt.tokenizer import CharTokenizer, Tokenizer

TOKENIZER = Tokenizer([], special_tokens={"<|endoftext|>": 256})


def test_a_token_file_holds_the_ids_and_says_what_they_are(tmp_path):
    tokens = write_token_file(tmp_path / "a.bin", ["hé", "x"], TOKENIZER)
    assert tokens.ids.tolist() == [*"hé".encode(), 256, ord("x"), 256]
    assert json.loads((tmp_path / "a.json").read_text()) == {
        "dtype": "uint16",
        "count": 6,
        "bytes": 4,
        "documents": 2,
        "vocab_size": 257,
        "tokenizer": TOKENIZER.fingerprint(),
        "sha256": hashlib.sha256((tmp_path / "a.bin").read_bytes()).hexdigest(),
    }
    assert (tmp_path / "a.bin").read_bytes()[:2] == bytes([ord("h"), 0])  # little-endian
    assert isinstance(tokens.ids, np.memmap)
    assert tokens.bytes_per_token == pytest.approx(4 / 6)


def test_a_large_vocabulary_takes_four_bytes(tmp_path):
    tokenizer = CharTokenizer([chr(i) for i in range(0x10000, 0x10000 + 2**16 + 1)])
    text = chr(0x10000 + 2**16)
    tokens = write_token_file(tmp_path / "a.bin", [text], tokenizer)
    assert tokens.about.dtype == "uint32"
    assert tokens.ids.tolist() == [2**16]


def test_a_truncated_token_file_is_named(tmp_path):
    path = write_token_file(tmp_path / "a.bin", ["hello"], TOKENIZER).path
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"a\.bin has 11 bytes where a\.json promises 12"):
        read_token_file(path)


@pytest.mark.parametrize("sidecar", ["", "{}", '{"dtype": "float8"}', "[1]"])
def test_a_damaged_sidecar_is_named(tmp_path, sidecar):
    path = write_token_file(tmp_path / "a.bin", ["hello"], TOKENIZER).path
    path.with_suffix(".json").write_text(sidecar)
    with pytest.raises(UserError, match=r"a\.json"):
        read_token_file(path)


def test_another_tokenizers_file_is_refused(tmp_path):
    path = write_token_file(tmp_path / "a.bin", ["hello"], TOKENIZER).path
    with pytest.raises(UserError, match="made with another tokenizer"):
        read_token_file(path, CharTokenizer("helo"))


def test_missing_empty_short_and_impossible_files_are_named(tmp_path):
    with pytest.raises(UserError, match="no such token file"):
        read_token_file(tmp_path / "none.bin")
    with pytest.raises(UserError, match=r"chars\.bin holds no tokens"):
        write_token_file(tmp_path / "chars.bin", [""], CharTokenizer("a"))
    tokens = write_token_file(tmp_path / "a.bin", ["hello"], TOKENIZER)
    check_length(tokens, 5)
    with pytest.raises(
        UserError, match=r"6 tokens, too few for model\.context_length=6.*at most 5"
    ):
        check_length(tokens, 6)
    check_ids(tokens, 257)
    with pytest.raises(UserError, match="holds id 256, beyond the vocabulary of 256"):
        check_ids(tokens, 256)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = write_token_file(tmp_path / "a.bin", ["hello"], CharTokenizer("helo")).path
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(UserError):
        write_token_file(path, ["hello", "wörld"], CharTokenizer("helo"))
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_the_target_is_always_the_next_token():
    """Trap 10: also at the last position of a window."""
    ids = np.arange(1000, dtype=np.uint16)
    x, y = random_windows(ids, 8, 64, seed=1, step=2)
    assert x.shape == y.shape == (64, 8)
    assert x.dtype == y.dtype == np.int64
    assert (y == x + 1).all()
    assert (np.diff(x) == 1).all()


def test_random_windows_depend_on_their_address_alone():
    ids = np.arange(5000)
    address = {"seed": 1, "step": 2, "rank": 3, "micro_step": 4}
    first = random_windows(ids, 8, 16, **address)[0]
    np.random.default_rng().random()
    assert (random_windows(ids, 8, 16, **address)[0] == first).all()
    for part in address:
        other = random_windows(ids, 8, 16, **{**address, part: 9})[0]
        assert (other != first).any(), part


def test_random_windows_reach_both_ends_of_the_text():
    ids = np.arange(12)
    starts = {
        int(s) for step in range(40) for s in random_windows(ids, 8, 8, seed=0, step=step)[0][:, 0]
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
    assert mask.tolist() == [[True, False, False], [True, True, True]]


@pytest.mark.parametrize("sequences", [[], [[1], []]])
def test_a_padded_batch_of_nothing_is_refused(sequences):
    with pytest.raises(UserError, match="none may be empty"):
        padded_batch(sequences)
