"""nanogpt plan: what a run will need, before anything runs."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from nanogpt.cli.settings import Parser, load_settings
from nanogpt.config import Config, DataConfig, ModelConfig, SampleConfig, TrainConfig, with_settings
from nanogpt.device import KNOWN_PEAKS, Compute, resolve
from nanogpt.model.gpt import GPT
from nanogpt.model.size import flops_per_token
from nanogpt.text.batches import BATCHES
from nanogpt.training.variants import optimizer_state_size

# Dollars for an hour of one GPU, as clouds offered them on demand in autumn 2026, rounded.
PRICES = {"H100": 2.5, "A100": 1.3, "L4": 0.6, "RTX 4090": 0.4, "T4": 0.3}

# The share of the peak that training usually reaches.
USUAL_SHARE = 0.4

PARTS = {
    "wte": "token embeddings, also the head",
    "wpe": "positions",
    "attn": "attention",
    "mlp": "feed-forward",
    "ln": "norms",
}


def main(arguments: Sequence[str]) -> None:
    """Print parameters, operations, memory, time and cost of a recipe."""
    parser = Parser("plan", "What a run will need: parameters, operations, memory, time, cost.")
    parser.add_argument("recipe", nargs="?", help="a TOML file, or the name of one in configs/")
    parser.add_settings(ModelConfig, DataConfig, TrainConfig, SampleConfig)
    options = parser.parse(arguments)
    config = load_settings(options.recipe, options)
    # Training will take the vocabulary from the tokenizer; for characters this is a guess.
    learned = {"bpe": config.data.vocab_size, "char": 100}
    size = learned.get(config.data.tokenizer, config.model.vocab_size)
    config = with_settings(config, model={"vocab_size": size})
    compute = resolve(config.train.device, config.train.precision)
    console = Console()
    with torch.device("meta"):  # shapes without numbers: no memory, whatever the size
        model = GPT(config.model)
    show_parameters(model, console)
    with console.status("running one layer on one sequence ..."):
        memory = estimate_memory(config, compute)
    show_memory(memory, config, compute, console)
    show_time(model, config, compute, console)


def show_parameters(model: GPT, console: Console) -> None:
    """Parameters by kind of module."""
    counts = Counter[str]()
    for name, parameter in model.named_parameters():
        counts[next(part for part in PARTS if part in name)] += parameter.numel()
    table = Table("parameters", "", "", box=None, header_style="bold")
    for part, count in counts.items():
        table.add_row(PARTS[part], f"{count:,}", f"{count / model.num_parameters():.0%}")
    table.add_row("all", f"{model.num_parameters():,}", "", style="bold")
    console.print(table)


@dataclass(frozen=True)
class Memory:
    """Bytes that training needs at most."""

    weights: int
    gradients: int
    optimizer: int
    activations: int  # what one forward pass keeps for the backward pass
    working: int  # what the backward pass has under way at its fullest

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.working


def estimate_memory(config: Config, compute: Compute) -> Memory:
    """What a run of these settings needs, apart from what Python and torch take themselves.

    Weights, gradients and the optimizer's state follow from the parameters. What autograd keeps
    differs between kernels and variants, so it is measured: on one sequence and on two, through
    one layer and through two, which gives what each further layer and each further sequence adds.
    """
    with torch.device("meta"):
        model = GPT(config.model)
    weights = 4 * model.num_parameters()
    optimizer = 4 * optimizer_state_size(model, config.train)
    masked = BATCHES[config.data.batches].documents_apart
    # What a second sequence adds; copies of the weights in 16 bits are there only once.
    kept = {
        (n, rows): kept_bytes(replace(config.model, n_layer=n), compute, rows, masked)
        for n in (1, 2)
        for rows in (1, 2)
    }
    one, two = (kept[n, 2] - kept[n, 1] for n in (1, 2))
    copies_one, copies_two = (2 * kept[n, 1] - kept[n, 2] for n in (1, 2))
    further = config.model.n_layer - 1
    sequences = config.train.batch_size
    tokens = sequences * config.model.context_length
    return Memory(
        weights=weights,
        gradients=weights,
        optimizer=optimizer,
        activations=sequences * (one + further * (two - one))
        + copies_one
        + further * (copies_two - copies_one),
        # Gradients of the logits, twice, and of the widest layer.
        working=4 * tokens * (2 * config.model.vocab_size + 8 * config.model.n_embd),
    )


def kept_bytes(config: ModelConfig, compute: Compute, rows: int, masked: bool) -> int:
    """Bytes that a forward pass keeps for the backward pass, parameters apart."""
    model = GPT(config).to(compute.device).train()
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}
    alive = []  # memory that is freed may be handed out again, and would then be counted once

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    ids = torch.zeros(rows, config.context_length, dtype=torch.long, device=compute.device)
    documents = torch.ones_like(ids) if masked else None
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t), compute.autocast():
        model.loss(model(ids, documents=documents), ids)
    return sum(kept.values())


def show_memory(memory: Memory, config: Config, compute: Compute, console: Console) -> None:
    """Memory by use, and the largest batch that fits."""
    table = Table("memory in training", "GB", box=None, header_style="bold")
    for name in ("weights", "gradients", "optimizer", "activations", "working"):
        table.add_row(name, f"{getattr(memory, name) / 1e9:.3f}")
    table.add_row("all", f"{memory.total / 1e9:.3f}", style="bold")
    console.print()
    console.print(table)
    console.print(
        f"cache of one sequence in generation: {cache_bytes(config.model) / 1e6:,.1f} MB",
        highlight=False,
    )
    available = available_bytes(compute.device)
    fixed = memory.weights + memory.gradients + memory.optimizer
    each = (memory.activations + memory.working) / config.train.batch_size
    fits = int((available - fixed) / each)
    console.print(
        f"largest batch that fits into the {available / 1e9:.1f} GB free on {compute.device}: "
        + (f"{fits:,} sequences" if fits > 0 else "none; make the model or the context smaller"),
        highlight=False,
        soft_wrap=True,
    )


def cache_bytes(config: ModelConfig, rows: int = 1) -> int:
    """Bytes of the keys and values of whole contexts, in float32: see attention.KVCache."""
    per_token = 2 * config.n_layer * config.kv_heads * config.head_size
    return 4 * rows * config.context_length * per_token


def available_bytes(device: torch.device) -> int:
    """Memory that is free now."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def show_time(model: GPT, config: Config, compute: Compute, console: Console) -> None:
    """How long all steps take, here and on GPUs, and what those cost."""
    steps = config.train.max_steps
    flops = flops_per_token(model) * config.tokens_per_step * steps
    console.print(
        f"\n[bold]{flops_per_token(model) / 1e6:,.1f} million[/] operations per token, "
        f"{config.tokens_per_step:,} tokens per step, {steps:,} steps: "
        f"[bold]{flops:.2e}[/] operations",
        highlight=False,
        soft_wrap=True,
    )
    table = Table(
        f"at {USUAL_SHARE:.0%} of the peak", "peak, TFLOP/s", "time", "cost", box=None,
        header_style="bold",
    )  # fmt: skip
    here = compute.peak_flops()
    table.add_row("this machine", f"{here / 1e12:.2g}", duration(flops / here / USUAL_SHARE), "")
    for name, price in PRICES.items():
        seconds = flops / KNOWN_PEAKS[name] / USUAL_SHARE
        cost = f"${seconds / 3600 * price:,.2f}"
        table.add_row(name, f"{KNOWN_PEAKS[name] / 1e12:.0f}", duration(seconds), cost)
    console.print(table)


def duration(seconds: float) -> str:
    """Seconds as a person says them.

    >>> duration(4), duration(300), duration(9000), duration(10**6)
    ('4 s', '5.0 min', '2.5 h', '11.6 days')
    """
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.0f} s"
