"""A GPT-2 to learn from: every step from raw bytes to generated text, written by hand."""

__version__ = "0.1.0"
