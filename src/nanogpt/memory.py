"""How much memory is free, and what settings take at least: arithmetic that needs no torch.

What a run really needs is several times that, and `training/plan.py` knows it.
"""

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from nanogpt.config import Config
from nanogpt.errors import UserError

# What a container may use, in the two forms that Linux has for it.
LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def free_memory() -> int | None:
    """Bytes that programs can still have on this machine; None where the system does not say.

    What the kernel keeps only because it might be read again counts as free.
    """
    names = getattr(os, "sysconf_names", {})  # Windows has none
    free = []
    with suppress(OSError, KeyError):
        kilobytes = dict(re.findall(r"(\w+): +(\d+) kB", Path("/proc/meminfo").read_text()))
        free.append(1024 * (int(kilobytes["MemAvailable"]) + int(kilobytes["SwapFree"])))
    if not free and "SC_PHYS_PAGES" in names:  # macOS says what there is, and not what is free
        free.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for path in LIMITS:
        with suppress(OSError, ValueError):  # the word max, where there is no limit
            free.append(int(Path(path).read_text()))
    return min(free, default=None)


def refuse_beyond(free: int | None, needs: Mapping[str, float], margin: float = 1.0) -> None:
    """Raise UserError with the number if more memory is needed than is free, times the margin.

    The needs have the names of the settings that would have to be lower. The largest is blamed.
    """
    needed = sum(needs.values())
    if free is not None and needed > margin * free:
        blame = max(needs, key=lambda name: needs[name])
        raise UserError(
            f"this needs at least {amount(needed)} of memory; this machine has {amount(free)} "
            f"free: lower {blame}"
        )


def refuse_impossible(config: Config) -> None:
    """Raise UserError for a run whose mere weights and batches are more than the free memory.

    Each layer has at least the matrices of its queries and its output. The ids of a step are there
    at once, those of the next step beside them, and one vector for each token of a batch.
    """
    model, train = config.model, config.train
    tokens = train.batch_size * model.context_length
    ids = 8 * tokens * train.grad_accum_steps * min(2, train.max_steps)
    sequences = "train.batch_size, train.grad_accum_steps or model.context_length"
    needs = {
        "model.n_embd or model.n_layer": 4 * 2 * model.n_layer * model.n_embd**2,
        sequences: ids + 2 * tokens * model.n_embd,
    }
    refuse_beyond(free_memory(), needs)


def amount(size: float) -> str:
    """Bytes as a person says them.

    >>> amount(4.2e12), amount(24_000_000_000), amount(5e6)
    ('4.2 TB', '24.0 GB', '5.0 MB')
    """
    for unit, name in ((1e12, "TB"), (1e9, "GB")):
        if size >= unit:
            return f"{size / unit:,.1f} {name}"
    return f"{size / 1e6:,.1f} MB"
