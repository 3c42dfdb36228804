"""The engine in JavaScript, in a browser: the same numbers as Python's for every variant."""

import base64
import math
import random
import sys
import unicodedata
from pathlib import Path
from typing import Any

import pytest
import torch
from pages import scripts
from safetensors.torch import save

import nanogpt
from nanogpt.config import SampleConfig
from nanogpt.explorer.remote import merges_of
from nanogpt.generation.reader import Reader, generate
from nanogpt.generation.sampling import (
    Sampler,
    apply_temperature,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    penalize_repeats,
)
from nanogpt.lab.contracts import LENGTH, VOCABULARY, build, furthest
from nanogpt.model.trace import Edit, editing, record
from nanogpt.text.corpus import shakespeare
from nanogpt.text.formats import gpt2_tokenizer
from nanogpt.text.splitter import PATTERNS, Splitter
from nanogpt.text.tokenizer import BaseTokenizer, CharTokenizer, Tokenizer

from conftest import PARTS, VARIANTS, chi_square_is_fine, random_text

WEB = Path(nanogpt.__file__).parent / "explorer" / "web"
SAME = 1e-4  # observed: 2e-6
IDS = torch.randint(VOCABULARY, (1, LENGTH), generator=torch.Generator().manual_seed(1))
OTHER = torch.randint(VOCABULARY, (1, LENGTH), generator=torch.Generator().manual_seed(2))

every_variant = pytest.mark.parametrize(
    "variant", VARIANTS, ids=lambda v: "-".join(f"{k}={x}" for k, x in v.items())
)


@pytest.fixture(scope="module")
def page():
    """A page that can import the engine's modules: one browser for all tests."""
    with scripts("engine") as page:
        page.evaluate(HELPERS)
        yield page


