"""From text to ids and back: special tokens, the split into words, BPE, and one JSON file.

Two tokenizers with the same methods: `Tokenizer` (byte-level BPE, as in GPT-2) and `CharTokenizer`
(one id per character, the simplest thing that works).
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from itertools import chain, count
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from nanogpt.errors import UserError
from nanogpt.files import write_json
from nanogpt.text.bpe import Pair, encode_word, merge_steps, train
from nanogpt.text.corpus import text_pieces
from nanogpt.text.encoding import WordCache, count_words, encode_batch, encode_stream
from nanogpt.text.splitter import Splitter, special_pattern

END_OF_TEXT = "<|endoftext|>"

# What to do with the text of a special token: encode it like any other text, turn it into the
# token, or refuse. Text from outside must never be able to forge an end of text, hence the default.
SpecialPolicy = Literal["as-text", "allow", "forbid"]


class BaseTokenizer:
    """What every tokenizer can do. A new kind brings `encode`, `to_dict` and `from_dict`."""

    special_tokens: dict[str, int]
    vocabulary: dict[int, bytes]  # id -> the bytes it stands for; ids may have gaps

    @cached_property
    def vocab_size(self) -> int:
        """Rows that an embedding table needs: the largest id + 1."""
        return max(self.vocabulary, default=-1) + 1

    def encode(self, text: str, special: SpecialPolicy = "as-text") -> list[int]:
        """Turn text into ids."""
        raise NotImplementedError(f"{type(self).__name__}.encode")

    def encode_array(self, text: str, special: SpecialPolicy = "as-text") -> NDArray[np.uint32]:
        """The ids as an array."""
        return np.array(self.encode(text, special), dtype=np.uint32)

    @cached_property
    def _latin1(self) -> dict[int, str]:
        return {i: token.decode("latin-1") for i, token in self.vocabulary.items()}

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The exact bytes that the ids of one text stand for: a list, an array or a 1-D tensor.

        One token may hold half a character. Raises UserError for an id that no token has.
        """
        values = ids.tolist() if hasattr(ids, "tolist") else ids
        try:
            # Joining strings is twice as fast as joining bytes; Latin-1 is the same bytes.
            return "".join(map(self._latin1.__getitem__, values)).encode("latin-1")
        except TypeError:
            raise UserError("decode takes the ids of one text, as in [15496] or batch[0]") from None
        except KeyError as error:
            gap = error.args[0] in range(self.vocab_size)
            advice = "it lies in a gap between tokens" if gap else f"use 0 to {self.vocab_size - 1}"
            raise UserError(f"id {error} is not in the vocabulary: {advice}") from None

    def decode(self, ids: Iterable[int], errors: str = "replace") -> str:
        """The text that the ids stand for; bytes that are not UTF-8 become U+FFFD by default."""
        return self.decode_bytes(ids).decode("utf-8", errors)

    def to_dict(self) -> dict[str, Any]:
        """Everything needed to build the tokenizer again, as plain JSON values."""
        raise NotImplementedError(f"{type(self).__name__}.to_dict")

    def save(self, path: str | Path) -> None:
        """Write the tokenizer as one JSON file."""
        write_json(path, self.to_dict())

    def fingerprint(self) -> str:
        """A hash by which token files remember which tokenizer made them."""
        canonical = json.dumps(self.to_dict(), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


class Tokenizer(BaseTokenizer):
    """Byte-level byte-pair encoding.

    Ids count up from 0, the 256 bytes first and then one for each merge, and skip those that
    belong to special tokens. So merge n makes id 256 + n if the special tokens come last.

    Args:
        merges: the pair of ids that each learned token joins, in the order of learning.
        pattern: how text is cut before merging: a name from PATTERNS or a regular expression.
        special_tokens: text -> id of tokens that stand for themselves, such as <|endoftext|>. Any
            ids will do: with gaps between them (GPT-4), or among the others.
        byte_order: byte_order[i] is the i-th byte. GPT-2 has an order of its own.
    """

    def __init__(
        self,
        merges: Sequence[Pair],
        pattern: str = "gpt2",
        special_tokens: Mapping[str, int] | None = None,
        byte_order: bytes = bytes(range(256)),
    ) -> None:
        self.merges = [(a, b) for a, b in merges]
        self.pattern, self.byte_order = pattern, byte_order
        self.special_tokens = dict(special_tokens or {})
        self.vocabulary = {i: to_bytes(text) for text, i in self.special_tokens.items()}
        if len(self.vocabulary) < len(self.special_tokens) or min(self.vocabulary, default=0) < 0:
            raise UserError(f"special tokens need different ids from 0 on: {self.special_tokens}")
        free_ids = (i for i in count() if i not in self.vocabulary)
        byte_ids = {byte: next(free_ids) for byte in byte_order}
        self._byte_ids = [byte_ids[byte] for byte in range(256)]
        self.vocabulary |= {i: bytes([byte]) for byte, i in byte_ids.items()}
        self.ranks: dict[Pair, int] = {}  # pair -> the id that it merges into
        for a, b in self.merges:
            new_id = self.ranks[a, b] = next(free_ids)
            self.vocabulary[new_id] = self.vocabulary[a] + self.vocabulary[b]
        self.split = Splitter(pattern)
        self._special = special_pattern(self.special_tokens)
        self._packed = WordCache(self.encode_word)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.from_dict, (self.to_dict(),)  # to another process without the words seen so far

    @classmethod
    def train(
        cls,
        texts: Iterable[str | Path],
        vocab_size: int,
        special_tokens: Sequence[str] = (END_OF_TEXT,),
        pattern: str = "gpt2",
        processes: int = 1,
    ) -> Self:
        """Learn a vocabulary of at most `vocab_size` tokens, the special ones included.

        A str is a text; a Path is a UTF-8 file of any size, read piece by piece. The merges depend
        on how often each word occurs, not on the number of processes. A small text may run out of
        pairs to merge. Raises UserError if there is no room for the 256 bytes and the special
        tokens, for one str or Path in place of a list, and if the first str is the name of a file.
        """
        n_merges = vocab_size - 256 - len(special_tokens)
        if n_merges < 0:
            raise UserError(f"vocab_size={vocab_size}: use at least {vocab_size - n_merges}")
        words = count_words(text_pieces(texts), pattern, processes)
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
        found = self._special.search(text) if special == "forbid" else None
        if found:
            raise UserError(f"the text contains {found[0]}; remove it or allow special tokens")
        # Special tokens and what is between them, in turn.
        parts = self._special.split(text) if special == "allow" else [text]
        packed = []
        for n, part in enumerate(parts):
            if n % 2:
                packed.append(np.uint32(self.special_tokens[part]).tobytes())
            else:
                packed.extend(map(self._packed.__getitem__, self.split(part)))
        return np.frombuffer(b"".join(packed), dtype=np.uint32)

    def encode_word(self, word: str) -> list[int]:
        """Apply the merges to one piece of text as a whole, without splitting it first."""
        return encode_word([self._byte_ids[byte] for byte in to_bytes(word)], self.ranks)

    def encode_batch(
        self, texts: Sequence[str], special: SpecialPolicy = "as-text", processes: int = 1
    ) -> list[list[int]]:
        """Encode many texts in several processes. The result is that of one process."""
        return encode_batch(texts, partial(self.encode_array, special=special), processes)

    def encode_iterable(
        self, stream: Iterable[str], special: SpecialPolicy = "as-text"
    ) -> Iterator[int]:
        """Encode an endless stream of strings, id by id: the ids of the joined text."""
        names = [] if special == "as-text" else list(self.special_tokens)
        return encode_stream(stream, partial(self.encode, special=special), self.split, names)

    def explain(self, text: str) -> list[list[list[bytes]]]:
        """For each word of the text, its pieces before the first merge and after each one.

        >>> tokenizer = Tokenizer([(111, 119), (108, 256)])
        >>> tokenizer.explain("low")
        [[[b'l', b'o', b'w'], [b'l', b'ow'], [b'low']]]
        """
        words = [[self._byte_ids[byte] for byte in to_bytes(word)] for word in self.split(text)]
        steps = [merge_steps(word, self.ranks) for word in words]
        return [[[self.vocabulary[i] for i in ids] for ids in word] for word in steps]

    def to_dict(self) -> dict[str, Any]:
        return {
            "type": "bpe",
            "pattern": self.pattern,
            "special_tokens": self.special_tokens,
            "byte_order": list(self.byte_order),
            "merges": self.merges,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of to_dict."""
        order = bytes(values["byte_order"])
        return cls(values["merges"], values["pattern"], values["special_tokens"], order)

    def with_special_tokens(self, names: Sequence[str]) -> "Tokenizer":
        """A copy that has more special tokens; their ids follow the last one."""
        new = {name: self.vocab_size + n for n, name in enumerate(names)}
        if len(new) < len(names) or new.keys() & self.special_tokens.keys():
            raise UserError(f"special tokens must be new and different: {', '.join(names)}")
        return Tokenizer(self.merges, self.pattern, self.special_tokens | new, self.byte_order)


class CharTokenizer(BaseTokenizer):
    """One id per character: nothing to learn but the alphabet.

    Long sequences and no knowledge of words, but a vocabulary that fits in your head. Special
    tokens are optional and come after the characters.
    """

    def __init__(self, characters: Sequence[str], special_tokens: Sequence[str] = ()) -> None:
        self.characters = list(characters)
        self.ids = {character: i for i, character in enumerate(self.characters)}
        self.special_tokens = {t: len(self.characters) + n for n, t in enumerate(special_tokens)}
        self.vocabulary = dict(enumerate(map(to_bytes, (*self.characters, *special_tokens))))

    @classmethod
    def train(cls, texts: Iterable[str | Path], special_tokens: Sequence[str] = ()) -> Self:
        """Collect the characters that occur, in code point order. Texts as in Tokenizer.train."""
        return cls(sorted(set(chain.from_iterable(text_pieces(texts)))), special_tokens)

    def encode(self, text: str, special: SpecialPolicy = "as-text") -> list[int]:
        """Turn text into ids. Raises UserError for a character that training did not see.

        >>> CharTokenizer("abc").encode("cab")
        [2, 0, 1]
        """
        if special != "as-text":
            raise UserError("characters have no special tokens in a text; use a BPE tokenizer")
        try:
            return [self.ids[character] for character in text]
        except KeyError as error:
            known = "".join(c for c in self.characters if c.isprintable())
            message = f"the character {error} is not in this vocabulary: use only {known}"
            raise UserError(message) from None

    def to_dict(self) -> dict[str, Any]:
        special = list(self.special_tokens)
        return {"type": "char", "special_tokens": special, "characters": self.characters}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of to_dict."""
        return cls(values["characters"], values["special_tokens"])


def to_bytes(text: str) -> bytes:
    """UTF-8, also for lone surrogates, which strict UTF-8 refuses but Python strings may hold."""
    return text.encode("utf-8", "surrogatepass")
