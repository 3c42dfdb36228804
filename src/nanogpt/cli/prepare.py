"""nanogpt prepare: turn text into token files."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import track

from nanogpt.cli.settings import Parser, load_settings
from nanogpt.config import DataConfig
from nanogpt.corpus import BUILT_IN, Document, Split, load_split
from nanogpt.data import write_token_file
from nanogpt.files import writing_files
from nanogpt.tokenizer import AnyTokenizer, train_tokenizer


def main(arguments: Sequence[str]) -> None:
    """Prepare a corpus for training."""
    parser = Parser("prepare", "Turn text into token files for training and validation.")
    parser.add_argument(
        "source",
        nargs="?",
        help=f"a text file, a folder of .txt and .md files, a .jsonl file, or {BUILT_IN} (default)",
    )
    parser.add_settings(DataConfig)
    options = parser.parse(arguments)
    if options.source is not None:
        setattr(options, "data.source", options.source)
    config = load_settings(None, options).data
    console = Console()
    folder = Path(config.folder or Path("data") / Path(config.source).resolve().stem)
    split = load_split(config.source, config.val_fraction)
    show_split(split, console)
    tokenizer = learn_tokenizer(config, split, console)
    write_tokens(folder, split, tokenizer, console)
    run = Path("runs") / folder.name  # a name of its own, not that of the recipe
    command = shlex.join(
        ["nanogpt", "train", "demo", "--data.folder", str(folder), "--run", str(run)]
    )
    console.print(f"\ntrain on it: {command}", highlight=False, markup=False, soft_wrap=True)


def show_split(split: Split, console: Console) -> None:
    """Say what is trained on and what is held out."""
    for title, documents in (("training", split.train), ("held out", split.val)):
        n_bytes = sum(len(d.text.encode("utf-8", "surrogatepass")) for d in documents)
        plural = "document" if len(documents) == 1 else "documents"
        console.print(
            f"[bold]{title}[/]  {len(documents):,} {plural}, {n_bytes:,} bytes: "
            f"[dim]{escape(some_names(documents))}[/]",
            highlight=False,
        )


def some_names(documents: Sequence[Document], most: int = 40) -> str:
    """The names of the documents, shortened where there are too many to read."""
    names = [d.name for d in documents[:most]]
    if len(documents) > most:
        names.append(f"and {len(documents) - most:,} more")
    return ", ".join(names)


def learn_tokenizer(config: DataConfig, split: Split, console: Console) -> AnyTokenizer:
    """Train or load the tokenizer, on the training text alone."""
    with console.status("learning a vocabulary ..."):
        tokenizer = train_tokenizer(
            config.tokenizer, (d.text for d in split.train), config.vocab_size
        )
    console.print(f"[bold]tokenizer[/]  {tokenizer.vocab_size:,} tokens", highlight=False)
    return tokenizer


def write_tokens(folder: Path, split: Split, tokenizer: AnyTokenizer, console: Console) -> None:
    """Write tokenizer.json, train.bin and val.bin with their sidecars: all of them or none."""
    with writing_files(folder) as temporary:
        tokenizer.save(temporary / "tokenizer.json")
        for name, documents in (("train", split.train), ("val", split.val)):
            texts = track(
                (d.text for d in documents),
                f"encoding {name}",
                len(documents),
                console=console,
                transient=True,
                disable=not console.is_terminal,
            )
            tokens = write_token_file(temporary / f"{name}.bin", texts, tokenizer)
            console.print(
                f"[bold]{escape(str(folder / name))}.bin[/]  {tokens.about.count:,} tokens, "
                f"{tokens.bytes_per_token:.2f} bytes per token",
                highlight=False,
                soft_wrap=True,
            )
