"""Our tokenizers for Hugging Face and tiktoken, and tiktoken's as ours."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from nanogpt.errors import UserError
from nanogpt.files import write_json
from nanogpt.text.conversations import CHAT_TEMPLATE, has_roles
from nanogpt.text.formats import from_ranks, gpt2_characters
from nanogpt.text.splitter import PATTERNS, portable
from nanogpt.text.tokenizer import END_OF_TEXT, BaseTokenizer, CharTokenizer, Tokenizer

if TYPE_CHECKING:
    import tiktoken


def to_huggingface(
    tokenizer: BaseTokenizer, folder: str | Path, context_length: int | None = None
) -> None:
    """Write what AutoTokenizer opens: tokenizer.json and tokenizer_config.json.

    Transformers warns of texts longer than the context length, where it is given.

    Raises UserError if two tokens stand for the same bytes, which the format cannot hold.
    """
    folder = Path(folder)
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
    if has_roles(tokenizer):
        config["chat_template"] = CHAT_TEMPLATE
    if context_length:
        config["model_max_length"] = context_length
    whole = {"version": "1.0", "normalizer": None, "post_processor": None, **values}
    write_json(folder / "tokenizer.json", whole | {"added_tokens": special})
    write_json(folder / "tokenizer_config.json", config)


def bpe_json(tokenizer: Tokenizer) -> dict[str, Any]:
    """Byte-level BPE as the package `tokenizers` describes it."""
    characters = gpt2_characters()
    written = {
        i: "".join(characters[byte] for byte in token)
        for token, i in ordinary_tokens(tokenizer).items()
    }
    vocab = {text: i for i, text in written.items()}
    for text in vocab.keys() & tokenizer.special_tokens.keys():
        raise UserError(f"a special and another token are {text!r}; this format cannot hold both")
    pattern = portable(PATTERNS.get(tokenizer.pattern, tokenizer.pattern))
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated"}
    steps = [split | {"invert": False}, byte_level | {"use_regex": False}]
    return {
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
        "decoder": byte_level | {"use_regex": True},
        "model": {
            "type": "BPE",
            # An added token that is not here would get the next free id, whatever its own is.
            "vocab": vocab | tokenizer.special_tokens,
            "merges": [[written[a], written[b]] for a, b in tokenizer.merges],
        },
    }


def characters_json(tokenizer: CharTokenizer) -> dict[str, Any]:
    """One token per character: BPE without merges. Unknown characters are left out."""
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
        mergeable_ranks=ordinary_tokens(tokenizer),
        special_tokens=tokenizer.special_tokens,
    )


def from_tiktoken(encoding: "str | tiktoken.Encoding") -> Tokenizer:
    """Take over an encoding of tiktoken's, given itself or by name, such as "gpt2".

    Given a name, tiktoken may have to download it. Raises UserError if a token is not the merge of
    two earlier ones: see `formats.from_ranks`.
    """
    import tiktoken

    found = tiktoken.get_encoding(encoding) if isinstance(encoding, str) else encoding
    return from_ranks(found._mergeable_ranks, found._pat_str, found._special_tokens, found.name)


def ordinary_tokens(tokenizer: Tokenizer) -> dict[bytes, int]:
    """The id of each token that is not special, by its bytes.

    Raises UserError if two are the same: formats that name tokens by their bytes cannot tell
    them apart.
    """
    special = set(tokenizer.special_tokens.values())
    ids: dict[bytes, int] = {}
    for i, token in tokenizer.vocabulary.items():
        if i not in special:
            if token in ids:
                raise UserError(f"two tokens stand for {token!r}; this format cannot hold both")
            ids[token] = i
    return ids
