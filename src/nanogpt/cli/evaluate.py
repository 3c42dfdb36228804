"""nanogpt evaluate: measure a trained model on its held-out text, or on any other."""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from nanogpt.cli import questions
from nanogpt.cli.screen import Screen
from nanogpt.cli.settings import Parser, named, print_json
from nanogpt.cli.text import printable, visible
from nanogpt.cli.weights import add_model_options, load_model
from nanogpt.config import Config, DataConfig
from nanogpt.errors import UserError
from nanogpt.evaluation.novelty import LENGTHS, Known, Novelty
from nanogpt.evaluation.references import reference_points, text_of
from nanogpt.memory import refuse_beyond
from nanogpt.text.dataset import data_folder
from nanogpt.text.sources import holds_conversations, whole_texts
from nanogpt.text.tokenfiles import TokenFile, open_split, write_token_file
from nanogpt.text.tokenizer import BaseTokenizer
from nanogpt.text.worlds import find_world

if TYPE_CHECKING:
    from nanogpt.device import Compute
    from nanogpt.evaluation.documents import DocumentScore, Losses
    from nanogpt.evaluation.loss import Score
    from nanogpt.model.gpt import GPT

SHOWN_TOKENS = 400  # with --tokens
SHOWN_DOCUMENTS = 10  # the hardest and the easiest, this many of each
SAMPLES = 20  # with --novelty

# From light to dark: how many bits a token cost, up to each of these.
BITS = {1: "green", 3: "cyan", 6: "yellow", 10: "red", float("inf"): "bold magenta"}

FLOOR = "the floor: the entropy of this toy world"


@dataclass
class Findings:
    """What was measured; None where it was not asked for."""

    protocol: dict[str, Any]  # how it was measured
    tokens: TokenFile
    losses: "Losses"  # nats of every token but the first
    score: "Score"
    documents: "list[DocumentScore] | None" = None
    references: dict[str, float] | None = None  # bits per byte, by name
    novelty: dict[str, Novelty] | None = None  # the model's, and that of human text


def main(arguments: Sequence[str]) -> None:
    """Print loss, perplexity and bits per byte, how they were measured, and what was asked for."""
    parser = Parser("evaluate", "Measure a trained model: loss, perplexity, bits per byte.")
    add_model_options(parser)
    parser.add_argument(
        "text", nargs="?", type=named, help="a text to measure (default: the held-out text)"
    )
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
    questions.add_options(parser)
    parser.add_json(
        "loss_nats_per_token, perplexity_per_token, bits_per_byte, tokens, bytes_per_token, "
        "protocol; with the options above also documents, token_losses_nats, "
        "references_bits_per_byte, novelty (new_runs: shares of runs of n words); with --questions "
        "accuracy, interval_95, right, questions, too_long (for the context), reward, mean_reward, "
        "protocol, answers"
    )
    options = parser.parse(arguments)
    if options.batch_size < 1:
        raise UserError(f"--batch-size {options.batch_size}: use at least 1")
    if options.stride < 0:
        raise UserError(f"--stride {options.stride}: use at least 1")
    questions.check(options)
    model, tokenizer, config = load_model(options)
    if options.questions:
        questions.answer(options, model, tokenizer)
        return
    from nanogpt.device import resolve

    # Packed and int8 layers have a precision of their own.
    compute = resolve(str(model.device), "auto" if options.weights == "plain" else "float32")
    with tempfile.TemporaryDirectory() as folder:
        tokens = open_text(options, tokenizer, config, Path(folder))
        found = measure(model, tokens, compute, options, tokenizer, config)
        if options.json:
            print_json(figures(found, options.tokens))
        else:
            show(found, options.tokens, tokenizer, Screen(soft_wrap=True, highlight=False))


