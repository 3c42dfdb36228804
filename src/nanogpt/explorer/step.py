"""One step: what training on one text now would change. A copy is trained, and nothing is saved.

The gradient says for each part how much the loss of this text depends on it; the step then moves
all parts a little. What the model predicts before and after shows what a single text does to it.
"""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import Optimizer

from nanogpt.config import IGNORED, Config
from nanogpt.errors import UserError
from nanogpt.model.gpt import GPT, evaluating
from nanogpt.training.objective.next_token import NextToken
from nanogpt.training.optim import build_optimizer
from nanogpt.training.start import freeze

MOST_STEPS = 20


@dataclass(frozen=True)
class Trained:
    """What a few steps on one text did. Losses have one entry for before and one for each step."""

    losses: list[float]  # mean loss of the text, in nats per token
    norms: list[dict[str, float]]  # of each step: part -> L2 norm of the gradient of the loss
    moved: dict[str, float]  # part -> L2 norm of the change of its weights, after the last step
    sizes: dict[str, float]  # part -> L2 norm of its weights before
    before: Tensor  # logits (T, V)
    after: Tensor  # (T, V)


def train_on(model: GPT, config: Config, ids: list[int], lr: float, steps: int = 1) -> Trained:
    """Train a copy of the model on one text: ids (T), the run's optimizer with a fresh state.

    The first of several steps is what training would do now; each further one is on the same text.
    The gradient is clipped as in training. There is no dropout: what is seen is the text's doing
    alone. Raises UserError for a text without a next token, and for settings out of range.
    """
    if len(ids) < 2:
        raise UserError("a step needs a text of at least two tokens, one to predict; write more")
    if not 0 < lr <= 1 or not math.isfinite(lr):
        raise UserError(f"lr={lr}: use a learning rate above 0 and at most 1, such as 0.001")
    if not 1 <= steps <= MOST_STEPS:
        raise UserError(f"steps={steps}: use 1 to {MOST_STEPS}")
    trained = copy.deepcopy(model).float().eval().requires_grad_(True)
    freeze(trained, config.train.freeze)
    optimizer = build_optimizer(trained, config.train)
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_factor", 1.0)
    row = torch.tensor([ids], device=model.device)
    before = logits_of(trained, row)
    losses, norms = [mean_loss(before, row)], []
    with torch.enable_grad():
        for _ in range(steps):
            norms.append(take_step(trained, optimizer, row, config.train.grad_clip or math.inf))
            losses.append(mean_loss(logits_of(trained, row), row))
    if not all(map(math.isfinite, losses)):
        raise UserError(f"lr={lr} is too much: the loss is no longer a number; use a smaller one")
    old, new = dict(model.named_parameters()), dict(trained.named_parameters())
    moved = by_part({name: new[name].detach() - old[name].detach().float() for name in new})
    return Trained(losses, norms, moved, by_part(old), before, logits_of(trained, row))


def take_step(model: GPT, optimizer: Optimizer, row: Tensor, clip: float) -> dict[str, float]:
    """One step on one text (1, T); gives the norms of the gradients before clipping, by part."""
    optimizer.zero_grad(set_to_none=True)
    targets = row.roll(-1, dims=1)
    targets[:, -1] = IGNORED
    loss = NextToken(model)(row, targets) / (row.shape[1] - 1)
    loss.backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    norms = by_part(gradients)
    torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()
    return norms


def logits_of(model: GPT, row: Tensor) -> Tensor:
    """What the model predicts: ids (1, T) -> logits (T, V)."""
    with evaluating(model), torch.no_grad():
        return model(row)[0].float()


def mean_loss(logits: Tensor, row: Tensor) -> float:
    """Mean loss of a text in nats: logits (T, V), ids (1, T)."""
    return torch.nn.functional.cross_entropy(logits[:-1], row[0, 1:]).item()


def part_of(name: str) -> str:
    """The part that a parameter belongs to, as the page shows it.

    >>> [part_of(n) for n in ("wte.weight", "h.3.attn.c_attn.bias", "ln_f.weight")]
    ['wte', 'h.3.attn', 'ln_f']
    """
    pieces = name.split(".")
    return ".".join(pieces[:3]) if pieces[0] == "h" else pieces[0]


def by_part(tensors: Mapping[str, Tensor]) -> dict[str, float]:
    """L2 norms of tensors, put together by the part that they belong to."""
    squares: dict[str, float] = {}
    for name, tensor in tensors.items():
        part = part_of(name)
        squares[part] = squares.get(part, 0.0) + tensor.detach().float().square().sum().item()
    return {part: math.sqrt(square) for part, square in squares.items()}
