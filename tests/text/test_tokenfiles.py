"""Token files: what is on disk, and what is said of files that are damaged or foreign."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest

from nanogpt.config import Config
from nanogpt.errors import UserError
from nanogpt.text.dataset import tokenizer_of
from nanogpt.text.tokenfiles import (
    check_ids,
    check_length,
    open_split,
    read_token_file,
    write_token_file,
)
from nanogpt.text.tokenizer import CharTokenizer, Tokenizer

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
        "largest": 256,
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


def test_the_largest_id_is_read_from_the_sidecar(tmp_path, monkeypatch):
    """A corpus of billions of tokens must not be read through whenever a run starts."""
    tokens = write_token_file(tmp_path / "a.bin", ["hello"], TOKENIZER)
    monkeypatch.setattr("nanogpt.text.tokenfiles.CHUNK", 1)  # small files are looked at
    monkeypatch.setattr("nanogpt.text.tokenfiles.largest_id", None)
    check_ids(read_token_file(tokens.path), 257)
    with pytest.raises(UserError, match="holds id 256"):
        check_ids(read_token_file(tokens.path), 256)


def test_a_file_that_is_newer_than_its_sidecar_is_read_for_its_largest_id(tmp_path):
    """A changed id must be one line of words, not a crash in the embedding."""
    path = write_token_file(tmp_path / "a.bin", ["hello"], TOKENIZER).path
    path.write_bytes(b"\xff\xff" + path.read_bytes()[2:])
    later = path.with_suffix(".json").stat().st_mtime + 1
    os.utime(path, (later, later))
    with pytest.raises(UserError, match="holds id 65535"):
        check_ids(read_token_file(path), 257)


def test_an_older_sidecar_without_the_largest_id_still_serves(tmp_path):
    path = write_token_file(tmp_path / "train-00000-of-00002.bin", ["hello"], TOKENIZER).path
    write_token_file(tmp_path / "train-00001-of-00002.bin", ["hello"], TOKENIZER)
    values = json.loads(path.with_suffix(".json").read_text())
    del values["largest"]
    path.with_suffix(".json").write_text(json.dumps(values))
    for tokens in (read_token_file(path), open_split(tmp_path, "train", TOKENIZER)):
        assert tokens.about.largest is None
        check_ids(tokens, 257)
        with pytest.raises(UserError, match="holds id 256"):
            check_ids(tokens, 256)


@pytest.mark.parametrize("kind", [str, Path])
def test_paths_may_be_strings(kind, tmp_path):
    path = kind(tmp_path / "train.bin")
    write_token_file(path, ["hello"], TOKENIZER)
    found = open_split(kind(tmp_path), "train", TOKENIZER)
    assert found.ids.tolist() == read_token_file(path).ids.tolist()


def test_missing_token_files_say_how_to_make_them(tmp_path):
    with pytest.raises(UserError, match=r"none: no such token files; make them with `nanogpt prep"):
        tokenizer_of(tmp_path / "none", Config())
    (tmp_path / "train.bin").write_bytes(b"\x01\x00")
    with pytest.raises(
        UserError, match=r"has no tokenizer\.json; name the tokenizer with data\.tok"
    ):
        tokenizer_of(tmp_path, Config())


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = write_token_file(tmp_path / "a.bin", ["hello"], CharTokenizer("helo")).path
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(UserError):
        write_token_file(path, ["hello", "wörld"], CharTokenizer("helo"))
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before


def sharded(tmp_path, texts):
    """The texts as three shards, and as one file."""
    whole = write_token_file(tmp_path / "whole.bin", texts, TOKENIZER)
    for n, part in enumerate([texts[:2], texts[2:3], texts[3:]]):
        write_token_file(tmp_path / f"train-{n:05d}-of-00003.bin", part, TOKENIZER)
    return whole, open_split(tmp_path, "train", TOKENIZER)


def test_shards_read_as_one_file(tmp_path):
    whole, shards = sharded(tmp_path, ["one", "two", "three", "four", "five"])
    assert shards.about.count == whole.about.count
    assert shards.about.bytes == whole.about.bytes
    assert shards.about.documents == 5
    n = len(whole.ids)
    assert len(shards.ids) == n
    for start in range(n):
        for stop in range(start, n + 3):
            assert shards.ids[start:stop].tolist() == whole.ids[start:stop].tolist()
    assert np.concatenate(list(shards.chunks())).tolist() == whole.ids.tolist()


def test_a_change_in_any_shard_changes_the_fingerprint(tmp_path):
    before = sharded(tmp_path, ["one", "two", "three", "four"])[1].about.sha256
    write_token_file(tmp_path / "train-00001-of-00003.bin", ["other"], TOKENIZER)
    assert open_split(tmp_path, "train", TOKENIZER).about.sha256 != before


def test_nanogpts_bare_ids_are_read(tmp_path):
    (tmp_path / "train.bin").write_bytes(bytes([104, 0, 105, 0, 0, 1, 195, 0, 169, 0]))
    tokens = open_split(tmp_path, "train", TOKENIZER)
    assert tokens.ids.tolist() == [104, 105, 256, 195, 169]
    assert tokens.about.bytes == 4  # "hi" and "é"; the end-of-text token is no text
    assert tokens.about.documents == 1


def llmc_file(count: int, magic: int = 20240520, version: int = 1) -> bytes:
    """256 integers, the first three of them in use, and then 16-bit ids."""
    header = b"".join(n.to_bytes(4, "little") for n in (magic, version, count))
    return header + bytes(4 * 253) + bytes([104, 0, 105, 0, 0, 1])


def test_llmcs_headered_files_are_read_in_the_order_of_their_names(tmp_path):
    (tmp_path / "fineweb_train_000001.bin").write_bytes(llmc_file(3))
    (tmp_path / "fineweb_train_000002.bin").write_bytes(llmc_file(3))
    (tmp_path / "fineweb_val_000000.bin").write_bytes(llmc_file(3))
    assert open_split(tmp_path, "val", TOKENIZER).ids.tolist() == [104, 105, 256]
    train = open_split(tmp_path, "train", TOKENIZER)
    assert train.ids[:].tolist() == [104, 105, 256] * 2
    assert train.about.documents == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (llmc_file(4), r"a\.bin has 1030 bytes where its header promises 1032 \(4 tokens\)"),
        (llmc_file(3)[:-1], r"a\.bin has 1029 bytes where its header promises 1030"),
        (llmc_file(3)[:900], r"a\.bin has an unknown or cut-off header"),
        (llmc_file(3, version=2), r"a\.bin has an unknown or cut-off header"),
        (llmc_file(0)[:1024], r"a\.bin has 1024 bytes, which cannot be 16-bit ids"),
        (b"", r"a\.bin has 0 bytes, which cannot be 16-bit ids"),
        (b"abc", r"a\.bin has 3 bytes, which cannot be 16-bit ids"),
        (b"\xff\xff", r"a\.bin holds id 65535, beyond the vocabulary of 257"),
    ],
)
def test_damaged_foreign_files_are_named(content, message, tmp_path):
    (tmp_path / "a.bin").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_token_file(tmp_path / "a.bin", TOKENIZER)


def test_a_foreign_file_needs_a_tokenizer(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"\x01\x00")
    with pytest.raises(UserError, match=r"a\.bin has no sidecar a\.json"):
        read_token_file(tmp_path / "a.bin")
