"""Typical sampling (Meister et al. 2022): keep the tokens about as surprising as is expected."""

import math

from torch import Tensor

from nanogpt.generation.sampling import SAMPLERS, Sampler

MASS = 0.9  # the probability that is kept


class Typical(Sampler):
    def filter(self, logits: Tensor) -> Tensor:
        logits = super().filter(logits)
        chances = logits.softmax(-1)  # (B, V)
        surprise = -chances.clamp(min=1e-12).log()
        expected = (chances * surprise).sum(-1, keepdim=True)
        order = (surprise - expected).abs().masked_fill(chances == 0, math.inf).argsort(-1)
        ordered = chances.gather(-1, order)
        enough = ordered.cumsum(-1) - ordered >= MASS  # the more typical ones have it already
        return logits.masked_fill(enough.scatter(-1, order, enough), -math.inf)


SAMPLERS["typical"] = Typical
