"""Which device computes, and in which precision: decided once, here."""

import math
import re
import shutil
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from nanogpt.config import choose
from nanogpt.errors import UserError

PRECISIONS = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}

# Dense operations per second that makers promise, in 16-bit precision with float32 sums.
KNOWN_PEAKS = {
    "B200": 2250e12,
    "H200": 989e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10": 125e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
    "V100": 125e12,
    "T4": 65e12,
}

# Compiling takes about a minute and saves about a fifth; shorter runs do not earn it back.
SECONDS_WORTH_COMPILING = 600


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

    def scaler(self) -> torch.amp.GradScaler:
        """Keeps float16 gradients from vanishing: multiplies the loss, then divides the gradients.

        In other precisions it changes nothing.
        """
        return torch.amp.GradScaler(self.device.type, enabled=self.precision == "float16")

    def peak_flops(self) -> float:
        """Floating-point operations per second that the device can do, as a matrix product.

        Known for common GPUs, measured elsewhere, which takes a tenth of a second.
        """
        if self.device.type == "cuda" and self.precision != "float32":
            name = torch.cuda.get_device_name(self.device)
            for part, peak in KNOWN_PEAKS.items():
                if re.search(rf"\b{part}\b", name):  # an A1000 is no A100
                    return peak
        return measured_flops(self.device, PRECISIONS[self.precision])


def to_device(array: NDArray[Any], device: torch.device) -> torch.Tensor:
    """An array as a tensor on a device; from there on nothing waits for the copy to a GPU."""
    tensor = torch.from_numpy(array)
    pinned = tensor.pin_memory() if device.type == "cuda" else tensor
    return pinned.to(device, non_blocking=True)


def measured_flops(device: torch.device, dtype: torch.dtype, size: int = 1024) -> float:
    """Operations per second of a product of two square matrices, the best of several."""
    if device.type == "cpu" and dtype != torch.float32 and size > 128:
        slow = measured_flops(device, dtype, 128)  # a processor may emulate 16 bits, very slowly
        if slow < 1e10:
            return slow
    a = torch.ones(size, size, dtype=dtype, device=device)
    fastest = math.inf
    for _ in range(6):
        start = time.perf_counter()
        (a @ a)[0, 0].item()  # which waits for a device that works ahead
        fastest = min(fastest, time.perf_counter() - start)
    return 2 * size**3 / fastest


def peak_memory() -> int:
    """Bytes of memory that this process has used at most.

    The kernel's own mark where there is one: getrusage also counts the process that started it.
    """
    status = Path("/proc/self/status")
    if status.exists():
        found = re.search(r"VmHWM:\s+(\d+)", status.read_text())
        if found:
            return 1024 * int(found[1])
    import resource  # Windows does not have this module

    kilobytes = 1 if sys.platform == "darwin" else 1024
    return kilobytes * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def compile_or_why_not(setting: str, compute: Compute, flops: float) -> str:
    """Empty if torch.compile should be used, else the reason why not.

    `flops` is how many operations the run will take; it is taken to reach a quarter of the peak.
    Raises UserError for a setting other than auto, on, off.
    """
    device = compute.device
    choose({"auto": 1, "on": 1, "off": 1}, "train.compile", setting)
    if setting == "off":
        return "train.compile is off"
    if device.type == "mps":
        return "it is not ready for MPS"
    if device.type == "cpu" and not any(map(shutil.which, ("g++", "c++", "clang++"))):
        return "there is no C++ compiler"
    if setting == "auto" and 4 * flops / compute.peak_flops() < SECONDS_WORTH_COMPILING:
        return "the run is too short to earn it back"
    return ""


def resolve(device: str = "auto", precision: str = "auto") -> Compute:
    """Turn the settings train.device and train.precision into what this machine has.

    Raises UserError for a device that is not there or a precision that is unknown.
    """
    found = torch.device(best_device() if device == "auto" else known_device(device))
    if precision == "auto":
        old_gpu = "float16" if found.type == "cuda" else "float32"
        precision = "bfloat16" if bfloat16_is_faster(found) else old_gpu
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

    # Three times and on one thread, so that other work on the machine does not decide what a run
    # computes: threads that wait for each other slow one product down and not the other.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return all(seconds(torch.bfloat16) < 0.7 * seconds(torch.float32) for _ in range(3))
    finally:
        torch.set_num_threads(threads)
