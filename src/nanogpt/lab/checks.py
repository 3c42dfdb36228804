"""What every kind of batch, objective, optimizer, schedule, sampler and reward must keep to.

As in contracts.py: a check takes the name of a variant and returns what is wrong with it, in a
sentence, or nothing.
"""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor
from torch.optim import Optimizer

from nanogpt.config import IGNORED, DataConfig, ModelConfig, SampleConfig, TrainConfig
from nanogpt.evaluation.loss import tensors
from nanogpt.evaluation.rewards import REWARDS
from nanogpt.generation.sampling import SAMPLERS
from nanogpt.model.gpt import GPT
from nanogpt.text.batches import BATCHES, Batch, Batches
from nanogpt.text.tokenfiles import Sidecar, TokenFile
from nanogpt.training.checkpoint import optimizer_tensors, restore_optimizer
from nanogpt.training.objective import OBJECTIVES
from nanogpt.training.optim import build_optimizer, learning_rate
from nanogpt.training.variants import optimizer_state_size

VOCABULARY = 29
SEPARATOR = 0
LENGTH = 8
ROWS = 4


def some_batches(name: str) -> Batches:
    """Batches of a short text of several documents."""
    draw = np.random.default_rng(0)
    ids = draw.integers(1, VOCABULARY, 400).astype(np.uint16)
    ids[13::29] = SEPARATOR
    about = Sidecar("uint16", len(ids), 2 * len(ids), 14, VOCABULARY, "", "")
    tokens = TokenFile(Path("example.bin"), ids, about)
    return BATCHES[name](tokens, LENGTH, SEPARATOR, DataConfig(batches=name))


def tiny_model() -> GPT:
    """A model that trains in a moment, always with the same weights."""
    torch.manual_seed(0)
    return GPT(
        ModelConfig(
            vocab_size=VOCABULARY,
            context_length=LENGTH,
            n_layer=2,
            n_head=2,
            n_kv_head=1,
            n_embd=16,
        )
    )


def same(one: Batch, other: Batch) -> bool:
    """Whether two batches are the same to the last token."""
    pairs = zip(vars(one).values(), vars(other).values(), strict=True)
    return all(a is b is None or np.array_equal(a, b) for a, b in pairs)


def repeatable(name: str) -> str:
    """Batch number n is a pure function of n and the seed."""
    ahead = some_batches(name).batch(3, ROWS, 1)
    in_order = some_batches(name)
    for number in range(4):
        found = in_order.batch(number, ROWS, 1)
    if not same(ahead, found):
        return "batch 3 is another one if batches 0 to 2 were made before it: keep no state"
    if same(found, in_order.batch(2, ROWS, 1)):
        return "batches 2 and 3 are the same: the number has to matter"
    if not same(found, in_order.batch(3, ROWS, 1)):
        return (
            "batch 3 is another one when it is asked for again: draw from the seed and the number"
        )
    return ""


def well_formed(name: str) -> str:
    """Ids, targets and documents are (B, T), of type int64, within the vocabulary."""
    for number in range(6):
        batch = some_batches(name).batch(number, ROWS, 1)
        for part in ("ids", "targets", "documents"):
            array = getattr(batch, part)
            if array is None and part == "documents":
                continue
            if array.shape != batch.ids.shape or array.ndim != 2 or array.dtype != np.int64:
                return f"{part} are {array.shape} of {array.dtype}: make them (B, T) of int64"
        if len(batch.ids) != ROWS:
            return f"a batch has {len(batch.ids)} rows where {ROWS} were asked for"
        real = batch.targets[:, :-1] != IGNORED
        if (batch.targets[:, :-1] != batch.ids[:, 1:])[real].any():
            return "a target is not the next token of its row"
        if batch.ids.shape[1] > LENGTH:
            return f"a row has {batch.ids.shape[1]} tokens, more than the context of {LENGTH}"
        if batch.ids.min() < 0 or batch.ids.max() >= VOCABULARY:
            return "ids lie outside the vocabulary: use ids of the text, and the separator"
        targets = batch.targets[batch.targets != IGNORED]
        if not len(targets):
            return f"batch {number} has no target: the loss of nothing is not a number"
        if targets.min() < 0 or targets.max() >= VOCABULARY:
            return f"targets lie outside the vocabulary: use an id, or {IGNORED} to leave one out"
    return ""


def apart(name: str) -> str:
    """Documents are kept apart if the class says so, and padding is never a target."""
    for number in range(6):
        batch = some_batches(name).batch(number, ROWS, 1)
        if BATCHES[name].documents_apart and batch.documents is None:
            return "documents_apart is true, but the batches have no documents"
        if batch.documents is not None and (batch.targets[batch.documents == 0] != IGNORED).any():
            return f"padding has targets: set them to {IGNORED}"
        if batch.documents is not None and BATCHES[name].documents_apart:
            before, after = batch.documents[:, :-1], batch.documents[:, 1:]
            if (before == after)[(batch.ids[:, 1:] == SEPARATOR) & (after > 0)].any():
                return "the tokens on both sides of a border have the same document number"
        ids, targets, documents = tensors(batch, torch.device("cpu"))
        model = tiny_model()
        if not model.loss(model(ids, documents=documents), targets).isfinite():
            return "the loss of a batch is not a number"
    return ""


