"""A published page: one file that works alone, and in which no text is taken for a command."""

import base64
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from browser import launched

from nanogpt.cli import main
from nanogpt.config import ModelConfig, load_config
from nanogpt.errors import UserError
from nanogpt.explorer.publish import WEB, bundle, one_file, publish, resolved, thinned
from nanogpt.explorer.runs import Run, find_runs
from nanogpt.model.gpt import GPT
from nanogpt.model.trace import record
from nanogpt.text.corpus import shakespeare
from nanogpt.text.tokenfiles import write_token_file
from nanogpt.text.tokenizer import CharTokenizer, Tokenizer
from nanogpt.training.start import Trainer

from conftest import TEXT as LINES
from conftest import small_run

EVIL = "</script><script>document.title = 'broken'</script><!--"
TEXT = "DUKE: </script>"
NAME = 'it\'s <b>a & "run" é'


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    """A run whose name and special token try to break out of the page."""
    folder = tmp_path_factory.mktemp("published")
    tokenizer = Tokenizer.train([LINES], 300, [EVIL])
    for split in ("train", "val"):
        write_token_file(folder / "data" / f"{split}.bin", [LINES], tokenizer)
    tokenizer.save(folder / "data" / "tokenizer.json")
    settings = small_run(folder / "data", snapshots=4)
    list(Trainer.start(folder / NAME, settings).run())
    return find_runs([folder / NAME])[NAME]


