"""The explorer over HTTP: what the page's engine asks, and what people with bad intentions ask."""

import json
import shutil

import pytest
import torch
from fastapi.testclient import TestClient
from safetensors.torch import load as read_tensors

from nanogpt.errors import UserError
from nanogpt.explorer import remote
from nanogpt.explorer.places import PACKAGE, places
from nanogpt.explorer.routes import create_app
from nanogpt.explorer.runs import find_runs, is_remote_only
from nanogpt.model.gpt import GPT
from nanogpt.model.trace import Edit, activation_names, editing, record
from nanogpt.training.load import load

from conftest import tiny

TEXT = "DUKE:\nIf 3 kings"


@pytest.fixture(scope="module")
def run(trained_run):
    return trained_run()


@pytest.fixture(scope="module")
def client(run):
    return TestClient(create_app(find_runs([run])), base_url="http://127.0.0.1")


@pytest.fixture(scope="module")
def place(run):
    return f"/api/runs/{run.name}"


@pytest.fixture(scope="module")
def loaded(run):
    return load(run)


def test_the_list_says_what_each_run_is(client, run, loaded):
    (about,) = client.get("/api/runs").json()
    assert about["name"] == run.name
    assert about["n_params"] == loaded.model.num_parameters()
    assert about["config"]["n_kv_head"] == loaded.config.model.n_head
    assert about["metrics"]
    assert not about["remote_only"]


def test_a_line_of_the_package_is_named_as_it_stands_in_its_file(client, place):
    named = client.get(place).json()["places"]
    assert named.keys() >= {"wte", "scores", "weights", "mlp", "lm_head", "top_p"}
    for found in named.values():
        lines = (PACKAGE.parent / found["file"]).read_text().split("\n")
        shown = found["source"].split("\n")
        for n, line in enumerate(shown):
            assert lines[found["first"] - 1 + n].strip() == line.strip()
        assert found["first"] <= found["line"] < found["first"] + len(shown)


def test_every_variant_has_its_places():
    for changes in ({"position": "rope"}, {"mlp": "swiglu", "norm": "rms"}, {"mlp": "relu2"},
                    {"position": "alibi", "block": "post-norm"}, {"norm": "none"},
                    {"block": "no-residual", "position": "none"}):  # fmt: skip
        assert all(found["source"] for found in places(GPT(tiny(**changes))).values())


def test_tokens_say_their_bytes_and_their_merges(client, place, loaded):
    tokens = client.post(f"{place}/tokenize", json={"text": TEXT}).json()
    assert [token["id"] for token in tokens] == loaded.tokenizer.encode(TEXT)
    assert b"".join(bytes(token["bytes"]) for token in tokens) == TEXT.encode()
    for token in tokens:
        for left, right, made in token["merges"]:
            assert loaded.tokenizer.ranks[left, right] == made
        assert [made for *_, made in token["merges"][-1:]] in ([], [token["id"]])
        assert len(token["merges"]) <= len(token["bytes"]) - 1


def test_forward_gives_what_the_model_gives(client, place, loaded):
    ids = loaded.tokenizer.encode(TEXT)
    answer = client.post(f"{place}/forward", json={"ids": ids, "record": ["*"]})
    found = read_tensors(answer.content)
    with torch.no_grad(), record(loaded.model) as seen:
        logits = loaded.model(torch.tensor([ids]))
    assert torch.equal(found["logits"], logits[0])
    assert {*found} == {*activation_names(loaded.model), "logits"}
    for name, x in seen.items():
        assert torch.equal(found[name], x[0]), name


def test_edits_arrive(client, place, loaded):
    ids, other = loaded.tokenizer.encode(TEXT), loaded.tokenizer.encode("FOOL:\nIf 4 fools")
    other = (other * 2)[: len(ids)]
    edit = {"at": "h.0.attn.kernel", "head": 1, "positions": [2, 3], "how": "swap"}
    body = {"ids": ids, "edits": [edit], "other": other}
    found = read_tensors(client.post(f"{place}/forward", json=body).content)["logits"]
    with torch.no_grad(), editing(loaded.model, [Edit(**edit)], torch.tensor([other])):
        expected = loaded.model(torch.tensor([ids]))[0]
    assert torch.equal(found, expected)
    assert not torch.equal(expected, loaded.model(torch.tensor([ids]))[0])


