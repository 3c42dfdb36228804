"""The page in a browser: what it draws equals what Python computes.

One browser and one server serve all tests; each opens the page anew. The page's data is read
through `window.explorer.app`.
"""

import base64
import json
import math
import time
import urllib.request
from urllib.parse import quote

import pytest
import torch
from browser import launched
from matplotlib.image import imread
from pages import served
from safetensors.torch import save

from nanogpt.config import SampleConfig
from nanogpt.explorer.places import PACKAGE
from nanogpt.explorer.remote import merges_of, tokenize
from nanogpt.explorer.routes import WEB
from nanogpt.explorer.runs import find_runs, shape_of
from nanogpt.generation.sampling import Sampler, penalize_repeats
from nanogpt.model.gpt import GPT
from nanogpt.model.trace import record
from nanogpt.training.load import load

from conftest import tiny

TEXT = "DUKE:\nIf 3 kings"
SAME = 1e-4  # observed: 1e-6


@pytest.fixture(scope="module")
def run(trained_run):
    return trained_run(snapshots=3)


@pytest.fixture(scope="module")
def loaded(run):
    return load(run)


@pytest.fixture(scope="module")
def address(run):
    """Where the page is served."""
    with served(*find_runs([run]).values()) as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    with launched() as browser:
        yield browser


class Visit:
    """The page, opened at a state; `problems` holds the errors that it reported."""

    def __init__(self, browser, address, width=1280):
        self.address, self.problems, self.requests = address, [], []
        self.page = browser.new_page(viewport={"width": width, "height": 900})
        self.page.set_default_timeout(20_000)
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("console", lambda m: m.type == "error" and self.problems.append(m.text))
        self.page.on("request", lambda request: self.requests.append(request.url))

    def open(self, **state):
        state = {"text": TEXT, **state}
        said = "&".join(f"{name}={quote(str(value))}" for name, value in state.items())
        self.page.goto("about:blank")
        self.page.goto(f"{self.address}#{said}")
        self.page.evaluate("async () => { await window.explorer.ready; }")
        self.until("app.result && app.shown")
        return self.page

    def until(self, condition):
        """Wait until something is so. The page's policy forbids Playwright's own way to wait."""
        end = time.monotonic() + 20
        while not self.page.evaluate(f"() => {{ {APP} return Boolean({condition}); }}"):
            assert time.monotonic() < end, f"never: {condition}"
            time.sleep(0.02)

    def data(self, expression):
        """A value of the page, where `app` is the app and `view` the view that is shown."""
        return self.page.evaluate(f"async () => {{ {APP} return {expression}; }}")


APP = "const app = window.explorer.app; const view = app?.shown?.rendered;"


@pytest.fixture
def visit(browser, address):
    visit = Visit(browser, address)
    yield visit
    visit.page.close()
    assert not visit.problems


def computed(loaded, text=TEXT):
    """Ids, logits (T, V) and activations of a text, in Python."""
    ids = loaded.tokenizer.encode(text)
    with torch.no_grad(), record(loaded.model) as seen:
        logits = loaded.model(torch.tensor([ids]))[0]
    return ids, logits, {name: x[0] for name, x in seen.items()}


def close(found, expected, tolerance=SAME):
    found, expected = torch.tensor(found).flatten(), torch.as_tensor(expected).flatten()
    return found.shape == expected.shape and (found - expected).abs().max() < tolerance


def test_typing_reads_the_text_anew(visit, loaded):
    page = visit.open(text="DUKE")
    for text in ("DUKE:\nIf 31 kings", "FOOL:\nwill pay"):
        page.fill("#text", text)
        ids, logits, _ = computed(loaded, text)
        visit.until(f"String(app.result?.ids) === '{','.join(map(str, ids))}'")
        assert close(visit.data("[...app.result.logits.data]"), logits)
        chips = page.locator("#tokens .chip").all_text_contents()
        shown = "".join(chips).replace("·", " ").replace("↵", "\n")
        assert shown == text


