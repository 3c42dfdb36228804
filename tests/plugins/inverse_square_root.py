"""The first Transformer's schedule (Vaswani et al. 2017): four times the steps, half the rate."""

from nanogpt.config import TrainConfig
from nanogpt.training.optim import SCHEDULES


def inverse_square_root(progress: float, step: int, config: TrainConfig) -> float:
    start = max(1, config.warmup_steps)
    return (start / max(start, step)) ** 0.5


SCHEDULES["inverse-square-root"] = inverse_square_root
