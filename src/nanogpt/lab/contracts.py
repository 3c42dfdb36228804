"""What every variant must keep to, ours or a learner's own.

A check builds a tiny model with the variant and returns what is wrong with it, in a sentence, or
nothing; checks.py does the same for what is not part of the model. The test suite runs all of them
on every entry of every dictionary; `nanogpt lab check` runs them on the entries of a plugin.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from nanogpt.config import ModelConfig
from nanogpt.generation.reader import Reader
from nanogpt.lab import checks
from nanogpt.model.attention import ATTENTION_KERNELS, attention_mask
from nanogpt.model.cache import KVCache
from nanogpt.model.gpt import GPT
from nanogpt.model.layers import KERNELS
from nanogpt.training.objective.next_token import NextToken

VOCABULARY = 61
CONTEXT = 16
LENGTH = 12

# Sums in another order differ by float32 rounding; mistakes are thousands of times larger.
ROUNDING = 1e-5

Settings = Mapping[str, Any]
M = TypeVar("M", bound=nn.Module)


def build(settings: Settings, seed: int = 0) -> GPT:
    """A tiny model whose every parameter matters, also those that start at zero."""
    shape = {"vocab_size": VOCABULARY, "context_length": CONTEXT, "n_layer": 2, "n_head": 2}
    torch.manual_seed(seed)
    return shaken(GPT(ModelConfig(**{**shape, "n_embd": 24, **settings})).eval())


@torch.no_grad()
def shaken(module: M) -> M:
    """Every parameter a little elsewhere, so that none is zero."""
    for parameter in module.parameters():
        parameter.add_(0.05 * torch.randn_like(parameter))
    return module


def some_ids(rows: int = 2) -> Tensor:
    """Tokens to read: (B, T)."""
    return torch.randint(VOCABULARY, (rows, LENGTH), generator=torch.Generator().manual_seed(1))


def furthest(one: Tensor, other: Tensor) -> float:
    """The largest difference; infinite if one of them is not a number."""
    return torch.nan_to_num((one - other).abs(), nan=torch.inf).max().item()


@torch.no_grad()
def causality(settings: Settings) -> str:
    """No token sees a later one."""
    model, ids = build(settings), some_ids()
    changed = ids.clone()
    changed[:, 7:] = (changed[:, 7:] + 1) % VOCABULARY
    for mode in (True, False):  # a norm over the batch sees the future in training alone
        model.train(mode)
        before, after = model(ids), model(changed)
        for position in range(7):
            if furthest(before[:, position], after[:, position]) > ROUNDING:
                return f"token {position} sees tokens that come later: changing token 7 changes it"
    if torch.equal(before[:, 7:], after[:, 7:]):
        return "tokens are not seen at all: changing token 7 changes nothing after it either"
    return ""


@torch.no_grad()
def cache(settings: Settings) -> str:
    """Reading in parts with a cache is reading at once."""
    model, ids = build(settings), some_ids()
    whole = model(ids)
    for sizes in ([12], [1] * 12, [4, 1, 1, 6]):
        kept = KVCache(model.config, len(ids), model.device, model.dtype)
        parts = [model(part, cache=kept) for part in ids.split(sizes, dim=1)]
        for position, token in enumerate(torch.cat(parts, dim=1).unbind(1)):
            if (difference := furthest(token, whole[:, position])) > ROUNDING:
                return (
                    f"read in parts of {sizes}, token {position} differs by {difference:.1g} from "
                    "reading all at once: are positions counted from 0 in each part?"
                )
    return ""


@torch.no_grad()
def generation(settings: Settings) -> str:
    """Generating with the cache, past the context length and in batches, is reading anew."""
    model = build(settings)
    prompts = [[1, 2, 3], [4, 5, 6, 7, 8, 9, 10], [11]]
    cached, anew = (Reader(model, prompts, use_cache=use) for use in (True, False))
    for step in range(2 * CONTEXT):
        logits, expected = cached.predict(), anew.predict()
        if (difference := furthest(logits, expected)) > ROUNDING:
            return f"new token {step + 1} differs by {difference:.1g} with and without the cache"
        for row, token in enumerate(expected.argmax(-1).tolist()):
            cached.append(row, [token])
            anew.append(row, [token])
    return ""


@torch.no_grad()
def rows(settings: Settings) -> str:
    """A row gives the same alone and beside other rows."""
    model, ids = build(settings), some_ids(rows=3)
    together = model(ids)
    for row in range(3):
        if (difference := furthest(together[row], model(ids[row : row + 1])[0])) > ROUNDING:
            return f"row {row} differs by {difference:.1g} beside other rows: keep rows apart"
    return ""


@torch.no_grad()
def padding(settings: Settings) -> str:
    """Padding and other documents in the row change nothing."""
    model = build(settings)
    rows = torch.tensor([[9, 5, 6, 7, 20, 21, 22]])
    documents = torch.tensor([[0, 1, 1, 1, 2, 2, 2]])
    logits = model(rows, documents=documents)[0]
    for start, end, what in ((1, 4, "padding before it"), (4, 7, "a document before it")):
        alone = model(rows[:, start:end])[0]
        if (difference := furthest(logits[start:end], alone)) > ROUNDING:
            return f"{what} changes a document's logits by {difference:.1g}"
    return ""


def gradients(settings: Settings) -> str:
    """Every parameter gets a gradient, and every gradient is a number."""
    missing: set[str] = set()
    for seed in range(5):  # an expert to whom no token was sent may get one in another model
        model, ids = build(settings, seed), some_ids(rows=8)
        NextToken(model)(ids[:, :-1], ids[:, 1:]).backward()
        found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        for name, gradient in found.items():
            if not gradient.isfinite().all():
                return f"the gradient of {name} is not a number"
        without = {name for name, p in model.named_parameters() if p.requires_grad} - {
            name for name, gradient in found.items() if gradient.abs().max() > 0
        }
        missing = missing & without if seed else without
        if not missing:
            return ""
    return f"{min(missing)} gets no gradient: nothing that is computed from it reaches the loss"


@torch.no_grad()
def kernels(settings: Settings) -> str:
    """Hand-written and fused kernels give the same logits."""
    ids = some_ids()
    results = [build({**settings, "kernels": name})(ids) for name in KERNELS]
    difference = furthest(*results)
    return "" if difference < ROUNDING else f"plain and fused kernels differ by {difference:.1g}"


@torch.no_grad()
def collapse(settings: Settings) -> str:
    """A position encoding that has a method `collapse` adds nothing once it is called.

    An encoding that adds nothing can be compared with a model that has none; so a class says by a
    method `collapse` how it is made to add nothing, if it can be.
    """
    model = build(settings)
    if not hasattr(model.wpe, "collapse"):
        return ""
    model.wpe.collapse()  # type: ignore[operator]
    plain = build({**settings, "position": "none"})
    plain.load_state_dict(model.state_dict(), strict=False)
    difference = furthest(model(some_ids()), plain(some_ids()))
    return "" if difference < ROUNDING else f"collapsed, it still adds {difference:.1g} to logits"


@torch.no_grad()
def weights(settings: Settings) -> str:
    """The attention weights that a kernel shows are those that it uses."""
    name = settings.get("attention") or settings.get("kernels", "fused")
    kernel = shaken(ATTENTION_KERNELS[name](ModelConfig(n_head=2, n_embd=24)).eval())
    draw = torch.Generator().manual_seed(1)
    q, k, v = torch.randn(3, 2, 2, LENGTH, 12, generator=draw)
    numbers = torch.randn(2, 2, LENGTH, LENGTH, generator=draw)
    visible = attention_mask(LENGTH, LENGTH, window=5)
    for mask, causal in ((None, True), (visible, False), (numbers, False)):
        used, shown = kernel(q, k, v, mask, causal), kernel.weights(q, k, mask, causal) @ v
        if (difference := furthest(used, shown)) > ROUNDING:
            return f"`weights` differs from what is used by {difference:.1g}"
    return ""


CHECKS: dict[str, Callable[[Settings], str]] = {
    check.__name__: check
    for check in (
        causality,
        cache,
        generation,
        rows,
        padding,
        gradients,
        kernels,
        collapse,
        weights,
    )
}

# For what is not part of the model, by setting.
OTHER_CHECKS: dict[str, tuple[Callable[[str], str], ...]] = {
    "data.batches": (checks.repeatable, checks.well_formed, checks.apart),
    "train.objective": (checks.a_sum, checks.only_targets, checks.teaches),
    "train.optimizer": (
        checks.learns,
        checks.obeys_the_rate,
        checks.resumes,
        checks.says_its_size,
    ),
    "train.schedule": (checks.within_bounds,),
    "sample.sampler": (
        checks.never_the_ruled_out,
        checks.each_row_by_itself,
        checks.input_untouched,
    ),
    "policy.reward": (checks.a_number, checks.pays_for_the_right_answer),
}


def check_all(setting: str, name: str) -> dict[str, str]:
    """What each check says of a variant, by what the check asks.

    An exception inside a variant is what is wrong with it.
    """
    section, key = setting.split(".")
    asked: dict[str, Callable[[], str]]
    if section == "model":
        asked = {about(check): partial(in_company, check, key, name) for check in CHECKS.values()}
    else:
        asked = {about(check): partial(check, name) for check in OTHER_CHECKS[setting]}
    found = {}
    for question, check in asked.items():
        try:
            found[question] = check()
        except Exception as error:  # whatever a learner's code may raise
            found[question] = f"{type(error).__name__}: {error}"
    return found


# Parts that have gone wrong together: numbers added to scores, fewer key heads, a window.
COMPANIONS: tuple[Settings, ...] = ({}, {"position": "alibi", "n_kv_head": 1, "window": 5})


def in_company(check: Callable[[Settings], str], key: str, name: str) -> str:
    """What a check says of a variant by itself, or else beside other variants."""
    for others in COMPANIONS:
        if wrong := check({**others, key: name}):
            return wrong
    return ""


def about(check: Callable[..., str]) -> str:
    """What a check asks, in a sentence."""
    return (check.__doc__ or "").partition("\n")[0]