HELPERS = """async () => {
  const files = ["tensor", "safetensors", "model", "watch", "splitter", "tokenizer", "sampling",
    "local"];
  for (const file of files) Object.assign(window, await import(`/engine/${file}.js`));
  window.bytes = (base64) => Uint8Array.from(atob(base64), (c) => c.charCodeAt(0)).buffer;
  window.plain = (tensors) => Object.fromEntries(
    Object.entries(tensors).map(([name, { shape, data }]) => [name, { shape, data: [...data] }]));
  // What goes wrong, as the line that a person would read.
  window.tried = async (work) => {
    try { return { value: await work() }; } catch (error) { return { error: error.message }; }
  };
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


@every_variant
@torch.no_grad()
def test_reading_in_parts_with_a_cache_is_reading_at_once(page, variant):
    model = build(variant)
    send(page, model)
    whole = model(IDS)[0]
    for sizes in ([12], [1] * 12, [5, 1, 6]):
        parts = [part[0].tolist() for part in IDS.split(sizes, dim=1)]
        rows = page.evaluate(
            """(parts) => {
              const cache = new Cache(model.config);
              return parts.flatMap((ids) => [...model.forward(ids, { cache }).data]);
            }""",
            parts,
        )
        assert furthest(torch.tensor(rows).view(whole.shape), whole) < SAME


EDITS = [
    [{"at": "drop", "how": "zero", "positions": [0, 3]}],
    [{"at": "h.0.attn.kernel", "head": 1, "how": "zero"}],
    [{"at": "h.1.attn.kernel", "head": 0, "how": "mean", "positions": [5]}],
    [{"at": "h.1.attn.kernel", "how": "swap", "positions": [2, 7]}],
    [{"at": "h.0.attn", "how": "mean"}, {"at": "h.1.mlp", "how": "swap"}],
    [{"at": "h.0", "how": "swap", "positions": [11]}, {"at": "h.0", "how": "mean"}],
    [{"at": "h.1", "how": "zero", "positions": []}],
]


@pytest.mark.parametrize(
    "variant", [{}, {"n_kv_head": 1}, {"block": "post-norm"}, {"block": "no-residual"}]
)
@torch.no_grad()
def test_edits_do_what_they_do_in_python(page, variant):
    model = build(variant)
    send(page, model)
    for edits in EDITS:
        with editing(model, [Edit(**edit) for edit in edits], OTHER), record(model) as seen:
            logits = model(IDS)[0]
        names = [n for n in seen if n.endswith(("drop", ".kernel", ".attn", ".mlp", "ln_f"))]
        found = observed(page, IDS, record=names, edits=edits, other=OTHER[0].tolist())
        assert furthest(found["logits"], logits) < SAME, edits
        for name in names:
            x = seen[name]
            assert furthest(found[name], x[0]) < SAME, (edits, name)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"record": ["h.*.mlpp"]}, "'h.*.mlpp' fits no activation"),
        ({"edits": [{"at": "h.2"}]}, "'h.2' cannot be edited"),
        ({"edits": [{"at": "ln_f"}]}, "'ln_f' cannot be edited"),
        ({"edits": [{"at": "h.0", "how": "double"}]}, "use zero, mean or swap"),
        ({"edits": [{"at": "h.0", "head": 0}]}, "h.0 has no head 0"),
        ({"edits": [{"at": "h.0.attn.kernel", "head": 2}]}, "has no head 2"),
        ({"edits": [{"at": "h.0", "positions": [12]}]}, "position 12 at h.0: use 0 to 11"),
        ({"edits": [{"at": "h.0", "how": "swap"}]}, "another text of 12 tokens, not 0"),
        ({"edits": [{"at": "h.0", "how": "swap"}], "other": [1]}, "of 12 tokens, not 1"),
    ],
)
def test_a_request_for_what_is_not_there_costs_one_line(page, request_, message):
    send(page, build({}))
    answer = page.evaluate(
        "([ids, request]) => tried(() => observe(model, ids, request))", [IDS[0].tolist(), request_]
    )
    assert message in answer["error"]
    assert "\n" not in answer["error"]


@pytest.mark.parametrize(
    ("ids", "message"),
    [([0] * 17, "17 tokens do not fit"), ([61], "no token 61"), ([-1], "no token -1"),
     ([0.5], "no token 0.5"), (["1"], "no token 1")],
)  # fmt: skip
def test_ids_that_no_embedding_has_cost_one_line(page, ids, message):
    send(page, build({}))
    answer = page.evaluate("(ids) => tried(() => model.forward(ids))", ids)
    assert message in answer["error"]


def test_a_model_of_another_kind_or_with_missing_weights_is_refused(page):
    model = build({})
    make = "([config, file]) => tried(() => { new Model(config, readSafetensors(bytes(file))) })"
    weights = dict(model.state_dict())
    cases = [
        ({"position": "t5"}, weights, "model.position=t5 is unknown: use one of learned"),
        ({"norm": "constructor"}, weights, "model.norm=constructor is unknown"),
        ({"n_layer": 3}, weights, "no h.2.attn.c_attn.weight of 72 x 24"),
        ({"n_kv_head": 1}, weights, "no h.0.attn.c_attn.weight of 48 x 24"),
        ({}, {k: x for k, x in weights.items() if k != "ln_f.bias"}, "no ln_f.bias of 24"),
    ]
    for change, tensors, message in cases:
        file = base64.b64encode(save(tensors)).decode()
        answer = page.evaluate(make, [{**vars(model.config), **change}, file])
        assert message in answer["error"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_every_number_is_read_as_it_was_written(page, dtype):
    """All 65,536 numbers of 16 bits, infinities among them."""
    bits = torch.arange(65536, dtype=torch.int32).to(torch.int16)
    numbers = bits.view(dtype if dtype.itemsize == 2 else torch.float16).to(dtype)
    numbers = numbers[~numbers.isnan()].view(2, -1)
    file = base64.b64encode(save({"__proto__": numbers, "b": torch.tensor(3.0)})).decode()
    read = "(file) => { window.read = readSafetensors(bytes(file)); return read.b.data[0]; }"
    assert page.evaluate(read, file) == 3
    raw = page.evaluate(
        """() => { const { shape, data } = read["__proto__"];
          return [shape, [...new Int32Array(data.buffer, data.byteOffset, data.length)]]; }"""
    )
    assert raw[0] == list(numbers.shape)
    found = torch.tensor(raw[1], dtype=torch.int32).view(torch.float32).view(numbers.shape)
    assert torch.equal(found, numbers.float())


def test_a_damaged_file_of_weights_costs_one_line(page):
    whole = save({"a": torch.ones(3, 4)})
    header = int.from_bytes(whole[:8], "little")
    damaged = {
        "empty": b"", "short": whole[:5], "inside the header": whole[: header - 3],
        "inside the numbers": whole[:-1], "a giant header": b"\xff" * 8 + whole[8:],
        "not JSON": whole.replace(b"{", b"[", 1), "another dtype": whole.replace(b"F32", b"I32"),
        "a negative place": whole.replace(b"[0,48]", b"[-8,4]"),
        "a place too far": whole.replace(b"[0,48]", b"[8,56]"),
        "a shape of another size": whole.replace(b"[3,4]", b"[3,5]"),
        "null": (4).to_bytes(8, "little") + b"null",
        "text that is not UTF-8": whole.replace(b"F32", b"F\xff2"),
    }  # fmt: skip
    for name, content in damaged.items():
        read = "(file) => tried(() => { readSafetensors(bytes(file)) })"
        answer = page.evaluate(read, base64.b64encode(content).decode())
        assert answer.get("error", "").startswith("not a usable safetensors file: "), name
        assert "\n" not in answer["error"]


def codes(texts: list[str]) -> list[list[int]]:
    """Texts as the page gets them: JSON would lose lone surrogates on the way."""
    return [[ord(c) for c in text] for text in texts]


def encoded(page, tokenizer: BaseTokenizer, texts: list[str]) -> list[list[int]]:
    """The ids that the page's tokenizer gives."""
    return page.evaluate(
        """([values, texts]) => {
          window.tokenizer = tokenizerFrom(values);
          return texts.map((text) => tokenizer.encode(String.fromCodePoint(...text)));
        }""",
        [tokenizer.to_dict(), codes(texts)],
    )


