"""From logits to the next token. Pure functions: logits (B, V) in, logits (B, V) out.

`next_token` composes them in this order: temperature, then top-k, then the draw.
"""

import math

import torch
from torch import Tensor

from nanogpt.config import SampleConfig
from nanogpt.layers import softmax


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


def next_token(logits: Tensor, config: SampleConfig, generator: torch.Generator) -> Tensor:
    """Choose one token for each row: (B, V) -> (B). Temperature 0 takes the likeliest."""
    if config.temperature == 0:
        return logits.argmax(-1)  # (B)
    logits = keep_top_k(apply_temperature(logits.float(), config.temperature), config.top_k)
    # Drawn on the CPU, so that a seed gives the same text on every device.
    weights = softmax(logits).cpu()  # (B, V)
    return torch.multinomial(weights, 1, generator=generator)[:, 0].to(logits.device)  # (B)
