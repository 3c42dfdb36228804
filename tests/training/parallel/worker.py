"""What one rank does in the tests: train with several layouts, one after another.

Run as `python worker.py FOLDER`, once for each rank, with the variables that torchrun sets. FOLDER
holds jobs.json; of each job the first rank writes what came out. See `worlds.Worlds`.
"""

import json
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from skipping import SkippingBlock

from nanogpt.config import config_from_dict
from nanogpt.errors import UserError
from nanogpt.model.gpt import BLOCKS
from nanogpt.training import checkpoint
from nanogpt.training.loop import dropout_seed
from nanogpt.training.parallel import data
from nanogpt.training.parallel.loop import ParallelTrainer
from nanogpt.training.parallel.mesh import joined


def look(trainer, place):
    """Write the first weights, and the gradients of the first step before they are clipped."""
    layout = trainer.layout
    weights = layout.gather({name: part.tensor for name, part in layout.parts.items()})
    torch.manual_seed(dropout_seed(trainer.config.train.seed, trainer.state.step))
    trainer.gradients(trainer.load_batches(trainer.state.step))
    gradients = layout.gather({name: part.tensor.grad for name, part in layout.parts.items()})
    if trainer.ranks.first:
        save_file(weights, place / "weights.safetensors")
        save_file(gradients, place / "gradients.safetensors")


def do(job, place):
    """Train as a job says: {name, settings}, or {name, resume, changes}; perhaps with stop_at.

    `resume` is a path, or the name of a job before this one.
    """
    run = place / "run"
    if "resume" in job:
        trainer = ParallelTrainer.resume(place.parent / job["resume"], **job["changes"])
    else:
        trainer = ParallelTrainer.start(run, config_from_dict(job["settings"]))
        look(trainer, place)
    if job.get("slow_disk"):
        point_at = checkpoint.point_at
        checkpoint.point_at = lambda *given: time.sleep(1) or point_at(*given)
    for record in trainer.run():
        if getattr(record, "step", None) == job.get("stop_at"):
            trainer.stop()


def main():
    """Do all jobs; what a job raises as UserError is written down, too."""
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    BLOCKS["skipping"] = SkippingBlock
    data.BUCKET = 2000  # so that gradients of small models, too, travel in several messages
    point_at = checkpoint.point_at
    with joined(timeout=120):
        for job in json.loads((folder / "jobs.json").read_text()):
            place = folder / job["name"]
            place.mkdir(exist_ok=True)
            said = ""
            try:
                do(job, place)
            except UserError as error:
                said = str(error)
            checkpoint.point_at = point_at
            if dist.get_rank() == 0:
                (place / "said.txt").write_text(said)


if __name__ == "__main__":
    main()