PLAY = next(shakespeare()).text
WORLD = (
    "naïve café — 日本語の文 한글 🎭🎭 Ǆ ٣٣ don't WE'LL it's\n\n\t  x = 10_000;\r\n// path/to\n" * 9
)
SPECIAL = ["<|endoftext|>", "<|end", "(a|b)", "日本"]
# Half a character by itself. A pair of them is a character in JavaScript.
SURROGATES = ["\ud800", "a\udfff b", "\ud83dx\ude00", "é\udc00\ud800"]


def tokenizers() -> dict[str, Tokenizer]:
    """One for each pattern, with special tokens among the bytes and a byte order of its own."""
    found = {}
    for name in PATTERNS:
        few = Tokenizer.train([PLAY[:50_000], WORLD], 700, (), name)
        found[name] = few.with_special_tokens(SPECIAL)
    free = [i for i in range(900) if i not in (0, 5, 300, 800)]
    merges = [(free[a], free[b]) for a, b in found["gpt2"].merges]
    ids = dict(zip(SPECIAL, (5, 0, 300, 800), strict=True))
    found["moved"] = Tokenizer(merges, "gpt2", ids, bytes(range(255, -1, -1)))
    return found


@pytest.mark.parametrize(("name", "tokenizer"), tokenizers().items(), ids=lambda x: str(x)[:9])
def test_the_ids_of_any_text_are_pythons(page, name, tokenizer):
    """The strings of the tests of the tokenizer in Python, and what is dear to the patterns."""
    draw = random.Random(0)
    parts = [*PARTS, *SPECIAL, "日本A", "日本Ab", "'S", "'ſ", "'K", "!\n/", "we'l", "l", "\x85"]
    texts = [*SURROGATES, WORLD, "", "a" * 500, "ab" * 300]
    texts += [random_text(draw, parts) for _ in range(500)]
    expected = [tokenizer.encode(text) for text in texts]
    assert encoded(page, tokenizer, texts) == expected
    decode = (
        """(lists) => lists.map((ids) => toText(ids.flatMap((id) => tokenizer.token(id).bytes)))"""
    )
    assert page.evaluate(decode, expected[4:]) == texts[4:]
    torn = [draw.sample(range(255), 3) for _ in range(300)]
    assert page.evaluate(decode, torn) == [tokenizer.decode(ids) for ids in torn]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_character_is_of_the_kind_that_it_is_in_python(page, pattern):
    known = [chr(i) for i in range(sys.maxunicode + 1)]
    known = [c for c in known if unicodedata.category(c) not in ("Cn", "Cs")]
    text = "".join(c + other for c in known for other in ("a", " "))
    lengths = "([pattern, text]) => splitter(pattern)(text).map((word) => [...word].length).join()"
    found = page.evaluate(lengths, [pattern, text])
    assert found == ",".join(str(len(word)) for word in Splitter(pattern)(text))


