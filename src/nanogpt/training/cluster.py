"""What a training needs on many GPUs, before anything runs: memory, messages and time of a layout.

A layout says how many ranks share out what (see `parallel/mesh`). For each, a few sums follow from
sizes alone. n ranks that add up B bytes send 2 (n - 1) / n * B each, in a ring; those that gather
or scatter them, half of that (Patarasuk & Yuan 2009). A rank sends each step:

    data      gradients are added up over copies, 4 bytes a weight; ranks of `context` have
              copies, too
    shard     weights are gathered before they compute, forwards and backwards, in 2 or 4 bytes;
              gradients are scattered, in 4 (Rajbhandari et al. 2020). With `data` beside it
              (HSDP) the copies add up only what a rank keeps
    tensor    for each block four gathers and four scatters of rows * T * C numbers (Korthikanti et
              al. 2022), one of each for the embedding and for the head, three numbers for the
              loss of each token, and gradients of what each has whole, such as norms
    context   for each block the keys and values of all ranks are gathered, and their gradients
              scattered
    pipeline  rows * T * C numbers to the next rank, and as many back; the gradient of the tied
              matrix between the first and the last

`python benchmarks/scaling.py cpu` counts what ranks do send, and it is this, byte for byte.

Axes: T time, C channels, V vocabulary.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import nn

from nanogpt.config import DIMENSIONS, PIPELINES, Config
from nanogpt.device import PRECISIONS, Compute
from nanogpt.errors import UserError
from nanogpt.model.gpt import GPT
from nanogpt.model.size import flops_per_token
from nanogpt.training.gpus import Gpu
from nanogpt.training.parallel.data import BUCKET
from nanogpt.training.plan import PRICES
from nanogpt.training.start import freeze
from nanogpt.training.variants import optimizer_state_size

# How often each number that a block keeps moves between a GPU and its memory: it is written, read
# by the next operation and by the backward pass, and its gradient is written and read.
MOVES = 5

USABLE = 0.95  # of a GPU's memory; the rest is CUDA's and NCCL's own

# A training on 16,384 H100 was interrupted 419 times in 54 days without a plan (Dubey et al. 2024,
# section 3.3.4): once in so many hours of one GPU.
HOURS_TO_FAILURE = 54 * 24 * 16_384 / 419

SIMPLER = 1.02  # a simpler layout is recommended if it takes at most so many times as long


@dataclass(frozen=True)
class Job:
    """What has to be computed, in sizes."""

    layers: int
    heads: int  # of keys and values; those of queries are a multiple
    channels: int
    keys: int  # channels of keys, and of values
    kept: int  # numbers for each token that a block keeps for the backward pass, in units of one
    results: int  # of them, what matrices and attention return
    cut: int  # weights of a block that tensor ranks share out
    whole: int  # and those that each has: norms and the biases of sums
    vocabulary: int
    positions: int  # weights of the position embedding
    last: int  # weights of the last norm
    state: float  # numbers that the optimizer keeps for a weight
    context: int  # tokens in a sequence
    attention: int  # operations of a block's attention for a token, of flops
    flops: int  # operations for a token: model.size.flops_per_token
    sequences: int  # in a step
    steps: int
    itemsize: int  # bytes of a number that matrices are multiplied in
    checkpointing: str  # train.activation_checkpointing
    pipelines: bool  # whether its layers may be shared out; dropout forbids that
    head: int = 0  # weights of an untied head

    @property
    def tokens(self) -> int:
        """Of a step."""
        return self.sequences * self.context

    @property
    def weights(self) -> int:
        """Of the whole model."""
        blocks = self.layers * (self.cut + self.whole)
        return blocks + self.vocabulary * self.channels + self.positions + self.last + self.head


def job_of(config: Config, compute: Compute) -> Job:
    """The sizes of a run, whose vocabulary is known. Builds the model without its numbers."""
    with torch.device("meta"):
        model = GPT(config.model)
    freeze(model, config.train.freeze)
    block, c = model.h[0], config.model.n_embd
    linear = {name: m for name, m in block.named_modules() if isinstance(m, nn.Linear)}
    outputs = sum(m.out_features for m in linear.values())
    inside = sum(m.in_features for name, m in linear.items() if name.endswith("mlp.c_proj"))
    sizes = {name: p.numel() for name, p in block.named_parameters()}
    cut = sum(n for name, n in sizes.items() if "ln_" not in name and "c_proj.bias" not in name)
    seen = min(config.model.window or config.model.context_length, config.model.context_length)
    return Job(
        layers=config.model.n_layer,
        heads=config.model.kv_heads,
        channels=c,
        keys=config.model.kv_heads * config.model.head_size,
        # What enters and leaves both norms, every matrix's results but those of the two sums,
        # what attention and the activation function return.
        kept=4 * c + (outputs - 2 * c) + c + inside,
        results=outputs + c,
        cut=cut,
        whole=sum(sizes.values()) - cut,
        vocabulary=config.model.vocab_size,
        positions=sum(p.numel() for p in model.wpe.parameters()),
        last=sum(p.numel() for p in model.ln_f.parameters()),
        state=optimizer_state_size(model, config.train) / model.num_parameters(),
        context=config.model.context_length,
        attention=12 * c * seen,
        flops=flops_per_token(model),
        sequences=config.train.batch_size * config.train.grad_accum_steps,
        steps=config.train.max_steps,
        itemsize=PRECISIONS[compute.precision].itemsize,
        checkpointing=config.train.activation_checkpointing,
        pipelines=not (config.model.dropout or config.model.attention_dropout),
        head=sum(p.numel() for p in model.lm_head.parameters()),
    )


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How many ranks share out what, and in which portions a rank works."""

    data: int = 1
    context: int = 1
    shard: int = 1
    tensor: int = 1
    pipeline: int = 1
    schedule: str = "1f1b"
    rows: int = 1  # sequences that a rank has in hand at once
    passes: int = 1  # how many such portions make its part of a step
    batches: int = 1  # how often in a step a pipeline is filled and emptied

    @property
    def ranks(self) -> int:
        """All of them."""
        return math.prod(getattr(self, name) for name in DIMENSIONS)

    @property
    def turns(self) -> int:
        """Stages that a rank of the pipeline has."""
        return PIPELINES[self.schedule]

    @property
    def kinds(self) -> int:
        """How many kinds of parallelism there are beside copies, which are the simplest."""
        return sum(getattr(self, name) > 1 for name in DIMENSIONS if name != "data")

    def stride(self, name: str) -> int:
        """How far apart neighbours in a dimension are, in ranks."""
        after = DIMENSIONS[DIMENSIONS.index(name) + 1 :]
        return math.prod(getattr(self, other) for other in after)

    def settings(self) -> dict[str, int | str]:
        """The settings that ask for this layout, by their names."""
        found: dict[str, int | str] = {
            f"parallel.{name}": getattr(self, name)
            for name in ("shard", "tensor", "pipeline", "context")
            if getattr(self, name) > 1
        }
        copies, pipeline = self.data * self.shard, self.pipeline > 1
        if pipeline:
            found |= {"parallel.schedule": self.schedule, "parallel.microbatches": self.passes}
        rows = self.rows * copies
        found["train.batch_size"] = rows * self.passes if pipeline else rows
        found["train.grad_accum_steps"] = 1 if pipeline else self.passes
        return found

    def __str__(self) -> str:
        parts = [f"{name} {size}" for name in DIMENSIONS if (size := getattr(self, name)) > 1]
        if self.pipeline > 1 and self.schedule != "1f1b":
            parts.append(self.schedule)
        return " x ".join(parts) or "one rank"


