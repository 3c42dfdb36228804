"""Sampling and generation: the right token, the right text, row by row."""

import math
from itertools import islice

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from nanogpt.config import SampleConfig
from nanogpt.errors import UserError
from nanogpt.generation.reader import Reader, forgotten, generate
from nanogpt.generation.sampling import (
    Sampler,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    penalize_repeats,
)
from nanogpt.generation.stream import TextStream, generate_text, prompt_ids, stream
from nanogpt.model.gpt import GPT
from nanogpt.text.tokenizer import CharTokenizer, Tokenizer

from conftest import chi_square_is_fine, tiny


def one_stream(config: SampleConfig, rows: int) -> Sampler:
    """A sampler whose rows draw one after the other from one generator: quicker to make."""
    sampler = Sampler(config, 1)
    sampler.generators = sampler.generators * rows
    return sampler


def draws(logits: list[float], count: int = 20_000, **settings: object) -> torch.Tensor:
    """The share of each token among many draws."""
    config = SampleConfig(**{"temperature": 1.0, "top_k": 0, **settings})
    chosen = one_stream(config, count)(torch.tensor(logits).expand(count, -1))
    return torch.bincount(chosen, minlength=len(logits)) / count


def test_temperature_zero_is_argmax():
    """Dividing by zero gives nan."""
    assert draws([0.0, 2.0, 1.0], count=9, temperature=0.0).tolist() == [0, 1, 0]


def test_the_coldest_temperature_is_still_a_distribution():
    assert draws([100.0, 2.0, 101.0], count=9, temperature=0.001).tolist() == [0, 0, 1]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_softmax_at_every_temperature(temperature):
    logits = [0.0, 1.0, -1.0, 0.5]
    expected = torch.softmax(torch.tensor(logits) / temperature, -1)
    # 20,000 draws: a standard error of at most 0.0035
    torch.testing.assert_close(draws(logits, temperature=temperature), expected, rtol=0, atol=0.015)


def test_top_k_draws_only_among_the_k_likeliest_and_keeps_their_ratio():
    """Masked with -inf, not with a small number."""
    assert keep_top_k(torch.tensor([[3.0, 1.0, 2.0]]), 1).tolist() == [[3.0, -math.inf, -math.inf]]
    shares = draws([math.log(3), 0.0, 0.0 - 1e-3, -1.0], top_k=2)
    assert shares[2:].tolist() == [0, 0]
    assert shares[0].item() == pytest.approx(0.75, abs=0.015)


@pytest.mark.parametrize("k", [0, 3, 99])
def test_top_k_of_everything_changes_nothing(k):
    """A k beyond the vocabulary is fine."""
    logits = torch.randn(2, 3)
    assert torch.equal(keep_top_k(logits, k), logits)


def test_every_row_draws_its_own_tokens(model):
    """Rows that share a prompt must not share their text."""
    reader = Reader(model, [[1, 1, 1]] * 8)
    chosen = next(generate(reader, SampleConfig(temperature=1.0, top_k=0))).chosen
    assert len(set(chosen.tolist())) > 2


def test_same_seed_same_text_and_other_seed_other_text(model):
    def text(seed: int) -> list[int]:
        steps = generate(Reader(model, [[1, 1, 1]]), SampleConfig(seed=seed, temperature=1.0))
        return [int(step.chosen) for step in islice(steps, 12)]

    assert text(1) == text(1) != text(2)


def test_ids_that_stand_for_nothing_are_never_chosen():
    """A padded vocabulary has rows beyond its tokens, one with gaps has them in between."""
    torch.manual_seed(0)
    model = GPT(tiny(vocab_size=64)).eval()
    steps = generate(Reader(model, [[0]] * 50), SampleConfig(temperature=5.0), {1, 4, 60})
    chosen = {i for step in islice(steps, 10) for i in step.chosen.tolist()}
    assert chosen == {1, 4, 60}


def test_generation_leaves_the_training_mode_as_it_was(model):
    for mode in (True, False):
        model.train(mode)
        next(generate(Reader(model, [[0]]), SampleConfig()))
        assert model.training is mode


