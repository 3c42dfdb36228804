"""The routes."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.requests import Request

from nanogpt import __version__
from nanogpt.errors import UserError, did_you_mean
from nanogpt.evaluation.documents import separator_of
from nanogpt.serve.answers import CHAT, COMPLETION, Answer, Choice, Form, follow
from nanogpt.serve.batching import Batcher, Row
from nanogpt.serve.requests import (
    ApiError,
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    Prompt,
    Sampling,
    TokenizeRequest,
    default_tokens,
    make_rows,
    read_chat,
    read_prompts,
)
from nanogpt.serve.safety import Guard, error_response
from nanogpt.serve.settings import ServeSettings
from nanogpt.text.tokenizer import END_OF_TEXT
from nanogpt.training.load import Loaded

COMPLETION_TOKENS = 16  # the API's default
CHAT_TOKENS = 256

# In the description of the API: what every route may answer beside what it is for.
ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"description": 'A mistake: {"error": {"message", "type", "param", "code"}}'}
}


@dataclass(frozen=True)
class Served:
    """A model, by the name that requests use."""

    name: str
    loaded: Loaded
    batcher: Batcher


class Models:
    """The models that are served. The first answers requests that name none."""

    def __init__(self, models: Mapping[str, Loaded], settings: ServeSettings) -> None:
        self.created = int(time.time())
        self.served: dict[str, Served] = {}
        for name, loaded in models.items():
            model, tokenizer, config = loaded
            separator = separator_of(config.data.batches, tokenizer)
            batcher = Batcher(model, tokenizer, settings.limits, separator)
            self.served[name] = Served(name, loaded, batcher)

    def find(self, name: str | None) -> Served:
        """The model of a request. Raises ApiError if there is none of that name."""
        if name is None:
            return next(iter(self.served.values()))
        if name not in self.served:
            message = f"there is no model {name!r}: {did_you_mean(name, self.served)}"
            raise ApiError(404, message, "model", "model_not_found")
        return self.served[name]

    def describe(self, served: Served) -> dict[str, Any]:
        """A model as /v1/models describes it."""
        return {
            "id": served.name, "object": "model", "created": self.created, "owned_by": "nanogpt",
            "max_model_len": served.loaded.config.model.context_length,
        }  # fmt: skip

    def close(self) -> None:
        """End the workers."""
        for served in self.served.values():
            served.batcher.close()


def create_app(models: Mapping[str, Loaded], settings: ServeSettings) -> FastAPI:
    """The server for programs: models by the names that requests use.

    Routes that are added to it are as guarded as its own. `app.state.models` holds the models.
    """
    found = Models(models, settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(found.close)

    app = FastAPI(
        title="nanogpt", version=__version__, lifespan=lifespan, responses=ERRORS,
        docs_url=None, redoc_url=None,  # these pages load scripts from another server
    )  # fmt: skip
    app.state.models = found
    app.add_middleware(Guard, settings=settings)
    add_error_handlers(app)
    add_tokenizer_routes(app, found, settings)
    add_completion_routes(app, found)
    return app


def add_error_handlers(app: FastAPI) -> None:
    """Every mistake becomes JSON in one form."""

    def mistake(request: Request, error: Exception) -> Response:
        if isinstance(error, RequestValidationError):
            first = error.errors()[0]
            place = [str(part) for part in first["loc"][1:]] or ["body"]
            error = ApiError(400, f"{place[0]}: {first['msg']}", place[0])
        elif isinstance(error, HTTPException):
            error = ApiError(error.status_code, f"{request.url.path}: {error.detail}")
        elif isinstance(error, UserError):
            error = ApiError(400, str(error))
        assert isinstance(error, ApiError)
        return error_response(request.url.path, error)

    for kind in (ApiError, UserError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, mistake)


def add_tokenizer_routes(app: FastAPI, models: Models, settings: ServeSettings) -> None:
    """What there is, and how texts become tokens."""

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return {"status": "ok"}

    @app.get("/v1/models")
    async def list_models() -> dict[str, Any]:
        data = [models.describe(served) for served in models.served.values()]
        return {"object": "list", "data": data}

    @app.get("/v1/models/{name}")
    async def show_model(name: str) -> dict[str, Any]:
        return models.describe(models.find(name))

    @app.get("/tokenizer_info")
    async def tokenizer_info(model: str | None = None) -> dict[str, Any]:
        _, tokenizer, config = models.find(model).loaded
        end = END_OF_TEXT if END_OF_TEXT in tokenizer.special_tokens else None
        return {
            "tokenizer_class": type(tokenizer).__name__, "vocab_size": tokenizer.vocab_size,
            "max_model_len": config.model.context_length, "bos_token": None, "eos_token": end,
            "pad_token": None, "special_tokens": tokenizer.special_tokens,
        }  # fmt: skip

    @app.post("/tokenize")
    def tokenize(body: TokenizeRequest) -> dict[str, Any]:
        _, tokenizer, config = models.find(body.model).loaded
        # The name of a special token alone means the token: programs ask for its id this way.
        # Within a text it is text, so that nobody can forge the end of a document.
        named = tokenizer.special_tokens.get(body.prompt)
        tokens = tokenizer.encode(body.prompt) if named is None else [named]
        longest = config.model.context_length
        return {"tokens": tokens, "count": len(tokens), "max_model_len": longest}

    @app.post("/detokenize")
    def detokenize(body: DetokenizeRequest) -> dict[str, Any]:
        return {"prompt": models.find(body.model).loaded.tokenizer.decode(body.tokens)}


def add_completion_routes(app: FastAPI, models: Models) -> None:
    """Where models write."""
    streams: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {}}}}

    @app.post("/v1/completions", responses=streams)
    async def completions(body: CompletionRequest, request: Request) -> Response:
        served = models.find(body.model)
        batcher = served.batcher
        new_tokens = default_tokens(body.max_tokens, COMPLETION_TOKENS, batcher.limits)
        if not new_tokens and not body.echo:
            raise ApiError(400, "max_tokens=0: use at least 1, or echo", "max_tokens")
        prompts = await asyncio.to_thread(
            read_prompts, body.prompt, batcher.tokenizer, batcher.limits.prompt_tokens
        )
        scores = bool(body.echo) and body.logprobs is not None
        rows = make_rows(
            body, prompts, batcher, new_tokens, body.stop_texts(), body.logprobs or 0, scores
        )
        choices = choices_of(rows, prompts, batcher, bool(body.echo))
        logprobs = body.logprobs is not None
        return await respond(COMPLETION, served, body, choices, prompts, logprobs, request)

    @app.post("/v1/chat/completions", responses=streams)
    async def chat(body: ChatRequest, request: Request) -> Response:
        served = models.find(body.model)
        batcher = served.batcher
        given = (
            body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
        )
        new_tokens = default_tokens(given, CHAT_TOKENS, batcher.limits)
        if not new_tokens:
            raise ApiError(400, "max_tokens=0: use at least 1", "max_tokens")
        if body.top_logprobs and not body.logprobs:
            raise ApiError(400, "top_logprobs needs logprobs=true", "top_logprobs")
        prompts, stops = await asyncio.to_thread(
            read_chat, body.messages, batcher.tokenizer, batcher.limits.prompt_tokens
        )
        rows = make_rows(
            body, prompts, batcher, new_tokens, [*body.stop_texts(), *stops],
            body.top_logprobs or 0, scores_prompt=False,
        )  # fmt: skip
        choices = choices_of(rows, prompts, batcher, echo=False)
        return await respond(CHAT, served, body, choices, prompts, bool(body.logprobs), request)


def choices_of(
    rows: Sequence[Row], prompts: Sequence[Prompt], batcher: Batcher, echo: bool
) -> list[Choice]:
    """The answers that rows will become: as many for each prompt as for any other."""
    each = len(rows) // len(prompts)
    return [
        Choice(row, batcher.tokenizer, prompts[number // each].shown, echo)
        for number, row in enumerate(rows)
    ]


async def respond(
    form: Form, served: Served, body: Sampling, choices: Sequence[Choice],
    prompts: Sequence[Prompt], logprobs: bool, request: Request,
) -> Response:  # fmt: skip
    """Let the rows grow, and answer: whole, or as a stream."""
    prompt_tokens = sum(len(prompt.ids) for prompt in prompts)
    answer = Answer(form, served.name, choices, prompt_tokens, logprobs)
    news = follow(served.batcher, [choice.row for choice in choices], request)
    await anext(news)  # here a full server says so, before a stream has begun
    if not body.stream:
        return JSONResponse(await answer.whole(news))
    usage = bool(body.stream_options and body.stream_options.include_usage)
    return StreamingResponse(answer.events(news, usage), media_type="text/event-stream")
