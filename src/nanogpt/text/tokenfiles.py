"""Token files: the ids of many texts on disk, ready to be cut into batches.

A token file is plain little-endian integers. A JSON sidecar says what they are. The file is
memory-mapped: a corpus of any size opens at once and takes no memory until it is read. Documents
follow each other, each with the end-of-text token at its end if the tokenizer has one. A large
corpus is kept in several files, its shards, and read as one.

Files of other projects are read, too: nanoGPT's are bare 16-bit ids, and those of llm.c and
modded-nanogpt begin with a header.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nanogpt.errors import UserError
from nanogpt.files import read_json, sha256, write_json, writing
from nanogpt.text.tokenizer import END_OF_TEXT, BaseTokenizer

# The header of llm.c's token files: 256 32-bit integers; the first three mean something.
LLMC_MAGIC = 20240520
LLMC_VERSION = 1
LLMC_HEADER_BYTES = 256 * 4

CHUNK = 2**24  # tokens read at a time where a whole file is read


@dataclass(frozen=True)
class Sidecar:
    """What the JSON file beside a token file says about it."""

    dtype: str  # uint16 or uint32, little-endian
    count: int  # tokens, end-of-text tokens included
    bytes: int  # UTF-8 bytes of the text they came from
    documents: int
    vocab_size: int
    tokenizer: str  # fingerprint of the tokenizer that made them
    sha256: str  # of the token file: a run keeps it to know what it was trained on
    largest: int | None = None  # id in the file; older sidecars do not say

    def __post_init__(self) -> None:
        if self.dtype not in ("uint16", "uint32"):
            raise ValueError(f"dtype={self.dtype!r}")
        for name in ("count", "bytes", "documents", "vocab_size", "largest"):
            value = getattr(self, name)
            if type(value) is not int and not (name == "largest" and value is None):
                raise TypeError(f"{name}={value!r} is no whole number")
            if value is not None and not 0 <= value < 2**63:
                raise ValueError(f"{name}={value}")
        if not isinstance(self.tokenizer, str) or not isinstance(self.sha256, str):
            raise TypeError("tokenizer and sha256 are texts")


class Shards:
    """Several arrays of ids as if they were one: it has a length and can be sliced."""

    def __init__(self, arrays: Sequence[NDArray]) -> None:
        self.arrays = arrays
        self.ends = np.cumsum([len(array) for array in arrays])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, place: slice) -> NDArray:
        start, stop, _ = place.indices(len(self))
        if stop <= start:
            return self.arrays[0][:0]
        first = int(np.searchsorted(self.ends, start, side="right"))
        parts = []
        for array, end in zip(self.arrays[first:], self.ends[first:], strict=True):
            offset = end - len(array)
            parts.append(array[max(0, start - offset) : stop - offset])
            if end >= stop:
                break
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


Ids = NDArray | Shards


@dataclass(frozen=True)
class TokenFile:
    """Open token files: their ids, memory-mapped, and what is known about them."""

    path: Path
    ids: Ids
    about: Sidecar

    @cached_property
    def largest(self) -> int:
        """The largest id. Where the sidecar does not say, all of them are read."""
        if self.about.largest is not None:
            return self.about.largest
        return largest_id(self.ids)

    @property
    def bytes_per_token(self) -> float:
        """How much text one token carries: what turns loss per token into bits per byte."""
        return self.about.bytes / self.about.count

    def chunks(self) -> Iterator[NDArray]:
        """All ids in order, a part at a time."""
        for start in range(0, len(self.ids), CHUNK):
            yield self.ids[start : start + CHUNK]


def largest_id(ids: Ids) -> int:
    """The largest of many ids, a part at a time."""
    return max(int(ids[n : n + CHUNK].max()) for n in range(0, len(ids), CHUNK))


def end_of_text(tokenizer: BaseTokenizer) -> int | None:
    """The id that closes a document, if the tokenizer has one."""
    return tokenizer.special_tokens.get(END_OF_TEXT)


def token_dtype(vocab_size: int) -> np.dtype:
    """Two bytes hold an id of most vocabularies, four of any."""
    return np.dtype("<u2" if vocab_size <= 2**16 else "<u4")


def write_token_file(path: str | Path, texts: Iterable[str], tokenizer: BaseTokenizer) -> TokenFile:
    """Encode texts one by one and write them as a token file and its sidecar.

    The plain form of what `nanogpt prepare` does in parallel.
    """
    separator = [i for i in (end_of_text(tokenizer),) if i is not None]
    dtype = token_dtype(tokenizer.vocab_size)
    count = n_bytes = documents = 0
    with writing(path) as file:
        for text in texts:
            ids = np.append(tokenizer.encode_array(text), separator).astype(dtype)
            file.write(ids.tobytes())
            count += len(ids)
            n_bytes += len(text.encode("utf-8", "surrogatepass"))
            documents += 1
        sidecar_path(path).unlink(missing_ok=True)  # it describes the file that is replaced
    write_sidecar(path, count, n_bytes, documents, tokenizer)
    return read_token_file(path)


def write_sidecar(
    path: str | Path, count: int, n_bytes: int, documents: int, tokenizer: BaseTokenizer
) -> None:
    """Write what is known about a finished token file beside it."""
    dtype = token_dtype(tokenizer.vocab_size)
    about = Sidecar(
        dtype=dtype.name,
        count=count,
        bytes=n_bytes,
        documents=documents,
        vocab_size=tokenizer.vocab_size,
        tokenizer=tokenizer.fingerprint(),
        sha256=sha256(path),
        largest=largest_id(np.memmap(path, dtype=dtype, mode="r")) if count else None,
    )
    write_json(sidecar_path(path), asdict(about))


def sidecar_path(path: str | Path) -> Path:
    """train.bin -> train.json"""
    return Path(path).with_suffix(".json")


def read_token_file(path: str | Path, tokenizer: BaseTokenizer | None = None) -> TokenFile:
    """Open a token file. Raises UserError if it is missing, damaged, or another tokenizer's.

    A file without a sidecar comes from another project; opening it needs the tokenizer.
    """
    path, again = Path(path), "prepare the data again"
    if not path.is_file():
        raise UserError(f"{path}: no such token file; make it with `nanogpt prepare`")
    if not sidecar_path(path).exists():
        return read_foreign_file(path, tokenizer)
    values = read_json(sidecar_path(path))
    try:
        about = Sidecar(**values)
        dtype = np.dtype(about.dtype).newbyteorder("<")
        expected = about.count * dtype.itemsize
    except (TypeError, ValueError) as error:
        raise UserError(f"{sidecar_path(path)} is damaged ({error}); {again}") from None
    found = path.stat()
    if found.st_size != expected:
        raise UserError(
            f"{path} has {found.st_size} bytes where {sidecar_path(path).name} promises "
            f"{expected}; {again}"
        )
    if found.st_mtime_ns > sidecar_path(path).stat().st_mtime_ns:
        about = replace(about, largest=None)  # written to since; look at the ids themselves
    if about.count == 0 or about.bytes == 0:
        raise UserError(f"{path} holds no tokens of a text; {again} from a text that is not empty")
    if tokenizer is not None and about.tokenizer != tokenizer.fingerprint():
        raise UserError(f"{path} was made with another tokenizer; {again}")
    if about.count <= CHUNK:  # soon looked at, and then a wrong sidecar does no harm
        about = replace(about, largest=None)
    return TokenFile(path, np.memmap(path, dtype=dtype, mode="r"), about)


def read_foreign_file(path: str | Path, tokenizer: BaseTokenizer | None) -> TokenFile:
    """Open the 16-bit ids of nanoGPT, llm.c or modded-nanogpt.

    Decoding tells how much text they came from. Raises UserError if the file is damaged, or holds
    ids that the tokenizer does not know.
    """
    path = Path(path)
    if tokenizer is None:
        raise UserError(f"{path} has no sidecar {sidecar_path(path).name}; prepare the data again")
    size = path.stat().st_size
    with path.open("rb") as file:
        header = np.frombuffer(file.read(LLMC_HEADER_BYTES)[: size // 4 * 4], dtype="<i4")
    offset = 0
    if len(header) and header[0] == LLMC_MAGIC:
        offset = LLMC_HEADER_BYTES
        if len(header) < 256 or header[1] != LLMC_VERSION:
            raise UserError(f"{path} has an unknown or cut-off header; fetch it again")
        if size != offset + 2 * int(header[2]):
            raise UserError(
                f"{path} has {size} bytes where its header promises {offset + 2 * int(header[2])} "
                f"({header[2]:,} tokens); fetch it again"
            )
    if size % 2 or size == offset:
        raise UserError(f"{path} has {size} bytes, which cannot be 16-bit ids; fetch it again")
    ids = np.memmap(path, dtype="<u2", mode="r", offset=offset)
    about = Sidecar("uint16", len(ids), 0, 0, tokenizer.vocab_size, "", sha256(path))
    tokens = TokenFile(path, ids, about)
    check_ids(tokens, tokenizer.vocab_size)
    counts = np.zeros(tokenizer.vocab_size, dtype=np.int64)
    for chunk in tokens.chunks():
        counts += np.bincount(chunk, minlength=len(counts))
    lengths = [len(tokenizer.vocabulary.get(i, b"")) for i in range(tokenizer.vocab_size)]
    separator = end_of_text(tokenizer)
    documents = 0
    if separator is not None:
        lengths[separator], documents = 0, int(counts[separator])
    n_bytes = int(counts @ lengths)
    if n_bytes == 0:
        raise UserError(
            f"{path} holds no text; prepare the data again from a text that is not empty"
        )
    about = replace(about, bytes=n_bytes, documents=documents, largest=tokens.largest)
    return replace(tokens, about=about)


def open_split(folder: str | Path, name: str, tokenizer: BaseTokenizer) -> TokenFile:
    """All token files of "train" or "val" in a folder, as one.

    That is NAME.bin, or else, in the order of their names, all .bin files with NAME in it. Raises
    UserError if there are none, or one is missing from a numbered series.
    """
    folder = Path(folder)
    paths = [folder / f"{name}.bin"]
    if not paths[0].exists():
        paths = sorted(folder.glob(f"*{name}*.bin")) or paths
    if promised := re.fullmatch(name + r"-\d+-of-(\d{1,5})\.bin", paths[0].name):
        paths = shard_paths(folder, name, int(promised[1])) or paths
    files = [read_token_file(path, tokenizer) for path in paths]
    if len(files) == 1:
        return files[0]
    abouts = [file.about for file in files]
    digest = hashlib.sha256("".join(about.sha256 for about in abouts).encode()).hexdigest()
    largest = [a.largest for a in abouts if a.largest is not None]
    about = replace(
        abouts[0],
        count=sum(a.count for a in abouts),
        bytes=sum(a.bytes for a in abouts),
        documents=sum(a.documents for a in abouts),
        sha256=digest,
        largest=max(largest) if len(largest) == len(abouts) else None,
    )
    return TokenFile(folder / f"{name}-*.bin", Shards([file.ids[:] for file in files]), about)


def shard_paths(folder: str | Path, name: str, count: int) -> list[Path]:
    """What the token files of a split are called: train.bin, or train-00000-of-00002.bin ...

    The names say how many there are, so a missing one is noticed.
    """
    if count == 1:
        return [Path(folder, f"{name}.bin")]
    return [Path(folder, f"{name}-{n:05d}-of-{count:05d}.bin") for n in range(count)]


def check_ids(tokens: TokenFile, vocab_size: int) -> None:
    """Raise UserError if an id lies beyond the vocabulary, before it can crash an embedding."""
    if tokens.largest >= vocab_size:
        raise UserError(
            f"{tokens.path} holds id {tokens.largest}, beyond the vocabulary of {vocab_size}; "
            "prepare the data again"
        )


def check_unchanged(tokens: TokenFile) -> None:
    """Raise UserError if token files of ours are no longer those that their sidecars describe."""
    for path in sorted(tokens.path.parent.glob(tokens.path.name)):
        if sidecar_path(path).exists() and sha256(path) != read_token_file(path).about.sha256:
            raise UserError(f"{path} has changed since it was prepared; prepare the data again")


def check_length(tokens: TokenFile, context_length: int) -> None:
    """Raise UserError if the text is too short for one window and its targets."""
    if len(tokens.ids) <= context_length:
        raise UserError(
            f"{tokens.path} has {len(tokens.ids)} tokens, too few for "
            f"model.context_length={context_length}: add text or use at most {len(tokens.ids) - 1}"
        )
