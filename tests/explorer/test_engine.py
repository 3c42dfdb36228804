"""The engine in JavaScript, in a browser: the same numbers as Python's for every variant."""

import base64
import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

import nanogpt
from nanogpt.lab.contracts import LENGTH, VOCABULARY, build, furthest
from nanogpt.model.trace import record

from conftest import VARIANTS

WEB = Path(nanogpt.__file__).parent / "explorer" / "web"
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
    "--disable-component-update", "--no-first-run",
]  # fmt: skip
SAME = 1e-4  # observed: 2e-6
IDS = torch.randint(VOCABULARY, (1, LENGTH), generator=torch.Generator().manual_seed(1))
OTHER = torch.randint(VOCABULARY, (1, LENGTH), generator=torch.Generator().manual_seed(2))

every_variant = pytest.mark.parametrize(
    "variant", VARIANTS, ids=lambda v: "-".join(f"{k}={x}" for k, x in v.items())
)


class Quiet(SimpleHTTPRequestHandler):
    """Files, without a line on stderr for each."""

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def page():
    """A page that can import the engine's modules: one browser for all tests."""
    browser_path = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser_path is None:
        pytest.skip("no chromium here")
    from playwright.sync_api import sync_playwright

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(WEB)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=browser_path, args=FLAGS)
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{server.server_port}/engine/")  # a list of the files
        page.evaluate(HELPERS)
        yield page
        browser.close()
    server.shutdown()
    server.server_close()


HELPERS = """async () => {
  const files = ["tensor", "safetensors", "model", "watch"];
  for (const file of files) Object.assign(window, await import(`/engine/${file}.js`));
  window.bytes = (base64) => Uint8Array.from(atob(base64), (c) => c.charCodeAt(0)).buffer;
  window.plain = (tensors) => Object.fromEntries(
    Object.entries(tensors).map(([name, { shape, data }]) => [name, { shape, data: [...data] }]));
}"""


def send(page, model) -> None:
    """Give the page a model: there, its name is `model`."""
    weights = base64.b64encode(save(dict(model.state_dict()))).decode()
    make = "([config, file]) => { window.model = new Model(config, readSafetensors(bytes(file))); }"
    page.evaluate(make, [vars(model.config), weights])


def observed(page, ids: torch.Tensor, **request: Any) -> dict[str, torch.Tensor]:
    """What the page's model gives and holds: "logits" and the activations, by name."""
    found = page.evaluate(
        """([ids, request]) => {
          const { logits, activations } = observe(model, ids, request);
          return plain({ logits, ...activations });
        }""",
        [ids[0].tolist(), request],
    )
    return {name: torch.tensor(x["data"]).view(x["shape"]) for name, x in found.items()}


@every_variant
@torch.no_grad()
def test_logits_and_every_activation_equal_pythons(page, variant):
    model = build(variant)
    send(page, model)
    with record(model) as seen:
        seen["logits"] = model(IDS)
    found = observed(page, IDS, record=["*"])
    assert found.keys() == seen.keys()
    for name, x in seen.items():
        assert found[name].shape == x[0].shape, name
        assert furthest(found[name], x[0]) < SAME, name
