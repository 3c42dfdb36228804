"""Why, what if, twins, one step, where it read this: walked in Chromium, numbers against Python."""

import json
import time
from urllib.parse import quote

import pytest
import torch
from browser import launched
from pages import served

from nanogpt.config import with_settings
from nanogpt.explorer.passages import find_passages
from nanogpt.explorer.runs import find_runs
from nanogpt.explorer.step import train_on
from nanogpt.model.gpt import evaluating
from nanogpt.model.trace import Edit, editing, record
from nanogpt.text.dataset import data_folder
from nanogpt.text.tokenfiles import open_split
from nanogpt.training.load import load
from nanogpt.training.start import Trainer

from conftest import small_run

TEXT, OTHER = "DUKE:\nIf 7 kings hold", "DUKE:\nIf 9 kings hold"
EFFECTS = """async ([count, asked]) => {
  const { memory } = (await import("./views/whatif.js")).view;
  return memory?.effects?.size === count && memory.asked === asked &&
    Object.fromEntries(memory.effects);
}"""
WORD = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def runs(trained_run):
    """Two runs that differ in their seed, by their names."""
    return {folder.name: folder for folder in (trained_run(), trained_run(seed=7))}


@pytest.fixture(scope="module")
def loaded(runs):
    return load(next(iter(runs.values())))


@pytest.fixture(scope="module")
def ids(loaded):
    return torch.tensor([loaded.tokenizer.encode(TEXT)])


@pytest.fixture(scope="module")
def address(runs):
    """Where the explorer answers."""
    with served(*find_runs(runs.values()).values()) as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    with launched() as browser:
        yield browser


@pytest.fixture
def page(browser):
    """A page on which no error may happen."""
    page, errors = browser.new_page(viewport={"width": 1280, "height": 900}), []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    page.close()
    assert not errors


def open_view(page, address: str, name: str, **state: str) -> None:
    state = {"text": TEXT, **state}
    said = "&".join(f"{key}={quote(value)}" for key, value in state.items())
    page.goto(f"{address}#view={name}&{said}")
    page.evaluate(
        """async () => {
          while (!window.explorer) await new Promise((resolve) => setTimeout(resolve, 10));
          await window.explorer.ready;
        }"""
    )


