"""What a run will need, before anything runs: parameters, operations, memory, time, cost."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import torch
from torch import Tensor, nn

from nanogpt.config import Config, ModelConfig, TrainConfig, with_settings
from nanogpt.device import KNOWN_PEAKS, PRECISIONS, Compute
from nanogpt.errors import UserError
from nanogpt.memory import free_memory, refuse_beyond
from nanogpt.model.gpt import GPT
from nanogpt.model.lora import LoRALinear, add_lora
from nanogpt.model.size import flops_per_token
from nanogpt.text.batches import BATCHES
from nanogpt.text.dataset import tokenizer_of
from nanogpt.text.formats import find_tokenizer
from nanogpt.text.remote import local_folder
from nanogpt.training.start import freeze, padded_vocabulary
from nanogpt.training.variants import optimizer_state_size

# Dollars for an hour of one GPU, as clouds offered them on demand in autumn 2026, rounded.
PRICES = {"H100": 2.5, "A100": 1.3, "L4": 0.6, "RTX 4090": 0.4, "T4": 0.3}

# The share of the peak that training usually reaches.
USUAL_SHARE = 0.4

PARTS = {
    "lora": "LoRA, alone trained",
    "wte": "token embeddings",
    "lm_head": "head",
    "wpe": "positions",
    "attn": "attention",
    "mlp": "feed-forward",
    "ln": "norms",
    "": "others",  # what a plugin adds
}

CHARACTERS = 100  # tokens of a vocabulary of characters, about

# A run may need up to so many times the free memory, by this estimate, and starts. A compiled model
# keeps less, and another program may end. A GPU says itself when it is full; a CPU just stops.
MARGINS = {"cpu": 2.0, "cuda": 4.0, "mps": 4.0}

PLAIN = TrainConfig()  # without LoRA

# What autograd keeps is measured on so many tokens, and is a polynomial of second degree in them:
# some tensors have a number for each token, a few have one for each pair.
MEASURED = (16, 32, 64)


@dataclass(frozen=True)
class Memory:
    """Bytes that training needs at most."""

    weights: int
    gradients: int
    optimizer: int
    activations: int  # what one forward pass keeps for the backward pass
    working: int  # what the backward pass needs for a moment, at most

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.working


@dataclass(frozen=True)
class Time:
    """How long all steps take on one device, and what that costs."""

    device: str
    peak_flops: float  # operations per second
    seconds: float
    dollars: float | None  # None where nobody sends a bill


@dataclass(frozen=True)
class Plan:
    """What a run will need."""

    parameters: dict[str, int]  # by part: see PARTS
    flops_per_token: int
    tokens_per_step: int
    steps: int
    memory: Memory
    memory_without_lora: Memory | None  # where all weights are trained instead
    cache_bytes: int  # of one sequence in generation
    free_bytes: int | None  # on the device now; None where the system does not say
    largest_batch: int | None  # sequences that fit into the free memory
    times: list[Time]

    @property
    def flops(self) -> int:
        """Floating-point operations of the whole run."""
        return self.flops_per_token * self.tokens_per_step * self.steps


def plan_run(config: Config, compute: Compute) -> Plan:
    """The plan of a run with these settings on this device.

    It runs one layer and two on short sequences, to see what autograd keeps. Raises UserError if
    there is no memory for that.
    """
    config = with_expected_vocabulary(config)
    refuse_unmeasurable(config.model, compute)
    with torch.device("meta"):  # shapes without numbers: no memory, whatever the size
        model = add_lora(GPT(config.model), config.train)
    memory = estimate_memory(config, compute, model)
    whole = with_settings(config, train={"lora_rank": 0})
    free = available_bytes(compute.device)
    steps, tokens = config.train.max_steps, config.tokens_per_step
    return Plan(
        parameters=count_parameters(model),
        flops_per_token=flops_per_token(model),
        tokens_per_step=tokens,
        steps=steps,
        memory=memory,
        memory_without_lora=estimate_memory(whole, compute) if config.train.lora_rank else None,
        cache_bytes=cache_bytes(config.model),
        free_bytes=free,
        largest_batch=None if free is None else largest_batch(memory, config, free),
        times=times_on_devices(flops_per_token(model) * tokens * steps, compute),
    )


def with_expected_vocabulary(config: Config) -> Config:
    """The vocabulary size that training will take from the tokenizer; of characters a guess."""
    learned = {"bpe": config.data.vocab_size, "char": CHARACTERS}
    name = config.data.tokenizer
    if config.data.folder:
        size = tokenizer_of(local_folder(config.data.folder, whole=False), config).vocab_size
    else:
        size = learned[name] if name in learned else find_tokenizer(name).vocab_size
    return with_settings(config, model={"vocab_size": padded_vocabulary(size, config)})


def count_parameters(model: GPT) -> dict[str, int]:
    """Parameters by part: see PARTS."""
    counts = Counter[str]()
    for name, parameter in model.named_parameters():
        counts[next(part for part in PARTS if part in name)] += parameter.numel()
    return dict(counts)


def refuse_beyond_memory(config: Config, compute: Compute, at_once: int = 1) -> None:
    """Raise UserError for a run that needs far more memory than is free on its device.

    Ask before the text is prepared. `at_once` is how many such runs there will be.
    """
    config = with_expected_vocabulary(config)
    refuse_unmeasurable(config.model, compute)
    memory = estimate_memory(config, compute)
    each_step = memory.activations + memory.working
    batch = "train.batch_size or " if config.train.batch_size > 1 else ""
    needs = {
        "model.n_embd or model.n_layer": at_once * (memory.total - each_step),
        batch + "model.context_length": at_once * each_step,
    }
    if at_once > 1:
        needs = {"--jobs": sum(needs.values())}
    refuse_beyond(available_bytes(compute.device), needs, MARGINS[compute.device.type])


def refuse_unmeasurable(config: ModelConfig, compute: Compute) -> None:
    """Raise UserError if there is no memory for the two layers that are measured."""
    tables = 1 if config.head == "tied" else 2
    weights = config.n_embd * (tables * config.vocab_size + 24 * config.n_embd)
    refuse_beyond(available_bytes(compute.device), {"model.n_embd": 4 * weights})


def estimate_memory(config: Config, compute: Compute, model: GPT | None = None) -> Memory:
    """What a run of these settings needs, apart from what Python and torch take themselves.

    Weights, gradients and the optimizer's state follow from the parameters. What autograd keeps
    differs between kernels and variants, so it is measured: on one sequence and on two, through
    one layer and through two, which gives what each further layer and each further sequence adds.
    Layers that are computed again in the backward pass keep less: see `kept_for_later`.
    A model of these settings on the meta device saves building one; it is frozen as they say.
    """
    if model is None:
        with torch.device("meta"):
            model = add_lora(GPT(config.model), config.train)
    freeze(model, config.train.freeze)
    weights = 4 * model.num_parameters()
    trained = 4 * sum(p.numel() for p in model.parameters() if p.requires_grad)
    masked = BATCHES[config.data.batches].documents_apart
    # What a second sequence adds; copies of the weights in 16 bits are there only once.
    kept = {
        (n, rows): kept
        for n in (1, 2)
        for rows, kept in kept_bytes(
            replace(config.model, n_layer=n), compute, masked, config.train
        ).items()
    }
    one, two = (kept[n, 2] - kept[n, 1] for n in (1, 2))
    copies_one, copies_two = (2 * kept[n, 1] - kept[n, 2] for n in (1, 2))
    further = config.model.n_layer - 1
    layer = two - one
    if config.train.activation_checkpointing != "none":
        layer = kept_for_later(model, config, compute)
        one += layer  # in the backward pass one block at a time is as large as without
    sequences = config.train.batch_size
    tokens = sequences * config.model.context_length
    return Memory(
        weights=weights,
        gradients=trained,
        optimizer=4 * optimizer_state_size(model, config.train),
        activations=sequences * (one + further * layer)
        + copies_one
        + further * (copies_two - copies_one),
        # Gradients of the logits, twice, and of the widest layer.
        working=4 * tokens * (2 * config.model.vocab_size + 8 * config.model.n_embd),
    )


def kept_for_later(model: GPT, config: Config, compute: Compute) -> int:
    """Bytes that a block keeps of one sequence where activations are checkpointed.

    That is its input, and if that is selective also the results of its matrices and of attention.
    """
    input_size, results = 4 * config.model.n_embd, 0
    if config.train.activation_checkpointing == "selective":
        linear = [m for m in model.h[0].modules() if isinstance(m, nn.Linear | LoRALinear)]
        width = sum(len(layer.weight) for layer in linear) + config.model.n_embd
        results = width * PRECISIONS[compute.precision].itemsize
    return config.model.context_length * (input_size + results)


def kept_bytes(
    config: ModelConfig, compute: Compute, masked: bool, train: TrainConfig = PLAIN
) -> dict[int, int]:
    """Bytes that a forward pass keeps for the backward pass, not counting parameters.

    By the number of sequences, one or two, of the context length. Frozen layers keep less, so the
    model has LoRA where the settings say so; on all its layers if it has none of those they name.
    """
    length, longest = config.context_length, MEASURED[-1]
    if length > longest:  # with a window as before, where there is one
        config = replace(config, context_length=longest, window=min(config.window, longest - 1))
    model = GPT(config)
    try:
        add_lora(model, train)
    except UserError:
        add_lora(model, replace(train, lora_on="*"))
    model.to(compute.device).train()
    if length <= longest:
        return {rows: kept_by_pass(model, compute, rows, length, masked) for rows in (1, 2)}
    return {
        rows: extrapolated(
            [(n, kept_by_pass(model, compute, rows, n, masked)) for n in MEASURED], length
        )
        for rows in (1, 2)
    }


def extrapolated(points: Sequence[tuple[int, int]], x: int) -> int:
    """The value at x of the polynomial through all points (Lagrange).

    >>> extrapolated([(1, 1), (2, 4), (3, 9)], 10)
    100
    """
    value = Fraction(0)
    for n, y in points:
        others = [m for m, _ in points if m != n]
        value += y * Fraction(math.prod(x - m for m in others), math.prod(n - m for m in others))
    return round(value)


def kept_by_pass(model: GPT, compute: Compute, rows: int, length: int, masked: bool) -> int:
    """Bytes that one forward pass keeps, of so many sequences of so many tokens."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    # Held until the end: memory that is freed may be handed out again, and would be counted once.
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> None:
        """Note the memory. A tensor that is its operation's own result must not be held itself.

        It leads back to the operation: Python cannot see that circle, and never frees it.
        """
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage

    ids = torch.zeros(rows, length, dtype=torch.long, device=compute.device)
    documents = torch.ones_like(ids) if masked else None
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda _: ids), compute.autocast():
        model.loss(model(ids, documents=documents), ids)
    return sum(storage.nbytes() for storage in kept.values())


def cache_bytes(config: ModelConfig, rows: int = 1) -> int:
    """Bytes of the keys and values of whole contexts, in float32: see cache.KVCache."""
    per_token = 2 * config.n_layer * config.kv_heads * config.head_size
    return 4 * rows * config.context_length * per_token


def available_bytes(device: torch.device) -> int | None:
    """Memory that is free now; None where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return free_memory()


def largest_batch(memory: Memory, config: Config, free: int) -> int:
    """How many sequences fit into so many bytes; 0 if not even one does."""
    fixed = memory.weights + memory.gradients + memory.optimizer
    each = (memory.activations + memory.working) / config.train.batch_size
    return max(0, int((free - fixed) / each))


def times_on_devices(flops: float, compute: Compute) -> list[Time]:
    """How long so many operations take here and on GPUs, and what those cost."""
    here = compute.peak_flops()
    times = [Time("this machine", here, flops / here / USUAL_SHARE, None)]
    for name, price in PRICES.items():
        seconds = flops / KNOWN_PEAKS[name] / USUAL_SHARE
        times.append(Time(name, KNOWN_PEAKS[name], seconds, seconds / 3600 * price))
    return times
