"""Thousands of files that are nearly right: each is read, or refused in a line.

`NANOGPT_FUZZ=20000` sets how many files are tried, `NANOGPT_FUZZ_SEED=1` which ones. A file that
is neither read nor refused stays in the temporary folder of the test, and its number is named.
"""

import gzip
import json
import os
import random
import shutil
import struct
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from foreign import TooSlowError, within
from safetensors.torch import load_file
from test_tokenizers import tiktoken_lines

from nanogpt.config import Config, DataConfig, SampleConfig, load_config, to_toml
from nanogpt.errors import UserError
from nanogpt.interop.huggingface import export, from_pretrained
from nanogpt.interop.tokenizers import to_huggingface
from nanogpt.model.gpt import GPT
from nanogpt.text.formats import find_tokenizer, from_tiktoken_file
from nanogpt.text.sources import stream_documents
from nanogpt.text.tokenfiles import check_ids, read_token_file, write_token_file
from nanogpt.text.tokenizer import CharTokenizer, Tokenizer
from nanogpt.training.checkpoint import load_state
from nanogpt.training.records import read_metrics

from conftest import TEXT, tiny

BUDGET = int(os.environ.get("NANOGPT_FUZZ", "500"))
SEED = int(os.environ.get("NANOGPT_FUZZ_SEED", "0"))
MANY = 20_000

# What often breaks a reader, as bytes and as JSON values.
BYTES = [
    b"\0", b"\xff", b"\n", b"\r\n", b'"', b"{", b"}", b"[", b"]", b",", b":", b"\\", b"-", b"0",
    b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\\ud800", b"null", b"NaN", b"-1", b"1e999", b"9" * 400,
    b"9" * 5000, b"[" * 2000, b'{"a":' * 2000, b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f" * 8,
    b"(?:a|a)+b", b"(", b"../",
]  # fmt: skip
VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 2**63, 10**12, 10**400, 0.5, -0.0, 1e308, float("nan"),
    float("inf"), "", "a", "\0", "\ud800", "../a", "x" * 1000, [], [[]], [None], [1, 2, 3], {},
    {"a": 1}, {"": ""}, [[[[[[]]]]]],
]  # fmt: skip


