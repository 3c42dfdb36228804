"""The exercise about rotary position embeddings."""

from typing import Any

import torch
from torch import Tensor

from nanogpt.learn.answers import Answer, with_gradients
from nanogpt.learn.exercise import Exercise, Mistake
from nanogpt.learn.exercises.known import known, numbers
from nanogpt.learn.exercises.tasks import TASKS
from nanogpt.model import position


def rotary_cases() -> list[tuple[Any, ...]]:
    quarter = (torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0]))
    angles = torch.arange(3)[:, None] * torch.tensor([1.0, 0.1])
    return [
        (torch.tensor([1.0, 0.0, 0.0, 0.0]).view(1, 1, 1, 4), *quarter),
        (torch.tensor([1.0, 5.0, 2.0, 7.0]).view(1, 1, 1, 4), *quarter),
        (numbers(2, 2, 3, 4), angles.cos(), angles.sin()),
        (numbers(1, 1, 1, 2), torch.tensor([0.6]), torch.tensor([0.8])),
        (numbers(2, 1, 5, 6), *waves(numbers(5, 3, seed=1))),
        # Rows that stand at different positions, as with documents.
        (numbers(2, 3, 4, 6), *waves(numbers(2, 1, 4, 3, seed=2))),
        (numbers(2, 4, 4, 8), *waves(numbers(4, 4, seed=3))),
        (numbers(1, 1, 3, 4).double(), *waves(numbers(3, 2, seed=4).double())),
    ]


