"""Sampling and generation: the right token, the right text, row by row."""

import math
from itertools import islice

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nanogpt.config import SampleConfig
from nanogpt.errors import UserError
from nanogpt.generate import Reader, generate, generate_text, prompt_ids
from nanogpt.model import GPT
from nanogpt.sampling import keep_top_k, next_token
from nanogpt.tokenizer import CharTokenizer, Tokenizer

from conftest import tiny


def draws(logits: list[float], count: int = 20_000, **settings: object) -> torch.Tensor:
    """The share of each token among many draws."""
    generators = [torch.Generator().manual_seed(0)] * count  # one after the other, from one
    rows = torch.tensor(logits).expand(count, -1)
    chosen = next_token(
        rows, SampleConfig(**{"temperature": 1.0, "top_k": 0, **settings}), generators
    )
    return torch.bincount(chosen, minlength=len(logits)) / count


def test_temperature_zero_is_argmax():
    """Trap 18: dividing by zero gives nan."""
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
    """Trap 18: masked with -inf, not with a small number."""
    assert keep_top_k(torch.tensor([[3.0, 1.0, 2.0]]), 1).tolist() == [[3.0, -math.inf, -math.inf]]
    shares = draws([math.log(3), 0.0, 0.0 - 1e-3, -1.0], top_k=2)
    assert shares[2:].tolist() == [0, 0]
    assert shares[0].item() == pytest.approx(0.75, abs=0.015)


@pytest.mark.parametrize("k", [0, 3, 99])
def test_top_k_of_everything_changes_nothing(k):
    """Trap 18: a k beyond the vocabulary is fine."""
    logits = torch.randn(2, 3)
    assert torch.equal(keep_top_k(logits, k), logits)


def test_every_row_draws_its_own_tokens(model):
    """Trap 19: rows that share a prompt must not share their text."""
    reader = Reader(model, [[1, 1, 1]] * 8)
    chosen = next(generate(reader, SampleConfig(temperature=1.0, top_k=0))).chosen
    assert len(set(chosen.tolist())) > 2


def test_same_seed_same_text_and_other_seed_other_text(model):
    def text(seed: int) -> list[int]:
        steps = generate(Reader(model, [[1, 1, 1]]), SampleConfig(seed=seed, temperature=1.0))
        return [int(step.chosen) for step in islice(steps, 12)]

    assert text(1) == text(1) != text(2)


def test_ids_beyond_the_vocabulary_are_never_chosen():
    """Trap 2: a padded vocabulary has rows that stand for nothing."""
    torch.manual_seed(0)
    model = GPT(tiny(vocab_size=64)).eval()
    steps = generate(Reader(model, [[0]] * 50), SampleConfig(temperature=5.0), 7)
    assert max(int(step.chosen.max()) for step in islice(steps, 10)) < 7


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
    with pytest.raises(UserError, match=r"sample\.prompt='': .* use only ab"):
        prompt_ids(CharTokenizer("ab"), "")


def test_a_prompt_with_unknown_characters_is_refused():
    with pytest.raises(UserError, match="the character 'z' is not in this vocabulary"):
        next(generate_text(GPT(tiny()), CharTokenizer("ab"), SampleConfig(prompt="z")))