def some_targets() -> tuple[Tensor, Tensor]:
    """Ids and targets (4, 8), of which the first three of each row are ignored."""
    ids = torch.randint(VOCABULARY, (ROWS, LENGTH + 1), generator=torch.Generator().manual_seed(2))
    targets = ids[:, 1:].clone()
    targets[:, :3] = IGNORED
    return ids[:, :-1], targets


def a_sum(name: str) -> str:
    """The loss is one number, and that of two batches is the sum of theirs."""
    objective, (ids, targets) = OBJECTIVES[name](tiny_model()), some_targets()
    with torch.no_grad():
        whole = objective(ids, targets)
        if whole.shape or not whole.isfinite():
            return f"the loss is {whole}: give one finite number"
        parts = [objective(ids[rows], targets[rows]) for rows in (slice(0, 2), slice(2, 4))]
    if abs(float(whole - sum(parts))) > 1e-4:
        return (
            f"four rows give {float(whole):.4f}, but two and two {float(sum(parts)):.4f}: sum over "
            "targets, and let the training loop divide"
        )
    return ""


def only_targets(name: str) -> str:
    """What is ignored and what is padding adds nothing to the loss."""
    objective, (ids, targets) = OBJECTIVES[name](tiny_model()), some_targets()
    documents = torch.ones_like(ids)
    documents[:, 6:] = 0
    targets[:, 6:] = IGNORED
    with torch.no_grad():
        padded, short = objective(ids, targets, documents), objective(ids[:, :6], targets[:, :6])
        if abs(float(padded - short)) > 1e-4:
            return f"padding changes the loss from {float(short):.4f} to {float(padded):.4f}"
    return ""


def teaches(name: str) -> str:
    """Every parameter of the model gets a gradient, and following it lowers the loss."""
    model = tiny_model()
    objective, (ids, targets) = OBJECTIVES[name](model), some_targets()
    optimizer = build_optimizer(model, TrainConfig(lr=1e-2))
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = objective(ids, targets)
        if loss.requires_grad:
            loss.backward()
        for key, parameter in model.named_parameters():
            if parameter.grad is None:
                return f"{key} gets no gradient: call self.model, and detach nothing"
        optimizer.step()
        losses.append(loss.item())
    return (
        "" if losses[-1] < losses[0] - 0.1 else f"it goes from {losses[0]:.3f} to {losses[-1]:.3f}"
    )


def steps(name: str, model: GPT, optimizer: Optimizer, count: int) -> list[float]:
    """Train on one batch; the losses before each step."""
    ids = torch.randint(VOCABULARY, (4, LENGTH), generator=torch.Generator().manual_seed(2))
    losses = []
    for _ in range(count):
        optimizer.zero_grad()
        loss = model.loss(model(ids[:, :-1]), ids[:, 1:])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def learns(name: str) -> str:
    """It lowers the loss, at one of the usual learning rates."""
    reached = []
    for lr in (1e-3, 1e-2, 1e-1):
        model = tiny_model()
        optimizer = build_optimizer(model, TrainConfig(optimizer=name, lr=lr, muon_lr=lr))
        losses = steps(name, model, optimizer, 30)
        reached.append(losses[-1])
        if losses[-1] < losses[0] - 0.5:
            return ""
    return f"after 30 steps the loss is {min(reached):.2f}, at best; it began at {losses[0]:.2f}"


def obeys_the_rate(name: str) -> str:
    """At a learning rate of 0, and without a gradient, no parameter moves."""
    model = tiny_model()
    optimizer = build_optimizer(model, TrainConfig(optimizer=name))
    steps(name, model, optimizer, 2)
    before = [p.detach().clone() for p in model.parameters()]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    steps(name, model, optimizer, 1)
    if any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)):
        return 'parameters move at a learning rate of 0: use group["lr"] of this step'
    optimizer.zero_grad()
    for group in optimizer.param_groups:
        group["lr"] = 1e-2
    optimizer.step()
    if any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)):
        return "parameters without a gradient move: leave them as they are"
    return ""


def resumes(name: str) -> str:
    """Saved and restored in the middle, it ends with the same weights."""
    config = TrainConfig(optimizer=name, lr=1e-2)
    whole, half = tiny_model(), tiny_model()
    steps(name, whole, build_optimizer(whole, config), 6)
    first = build_optimizer(half, config)
    steps(name, half, first, 3)
    saved = load(save(optimizer_tensors(half, first)))  # as a checkpoint does
    second = build_optimizer(half, config)
    restore_optimizer(half, second, saved)
    steps(name, half, second, 3)
    for (key, a), b in zip(whole.named_parameters(), half.parameters(), strict=True):
        if not torch.equal(a, b):
            return f"after a restart {key} is another: keep all that matters in self.state"
    return ""


