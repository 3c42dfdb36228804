"""The learning rate: a linear warm-up, then half a cosine wave down."""

from nanogpt.config import TrainConfig


def learning_rate(step: int, config: TrainConfig) -> float:
    """The learning rate of a step.

    Args:
        step: the number of the step, counted from 0; it may be beyond the end.
        config: config.lr is the highest rate, config.min_lr the lowest. config.warmup_steps,
            from 0, is the length of the warm-up and config.max_steps the length of the run,
            warm-up included; they may be equal. config.schedule is the name of a schedule.

    Returns a number. In the warm-up the rate climbs in a straight line, by the same amount in
    each step: the first step is already above 0, and step warmup_steps, the first after the
    warm-up, has the full rate. After it, progress goes from 0 at step warmup_steps to 1 at step
    max_steps, and never above 1. SCHEDULES[config.schedule](progress, step, config), in
    nanogpt.training.optim, gives the share that is left of the way from min_lr to lr: 1 is lr,
    0 is min_lr. For "cosine", the usual one, it is half a cosine wave from 1 to 0.

    >>> config = TrainConfig(lr=1.0, min_lr=0.1, warmup_steps=4, max_steps=24)
    >>> [round(learning_rate(step, config), 3) for step in (0, 3, 4, 14, 24, 99)]
    [0.2, 0.8, 1.0, 0.55, 0.1, 0.1]
    """
    raise NotImplementedError("your turn")
