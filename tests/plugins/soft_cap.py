"""Logits that cannot leave -15 to 15 (Gemma Team 2024, "logit soft-capping")."""

import torch
from torch import Tensor

from nanogpt.model.gpt import HEADS, LMHead

LARGEST = 15.0


class SoftCap(LMHead):
    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        return LARGEST * torch.tanh(super().forward(x, weight) / LARGEST)


HEADS["soft-cap"] = SoftCap
