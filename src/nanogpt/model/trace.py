"""Watching a model at work, and changing what it computes: any activation by its name.

    with record(model, "h.*.attn.weights") as seen:
        model(ids)
    seen["h.0.attn.weights"]  # (B, nh, T, S)

    with editing(model, [Edit("h.0.attn.kernel", head=2)]):
        model(ids)  # without the third head of the first block

What a module gives has the module's name: "h.0.attn" is what the first block's attention adds to
the residual stream, "h.0" the stream after that block, "h.0.attn.kernel" what each head gives.
Inside attention there are also "q", "k", "v", the "scores" before mask and softmax, and the
attention "weights" after them, such as "h.0.attn.weights". Nothing stays on the model.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from nanogpt.errors import UserError, did_you_mean
from nanogpt.model.attention import CausalSelfAttention, PlainAttention
from nanogpt.model.gpt import GPT, evaluating
from nanogpt.model.position import Position

INSIDE_ATTENTION = ("q", "k", "v", "scores", "weights")
WAYS = ("zero", "mean", "swap")


def activation_names(model: GPT) -> list[str]:
    """Everything that can be recorded, in the order of the network's parts."""
    names = []
    for name, module in model.named_modules():
        if isinstance(module, CausalSelfAttention):
            names += [f"{name}.{part}" for part in INSIDE_ATTENTION]
        # A list of blocks and a position encoding are never called as a whole; what an attention
        # kernel gives is what c_proj gets.
        if name and not isinstance(module, nn.ModuleList | Position):
            names.append(name)
    return names


@contextmanager
def record(model: GPT, *patterns: str) -> Iterator[dict[str, Tensor]]:
    """Record the activations that fit a pattern, where * stands for anything; without one, all.

    They appear in the dictionary while the model runs, and a second run replaces them. The model
    computes what it always computes, and afterwards nothing is left on it. A recording inside
    another ends before it. Raises UserError for a pattern that fits nothing.
    """
    names = activation_names(model)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UserError(f"{pattern!r} fits no activation; they are like {names[-3]}")
    wanted = {n for n in names if not patterns or any(fnmatchcase(n, p) for p in patterns)}
    seen: dict[str, Tensor] = {}
    with ExitStack() as undo:
        for name, module in model.named_modules():
            if name in wanted:
                handle = module.register_forward_hook(keep_output(seen, name))
                undo.callback(handle.remove)
            if isinstance(module, CausalSelfAttention):
                handle = module.kernel.register_forward_hook(keep_inside(seen, name, wanted))
                undo.callback(handle.remove)
        yield seen


def keep_output(seen: dict[str, Tensor], name: str) -> Callable[..., None]:
    """A hook that keeps what a module gives."""

    def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
        seen[name] = output

    return hook


def keep_inside(seen: dict[str, Tensor], name: str, wanted: set[str]) -> Callable[..., None]:
    """A hook that keeps what an attention kernel is given, and the weights it must have used.

    A fused kernel never has scores and weights, so they are computed anew.
    """

    def hook(kernel: PlainAttention, inputs: Any, output: Tensor) -> None:
        q, k, v, *visible = inputs
        parts = {f"{name}.q": q, f"{name}.k": k, f"{name}.v": v}
        seen.update({part: x for part, x in parts.items() if part in wanted})
        if f"{name}.scores" in wanted:
            scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
            seen[f"{name}.scores"] = scores
        if f"{name}.weights" in wanted:
            seen[f"{name}.weights"] = kernel.weights(q, k, *visible)

    return hook


@dataclass(frozen=True)
class Edit:
    """One change to what a model computes.

    "zero" puts zeros there, "mean" the mean over all positions of the same row, and "swap" what the
    same place held when the model read another text.
    """

    at: str  # "drop" (after the embeddings), "h.0.attn.kernel", "h.0.attn", "h.0.mlp", "h.0"
    head: int | None = None  # of an attention kernel; None: all heads
    positions: Sequence[int] | None = None  # in the ids of this pass; None: all
    how: str = "zero"  # one of WAYS


