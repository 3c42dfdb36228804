"""nanogpt evaluate: measure a trained model on its held-out text, or on any other."""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from rich.text import Text

from nanogpt.cli.settings import Parser
from nanogpt.cli.text import printable, visible
from nanogpt.cli.weights import add_model_options, load_model
from nanogpt.config import Config, DataConfig
from nanogpt.device import Compute, resolve
from nanogpt.errors import UserError
from nanogpt.evaluation.loss import Score, default_stride, token_losses
from nanogpt.evaluation.novelty import LENGTHS, Known, Novelty
from nanogpt.evaluation.references import reference_points, text_of
from nanogpt.generation.reader import Reader
from nanogpt.generation.stream import prompt_ids, stream
from nanogpt.model.gpt import GPT
from nanogpt.text.batches import BATCHES
from nanogpt.text.dataset import data_folder
from nanogpt.text.sources import whole_texts
from nanogpt.text.tokenfiles import TokenFile, end_of_text, open_split, write_token_file
from nanogpt.text.tokenizer import BaseTokenizer
from nanogpt.text.worlds import World, find_world

SHOWN_TOKENS = 400  # with --tokens
SHOWN_DOCUMENTS = 10  # the hardest and the easiest, this many of each
SAMPLES = 20  # with --novelty

# From light to dark: how many bits a token cost, up to each of these.
BITS = {1: "green", 3: "cyan", 6: "yellow", 10: "red", float("inf"): "bold magenta"}


def main(arguments: Sequence[str]) -> None:
    """Print loss, perplexity and bits per byte, how they were measured, and what was asked for."""
    parser = Parser("evaluate", "Measure a trained model: loss, perplexity, bits per byte.")
    add_model_options(parser)
    parser.add_argument("text", nargs="?", help="a text to measure (default: the held-out text)")
    parser.add_argument("--stride", type=int, default=0, help="default: half the context length")
    parser.add_argument("--batch-size", type=int, default=16, help="changes the time, not the loss")
    parser.add_argument("--documents", action="store_true", help="a table of single documents")
    parser.add_argument("--tokens", action="store_true", help="the text, coloured by its loss")
    parser.add_argument(
        "--references", action="store_true", help="what simpler predictors and xz reach"
    )
    parser.add_argument(
        "--novelty", action="store_true",
        help="how much of what the model writes is copied from its training text",
    )  # fmt: skip
    options = parser.parse(arguments)
    if options.batch_size < 1:
        raise UserError(f"--batch-size {options.batch_size}: use at least 1")
    model, tokenizer, config = load_model(options)
    # Packed and int8 layers have a precision of their own.
    compute = resolve(str(model.device), "auto" if options.weights == "plain" else "float32")
    console = Console(soft_wrap=True, highlight=False)
    with tempfile.TemporaryDirectory() as folder:
        tokens = open_text(options, tokenizer, config, Path(folder))
        with console.status("evaluating ..."):
            losses = measure(model, tokens, compute, options, tokenizer, config)
        show_score(model, tokens, losses, compute, options, console)
        if options.documents:
            show_documents(tokens, losses, tokenizer, console)
        if options.tokens:
            show_tokens(tokens, losses, tokenizer, console)
        if options.references:
            train = train_split(options, tokenizer, config)
            world = None if options.text else find_world(config.data.source)
            score = score_of(losses, tokens)
            show_references(train, tokens, tokenizer, world, score.bits_per_byte, console)
        if options.novelty:
            train = train_split(options, tokenizer, config)
            show_novelty(model, tokenizer, config, train, tokens, options.text or "", console)


def open_text(
    options: argparse.Namespace, tokenizer: BaseTokenizer, config: Config, folder: Path
) -> TokenFile:
    """The text that was named, or the held-out text of the run."""
    if options.text is not None:
        texts = iter(whole_texts(DataConfig(source=options.text)))
        first = next(texts, "")
        if not first:
            raise UserError(f"{options.text or 'the text'} is empty; name a text to measure")
        return write_token_file(folder / "text.bin", chain([first], texts), tokenizer)
    if not (options.run / "config.toml").exists():
        raise UserError(f"{options.run} is no run and has no held-out text: name a text to measure")
    return open_split(data_folder(options.run, config), "val", tokenizer)


