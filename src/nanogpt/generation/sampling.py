"""From logits to the next token. Pure functions: logits (B, V) in, logits (B, V) out.

`Sampler` composes them in this order: repetition penalty, temperature, top-k, top-p, min-p, and
then the draw. The last three only rule tokens out; the order decides what each of them sees.
"""

import math

import torch
from torch import Tensor

from nanogpt.config import SampleConfig
from nanogpt.model.layers import softmax


def penalize_repeats(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Make tokens that are in the text already less likely (Keskar et al. 2019). 1 changes nothing.

    seen (B, V) is true for those tokens. Positive logits are divided, negative ones multiplied, so
    that both fall.

    >>> penalize_repeats(torch.tensor([[2.0, -2.0, 1.0]]), torch.tensor([[True, True, False]]), 2)
    tensor([[ 1., -4.,  1.]])
    """
    lower = torch.where(logits > 0, logits / penalty, logits * penalty)
    return torch.where(seen, lower, logits)


def apply_temperature(logits: Tensor, temperature: float) -> Tensor:
    """Divide by the temperature: below 1 the likely becomes likelier, above 1 the unlikely does.

    >>> apply_temperature(torch.tensor([[2.0, 4.0]]), 0.5)
    tensor([[4., 8.]])
    """
    return logits / temperature


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Rule out all but the k likeliest tokens (Fan et al. 2018). k = 0, or k >= V, rules out none.

    Tokens as likely as the k-th stay too, so nothing depends on the order of ids.

    >>> keep_top_k(torch.tensor([[1.0, 3.0, 2.0]]), 2)
    tensor([[-inf, 3., 2.]])
    """
    if k == 0 or k >= logits.shape[-1]:
        return logits
    kth = logits.topk(k).values[:, -1:]
    return logits.masked_fill(logits < kth, -math.inf)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Keep the fewest likeliest tokens that together have probability p (Holtzman et al. 2020).

    Where the model is sure that is one token, where it is not it is many. The likeliest always
    stays; so do tokens as likely as the last one kept. p = 1 rules out none.

    >>> keep_top_p(torch.tensor([[0.5, 0.2, 0.3]]).log(), 0.6).exp()
    tensor([[0.5000, 0.0000, 0.3000]])
    """
    if p == 1:
        return logits
    ordered = logits.sort(descending=True).values  # (B, V)
    weights = softmax(ordered)  # (B, V)
    needed = (weights.cumsum(-1) - weights) < p  # (B, V): the likelier ones do not yet reach p
    last = ordered.gather(-1, needed.sum(-1, keepdim=True).clamp(min=1) - 1)
    return logits.masked_fill(logits < last, -math.inf)


def keep_min_p(logits: Tensor, p: float) -> Tensor:
    """Rule out tokens less than p times as likely as the likeliest (Nguyen et al. 2024).

    p = 0 rules out none.

    >>> keep_min_p(torch.tensor([[0.5, 0.1, 0.4]]).log(), 0.25).exp()
    tensor([[0.5000, 0.0000, 0.4000]])
    """
    if p == 0:
        return logits
    least = logits.amax(-1, keepdim=True) + math.log(p)
    return logits.masked_fill(logits < least, -math.inf)


class Sampler:
    """Chooses one token for each row, by the settings; temperature 0 takes the likeliest.

    One sampler serves one generation, so a variant may keep what it needs to know of each row.
    Each row draws from a generator of its own, seeded with config.seed + its number: what it draws
    does not depend on the other rows.
    """

    def __init__(self, config: SampleConfig, rows: int) -> None:
        self.config = config
        self.generators = [torch.Generator().manual_seed(config.seed + row) for row in range(rows)]

    def __call__(self, logits: Tensor, seen: Tensor | None = None) -> Tensor:
        """The next token of each row: logits (B, V) -> (B).

        `seen` (B, V) is true for tokens that are in the row's text; None if nobody asks.
        """
        logits = logits.float()
        if seen is not None:
            logits = penalize_repeats(logits, seen, self.config.repetition_penalty)
        if self.config.temperature == 0:
            return logits.argmax(-1)  # (B)
        return self.draw(self.filter(logits))

    def filter(self, logits: Tensor) -> Tensor:
        """Temperature, and what is ruled out: (B, V) -> (B, V)."""
        logits = apply_temperature(logits, self.config.temperature)
        logits = keep_top_k(logits, self.config.top_k)
        logits = keep_top_p(logits, self.config.top_p)
        return keep_min_p(logits, self.config.min_p)

    def draw(self, logits: Tensor) -> Tensor:
        """One token for each row, as probable as softmax says: (B, V) -> (B)."""
        # Drawn on the CPU, so that a seed gives the same text on every device.
        weights = softmax(logits).cpu()  # (B, V)
        draws = [
            torch.multinomial(row, 1, generator=generator)
            for row, generator in zip(weights, self.generators, strict=True)
        ]
        return torch.cat(draws).to(logits.device)  # (B)


SAMPLERS: dict[str, type[Sampler]] = {"standard": Sampler}
