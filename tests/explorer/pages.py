"""The explorer's page, with Python or alone: what its tests share."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlencode

import uvicorn
from browser import launched

from nanogpt.explorer.routes import WEB, create_app
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


def opened(browser: Any, address: str, **state: str) -> Any:
    """The page in a state of its address; `page.wrong` collects the errors of its scripts."""
    page = browser.new_page(viewport={"width": 1100, "height": 900})
    page.wrong = []
    page.on("pageerror", lambda error: page.wrong.append(str(error)))
    page.goto(f"{address}#{urlencode(state)}")
    return page


class Quiet(SimpleHTTPRequestHandler):
    """Files, without a word."""

    def log_message(self, *args: Any) -> None:
        pass


@contextmanager
def scripts(folder: str) -> Iterator[Any]:
    """A page in a browser that can import the modules in a folder of the page, such as "engine"."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(WEB)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with launched() as browser:
            page = browser.new_page()
            page.goto(f"http://127.0.0.1:{server.server_port}/{folder}/")  # a list of the files
            yield page
    finally:
        server.shutdown()
        server.server_close()


def percent(share: float) -> str:
    """A share as numbers.js writes it."""
    return f"{100 * share:.{2 if share < 0.0995 else 1}f} %"
