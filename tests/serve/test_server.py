"""The server as clients see it: a real one, on a free port, in a thread."""

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from operator import itemgetter
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from serve.running import Running, serving

from nanogpt import generate
from nanogpt.config import SampleConfig
from nanogpt.device import resolve
from nanogpt.evaluation.loss import token_losses
from nanogpt.generation.reader import Reader
from nanogpt.generation.stream import stream
from nanogpt.serve.requests import Message, chat_prompt
from nanogpt.serve.settings import LimitsConfig
from nanogpt.training.load import Loaded, load

PROMPT = "DUKE:\nIf"  # 5 tokens; the model sees 16
JSON = {"content-type": "application/json"}
LIMITS = LimitsConfig(rows=4, waiting=200, new_tokens=100_000, prompt_tokens=100)


@pytest.fixture(scope="module")
def loaded(trained_run: Callable[..., Path]) -> Loaded:
    return load(trained_run())


@pytest.fixture(scope="module")
def server(loaded: Loaded) -> Iterator[Running]:
    with serving(loaded, limits=LIMITS) as running:
        yield running


@pytest.fixture
def client(server: Running) -> Iterator[openai.OpenAI]:
    with server.client() as client:
        yield client


@pytest.fixture
def slow(loaded: Loaded) -> Iterator[Loaded]:
    """The model, but a forward pass takes a fiftieth of a second."""
    hook = loaded.model.h[0].register_forward_pre_hook(lambda *_: time.sleep(0.02))
    yield loaded
    hook.remove()


def post(server: Running, path: str, body: Any, **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes | str) else json.dumps(body)
    return httpx.post(server.url + path, content=content, headers={**JSON, **headers}, timeout=30)


