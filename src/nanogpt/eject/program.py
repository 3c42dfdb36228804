"""One run on one process, from token files to text: what `nanogpt eject` makes a file from.

It computes what `training.start.Trainer` computes, bit for bit, in as few words as possible. What
a person at the command line, a cluster or an experiment needs is left out. In the file that is
made every `config` has become constants, and only what the settings choose is left.

Axes: B batch, T time, V vocabulary.
"""

import json
import math
import re
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from nanogpt.config import Config, DataConfig, SampleConfig, TrainConfig, choose, with_settings
from nanogpt.evaluation.loss import stacked
from nanogpt.files import sha256
from nanogpt.generation.reader import forgotten
from nanogpt.generation.sampling import (
    SAMPLERS,
    apply_temperature,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    penalize_repeats,
)
from nanogpt.model.gpt import GPT
from nanogpt.model.layers import softmax
from nanogpt.text.batches import BATCHES, Batch, Batches, sliding_windows
from nanogpt.text.splitter import ASCII_PATTERNS
from nanogpt.text.tokenfiles import TokenFile, end_of_text, token_dtype
from nanogpt.text.tokenizer import CharTokenizer, Tokenizer
from nanogpt.training.loop import dropout_seed
from nanogpt.training.optim import build_optimizer, learning_rate

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def load_tokenizer(config: DataConfig) -> Tokenizer | CharTokenizer:
    """The tokenizer that lies beside the token files."""
    path = Path(config.folder, "tokenizer.json")
    kind = " --data.tokenizer char" if config.tokenizer == "char" else ""
    if not path.exists():
        sys.exit(f"no {path}: first `nanogpt prepare TEXT --data.folder {config.folder}{kind}`")
    values = json.loads(path.read_text("utf-8"))
    if config.tokenizer == "char":
        return CharTokenizer(values["characters"], values["special_tokens"])
    order = bytes(values["byte_order"])
    return Tokenizer(values["merges"], "gpt2", values["special_tokens"], order)


def encode(text: str, tokenizer: Tokenizer | CharTokenizer, config: DataConfig) -> list[int]:
    """Turn text into ids."""
    if config.tokenizer == "char":
        return tokenizer.encode(text)
    words = split(text)
    return [i for word in words for i in tokenizer.encode_word(word)]  # type: ignore[union-attr]


def split(text: str) -> list[str]:
    """Cut text into words as GPT-2 does. BPE never merges across their borders.

    >>> split("It's 2 o'clock.")
    ['It', "'s", ' 2', ' o', "'", 'clock', '.']
    """
    # An ASCII character for each other of its kind: the pattern then cuts at the same places.
    kinds = {str.isascii: "", str.isalpha: "a", str.isnumeric: "0", str.isspace: "\t"}
    plain = "".join(next((kinds[fits] or c for fits in kinds if fits(c)), "!") for c in text)
    words = re.finditer(ASCII_PATTERNS["gpt2"], plain, re.ASCII)
    return [text[word.start() : word.end()] for word in words]


def open_batches(name: str, tokenizer: Tokenizer | CharTokenizer, config: Config) -> Batches:
    """The batches of the text "train" or "val"."""
    path = Path(config.data.folder, f"{name}.bin")
    ids = np.memmap(path, token_dtype(tokenizer.vocab_size), "r")
    tokens = TokenFile(path, ids, cast(Any, None))
    kind = choose(BATCHES, "data.batches", config.data.batches)
    return kind(tokens, config.model.context_length, end_of_text(tokenizer), config.data)