def wait(page, code: str, *arguments: object):
    """What the code gives in the page, as soon as it is something."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        found = page.evaluate(code, *arguments)
        if found:
            return found
        page.wait_for_timeout(20)
    raise AssertionError(f"this never came: {code}")


def seen_by(model, ids):
    with evaluating(model), record(model) as seen:
        model(ids)
    return seen


def close_to(value, tolerance: float = 1e-3):
    value = value.tolist() if isinstance(value, torch.Tensor) else value
    return pytest.approx(value, abs=tolerance, rel=tolerance)


def test_why_takes_the_rows_of_an_untied_head(page, prepared_once, tmp_path):
    folder = tmp_path / "untied"
    config = with_settings(small_run(prepared_once), model={"head": "untied"})
    list(Trainer.start(folder, config).run())
    model, tokenizer, _ = load(folder)
    ids = torch.tensor([tokenizer.encode(TEXT)])
    logits = seen_by(model, ids)["lm_head"][0, -1]
    with served(*find_runs([folder]).values()) as address:
        open_view(page, address, "why")
        page.get_by_role("button", name="minus the mean of all tokens").click()
        get = """async () => {
          const { found } = (await import("./views/why.js")).view;
          return found?.against === "mean" && found.sum;
        }"""
        assert wait(page, get) == close_to(logits.max() - logits.mean(), 1e-4)


def test_why_adds_up_to_the_models_own_logit_and_the_lens_is_right(page, address, loaded, ids):
    open_view(page, address, "why")
    get = """async () => {
      const { found, ranks } = (await import("./views/why.js")).view;
      return found && ranks && { ...found, ranks };
    }"""
    found = wait(page, get)
    seen = seen_by(loaded.model, ids)
    logits = seen["lm_head"][0, -1]
    target = int(logits.argmax())
    assert found["target"] == target
    assert found["sum"] == close_to(logits[target], 1e-4)
    assert found["asked"] == close_to(logits[target], 1e-4)
    assert page.locator(".waterfall .row").count() == len(found["parts"])
    drawn = page.locator(".waterfall .row", has_text="MLP 1").locator(".value").text_content()
    value = next(p["value"] for p in found["parts"] if p["kind"] == "mlp" and p["layer"] == 1)
    assert float(drawn.replace("−", "-")) == pytest.approx(value, abs=0.006)

    streams = [
        seen["drop"], seen["drop"] + seen["h.0.attn"], seen["h.0"],
        seen["h.0"] + seen["h.1.attn"], seen["h.1"],
    ]  # fmt: skip
    model = loaded.model
    ends = [model.head(model.ln_f(x[0, -1])) for x in streams]
    assert found["ranks"] == [1 + int((x > x[target]).sum()) for x in ends]
    shown = page.locator(".lens tbody tr").first.locator("td:not(.rank, .value)").count()
    assert shown == min(ids.shape[1], 12)  # as many positions as the page is wide

    page.get_by_role("button", name="minus the mean of all tokens").click()
    wait(page, get.replace("return found", "return found?.against === 'mean'"))
    found = page.evaluate(get)
    assert found["sum"] == close_to(logits[target] - logits.mean(), 1e-4)
    page.locator(".waterfall .row", has_text="head 1.1").hover()
    assert "head 1.1" in page.locator(".details h3").inner_text()


def test_why_names_the_comparison_and_says_which_token_was_meant(page, address, loaded):
    get = "async () => (await import('./views/why.js')).view.found"
    rival, word = loaded.tokenizer.encode("a")[0], "zqx"
    open_view(page, address, "why", against=str(rival))
    largest = max(wait(page, get)["parts"], key=lambda part: abs(part["value"]))
    opened = page.locator(".details h3").inner_text().replace("−", "-")
    assert float(opened.split()[-1]) == pytest.approx(largest["value"], abs=0.006)
    page.get_by_label("Another token to explain").fill(word)
    page.get_by_label("Another token to explain").press("Enter")
    wait(page, "() => document.querySelector('.why [role=status]').textContent")
    pieces = loaded.tokenizer.encode(word)
    assert f"{word} is {len(pieces)} tokens" in page.locator(".why [role=status]").inner_text()
    page.get_by_label("Another token to explain").fill("z")
    page.get_by_label("Another token to explain").press("Enter")
    (target,) = loaded.tokenizer.encode("z")
    wait(page, get.replace("(await", f"((f) => f.target === {target})((await") + ")")
    lit = page.get_by_role("group", name="What to add up").locator("[aria-pressed=true]")
    assert lit.inner_text() == "z minus a"
    assert page.evaluate(get)["against"] == rival
    page.locator(".waterfall .row", has_text="MLP 1").hover()
    page.get_by_role("button", name="What if MLP 1 were zero?").click()
    edits = wait(page, "() => explorer.app.state.edits.length && explorer.app.state.edits")
    assert edits == [{"at": "h.1.mlp", "head": None, "positions": None, "how": "zero"}]


def test_a_switched_off_head_changes_the_page_as_it_changes_the_model(page, address, loaded, ids):
    open_view(page, address, "whatif")
    count = loaded.model.config.n_layer * (loaded.model.config.n_head + 2) + ids.shape[1]
    effects = wait(page, EFFECTS, [count, "zero all"])
    model = loaded.model
    with evaluating(model):
        before = model(ids)[0].log_softmax(-1)
        target = int(before[-1].argmax())
        for key, effect in effects.items():
            at, n = key.split("/")
            edit = Edit(at, int(n) if n else None)
            if at == "drop":  # of one token
                edit = Edit(at, positions=[int(n)])
            with editing(model, [edit]):
                after = model(ids)[0].log_softmax(-1)
            assert effect == close_to(after[-1, target] - before[-1, target])
        with editing(model, [Edit("h.1.attn.kernel", head=0)]):
            after = model(ids)[0].log_softmax(-1)
    page.get_by_role("button", name="head 1.0", exact=True).click()
    wait(page, "() => explorer.app.state.edits.length === 1 && explorer.app.result")
    assert "edits" in page.url
    shifts = wait(
        page, "async () => { const { shifts } = (await import('./views/whatif.js')).view;"
        " return shifts.some(Boolean) && shifts; }",
    )  # fmt: skip
    assert shifts == close_to((before.exp() * (before - after)).sum(-1), 1e-4)
    button = page.get_by_role("button", name="head 1.0", exact=True)
    assert button.get_attribute("aria-pressed") == "true"
    button.click()
    wait(page, "() => explorer.app.state.edits.length === 0")
    page.get_by_role("button", name="chosen token").click()
    page.get_by_role("button", name="average").click()
    effects = wait(page, EFFECTS, [count, "mean token"])
    with evaluating(model):
        for key in ("h.0.attn.kernel/1", "h.1.mlp/"):
            at, n = key.split("/")
            edit = Edit(at, int(n) if n else None, positions=[ids.shape[1] - 1], how="mean")
            with editing(model, [edit]):
                after = model(ids)[0].log_softmax(-1)
            assert effects[key] == close_to(after[-1, target] - before[-1, target])


def test_a_map_that_is_interrupted_goes_on_where_it_was(page, address):
    """Whatever tells the view anew, such as a click, ends the measuring that goes on."""
    open_view(page, address, "whatif")
    found = page.evaluate(
        """async (other) => {
          const { view } = await import("./views/whatif.js");
          const { app } = explorer;
          app.set({ other });
          const map = () => view.memory?.map;
          while (!map()?.values?.length) await new Promise((then) => setTimeout(then));
          const first = map();
          const early = first.values.includes(-Infinity);
          await app.tell(new Set(["theme"]));
          const whole = !map().values.includes(-Infinity);
          return { early, same: map() === first, done: map().done, whole };
        }""",
        OTHER,
    )
    assert found == {"early": True, "same": True, "done": True, "whole": True}


def test_the_map_of_patching_effects_is_that_of_the_model(page, address, loaded, ids):
    open_view(page, address, "whatif", other=OTHER)
    found = wait(
        page,
        """async () => {
          const { map } = (await import("./views/whatif.js")).view.memory ?? {};
          if (!map?.values) return null;
          if (!map.done) return null;
          return { ...map, values: Array.from(map.values) };
        }""",
    )
    model, other = loaded.model, torch.tensor([loaded.tokenizer.encode(OTHER)])
    assert other.shape == ids.shape
    assert found["done"]
    first = int((ids != other)[0].nonzero()[0])
    assert found["columns"] == ids.shape[1] - first

    def lead(logits):
        return logits[0, -1, found["right"]] - logits[0, -1, found["wrong"]]

    with evaluating(model):
        low, high = lead(model(other)), lead(model(ids))
        for n, value in enumerate(found["values"]):
            at = ["drop", "h.0", "h.1"][n // found["columns"]]
            position = first + n % found["columns"]
            with editing(model, [Edit(at, positions=[position], how="swap")], ids):
                expected = (lead(model(other)) - low) / (high - low)
            assert value == close_to(expected, 0.02), (at, position)
    page.locator(".patching canvas").click(position={"x": 5, "y": 5})
    edits = wait(page, "() => explorer.app.state.edits.length && explorer.app.state.edits")
    assert edits == [{"at": "drop", "head": None, "positions": [first], "how": "swap"}]


def test_a_suggested_text_leads_to_another_token(page, address, loaded, ids):
    open_view(page, address, "whatif")
    suggest = page.get_by_role("button", name="Suggest one")
    suggest.click()  # whatever this small model reads, it goes on with the same token
    wait(page, "() => document.querySelector('#notice').textContent.includes('No such copy')")
    page.evaluate(
        """async () => { // from here on it repeats the token before the last
          const { engine } = explorer.app;
          const forward = engine.forward.bind(engine);
          engine.forward = async (ids, how) => {
            const result = await forward(ids, how);
            const width = result.logits.shape[1];
            ids.slice(0, -1).forEach((id, t) => (result.logits.data[(t + 1) * width + id] += 9));
            return result;
          };
          await explorer.app.read();
        }"""
    )
    page.get_by_label("The second text").fill("x")
    suggest.click()
    wait(page, "() => explorer.app.state.other.length > 1")
    other = page.get_by_label("The second text").input_value()
    assert "\n" in other  # as in the first text
    changed = loaded.tokenizer.encode(other)
    differ = [t for t, id_ in enumerate(ids[0].tolist()) if changed[t] != id_]
    assert len(changed) == ids.shape[1]
    assert differ == [ids.shape[1] - 2]


def test_a_text_that_looks_like_markup_stays_text(page, address):
    open_view(page, address, "whatif", other=WORD)
    wait(page, "() => document.querySelector('.second .strip').textContent.length")
    assert page.locator("main img").count() == 0
    open_view(page, address, "source", text=f"DUKE {WORD}"[:16])
    wait(page, "() => document.querySelector('.view-source .panel').textContent.length")
    assert page.locator("main img").count() == 0


def test_twins_read_the_same_text_and_point_at_the_same_token(page, address, runs, ids):
    open_view(page, address, "twins", layer="1")
    both = wait(
        page,
        """async () => {
          const { both } = (await import("./views/twins.js")).view;
          return both?.map(({ run, surprisal, weights }) =>
            ({ run, surprisal, weights: Array.from(weights) }));
        }""",
    )
    assert [side["run"] for side in both] == list(runs)
    for side in both:
        seen = seen_by(load(runs[side["run"]]).model, ids)
        losses = torch.nn.functional.cross_entropy(
            seen["lm_head"][0, :-1], ids[0, 1:], reduction="none"
        )
        assert side["surprisal"][1:] == close_to(losses, 1e-4)
        assert side["weights"] == close_to(seen["h.1.attn.weights"][0, 0].flatten(), 1e-5)
    page.locator(".side-1 .strip .chip").nth(3).hover()
    for side in (".side-0", ".side-1"):
        chips = page.locator(f"{side} .strip .chip")
        pointed = [
            n for n in range(chips.count()) if "pointed" in chips.nth(n).get_attribute("class")
        ]
        assert pointed == [3]


def test_steps_are_taken_and_taken_back(page, address, loaded, ids):
    open_view(page, address, "step")
    get = "async () => (await import('./views/step.js')).view.done"
    wait(page, get)
    assert page.get_by_role("button", name="Undo").is_disabled()
    assert "No step is taken" in page.locator(".view-step .lead").inner_text()
    page.get_by_role("button", name="Take a step").click()
    page.get_by_role("button", name="One more step").click()
    done = wait(page, get.replace("(await", "((d) => d?.losses.length === 3 && d)((await") + ")")
    expected = train_on(loaded.model, loaded.config, ids[0].tolist(), 1e-3, 2)
    assert done["losses"] == close_to(expected.losses, 1e-5)
    assert done["norms"][0] == close_to(expected.norms[0], 1e-4)
    assert page.locator(".gradients .bars li").count() == len(expected.norms[0])
    wait(
        page,
        "() => [...document.querySelectorAll('.name')].some((n) => n.textContent === 'step 2')",
    )
    page.get_by_role("button", name="Undo").click()
    wait(
        page,
        """() => explorer.app.state.steps === 1 &&
          ![...document.querySelectorAll(".name")].some((n) => n.textContent === "step 2")""",
    )


def test_the_passages_are_shown_where_the_text_ends(page, address, loaded):
    open_view(page, address, "source")
    answer = wait(page, "async () => (await import('./views/source.js')).view.answer")
    assert answer["endings"][0]["length"] == answer["passages"][0]["length"]
    shown = page.locator(".passages li").first
    first = answer["passages"][0]
    assert shown.locator(".badge").inner_text() == str(first["length"])
    assert TEXT.endswith(first["match"])
    assert shown.locator(".followed").inner_text().strip() == first["next"]["text"].strip()
    page.get_by_role("group", name="Tokens that have to match").get_by_text("1", exact=True).click()
    wait(page, "() => explorer.app.state.ending === 1")
    assert page.locator(".passages li").count() == len(answer["passages"])
    count = answer["endings"][-1]["count"]
    assert f"{count:,} times" in page.locator(".view-source .columns h3").first.inner_text()


def test_every_token_has_the_longest_run_that_ends_there(page, address, runs, loaded, ids):
    text = open_split(
        data_folder(next(iter(runs.values())), loaded.config), "train", loaded.tokenizer
    ).ids
    expected = [find_passages(text, ids[0, : t + 1].tolist()).endings for t in range(ids.shape[1])]
    expected = [(e[0].length, e[0].count) if e else (0, 0) for e in expected]
    open_view(page, address, "source")
    found = wait(
        page,
        """async (n) => {
          const { runs } = (await import("./views/source.js")).view;
          return runs?.length === n && runs.map(({ length, count }) => [length, count]);
        }""",
        len(expected),
    )
    assert [tuple(run) for run in found] == expected
    length, count = max(expected, key=lambda run: run[0])
    times = "once" if count == 1 else f"{count:,} times"
    said = page.locator(".view-source .lead").first.inner_text()
    assert said.endswith(f" {length} tokens, {times} in the training text.")


def test_only_passages_that_match_as_much_as_asked_are_listed(page, address):
    open_view(page, address, "source")
    answer = wait(page, "async () => (await import('./views/source.js')).view.answer")
    longest = answer["endings"][0]["length"]
    enough = [p for p in answer["passages"] if p["length"] == longest]
    assert 0 < len(enough) < len(answer["passages"])
    assert page.locator(".passages li").count() == len(enough)
    page.evaluate("() => explorer.app.set({ text: '' })")
    wait(page, "() => document.querySelector('.view-source').hidden")
    assert page.locator(".passages").is_hidden()


def test_without_python_the_page_says_what_it_needs(page, address):
    for name in ("step", "source"):
        open_view(page, address, name)
        page.evaluate(
            """() => {
              const { app } = explorer;
              Object.defineProperty(app.engine, "python", { value: null, configurable: true });
              return app.set({ text: "DUKE:" });
            }"""
        )
        wait(page, "() => document.querySelector('main').textContent.includes('nanogpt explore')")


@pytest.mark.parametrize("name", ["why", "whatif", "twins", "step", "source"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_view_fits_a_phone(browser, address, name, theme):
    page = browser.new_page(viewport={"width": 400, "height": 800}, color_scheme=theme)
    edits = [{"at": "h.0", "head": None, "positions": [3], "how": "swap"}]
    open_view(page, address, name, other=OTHER, edits=json.dumps(edits))
    wait(page, "() => document.querySelector('main .panel, main .lead').textContent.length")
    page.wait_for_timeout(100)
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll("main button, main input, main select")]
          .filter((x) => !x.textContent.trim() && !x.getAttribute("aria-label")).length"""
    )
    assert unnamed == 0
    page.close()