@contextmanager
def editing(
    model: GPT, edits: Sequence[Edit], other: Tensor | None = None
) -> Iterator[dict[str, Tensor]]:
    """Change activations while the model runs; edits of one place happen in their order.

    "swap" takes from `other` (B, T) or (1, T), which the model reads once, here, without edits.
    Yields what it held there, by place. A recording, inside or outside, sees the edited values.
    Afterwards nothing is left on the model. Raises UserError for a place, head, position or way
    that does not exist, and, when the model runs, for texts of unequal lengths.
    """
    for edit in edits:
        check_edit(model, edit)
    swapped = {edit.at for edit in edits if edit.how == "swap"}
    held: dict[str, Tensor] = {}
    if swapped and other is None:
        raise UserError("a swap needs another text to take from: give other")
    if swapped:
        with evaluating(model), record(model, *swapped) as seen:
            model(other)
        held = dict(seen)
    with ExitStack() as undo:
        for at in {edit.at: None for edit in edits}:
            here = [edit for edit in edits if edit.at == at]
            hook = change_output(here, held.get(at))
            # Before the hooks of a recording around this, so that it sees what is passed on.
            handle = model.get_submodule(at).register_forward_hook(hook, prepend=True)
            undo.callback(handle.remove)
        yield held


def editable(model: GPT) -> list[str]:
    """The places where an edit can be."""
    parts = (".attn.kernel", ".attn", ".mlp", "")
    return ["drop", *(f"h.{n}{part}" for n in range(model.config.n_layer) for part in parts)]


def check_edit(model: GPT, edit: Edit) -> None:
    """Raise UserError unless the edit's place, head, positions and way exist in this model."""
    config, places = model.config, editable(model)
    if edit.at not in places:
        raise UserError(f"an edit at {edit.at!r:.40}: {did_you_mean(str(edit.at), places)}")
    if edit.how not in WAYS:
        raise UserError(f"an edit of the kind {edit.how!r:.40}: use one of {', '.join(WAYS)}")
    if edit.head is not None and not edit.at.endswith(".kernel"):
        raise UserError(f"head {edit.head} at {edit.at}: heads are apart at {places[1]} alone")
    if edit.head is not None and not 0 <= edit.head < config.n_head:
        raise UserError(f"head {edit.head} at {edit.at}: use 0 to {config.n_head - 1}")
    check_positions(edit, config.context_length)


def check_positions(edit: Edit, length: int) -> None:
    """Raise UserError if an edit names a position that a text of so many tokens does not have."""
    for position in edit.positions or ():
        if not 0 <= position < length:
            raise UserError(f"position {position} at {edit.at}: use 0 to {length - 1}")


def change_output(edits: Sequence[Edit], held: Tensor | None) -> Callable[..., Tensor]:
    """A hook that applies edits of one module to what it gives, (B, T, C) or (B, nh, T, hs)."""

    def hook(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        for edit in edits:
            output = edited(output, edit, held)
        return output

    return hook


def edited(x: Tensor, edit: Edit, held: Tensor | None = None) -> Tensor:
    """A copy of x with one edit; `held` is what a swap puts there. Both (B, ..., T, C)."""
    check_positions(edit, x.shape[-2])
    new = torch.zeros_like(x) if edit.how == "zero" else x.mean(-2, keepdim=True).expand_as(x)
    if edit.how == "swap":
        assert held is not None  # `editing` sees to it
        if held.shape[-2] != x.shape[-2] or len(held) not in (1, len(x)):
            raise UserError(
                f"this text has {x.shape[-2]} tokens and the other {held.shape[-2]}: use texts of "
                "as many tokens, one row or as many rows"
            )
        new = held.expand_as(x)
    change = torch.zeros(x.shape[1:-1], dtype=torch.bool, device=x.device)
    positions = slice(None) if edit.positions is None else list(edit.positions)
    change[... if edit.head is None else edit.head, positions] = True
    return torch.where(change[..., None], new, x)
