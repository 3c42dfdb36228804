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
STREAM_MEGABYTES = 200  # every 50 of them fill the memory for words once
ROUNDS = 5
TEXTS = [document.text for document in shakespeare()]
MEGABYTES = sum(len(text.encode()) for text in TEXTS) / 1e6


def in_turns(*actions: Callable[[], Any]) -> list[float]:
    """The median seconds of each action, done in turns, so that a slow moment slows all of them."""
    times: list[list[float]] = [[] for _ in actions]
    for _ in range(ROUNDS):
        for action, found in zip(actions, times, strict=True):
            start = time.perf_counter()
            action()
            found.append(time.perf_counter() - start)
    return [statistics.median(found) for found in times]


def speeds(*actions: Callable[[], Any]) -> list[float]:
    """The median MB/s of each action on the texts, done in turns."""
    return [MEGABYTES / seconds for seconds in in_turns(*actions)]


def train_ours() -> Tokenizer:
    """Ours, without special tokens."""
    return Tokenizer.train(TEXTS, VOCAB_SIZE, special_tokens=())


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
    # Before anything else is in memory, which Python's garbage collector would look through, too.
    training = in_turns(train_ours, train_tokenizers, train_rustbpe)
    ours, theirs, rust = train_ours(), train_tokenizers(), train_rustbpe()
    ranks = {bytes(token): rank for token, rank in rust.get_mergeable_ranks()}
    tik = tiktoken.Encoding(
        "bench", pat_str=PATTERNS["gpt2"], mergeable_ranks=ranks, special_tokens={}
    )
    ids, tik_ids = ours.encode_batch(TEXTS), tik.encode_ordinary_batch(TEXTS, num_threads=1)

    def encode(copies: int, processes: int) -> Callable[[], Any]:
        return lambda: fresh(ours).encode_batch(TEXTS * copies, processes=processes)

    one, hugging_face, tiktokens, two = speeds(
        encode(1, 1),
        lambda: theirs.encode_batch(TEXTS),
        lambda: tik.encode_ordinary_batch(TEXTS, num_threads=1),
        encode(1, 2),
    )
    one_of_eight, two_of_eight = (8 * speed for speed in speeds(encode(8, 1), encode(8, 2)))
    decoding = speeds(
        lambda: [ours.decode(text) for text in ids],
        lambda: [tik.decode(text) for text in tik_ids],
    )
    eight = "encode eight times the text, two processes"
    return [
        (f"train {VOCAB_SIZE:,} tokens", "s", training[0],
            {"tokenizers": training[1], "rustbpe": training[2]}),
        ("encode, nothing remembered", "MB/s", one,
            {"tokenizers": hugging_face, "tiktoken": tiktokens}),
        ("encode, two processes", "MB/s", two, {"nanogpt, one": one}),
        (eight, "MB/s", two_of_eight, {"nanogpt, one": one_of_eight}),
        ("decode", "MB/s", decoding[0], {"tiktoken": decoding[1]}),
    ]  # fmt: skip


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
    rows = table(measure())
    memory = peak_memory_of_a_stream(Tokenizer.train(TEXTS, VOCAB_SIZE), STREAM_MEGABYTES)
    peers = ", ".join(f"{name} {version(name)}" for name in ("tokenizers", "tiktoken", "rustbpe"))
    page = f"""# Benchmarks

Written by `make bench`. Read the ratios: absolute figures belong to the machine and its mood.

## Tokenizer

The built-in Shakespeare, {MEGABYTES:.1f} MB in {len(TEXTS)} documents; medians of {ROUNDS}
runs taken in turns in one process; one thread each unless the row says otherwise. nanogpt's
tokenizer is Python, the peers are Rust.

{rows}

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
