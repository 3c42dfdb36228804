"""Corpora: clean plays, readable files, and a split that never leaks."""

import re
import tempfile
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanogpt.errors import UserError
from nanogpt.files import read_text
from nanogpt.text.corpus import (
    Document,
    play_text,
    read_pieces,
    shakespeare,
    split_documents,
    split_rule,
)
from nanogpt.text.splitter import PATTERNS, Splitter


@pytest.fixture(scope="module")
def plays() -> list[Document]:
    return list(shakespeare())


def test_there_are_38_plays_and_they_are_clean(plays):
    assert len({play.name for play in plays}) == 38
    for play in plays:
        assert play.text.startswith(play.name + "\n\n")
        assert not re.search(r"[*_#\\]|  \n|\n\n\n", play.text), play.name
        assert play.text.count("[") == play.text.count("]"), play.name
        assert len(play.text) > 80_000


def test_a_play_has_speakers_lines_and_stage_directions(plays):
    macbeth = next(play for play in plays if play.name == "Macbeth").text
    assert (
        "[Thunder and lightning. Enter three Witches]\n\n"
        "First Witch:\nWhen shall we three meet again\nIn thunder, lightning, or in rain?\n"
    ) in macbeth


@pytest.mark.parametrize(
    ("markdown", "text"),
    [
        ("**PAGE**  \n[Within]_  \nWho's there?", "PAGE:\n[Within]\nWho's there?\n"),
        ("**LION**  \n__\\[Roaring]_  \nOh--", "LION:\n[Roaring]\nOh--\n"),
        ("_Burthen _\\[dispersedly, within_", "[Burthen dispersedly, within]\n"),
        ("_Enter one,\nand two_", "[Enter one,\nand two]\n"),
        ("*Exeunt.*", "[Exeunt.]\n"),
        ("Well, \\--said I? _Aside_  \nYes.", "Well, --said I? [Aside]\nYes.\n"),
    ],
)
def test_unbalanced_markdown_of_the_source_comes_out_balanced(markdown, text):
    assert play_text(markdown) == text


@given(st.lists(st.text(min_size=1), min_size=2, max_size=30, unique=True))
def test_no_document_is_on_both_sides_and_none_is_lost(texts):
    """Validation data never trains."""
    documents = [Document(str(n), text) for n, text in enumerate(texts)]
    split = split_documents(documents, 0.2)
    assert {*split.train} | {*split.val} == set(documents)
    assert not {*split.train} & {*split.val}
    assert split.train
    assert split.val


def test_a_longer_download_moves_no_document():
    """The split does not depend on how much was read."""
    documents = [Document(str(n), f"text {n}") for n in range(400)]
    few, many = split_documents(documents[:100], 0.1), split_documents(documents, 0.1)
    assert set(few.train) <= set(many.train)
    assert set(few.val) <= set(many.val)
    assert 20 < len(many.val) < 60


ragged = st.lists(
    st.sampled_from(
        [
            "one",
            " two",
            "\n",
            "\r\n",
            "é",
            "日本",
            ".",
            "…",
            " ",
            "  ",
            "x\ny",
            "½",
            "\x1c",
            "'s",
            "/",
            "A",
            "e\u0301",
        ]
    ),
    max_size=40,
).map("".join)


@settings(max_examples=300)
@given(ragged, st.integers(1, 9))
def test_pieces_of_a_file_give_the_words_of_the_whole(text, size):
    """Wherever the file is cut, within characters and line ends too, no word is."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("nanogpt.text.corpus.PIECE", size)
        path = Path(folder) / "a.txt"
        path.write_bytes(text.encode())
        pieces = list(read_pieces(path))
        assert "".join(pieces) == read_text(path)
    for pattern in PATTERNS:
        split = Splitter(pattern)
        assert [word for piece in pieces for word in split(piece)] == split("".join(pieces))


def test_a_long_text_comes_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr("nanogpt.text.corpus.PIECE", 100)
    (tmp_path / "a.txt").write_text("So shaken as we are, so wan with care,\n" * 50)
    assert 10 < len(list(read_pieces(tmp_path / "a.txt"))) < 30


def test_a_byte_that_is_no_text_is_named_wherever_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr("nanogpt.text.corpus.PIECE", 10)
    (tmp_path / "a.txt").write_bytes("\ufeffé".encode() + b"words and " * 5 + b"\xff more")
    with pytest.raises(UserError, match=r"a\.txt is not UTF-8 text \(byte 55\)"):
        list(read_pieces(tmp_path / "a.txt"))


def pieces_of(documents: list[Document], size: int) -> list[Document]:
    """The same documents, each in pieces."""
    return [
        Document(d.name, d.text[at : at + size], ends=at + size >= len(d.text))
        for d in documents
        for at in range(0, len(d.text), size)
    ]


def test_a_lone_text_in_pieces_is_cut_at_the_same_character():
    whole = [Document("a", "0123456789" * 7)]
    for size in (3, 7, 63, 64, 70):
        rule = split_rule(pieces_of(whole, size), 0.1)
        sides = {"train": "", "val": ""}
        ended = []
        for side, document in rule.divide(pieces_of(whole, size)):
            sides[side] += document.text
            ended += [side] * document.ends
        assert sides == {"train": whole[0].text[:63], "val": whole[0].text[63:]}
        assert ended == ["train", "val"]


def test_all_pieces_of_a_document_are_on_one_side():
    documents = [Document(str(n), f"{n} " * 40) for n in range(60)]
    pieces = pieces_of(documents, 50)
    sides: dict[str, set[str]] = {}
    for side, piece in split_rule(pieces, 0.3).divide(pieces):
        sides.setdefault(piece.name, set()).add(side)
    assert all(len(found) == 1 for found in sides.values())
    assert set.union(*sides.values()) == {"train", "val"}


def test_the_rule_is_found_without_reading_everything():
    read = []

    def endless():
        for n in count():
            read.append(n)
            yield Document(str(n), f"text {n}")

    assert split_rule(endless(), 0.1).threshold == 0.1
    assert len(read) < 100


def test_documents_of_the_same_text_stay_on_one_side():
    for names in ("abb", "aab", "abab"):
        documents = [Document(str(n), f"text {name}") for n, name in enumerate(names)]
        for fraction in (0.01, 0.5, 0.99):
            split = split_documents(documents, fraction)
            assert {d.text for d in split.train} | {d.text for d in split.val} == {
                "text a", "text b",
            }  # fmt: skip
            assert not {d.text for d in split.train} & {d.text for d in split.val}
    with pytest.raises(UserError, match="all documents have the same text"):
        split_documents([Document("1", "x"), Document("2", "x")], 0.5)