@dataclass(frozen=True)
class Sent:
    """What a rank sends in a step along one dimension."""

    bytes: float
    messages: float
    sums: bool = False  # whether ranks add up; else they gather or scatter, or pass on


@dataclass(frozen=True)
class Prediction:
    """What a layout needs."""

    job: Job
    layout: Layout
    gpu: Gpu
    memory: dict[str, float]  # bytes of a rank, by use
    sent: dict[str, Sent]  # by dimension
    seconds: dict[str, float]  # of a step, by what they are spent on

    @cached_property
    def step(self) -> float:
        """Seconds."""
        return sum(self.seconds.values())

    @cached_property
    def bytes(self) -> float:
        """Of memory, on the rank that needs most."""
        return sum(self.memory.values())

    @property
    def fits(self) -> bool:
        """Whether a GPU has that much memory."""
        return self.bytes <= USABLE * self.gpu.among(self.layout.ranks).memory

    @property
    def efficiency(self) -> float:
        """The model's operations, as a share of what all GPUs could do meanwhile."""
        peak = self.layout.ranks * self.gpu.among(self.layout.ranks).peak
        return self.job.flops * self.job.tokens / (self.step * peak)

    @property
    def hours(self) -> float:
        """Of all steps."""
        return self.step * self.job.steps / 3600

    @property
    def dollars(self) -> float | None:
        """What they cost; None for a GPU without a price."""
        price = PRICES.get(self.gpu.name)
        return None if price is None else price * self.hours * self.layout.ranks

    @property
    def interruptions(self) -> float:
        """How many failures of a GPU are to be expected meanwhile."""
        return self.hours * self.layout.ranks / HOURS_TO_FAILURE

    @property
    def loss(self) -> tuple[str, float]:
        """What costs most apart from the products of matrices, and its share of the step."""
        others = {k: s for k, s in self.seconds.items() if k != "matrices"}
        name = max(others, key=lambda k: others[k])
        return name, others[name] / self.step


