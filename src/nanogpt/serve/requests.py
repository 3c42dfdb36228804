"""What a request may ask for, and what it means for the rows of the batch.

The fields are those of the completions API (platform.openai.com/docs/api-reference, read in 2026),
and `top_k`, `min_p` and `repetition_penalty` of our own settings. A field that is not here is
refused; docs/serving.md has the table.
"""

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from nanogpt.config import SampleConfig
from nanogpt.errors import UserError
from nanogpt.generation.stream import prompt_ids
from nanogpt.serve.batching import Batcher, Row
from nanogpt.serve.settings import LimitsConfig
from nanogpt.text import conversations
from nanogpt.text.conversations import has_roles, reply_prompt
from nanogpt.text.tokenizer import BaseTokenizer

MOST_CHOICES = 128  # of one request: prompts times n
MOST_LIKELIEST = 20

# What is allowed, because clients send it, and must have no effect.
Nothing = Annotated[float, Field(ge=0, le=0)] | None


def whole_characters(text: str) -> str:
    """The text itself. Raises ValueError for half a character, which JSON can hold."""
    if text != text.encode("utf-8", "replace").decode():
        raise ValueError("use text that is valid Unicode")
    return text


Text = Annotated[str, AfterValidator(whole_characters)]
Stops = Text | Annotated[list[Text], Field(max_length=16)] | None


class ApiError(Exception):
    """A mistake of the client, as the completions API reports it."""

    def __init__(
        self, status: int, message: str, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code


class Strict(BaseModel):
    """A body whose fields are known and of the right type."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class StreamOptions(Strict):
    """How to stream."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None  # ignored: nothing is obfuscated


class Sampling(Strict):
    """What completions and chats have in common. None means the default."""

    model: str | None = None
    max_tokens: int | None = Field(None, ge=0)
    temperature: float | None = Field(None, ge=0, le=100)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=0, lt=2**31)
    min_p: float | None = Field(None, ge=0, lt=1)
    repetition_penalty: float | None = Field(None, ge=0.01, le=100)
    seed: int | None = Field(None, ge=0, lt=2**62)
    n: int | None = Field(None, ge=1, le=MOST_CHOICES)
    stop: Stops = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None  # ignored
    presence_penalty: Nothing = None
    frequency_penalty: Nothing = None
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None

    def sample_config(self, new_tokens: int, seed: int) -> SampleConfig:
        """The settings of one text. What was not given is the API's default, not the run's."""
        return SampleConfig(
            max_new_tokens=new_tokens, seed=seed,
            temperature=1.0 if self.temperature is None else self.temperature,
            top_k=self.top_k or 0, top_p=self.top_p or 1.0, min_p=self.min_p or 0.0,
            repetition_penalty=self.repetition_penalty or 1.0,
        )  # fmt: skip

    def stop_texts(self) -> list[str]:
        """The texts before which an answer ends."""
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or [])


class CompletionRequest(Sampling):
    """Continue one text or several."""

    prompt: Text | list[Text] | list[int] | list[list[int]] = ""
    logprobs: int | None = Field(None, ge=0, le=MOST_LIKELIEST)
    echo: bool | None = None
    best_of: Annotated[int, Field(ge=1, le=1)] | None = None
    suffix: Literal[""] | None = None


class TextPart(Strict):
    """A part of a message. Only text is understood."""

    type: Literal["text"]
    text: Text


class Message(Strict):
    """One turn of a chat."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | list[TextPart]
    name: Text | None = None

    def text(self) -> str:
        """What it says."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)


class ChatRequest(Sampling):
    """Say what comes next in a chat."""

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=0)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MOST_LIKELIEST)


class TokenizeRequest(Strict):
    """Turn a text into ids."""

    model: str | None = None
    prompt: Text
    add_special_tokens: bool | None = None  # ignored: none are ever added


class DetokenizeRequest(Strict):
    """Turn ids into a text."""

    model: str | None = None
    tokens: list[int]


def chat_prompt(messages: Sequence[Message]) -> tuple[str, list[str]]:
    """A chat as one text, and the texts before which the answer ends.

    For a model that knows no roles: one line for each turn, "name: text", and the model writes the
    next line of the assistant.
    """
    lines = [f"{message.name or message.role}: {message.text()}\n" for message in messages]
    names = {message.name or message.role for message in messages} | {"user", "assistant"}
    return "".join(lines) + "assistant:", [f"\n{name}:" for name in sorted(names)]


