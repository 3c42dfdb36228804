"""What the page asks of Python alone, over HTTP: the numbers, and what is refused."""

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from safetensors.torch import load

from nanogpt.cli import main
from nanogpt.explorer.routes import create_app
from nanogpt.explorer.runs import find_runs
from nanogpt.text.dataset import data_folder
from nanogpt.text.tokenfiles import open_split
from nanogpt.training.load import load as load_run


@pytest.fixture(scope="module")
def run(trained_run):
    return trained_run()


@pytest.fixture(scope="module")
def client(run):
    return TestClient(create_app(find_runs([run])), base_url="http://127.0.0.1")


def test_nearest_passages_come_from_the_training_text(client, run):
    _, tokenizer, config = load_run(run)
    ids = open_split(data_folder(run, config), "train", tokenizer).ids
    place = len(ids) // 2
    ending = ids[place - 20 : place].tolist()
    found = client.post(f"/api/runs/{run.name}/nearest", json={"ids": ending}).json()
    longest = found["passages"][0]
    assert longest["length"] == 20
    assert longest["match"] == tokenizer.decode(ending)
    everywhere = np.lib.stride_tricks.sliding_window_view(ids[:-1], 20)
    assert found["endings"][0]["count"] == int((everywhere == ending).all(1).sum())
    assert found["total"] == found["searched"] == len(ids)


def test_a_step_changes_the_prediction_and_nothing_else(client, run):
    model, tokenizer, _ = load_run(run)
    text = "DUKE:\nIf 7 kings"
    asked = {"text": text, "lr": 1e-2, "steps": 2}
    done = client.post(f"/api/runs/{run.name}/train-step", json=asked).json()
    again = client.post(f"/api/runs/{run.name}/train-step", json=asked).json()
    ids = tokenizer.encode(text)
    as_ids = {"ids": ids, "lr": 1e-2, "steps": 2}
    assert done == again
    assert done == client.post(f"/api/runs/{run.name}/train-step", json=as_ids).json()
    assert done["ids"] == ids
    assert len(done["losses"]) == 3
    assert done["losses"][-1] < done["losses"][0]
    before = model(torch.tensor([ids]))[0].log_softmax(-1)
    for position, shown in enumerate(done["positions"]):
        for token, old, _ in shown:
            assert old == pytest.approx(before[position, token].item(), abs=1e-5)
    losses = [old for old, _ in done["token_losses"]]
    assert sum(losses) / len(losses) == pytest.approx(done["losses"][0], abs=1e-5)


def test_hidden_states_are_projected_as_the_model_does(client, run):
    model, _, _ = load_run(run)
    hidden = torch.randn(3, model.config.n_embd)
    answer = client.post(f"/api/runs/{run.name}/project", json={"hidden": hidden.tolist()})
    assert torch.allclose(load(answer.content)["logits"], model.head(model.ln_f(hidden)), atol=1e-5)
    answer = client.get(f"/api/runs/{run.name}/mean/wte.weight")
    assert torch.allclose(load(answer.content)["weights"], model.wte.weight.mean(0), atol=1e-6)


@pytest.mark.parametrize(
    ("place", "body", "message"),
    [
        ("nearest", {"ids": []}, "at least one token"),
        ("nearest", {"ids": [1], "context": 10**9}, "context"),
        ("train-step", {"text": "D"}, "at least two tokens"),
        ("train-step", {"text": "DUKE " * 100}, "use 1 to 16"),
        ("train-step", {"text": "DUKE:\n", "lr": -1.0}, "lr=-1.0"),
        ("train-step", {"text": "DUKE:\n", "steps": 1000}, "use 1 to 20"),
        ("project", {"hidden": [[1.0]]}, "n_embd=16"),
        ("project", {"hidden": []}, "hidden"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_line(client, run, place, body, message):
    answer = client.post(f"/api/runs/{run.name}/{place}", json=body)
    assert 400 <= answer.status_code < 500
    assert message in answer.json()["error"]


def test_a_model_from_elsewhere_has_no_training_text(client, run, tmp_path):
    folder = tmp_path / "exported"
    assert main(["export", str(run), str(folder)]) == 0
    other = TestClient(create_app(find_runs([folder])), base_url="http://127.0.0.1")
    answer = other.post("/api/runs/exported/nearest", json={"ids": [1]})
    assert answer.status_code == 400
    assert "not trained here" in answer.json()["error"]
