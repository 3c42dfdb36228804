"""Answers to conversations: each as if it had been asked alone, and ended where it ends."""

import pytest
import torch

from nanogpt.config import SampleConfig
from nanogpt.errors import UserError
from nanogpt.generation.reader import Reader, generate
from nanogpt.generation.replies import ask
from nanogpt.generation.stream import generate_text
from nanogpt.model.gpt import GPT
from nanogpt.text.conversations import (
    END,
    ROLE_TOKENS,
    Message,
    endings,
    reply_prompt,
    with_roles,
)
from nanogpt.text.tokenizer import END_OF_TEXT, CharTokenizer

from conftest import tiny

TOKENIZER = with_roles(CharTokenizer("abcdefgh"))
GREEDY = SampleConfig(temperature=0, max_new_tokens=6)
CHATS = [[Message("user", "abcdefgh"[: 1 + n % 5])] * (1 + n % 2) for n in range(7)]


@pytest.fixture
def model():
    torch.manual_seed(3)
    model = GPT(tiny(vocab_size=TOKENIZER.vocab_size, context_length=32, init_std=0.5)).eval()
    roles = [TOKENIZER.special_tokens[name] for name in ROLE_TOKENS.values()]
    with torch.no_grad():  # else it repeats the <|assistant|> with which it is asked
        model.wte.weight[roles] *= 0.1
    return model


def test_answers_are_those_of_a_conversation_alone(model):
    together = list(ask(model, TOKENIZER, CHATS, GREEDY, batch_size=3))
    assert together == [next(ask(model, TOKENIZER, [chat], GREEDY)) for chat in CHATS]
    for chat, answer in zip(CHATS, together, strict=True):
        reader = Reader(model, [reply_prompt(TOKENIZER, chat)])
        chosen = [int(next(steps).chosen) for steps in [generate(reader, GREEDY)] for _ in range(6)]
        ends = [n for n, token in enumerate(chosen) if token in endings(TOKENIZER)]
        assert answer == TOKENIZER.decode(chosen[: ends[0] if ends else 6])
    assert len({*together}) > 3


def test_drawn_answers_depend_on_the_number_and_not_on_the_batch(model):
    drawn = SampleConfig(temperature=1, max_new_tokens=6, top_k=0, seed=5)
    whole = list(ask(model, TOKENIZER, CHATS[:1] * 6, drawn))
    assert list(ask(model, TOKENIZER, CHATS[:1] * 6, drawn, batch_size=2)) == whole
    assert len({*whole}) > 3


@pytest.mark.parametrize("name", [END, END_OF_TEXT])
def test_an_answer_ends_at_the_token_that_ends_a_message_or_a_text(model, name):
    with torch.no_grad():  # so that every token is followed by it
        model.ln_f.weight.zero_()
        model.ln_f.bias.copy_(9 * model.wte.weight[TOKENIZER.special_tokens[name]])
    assert list(ask(model, TOKENIZER, CHATS, GREEDY)) == [""] * len(CHATS)
    prompt = SampleConfig(prompt="abc", temperature=0)
    assert "".join(generate_text(model, TOKENIZER, prompt)) == ""


def test_no_answer_without_roles(model):
    with pytest.raises(UserError, match="no tokens for roles"):
        next(ask(model, CharTokenizer("abc"), CHATS, GREEDY))
