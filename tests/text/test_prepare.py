"""Preparing: every kind of source, in parallel, in shards, and resumed after a kill."""

import gzip
import json
import random
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from nanogpt.cli import main
from nanogpt.config import DataConfig
from nanogpt.errors import Interrupted, UserError
from nanogpt.text import prepare as pipeline
from nanogpt.text.corpus import HELD_OUT_PLAYS, Document, Split
from nanogpt.text.formats import load_tokenizer
from nanogpt.text.prepare import UNFINISHED, prepare
from nanogpt.text.sources import has_unused_separators, stream_documents, whole_texts
from nanogpt.text.sources import load_split as divided
from nanogpt.text.tokenfiles import open_split, read_token_file, write_token_file
from nanogpt.text.tokenizer import Tokenizer


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


STORIES = [
    f"Story {n}. " + f"The king of {n} lands gave {n * n} crowns away. " * 3 for n in range(60)
]
LINES = "\n".join(json.dumps({"text": text, "body": text.upper()}) for text in STORIES)


def zstd(data: bytes) -> bytes:
    return pyarrow.compress(data, codec="zstd", asbytes=True)


def write_source(folder: Path, kind: str) -> Path:
    """The stories as one file of a kind."""
    path = folder / f"stories{kind}"
    if kind == ".parquet":
        table = pyarrow.table({"text": STORIES, "body": [text.upper() for text in STORIES]})
        pyarrow.parquet.write_table(table, path, row_group_size=7, compression="none")
    else:
        packed = {".jsonl": bytes, ".jsonl.gz": gzip.compress, ".jsonl.zst": zstd}[kind]
        path.write_bytes(packed(LINES.encode()))
    return path


KINDS = [".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_gives_the_same_documents(kind, tmp_path):
    path = str(write_source(tmp_path, kind))
    assert [d.text for d in load_documents(path)] == STORIES
    assert [d.text for d in load_documents(path, max_documents=5)] == STORIES[:5]
    assert load_documents(path, text_field="body")[0].text == STORIES[0].upper()
    assert [d.text for d in load_documents(str(tmp_path))] == STORIES  # as a folder


@pytest.mark.parametrize("kind", [".jsonl.gz", ".jsonl.zst", ".parquet"])
@pytest.mark.parametrize("damage", ["cut off", "garbage", "bytes changed"])
def test_a_damaged_file_is_named(kind, damage, tmp_path):
    path = write_source(tmp_path, kind)
    data = path.read_bytes()
    middle = data.find(b"king") if kind == ".parquet" else len(data) // 2
    path.write_bytes(
        {
            "cut off": data[:-20],
            "garbage": b"garbage" * 99,
            "bytes changed": data[:middle] + b"\xff\x00\xff" * 9 + data[middle + 27 :],
        }[damage]
    )
    with pytest.raises(UserError, match=path.name):
        load_documents(str(path))


def test_files_in_several_frames_are_read_to_the_end(tmp_path):
    """As `cat a.gz b.gz` and parallel compressors make them."""
    first, second = LINES[: len(LINES) // 2].encode(), LINES[len(LINES) // 2 :].encode()
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(first) + gzip.compress(second))
    (tmp_path / "b.jsonl.zst").write_bytes(zstd(first) + zstd(second))
    for name in ("a.jsonl.gz", "b.jsonl.zst"):
        assert [d.text for d in load_documents(str(tmp_path / name))] == STORIES


def test_a_compressed_text_is_one_document(tmp_path, monkeypatch):
    monkeypatch.setattr("nanogpt.text.corpus.PIECE", 64)
    text = "\n".join(STORIES)
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(text.encode()))
    documents = load_documents(str(tmp_path / "a.txt.gz"))
    assert "".join(d.text for d in documents) == text
    assert [d.ends for d in documents] == [False] * (len(documents) - 1) + [True]
    assert list(whole_texts(DataConfig(source=str(tmp_path / "a.txt.gz")))) == [text]


def test_a_missing_column_names_those_there_are(tmp_path):
    path = write_source(tmp_path, ".parquet")
    with pytest.raises(UserError, match=r"no column 'txt': set data\.text_field to text, body"):
        load_documents(str(path), text_field="txt")


def test_a_hub_data_set_is_streamed(tmp_path):
    """From a folder in the hub's layout; the same code asks the hub where there is a network."""
    (tmp_path / "train.jsonl").write_text(LINES)
    source = f"hub:{tmp_path}"
    assert [d.text for d in load_documents(source)] == STORIES
    assert len(load_documents(source, max_documents=3)) == 3
    with pytest.raises(UserError, match=r"has no text 'txt': set data\.text_field to text, body"):
        load_documents(source, text_field="txt")
    with pytest.raises(UserError, match=r"hub:\S+none cannot be read .*check name and network"):
        load_documents(f"hub:{tmp_path / 'none'}")


