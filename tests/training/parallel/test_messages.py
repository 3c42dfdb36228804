"""What ranks send in a step, counted, is what follows from the sizes of the model: no byte more.

The sums are written out here a second time, from the shapes of the weights alone, for every rank
and kind of message. What a plan predicts is held equal to them, too.
"""

import json
import math
import runpy
from pathlib import Path

import pytest
import torch

from nanogpt.config import config_from_dict, with_settings
from nanogpt.device import Compute
from nanogpt.training.calibrate import layout_of
from nanogpt.training.cluster import job_of, sent_by

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "messages.py"
BUSIEST = runpy.run_path(str(SCRIPT))["busiest"]
DIMENSIONS = ("pipeline", "data", "context", "shard", "tensor")

# Layers, channels, channels of keys, tokens in a sequence, vocabulary, rows in a batch.
L, C, K, T, V, B = 4, 32, 16, 16, 280, 8

NORMS = 2 * 2 * C
ATTENTION = C * (C + 2 * K) + (C + 2 * K) + C * C + C
FEED_FORWARD = 2 * (C * 4 * C) + 4 * C + C
BLOCK = NORMS + ATTENTION + FEED_FORWARD
UNCUT = NORMS + 2 * C  # what each tensor rank has whole: the biases of both sums, too


def theory(place, n, passes, stages=1, sums=1, checkpointing=False, number=4, head="tied"):
    """What the rank of a place in the pipeline sends: {dimensions: {kind: [messages, bytes]}}.

    n has the ranks of each dimension; `number` is how many bytes one takes inside blocks.
    """
    pipeline, data, context, shard, tensor = (n.get(name, 1) for name in DIMENSIONS)
    first, last = place == 0, place == pipeline - 1
    layers, copies, world = L // pipeline, data * context, math.prod(n.values())
    rows = B // (data * shard * (passes if pipeline > 1 else 1))
    if pipeline == 1:
        rows //= passes
    blocks = layers * ((BLOCK - UNCUT) // tensor + UNCUT)
    matrices = first or last if head == "tied" else first + last  # of V rows
    ends = V * C // tensor * matrices + T * C * first + 2 * C * last
    tokens = rows * T // context
    stream = number * tokens * C
    found = {}

    def send(dimensions, kind, messages, size):
        if messages:
            found.setdefault(dimensions, {})[kind] = [messages, size]

    if copies > 1:
        group = " x ".join(name for name in ("data", "context") if n.get(name, 1) > 1)
        messages = 1 if shard == 1 else sums * (layers + 1)
        send(group, "sum", messages, (1 if shard == 1 else sums) * 4 * (blocks + ends) // shard)
    if shard > 1:
        times, once = (2 * passes, passes) if pipeline == 1 else (passes + sums, sums)
        gathered = number * (times * blocks + once * ends)
        send("shard", "gather", times * layers + once, gathered)
        send("shard", "scatter", sums * (layers + 1), sums * 4 * (blocks + ends))
    if tensor > 1:
        # Forwards two of each kind a block, and a scatter of the embedding and a gather for the
        # head. Backwards each is the other.
        moves = 4 * layers + first + last
        again = layers * checkpointing
        send(
            "tensor", "gather", passes * (moves + 2 * again), passes * (moves + 2 * again) * stream
        )
        send("tensor", "scatter", passes * (moves + again), passes * (moves + again) * stream)
        loss = passes * last * 3 * 4 * tokens  # a maximum, then a sum and the target's logit
        uncut = 4 * (layers * UNCUT + T * C * first + 2 * C * last) // shard
        send("tensor", "sum", 1 + 2 * passes * last, loss + uncut)
    if context > 1:
        keys, moves = number * rows * T * 2 * K // tensor, passes * layers
        send("context", "gather", moves * (1 + checkpointing), moves * (1 + checkpointing) * keys)
        send("context", "scatter", moves, moves * keys)
    if pipeline > 1:
        moves = passes * (2 * stages - first - last)
        send("pipeline", "send", moves, moves * stream // tensor)
        shared = head == "tied" and (first or last)
        send("pipeline", "sum", 1 * shared, 4 * V * C // (tensor * shard))
    # The number of targets; of each rank the loss, the norm and whether to stop; positions of keys.
    if world > pipeline * tensor:
        send("bookkeeping", "sum", 1, 8)
    positions = passes * (context > 1)
    send("bookkeeping", "gather", 1 + positions, 3 * 8 * world + positions * 8 * T)
    return found


UNTIED = {"head": "untied"}
ACCUMULATED = {"grad_accum_steps": 2, "batch_size": B // 2}

# Changes of settings, by section, and what the sums have to know of them.
TWO = {
    "shard": ({"shard": 2}, {}, {"passes": 1}),
    "data": ({"data": 2}, {}, {"passes": 1}),
    "tensor": ({"tensor": 2}, {}, {"passes": 1}),
    "context": ({"context": 2}, {}, {"passes": 1}),
    "pipeline": ({"pipeline": 2}, {}, {"passes": 4}),
    "interleaved": (
        {"pipeline": 2, "schedule": "interleaved"}, {}, {"passes": 4, "stages": 2}
    ),
    "data, accumulated": ({"data": 2}, ACCUMULATED, {"passes": 2}),
    "shard, accumulated": ({"shard": 2}, ACCUMULATED, {"passes": 2}),
    "tensor, checkpointed": (
        {"tensor": 2}, {"activation_checkpointing": "block"}, {"passes": 1, "checkpointing": True}
    ),
    "context, checkpointed": (
        {"context": 2}, {"activation_checkpointing": "selective"},
        {"passes": 1, "checkpointing": True},
    ),
    "shard, bfloat16": ({"shard": 2}, {"precision": "bfloat16"}, {"passes": 1, "number": 2}),
    "context, bfloat16": ({"context": 2}, {"precision": "bfloat16"}, {"passes": 1, "number": 2}),
    **{
        f"{name}, untied": ({name: 2}, {}, {"passes": 4 if name == "pipeline" else 1, **UNTIED})
        for name in DIMENSIONS
    },
}  # fmt: skip
ODD = "shard, 277 tokens"
PAIRS = ["data shard", "data tensor", "shard tensor", "shard pipeline", "tensor context",
         "tensor pipeline"]  # fmt: skip
FOUR = {
    pair: (dict.fromkeys(pair.split(), 2), {}, {"passes": 4 if "pipeline" in pair else 1})
    for pair in PAIRS
} | {
    "four stages": ({"pipeline": 4}, {}, {"passes": 8}),
    "shard and pipeline, accumulated": (
        {"shard": 2, "pipeline": 2}, ACCUMULATED, {"passes": 4, "sums": 2}
    ),
}  # fmt: skip


def settings_of(worlds, parallel, train, known):
    model = {"n_layer": L, "n_embd": C, "n_head": 4, "n_kv_head": 2, "context_length": T}
    model["head"] = known.get("head", "tied")
    return worlds.settings(
        parallel,
        model=model,
        train={"pad_vocab_to": 8, "batch_size": B, "grad_accum_steps": 1, **train},
    )


@pytest.fixture(scope="module")
def counted(worlds):
    """{name: counts of each rank}, of one world of two ranks and one of four."""
    found = {}
    for ranks, jobs in ((2, TWO | {ODD: ({"shard": 2}, {"pad_vocab_to": 1}, {})}), (4, FOUR)):
        folder = worlds.new_folder()
        settings = {name: settings_of(worlds, *job) for name, job in jobs.items()}
        (folder / "jobs.json").write_text(json.dumps(settings))
        worlds.run(ranks, [SCRIPT, folder])
        found |= json.loads((folder / "counts.json").read_text())
    return found


@pytest.mark.parametrize("name", [*TWO, *FOUR])
def test_every_rank_sends_what_theory_says_and_a_plan_predicts(worlds, counted, name):
    parallel, train, known = (TWO | FOUR)[name]
    sizes = {key: size for key, size in parallel.items() if key in DIMENSIONS}
    world, stages = math.prod(sizes.values()), sizes.get("pipeline", 1)
    assert len(counted[name]) == world
    for rank, counts in enumerate(counted[name]):
        place = rank * stages // world  # the pipeline is the first dimension of the mesh
        assert counts == theory(place, sizes, **known)

    config = config_from_dict(settings_of(worlds, parallel, train, known))
    config = with_settings(config, model={"vocab_size": V})
    compute = Compute(torch.device("cpu"), config.train.precision)
    plan = sent_by(job_of(config, compute), layout_of(config, Path()))
    predicted = {key: [sent.messages, sent.bytes] for key, sent in plan.items()}
    assert BUSIEST(counted[name], sizes) == predicted


def test_sharded_rows_are_padded_to_the_number_of_ranks(counted):
    """The sizes above leave no remainder; here is what one costs."""
    odd = counted[ODD][0]["shard"]
    for kind, times in (("gather", 2), ("scatter", 1)):
        rows = 278  # of 277 tokens
        assert odd[kind][1] == 4 * (times * L * BLOCK + rows * C + T * C + 2 * C)
