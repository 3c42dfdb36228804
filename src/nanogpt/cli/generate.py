"""nanogpt generate: continue a prompt with a trained model."""

import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from nanogpt.checkpoint import load_run
from nanogpt.cli.settings import Parser, read_argument, settings_in
from nanogpt.cli.text import printable
from nanogpt.config import SampleConfig, from_dict
from nanogpt.device import resolve
from nanogpt.errors import UserError
from nanogpt.generate import generate_text


def main(arguments: Sequence[str]) -> None:
    """Print continuations of a prompt as they are made."""
    parser = Parser("generate", "Continue a prompt with a trained model.")
    parser.add_argument("run", type=Path, help="a run folder, such as runs/demo")
    parser.add_argument("--prompt", help="text to continue; - reads standard input")
    parser.add_argument("--num-samples", type=int, default=1, help="how many (default: 1)")
    parser.add_argument("--checkpoint", default="latest", choices=["latest", "best"])
    parser.add_settings(SampleConfig)
    options = parser.parse(arguments)
    if options.num_samples < 1:
        raise UserError(f"--num-samples {options.num_samples}: use at least 1")
    model, tokenizer, config = load_run(options.run, options.checkpoint)
    given = settings_in(options).get("sample", {})
    settings = from_dict(SampleConfig, {**asdict(config.sample), **given})
    if options.prompt is not None:
        settings = replace(settings, prompt=read_argument(options.prompt))
    model.to(resolve().device)
    show = printable if sys.stdout.isatty() else str  # a file gets the text as it is
    for n in range(options.num_samples):
        if n:
            print("\n" + "─" * 40)
        sample = replace(settings, seed=settings.seed + n)
        pieces = generate_text(model, tokenizer, sample)
        first = next(pieces, "")  # a prompt that cannot be encoded fails before anything is shown
        print(show(settings.prompt + first), end="", flush=True)
        for piece in pieces:
            print(show(piece), end="", flush=True)
        print()
