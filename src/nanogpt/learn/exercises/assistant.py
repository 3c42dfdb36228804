"""Exercises about assistants: what counts in a conversation, the advantage of a group, LoRA."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from nanogpt.config import IGNORED
from nanogpt.learn.exercise import Exercise
from nanogpt.learn.exercises.known import known, numbers
from nanogpt.learn.exercises.tasks import TASKS
from nanogpt.model.lora import lora
from nanogpt.text.conversations import answers_only
from nanogpt.training.objective.policy import advantages

Ids = NDArray[np.int64]
SYSTEM, USER, ASSISTANT, END = 6, 7, 8, 9  # in the cases; 0 ends a document


def dialogue(*rows: str, assistant: int = ASSISTANT, end: int = END) -> tuple[Any, ...]:
    """Rows of tokens, one digit each, as ids and targets; what is asked for, and its ends."""
    ids = np.array([[int(token) for token in row] for row in rows])
    return ids[:, :-1], ids[:, 1:], assistant, end


def padded(row: str, padding: int) -> tuple[Any, ...]:
    """A conversation with padding, whose targets are ignored already."""
    ids, targets, *marks = dialogue(row + "0" * padding)
    targets[:, -padding:] = IGNORED
    return ids, targets, *marks


def random_dialogue() -> tuple[Any, ...]:
    """Three rows in which anything may follow anything."""
    tokens = np.random.default_rng(0).choice([1, 2, SYSTEM, USER, ASSISTANT, END], (3, 24))
    return tokens[:, :-1], tokens[:, 1:], ASSISTANT, END


def answers_cases() -> list[tuple[Any, ...]]:
    return [
        dialogue("719839"),
        dialogue("71298349"),
        dialogue("71983"),  # the window ends inside of the answer
        dialogue("7198397298449"),  # two questions
        dialogue("3397198490"),  # the window begins inside of a message
        dialogue("1297198490"),
        dialogue("71297129"),  # nobody answers
        dialogue("6197298390719849"),  # a system message, and another document
        dialogue("7198397298449", "3397198440719", "8397198397129"),
        padded("719839", 3),
        dialogue("7198945"),  # an empty answer
        dialogue("839849719"),  # two answers in a row
        dialogue("719839", "712983", assistant=3, end=8),
        dialogue("2012203120", assistant=0, end=1),
        random_dialogue(),
    ]


def spoken(ids: Ids, assistant: int, end: int) -> NDArray[np.bool_]:
    """Where the assistant speaks in the next place: (B, T)."""
    return answers_only(ids, np.ones_like(ids), assistant, end) == 1


def marked(
    mask: Callable[[Ids, Ids, int, int], Any], other: int = IGNORED
) -> Callable[..., NDArray[Any]]:
    """A solution with another idea of which targets count, or of what stands for the others."""

    def answers(ids: Ids, targets: Ids, assistant: int, end: int) -> NDArray[Any]:
        return np.where(mask(ids, targets, assistant, end), targets, other)

    return answers


def among_answers(keep: Callable[[NDArray[Any], int], Any]) -> Callable[..., Any]:
    """A mask that keeps some of a row's answers, chosen by their number."""

    def mask(ids: Ids, targets: Ids, assistant: int, end: int) -> Any:
        inside = spoken(ids, assistant, end)
        number = np.cumsum(inside & ~np.pad(inside, ((0, 0), (1, 0)))[:, :-1], axis=1)
        return inside & keep(number, number.max(axis=1, keepdims=True))

    return mask


def from_the_start(ids: Ids, targets: Ids, assistant: int, end: int) -> Any:
    """What stands before the first mark of a row counts, too."""
    marks = np.cumsum((ids == assistant) | (ids == end), axis=1)
    return spoken(ids, assistant, end) | (marks == 0)


def rows_joined(ids: Ids, targets: Ids, assistant: int, end: int) -> Any:
    """Who speaks at the end of a row is taken to speak at the start of the next."""
    return spoken(ids.reshape(1, -1), assistant, end).reshape(ids.shape)


def later(mask: Any) -> Any:
    """The same one place later."""
    return np.pad(mask, ((0, 0), (1, 0)))[:, :-1]