class Scripted(GPT):
    """A model that says what it is told, whatever it reads."""

    def __init__(self, script: list[int], vocab_size: int) -> None:
        super().__init__(tiny(vocab_size=vocab_size))
        self.script = iter(script)

    def head(self, x):
        logits = torch.zeros(len(x), self.config.vocab_size)
        logits[:, next(self.script)] = 100.0
        return logits


BYTES = Tokenizer([], special_tokens={"<|endoftext|>": 256})


def spoken(script: bytes | list[int], **settings: object) -> list[str]:
    model = Scripted(list(script), 257)
    return list(generate_text(model, BYTES, SampleConfig(temperature=0, **settings)))


@given(st.text(min_size=1, max_size=12))
def test_pieces_never_end_within_a_character(text):
    data = text.encode()
    assert spoken(data, max_new_tokens=len(data)) == list(text)


def test_text_ends_at_the_end_of_text_and_at_the_limit():
    assert spoken([*b"ab", 256, *b"cd"], max_new_tokens=9) == ["a", "b"]
    assert spoken(b"abcdef", max_new_tokens=3) == ["a", "b", "c"]
    assert spoken(b"", max_new_tokens=0) == []


def test_bytes_that_are_no_text_show_as_replacement_characters():
    assert "".join(spoken(b"a\xffb", max_new_tokens=3)) == "a�b"
    assert "".join(spoken("a🎭".encode()[:-1], max_new_tokens=4)) == "a�"


@given(st.binary(min_size=1, max_size=12), st.data())
def test_pieces_joined_are_the_text_of_all_bytes(data, draw):
    """Also for bytes that are no text, and for tokens that cut characters anywhere."""
    cut = draw.draw(st.integers(0, len(data)))
    merges = [(data[cut], data[cut + 1])] if cut + 1 < len(data) else []
    tokenizer = Tokenizer(merges, special_tokens={"<|endoftext|>": 256 + len(merges)})
    ids = [*data[:cut], *([256] if merges else data[cut : cut + 2]), *data[cut + 2 :]]
    settings = SampleConfig(temperature=0, max_new_tokens=len(ids))
    pieces = list(generate_text(Scripted(ids, 258), tokenizer, settings))
    assert "".join(pieces) == data.decode("utf-8", "replace")
    assert all(pieces)


def test_an_empty_prompt_starts_a_document():
    assert prompt_ids(BYTES, "") == [256]
    assert prompt_ids(CharTokenizer("\nab"), "") == [0]
    assert prompt_ids(CharTokenizer("ab"), "") == [0]  # neither a document nor a line can begin


def test_a_prompt_with_unknown_characters_is_refused():
    with pytest.raises(UserError, match="the character 'z' is not in this vocabulary"):
        next(generate_text(GPT(tiny()), CharTokenizer("ab"), SampleConfig(prompt="z")))


def exact(logits: list[float], seen: list[bool], config: SampleConfig) -> list[float]:
    """The probabilities that the settings promise, worked out token by token."""
    values = list(logits)
    for i, was_seen in enumerate(seen):
        if was_seen and config.repetition_penalty != 1:
            penalty = config.repetition_penalty
            values[i] = values[i] / penalty if values[i] > 0 else values[i] * penalty
    values = [value / config.temperature for value in values]
    weights = [math.exp(value - max(values)) for value in values]
    if config.top_k:
        least = sorted(weights, reverse=True)[min(config.top_k, len(weights)) - 1]
        weights = [w if w >= least else 0.0 for w in weights]
    if config.top_p < 1:
        ordered, total, last = sorted(weights, reverse=True), 0.0, 0.0
        for last in ordered:
            total += last / sum(weights)
            if total >= config.top_p:
                break
        weights = [w if w >= last else 0.0 for w in weights]
    if config.min_p:
        weights = [w if w >= config.min_p * max(weights) else 0.0 for w in weights]
    return [w / sum(weights) for w in weights]