def weights_of(job: Job, layout: Layout) -> tuple[float, float]:
    """The weights of a rank before sharding: those of its blocks, and the others.

    Of the first rank of a pipeline, which has most: the token embedding and the positions.
    """
    blocks = job.layers / layout.pipeline * (job.cut / layout.tensor + job.whole)
    embedding = job.vocabulary * job.channels / layout.tensor
    end = job.last + job.head / layout.tensor if layout.pipeline == 1 else 0
    return blocks, embedding + job.positions + end


def memory_of(job: Job, layout: Layout) -> dict[str, float]:
    """Bytes that a rank needs, by use."""
    blocks, others = weights_of(job, layout)
    weights, own = blocks + others, (blocks + others) / layout.shard
    tokens = layout.rows * job.context / layout.context
    layers = job.layers / layout.pipeline
    gathered = 0.0  # in the type that matrices are multiplied in
    if layout.shard > 1 and layout.pipeline > 1:
        gathered = job.itemsize * weights  # all blocks, between backward passes
    elif layout.shard > 1:
        gathered = job.itemsize * (2 * blocks / layers + others)  # a block and the next
    elif job.itemsize < 4:
        gathered = job.itemsize * weights
    # Gradients are summed up when the last portion is done; until then each rank has all.
    whole_gradients = layout.shard > 1 and layout.passes > 1
    kept = layers * kept_of(job, layout, tokens)
    # Compiled, the gradient of the logits takes their place; else both are there, and a copy.
    logits = job.vocabulary * (1 if job.itemsize < 4 else 3)
    working = job.itemsize * tokens / layout.tensor * (logits + 8 * job.channels)
    activations = kept * in_hand(layout)
    if layout.pipeline > 1:  # the last rank has logits, and the first has most activations
        activations, working = max(activations, kept + working), 0.0
    return {
        "weights": 4 * own,
        "gradients": 4 * (weights if whole_gradients else own),
        "optimizer": 4 * job.state * own,
        "copies": gathered,
        "activations": activations,
        "working": working,
    }


