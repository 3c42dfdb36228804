"""What one rank does in the tests: train with several layouts, one after another.

Run as `python worker.py FOLDER`, once for each rank, with the variables that torchrun sets.
FOLDER holds jobs.json, a list of {name, settings, steps, ...}; the first rank writes results.
"""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file

from nanogpt.config import config_from_dict
from nanogpt.errors import UserError
from nanogpt.training.loop import dropout_seed
from nanogpt.training.parallel.loop import ParallelTrainer
from nanogpt.training.parallel.mesh import joined


def whole(trainer, name, numbers):
    """A tensor of all ranks' parts on the first rank."""
    part = trainer.layout.parts.get(name)
    result = torch.zeros(trainer.layout.whole[name].shape)
    for box in part.boxes if part and part.counts and numbers is not None else ():
        result[box.whole] = numbers[box.local]
    dist.reduce(result, 0)
    return result


def gradients_of_a_step(trainer):
    """The gradients of the first step, before clipping, whole on the first rank."""
    torch.manual_seed(dropout_seed(trainer.config.train.seed, 0))
    trainer.gradients(trainer.load_batches(0))
    found = {}
    for name in trainer.layout.whole:
        part = trainer.layout.parts.get(name)
        found[name] = whole(trainer, name, part.tensor.grad if part else None)
    return found


def do(job, folder):
    config = config_from_dict(job["settings"])
    run = folder / job["name"]
    if job.get("resume"):
        trainer = ParallelTrainer.resume(run, **job["changes"])
    else:
        trainer = ParallelTrainer.start(run, config)
    results = {}
    if job.get("look", True):
        weights = {n: trainer.layout.on_first_rank(n).clone() for n in trainer.layout.whole}
        gradients = gradients_of_a_step(trainer)
        if trainer.ranks.first:
            save_file(
                {n: x.contiguous() for n, x in weights.items()},
                folder / f"{job['name']}-weights.safetensors",
            )
            save_file(
                {n: x.contiguous() for n, x in gradients.items()},
                folder / f"{job['name']}-gradients.safetensors",
            )
    for record in trainer.run():
        if job.get("stop_at") == getattr(record, "step", None):
            trainer.stop()
    return results


def main():
    folder = Path(sys.argv[1])
    jobs = json.loads((folder / "jobs.json").read_text())
    torch.set_num_threads(1)
    with joined(90):
        for job in jobs:
            try:
                do(job, folder)
                said = "ok"
            except UserError as error:
                said = str(error)
            if dist.get_rank() == 0:
                (folder / f"{job['name']}.txt").write_text(said)


if __name__ == "__main__":
    main()
