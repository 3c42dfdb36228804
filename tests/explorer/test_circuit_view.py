"""Circuit: the page searches, and shows what lab/circuit.py found, on a model made by hand."""

import json
import re
from dataclasses import asdict
from itertools import pairwise

import pytest
import torch
from browser import launched
from fastapi.testclient import TestClient
from hand_made import LETTERS, induction_by_hand
from pages import opened, percent, served

from nanogpt.explorer.publish import circuit_of
from nanogpt.explorer.routes import create_app
from nanogpt.explorer.runs import Run
from nanogpt.lab.circuit import Circuit, find_circuit
from nanogpt.model.gpt import GPT
from nanogpt.model.trace import Edit, editing, record

from conftest import tiny

LEAST = 0.03  # thinner paths are not drawn; see wiring.js


def run_of(model: GPT, folder) -> Run:
    """A run whose model is there already."""
    run = Run("hand", str(folder))
    run._opened["only"] = (model, LETTERS)
    return run


@pytest.fixture(scope="module")
def model():
    patch = pytest.MonkeyPatch()
    yield induction_by_hand(patch)
    patch.undo()


@pytest.fixture(scope="module")
def run(model, tmp_path_factory) -> Run:
    return run_of(model, tmp_path_factory.mktemp("hand"))


@pytest.fixture(scope="module")
def circuit(model) -> Circuit:
    *_, found = find_circuit(model, LETTERS)
    return found


def test_every_step_of_the_search_is_a_line(run, model):
    client = TestClient(create_app({"hand": run}), base_url="http://127.0.0.1")
    answer = client.post("/api/runs/hand/circuit", json={"keep": 0.8, "length": 9, "seed": 2})
    lines = [json.loads(line) for line in answer.text.splitlines()]
    *removals, found = find_circuit(model, LETTERS, keep=0.8, length=9, seed=2)
    assert [line["removed"]["left"] for line in lines[:-1]] == [5, 4, 3, 2, 1, 0]
    assert [line["removed"]["head"] for line in lines[:-1]] == [r.head for r in removals]
    assert lines[-1]["circuit"]["heads"] == [list(head) for head in found.heads]
    assert lines[-1]["circuit"]["faithfulness"] == pytest.approx(found.faithfulness)
    assert len(lines[-1]["circuit"]["paths"]) == len(found.paths)


def test_mistakes_are_one_line(run, tmp_path):
    fresh = run_of(GPT(tiny(vocab_size=13, context_length=40)).eval(), tmp_path)
    client = TestClient(create_app({"hand": run, "fresh": fresh}), base_url="http://127.0.0.1")
    answer = client.post("/api/runs/fresh/circuit", json={})
    assert "does not copy repeated tokens" in json.loads(answer.text)["error"]
    answer = client.post("/api/runs/hand/circuit", json={"keep": 7})
    assert "cannot be kept" in json.loads(answer.text)["error"]
    for body in ({"length": 3}, {"seed": -1}, {"keep": "x"}, {"heads": 1}):
        assert client.post("/api/runs/hand/circuit", json=body).status_code == 422


@pytest.fixture(scope="module")
def browser():
    with launched() as browser:
        yield browser


def open_page(browser, address: str, **state):
    return opened(browser, address, **{"view": "circuit", "text": "abcab", **state})


@pytest.fixture(scope="module")
def page(browser, run):
    with served(run) as address:
        page = open_page(browser, address)
        page.wait_for_selector(".reading table")
        yield page
        assert page.wrong == []


def answer_with(**added):
    """A handler that adds to what the server says of the run."""
    return lambda route: route.fulfill(json=route.fetch().json() | added)


def texts(page, place: str) -> list[str]:
    return [text.strip() for text in page.locator(place).all_text_contents()]


def test_the_heads_of_the_circuit_stay_and_its_faithfulness_is_told(page, circuit):
    assert texts(page, ".board .kept") == ["1.2", "0.1"]
    assert texts(page, ".board .gone") == ["1.0", "1.1", "0.0", "0.2"]
    assert page.text_content(".big") == percent(circuit.faithfulness)
    told = page.text_content(".figures")
    assert f"All other heads together: {percent(circuit.rest)}" in told.replace("−", "-")
    assert "No smaller set keeps as much" in told
    right = [circuit.right[name] for name in ("model", "circuit", "none")]
    assert texts(page, ".figures .value") == [percent(share) for share in right]


def test_the_curve_has_every_step_of_the_search(page, circuit):
    shares = [1.0, *(removal.faithfulness for removal in circuit.removals)]
    said = page.get_attribute(".fall svg", "aria-label")
    points = [f"{6 - n}: {percent(share)}" for n, share in enumerate(shares)]
    assert said == f"Faithfulness by number of heads: {', '.join(points)}"
    heights = page.eval_on_selector_all(
        ".fall .dot", "all => all.map((x) => +x.getAttribute('cy'))"
    )
    assert len(heights) == 7
    falls = [a - b for a, b in pairwise(shares)]
    drawn = [b - a for a, b in pairwise(heights)]
    scale = max(drawn) / max(falls)
    assert drawn == pytest.approx([fall * scale for fall in falls], abs=0.01)


