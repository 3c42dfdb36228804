"""Text from anywhere: what is no text costs one line, soon, and leaves nothing."""

import gzip
import json
import os
import random
import socket
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from foreign import complaint, spoiled, within

from nanogpt.config import DataConfig
from nanogpt.errors import UserError
from nanogpt.files import JSON_LIMIT, file_size, read_json, read_text, write_text
from nanogpt.text.corpus import LONG_DOCUMENT, LONGEST_LINE, LONGEST_WORD, Document, in_pieces
from nanogpt.text.encoding import LONG_WORD, SAMPLE, SAMPLE_OF_SHARE, count_words
from nanogpt.text.sources import stream_documents
from nanogpt.text.tokenfiles import check_ids, open_split, read_token_file, write_token_file
from nanogpt.text.tokenizer import CharTokenizer, Tokenizer

from conftest import TEXT

RANDOM = random.Random(0).randbytes(2000)


def zstd(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as file:
        file.write(content)
    return sink.getvalue().to_pybytes()


def parquet(compression: str = "snappy", **columns: object) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink, compression=compression)
    return sink.getvalue().to_pybytes()


# What is no text, by the name of its file, and a part of what is said about it.
NO_TEXT = {
    "empty.txt": (b"", "is empty"),
    "mark.txt": (b"\xef\xbb\xbf", "is empty"),
    "latin-1.txt": ("é".encode("latin-1") * 9, "is not UTF-8 text (byte 0)"),
    "half.txt": (b"words " * 9 + b"\xc3", "is not UTF-8 text (byte 54)"),
    "overlong.txt": (b"a \xc0\xaf b", "(byte 2)"),
    "surrogate.txt": (b"a \xed\xa0\x80 b", "(byte 2)"),
    "beyond.txt": (b"a \xf4\x90\x80\x80 b", "(byte 2)"),
    "continuation.md": (b"a \x80 b", "(byte 2)"),
    "utf-16 with a mark.txt": (TEXT.encode("utf-16"), "convert it to UTF-8"),
    "utf-16.txt": (TEXT.encode("utf-16-le"), "convert it to UTF-8"),
    "utf-16 the other way.md": (TEXT.encode("utf-16-be"), "convert it to UTF-8"),
    "utf-32.txt": (TEXT.encode("utf-32-be"), "convert it to UTF-8"),
    "zeros.txt": (bytes(3_000_000), "full of zero bytes"),
    "random.bin": (RANDOM, "is not UTF-8 text"),
    "one letter.txt": (b"a", "too little text"),
}