def test_gpt2s_own_tokenizer_gives_pythons_ids_on_a_play(page):
    gpt2 = gpt2_tokenizer()
    assert encoded(page, gpt2, [PLAY[:50_000]]) == [gpt2.encode(PLAY[:50_000])]
    tokens = page.evaluate("() => tokenizer.tokenize('antidisestablishmentarianism 🎭')")
    assert "".join(token["text"] for token in tokens[:-3]) == "antidisestablishmentarianism"
    for token in tokens:
        assert bytes(token["bytes"]) == gpt2.vocabulary[token["id"]]
        assert not token["special"]
        assert token["merges"] == merges_of(gpt2, token["id"])
    assert any(token["merges"] and "\ufffd" in token["text"] for token in tokens)  # the bytes of 🎭
    # A word by itself is made in the order that `explain` shows.
    word = "establishment"
    steps = gpt2.explain(word)[0]
    (token,) = page.evaluate("(word) => tokenizer.tokenize(word)", " " + word)
    assert len(token["merges"]) == len(gpt2.explain(" " + word)[0]) - 1
    left, right, made = token["merges"][-1]
    assert gpt2.vocabulary[left] + gpt2.vocabulary[right] == (" " + word).encode()
    assert made == token["id"]
    assert len(steps[0]) == len(word)


def test_characters_give_pythons_ids_and_name_the_unknown(page):
    tokenizer = CharTokenizer("abé🎭\ud800", ["<|endoftext|>"])
    texts = ["", "abba", "🎭é\ud800a"]
    assert encoded(page, tokenizer, texts) == [tokenizer.encode(t) for t in texts]
    answer = page.evaluate("() => tried(() => tokenizer.encode('abc'))")
    assert "the character 'c'" in answer["error"]
    assert page.evaluate("() => tokenizer.token(5)") == {
        "id": 5, "text": "<|endoftext|>", "bytes": list(b"<|endoftext|>"), "special": True,
    }  # fmt: skip


def test_a_pattern_of_ones_own_is_refused_in_one_line(page):
    """Then the page asks Python for everything: see engines.js."""
    own = Tokenizer.train([PLAY[:2_000]], 260, (), r"\w+").to_dict()
    answer = page.evaluate("(own) => tried(() => { tokenizerFrom(own) })", own)
    assert answer["error"].startswith("the split pattern '\\w+' is unknown here")
    assert "\n" not in answer["error"]