ANSWERS_ONLY = Exercise(
    name="answers-only",
    title="The targets of a conversation that count: what the assistant says.",
    task=TASKS["answers-only"],
    reference=answers_only,
    cases=answers_cases,
    lesson=19,
    played=False,
    mistakes=[
        known(
            "all-count",
            "Every target counts. The model would also learn to ask questions as users do.",
            marked(lambda ids, targets, assistant, end: True),
        ),
        known(
            "end-ignored",
            "The end of an answer does not count, so the model never learns to stop. The target "
            "`end` is the last one that the assistant says.",
            marked(lambda ids, targets, a, e: spoken(ids, a, e) & (targets != e)),
        ),
        known(
            "role-counts",
            "The target `assistant` counts, too. The program writes it to ask for an answer; the "
            "model need not predict it.",
            marked(lambda ids, targets, a, e: spoken(ids, a, e) | (targets == a)),
        ),
        known(
            "from-targets",
            "The places are those of the marks among the targets, which stand one place earlier. "
            "So `assistant` itself counts, and `end` does not. Look for the marks in ids.",
            marked(lambda ids, targets, a, e: spoken(targets, a, e)),
        ),
        known(
            "first-token-lost",
            "The first token of each answer does not count. Its input is `assistant` itself: what "
            "is predicted after `assistant` belongs to the answer.",
            marked(lambda ids, targets, a, e: spoken(ids, a, e) & (ids != a)),
        ),
        known(
            "one-too-late",
            "The marks are right, but one place late: the first token of an answer is missing, and "
            "the one after its `end` counts.",
            marked(lambda ids, targets, a, e: later(spoken(ids, a, e))),
        ),
        known(
            "one-too-many",
            "What follows the `end` of an answer counts as well. At the input `end` the answer is "
            "over.",
            marked(lambda ids, targets, a, e: spoken(ids, a, e) | later(spoken(ids, a, e))),
        ),
        known(
            "questions-count",
            "It is the other way round: all but the answers counts.",
            marked(lambda ids, targets, a, e: ~spoken(ids, a, e)),
        ),
        known(
            "never-ends",
            "After the first answer all that follows counts, the next question included. An answer "
            "is over at its `end`.",
            marked(lambda ids, targets, a, e: np.cumsum(ids == a, axis=1) > 0),
        ),
        known(
            "first-answer-only",
            "Only the first answer of a row counts. A conversation may have several.",
            marked(among_answers(lambda number, last: number == 1)),
        ),
        known(
            "last-answer-only",
            "Only the last answer of a row counts. All of them were said by the assistant.",
            marked(among_answers(lambda number, last: number == last)),
        ),
        known(
            "start-counts",
            "What a window shows before its first mark counts. A window may begin inside of a "
            "question: nobody knows who speaks there.",
            marked(from_the_start),
        ),
        known(
            "rows-joined",
            "A row goes on with the speaker of the row before. The rows of a batch have nothing to "
            "do with each other.",
            marked(rows_joined),
        ),
        known(
            "ignored-as-zero",
            "Targets that do not count are 0, but 0 is a token. Use -100: the loss ignores it.",
            marked(lambda ids, targets, a, e: spoken(ids, a, e), other=0),
        ),
        known(
            "ignored-as-minus-one",
            "Targets that do not count are -1. Use -100: the loss ignores it.",
            marked(lambda ids, targets, a, e: spoken(ids, a, e), other=-1),
        ),
        known(
            "ids-for-targets",
            "The result holds ids where targets are asked for: each is one place too early.",
            lambda ids, targets, a, e: np.where(spoken(ids, a, e), ids, IGNORED),
        ),
        known(
            "a-mask",
            "That is True where a target counts. Give the targets, with -100 where they do not.",
            lambda ids, targets, a, e: spoken(ids, a, e),
            lambda ids, targets, a, e: spoken(ids, a, e).astype(np.int64),
        ),
    ],
    hints=(
        "Go through a row from left to right with one variable that says whether the assistant "
        "speaks. One id switches it on, and one id switches it off.",
        "The target at a place is the token after it. So at the place of `assistant` the target "
        "is the first token of the answer, and at the place of `end` it is not the assistant's.",
        "For each row: speaking = False; for each place: if ids is assistant, speaking = True; if "
        "ids is end, speaking = False; then the target stays if speaking, else it is -100. With "
        "np.maximum.accumulate over the places of each mark it goes without a loop.",
    ),
)


