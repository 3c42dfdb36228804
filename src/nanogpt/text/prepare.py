"""Text to token files: in parallel, in shards, and resumable after any interruption.

There are three passes over a source, each a stream: the first decides which documents are held out,
the second counts words for the tokenizer, the third writes ids. Unfinished files stay in a hidden
folder, and a journal there says how far the work got. The work is cut into groups of text that
depend on the source alone. So any later call writes the same bytes, with any number of processes.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from nanogpt import __version__
from nanogpt.config import DataConfig
from nanogpt.errors import Interrupted, UserError
from nanogpt.files import absolute, checked, claimed, read_json, write_json
from nanogpt.text.conversations import encode_document
from nanogpt.text.corpus import Document, Side, SplitRule
from nanogpt.text.dataset import ORDERED, PREPARED
from nanogpt.text.formats import load_tokenizer, train_tokenizer
from nanogpt.text.remote import is_url
from nanogpt.text.sources import (
    holds_conversations,
    holds_pairs,
    identity,
    rule_for,
    stream_documents,
)
from nanogpt.text.tokenfiles import (
    TokenFile,
    end_of_text,
    open_split,
    shard_paths,
    sidecar_path,
    token_dtype,
    write_sidecar,
)
from nanogpt.text.tokenizer import BaseTokenizer
from nanogpt.workers import grouped, map_in_order

UNFINISHED = ".unfinished"
GROUP = 1_000_000  # characters that are encoded at a time
GROUPS_BETWEEN_ENTRIES = 16  # in the journal: what a kill can cost
NAMES = 40  # documents that the report mentions by name

SIDES: tuple[Side, Side] = ("train", "val")

# Says how far a phase is: its name, the characters it has done, and how many there are if known.
Report = Callable[[str, int, int | None], None]


@dataclass
class Written:
    """How far the token files of one side are."""

    shards: int = 0  # full ones
    count: int = 0  # tokens in the one being written, and so on
    bytes: int = 0
    documents: int = 0
    names: list[str] = field(default_factory=list)  # the first documents of the side


@dataclass
class Journal:
    """What a preparation needs to resume."""

    order: dict[str, Any]  # what was asked for; another order starts anew
    rule: SplitRule | None = None
    total: int | None = None  # characters in the source
    groups: int = 0  # groups of text whose ids are written
    characters: int = 0  # in those groups
    train: Written = field(default_factory=Written)
    val: Written = field(default_factory=Written)
    complete: bool = False

    def save(self, folder: Path) -> None:
        """Write it down."""
        write_json(folder / "journal.json", asdict(self))

    @classmethod
    def open(cls, folder: Path, order: dict[str, Any]) -> "Journal":
        """Resume where the same order was interrupted, or start anew."""
        with suppress(UserError):
            journal = checked(cls, read_json(folder / "journal.json"))
            if journal.order == order:
                return journal
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return cls(order)


@dataclass(frozen=True)
class Encoded:
    """The ids of what one group of text holds of one side."""

    data: bytes
    count: int
    bytes: int
    documents: int
    names: list[str]


@dataclass(frozen=True)
class Prepared:
    """What a preparation made."""

    tokenizer: BaseTokenizer
    files: dict[Side, TokenFile]
    names: dict[Side, list[str]]  # the first documents of each side
    asked: int  # tokens that the vocabulary was to have


def prepare(
    data: DataConfig, folder: str | Path, processes: int, report: Report = lambda *_: None
) -> Prepared:
    """Write tokenizer.json and the token files of both sides into a folder.

    An interrupted call leaves its work in a hidden folder, and the same call resumes from there.
    Raises Interrupted, and leaves the work, too, if a working process or the network fails. Raises
    UserError, and leaves nothing, if the source is missing, damaged or too short, if a setting is
    impossible, if the folder is a URL, or if it holds another text's tokens.
    """
    if is_url(folder):
        raise UserError(f"{folder} is a URL: prepare the text in a folder, then copy that there")
    folder = Path(folder)
    work = folder / UNFINISHED
    data = replace(data, roles=data.roles or holds_conversations(data))
    order = {name: getattr(data, name) for name in ORDERED}
    chosen = Path(data.tokenizer)
    stamp = chosen.stat().st_mtime_ns if chosen.exists() else None
    order |= {"identity": identity(data), "stamp": stamp, "version": __version__}
    order["pairs"] = holds_pairs(data)
    with claimed(folder):
        refuse_other_text(folder, data)
        journal = Journal.open(work, order)
        try:
            tokenizer = learn(data, work, journal, processes, report)
            if not journal.complete:
                encode(data, work, journal, tokenizer, processes, report)
            install(work, folder, journal)
        except Interrupted:
            raise
        except UserError:
            shutil.rmtree(work, ignore_errors=True)
            raise
    files = {side: open_split(folder, side, tokenizer) for side in SIDES}
    names: dict[Side, list[str]] = {"train": journal.train.names, "val": journal.val.names}
    asked = data.vocab_size if data.tokenizer == "bpe" else tokenizer.vocab_size
    return Prepared(tokenizer, files, names, asked)


def refuse_other_text(folder: Path, data: DataConfig) -> None:
    """Raise UserError if a folder holds what would be lost: another text's tokens, other files."""
    if not (folder / PREPARED).exists() and not (folder / UNFINISHED).exists():
        for path in [*token_files(folder), folder / "tokenizer.json"]:
            if path.exists():
                raise UserError(f"{path} would be replaced; name another folder with --data.folder")
    if (folder / PREPARED).exists():
        source = read_json(folder / PREPARED).get("source")
        if source != absolute(data.source):
            raise UserError(
                f"{folder} holds the tokens of {source}; name another folder with --data.folder"
            )


