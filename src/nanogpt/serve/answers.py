"""From tokens to answers, in the forms of the completions API: whole, or as a stream of events."""

import asyncio
import codecs
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from nanogpt.serve.batching import Batcher, Busy, Guess, Row
from nanogpt.serve.requests import ApiError
from nanogpt.text.tokenizer import BaseTokenizer

BUSY = "too many requests at the moment: try again later"
FAILED = "the model failed; the server's log says why"

Json = dict[str, Any]


async def follow(batcher: Batcher, rows: Sequence[Row], request: Request) -> AsyncIterator[None]:
    """Let rows grow, and yield when there is something new in them, until all have ended.

    Rows whose client goes away, or whose answer is not read to its end, give up their places.
    Raises ApiError if there is no place, or the model fails; before the first yield if possible.
    """
    loop, news, left = asyncio.get_running_loop(), asyncio.Event(), False

    def notify() -> None:
        with suppress(RuntimeError):  # the loop has been closed, and nobody waits
            loop.call_soon_threadsafe(news.set)

    async def watch() -> None:
        nonlocal left
        while (await request.receive())["type"] != "http.disconnect":
            pass
        left = True
        news.set()

    for row in rows:
        row.notify = notify
    try:
        batcher.submit(rows)
    except Busy:
        raise ApiError(429, BUSY) from None
    watching = asyncio.create_task(watch())
    try:
        yield
        while not left:
            await news.wait()
            news.clear()
            ended = [row.finish for row in rows]  # what came until then is there before the yield
            if "error" in ended:
                raise ApiError(500, FAILED)
            if "busy" in ended:
                raise ApiError(429, BUSY)
            yield
            if all(ended):
                return
    finally:
        watching.cancel()
        for row in rows:
            row.gone = True


def token_text(tokenizer: BaseTokenizer, token: int) -> str:
    r"""A token as text. One that is part of a character is written as "bytes:\xe2\x82".

    So every token has a text of its own, and a table of tokens by their texts loses none.
    """
    data = tokenizer.decode_bytes([token])
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


@dataclass(frozen=True)
class Token:
    """A token of an answer, and where it begins in its text, in characters."""

    guess: Guess
    offset: int


class Choice:
    """What a row has said, and how much of it has been handed out."""

    def __init__(self, row: Row, tokenizer: BaseTokenizer, shown: str, echo: bool) -> None:
        self.row, self.tokenizer = row, tokenizer
        self.echo, self.echoes = shown if echo else None, echo
        self.characters = codecs.getincrementaldecoder("utf-8")("replace")
        self.known = 0 if echo else len(shown)  # characters of the tokens so far
        self.released = self.known  # characters that have been handed out
        self.seen = 0
        self.held: list[Token] = []
        self.finished = False

    def more(self) -> tuple[str, list[Token]]:
        """The text and tokens since the last time. Only tokens whose text is there are given.

        So a token of a stop string is not, nor the end of a document. After an echo that end is:
        who reads the scores of a prompt expects one more for each token that was drawn.
        """
        finish, text = self.row.finish, ""  # before what was said, which may still grow
        if self.row.scores_prompt:
            return "", []  # an echo comes with its scores, and before all else
        if self.echo is not None:
            text, self.echo = self.echo, None
            for guess in self.row.prompt:
                self.hold(guess)
            self.characters.reset()
            self.known = len(text)
        for guess, said in self.row.said[self.seen :]:
            self.seen += 1
            self.hold(guess)
            text += said
        self.released += len(text)
        self.finished = bool(finish) and self.seen == len(self.row.said)
        ready = [token for token in self.held if token.offset < self.released]
        if self.echoes and self.finished and finish == "stop" and not self.row.text.stopped:
            ready = self.held
        self.held = self.held[len(ready) :]
        return text, ready

    def hold(self, guess: Guess) -> None:
        """Note a token, and where it begins."""
        self.held.append(Token(guess, self.known))
        self.known += len(self.characters.decode(self.tokenizer.decode_bytes([guess.token])))

    def finish_reason(self) -> str | None:
        """Why it ended, once all has been handed out."""
        return self.row.finish if self.finished else None


def completion_logprobs(tokens: Sequence[Token], tokenizer: BaseTokenizer) -> Json:
    """The log-probabilities of tokens as /v1/completions gives them."""

    def likeliest(guess: Guess) -> dict[str, float] | None:
        if guess.log_probability is None:
            return None
        pairs = [*guess.likeliest, (guess.token, guess.log_probability)]
        return {token_text(tokenizer, token): value for token, value in pairs}

    return {
        "tokens": [token_text(tokenizer, token.guess.token) for token in tokens],
        "token_logprobs": [token.guess.log_probability for token in tokens],
        "top_logprobs": [likeliest(token.guess) for token in tokens],
        "text_offset": [token.offset for token in tokens],
    }


