"""Which device computes, and in which precision: decided once, here."""

import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from nanogpt.config import choose
from nanogpt.errors import UserError

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Compute:
    """Where and how tensors are computed."""

    device: torch.device
    precision: str  # a name from PRECISIONS

    def autocast(self) -> AbstractContextManager:
        """The context in which forward passes run. Weights stay in float32 in every precision."""
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=PRECISIONS[self.precision])


def resolve(device: str = "auto", precision: str = "auto") -> Compute:
    """Turn the settings train.device and train.precision into what this machine has.

    Raises UserError for a device that is not there or a precision that is unknown.
    """
    found = torch.device(best_device() if device == "auto" else known_device(device))
    if precision == "auto":
        precision = "bfloat16" if bfloat16_is_faster(found) else "float32"
    choose(PRECISIONS, "train.precision", precision)
    return Compute(found, precision)


def best_device() -> str:
    """The fastest device of this machine."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def known_device(name: str) -> str:
    """The name itself, if it is a device of this machine."""
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    absent = UserError(f"train.device={name!r} is not on this machine: use auto or cpu")
    if not choose(available, "train.device", name.partition(":")[0]):
        raise absent
    try:
        torch.empty(1, device=name)  # cuda:7 may be one too many
    except (RuntimeError, AssertionError):
        raise absent from None
    return name


def bfloat16_is_faster(device: torch.device) -> bool:
    """Whether half-size numbers save time here.

    GPUs since 2020 have units for them. CPUs may have them (AMX), or may emulate them hundreds of
    times slower, and nothing but a measurement tells: two products of small matrices.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False

    def seconds(dtype: torch.dtype) -> float:
        a = torch.ones(192, 192, dtype=dtype)
        times = []
        for _ in range(5):
            start = time.perf_counter()
            a @ a
            times.append(time.perf_counter() - start)
        return min(times)

    return seconds(torch.bfloat16) < 0.7 * seconds(torch.float32)