def advantage_cases() -> list[tuple[Any, ...]]:
    mixed, flat = torch.tensor([1.0, 0.0, 0.0, 0.0]), torch.ones(4)
    return [
        (torch.tensor([1.0, 0.0]), 2),
        (mixed, 4),
        (flat, 4),
        (torch.cat([mixed, flat]), 4),
        (torch.tensor([11.0, 10.0, 10.0, 11.0]), 2),
        (torch.tensor([0.0, 3.0, -1.0, -2.0, 5.0, 0.0]), 3),
        (numbers(12), 3),
        (numbers(12, seed=1), 4),
        (numbers(8, seed=2), 8),
        (mixed, 4, True),
        (flat, 4, True),
        (torch.cat([mixed, 2 * flat]), 4, True),
        (numbers(12, seed=3), 3, True),
        (numbers(12, seed=4, scale=5.0), 6, True),
        (numbers(12, seed=5), 6, False),
    ]


def other_advantage(
    baseline: Callable[[Tensor], Any] = lambda groups: groups.mean(1, keepdim=True),
    spread: Callable[[Tensor], Any] = lambda groups: groups.std(1, keepdim=True) + 1e-4,
    when: Callable[[bool], bool] = lambda normalize: normalize,
    cut: Callable[[Tensor, int], Tensor] = lambda rewards, size: rewards.view(-1, size),
    finish: Callable[[Tensor], Tensor] = Tensor.flatten,
) -> Callable[..., Tensor]:
    """Advantages that take away, divide by, or group by something else."""

    def advantage(rewards: Tensor, group_size: int, normalize: bool = False) -> Tensor:
        groups = cut(rewards, group_size)
        better = groups - baseline(groups)
        return finish(better / spread(groups) if when(normalize) else better)

    return advantage


def across(rewards: Tensor, group_size: int, normalize: bool = False) -> Tensor:
    """Every n-th answer makes a group, as if the questions came in turns."""
    turned = rewards.view(group_size, -1).T.flatten()
    found = advantages(turned, group_size, normalize)
    return found.view(-1, group_size).T.flatten()


def baseline_only(rewards: Tensor, group_size: int, normalize: bool = False) -> Tensor:
    """The mean of the group in place of each reward."""
    return rewards.view(-1, group_size).mean(1).repeat_interleave(group_size)


