"""Our tokenizers for Hugging Face and tiktoken, and those of tiktoken for us."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nanogpt.errors import UserError
from nanogpt.files import write_json
from nanogpt.text.bpe import Pair, encode_word
from nanogpt.text.formats import gpt2_characters
from nanogpt.text.splitter import PATTERNS, portable
from nanogpt.text.tokenizer import END_OF_TEXT, AnyTokenizer, CharTokenizer, Tokenizer

if TYPE_CHECKING:
    import tiktoken


def to_huggingface(
    tokenizer: AnyTokenizer, folder: str | Path, context_length: int | None = None
) -> None:
    """Write what AutoTokenizer opens: tokenizer.json and tokenizer_config.json.

    Transformers warns of texts longer than the context length, where it is given.

    Raises UserError if two tokens stand for the same bytes, which the format cannot hold.
    """
    char = isinstance(tokenizer, CharTokenizer)
    values = characters_json(tokenizer) if char else bpe_json(tokenizer)  # type: ignore[arg-type]
    special = [
        {"id": i, "content": text, "special": True, "normalized": False}
        | {"single_word": False, "lstrip": False, "rstrip": False}
        for text, i in tokenizer.special_tokens.items()
    ]
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
    config["clean_up_tokenization_spaces"] = False
    if END_OF_TEXT in tokenizer.special_tokens:
        # The end of a text also serves as padding, whose targets are ignored.
        config |= dict.fromkeys(("bos_token", "eos_token", "pad_token"), END_OF_TEXT)
    if context_length:
        config["model_max_length"] = context_length
    whole = {"version": "1.0", "normalizer": None, "post_processor": None, **values}
    write_json(Path(folder) / "tokenizer.json", whole | {"added_tokens": special})
    write_json(Path(folder) / "tokenizer_config.json", config)


def bpe_json(tokenizer: Tokenizer) -> dict[str, Any]:
    """Byte-level BPE as the package `tokenizers` describes it."""
    characters = gpt2_characters()
    written = ["".join(characters[b] for b in token) for token in ordinary_tokens(tokenizer)]
    pattern = portable(PATTERNS.get(tokenizer.pattern, tokenizer.pattern))
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated"}
    steps = [split | {"invert": False}, byte_level | {"use_regex": False}]
    return {
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
        "decoder": byte_level | {"use_regex": True},
        "model": {
            "type": "BPE",
            "vocab": {text: i for i, text in enumerate(written)},
            "merges": [[written[a], written[b]] for a, b in tokenizer.merges],
        },
    }


def characters_json(tokenizer: CharTokenizer) -> dict[str, Any]:
    """One token a character: BPE that never learned a merge. Unknown characters are left out."""
    vocab = {character: i for i, character in enumerate(tokenizer.characters)}
    return {
        "pre_tokenizer": None,
        "decoder": {"type": "Fuse"},
        "model": {"type": "BPE", "vocab": vocab, "merges": []},
    }


def to_tiktoken(tokenizer: Tokenizer) -> "tiktoken.Encoding":
    """The same tokenizer as tiktoken's, which needs that package.

    tiktoken takes a word that is a token as that token, without merging; for nearly all words
    this is what merging gives. Raises UserError if two tokens stand for the same bytes.
    """
    import tiktoken

    return tiktoken.Encoding(
        name="nanogpt",
        pat_str=PATTERNS.get(tokenizer.pattern, tokenizer.pattern),
        mergeable_ranks={token: i for i, token in enumerate(ordinary_tokens(tokenizer))},
        special_tokens=tokenizer.special_tokens,
    )


def from_tiktoken(encoding: "str | tiktoken.Encoding") -> Tokenizer:
    """A tokenizer from a tiktoken encoding, given itself or by name, such as "gpt2".

    By name tiktoken may have to download it. It keeps no merges, only the order of tokens; each
    merge is found again by encoding its token with the ones before it. Raises UserError for an
    encoding that did not come about by merging pairs one by one.
    """
    import tiktoken

    found = tiktoken.get_encoding(encoding) if isinstance(encoding, str) else encoding
    ranks: dict[bytes, int] = found._mergeable_ranks
    tokens = sorted(ranks, key=ranks.__getitem__)
    if [ranks[token] for token in tokens] != list(range(len(tokens))):
        raise UserError(f"the ids of {found.name} have gaps; it cannot be taken over")
    byte_ids = bytes(tokens.index(bytes([b])) for b in range(256))
    merges: dict[Pair, int] = {}
    for new_id, token in enumerate(tokens[256:], start=256):
        parts = encode_word(token.translate(byte_ids), merges)
        if len(parts) != 2:
            raise UserError(f"{found.name}: {token!r} is not the merge of two earlier tokens")
        merges[parts[0], parts[1]] = new_id
    names = {pattern: name for name, pattern in PATTERNS.items()}
    pattern = names.get(found._pat_str, found._pat_str)
    return Tokenizer(list(merges), pattern, found._special_tokens, b"".join(tokens[:256]))


def ordinary_tokens(tokenizer: Tokenizer) -> list[bytes]:
    """The bytes of each token that is not special, by id.

    Raises UserError if two are the same: formats that name tokens by their bytes cannot tell
    them apart.
    """
    tokens = tokenizer.vocabulary[: 256 + len(tokenizer.merges)]
    if len(set(tokens)) < len(tokens):
        twice = next(token for token, n in Counter(tokens).items() if n > 1)
        raise UserError(f"two tokens stand for {twice!r}; this format cannot hold both")
    return tokens