def test_tokens_are_those_of_python_with_their_merges(visit, loaded):
    visit.open()
    expected = tokenize(loaded.tokenizer, TEXT + " hold the crown, naïve 🙂")
    found = visit.data(f"await app.engine.tokenize({(TEXT + ' hold the crown, naïve 🙂')!r})")
    assert found == expected


def test_the_merges_of_a_word_stand_in_their_order(visit, loaded):
    page = visit.open(text="3 kings", token=1)
    tokenizer = loaded.tokenizer
    found = {(*m,) for i in tokenizer.encode(" kings") for m in merges_of(tokenizer, i)}
    expected = sorted(found, key=lambda merge: merge[2])
    assert expected
    name = {i: data.decode("utf-8", "replace") for i, data in tokenizer.vocabulary.items()}
    shown = [line.replace("·", " ") for line in page.locator(".merges li").all_text_contents()]
    assert shown[:-1] == [
        f"{name[left]} + {name[right]} → {name[made]} merge {made - 255}"
        for left, right, made in expected
    ]


def test_the_likeliest_tokens_have_pythons_probabilities(visit, loaded):
    page = visit.open()
    _, logits, _ = computed(loaded)
    weights = logits[-1].double().softmax(-1)
    visit.until("document.querySelectorAll('.next .bar').length === 10")
    shown = [bar.split()[-2] for bar in page.locator(".next .bar").all_inner_texts()]
    for text, expected in zip(shown, weights.sort(descending=True).values[:10], strict=True):
        assert float(text) == pytest.approx(100 * expected.item(), abs=0.051)


def test_a_number_is_explained_down_to_the_line_of_the_package(visit, loaded):
    page = visit.open(token=3)
    _, _, seen = computed(loaded)
    visit.until("view.strips.has('h.1.attn.kernel')")
    for part, place in (("h.1.attn.kernel", (1, 3, 2)), ("h.0.ln_2", (3, 5)), ("h.1.mlp", (3, 9))):
        canvas = page.locator(f"canvas[data-part='{part}']")
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        rows = len(seen[part]) if seen[part].ndim == 3 else 1
        columns = seen[part].shape[-1]
        x = box["width"] * (place[-1] + 0.5) / columns
        y = box["height"] * ((place[0] if rows > 1 else 0) + 0.5) / rows
        canvas.click(position={"x": x, "y": y})
        name = f"{part}[{', '.join(map(str, place))}]"
        visit.until(f"view.explained?.name === '{name}'")
        assert visit.data("view.explained.recorded") == pytest.approx(
            seen[part][place].item(), abs=SAME
        )
        assert abs(visit.data("view.explained.value - view.explained.recorded")) < SAME
        visit.until(f"document.querySelector('.cell .name').textContent === '{name}'")
        meant = page.locator(".cell .source .meant").text_content()
        file, line = page.locator(".cell figcaption").inner_text().split()[0].split(":")
        assert meant.strip().partition(" ")[2].strip() == (
            (PACKAGE.parent / file).read_text().split("\n")[int(line) - 1].strip()
        )


VARIANTS = [
    {}, {"position": "rope", "qk_norm": True, "n_kv_head": 1}, {"position": "sinusoidal"},
    {"position": "alibi", "window": 3}, {"position": "none", "bias": False},
    {"mlp": "swiglu", "norm": "rms"}, {"mlp": "relu2", "norm": "none"}, {"block": "post-norm"},
    {"block": "post-norm", "norm": "none"}, {"block": "no-residual"},
    {"attention": "short-conv"}, {"attention": "short-conv", "window": 3}, {"head": "untied"},
]  # fmt: skip