LOGITS = [2.0, 1.5, -1.0, 0.3, 0.0, -3.0, 1.0, 0.9]
SEEN = [True, False, True, False, False, False, True, False]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 0.5},
        {"top_k": 3},
        {"top_p": 0.6},
        {"top_p": 0.01},
        {"min_p": 0.3},
        {"repetition_penalty": 2.0},
        {"repetition_penalty": 0.5},
        {"temperature": 1.7, "top_k": 6, "top_p": 0.8, "min_p": 0.2, "repetition_penalty": 1.3},
    ],
)
def test_draws_follow_the_exact_probabilities(settings):
    config = SampleConfig(**{"temperature": 1.0, "top_k": 0, **settings})
    rows = torch.tensor(LOGITS).expand(20_000, -1)
    seen = torch.tensor(SEEN).expand(20_000, -1)
    counts = torch.bincount(one_stream(config, len(rows))(rows, seen), minlength=8)
    assert chi_square_is_fine(counts, exact(LOGITS, SEEN, config))
    # The test can fail: the same counts do not fit other settings.
    other = SampleConfig(temperature=3.0, top_k=0)
    assert not chi_square_is_fine(counts, exact(LOGITS, SEEN, other))


@given(
    st.lists(st.integers(-16, 16), min_size=1, max_size=9, unique=True),
    st.floats(0.05, 1.0),
    st.just(0.0) | st.floats(1e-30, 0.99),
    st.integers(0, 9),
)
def test_filters_keep_what_their_definitions_keep(quarters, p, min_p, k):
    logits = [q / 4 for q in quarters]
    config = SampleConfig(temperature=1.0, top_k=k, top_p=p, min_p=min_p)
    rows = torch.tensor([logits], dtype=torch.float64)
    kept = keep_top_k(rows, k)
    # Sums of probabilities that reach p, or min_p, to the last bit may fall on either side.
    shares = kept.softmax(-1).sort(descending=True).values[0]
    assume((shares.cumsum(0) - p).abs().min() > 1e-9)
    assume((shares / shares[0] - min_p).abs().min() > 1e-9)
    ours = keep_min_p(keep_top_p(kept, p), min_p).softmax(-1)[0]
    expected = torch.tensor(exact(logits, [False] * len(logits), config), dtype=torch.float64)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-9)


def test_top_p_keeps_the_token_that_reaches_p():
    logits = torch.tensor([[0.5, 0.3, 0.2]]).log()
    assert keep_top_p(logits, 0.5).exp().tolist()[0][1:] == [0, 0]
    assert keep_top_p(logits, 0.51).exp()[0, 1] > 0
    assert torch.equal(keep_top_p(logits, 1.0), logits)
    assert keep_top_p(logits, 1e-9).exp()[0, 0] > 0


def test_the_repetition_penalty_lowers_positive_and_negative_logits():
    seen = torch.tensor([[True, True, False]])
    assert penalize_repeats(torch.tensor([[1.0, -1.0, 3.0]]), seen, 2.0).tolist() == [[0.5, -2, 3]]


def test_the_repetition_penalty_sees_the_prompt_and_what_was_written():
    torch.manual_seed(0)
    model = GPT(tiny(vocab_size=8)).eval()
    settings = SampleConfig(temperature=0, repetition_penalty=100.0)
    steps = generate(Reader(model, [[3, 5]]), settings)
    written = [int(step.chosen) for step in islice(steps, 6)]
    positive = [int(t) for t in written]
    assert len({3, 5, *positive}) == 8  # every token once before any comes again


def test_rows_write_the_same_alone_and_together(model):
    """What a row draws depends on its own seed and text alone."""
    prompts = [[1, 2, 3], [4], [5, 6, 7, 8, 9, 10, 11]]
    config = SampleConfig(temperature=1.0, top_k=0, seed=40)

    def written(prompts: list[list[int]], seed: int, count: int = 40) -> list[list[int]]:
        reader = Reader(model, prompts)
        list(islice(generate(reader, SampleConfig(**vars(config) | {"seed": seed})), count))
        return reader.rows

    together = written(prompts, 40)
    assert [written([prompt], 40 + n)[0] for n, prompt in enumerate(prompts)] == together