def says_its_size(name: str) -> str:
    """It keeps as many numbers for each weight as `state_per_weight` says."""
    model, config = tiny_model(), TrainConfig(optimizer=name)
    optimizer = build_optimizer(model, config)
    steps(name, model, optimizer, 2)
    kept = sum(t.numel() for t in optimizer_tensors(model, optimizer).values() if t.ndim)
    said = optimizer_state_size(model, config)
    return "" if kept == said else f"it keeps {kept:,} numbers; by state_per_weight it is {said:,}"


def within_bounds(name: str) -> str:
    """It lies between 0, which is min_lr, and 1, which is lr, at every step."""
    for warmup, length in ((0, 1), (0, 20), (5, 20), (50, 1000)):
        config = TrainConfig(
            schedule=name, lr=1.0, min_lr=0.0, warmup_steps=warmup, max_steps=length
        )
        for step in range(length + 5):
            rate = learning_rate(step, config)
            if not -1e-9 <= rate <= 1 + 1e-9:
                return f"at step {step} of {length} it gives {rate:.3g}: stay between 0 and 1"
            if rate != learning_rate(step, config):
                return f"at step {step} it gives another share when it is asked again"
    return ""


def draws(name: str, config: SampleConfig, rows: int, count: int = 40) -> Tensor:
    """Tokens drawn one after another from changing logits: (count, B)."""
    sampler = SAMPLERS[name](config, rows)
    return torch.stack([sampler(logits_of(step, config.seed, rows), None) for step in range(count)])


def logits_of(step: int, seed: int, rows: int) -> Tensor:
    """Logits (B, V) in which every other token is ruled out; row n is that of seed + n."""
    found = []
    for row in range(rows):
        draw = torch.Generator().manual_seed(1000 * step + seed + row)
        found.append(torch.randn(VOCABULARY, generator=draw))
    logits = torch.stack(found)
    logits[:, step % 2 :: 2] = -torch.inf
    return logits


def never_the_ruled_out(name: str) -> str:
    """A token whose logit is -inf is never chosen."""
    for temperature in (0.0, 0.3, 1.0, 100.0):  # at which all that can be drawn is drawn
        chosen = draws(name, SampleConfig(temperature=temperature, top_k=0), rows=8, count=100)
        for step, tokens in enumerate(chosen):
            if any(token % 2 == step % 2 for token in tokens.tolist()):
                return f"at temperature {temperature} it chose a token that was ruled out (-inf)"
    return ""


def each_row_by_itself(name: str) -> str:
    """What a row draws depends on its own seed and logits alone."""
    config = SampleConfig(temperature=1.0)
    together = draws(name, config, rows=3)
    if not torch.equal(together, draws(name, config, rows=3)):
        return "the same seed gives other tokens the second time: draw from self.generators"
    for row in range(3):
        alone = draws(name, replace(config, seed=config.seed + row), rows=1)[:, 0]
        if not torch.equal(together[:, row], alone):
            return f"row {row} draws other tokens beside other rows than alone: keep rows apart"
    return ""


def input_untouched(name: str) -> str:
    """The logits that it was given are afterwards what they were."""
    logits = logits_of(0, 1, 2)
    before = logits.clone()
    SAMPLERS[name](SampleConfig(temperature=1.0), 2)(logits)
    return (
        "" if torch.equal(before, logits) else "it changes the logits it was given: work on a copy"
    )


# Pairs of an answer and what was expected, such as training meets them.
TRIED = (
    ("42", "42"),
    ("41", "42"),
    ("", "42"),
    ("7+5=12, answer: 42", "42"),
    ("\ufffd= \n", "cab"),
)


def a_number(name: str) -> str:
    """It gives a finite number for whatever the model may say, the same one every time."""
    for answer, expected in TRIED:
        worth = [REWARDS[name](answer, expected) for _ in range(2)]
        if not isinstance(worth[0], int | float) or not math.isfinite(worth[0]):
            return (
                f"the answer {answer!r} for {expected!r} gives {worth[0]!r}: give a finite number"
            )
        if worth[0] != worth[1]:
            return (
                f"the answer {answer!r} for {expected!r} is worth {worth[0]}, and then {worth[1]}"
            )
    return ""


def pays_for_the_right_answer(name: str) -> str:
    """The answer that was expected is worth more than no answer."""
    for _, expected in TRIED:
        right, nothing = REWARDS[name](expected, expected), REWARDS[name]("", expected)
        if right <= nothing:
            return f"{expected!r} is worth {right} where it is right, and no answer {nothing}"
    return ""
