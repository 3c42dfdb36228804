"""From text to ids and back: special tokens, the pre-tokenizer's split, BPE, and one JSON file.

Two tokenizers with the same methods: `Tokenizer` (byte-level BPE, as in GPT-2) and `CharTokenizer`
(one id per character, the simplest thing that works).
"""

import hashlib
import json
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np
import regex
from numpy.typing import NDArray

from nanogpt.errors import UserError
from nanogpt.files import write_json
from nanogpt.text.bpe import Pair, encode_word, merge_steps, train
from nanogpt.text.corpus import read_pieces
from nanogpt.text.splitter import Splitter
from nanogpt.workers import grouped, map_in_order

END_OF_TEXT = "<|endoftext|>"


# What to do with the text of a special token: encode it like any other text, turn it into the
# token, or refuse. Text from outside must never be able to forge an end of text, hence the default.
SpecialPolicy = Literal["as-text", "allow", "forbid"]


class BaseTokenizer(Protocol):
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

    def with_special_tokens(self, names: Sequence[str]) -> "Tokenizer":
        """A copy that has more special tokens; their ids follow the last one."""
        new = {name: self.vocab_size + n for n, name in enumerate(names)}
        if len(new) < len(names) or new.keys() & self.special_tokens.keys():
            raise UserError(f"special tokens must be new and different: {', '.join(names)}")
        return Tokenizer(self.merges, self.pattern, self.special_tokens | new, self.byte_order)


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


def to_bytes(text: str) -> bytes:
    """UTF-8, also for lone surrogates, which strict UTF-8 refuses but Python strings may hold."""
    return text.encode("utf-8", "surrogatepass")
