"""Training beside another program: `make bench` runs this.

On a shared machine threads wait for the one that was put off. The demo's recipe and
GPT2LMHeadModel of the same shape train for some seconds, each in a process of its own as a person
would start it: on a machine of their own, and beside a program that keeps one core busy. Writes
the part "Beside other work" of docs/benchmarks.md.
"""

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from importlib.metadata import version
from pathlib import Path

from page import replace_part

SECONDS = 12.0
ROUNDS = 3
BUSY = "while True: pass"
NAMES = {
    "ours": "nanogpt, the demo's recipe",
    "fixed": "nanogpt, always all threads",
    "theirs": "Hugging Face `GPT2LMHeadModel`",
}


def ours(data: str, threads: int) -> float:
    """Tokens per second of the demo's recipe; with 0 threads it chooses them itself."""
    from nanogpt.config import load_config, with_settings
    from nanogpt.training.records import Step
    from nanogpt.training.start import Trainer

    config = load_config(Path(__file__).parent.parent / "configs" / "demo.toml")
    train = {"sample_interval": 0, "snapshots": 0, "precision": "float32", "compile": "off"}
    config = with_settings(config, data={"folder": data}, train={**train, "threads": threads})
    steps = tokens = 0.0
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        for record in Trainer.start(Path(folder), config).run():
            if isinstance(record, Step):
                steps, tokens = steps + 1, tokens + config.tokens_per_step
            if (spent := time.perf_counter() - start) > SECONDS:
                break
    return tokens / spent


def theirs() -> float:
    """The same of GPT2LMHeadModel with torch's AdamW."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=1024, n_positions=64, n_layer=2, n_head=4, n_embd=192, resid_pdrop=0.0,
        embd_pdrop=0.0, attn_pdrop=0.0, use_cache=False, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    model = GPT2LMHeadModel(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    ids, tokens = torch.randint(1024, (12, 64)), 0
    start = time.perf_counter()
    while (spent := time.perf_counter() - start) < SECONDS:
        optimizer.zero_grad(set_to_none=True)
        model(input_ids=ids, labels=ids).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        tokens += ids.numel()
    return tokens / spent


@contextmanager
def busy(programs: int) -> Iterator[None]:
    """So many programs that keep a core busy each."""
    running = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(programs)]
    try:
        yield
    finally:
        for program in running:
            program.kill()
            program.wait()


def measured(who: str, data: str) -> float:
    """Tokens per second of one of them, in a new process."""
    command = [sys.executable, __file__, who, data]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def main() -> None:
    """Measure in turns, print, and write the part of docs/benchmarks.md."""
    from nanogpt import prepare

    found: dict[tuple[str, int], list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        prepare("shakespeare", folder, vocab_size=1024)
        for _ in range(ROUNDS):
            for programs in (0, 1):
                with busy(programs):
                    for who in NAMES:
                        found.setdefault((who, programs), []).append(measured(who, folder))
    middle = {key: statistics.median(speeds) for key, speeds in found.items()}
    lines = ["| who trains | alone, tokens/s | beside one busy program | times slower |"]
    lines.append("|---|---|---|---|")
    for who, name in NAMES.items():
        alone, beside = middle[who, 0], middle[who, 1]
        lines.append(f"| {name} | {alone:,.0f} | {beside:,.0f} | {alone / beside:.1f} |")
    table = "\n".join(lines)
    replace_part(f"""## Beside other work

The demo's recipe, and the same shape in Transformers, each in a process of its own for
{SECONDS:.0f} seconds, its start and evaluations included; medians of {ROUNDS}, taken in turns. What
nanogpt does about it: [Determinism](architecture.md#determinism).

{table}

{date.today()}, {os.cpu_count()} cores, {platform.machine()}, torch {version("torch")},
transformers {version("transformers")}.
""")


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        who, data = sys.argv[1:]
        print(theirs() if who == "theirs" else ours(data, os.cpu_count() if who == "fixed" else 0))