def completion(server: Running, **body: Any) -> dict[str, Any]:
    answer = post(server, "/v1/completions", {"prompt": PROMPT, "seed": 1, **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


def refusal(server: Running, path: str, body: Any, status: int = 400) -> dict[str, Any]:
    answer = post(server, path, body)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert "\n" not in error["message"]
    return error


# What the openai client sees.


def test_models_are_listed_by_name(client):
    assert [model.id for model in client.models.list()] == ["small"]
    assert client.models.retrieve("small").object == "model"
    with pytest.raises(openai.NotFoundError, match="there is no model 'large'"):
        client.completions.create(model="large", prompt=PROMPT)


def test_a_completion_is_what_generate_says(client, loaded):
    model, tokenizer, _ = loaded
    expected = generate(
        model, tokenizer, PROMPT, max_new_tokens=40, temperature=0.7, top_k=0, seed=5
    )
    answer = client.completions.create(
        model="small", prompt=PROMPT, max_tokens=40, temperature=0.7, seed=5, echo=True
    )
    assert answer.object == "text_completion"
    assert answer.choices[0].text == expected
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.model_dump(exclude_none=True) == {
        "prompt_tokens": len(tokenizer.encode(PROMPT)), "completion_tokens": 40,
        "total_tokens": len(tokenizer.encode(PROMPT)) + 40,
    }  # fmt: skip


def test_settings_that_the_api_does_not_have_are_taken_too(client, loaded):
    extra = {"top_k": 3, "min_p": 0.05, "repetition_penalty": 1.2}
    expected = generate(*loaded[:2], PROMPT, max_new_tokens=20, temperature=1.0, seed=2, **extra)
    answer = client.completions.create(
        model="small", prompt=PROMPT, max_tokens=20, seed=2, extra_body=extra
    )
    assert PROMPT + answer.choices[0].text == expected


def test_samples_are_those_of_generate_with_the_same_seed(client, loaded):
    model, tokenizer, _ = loaded
    config = SampleConfig(max_new_tokens=12, temperature=1.0, top_k=0, seed=3)
    texts = ["", "", ""]
    for piece in stream(Reader(model, [tokenizer.encode(PROMPT)] * 3), tokenizer, config):
        texts[piece.row] += piece.text
    answer = client.completions.create(model="small", prompt=PROMPT, max_tokens=12, n=3, seed=3)
    assert [choice.text for choice in answer.choices] == texts
    assert len(set(texts)) == 3
    again = client.completions.create(
        model="small", prompt=["a", PROMPT], max_tokens=12, n=3, seed=3
    )
    assert [choice.text for choice in again.choices[3:]] == texts
    assert [choice.index for choice in again.choices] == [0, 1, 2, 3, 4, 5]


def test_without_a_seed_answers_differ(client):
    texts = {
        client.completions.create(model="small", prompt=PROMPT, max_tokens=30).choices[0].text
        for _ in range(3)
    }
    assert len(texts) == 3


@pytest.mark.parametrize("logprobs", [None, 2])
@pytest.mark.parametrize("stop", [None, "e", ["zzz", " k"]])
def test_a_stream_joined_is_the_whole_answer(client, stop, logprobs):
    asked = {"model": "small", "prompt": [PROMPT, "FOOL"], "max_tokens": 30, "n": 2, "seed": 4,
             "stop": stop, "logprobs": logprobs, "echo": True}  # fmt: skip
    whole = client.completions.create(**asked)
    chunks = list(
        client.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    )
    assert chunks[-1].usage == whole.usage
    assert chunks[-1].choices == []
    assert len({chunk.id for chunk in chunks}) == 1
    parts = [choice for chunk in chunks for choice in chunk.choices]
    assert len(parts) > 20
    for choice in whole.choices:
        mine = [part for part in parts if part.index == choice.index]
        assert "".join(part.text for part in mine) == choice.text
        assert [part.finish_reason for part in mine[:-1]] == [None] * (len(mine) - 1)
        assert mine[-1].finish_reason == choice.finish_reason
        if logprobs is not None:
            for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
                joined = [value for part in mine for value in getattr(part.logprobs, name)]
                # Observed: 1e-6, between two runs in batches of other sizes.
                expected = getattr(choice.logprobs, name)
                assert joined == expected or name in ("token_logprobs", "top_logprobs")
                assert len(joined) == len(expected)


def test_raw_streams_end_with_done(server):
    answer = post(server, "/v1/completions", {"prompt": PROMPT, "max_tokens": 3, "stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = answer.text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    assert all(json.loads(event.removeprefix("data: ")) for event in events[:-2])


def test_an_answer_ends_before_a_stop_text_and_says_so(client):
    asked = {"model": "small", "prompt": PROMPT, "max_tokens": 60, "seed": 1, "logprobs": 0}
    whole = client.completions.create(**asked).choices[0]
    stop = whole.text[7:10]
    choice = client.completions.create(**asked, stop=stop).choices[0]
    assert choice.text == whole.text[: whole.text.index(stop)]
    assert choice.finish_reason == "stop"
    assert len(choice.logprobs.tokens) < len(whole.logprobs.tokens)
    assert choice.logprobs.text_offset[-1] < len(PROMPT) + len(choice.text)


def test_the_end_of_a_document_ends_an_answer(server, loaded):
    """Weights of zero make all tokens equally likely, so this one comes soon."""
    end = loaded.tokenizer.special_tokens["<|endoftext|>"]
    original = loaded.model.wte.weight.data.clone()
    try:
        loaded.model.wte.weight.data *= 0
        answer = completion(server, max_tokens=50_000, temperature=5, logprobs=0)
    finally:
        loaded.model.wte.weight.data.copy_(original)
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert "<|endoftext|>" not in answer["choices"][0]["logprobs"]["tokens"]
    assert end in loaded.tokenizer.vocabulary


def test_tokens_carry_the_models_own_log_probabilities(client, loaded):
    model, tokenizer, _ = loaded
    config = SampleConfig(max_new_tokens=20, temperature=0.5, top_k=0, seed=3)
    reader = Reader(model, [tokenizer.encode(PROMPT)])
    pieces = list(stream(reader, tokenizer, config, top=3))
    choice = client.completions.create(
        model="small", prompt=PROMPT, max_tokens=20, temperature=0.5, seed=3, logprobs=3
    ).choices[0]
    expected = [piece.log_probability for piece in pieces]
    assert choice.logprobs.token_logprobs == pytest.approx(expected, abs=1e-4)  # observed: 1e-6
    for piece, top in zip(pieces, choice.logprobs.top_logprobs, strict=True):
        assert sorted(top.values())[-1] == pytest.approx(piece.likeliest[0][1], abs=1e-4)
        assert 3 <= len(top) <= 4
    assert choice.logprobs.text_offset[0] == len(PROMPT)


def test_chats_are_lines_of_a_text(client, loaded):
    messages = [
        {"role": "system", "content": "A play."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "Who "}, {"type": "text", "text": "?"}],
        },
        {"role": "assistant", "content": "I.", "name": "FOOL"},
    ]
    text, stops = chat_prompt([Message(**message) for message in messages])
    assert text == "system: A play.\nuser: Who ?\nFOOL: I.\nassistant:"
    assert stops == ["\nFOOL:", "\nassistant:", "\nsystem:", "\nuser:"]
    asked = {"model": "small", "messages": messages, "seed": 1, "max_completion_tokens": 15}
    answer = client.chat.completions.create(**asked, logprobs=True, top_logprobs=2)
    choice = answer.choices[0]
    expected = generate(*loaded[:2], text, max_new_tokens=15, temperature=1.0, top_k=0, seed=1)
    assert text + choice.message.content == expected
    assert choice.message.role == "assistant"
    tokens = choice.logprobs.content
    assert (
        b"".join(bytes(t.bytes) for t in tokens).decode(errors="replace") == choice.message.content
    )
    assert all(len(token.top_logprobs) == 2 for token in tokens)
    chunks = list(client.chat.completions.create(**asked, stream=True))
    assert chunks[0].choices[0].delta.role == "assistant"
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert said == choice.message.content
    assert chunks[-1].choices[0].finish_reason == "length"


# What lm-evaluation-harness sends and expects (lm_eval/models/openai_completions.py, v0.4.9).


def harness_scores(answer: dict[str, Any], ctxlens: list[int]) -> list[tuple[float, bool]]:
    """The log-likelihood of each continuation, and whether greedy choice would write it.

    What the harness does: it cuts off the context and the one token that was generated.
    """
    scores = []
    for choice, ctxlen in zip(
        sorted(answer["choices"], key=itemgetter("index")), ctxlens, strict=True
    ):
        part = choice["logprobs"]
        values = part["token_logprobs"][ctxlen:-1]
        tops = part["top_logprobs"][ctxlen:-1]
        greedy = all(v == max(top.values()) for v, top in zip(values, tops, strict=True))
        scores.append((sum(values), greedy))
    return scores


def test_log_likelihoods_for_the_harness_are_those_of_the_evaluation(server, loaded):
    model, tokenizer, _ = loaded
    texts = [("DUKE:\n", "If 3 kings hold"), ("If 12 kings hold the crown, then ", "144 fools"),
             ("If 5 kings hold the crown", ", then"), ("FOOL:", "\xff")]  # fmt: skip
    ids = [(tokenizer.encode(context), tokenizer.encode(rest)) for context, rest in texts]
    prompts = [context + rest for context, rest in ids]
    request = {"model": "small", "prompt": prompts, "temperature": 0, "max_tokens": 1,
               "logprobs": 1, "seed": 1234, "echo": True}  # fmt: skip
    answer = post(server, "/v1/completions", request)
    assert answer.status_code == 200, answer.text
    scores = harness_scores(answer.json(), [len(context) for context, _ in ids])
    best = []
    for (context, rest), (value, greedy) in zip(ids, scores, strict=True):
        whole = np.array(context + rest)
        losses = np.concatenate(list(token_losses(model, whole, resolve("cpu", "float32"))))
        assert value == pytest.approx(-losses[len(context) - 1 :].sum(), abs=1e-4)  # observed: 2e-6
        reader = Reader(model, [context])  # what greedy choice writes, where nothing is forgotten
        written = [piece.token for piece in stream(reader, tokenizer, SampleConfig(
            temperature=0, max_new_tokens=len(rest)))]  # fmt: skip
        if len(whole) <= model.config.context_length:
            assert greedy == (written == rest)
        best.append(greedy)
    # A continuation that greedy choice does write: the harness must see that.
    reader = Reader(model, [ids[0][0]])
    greedy = SampleConfig(temperature=0, max_new_tokens=6)
    prompt = ids[0][0] + [piece.token for piece in stream(reader, tokenizer, greedy)]
    answer = post(server, "/v1/completions", {**request, "prompt": [prompt]}).json()
    assert harness_scores(answer, [len(ids[0][0])])[0][1] is True
    assert not all(best)


@pytest.mark.parametrize("prompt", [PROMPT, [PROMPT], [68, 85, 75], [[68, 85, 75]]])
@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_can_be_scored_without_writing(server, prompt, stream):
    asked = {"prompt": prompt, "max_tokens": 0, "echo": True, "logprobs": 1, "stream": stream}
    answer = post(server, "/v1/completions", asked)
    lines = answer.text.split("\n\n")[:1] if stream else [answer.text]
    (choice,) = json.loads(lines[0].removeprefix("data: "))["choices"]
    part = choice["logprobs"]
    assert "".join(part["tokens"]) == choice["text"] == (PROMPT if PROMPT in prompt else "DUK")
    assert part["token_logprobs"][0] is None
    assert all(value < 0 for value in part["token_logprobs"][1:])
    assert choice["finish_reason"] == "length"


def test_the_harness_finds_the_tokenizer(server, loaded):
    tokenizer = loaded.tokenizer
    info = httpx.get(server.url + "/tokenizer_info").json()
    asked = {"prompt": info["eos_token"], "add_special_tokens": False}
    end = post(server, "/tokenize", asked).json()["tokens"]
    assert end == [tokenizer.special_tokens["<|endoftext|>"]]
    text = "If 3 kings é <|endoftext|>"
    ids = post(server, "/tokenize", {"prompt": text, "add_special_tokens": False}).json()
    assert ids["tokens"] == tokenizer.encode(text)
    assert ids["count"] == len(ids["tokens"])
    assert end[0] not in ids["tokens"]
    assert post(server, "/detokenize", {"tokens": ids["tokens"]}).json() == {"prompt": text}
    # A prefix of one token, as for rolling log-likelihoods.
    answer = completion(server, prompt=[end + ids["tokens"]], max_tokens=1, echo=True, logprobs=1)
    assert len(answer["choices"][0]["logprobs"]["tokens"]) == len(ids["tokens"]) + 2


def test_every_token_has_a_text_of_its_own(server, loaded):
    part = completion(server, max_tokens=40, temperature=9, logprobs=20)["choices"][0]["logprobs"]
    assert any(token.startswith("bytes:\\x") for top in part["top_logprobs"] for token in top)
    assert all(len(top) in (20, 21) for top in part["top_logprobs"])


# What is refused.

MISTAKES = {
    "unknown field": ({"max_tokenz": 3}, "max_tokenz"),
    "suffix": ({"suffix": "x"}, "suffix"),
    "penalty": ({"presence_penalty": 0.5}, "presence_penalty"),
    "bias": ({"logit_bias": {"5": 1}}, "logit_bias"),
    "best of": ({"best_of": 2}, "best_of"),
    "wrong type": ({"max_tokens": "3"}, "max_tokens"),
    "too many tokens": ({"max_tokens": 100_001}, "max_tokens"),
    "nothing to do": ({"max_tokens": 0}, "max_tokens"),
    "negative": ({"temperature": -1}, "temperature"),
    "nearly greedy": ({"temperature": 1e-9}, None),
    "many choices": ({"n": 129}, "n"),
    "too many texts": ({"n": 100, "prompt": ["a", "b"]}, "n"),
    "too many prompts": ({"prompt": ["a"] * 129}, "prompt"),
    "long prompt": ({"prompt": "a b " * 500}, "prompt"),
    "very long prompt": ({"prompt": "a" * 500_000}, "prompt"),
    "unknown id": ({"prompt": [10**9]}, "prompt"),
    "negative id": ({"prompt": [-1]}, "prompt"),
    "mixed prompt": ({"prompt": ["a", 1]}, "prompt"),
    "many likeliest": ({"logprobs": 21}, "logprobs"),
}  # fmt: skip


@pytest.mark.parametrize(("body", "param"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_named_in_the_apis_own_form(server, body, param):
    error = refusal(server, "/v1/completions", {"prompt": PROMPT, **body})
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert server.idle()


def test_what_clients_send_without_effect_is_taken(server):
    nothing = {"presence_penalty": 0, "frequency_penalty": 0.0, "logit_bias": {}, "best_of": 1,
               "suffix": None, "stop": None, "user": "me", "stream": False}  # fmt: skip
    assert completion(server, **nothing)["choices"]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff", b"null", b"[]", b'{"prompt": NaN}', b'{"temperature": NaN}',
     b'{"prompt": "\\ud800"}', b'{"\\ud800": 1}', b'{"seed": ' + b"9" * 5000 + b"}", b"[" * 50_000,
     b'{"prompt": ' + b"[" * 50_000],
)  # fmt: skip
def test_a_body_that_is_no_request_is_one_line(server, body):
    refusal(server, "/v1/completions", body)


def test_a_chat_without_text_or_with_unknown_roles_is_refused(server):
    picture = [{"type": "image_url", "image_url": "x"}]
    for messages in (
        [], "x", [{"role": "user"}], [{"role": "king", "content": "x"}],
        [{"role": "user", "content": picture}],
    ):  # fmt: skip
        assert (
            refusal(server, "/v1/chat/completions", {"messages": messages})["param"] == "messages"
        )


def test_an_unknown_page_is_an_error_of_the_same_form(server):
    assert httpx.get(server.url + "/nope").json()["error"]["message"] == "/nope: Not Found"
    assert httpx.get(server.url + "/v1/completions").status_code == 405
    assert httpx.get(server.url + "/api/nope").json() == {"error": "/api/nope: Not Found"}


# Places, and clients that go away.


def test_a_full_server_says_so_and_frees_the_places_of_those_who_left(slow):
    limits = LimitsConfig(rows=1, waiting=0, new_tokens=100_000)
    body = {"prompt": PROMPT, "max_tokens": 100_000}
    with serving(slow, limits=limits) as server:
        for streams in (True, False):
            ask = {**body, "stream": streams}
            connection = http.client.HTTPConnection(server.url.removeprefix("http://"))
            connection.request("POST", "/v1/completions", json.dumps(ask), JSON)
            while not server.batcher.running:
                time.sleep(0.01)
            refused = post(server, "/v1/completions", body)
            assert refused.status_code == 429
            assert refused.json()["error"]["type"] == "rate_limit_error"
            assert refused.headers["retry-after"] == "1"
            connection.close()  # and the text would have grown for half an hour
            assert server.idle()


def test_a_request_that_takes_too_long_gets_what_there_is(slow):
    with serving(slow, limits=LimitsConfig(seconds=0.3, new_tokens=100_000)) as server:
        began = time.monotonic()
        answer = completion(server, max_tokens=100_000)
        assert time.monotonic() - began < 5
        assert answer["choices"][0]["finish_reason"] == "length"
        assert 0 < answer["usage"]["completion_tokens"] < 1000


def test_a_server_that_ends_does_not_wait_for_long_answers(slow):
    with serving(slow, limits=LimitsConfig(new_tokens=100_000)) as server:
        connection = http.client.HTTPConnection(server.url.removeprefix("http://"))
        ask = {"prompt": PROMPT, "max_tokens": 100_000, "stream": True}
        connection.request("POST", "/v1/completions", json.dumps(ask), JSON)
        connection.getresponse().read(100)
        began = time.monotonic()
    assert time.monotonic() - began < 10
    connection.close()
    assert not server.batcher.thread.is_alive()


def test_a_model_that_fails_is_an_error_and_not_the_end(server, loaded, caplog):
    broken = loaded.model.wte.weight.data[0, 0].clone()
    try:
        loaded.model.wte.weight.data[0, 0] = float("nan")
        error = refusal(server, "/v1/completions", {"prompt": [0], "temperature": 0}, status=500)
        assert error["type"] == "server_error"
        ask = {"prompt": [0], "temperature": 0, "stream": True}
        assert '"server_error"' in post(server, "/v1/completions", ask).text
    finally:
        loaded.model.wte.weight.data[0, 0] = broken
    assert "weights are not numbers" in caplog.text
    assert completion(server)["choices"]


# Safety.

SAFE = {
    "x-content-type-options": "nosniff", "x-frame-options": "DENY", "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'",
}  # fmt: skip


def test_every_answer_has_the_headers_of_safety(server):
    answers = [
        httpx.get(server.url + "/health"), httpx.get(server.url + "/nope"),
        httpx.get(server.url + "/openapi.json"), post(server, "/v1/completions", "{"),
        post(server, "/v1/completions", {"prompt": "a", "stream": True}),
        httpx.get(server.url + "/health", headers={"host": "evil.example"}),
    ]  # fmt: skip
    for answer in answers:
        assert SAFE.items() <= dict(answer.headers).items()
        assert "server" not in answer.headers


@pytest.mark.parametrize(
    ("host", "status"),
    [("127.0.0.1", 200), ("localhost:1", 200), ("[::1]:80", 200), ("evil.example", 403),
     ("127.0.0.1.evil.example", 403), ("evil.example:8000", 403), ("[", 403), ("", 403)],
)  # fmt: skip
def test_a_name_that_somebody_else_gave_this_machine_is_refused(server, host, status):
    """DNS rebinding: evil.example now means 127.0.0.1, and its page asks "its own" server."""
    assert httpx.get(server.url + "/v1/models", headers={"host": host}).status_code == status


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:1", "", "http://["]
)
def test_pages_of_others_may_not_ask(server, origin):
    headers = {"origin": origin, "content-type": "text/plain"}
    answer = httpx.post(server.url + "/tokenize", json={"prompt": "a"}, headers=headers)
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers
    own = httpx.post(server.url + "/tokenize", json={"prompt": "a"}, headers={"origin": server.url})
    assert own.status_code == 200


def test_a_long_request_is_refused_before_it_has_come(loaded):
    with serving(loaded, limits=LimitsConfig(body_bytes=1000)) as server:
        assert post(server, "/tokenize", {"prompt": "a" * 900}).status_code == 200
        assert post(server, "/tokenize", {"prompt": "a" * 1000}).status_code == 413

        def endless() -> Iterator[bytes]:
            while True:
                yield b"a" * 1000

        with contextlib.suppress(httpx.WriteError):  # it may be told while it still writes
            answer = httpx.post(server.url + "/tokenize", content=endless(), headers=JSON)
            assert answer.status_code == 413


def test_a_request_that_never_arrives_is_given_up(loaded):
    with serving(loaded, limits=LimitsConfig(seconds=0.2)) as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            head = f"POST /tokenize HTTP/1.1\r\nhost: {host}\r\ncontent-length: 100\r\n\r\n"
            connection.sendall(head.encode())
            assert connection.recv(100).startswith(b"HTTP/1.1 408 ")


def test_with_a_token_nothing_is_given_without_it(loaded):
    token = "correct-horse-battery"
    with serving(loaded, token=token) as server:
        wrong = [
            ("authorization", b"Bearer wrong"), ("authorization", token.encode()),
            ("authorization", b"Bearer \xff"), ("cookie", b"nanogpt-0=wrong"), ("x", b""),
        ]  # fmt: skip
        for header in wrong:
            answer = httpx.get(server.url + "/v1/models", headers=[header])
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
            assert answer.json()["error"]["type"] == "authentication_error"
        assert httpx.get(server.url + "/health").status_code == 200
        assert httpx.get(server.url + "/v1/models?token=wrong").status_code == 401
        with server.client(api_key=token) as client:
            assert client.completions.create(model="small", prompt="a", max_tokens=1).choices
        with server.client(api_key="wrong") as client, pytest.raises(openai.AuthenticationError):
            client.models.list()
        with httpx.Client(base_url=server.url) as page:
            led = page.get(f"/v1/models?token={token}&a=b")
            assert led.status_code == 303
            assert led.headers["location"] == "/v1/models?a=b"
            cookie = led.headers["set-cookie"].lower()
            assert "httponly" in cookie
            assert "samesite=strict" in cookie
            assert page.get("/v1/models").status_code == 200  # with the cookie
        connection = http.client.HTTPConnection(server.url.removeprefix("http://"))
        connection.request("GET", f"//evil.example/?token={token}")
        assert connection.getresponse().headers["location"] == "/evil.example/"
        connection.close()


# Strangers.


def hammer(server: Running, examples: int) -> int:
    """Send what fits the description of the API, and what does not; how many requests."""
    sent = 0
    for found in schemathesis.openapi.from_url(server.url + "/openapi.json").get_all_operations():
        fitting = found.ok().as_strategy()
        other = found.ok().as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE)
        # What needs no parameter has no request that does not fit.
        cases = fitting | other if found.ok().body or found.ok().query else fitting

        @settings(max_examples=examples, derandomize=examples < 100, database=None,
                  suppress_health_check=list(HealthCheck))  # fmt: skip
        @given(case=cases)
        def check(case: schemathesis.Case) -> None:
            nonlocal sent
            response = case.call(timeout=10)
            assert response.status_code < 500, (case, response.text)
            assert response.headers["x-content-type-options"] == ["nosniff"]
            if response.status_code >= 400:
                assert isinstance(response.json()["error"]["message"], str)
            sent += 1

        check()
    assert server.idle()
    return sent


