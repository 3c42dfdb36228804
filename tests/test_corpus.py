"""Corpora: clean plays, readable files, and a split that never leaks."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanogpt.corpus import (
    Document,
    play_text,
    shakespeare,
    split_documents,
)


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