EXPLAIN = """async ([config, file, ids]) => {
  const { LocalEngine } = await import("/engine/local.js");
  const { Arithmetic, parts, recorded } = await import("/arithmetic.js");
  const bytes = Uint8Array.from(atob(file), (c) => c.charCodeAt(0));
  const characters = Array.from({ length: 61 }, (_, i) => String.fromCharCode(65 + i));
  const tokenizer = { type: "char", special_tokens: [], characters };
  const engine = new LocalEngine({ config }, tokenizer, async () => bytes.buffer);
  const list = parts(config);
  const result = { ...(await engine.forward(ids, { record: recorded(list) })), ids };
  const errors = {};
  for (const t of [0, ids.length - 1]) {
    const arithmetic = new Arithmetic(engine, result, t);
    for (const { id } of list) {
      const { data } = arithmetic.numbers(id);
      for (let cell = 0; cell < data.length; cell += 7) {
        if (data[cell] === -Infinity) continue; // the future
        const { value, recorded } = await arithmetic.explain(id, cell);
        const size = Math.max(1, Math.abs(recorded));
        errors[id] = Math.max(errors[id] ?? 0, Math.abs(value - recorded) / size);
      }
    }
  }
  return errors;
}"""


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_the_arithmetic_of_every_variant_gives_the_models_numbers(visit, changes):
    torch.manual_seed(1)
    model = GPT(tiny(**{"n_head": 2, "n_embd": 12, **changes})).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    file = base64.b64encode(save(model.state_dict())).decode()
    page = visit.open()
    errors = page.evaluate(EXPLAIN, [shape_of(model.config), file, [3, 1, 4, 1, 5, 9]])
    assert len(errors) > 20 or changes.get("norm") == "none"
    assert {name: error for name, error in errors.items() if not error < SAME} == {}
    assert {part.split(".")[0] for part in errors} >= {"wte", "drop", "h", "lm_head", "softmax"}


def share(weights, ids, aim):
    """The mean weight on the place that a habit means, over the tokens that have one."""
    found = [weights[t, aim(t)].item() for t in range(len(ids)) if aim(t) is not None]
    return sum(found) / len(found)


def test_heads_are_sorted_by_what_they_do_in_this_text(visit, loaded):
    text = "hold the hold the hold"
    page = visit.open(view="attention", text=text, sort="induction")
    ids, _, seen = computed(loaded, text)

    def induction(t):
        earlier = [s for s in range(t) if ids[s] == ids[t]]
        return earlier[-1] + 1 if earlier and earlier[-1] + 1 < t else None

    aims = {
        "previous": lambda t: t - 1 if t else None,
        "first": lambda t: 0 if t else None,
        "self": lambda t: t,
        "induction": induction,
    }
    visit.until("view.heads.length === 4 && document.querySelectorAll('.head-button').length === 4")
    found = visit.data("view.heads.map(({layer, head, scores}) => [layer, head, scores])")
    for layer, head, scores in found:
        for habit, aim in aims.items():
            expected = share(seen[f"h.{layer}.attn.weights"][head], ids, aim)
            assert scores[habit] == pytest.approx(expected, abs=SAME), habit
    buttons = page.locator(".head-button").all()
    order = [button.get_attribute("data-head") for button in buttons]
    best = sorted(found, key=lambda each: -each[2]["induction"])
    assert order == [f"{layer}.{head}" for layer, head, _ in best]


def test_sorting_opens_the_first_head_and_names_what_a_text_cannot_show(visit):
    page = visit.open(view="attention", text="If kings", layer=0, head=0)
    visit.until("document.querySelectorAll('.head-button').length === 4")
    assert "no token has repeated yet" in page.locator(".says").inner_text()
    for habit in ("first", "previous"):
        page.locator(".segments").get_by_text(habit, exact=True).click()
        visit.until(f"app.state.sort === '{habit}'")
        best = "Math.max(...view.heads.map((head) => head.scores[app.state.sort]))"
        chosen = "view.heads.find((x) => x.layer === app.state.layer && x.head === app.state.head)"
        visit.until(f"{chosen}.scores[app.state.sort] === {best}")
        first = page.locator(".head-button").first
        assert first.get_attribute("aria-selected") == "true"
    assert page.locator(".labelled .rows span").all_inner_texts() == (
        page.locator("#tokens .chip").all_inner_texts()
    )


