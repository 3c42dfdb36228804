"""A GPT-2 to learn from: every step from raw bytes to generated text, written by hand."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nanogpt.interop.huggingface import from_pretrained as from_pretrained

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`nanogpt.from_pretrained` is loaded when it is used: importing torch takes a second."""
    if name == "from_pretrained":
        from nanogpt.interop.huggingface import from_pretrained

        return from_pretrained
    raise AttributeError(f"module 'nanogpt' has no attribute {name!r}")
