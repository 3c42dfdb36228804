"""What one rank does in the tests: train with several layouts, one after another.

Run as `python worker.py FOLDER`, once for each rank, with the variables that torchrun sets. FOLDER
holds jobs.json; of each job the first rank writes what came out. See `worlds.Worlds`.
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
from nanogpt.training.parallel import data
from nanogpt.training.parallel.loop import ParallelTrainer
from nanogpt.training.parallel.mesh import joined


def whole(trainer, name, numbers):
    """A tensor of which every rank has a part, on the first rank."""
    part = trainer.layout.parts.get(name)
    result = torch.zeros(trainer.layout.whole[name].shape)
    for box in part.boxes if part and part.counts and numbers is not None else ():
        result[box.whole] = numbers[box.local]
    dist.reduce(result, 0)
    return result


def look(trainer, place):
    """Write the first weights, and the gradients of the first step before they are clipped."""
    names = trainer.layout.whole
    weights = {name: trainer.layout.on_first_rank(name) for name in names}
    torch.manual_seed(dropout_seed(trainer.config.train.seed, trainer.state.step))
    trainer.gradients(trainer.load_batches(trainer.state.step))
    parts = trainer.layout.parts
    own = {name: parts[name].tensor.grad if name in parts else None for name in names}
    gradients = {name: whole(trainer, name, own[name]) for name in names}
    if trainer.ranks.first:
        save_file(weights, place / "weights.safetensors")
        save_file(gradients, place / "gradients.safetensors")


def do(job, place):
    """Train as a job says: {name, settings}, or {name, resume, changes}; perhaps with stop_at."""
    run = place / "run"
    if "resume" in job:
        trainer = ParallelTrainer.resume(job["resume"], **job["changes"])
    else:
        trainer = ParallelTrainer.start(run, config_from_dict(job["settings"]))
        look(trainer, place)
    for record in trainer.run():
        if getattr(record, "step", None) == job.get("stop_at"):
            trainer.stop()


def main():
    """Do all jobs; what a job raises as UserError is written down, too."""
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    data.BUCKET = 2000  # so that gradients of small models, too, travel in several messages
    with joined(timeout=120):
        for job in json.loads((folder / "jobs.json").read_text()):
            place = folder / job["name"]
            place.mkdir(exist_ok=True)
            said = ""
            try:
                do(job, place)
            except UserError as error:
                said = str(error)
            if dist.get_rank() == 0:
                (place / "said.txt").write_text(said)


if __name__ == "__main__":
    main()