def test_every_path_that_matters_is_drawn_as_thick_as_it_is_worth(page, circuit):
    worth = sorted(path.lost for path in circuit.paths if abs(path.lost) >= LEAST)
    wires = page.eval_on_selector_all(
        ".wire", "all => all.map((x) => [+x.getAttribute('stroke-width'), x.ariaLabel])"
    )
    assert len(wires) == len(worth) >= 5
    for (width, said), lost in zip(wires, worth, strict=True):
        assert f"{percent(abs(lost))} is {'gained' if lost < 0 else 'lost'}" in said
        assert width == pytest.approx(max(1.2, 13 * min(1.2, abs(lost))))
    said = [name for _, name in wires]
    assert any("head 0.1 → keys of head 1.2" in name for name in said)
    assert any("tokens → queries of head 1.2" in name for name in said)
    assert any("head 1.2 → next token" in name for name in said)


def test_what_a_head_looks_at_and_what_comes_next_are_what_python_computes(page, circuit, model):
    off = [(0, 0), (0, 2), (1, 0), (1, 1)]
    edits = [Edit(f"h.{layer}.attn.kernel", head, how="mean") for layer, head in off]
    ids = torch.tensor([circuit.ids])
    with torch.no_grad(), editing(model, edits), record(model, "h.*.attn.weights") as seen:
        chances = model(ids)[0].softmax(-1)
    for layer, head in circuit.heads:
        page.click(f".part.head >> nth={layer}")
        for t in (len(circuit.ids) - 2, circuit.length + 3):
            page.hover(f".rows .chip >> nth={t}")
            weights = seen[f"h.{layer}.attn.weights"][0, head, t, : t + 1]
            found = page.eval_on_selector_all(".rows .chip", "all => all.map((x) => x.title)")
            assert found[: t + 1] == [percent(share) for share in weights.tolist()]
            assert not any(found[t + 1 :])
            best = chances[t].topk(3).values.tolist()
            cells = texts(page, ".reading tr >> nth=1 >> td")
            assert [cell.split(" ", 1)[1] for cell in cells] == [percent(p) for p in best]
            assert page.text_content(".reading .halves > :last-child p b") == (
                LETTERS.decode([circuit.ids[t + 1]])
            )


def test_parts_can_be_reached_with_the_keyboard(page):
    page.focus(".part.head >> nth=0")
    page.keyboard.press("Enter")
    assert page.get_attribute(".part.head >> nth=0", "class").endswith("chosen")
    page.focus(".rows .chip >> nth=8")
    assert "now" in page.get_attribute(".rows .chip >> nth=8", "class")


def test_another_share_to_keep_is_another_search(browser, run, model):
    with served(run) as address:
        page = open_page(browser, address, keep=0.99)
        page.wait_for_selector(".reading table")
        assert page.get_by_role("button", name="99 %").get_attribute("aria-pressed") == "true"
        page.get_by_role("button", name="80 %").click()
        page.wait_for_selector(".unsearched", state="attached")
        page.wait_for_selector(".view-circuit:not(.unsearched) .reading table")
        assert "keep=0.8" in page.url
        assert page.wrong == []
        page.close()


def test_a_model_that_does_not_copy_is_told_on_the_page(browser, tmp_path):
    torch.manual_seed(0)
    fresh = run_of(GPT(tiny(vocab_size=13, context_length=40)).eval(), tmp_path)
    with served(fresh) as address:
        page = open_page(browser, address)
        page.wait_for_selector(".view-circuit .note:not(:empty)")
        assert "does not copy repeated tokens" in page.text_content(".view-circuit .note")
        assert page.is_hidden(".paths")
        assert page.is_hidden(".search")
        assert page.is_visible("text=Search again")
        page.close()


def test_a_page_that_is_one_file_has_its_circuit_or_says_why_not(browser, run, model, circuit):
    """With the answer of what `publish` writes into the page, nothing is searched."""
    fresh = GPT(tiny(vocab_size=13, context_length=40)).eval()
    wide = GPT(tiny(vocab_size=13, context_length=40, n_head=12, n_layer=3)).eval()
    assert circuit_of(model, LETTERS) == asdict(circuit)
    assert "does not copy" in circuit_of(fresh, LETTERS)["error"]
    assert re.search(r"heads make them \d\.\d\d nats", circuit_of(fresh, LETTERS)["error"])
    assert "more than 32 heads" in circuit_of(wide, LETTERS)["error"]
    asked = []
    for published in (circuit_of(model, LETTERS), circuit_of(fresh, LETTERS)):
        with served(run) as address:
            page = browser.new_page()
            page.on("request", lambda request: asked.append(request.url))
            page.route("**/api/runs/hand", answer_with(circuit=published))
            page.goto(f"{address}#view=circuit&text=abcab")
            if "error" in published:
                page.wait_for_selector(".view-circuit .note:not(:empty)")
                said = page.text_content(".view-circuit .note")
                assert said == f"No circuit: {published['error']}"
                assert page.is_hidden(".search")
            else:
                page.wait_for_selector(".reading table")
                assert page.text_content(".big") == percent(circuit.faithfulness)
            assert page.is_hidden(".view-circuit .controls")
            page.close()
    assert not [url for url in asked if url.endswith("/circuit")]


def test_a_narrow_page_has_no_line_that_is_too_wide(browser, run):
    with served(run) as address:
        page = browser.new_page(viewport={"width": 400, "height": 800}, color_scheme="dark")
        page.goto(f"{address}#view=circuit&text=abcab")
        page.wait_for_selector(".reading table")
        assert page.evaluate("document.documentElement.scrollWidth") <= 400
        assert page.locator(".wiring").bounding_box()["width"] <= 400
        page.close()
