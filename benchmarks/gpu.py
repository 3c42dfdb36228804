"""GPT-2 on one NVIDIA GPU, beside its peers: `python benchmarks/gpu.py` takes seven minutes.

Training speed as a share of the card's peak, the memory of GPT-2 XL with and without activation
checkpointing, and attention over long contexts. Writes the part "One GPU" of docs/benchmarks.md and
docs/images/attention-gpu.png. With --nanogpt FOLDER, a checkout of karpathy/nanoGPT takes part.
"""

import argparse
import gc
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nanogpt.config import PRESETS, Config, ModelConfig, load_config
from nanogpt.device import Compute, resolve
from nanogpt.model.attention import (
    FlexAttention,
    FusedAttention,
    PlainAttention,
    attention_mask,
)
from nanogpt.model.gpt import GPT
from nanogpt.model.size import flops_per_token
from nanogpt.text.batches import Batch
from nanogpt.training.execution import build_objective, checkpoint_activations, suit_compiler
from nanogpt.training.loop import accumulate_gradients
from nanogpt.training.objective.next_token import NextToken
from nanogpt.training.optim import build_optimizer

ROOT = Path(__file__).parent.parent
GIB = 2**30
STEPS = 3  # that are timed
CONTEXTS = [1024, 4096, 16384, 32768]
WINDOW = 1024

Step = Callable[[], Any]
started = time.perf_counter()


def say(text: str) -> None:
    """A line of progress."""
    print(f"[{time.perf_counter() - started:4.0f} s] {text}", flush=True)


@contextmanager
def fresh_card() -> Iterator[None]:
    """An empty card, with nothing compiled."""
    gc.collect()
    torch._dynamo.reset()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    yield


def seconds(step: Step, steps: int = STEPS) -> float:
    """The median time of a step; the first, which compiles, is left out."""
    step()
    times = []
    for _ in range(steps):
        torch.cuda.synchronize()
        start = time.perf_counter()
        step()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def batches(config: ModelConfig, rows: int, number: int) -> list[Batch]:
    """Random tokens: what they are does not change the speed."""
    draw = np.random.default_rng(0)
    ids = draw.integers(0, 50257, (number, rows, config.context_length + 1))
    return [Batch(window[:, :-1].copy(), window[:, 1:].copy()) for window in ids]


def training_step(
    model: nn.Module, objective: nn.Module, optimizer: Any, data: list[Batch], compute: Compute
) -> Step:
    """A step as the training loop takes it."""

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss = accumulate_gradients(objective, data, compute)
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        torch.stack([loss, norm]).tolist()
        optimizer.step()

    return step


def ours(recipe: Config, compute: Compute, **variants: object) -> Step:
    """What `nanogpt train gpt2-124m` does."""
    torch.manual_seed(0)
    model = GPT(replace(recipe.model, **variants)).to(compute.device).train()
    optimizer = build_optimizer(model, recipe.train)
    settings = replace(recipe.train, compile="on")
    objective, _ = build_objective(model, settings, compute, tokens=10**10)
    data = batches(model.config, settings.batch_size, settings.grad_accum_steps)
    return training_step(model, objective, optimizer, data, compute)


class Theirs(nn.Module):
    """Another project's model as an objective: the sum of the losses of a batch."""

    def __init__(self, model: nn.Module, loss: Callable[[nn.Module, Tensor, Tensor], Tensor]):
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, ids: Tensor, targets: Tensor, documents: None = None) -> Tensor:
        return self.loss(self.model, ids, targets) * targets.numel()


def nano_gpt(recipe: Config, compute: Compute, folder: Path, rows: int, steps: int) -> Step:
    """nanoGPT's model, compiled, and its optimizer, as its train.py has them: without biases."""
    sys.path.insert(0, str(folder))
    from model import GPT as TheirGPT
    from model import GPTConfig

    c = recipe.model
    config = GPTConfig(
        block_size=c.context_length, vocab_size=50304, n_layer=c.n_layer, n_head=c.n_head,
        n_embd=c.n_embd, dropout=0.0, bias=False,
    )  # fmt: skip
    model = TheirGPT(config).to(compute.device)
    optimizer = model.configure_optimizers(0.1, 6e-4, (0.9, 0.95), compute.device.type)
    objective = Theirs(torch.compile(model), lambda model, ids, targets: model(ids, targets)[1])
    return training_step(model, objective, optimizer, batches(c, rows, steps), compute)


