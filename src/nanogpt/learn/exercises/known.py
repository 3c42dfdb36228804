"""What the exercises share: numbers for their cases, and mistakes that several functions make."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nanogpt.learn.exercise import Mistake


def numbers(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    """Some normal numbers, the same at every call."""
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def known(name: str, diagnosis: str, *wrong: Callable[..., Any]) -> list[Mistake]:
    """One mistake as different people make it: the same name and diagnosis for each way."""
    return [Mistake(name, diagnosis, each) for each in wrong]