def kept_of(job: Job, layout: Layout, tokens: float) -> float:
    """Bytes that a block keeps of so many tokens for the backward pass.

    Between matrices tensor ranks share out tokens, inside them channels. But what enters a matrix
    was gathered, and is kept as it is: two vectors of each token (see parallel/tensor).
    """
    c, cut = job.channels, layout.tensor
    if job.checkpointing == "block":
        return job.itemsize * tokens * c / cut
    if job.checkpointing == "selective":
        return job.itemsize * tokens * (job.results + c) / cut
    entering = 2 * c * (1 - 1 / cut)
    others = 2 * job.keys / cut * (layout.context - 1)  # keys and values of the other ranks
    return job.itemsize * tokens * (job.kept / cut + entering + others)


def in_hand(layout: Layout) -> float:
    """Portions whose activations the first rank of a pipeline keeps at once.

    1f1b keeps one for each rank; two stages a rank keep a little more (Narayanan et al. 2021).
    """
    n = layout.pipeline
    most = n if layout.turns == 1 else n * (1 + (n - 1) / (n * layout.turns))
    return min(most, layout.passes)


def sent_by(job: Job, layout: Layout) -> dict[str, Sent]:
    """What a rank sends in a step, by dimension; see the top of this file.

    In each dimension, that of the rank that sends most. "shard" is split in two: weights for every
    portion, and gradients once.
    """
    blocks, others = weights_of(job, layout)
    own = (blocks + others) / layout.shard
    layers, passes = job.layers / layout.pipeline, layout.passes
    sums = layout.batches if layout.pipeline > 1 else 1  # how often gradients are scattered
    copies = layout.data * layout.context
    found = {}
    if copies > 1:
        messages = float(max(1, math.ceil(own / BUCKET)))
        if layout.shard > 1:  # each block's, as soon as they are scattered
            messages, own = sums * (layers + 1), sums * own
        found["data"] = Sent(2 * part(copies) * 4 * own, messages, sums=True)
    if layout.shard > 1:
        # A block gathers its weights for each forward and each backward pass. In a pipeline passes
        # take turns, and what the backward pass has gathered serves the next forward pass.
        times, ends = (2 * passes, passes) if layout.pipeline == 1 else (passes + sums, sums)
        gathers = job.itemsize * (times * blocks + ends * others)
        found["shard: weights"] = Sent(part(layout.shard) * gathers, times * layers + ends)
        scatters = sums * 4 * (blocks + others)
        found["shard: gradients"] = Sent(part(layout.shard) * scatters, sums * (layers + 1))
    if layout.tensor > 1:
        found["tensor"] = sent_by_tensor(job, layout)
    if layout.context > 1:
        both = job.itemsize * layout.rows * job.context * 2 * job.keys / layout.tensor
        moves = passes * layers * (2 if job.checkpointing == "none" else 3)
        found["context"] = Sent(part(layout.context) * moves * both, moves)
    if layout.pipeline > 1:
        found["pipeline"] = sent_by_pipeline(job, layout)
    return found


def part(ranks: int) -> float:
    """The share of a tensor that each rank sends if so many gather or scatter it in a ring."""
    return (ranks - 1) / ranks


def stream_of(job: Job, layout: Layout) -> tuple[float, float]:
    """Bytes of the vectors of a portion's tokens: inside blocks, and of the residual stream.

    Autocast leaves that in 32 bits, but not where the weights come in 16.
    """
    numbers = layout.rows * job.context / layout.context * job.channels
    return job.itemsize * numbers, (4 if layout.shard == 1 else job.itemsize) * numbers


def sent_by_tensor(job: Job, layout: Layout) -> Sent:
    """What a rank sends that shares out matrices: tokens, the loss, and gradients of the uncut."""
    inside, stream = stream_of(job, layout)
    layers, passes = job.layers / layout.pipeline, layout.passes
    again = 0 if job.checkpointing == "none" else 3  # in the backward pass; the last is not needed
    moves = (8 + again) * layers + 2  # the head's
    moved = moves * inside
    loss = passes * 12 * layout.rows * job.context / layout.context
    # The first stage of a pipeline has the embedding, and the last has the head.
    first, last = 4 * job.positions / layout.shard, 4 * job.last / layout.shard + loss
    if layout.pipeline == 1:
        moves, moved = moves + 2, moved + 2 * stream
    uncut = 4 * layers * job.whole / layout.shard
    summed = uncut + (first + last if layout.pipeline == 1 else max(first, last))
    return Sent(part(layout.tensor) * (passes * moved + 2 * summed), passes * (moves + 2) + 1)


