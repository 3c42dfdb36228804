"""Tokenizers from anywhere: what cannot be one costs one line, soon."""

import base64
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from foreign import complaint, spoiled, within

from nanogpt.errors import UserError
from nanogpt.interop.tokenizers import to_huggingface
from nanogpt.text.bpe import merge_steps
from nanogpt.text.formats import find_tokenizer, from_tiktoken_file, load_tokenizer
from nanogpt.text.long_words import encode_long_word
from nanogpt.text.splitter import PATTERNS, Splitter
from nanogpt.text.tokenizer import CharTokenizer, Tokenizer

from conftest import TEXT

BYTES = list(range(256))
OURS = Tokenizer.train([TEXT], 280)

Change = Callable[[dict[str, Any]], object]


def put(*path: str, value: object) -> Change:
    """A change that sets one value inside nested objects; `...` removes it."""

    def change(values: dict[str, Any]) -> None:
        for key in path[:-1]:
            values = values[key]
        values[path[-1]] = value
        if value is ...:
            del values[path[-1]]

    return change


# What may stand where something else belongs.
WRONG = {
    "null": None, "true": True, "a number": 3, "a half": 0.5, "NaN": float("nan"),
    "an enormous number": 10**400, "text": "text", "a list": [1], "an object": {"a": 1},
    "missing": ...,
}  # fmt: skip


def everywhere(*keys: str, fine: tuple[str, ...] = ()) -> dict[str, Change]:
    """Every wrong value in the place of each key. `fine` names those that do no harm."""
    return {
        f"{key} is {name}": put(key, value=value)
        for key in keys
        for name, value in WRONG.items()
        if f"{key} is {name}" not in fine
    }


# Our own file, of byte pairs. A pattern may be any text, and "text" is one.
BPE: dict[str, Change] = {
    **everywhere(
        "type",
        "pattern",
        "special_tokens",
        "byte_order",
        "merges",
        fine=("pattern is text", "special_tokens is an object"),
    ),
    "a byte is there twice": put("byte_order", value=[0, *range(255)]),
    "a byte is missing": put("byte_order", value=BYTES[:-1]),
    "a byte too many": put("byte_order", value=[*BYTES, 256]),
    "a byte is text": put("byte_order", value=["0", *range(1, 256)]),
    "a byte below 0": put("byte_order", value=[-1, *range(255)]),
    "merges of one": put("merges", value=[[97]]),
    "merges of three": put("merges", value=[[97, 98, 99]]),
    "merges of texts": put("merges", value=[["a", "b"]]),
    "merges as one text": put("merges", value=["a b"]),
    "merges of halves": put("merges", value=[[97.0, 98.0]]),
    "merges of true": put("merges", value=[[True, False]]),
    "merges of lists": put("merges", value=[[[97], [98]]]),
    "merges of objects": put("merges", value=[{"97": 1, "98": 2}]),
    "a merge of what comes later": put("merges", value=[[97, 257], [97, 98]]),
    "a merge of itself": put("merges", value=[[256, 256]]),
    "a merge of a missing id": put("merges", value=[[97, 10**6]]),
    "a merge of a negative id": put("merges", value=[[-1, 97]]),
    "a merge of a special token": put("merges", value=[[97, 280 - 1]]),
    "a merge that is there twice": put("merges", value=[[97, 98], [97, 98]]),
    "merges that double 60 times": put("merges", value=[[n, n] for n in range(255, 315)]),
    "a special token without text": put("special_tokens", value={"": 256}),
    "special tokens as a list": put("special_tokens", value=["<|a|>"]),
    "special tokens as pairs": put("special_tokens", value=[["<|a|>", 256]]),
    "a special id below 0": put("special_tokens", value={"<|a|>": -1}),
    "a special id of a billion": put("special_tokens", value={"<|a|>": 10**9}),
    "a special id as text": put("special_tokens", value={"<|a|>": "256"}),
    "a special id with a half": put("special_tokens", value={"<|a|>": 256.0}),
    "a special id that is true": put("special_tokens", value={"<|a|>": True}),
    "a special id as a list": put("special_tokens", value={"<|a|>": [256]}),
    "two special tokens of one id": put("special_tokens", value={"<|a|>": 300, "<|b|>": 300}),
    "an open pattern": put("pattern", value="(?:a"),
    "a pattern with groups": put("pattern", value="(a)|b"),
    "a pattern of many letters": put("pattern", value="a" * 6000),
    "a pattern of a million repeats": put("pattern", value="(?:a{1000}){1000}"),
    "a pattern in a pattern in a pattern": put("pattern", value="(?:" * 1000 + ")" * 999),
    "another kind": put("type", value="wordpiece"),
}

