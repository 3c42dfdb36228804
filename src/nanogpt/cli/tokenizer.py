"""nanogpt tokenizer: train a tokenizer; encode, decode and explain text with it."""

import sys
from collections.abc import Sequence
from pathlib import Path

from nanogpt.cli.settings import Parser, read_argument
from nanogpt.cli.text import visible
from nanogpt.corpus import BUILT_IN, load_documents
from nanogpt.errors import UserError, did_you_mean
from nanogpt.tokenizer import Tokenizer, load_tokenizer, train_tokenizer


def main(arguments: Sequence[str]) -> None:
    """Dispatch to one of the actions."""
    actions = {"train": train, "encode": encode, "decode": decode, "explain": explain}
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"usage: nanogpt tokenizer {' | '.join(actions)}\n\n{__doc__.strip()}")
        for name, action in actions.items():
            print(f"  {name:<8}{(action.__doc__ or '').partition('.')[0]}")
        return
    if arguments[0] not in actions:
        raise UserError(f"{arguments[0]!r} is no action: {did_you_mean(arguments[0], actions)}")
    actions[arguments[0]](arguments[1:])


def train(arguments: Sequence[str]) -> None:
    """Learn a vocabulary from text and save it as one JSON file."""
    parser = Parser("tokenizer train", "Learn a vocabulary from text.")
    parser.add_argument("source", nargs="?", default=BUILT_IN, help="text (default: the plays)")
    parser.add_argument("--kind", default="bpe", choices=["bpe", "char"], help="default: bpe")
    parser.add_argument("--vocab-size", type=int, default=1024, help="default: 1024")
    parser.add_argument("--out", type=Path, default=Path("tokenizer.json"), help="file to write")
    options = parser.parse(arguments)
    documents = load_documents(options.source)
    tokenizer = train_tokenizer(options.kind, (d.text for d in documents), options.vocab_size)
    tokenizer.save(options.out)
    print(f"{options.out}: {tokenizer.vocab_size:,} tokens")


def encode(arguments: Sequence[str]) -> None:
    """Print the ids of a text."""
    parser = Parser("tokenizer encode", "Print the ids of a text.")
    parser.add_argument("tokenizer", type=Path, help="a tokenizer.json")
    parser.add_argument("text", help="the text; - reads standard input")
    options = parser.parse(arguments)
    print(*load_tokenizer(options.tokenizer).encode(read_argument(options.text)))


def decode(arguments: Sequence[str]) -> None:
    """Print the text of ids, byte for byte."""
    parser = Parser("tokenizer decode", "Print the text of ids.")
    parser.add_argument("tokenizer", type=Path, help="a tokenizer.json")
    parser.add_argument("ids", nargs="*", help="the ids; none or - reads standard input")
    options = parser.parse(arguments)
    words = " ".join(map(read_argument, options.ids or ["-"])).split()
    for word in words:
        if not word.isdecimal() or len(word) > 18:
            raise UserError(f"{word!r} is not an id; use whole numbers")
    text = load_tokenizer(options.tokenizer).decode_bytes(int(word) for word in words)
    sys.stdout.buffer.write(text + b"\n")


def explain(arguments: Sequence[str]) -> None:
    """Show merge by merge how text is cut into tokens."""
    parser = Parser("tokenizer explain", "Show merge by merge how text is cut into tokens.")
    parser.add_argument("tokenizer", type=Path, help="a tokenizer.json of a BPE tokenizer")
    parser.add_argument("text", help="the text; - reads standard input")
    options = parser.parse(arguments)
    tokenizer = load_tokenizer(options.tokenizer)
    if not isinstance(tokenizer, Tokenizer):
        raise UserError(f"{options.tokenizer} has one id per character; nothing is merged")
    for word in tokenizer.explain(read_argument(options.text)):
        for step, pieces in enumerate(word):
            print(f"{step:>4}  {' '.join(map(visible, pieces))}")
        print(f"      {sum(map(len, word[-1]))} bytes, {len(word[-1])} tokens\n")