def token_files(folder: Path) -> list[Path]:
    """The token files of a folder and what is said beside them, whoever wrote them."""
    patterns = [f"{side}{shard}{ending}" for side in SIDES for shard in ("", "-*-of-*")
                for ending in (".bin", ".json")]  # fmt: skip
    return [path for pattern in patterns for path in sorted(folder.glob(pattern))]


def pieces(data: DataConfig, rule: SplitRule) -> Iterator[tuple[Side, Document]]:
    """The whole source, each piece with its side."""
    return rule.divide(stream_documents(data))


def checked_pieces(
    data: DataConfig, rule: SplitRule, pairs: bool
) -> Iterator[tuple[Side, Document]]:
    """As pieces does. Raises UserError where pairs of answers stand among other documents."""
    for side, document in pieces(data, rule):
        if bool(document.rejected) != pairs:
            kind, others = ("no pair", "pairs") if pairs else ("a pair", "no pairs")
            raise UserError(
                f"{document.name} is {kind} of answers, and the documents before it are {others}: "
                "keep them in different sources"
            )
        yield side, document


def learn(
    data: DataConfig, work: Path, journal: Journal, processes: int, report: Report
) -> BaseTokenizer:
    """Decide the split and make the tokenizer, from the training side alone."""
    report("splitting", 0, None)
    if journal.rule is None:
        journal.rule = rule_for(data)
        journal.save(work)
    path = work / "tokenizer.json"
    if journal.complete and not path.exists():  # it is the last file to be moved to its place
        path = work.parent / "tokenizer.json"
    if path.exists():
        return load_tokenizer(path)
    characters = 0

    def training_texts(rule: SplitRule) -> Iterator[str]:
        nonlocal characters
        for side, document in pieces(data, rule):
            characters += len(document.text)
            report("learning", characters, None)
            if side == "train":
                yield from document.texts
        journal.total = characters

    texts = training_texts(journal.rule)
    tokenizer = train_tokenizer(data.tokenizer, texts, data.vocab_size, processes, data.roles)
    journal.save(work)
    tokenizer.save(path)
    return tokenizer


def encode(
    data: DataConfig,
    work: Path,
    journal: Journal,
    tokenizer: BaseTokenizer,
    processes: int,
    report: Report,
) -> None:
    """Write the ids of all groups of text that the journal does not have yet."""
    assert journal.rule is not None
    checked = checked_pieces(data, journal.rule, journal.order["pairs"])
    all_groups = grouped(checked, lambda piece: len(piece[1].text), GROUP)
    groups = islice(all_groups, journal.groups, None)
    work_on = partial(encode_group, tokenizer)
    with ExitStack() as stack:
        writers = {side: Writer(work, side, getattr(journal, side), tokenizer) for side in SIDES}
        for writer in writers.values():
            stack.callback(writer.release)
        for encoded, characters in map_in_order(work_on, groups, processes):
            for side, writer in writers.items():
                writer.append(encoded[side], data.shard_tokens)
            journal.groups += 1
            journal.characters += characters
            report("encoding", journal.characters, journal.total)
            if journal.groups % GROUPS_BETWEEN_ENTRIES == 0:
                for writer in writers.values():
                    writer.flush()
                journal.save(work)
        for writer in writers.values():
            writer.finish()
    if not (journal.train.shards and journal.val.shards):
        raise UserError(
            f"{data.source} holds too little text to split; add text, or different documents"
        )
    journal.complete = True
    journal.save(work)


