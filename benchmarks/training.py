"""Training speed beside Hugging Face's GPT2LMHeadModel: `make bench` runs this.

Same shape, same batch, same data, same optimizer arithmetic, one process, the two taken in turns.
Writes the part "Training" of docs/benchmarks.md.
"""

import platform
import statistics
import time
from collections.abc import Callable
from datetime import date
from importlib.metadata import version

import numpy as np
import torch
from page import replace_part
from transformers import GPT2Config, GPT2LMHeadModel

from nanogpt.config import ModelConfig, TrainConfig
from nanogpt.device import Compute, resolve
from nanogpt.model.gpt import GPT
from nanogpt.model.size import flops_per_token
from nanogpt.text.batches import Batch
from nanogpt.training.loop import accumulate_gradients
from nanogpt.training.objective.next_token import NextToken
from nanogpt.training.optim import build_optimizer

SHAPE = ModelConfig(vocab_size=1024, context_length=256, n_layer=6, n_head=6, n_embd=384)
BATCH_SIZE = 16
STEPS = 5  # of each kind, after two to warm up

MODERN = {"position": "rope", "norm": "rms", "mlp": "relu2", "qk_norm": True, "bias": False}


def windows() -> np.ndarray:
    """The same random tokens for everyone: what they are does not change the speed."""
    shape = (BATCH_SIZE, SHAPE.context_length + 1)
    return np.random.default_rng(0).integers(0, SHAPE.vocab_size, shape)


def ours(
    compute: Compute, compiled: bool = False, kernels: str = "fused", **variants: object
) -> Callable[[], None]:
    """One step of ours, as the training loop takes it."""
    torch.manual_seed(0)
    model = GPT(ModelConfig(**{**vars(SHAPE), "kernels": kernels, **variants})).to(compute.device)
    optimizer = build_optimizer(model, TrainConfig())
    objective = NextToken(model)
    network = torch.compile(objective) if compiled else objective
    tokens = windows()
    batch = Batch(tokens[:, :-1], tokens[:, 1:])

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        accumulate_gradients(network, [batch], compute)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def theirs(compute: Compute) -> Callable[[], None]:
    """One step of GPT2LMHeadModel with torch's AdamW, as their documentation trains it."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=SHAPE.vocab_size,
        n_positions=SHAPE.context_length,
        n_layer=SHAPE.n_layer,
        n_head=SHAPE.n_head,
        n_embd=SHAPE.n_embd,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        use_cache=False,
        bos_token_id=None,
        eos_token_id=None,
    )
    model = GPT2LMHeadModel(config).to(compute.device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    ids = torch.from_numpy(windows()[:, :-1].copy()).to(compute.device)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with compute.autocast():
            loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def measure(steps: dict[str, Callable[[], None]], device: torch.device) -> dict[str, float]:
    """Tokens per second of each, the median over steps taken in turns."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for round_number in range(STEPS + 2):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if round_number >= 2:
                times[name].append(time.perf_counter() - start)
    tokens = BATCH_SIZE * SHAPE.context_length
    return {name: tokens / statistics.median(spent) for name, spent in times.items()}


def main() -> None:
    """Measure, print, and replace the part "Training" of docs/benchmarks.md."""
    compute = resolve()
    full = Compute(compute.device, "float32")
    steps = {
        "Hugging Face, float32": theirs(full),
        "nanogpt, hand-written kernels, float32": ours(full, kernels="plain"),
        "nanogpt, float32": ours(full),
        "nanogpt, float32, compiled": ours(full, compiled=True),
        "nanogpt with RoPE, RMS norm, squared ReLU, QK norm, float32, compiled": ours(
            full, compiled=True, **MODERN
        ),
    }
    if compute.precision == "bfloat16":
        steps["Hugging Face, bfloat16 autocast"] = theirs(compute)
        steps["nanogpt, bfloat16"] = ours(compute)
        steps["nanogpt, bfloat16, compiled"] = ours(compute, compiled=True)
    speeds = measure(steps, compute.device)
    flops = flops_per_token(GPT(SHAPE))
    peaks = {p: Compute(compute.device, p).peak_flops() for p in ("float32", compute.precision)}
    lines = [
        "| who trains | tokens/s | times Hugging Face in float32 | of the measured peak |",
        "|---|---|---|---|",
    ]
    for name, speed in speeds.items():
        peak = peaks["bfloat16" if "bfloat16" in name else "float32"]
        ratio = speed / speeds["Hugging Face, float32"]
        lines.append(f"| {name} | {speed:,.0f} | {ratio:.2f} | {speed * flops / peak:.0%} |")
    text = "\n".join(lines)
    shown = ", ".join(f"{peak / 1e12:.2f} TFLOP/s in {name}" for name, peak in peaks.items())
    part = f"""## Training

{SHAPE.n_layer} layers, {SHAPE.n_head} heads, {SHAPE.n_embd} channels, context
{SHAPE.context_length}, batch {BATCH_SIZE}; medians of {STEPS} steps taken in turns in one process.
A product of two matrices of 1,024 x 1,024 reached {shown} on this machine.

{text}

{date.today()}, {compute.device.type}, {torch.get_num_threads()} threads, {platform.machine()},
torch {version("torch")}, transformers {version("transformers")}.
"""
    replace_part(part)


if __name__ == "__main__":
    main()