def transformers(recipe: Config, compute: Compute, compiled: bool) -> Step:
    """GPT2LMHeadModel with torch's fused AdamW."""
    from transformers import GPT2Config, GPT2LMHeadModel

    c = recipe.model
    config = GPT2Config(
        n_layer=c.n_layer, n_head=c.n_head, n_embd=c.n_embd, n_positions=c.context_length,
        vocab_size=c.vocab_size, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, use_cache=False,
    )  # fmt: skip
    model = GPT2LMHeadModel(config).to(compute.device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=6e-4, fused=True)
    network = torch.compile(model) if compiled else model

    def loss(network: nn.Module, ids: Tensor, targets: Tensor) -> Tensor:
        found: Tensor = network(input_ids=ids, labels=ids).loss  # which shifts them itself
        return found

    data = batches(c, recipe.train.batch_size, recipe.train.grad_accum_steps)
    return training_step(model, Theirs(network, loss), optimizer, data, compute)


def training(recipe: Config, compute: Compute, folder: Path | None) -> str:
    """The table of training speeds."""
    rows, steps = recipe.train.batch_size, recipe.train.grad_accum_steps
    makers: dict[str, tuple[int, Callable[[], Step]]] = {
        "nanogpt, the recipe": (rows, lambda: ours(recipe, compute)),
        "nanogpt without biases, as nanoGPT trains": (
            rows, lambda: ours(recipe, compute, bias=False),
        ),
    }  # fmt: skip
    makers["`GPT2LMHeadModel`"] = rows, lambda: transformers(recipe, compute, False)
    makers["`GPT2LMHeadModel`, compiled"] = rows, lambda: transformers(recipe, compute, True)
    if folder:
        makers["nanoGPT, its recipe"] = 12, lambda: nano_gpt(recipe, compute, folder, 12, 40)
        makers["nanoGPT, our batch size"] = (
            rows, lambda: nano_gpt(recipe, compute, folder, rows, steps),
        )  # fmt: skip
    flops, peak = flops_per_token(GPT(recipe.model)), compute.peak_flops()
    lines = [
        "| who trains | sequences at once | tokens/s | of the peak | memory |",
        "|" + "---|" * 5,
    ]
    for name, (batch, make) in makers.items():
        with fresh_card():
            step = make()
            number = 40 if batch == 12 else steps
            speed = batch * number * recipe.model.context_length / seconds(step)
            memory = torch.cuda.max_memory_allocated() / GIB
            share = f"{speed * flops / peak:.1%}"
            lines.append(f"| {name} | {batch} | {speed:,.0f} | {share} | {memory:.1f} GiB |")
            say(lines[-1])
            del step
    return "\n".join(lines)


def xl(recipe: Config, compute: Compute, rows: int) -> str:
    """The table of GPT-2 XL's memory and speed, by what is kept for the backward pass."""
    config = replace(PRESETS["gpt2-xl"], vocab_size=recipe.model.vocab_size)
    lines = [
        "| activation checkpointing | peak memory | tokens/s | of the peak |",
        "|" + "---|" * 4,
    ]
    for kind in ("none", "selective", "block"):
        with fresh_card():
            try:
                with compute.device:
                    model = GPT(config).train()
                suit_compiler(model)
                checkpoint_activations(model, kind)
                for block in model.h:
                    block.compile()  # one for all: 48 blocks as one take minutes
                optimizer = build_optimizer(model, recipe.train)
                step = training_step(
                    model, NextToken(model), optimizer, batches(config, rows, 1), compute
                )
                speed = rows * config.context_length / seconds(step)
                share = speed * flops_per_token(model) / compute.peak_flops()
                memory = torch.cuda.max_memory_allocated() / GIB
                lines.append(f"| {kind} | {memory:.1f} GiB | {speed:,.0f} | {share:.1%} |")
            except torch.OutOfMemoryError:
                lines.append(f"| {kind} | does not fit | | |")
            model = optimizer = step = None
            say(lines[-1])
    return "\n".join(lines)


def attention_cost(
    kernel: nn.Module, mask: Tensor | None, length: int, device: torch.device
) -> tuple[float, float]:
    """Seconds and bytes of attention, forward and backward; not a number where it does not fit."""
    q, k, v = (
        torch.randn(1, 12, length, 64, device=device, dtype=torch.bfloat16, requires_grad=True)
        for _ in range(3)
    )
    with fresh_card():
        before = torch.cuda.memory_allocated()
        # Flex is made for the compiler; the other forms stay as they are written.
        run = torch.compile(kernel, dynamic=False) if isinstance(kernel, FlexAttention) else kernel

        def step() -> None:
            run(q, k, v, mask, mask is None).sum().backward()

        try:
            spent = seconds(step, 5)
        except torch.OutOfMemoryError:
            return math.nan, math.nan
        return spent, torch.cuda.max_memory_allocated() - before