# Lines of a .jsonl that are not as they should be.
LINES = {
    "null": b"null",
    "number": b"3",
    "text": b'"text"',
    "list": b'["text"]',
    "a list of objects": b'[{"text": "a"}]',
    "no field": b'{"texts": "a"}',
    "empty object": b"{}",
    "null text": b'{"text": null}',
    "a number as text": b'{"text": 3}',
    "true as text": b'{"text": true}',
    "a list as text": b'{"text": ["a"]}',
    "an object as text": b'{"text": {"text": "a"}}',
    "NaN as text": b'{"text": NaN}',
    "cut off": b'{"text": "a',
    "no JSON": b"text",
    "two values": b'{"text": "a"} {"text": "b"}',
    "latin-1": b'{"text": "\xe9"}',
    "utf-16": '{"text": "a"}'.encode("utf-16"),
    "zeros": bytes(50),
    "a bad escape": b'{"text": "\\x"}',
    "deep lists": b'{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "too many digits": b'{"text": ' + b"9" * 5000 + b"}",
    "wide": b'{"text": [' + b"[]," * 1_000_000 + b"[]]}",
}

FILES = {
    **NO_TEXT,
    **{
        f"{name}.jsonl": (b'{"text": "fine"}\n' + line + b"\n", "line 2 is not a JSON object")
        for name, line in LINES.items()
    },
    "no lines.jsonl": (b"\n\n \n", "is empty"),
    "empty texts.jsonl": (b'{"text": ""}\n' * 9, "is empty"),
    "same texts.jsonl": (b'{"text": "a"}\n' * 9, "the same text"),
    "no column.parquet": (parquet(words=["a", "b"]), "has no column 'text': set data.text_field"),
    "numbers.parquet": (parquet(text=[1, 2]), "row 1 holds no text"),
    "lists.parquet": (parquet(text=[["a"], ["b"]]), "row 1 holds no text"),
    "holes.parquet": (parquet(text=["a", None]), "row 2 holds no text"),
    "bytes.parquet": (parquet(text=[b"\xff", b"b"]), "row 1 holds no text"),
    "no rows.parquet": (parquet(text=pa.array([], pa.string())), "is empty"),
    "magic.parquet": (b"PAR1PAR1", "damaged or not parquet"),
    "random.parquet": (RANDOM, "damaged or not parquet"),
    "empty.parquet": (b"", "damaged or not parquet"),
    "text.parquet": (TEXT.encode(), "damaged or not parquet"),
    "random.txt.gz": (RANDOM, "is damaged or cut off"),
    "text.txt.gz": (TEXT.encode(), "is damaged or cut off"),
    "empty.txt.gz": (b"", "is empty"),
    "random.txt.zst": (RANDOM, "is damaged or cut off"),
    "text.txt.zst": (TEXT.encode(), "is damaged or cut off"),
    "latin-1.txt.gz": (gzip.compress(b"\xe9" * 9), "is not UTF-8 text (byte 0)"),
    "latin-1.txt.zst": (zstd(b"\xe9" * 9), "is not UTF-8 text (byte 0)"),
    "zip in gzip.jsonl.gz": (gzip.compress(gzip.compress(TEXT.encode())), "line 1 is not a JSON"),
}


# Small files that unpack to much. They are made where they are used.
BOMBS = {
    "zeros.txt.gz": (lambda: gzip.compress(bytes(2**27)), "full of zero bytes"),
    "words.txt.gz": (lambda: gzip.compress(b"a word " * 2**24), "over 200 times its size"),
    "words.txt.zst": (lambda: zstd(b"a word " * 2**24), "over 200 times its size"),
    "brackets.jsonl.gz": (lambda: gzip.compress(b"[" * 2**27), "has over 33,554,432 bytes; split"),
    "spaces.jsonl.zst": (lambda: zstd(b" " * 2**27), "has over 33,554,432 bytes; split"),
    "line.txt.gz": (lambda: gzip.compress(b"A" * 50_000_000), "no space and no line break"),
    "one text.parquet": (
        lambda: parquet("zstd", text=["a word " * 300_000] * 100), "over 200 times its size",
    ),
    "long texts.parquet": (
        lambda: parquet("zstd", text=[f"{n}" + "a word " * 3_000_000 for n in range(6)]),
        "over 200 times its size",
    ),
}  # fmt: skip


def prepare_is_refused(capsys, tmp_path: Path, source: object, **options: object) -> str:
    """What is said of a source; nothing may be left."""
    out = tmp_path / "prepared"
    line = complaint(capsys, "prepare", source, "--data.folder", out, "--processes", 1, **options)
    assert not out.exists()
    return line


@pytest.mark.parametrize("name", FILES)
def test_what_is_no_text_costs_one_line(name, tmp_path, capsys):
    content, message = FILES[name]
    (tmp_path / name).write_bytes(content)
    line = prepare_is_refused(capsys, tmp_path, tmp_path / name)
    assert message in line
    assert name in line


@pytest.mark.parametrize("name", BOMBS)
def test_a_small_file_that_unpacks_to_much_costs_one_line(name, tmp_path, capsys):
    make, message = BOMBS[name]
    (tmp_path / name).write_bytes(make())
    line = prepare_is_refused(capsys, tmp_path, tmp_path / name)
    assert message in line
    assert name in line


@pytest.mark.parametrize("kind", ["a.txt.gz", "a.txt.zst", "a.jsonl.gz", "a.parquet"])
def test_damaged_files_cost_one_line_or_hold_the_text(kind, tmp_path):
    """A changed byte may be part of a name or a checksum that nobody reads."""
    lines = b"".join(json.dumps({"text": f"{n} {TEXT[:300]}"}).encode() + b"\n" for n in range(9))
    whole = {
        "a.txt.gz": gzip.compress(TEXT.encode()),
        "a.txt.zst": zstd(TEXT.encode()),
        "a.jsonl.gz": gzip.compress(lines),
        "a.parquet": parquet(text=[f"{n} {TEXT[:300]}" for n in range(9)]),
    }[kind]
    path = tmp_path / kind
    path.write_bytes(whole)
    expected = list(stream_documents(DataConfig(source=str(path))))
    refused = {}
    for way, content in spoiled(whole).items():
        path.write_bytes(content)
        try:
            with within(10):
                found = list(stream_documents(DataConfig(source=str(path))))
        except UserError as error:
            refused[way] = str(error)
        else:  # neither zst nor parquet must have a checksum
            assert "changed" in way or found == expected, way
    assert all(kind in message for message in refused.values())
    assert len(refused) >= 10


def special_files(folder: Path) -> dict[str, Path]:
    """Paths that are no files with an end."""
    os.mkfifo(folder / "pipe.txt")
    os.mkfifo(folder / "pipe.jsonl")
    os.mkfifo(folder / "pipe.parquet")
    os.mkfifo(folder / "pipe.txt.gz")
    (folder / "loop.txt").symlink_to("loop.txt")
    (folder / "dangling.txt").symlink_to("nowhere")
    (folder / "file.txt").write_text("text")
    place = os.getcwd()
    os.chdir(folder)  # the path of a socket may be no longer than 108 bytes
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("socket.txt")
    finally:
        os.chdir(place)
    return {
        **{path.name: path for path in sorted(folder.iterdir()) if path.name != "file.txt"},
        "/dev/zero": Path("/dev/zero"),
        "/dev/null": Path("/dev/null"),
        "/dev/random": Path("/dev/random"),
        "/proc/kmsg": Path("/proc/kmsg"),
        "/proc/self/mem": Path("/proc/self/mem"),
        "below a file": folder / "file.txt" / "more.txt",
        "a long name": folder / ("x" * 300 + ".txt"),
    }


SPECIAL = [
    "pipe.txt", "pipe.jsonl", "pipe.parquet", "pipe.txt.gz", "loop.txt", "dangling.txt",
    "socket.txt", "/dev/zero", "/dev/null", "/dev/random", "/proc/kmsg",
    "/proc/self/mem", "below a file", "a long name",
]  # fmt: skip


@pytest.mark.skipif(sys.platform != "linux", reason="these files are Linux's")
@pytest.mark.parametrize("name", SPECIAL)
def test_what_is_no_file_with_an_end_is_never_opened(name, tmp_path, capsys):
    (tmp_path / "files").mkdir()
    path = special_files(tmp_path / "files")[name]
    line = prepare_is_refused(capsys, tmp_path, path)
    assert any(
        reason in line
        for reason in (
            "pipe or a device",
            "no such file",
            "Not a directory",
            "is empty",
            "Too many levels",
            "too long",
        )
    )
    with pytest.raises(UserError), within(10):
        read_json(path)


def test_a_pipe_or_device_is_never_replaced_by_what_is_written(tmp_path):
    """A file that took the place of /dev/null would end many programs."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "to the pipe").symlink_to("pipe")
    (tmp_path / "real.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to("real.txt")
    for name in ("pipe", "to the pipe"):
        with pytest.raises(UserError, match="is a device or a pipe"), within(5):
            write_text(tmp_path / name, "text")
    write_text(tmp_path / "link.txt", "new")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "real.txt").read_text() == "new"


def test_folders_without_text_cost_one_line(tmp_path, capsys):
    folder = tmp_path / "texts"
    folder.mkdir()
    assert "has no .txt or .md or" in prepare_is_refused(capsys, tmp_path, folder)
    (folder / "picture.png").write_bytes(RANDOM)
    (folder / "folder.txt").mkdir()
    os.mkfifo(folder / "pipe.txt")
    assert "has no .txt or .md or" in prepare_is_refused(capsys, tmp_path, folder)
    (folder / "empty.txt").write_bytes(b"")
    assert "is empty" in prepare_is_refused(capsys, tmp_path, folder)
    (folder / "fine.txt").write_text(TEXT)
    (folder / "wrong.txt").write_bytes(b"\xff")
    assert "wrong.txt is not UTF-8" in prepare_is_refused(capsys, tmp_path, folder)


def test_a_subfolder_that_cannot_be_opened_is_not_skipped(tmp_path, monkeypatch):
    """The rest of the text would be taken for all of it. The superuser may open every folder."""
    (tmp_path / "closed").mkdir()
    (tmp_path / "a.txt").write_text(TEXT)
    scandir = os.scandir

    def refuse(path):
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match=r"closed cannot be opened \(Permission denied\)"):
        list(stream_documents(DataConfig(source=str(tmp_path))))


@pytest.mark.skipif(sys.platform != "linux", reason="counts memory as Linux does")
@pytest.mark.parametrize(
    "name", ["a.txt", "a.jsonl", "a.parquet", "a.tiktoken", "a.json", "a.toml"]
)
def test_a_line_of_ten_gigabytes_needs_little_memory(name, tmp_path):
    """A sparse file: ten gigabytes of zeros that take no place on the disk."""
    with (tmp_path / name).open("wb") as file:
        file.truncate(10 * 10**9)
    command = {
        "a.tiktoken": ["tokenizer", "encode", "a", "--tokenizer", name],
        "a.json": ["tokenizer", "encode", "a", "--tokenizer", name],
        "a.toml": ["plan", name],
    }.get(name, ["prepare", name, "--processes", "1"])
    program = (
        "import re, sys; from nanogpt.cli import main; code = main(sys.argv[1:]);"
        "print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *command],
        cwd=tmp_path, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert name in done.stderr
    assert int(done.stdout) < 10**6  # kilobytes


def test_text_that_is_too_large_to_be_read_at_once_is_refused(tmp_path):
    (tmp_path / "a").write_text("x" * 100)
    with pytest.raises(UserError, match="has 100 bytes, too many; use at most 99"):
        read_text(tmp_path / "a", limit=99)
    with (tmp_path / "b").open("wb") as file:
        file.truncate(JSON_LIMIT + 1)
    with pytest.raises(UserError, match="too many"):
        read_json(tmp_path / "b")
    with pytest.raises(UserError, match="cannot be opened"):
        file_size("a\0b")


def test_letters_without_a_space_are_prepared_in_bounded_time(tmp_path):
    """Training on one word of 20 million letters took hours: each merge walked through it."""
    letters = "".join(random.Random(1).choices("ACGT", k=3_000_000))
    (tmp_path / "dna.txt").write_text(letters)
    with within(20):
        pieces = [d.text for d in stream_documents(DataConfig(source=str(tmp_path / "dna.txt")))]
        tokenizer = Tokenizer.train(pieces, 300)
    assert "".join(pieces) == letters
    assert max(map(len, pieces)) <= LONGEST_WORD
    assert tokenizer.vocab_size == 300


def test_what_is_learned_from_words_without_end_is_bounded():
    words = count_words(["A" * 50_000 + " b", "C" * 2_000_000], "gpt2", processes=1)
    assert words.pop(" b") == 1
    assert {len(word) for word in words} <= {100}
    assert sum(len(word) * count for word, count in words.items()) <= SAMPLE_OF_SHARE
    many = [f"{n:07d}" * 1000 for n in range(3000)]
    assert sum(len(w) * n for w, n in count_words(many, "gpt2", 1).items()) < SAMPLE * 1.1
    whole = count_words(["D" * 5000], "gpt2", processes=1, whole=True)
    assert whole == {"D" * 5000: 1}
    usual = count_words(["E" * LONG_WORD], "gpt2", processes=1)
    assert usual == {"E" * LONG_WORD: 1}


@pytest.mark.parametrize("letter", ["a", "\n", " ", "é", "🎭", "\0a"])
def test_long_documents_come_in_pieces_that_make_the_whole(letter):
    text = letter * (2 * LONG_DOCUMENT // len(letter) + 1)
    pieces = list(in_pieces(Document("a", text)))
    assert "".join(piece.text for piece in pieces) == text
    assert [piece.ends for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert max(len(piece.text) for piece in pieces) <= LONG_DOCUMENT


def test_a_text_without_a_safe_place_is_cut_after_a_line_break(tmp_path):
    """Chinese novels begin their paragraphs with a wide space, and have no other spaces."""
    text = ("\u3000\u3000" + "文" * 500 + "。\n") * 8000
    (tmp_path / "a.txt").write_text(text)
    pieces = [d.text for d in stream_documents(DataConfig(source=str(tmp_path / "a.txt")))]
    assert "".join(pieces) == text
    assert len(pieces) > 3
    assert all(piece.endswith("\n") for piece in pieces[:-1])
    assert LONGEST_LINE > LONGEST_WORD


TOKENIZER = CharTokenizer("abcdefgh")

# Sidecars in which one value is wrong. Some say what is not so, and the file tells the truth.
SIDECARS = {
    "no dtype": {"dtype": ...},
    "no count": {"count": ...},
    "no hash": {"sha256": ...},
    "one key more": {"more": 1},
    "dtype of a list": {"dtype": ["uint16"]},
    "dtype of floats": {"dtype": "float16"},
    "dtype of objects": {"dtype": "O"},
    "dtype too large": {"dtype": "uint32"},
    "count as text": {"count": "8"},
    "count with a half": {"count": 8.0},
    "count that is true": {"count": True},
    "count below 0": {"count": -8},
    "count of 0": {"count": 0},
    "count too large": {"count": 9},
    "count enormous": {"count": 10**30},
    "count of nothing": {"count": None},
    "count that is NaN": {"count": float("nan")},
    "bytes as text": {"bytes": "8"},
    "bytes of 0": {"bytes": 0},
    "bytes below 0": {"bytes": -1},
    "documents as a list": {"documents": [1]},
    "vocabulary as text": {"vocab_size": "8"},
    "tokenizer as a number": {"tokenizer": 3},
    "tokenizer of another": {"tokenizer": "0123456789abcdef"},
    "hash as a list": {"sha256": []},
    "largest as text": {"largest": "7"},
    "largest below 0": {"largest": -1},
    "largest enormous": {"largest": 10**400},
}


@pytest.mark.parametrize("name", SIDECARS)
def test_damaged_sidecars_cost_one_line(name, tmp_path):
    write_token_file(tmp_path / "train.bin", ["abcdefgh"], TOKENIZER)
    path = tmp_path / "train.json"
    values = json.loads(path.read_text()) | SIDECARS[name]
    path.write_text(json.dumps({key: v for key, v in values.items() if v is not ...}))
    with pytest.raises(UserError, match=r"train\.(bin|json)"), within(5):
        read_token_file(tmp_path / "train.bin", TOKENIZER)


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"{", b"\xff", b"[" * 10**5])
def test_sidecars_that_are_no_object_cost_one_line(content, tmp_path):
    write_token_file(tmp_path / "train.bin", ["abcdefgh"], TOKENIZER)
    (tmp_path / "train.json").write_bytes(content)
    with pytest.raises(UserError, match=r"train\.json"), within(5):
        read_token_file(tmp_path / "train.bin", TOKENIZER)


def test_a_sidecar_that_lies_about_the_largest_id_is_not_believed(tmp_path):
    """An embedding ends in an IndexError where an id lies beyond it."""
    path = write_token_file(tmp_path / "train.bin", ["abcdefgh"], TOKENIZER).path
    times = path.stat()
    path.write_bytes(b"\xff\x7f" * 8)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(UserError, match="holds id 32767, beyond the vocabulary of 8"):
        check_ids(read_token_file(path, TOKENIZER), 8)


# Token files of other projects, without a sidecar.
def header(*values: int) -> bytes:
    return b"".join(v.to_bytes(4, "little", signed=True) for v in values).ljust(1024, b"\0")


FOREIGN = {
    "empty": b"",
    "odd": b"\0\0\0",
    "beyond the vocabulary": b"\x08\0" * 4,
    "header alone": header(20240520, 1, 0),
    "header of another version": header(20240520, 2, 1) + b"\0\0",
    "header cut off": header(20240520, 1, 1)[:600],
    "header that promises more": header(20240520, 1, 9) + b"\0\0",
    "header that promises less": header(20240520, 1, -1) + b"\0\0",
    "header that promises nothing": header(20240520, 1, -512),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_damaged_files_of_other_projects_cost_one_line(name, tmp_path):
    (tmp_path / "train.bin").write_bytes(FOREIGN[name])
    with pytest.raises(UserError, match=r"train\.bin"), within(5):
        read_token_file(tmp_path / "train.bin", TOKENIZER)


@pytest.mark.parametrize(
    "names",
    [
        ["train-00000-of-00001.bin"], ["train-00000-of-00003.bin"], ["train-00001-of-00002.bin"],
        ["train-00000-of-99999.bin"],
    ],
)  # fmt: skip
def test_a_series_of_token_files_with_gaps_costs_one_line(names, tmp_path):
    for name in names:
        write_token_file(tmp_path / name, ["abc"], TOKENIZER)
    with pytest.raises(UserError, match="no such token file"), within(5):
        open_split(tmp_path, "train", TOKENIZER)


def test_a_token_file_that_is_none_costs_one_line(tmp_path):
    (tmp_path / "train.bin").mkdir()
    with pytest.raises(UserError, match="no such token file"):
        open_split(tmp_path, "train", TOKENIZER)
    (tmp_path / "train.bin").rmdir()
    os.mkfifo(tmp_path / "train.bin")
    with pytest.raises(UserError, match="no such token file"), within(5):
        open_split(tmp_path, "train", TOKENIZER)


def test_exchanged_token_files_cost_one_line(tmp_path):
    """The files of another tokenizer in place of one's own, with and without their sidecars."""
    for name, letters in (("a", "abcdefgh"), ("b", "hgfedcba")):
        (tmp_path / name).mkdir()
        write_token_file(tmp_path / name / "train.bin", [letters], CharTokenizer(letters))
    with pytest.raises(UserError, match="was made with another tokenizer"):
        read_token_file(tmp_path / "b" / "train.bin", CharTokenizer("abcdefgh"))
    write_token_file(tmp_path / "b" / "train.bin", ["hgf"], CharTokenizer("hgfedcba"))
    (tmp_path / "b" / "train.bin").replace(tmp_path / "a" / "train.bin")
    with pytest.raises(UserError, match=r"has 6 bytes where train\.json promises 16"):
        read_token_file(tmp_path / "a" / "train.bin", CharTokenizer("abcdefgh"))
