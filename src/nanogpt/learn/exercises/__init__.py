"""The exercises, in the order of the lessons."""

from nanogpt.learn.exercise import Exercise
from nanogpt.learn.exercises.attention import (
    ATTENTION,
    CACHE,
    FULL_MASK,
    GPT_CACHED,
    GROUPED_HEADS,
    ROTATION,
)
from nanogpt.learn.exercises.gradients import LOSS_GRADIENT, VALUE
from nanogpt.learn.exercises.network import (
    BLOCK,
    CROSS_ENTROPY,
    GELU,
    LAYER_NORM,
    MASKED_LOSS,
    SOFTMAX,
)
from nanogpt.learn.exercises.plain import AVERAGE, CAUSAL_MASK, EMBED, HEADS, PLAIN_GPT
from nanogpt.learn.exercises.tokens import ENCODE, MERGE, TRAIN, WINDOWS
from nanogpt.learn.exercises.training import ADAMW, SCHEDULE, TOP_K

IN_ORDER = (
    VALUE, MERGE, TRAIN, ENCODE, EMBED, SOFTMAX, CROSS_ENTROPY, LOSS_GRADIENT, TOP_K, AVERAGE,
    ATTENTION, CAUSAL_MASK, HEADS, LAYER_NORM, GELU, BLOCK, PLAIN_GPT, WINDOWS, MASKED_LOSS, ADAMW,
    SCHEDULE, ROTATION, FULL_MASK, CACHE, GROUPED_HEADS, GPT_CACHED,
)  # fmt: skip

EXERCISES: dict[str, Exercise] = {exercise.name: exercise for exercise in IN_ORDER}
