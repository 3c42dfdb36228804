"""Exercises about many machines: all-reduce, the average of gradients, a divided MLP."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nanogpt.learn.answers import Answer
from nanogpt.learn.collectives import (
    all_gather,
    all_reduce,
    copied,
    gathered,
    reduce_scatter,
    summed,
)
from nanogpt.learn.exercise import Exercise
from nanogpt.learn.exercises.known import known, numbers
from nanogpt.learn.exercises.tasks import TASKS
from nanogpt.learn.machines import average_gradients, parallel_mlp
from nanogpt.learn.ranks import Ran, Rank, RankError, run_ranks
from nanogpt.model.layers import gelu

SECONDS = 5.0  # a rank that computes for longer is in an endless loop


def on_ranks(size: int, function: Callable[[Rank], Any]) -> Ran:
    """Run a candidate on all ranks. Raises its own error where one of them raises one."""
    try:
        return run_ranks(size, function, SECONDS)
    except RankError as error:
        if error.__cause__ is not None:
            raise error.__cause__ from None
        raise


def by_rank(results: Sequence[Any]) -> dict[str, Any]:
    """What each rank gave, by its name."""
    return {f"rank {number}": result for number, result in enumerate(results)}


def drive_all_reduce(candidate: Any, tensors: list[Tensor]) -> Answer:
    """The results of all ranks, and what to say of the bytes that they sent."""
    n, size = len(tensors), tensors[0].numel() * tensors[0].element_size()
    ran = on_ranks(n, lambda rank: candidate(tensors[rank.number], rank))
    most = max(ran.sent)
    note = f"Each of {n} ranks sent {most / max(size, 1):.3g} times its tensor: 2 (n - 1) / n, as "
    note += "in a ring. With 1,000 ranks it would still be less than 2 times."
    if most > 1.05 * size * 2 * (n - 1) / n:
        note = (
            f"The sums are right. But of {n} ranks one sent {most / size:.3g} times its tensor. A "
            f"ring needs {2 * (n - 1) / n:.3g} times: 2 (n - 1) / n. It cuts the tensor into n "
            "pieces. Each rank adds up one piece, then all pieces go around. With 1,000 ranks that "
            "is 2 times, against 999 times if the whole tensor goes to each of them."
        )
    return Answer(by_rank(ran.results), note=note)


def powers(ranks: int, *shape: int) -> list[Tensor]:
    """1, 2, 3 ... for rank 0, ten times as much for rank 1, and so on: each digit has its owner."""
    count = torch.arange(1.0, 1 + torch.Size(shape).numel()).view(shape)
    return [10.0**rank * count for rank in range(ranks)]


def random_ones(ranks: int, *shape: int, seed: int = 0) -> list[Tensor]:
    """Tensors of one shape, one for each rank."""
    return list(numbers(ranks, *shape, seed=seed))


def all_reduce_cases() -> list[tuple[Any, ...]]:
    return [
        (powers(2, 1),),
        (powers(2, 2),),
        (powers(3, 3),),
        (powers(4, 4),),
        (powers(4, 2),),  # fewer numbers than ranks
        (powers(1, 3),),
        (random_ones(2),),  # a number without axes
        (random_ones(4, 5),),
        (random_ones(3, 2, 4),),
        (random_ones(5, 2, 2, 3),),
        (random_ones(4, 30, 40),),
    ]


def exchanged(x: Tensor, rank: Rank) -> list[Tensor]:
    """The whole tensors of all ranks, in order: each sends its own to all others."""
    others = [number for number in range(rank.size) if number != rank.number]
    for other in others:
        rank.send(x, other)
    return [x if n == rank.number else rank.receive(n) for n in range(rank.size)]


def with_all(made: Callable[[list[Tensor], Tensor, Rank], Any]) -> Callable[..., Any]:
    """An all-reduce that makes something else of the tensors of all ranks."""
    return lambda x, rank: made(exchanged(x, rank), x, rank)


def total(tensors: Sequence[Tensor]) -> Tensor:
    """The sum of some tensors."""
    return torch.stack(list(tensors)).sum(0)


def around(x: Tensor, rank: Rank, rounds: int, passed: str = "received") -> Tensor:
    """Whole tensors go around the ring, for so many rounds; each rank adds what arrives."""
    found = passing = x
    for _ in range(rounds):
        rank.send(passing, (rank.number + 1) % rank.size)
        received = rank.receive((rank.number - 1) % rank.size)
        found = found + received
        passing = received if passed == "received" else found
    return found


def on_one_rank(x: Tensor, rank: Rank, others: Callable[[Tensor], Any], root: int = 0) -> Any:
    """Only one rank has the sum."""
    if rank.number != root % rank.size:
        rank.send(x, root % rank.size)
        return others(x)
    rest = [number for number in range(rank.size) if number != rank.number]
    return total([x, *(rank.receive(number) for number in rest)])


def along_a_chain(x: Tensor, rank: Rank) -> Tensor:
    """The sum grows from rank to rank and does not come back."""
    if rank.number:
        x = x + rank.receive(rank.number - 1)
    if rank.number < rank.size - 1:
        rank.send(x, rank.number + 1)
    return x


def pieces_of(x: Tensor, rank: Rank) -> tuple[Tensor, ...]:
    """The pieces of a tensor, one for each rank."""
    return x.flatten().tensor_split(rank.size)


def without_the_way_back(x: Tensor, rank: Rank) -> Tensor:
    """Each rank has one piece of the sum, and its own numbers elsewhere."""
    pieces = list(pieces_of(x, rank))
    pieces[rank.number] = reduce_scatter(pieces, rank)
    return torch.cat(pieces).view_as(x)


def joined_in_another_order(x: Tensor, rank: Rank) -> Tensor:
    """The pieces of the sum in the order in which they arrive."""
    pieces = list(pieces_of(all_reduce(x, rank), rank))
    order = [(rank.number - n) % rank.size for n in range(rank.size)]
    return torch.cat([pieces[n] for n in order]).view_as(x)


def rest_left_out(x: Tensor, rank: Rank, keep: bool) -> Tensor:
    """Pieces of equal length, so that the last numbers are in none of them."""
    length = x.numel() // rank.size * rank.size
    flat = x.flatten()
    found = all_reduce(flat[:length], rank)
    return torch.cat([found, flat[length:]]).view_as(x) if keep else found


def with_chunks(x: Tensor, rank: Rank) -> Tensor:
    """torch.chunk, which may give fewer pieces than ranks."""
    pieces = x.flatten().chunk(rank.size)
    pieces[rank.size - 1]
    return all_reduce(x, rank)


def receiving_first(x: Tensor, rank: Rank) -> Tensor:
    """Everybody waits."""
    received = rank.receive((rank.number - 1) % rank.size)
    rank.send(x, (rank.number + 1) % rank.size)
    return x + received


def not_received(x: Tensor, rank: Rank) -> Tensor:
    """One round too many of sending."""
    found = all_reduce(x, rank)
    rank.send(x, (rank.number + 1) % rank.size)
    return found


ALL_REDUCE = Exercise(
    name="all-reduce",
    title="The sum of the tensors of all ranks, on every rank, from send and receive.",
    task=TASKS["all-reduce"],
    reference=all_reduce,
    cases=all_reduce_cases,
    drive=drive_all_reduce,
    describe=lambda tensors: (
        f"{len(tensors)} rank{'s' * (len(tensors) > 1)} with "
        + (", ".join(str(x.tolist()) for x in tensors) if tensors[0].numel() < 5
           else f"tensors of shape {tuple(tensors[0].shape)}")
    ),
    lesson=18,
    mistakes=[
        known(
            "own-left-out",
            "The rank's own tensor is missing from the sum: only what arrives is added.",
            with_all(lambda xs, x, rank: total(xs) - x),
        ),
        known(
            "own-twice",
            "The rank's own tensor is in the sum twice. In a ring it comes back in round n: there "
            "are n - 1 rounds.",
            with_all(lambda xs, x, rank: total(xs) + x),
        ),
        known(
            "mean", "That is the mean. All-reduce gives the sum; who needs a mean divides it.",
            with_all(lambda xs, x, rank: total(xs) / rank.size),
        ),
        known(
            "joined",
            "The tensors are put side by side. That is an all-gather: add them up.",
            with_all(lambda xs, x, rank: torch.stack(xs)),
            with_all(lambda xs, x, rank: torch.cat([x.flatten() for x in xs])),
            with_all(lambda xs, x, rank: xs),
        ),
        known(
            "on-one-rank-only",
            "Only one rank has the sum. Every rank needs it: send it back to all of them.",
            lambda x, rank: on_one_rank(x, rank, lambda x: x),
            lambda x, rank: on_one_rank(x, rank, torch.zeros_like),
            lambda x, rank: on_one_rank(x, rank, lambda x: None),
            lambda x, rank: on_one_rank(x, rank, lambda x: x, root=-1),
        ),
        known(
            "chain-without-the-way-back",
            "The sum grows from rank to rank, and only the last one has all of it. Send it back "
            "from there.",
            along_a_chain,
        ),
        known(
            "sums-passed-on",
            "Each rank passes on its sum so far. The next rank then gets tensors that it has, "
            "and they count several times. Pass on what has just arrived.",
            lambda x, rank: around(x, rank, rank.size - 1, "found"),
        ),
        known(
            "one-round",
            "Each rank hears from its neighbour only. What arrives has to be passed on: with n "
            "ranks there are n - 1 rounds.",
            lambda x, rank: around(x, rank, 1 if rank.size > 1 else 0),
        ),
        known(
            "a-round-too-few",
            "There is one round too few. Until the tensor of every rank has reached every other, "
            "n - 1 rounds are needed.",
            lambda x, rank: around(x, rank, max(rank.size - 2, 0)),
        ),
        known(
            "no-way-back",
            "Each rank has one piece of the sum, and the other pieces are not summed. The second "
            "half is missing: the summed pieces go around once more.",
            without_the_way_back,
            lambda x, rank: reduce_scatter(pieces_of(x, rank), rank),
        ),
        known(
            "pieces-in-another-order",
            "The pieces of the sum are joined in the order of their arrival. Piece i belongs to "
            "place i, on every rank.",
            joined_in_another_order,
        ),
        known(
            "rest-left-out",
            "The length of the tensor is divided by the number of ranks, and the numbers that are "
            "left at its end are not summed. torch.tensor_split gives n pieces of any tensor.",
            lambda x, rank: rest_left_out(x, rank, True),
            lambda x, rank: rest_left_out(x, rank, False),
        ),
        known(
            "too-few-chunks",
            "torch.chunk may give fewer pieces than you ask for: 5 numbers in 4 chunks are 2, 2 "
            "and 1. torch.tensor_split always gives n pieces; some may be empty.",
            with_chunks,
        ),
        known(
            "flat", "The sum is right, but flat: give it the shape of x.",
            lambda x, rank: all_reduce(x, rank).flatten(),
        ),
        known(
            "all-wait",
            "All ranks wait for messages that nobody will send. Send first, then receive: sending "
            "does not wait. And receive from a rank only as often as it sends to you.",
            receiving_first,
        ),
        known(
            "not-received",
            "A message is left that nobody received. The next function that receives would take it "
            "for its own: receive as often as is sent.",
            not_received,
        ),
    ],
    hints=(
        "Make it work first: send x to every other rank, then receive from every other rank, and "
        "add up. Send before you receive.",
        "To send less, cut x.flatten() into n pieces with tensor_split. In the first half rank i "
        "shall end up with the sum of all pieces i. A piece starts at the rank after its owner and "
        "goes around the ring; each rank adds its own piece to it and sends it on.",
        "First half, step = 1 ... n - 1: send piece (me - step) % n to the right, receive from the "
        "left and add that to piece (me - step - 1) % n. Second half, step = 0 ... n - 2: send "
        "piece (me - step) % n, and put what arrives in place of piece (me - step - 1) % n. Then "
        "join the pieces with torch.cat and view_as(x).",
    ),
)  # fmt: skip


def drive_average(candidate: Any, gradients: list[list[Tensor]], targets: list[int]) -> Answer:
    """The gradients on all ranks, and what to say of the messages."""
    n = len(targets)
    ran = on_ranks(n, lambda rank: candidate(gradients[rank.number], targets[rank.number], rank))
    ring, most = 2 * (n - 1), max(ran.messages)
    note = f"Each rank sent {most} messages for {len(gradients[0])} tensors."
    if most > ring:
        note += (
            " If all are joined to one vector, with the number of targets at its end, a single "
            f"all-reduce does it: {ring} messages in a ring. Each message costs time by itself."
        )
    return Answer(by_rank(ran.results), note=note)


def average_cases() -> list[tuple[Any, ...]]:
    def some(ranks: int, without: int = -1) -> list[list[Tensor]]:
        """Gradients of three tensors on each rank; zero on a rank without targets."""
        shapes = enumerate([(2, 3), (4,), (1, 2, 2)])
        made = [random_ones(ranks, *shape, seed=seed) for seed, shape in shapes]
        return [[(rank != without) * x[rank] for x in made] for rank in range(ranks)]

    two, six = torch.tensor([2.0]), torch.tensor([6.0])
    return [
        ([[two], [six]], [1, 3]),
        ([[two], [six]], [4, 4]),
        ([[two, six], [six, two]], [3, 1]),
        ([[two], [0 * six]], [5, 0]),
        ([[two, six]], [7]),
        (some(2), [10, 30]),
        (some(3), [8, 8, 8]),
        (some(3), [1, 7, 4]),
        (some(4, without=2), [6, 1, 0, 9]),
    ]


Number = Any  # a number, or a tensor that holds one


def averaged(
    weight: Callable[[int, Number, int], Number] = lambda own, everywhere, ranks: own,
    divisor: Callable[[int, Number, int], Number] = lambda own, everywhere, ranks: everywhere,
    which: Callable[[int], bool] = lambda number: True,
) -> Callable[..., list[Tensor]]:  # fmt: skip
    """An average in which each gradient is multiplied and the sum is divided by something else.

    Both know the rank's own number of targets, that of all ranks, and the number of ranks.
    """

    def average(gradients: Sequence[Tensor], targets: int, rank: Rank) -> list[Tensor]:
        everywhere = all_reduce(torch.tensor(float(targets)), rank)
        by, over = (f(targets, everywhere, rank.size) for f in (weight, divisor))
        return [
            all_reduce(g * by, rank) / over if which(number) else g
            for number, g in enumerate(gradients)
        ]

    return average


def over_ranks_with_targets(gradients: Sequence[Tensor], targets: int, rank: Rank) -> list[Tensor]:
    """The mean over those ranks that have any targets."""
    count = all_reduce(torch.tensor(float(targets > 0)), rank)
    return [all_reduce(g * (targets > 0), rank) / count for g in gradients]


def leaving_early(gradients: Sequence[Tensor], targets: int, rank: Rank) -> list[Tensor]:
    """A rank without targets does not take part."""
    return average_gradients(gradients, targets, rank) if targets else list(gradients)


def average_on_one_rank(gradients: Sequence[Tensor], targets: int, rank: Rank) -> list[Tensor]:
    """Only rank 0 knows the average."""
    found = average_gradients(gradients, targets, rank)
    return found if rank.number == 0 else list(gradients)


AVERAGE_GRADIENTS = Exercise(
    name="average-gradients",
    title="The gradient average of data parallelism: every target weighs the same.",
    task=TASKS["average-gradients"],
    reference=average_gradients,
    cases=average_cases,
    drive=drive_average,
    describe=lambda gradients, targets: (
        f"{len(targets)} rank{'s' * (len(targets) > 1)} with {targets} targets, gradients "
        + (str([[x.tolist() for x in part] for part in gradients]) if len(gradients[0][0]) < 2
           else f"of shapes {[tuple(x.shape) for x in gradients[0]]}")
    ),
    lesson=18,
    mistakes=[
        known(
            "mean-of-means",
            "That is the mean of the ranks' means. A rank with few targets then weighs as much as "
            "one with many. Weight each gradient by its number of targets, and divide the sum by "
            "the number of all targets.",
            averaged(lambda own, everywhere, ranks: 1, lambda own, everywhere, ranks: ranks),
        ),
        known(
            "not-divided",
            "The sum is not divided by the number of all targets.",
            averaged(divisor=lambda own, everywhere, ranks: 1),
        ),
        known(
            "sum-of-means",
            "The ranks' gradients are added up as they are. Each is a mean over other targets: "
            "weight it by their number, and divide by the number of all targets.",
            averaged(lambda own, everywhere, ranks: 1, lambda own, everywhere, ranks: 1),
        ),
        known(
            "divided-but-not-weighted",
            "The sum is divided by the number of all targets, but its terms are means. Multiply "
            "each by the rank's number of targets first: that makes it a sum over targets.",
            averaged(lambda own, everywhere, ranks: 1),
        ),
        known(
            "own-number-only",
            "Each rank divides by its own number of targets, so the ranks get different gradients, "
            "and the copies of the model drift apart. The numbers have to be added up, too.",
            averaged(divisor=lambda own, everywhere, ranks: own),
            averaged(divisor=lambda own, everywhere, ranks: max(own, 1)),
            averaged(divisor=lambda own, everywhere, ranks: own * ranks),
            averaged(divisor=lambda own, everywhere, ranks: max(own, 1) * ranks),
            averaged(divisor=lambda own, everywhere, ranks: own * ranks or 1),
        ),
        known(
            "divided-twice",
            "It is divided by the number of ranks as well. The number of all targets is enough.",
            averaged(divisor=lambda own, everywhere, ranks: everywhere * ranks),
        ),
        known(
            "mean-number-of-targets",
            "It divides by the mean number of targets of a rank, so with n ranks the result is n "
            "times too large. Divide by the number of all targets.",
            averaged(divisor=lambda own, everywhere, ranks: everywhere / ranks),
        ),
        known(
            "over-ranks-with-targets",
            "That is the mean over the ranks that have any targets. Ranks with many targets should "
            "weigh more than ranks with few.",
            over_ranks_with_targets,
        ),
        known(
            "nothing-sent",
            "Each rank keeps its own gradient, so the copies of the model learn different things. "
            "Add the gradients up with all_reduce.",
            averaged(which=lambda number: False),
        ),
        known(
            "first-tensor-only",
            "Only the first tensor is averaged. Each tensor of the model has a gradient.",
            averaged(which=lambda number: number == 0),
        ),
        known(
            "last-tensor-only",
            "Only the last tensor is averaged. Each tensor of the model has a gradient.",
            lambda gradients, targets, rank: [
                *gradients[:-1], *average_gradients(gradients[-1:], targets, rank)],
        ),
        known(
            "on-one-rank-only",
            "Only one rank has the average. All copies of the model have to make the same step.",
            average_on_one_rank,
        ),
        known(
            "leaves-early",
            "A rank that has no targets does not take part, and all others wait for it for ever. "
            "Every rank has to call every collective, with zeros if it has nothing to add.",
            leaving_early,
        ),
    ],
    hints=(
        "Think of two ranks: the mean over 1 target is 2, the mean over 3 targets is 6. Work out "
        "the mean over all 4 targets.",
        "Multiply each gradient by the rank's own number of targets. That is a sum over targets, "
        "and sums may be added up over the ranks. The numbers of targets, too.",
        "total = all_reduce(torch.tensor([float(targets)]), rank), then for each gradient "
        "all_reduce(gradient * targets, rank) / total. To send one message for all of them, join "
        "them with torch.cat first, and cut the result with split and view_as.",
    ),
)  # fmt: skip

MODES = {
    "": "the way forward",
    "fc": "the way forward, where the other ranks' part of w_fc and b_fc is not there (nan)",
    "proj": "the way forward, where the other ranks' part of w_proj is not there (nan)",
    "back": "the way back: the gradients of x on each rank, and of the weights of all ranks",
}


def drive_mlp(
    candidate: Any, x: Tensor, w_fc: Tensor, b_fc: Tensor, w_proj: Tensor, b_proj: Tensor,
    ranks: int, mode: str = "",
) -> Answer:  # fmt: skip
    """The results on all ranks, or the gradients: see MODES."""
    weights = {"w_fc": w_fc, "b_fc": b_fc, "w_proj": w_proj, "b_proj": b_proj}
    factors = numbers(*x.shape, seed=5)

    def run(rank: Rank) -> Any:
        width = len(w_fc) // ranks
        mine = slice(rank.number * width, (rank.number + 1) * width)
        own = {name: weight.clone() for name, weight in weights.items()}
        for name, weight in own.items():
            held = weight.T if name == "w_proj" else weight  # hidden channels come first
            if mode and name.endswith(mode) and name != "b_proj":
                absent = torch.full_like(held, torch.nan)
                absent[mine] = held[mine]
                held.copy_(absent)
        given = [x.clone(), *own.values()]
        if mode != "back":
            return candidate(*given, rank)
        given = [tensor.requires_grad_() for tensor in given]
        y = candidate(*given, rank)
        if y.requires_grad:
            (y * factors).sum().backward()
        return [torch.zeros_like(t) if t.grad is None else t.grad for t in given]

    with torch.set_grad_enabled(mode == "back"):
        ran = on_ranks(ranks, run)
    if mode != "back":
        sent, least = max(ran.sent), int(2 * (ranks - 1) / ranks * x.numel() * 4)
        note = f"A rank sent at most {sent} bytes. "
        note += f"One all-reduce of the result, in a ring, takes {least}."
        return Answer(by_rank(ran.results), note=note)
    found = {f"x on rank {number}": grads[0] for number, grads in enumerate(ran.results)}
    for number, name in enumerate(("w_fc", "b_fc", "w_proj"), 1):
        found[name] = total([grads[number] for grads in ran.results])
    return Answer(found)


def mlp_cases() -> list[tuple[Any, ...]]:
    def case(C: int, H: int, B: int, T: int, ranks: int, mode: str = "") -> tuple[Any, ...]:
        tensors = (
            numbers(B, T, C), numbers(H, C, seed=1), numbers(H, seed=2), numbers(C, H, seed=3),
            numbers(C, seed=4),
        )  # fmt: skip
        return (*tensors, ranks, mode)

    return [
        case(1, 2, 1, 1, 2),
        case(2, 4, 1, 2, 2),
        case(3, 4, 1, 2, 1),
        case(4, 4, 2, 3, 2),  # square matrices
        case(2, 6, 1, 3, 3),
        case(4, 16, 2, 3, 4, "fc"),
        case(4, 16, 2, 3, 4, "proj"),
        case(2, 4, 1, 2, 2, "back"),
        case(4, 16, 2, 3, 4, "back"),
        case(4, 16, 2, 3, 4),
    ]


def own_channels(rank: Rank, H: int) -> slice:
    """The hidden channels of a rank."""
    width = H // rank.size
    return slice(rank.number * width, (rank.number + 1) * width)


def mlp_with(
    part: Callable[[Rank, int], Any] = own_channels,
    part_of_proj: Callable[[Rank, int], Any] | None = None,
    first_bias: Callable[[Tensor, Any], Any] = lambda b, mine: b[mine],
    activation: Callable[[Tensor], Tensor] = gelu,
    enter: Callable[[Tensor, Rank], Tensor] = copied,
    join: Callable[[Tensor, Tensor, Rank], Tensor] = lambda y, b, rank: summed(y, rank) + b,
) -> Callable[..., Tensor]:
    """A divided MLP that does one thing differently."""

    def mlp(
        x: Tensor, w_fc: Tensor, b_fc: Tensor, w_proj: Tensor, b_proj: Tensor, rank: Rank
    ) -> Tensor:
        mine = part(rank, len(w_fc))
        columns = (part_of_proj or part)(rank, len(w_fc))
        hidden = enter(x, rank) @ w_fc[mine].T + first_bias(b_fc, mine)
        return join(activation(hidden) @ w_proj[:, columns].T, b_proj, rank)

    return mlp


def whole_mlp(join: Callable[[Tensor, Tensor, Rank], Tensor]) -> Callable[..., Tensor]:
    """Every rank computes the whole layer."""
    return mlp_with(part=lambda rank, H: slice(H), join=join)


def hidden_joined(join: Callable[[Tensor, Rank], Tensor]) -> Callable[..., Tensor]:
    """The hidden channels are joined between the two matrices."""

    def mlp(
        x: Tensor, w_fc: Tensor, b_fc: Tensor, w_proj: Tensor, b_proj: Tensor, rank: Rank
    ) -> Tensor:
        mine = own_channels(rank, len(w_fc))
        hidden = gelu(F.linear(copied(x, rank), w_fc[mine], b_fc[mine]))
        return F.linear(join(hidden, rank), w_proj, b_proj)

    return mlp


def cut_by_inputs(outside: bool) -> Callable[..., Tensor]:
    """The first matrix is cut along its inputs, so GELU sees terms of a sum."""

    def mlp(
        x: Tensor, w_fc: Tensor, b_fc: Tensor, w_proj: Tensor, b_proj: Tensor, rank: Rank
    ) -> Tensor:
        mine = tuple(torch.arange(x.shape[-1]).tensor_split(rank.size)[rank.number].tolist())
        hidden = F.linear(x[..., mine], w_fc[:, mine], b_fc)
        y = F.linear(gelu(hidden), w_proj)
        return summed(y, rank) + b_proj if outside else summed(y + b_proj, rank)

    return mlp


PARALLEL_MLP = Exercise(
    name="parallel-mlp",
    title="The feed-forward layer on n ranks, each with a part of the hidden channels.",
    task=TASKS["parallel-mlp"],
    reference=parallel_mlp,
    cases=mlp_cases,
    drive=drive_mlp,
    describe=lambda x, w_fc, b_fc, w_proj, b_proj, ranks, mode="": (
        f"{ranks} rank{'s' * (ranks > 1)}, x {tuple(x.shape)}, w_fc {tuple(w_fc.shape)}, w_proj "
        f"{tuple(w_proj.shape)}, {MODES[mode]}"
    ),
    lesson=18,
    mistakes=[
        known(
            "bias-on-every-rank",
            "Each rank adds b_proj before the sum, so it is in the result as often as there are "
            "ranks. Add it once, after the sum.",
            mlp_with(join=lambda y, b, rank: summed(y + b, rank)),
        ),
        known(
            "bias-forgotten", "b_proj is missing: add it once, after the sum.",
            mlp_with(join=lambda y, b, rank: summed(y, rank)),
        ),
        known(
            "bias-on-one-rank-only",
            "One rank adds b_proj after the sum, so the ranks have different results. Before the "
            "sum one rank adds it, or after the sum all do.",
            mlp_with(join=lambda y, b, rank: summed(y, rank) + b * (rank.number == 0)),
        ),
        known(
            "first-bias-forgotten", "b_fc is missing: it comes before GELU.",
            mlp_with(first_bias=lambda b, mine: 0),
        ),
        known(
            "first-bias-of-rank-0",
            "All ranks add the first part of b_fc. A bias belongs to a channel: each rank takes "
            "the part of its own channels.",
            mlp_with(first_bias=lambda b, mine: b[: mine.stop - mine.start]),
        ),
        known(
            "no-sum",
            "Each rank gives its own term of the sum. The second matrix adds up all hidden "
            "channels, and each rank has only some: add up the results of all ranks.",
            mlp_with(join=lambda y, b, rank: y + b),
            mlp_with(join=lambda y, b, rank: y),
        ),
        known(
            "mean", "The result is the mean of the ranks' terms. They are terms of a sum.",
            mlp_with(join=lambda y, b, rank: summed(y, rank) / rank.size + b),
        ),
        known(
            "same-part",
            "All ranks compute the same part. Rank r has the hidden channels from r * H / n on.",
            mlp_with(part=lambda rank, H: slice(H // rank.size)),
        ),
        known(
            "parts-that-do-not-fit",
            "The hidden channels of the two matrices are not the same. The part of w_proj has to "
            "read the very channels that the part of w_fc has made.",
            mlp_with(part_of_proj=lambda rank, H: slice(rank.number, H, rank.size)),
            mlp_with(lambda rank, H: slice(rank.number, H, rank.size), own_channels,
                     lambda b, mine: b[mine]),
            mlp_with(part_of_proj=lambda rank, H: slice(H // rank.size)),
            mlp_with(part_of_proj=lambda rank, H: own_channels(
                Rank(rank.size - 1 - rank.number, rank.size, rank.post), H)),
        ),
        known(
            "other-channels",
            "It uses hidden channels that other ranks have. Rank r has a block of neighbouring "
            "channels, from r * H / n to (r + 1) * H / n, and nothing else of w_fc and w_proj.",
            mlp_with(part=lambda rank, H: slice(rank.number, H, rank.size)),
            mlp_with(part=lambda rank, H: own_channels(
                Rank(rank.size - 1 - rank.number, rank.size, rank.post), H)),
            whole_mlp(lambda y, b, rank: summed(y, rank) / rank.size + b),
        ),
        known(
            "cut-by-inputs",
            "The first matrix is cut along its inputs. Each rank then has a term of every hidden "
            "channel, and GELU of a term is no term of GELU. Cut w_fc along its outputs, which are "
            "its rows.",
            cut_by_inputs(True), cut_by_inputs(False),
        ),
        known(
            "no-activation", "GELU is missing between the two matrices.",
            mlp_with(activation=lambda x: x),
        ),
        known(
            "exact-gelu",
            "That is GELU in its exact form. GPT-2 uses the approximation with tanh: `gelu` of "
            "nanogpt.model.layers.",
            mlp_with(activation=F.gelu),
        ),
        known(
            "whole",
            "Each rank computes the whole layer, so n ranks are no faster than one. In a real run "
            "a rank has only its own part of w_fc and w_proj.",
            whole_mlp(lambda y, b, rank: y + b),
            mlp_with(part=lambda rank, H: slice(H), enter=lambda x, rank: x,
                     join=lambda y, b, rank: y + b),
        ),
        known(
            "whole-and-summed",
            "Each rank computes the whole layer, and then the results are added up: n times too "
            "much. Each rank has to compute its own hidden channels only.",
            whole_mlp(lambda y, b, rank: summed(y, rank) + b),
            whole_mlp(lambda y, b, rank: summed(y + b, rank)),
        ),
        known(
            "hidden-gathered",
            "The hidden channels are joined before the second matrix, and each rank needs all of "
            "w_proj for that. Multiply the part by its own columns of w_proj: then only the result "
            "has to be summed, and it is smaller.",
            hidden_joined(lambda hidden, rank: gathered(hidden, rank, -1)),
            hidden_joined(lambda hidden, rank: torch.cat(all_gather(hidden, rank), -1)),
        ),
        known(
            "swapped",
            "`copied` and `summed` are swapped. On the way forward x is only copied, and the "
            "results are summed.",
            mlp_with(enter=summed, join=lambda y, b, rank: copied(y, rank) + b),
        ),
        known(
            "gradient-of-x-in-part",
            "The way forward is right. On the way back each rank knows the gradient of x through "
            "its own channels only; these have to be added up. That is what `copied` does.",
            mlp_with(enter=lambda x, rank: x),
        ),
        known(
            "gradient-cut",
            "The way forward is right, but no gradient comes back through the sum: messages are "
            "numbers without history. Use `summed` of nanogpt.learn.collectives.",
            mlp_with(join=lambda y, b, rank: all_reduce(y, rank) + b),
            mlp_with(enter=lambda x, rank: x, join=lambda y, b, rank: all_reduce(y, rank) + b),
        ),
        known(
            "gradient-summed-too-often",
            "The way forward is right, but the gradients are n times too large. On the way back "
            "through `summed` nothing is added up: all ranks have the same gradient already.",
            mlp_with(join=lambda y, b, rank: copied(summed(y, rank), rank) + b),
        ),
    ],
    hints=(
        "Which numbers of the layer can one rank compute alone from x, if it has only some rows of "
        "w_fc? Then look for the columns of w_proj that read exactly these.",
        "Cut w_fc and b_fc along the hidden channels (rows), and w_proj along the same channels "
        "(columns). The results of the ranks are terms of a sum, and b_proj is no part of it.",
        "mine = slice(r * H // n, (r + 1) * H // n). hidden = gelu(copied(x, rank) @ w_fc[mine].T "
        "+ b_fc[mine]), then summed(hidden @ w_proj[:, mine].T, rank) + b_proj.",
    ),
)  # fmt: skip