def drive_rotary(candidate: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Answer:
    """The rotated numbers; those of 64 bits with their type, which stays."""
    if x.dtype == torch.float64:
        result = candidate(x, cos, sin)
        return Answer([result, str(result.dtype)])
    inputs = {"x": x, "cos": cos, "sin": sin}
    return with_gradients(candidate, inputs, wanted=("x",))


def waves(angles: Tensor) -> tuple[Tensor, Tensor]:
    return angles.cos(), angles.sin()


def rotate_neighbours(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x[..., ::2], x[..., 1::2]
    return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2)


def rotate_with(first: Any, second: Any) -> Any:
    """A rotation with other formulas for its two halves."""

    def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        a, b = x.chunk(2, dim=-1)
        return torch.cat([first(a, b, cos, sin), second(a, b, cos, sin)], dim=-1)

    return rotated


def rotate_half_with(swap: Any, widened: Any = lambda c: torch.cat([c, c], -1)) -> Any:
    """x * cos + swapped x * sin, as in Hugging Face's code."""

    def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        found: Tensor = x * widened(cos) + swap(x) * widened(sin)
        return found

    return rotated


def swapped_halves(x: Tensor, sign: int = -1) -> Tensor:
    a, b = x.chunk(2, -1)
    return torch.cat([sign * b, a], -1)


def swapped_neighbours(x: Tensor, sign: int = -1) -> Tensor:
    return torch.stack([sign * x[..., 1::2], x[..., ::2]], -1).flatten(-2)


def rotate_parts(cut: Any, join: Any) -> Any:
    """A rotation that takes pairs apart in one layout and puts them together in another."""

    def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        a, b = cut(x)
        found: Tensor = join(a * cos - b * sin, a * sin + b * cos)
        return found

    return rotated


def halves(x: Tensor) -> Any:
    return x.chunk(2, dim=-1)


def neighbours(x: Tensor) -> Any:
    return x[..., ::2], x[..., 1::2]


def side_by_side(a: Tensor, b: Tensor) -> Tensor:
    return torch.cat([a, b], -1)


def in_turns(a: Tensor, b: Tensor) -> Tensor:
    return torch.stack([a, b], -1).flatten(-2)


def rotate_stale(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The second half is made from the first one after its rotation."""
    a, b = x.chunk(2, dim=-1)
    a = a * cos - b * sin
    return torch.cat([a, a * sin + b * cos], -1)


def rotate_as(angle: Any) -> Any:
    """A rotation by another angle."""
    return lambda x, cos, sin: position.apply_rotary(x, *waves(angle(torch.atan2(sin, cos))))


ROTATION = Exercise(
    name="rope",
    title="Rotary positions (RoPE): rotate pairs of channels.",
    task=TASKS["rope"],
    reference=position.apply_rotary,
    cases=rotary_cases,
    drive=drive_rotary,
    lesson=11,
    mistakes=[
        Mistake(
            "neighbours",
            "Neighbouring channels are paired. Here channel i is paired with i + hs / 2. Both "
            "ways work, but weights trained with one do not work with the other.",
            rotate_neighbours,
        ),
        Mistake(
            "backwards", "It rotates in the wrong direction: the signs of sin are swapped.",
            rotate_with(
                lambda a, b, cos, sin: a * cos + b * sin, lambda a, b, cos, sin: b * cos - a * sin
            ),
        ),
        Mistake(
            "not-a-rotation",
            "The second half has the wrong sign, so it is not a rotation. A rotation gives "
            "a cos - b sin and a sin + b cos.",
            rotate_with(
                lambda a, b, cos, sin: a * cos - b * sin, lambda a, b, cos, sin: a * sin - b * cos
            ),
        ),
        Mistake(
            "both-plus", "Both signs are plus. One of them is minus: a cos - b sin.",
            rotate_with(
                lambda a, b, cos, sin: a * cos + b * sin, lambda a, b, cos, sin: a * sin + b * cos
            ),
        ),
        Mistake(
            "halves-swapped", "The two halves of the result are swapped.",
            rotate_with(
                lambda a, b, cos, sin: a * sin + b * cos, lambda a, b, cos, sin: a * cos - b * sin
            ),
        ),
        Mistake(
            "half-rotated", "Only the first half is rotated. The second half changes, too.",
            rotate_with(lambda a, b, cos, sin: a * cos - b * sin, lambda a, b, cos, sin: b),
        ),
        Mistake(
            "sin-and-cos-swapped", "sin and cos are swapped: an angle of 0 should change nothing.",
            rotate_with(
                lambda a, b, cos, sin: a * sin - b * cos, lambda a, b, cos, sin: a * cos + b * sin
            ),
        ),
        known(
            "neighbours",
            "Neighbouring channels are paired. Here channel i is paired with i + hs / 2. Both "
            "ways work, but weights trained with one do not work with the other.",
            rotate_half_with(swapped_neighbours, lambda c: c.repeat_interleave(2, -1)),
        ),
        known(
            "neighbours-backwards",
            "Neighbouring channels are paired, and they rotate in the wrong direction. Here "
            "channel i is paired with i + hs / 2.",
            rotate_half_with(lambda x: swapped_neighbours(x, 1) * torch.tensor([1.0, -1.0]).repeat(
                x.shape[-1] // 2), lambda c: c.repeat_interleave(2, -1)),
        ),
        known(
            "two-layouts",
            "Pairs are taken apart in one layout and put together in another. Channel i is paired "
            "with i + hs / 2, before and after: cut into halves, join the halves.",
            rotate_parts(halves, in_turns),
            rotate_parts(neighbours, side_by_side),
            rotate_half_with(swapped_neighbours),
            rotate_half_with(lambda x: swapped_neighbours(x, 1)),
        ),
        known(
            "angles-for-neighbours",
            "The angles are repeated for neighbouring channels. Channel i and channel i + hs / 2 "
            "share an angle: cos comes twice side by side, torch.cat([cos, cos], -1).",
            rotate_half_with(swapped_halves, lambda c: c.repeat_interleave(2, -1)),
        ),
        known(
            "changed-on-the-way",
            "The second half is computed from the first half after its rotation. Both come from "
            "the old values: keep them.",
            rotate_stale,
        ),
        known(
            "backwards", "It rotates in the wrong direction: the signs of sin are swapped.",
            rotate_half_with(lambda x: torch.cat([x.chunk(2, -1)[1], -x.chunk(2, -1)[0]], -1)),
        ),
        known(
            "both-plus", "Both signs are plus. One of them is minus: a cos - b sin.",
            rotate_half_with(lambda x: swapped_halves(x, 1)),
        ),
        known(
            "both-minus", "Both signs are minus. The second is plus: a sin + b cos.",
            rotate_with(
                lambda a, b, cos, sin: a * cos - b * sin, lambda a, b, cos, sin: b * cos - a * sin
            ),
            rotate_half_with(lambda x: -swapped_halves(x, 1)),
        ),
        known(
            "halves-not-swapped",
            "Each half is multiplied by cos and sin of its own. In a rotation each half takes part "
            "of the other: a cos - b sin and a sin + b cos.",
            rotate_half_with(lambda x: x),
            rotate_with(
                lambda a, b, cos, sin: a * cos - a * sin, lambda a, b, cos, sin: b * sin + b * cos
            ),
            rotate_with(lambda a, b, cos, sin: a * cos, lambda a, b, cos, sin: b * sin),
        ),
        known(
            "only-cos", "sin is not used.",
            rotate_with(lambda a, b, cos, sin: a * cos, lambda a, b, cos, sin: b * cos),
        ),
        known(
            "half-rotated", "Only one half is rotated. Both change.",
            rotate_with(lambda a, b, cos, sin: a, lambda a, b, cos, sin: a * sin + b * cos),
        ),
        known(
            "first-row-for-all",
            "The angles of the first row are used for all rows. The rows may stand at different "
            "positions: let cos and sin broadcast with x.",
            lambda x, cos, sin: position.apply_rotary(
                x, cos[:1] if cos.ndim == 4 else cos, sin[:1] if sin.ndim == 4 else sin),
        ),
        known(
            "first-angle-for-all",
            "All pairs, or all tokens, rotate by the same angle. Each pair has its own speed, and "
            "each token its own position.",
            lambda x, cos, sin: position.apply_rotary(x, cos[..., :1], sin[..., :1]),
            lambda x, cos, sin: position.apply_rotary(
                x, *(y[..., :1, :] if y.ndim > 1 else y for y in (cos, sin))),
        ),
        known(
            "added", "The rotation is added to x. It takes the place of x.",
            lambda x, cos, sin: x + position.apply_rotary(x, cos, sin),
        ),
        known(
            "twice", "It is rotated by twice the angle.",
            rotate_as(lambda angle: 2 * angle),
        ),
        known(
            "cos-and-sin-again",
            "cos and sin are taken of cos and sin. The arguments are the cosines and sines "
            "themselves.",
            lambda x, cos, sin: position.apply_rotary(x, torch.cos(cos), torch.sin(sin)),
        ),
        known(
            "another-type", "The numbers come back in another type than that of x.",
            lambda x, cos, sin: position.apply_rotary(x, cos, sin).float(),
        ),
    ],
    hints=(
        "Each pair of channels is a point in the plane. Rotate it by its angle.",
        "Cut x into two halves: a holds the first channel of each pair, b the second.",
        "a becomes a cos - b sin, b becomes a sin + b cos. Concatenate the two halves.",
    ),
)  # fmt: skip
