"""nanogpt serve: trained models for programs, by the completions API."""

import argparse
import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nanogpt.cli.settings import Parser, named_path, settings_in
from nanogpt.cli.weights import WEIGHTS, load_model
from nanogpt.config import from_dict
from nanogpt.errors import UserError
from nanogpt.serve.settings import LimitsConfig, ServeSettings

if TYPE_CHECKING:
    from nanogpt.training.load import Loaded

TOKEN = "NANOGPT_TOKEN"  # where a token is not seen by others who list processes

ABOUT = """\
Serve trained models to programs: /v1/completions, /v1/chat/completions and more, as the completions
API has them. docs/serving.md shows clients and lists what is supported. Ctrl-C ends it."""


def main(arguments: Sequence[str]) -> None:
    """Serve until interrupted."""
    parser = Parser("serve", ABOUT)
    parser.add_argument(
        "runs", nargs="+", type=named_path, metavar="run",
        help="run folders, such as runs/demo, Hugging Face folders, gpt2, or hub:NAME",
    )  # fmt: skip
    parser.add_argument("--checkpoint", default="latest", choices=["latest", "best"])
    parser.add_argument("--weights", default="float32", choices=WEIGHTS)
    add_server_options(parser)
    options = parser.parse(arguments)
    settings = serve_settings(options)
    require_fastapi()
    names = [model_name(run) for run in options.runs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UserError(f"two runs are called {twice}: requests could not tell them apart")
    from nanogpt.serve.app import create_app
    from nanogpt.serve.server import address, bind, make_server

    with bind(settings) as listener:
        models = {name: load(run, options) for name, run in zip(names, options.runs, strict=True)}
        refuse_rows(models, settings.limits.rows)
        server = make_server(create_app(models, settings))
        url = address(listener, settings.host)
        print(f"serving {', '.join(models)} at {url}/v1 (Ctrl-C ends it)", flush=True)
        server.run(sockets=[listener])


def add_server_options(parser: Parser) -> None:
    """Add the options that say where a server listens, and its limits."""
    parser.add_argument(
        "--host", default="127.0.0.1", help="0.0.0.0 lets others in; default: %(default)s"
    )
    parser.add_argument("--port", type=int, default=8000, help="0: any free one; default: 8000")
    parser.add_argument(
        "--token", default=os.environ.get(TOKEN, ""),
        help=f"what clients must send (Authorization: Bearer); default: the variable {TOKEN}",
    )  # fmt: skip
    parser.add_settings(LimitsConfig)


def serve_settings(options: argparse.Namespace) -> ServeSettings:
    """Where to listen, and the limits. Raises UserError for what cannot be."""
    limits = from_dict(LimitsConfig, settings_in(options).get("limits", {}))
    host, port, token = options.host, options.port, options.token
    return ServeSettings(host=host, port=port, token=token, limits=limits)


def require_fastapi() -> None:
    """Raise UserError if the libraries of the server are missing."""
    if any(importlib.util.find_spec(name) is None for name in ("fastapi", "uvicorn")):
        raise UserError("this needs FastAPI and uvicorn: pip install 'nanogpt[explorer]'")


def model_name(run: Path) -> str:
    """The name by which requests mean a model: that of its folder."""
    return Path(os.path.abspath(run)).name.removeprefix("hub:")


def load(run: Path, options: argparse.Namespace) -> "Loaded":
    """One of the models."""
    from nanogpt.training.load import Loaded

    one = {"run": run, "checkpoint": options.checkpoint, "weights": options.weights}
    return Loaded(*load_model(argparse.Namespace(**one)))


def refuse_rows(models: "dict[str, Loaded]", rows: int) -> None:
    """Raise UserError if there is no memory for the caches of so many rows."""
    from nanogpt.memory import refuse_beyond
    from nanogpt.training.plan import available_bytes, cache_bytes

    device = next(iter(models.values())).model.device
    needed = sum(
        cache_bytes(model.config, rows) * model.dtype.itemsize / 4
        for model, _, _ in models.values()
    )
    refuse_beyond(available_bytes(device), {"--limits.rows": needed})
