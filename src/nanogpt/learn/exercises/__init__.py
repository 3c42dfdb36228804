"""The exercises, in the order in which a GPT is built."""

from nanogpt.learn.exercise import Exercise
from nanogpt.learn.exercises.attention import ATTENTION, CACHE, GPT, MANY_HEADS, MASK, ROTATION
from nanogpt.learn.exercises.network import BLOCK, CROSS_ENTROPY, GELU, LAYER_NORM, SOFTMAX
from nanogpt.learn.exercises.tokens import ENCODE, MERGE, TRAIN, WINDOWS
from nanogpt.learn.exercises.training import ADAMW, SCHEDULE, TOP_K

IN_ORDER = (
    MERGE, TRAIN, ENCODE, WINDOWS, LAYER_NORM, GELU, SOFTMAX, ATTENTION, MANY_HEADS, MASK, BLOCK,
    GPT, CROSS_ENTROPY, ADAMW, SCHEDULE, TOP_K, CACHE, ROTATION,
)  # fmt: skip

EXERCISES: dict[str, Exercise] = {exercise.name: exercise for exercise in IN_ORDER}