def encode_group(
    tokenizer: BaseTokenizer, group: list[tuple[Side, Document]]
) -> tuple[dict[Side, Encoded], int]:
    """What one process does with a group: the ids of both sides, and the group's characters."""
    dtype, separator = token_dtype(tokenizer.vocab_size), end_of_text(tokenizer)
    encoded: dict[Side, Encoded] = {}
    for side in SIDES:
        mine = [document for of, document in group if of == side]
        ended = [document for document in mine if document.ends]
        parts = []
        for document in mine:
            try:
                ids_of = encode_document(tokenizer, document)
            except UserError as error:  # of a vocabulary of characters
                raise UserError(
                    f"{document.name} ({side}): {error}; or use --data.tokenizer bpe"
                ) from None
            parts.append(ids_of.astype(dtype).tobytes())
            if document.ends and separator is not None:
                parts.append(dtype.type(separator).astype(dtype).tobytes())
        ids = b"".join(parts)
        texts = (text for document in mine for text in document.texts)
        n_bytes = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
        names = [document.name for document in ended[:NAMES]]
        encoded[side] = Encoded(ids, len(ids) // dtype.itemsize, n_bytes, len(ended), names)
    return encoded, sum(len(document.text) for _, document in group)


class Writer:
    """Appends ids to the token files of one side, after what is written already.

    Raises UserError if less is written than the journal says.
    """

    def __init__(
        self, folder: Path, side: Side, written: Written, tokenizer: BaseTokenizer
    ) -> None:
        self.folder, self.side, self.written, self.tokenizer = folder, side, written, tokenizer
        size = written.count * token_dtype(tokenizer.vocab_size).itemsize
        if size and (not self.path.exists() or self.path.stat().st_size < size):
            raise UserError(f"{self.path} has lost what was written to it; run the command again")
        self.file = self.path.open("ab")
        self.file.truncate(size)  # what came after the last entry in the journal is done again

    @property
    def path(self) -> Path:
        """The token file being written."""
        return self.folder / f"{self.side}-{self.written.shards:05d}.bin"

    def append(self, encoded: Encoded, shard_tokens: int) -> None:
        """Add ids, and start the next shard if this one is full."""
        self.file.write(encoded.data)
        self.written.count += encoded.count
        self.written.bytes += encoded.bytes
        self.written.documents += encoded.documents
        self.written.names = (self.written.names + encoded.names)[:NAMES]
        if self.written.count >= shard_tokens:
            self.finish()
            self.file = self.path.open("wb")

    def flush(self) -> None:
        """Make sure that what was appended is on the disk."""
        self.file.flush()
        os.fsync(self.file.fileno())

    def release(self) -> None:
        """Close the file as it is."""
        self.file.close()

    def finish(self) -> None:
        """Complete the token file with its sidecar, unless it is empty."""
        self.flush()
        self.file.close()
        written = self.written
        if written.count:
            write_sidecar(
                self.path, written.count, written.bytes, written.documents, self.tokenizer
            )
            written.shards += 1
            written.count = written.bytes = written.documents = 0


def install(work: Path, folder: Path, journal: Journal) -> None:
    """Move finished files to their place. It can be called again after an interruption."""
    moves: dict[Path, Path] = {}
    for side in SIDES:
        shards: int = getattr(journal, side).shards
        for n, place in enumerate(shard_paths(folder, side, shards)):
            source = work / f"{side}-{n:05d}.bin"
            moves[source] = place
            moves[sidecar_path(source)] = sidecar_path(place)
    for path in {*token_files(folder)} - {*moves.values()}:
        path.unlink()
    if not (work / PREPARED).exists():
        made_with = {name: journal.order[name] for name in ORDERED}
        known = {"source": absolute(made_with["source"]), "pairs": journal.order["pairs"]}
        write_json(work / PREPARED, {**made_with, **known})
    moves[work / PREPARED] = folder / PREPARED
    moves[work / "tokenizer.json"] = folder / "tokenizer.json"
    for source, place in moves.items():
        if source.exists():
            source.replace(place)
    shutil.rmtree(work)