def train_split(options: argparse.Namespace, tokenizer: BaseTokenizer, config: Config) -> TokenFile:
    """What the run was trained on. Raises UserError for a model that is no run."""
    if not (options.run / "config.toml").exists():
        raise UserError(f"{options.run} is no run: what it was trained on is not known here")
    return open_split(data_folder(options.run, config), "train", tokenizer)


def measure(
    model: GPT,
    tokens: TokenFile,
    compute: Compute,
    options: argparse.Namespace,
    tokenizer: BaseTokenizer,
    config: Config,
) -> NDArray[np.float32]:
    """The loss of every token but the first."""
    apart = BATCHES[config.data.batches].documents_apart
    separator = end_of_text(tokenizer) if apart else None
    parts = list(
        token_losses(model, tokens.ids, compute, options.batch_size, options.stride, separator)
    )
    if not parts:
        raise UserError("the text is too short to evaluate: it needs at least two tokens")
    losses = np.concatenate(parts)
    if np.isnan(losses).any():
        raise UserError("the model's weights are not numbers; use an earlier checkpoint")
    return losses


def score_of(losses: NDArray[np.float32], tokens: TokenFile) -> Score:
    """The mean of single losses."""
    return Score(float(losses.mean(dtype=np.float64)), len(losses), tokens.bytes_per_token)


def show_score(
    model: GPT,
    tokens: TokenFile,
    losses: NDArray[np.float32],
    compute: Compute,
    options: argparse.Namespace,
    console: Console,
) -> None:
    """The three figures, and how they were measured."""
    score = score_of(losses, tokens)
    length = model.config.context_length
    console.print(
        f"loss           {score.loss:.4f} nats per token\n"
        f"perplexity     {score.perplexity:.2f} per token\n"
        f"bits per byte  {score.bits_per_byte:.4f}\n"
        f"[dim]{score.tokens:,} tokens of {score.bytes_per_token:.2f} bytes, each predicted once,\n"
        f"in windows of {length} tokens every {options.stride or default_stride(length)}, "
        f"{options.weights} weights, {compute.precision} arithmetic[/]"
    )


@dataclass(frozen=True)
class DocumentScore:
    """The loss of one document, its end-of-text token included."""

    number: int
    start: int  # of its first token in the text
    tokens: int  # predicted ones
    loss: float  # nats per token
    bits_per_byte: float


def document_scores(
    tokens: TokenFile, losses: NDArray[np.float32], tokenizer: BaseTokenizer
) -> Iterator[DocumentScore]:
    """Each document by itself. The first token of the text has no loss."""
    ids = np.asarray(tokens.ids[:])
    end = end_of_text(tokenizer)
    ends = np.flatnonzero(ids == end) + 1 if end is not None else np.array([], dtype=int)
    edges = [0, *ends.tolist()]
    if edges[-1] < len(ids):
        edges.append(len(ids))
    for number, (start, stop) in enumerate(pairwise(edges)):
        part = losses[max(start - 1, 0) : stop - 1]
        predicted = ids[max(start, 1) : stop].tolist()
        text = tokenizer.decode_bytes(i for i in predicted if i != end)
        if len(part) and text:
            total = float(part.sum(dtype=np.float64))
            bits = total / np.log(2) / len(text)
            yield DocumentScore(number + 1, start, len(part), total / len(part), float(bits))


def show_documents(
    tokens: TokenFile, losses: NDArray[np.float32], tokenizer: BaseTokenizer, console: Console
) -> None:
    """The hardest documents and the easiest."""
    scores = sorted(document_scores(tokens, losses, tokenizer), key=lambda s: -s.bits_per_byte)
    shown = scores
    if len(scores) > 2 * SHOWN_DOCUMENTS:
        shown = scores[:SHOWN_DOCUMENTS] + scores[-SHOWN_DOCUMENTS:]
    table = Table("document", "tokens", "loss", "bits/byte", "begins", box=None)
    for score in shown:
        begin = tokenizer.decode(tokens.ids[score.start : score.start + 12].tolist())
        table.add_row(
            str(score.number), f"{score.tokens:,}", f"{score.loss:.3f}",
            f"{score.bits_per_byte:.3f}", Text(printable(begin).replace("\n", "⏎")[:40]),
        )  # fmt: skip
    console.print()
    console.print(table)
    if len(shown) < len(scores):
        console.print(f"[dim]the {SHOWN_DOCUMENTS} hardest and easiest of {len(scores):,}[/]")


