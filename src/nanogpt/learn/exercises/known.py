"""What the exercises share: numbers for their cases, and mistakes that several functions make."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from nanogpt.learn.exercise import Mistake


def numbers(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    """Some normal numbers, the same at every call."""
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def known(name: str, diagnosis: str, *wrong: Callable[..., Any]) -> Mistake:
    """One mistake in each way in which people make it."""
    return Mistake(name, diagnosis, wrong)


def checked_kernels() -> AbstractContextManager[None]:
    """Torch's attention in the form that checks its arguments.

    The fast form for processors takes for granted that there are as many keys as values. Where
    somebody has swapped arguments it writes beyond its memory, and the process dies.
    """
    return sdpa_kernel(SDPBackend.MATH)