@pytest.fixture(scope="module")
def file(run, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("page") / "page.html"
    assert publish(run, path, TEXT) == path.stat().st_size
    return path


@pytest.fixture(scope="module")
def opened(file) -> Iterator[tuple[Any, list[str]]]:
    """The page, opened from the disk with the network cut; and all that went on: requests, errors.

    A violation of the content policy is an error, too.
    """
    with launched() as browser:
        page = browser.new_context(offline=True).new_page()
        events: list[str] = []
        page.on("request", lambda request: events.append(f"request {request.url}"))
        page.on("pageerror", lambda error: events.append(f"error {error}"))
        page.on("console", lambda message: events.append(f"{message.type} {message.text}"))
        page.goto(file.as_uri())
        page.wait_for_function("() => window.explorer?.app?.result")
        yield page, events


@torch.no_grad()
def test_a_page_opened_from_disk_computes_what_python_does_and_asks_nobody(run, file, opened):
    page, events = opened
    said = page.evaluate(
        """() => { const { engine, tokens, result, state } = explorer.app; return {
          name: engine.info.name, kind: engine.constructor.name, text: state.text,
          ids: tokens.map((token) => token.id), logits: [...result.logits.data] }; }"""
    )
    model, tokenizer = run.open()
    ids = tokenizer.encode(TEXT)
    rounded = GPT(model.config).eval()
    rounded.load_state_dict({name: x.half().float() for name, x in model.state_dict().items()})
    logits = rounded(torch.tensor([ids]))[0]
    assert said["name"] == NAME
    assert said["kind"] == "ThreadedEngine"
    assert (said["text"], said["ids"]) == (TEXT, ids)
    found = torch.tensor(said["logits"]).view(logits.shape)
    torch.testing.assert_close(found, logits, rtol=0, atol=1e-4)
    assert gone_on(events) == [f"request {file.as_uri()}"]


def gone_on(events: list[str]) -> list[str]:
    """The events, but for the thread that the page starts from a script inside of it."""
    return [event for event in events if not event.startswith("request blob:null/")]


def test_every_view_is_shown_without_an_error(opened):
    page, events = opened
    before = len(events)
    tabs = page.get_by_role("tab")
    assert tabs.count() > 3
    for n in range(tabs.count()):
        tabs.nth(n).click()
        page.wait_for_function("(n) => document.querySelectorAll('#place h2').length === 1", arg=n)
        page.wait_for_timeout(300)
        assert page.locator("#place .view").inner_text().strip(), tabs.nth(n).inner_text()
    assert gone_on(events[before:]) == []
    tabs.nth(0).click()


def test_no_text_of_a_run_becomes_part_of_the_page(opened):
    page, _ = opened
    assert page.title() == f"{NAME}: inside a GPT"
    special = page.evaluate("() => explorer.app.engine.token(299)")
    assert special["text"] == EVIL
    assert page.locator("script").count() == 2  # the data, and the page's own
    assert page.locator("#run").evaluate("(menu) => menu.value") == NAME


@torch.no_grad()
def test_the_replay_holds_the_attention_of_every_snapshot(run, opened):
    page, _ = opened
    frames = page.evaluate("() => explorer.app.engine.info.replay.frames")
    assert [frame["step"] for frame in frames] == run.steps()
    assert len(frames) == 4
    for frame in frames:
        model, tokenizer = run.open(frame["step"])
        assert frame["ids"] == tokenizer.encode(TEXT)
        with record(model, "h.*.attn.weights") as seen:
            logits = model(torch.tensor([frame["ids"]]))[0]
        assert frame["shape"] == [2, 2, len(frame["ids"]), len(frame["ids"])]
        raw = np.frombuffer(base64.b64decode(frame["attention"]), dtype="<u2").astype(np.float32)
        found = torch.from_numpy(raw).view(frame["shape"]) / 65535
        weights = torch.cat(list(seen.values()))
        torch.testing.assert_close(found, weights, rtol=0, atol=1e-5)
        (token, probability), *_ = frame["likeliest"][-1]
        assert token == int(logits[-1].argmax())
        assert probability == pytest.approx(float(logits[-1].softmax(-1).max()), abs=1e-5)


def test_what_needs_python_says_so_in_a_line(opened):
    page, _ = opened
    answers = page.evaluate(
        """async () => {
          const asked = [["api/runs/x/nearest", { method: "POST", body: "{}" }],
            ["https://example.com/", {}], ["constructor", {}]];
          const found = await Promise.all(asked.map((request) => fetch(...request)));
          return Promise.all(found.map(async (answer) => [answer.status, await answer.json()]));
        }"""
    )
    for status, answer in answers:
        assert status == 404
        assert "run `nanogpt explore` for this" in answer["error"]
    for name in ("Twins", "One step", "Where it read this"):
        page.get_by_role("tab", name=name).click()
        page.get_by_text(f"Open the run with: nanogpt explore runs/{NAME}").wait_for()
        assert page.locator(".view button:visible").count() == 0


def test_the_policy_allows_no_other_script(file):
    content = file.read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', content)
    assert policy
    assert "default-src 'none'; script-src 'sha256-" in policy[1]
    assert "unsafe-inline" not in policy[1].partition("script-src")[2].partition(";")[0]
    assert EVIL not in content
    for address in re.findall(r'(?:src|href)="([^"]*)"', content.partition("<script")[0]):
        assert address.startswith(("#", "data:"))


class Made(Run):
    """A run that exists in memory alone."""

    def __init__(self, name: str, model: GPT, tokenizer: Tokenizer | CharTokenizer) -> None:
        super().__init__(name, name)
        self.pair = model, tokenizer

    def open(self, step: int | None = None):
        return self.pair


def test_the_demos_page_can_be_sent_by_mail(tmp_path):
    """At most 5 MB; the replay of the demo's twelve snapshots takes 0.1 of it."""
    settings = load_config(Path("configs") / "demo.toml").model
    tokenizer = Tokenizer.train([next(shakespeare()).text], 1024)
    model = GPT(ModelConfig(**{**vars(settings), "vocab_size": tokenizer.vocab_size}))
    size = publish(Made("demo", model, tokenizer), tmp_path / "page.html")
    assert 2_900_000 < size < 4_800_000


def test_what_a_page_cannot_compute_is_refused(tmp_path):
    shape = {"n_layer": 1, "n_head": 1, "n_embd": 8, "context_length": 8, "vocab_size": 300}
    model = GPT(ModelConfig(**shape))
    own = Tokenizer([], r"\w+|\W+")
    for made, text, message in [
        (Made("own", model, own), "a", "a page knows gpt2, cl100k, o200k"),
        (Made("long", model, Tokenizer([])), "nine byte", "--text of 9 tokens: use 1 to 8"),
        (Made("empty", model, Tokenizer([])), "", "--text of 0 tokens: use 1 to 8"),
        (Made("letters", model, CharTokenizer("ab")), "abc", "--text 'abc': the character 'c'"),
    ]:
        with pytest.raises(UserError, match=re.escape(message)):
            publish(made, tmp_path / "page.html", text)
    model.h[0].mlp.c_fc = Foreign(8, 32)
    with pytest.raises(UserError, match="plugged cannot be published: a page computes our own"):
        publish(Made("plugged", model, Tokenizer([])), tmp_path / "page.html", "a")
    assert not list(tmp_path.iterdir())


class Foreign(torch.nn.Linear):
    """A part of a model that the package does not know."""


def test_publish_writes_a_page_and_says_how_large_it_is(run, tmp_path, capsys):
    page = tmp_path / "page.html"
    assert main(["publish", str(run.folder), str(page), "--text", "DUKE:"]) == 0
    assert f"page.html: {page.stat().st_size / 1e6:.1f} MB" in capsys.readouterr().out
    assert main(["publish", str(tmp_path / "none"), str(page)]) == 2
    assert "none" in capsys.readouterr().err
    shutil.copytree(run.folder, tmp_path / "runs" / "a")
    shutil.copytree(run.folder, tmp_path / "runs" / "b")
    assert main(["publish", str(tmp_path / "runs"), str(page)]) == 2
    assert "holds 2 runs: name one, a, b" in capsys.readouterr().err


def test_modules_are_put_together_in_the_order_of_their_imports(tmp_path):
    (tmp_path / "parts").mkdir()
    (tmp_path / "main.js").write_text(
        'import { two as zwei,\n  three } from "./parts/b.js";\n'
        'import * as all from "./parts/a.js";\n'
        "export const sum = zwei + three + all.one;\n"
    )
    (tmp_path / "parts" / "a.js").write_text('export const one = 1;\nconst text = "</script>";\n')
    (tmp_path / "parts" / "b.js").write_text(
        'import { one } from "../parts/a.js";\nexport const two = 2 * one;\n'
        "export async function* later() {}\nexport class three {}\n"
    )
    script = bundle(tmp_path, ["main.js"])
    places = [script.index(f"// {name}") for name in ("parts/a.js", "parts/b.js", "main.js")]
    assert places == sorted(places)
    assert "const { two: zwei,\n  three } = m1;" in script
    assert "return { two, later, three };" in script
    assert "</script" not in script
    assert resolved(Path("views/deep"), "../../engine/a.js") == "engine/a.js"
    (tmp_path / "parts" / "a.js").write_text("export default 3;\n")
    with pytest.raises(AssertionError, match="export default"):
        bundle(tmp_path, ["main.js"])


def test_a_text_in_the_data_cannot_end_it():
    page = one_file(WEB, {"text": EVIL, "answers": {}}, title=EVIL)
    held = re.findall(r'id="published">(.*?)</script>', page, re.DOTALL)
    assert len(held) == 1
    assert json.loads(held[0])["text"] == EVIL
    assert "<title>&lt;/script&gt;" in page


def test_long_metrics_are_thinned_and_measurements_stay():
    rows = [{"step": n, "loss": 1.0} | ({"val_loss": 2.0} if n % 500 == 0 else {})
            for n in range(4001)]  # fmt: skip
    kept = thinned(rows)
    assert 800 <= len(kept) <= 1100
    assert [row["step"] for row in kept if "val_loss" in row] == list(range(0, 4001, 500))
    assert thinned(rows[:50]) == rows[:50]
    assert thinned([]) == []