@pytest.mark.parametrize(
    "settings",
    [
        {}, {"temperature": 0.0}, {"temperature": 1.7, "top_k": 0}, {"top_k": 1}, {"top_k": 61},
        {"top_p": 0.6}, {"top_p": 0.05, "top_k": 0}, {"min_p": 0.2}, {"repetition_penalty": 1.8},
        {"temperature": 0.7, "top_k": 20, "top_p": 0.9, "min_p": 0.05, "repetition_penalty": 1.3},
    ],
)  # fmt: skip
def test_each_filter_leaves_what_pythons_leaves(page, settings):
    config = SampleConfig(**settings)
    draw = torch.Generator().manual_seed(3)
    logits = (4 * torch.randn(8, VOCABULARY, generator=draw)).round(decimals=1)  # with ties
    seen = [3, 5, 8, 13, 3]
    there = torch.zeros(1, VOCABULARY, dtype=torch.bool)
    there[:, seen] = True
    for row in logits:
        steps = page.evaluate(
            """([row, settings, seen]) => {
              window.cut = filters(Float32Array.from(row), settings, seen);
              return cut.map(({ name, logits }) => [name, [...logits].map((x) => String(x))]);
            }""",
            [row.tolist(), settings, seen],
        )
        x = penalize_repeats(row[None], there, config.repetition_penalty)
        expected = {"logits": row[None], "repetition_penalty": x}
        if config.temperature:
            expected["temperature"] = x = apply_temperature(x, config.temperature)
            expected["top_k"] = x = keep_top_k(x, config.top_k)
            expected["top_p"] = x = keep_top_p(x, config.top_p)
            expected["min_p"] = x = keep_min_p(x, config.min_p)
            assert torch.equal(x, Sampler(config, 1).filter(expected["repetition_penalty"]))
        else:
            expected["temperature"] = x.where(x == x.max(), torch.tensor(-math.inf))
        found = {name: torch.tensor([float(value) for value in x]) for name, x in steps}
        for name, x in expected.items():
            torch.testing.assert_close(found[name], x[0], rtol=1e-6, atol=0)
        likely = torch.tensor(page.evaluate("() => [...probabilities(cut.at(-1).logits)]"))
        torch.testing.assert_close(likely.float(), x[0].softmax(-1), rtol=0, atol=1e-6)


def test_tokens_are_drawn_as_often_as_the_model_says_and_a_seed_repeats_them(page):
    counts, again = page.evaluate(
        """() => {
          const logits = Float32Array.from({ length: 12 }, (_, i) => Math.sin(9 * i) * 2);
          logits[4] = -Infinity;
          const counts = Array(12).fill(0);
          for (let seed = 0; seed < 3000; seed++) counts[draw(logits, randomNumbers(seed)())] += 1;
          const random = randomNumbers(7);
          for (let n = 0; n < 3000; n++) counts[draw(logits, random())] += 1;
          const first = () => { const next = randomNumbers(5); return [next(), next()]; };
          return [counts, [first(), first()]];
        }"""
    )
    logits = torch.tensor([2 * math.sin(9 * i) for i in range(12)])
    logits[4] = -math.inf
    assert chi_square_is_fine(torch.tensor(counts), logits.softmax(-1).tolist())
    assert again[0] == again[1]
    assert again[0][0] != again[0][1]


def start_engine(page, models: dict[int | None, Any], tokenizer: BaseTokenizer) -> None:
    """An engine in the page, as `engine`, over a model and its snapshots by their steps."""
    files = {str(step): base64.b64encode(save(dict(m.state_dict()))).decode()
             for step, m in models.items()}  # fmt: skip
    config = vars(models[None].config)
    page.evaluate(
        """([config, values, files]) => {
          window.fetched = [];
          window.engine = new LocalEngine({ name: "tiny", config }, values, async (step) => {
            fetched.push(step);
            if (!files[step ?? "None"]) throw new Error(`no snapshot of step ${step}`);
            return bytes(files[step ?? "None"]);
          });
        }""",
        [config, tokenizer.to_dict(), files],
    )


LETTERS = CharTokenizer([chr(33 + i) for i in range(58)])  # three ids of the model are no token


@torch.no_grad()
def test_the_engine_reads_the_weights_of_each_step_once_and_when_they_are_needed(page):
    models = {None: build({}, seed=0), 0: build({}, seed=1), 10: build({}, seed=2)}
    start_engine(page, models, LETTERS)
    read = """async ([ids, step]) => {
      const { logits, activations } = await engine.forward(ids, { record: ["h.0"], step });
      return plain({ logits, ...activations });
    }"""
    assert page.evaluate("() => fetched") == []
    for step in (None, 10, 0, 10, None):
        found = page.evaluate(read, [IDS[0].tolist(), step])
        assert list(found) == ["logits", "h.0"]
        logits = torch.tensor(found["logits"]["data"]).view(found["logits"]["shape"])
        assert furthest(logits, models[step](IDS)[0]) < SAME
    assert page.evaluate("() => fetched") == [None, 10, 0]
    failed = "() => tried(() => engine.forward([1], { step: 7 }))"
    assert page.evaluate(failed)["error"] == "no snapshot of step 7"
    assert page.evaluate(failed)["error"] == "no snapshot of step 7"
    assert page.evaluate("() => fetched") == [None, 10, 0, 7, 7]


