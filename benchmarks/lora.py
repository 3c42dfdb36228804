"""Memory of fine-tuning GPT-2 124M with LoRA and without: `python benchmarks/lora.py`.

Each row is a run of `nanogpt train --init FOLDER` of two steps, in a process of its own, on a
folder with random weights; memory is the most that the process had (its peak RSS). Python and
torch take a part of that in any run: it is measured on a tiny model, and added to the plan's
prediction. Needs a quarter of an hour, 5 GB of memory and of disk, and Linux. Prints a table.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from nanogpt.config import Config, DataConfig, ModelConfig, SampleConfig, TrainConfig
from nanogpt.device import resolve
from nanogpt.interop.huggingface import export
from nanogpt.model.gpt import GPT
from nanogpt.text.formats import find_tokenizer
from nanogpt.text.prepare import prepare
from nanogpt.training.plan import estimate_memory

CONTEXT, BATCHES, RANKS = 256, (1, 2, 4), (8, 0)
STEPS = [
    "--train.max-steps=2", "--train.warmup-steps=0", "--train.eval-batches=1",
    "--train.sample-interval=0", "--train.device=cpu", "--train.precision=float32",
    "--train.compile=off", "--sample.max-new-tokens=1",
]  # fmt: skip


# A process begins with the peak of the one that starts it: so a small one stands between.
BETWEEN = """
import os, subprocess, sys
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, used = os.wait4(process.pid, 0)
print(used.ru_maxrss * 1024)
sys.exit(status and 1)
"""


def peak(folder: Path, run: str, *options: str) -> int:
    """The most bytes that a training had."""
    command = [sys.executable, "-c", BETWEEN, sys.executable, "-m", "nanogpt", "train"]
    command += ["--run", str(folder / run), "--data.folder", str(folder / "data"), *STEPS, *options]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def disk(run: Path) -> int:
    """Bytes that the checkpoints of a run take; a file with two names counts once."""
    files = {file.stat().st_ino: file.stat() for file in run.rglob("step-*/*")}
    return sum(file.st_blocks * 512 for file in files.values())


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokenizer = find_tokenizer("gpt2")
        export(folder / "gpt2", GPT(ModelConfig()), tokenizer, SampleConfig(), "")
        data = DataConfig(tokenizer="gpt2")
        prepare(data, folder / "data", processes=1)
        tiny = ["--model.n-layer=1", "--model.n-head=1", "--model.n-embd=8"]
        itself = peak(folder, "tiny", *tiny, "--model.context-length=8", "--train.batch-size=1")
        print(f"Python and torch themselves: {itself / 1e9:.2f} GB\n")
        print("| LoRA rank | batch | predicted, GB | measured, GB | checkpoints, GB |")
        print("|---|---|---|---|---|")
        for rank in RANKS:
            for batch in BATCHES:
                train = TrainConfig(batch_size=batch, lora_rank=rank)
                config = Config(model=ModelConfig(context_length=CONTEXT), data=data, train=train)
                predicted = itself + estimate_memory(config, resolve("cpu", "float32")).total
                measured = peak(
                    folder, f"{rank}-{batch}", "--init", str(folder / "gpt2"),
                    f"--model.context-length={CONTEXT}", f"--train.batch-size={batch}",
                    f"--train.lora-rank={rank}",
                )  # fmt: skip
                kept = disk(folder / f"{rank}-{batch}")
                print(
                    f"| {rank or 'without'} | {batch} | {predicted / 1e9:.2f} "
                    f"| {measured / 1e9:.2f} | {kept / 1e9:.2f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