def test_a_source_that_needs_a_package_says_how_to_get_it(tmp_path, monkeypatch):
    path = write_source(tmp_path, ".jsonl.zst")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        UserError, match=r"needs the package pyarrow; run: pip install 'nanogpt\[da"
    ):
        load_documents(str(path))


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


@pytest.fixture
def order(tmp_path, monkeypatch) -> DataConfig:
    """Small groups and shards, so that a small source has many."""
    monkeypatch.setattr(pipeline, "GROUP", 500)
    source = str(write_source(tmp_path, ".jsonl"))
    return DataConfig(source=source, vocab_size=300, shard_tokens=700)


def test_the_files_do_not_depend_on_the_number_of_processes(order, tmp_path):
    for processes in (1, 2, 3):
        prepare(order, tmp_path / str(processes), processes)
    assert contents(tmp_path / "1") == contents(tmp_path / "2") == contents(tmp_path / "3")


def test_prepared_files_equal_the_plain_form(order, tmp_path):
    """One after another, in one process, into one file."""
    prepared = prepare(order, tmp_path / "out", 2)
    assert len(list((tmp_path / "out").glob("train-*-of-*.bin"))) > 2
    split = divided(order)
    tokenizer = Tokenizer.train([d.text for d in split.train], 300)
    assert prepared.tokenizer.to_dict() == tokenizer.to_dict()
    for side in ("train", "val"):
        texts = [d.text for d in getattr(split, side)]
        plain = write_token_file(tmp_path / f"{side}.bin", texts, tokenizer)
        found = prepared.files[side]
        assert found.ids[:].tolist() == plain.ids.tolist()
        assert (found.about.count, found.about.bytes, found.about.documents) == (
            plain.about.count,
            plain.about.bytes,
            plain.about.documents,
        )
        assert prepared.names[side] == [d.name for d in getattr(split, side)][: pipeline.NAMES]


def test_a_long_text_in_pieces_gives_the_same_files(tmp_path, monkeypatch):
    (tmp_path / "long.txt").write_text("\n".join(STORIES))
    data = DataConfig(source=str(tmp_path / "long.txt"), vocab_size=300)
    prepare(data, tmp_path / "whole", 1)
    monkeypatch.setattr("nanogpt.text.corpus.PIECE", 333)
    monkeypatch.setattr(pipeline, "GROUP", 500)
    prepare(data, tmp_path / "pieces", 2)
    assert contents(tmp_path / "whole") == contents(tmp_path / "pieces")
    assert read_token_file(tmp_path / "pieces" / "train.bin").about.documents == 1


def write_stories(path: Path, separator: str) -> None:
    """The stories in one file as TinyStories has them, with a very long one among them."""
    stories = [f"\n{text}\n\nThe end.\n" for text in STORIES]
    stories[7] = "\n\n" + "Once upon a time. " * 200 + "\n" * 70
    path.write_text(separator.join([*stories, "\n\n", ""]))


@pytest.mark.parametrize("separator", ["<|endoftext|>", "\n\n\nTHE END\n", "="])
@pytest.mark.parametrize("long", [2**22, 1000])
def test_documents_are_cut_at_a_separator_in_any_pieces(separator, long, tmp_path, monkeypatch):
    monkeypatch.setattr("nanogpt.text.corpus.LONG_DOCUMENT", long)
    path = tmp_path / "stories.txt"
    write_stories(path, separator)
    data = DataConfig(source=str(path), separator=separator, vocab_size=300)
    found = load_documents(str(path), separator=separator)
    texts = list(whole_texts(data))
    assert texts[:2] == [f"{text}\n\nThe end." for text in STORIES[:2]]
    assert texts[7] == ("Once upon a time. " * 200)
    assert len(texts) == len(STORIES)
    assert not any(separator in text for text in texts)
    assert [d.name for d in found if d.ends] == [f"stories.txt:{n}" for n in range(1, 61)]
    assert (len(found) > len(texts)) == (long == 1000)
    prepare(data, tmp_path / "whole", 1)
    about = [read_token_file(tmp_path / "whole" / f"{side}.bin").about for side in ("train", "val")]
    assert sum(side.documents for side in about) == 60
    assert about[1].documents > 1  # chosen by their hashes
    for piece in (1, 7, 64, 3000):
        monkeypatch.setattr("nanogpt.text.corpus.PIECE", piece)
        assert load_documents(str(path), separator=separator) == found, piece
    prepare(data, tmp_path / "pieces", 2)
    assert contents(tmp_path / "whole") == contents(tmp_path / "pieces")


