"""LoRA (Hu et al. 2021): a model is fine-tuned by two thin matrices beside each large one.

    x ──► W, frozen ──────────────────────────────► + ──► y
    └───► A ──► r numbers ──► B ──► * alpha / r ────┘

A large matrix stays as it is. What fine-tuning adds to it is the product B A, of rank r at most.
Gradients and the optimizer's state are kept for A and B alone: for GPT-2 and r = 8 that is one
weight in a hundred. B begins at zero, so training begins with the model as it was. At the end
W + alpha / r * B A is one matrix again, and the model a plain GPT of the same speed.

Axes: B batch, T time, C channels, V vocabulary, r rank.
"""

import fnmatch
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanogpt.config import TrainConfig, check
from nanogpt.errors import UserError
from nanogpt.model.gpt import GPT, LMHead


def lora(
    x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float
) -> Tensor:
    """A linear layer and its correction of low rank: W x + bias + scale * B (A x).

    x (..., in), weight (out, in), bias (out), A (r, in), B (out, r) -> (..., out). The brackets
    matter: B A would be as large as W, but A x has r numbers (Hu et al. 2021, equation 3).

    >>> x, a, b = torch.tensor([1.0, 2.0]), torch.tensor([[1.0, 1.0]]), torch.tensor([[0.0], [1.0]])
    >>> lora(x, torch.eye(2), None, a, b, scale=10.0)  # A x = 3, so B (A x) = (0, 3)
    tensor([ 1., 32.])
    """
    return F.linear(x, weight, bias) + scale * F.linear(F.linear(x, a), b)


class LoRALinear(nn.Module):
    """A linear layer, frozen, with a correction that is trained: (..., in) -> (..., out).

    Weight and bias keep the names that they have in the layer.
    """

    def __init__(self, layer: nn.Linear, rank: int, scale: float) -> None:
        super().__init__()
        self.weight, self.bias, self.scale = layer.weight, layer.bias, scale
        (rows, columns), device = self.weight.shape, self.weight.device
        # A is random, B zero. If both were zero, neither would ever get a gradient.
        self.lora_a = nn.Parameter(torch.empty(rank, columns, device=device))
        self.lora_b = nn.Parameter(torch.zeros(rows, rank, device=device))
        nn.init.normal_(self.lora_a, std=1 / math.sqrt(columns))

    def forward(self, x: Tensor) -> Tensor:
        return lora(x, self.weight, self.bias, self.lora_a, self.lora_b, self.scale)

    def merged(self) -> Tensor:
        """The one matrix that computes the same: (out, in)."""
        return self.weight + self.scale * self.lora_b @ self.lora_a


class LoRAEmbedding(nn.Module):
    """A frozen embedding whose last tokens are new, and are trained: ids (B, T) -> (B, T, C).

    Rows for new tokens all begin alike. Frozen, the model could never tell one from another.
    """

    def __init__(self, embedding: nn.Embedding, new: int) -> None:
        super().__init__()
        self.weight = embedding.weight
        self.lora_rows = nn.Parameter(self.weight.new_zeros(new, self.weight.shape[1]))
        self.first = len(self.weight) - new

    def forward(self, ids: Tensor) -> Tensor:
        rows = F.pad(self.lora_rows, (0, 0, 1, 0))  # row 0, for all old tokens, adds nothing
        return F.embedding(ids, self.weight) + F.embedding((ids - self.first + 1).relu(), rows)

    def merged(self) -> Tensor:
        """All vectors in one matrix: (V, C)."""
        return self.weight + F.pad(self.lora_rows, (0, 0, self.first, 0))


class LoRAHead(nn.Module):
    """The head that is tied to a LoRAEmbedding: (..., C) -> logits (..., V)."""

    def __init__(self, embedding: LoRAEmbedding) -> None:
        super().__init__()
        self.embedding = [embedding]  # in a list, so that its weights have one name in the model

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        (embedding,) = self.embedding
        logits = F.linear(x, weight)
        logits[..., embedding.first :] += F.linear(x, embedding.lora_rows)
        return logits


def add_lora(model: GPT, settings: TrainConfig, new_tokens: int = 0) -> GPT:
    """Freeze a model, and give the linear layers of train.lora_on a correction, in place.

    Where train.lora_rank is 0 the model stays as it is. A is drawn from torch's global generator.
    The last `new_tokens` of the vocabulary are trained, too. Raises UserError for a pattern that
    fits no linear layer, and for a rank that is not smaller than the layers' sides.
    """
    rank = settings.lora_rank
    if not rank:
        return model
    layers = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    layers.pop("lm_head", None)  # a plugin's, which is called with the embedding as well
    chosen = set()
    for pattern in filter(None, map(str.strip, settings.lora_on.split(","))):
        found = fnmatch.filter(layers, pattern)
        if not found:
            like = ", ".join(list(layers)[:4])
            raise UserError(f"train.lora_on: {pattern!r} fits no linear layer, such as {like}")
        chosen.update(found)
    if not chosen:
        raise UserError(f"train.lora_on={settings.lora_on!r} names no layer: use '*' for all")
    model.requires_grad_(False)
    for name in (name for name in layers if name in chosen):
        smaller = min(layers[name].weight.shape)
        check(rank < smaller, settings, "lora_rank", f"use less than the {smaller} of {name}")
        model.set_submodule(name, LoRALinear(layers[name], rank, settings.lora_alpha / rank))
    if new_tokens:
        fix = "LoRA teaches new tokens only where it is tied: use train.lora_rank=0"
        check(type(model.lm_head) is LMHead, model.config, "head", fix)
        embedding = LoRAEmbedding(model.wte, new_tokens)
        model.wte, model.lm_head = embedding, LoRAHead(embedding)  # type: ignore[assignment]
    return model


def lora_tensors(model: GPT) -> dict[str, Tensor]:
    """What LoRA has added to a model, by name; nothing for a plain one."""
    return {name: x for name, x in model.state_dict().items() if "lora_" in name}


def plain_tensors(model: GPT) -> dict[str, Tensor]:
    """The state of the plain model that computes the same: corrections are part of the weights.

    Of a plain model it is the state itself.
    """
    state = {name: x for name, x in model.state_dict().items() if "lora_" not in name}
    for name, layer in model.named_modules():
        if isinstance(layer, LoRALinear | LoRAEmbedding):
            state[f"{name}.weight"] = layer.merged().detach()
    return state
