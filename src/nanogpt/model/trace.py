"""Watching a model at work: any activation by its name, with nothing about the model changed.

    with record(model, "h.*.attn.weights") as seen:
        model(ids)
    seen["h.0.attn.weights"]  # (B, nh, T, S)

What a module gives has the module's name: "h.0.attn" is what the first block's attention adds to
the residual stream, "h.0" the stream after that block. Inside attention there are also "q",
"k", "v" and the attention "weights", such as "h.0.attn.weights".
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn

from nanogpt.errors import UserError
from nanogpt.model.attention import CausalSelfAttention, PlainAttention
from nanogpt.model.gpt import GPT
from nanogpt.model.position import Position

INSIDE_ATTENTION = ("q", "k", "v", "weights")


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
    """A hook that keeps what an attention kernel is given, and the weights it must have used."""

    def hook(kernel: PlainAttention, inputs: Any, output: Tensor) -> None:
        q, k, v, *visible = inputs
        parts = {f"{name}.q": q, f"{name}.k": k, f"{name}.v": v}
        seen.update({part: x for part, x in parts.items() if part in wanted})
        if f"{name}.weights" in wanted:  # a fused kernel never has them: they are worked out anew
            seen[f"{name}.weights"] = kernel.weights(q, k, *visible)

    return hook
