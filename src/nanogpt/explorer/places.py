"""Where the package does what the page shows: a function, its line, the lesson, the exercise.

The page retypes no code. It shows what `inspect` finds here, of the variants that a model has.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import nanogpt
from nanogpt.errors import UserError
from nanogpt.generation import sampling
from nanogpt.learn.lesson import find_lesson
from nanogpt.model.attention import CausalSelfAttention, attention, attention_mask
from nanogpt.model.attention import attention_weights as weights
from nanogpt.model.gpt import GPT
from nanogpt.model.layers import gelu, layer_norm, rms_norm, softmax
from nanogpt.model.position import RoPE, apply_rotary
from nanogpt.text.bpe import merge_steps

PACKAGE = Path(nanogpt.__file__).parent


@dataclass(frozen=True)
class Place:
    """A line of the package, the function around it, and where one learns about it."""

    code: Any
    line: str  # the beginning of the line that is meant
    lesson: int
    exercise: str = ""  # the name of one, or empty


def places(model: GPT) -> dict[str, dict[str, Any]]:
    """For each part of a model, and of choosing its next token, where the package does it.

    The values are what JSON can hold: file, function, source, the number of its first line and of
    the line that is meant, lesson and exercise. What a plugin brought is shown from its own file.
    """
    return {name: found(place) for name, place in table(model).items()}


def table(model: GPT) -> dict[str, Place]:
    """The places that fit the variants of this model."""
    block: Any = model.h[0]
    position, mlp, norm = type(model.wpe), type(block.mlp), norm_place(model)
    return {
        "tokens": Place(merge_steps, "pair = min(", 3, "encode"),
        "wte": Place(GPT.hidden_states, "x = self.drop(", 4, "embed"),
        "wpe": Place(position.embed, "return", 4 if position is not RoPE else 11, "embed"),
        "drop": Place(GPT.hidden_states, "x = self.drop(", 4, "embed"),
        "ln_1": norm,
        "ln_2": norm,
        "ln_f": norm,
        "qkv": Place(CausalSelfAttention.forward, "q, k, v = self.c_attn", 6, "heads"),
        "qk_norm": Place(rms_norm, "x = x /", 7),
        "rotate": Place(apply_rotary, "return", 11, "rope"),
        "bias": Place(position.bias, "return", 11),
        "scores": Place(weights, "scores = q @", 6, "attention"),
        "mask": Place(attention_mask, "visible = distance >= 0", 6, "mask"),
        "weights": Place(softmax, "return powers", 5, "softmax"),
        "kernel": Place(attention, "return weights", 6, "attention"),
        "attn": Place(CausalSelfAttention.forward, "return self.dropout", 6, "heads"),
        "mid": Place(type(block).forward, "x = ", 7, "block"),
        "c_fc": Place(type(block.mlp).forward, "return self.dropout", 7, "block"),
        "act": activation_place(mlp),
        "mlp": Place(type(block.mlp).forward, "return self.dropout", 7, "block"),
        "block": Place(type(block).forward, "return ", 7, "block"),
        "lm_head": Place(type(model.lm_head).forward, "return", 4, "gpt"),
        "softmax": Place(softmax, "return powers", 5, "softmax"),
        "repetition_penalty": Place(sampling.penalize_repeats, "lower =", 5),
        "temperature": Place(sampling.apply_temperature, "return", 5),
        "top_k": Place(sampling.keep_top_k, "return logits.masked_fill", 5, "top-k"),
        "top_p": Place(sampling.keep_top_p, "needed =", 5),
        "min_p": Place(sampling.keep_min_p, "least =", 5),
    }


def norm_place(model: GPT) -> Place:
    """The norm of this model: written by hand if it is one of ours, else its module."""
    by_name = {
        "layer": Place(layer_norm, "x = (x - mean)", 7, "layer-norm"),
        "rms": Place(rms_norm, "x = x /", 7),
        "none": Place(type(model.h[0]).forward, "x = ", 7, "block"),
    }
    return by_name.get(model.config.norm) or Place(type(model.ln_f).forward, "return", 7)


def activation_place(mlp: type[Any]) -> Place:
    """What makes the feed-forward layer more than a linear map: GELU, or the variant's own."""
    if "activation" in vars(mlp) and mlp.__name__ != "MLP":
        return Place(mlp.activation, "return", 7)
    return Place(gelu, "return", 7, "gelu")


def found(place: Place) -> dict[str, Any]:
    """A place in words. Raises UserError if its line is not there any more."""
    file, first, source = source_of(place.code)
    lines = source.split("\n")
    numbers = [n for n, line in enumerate(lines) if line.strip().startswith(place.line)]
    if not numbers:
        raise UserError(f"{file}: no line of {place.code.__qualname__} begins {place.line!r}")
    return {
        "file": file,
        "function": place.code.__qualname__,
        "first": first,
        "line": first + numbers[-1],
        "source": source,
        "lesson": {"number": place.lesson, "title": find_lesson(place.lesson).title},
        "exercise": place.exercise,
    }


@cache
def source_of(code: Callable[..., Any]) -> tuple[str, int, str]:
    """File, number of the first line, and text of a function."""
    path = Path(inspect.getsourcefile(code) or "")
    lines, first = inspect.getsourcelines(code)
    ours = path.is_relative_to(PACKAGE)
    name = path.relative_to(PACKAGE.parent).as_posix() if ours else path.name
    return name, first, inspect.cleandoc("\n" + "".join(lines))