def test_generation_is_streamed_and_greedy_is_greedy(client, place, loaded):
    ids = loaded.tokenizer.encode(TEXT)
    body = {"ids": ids, "settings": {"max_new_tokens": 3, "temperature": 0}}
    lines = client.post(f"{place}/generate", json=body).text.splitlines()
    pieces = [json.loads(line) for line in lines]
    assert len(pieces) == 3
    logits = loaded.model(torch.tensor([ids]))[0, -1].log_softmax(-1)
    assert pieces[0]["id"] == pieces[0]["likeliest"][0][0] == logits.argmax().item()
    assert pieces[0]["logprob"] == pytest.approx(logits.max().item(), abs=1e-5)


def test_weights_come_whole_and_by_rows(client, place, loaded):
    everything = read_tensors(client.get(f"{place}/model.safetensors").content)
    assert everything.keys() == loaded.model.state_dict().keys()
    whole = read_tensors(client.get(f"{place}/weights/wte.weight").content)["weights"]
    some = read_tensors(client.get(f"{place}/weights/wte.weight?first=3&end=5").content)["weights"]
    assert torch.equal(whole, loaded.model.wte.weight)
    assert torch.equal(some, whole[3:5])


def test_the_page_comes_with_a_policy_that_allows_no_other_site(client):
    answer = client.get("/")
    assert "<title>nanogpt explorer</title>" in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert client.get("/app.js").headers["content-type"].startswith("text/javascript")


def test_pages_of_other_sites_learn_nothing(client, place):
    for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}):
        answer = client.get(place, headers=headers)
        assert answer.status_code == 403
        assert list(answer.json()) == ["error"]
    assert client.get(place, headers={"Origin": "http://127.0.0.1"}).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/api/runs/..", "/api/runs/%2e%2e%2fsecret", "/api/runs/nobody", "/../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd", "/engine/../../runs.py", "/web/../routes.py", "/app.py",
        "/api/runs/%00", "/api/runs/nobody/tokenizer.json",
    ],
)  # fmt: skip
def test_nothing_but_the_page_and_the_named_runs_can_be_fetched(client, path):
    answer = client.get(path)
    assert answer.status_code == 404
    assert list(answer.json()) == ["error"]


BAD = {
    "an id beyond the vocabulary": {"ids": [300]},
    "a negative id": {"ids": [-1]},
    "no ids": {"ids": []},
    "too many ids": {"ids": [1] * 17},
    "far too many ids": {"ids": [1] * 100_000},
    "ids that are no numbers": {"ids": ["one"]},
    "a fraction": {"ids": [1.5]},
    "true for a number": {"ids": [True]},
    "an unknown pattern": {"ids": [1], "record": ["h.9.attn"]},
    "a pattern of nothing": {"ids": [1], "record": [""]},
    "many patterns": {"ids": [1], "record": ["*"] * 10_000},
    "10,000 edits": {"ids": [1], "edits": [{"at": "drop"}] * 10_000},
    "an unknown place": {"ids": [1], "edits": [{"at": "__class__"}]},
    "an unknown way": {"ids": [1], "edits": [{"at": "drop", "how": "explode"}]},
    "a head too many": {"ids": [1], "edits": [{"at": "h.0.attn.kernel", "head": 9}]},
    "a position too far": {"ids": [1], "edits": [{"at": "drop", "positions": [1]}]},
    "a swap with nothing": {"ids": [1], "edits": [{"at": "drop", "how": "swap"}]},
    "a swap of another length": {
        "ids": [1], "other": [1, 2], "edits": [{"at": "drop", "how": "swap"}]
    },
    "a step that was not taken": {"ids": [1], "step": 12345},
    "a number of 100 digits": {"ids": [10**100]},
    "a pattern of a megabyte": {"ids": [1], "record": ["[" * 1_000_000]},
    "a field that does not exist": {"ids": [1], "path": "/etc/passwd"},
    "no body": None,
}  # fmt: skip


@pytest.mark.parametrize("body", BAD.values(), ids=BAD)
def test_a_forward_that_cannot_be_is_refused_in_one_line(client, place, body):
    answer = client.post(f"{place}/forward", json=body)
    assert answer.status_code in (400, 404, 422)
    assert list(answer.json()) == ["error"]
    assert "\n" not in answer.json()["error"]
    assert len(answer.json()["error"]) < 1100


