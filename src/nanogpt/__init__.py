"""A GPT-2 to learn from: every step from raw bytes to generated text, written by hand."""

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nanogpt.api import evaluate as evaluate
    from nanogpt.api import export as export
    from nanogpt.api import generate as generate
    from nanogpt.api import prepare as prepare
    from nanogpt.api import train as train
    from nanogpt.config import Config as Config
    from nanogpt.config import ModelConfig as ModelConfig
    from nanogpt.interop.huggingface import from_pretrained as from_pretrained
    from nanogpt.model.gpt import GPT as GPT
    from nanogpt.text.tokenizer import Tokenizer as Tokenizer
    from nanogpt.training.load import load as load
    from nanogpt.training.start import Trainer as Trainer

__version__ = "0.1.0"


def _limit_spinning() -> None:
    """Let torch's threads sleep soon after their work instead of spinning until the next.

    A thread of OpenMP that waits for the others spins for milliseconds by default. On a shared
    machine it thereby takes the cores from the very threads that it waits for. The demo's steps on
    two cores, in tokens per second (medians of five, three for the last column): alone, beside one
    other program, and with eight threads waiting for the cores:

        default       26,900    5,300      350
        4000 rounds   23,600   11,100    3,000
        no spinning   18,900   13,400    3,500

    GNU's OpenMP, torch's on Linux, reads the variable once, when torch is loaded. What the user
    has set stays.
    """
    if "torch" not in sys.modules and "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "4000")


_limit_spinning()

# Where each public name lives. It is loaded when it is used: importing torch takes a second.
HOMES = {
    "GPT": "model.gpt",
    "ModelConfig": "config",
    "Config": "config",
    "Tokenizer": "text.tokenizer",
    "Trainer": "training.start",
    "load": "training.load",
    "from_pretrained": "interop.huggingface",
    "prepare": "api",
    "train": "api",
    "generate": "api",
    "evaluate": "api",
    "export": "api",
}


def __getattr__(name: str) -> Any:
    """A public name, loaded from its home."""
    if name not in HOMES:
        raise AttributeError(f"module 'nanogpt' has no attribute {name!r}")
    return getattr(importlib.import_module(f"nanogpt.{HOMES[name]}"), name)


def __dir__() -> list[str]:
    """The public names."""
    return [*HOMES, "__version__"]