ADVANTAGE = Exercise(
    name="advantage",
    title="How much better an answer is than its group.",
    task=TASKS["advantage"],
    reference=advantages,
    cases=advantage_cases,
    gradients=(),  # no gradient passes through a reward
    lesson=19,
    played=False,
    mistakes=[
        known(
            "rewards-as-they-are",
            "These are the rewards. Take away the mean of each group.",
            other_advantage(baseline=lambda groups: 0, when=lambda normalize: False),
        ),
        known(
            "mean-of-all",
            "The mean of all rewards is taken away. A hard question would then be punished for "
            "being hard: compare each answer with those to the same question.",
            other_advantage(baseline=lambda groups: groups.mean()),
        ),
        known(
            "groups-across",
            "The groups are every n-th answer. The answers to one question follow each other: with "
            "groups of 4, the first four belong together.",
            across,
            other_advantage(cut=lambda rewards, size: rewards.view(size, -1)),
        ),
        known(
            "sign",
            "The sign is wrong: what is better than its group gets a negative number.",
            other_advantage(baseline=lambda groups: 2 * groups - groups.mean(1, keepdim=True)),
        ),
        known(
            "mean-of-the-others",
            "Each answer is compared with the mean of the others, which is n / (n - 1) times as "
            "much. That is another good method; here the mean is that of the whole group.",
            other_advantage(
                baseline=lambda groups: (
                    (groups.sum(1, keepdim=True) - groups) / (groups.shape[1] - 1)
                )
            ),
        ),
        known(
            "sum-for-mean",
            "The sum of the group is taken away. Take its mean.",
            other_advantage(baseline=lambda groups: groups.sum(1, keepdim=True)),
        ),
        known(
            "best-for-mean",
            "The best reward of the group is taken away, so nothing is ever raised. Take the mean.",
            other_advantage(baseline=lambda groups: groups.amax(1, keepdim=True)),
        ),
        known(
            "median-for-mean",
            "The median of the group is taken away. Take the mean.",
            other_advantage(baseline=lambda groups: groups.median(1, keepdim=True).values),
            other_advantage(baseline=lambda groups: groups.quantile(0.5, 1, keepdim=True)),
        ),
        known(
            "baseline-only",
            "That is the mean of each group. The advantage is the reward minus this mean.",
            baseline_only,
        ),
        known(
            "always-normalized",
            "It divides by the standard deviation always. Do it only with `normalize`.",
            other_advantage(when=lambda normalize: True),
        ),
        known(
            "never-normalized",
            "`normalize` is not used: with it, divide by the standard deviation of the group.",
            other_advantage(when=lambda normalize: False),
        ),
        known(
            "standard-deviation-of-n",
            "The standard deviation divides by n. Here it is torch's default, which divides by "
            "n - 1.",
            other_advantage(spread=lambda groups: groups.std(1, keepdim=True, correction=0) + 1e-4),
        ),
        known(
            "zero-divided-by-zero",
            "A group of equal rewards has a standard deviation of 0, and 0 / 0 is not a number. "
            "Add 0.0001 to the standard deviation.",
            other_advantage(spread=lambda groups: groups.std(1, keepdim=True)),
        ),
        known(
            "variance",
            "It divides by the variance. The standard deviation is its root.",
            other_advantage(spread=lambda groups: groups.var(1, keepdim=True) + 1e-4),
        ),
        known(
            "spread-of-all",
            "It divides by the standard deviation of all rewards. Take that of each group.",
            other_advantage(spread=lambda groups: groups.std() + 1e-4),
        ),
        known(
            "in-groups",
            "The numbers are right, but the result has a row for each group. Give one number for "
            "each answer: (N).",
            other_advantage(finish=lambda better: better),
        ),
    ],
    hints=(
        "Work it out for the rewards 1, 0, 0, 0 of one question: the mean is 0.25.",
        "rewards.view(-1, group_size) has one row for each question. Take the mean of each row, "
        "with keepdim=True, so that it can be taken away from the row.",
        "better = groups - groups.mean(dim=1, keepdim=True). With normalize, divide by "
        "groups.std(dim=1, keepdim=True) + 1e-4. Then better.flatten().",
    ),
)


def lora_cases() -> list[tuple[Any, ...]]:
    def case(
        shape: Sequence[int], outputs: int, rank: int, scale: float, bias: bool = True
    ) -> tuple[Any, ...]:
        inputs = shape[-1]
        return (
            numbers(*shape), numbers(outputs, inputs, seed=1),
            numbers(outputs, seed=2) if bias else None,
            numbers(rank, inputs, seed=3), numbers(outputs, rank, seed=4), scale,
        )  # fmt: skip

    x, a, b = torch.tensor([1.0, 2.0]), torch.tensor([[1.0, 1.0]]), torch.tensor([[0.0], [1.0]])
    start = case((1, 3), 4, 2, 2.0)
    return [
        (x, torch.eye(2), None, a, b, 10.0),
        (x, torch.eye(2), torch.tensor([100.0, 200.0]), a, b, 0.5),
        (*start[:4], 0 * start[4], 2.0),  # as training begins
        case((2, 3), 4, 2, 2.0),
        case((2, 3, 5), 4, 2, 0.5),
        case((2, 3, 4), 4, 2, 3.0),  # a square matrix
        case((2, 3, 4), 4, 2, 3.0, bias=False),
        case((2, 4), 4, 4, 2.0),
        case((1, 2, 6), 3, 1, 1.0, bias=False),
        case((2, 7), 5, 3, 0.25),
    ]


Part = Callable[..., Any]  # of x, weight, bias, a, b and scale


def corrected(
    correction: Part = lambda x, w, bias, a, b, s: s * F.linear(F.linear(x, a), b),
    plain: Part = lambda x, w, bias, a, b, s: F.linear(x, w, bias),
) -> Callable[..., Any]:
    """A linear layer with another correction, or a correction of something else."""

    def layer(
        x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float
    ) -> Any:
        given = x, weight, bias, a, b, scale
        return plain(*given) + correction(*given)

    return layer


