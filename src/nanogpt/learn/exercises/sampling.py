"""The exercise about sampling: top-k."""

import math
from typing import Any

import torch
from torch import Tensor

from nanogpt.generation import sampling
from nanogpt.learn.exercise import Exercise, Mistake
from nanogpt.learn.exercises.known import known, numbers
from nanogpt.learn.exercises.tasks import TASKS


def top_k_cases() -> list[tuple[Any, ...]]:
    return [
        (torch.tensor([[1.0, 3.0, 2.0]]), 1),
        (torch.tensor([[1.0, 3.0, 2.0]]), 2),
        (torch.tensor([[1.0, 3.0, 2.0]]), 0),
        (torch.tensor([[1.0, 3.0, 2.0]]), 3),
        (torch.tensor([[1.0, 3.0, 2.0]]), 9),
        (torch.tensor([[2.0, 1.0, 2.0, 2.0]]), 2),  # a tie with the second
        (torch.tensor([[-5.0, -4.0, -6.0]]), 1),
        (numbers(3, 8), 3),
        (torch.tensor([[-5.0, -4.0, -6.0]]), 2),
        (torch.tensor([[1.0, 3.0, 2.0], [7.0, 8.0, 9.0]]), 0),
        (numbers(2, 5), 5),
        (numbers(2, 5), 4),
        (torch.tensor([[1.0, -math.inf, 2.0, 0.0]]), 2),  # another filter came before
        (torch.tensor([[3.0, 3.0, 3.0]]), 1),
        (numbers(3, 3, seed=2), 2),
        (1e5 * numbers(2, 4, seed=3) - 1e6, 2),
    ]


def top_k_with(hidden: float = -math.inf, ties: bool = True, wrong_k: Any = None) -> Any:
    """A top-k that does one thing differently."""

    def kept(logits: Tensor, k: int) -> Tensor:
        if k == 0 or k >= logits.shape[-1]:
            return wrong_k(logits, k) if wrong_k else logits
        top = logits.topk(k)
        if ties:
            return torch.where(logits < top.values[:, -1:], hidden, logits)
        return torch.full_like(logits, hidden).scatter(-1, top.indices, top.values)

    return kept


def smallest_k(logits: Tensor, k: int) -> Tensor:
    return -sampling.keep_top_k(-logits, k)


def top_k_of_all(logits: Tensor, k: int) -> Tensor:
    if k == 0 or k >= logits.shape[-1]:
        return logits
    return logits.masked_fill(logits < logits.flatten().topk(k).values[-1], -math.inf)


def above_the_kth(logits: Tensor, k: int) -> Tensor:
    if k == 0 or k >= logits.shape[-1]:
        return logits
    return logits.masked_fill(logits <= logits.topk(k).values[:, -1:], -math.inf)


def unchecked_k(logits: Tensor, k: int) -> Tensor:
    return logits.masked_fill(logits < logits.topk(k).values[:, -1:], -math.inf) if k else logits


def top_k_by(
    least: Any = lambda x, k: x.topk(k).values[:, -1:],
    ruled_out: Any = lambda x, least: x < least,
    hidden: Any = -math.inf,
    none: Any = lambda x, k: k == 0 or k >= x.shape[-1],
    finished: Any = lambda x: x,
) -> Any:
    """A top-k of other parts."""

    def kept(logits: Tensor, k: int) -> Any:
        if none(logits, k):
            return finished(logits)
        return finished(logits.masked_fill(ruled_out(logits, least(logits, k)), hidden))

    return kept


