"""Speed of the explorer's engine in JavaScript, in Chromium: `python benchmarks/explorer.py`.

A model of the demo's shape (1.1 million weights, 2 layers of 192 channels, a context of 64) with
random weights. The best of several rounds, since a browser has a life of its own. Prints a table.
"""

import base64
import shutil
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright
from safetensors.torch import save

from nanogpt.config import ModelConfig, load_config
from nanogpt.explorer.publish import WEB
from nanogpt.model.gpt import GPT
from nanogpt.text.corpus import shakespeare
from nanogpt.text.tokenizer import Tokenizer

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
PLAY = next(shakespeare()).text

MEASURE = """async ([config, values, file, play]) => {
  const { LocalEngine } = await import("/engine/local.js");
  const bytes = Uint8Array.from(atob(file), (c) => c.charCodeAt(0)).buffer;
  const engine = new LocalEngine({ name: "demo", config }, values, async () => bytes);
  const ids = Array.from({ length: config.context_length }, (_, i) => (13 * i) % 1024);
  const best = async (rounds, work) => {
    let least = Infinity;
    for (let n = 0; n < rounds; n++) {
      const began = performance.now();
      await work();
      least = Math.min(least, performance.now() - began);
    }
    return least;
  };
  const first = await best(1, () => engine.forward(ids));
  const forward = await best(30, () => engine.forward(ids));
  const recorded = await best(30, () => engine.forward(ids, { record: ["*"] }));
  const written = await best(5, async () => {
    for await (const _ of engine.generate([1], { max_new_tokens: 200 })) continue;
  });
  const encoded = await best(3, () => {
    engine.tokenizer.words.clear();
    engine.tokenizer.encode(play);
  });
  return { first, forward, recorded, written, encoded };
}"""


class Quiet(SimpleHTTPRequestHandler):
    """Files, without a line on stderr for each."""

    def log_message(self, *args: Any) -> None:
        pass


def main() -> None:
    """Measure, and print a table."""
    settings = load_config(Path(__file__).parent.parent / "configs" / "demo.toml").model
    tokenizer = Tokenizer.train([PLAY], 1024)
    model = GPT(ModelConfig(**{**vars(settings), "vocab_size": tokenizer.vocab_size}))
    file = base64.b64encode(save(dict(model.state_dict()))).decode()
    browser_path = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser_path is None:
        sys.exit("there is no chromium here: install it")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(WEB)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=browser_path, args=FLAGS)
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{server.server_port}/engine/")
        times = page.evaluate(MEASURE, [vars(model.config), tokenizer.to_dict(), file, PLAY])
        print(f"Chromium {browser.version}\n")
        browser.close()
    server.shutdown()
    print("| what | time |\n|---|---|")
    print(f"| read the weights and a text of 64 tokens, the first time | {times['first']:.0f} ms |")
    print(f"| read a text of 64 tokens | {times['forward']:.1f} ms |")
    print(f"| the same with everything recorded | {times['recorded']:.1f} ms |")
    print(f"| write 200 tokens, past the context | {200_000 / times['written']:.0f} tokens/s |")
    megabytes = len(PLAY.encode()) / 1e6
    print(f"| encode a play of {megabytes:.2f} MB | {times['encoded']:.0f} ms |")


if __name__ == "__main__":
    main()