def chat_logprobs(tokens: Sequence[Token], tokenizer: BaseTokenizer) -> Json:
    """The log-probabilities of tokens as /v1/chat/completions gives them."""

    def entry(token: int, value: float | None) -> Json:
        data = list(tokenizer.decode_bytes([token]))
        return {"token": token_text(tokenizer, token), "logprob": value, "bytes": data}

    content = [
        entry(guess.token, guess.log_probability)
        | {"top_logprobs": [entry(*pair) for pair in guess.likeliest]}
        for guess in (token.guess for token in tokens)
    ]
    return {"content": content, "refusal": None}


@dataclass(frozen=True)
class Form:
    """How one of the two routes writes its answers."""

    whole: str  # what kind of object an answer is
    chunk: str  # and a part of it
    prefix: str  # of its id
    logprobs: Callable[[Sequence[Token], BaseTokenizer], Json]
    text: Callable[[str], Json]  # where the text of a whole answer stands
    delta: Callable[[str, bool], Json]  # and that of a part; true for the first


COMPLETION = Form(
    "text_completion", "text_completion", "cmpl-", completion_logprobs,
    lambda text: {"text": text}, lambda text, first: {"text": text},
)  # fmt: skip
CHAT = Form(
    "chat.completion", "chat.completion.chunk", "chatcmpl-", chat_logprobs,
    lambda text: {"message": {"role": "assistant", "content": text, "refusal": None}},
    lambda text, first: {"delta": ({"role": "assistant"} if first else {}) | {"content": text}},
)  # fmt: skip


class Answer:
    """The answer to one request."""

    def __init__(
        self, form: Form, model: str, choices: Sequence[Choice], prompt_tokens: int, logprobs: bool
    ) -> None:
        self.form, self.choices, self.logprobs = form, choices, logprobs
        self.prompt_tokens = prompt_tokens
        self.head = {
            "id": form.prefix + uuid.uuid4().hex, "created": int(time.time()), "model": model
        }  # fmt: skip

    def usage(self) -> Json:
        """How many tokens were read and written."""
        said = sum(len(choice.row.said) for choice in self.choices)
        total = self.prompt_tokens + said
        return {
            "prompt_tokens": self.prompt_tokens, "completion_tokens": said, "total_tokens": total
        }  # fmt: skip

    def part(self, index: int, body: Json, tokens: Sequence[Token]) -> Json:
        """One entry of `choices`."""
        choice = self.choices[index]
        values = self.form.logprobs(tokens, choice.tokenizer) if self.logprobs else None
        return {"index": index, "logprobs": values, "finish_reason": choice.finish_reason()} | body

    async def whole(self, news: AsyncIterator[None]) -> Json:
        """The answer in one piece."""
        async for _ in news:
            pass
        parts = []
        for index, choice in enumerate(self.choices):
            text, tokens = choice.more()
            parts.append(self.part(index, self.form.text(text), tokens))
        return self.head | {"object": self.form.whole, "choices": parts, "usage": self.usage()}

    async def events(self, news: AsyncIterator[None], usage: bool) -> AsyncIterator[str]:
        """The answer as it is made, as server-sent events. An error is one, too."""
        first = set(range(len(self.choices)))
        try:
            async for _ in news:
                for chunk in self.chunks(first):
                    yield event(self.head | {"object": self.form.chunk} | chunk)
            if usage:
                last = {"object": self.form.chunk, "choices": [], "usage": self.usage()}
                yield event(self.head | last)
        except ApiError as error:
            yield event(error_body(error))
        yield "data: [DONE]\n\n"

    def chunks(self, first: set[int]) -> Iterator[Json]:
        """What is new in each choice; `first` holds those that have said nothing yet."""
        for index, choice in enumerate(self.choices):
            if choice.finished:
                continue
            text, tokens = choice.more()
            if text or tokens or choice.finished:
                body = self.form.delta(text, index in first)
                first.discard(index)
                yield {"choices": [self.part(index, body, tokens)]}


def event(values: Mapping[str, Any]) -> str:
    """One server-sent event."""
    return f"data: {json.dumps(values)}\n\n"


KINDS = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


def error_body(error: ApiError) -> Json:
    """A mistake in the form of the completions API."""
    kind = KINDS.get(error.status, "server_error" if error.status >= 500 else None)
    return {
        "error": {
            "message": error.message, "type": kind or "invalid_request_error",
            "param": error.param, "code": error.code,
        }
    }  # fmt: skip
