"""Generation speed beside Hugging Face's `generate`: `make bench` runs this.

GPT-2's smallest shape with random weights, a prompt of 16 tokens, 100 new ones, greedy, one
process, everyone in turns. What int8 costs is measured on a model that the demo's recipe trains
for a minute. Writes the part "Generation" of docs/benchmarks.md.
"""

import copy
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection
from datetime import date
from importlib.metadata import version
from itertools import islice
from pathlib import Path

import torch
from page import replace_part
from transformers import GPT2Config, GPT2LMHeadModel

from nanogpt.config import PRESETS, SampleConfig
from nanogpt.device import resolve
from nanogpt.evaluation.loss import evaluate
from nanogpt.generation import packing
from nanogpt.generation.ahead import LookAhead
from nanogpt.generation.packing import WEIGHTS
from nanogpt.generation.reader import Reader, generate
from nanogpt.interop.names import from_hugging_face
from nanogpt.model.gpt import GPT
from nanogpt.text.dataset import data_folder
from nanogpt.text.tokenfiles import open_split
from nanogpt.training.load import load

PROMPT = 16
NEW = 100
ROUNDS = 3
SECONDS_OF_TRAINING = 60
GUESSES = 8  # tokens ahead

# How many tokens a maker writes for so many rows: seconds for one token, seconds for all.
Times = tuple[float, float]


def ours(model: GPT, rows: int, use_cache: bool = True) -> Times:
    """Seconds to the first token, and to all of them."""
    start = time.perf_counter()
    steps = generate(Reader(model, [[7] * PROMPT] * rows, use_cache), SampleConfig(temperature=0))
    next(steps)
    first = time.perf_counter() - start
    for _ in range(NEW - 1):
        next(steps)
    return first, time.perf_counter() - start


def theirs(model: GPT2LMHeadModel, rows: int) -> Times:
    """The same of generate in Hugging Face Transformers, which is called once for each figure."""
    ids = torch.full((rows, PROMPT), 7)
    spent = []
    for count in (1, NEW):
        start = time.perf_counter()
        model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, min_new_tokens=count,
            do_sample=False, pad_token_id=0,
        )  # fmt: skip
        spent.append(time.perf_counter() - start)
    return spent[0], spent[1]


def measure(makers: dict[str, Callable[[int], Times]], rows: int) -> dict[str, Times]:
    """Medians of each, taken in turns after one round to warm up."""
    found: dict[str, list[Times]] = {name: [] for name in makers}
    for round_number in range(ROUNDS + 1):
        for name, maker in makers.items():
            times = maker(rows)
            if round_number:
                found[name].append(times)
    return {
        name: (statistics.median(t[0] for t in times), statistics.median(t[1] for t in times))
        for name, times in found.items()
    }


def on_a_trained_model() -> tuple[float, float, str]:
    """A model trained for a minute: its bits per byte with float32 and int8, and what guesses save.

    Random weights would repeat one token, which is too easy to guess.
    """
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "demo"
        command = [sys.executable, "-m", "nanogpt", "demo", "--run", str(run)]
        command += ["--seconds", str(SECONDS_OF_TRAINING)]
        subprocess.run(command, check=True, capture_output=True)
        model, tokenizer, config = load(run)
        val = open_split(data_folder(run, config), "val", tokenizer)
        compute = resolve("cpu", "float32")
        before = evaluate(model, val, compute).bits_per_byte
        saved = ",\nand ".join(guessed(model, tokenizer.vocabulary, t) for t in (0.0, 0.8))
        packing.ROWS_WORTH_UNPACKING = 10**9  # the kernel of decoding, for every token
        return before, evaluate(WEIGHTS["int8"](model), val, compute).bits_per_byte, saved


def guessed(model: GPT, vocabulary: Collection[int], temperature: float) -> str:
    """How much faster a text comes whose tokens are guessed: the median of three texts."""
    ratios, tokens = [], []
    for seed in range(ROUNDS):
        config = SampleConfig(temperature=temperature, seed=seed)
        readers = Reader(model, [[7 + seed]]), LookAhead(model, [7 + seed], GUESSES)
        times = []
        for reader in readers:
            start = time.perf_counter()
            for _ in islice(generate(reader, config, vocabulary), 4 * NEW):
                pass
            times.append(time.perf_counter() - start)
        assert readers[0].rows == readers[1].rows
        ratios.append(times[0] / times[1])
        tokens.append(4 * NEW / readers[1].passes)
    mean = statistics.median(tokens)
    return (
        f"{statistics.median(ratios):.2f} times as fast at a temperature of {temperature:g} "
        f"({mean:.1f} tokens a reading)"
    )


def main() -> None:
    """Measure, print, and replace the part "Generation" of docs/benchmarks.md."""
    torch.manual_seed(0)
    torch.set_grad_enabled(False)
    hugging_face = GPT2LMHeadModel(GPT2Config(bos_token_id=None, eos_token_id=None)).eval()
    base = GPT(PRESETS["gpt2"])
    base.load_state_dict(from_hugging_face(hugging_face.state_dict()))
    models = {name: WEIGHTS[name](copy.deepcopy(base)) for name in ("plain", "float32", "int8")}
    makers: dict[str, Callable[[int], Times]] = {
        "Hugging Face `generate`, float32": lambda rows: theirs(hugging_face, rows),
        "nanogpt, plain weights": lambda rows: ours(models["plain"], rows),
        "nanogpt, packed float32 (the default)": lambda rows: ours(models["float32"], rows),
        "nanogpt, int8 weights": lambda rows: ours(models["int8"], rows),
    }
    lines = ["| rows | who | tokens/s | times Hugging Face | first token after |", "|" + "---|" * 5]
    for rows in (1, 8):
        if rows == 1:
            without = {"nanogpt, no cache": lambda rows: ours(models["float32"], rows, False)}
        found = measure(makers | (without if rows == 1 else {}), rows)
        peer = next(iter(found.values()))[1]
        for name, (first, total) in found.items():
            speed = rows * NEW / total
            lines.append(f"| {rows} | {name} | {speed:.1f} | {peer / total:.2f} | {first:.3f} s |")
    before, after, saved = on_a_trained_model()
    table = "\n".join(lines)
    part = f"""## Generation

GPT-2's smallest shape, a prompt of {PROMPT} tokens, {NEW} new ones, greedy; medians of {ROUNDS}
runs taken in turns in one process.

{table}

What int8 weights cost: {before:.5f} bits per byte become {after:.5f} ({after - before:+.5f}) on the
held-out plays, for a model that the demo's recipe trained for {SECONDS_OF_TRAINING} seconds.

With `sample.look_ahead` {GUESSES} this model writes the same texts {saved}.

{date.today()}, cpu, {torch.get_num_threads()} threads, {platform.machine()},
torch {version("torch")}, transformers {version("transformers")}.
"""
    replace_part(part)


if __name__ == "__main__":
    main()
