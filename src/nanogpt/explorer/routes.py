"""The explorer over HTTP: the page's files, and under /api what its engine asks of Python.

Errors are {"error": "one line that names the thing and the fix"} with a status of 4xx.
"""

import gzip
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import Field
from starlette.exceptions import HTTPException

from nanogpt.errors import UserError, one_line
from nanogpt.explorer import remote
from nanogpt.explorer.bodies import TENSORS, Body, Ids, in_a_line, in_lines
from nanogpt.explorer.questions import question_routes
from nanogpt.explorer.runs import Run, find_run
from nanogpt.explorer.studies import study_routes
from nanogpt.model.trace import Edit
from nanogpt.serve.safety import Guard
from nanogpt.serve.settings import ServeSettings

WEB = Path(__file__).parent / "web"
KINDS = {
    ".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml",
}  # fmt: skip
# The page's own files and nothing else: no other site, no script inside a text.
POLICY = (
    "default-src 'none'; script-src 'self'; worker-src 'self'; style-src 'self' 'unsafe-inline'; "
    "connect-src 'self'; img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


class TokenizeBody(Body):
    """What /tokenize takes."""

    text: str


class EditBody(Body):
    """One edit, see model/trace.py."""

    at: str
    head: int | None = None
    positions: Ids | None = None
    how: str = "zero"


class ForwardBody(Body):
    """What /forward takes."""

    ids: Ids
    # A long pattern of brackets would take minutes to understand.
    record: list[Annotated[str, Field(max_length=100)]] = Field(default_factory=list)
    edits: list[EditBody] = Field(default_factory=list)
    other: Ids | None = None
    step: int | None = None


class GenerateBody(Body):
    """What /generate takes; `settings` are those of the section `sample`."""

    ids: Ids
    settings: dict[str, Any] = Field(default_factory=dict)
    step: int | None = None


def explorer_routes(runs: dict[str, Run]) -> APIRouter:
    """The routes of the page and of its engine, on these runs. The page's files come last."""
    router = APIRouter()
    add_facts(router, runs)
    add_computing(router, runs)
    router.include_router(question_routes(runs))
    router.include_router(study_routes(runs))
    add_files(router)
    return router


def add_facts(router: APIRouter, runs: dict[str, Run]) -> None:
    """What is known of a run without computing anything."""

    @router.get("/api/runs")
    def list_runs() -> list[dict[str, Any]]:
        """The runs that can be opened now; one without weights yet says so."""
        return [about_or_error(run) for run in runs.values()]

    @router.get("/api/runs/{name}")
    def info(name: str) -> dict[str, Any]:
        run = find_run(runs, name)
        with run.lock:
            return run.info()

    @router.get("/api/runs/{name}/tokenizer.json")
    def tokenizer(name: str) -> dict[str, Any]:
        return find_run(runs, name).tokenizer().to_dict()

    @router.get("/api/runs/{name}/vocabulary")
    def vocabulary(name: str) -> list[dict[str, Any]]:
        return remote.vocabulary(*find_run(runs, name).open())

    @router.get("/api/runs/{name}/model.safetensors")
    def model(name: str, step: int | None = None) -> Response:
        return Response(find_run(runs, name).weights_file(step), media_type=TENSORS)

    @router.get("/api/runs/{name}/metrics")
    def metrics(name: str) -> list[dict[str, Any]]:
        return find_run(runs, name).metrics()

    @router.get("/api/runs/{name}/weights/{parameter}")
    def weights(
        name: str, parameter: str, first: int | None = None, end: int | None = None,
        step: int | None = None,
    ) -> Response:  # fmt: skip
        rows = None if first is None or end is None else (first, end)
        found = remote.weights(find_run(runs, name), parameter, rows, step)
        return Response(remote.as_file({"weights": found}), media_type=TENSORS)


def add_computing(router: APIRouter, runs: dict[str, Run]) -> None:
    """What a model computes, of a text that the page sends."""

    @router.post("/api/runs/{name}/tokenize")
    def tokenize(name: str, body: TokenizeBody) -> list[dict[str, Any]]:
        return remote.tokenize(find_run(runs, name).tokenizer(), body.text)

    @router.post("/api/runs/{name}/forward")
    def forward(name: str, body: ForwardBody) -> Response:
        edits = [Edit(**edit.model_dump()) for edit in body.edits]
        tensors = remote.compute(
            find_run(runs, name), body.ids, body.record, edits, body.other or (), body.step
        )
        return Response(remote.as_file(tensors), media_type=TENSORS)

    @router.post("/api/runs/{name}/generate")
    def generate(name: str, body: GenerateBody) -> StreamingResponse:
        pieces = remote.generate(find_run(runs, name), body.ids, body.settings, body.step)
        return in_lines(pieces)


def add_files(router: APIRouter) -> None:
    """The page itself."""
    there = {p.relative_to(WEB).as_posix(): p for p in WEB.rglob("*") if p.suffix in KINDS}

    @router.get("/")
    def page(request: Request) -> Response:
        return packed(request, WEB / "index.html", {"Content-Security-Policy": POLICY})

    @router.get("/{path:path}")
    def file(request: Request, path: str) -> Response:
        if path not in there:
            raise UserError(f"there is no page {path[:80]!r}; begin at /")
        return packed(request, there[path], {})


def packed(request: Request, path: Path, headers: dict[str, str]) -> Response:
    """A file of the page, compressed where the browser takes that."""
    data, kind = path.read_bytes(), KINDS[path.suffix] + "; charset=utf-8"
    headers = {**headers, "Vary": "Accept-Encoding"}
    if "gzip" in request.headers.get("accept-encoding", ""):
        data, headers["Content-Encoding"] = gzip.compress(data, 6), "gzip"
    return Response(data, media_type=kind, headers=headers)


def about_or_error(run: Run) -> dict[str, Any]:
    """What the list says of a run; of one that cannot be opened, why."""
    try:
        with run.lock:
            return run.about()
    except (UserError, OSError) as error:
        return {"name": run.name, "error": in_a_line(error), "steps": run.steps()}


def create_app(runs: dict[str, Run], settings: ServeSettings | None = None) -> FastAPI:
    """An app that serves the page on these runs, guarded as `nanogpt serve` is: see safety.py."""
    app = FastAPI(title="nanogpt explorer", docs_url=None, redoc_url=None, openapi_url=None)

    @app.exception_handler(UserError)
    @app.exception_handler(OSError)
    def refuse(request: Request, error: UserError | OSError) -> JSONResponse:
        missing = str(error).startswith("there is no ")
        return JSONResponse({"error": in_a_line(error)}, 404 if missing else 400)

    @app.exception_handler(RequestValidationError)
    def misunderstand(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        return JSONResponse({"error": one_line(f"{where}: {first['msg']}")}, 422)

    @app.exception_handler(HTTPException)
    def deny(request: Request, error: HTTPException) -> JSONResponse:
        what = one_line(f"{request.method} {request.url.path}: {error.detail}")
        return JSONResponse({"error": what}, error.status_code, error.headers)

    app.add_middleware(Guard, settings=settings or ServeSettings())
    app.include_router(explorer_routes(runs))
    return app