@pytest.mark.parametrize("length", range(1, 36))
def test_prompts_of_every_length_around_the_context_limit(model, length):
    """Cached and uncached, the logits are those of the tokens that are still remembered."""
    torch.manual_seed(length)
    prompt = torch.randint(61, (length,)).tolist()
    reader = Reader(model, [prompt])
    for _ in range(20):
        logits = reader.predict()
        row = reader.rows[0]
        window = row[forgotten(len(row), 16) :]
        assert 8 < len(window) <= 16 or len(row) <= 8
        with torch.no_grad():
            expected = model(torch.tensor([window]))[:, -1]
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)
        reader.append(0, [int(logits.argmax())])


def test_nothing_is_forgotten_while_it_fits():
    assert [forgotten(n, 16) for n in (1, 16, 17, 24, 25, 32, 33)] == [0, 0, 8, 8, 16, 16, 24]
    assert [forgotten(n, 1) for n in (1, 2, 3)] == [0, 1, 2]


def test_the_cache_is_read_on_and_not_begun_anew(model, monkeypatch):
    """A token costs one token's work, however long the text; and half a context when it is full."""
    read = []
    original = type(model).hidden_states

    def counting(self, ids, **context):
        read.append(ids.shape[1])
        return original(self, ids, **context)

    monkeypatch.setattr(type(model), "hidden_states", counting)
    list(islice(generate(Reader(model, [[1, 2, 3], [4]]), SampleConfig(temperature=0)), 14))
    assert read == [3, *[1] * 13]
    read.clear()
    list(islice(generate(Reader(model, [[1] * 16]), SampleConfig(temperature=0)), 10))
    assert read == [16, 9, *[1] * 7, 9]


def test_an_interrupt_while_reading_loses_nothing_of_the_text(model, monkeypatch):
    """Ctrl-C in a chat: what was not read is read the next time."""
    reader = Reader(model.train(), [[1, 2, 3, 4, 5]])
    block = model.h[1]
    original = block.forward

    def interrupted(*arguments):
        raise KeyboardInterrupt

    # While the prompt is read, while a token is, and while all is read anew.
    for more in ([], [6], None):
        if more is None:
            reader.predict()
        reader.append(0, more or [])
        monkeypatch.setattr(block, "forward", interrupted)
        with pytest.raises(KeyboardInterrupt):
            reader.predict()
        assert model.training
        monkeypatch.setattr(block, "forward", original)
        reader.append(0, [7, 8])
        logits = reader.predict()
        expected = model.eval()(torch.tensor(reader.rows))[:, -1]
        model.train()
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)


def test_weights_that_are_no_numbers_are_said_to_be(model):
    with torch.no_grad():
        model.wte.weight[3] = math.nan
    for temperature in (0.0, 1.0):
        with pytest.raises(UserError, match="the model's weights are not numbers"):
            next(generate(Reader(model, [[1]]), SampleConfig(temperature=temperature)))


def test_the_repetition_penalty_remembers_what_the_model_has_forgotten():
    class Favourites(GPT):
        """Likes low ids best, whatever it reads."""

        def head(self, x):
            return torch.arange(40.0, 0.0, -1)[None]

    model = Favourites(tiny(vocab_size=40))  # a context of 16
    settings = SampleConfig(temperature=0, repetition_penalty=100.0)
    steps = generate(Reader(model, [[0]]), settings)
    assert [int(step.chosen) for step in islice(steps, 30)] == list(range(1, 31))


def test_a_second_prompt_goes_on_in_the_same_cache(model):
    reader = Reader(model, [[1, 2]])
    list(islice(generate(reader, SampleConfig(temperature=0)), 3))
    reader.append(0, [7, 8])
    logits = reader.predict()
    torch.testing.assert_close(logits, model(torch.tensor(reader.rows))[:, -1], rtol=0, atol=1e-5)


