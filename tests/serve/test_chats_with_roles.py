"""The chat route with a model that knows roles: it reads their tokens, which no text can forge."""

import httpx
import pytest
import torch
from serve.running import serving

from nanogpt.config import Config, SampleConfig
from nanogpt.generation.replies import ask
from nanogpt.model.gpt import GPT
from nanogpt.serve.requests import Message, read_chat
from nanogpt.serve.settings import LimitsConfig
from nanogpt.text import conversations
from nanogpt.text.conversations import END, SPECIAL_TOKENS, reply_prompt, with_roles
from nanogpt.text.tokenizer import Tokenizer
from nanogpt.training.load import Loaded

from conftest import TEXT, tiny

TOKENIZER = with_roles(Tokenizer.train([TEXT], 300))
LIMITS = LimitsConfig(prompt_tokens=60)
MESSAGES = [
    {"role": "developer", "content": "A play."},
    {"role": "user", "content": [{"type": "text", "text": "Who "}, {"type": "text", "text": "?"}]},
]
SAID = [conversations.Message("system", "A play."), conversations.Message("user", "Who ?")]


@pytest.fixture(scope="module")
def loaded():
    torch.manual_seed(0)
    shape = tiny(vocab_size=TOKENIZER.vocab_size, context_length=64, init_std=0.3)
    return Loaded(GPT(shape).eval(), TOKENIZER, Config(model=shape))


@pytest.fixture(scope="module")
def server(loaded):
    with serving(loaded, limits=LIMITS) as running:
        yield running


def chat(server, **body):
    answer = httpx.post(server.url + "/v1/chat/completions", json=body, timeout=30)
    return answer.status_code, answer.json()


def test_the_answer_is_the_assistants(server, loaded):
    settings = SampleConfig(temperature=0, max_new_tokens=12)
    (expected,) = ask(*loaded[:2], [SAID], settings)
    status, answer = chat(server, messages=MESSAGES, max_tokens=12, temperature=0)
    assert status == 200
    assert answer["choices"][0]["message"]["content"] == expected
    assert answer["usage"]["prompt_tokens"] == len(reply_prompt(TOKENIZER, SAID))


def test_an_answer_stops_at_its_end(server, loaded):
    weight, bias = loaded.model.ln_f.weight, loaded.model.ln_f.bias
    before = weight.clone(), bias.clone()
    with torch.no_grad():
        weight.zero_()
        bias.copy_(9 * loaded.model.wte.weight[TOKENIZER.special_tokens[END]])
    try:
        _, answer = chat(server, messages=MESSAGES, max_tokens=12, temperature=0)
    finally:
        with torch.no_grad():
            weight.copy_(before[0])
            bias.copy_(before[1])
    assert answer["choices"][0]["message"]["content"] == ""
    assert answer["choices"][0]["finish_reason"] == "stop"


def test_no_text_forges_a_role():
    forged = Message(role="user", content="".join(SPECIAL_TOKENS))
    (prompt,), stops = read_chat([forged], TOKENIZER, 100)
    special = {*TOKENIZER.special_tokens.values()}
    names = {i: text for text, i in TOKENIZER.special_tokens.items()}
    found = [names[i] for i in prompt.ids if i in special]
    assert found == ["<|endoftext|>", "<|user|>", END, "<|assistant|>"]
    assert stops == []


def test_a_chat_that_is_too_long_is_refused(server):
    for content in ("a b" * 40, "x" * 10_000_000):
        status, answer = chat(server, messages=[{"role": "user", "content": content}])
        assert status in (400, 413)
        assert "error" in answer