@torch.no_grad()
def test_the_engine_gives_weights_and_the_logits_of_any_stream(page):
    model = build({"norm": "rms"})
    start_engine(page, {None: model}, LETTERS)
    with record(model, "h.0") as seen:
        model(IDS)
    found = page.evaluate(
        """async (ids) => {
          const { activations } = await engine.forward(ids, { record: ["h.0"] });
          return plain({ lens: await engine.project(activations["h.0"]),
            whole: await engine.weights("h.1.mlp.c_fc.bias"),
            rows: await engine.weights("wte.weight", { first: 3, end: 5 }) });
        }""",
        IDS[0].tolist(),
    )
    expected = {
        "lens": model.head(model.ln_f(seen["h.0"]))[0],
        "whole": model.h[1].mlp.c_fc.bias,
        "rows": model.wte.weight[3:5],
    }
    for name, x in expected.items():
        assert found[name]["shape"] == list(x.shape)
        assert furthest(torch.tensor(found[name]["data"]).view(x.shape), x) < SAME


GENERATE = """async ([ids, settings]) => {
  const made = [];
  for await (const { id, logits } of engine.generate(ids, settings)) {
    made.push([id, [...logits].map((x) => String(x))]);
  }
  return made;
}"""


@pytest.mark.parametrize("variant", [{}, {"position": "rope", "n_kv_head": 1, "window": 5}])
def test_greedy_text_is_pythons_also_beyond_the_context(page, variant):
    model = build(variant)
    start_engine(page, {None: model}, LETTERS)
    settings = {"temperature": 0.0, "repetition_penalty": 1.5}
    reader = Reader(model, [[1, 2, 3]])
    steps = generate(reader, SampleConfig(**settings), LETTERS.vocabulary)
    made = page.evaluate(GENERATE, [[1, 2, 3], {**settings, "max_new_tokens": 40}])
    assert len(made) == 40  # two and a half contexts
    for (token, logits), step in zip(made, steps, strict=False):
        assert token == int(step.chosen[0])
        found = torch.tensor([float(x) for x in logits])
        assert furthest(found[:58], step.logits[0, :58]) < SAME
        assert found[58:].tolist() == [-math.inf] * 3


def test_text_ends_with_the_end_of_text_or_when_the_reader_has_enough(page):
    model = build({})
    start_engine(page, {None: model}, LETTERS)
    made = page.evaluate(GENERATE, [[1], {"seed": 3, "max_new_tokens": 12}])
    assert page.evaluate(GENERATE, [[1], {"seed": 3, "max_new_tokens": 12}]) == made
    assert page.evaluate(GENERATE, [[1], {"seed": 4, "max_new_tokens": 12}]) != made
    (last,) = {57} - {1}
    with torch.no_grad():
        model.wte.weight[last] *= 30  # likelier than anything
    ending = CharTokenizer(LETTERS.characters[:-1], ["<|endoftext|>"])
    start_engine(page, {None: model}, ending)
    tokens = [token for token, _ in page.evaluate(GENERATE, [[1], {"temperature": 1.0}])]
    assert tokens[-1] == last
    assert tokens.count(last) == 1
    stopped = """async () => {
      const stop = new AbortController();
      let count = 0;
      for await (const _ of engine.generate([1], { max_new_tokens: 100 }, stop.signal)) {
        if (++count === 5) stop.abort();
      }
      return count;
    }"""
    start_engine(page, {None: build({})}, LETTERS)
    assert page.evaluate(stopped) == 5
    nothing = "() => tried(async () => { for await (const _ of engine.generate([])) { } })"
    assert "without a token" in page.evaluate(nothing)["error"]