def begin(
    run: Path, tokenizer: Tokenizer | CharTokenizer, config: Config
) -> tuple[GPT, Optimizer, dict[str, Any]]:
    """Model, optimizer and state: those of the latest checkpoint, or fresh ones."""
    torch.manual_seed(config.train.seed)
    multiple = config.train.pad_vocab_to  # sizes that suit a GPU
    vocab_size = -(-tokenizer.vocab_size // multiple) * multiple
    model = GPT(replace(config.model, vocab_size=vocab_size)).to(DEVICE)
    optimizer = build_optimizer(model, config.train)
    return model, optimizer, restore(run, model, optimizer, config)


def train(run: Path, config: Config, stop: Sequence[bool] = ()) -> Iterator[dict[str, Any]]:
    """Train to the last step, or until something is in `stop`. Yields what happens."""
    settings = config.train
    tokenizer = load_tokenizer(config.data)
    texts = ("train", "val")
    train_batches, val_batches = (open_batches(name, tokenizer, config) for name in texts)
    model, optimizer, state = begin(run, tokenizer, config)
    if settings.compile == "on" or (settings.compile == "auto" and DEVICE == "cuda"):
        model.compile()
    if state["step"] == 0:
        yield {"step": 0, "val_loss": validate(model, val_batches, config)}
    while (
        not stop
        and state["step"] < settings.max_steps
        and (not settings.stop_at_target or (state["best_loss"] or math.inf) > settings.last_target)
    ):
        start, lr = time.perf_counter(), learning_rate(state["step"], settings)
        for group in optimizer.param_groups:
            group["lr"] = lr * group.get("lr_factor", 1.0)
        if config.model.dropout or config.model.attention_dropout:
            torch.manual_seed(dropout_seed(settings.seed, state["step"]))
        optimizer.zero_grad(set_to_none=True)
        loss = gradients(model, train_batches, state["step"], config)
        limit = settings.grad_clip or math.inf
        norm = nn.utils.clip_grad_norm_(model.parameters(), limit, error_if_nonfinite=True)
        optimizer.step()
        step = state["step"] = state["step"] + 1
        state["seconds"] += time.perf_counter() - start
        yield {"step": step, "loss": loss.item(), "lr": lr, "grad_norm": norm.item()}
        if settings.sample_interval and step % settings.sample_interval == 0:
            yield {"step": step, "sample": sample(model, tokenizer, config.sample.prompt, config)}
        best = False
        if step % settings.eval_interval == 0 or step == settings.max_steps:
            val_loss = validate(model, val_batches, config)
            yield {"step": step, "val_loss": val_loss}
            best = state["best_loss"] is None or val_loss < state["best_loss"]
            state["best_loss"] = val_loss if best else state["best_loss"]
        due = step % settings.checkpoint_interval == 0 or step == settings.max_steps
        if best or stop or due:
            save(run, model, optimizer, state, best, config)


def gradients(model: GPT, batches: Batches, step: int, config: Config) -> Tensor:
    """Add up the gradients of the batches of a step; returns their mean loss, ()."""
    size, count, seed = config.train.batch_size, config.train.grad_accum_steps, config.train.seed
    if count == 1:
        batch = batches.batch(step, size, seed)
        loss = (
            batch_loss(model, batch, "sum", config.train)
            + model.auxiliary_loss() * batch.real_targets
        ) / batch.real_targets
        loss.backward()
        return loss.detach()
    parts = [batches.batch(step * count + n, size, seed) for n in range(count)]
    targets_in_all = sum(batch.real_targets for batch in parts)
    losses = []
    for batch in parts:
        loss = (
            batch_loss(model, batch, "sum", config.train)
            + model.auxiliary_loss() * batch.real_targets
        ) / targets_in_all
        loss.backward()
        losses.append(loss.detach())
    return torch.stack(losses).sum()


@torch.no_grad()
def validate(model: GPT, batches: Batches, config: Config) -> float:
    """The loss on the validation text, in nats per token: the same windows every time."""
    size, length, seed = config.train.batch_size, config.model.context_length, config.train.seed
    parts: Iterator[Batch]
    if config.train.eval_batches:
        parts = (batches.batch(n, size, seed) for n in range(config.train.eval_batches))
    else:
        windows = sliding_windows(batches.tokens.ids, length, length)
        parts = stacked(windows, size, batches.separator if batches.documents_apart else None)
    model.eval()
    losses = [batch_loss(model, batch, "none", config.train).float().cpu() for batch in parts]
    model.train()
    return sum(float(x.numpy().sum(dtype=np.float64)) for x in losses) / sum(map(len, losses))


def batch_loss(model: GPT, batch: Batch, reduction: str, config: TrainConfig) -> Tensor:
    """The loss of a batch in nats: the sum over its targets, or with "none" that of each."""
    ids, targets = (on_device(array) for array in (batch.ids, batch.targets))
    documents = None if batch.documents is None else on_device(batch.documents)
    with autocast(config):
        return model.loss(model(ids, documents=documents), targets, reduction=reduction)


def on_device(array: np.ndarray) -> Tensor:
    """An array as a tensor on the device that computes."""
    return torch.from_numpy(array).to(DEVICE)


def autocast(config: TrainConfig) -> AbstractContextManager:
    """The context in which forward passes run. Weights stay in float32 in every precision."""
    if config.precision == "float32":
        return nullcontext()
    if config.precision == "bfloat16":
        return torch.autocast(DEVICE, torch.bfloat16)
    return torch.autocast(DEVICE, torch.bfloat16, enabled=DEVICE == "cuda")


@torch.no_grad()
def sample(model: GPT, tokenizer: Tokenizer | CharTokenizer, prompt: str, config: Config) -> str:
    """Let the model continue a text: predict a token, append it, repeat."""
    end, settings = end_of_text(tokenizer), config.sample
    text = encode(prompt or "\n", tokenizer, config.data) if prompt or end is None else [end]
    start = len(text)
    draw = torch.Generator().manual_seed(settings.seed)
    if settings.sampler != "standard":
        draw = choose(SAMPLERS, "sample.sampler", settings.sampler)(settings, 1)  # type: ignore
    model.eval()
    while len(text) < start + settings.max_new_tokens:
        known = text[forgotten(len(text), config.model.context_length) :]
        logits = model(torch.tensor([known], device=DEVICE))[:, -1]
        if config.train.pad_vocab_to > 1:
            logits[:, tokenizer.vocab_size :] = -math.inf
        token = next_token(logits, text, draw, settings)
        if token == end:
            break
        text.append(token)
    model.train()
    return b"".join(tokenizer.vocabulary[i] for i in text[start:]).decode("utf-8", "replace")


def next_token(logits: Tensor, text: list[int], draw: Any, settings: SampleConfig) -> int:
    """Choose the token after a text by logits (1, V); temperature 0 takes the likeliest."""
    if settings.sampler != "standard":
        seen = seen_in(text, logits) if settings.repetition_penalty != 1 else None
        return int(draw(logits, seen))
    if settings.repetition_penalty != 1:
        logits = logits.float()
        logits = penalize_repeats(logits, seen_in(text, logits), settings.repetition_penalty)
    if settings.temperature == 0:
        return int(logits.argmax())
    logits = keep_top_k(apply_temperature(logits.float(), settings.temperature), settings.top_k)
    logits = keep_min_p(keep_top_p(logits, settings.top_p), settings.min_p)
    # Drawn on the CPU, so that a seed gives the same text on every device.
    return int(torch.multinomial(softmax(logits).cpu(), 1, generator=draw))


def seen_in(text: list[int], logits: Tensor) -> Tensor:
    """Which tokens of the vocabulary stand in a text: (1, V), in the shape of logits."""
    seen = torch.zeros_like(logits, dtype=torch.bool)
    seen[0, text] = True
    return seen


def restore(run: Path, model: GPT, optimizer: Optimizer, config: Config) -> dict[str, Any]:
    """Read the latest checkpoint, and return its state; without one nothing has been done yet."""
    latest = run / "checkpoints" / "latest"
    if latest.exists():
        folder = latest.parent / latest.read_text().strip()
        model.load_state_dict(read_tensors(folder / "model.safetensors"))
        for name, tensor in read_tensors(folder / "optimizer.safetensors").items():
            parameter, _, key = name.rpartition(".")
            optimizer.state[model.get_parameter(parameter)][key] = tensor
        return json.loads((folder / "state.json").read_text("utf-8"))["state"]
    hashes = [sha256(Path(config.data.folder, f"{name}.bin"))[:16] for name in ("train", "val")]
    return {"step": 0, "best_loss": None, "seconds": 0.0, "tokens": "-".join(hashes)}


def save(
    run: Path, model: GPT, optimizer: Optimizer, state: dict[str, Any], best: bool,
    config: Config,
) -> None:  # fmt: skip
    """Write a checkpoint, which `latest`, perhaps `best`, then names. Those that none names go."""
    folder = run / "checkpoints" / f"step-{state['step']:06d}"
    folder.mkdir(parents=True, exist_ok=True)
    moments = {
        f"{name}.{key}": torch.as_tensor(value)
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state[parameter].items()
    }
    write_tensors(folder / "model.safetensors", model.state_dict())
    write_tensors(folder / "optimizer.safetensors", moments)
    hashes = {path.name: sha256(path) for path in folder.glob("*.safetensors")}
    settings = asdict(with_settings(config, model={"vocab_size": len(model.wte.weight)}))
    saved = {"format": 1, "state": state, "config": settings, "sha256": hashes}
    (folder / "state.json").write_text(json.dumps(saved), "utf-8")
    for name in ("best", "latest") if best else ("latest",):
        (folder.parent / name).write_text(folder.name)
    kept = [path.read_text().strip() for path in folder.parent.iterdir() if path.is_file()]
    for old in folder.parent.glob("step-*"):
        if old.name not in kept:
            shutil.rmtree(old)
    shutil.copy(Path(config.data.folder, "tokenizer.json"), run)
    (run / "metrics.jsonl").touch()


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file: 8 bytes of length, a JSON header, the numbers."""
    header, end = {}, 0
    for name, tensor in tensors.items():
        start, end = end, end + 4 * tensor.numel()
        header[name] = {"dtype": "F32", "shape": [*tensor.shape], "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            file.write(tensor.detach().cpu().contiguous().numpy().tobytes())


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file."""
    data = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(data[:8], "little")
    tensors = {}
    for name, about in json.loads(data[8:start]).items():
        numbers = data[slice(*(start + offset for offset in about["data_offsets"]))]
        tensor = torch.frombuffer(numbers, dtype=torch.float32).view(about["shape"])
        tensors[name] = tensor.to(DEVICE)
    return tensors


def main(arguments: list[str], config: Config) -> None:
    """`train RUN` or `sample RUN [PROMPT]`."""
    match arguments:
        case ["train", run]:
            # Ctrl-C ends the training after its step, with a checkpoint; once more, at once.
            stop: list[bool] = []
            signal.signal(signal.SIGINT, lambda *_: sys.exit(130) if stop else stop.append(True))
            for record in train(Path(run), config, stop):
                print(*(f"{name} {value}" for name, value in record.items()), flush=True)
        case ["sample", run, *words]:
            tokenizer, prompt = load_tokenizer(config.data), " ".join(words) or config.sample.prompt
            if not Path(run, "checkpoints", "latest").exists():
                sys.exit(f"{run} has no checkpoint: train it first")
            model = begin(Path(run), tokenizer, config)[0]
            print(prompt + sample(model, tokenizer, prompt, config))
        case _:
            sys.exit(__doc__)
