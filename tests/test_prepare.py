"""Preparing: every kind of source, in parallel, in shards, and resumed after a kill."""

import json

import pytest

from nanogpt.config import DataConfig
from nanogpt.corpus import HELD_OUT_PLAYS, Document, Split
from nanogpt.errors import UserError
from nanogpt.prepare.sources import load_split as divided
from nanogpt.prepare.sources import stream_documents


def load_documents(source: str, **settings: object) -> list[Document]:
    return list(stream_documents(DataConfig(source=source, **settings)))


def load_split(source: str, val_fraction: float) -> Split:
    return divided(DataConfig(source=source, val_fraction=val_fraction))


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
        "folder": r"has no \.txt or \.md or \.jsonl or \.parquet files",
    }.items():
        with pytest.raises(UserError, match=f"{name}.* ?{message}"):
            load_split(str(tmp_path / name), 0.1)