@dataclass(frozen=True)
class Prompt:
    """A text to continue: `shown` is what an echo says of it, `ids` what the model reads."""

    shown: str
    ids: list[int]


def read_prompt(given: str | Sequence[int], tokenizer: BaseTokenizer, longest: int) -> Prompt:
    """One prompt of a request, as text or as ids. An empty one begins a document.

    Raises ApiError if it is too long, or the tokenizer has no such id or cannot encode it.
    """
    try:
        # The tokenizer need not read a text of which each token would have too many bytes.
        most = longest * max(map(len, tokenizer.vocabulary.values()))
        if isinstance(given, str) and len(given) <= most:
            prompt = Prompt(given, prompt_ids(tokenizer, given))
        elif isinstance(given, str):
            prompt = Prompt("", [0] * (longest + 1))
        elif given:
            prompt = Prompt(tokenizer.decode(given), list(given))
        else:
            prompt = Prompt("", prompt_ids(tokenizer, ""))
    except UserError as error:
        raise ApiError(400, str(error), "prompt") from None
    return fitting(prompt, longest)


def fitting(prompt: Prompt, longest: int) -> Prompt:
    """The prompt itself. Raises ApiError if it is too long."""
    if len(prompt.ids) > longest:
        message = (
            f"the prompt has more than {longest} tokens: shorten it, or --limits.prompt-tokens"
        )
        raise ApiError(400, message, "prompt", "context_length_exceeded")
    return prompt


def read_chat(
    messages: Sequence[Message], tokenizer: BaseTokenizer, longest: int
) -> tuple[list[Prompt], list[str]]:
    """The prompt of a chat, and the texts before which the answer ends.

    A model that knows roles reads their tokens, which no text can forge, and ends its answer by
    itself. Raises ApiError as read_prompt does.
    """
    if not has_roles(tokenizer):
        text, stops = chat_prompt(messages)
        return read_prompts(text, tokenizer, longest), stops
    said = [
        conversations.Message("system" if m.role == "developer" else m.role, m.text())
        for m in messages
    ]
    # The tokenizer need not read a text of which each token would have too many bytes.
    most = longest * max(map(len, tokenizer.vocabulary.values()))
    try:
        short = sum(len(message.content) for message in said) <= most
        ids = reply_prompt(tokenizer, said) if short else [0] * (longest + 1)
    except UserError as error:
        raise ApiError(400, str(error), "messages") from None
    return [fitting(Prompt("", ids), longest)], []


def read_prompts(
    given: str | list[str] | list[int] | list[list[int]], tokenizer: BaseTokenizer, longest: int
) -> list[Prompt]:
    """All prompts of a request. Raises ApiError as read_prompt does."""
    texts: Sequence[Any] = given
    if isinstance(given, str) or not given or isinstance(given[0], int):
        texts = [given]
    if len(texts) > MOST_CHOICES:
        raise ApiError(400, f"{len(texts)} prompts: send at most {MOST_CHOICES}", "prompt")
    return [read_prompt(text, tokenizer, longest) for text in texts]


def make_rows(
    request: Sampling, prompts: Sequence[Prompt], batcher: Batcher, new_tokens: int,
    stops: Sequence[str], top: int, scores_prompt: bool,
) -> list[Row]:  # fmt: skip
    """The rows that answer a request: n for each prompt, in order.

    Sample number i of a prompt draws with seed + i, whatever else is asked, as in `generate`.
    Raises ApiError for more than the limits allow.
    """
    limits, count = batcher.limits, request.n or 1
    if new_tokens > limits.new_tokens:
        message = f"max_tokens={new_tokens}: use at most {limits.new_tokens}"
        raise ApiError(400, message, "max_tokens")
    if len(prompts) * count > min(MOST_CHOICES, limits.rows + limits.waiting):
        message = f"{len(prompts)} prompts, {count} times each, are too many for one request"
        raise ApiError(400, message, "n")
    seed = secrets.randbelow(2**31) if request.seed is None else request.seed
    deadline = time.monotonic() + limits.seconds
    top = min(top, len(batcher.tokenizer.vocabulary))
    return [
        Row(
            [*prompt.ids], request.sample_config(new_tokens, seed + number), stops, top,
            # What an echo does not show has no score either.
            scores_prompt and bool(prompt.shown), bool(request.stream), deadline,
        )
        for prompt in prompts
        for number in range(count)
    ]  # fmt: skip


def default_tokens(given: int | None, default: int, limits: LimitsConfig) -> int:
    """How many tokens to write where a request may leave that open."""
    return min(default, limits.new_tokens) if given is None else given