@pytest.mark.parametrize(
    "settings",
    [{"temperature": -1}, {"max_new_tokens": 10**9}, {"top_p": 2}, {"nonsense": 1}, {"top_k": "x"}],
)
def test_a_generation_that_cannot_be_says_so(client, place, settings):
    answer = client.post(f"{place}/generate", json={"ids": [1], "settings": settings})
    assert list(json.loads(answer.text.splitlines()[-1])) == ["error"]


def test_a_generation_after_an_id_that_is_none_is_refused(client, place):
    answer = client.post(f"{place}/generate", json={"ids": [10**30] + [1] * 100})
    assert answer.status_code == 400
    assert "not in the vocabulary" in answer.json()["error"]


DEEP = b"[" * 100_000


@pytest.mark.parametrize(
    ("method", "content", "status"),
    [
        ("POST", DEEP, 400),
        ("POST", b'{"ids": "\xe9"}', 400),
        ("POST", b"{", 422),
        ("PUT", b"", 405),
    ],
)
def test_what_is_no_request_is_refused_in_one_line(client, place, method, content, status):
    headers = {"Content-Type": "application/json"}
    answer = client.request(method, f"{place}/forward", content=content, headers=headers)
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]


def test_after_all_that_the_model_is_as_it_was(client, place, loaded):
    ids = loaded.tokenizer.encode(TEXT)
    found = read_tensors(client.post(f"{place}/forward", json={"ids": ids}).content)["logits"]
    with torch.no_grad():
        assert torch.equal(found, loaded.model(torch.tensor([ids]))[0])


def test_too_large_an_answer_is_refused_before_it_is_computed(monkeypatch, run):
    monkeypatch.setattr(remote, "MOST_BYTES", 1000)
    (only,) = find_runs([run]).values()
    with pytest.raises(UserError, match="fewer layers"):
        remote.compute(only, [1, 2, 3], ["*"])


def test_a_folder_of_runs_shows_each_and_twins_of_one_name_are_refused(run, tmp_path):
    for name in ("one", "two"):
        shutil.copytree(run, tmp_path / "runs" / name)
    (tmp_path / "runs" / "notes").mkdir()
    assert list(find_runs([tmp_path / "runs"])) == ["one", "two"]
    with pytest.raises(UserError, match="two runs are called one"):
        find_runs([tmp_path / "runs", tmp_path / "runs" / "one"])
    for nothing in ("nowhere", tmp_path / "runs" / "notes"):
        with pytest.raises(UserError, match="run"):
            find_runs([nothing])


def test_a_run_that_is_damaged_is_listed_with_the_reason(run, tmp_path):
    shutil.copytree(run, tmp_path / "good")
    shutil.copytree(run, tmp_path / "bad")
    for path in (tmp_path / "bad").glob("checkpoints/*/state.json"):
        path.write_text("{")
    client = TestClient(create_app(find_runs([tmp_path])), base_url="http://127.0.0.1")
    listed = client.get("/api/runs").json()
    assert "error" in listed[0]
    assert listed[1]["name"] == "good"


def test_what_a_plugin_adds_is_computed_in_python_alone(model):
    class Foreign(torch.nn.Module):
        pass

    assert not is_remote_only(model)
    model.extra = Foreign()
    assert is_remote_only(model)


def test_a_name_that_is_not_utf_8_hides_no_other_run(run, tmp_path):
    shutil.copytree(run, tmp_path / "caf\udce9")
    shutil.copytree(run, tmp_path / "good")
    client = TestClient(create_app(find_runs([tmp_path])), base_url="http://127.0.0.1")
    assert [run["name"] for run in client.get("/api/runs").json()] == ["caf\ufffd", "good"]
    assert client.get("/api/runs/caf%EF%BF%BD").json()["n_params"]
    assert client.get("/api/runs/nobody").status_code == 404


def test_a_loss_that_is_no_number_is_none_so_that_a_page_can_read_it(small_trained_run):
    metrics = small_trained_run / "metrics.jsonl"
    metrics.write_text('{"step": 1, "val_loss": NaN, "bits_per_byte": Infinity}\n')
    (run,) = find_runs([small_trained_run]).values()
    assert run.metrics() == [{"step": 1, "val_loss": None, "bits_per_byte": None}]