def measure(
    model: "GPT",
    tokens: TokenFile,
    compute: "Compute",
    options: argparse.Namespace,
    tokenizer: BaseTokenizer,
    config: Config,
) -> Findings:
    """The losses, and what else was asked for. Progress goes to stderr."""
    from nanogpt.evaluation.documents import (
        document_scores,
        separator_of,
        text_losses,
        text_score,
    )
    from nanogpt.evaluation.loss import default_stride
    from nanogpt.training.plan import available_bytes

    progress = Screen(stderr=True)
    length = model.config.context_length
    protocol = {
        "context_length_tokens": length,
        "stride_tokens": options.stride or default_stride(length),
        "weights": options.weights,
        "precision": "bfloat16" if options.weights == "bfloat16" else compute.precision,
    }
    separator = separator_of(config.data.batches, tokenizer)
    rows = min(options.batch_size, 1 + len(tokens.ids) // protocol["stride_tokens"])
    logits = 4 * rows * length * model.config.vocab_size
    refuse_beyond(available_bytes(model.device), {"--batch-size": logits})
    with progress.status("evaluating ..."):
        losses = text_losses(model, tokens, compute, options.batch_size, options.stride, separator)
    found = Findings(protocol, tokens, losses, text_score(losses, tokens))
    if options.documents:
        found.documents = list(document_scores(tokens, losses, tokenizer))
    if options.references:
        train = train_split(options, tokenizer, config)
        with progress.status("asking simpler predictors ..."):
            found.references = reference_points(train, tokens, tokenizer)
        world = None if options.text else find_world(config.data.source)
        found.references["this model"] = found.score.bits_per_byte
        if world:
            found.references[FLOOR] = world.floor()
    if options.novelty:
        train = train_split(options, tokenizer, config)
        other = Path(options.text).name if options.text else "the held-out text"
        with progress.status(f"writing {SAMPLES} samples, and looking for them in the text ..."):
            found.novelty = novelty(model, tokenizer, config, train, tokens, other)
    return found


def open_text(
    options: argparse.Namespace, tokenizer: BaseTokenizer, config: Config, folder: Path
) -> TokenFile:
    """The text that was named, or the held-out text of the run."""
    if options.text is not None:
        source = DataConfig(source=options.text)
        if holds_conversations(source):
            raise UserError(
                f"{options.text} holds conversations, and no plain text: ask them with --questions"
            )
        texts = iter(whole_texts(source))
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
        raise UserError(
            f"{options.run} is no run: what it was trained on is not known here; name a run"
        )
    return open_split(data_folder(options.run, config), "train", tokenizer)


def novelty(
    model: "GPT",
    tokenizer: BaseTokenizer,
    config: Config,
    train: TokenFile,
    val: TokenFile,
    other: str,
) -> dict[str, Novelty]:
    """How much of what the model writes is in the training text, beside a human text.

    The samples start a document, with the settings of the run; as much human text is compared.
    """
    from nanogpt.evaluation.documents import excerpts
    from nanogpt.generation.reader import Reader
    from nanogpt.generation.stream import prompt_ids, stream

    reader = Reader(model, [prompt_ids(tokenizer, "")] * SAMPLES)
    written = [""] * SAMPLES
    for piece in stream(reader, tokenizer, replace(config.sample, prompt="")):
        written[piece.row] += piece.text
    known = Known(text_of(train, tokenizer, b"\n").decode("utf-8", "replace"))
    human = text_of(val, tokenizer, b"\n").decode("utf-8", "replace")
    length = sum(map(len, written))
    return {
        "the model": known.novelty(written),
        other: known.novelty(excerpts(human, length, SAMPLES)),
    }


def figures(found: Findings, with_tokens: bool) -> dict[str, Any]:
    """The findings as --json prints them."""
    score = found.score
    values: dict[str, Any] = {
        "loss_nats_per_token": score.loss,
        "perplexity_per_token": score.perplexity,
        "bits_per_byte": score.bits_per_byte,
        "tokens": score.tokens,
        "bytes_per_token": score.bytes_per_token,
        "protocol": found.protocol,
    }
    if found.documents is not None:
        values["documents"] = [
            {"number": d.number, "start_token": d.start, "tokens": d.tokens}
            | {"loss_nats_per_token": d.loss, "bits_per_byte": d.bits_per_byte}
            for d in found.documents
        ]
    if with_tokens:
        values["token_losses_nats"] = found.losses.tolist()
    if found.references is not None:
        values["references_bits_per_byte"] = found.references
    if found.novelty is not None:
        values["novelty"] = {
            name: {"words": part.words, "new_runs": part.novel}
            | {"longest_copied_words": part.longest_words, "longest_copied": part.longest}
            for name, part in found.novelty.items()
        }
    return values


def show(found: Findings, with_tokens: bool, tokenizer: BaseTokenizer, console: Console) -> None:
    """Print the findings for a person."""
    show_score(found.score, found.protocol, console)
    if found.documents is not None:
        show_documents(found.documents, found.tokens, tokenizer, console)
    if with_tokens:
        show_tokens(found.tokens, found.losses, tokenizer, console)
    if found.references is not None:
        show_references(found.references, console)
    if found.novelty is not None:
        show_novelty(found.novelty, console)


def show_score(score: "Score", protocol: dict[str, Any], console: Console) -> None:
    """The three figures, and how they were measured."""
    console.print(
        f"loss           {score.loss:.4f} nats per token\n"
        f"perplexity     {score.perplexity:.2f} per token\n"
        f"bits per byte  {score.bits_per_byte:.4f}\n"
        f"[dim]{score.tokens:,} tokens of {score.bytes_per_token:.2f} bytes, each predicted once,\n"
        f"in windows of {protocol['context_length_tokens']} tokens every "
        f"{protocol['stride_tokens']}, {protocol['weights']} weights, "
        f"{protocol['precision']} arithmetic[/]"
    )


def show_documents(
    scores: Sequence["DocumentScore"], tokens: TokenFile, tokenizer: BaseTokenizer, console: Console
) -> None:
    """The hardest documents and the easiest."""
    scores = sorted(scores, key=lambda s: -s.bits_per_byte)
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
    tokens: TokenFile, losses: "Losses", tokenizer: BaseTokenizer, console: Console
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


def show_references(references: dict[str, float], console: Console) -> None:
    """What simpler predictors reach on the same text."""
    table = Table("bits per byte of this text", "", box=None, header_style="bold")
    for name, bits in references.items():
        table.add_row(name, f"{bits:.4f}", style="bold" if name == "this model" else "")
    console.print()
    console.print(table)


def show_novelty(found: dict[str, Novelty], console: Console) -> None:
    """How much of what the model writes is in the training text, beside the other text."""
    table = Table("runs of words that are new", *(f"{name}'s" for name in found), box=None)
    for n in LENGTHS:
        row = [f"{part.novel[n]:.1%}" if n in part.novel else "" for part in found.values()]
        table.add_row(f"{n} words" if n > 1 else "1 word", *row)
    console.print()
    console.print(table)
    for name, part in found.items():
        console.print(longest_copy(name, part))


def longest_copy(name: str, found: Novelty) -> Text:
    """One line about the longest run of words that is in the training text, too."""
    return Text(
        f"longest run that {name} shares with the training text: {found.longest_words} words"
    ).append(f"\n  {printable(found.longest)}", "dim")
