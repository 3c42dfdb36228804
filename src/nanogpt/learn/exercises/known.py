"""What the exercises share: numbers for their cases, and mistakes that several functions make."""

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from nanogpt.learn.exercise import Mistake


def numbers(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    """Some normal numbers, the same at every call."""
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def known(name: str, diagnosis: str, *wrong: Callable[..., Any]) -> Mistake:
    """One mistake in each way in which people make it."""
    return Mistake(name, diagnosis, wrong)


def made(cls: Any, config: Any, prepare: Callable[[Any], None]) -> Any:
    """A module of a class with fixed weights, to which `prepare` has been applied."""
    torch.default_generator.manual_seed(0)
    module = cls(config)
    with torch.no_grad():
        prepare(module)
    return module


made_once = cache(made)


def prepared(cls: Any, reference: Any, config: Any, prepare: Callable[[Any], None]) -> Any:
    """The same, at once for the package's own classes.

    Most of the time of a small case is the making of its modules. The classes that make known
    mistakes only read them, so they share those of the reference.
    """
    if cls.__init__ is reference.__init__ and cls.__module__.startswith("nanogpt."):
        module = copy.copy(made_once(reference, config, prepare))
        module.__class__ = cls
    else:
        module = made(cls, config, prepare)
    torch.default_generator.manual_seed(1)
    return module


def shaken(scale: float) -> Callable[[nn.Module], None]:
    """A preparation: noise on all weights, so that each of them matters."""

    def prepare(module: nn.Module) -> None:
        for parameter in module.parameters():
            parameter.add_(scale * torch.randn_like(parameter))

    return prepare


def checked_kernels() -> AbstractContextManager[None]:
    """Torch's attention in the form that checks its arguments.

    The fast form for processors takes for granted that there are as many keys as values. Where
    somebody has swapped arguments it writes beyond its memory, and the process dies.
    """
    return sdpa_kernel(SDPBackend.MATH)
