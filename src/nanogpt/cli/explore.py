"""nanogpt explore: look inside your own models in the browser."""

import subprocess
import sys
import threading
import time
import webbrowser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from nanogpt.cli.serve import require_fastapi
from nanogpt.cli.settings import Parser, named_path
from nanogpt.cli.weights import check_model
from nanogpt.errors import UserError

if TYPE_CHECKING:
    from nanogpt.explorer.runs import Run

RUNS = Path("runs")
DEMO = RUNS / "demo"
PORT = 8500
PATIENCE = 120  # seconds until a training that was just begun has weights to show

ABOUT = """
Look inside your own models while they read, write and learn: a page in your browser.

  nanogpt explore              all runs under runs/; without any, trains the demo and shows it
  nanogpt explore runs/demo    one run, several, a Hugging Face folder, or gpt2
"""


def main(arguments: Sequence[str]) -> int:
    """Serve the page until Ctrl-C. Returns the exit code."""
    parser = Parser("explore", ABOUT)
    parser.add_argument("runs", nargs="*", type=named_path, help="run folders; default: runs/")
    parser.add_argument("--port", type=int, default=PORT, help=f"default: {PORT}")
    parser.add_argument("--no-browser", action="store_true", help="print the address only")
    options = parser.parse(arguments)
    require_fastapi()
    for run in options.runs:
        check_model(run)
    from nanogpt.explorer.runs import find_runs, is_run

    sources = options.runs
    if sources or (RUNS.is_dir() and any(map(is_run, RUNS.iterdir()))):
        serve(find_runs(sources or [RUNS]), options.port, not options.no_browser)
        return 0
    with training_demo():
        serve(find_runs([DEMO]), options.port, not options.no_browser, "#view=replay")
    return 0


@contextmanager
def training_demo() -> Iterator[None]:
    """Train the demo in a process of its own, and wait until there is something to look at."""
    command = [sys.executable, "-m", "nanogpt", "train", "demo", "--run", str(DEMO)]
    print(f"no run yet: training the demo in {DEMO}; the page shows it learning", flush=True)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        end = time.monotonic() + PATIENCE
        while not has_weights(DEMO):
            if process.poll() is not None:
                raise UserError(f"training the demo ended early; run: {' '.join(command[1:])}")
            if time.monotonic() > end:
                raise UserError(f"{DEMO} has no weights after {PATIENCE} s; wait, then try again")
            time.sleep(0.2)
        yield
    finally:
        process.terminate()  # it saves a checkpoint before it ends
        process.wait()


def has_weights(run: Path) -> bool:
    """Whether a run has come as far as a snapshot or a checkpoint."""
    return any(run.glob("snapshots/step-*.safetensors")) or (run / "checkpoints/latest").exists()


def serve(runs: "dict[str, Run]", port: int, browser: bool, view: str = "") -> None:
    """Serve the page on a port of this machine alone; 0 takes a free one. It opens at a view."""
    from nanogpt.explorer.routes import about_or_error, create_app
    from nanogpt.serve.server import address, bind, make_server
    from nanogpt.serve.settings import ServeSettings

    settings = ServeSettings(port=port)
    listener = bind(settings)
    about_or_error(next(iter(runs.values())))  # what takes long the first time, before anyone waits
    place = f"{address(listener, settings.host)}/{view}"
    print(f"{place}   (Ctrl-C ends it)", flush=True)
    if browser:
        threading.Timer(0.5, webbrowser.open, [place]).start()
    make_server(create_app(runs, settings)).run(sockets=[listener])