def test_rows_are_cut_at_a_separator_too(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "one|two"}\n{"text": "|three|"}\n')
    found = load_documents(str(tmp_path / "a.jsonl"), separator="|")
    assert [(d.name, d.text) for d in found] == [
        ("a.jsonl:1:1", "one"), ("a.jsonl:1:2", "two"), ("a.jsonl:2:1", "three"),
    ]  # fmt: skip


def test_many_markers_in_a_text_are_noticed(tmp_path, capsys):
    path = tmp_path / "stories.txt"
    write_stories(path, "<|endoftext|>")
    assert has_unused_separators(DataConfig(source=str(path)))
    assert has_unused_separators(DataConfig(source=str(tmp_path)))
    assert not has_unused_separators(DataConfig(source=str(path), separator="<|endoftext|>"))
    assert not has_unused_separators(DataConfig())
    assert main(["prepare", str(path), "--data.folder", str(tmp_path / "out")]) == 0
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "add --data.separator '<|endoftext|>'" in told
    path.write_text("A text that explains <|endoftext|> once. " * 2)
    assert not has_unused_separators(DataConfig(source=str(path)))


def test_a_setting_that_does_not_matter_lets_it_go_on(order, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "GROUPS_BETWEEN_ENTRIES", 1)
    phases: list[str] = []

    def interrupt(phase: str, characters: int, total: int | None) -> None:
        phases.append(phase)
        if phases.count("encoding") == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(order, tmp_path / "out", 1, interrupt)
    phases.clear()
    other = replace(order, batches="sliding", stride=3, folder="elsewhere")
    prepare(other, tmp_path / "out", 1, lambda phase, *_: phases.append(phase))
    assert "learning" not in phases


def test_a_setting_that_matters_is_ordered():
    assert set(pipeline.ORDERED) <= {field.name for field in fields(DataConfig)}


def test_a_missing_shard_is_named(order, tmp_path):
    prepare(order, tmp_path / "out", 1)
    tokenizer = load_tokenizer(tmp_path / "out" / "tokenizer.json")
    last = max((tmp_path / "out").glob("train-*.bin"))
    last.unlink()
    with pytest.raises(UserError, match=f"{last.name}: no such token file"):
        open_split(tmp_path / "out", "train", tokenizer)


def test_preparing_again_replaces_all_older_files(order, tmp_path):
    out = tmp_path / "out"
    prepare(order, out, 1)
    (out / "notes.txt").write_text("mine")
    prepare(DataConfig(source=order.source, vocab_size=280), out, 1)
    assert sorted(contents(out)) == [
        "notes.txt", "prepared.json", "tokenizer.json", "train.bin", "train.json", "val.bin",
        "val.json",
    ]  # fmt: skip


# A process that kills itself, as a power cut would, at a chosen moment: when it has reported so
# many times, or moved so many files to their place.
KILLED = """
import os, signal, sys
from pathlib import Path
from nanogpt.config import DataConfig
from nanogpt.text import prepare as pipeline

reports, moves = int(sys.argv[3]), int(sys.argv[4])
pipeline.GROUP, pipeline.GROUPS_BETWEEN_ENTRIES = 500, int(sys.argv[6])

def kill():
    os.kill(os.getpid(), signal.SIGKILL)

def report(phase, characters, total):
    global reports
    reports -= 1
    if reports == 0:
        kill()

def replace(self, target, original=Path.replace):
    global moves
    moves -= 1
    if moves == 0:
        kill()
    return original(self, target)

Path.replace = replace
data = DataConfig(source=sys.argv[1], vocab_size=300, shard_tokens=700)
pipeline.prepare(data, Path(sys.argv[2]), int(sys.argv[5]), report)
"""


def run_killed(order: DataConfig, out: Path, *numbers: int) -> int:
    """Numbers of reports and moves, of processes, of groups between entries in the journal."""
    arguments = [order.source, str(out), *map(str, numbers)]
    return subprocess.run([sys.executable, "-c", KILLED, *arguments], check=False).returncode


def test_a_killed_preparation_resumes_to_the_same_bytes(order, tmp_path):
    """Killed again and again, at random moments; in the end it must be done."""
    prepare(order, tmp_path / "whole", 1)
    draw = random.Random(0)
    deaths = 0
    for attempt in range(3):
        out = tmp_path / f"killed-{attempt}"
        # The first death must come while ids are written, the others wherever they come.
        reports, moves, processes, groups = draw.randint(69, 75), 0, 1, 99
        while run_killed(order, out, reports, moves, processes, groups) != 0:
            assert (out / UNFINISHED).is_dir()
            deaths += 1
            reports, moves = draw.choice([(draw.randint(2, 12), 0), (0, draw.randint(1, 12))])
            processes, groups = draw.choice([1, 2]), draw.randint(1, 4)
        assert contents(out) == contents(tmp_path / "whole")
    assert deaths >= 6