def sent_by_pipeline(job: Job, layout: Layout) -> Sent:
    """What a rank of a pipeline sends: every stage activations and gradients, but at the ends."""
    stages, portions = 2 * layout.turns, layout.passes
    stream = stream_of(job, layout)[1] / layout.tensor
    tied = 0 if job.head else 4 * job.vocabulary * job.channels / layout.tensor / layout.shard
    # The two at the ends send less, but the gradient of a tied matrix, too.
    end, middle = stages - 1, stages if layout.pipeline > 2 else 0
    return Sent(
        max(end * portions * stream + tied, middle * portions * stream),
        max(end * portions + bool(tied), middle * portions),
    )


def seconds_for(sent: Sent, gpu: Gpu, ranks: int, stride: int) -> float:
    """How long messages take between so many ranks, which are so far apart.

    A ring visits all ranks of a node before it goes on, through as many network cards as there are
    ranks in the node. Sums may also go up and down a tree, which takes fewer hops: NCCL takes
    what is faster.
    """
    near = min(ranks, max(1, gpu.node // stride))
    nodes = math.ceil(ranks / near)
    if nodes == 1:
        bandwidth = gpu.inside.bandwidth
    else:
        several = near * gpu.outside.bandwidth
        bandwidth = several if near == 1 else min(gpu.inside.bandwidth, several)
    hops = (nodes - 1) * gpu.outside.latency + (ranks - nodes) * gpu.inside.latency
    if sent.sums:
        tree = (near - 1) * gpu.inside.latency + math.log2(nodes) * gpu.outside.latency
        hops = 2 * min(hops, tree)
    return sent.messages * (gpu.start + hops) + sent.bytes / bandwidth


def predict(job: Job, layout: Layout, gpu: Gpu) -> Prediction:
    """What a layout needs: memory, messages, and time by what it is spent on.

    Messages of `tensor`, `context` and `pipeline` stop the work until they are there. Those of
    `data` and `shard` travel while a GPU computes; what is left over counts.
    """
    own = gpu.among(layout.ranks)
    sent = sent_by(job, layout)
    passes, stages = layout.passes, layout.pipeline
    travel = {}
    for name, what in sent.items():
        dimension = name.partition(":")[0]
        size = getattr(layout, dimension)
        if dimension == "data":
            size *= layout.context
        stride = layout.stride("context" if dimension == "data" else dimension)
        near = 2 if dimension == "pipeline" else size  # it speaks to one other
        travel[name] = seconds_for(what, own, near, stride)
    matrices, slowest, moving = work_of(job, layout, own)
    stopping = {name: travel[name] for name in ("tensor", "context", "pipeline") if name in travel}
    one = slowest + moving + sum(stopping.values()) / passes  # a portion, on the slowest rank
    weights = sum(weights_of(job, layout)) / layout.shard
    seconds = {
        "matrices": passes * matrices,
        "memory": passes * moving + 4 * (4 + 2 * job.state) * weights / own.bandwidth,
        "uneven work": passes * (slowest - matrices),
        "bubble": layout.batches * (stages - 1) / layout.turns * one,
        **stopping,
        **left_over(travel, sent, slowest + moving, passes, own.overlaps),
    }
    used = {name: s for name, s in seconds.items() if s > 0}
    return Prediction(job, layout, gpu, memory_of(job, layout), sent, used)


def work_of(job: Job, layout: Layout, own: Gpu) -> tuple[float, float, float]:
    """Seconds of a portion: products of matrices on the mean rank and the slowest, and memory."""
    tokens = layout.rows * job.context / layout.context
    block = (job.flops - 6 * job.vocabulary * job.channels) / job.layers
    # The last rank of `context` sees most: of 2 ranks three quarters of all pairs, not a half.
    extra = job.attention * (1 - 1 / layout.context)
    again = 4 / 3 if job.checkpointing == "block" else 1
    blocks, head = (block + extra) * job.layers * again, 6 * job.vocabulary * job.channels
    one = tokens / layout.tensor / (own.share * own.peak)
    matrices = one * (block * job.layers * again + head) / layout.pipeline
    slowest = one * (blocks / layout.pipeline + head)
    moved = MOVES * job.layers / layout.pipeline * job.itemsize * job.kept
    if job.checkpointing != "none":
        moved *= 4 / 3
    moved += 3 * job.itemsize * job.vocabulary
    moving = tokens / layout.tensor * moved / own.bandwidth
    if job.itemsize < 4:  # weights are read in 32 bits and written in 16
        copied = sum(weights_of(job, layout)) / layout.shard
        moving += (4 + job.itemsize) * copied / own.bandwidth
    return matrices, slowest, moving


def left_over(
    travel: dict[str, float], sent: dict[str, Sent], compute: float, passes: int, overlaps: bool
) -> dict[str, float]:
    """Seconds of `data` and `shard` during which nothing is computed.

    `compute` is how long a portion is computed. Its weights arrive meanwhile, but for the first
    block's. Gradients leave during the backward pass, two thirds of the last portion, which
    weights use half of; those of the first block leave when it is over.
    """

    def waited(name: str, room: float) -> float:
        seconds, messages = travel.get(name, 0.0), max(1.0, sent[name].messages)
        return max(seconds / messages, seconds - room) if overlaps else seconds

    names = [name for name in travel if name == "data" or name.startswith("shard")]
    room = max(0.0, 2 / 3 * compute - travel.get("shard: weights", 0.0) / passes / 2)
    found: dict[str, float] = {}
    for name in names:
        rest = waited(name, passes * compute if name == "shard: weights" else room)
        if name != "shard: weights":
            room = max(0.0, room - travel[name])
        dimension = name.partition(":")[0]
        found[dimension] = found.get(dimension, 0.0) + rest
    return found


def layouts(
    job: Job, ranks: int, gpu: Gpu, wanted: Mapping[str, int] | None = None
) -> Iterator[Layout]:
    """Every layout of so many ranks that the model allows and that is of any sense.

    Tensor ranks share out heads and stay inside a node. Layers and tokens are shared out evenly.
    `wanted` holds dimensions whose size is decided; 0 for `data` leaves it open.
    """
    sizes = {name: size for name, size in (wanted or {}).items() if size}
    for tensor in divisors(math.gcd(ranks, job.heads, job.context)):
        if tensor > gpu.node:
            continue
        for context in divisors(math.gcd(ranks // tensor, job.context // tensor)):
            left = ranks // tensor // context
            most = math.gcd(left, job.layers) if job.pipelines else 1
            for pipeline in divisors(most):
                copies = left // pipeline
                if job.sequences % copies:
                    continue
                for shard in divisors(copies):
                    found = Layout(
                        data=copies // shard, shard=shard, tensor=tensor, pipeline=pipeline,
                        context=context,
                    )  # fmt: skip
                    if all(getattr(found, name) == size for name, size in sizes.items()):
                        yield from portions(job, found)


def portions(job: Job, layout: Layout) -> Iterator[Layout]:
    """The layout with every number of sequences at once, and every schedule."""
    sequences = job.sequences // (layout.data * layout.shard)
    for rows in divisors(sequences):
        passes = sequences // rows
        if passes < layout.pipeline:
            continue  # some ranks would never have work at the same time as the others
        yield replace(layout, rows=rows, passes=passes)
        stages = layout.pipeline * PIPELINES["interleaved"]
        even = job.layers % stages == 0 and passes % layout.pipeline == 0
        if layout.pipeline > 1 and even:
            yield replace(layout, rows=rows, passes=passes, schedule="interleaved")


def divisors(n: int) -> list[int]:
    """All of them.

    >>> divisors(12)
    [1, 2, 3, 4, 6, 12]
    """
    small = [d for d in range(1, math.isqrt(n) + 1) if n % d == 0]
    return small + [n // d for d in reversed(small) if d * d != n]


def compare_layouts(
    job: Job, ranks: int, gpu: Gpu, wanted: Mapping[str, int] | None = None
) -> list[Prediction]:
    """The best portions of every layout: what fits, the fastest first; then what does not.

    Raises UserError for a number of ranks that nothing can be shared out over.
    """
    refuse_odd_nodes(ranks, gpu)
    best: dict[tuple[int, ...], Prediction] = {}
    for layout in layouts(job, ranks, gpu, wanted):
        found = predict(job, layout, gpu)
        key = tuple(getattr(layout, name) for name in DIMENSIONS)
        if key not in best or order(found) < order(best[key]):
            best[key] = found
    if not best and wanted and any(layouts(job, ranks, gpu)):
        said = " ".join(f"--parallel.{name} {size}" for name, size in wanted.items())
        raise UserError(
            f"--gpus {ranks}: {said} is no layout of {ranks} ranks, {job.sequences} sequences "
            f"a step, {job.layers} layers and {job.heads} heads; leave one of them out"
        )
    if not best:
        raise UserError(
            f"--gpus {ranks}: {job.sequences} sequences a step, {job.layers} layers and "
            f"{job.heads} heads cannot be shared out over {ranks} ranks; use "
            f"{near_number(job, ranks, gpu)}"
        )
    return sorted(best.values(), key=order)


def order(prediction: Prediction) -> tuple[bool, float]:
    """What fits comes before what does not; the fast, or else the small, come first."""
    fits = prediction.fits
    return not fits, prediction.step if fits else prediction.bytes


def refuse_odd_nodes(ranks: int, gpu: Gpu) -> None:
    """Raise UserError for a number of GPUs that leaves a node half used."""
    if ranks > gpu.node and ranks % gpu.node:
        down = ranks // gpu.node * gpu.node
        raise UserError(
            f"--gpus {ranks}: a node has {gpu.node} {gpu.name}; use {down} or {down + gpu.node}"
        )


def near_number(job: Job, ranks: int, gpu: Gpu) -> int:
    """The largest smaller number of ranks that has a layout; 1 always has."""
    for fewer in range(ranks - 1, 1, -1):
        if (fewer <= gpu.node or fewer % gpu.node == 0) and any(layouts(job, fewer, gpu)):
            return fewer
    return 1


def recommended(predictions: Sequence[Prediction]) -> Prediction | None:
    """The simplest of the fastest that fit: of those within 2 %, the one with fewest kinds."""
    fitting = [p for p in predictions if p.fits]
    if not fitting:
        return None
    fast = [p for p in fitting if p.step <= SIMPLER * fitting[0].step]
    return min(fast, key=lambda p: (p.layout.kinds, p.step))


def nearest_fix(job: Job, ranks: int, gpu: Gpu) -> str:
    """What to change so that a model fits, which fits on no layout of so many GPUs."""
    for kind in ("selective", "block"):
        lighter = replace(job, checkpointing=kind)
        if job.checkpointing == "none" and any_fits(lighter, ranks, gpu):
            return f"use --train.activation-checkpointing {kind}"
    more = ranks
    while more < 10**5:
        more = max(2 * more, gpu.node) if more >= gpu.node else 2 * more
        if any_fits(job, more, gpu):
            return f"use {more} GPUs"
    return "make the model or the context smaller"


def any_fits(job: Job, ranks: int, gpu: Gpu) -> bool:
    """Whether a layout has enough memory."""
    return any(
        sum(memory_of(job, layout).values()) <= USABLE * gpu.among(ranks).memory
        for layout in layouts(job, ranks, gpu)
    )
