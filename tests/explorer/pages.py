"""The explorer's page with Python behind it: what the tests of its views share."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from nanogpt.explorer.routes import create_app
from nanogpt.explorer.runs import Run


@contextmanager
def served(*runs: Run) -> Iterator[str]:
    """The address of a server that shows these runs."""
    app = create_app({run.name: run for run in runs})
    server = uvicorn.Server(uvicorn.Config(app, "127.0.0.1", port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join(10)


def percent(share: float) -> str:
    """A share as draw.js writes it."""
    return f"{100 * share:.{2 if share < 0.0995 else 1}f} %"
