"""A GPT-2 to learn from: every step from raw bytes to generated text, written by hand."""

import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nanogpt.interop.huggingface import from_pretrained as from_pretrained

__version__ = "0.1.0"


def _limit_spinning() -> None:
    """Let torch's threads sleep soon after their work instead of spinning until the next.

    A thread of OpenMP that waits for the others runs in a loop, by default for milliseconds. On a
    machine that is shared it thereby keeps from the cores the very threads that it waits for: on
    two cores beside two other programs, the demo trained at a twentieth of its speed. Loops of some
    microseconds cost nothing where the cores are free. GNU's OpenMP, torch's on Linux, reads the
    variable once, when torch is loaded. What the user has set stays.
    """
    if "torch" not in sys.modules and "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "4000")


_limit_spinning()


def __getattr__(name: str) -> Any:
    """`nanogpt.from_pretrained` is loaded when it is used: importing torch takes a second."""
    if name == "from_pretrained":
        from nanogpt.interop.huggingface import from_pretrained

        return from_pretrained
    raise AttributeError(f"module 'nanogpt' has no attribute {name!r}")
