"""Mirostat 2 (Basu et al. 2021): steer each row's surprise towards a target. It keeps a state."""

import math

import torch
from torch import Tensor

from nanogpt.generation.sampling import SAMPLERS, Sampler, apply_temperature

TARGET, RATE = 3.0, 0.1  # bits per token, and how fast the limit follows


class Mirostat(Sampler):
    def __init__(self, config, rows):
        super().__init__(config, rows)
        self.limit = torch.full((rows, 1), 2 * TARGET)

    def filter(self, logits: Tensor) -> Tensor:
        logits = apply_temperature(logits, self.config.temperature)
        bits = -logits.log_softmax(-1) / math.log(2)  # (B, V)
        allowed = bits <= torch.maximum(self.limit, bits.amin(-1, keepdim=True))
        return logits.masked_fill(~allowed, -math.inf)

    def draw(self, logits: Tensor) -> Tensor:
        chosen = super().draw(logits)
        bits = -logits.log_softmax(-1).gather(-1, chosen[:, None]) / math.log(2)
        self.limit -= RATE * (bits - TARGET)
        return chosen


SAMPLERS["mirostat"] = Mirostat