def test_a_hovered_token_shows_what_it_looks_at(visit, loaded):
    page = visit.open(view="attention", layer=1, head=1)
    ids, _, seen = computed(loaded)
    visit.until("view.square")
    assert close(visit.data("[...view.weights]"), seen["h.1.attn.weights"][1])
    page.locator(".map canvas.pixels").scroll_into_view_if_needed()
    box = page.locator(".map canvas.pixels").bounding_box()
    row, column, T = 5, 2, len(ids)
    page.mouse.move(box["x"] + box["width"] * (column + 0.5) / T,
                    box["y"] + box["height"] * (row + 0.5) / T)  # fmt: skip
    said = page.locator(".arithmetic").inner_text()
    weight = 100 * seen["h.1.attn.weights"][1, row, column].item()
    assert float(said.split("weight ")[1].split()[0]) == pytest.approx(weight, abs=0.051)
    score = seen["h.1.attn.scores"][1, row, column].item()
    shown = float(said.split("score ")[1].split(",")[0].replace("−", "-"))
    assert shown == pytest.approx(score, rel=0.1, abs=6e-4)
    assert page.locator(".looks .from").get_attribute("data-t") == str(row)


def test_scores_mask_and_softmax_are_layers_that_can_be_switched(visit, loaded):
    page = visit.open(view="attention", layer=0, head=1)
    ids, _, seen = computed(loaded)
    scores = seen["h.0.attn.scores"][1]
    page.get_by_role("button", name="Scores").click()
    visit.until("app.state.shows === 'scores'")
    assert close(visit.data("[...view.square]"), scores)
    page.get_by_role("button", name="+ mask").click()
    visit.until("app.state.shows === 'masked' && view.square[1] === -Infinity")
    visible = torch.ones(len(ids), len(ids)).tril().bool()
    shown = torch.tensor(visit.data("[...view.square]")).view_as(scores)
    assert (shown[~visible] == -math.inf).all()
    assert close(shown[visible].tolist(), scores[visible])


