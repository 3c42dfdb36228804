"""Tensor parallelism: every rank has some of the heads and channels of every matrix.

    x ──► norm ──► gather ──► c_attn, c_fc ──► heads, channels ──► c_proj ──► scatter ──► + x
          T / n    tokens     some rows        of this rank       some columns  sums      T / n

c_attn and c_fc are cut by rows: each rank works out some of the outputs. c_proj is cut by columns:
each rank works out a part of the sum that every output is, and the parts are added up (Shoeybi
et al. 2019, "Megatron-LM"). Between them no rank needs to know of another's heads.

Outside, where every token is for itself, the ranks share out the tokens instead (Korthikanti et al.
2022): so norms, dropout and the residual stream cost each a part of the time and memory. A block
sends B * T * C numbers four times forward and four times backward.

The token embedding is cut by rows, one for each token of the vocabulary. They are the rows of a
tied head, too, and an untied one is cut alike. So the loss is worked out from logits of which no
rank has all.

Axes: B batch, T time, C channels, V vocabulary, N tokens, n ranks.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from nanogpt.config import IGNORED
from nanogpt.model.attention import AttentionContext
from nanogpt.model.gpt import GPT, UntiedHead
from nanogpt.model.layers import at_least_float32
from nanogpt.training.execution import in_autocast_type
from nanogpt.training.parallel.layout import Cuts
from nanogpt.training.parallel.mesh import Ranks, share
from nanogpt.training.parallel.messages import gather_tokens, scatter_tokens, sum_over_ranks


def spans_of_rows(sizes: Sequence[int], place: int, ranks: int) -> list[slice]:
    """The rows of stacked matrices that fall to a rank: its share of each of them.

    >>> spans_of_rows([4, 2, 2], place=1, ranks=2)  # queries, keys, values
    [slice(2, 4, None), slice(5, 6, None), slice(7, 8, None)]
    """
    spans, start = [], 0
    for size in sizes:
        part = share(size, place, ranks)
        spans.append(slice(start + part.start, start + part.stop))
        start += size
    return spans


def cut_model(model: GPT, ranks: Ranks) -> Cuts:
    """Leave to a rank its part of every matrix, and let the layers talk to the other ranks.

    Returns how each parameter was cut.
    """
    size, group = ranks.size("tensor"), ranks.group("tensor")
    vocabulary = ranks.share(model.config.vocab_size, "tensor")
    spans: Cuts = {"wte.weight": (0, [vocabulary])} if model.wte else {}
    if isinstance(model.lm_head, UntiedHead):
        spans["lm_head.weight"] = (0, [vocabulary])
    layers: Any = dict(model.h.named_modules())
    for name, layer in layers.items():
        kind = name.rpartition(".")[2]
        if kind in ("c_attn", "c_fc"):
            cuts = spans_of_rows(layer.rows, ranks.place("tensor"), size)
            spans |= {f"h.{name}.{key}": (0, cuts) for key, _ in layer.named_parameters()}
        elif kind == "c_proj":
            spans[f"h.{name}.weight"] = (1, [ranks.share(layer.in_features, "tensor")])
            layer.forward = partial(add_up, layer, group)
        elif kind == "kernel" and hasattr(layer, "taps"):
            spans[f"h.{name}.taps"] = (0, [ranks.share(len(layer.taps), "tensor")])
        elif kind == "attn":
            layer.widths = [width // size for width in layer.widths]
            layer.register_forward_pre_hook(partial(before_attention, ranks))
        elif kind == "mlp":
            layer.register_forward_pre_hook(partial(before_others, group))
    for name, (dim, cuts) in spans.items():
        module, key = model.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2]
        whole = model.get_parameter(name)
        smaller = torch.cat([whole.narrow(dim, c.start, c.stop - c.start) for c in cuts], dim)
        setattr(module, key, nn.Parameter(smaller, whole.requires_grad))
    if model.wte:
        model.wte.forward = partial(embed, model.wte, vocabulary, group)  # type: ignore[method-assign]
    order = partial(add_order, model.wpe.embed, ranks)
    model.wpe.embed = order  # type: ignore[method-assign]
    if model.lm_head:
        model.lm_head.register_forward_pre_hook(partial(before_others, group))
    model.cross_entropy = partial(cross_entropy, vocabulary.start, group)
    return spans


def before_attention(
    ranks: Ranks, attn: nn.Module, given: tuple[Tensor, AttentionContext]
) -> tuple[Tensor, AttentionContext]:
    """All tokens, and of a mask with a part for each head those of this rank's heads."""
    x, context = given
    mask = context.mask
    if mask is not None and mask.ndim == 4 and mask.shape[1] > 1:
        context = replace(context, mask=mask[:, ranks.share(mask.shape[1], "tensor")])
    return gather_tokens(in_autocast_type(x), ranks.group("tensor")), context


def before_others(group: dist.ProcessGroup, _layer: nn.Module, given: tuple[Any, ...]) -> Any:
    """All tokens, and whatever else the layer is given."""
    return gather_tokens(in_autocast_type(given[0]), group), *given[1:]


def add_up(layer: nn.Linear, group: dist.ProcessGroup, x: Tensor) -> Tensor:
    """A layer that is cut by columns; its bias is added once, to the sum."""
    y = scatter_tokens(F.linear(x, layer.weight), group)  # (B, T / n, C)
    return y if layer.bias is None else y + layer.bias


def embed(layer: nn.Embedding, own: slice, group: dist.ProcessGroup, ids: Tensor) -> Tensor:
    """The vectors of this rank's tokens; others may have the rows: (B, T) -> (B, T / n, C)."""
    ours = (ids >= own.start) & (ids < own.stop)
    x = F.embedding(torch.where(ours, ids - own.start, 0), layer.weight)
    return scatter_tokens(torch.where(ours[..., None], x, 0.0), group)


def add_order(
    embed: Callable[[Tensor, Tensor], Tensor], ranks: Ranks, x: Tensor, pos: Tensor
) -> Tensor:
    """What position.embed adds to this rank's tokens: (B, T / n, C)."""
    return embed(x, pos[:, ranks.share(pos.shape[1], "tensor")])


def cross_entropy(
    first: int, group: dist.ProcessGroup, logits: Tensor, targets: Tensor, reduction: str = "mean"
) -> Tensor:
    """The same function as `layers.cross_entropy`, of logits of which every rank has some columns.

    logits (N, V / n), which begin with that of token number `first`, and targets (N). Three numbers
    for each token go from rank to rank, and not V.
    """
    logits = at_least_float32(logits)
    highest = logits.detach().amax(-1)  # (N)
    dist.all_reduce(highest, dist.ReduceOp.MAX, group)
    logits = logits - highest[:, None]  # (N, V / n)
    here = (targets >= first) & (targets < first + logits.shape[-1])  # whether it has the target
    found = logits.gather(-1, torch.where(here, targets - first, 0)[:, None])[:, 0]
    own = torch.stack([logits.exp().sum(-1), torch.where(here, found, 0.0)])  # (2, N)
    powers, target = sum_over_ranks(own, group)
    real = targets != IGNORED
    losses = torch.where(real, powers.log() - target, 0.0)
    if reduction == "none":
        return losses[real]
    return losses.sum() / (real.sum() if reduction == "mean" else 1)
