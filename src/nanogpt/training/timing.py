"""How long a training step takes here, so that a budget in seconds can be turned into steps."""

import tempfile
import time
from contextlib import closing
from pathlib import Path

import torch

from nanogpt.config import Config
from nanogpt.training.start import Trainer
from nanogpt.training.threads import limited_to

SECONDS = 2.0
WARM_UP = 3  # the first steps also pay for memory and threads


def seconds_per_step(config: Config, threads: int = 0, seconds: float = SECONDS) -> float:
    """Train for some seconds in a folder that is thrown away: the mean time of a step.

    On so many threads, or on as many as there are. The settings name prepared data (data.folder).
    """
    with tempfile.TemporaryDirectory() as folder, limited_to(threads or torch.get_num_threads()):
        trainer = Trainer.start(Path(folder), config)
        with closing(trainer.loader), trainer.on_its_threads():
            for _ in range(WARM_UP):
                trainer.advance()
            steps, start = 0, time.perf_counter()
            while (elapsed := time.perf_counter() - start) < seconds:
                trainer.train_step()
                steps += 1
    return elapsed / steps


def steps_within(seconds: float, config: Config) -> int:
    """How many steps fit into so many seconds on this machine; at least one."""
    return max(1, int(seconds / seconds_per_step(config)))