def show_tokens(
    tokens: TokenFile, losses: NDArray[np.float32], tokenizer: BaseTokenizer, console: Console
) -> None:
    """The beginning of the text, each token in the colour of its loss."""
    text = Text()
    for token, loss in zip(tokens.ids[1 : SHOWN_TOKENS + 1].tolist(), losses, strict=False):
        bits = loss / np.log(2)
        style = next(style for most, style in BITS.items() if bits <= most)
        # The newline itself shows where a line was hard to end.
        shown = visible(tokenizer.decode_bytes([token])).replace("⏎", "⏎\n").replace("·", " ")
        text.append(shown, style)
    if len(tokens.ids) > SHOWN_TOKENS + 1:
        text.append(" ...", "dim")
    console.print()
    console.print(text)
    legend = Text("bits per token: ", "dim")
    for most, style in BITS.items():
        legend.append(f"up to {most} " if most < float("inf") else "more", style)
    console.print(legend)


def show_references(
    train: TokenFile,
    val: TokenFile,
    tokenizer: BaseTokenizer,
    world: World | None,
    reached: float,
    console: Console,
) -> None:
    """What simpler predictors reach on the same text."""
    table = Table("bits per byte of this text", "", box=None, header_style="bold")
    with console.status("asking simpler predictors ..."):
        for name, bits in reference_points(train, val, tokenizer).items():
            table.add_row(name, f"{bits:.4f}")
    table.add_row("this model", f"{reached:.4f}", style="bold")
    if world:
        table.add_row("the floor: the entropy of this toy world", f"{world.floor():.4f}")
    console.print()
    console.print(table)


def show_novelty(
    model: GPT,
    tokenizer: BaseTokenizer,
    config: Config,
    train: TokenFile,
    val: TokenFile,
    source: str,
    console: Console,
) -> None:
    """How much of what the model writes is in the training text, beside the held-out text."""
    with console.status(f"writing {SAMPLES} samples ..."):
        written = write_samples(model, tokenizer, config)
    with console.status("looking for them in the training text ..."):
        known = Known(text_of(train, tokenizer, b"\n").decode("utf-8", "replace"))
        ours = known.novelty(written)
        held_out = text_of(val, tokenizer, b"\n").decode("utf-8", "replace")
        theirs = known.novelty(pieces(held_out, sum(map(len, written)), SAMPLES))
    other = Path(source).name if source else "the held-out text"
    table = Table("runs of words that are new", "the model's", f"{other}'s", box=None)
    for n in LENGTHS:
        row = [f"{part.novel[n]:.1%}" if n in part.novel else "" for part in (ours, theirs)]
        table.add_row(f"{n} words" if n > 1 else "1 word", *row)
    console.print()
    console.print(table)
    for name, part in (("the model", ours), (other, theirs)):
        console.print(longest_copy(name, part))


def write_samples(model: GPT, tokenizer: BaseTokenizer, config: Config) -> list[str]:
    """Samples from the start of a document, with the settings of the run."""
    settings = replace(config.sample, prompt="")
    reader = Reader(model, [prompt_ids(tokenizer, "")] * SAMPLES)
    texts = [""] * SAMPLES
    for piece in stream(reader, tokenizer, settings):
        texts[piece.row] += piece.text
    return texts


def pieces(text: str, length: int, count: int) -> list[str]:
    """A text of about this length, taken from `count` places that lie evenly in it.

    >>> pieces("abcdefgh", 4, 2)
    ['ab', 'ef']
    """
    each = max(1, min(length, len(text)) // count)
    return [text[n * len(text) // count :][:each] for n in range(count)]


def longest_copy(name: str, found: Novelty) -> Text:
    """One line about the longest run of words that the training text has, too."""
    return Text(
        f"longest run that {name} shares with the training text: {found.longest_words} words"
    ).append(f"\n  {printable(found.longest)}", "dim")
