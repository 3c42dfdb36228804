"""Token files: what is on disk, and what is said of files that are damaged or foreign."""

import hashlib
import json

import numpy as np
import pytest

from nanogpt.errors import UserError
from nanogpt.tokenfiles import (
    check_ids,
    check_length,
    read_token_file,
    write_token_file,
)
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
