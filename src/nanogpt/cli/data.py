"""nanogpt data: look at what a model is trained on."""

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.text import Text

from nanogpt.cli.prepare import fetch_with_progress
from nanogpt.cli.screen import Screen
from nanogpt.cli.settings import Parser, file_to_write, load_settings, named_path, run_action
from nanogpt.cli.text import visible
from nanogpt.config import Config, DataConfig, load_config
from nanogpt.errors import UserError
from nanogpt.text.batches import BATCHES, Batch
from nanogpt.text.dataset import data_folder, tokenizer_of
from nanogpt.text.drawing import (
    Name,
    document_numbers_of,
    draw_batches,
    row_with_most_documents,
    token_names,
)
from nanogpt.text.formats import gpt2_tokenizer, load_tokenizer
from nanogpt.text.remote import is_url
from nanogpt.text.tokenfiles import (
    TokenFile,
    check_length,
    end_of_text,
    open_split,
    write_token_file,
)
from nanogpt.text.tokenizer import BaseTokenizer

# Short enough that a window of a dozen tokens meets several documents.
EXAMPLE = [
    "Who's there?",
    "Nay, answer me.",
    "Long live the king!",
    "Bernardo?",
    "He.",
    "You come most carefully upon your hour.",
    "'Tis now struck twelve; get thee to bed, Francisco.",
    "For this relief much thanks.",
    "'Tis bitter cold, and I am sick at heart.",
]

COLOURS = ("cyan", "green", "yellow", "magenta", "blue")


def main(arguments: Sequence[str]) -> None:
    """Dispatch to one of the actions."""
    actions = {"show": show, "fetch": fetch}
    run_action("data", __doc__ or "", actions, arguments)


def show(arguments: Sequence[str]) -> None:
    """Draw batches: tokens, targets, and who may look at whom."""
    parser = Parser("data show", "Draw batches: tokens, targets, and who may look at whom.")
    parser.add_argument(
        "folder",
        nargs="?",
        type=named_path,
        help="prepared data, or a run (default: a small example)",
    )
    parser.add_argument("--kind", choices=BATCHES, help="how to cut (default: each way)")
    parser.add_argument("--context-length", type=int, default=12, help="tokens (default: 12)")
    parser.add_argument("--batch-size", type=int, default=3, help="sequences (default: 3)")
    parser.add_argument("--number", type=int, default=0, help="which batch (default: 0)")
    parser.add_argument(
        "--out", type=file_to_write, default=Path("batches.png"), help="the picture"
    )
    parser.add_settings(DataConfig, shown=("data.stride", "data.tokenizer"))
    options = parser.parse(arguments)
    for name in ("context_length", "batch_size"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} {getattr(options, name)}: use at least 1")
    if options.number < 0:
        raise UserError(f"--number {options.number}: use at least 0")
    if options.folder and not options.folder.is_dir():
        raise UserError(f"{options.folder}: no such folder; prepare some data first")
    config, console = load_settings(None, options), Screen()
    with tempfile.TemporaryDirectory() as temporary:
        tokens, tokenizer = open_tokens(options.folder, config, Path(temporary))
        check_length(tokens, options.context_length)
        describe(tokens, console)
        kinds = [options.kind] if options.kind else list(BATCHES)
        if not options.kind and end_of_text(tokenizer) is None:
            kinds = [kind for kind in BATCHES if not BATCHES[kind].documents_apart]
        drawn, written = {}, partial(name_of, tokenizer=tokenizer)
        for kind in kinds:
            separator = end_of_text(tokenizer)
            batches = BATCHES[kind](tokens, options.context_length, separator, config.data)
            drawn[kind] = batches.batch(options.number, options.batch_size, seed=1337)
            console.rule(f"{kind}: {(BATCHES[kind].__doc__ or '').splitlines()[0]}", align="left")
            print_batch(drawn[kind], written, console)
        draw_batches(drawn, written, visible_tokens, options.out)
    console.print(f"{options.out}", highlight=False, markup=False, soft_wrap=True)


def fetch(arguments: Sequence[str]) -> None:
    """Fetch token files from a URL before anything trains on them."""
    parser = Parser("data fetch", "Fetch token files from a URL to this machine, once.")
    parser.add_argument("url", help="s3://..., gs://..., hf://..., https://... or another")
    options = parser.parse(arguments)
    if not is_url(options.url):
        raise UserError(f"{options.url} is no URL; name one, as in s3://bucket/data")
    fetch_with_progress(options.url, Screen())


def open_tokens(
    folder: Path | None, config: Config, temporary: Path
) -> tuple[TokenFile, BaseTokenizer]:
    """The training tokens of prepared data or of a run, or those of the example."""
    if folder is None:
        tokenizer = gpt2_tokenizer()
        return write_token_file(temporary / "example.bin", EXAMPLE, tokenizer), tokenizer
    if (folder / "config.toml").exists():
        data = data_folder(folder, load_config(folder / "config.toml"))
        found = load_tokenizer(folder / "tokenizer.json")
    else:
        data, found = folder, tokenizer_of(folder, config)
    return open_split(data, "train", found), found


def describe(tokens: TokenFile, console: Console) -> None:
    """Say what is in the token files."""
    about = tokens.about
    console.print(
        f"[bold]{tokens.path.name}[/]  {about.count:,} tokens of {about.dtype}, "
        f"{about.documents:,} documents, {tokens.bytes_per_token:.2f} bytes per token",
        highlight=False,
    )


def name_of(token: int, tokenizer: BaseTokenizer) -> str:
    """A token as one printable string."""
    end = token == end_of_text(tokenizer)
    return "<end>" if end else visible(tokenizer.decode_bytes([token]))


def visible_tokens(batch: Batch, row: int) -> NDArray[np.bool_]:
    """Which token (down) may look at which (across) in one row, padding left out: (T, T)."""
    import torch

    from nanogpt.model.attention import attention_mask, same_document

    length = batch.ids.shape[1]
    documents = torch.from_numpy(document_numbers_of(batch)[row : row + 1].copy())
    same = same_document(documents, length)
    return (attention_mask(length, length, same=same)[0, 0] & same[0]).numpy()


def print_batch(batch: Batch, name: Name, console: Console) -> None:
    """Each row with its targets below, coloured by document; then the mask of one row."""
    ids, targets = token_names(batch, name)
    for row, (inputs, outputs) in enumerate(zip(ids, targets, strict=True)):
        numbers = document_numbers_of(batch)[row].tolist()
        above, below = Text("sees     ", style="dim"), Text("predicts ", style="dim")
        for token, target, number in zip(inputs, outputs, numbers, strict=True):
            width = max(len(token), len(target)) + 1
            colour = f"black on {COLOURS[(number - 1) % len(COLOURS)]}" if number else "dim strike"
            above.append(token if number else "-", style=colour)
            above.append(" " * (width - len(token if number else "-")))
            below.append(f"{target or '-':<{width}}", style="" if target else "dim")
        console.print(above, no_wrap=True, overflow="crop")
        console.print(below, no_wrap=True, overflow="crop")
    row = row_with_most_documents(batch)
    console.print(f"row {row}: who looks (down) at whom (across)", style="dim", highlight=False)
    for line in visible_tokens(batch, row).tolist():
        console.print("  " + " ".join("■" if cell else "·" for cell in line), highlight=False)
