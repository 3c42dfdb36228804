"""Circuits: the smallest set of attention heads that keeps a behaviour of the whole model.

The behaviour is copying: the model reads random tokens twice, after a line break. In the second
half it should know what comes next. A head that is switched off gives the mean of what it gave at
all positions of the text (mean ablation): later layers read a usual vector that says nothing.

How much of the behaviour a set of heads C keeps is its faithfulness (Wang et al. 2023, section 4;
normalised as by Marks et al. 2025, "Sparse Feature Circuits"):

    faithfulness(C) = (m(C) - m(none)) / (m(all) - m(none))

m is the mean log-probability of the right token. With no heads it is 0 %, with all of them 100 %. A
set may have more than 100 %: some heads work against the behaviour.

The search takes away, one after another, the head that is missed least. Where the model is so small
that all smaller sets can be tried, they are. Faithfulness is then measured on other texts.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn

from nanogpt.errors import UserError
from nanogpt.lab.heads import ROWS, habits_of, repeated_tokens
from nanogpt.model.gpt import GPT
from nanogpt.model.trace import Edit, editing, record
from nanogpt.text.tokenizer import BaseTokenizer

LENGTH = 20  # tokens before they repeat
KEEP = 0.9  # the faithfulness that is asked for
LEAST = 0.1  # nats that heads must add to the behaviour: below, there is nothing to explain
MOST_SETS = 3000  # smaller sets to try; more would take minutes
MOST_PATHS = 12  # heads of a circuit up to which the paths between them are measured

Head = tuple[int, int]  # layer and number


@dataclass(frozen=True)
class Removal:
    """One step of the search: a head is gone, and what is left keeps so much of the behaviour."""

    layer: int
    head: int
    left: int  # heads
    faithfulness: float


@dataclass(frozen=True)
class Path:
    """A direct way through the residual stream, and the faithfulness that is lost without it."""

    source: str  # "drop", "h.0.mlp", or "h.0.attn.kernel" with a head
    source_head: int | None
    sink: str  # "h.1.attn.q", ".k", ".v" of a head, "h.1.mlp", or "ln_f": what makes the logits
    sink_head: int | None
    lost: float


@dataclass(frozen=True)
class Circuit:
    """What was found, measured on texts that the search has not seen."""

    heads: list[Head]  # by layer
    faithfulness: float
    smallest: bool  # all smaller sets were tried, and none keeps enough
    rest: float  # the faithfulness of all other heads together
    lost: list[float]  # for each head, what the circuit loses without it
    habits: list[dict[str, float]]  # for each head, what it looks at, see lab/heads
    right: dict[str, float]  # share of right guesses of the "model", the "circuit", and with "none"
    logprob: dict[str, float]  # of the right token, nats
    removals: list[Removal]  # from all heads to none
    paths: list[Path]  # see trace_paths; empty for a circuit of more than MOST_PATHS heads
    ids: list[int]  # one of the texts, (T)
    length: int  # of the row that it repeats


class Bench:
    """A model, texts that repeat (B, T), and how well any set of its heads copies them.

    Raises UserError if the whole model does not.
    """

    def __init__(self, model: GPT, ids: Tensor) -> None:
        self.model, self.ids, self.length = model.eval(), ids, ids.shape[1] // 2
        layers, number = range(model.config.n_layer), range(model.config.n_head)
        self.heads: list[Head] = [(layer, head) for layer in layers for head in number]
        self.all, self.none = self.score(self.heads), self.score([])
        gain = self.all - self.none
        if gain < LEAST:
            raise UserError(
                "this model does not copy repeated tokens by attention: its heads make them "
                f"{abs(gain):.2f} nats {'likelier' if gain > 0 else 'less likely'}; train longer, "
                "or use the recipe induction-heads"
            )

    def edits(self, kept: Sequence[Head]) -> list[Edit]:
        """Switch all other heads off."""
        off = [head for head in self.heads if head not in kept]
        return [Edit(f"h.{layer}.attn.kernel", head, how="mean") for layer, head in off]

    @torch.no_grad()
    def logprobs(self, kept: Sequence[Head]) -> tuple[Tensor, Tensor]:
        """Log-probabilities of the right tokens, and whether they are the likeliest: (B, T/2-1)."""
        with editing(self.model, self.edits(kept)):
            logits = self.model(self.ids)[:, -self.length : -1]
        target = self.ids[:, 1 - self.length :, None]
        logprobs = logits.float().log_softmax(-1).gather(-1, target)[..., 0]
        return logprobs, logits.argmax(-1) == target[..., 0]

    def score(self, kept: Sequence[Head]) -> float:
        """The behaviour m: the mean log-probability of the right token with these heads alone."""
        return self.logprobs(kept)[0].mean().item()

    def scale(self, score: float) -> float:
        """A score as a share of what all heads together add."""
        return (score - self.none) / (self.all - self.none)

    def faithfulness(self, kept: Sequence[Head]) -> float:
        """How much of the behaviour these heads keep without all others: 1 is all of it."""
        return self.scale(self.score(kept))


@torch.no_grad()
def find_circuit(
    model: GPT, tokenizer: BaseTokenizer, keep: float = KEEP, length: int = LENGTH, seed: int = 0
) -> Iterator[Removal | Circuit]:
    """Search for the smallest circuit of copying; yields every step and, at last, the circuit.

    `length` tokens are read twice, or as many as fit. Raises UserError for a model that does not
    copy, one that is too small for it, and an impossible share to keep.
    """
    if not 0 < keep <= 1:
        raise UserError(f"a faithfulness of {keep} cannot be kept; use a share above 0, at most 1")
    start = [i for i, token in tokenizer.vocabulary.items() if token == b"\n"][:1]
    texts = repeated_tokens(model, tokenizer, length, seed, 2 * ROWS, start)
    bench = Bench(model, texts[:ROWS])
    removals, kept = [], list(bench.heads)
    best = list(kept)
    while kept:
        faithfulness, gone = max((bench.faithfulness(without(kept, h)), h) for h in kept)
        kept = without(kept, gone)
        removals.append(Removal(*gone, len(kept), faithfulness))
        yield removals[-1]
        if faithfulness >= keep:
            best = kept
    smaller, tried = smaller_set(bench, len(best), keep)
    yield measure(Bench(model, texts[ROWS:]), smaller or best, tried, removals)


def without(heads: Sequence[Head], gone: Head) -> list[Head]:
    """The other heads."""
    return [head for head in heads if head != gone]


def smaller_set(bench: Bench, size: int, keep: float) -> tuple[list[Head] | None, bool]:
    """The best of the smallest sets below a size that keep enough; None if no set does.

    And whether all of them were tried: they are not where there are too many.
    """
    number = len(bench.heads)
    if sum(math.comb(number, n) for n in range(size)) > MOST_SETS:
        return None, False
    for n in range(1, size):
        found, heads = max((bench.faithfulness(c), c) for c in combinations(bench.heads, n))
        if found >= keep:
            return list(heads), True
    return None, True


def measure(bench: Bench, heads: list[Head], smallest: bool, removals: list[Removal]) -> Circuit:
    """All that is told of a circuit, on the texts of this bench."""
    whole = bench.faithfulness(heads)
    others = [head for head in bench.heads if head not in heads]
    sets: dict[str, list[Head]] = {"model": bench.heads, "circuit": heads, "none": []}
    found = {name: bench.logprobs(kept) for name, kept in sets.items()}
    return Circuit(
        heads,
        whole,
        smallest,
        bench.faithfulness(others),
        [whole - bench.faithfulness(without(heads, head)) for head in heads],
        habits(bench, heads),
        {name: right.float().mean().item() for name, (_, right) in found.items()},
        {name: logprobs.mean().item() for name, (logprobs, _) in found.items()},
        removals,
        trace_paths(bench, heads) if len(heads) <= MOST_PATHS else [],
        bench.ids[0].tolist(),
        bench.length,
    )


@torch.no_grad()
def habits(bench: Bench, heads: Sequence[Head]) -> list[dict[str, float]]:
    """What each head of a circuit looks at, while all other heads are off."""
    with (
        editing(bench.model, bench.edits(heads)),
        record(bench.model, "h.*.attn.weights") as seen,
    ):
        bench.model(bench.ids)
    scores = habits_of(torch.stack(list(seen.values())), bench.length)
    return [{habit: found[head].item() for habit, found in scores.items()} for head in heads]


@torch.no_grad()
def trace_paths(bench: Bench, heads: Sequence[Head]) -> list[Path]:
    """How the parts of a circuit hand on what they know: every direct path, cut by itself.

    A part adds to the residual stream, and each later part reads the sum. To cut the path between
    two, the later one reads a sum in which the earlier one's vectors are replaced by their mean
    (path patching: Wang et al. 2023, section 3.1). Queries, keys and values are cut apart. Where
    blocks do not add to the stream (all but pre-norm) there are no such paths.
    """
    model = bench.model
    if model.config.block != "pre-norm":
        return []
    whole = bench.faithfulness(heads)
    with editing(model, bench.edits(heads)), record(model, "drop", "h.*.mlp", "*.kernel") as seen:
        model(bench.ids)
    parts: list[tuple[str, int | None]] = [("drop", None)]  # in the order in which they add
    for layer in range(model.config.n_layer):
        parts += [(f"h.{layer}.attn.kernel", head) for at, head in heads if at == layer]
        parts.append((f"h.{layer}.mlp", None))
    paths: list[Path] = []
    for number, (source, source_head) in enumerate(parts):
        change = to_the_mean(model, seen, source, source_head)
        for sink, head in [*parts[number + 1 :], ("ln_f", None)]:
            if head is None:
                norm = "ln_f" if sink == "ln_f" else sink.replace("mlp", "ln_2")
                with adding(model, norm, change):
                    lost = whole - bench.faithfulness(heads)
                paths.append(Path(source, source_head, sink, None, lost))
            elif sink != source:  # heads of one layer do not read each other
                part = (source, source_head)
                paths += paths_into(bench, heads, whole, part, (sink, head), change)
    return paths


def paths_into(
    bench: Bench, heads: Sequence[Head], whole: float, source: tuple[str, int | None],
    sink: tuple[str, int], change: Tensor,
) -> list[Path]:  # fmt: skip
    """The paths from a part into the queries, the keys and the values of a head.

    `whole` is the faithfulness of all these heads with nothing cut.
    """
    attn, head = sink[0].removesuffix(".kernel"), sink[1]
    with (
        adding(bench.model, attn.replace("attn", "ln_1"), change),
        editing(bench.model, bench.edits(heads)),
        record(bench.model, f"{attn}.[qkv]") as seen,
    ):
        bench.model(bench.ids)
    paths = []
    for which, part in enumerate("qkv"):
        new = seen[f"{attn}.{part}"][:, head]
        with exchanging(bench.model, sink[0], which, head, new):
            lost = whole - bench.faithfulness(heads)
        paths.append(Path(*source, f"{attn}.{part}", head, lost))
    return paths


def to_the_mean(model: GPT, seen: dict[str, Tensor], source: str, head: int | None) -> Tensor:
    """What to add to the stream so that a part's vectors become their mean: (B, T, C)."""
    x = seen[source]  # (B, T, C), or of a kernel (B, nh, T, hs)
    change = x.mean(-2, keepdim=True) - x
    if head is None:
        return change
    alone = torch.zeros_like(x)
    alone[:, head] = change[:, head]
    c_proj = model.get_submodule(source.removesuffix("kernel") + "c_proj")
    return c_proj(alone.transpose(1, 2).flatten(2)) - c_proj(torch.zeros_like(seen["drop"]))


@contextmanager
def adding(model: GPT, at: str, change: Tensor) -> Iterator[None]:
    """Let one module read its input with a change (B, T, C) added, and nothing else."""

    def add(module: nn.Module, inputs: Any) -> Any:
        return (inputs[0] + change, *inputs[1:])

    hook = model.get_submodule(at).register_forward_pre_hook(add)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def exchanging(model: GPT, at: str, which: int, head: int, new: Tensor) -> Iterator[None]:
    """Give one head of a kernel other queries (0), keys (1) or values (2), each (B, T, hs)."""

    def exchange(kernel: nn.Module, inputs: Any) -> Any:
        parts = list(inputs)
        parts[which] = parts[which].clone()
        parts[which][:, head] = new
        return tuple(parts)

    hook = model.get_submodule(at).register_forward_pre_hook(exchange)
    try:
        yield
    finally:
        hook.remove()
