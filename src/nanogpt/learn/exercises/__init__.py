"""The exercises, in the order of the lessons."""

from nanogpt.learn.exercise import Exercise
from nanogpt.learn.exercises.assistant import ADVANTAGE, ANSWERS_ONLY, LORA
from nanogpt.learn.exercises.attention import ATTENTION, FULL_MASK
from nanogpt.learn.exercises.cache import CACHE, GPT_CACHED
from nanogpt.learn.exercises.gradients import LOSS_GRADIENT, VALUE
from nanogpt.learn.exercises.heads import GROUPED_HEADS
from nanogpt.learn.exercises.loss import CROSS_ENTROPY, MASKED_LOSS, SOFTMAX
from nanogpt.learn.exercises.machines import ALL_REDUCE, AVERAGE_GRADIENTS, PARALLEL_MLP
from nanogpt.learn.exercises.network import BLOCK, GELU, LAYER_NORM
from nanogpt.learn.exercises.plain import AVERAGE, CAUSAL_MASK, EMBED, HEADS, PLAIN_GPT
from nanogpt.learn.exercises.rope import ROTATION
from nanogpt.learn.exercises.sampling import TOP_K
from nanogpt.learn.exercises.tokens import ENCODE, MERGE, TRAIN
from nanogpt.learn.exercises.training import ADAMW, SCHEDULE
from nanogpt.learn.exercises.windows import WINDOWS

IN_ORDER = (
    VALUE, MERGE, TRAIN, ENCODE, EMBED, SOFTMAX, CROSS_ENTROPY, LOSS_GRADIENT, TOP_K, AVERAGE,
    ATTENTION, CAUSAL_MASK, HEADS, LAYER_NORM, GELU, BLOCK, PLAIN_GPT, WINDOWS, MASKED_LOSS, ADAMW,
    SCHEDULE, ROTATION, FULL_MASK, CACHE, GROUPED_HEADS, GPT_CACHED, ALL_REDUCE,
    AVERAGE_GRADIENTS, PARALLEL_MLP, ANSWERS_ONLY, ADVANTAGE, LORA,
)  # fmt: skip

EXERCISES: dict[str, Exercise] = {exercise.name: exercise for exercise in IN_ORDER}