TOP_K = Exercise(
    name="top-k",
    title="Rule out all but the k likeliest tokens.",
    task=TASKS["top-k"],
    reference=sampling.keep_top_k,
    cases=top_k_cases,
    gradients=(),  # nobody learns through a choice
    lesson=5,
    mistakes=[
        Mistake(
            "ties-dropped",
            "Some tokens as likely as the k-th are ruled out, and their ids decide which. Keep all "
            "tokens that are not below the k-th.",
            top_k_with(ties=False),
        ),
        Mistake(
            "kth-ruled-out", "The k-th itself is ruled out: compare with <, not with <=.",
            above_the_kth,
        ),
        Mistake(
            "hidden-as-zero",
            "Logits that are ruled out become 0. A logit of 0 still has a probability, and "
            "negative logits even gain. Set them to minus infinity.",
            top_k_with(hidden=0.0),
        ),
        Mistake(
            "small-number",
            "Logits that are ruled out get a large negative number. Only minus infinity has the "
            "probability 0.",
            top_k_with(hidden=-1e9),
        ),
        Mistake(
            "smaller-number",
            "Logits that are ruled out get a large negative number. Only minus infinity has the "
            "probability 0.",
            top_k_with(hidden=-1e4),
        ),
        Mistake(
            "k-of-zero",
            "k = 0 rules out tokens. It switches top-k off: keep all of them.",
            top_k_with(wrong_k=lambda x, k: x if k else torch.full_like(x, -math.inf)),
        ),
        Mistake(
            "k-too-large",
            "A k larger than the vocabulary raises an error. Keep all tokens then.",
            unchecked_k,
        ),
        Mistake("smallest", "It keeps the k least likely tokens.", smallest_k),
        Mistake(
            "over-all-rows",
            "It keeps the k likeliest tokens of the whole batch. Keep k tokens in each row.",
            top_k_of_all,
        ),
        known(
            "one-too-many", "One token too many is kept: the threshold is the (k + 1)-th.",
            top_k_by(lambda x, k: x.topk(k + 1).values[:, -1:]),
            top_k_by(lambda x, k: x.sort(descending=True).values[:, k : k + 1],
                     none=lambda x, k: k == 0 or k >= x.shape[-1]),
            top_k_by(lambda x, k: x.topk(min(k + 1, x.shape[-1])).values[:, -1:],
                     none=lambda x, k: k == 0),
        ),
        known(
            "one-too-few", "One token too few is kept: the threshold is the (k - 1)-th.",
            top_k_by(lambda x, k: x.topk(max(1, k - 1)).values[:, -1:]),
            top_k_by(lambda x, k: x.topk(k).values[:, [max(0, k - 2)]]),
            top_k_by(lambda x, k: x.topk(k).values[:, [k - 2]]),
        ),
        known(
            "first-row-for-all",
            "The threshold of the first row is used for all rows. Each row has its own.",
            top_k_by(lambda x, k: x.topk(k).values[0, -1]),
        ),
        known(
            "largest-for-threshold",
            "The threshold is the largest logit, so one token is left. The k-th of the sorted "
            "values is the last: values[:, -1:].",
            top_k_by(lambda x, k: x.topk(k).values[:, :1]),
            top_k_by(lambda x, k: x.amax(-1, keepdim=True)),
        ),
        known(
            "kth-smallest",
            "The threshold is the k-th smallest logit. Sort from the largest: topk does.",
            top_k_by(lambda x, k: x.sort().values[:, k - 1 : k]),
            top_k_by(lambda x, k: x.sort().values[:, k : k + 1]),
        ),
        known(
            "no-last-axis",
            "The thresholds have lost their last axis, so they belong to the wrong numbers or do "
            "not fit. Keep an axis of 1: values[:, -1:].",
            top_k_by(lambda x, k: x.topk(k).values[:, -1]),
        ),
        known(
            "k-of-zero",
            "k = 0 is not treated. k = 0 switches top-k off: keep all tokens.",
            top_k_by(none=lambda x, k: k >= x.shape[-1]),
            top_k_by(lambda x, k: x.sort(descending=True).values[:, k - 1 : k],
                     none=lambda x, k: k >= x.shape[-1]),
            top_k_by(lambda x, k: x.topk(k).values[:, -1].unsqueeze(-1),
                     none=lambda x, k: k >= x.shape[-1]),
            top_k_by(lambda x, k: x.topk(max(k, 1)).values[:, -1:],
                     none=lambda x, k: k >= x.shape[-1]),
            top_k_by(lambda x, k: x.topk(max(1, min(k, x.shape[-1]))).values[:, -1:],
                     none=lambda x, k: False),
        ),
        known(
            "k-not-checked",
            "Neither k = 0 nor a k above the vocabulary is treated. Keep all tokens in both cases.",
            top_k_by(none=lambda x, k: False),
            top_k_by(lambda x, k: x.topk(k).values[:, -1].unsqueeze(-1), none=lambda x, k: False),
        ),
        known(
            "k-too-large",
            "A k larger than the vocabulary raises an error. Keep all tokens then.",
            top_k_by(lambda x, k: x.sort(descending=True).values[:, k - 1].unsqueeze(-1),
                     none=lambda x, k: k == 0),
            top_k_by(lambda x, k: x.sort(descending=True).values[:, k - 1 : k],
                     none=lambda x, k: k == 0),
            top_k_by(lambda x, k: x.kthvalue(x.shape[-1] - k + 1, keepdim=True).values,
                     none=lambda x, k: k == 0),
        ),
        known(
            "small-number",
            "Logits that are ruled out get a large negative number. Only minus infinity has the "
            "probability 0.",
            *(top_k_by(hidden=number) for number in (
                -1e10, -1e8, -1e6, -1e5, -1000.0, -100.0, -999.0, -99999.0, -1e12, -1e20, -1e30,
                torch.finfo(torch.float32).min,
            )),
        ),
        known(
            "not-a-number", "Logits that are ruled out become nan. Set them to minus infinity.",
            top_k_by(hidden=math.nan),
            lambda x, k: x if k == 0 or k >= x.shape[-1] else x * torch.where(
                x < x.topk(k).values[:, -1:], -math.inf, 1.0),
        ),
        known(
            "the-likeliest-ruled-out",
            "The likeliest tokens are ruled out. It should be the other way round: rule out what "
            "is below the k-th.",
            top_k_by(ruled_out=lambda x, least: x >= least),
            top_k_by(ruled_out=lambda x, least: x > least),
        ),
        known(
            "only-the-kth", "Only the k-th itself is left. Keep all that are not below it.",
            top_k_by(ruled_out=lambda x, least: x != least),
        ),
        known(
            "values-alone",
            "It gives the k largest logits alone. Give all logits, (B, V), with minus infinity "
            "where a token is ruled out.",
            lambda x, k: x if k == 0 else x.topk(min(k, x.shape[-1])).values,
            lambda x, k: x if k == 0 else x.topk(k).values,
            lambda x, k: x if k == 0 or k >= x.shape[-1] else x.topk(k).values,
        ),
        known(
            "ids-for-logits", "It gives the ids of the tokens. Give all logits.",
            lambda x, k: x if k == 0 or k >= x.shape[-1] else x.topk(k).indices,
        ),
        known(
            "a-mask", "It gives a mask. Give the logits, with minus infinity where it hides.",
            lambda x, k: x if k == 0 or k >= x.shape[-1] else x >= x.topk(k).values[:, -1:],
        ),
        known(
            "probabilities",
            "It gives probabilities. Give the logits; the sampler does the softmax.",
            top_k_by(finished=lambda x: torch.softmax(x, -1)),
            lambda x, k: x if k == 0 or k >= x.shape[-1] else torch.softmax(
                sampling.keep_top_k(x, k), -1),
        ),
        known(
            "sorted", "The logits come back sorted. Each token keeps its place.",
            top_k_by(finished=lambda x: x.sort(descending=True).values),
        ),
        known(
            "over-the-rows",
            "It ranks the rows of the batch and not the tokens. Use the last axis.",
            lambda x, k: x if k == 0 or k >= x.shape[-1] else sampling.keep_top_k(
                x.T, min(k, len(x))).T,
        ),
        known(
            "everything-kept", "Nothing is ruled out.", lambda x, k: x,
        ),
    ],
    hints=(
        "Find the k-th largest logit of each row. Everything below it is ruled out.",
        "logits.topk(k).values is sorted, the largest first. Keep a last axis of 1, so that the "
        "k-th logit broadcasts over its row.",
        "masked_fill(logits < kth, -math.inf). Before that, return the logits as they are for "
        "k = 0, and for k >= V.",
    ),
)  # fmt: skip
