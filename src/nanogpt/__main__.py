"""`python -m nanogpt` does what `nanogpt` does."""

from nanogpt.cli import run

run()
