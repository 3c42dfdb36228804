"""nanogpt evaluate: measure a trained model on its held-out text, or on any other."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from nanogpt.checkpoint import load_run
from nanogpt.cli.settings import Parser
from nanogpt.config import DataConfig
from nanogpt.data import DOCUMENTS_APART
from nanogpt.device import resolve
from nanogpt.evaluate import default_stride, evaluate
from nanogpt.prepare.sources import whole_texts
from nanogpt.tokenfiles import end_of_text, open_split, write_token_file
from nanogpt.train import data_folder


def main(arguments: Sequence[str]) -> None:
    """Print loss, perplexity and bits per byte, and how they were measured."""
    parser = Parser("evaluate", "Measure a trained model: loss, perplexity, bits per byte.")
    parser.add_argument("run", type=Path, help="a run folder, such as runs/demo")
    parser.add_argument("text", nargs="?", help="a text to measure (default: the held-out text)")
    parser.add_argument("--stride", type=int, default=0, help="default: half the context length")
    parser.add_argument("--checkpoint", default="latest", choices=["latest", "best"])
    options = parser.parse(arguments)
    model, tokenizer, config = load_run(options.run, options.checkpoint)
    compute = resolve()
    model.to(compute.device)
    console = Console()
    with tempfile.TemporaryDirectory() as folder, console.status("evaluating ..."):
        if options.text:
            texts = whole_texts(DataConfig(source=options.text))
            tokens = write_token_file(Path(folder) / "text.bin", texts, tokenizer)
        else:
            tokens = open_split(data_folder(options.run, config), "val", tokenizer)
        apart = config.data.batches in DOCUMENTS_APART
        separator = end_of_text(tokenizer) if apart else None
        score = evaluate(model, tokens, compute, stride=options.stride, separator=separator)
    length = model.config.context_length
    stride = options.stride or default_stride(length)
    console.print(
        f"loss           {score.loss:.4f} nats per token\n"
        f"perplexity     {score.perplexity:.2f} per token\n"
        f"bits per byte  {score.bits_per_byte:.4f}\n"
        f"[dim]{score.tokens:,} tokens of {score.bytes_per_token:.2f} bytes, each predicted once,\n"
        f"in windows of {length} tokens every {stride}, {compute.precision}[/]",
        highlight=False,
    )
