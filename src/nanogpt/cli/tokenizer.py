"""nanogpt tokenizer: train a tokenizer, and look at what tokenizers do with text."""

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from nanogpt.cli.prepare import tokens_made
from nanogpt.cli.screen import Screen
from nanogpt.cli.settings import Parser, file_to_write, named, read_argument, run_action
from nanogpt.cli.text import printable, visible
from nanogpt.config import DataConfig
from nanogpt.errors import UserError
from nanogpt.text.corpus import BUILT_IN
from nanogpt.text.formats import find_tokenizer, gpt2_tokenizer, train_tokenizer
from nanogpt.text.prepare import pieces
from nanogpt.text.sources import rule_for, stream_documents
from nanogpt.text.statistics import cutting, examples, growth, plot_growth, words_of
from nanogpt.text.tokenizer import BaseTokenizer, Tokenizer, to_bytes
from nanogpt.workers import number_of_processes, usable_cores

DEMO = Path("runs/demo/tokenizer.json")


def main(arguments: Sequence[str]) -> None:
    """Dispatch to one of the actions."""
    actions = {
        "train": train,
        "encode": encode,
        "decode": decode,
        "explain": explain,
        "compare": compare,
        "stats": stats,
    }
    run_action("tokenizer", __doc__ or "", actions, arguments)


def add_tokenizer(
    parser: Parser, default: str | None = "gpt2", help: str = "default: gpt2"
) -> None:
    """The option for choosing a tokenizer, the same for all actions."""
    parser.add_argument(
        "--tokenizer", type=named, default=default, help=f"gpt2, or a file or folder ({help})"
    )


def train(arguments: Sequence[str]) -> None:
    """Learn a vocabulary from text and save it as one JSON file."""
    parser = Parser("tokenizer train", "Learn a vocabulary from text.")
    parser.add_argument(
        "source", nargs="?", type=named, default=BUILT_IN, help="text (default: the plays)"
    )
    parser.add_argument("--kind", default="bpe", choices=["bpe", "char"], help="default: bpe")
    parser.add_argument("--vocab-size", type=int, default=1024, help="default: 1024")
    parser.add_argument("--processes", type=int, help="default: one for each core")
    parser.add_argument(
        "--out", type=file_to_write, default=Path("tokenizer.json"), help="file to write"
    )
    options = parser.parse(arguments)
    processes = number_of_processes("--processes", options.processes)
    data = DataConfig(source=options.source, vocab_size=options.vocab_size)
    rule_for(data)  # raises UserError if there is nothing to read
    texts = (text for d in stream_documents(data) for text in d.texts)
    with Screen(stderr=True).status("learning a vocabulary ..."):
        tokenizer = train_tokenizer(options.kind, texts, options.vocab_size, processes)
    tokenizer.save(options.out)
    asked = options.vocab_size if options.kind == "bpe" else 0
    print(f"{printable(str(options.out))}: {tokens_made(tokenizer.vocab_size, asked)}")


def encode(arguments: Sequence[str]) -> None:
    """Print the ids of a text."""
    parser = Parser("tokenizer encode", "Print the ids of a text.")
    parser.add_argument("text", help="the text; - reads standard input")
    add_tokenizer(parser)
    options = parser.parse(arguments)
    print(*find_tokenizer(options.tokenizer).encode(read_argument(options.text)))


def decode(arguments: Sequence[str]) -> None:
    """Print the text of ids, byte for byte."""
    parser = Parser("tokenizer decode", "Print the text of ids.")
    parser.add_argument("ids", nargs="*", help="the ids; none or - reads standard input")
    add_tokenizer(parser)
    options = parser.parse(arguments)
    words = " ".join(map(read_argument, options.ids or ["-"])).split()
    for word in words:
        if not word.isdecimal() or len(word) > 18:
            raise UserError(f"{word!r} is not an id; use whole numbers")
    text = find_tokenizer(options.tokenizer).decode_bytes(int(word) for word in words)
    sys.stdout.buffer.write(text + b"\n")


def explain(arguments: Sequence[str]) -> None:
    """Show merge by merge how text is cut into tokens."""
    parser = Parser("tokenizer explain", "Show merge by merge how text is cut into tokens.")
    parser.add_argument("text", help="the text; - reads standard input")
    add_tokenizer(parser)
    options = parser.parse(arguments)
    tokenizer = byte_pairs(find_tokenizer(options.tokenizer), options.tokenizer)
    for word in tokenizer.explain(read_argument(options.text)):
        for step, parts in enumerate(word):
            print(f"{step:>4}  {' '.join(map(visible, parts))}")
        print(f"      {sum(map(len, word[-1]))} bytes, {len(word[-1])} tokens\n")


def byte_pairs(tokenizer: BaseTokenizer, name: str) -> Tokenizer:
    """The tokenizer itself. Raises UserError if it does not work by merging."""
    if not isinstance(tokenizer, Tokenizer):
        raise UserError(
            f"{name} has one id per character, so nothing is merged; name another tokenizer"
        )
    return tokenizer