CHARACTERS: dict[str, Change] = {
    **everywhere(
        "type", "special_tokens", "characters",
        fine=(
            # A text is as good as a list of its letters, the keys of an object likewise.
            "special_tokens is an object", "characters is an object",
        ),
    ),
    "a character of two": put("characters", value=["a", "bc"]),
    "a character without a letter": put("characters", value=["a", ""]),
    "a character that is there twice": put("characters", value=["a", "b", "a"]),
    "a character that is a number": put("characters", value=["a", 1]),
    "a character that is a list": put("characters", value=["a", ["b"]]),
    "an empty special token": put("special_tokens", value=[""]),
    "a special token that is a character": put("special_tokens", value=["a"]),
    "a special token that is a number": put("special_tokens", value=[1]),
}  # fmt: skip


def first_token(values: dict[str, Any], i: object) -> None:
    values["model"]["vocab"]["a"] = i


def add(token: object) -> Change:
    return lambda values: values["added_tokens"].append(token)


ADDED = {"id": 400, "content": "<|new|>", "special": True}

# Hugging Face's file, of byte pairs.
HUGGING_FACE: dict[str, Change] = {
    **everywhere("model", "added_tokens", "pre_tokenizer"),
    "another model": put("model", "type", value="WordPiece"),
    "a normalizer": put("normalizer", value={"type": "NFC"}),
    "a suffix of words": put("model", "end_of_word_suffix", value="</w>"),
    "a prefix of parts": put("model", "continuing_subword_prefix", value="##"),
    **{f"vocab is {n}": put("model", "vocab", value=v) for n, v in WRONG.items()},
    **{f"merges is {n}": put("model", "merges", value=v) for n, v in WRONG.items()},
    **{
        f"an id is {name}": lambda values, value=value: first_token(values, value)
        for name, value in {**WRONG, "missing": [1, 2], "a number": -1}.items()
    },
    "an id of a billion": lambda values: first_token(values, 10**9),
    "an id that is there twice": lambda values: first_token(values, 5),
    "ids exchanged": lambda values: values["model"]["vocab"].update(a=1, b=0),
    "a vocabulary of nothing": put("model", "vocab", value={}),
    "a byte without an id": lambda values: values["model"]["vocab"].pop("Z"),
    "nothing but a merge": put("model", "merges", value=[["a", "b"]]),
    "a merge of three": put("model", "merges", value=[["a", "b", "c"]]),
    "a merge of numbers": put("model", "merges", value=[[1, 2]]),
    "a merge without a space": put("model", "merges", value=["ab"]),
    "a merge of an unknown token": put("model", "merges", value=["a \u0100\u0101"]),
    "merges in another order": lambda values: values["model"]["merges"].reverse(),
    "a merge fewer": lambda values: values["model"]["merges"].pop(0),
    "an added token that is empty": add(ADDED | {"content": ""}),
    "an added token that is a number": add(ADDED | {"content": 3}),
    "an added token that is a list": add(ADDED | {"content": ["a"]}),
    "an added token without an id": add({"content": "<|new|>", "special": True}),
    "an added token of a billion": add(ADDED | {"id": 10**9}),
    "an added token below 0": add(ADDED | {"id": -1}),
    "an added token as text": add(ADDED | {"id": "400"}),
    "an added token of another's id": add(ADDED | {"id": 279}),
    "an added token of a byte's id": add(ADDED | {"id": 5}),
    "an added token that is no object": add("<|new|>"),
    "an added token that is not special": add(ADDED | {"special": False}),
    "what matches is removed": lambda values: values["pre_tokenizer"]["pretokenizers"][0].update(
        behavior="Removed"
    ),
    "inverted": lambda values: values["pre_tokenizer"]["pretokenizers"][0].update(invert=True),
    "a pattern that is a list": lambda values: values["pre_tokenizer"]["pretokenizers"][0].update(
        pattern={"Regex": ["a"]}
    ),
    "a pattern of plain text": lambda values: values["pre_tokenizer"]["pretokenizers"][0].update(
        pattern={"String": "a"}
    ),
    "an open pattern": lambda values: values["pre_tokenizer"]["pretokenizers"][0].update(
        pattern={"Regex": "(?:a"}
    ),
    "words by white space": put("pre_tokenizer", value={"type": "Whitespace"}),
}


