"""A server of a small trained model, on a free port, in a thread."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import openai

from nanogpt.serve.app import create_app
from nanogpt.serve.batching import Batcher
from nanogpt.serve.server import address, bind, make_server
from nanogpt.serve.settings import ServeSettings
from nanogpt.training.load import Loaded


@dataclass
class Running:
    """A server that runs."""

    url: str
    loaded: Loaded
    batcher: Batcher  # of its model "small"

    def client(self, **settings: Any) -> openai.OpenAI:
        key = settings.pop("api_key", "none")
        return openai.OpenAI(base_url=self.url + "/v1", api_key=key, max_retries=0, **settings)

    def idle(self) -> bool:
        """Whether every place is free, within a few seconds."""
        until = time.monotonic() + 5
        while self.batcher.running or self.batcher.waiting:
            if time.monotonic() > until:
                return False
            time.sleep(0.01)
        return True


@contextmanager
def serving(loaded: Loaded, **settings: Any) -> Iterator[Running]:
    """Serve a model as "small" meanwhile."""
    chosen = ServeSettings(port=0, **settings)
    with bind(chosen) as listener:
        app = create_app({"small": loaded}, chosen)
        server = make_server(app)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        try:
            batcher = app.state.models.served["small"].batcher
            yield Running(address(listener, "127.0.0.1"), loaded, batcher)
        finally:
            server.should_exit = True
            thread.join()