def test_a_prompt_without_tokens_is_refused(model):
    with pytest.raises(UserError, match="a prompt without a token cannot be continued"):
        Reader(model, [[1], []])


def pieces_of(script: bytes, stops: list[str], **settings: object) -> tuple[str, int]:
    model = Scripted(list(script) + [0] * 50, 257)
    reader = Reader(model, [[1]])
    config = SampleConfig(temperature=0, **settings)
    found = list(stream(reader, BYTES, config, stops))
    assert [piece.last for piece in found] == [False] * (len(found) - 1) + [True]
    return "".join(piece.text for piece in found), len(found)


def test_text_ends_before_a_stop_string_that_spans_tokens():
    assert pieces_of(b"one two\n\nthree", ["\n\n"], max_new_tokens=20) == ("one two", 9)
    assert pieces_of(b"abcabd", ["abd", "zzz"], max_new_tokens=20) == ("abc", 6)
    assert pieces_of(b"a stop", [""], max_new_tokens=6) == ("a stop", 6)


def test_the_start_of_a_stop_string_is_shown_when_the_text_ends():
    assert pieces_of(b"ab\n", ["\n\n"], max_new_tokens=3) == ("ab\n", 3)


@given(st.text("ab\né", max_size=14), st.lists(st.text("ab\né", min_size=1, max_size=3)))
def test_a_stream_shows_all_text_up_to_the_first_stop(text, stops):
    showing, shown = TextStream(stops), ""
    data = text.encode()
    for n in range(len(data)):
        shown += showing.push(data[n : n + 1], final=n == len(data) - 1)
        if showing.stopped:
            break
        # Nothing that is shown could still turn out to belong to a stop string.
        assert text.startswith(shown)
    ends = [text.index(stop) + len(stop) for stop in stops if stop in text]
    reached = text[: min(ends)] if ends else text
    cut = min((reached.index(stop) for stop in stops if stop in reached), default=len(reached))
    assert shown == reached[:cut]


def test_each_row_stops_by_itself():
    class Two(GPT):
        """Row 0 says end of text at its third token, row 1 never."""

        said = 0

        def head(self, x):
            self.said += 1
            logits = torch.zeros(len(x), 257)
            logits[0, 256 if self.said == 3 else 65] = 100.0
            logits[1, 66] = 100.0
            return logits

    reader = Reader(Two(tiny(vocab_size=257)), [[1], [2, 3]])
    found = list(stream(reader, BYTES, SampleConfig(temperature=0, max_new_tokens=5)))
    texts = ["".join(p.text for p in found if p.row == row) for row in (0, 1)]
    assert texts == ["AA", "BBBBB"]
    assert [sum(p.row == row for p in found) for row in (0, 1)] == [3, 5]


def test_log_probabilities_are_the_models_own_whatever_the_temperature(model):
    tokenizer = CharTokenizer([chr(65 + n) for n in range(61)])
    reader = Reader(model, [[1, 2, 3]])
    config = SampleConfig(temperature=0.2, top_k=2, max_new_tokens=4)
    found = list(stream(reader, tokenizer, config, top=3))
    with torch.no_grad():
        expected = model(torch.tensor(reader.rows)).log_softmax(-1)[0]
    for n, piece in enumerate(found):
        row = expected[2 + n]
        assert piece.log_probability == pytest.approx(row[piece.token].item(), abs=1e-5)
        values, ids = row.topk(3)
        assert [token for token, _ in piece.likeliest] == ids.tolist()
        assert [v for _, v in piece.likeliest] == pytest.approx(values.tolist(), abs=1e-5)


def test_a_prediction_that_is_cut_short_in_the_head_changes_nothing_later(model, monkeypatch):
    """The cache has the token already; it must not get it twice."""
    reader, other = Reader(model, [[1, 2, 3]]), Reader(model, [[1, 2, 3]])
    for one in (reader, other):
        one.predict()
        one.append(0, [4])

    def interrupted(x):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(model, "head", interrupted)
        with pytest.raises(KeyboardInterrupt):
            reader.predict()
    torch.testing.assert_close(reader.predict(), other.predict())
