"""Tokenizer speed beside its peers: `make bench` runs this and writes docs/benchmarks.md.

Every figure is the median of several runs in this one process, on the built-in Shakespeare.
Machines differ and are noisy, so read the ratios.
"""

import os
import platform
import statistics
import time
from collections.abc import Callable
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one process each

import rustbpe
import tiktoken
import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from nanogpt.corpus import load_documents
from nanogpt.tokenizer import PATTERNS, Tokenizer

VOCAB_SIZE = 4096
TEXTS = [document.text for document in load_documents("shakespeare")]
MEGABYTES = sum(len(text.encode()) for text in TEXTS) / 1e6


def seconds(action: Callable[[], Any], runs: int = 5) -> float:
    """The median time of an action."""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def train_tokenizers() -> tokenizers.Tokenizer:
    """Hugging Face's trainer with GPT-2's settings."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def train_rustbpe() -> rustbpe.Tokenizer:
    """The trainer of nanochat."""
    tokenizer = rustbpe.Tokenizer()
    tokenizer.train_from_iterator(TEXTS, VOCAB_SIZE, pattern=PATTERNS["gpt2"])
    return tokenizer


def fresh(tokenizer: Tokenizer) -> Tokenizer:
    """The same tokenizer without the words it remembers."""
    return Tokenizer.from_dict(tokenizer.to_dict())


def measure() -> list[tuple[str, str, float, dict[str, float]]]:
    """Rows of (work, unit, ours, peers)."""
    ours = Tokenizer.train(TEXTS, VOCAB_SIZE, special_tokens=())
    theirs, rust = train_tokenizers(), train_rustbpe()
    ranks = {bytes(token): rank for token, rank in rust.get_mergeable_ranks()}
    tik = tiktoken.Encoding(
        "bench", pat_str=PATTERNS["gpt2"], mergeable_ranks=ranks, special_tokens={}
    )
    ids, tik_ids = ours.encode_batch(TEXTS), tik.encode_ordinary_batch(TEXTS, num_threads=1)

    def speed(action: Callable[[], Any], runs: int = 5) -> float:
        return MEGABYTES / seconds(action, runs)

    one = speed(lambda: fresh(ours).encode_batch(TEXTS))
    return [
        (
            f"train {VOCAB_SIZE:,} tokens",
            "s",
            seconds(lambda: Tokenizer.train(TEXTS, VOCAB_SIZE, special_tokens=()), 3),
            {"tokenizers": seconds(train_tokenizers, 3), "rustbpe": seconds(train_rustbpe, 3)},
        ),
        (
            "encode, nothing remembered",
            "MB/s",
            one,
            {
                "tokenizers": speed(lambda: theirs.encode_batch(TEXTS), 3),
                "tiktoken": speed(lambda: tik.encode_ordinary_batch(TEXTS, num_threads=1)),
            },
        ),
        (
            "encode four times the text, two processes",
            "MB/s",
            4 * speed(lambda: fresh(ours).encode_batch(TEXTS * 4, processes=2), 3),
            {"nanogpt, one": 4 * speed(lambda: fresh(ours).encode_batch(TEXTS * 4), 3)},
        ),
        (
            "decode",
            "MB/s",
            speed(lambda: [ours.decode(text) for text in ids]),
            {"tiktoken": speed(lambda: [tik.decode(text) for text in tik_ids])},
        ),
    ]


def table(rows: list[tuple[str, str, float, dict[str, float]]]) -> str:
    """The results as Markdown; a ratio above 1 means that nanogpt is faster."""
    lines = ["| work | nanogpt | peer | its figure | times as fast |", "|---|---|---|---|---|"]
    for work, unit, ours, peers in rows:
        for peer, figure in peers.items():
            ratio = figure / ours if unit == "s" else ours / figure
            lines.append(
                f"| {work} | {ours:.3g} {unit} | {peer} | {figure:.3g} {unit} | {ratio:.2f} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Measure, print, and write docs/benchmarks.md."""
    peers = ", ".join(f"{name} {version(name)}" for name in ("tokenizers", "tiktoken", "rustbpe"))
    page = f"""# Benchmarks

Written by `make bench`. Read the ratios: absolute figures belong to the machine and its mood.

## Tokenizer

The built-in Shakespeare, {MEGABYTES:.1f} MB in {len(TEXTS)} documents; medians of several
runs in one process; one thread each unless the row says otherwise. nanogpt's tokenizer is Python,
the peers are Rust.

{table(measure())}

{date.today()}, {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()},
{peers}.
"""
    path = Path(__file__).parent.parent / "docs" / "benchmarks.md"
    path.write_text(page)
    print(page)


if __name__ == "__main__":
    main()
