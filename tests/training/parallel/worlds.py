"""Worlds of several ranks, and one process to compare them with."""

import json
import os
import secrets
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file

from nanogpt.config import DataConfig, config_from_dict
from nanogpt.text.prepare import prepare
from nanogpt.training.loop import dropout_seed
from nanogpt.training.records import read_metrics
from nanogpt.training.start import Trainer

WORKER = Path(__file__).parent / "worker.py"

MODEL = {"n_layer": 4, "n_head": 4, "n_embd": 24, "context_length": 16}
TRAIN = {
    "max_steps": 20, "batch_size": 4, "grad_accum_steps": 2, "warmup_steps": 2,
    "eval_interval": 10, "eval_batches": 1, "sample_interval": 0,
    "device": "cpu", "precision": "float32", "compile": "off",
}  # fmt: skip


@dataclass
class Outcome:
    """What came out of a training."""

    said: str
    run: Path
    weights: dict  # before the first step
    gradients: dict  # of the first step

    @property
    def records(self):
        return read_metrics(self.run)

    @property
    def trained(self):
        """The last weights, from one file or from those of all ranks."""
        from nanogpt.training.checkpoint import find_checkpoint, load_tensors

        return load_tensors(find_checkpoint(self.run), "model.safetensors")


class Worlds:
    """Trains with settings: alone, or in a world of several ranks that does many jobs."""

    def __init__(self, folder, data):
        self.folder, self.data, self.count = folder, data, 0

    def settings(self, parallel=None, **sections):
        """Small settings, with changes by section."""
        return {
            "model": {**MODEL, **sections.get("model", {})},
            "train": {**TRAIN, **sections.get("train", {})},
            "data": {"folder": str(self.data), **sections.get("data", {})},
            "parallel": parallel or {},
        }

    def new_folder(self):
        self.count += 1
        folder = self.folder / str(self.count)
        folder.mkdir()
        return folder

    def alone(self, **sections):
        """What one process makes of the settings."""
        run = self.new_folder() / "run"
        trainer = Trainer.start(run, config_from_dict(self.settings(**sections)))
        weights = {name: x.clone() for name, x in trainer.model.state_dict().items()}
        torch.manual_seed(dropout_seed(trainer.config.train.seed, 0))
        trainer.gradients(trainer.load_batches(0))
        found = {name: p.grad for name, p in trainer.model.named_parameters()}
        gradients = {name: g.clone() for name, g in found.items() if g is not None}
        list(trainer.run())
        return Outcome("", run, weights, gradients)

    def together(self, ranks, jobs, timeout=300):
        """What a world of so many ranks makes of jobs, {name: job}: outcomes by name."""
        folder = self.new_folder()
        named = [{"name": name, **job} for name, job in jobs.items()]
        (folder / "jobs.json").write_text(json.dumps(named, default=str))
        run_ranks(ranks, [WORKER, folder], timeout)
        return {job["name"]: self.outcome(folder / job["name"], job) for job in named}

    def run(self, ranks, command, timeout=300):
        """Run a Python command on so many ranks; a test cannot import what stands here."""
        run_ranks(ranks, command, timeout)

    def outcome(self, place, job):
        files = [place / f"{name}.safetensors" for name in ("weights", "gradients")]
        tensors = [load_file(file) if file.exists() else {} for file in files]
        run = place.parent / job.get("resume", place / "run")
        return Outcome((place / "said.txt").read_text(), run, *tensors)


def run_ranks(ranks, command, timeout, **variables):
    """Run a Python command once for each rank, and wait; it fails if one of them does."""
    port = free_port()
    common = {
        **os.environ, "WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1", **variables,
    }  # fmt: skip
    processes = [
        subprocess.Popen(
            [sys.executable, *command], env={**common, "RANK": str(n), "LOCAL_RANK": str(n)},
            stderr=subprocess.PIPE, text=True,
        )
        for n in range(ranks)
    ]  # fmt: skip
    try:
        errors = [process.communicate(timeout=timeout)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert not any(process.returncode for process in processes), "\n".join(errors)


def free_port():
    """A port that is free, and most likely stays so until the ranks meet there seconds later.

    A port that the system picks could be given to the next who asks: other ranks ask for many.
    """
    while True:
        port = 20_000 + secrets.randbelow(12_000)  # the system itself gives out others, from 32768
        with socket.socket() as found, suppress(OSError):
            found.bind(("127.0.0.1", port))
            return port


def worlds_in(folder):
    """A maker of worlds in a folder, with a short text for them."""
    words = ["the", "cat", "sat", "on", "a", "mat", "while", "rain", "fell", "over", "hills"]
    order = torch.randint(len(words), (4000,), generator=torch.Generator().manual_seed(1))
    text = " ".join(words[n] + ".\n\n" * (n == 3) for n in order.tolist())
    (folder / "text.txt").write_text(text)
    settings = DataConfig(source=str(folder / "text.txt"), vocab_size=277, separator="\n\n")
    prepare(settings, folder / "data", 1)
    return Worlds(folder, folder / "data")
