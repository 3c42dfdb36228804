"""nanogpt generate: continue a prompt with a trained model."""

import argparse
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from nanogpt.cli.screen import Screen
from nanogpt.cli.settings import Parser, read_argument, settings_in
from nanogpt.cli.text import printable, visible
from nanogpt.cli.weights import add_model_options, load_model
from nanogpt.config import Config, SampleConfig, from_dict
from nanogpt.errors import UserError
from nanogpt.memory import free_memory, refuse_beyond
from nanogpt.text.tokenizer import BaseTokenizer

if TYPE_CHECKING:
    from nanogpt.generation.stream import Piece
    from nanogpt.model.gpt import GPT

RUNNERS_UP = 3


def main(arguments: Sequence[str]) -> None:
    """Print continuations of a prompt."""
    parser = Parser("generate", "Continue a prompt with a trained model.")
    add_model_options(parser)
    parser.add_argument("--prompt", help="text to continue; - reads standard input")
    parser.add_argument("--num-samples", type=int, default=1, help="how many (default: 1)")
    parser.add_argument(
        "--stop", action="append", default=[], metavar="TEXT",
        help="end a sample before this text; may be given several times",
    )  # fmt: skip
    parser.add_argument(
        "--stream", action=argparse.BooleanOptionalAction, default=sys.stdout.isatty(),
        help="show text as it is made; in a terminal that is the default",
    )  # fmt: skip
    parser.add_argument(
        "--explain", action="store_true", help="show each token, its probability, the runners-up"
    )
    parser.add_argument(
        "--chat", action=argparse.BooleanOptionalAction, default=None,
        help="the prompt is a user's message, to be answered; the default for a run that has "
        "learned to answer",
    )  # fmt: skip
    parser.add_settings(SampleConfig)
    options = parser.parse(arguments)
    if options.num_samples < 1:
        raise UserError(f"--num-samples {options.num_samples}: use at least 1")
    refuse_beyond(free_memory(), {"--num-samples": 1000 * options.num_samples})  # of mere lists
    sample_settings(Config(), options)
    model, tokenizer, config = load_model(options)
    from nanogpt.generation.ahead import reader_for
    from nanogpt.generation.stream import is_chat, prompt_ids, stream

    settings = sample_settings(config, options)
    if options.prompt is not None:
        settings = replace(settings, prompt=read_argument(options.prompt))
    chats = is_chat(replace(config, sample=settings), tokenizer)
    if options.chat is not None:
        chats = options.chat
    if chats and not settings.prompt:
        raise UserError("--chat answers a message: add it with --prompt")
    prompt = prompt_ids(tokenizer, settings.prompt, chats)
    refuse_rows(model, options.num_samples, len(prompt) + settings.max_new_tokens)
    reader = reader_for(model, [prompt] * options.num_samples, settings)
    top = min(RUNNERS_UP, len(tokenizer.vocabulary)) if options.explain else 0
    pieces = stream(reader, tokenizer, settings, options.stop, top)
    samples = row_by_row(pieces, options.num_samples)
    shown = settings.prompt + "\n" * chats
    for number, sample in enumerate(samples):
        if number:
            print("\n" + "─" * 40)
        seen: list[Piece] = []
        show(shown, kept(sample, seen), options.stream)
        if options.explain:
            explain(seen, tokenizer)


def refuse_rows(model: "GPT", rows: int, tokens: int) -> None:
    """Raise UserError if there is no memory for so many samples of so many tokens."""
    from nanogpt.training.plan import available_bytes, cache_bytes

    config = model.config
    share = min(1.0, tokens / config.context_length)  # of the cache; the rest is never touched
    cache = share * model.dtype.itemsize / 4 * cache_bytes(config, rows)
    needs = {"--num-samples": cache + 4 * rows * config.vocab_size}
    refuse_beyond(available_bytes(model.device), needs)


def sample_settings(config: Config, options: argparse.Namespace) -> SampleConfig:
    """The settings of the run, changed by those on the command line."""
    given = settings_in(options).get("sample", {})
    return from_dict(SampleConfig, {**asdict(config.sample), **given})


def row_by_row(pieces: Iterator["Piece"], rows: int) -> Iterator[Iterator["Piece"]]:
    """Rows are written at the same time and shown one after the other, the first as it is made."""
    waiting: list[list[Piece]] = [[] for _ in range(rows)]

    def row_pieces(row: int) -> Iterator["Piece"]:
        while True:
            while waiting[row]:
                piece = waiting[row].pop(0)
                yield piece
                if piece.last:
                    return
            following = next(pieces, None)
            if following is None:
                return
            waiting[following.row].append(following)

    return (row_pieces(row) for row in range(rows))


def kept(sample: Iterable["Piece"], seen: list["Piece"]) -> Iterator["Piece"]:
    """The pieces of a sample, which are kept in a list as they come."""
    for piece in sample:
        seen.append(piece)
        yield piece


def show(prompt: str, sample: Iterable["Piece"], at_once: bool) -> None:
    """Print a sample, as it is made or when it is whole."""
    clean = printable if sys.stdout.isatty() else str  # a file gets the text as it is
    if at_once:
        print(clean(prompt), end="", flush=True)
        for piece in sample:
            print(clean(piece.text), end="", flush=True)
        print()
    else:
        print(clean(prompt + "".join(piece.text for piece in sample)))


def explain(sample: Sequence["Piece"], tokenizer: BaseTokenizer) -> None:
    """A table of the tokens that were chosen, how likely each was, and what else was likely."""
    table = Table("token", "probability", "", "likeliest", box=None, header_style="bold")
    for piece in sample:
        probability = math.exp(piece.log_probability)
        others = [
            f"{visible(tokenizer.decode_bytes([token]))} {math.exp(log_probability):.1%}"
            for token, log_probability in piece.likeliest
        ]
        table.add_row(
            Text(visible(tokenizer.decode_bytes([piece.token]))),
            Text(f"{probability:.1%}", justify="right"),
            Text("█" * round(10 * probability), "cyan"),
            Text("   ".join(others)),
        )
    console = Screen()
    console.print(table)
    console.print("[dim]the model's own probabilities, before temperature and filters[/]")
