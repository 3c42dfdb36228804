"""The learning rate: a linear warm-up, then half a cosine wave down."""

from nanogpt.config import TrainConfig


def learning_rate(step: int, config: TrainConfig) -> float:
    """The learning rate of a step, counted from 0: a linear climb, then the schedule.

    The climb gives Adam's means time to settle before large steps are taken with them. Its first
    step is already above zero, and step `warmup_steps` is the first with the full rate. The
    schedule ends at `max_steps`; from there on the rate stays at its end.

    >>> config = TrainConfig(lr=1.0, min_lr=0.1, warmup_steps=4, max_steps=24)
    >>> [round(learning_rate(step, config), 3) for step in (0, 3, 4, 14, 24, 99)]
    [0.2, 0.8, 1.0, 0.55, 0.1, 0.1]
    """
    raise NotImplementedError("your turn")