def compare(arguments: Sequence[str]) -> None:
    """Show one text cut by characters, by bytes, by your tokenizer and by GPT-2's."""
    parser = Parser("tokenizer compare", "Show one text cut in four ways.")
    parser.add_argument("text", help="the text; - reads standard input")
    add_tokenizer(parser, None, f"default: {DEMO}, or else one learned from the plays now")
    options = parser.parse(arguments)
    text = read_argument(options.text)
    if not text:
        raise UserError("the text is empty; give some words to cut")
    yours = find_tokenizer(options.tokenizer) if options.tokenizer else learned_from_plays()
    raw = to_bytes(text)
    show_cuts(
        {
            "characters": [to_bytes(character) for character in text],
            "bytes": [bytes([byte]) for byte in raw],
            f"{options.tokenizer or 'the plays'}, {yours.vocab_size:,} tokens": [
                yours.decode_bytes([i]) for i in yours.encode(text)
            ],
            "GPT-2, 50,257 tokens": [
                gpt2.decode_bytes([i]) for gpt2 in [gpt2_tokenizer()] for i in gpt2.encode(text)
            ],
        },
        Screen(),
    )


def learned_from_plays() -> BaseTokenizer:
    """The demo's tokenizer: as its run left it, or learned now, which takes a second."""
    if DEMO.exists():
        return find_tokenizer(str(DEMO))
    data = DataConfig()
    texts = (d.text for side, d in pieces(data, rule_for(data)) if side == "train")
    return train_tokenizer(data.tokenizer, texts, data.vocab_size)


def show_cuts(cuts: dict[str, list[bytes]], console: Console) -> None:
    """One line of tokens for each way to cut, and how much text a token carries."""
    for title, parts in cuts.items():
        n_bytes, plural = sum(map(len, parts)), "s" if len(parts) > 1 else ""
        console.print(
            f"[bold]{escape(title)}[/]  {len(parts)} token{plural}, "
            f"{n_bytes / len(parts):.2f} bytes per token",
            highlight=False,
            soft_wrap=True,
        )
        console.print(coloured(parts, console), soft_wrap=False)
        console.print()


def coloured(parts: list[bytes], console: Console) -> Text:
    """Tokens side by side: in two colours, or where there is no colour with bars between them."""
    line = Text(no_wrap=False, overflow="fold")
    for n, part in enumerate(parts):
        if console.is_terminal:
            line.append(visible(part), style="black on cyan" if n % 2 else "black on green")
        else:
            line.append(("|" if n else "") + visible(part))
    return line


def stats(arguments: Sequence[str]) -> None:
    """Say how a tokenizer cuts a corpus, and plot vocabulary size against compression."""
    parser = Parser("tokenizer stats", "Say how a tokenizer cuts a corpus.")
    parser.add_argument(
        "source", nargs="?", type=named, default=BUILT_IN, help="text (default: the plays)"
    )
    add_tokenizer(parser, None, "default: one learned from the corpus")
    parser.add_argument("--vocab-size", type=int, default=8192, help="to learn (default: 8192)")
    parser.add_argument(
        "--out", type=file_to_write, default=Path("tokenizer-stats.png"), help="the plot"
    )
    options = parser.parse(arguments)
    data = DataConfig(source=options.source, vocab_size=options.vocab_size)
    processes = usable_cores()
    console = Screen()
    with console.status("counting words ..."):
        if options.tokenizer:
            found = find_tokenizer(options.tokenizer)
        else:
            texts = (d.text for side, d in pieces(data, rule_for(data)) if side == "train")
            found = Tokenizer.train(texts, options.vocab_size, processes=processes)
        tokenizer = byte_pairs(found, str(options.tokenizer))
        words = words_of(data, tokenizer.pattern, processes)
        sizes = growth(tokenizer, words)
    table = Table("", "training text", "held-out text", box=None, header_style="dim")
    train_cut, val_cut = (cutting(tokenizer, words[side]) for side in ("train", "val"))
    rows = {
        "bytes": lambda c: f"{c.bytes:,}",
        "tokens": lambda c: f"{c.tokens:,}",
        "bytes per token": lambda c: f"{c.bytes_per_token:.3f}",
        "tokens per word": lambda c: f"{c.tokens_per_word:.3f}",
        "words that are one token": lambda c: f"{c.whole_words / max(1, c.words):.1%}",
    }
    for title, show in rows.items():
        table.add_row(title, show(train_cut), show(val_cut))
    console.print(f"[bold]{tokenizer.vocab_size:,} tokens[/]", highlight=False)
    console.print(table)
    for title, some in examples(words["train"]).items():
        console.print(f"\n[bold]{title} words[/]", highlight=False)
        for word, count in some:
            parts = [tokenizer.vocabulary[i] for i in tokenizer.encode_word(word)]
            console.print(f"{count:>8,}  ", coloured(parts, console), highlight=False, sep="")
    console.print("\n[bold]if training had stopped at[/]", highlight=False)
    for size, values in sizes.items():
        bar = "█" * round(10 * values["val"])
        console.print(
            f"{size:>8,} tokens  {values['val']:.2f} bytes per token  {bar}", highlight=False
        )
    plot_growth(sizes, options.out)
    console.print(f"\n{options.out}", highlight=False, markup=False, soft_wrap=True)
