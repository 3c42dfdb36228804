"""How long a training step takes here, so that a budget in seconds can be turned into steps."""

import tempfile
import time
from pathlib import Path

from nanogpt.config import Config
from nanogpt.train import Trainer

SECONDS = 2.0
WARM_UP = 3  # the first steps also pay for memory and threads


def seconds_per_step(config: Config, seconds: float = SECONDS) -> float:
    """Train for some seconds in a folder that is thrown away: the mean time of a step.

    The settings name prepared data (data.folder).
    """
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer.start(Path(folder), config)
        for _ in range(WARM_UP):
            trainer.train_step()
        steps, start = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - start) < seconds:
            trainer.train_step()
            steps += 1
    return elapsed / steps


def steps_within(seconds: float, config: Config) -> int:
    """How many steps fit into so many seconds on this machine; at least one."""
    return max(1, int(seconds / seconds_per_step(config)))
