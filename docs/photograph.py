"""The pictures of the explorer in these pages: `python docs/photograph.py RUN`, with a trained run.

Opens the page of the run in Chromium and takes a picture of each view that is shown somewhere.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

IMAGES = Path(__file__).parent / "images"
SIZE = {"width": 1280, "height": 900}
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]

# Each view that is shown, by the text that it reads. What comes after # is the page's own state.
VIEWS = {
    "text": "#view=text&text=ROMEO: I have a",
    "attention": "#view=attention&layer=1&head=0&text=To be, or not to be: that is the question",
    "why": "#view=why&text=Good night, good night! Parting is such sweet",
    "replay": "#view=replay&text=ROMEO: I have a",
}


def main(run: str) -> None:
    """Take them all."""
    command = [sys.executable, "-m", "nanogpt", "explore", run, "--port", "0", "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        address = server.stdout.readline().split()[0]
        try:
            with sync_playwright() as playwright:
                chromium = shutil.which("chromium")
                browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
                for name, state in VIEWS.items():
                    page = browser.new_page(viewport=SIZE)  # type: ignore[arg-type]
                    page.goto(address + state)
                    page.wait_for_load_state("networkidle")
                    page.wait_for_timeout(4000)  # until what is computed bit by bit is there
                    page.screenshot(path=IMAGES / f"explorer-{name}.png", full_page=name != "text")
                    print(IMAGES / f"explorer-{name}.png")
                    page.close()
        finally:
            server.terminate()


if __name__ == "__main__":
    main(sys.argv[1])
