"""What takes so long that it is told piece by piece, one JSON value a line.

POST /api/runs/NAME/replay   what every snapshot of a training makes of a text
GET  /api/runs/NAME/steps    the steps of the snapshots that there are now
POST /api/runs/NAME/circuit  the fewest heads that copy repeated text, and how they are found
"""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from pydantic import Field

from nanogpt.explorer.bodies import Body, Ids, in_lines
from nanogpt.explorer.replay import replay
from nanogpt.explorer.runs import Run, find_run
from nanogpt.lab.circuit import KEEP, LENGTH, Removal, find_circuit


class ReplayBody(Body):
    """What /replay takes: the snapshots to show, or all."""

    ids: Ids
    steps: Annotated[list[int], Field(max_length=1000)] | None = None


class CircuitBody(Body):
    """What /circuit takes, see lab/circuit.py."""

    keep: float = KEEP
    length: Annotated[int, Field(ge=4, le=1024)] = LENGTH
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0


def study_routes(runs: dict[str, Run]) -> APIRouter:
    """The routes of this module, on these runs."""
    router = APIRouter(prefix="/api/runs/{name}")

    @router.get("/steps")
    def steps(name: str) -> list[int]:
        return find_run(runs, name).steps()

    @router.post("/replay")
    def replay_text(name: str, body: ReplayBody) -> StreamingResponse:
        frames = replay(find_run(runs, name), body.ids, body.steps)
        return in_lines(frames)

    @router.post("/circuit")
    def circuit(name: str, body: CircuitBody) -> StreamingResponse:
        found = search(find_run(runs, name), body.keep, body.length, body.seed)
        return in_lines(found)

    return router


def search(run: Run, keep: float, length: int, seed: int) -> Iterator[dict[str, Any]]:
    """The search for a circuit, step by step: {"removed": ...} each, {"circuit": ...} at last."""
    with run.lock:
        model, tokenizer = run.open()
        steps = find_circuit(model, tokenizer, keep, length, seed)
    while True:
        with run.lock:  # between two steps, others may use the run's models
            found = next(steps, None)
        if found is None:
            return
        yield {"removed" if isinstance(found, Removal) else "circuit": asdict(found)}