def cases() -> list[tuple[str, str]]:
    tables = {"ours": BPE, "characters": CHARACTERS, "hugging face": HUGGING_FACE}
    return [(kind, name) for kind, table in tables.items() for name in table]


def values_of(kind: str, folder: Path) -> dict[str, Any]:
    """A tokenizer file as JSON values."""
    if kind == "hugging face":
        to_huggingface(OURS, folder)
        return json.loads((folder / "tokenizer.json").read_text())
    characters = CharTokenizer("abc", ["<|endoftext|>"])
    return json.loads(json.dumps((OURS if kind == "ours" else characters).to_dict()))


@pytest.mark.parametrize(("kind", "name"), cases())
def test_what_cannot_be_a_tokenizer_costs_one_line(kind, name, tmp_path):
    path = tmp_path / "tokenizer.json"
    values = values_of(kind, tmp_path)
    table = {"ours": BPE, "characters": CHARACTERS, "hugging face": HUGGING_FACE}[kind]
    table[name](values)
    path.write_text(json.dumps(values))
    with pytest.raises(UserError, match=r"tokenizer\.json") as error, within(5):
        load_tokenizer(path)
    assert len(str(error.value)) < 600
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["ours", "characters", "hugging face"])
def test_the_files_that_are_spoiled_above_are_fine_as_they_are(kind, tmp_path):
    (tmp_path / "tokenizer.json").write_text(json.dumps(values_of(kind, tmp_path)))
    tokenizer = load_tokenizer(tmp_path / "tokenizer.json")
    assert tokenizer.decode(tokenizer.encode("abc")) == "abc"


def test_special_tokens_may_stay_apart_from_each_other(tmp_path):
    """As GPT-4's do; a check of ids must not refuse them."""
    Tokenizer(OURS.merges, "gpt2", {"<|a|>": 290, "<|b|>": 1000}).save(tmp_path / "a.json")
    assert load_tokenizer(tmp_path / "a.json").vocab_size == 1001


@pytest.mark.parametrize(
    "content",
    [
        b"", b"null", b"[]", b"3", b"{", b"{}", b"\xff", bytes(99), b"[" * 10**5, b'{"a":' * 10**5,
        b'{"type": ' + b"9" * 5000 + b"}", b'{"type": "bpe"}', b'{"type": ["bpe"]}',
        b'{"model": 3}', b'{"model": {}}', b'{"model": null, "decoder": {"type": "Fuse"}}',
        b'{"model": {"vocab": []}, "decoder": {"type": "Fuse"}}',
        b'{"model": {"vocab": {"a": 1}}, "added_tokens": [], "decoder": {"type": "Fuse"}}',
        b'{"model": {"vocab": {"ab": 0}}, "added_tokens": [], "decoder": {"type": "Fuse"}}',
        b'{"model": {"vocab": {"a": 0}}, "added_tokens": [1], "decoder": {"type": "Fuse"}}',
    ],
)  # fmt: skip
def test_what_is_no_object_of_a_tokenizer_costs_one_line(content, tmp_path, capsys):
    (tmp_path / "tokenizer.json").write_bytes(content)
    line = complaint(capsys, "tokenizer", "encode", "a", "--tokenizer", tmp_path)
    assert "tokenizer.json" in line