def changed_bytes(content: bytes, chance: random.Random) -> bytes:
    """One to four changes anywhere in a file."""
    data = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        place = chance.randint(0, len(data))
        end = min(len(data), place + chance.choice([1, 1, 2, 4, 8, 64, 4096]))
        match chance.randrange(7):
            case 0 if place < len(data):
                data[place] ^= 1 << chance.randrange(8)
            case 1 if place < len(data):
                data[place] = chance.randrange(256)
            case 2:
                data[place:end] = b""
            case 3:
                data[place:place] = data[place:end]
            case 4:
                data[place:place] = chance.choice(BYTES)
            case 5:
                data[place:end] = chance.choice(BYTES)
            case _:
                if chance.random() < 0.3:
                    data = data[:place]
    return bytes(data)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value inside JSON values; of long lists, to a few."""
    if isinstance(value, dict):
        inside = list(value.items())
    elif isinstance(value, list):
        inside = list(enumerate(value))[:3] + list(enumerate(value))[-2:]
    else:
        return [path]
    return [path, *(way for key, inner in inside[:40] for way in places(inner, (*path, key)))]


def changed_values(values: Any, chance: random.Random) -> Any:
    """One to three changes of values, keys and orders."""
    values = json.loads(json.dumps(values))
    for _ in range(chance.randint(1, 3)):
        ways = [way for way in places(values) if way]
        if not ways:
            return chance.choice(VALUES)
        *path, key = chance.choice(ways)
        place = values
        for step in path:
            place = place[step]
        match chance.randrange(5):
            case 0 if isinstance(place, dict):
                del place[key]
            case 1 if isinstance(place, dict):
                place[chance.choice(["", "a", *place])] = place.pop(key)
            case 2 if isinstance(place, list):
                chance.shuffle(place)
            case 3 if isinstance(place[key], int) and type(place[key]) is int:
                place[key] += chance.choice([-1, 1, 7, 256, 2**16])
            case _:
                place[key] = json.loads(json.dumps(chance.choice(VALUES)))
    return values


def changed_json(content: bytes, chance: random.Random) -> bytes:
    """A JSON file with other values, or with other bytes."""
    if chance.random() < 0.3:
        return changed_bytes(content, chance)
    changed = json.dumps(changed_values(json.loads(content), chance)).encode()
    return changed_bytes(changed, chance) if chance.random() < 0.1 else changed


def changed_lines(content: bytes, chance: random.Random) -> bytes:
    """A file of JSON lines in which one line is another."""
    lines = content.splitlines()
    n = chance.randrange(len(lines))
    lines[n] = changed_json(lines[n], chance)
    return b"\n".join(lines)


def changed_safetensors(content: bytes, chance: random.Random) -> bytes:
    """A safetensors file with another header, or with other bytes."""
    if chance.random() < 0.3:
        return changed_bytes(content, chance)
    size = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + size]), content[8 + size :]
    text = json.dumps(changed_values(header, chance)).encode()
    size = len(text) + (chance.random() < 0.1) * chance.randint(-9, 9)
    return struct.pack("<Q", max(0, size)) + text + data


def zstd(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as file:
        file.write(content)
    return sink.getvalue().to_pybytes()


def packed(
    pack: Callable[[bytes], bytes], change: Callable[[bytes, random.Random], bytes]
) -> Callable[[bytes, random.Random], bytes]:
    """Changes of what a compressed file holds, or of the file itself."""

    def changed(content: bytes, chance: random.Random) -> bytes:
        if chance.random() < 0.3:
            return pack(change(content, chance))
        return changed_bytes(pack(content), chance)

    return changed


def read_text(path: Path) -> None:
    for document in stream_documents(DataConfig(source=str(path))):
        assert document.text.encode("utf-8", "surrogatepass")


def read_tokenizer(path: Path) -> None:
    known = path.suffix == ".tiktoken"
    tokenizer = from_tiktoken_file(path, "gpt2") if known else find_tokenizer(path)
    text = "DUKE:\nIf 3 kings, 'll pay  é🎭"
    letters = isinstance(tokenizer, CharTokenizer)
    if letters:
        text = "".join(c for c in text if c in tokenizer.ids)
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(tokenizer.fingerprint()) == 16


def read_tokens(path: Path) -> None:
    tokens = read_token_file(path.with_suffix(".bin"), LETTERS)
    check_ids(tokens, 500)
    assert tokens.bytes_per_token > 0
    assert max(int(chunk.max()) for chunk in tokens.chunks()) < 500


def read_model(path: Path) -> None:
    model = from_pretrained(path.parent)
    with torch.no_grad():
        model(torch.zeros(1, 3, dtype=torch.long))


LETTERS = Tokenizer.train([TEXT], 300)
SHAPES = {
    "gpt2": tiny(vocab_size=300, n_layer=1),
    "llama": tiny(
        vocab_size=300, n_layer=1, n_head=2, position="rope", norm="rms", mlp="swiglu", bias=False
    ),
}


def whole_files(folder: Path) -> None:
    """Files of all kinds as they should be, each beside those that it needs."""
    torch.manual_seed(0)
    for name, shape in SHAPES.items():
        export(folder / name, GPT(shape), LETTERS, SampleConfig(), "")
    weights = load_file(folder / "gpt2" / "model.safetensors")
    for name in ("index", "bin"):
        shutil.copytree(folder / "gpt2", folder / name)
    (folder / "index" / "model.safetensors").rename(folder / "index" / "part.safetensors")
    (folder / "bin" / "model.safetensors").unlink()
    torch.save(weights, folder / "bin" / "pytorch_model.bin")
    index = {"weight_map": dict.fromkeys(weights, "part.safetensors")}
    (folder / "index" / "model.safetensors.index.json").write_text(json.dumps(index))
    for name in ("tokens", "foreign", "run", "theirs"):
        (folder / name).mkdir()
    LETTERS.save(folder / "ours.json")
    CharTokenizer.train([TEXT], ["<|endoftext|>"]).save(folder / "characters.json")
    to_huggingface(LETTERS, folder / "theirs")
    (folder / "a.tiktoken").write_text(tiktoken_lines())
    write_token_file(folder / "tokens" / "train.bin", [TEXT], LETTERS)
    shutil.copy(folder / "tokens" / "train.bin", folder / "foreign")
    sections = {name: vars(section) for name, section in vars(Config()).items()}
    state = {"step": 3, "best_loss": 1.5, "seconds": 2.0, "tokens": "0-0", "scaler": {}}
    hashes = {"model.safetensors": "0" * 64}
    whole = {"format": 1, "state": state, "config": sections, "sha256": hashes}
    (folder / "run" / "state.json").write_text(json.dumps(whole))
    records = [{"step": n, "train_loss": 2.5, "val_loss": 2.0, "lr": 1e-3} for n in range(4)]
    (folder / "run" / "metrics.jsonl").write_text("\n".join(map(json.dumps, records)))
    (folder / "a.toml").write_text(to_toml(Config()))
    texts = [f"{n} é {TEXT[:200]}" for n in range(9)]
    lines = "\n".join(json.dumps({"text": text, "more": [1]}) for text in texts)
    for name, text in (("a.txt", TEXT[:3000]), ("a.jsonl", lines)):
        for ending in ("", ".gz", ".zst"):
            (folder / f"{name}{ending}").write_text(text)  # packed when it is changed
    pq.write_table(pa.table({"text": texts, "n": [*range(9)]}), folder / "a.parquet")


Change = Callable[[bytes, random.Random], bytes]

TARGETS: dict[str, tuple[Change, Callable[[Path], object]]] = {
    "ours.json": (changed_json, read_tokenizer),
    "characters.json": (changed_json, read_tokenizer),
    "theirs/tokenizer.json": (changed_json, read_tokenizer),
    "a.tiktoken": (changed_bytes, read_tokenizer),
    "a.txt": (changed_bytes, read_text),
    "a.txt.gz": (packed(gzip.compress, changed_bytes), read_text),
    "a.txt.zst": (packed(zstd, changed_bytes), read_text),
    "a.jsonl": (changed_lines, read_text),
    "a.jsonl.gz": (packed(gzip.compress, changed_lines), read_text),
    "a.jsonl.zst": (packed(zstd, changed_lines), read_text),
    "a.parquet": (changed_bytes, read_text),
    "a.toml": (changed_bytes, load_config),
    "tokens/train.json": (changed_json, read_tokens),
    "tokens/train.bin": (changed_bytes, read_tokens),
    "foreign/train.bin": (changed_bytes, read_tokens),
    "run/state.json": (changed_json, lambda path: load_state(path.parent)),
    "run/metrics.jsonl": (changed_lines, lambda path: read_metrics(path.parent)),
    "gpt2/config.json": (changed_json, read_model),
    "llama/config.json": (changed_json, read_model),
    "gpt2/model.safetensors": (changed_safetensors, read_model),
    "llama/model.safetensors": (changed_safetensors, read_model),
    "index/model.safetensors.index.json": (changed_json, read_model),
    "bin/pytorch_model.bin": (changed_bytes, read_model),
}


def try_files(name: str, folder: Path, first: int, count: int) -> tuple[int, list[str]]:
    """Change one file in many ways: how many were refused, and what else happened."""
    change, read = TARGETS[name]
    path = folder / name
    whole = path.read_bytes()
    refused, others = 0, []
    for number in range(first, first + count):
        path.write_bytes(change(whole, random.Random(f"{name} {number}")))
        try:
            with warnings.catch_warnings(action="ignore"), within(20):
                read(path)
        except UserError as error:
            refused += bool(str(error))
        except (Exception, TooSlowError) as error:
            kept = path.with_name(f"{number}-{path.name}")
            kept.write_bytes(path.read_bytes())
            place = traceback.extract_tb(error.__traceback__)[-1]
            others.append(f"{kept}: {error!r:.200} at {place.filename}:{place.lineno}")
    path.write_bytes(whole)
    return refused, others


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The files, for all tests of this module; each puts back what it changes."""
    place = tmp_path_factory.mktemp("fuzz")
    whole_files(place)
    return place


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """A pattern without end is found sooner, so that the tests end sooner."""
    monkeypatch.setattr("nanogpt.text.splitter.PATTERN_SECONDS", 0.5)


@pytest.mark.parametrize("name", TARGETS)
def test_a_file_that_is_nearly_right_is_read_or_refused(name, folder):
    count = BUDGET // len(TARGETS) + 1
    refused, others = try_files(name, folder, SEED * MANY, count)
    assert others == []
    assert refused + 1 > count // 50  # the changes do reach the reader


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_twenty_thousand_files_that_are_nearly_right_are_read_or_refused(name, folder):
    _, others = try_files(name, folder, SEED * MANY, MANY // len(TARGETS) + 1)
    assert others == []