def with_activation(activation: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
    """A correction with a function between its two matrices."""
    return corrected(lambda x, w, bias, a, b, s: s * F.linear(activation(F.linear(x, a)), b))


def after_the_layer(
    x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float
) -> Tensor:
    """The thin matrices read the result of the layer."""
    y = F.linear(x, weight, bias)
    return y + scale * F.linear(F.linear(y, a), b)


LORA = Exercise(
    name="lora",
    title="A frozen linear layer, and a correction of low rank beside it.",
    task=TASKS["lora"],
    reference=lora,
    cases=lora_cases,
    lesson=19,
    played=False,
    mistakes=[
        known(
            "not-scaled",
            "The correction is not multiplied by `scale`.",
            corrected(lambda x, w, bias, a, b, s: F.linear(F.linear(x, a), b)),
        ),
        known(
            "all-scaled",
            "`scale` multiplies the frozen layer, too. Only the correction is scaled.",
            corrected(plain=lambda x, w, bias, a, b, s: s * F.linear(x, w, bias)),
        ),
        known(
            "scale-divided-by-rank",
            "`scale` is divided by the rank. It is alpha / rank already.",
            corrected(lambda x, w, bias, a, b, s: s / len(a) * F.linear(F.linear(x, a), b)),
        ),
        known(
            "scaled-twice",
            "`scale` is in it twice: once is enough.",
            corrected(lambda x, w, bias, a, b, s: s * F.linear(s * F.linear(x, a), b)),
        ),
        known(
            "bias-forgotten",
            "The bias of the layer is missing.",
            corrected(plain=lambda x, w, bias, a, b, s: F.linear(x, w)),
        ),
        known(
            "bias-in-the-correction",
            "The bias is added in the correction, too. It belongs to the frozen layer, once.",
            corrected(lambda x, w, bias, a, b, s: s * F.linear(F.linear(x, a), b, bias)),
        ),
        known(
            "bias-scaled",
            "The bias is multiplied by `scale`. It belongs to the frozen layer.",
            corrected(
                lambda x, w, bias, a, b, s: s * F.linear(F.linear(x, a), b, bias),
                lambda x, w, bias, a, b, s: F.linear(x, w),
            ),
        ),
        known(
            "bias-of-none",
            "It adds a bias where there is none: `bias` may be None.",
            corrected(plain=lambda x, w, bias, a, b, s: x @ w.T + bias),
        ),
        known(
            "layer-forgotten",
            "That is the correction alone. It is added to what the frozen layer gives.",
            corrected(plain=lambda x, w, bias, a, b, s: 0),
            corrected(plain=lambda x, w, bias, a, b, s: 0 if bias is None else bias),
        ),
        known(
            "correction-forgotten",
            "That is the frozen layer alone. Add scale times B (A x).",
            corrected(lambda x, w, bias, a, b, s: 0 * (F.linear(F.linear(x, a), b))),
        ),
        known(
            "subtracted",
            "The correction is subtracted. Add it.",
            corrected(lambda x, w, bias, a, b, s: -s * F.linear(F.linear(x, a), b)),
        ),
        known(
            "a-and-b-swapped",
            "x meets B first, and A afterwards. A reads x and makes a few numbers of it; B makes "
            "the result of these.",
            corrected(lambda x, w, bias, a, b, s: s * x @ b @ a),
        ),
        known(
            "after-the-layer",
            "The thin matrices read the result of the layer. They stand beside it and read x.",
            after_the_layer,
        ),
        known(
            "with-an-activation",
            "There is an activation function between A and B. Without one, B A is a matrix that "
            "can be merged into W.",
            with_activation(F.relu),
            with_activation(F.gelu),
            with_activation(lambda x: F.gelu(x, approximate="tanh")),
            with_activation(F.silu),
            with_activation(torch.tanh),
        ),
    ],
    hints=(
        "Two paths lead from x to the result. One is the layer as it was: W x + bias. The other "
        "goes through A, then through B.",
        "F.linear(x, a) multiplies the last axis of x by the rows of A: (..., in) becomes "
        "(..., r). F.linear with b brings it to (..., out).",
        "F.linear(x, weight, bias) + scale * F.linear(F.linear(x, a), b).",
    ),
)