def test_strangers_get_answers_and_no_crash(loaded):
    with serving(loaded, limits=LimitsConfig(new_tokens=20)) as server:
        assert hammer(server, examples=8) > 40


@pytest.mark.slow
def test_thousands_of_strangers(loaded):
    with serving(loaded, limits=LimitsConfig(new_tokens=20)) as server:
        assert hammer(server, examples=300) > 1000


# Clients by the dozen.


def crowd(server: Running, clients: int, seconds: float) -> tuple[int, float]:
    """Clients that ask again and again, each answer compared with what is right.

    Gives the number of answers and how many megabytes the process grew after the first third.
    """
    expected = {
        seed: generate(*server.loaded[:2], PROMPT, max_new_tokens=5 + 3 * (seed % 9),
                       temperature=1.0, top_k=0, seed=seed)
        for seed in range(40)
    }  # fmt: skip
    began, count, wrong = time.monotonic(), [0] * clients, []

    def ask(number: int) -> None:
        with httpx.Client(base_url=server.url, timeout=60) as client:
            seed = number
            while time.monotonic() < began + seconds and not wrong:
                seed = (seed * 7 + 3) % 40
                body = {"prompt": PROMPT, "seed": seed, "echo": True, "stream": seed % 2 == 0,
                        "max_tokens": 5 + 3 * (seed % 9)}  # fmt: skip
                answer = client.post("/v1/completions", json=body)
                events = [answer.text]
                if body["stream"]:
                    events = [e.removeprefix("data: ") for e in answer.text.split("\n\n")[:-2]]
                said = "".join(json.loads(event)["choices"][0]["text"] for event in events)
                if answer.status_code != 200 or said != expected[seed]:
                    wrong.append((seed, answer.text))
                count[number] += 1

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    time.sleep(seconds / 3)
    before = resident()
    for thread in threads:
        thread.join()
    assert not wrong, wrong[0]
    assert min(count) > 0
    return sum(count), (resident() - before) / 1e6


def resident() -> int:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_answers_are_never_mixed_up(server):
    answers, _ = crowd(server, clients=8, seconds=2)
    assert answers >= 8
    assert server.idle()


@pytest.mark.slow
def test_fifty_clients_for_a_minute(loaded, capsys):
    with serving(loaded, limits=LimitsConfig()) as server:
        answers, grown = crowd(server, clients=50, seconds=60)
        with capsys.disabled():
            print(f"\n{answers / 60:.0f} requests/s, {grown:+.1f} MB in the last 40 s")
        assert grown < 20
        assert server.idle()
