"""The options by which commands name a model, and loading it."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from nanogpt.cli.settings import Parser, named_path
from nanogpt.cli.streams import shown_meanwhile
from nanogpt.config import PRESETS, Config
from nanogpt.text.tokenizer import BaseTokenizer
from nanogpt.training.records import check_is_run

if TYPE_CHECKING:
    from nanogpt.model.gpt import GPT

WEIGHTS = ("float32", "bfloat16", "int8", "plain")  # the keys of generation.packing.WEIGHTS


def add_model_options(parser: Parser) -> None:
    """Add the run, its checkpoint, and the precision of its weights."""
    parser.add_argument(
        "run", type=named_path,
        help="a run folder, such as runs/demo, a Hugging Face folder, gpt2, or hub:NAME",
    )  # fmt: skip
    parser.add_argument("--checkpoint", default="latest", choices=["latest", "best"])
    parser.add_argument(
        "--weights", default="float32", choices=WEIGHTS,
        help="int8 takes a quarter of the memory and is faster where memory is the limit",
    )  # fmt: skip


def check_model(run: Path) -> None:
    """Raise UserError for a model that is neither there nor fetched by its name.

    Torch takes seconds to load, so this comes first.
    """
    if not str(run).startswith("hub:") and (run.exists() or str(run) not in PRESETS):
        check_is_run(run)


def load_model(options: argparse.Namespace) -> tuple["GPT", BaseTokenizer, Config]:
    """The model that the options name, on the best device of this machine."""
    check_model(options.run)
    with shown_meanwhile("loading the model ..."):
        from nanogpt.device import resolve
        from nanogpt.generation.packing import WEIGHTS
        from nanogpt.training.load import load

        model, tokenizer, config = load(options.run, options.checkpoint)
        return WEIGHTS[options.weights](model.to(resolve().device)), tokenizer, config
