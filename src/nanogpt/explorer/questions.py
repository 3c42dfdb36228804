"""What a page can ask only where Python answers: the training text, and one more step.

POST /api/runs/NAME/nearest     passages of the training text that end as these tokens do
POST /api/runs/NAME/train-step  what a step or a few on this text would change
POST /api/runs/NAME/project     logits of hidden states: the final norm and the head alone
GET  /api/runs/NAME/mean/PARAMETER  the mean of a parameter's rows, such as of all tokens
"""

from typing import Annotated, Any

import torch
from fastapi import APIRouter, Response
from pydantic import Field
from torch import Tensor

from nanogpt.config import Config, load_config
from nanogpt.errors import UserError
from nanogpt.explorer import remote
from nanogpt.explorer.bodies import TENSORS, Body, Ids
from nanogpt.explorer.passages import find_passages, show_passages
from nanogpt.explorer.runs import Run, find_run
from nanogpt.explorer.step import Trained, train_on
from nanogpt.model.gpt import evaluating
from nanogpt.text.dataset import data_folder
from nanogpt.text.remote import is_fetched, is_url
from nanogpt.text.tokenfiles import TokenFile, open_split

SHOWN = 10  # likeliest tokens that are told at each position
LONGEST_ENDING = 256  # tokens before the end that can match; hardly any text repeats more
MOST_HIDDEN = 4096  # vectors that are projected at once


class NearestBody(Body):
    """What /nearest takes: the tokens so far, and how many tokens to show around a passage."""

    ids: Ids
    context: Annotated[int, Field(ge=0, le=200)] = 24
    most: Annotated[int, Field(ge=1, le=50)] = 8


class StepBody(Body):
    """What /train-step takes."""

    text: str = ""
    ids: Ids | None = None  # the same as tokens
    lr: float = 1e-3
    steps: int = 1
    step: int | None = None  # the snapshot to begin from; None: the latest checkpoint


class ProjectBody(Body):
    """What /project takes: hidden states (N, C)."""

    hidden: Annotated[list[list[float]], Field(min_length=1, max_length=MOST_HIDDEN)]
    step: int | None = None


def question_routes(runs: dict[str, Run]) -> APIRouter:
    """The routes of this module, on these runs."""
    router = APIRouter(prefix="/api/runs/{name}")

    @router.post("/nearest")
    def nearest(name: str, body: NearestBody) -> dict[str, Any]:
        run = find_run(runs, name)
        ids = training_text(run).ids
        found = find_passages(ids, body.ids[-LONGEST_ENDING:], body.most)
        return show_passages(found, ids, run.tokenizer(), body.context)

    @router.post("/train-step")
    def train_step(name: str, body: StepBody) -> dict[str, Any]:
        run = find_run(runs, name)
        ids = body.ids
        if ids is None:
            ids = [token["id"] for token in remote.tokenize(run.tokenizer(), body.text)]
        with run.lock:
            model = run.model(body.step)
            remote.check_ids(model, ids)
            config = settings_of(run) or Config(model=model.config)
            done = train_on(model, config, ids, body.lr, body.steps)
        optimizer = config.train.optimizer
        return {"ids": ids, "optimizer": optimizer, "lr": body.lr, **as_values(done, ids)}

    @router.post("/project")
    def project(name: str, body: ProjectBody) -> Response:
        run = find_run(runs, name)
        logits = remote.as_file({"logits": logits_of(run, body.hidden, body.step)})
        return Response(logits, media_type=TENSORS)

    @router.get("/mean/{parameter}")
    def mean(name: str, parameter: str, step: int | None = None) -> Response:
        rows = remote.weights(find_run(runs, name), parameter, step=step)
        return Response(remote.as_file({"weights": rows.float().mean(0)}), media_type=TENSORS)

    return router


def settings_of(run: Run) -> Config | None:
    """The settings that a run was trained with; None of a model from elsewhere."""
    path = run.folder / "config.toml"
    return load_config(path) if path.exists() else None


def training_text(run: Run) -> TokenFile:
    """The token files that a run was trained on. Raises UserError if they are not here."""
    config = settings_of(run)
    if config is None:
        raise UserError(f"{run.name} was not trained here, so its training text is not here either")
    if is_url(url := config.data.folder) and not is_fetched(url):
        raise UserError(f"the training text is not on this machine: nanogpt data fetch {url}")
    return open_split(data_folder(run.folder, config), "train", run.tokenizer())


def logits_of(run: Run, hidden: list[list[float]], step: int | None) -> Tensor:
    """The final norm and the head alone: hidden states (N, C) -> logits (N, V).

    Raises UserError for vectors that are not as wide as the model.
    """
    with run.lock:
        model = run.model(step)
        width = model.config.n_embd
        if any(len(vector) != width for vector in hidden):
            raise UserError(f"hidden states of another width than the model's n_embd={width}")
        with evaluating(model):
            return model.head(model.ln_f(torch.tensor(hidden, device=model.device)))


def as_values(done: Trained, ids: list[int]) -> dict[str, Any]:
    """A step as plain values, with the likeliest tokens before and after at each position."""
    before, after = done.before.log_softmax(-1), done.after.log_softmax(-1)
    positions = []
    for old, new in zip(before, after, strict=True):
        shown = [*dict.fromkeys([*old.topk(min(SHOWN, len(old))).indices.tolist(),
                                 *new.topk(min(SHOWN, len(new))).indices.tolist()])]  # fmt: skip
        positions.append([[i, old[i].item(), new[i].item()] for i in shown])
    targets = list(enumerate(ids[1:]))
    return {
        "losses": done.losses, "norms": done.norms, "moved": done.moved, "sizes": done.sizes,
        "token_losses": [[-before[n, i].item(), -after[n, i].item()] for n, i in targets],
        "positions": positions,  # of each: [token, log-probability before, and after]
    }  # fmt: skip