def test_a_tokenizer_of_characters_keeps_its_ids_whatever_their_order_in_the_file(tmp_path):
    """The order of keys in an object means nothing, but it was taken for the order of ids."""
    to_huggingface(CharTokenizer("abc", ["<|end|>"]), tmp_path)
    values = json.loads((tmp_path / "tokenizer.json").read_text())
    values["model"]["vocab"] = {"c": 2, "a": 0, "b": 1}
    (tmp_path / "tokenizer.json").write_text(json.dumps(values))
    assert load_tokenizer(tmp_path / "tokenizer.json").encode("cab") == [2, 0, 1]


# Patterns that are well-formed, and no good.
PATTERNS_THAT_FAIL = {
    "(?:a|a)+b": "takes too long",
    "(?:a|aa)+$b": "takes too long",
    "(?R)": "takes too",  # much memory, or long, whichever comes first
    r"a\Kb": "loses some of the text",
    r"(?r)\w+": "loses some of the text",
    r"(?r)a": "loses some of the text",
}


@pytest.mark.parametrize("pattern", PATTERNS_THAT_FAIL)
def test_a_pattern_without_end_or_that_loses_text_costs_one_line(
    pattern, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("nanogpt.text.splitter.PATTERN_SECONDS", 0.5)
    Tokenizer([], r"\w+").save(tmp_path / "tokenizer.json")
    values = json.loads((tmp_path / "tokenizer.json").read_text()) | {"pattern": pattern}
    (tmp_path / "tokenizer.json").write_text(json.dumps(values))
    text = "ab " + "a" * 60 + "c one two three"
    command = ["tokenizer", "encode", text, "--tokenizer", tmp_path / "tokenizer.json"]
    assert PATTERNS_THAT_FAIL[pattern] in complaint(capsys, *command, seconds=20)


@pytest.mark.parametrize(
    "pattern",
    [
        "", "a*", "|", r"\b", "(?!)", r"\X", r"\w+|\W+", "(?i)ab", "(?V1)a*", r"\Ga", "(?<=a+)b",
        "a(?#comment)b", r"[[a-z]--[aeiou]]+", r"\p{L}+", "(?:ab){e<=1}", ".", r"(?s:.)", "\0",
        "\ud800", r"(?|a|b)", "(?:a+)+$x", "(?:a*)*b", "(?:[a-z]+)*!",
        "a(*SKIP)(*FAIL)|b", r"\L", "^", "$",
    ],
)  # fmt: skip
def test_no_pattern_loses_text(pattern):
    """Whatever a pattern does, its words make the text again, or one line says no."""
    for text in ("", "abba ab ba", "a\n\nb", "é🎭\ud800\0", TEXT[:500]):
        try:
            with within(10):
                words = Splitter(pattern)(text)
        except UserError:
            continue
        assert "".join(words) == text


def tiktoken_lines(*changes: tuple[int, str]) -> str:
    """A vocabulary in tiktoken's format, with some lines changed."""
    ranks = {i: token for i, token in OURS.vocabulary.items() if i < 279}
    lines = [f"{base64.b64encode(token).decode()} {i}" for i, token in sorted(ranks.items())]
    for n, line in changes:
        lines[n] = line
    return "\n".join(lines) + "\n"


A = base64.b64encode(b"a").decode()

RANKS = {
    "empty": "",
    "no base64": tiktoken_lines((3, "??? 3")),
    "no id": tiktoken_lines((3, A)),
    "two ids": tiktoken_lines((3, f"{A} 3 3")),
    "an id as a word": tiktoken_lines((3, f"{A} three")),
    "an id with a half": tiktoken_lines((3, f"{A} 3.0")),
    "too many digits": tiktoken_lines((3, f"{A} " + "9" * 5000)),
    "an id below 0": tiktoken_lines((97, f"{A} -97")),
    "an id of a billion": tiktoken_lines((97, f"{A} {10**9}")),
    "an id that is there twice": tiktoken_lines((97, f"{A} 98")),
    "a token that is there twice": tiktoken_lines((98, f"{A} 98")),
    "an empty line": tiktoken_lines((3, "")),
    "an empty token": tiktoken_lines((3, " 3")),
    "a token of nothing": tiktoken_lines((278, "==== 278")),
    "no merge": tiktoken_lines((278, base64.b64encode(b"\0\1\2").decode() + " 278")),
    "a million letters": tiktoken_lines((278, base64.b64encode(b"a" * 10**6).decode() + " 278")),
    "latin-1": "é 1\n",
    "JSON": '{"a": 1}\n',
}


@pytest.mark.parametrize("name", RANKS)
def test_damaged_files_of_tiktoken_cost_one_line(name, tmp_path, capsys):
    path = tmp_path / "r50k_base.tiktoken"
    path.write_text(RANKS[name])
    assert path.name in complaint(capsys, "tokenizer", "encode", "a", "--tokenizer", path)


def test_the_file_of_tiktoken_that_is_spoiled_above_is_fine_as_it_is(tmp_path):
    (tmp_path / "a.tiktoken").write_text(tiktoken_lines())
    found = from_tiktoken_file(tmp_path / "a.tiktoken", pattern="gpt2")
    assert found.encode(TEXT) == OURS.encode(TEXT)
    with pytest.raises(UserError, match="has over 5,000 characters"):
        from_tiktoken_file(tmp_path / "a.tiktoken", pattern="a" * 6000)


def gpt2_files(folder: Path, vocab: object, merges: str) -> Path:
    (folder / "vocab.json").write_text(json.dumps(vocab))
    (folder / "merges.txt").write_text(merges)
    return folder


def characters() -> dict[str, int]:
    to = {"!": 0}
    from nanogpt.text.formats import gpt2_characters

    return to | {character: i for i, character in enumerate(gpt2_characters().values())}


@pytest.mark.parametrize(
    ("vocab", "merges"),
    [
        ([], ""), ({}, ""), ({"a": 0}, ""), ({"a": [0]}, "a a\n"), ({"a": {}}, ""),
        ({**characters(), "ab": 10**9}, "a b\n"), ({**characters(), "ab": -1}, "a b\n"),
        ({**characters(), "ab": "256"}, "a b\n"), ({**characters(), "ab": 256.5}, "a b\n"),
        ({**characters(), "ab": 300}, "a b\n"), ({**characters(), "ab": 256}, "a b c\n"),
        ({**characters(), "ab": 256}, "a\n"), ({**characters(), "ab": 256}, "a  b\n"),
        ({**characters(), "": 256}, ""), (characters(), "a b\n"),
        ({**characters(), "<|endoftext|>": 5}, ""), ({**characters(), "<|endoftext|>": None}, ""),
    ],
)  # fmt: skip
def test_damaged_files_of_gpt2_cost_one_line(vocab, merges, tmp_path, capsys):
    folder = gpt2_files(tmp_path, vocab, merges)
    line = complaint(capsys, "tokenizer", "encode", "a", "--tokenizer", folder)
    assert "vocab.json" in line


def test_paths_that_are_no_tokenizers_cost_one_line(tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe")
    os.mkfifo(tmp_path / "tokenizer.json")
    for path in (tmp_path, tmp_path / "pipe", "/dev/zero", tmp_path / "none"):
        complaint(capsys, "tokenizer", "encode", "a", "--tokenizer", path)


def test_spoiled_files_of_ours_cost_one_line_or_are_a_tokenizer(tmp_path):
    OURS.save(tmp_path / "tokenizer.json")
    refused = 0
    for content in spoiled((tmp_path / "tokenizer.json").read_bytes()).values():
        (tmp_path / "tokenizer.json").write_bytes(content)
        try:
            with within(5):
                tokenizer = find_tokenizer(tmp_path)
        except UserError:
            refused += 1
        else:
            assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT
    assert refused > 10


def test_long_words_are_encoded_alike_by_both_ways():
    """All places of one merge are found at once; they must come from left to right."""
    ranks = {pair: 256 + n for n, pair in enumerate(OURS.merges)}
    ranks |= {(97, 97): 279, (279, 97): 280, (279, 279): 281}
    for word in (b"a" * 301, b"aab" * 90, TEXT[:400].encode(), b"abababa" * 40 + b"aaa"):
        *_, expected = merge_steps(word, ranks)
        assert encode_long_word(word, ranks) == expected
    assert len(PATTERNS) == 3