def attention(compute: Compute) -> tuple[str, dict[str, list[tuple[float, float]]]]:
    """What attention costs by context length, in each form, and with a window."""
    shape = ModelConfig()
    flex = FlexAttention(shape)
    plain, fused = PlainAttention(shape), FusedAttention(shape)
    short = torch.randn(3, 2, 12, 700, 64, device=compute.device)  # no multiple of a block
    mask = attention_mask(700, 700, window=100, device=compute.device)
    error = (flex(*short, mask) - plain(*short, mask)).abs().max().item()
    say(f"flex differs from plain by {error:.1e}")
    found: dict[str, list[tuple[float, float]]] = {}
    forms: dict[str, tuple[nn.Module, int]] = {
        "explicit": (plain, 0),
        "fused (flash)": (fused, 0),
        f"fused, window of {WINDOW:,}": (fused, WINDOW),
        f"flex, window of {WINDOW:,}": (flex, WINDOW),
    }
    for name, (kernel, window) in forms.items():
        found[name] = []
        for length in CONTEXTS:
            seen = window and attention_mask(length, length, window, device=compute.device)
            found[name].append(
                attention_cost(kernel, seen if window else None, length, compute.device)
            )
        say(f"{name}: " + ", ".join(f"{1e3 * spent:.2f} ms" for spent, _ in found[name]))
    lines = ["| form | " + " | ".join(f"{n:,}" for n in CONTEXTS) + " |"]
    lines.append("|" + "---|" * (1 + len(CONTEXTS)))
    for name, costs in found.items():
        cells = (f"{1e3 * s:.2f} ms, {b / 2**20:,.0f} MiB" if s == s else "-" for s, b in costs)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines.append(f"\nFlex and explicit attention differ by at most {error:.1e} in float32.")
    return "\n".join(lines), found


def draw(found: dict[str, list[tuple[float, float]]], card: str, path: Path) -> None:
    """Time and memory over the context length."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    sides = figure.subplots(1, 2)
    for number, (axes, label, unit) in enumerate(
        zip(sides, ("milliseconds", "memory in MiB"), (1e3, 2**-20), strict=True)
    ):
        for name, costs in found.items():
            axes.plot(CONTEXTS, [unit * cost[number] for cost in costs], marker="o", label=name)
        axes.set(xscale="log", yscale="log", xlabel="context length in tokens", ylabel=label)
        axes.set_xticks(CONTEXTS, [f"{n // 1024}k" for n in CONTEXTS])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    sides[0].legend(frameon=False)
    figure.suptitle(f"Attention, forward and backward: 12 heads of 64 channels, bfloat16, {card}")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Measure, print, and replace the part "One GPU" of docs/benchmarks.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nanogpt", type=Path, help="a checkout of karpathy/nanoGPT")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="where the results go")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("this benchmark needs an NVIDIA GPU")
    compute, card = resolve("cuda", "bfloat16"), torch.cuda.get_device_name()
    recipe = load_config(ROOT / "configs" / "gpt2-124m.toml")
    padded = -(-recipe.model.vocab_size // recipe.train.pad_vocab_to) * recipe.train.pad_vocab_to
    recipe = replace(recipe, model=replace(recipe.model, vocab_size=padded))
    say(card)
    table = training(recipe, compute, arguments.nanogpt)
    attention_table, found = attention(compute)
    rows = 8
    xl_table = xl(recipe, compute, rows)
    draw(found, card, arguments.docs / "images" / "attention-gpu.png")
    tokens = recipe.tokens_per_step
    part = f"""## One GPU

Written by `python benchmarks/gpu.py` on a machine that has one. {card}, torch {version("torch")},
transformers {version("transformers")}, {date.today()}.

**GPT-2 124M**: steps of {tokens:,} tokens (nanoGPT's own recipe: 491,520) in bfloat16, forward,
backward, clipping and AdamW; medians of {STEPS} steps. A token takes
{flops_per_token(GPT(recipe.model)) / 1e6:.0f} MFLOP, and the maker's figure for the peak is
{compute.peak_flops() / 1e12:.0f} TFLOP/s.

{table}

**GPT-2 XL**, 1.56 billion weights: one batch of {rows} sequences of 1,024 tokens a step, each block
compiled.

{xl_table}

**Attention** by context length: one sequence, 12 heads of 64 channels, bfloat16, forward and
backward.

{attention_table}

![Time and memory of attention by context length](images/attention-gpu.png)
"""
    path = arguments.docs / "benchmarks.md"
    before, _, old = (path.read_text() if path.exists() else "").partition("## One GPU")
    _, heading, after = old.partition("\n## ")  # what people wrote below it stays
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{before.rstrip()}\n\n{part}{heading}{after}")
    print(part)


if __name__ == "__main__":
    main()