SETTINGS = [
    {"temperature": 1.5, "top_k": 20, "top_p": 0.6, "min_p": 0.05, "repetition_penalty": 1.3},
    {"temperature": 0.35, "top_k": 0, "top_p": 0.9},
    {"temperature": 0, "top_k": 5},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_sliders_move_the_bars_as_sampling_does(visit, loaded, settings):
    page = visit.open(view="choosing")
    ids, logits, _ = computed(loaded)
    visit.until("view.chances")
    titles = {
        "temperature": "Temperature", "top_k": "Top-k (0: all)", "top_p": "Top-p",
        "min_p": "Min-p", "repetition_penalty": "Repetition penalty",
    }  # fmt: skip
    for name, value in settings.items():
        page.get_by_role("slider", name=titles[name]).fill(str(value))
        visit.until(f"app.state.{name} === {value}")
    config = SampleConfig(**settings)
    chosen = logits[-1:]
    if config.repetition_penalty != 1:
        seen = torch.zeros_like(chosen, dtype=torch.bool)
        seen[0, ids] = True
        chosen = penalize_repeats(chosen, seen, config.repetition_penalty)
    expected = torch.zeros_like(chosen[0])
    if config.temperature:
        expected = Sampler(config, 1).filter(chosen)[0].softmax(-1)
    else:
        expected[chosen.argmax()] = 1
    time.sleep(0.2)
    assert close(visit.data("[...view.chances.after]"), expected)
    assert close(visit.data("[...view.chances.before]"), logits[-1].softmax(-1))
    kept = visit.data("[...view.chances.after].filter((p) => p > 0).length")
    assert kept == (expected > 0).sum().item()


def test_one_button_gives_the_models_own_probabilities(visit, loaded):
    page = visit.open(view="choosing", top_k=3, temperature=0.5, repetition_penalty=1.5)
    visit.until("view.chances?.kept.top_k === 3")
    page.get_by_role("button", name="The model's own probabilities").click()
    _, logits, _ = computed(loaded)
    visit.until(f"view.chances.kept.top_k === {logits.shape[-1]}")
    assert close(visit.data("[...view.chances.after]"), logits[-1].softmax(-1))


def test_a_clicked_bar_grows_a_tree_whose_surprisal_is_pythons(visit, loaded):
    page = visit.open(view="choosing")
    ids, logits, _ = computed(loaded)
    path, bits = [], 0.0
    for n, place in enumerate((2, 0)):
        order = logits[-1].sort(descending=True, stable=True).indices
        choice = page.locator(".choice").nth(place)
        token = int(choice.get_attribute("data-id"))
        assert token == order[place]
        choice.click()
        bits -= math.log2(logits[-1].softmax(-1)[token].item())
        path.append(token)
        visit.until(
            f"app.state.path.length === {n + 1} && view.logits.has('{' '.join(map(str, path))}')"
        )
        with torch.no_grad():
            logits = loaded.model(torch.tensor([[*ids, *path]]))[0]
        assert close(visit.data(f"[...view.logits.get('{' '.join(map(str, path))}')]"), logits[-1])
        time.sleep(0.1)
    assert sum(visit.data("view.surprisals(app.state.path)")) == pytest.approx(bits, abs=1e-3)
    page.locator(f"g.node[data-path='{path[0]}']").click()
    visit.until("app.state.path.length === 1")
    assert visit.data("app.state.tree") == [path]
    page.get_by_role("button", name="Write on").click()
    visit.until("app.state.path.length === 9")
    assert page.locator("g.node.chosen").count() == 1


def test_the_engine_in_python_gives_what_the_pages_engine_gives(visit):
    visit.open()
    error, ids, same = visit.page.evaluate("""async () => {
      const { RemoteEngine } = await import("/engine/remote.js");
      const { app } = window.explorer;
      const remote = await (await RemoteEngine.open(app.engine.info.name)).load();
      const [text, request] = [app.state.text, { record: ["h.*"], edits: [
        { at: "h.0.attn.kernel", head: 1, positions: [1, 2], how: "mean" }] }];
      const ids = (await remote.tokenize(text)).map((token) => token.id);
      const [mine, theirs] = [await app.engine.forward(ids, request),
        await remote.forward(ids, request)];
      let error = 0;
      for (const [name, x] of Object.entries({ ...mine.activations, logits: mine.logits })) {
        const { shape, data } = name === "logits" ? theirs.logits : theirs.activations[name];
        if (String(shape) !== String(x.shape)) throw new Error(name);
        x.data.forEach((value, i) => (error = Math.max(error, Math.abs(value - data[i]))));
      }
      const written = async (engine) => {
        const list = [];
        for await (const { id } of engine.generate(ids, { temperature: 0, max_new_tokens: 12 })) {
          list.push(id);
        }
        return list;
      };
      const [a, b] = [await written(app.engine), await written(remote)];
      return [error, a, String(a) === String(b) && String(remote.token(65).bytes) ===
        String(app.engine.token(65).bytes)];
    }""")
    assert error < SAME
    assert len(ids) == 12
    assert same


def test_the_address_holds_the_state_and_back_goes_back(visit):
    page = visit.open(view="attention", layer=1, head=1, token=2, shows="scores")
    assert visit.data("[app.state.layer, app.state.head, app.token, app.state.shows]") == [
        1, 1, 2, "scores",
    ]  # fmt: skip
    page.get_by_role("tab", name="Choosing").click()
    visit.until("app.shown.view.id === 'choosing'")
    page.fill("#text", "FOOL: & = # %")
    visit.until("app.state.text === 'FOOL: & = # %'")
    other = page.evaluate("location.hash")
    page.go_back()
    visit.until("app.shown.view.id === 'attention'")
    again = visit.page
    again.goto("about:blank")
    again.goto(f"{visit.address}{other}")
    again.evaluate("async () => { await window.explorer.ready; }")
    assert again.input_value("#text") == "FOOL: & = # %"


def test_weights_of_another_step_are_named_on_every_view(visit):
    page = visit.open(view="attention", step=0)
    untrained = visit.data("[...app.result.logits.data]")
    page.get_by_role("tab", name="Choosing").click()
    visit.until("app.shown.view.id === 'choosing' && app.result")
    assert page.locator("#step").inner_text() == "weights of step 0 ×"
    page.locator("#step").click()
    visit.until("app.state.step === null && app.result")
    assert not page.locator("#step").is_visible()
    visit.until(f"app.result.logits.data[0] !== {untrained[0]}")


@pytest.mark.parametrize("hash_", [
    "token=99&layer=99&head=-1", "view=nothing&run=nobody&step=9999999", "edits=[{}]", "edits={",
    "path=[1e9]&tree=[[3],5]&view=choosing", "part=h.9.mlp&cell=1e9", "layer=null&head=%22a%22",
    "part=softmax&cell=-5", "token=-3&view=attention", "cell=0.5&part=wte", "__proto__=1&text=",
    "edits=[null]", "layer=-1&head=0.5&view=attention", "token=%22a%22", "token=1.5",
    "edits=[{%22at%22:%22h.0.mlp%22,%22positions%22:%22a%22}]",
])  # fmt: skip
def test_an_address_that_says_nonsense_still_shows_the_page(browser, address, hash_):
    visit = Visit(browser, address)
    visit.page.goto(f"{address}#{hash_}")
    visit.page.evaluate("async () => { await window.explorer.ready; }")
    visit.page.fill("#text", "kings")
    time.sleep(0.3)
    assert visit.page.locator("#tokens .chip").count() > 0 or (
        visit.page.locator("#notice").inner_text()
    )
    assert "Cannot" not in visit.page.locator("#notice").inner_text()
    assert not [p for p in visit.problems if "400" not in p and "404" not in p]
    visit.page.close()


def test_changes_that_do_not_fit_are_left_out_and_can_be_undone(visit, loaded):
    """A shorter text, or a model of fewer layers: the page goes on without them."""
    here = {"at": "h.0.attn.kernel", "head": 0, "positions": None, "how": "zero"}
    edits = [here, {**here, "positions": [40]}, {**here, "at": "h.7.mlp", "head": None}]
    edits.append({**here, "how": "swap"})  # without a second text
    page = visit.open(edits=json.dumps(edits))
    assert visit.data("app.edits") == [here]
    assert "left out here: position 40 at h.0.attn.kernel: use 0 to" in page.inner_text("#notice")
    changed = visit.data("[...app.result.logits.data]")
    page.get_by_text("4 changes ×").click()
    visit.until("!app.edits.length")
    _, logits, _ = computed(loaded)
    assert close(visit.data("[...app.result.logits.data]"), logits)
    assert not close(changed, logits)
    assert not page.locator("#edits").is_visible()
    assert page.inner_text("#notice") == ""


def test_a_number_that_was_changed_is_not_called_the_models(visit):
    edit = {"at": "h.0.attn.kernel", "head": 0, "positions": None, "how": "zero"}
    page = visit.open(edits=json.dumps([edit]), part="h.0.attn.kernel", cell=1)
    visit.until("view.explained")
    assert "The model has 0.0000 here. It was changed in What if" in page.inner_text(".check")


def test_a_path_longer_than_the_context_is_read_in_parts(visit, loaded):
    length = loaded.config.model.context_length
    path = [n % loaded.tokenizer.vocab_size for n in range(5, 5 + length + 3)]
    page = visit.open(view="choosing", text="kings", path=path, tree=[path])
    visit.until(f"view.logits.size > {len(path)}")
    visit.until("view.chances")
    with torch.no_grad():
        logits = loaded.model(torch.tensor([path[-length:]]))[0, -1]
    assert close(visit.data(f"[...view.logits.get('{' '.join(map(str, path))}')]"), logits)
    assert page.locator(".choice").count()


def test_put_into_the_text_keeps_what_the_model_no_longer_sees(visit, loaded):
    text = TEXT * 6
    assert len(loaded.tokenizer.encode(text)) > loaded.config.model.context_length
    page = visit.open(view="choosing", text=text)
    page.locator(".choice").first.click()
    visit.until("app.state.path.length === 1")
    page.get_by_role("button", name="Put into the text").click()
    visit.until("!app.state.path.length")
    assert page.input_value("#text").startswith(text)
    assert page.input_value("#text") != text


def test_a_text_is_never_markup(visit):
    evil = "<img src=x onerror=alert(1)>"
    page = visit.open(text=evil)
    for name in ("Attention", "Choosing", "Text to next token"):
        page.get_by_role("tab", name=name).click()
        time.sleep(0.2)
        assert page.locator("#tokens img, #place img, #place script").count() == 0
    page.fill("#text", "<img src=x>")
    visit.until("app.state.text === '<img src=x>' && app.result.ids.length === app.tokens.length")
    time.sleep(0.2)
    assert "".join(page.locator("#tokens .chip").all_text_contents()) == "<img·src=x>"


def test_each_view_is_saved_as_a_picture(visit, tmp_path):
    for view in ("text", "attention", "choosing"):
        page = visit.open(view=view)
        time.sleep(0.4)
        for kind in ("PNG", "SVG"):
            with page.expect_download() as waiting:
                page.get_by_role("button", name=kind).click()
            path = tmp_path / waiting.value.suggested_filename
            waiting.value.save_as(path)
            assert path.suffix == f".{kind.lower()}"
            if kind == "SVG":
                assert "foreignObject" in path.read_text()
                continue
            colours = imread(path)[..., :3].reshape(-1, 3)
            assert len({tuple(c) for c in colours[:: max(1, len(colours) // 50_000)]}) > 20


def test_everything_can_be_done_with_the_keyboard(visit):
    page = visit.open()
    page.locator("#tab-text").focus()
    page.keyboard.press("ArrowRight")
    visit.until("app.shown.view.id === 'attention'")
    assert page.locator("#tab-attention").get_attribute("aria-selected") == "true"
    page.locator("#tokens").focus()
    last = visit.data("app.token")
    page.keyboard.press("ArrowLeft")
    visit.until(f"app.token === {last - 1}")
    page.keyboard.press("Home")
    visit.until("app.token === 0")
    page.locator("#tab-attention").focus()
    page.keyboard.press("Home")
    visit.until("app.shown.view.id === 'text' && view.strips.size > 5")
    page.locator("canvas[data-part='h.0.ln_1']").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowRight")
    visit.until("app.state.part === 'h.0.ln_1' && app.state.cell === 1")


def test_words_of_the_field_say_what_they_mean(visit):
    page = visit.open()
    word = page.locator("abbr", has_text="Residual stream")
    assert word.count() == 1  # the first use alone
    page.evaluate("document.querySelector('.token-card').append('a logit, a logit', ' logits')")
    assert page.locator(".token-card abbr").all_inner_texts() == ["logit"]
    word.click()
    assert word.get_attribute("title") == page.locator("#tip").inner_text() != ""


def test_a_phone_opens_the_panel_of_a_number_only_when_asked(browser, address):
    visit = Visit(browser, address, width=400)
    page = visit.open()
    visit.until("view.explained")
    panel = page.locator(".cell")
    assert not panel.is_visible()
    for close_it in (page.locator(".cell .close").click, lambda: page.keyboard.press("Escape")):
        page.locator("canvas[data-part='h.0.ln_1']").click()
        visit.until("view.explained.name.startsWith('h.0.ln_1[')")
        assert panel.is_visible()
        close_it()
        visit.until("app.state.part === ''")
        panel.wait_for(state="hidden")
    page.close()


@pytest.mark.parametrize("view", ["text", "attention", "choosing"])
def test_a_phone_shows_all_of_it_in_both_themes(browser, address, view):
    visit = Visit(browser, address, width=400)
    page = visit.open(view=view)
    time.sleep(0.3)
    for _ in range(2):
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.locator("#theme").click()
    assert not visit.problems
    page.close()


def test_the_page_asks_nobody_else_and_its_scripts_are_small(visit):
    for view in ("text", "attention", "choosing"):
        visit.open(view=view)
    assert all(url.startswith((visit.address, "data:", "about:")) for url in visit.requests)
    sent = 0  # compressed, as the server sends them
    for path in WEB.rglob("*.js"):
        request = urllib.request.Request(
            f"{visit.address}{path.relative_to(WEB).as_posix()}",
            headers={"Accept-Encoding": "gzip"},
        )
        with urllib.request.urlopen(request) as answer:
            assert answer.headers["Content-Encoding"] == "gzip"
            sent += len(answer.read())
    assert 20_000 < sent < 150_000