def test_a_preparation_goes_on_where_it_stopped(order, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "GROUPS_BETWEEN_ENTRIES", 1)
    out = tmp_path / "out"
    first: list[int] = []

    def interrupt(phase: str, characters: int, total: int | None) -> None:
        if phase == "encoding":
            first.append(characters)
            if len(first) == 10:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(order, out, 1, interrupt)
    second: list[tuple[str, int]] = []
    prepare(order, out, 1, lambda phase, characters, total: second.append((phase, characters)))
    assert second[0][0] == "splitting"
    assert "learning" not in [phase for phase, _ in second]
    assert first[8] < second[1][1] <= first[9] + 1000
    assert not (out / UNFINISHED).exists()


def test_another_order_or_a_changed_source_starts_anew(order, tmp_path, monkeypatch):
    out = tmp_path / "out"

    def interrupt(phase: str, characters: int, total: int | None) -> None:
        if phase == "encoding":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(order, out, 1, interrupt)
    Path(order.source).write_text(LINES.replace("king", "fool"))
    prepared = prepare(order, out, 1)
    text = prepared.tokenizer.decode(prepared.files["train"].ids[:].tolist())
    assert "fool" in text
    assert "king" not in text


def test_a_journal_that_promises_too_much_is_noticed(order, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "GROUPS_BETWEEN_ENTRIES", 1)
    out, seen = tmp_path / "out", []

    def interrupt(phase: str, characters: int, total: int | None) -> None:
        seen.append(phase)
        if seen.count("encoding") == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(order, out, 1, interrupt)
    (out / UNFINISHED / "train-00000.bin").write_bytes(b"")
    with pytest.raises(UserError, match="has lost what was written to it; run the command again"):
        prepare(order, out, 1)
    prepare(order, out, 1)
    prepare(order, tmp_path / "whole", 1)
    assert contents(out) == contents(tmp_path / "whole")


def test_a_mistake_in_the_source_leaves_nothing(order, tmp_path):
    Path(order.source).write_text(LINES + "\n{")
    with pytest.raises(UserError, match="line 61 is not a JSON object"):
        prepare(order, tmp_path / "out", 2)
    assert not (tmp_path / "out").exists()


def test_what_cuts_a_preparation_short_from_outside_leaves_its_work(order, tmp_path, monkeypatch):
    """A worker that dies is no mistake in the source: with fewer processes it goes on."""
    monkeypatch.setattr(pipeline, "GROUPS_BETWEEN_ENTRIES", 1)

    def dying(phase: str, characters: int, total: int | None) -> None:
        if phase == "encoding" and characters > 3000:
            raise Interrupted("a working process was killed")

    with pytest.raises(Interrupted):
        prepare(order, tmp_path / "out", 1, dying)
    assert (tmp_path / "out" / UNFINISHED / "journal.json").exists()
    prepare(order, tmp_path / "out", 1)
    prepare(order, tmp_path / "whole", 1)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_endings_in_capitals_and_nested_nonsense_are_understood(tmp_path):
    (tmp_path / "UP.JSONL").write_text(LINES)
    assert [d.text for d in load_documents(str(tmp_path / "UP.JSONL"))] == STORIES
    (tmp_path / "deep.jsonl").write_text("[" * 100_000)
    with pytest.raises(UserError, match="name another field with data\\.text_field"):
        load_documents(str(tmp_path / "deep.jsonl"))


@pytest.mark.parametrize(
    "name", ["train.bin", "val.json", "train-00000-of-00002.json", "tokenizer.json"]
)
def test_files_of_somebody_else_are_not_replaced(name, tmp_path):
    (tmp_path / name).write_text("mine")
    with pytest.raises(UserError, match=f"{name} would be replaced; name another folder"):
        prepare(DataConfig(max_documents=2, vocab_size=300), tmp_path, 1)
    assert (tmp_path / name).read_text() == "mine"


def test_a_character_of_the_held_out_text_alone_is_named_with_its_place(tmp_path):
    source = tmp_path / "my.txt"
    source.write_text("abc " * 500 + "\u00e9")
    with pytest.raises(
        UserError, match=r"my\.txt.* \(val\): the character '\u00e9'.*tokenizer bpe"
    ):
        prepare(DataConfig(source=str(source), tokenizer="char"), tmp_path / "data", 1)
