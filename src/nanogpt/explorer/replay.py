"""A training, watched again: what every snapshot of a run makes of one text.

A frame is all that the page draws at one step, so that moving the slider asks nobody for anything.
"""

import base64
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from nanogpt.config import SampleConfig
from nanogpt.errors import UserError
from nanogpt.explorer.remote import check_ids
from nanogpt.explorer.runs import Run
from nanogpt.generation.reader import Reader
from nanogpt.generation.stream import stream
from nanogpt.lab.circuit import LENGTH
from nanogpt.lab.heads import score_heads
from nanogpt.model.gpt import GPT
from nanogpt.model.trace import record
from nanogpt.text.tokenizer import BaseTokenizer

MOST_CELLS = 2**21  # of attention in one frame: 4 MB, times the number of snapshots
LIKELIEST = 8  # tokens that are told at each position
SAMPLE = SampleConfig(max_new_tokens=56)  # with one seed, so that only the weights differ
WHOLE = 2**16 - 1  # an attention weight of 1; the page's error is half a step, 8e-6


def replay(
    run: Run, ids: Sequence[int], steps: Sequence[int] | None = None
) -> Iterator[dict[str, Any]]:
    """The frames of a text at these snapshots, or at all, in order; see `frame`.

    Raises UserError, before the first frame, for a text or a step that does not exist.
    """
    taken = run.steps()
    if not taken:
        raise UserError(f"{run.name} has no snapshots; train it with --train.snapshots 12")
    wanted = taken if steps is None else sorted(set(steps))
    for step in wanted:
        run.snapshot(step)
    with run.lock:
        model = run.model(wanted[0]) if wanted else run.model()
    check_ids(model, ids)
    config = model.config
    if config.n_layer * config.n_head * len(ids) ** 2 > MOST_CELLS:
        raise UserError(f"a text of {len(ids)} tokens is too long to watch: use a shorter one")
    return (frame(run, ids, step) for step in wanted)


def frame(run: Run, ids: Sequence[int], step: int) -> dict[str, Any]:
    """One moment: attention weights (n_layer, nh, T, T), predictions, a sample, head scores.

    `attention` is base64 of 16-bit numbers, little-endian, of which WHOLE means 1. `likeliest` has
    for each position the likeliest next tokens with their probabilities, `next` the probability of
    the token that does come next, (T-1).
    """
    with run.lock, torch.no_grad():
        model, tokenizer = run.open(step)
        with record(model, "h.*.attn.weights") as seen:
            logits = model(torch.tensor([[*ids]], device=model.device))[0]
        weights = torch.cat(list(seen.values()))
        probabilities = logits.float().softmax(-1)
        values, tokens = probabilities.topk(min(LIKELIEST, len(tokenizer.vocabulary)))
        following = torch.tensor([*ids[1:]], dtype=torch.long, device=model.device)[:, None]
        return {
            "step": step,
            "ids": [*ids],
            "shape": [*weights.shape],
            "attention": packed(weights),
            "likeliest": [
                [[token, p] for token, p in zip(*row, strict=True)]
                for row in zip(tokens.tolist(), values.tolist(), strict=True)
            ],
            "next": probabilities[:-1].gather(-1, following)[:, 0].tolist(),
            "sample": continued(model, tokenizer, ids),
            "scores": scores_at(run, step, run.snapshot(step).stat().st_mtime_ns),
        }


def packed(weights: Tensor) -> str:
    """Numbers from 0 to 1 in 16 bits each, as base64; what is beyond is drawn like the end."""
    whole = (weights.float().cpu().clamp(0, 1) * WHOLE).round().to(torch.int32)
    return base64.b64encode(whole.numpy().astype("<u2").tobytes()).decode()


def continued(model: GPT, tokenizer: BaseTokenizer, ids: Sequence[int]) -> str:
    """What the model writes after the text."""
    pieces = stream(Reader(model, [[*ids]]), tokenizer, SAMPLE)
    return "".join(piece.text for piece in pieces)


@lru_cache(maxsize=256)
def scores_at(run: Run, step: int, changed: int) -> dict[str, list[list[float]]]:
    """The scores of all heads at a snapshot, by habit (n_layer, nh); see lab/heads.py.

    Empty for a model that is too small for them. `changed` says when the file was written: another
    training in the same folder has other scores.
    """
    model, tokenizer = run.open(step)
    try:
        heads = score_heads(model, tokenizer, LENGTH)
    except UserError:
        return {}
    return {habit: scores.tolist() for habit, scores in heads.scores.items()}
