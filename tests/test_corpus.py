"""Corpora: clean plays, readable files, and a split that never leaks."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanogpt.corpus import (
    HELD_OUT_PLAYS,
    Document,
    load_documents,
    load_split,
    play_text,
    split_documents,
)
from nanogpt.errors import UserError


@pytest.fixture(scope="module")
def plays() -> list[Document]:
    return load_documents("shakespeare")


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


def test_the_built_in_split_holds_out_whole_plays():
    split = load_split("shakespeare", 0.1)
    assert {play.name for play in split.val} == set(HELD_OUT_PLAYS)
    assert len(split.train) == 34
    share = sum(len(p.text) for p in split.val) / sum(
        len(p.text) for p in (*split.train, *split.val)
    )
    assert 0.08 < share < 0.1


def test_a_lone_text_is_cut_at_the_fraction(tmp_path):
    (tmp_path / "a.txt").write_text("0123456789" * 10)
    split = load_split(str(tmp_path / "a.txt"), 0.1)
    assert (len(split.train[0].text), len(split.val[0].text)) == (90, 10)
    assert split.val[0].text == "0123456789"


@given(st.lists(st.text(min_size=1), min_size=2, max_size=30, unique=True))
def test_no_document_is_on_both_sides_and_none_is_lost(texts):
    """Trap 9: validation data never trains."""
    documents = [Document(str(n), text) for n, text in enumerate(texts)]
    split = split_documents(documents, 0.2)
    assert {*split.train} | {*split.val} == set(documents)
    assert not {*split.train} & {*split.val}
    assert split.train
    assert split.val


def test_a_longer_download_moves_no_document():
    """Trap 9: the split does not depend on how much was read."""
    documents = [Document(str(n), f"text {n}") for n in range(400)]
    few, many = split_documents(documents[:100], 0.1), split_documents(documents, 0.1)
    assert set(few.train) <= set(many.train)
    assert set(few.val) <= set(many.val)
    assert 20 < len(many.val) < 60


def test_folders_and_jsonl_are_read_in_a_fixed_order(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "b.md").write_text("two")
    (tmp_path / "sub" / "a.txt").write_text("three")
    (tmp_path / "a.txt").write_bytes("\ufeffone\r\n".encode())
    (tmp_path / "image.png").write_bytes(b"\x89PNG")
    assert [d.text for d in load_documents(str(tmp_path))] == ["one\n", "two", "three"]
    lines = [json.dumps({"text": "é\u2028x", "id": 1}), "", json.dumps({"text": "b"})]
    (tmp_path / "c.jsonl").write_text("\n".join(lines))
    documents = load_documents(str(tmp_path / "c.jsonl"))
    assert [(d.name, d.text) for d in documents] == [("c.jsonl:1", "é\u2028x"), ("c.jsonl:3", "b")]


@pytest.mark.parametrize("line", ["{", "[]", '"text"', '{"txt": "a"}', '{"text": 1}'])
def test_a_bad_line_of_jsonl_is_named(tmp_path, line):
    (tmp_path / "a.jsonl").write_text('{"text": "fine"}\n' + line + "\n")
    with pytest.raises(UserError, match=r"a\.jsonl line 2 is not a JSON object"):
        load_documents(str(tmp_path / "a.jsonl"))


def test_missing_empty_and_undecodable_sources_are_named(tmp_path):
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "latin1.txt").write_bytes(b"caf\xe9")
    (tmp_path / "folder").mkdir()
    for name, message in {
        "none.txt": "no such file",
        "empty.txt": "is empty",
        "latin1.txt": r"not UTF-8 text \(byte 3\)",
        "folder": r"has no \.txt or \.md files",
    }.items():
        with pytest.raises(UserError, match=f"{name}.* ?{message}"):
            load_split(str(tmp_path / name), 0.1)
