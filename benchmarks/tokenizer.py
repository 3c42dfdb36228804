"""Tokenizer speed beside its peers: `make bench` runs this and writes docs/benchmarks.md.

Every figure is the median of several runs in this one process, on the built-in Shakespeare.
Machines differ and are noisy, so read the ratios.
"""

import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Iterator
from datetime import date
from importlib.metadata import version
from itertools import cycle, product
from multiprocessing import get_context
from pathlib import Path
from string import ascii_lowercase
from typing import Any

os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one process each

import rustbpe
import tiktoken
import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from nanogpt.text.corpus import shakespeare
from nanogpt.text.splitter import PATTERNS
from nanogpt.text.tokenizer import Tokenizer

VOCAB_SIZE = 4096
STREAM_MEGABYTES = 1000
TEXTS = [document.text for document in shakespeare()]
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


def endless_stream(megabytes: int) -> Iterator[str]:
    """The plays again and again in pieces of 100 characters, each with a word never met before."""
    done, new_words = 0, map("".join, product(ascii_lowercase, repeat=6))
    for text in cycle(TEXTS):
        for start in range(0, len(text), 100):
            piece = f"{text[start : start + 100]} {next(new_words)}"
            yield piece
            done += len(piece)
            if done >= megabytes * 1e6:
                return


def peak_memory_of_a_stream(tokenizer: Tokenizer, megabytes: int) -> float:
    """MB by which the peak memory of a process grows while it encodes a stream."""
    # A fresh process: a forked one would count what this one has already taken.
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(grow, (tokenizer, megabytes))


def grow(tokenizer: Tokenizer, megabytes: int) -> float:
    """What the process measures of itself."""
    before = memory("VmRSS")
    for _ in tokenizer.encode_iterable(endless_stream(megabytes)):
        pass
    return memory("VmHWM") - before


def memory(kind: str) -> float:
    """MB of memory that this process has now (VmRSS) or had at most (VmHWM). Linux only.

    getrusage would not do: its maximum includes that of the process which started this one.
    """
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"{kind}:\s+(\d+) kB", status)[1]) / 1000


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
            "encode, two processes",
            "MB/s",
            speed(lambda: fresh(ours).encode_batch(TEXTS, processes=2)),
            {"nanogpt, one": one},
        ),
        (
            "encode eight times the text, two processes",
            "MB/s",
            8 * speed(lambda: fresh(ours).encode_batch(TEXTS * 8, processes=2), 3),
            {"nanogpt, one": 8 * speed(lambda: fresh(ours).encode_batch(TEXTS * 8), 3)},
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
    memory = peak_memory_of_a_stream(Tokenizer.train(TEXTS, VOCAB_SIZE), STREAM_MEGABYTES)
    peers = ", ".join(f"{name} {version(name)}" for name in ("tokenizers", "tiktoken", "rustbpe"))
    page = f"""# Benchmarks

Written by `make bench`. Read the ratios: absolute figures belong to the machine and its mood.

## Tokenizer

The built-in Shakespeare, {MEGABYTES:.1f} MB in {len(TEXTS)} documents; medians of several
runs in one process; one thread each unless the row says otherwise. nanogpt's tokenizer is Python,
the peers are Rust.

{table(measure())}

Encoding a stream of {STREAM_MEGABYTES:,} MB, which never stops bringing words that were not met
before, took at most {memory:.0f} MB more than the process had at its start.

{date.today()}, {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()},
{peers}.
"""
    path = Path(__file__).parent.parent / "docs" / "benchmarks.md"
    _, heading, training = path.read_text().partition("## Training")
    path.write_text(page + ("\n" + heading + training) * bool(training))
    print(page)


if __name__ == "__main__":
    main()
