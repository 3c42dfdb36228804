"""Guessed tokens change how often the model reads, and nothing else."""

from itertools import cycle, islice

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nanogpt.config import SampleConfig
from nanogpt.errors import UserError
from nanogpt.generation.ahead import Guesses, LookAhead, reader_for
from nanogpt.generation.reader import Reader, generate
from nanogpt.model.gpt import GPT

from conftest import VARIANTS, tiny

PROMPT = [1, 2, 3, 4, 1, 2, 3]


def model_of(**variant) -> GPT:
    torch.manual_seed(1)
    return GPT(tiny(vocab_size=7, context_length=32, init_std=0.4, **variant)).eval()


def text_of(reader, config, count):
    """The tokens of a reader's text, and what the model said before each."""
    steps = generate(reader, config)
    found = [next(steps).logits.clone() for _ in range(count)]
    return reader.rows[0], torch.cat(found)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("temperature", [0.0, 0.5])
def test_the_text_is_the_one_without_guesses(variant, temperature):
    """Over three contexts, so that texts are forgotten, too."""
    model = model_of(**variant)
    config = SampleConfig(temperature=temperature, top_k=5, repetition_penalty=1.1)
    ahead = LookAhead(model, PROMPT, most=8)
    text, logits = text_of(ahead, config, 90)
    expected, without = text_of(Reader(model, [PROMPT]), config, 90)
    assert text == expected
    torch.testing.assert_close(logits, without, rtol=1e-4, atol=1e-3)  # observed 1e-4
    assert ahead.passes < 90


def test_nothing_is_read_twice_but_wrong_guesses():
    model, read = model_of(), []
    model.wte.register_forward_hook(lambda _module, given, _out: read.append(given[0].shape[1]))
    ahead = LookAhead(model, PROMPT, most=8)
    text_of(ahead, SampleConfig(temperature=0.5), 32 - len(PROMPT))
    first, *others = read
    assert (first, len(read)) == (len(PROMPT), ahead.passes)
    assert max(others) <= 1 + 8


def test_a_text_that_repeats_itself_needs_few_passes():
    model = model_of()
    with torch.no_grad():  # 3 follows on everything
        model.ln_f.weight.zero_()
        model.ln_f.bias.copy_(99 * model.wte.weight[3])
    ahead = LookAhead(model, [3, 3], most=8)
    text, _ = text_of(ahead, SampleConfig(temperature=0), 28)
    assert text == [3] * 30
    assert ahead.passes < 10


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.integers(1, 9))
def test_a_guess_is_what_followed_the_same_tokens(text, most):
    guesses = Guesses()
    for end in range(1, len(text) + 1):  # as it grows, so it is asked
        guess = guesses.after(text[:end], most)
    if guess:
        ends = [n for n in range(2, len(text)) if text[n - 2 : n] == text[-2:]]
        assert guess in [list(islice(cycle(text[n:]), most)) for n in ends]
    else:
        assert not any(text[n - 2 : n] == text[-2:] for n in range(2, len(text)))


def test_tokens_from_elsewhere_may_come_in_between():
    """As in a chat: after a guess, a person goes on, or takes back what ended the answer."""
    model, config = model_of(), SampleConfig(temperature=0)
    ahead, plain = LookAhead(model, PROMPT, most=8), Reader(model, [PROMPT])
    for more in ([1, 2, 3], [4], [], [5, 5, 5, 1, 2]):
        for reader in (ahead, plain):
            text_of(reader, config, 5)
            reader.rows[0].pop()
            reader.append(0, more)
        assert ahead.rows == plain.rows
        torch.testing.assert_close(ahead.predict(), plain.predict(), rtol=1e-4, atol=1e-5)


def test_several_texts_are_refused():
    model = model_of()
    with pytest.raises(UserError, match=r"look_ahead=4: use 0 for several texts at once"):
        reader_for(model, [[1], [2]], SampleConfig(look_ahead=4))
    assert type(reader_for(model, [[1], [2]], SampleConfig())) is Reader
    assert type(reader_for(model, [[1]], SampleConfig(look_ahead=4))) is LookAhead
