"""Hugging Face folders from anywhere: what is no model costs one line, before one is built."""

import json
import os
import pickle
import shutil
import struct
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from foreign import complaint, spoiled, within
from safetensors.torch import load_file, save_file

import nanogpt
from nanogpt.config import ModelConfig, SampleConfig
from nanogpt.errors import Notice, UserError
from nanogpt.interop.huggingface import export, from_pretrained, hugging_face_config
from nanogpt.model.gpt import GPT
from nanogpt.text.tokenizer import Tokenizer

from conftest import TEXT, tiny

OURS = Tokenizer.train([TEXT], 280)
CONFIGS = {
    "gpt2": tiny(vocab_size=280),
    "llama": tiny(
        vocab_size=280, position="rope", norm="rms", mlp="swiglu", bias=False, n_head=2, n_kv_head=1
    ),
}
CONFIGS["qwen3"] = replace(CONFIGS["llama"], qk_norm=True)
CONFIGS["mistral"] = replace(CONFIGS["llama"], window=8)


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> dict[str, Path]:
    """A folder of each architecture."""
    folders = {}
    for name, config in CONFIGS.items():
        torch.manual_seed(0)
        folders[name] = tmp_path_factory.mktemp("exported") / name
        export(folders[name], GPT(config), OURS, SampleConfig(), "")
    return folders


@pytest.fixture
def folder(exported, tmp_path) -> Callable[[str], Path]:
    """A copy of such a folder, that a test may spoil."""
    return lambda name: shutil.copytree(exported[name], tmp_path / name)


WRONG = {
    "missing": ..., "null": None, "true": True, "text": "text", "a list": [2], "an object": {},
    "a half": 2.5, "NaN": float("nan"), "infinite": float("inf"), "0": 0, "-1": -1,
    "one more": "more", "a million": 10**6, "a billion": 10**9, "a trillion": 10**12,
    "2**63": 2**63, "400 digits": 10**400,
}  # fmt: skip
SIZES = {
    "gpt2": ("n_layer", "n_head", "n_embd", "n_positions", "vocab_size"),
    "llama": (
        "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "hidden_size",
        "max_position_embeddings", "vocab_size",
    ),
    "qwen3": ("num_hidden_layers", "head_dim"),
    "mistral": ("num_hidden_layers", "sliding_window"),
}  # fmt: skip
# The weights do not tell these. A key that is missing means what it means to Transformers.
BELIEVED = {"max_position_embeddings", "sliding_window", "n_head"}


def settings() -> list[tuple[str, str, str]]:
    return [(name, key, wrong) for name, keys in SIZES.items() for key in keys for wrong in WRONG]


@pytest.mark.parametrize(("name", "key", "wrong"), settings())
def test_sizes_that_are_not_those_of_the_weights_cost_one_line(name, key, wrong, folder):
    path = folder(name)
    values = json.loads((path / "config.json").read_text())
    value = WRONG[wrong] if wrong != "one more" else values[key] + 1
    values |= {key: value}
    (path / "config.json").write_text(json.dumps({k: v for k, v in values.items() if v is not ...}))
    try:
        with within(10):
            model = from_pretrained(path)
    except UserError as error:
        message = str(error)
        assert str(path) in message
        assert len(message) < 600
    else:
        fine = key in BELIEVED or value in (..., None)
        assert fine, model.config
        with torch.no_grad(), within(10):
            assert model(torch.zeros(1, 4, dtype=torch.long)).isfinite().all()


@pytest.mark.parametrize(
    "content",
    [
        b"", b"null", b"[]", b"3", b'"gpt2"', b"{", b"{}", b"\xff", bytes(99), b"[" * 10**5,
        b'{"a":' * 10**5, b'{"n_layer": ' + b"9" * 5000 + b"}", b'{"model_type": null}',
        b'{"model_type": ["gpt2"]}', b'{"model_type": {"gpt2": 1}}', b'{"model_type": "bert"}',
        b'{"model_type": 3}', b'{"model_type": "gpt2"}', b'{"model_type": "llama"}',
        b'{"model_type": "' + b"x" * 10**5 + b'"}',
    ],
)  # fmt: skip
def test_what_is_no_configuration_costs_one_line(content, folder, capsys):
    path = folder("gpt2")
    (path / "config.json").write_bytes(content)
    assert "config.json" in complaint(capsys, "generate", path, "--prompt", "a")


def test_code_in_a_folder_is_named_and_not_run(folder, capsys):
    path = folder("gpt2")
    ran = path / "ran"
    (path / "modeling.py").write_text(f"open({str(ran)!r}, 'w')\nclass Evil: pass\n")
    values = json.loads((path / "config.json").read_text())
    values["auto_map"] = {"AutoModelForCausalLM": "modeling.Evil", "AutoConfig": "modeling.Evil"}
    (path / "config.json").write_text(json.dumps(values))
    with pytest.warns(Notice, match=r"config\.json asks for Python code of its own \(auto_map\)"):
        nanogpt.load(path)
    assert not ran.exists()


def test_a_notice_is_one_line(monkeypatch):
    from nanogpt.cli import format_warning

    monkeypatch.setattr(warnings, "formatwarning", format_warning)
    assert warnings.formatwarning(Notice("a word"), Notice, "a.py", 3) == "nanogpt: a word\n"
    assert "a.py:3: UserWarning: x" in warnings.formatwarning("x", UserWarning, "a.py", 3)


@pytest.mark.parametrize(
    "places",
    [
        None, [], "model.safetensors", {}, {"a": 1}, {"a": None}, {"a": ["model.safetensors"]},
        {"a": "../gpt2/model.safetensors"}, {"a": "/etc/passwd"}, {"a": ""}, {"a": "."},
        {"a": ".."}, {"a": "part/../model.safetensors"}, {"a": "./model.safetensors"},
        {"a": "none.safetensors"}, {"a": "part"}, {"a": "pipe.safetensors"}, {"a": "pipe.bin"},
        {"a": "loop.safetensors"}, {"a": "config.json"}, {"a": "a\0b"}, {"a": "x" * 10**4},
        {"a": "/dev/zero"},
    ],
)  # fmt: skip
def test_an_index_that_leads_elsewhere_costs_one_line(places, folder):
    path = folder("gpt2")
    (path / "model.safetensors").rename(path / "part-1.safetensors")
    (path / "part").mkdir()
    os.mkfifo(path / "pipe.safetensors")
    os.mkfifo(path / "pipe.bin")
    (path / "loop.safetensors").symlink_to("loop.safetensors")
    index = path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    with pytest.raises(UserError, match="gpt2") as error, within(10):
        from_pretrained(path)
    assert len(str(error.value)) < 700


def safetensors(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file with any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(shape: list[object], start: object, end: object, dtype: object = "F32") -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


EIGHT = bytes(8)
HEADERS = {
    "empty": b"",
    "four bytes": b"\0\0\0\0",
    "no header": struct.pack("<Q", 0),
    "a header that is too long": safetensors({}, length=10**6),
    "a header of 2**63": safetensors({}, length=2**63),
    "a header of 2**64 - 1": safetensors({}, length=2**64 - 1),
    "a header of 20 MB": safetensors(b"{" + b" " * 20_000_000 + b"}"),
    "a header that is no JSON": safetensors(b"{{{{"),
    "a header that is a list": safetensors([]),
    "a header that is a number": safetensors(3),
    "a header that is null": safetensors(None),
    "a header that is not UTF-8": safetensors(b'{"\xff": 1}'),
    "a header that is deep": safetensors(b'{"a":' * 10**5),
    "tensors that are numbers": safetensors({"a": 1}),
    "no tensors": safetensors({}),
    "no shape": safetensors({"a": {"dtype": "F32", "data_offsets": [0, 8]}}, EIGHT),
    "an unknown type": safetensors({"a": tensor([2], 0, 8, "F99")}, EIGHT),
    "a type that is a number": safetensors({"a": tensor([2], 0, 8, 3)}, EIGHT),
    "whole numbers": safetensors({"a": tensor([2], 0, 8, "I32")}, EIGHT),
    "booleans": safetensors({"a": tensor([8], 0, 8, "BOOL")}, EIGHT),
    "complex numbers": safetensors({"a": tensor([1], 0, 8, "C64")}, EIGHT),
    "four bits": safetensors({"a": tensor([16], 0, 8, "F4")}, EIGHT),
    "a shape of texts": safetensors({"a": tensor(["2"], 0, 8)}, EIGHT),
    "a shape below 0": safetensors({"a": tensor([-2], 0, 8)}, EIGHT),
    "a shape that is too large": safetensors({"a": tensor([3], 0, 8)}, EIGHT),
    "a shape that overflows": safetensors({"a": tensor([2**32, 2**32], 0, 8)}, EIGHT),
    "a shape of a thousand": safetensors({"a": tensor([1] * 1000 + [2], 0, 8)}, EIGHT),
    "offsets beyond the end": safetensors({"a": tensor([4], 0, 16)}, EIGHT),
    "offsets that go back": safetensors({"a": tensor([2], 8, 0)}, EIGHT),
    "offsets below 0": safetensors({"a": tensor([2], -8, 0)}, EIGHT),
    "offsets as texts": safetensors({"a": tensor([2], "0", "8")}, EIGHT),
    "tensors that overlap": safetensors({"a": tensor([2], 0, 8), "b": tensor([1], 4, 8)}, EIGHT),
    "tensors with a gap": safetensors({"a": tensor([1], 0, 4), "b": tensor([1], 8, 12)}, bytes(12)),
    "data that no tensor has": safetensors({"a": tensor([1], 0, 4)}, EIGHT),
    "a name that is there twice": safetensors(
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
        b'"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}', EIGHT
    ),
    "another model": safetensors({"a": tensor([2], 0, 8)}, EIGHT),
    "metadata that is a list": safetensors({"__metadata__": [], "a": tensor([2], 0, 8)}, EIGHT),
    "names like layers": safetensors({"h.": tensor([1], 0, 4), "h.x.y": tensor([1], 4, 8)}, EIGHT),
    "text": b"some text that is no tensor at all, of some length",
    "a zip file": b"PK\x03\x04" + bytes(100),
}  # fmt: skip


@pytest.mark.parametrize("name", HEADERS)
def test_damaged_safetensors_cost_one_line(name, folder):
    path = folder("gpt2")
    (path / "model.safetensors").write_bytes(HEADERS[name])
    with pytest.raises(UserError, match=r"model\.safetensors") as error, within(10):
        from_pretrained(path)
    assert len(str(error.value)) < 600


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_spoiled_weights_cost_one_line_or_are_other_weights(name, folder):
    path = folder(name)
    file = path / "model.safetensors"
    refused = 0
    for content in spoiled(file.read_bytes()).values():
        file.write_bytes(content)
        try:
            from_pretrained(path)
        except UserError as error:
            refused += "model.safetensors" in str(error)
    assert refused >= 9


Tensors = dict[str, torch.Tensor]


def change(name: str, make: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Tensors], object]:
    return lambda tensors: tensors.update({name: make(tensors[name]).contiguous()})


def filled(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    def fill(found: torch.Tensor) -> torch.Tensor:
        found = found.clone()
        found.view(-1)[3] = value
        return found

    return fill


GPT2_MATRIX = "transformer.h.1.mlp.c_fc.weight"
LLAMA_MATRIX = "model.layers.1.self_attn.k_proj.weight"
SHAPES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "transposed": lambda t: t.T,
    "flat": lambda t: t.flatten(),
    "a number": lambda t: torch.tensor(1.0),
    "empty": lambda t: t[:0],
    "narrower": lambda t: t[:, :-1],
    "shorter": lambda t: t[:-1],
    "of three axes": lambda t: t[None],
    "of four axes": lambda t: t[None, None],
    "one row too many": lambda t: torch.cat([t, t[:1]]),
    "NaN": filled(float("nan")),
    "infinite": filled(float("inf")),
    "minus infinite": filled(-float("inf")),
    "whole numbers": lambda t: t.long(),
    "bytes": lambda t: t.to(torch.uint8),
    "booleans": lambda t: t.bool(),
}


@pytest.mark.parametrize(("name", "matrix"), [("gpt2", GPT2_MATRIX), ("llama", LLAMA_MATRIX)])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_matrix_of_another_shape_or_kind_costs_one_line(name, matrix, shape, folder):
    path = folder(name)
    tensors = load_file(path / "model.safetensors")
    change(matrix, SHAPES[shape])(tensors)
    save_file(tensors, path / "model.safetensors")
    with pytest.raises(UserError, match=r"model\.safetensors") as error, within(10):
        from_pretrained(path)
    assert len(str(error.value)) < 600


@pytest.mark.parametrize("name", CONFIGS)
def test_a_layer_fewer_or_more_costs_one_line(name, folder):
    path = folder(name)
    tensors = load_file(path / "model.safetensors")
    last = {key: value for key, value in tensors.items() if ".1." in key}
    fewer = {key: value for key, value in tensors.items() if key not in last}
    more = tensors | {key.replace(".1.", ".2."): value.clone() for key, value in last.items()}
    for changed, count in ((fewer, 1), (more, 3)):
        save_file(changed, path / "model.safetensors")
        with pytest.raises(UserError, match=f"has {count} layers, but the settings say 2"):
            from_pretrained(path)


def test_large_finite_numbers_are_no_infinity(folder):
    """Their sum is infinite, and no number of the file is."""
    path = folder("gpt2")
    tensors = load_file(path / "model.safetensors")
    change(GPT2_MATRIX, lambda t: torch.full_like(t, 3e38))(tensors)
    save_file(tensors, path / "model.safetensors")
    assert isinstance(from_pretrained(path), GPT)


class Evil:
    """What runs when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def bin_file(path: Path, value: object) -> None:
    """A pytorch_model.bin in the place of the safetensors."""
    (path / "model.safetensors").unlink()
    torch.save(value, path / "pytorch_model.bin")


def test_a_pickle_with_a_program_is_not_run_and_not_advised(folder, capsys):
    """torch's message says how to load it unsafely."""
    path = folder("gpt2")
    bin_file(path, {"a": Evil(path / "ran")})
    line = complaint(capsys, "generate", path, "--prompt", "a")
    assert not (path / "ran").exists()
    assert "perhaps a program; find the same model as safetensors" in line
    assert not any(word in line for word in ("weights_only", "trust", "can still be loaded"))
    (path / "pytorch_model.bin").write_bytes(pickle.dumps(Evil(path / "ran")))
    line = complaint(capsys, "generate", path, "--prompt", "a")
    assert not (path / "ran").exists()
    assert "weights_only" not in line


def expanded() -> torch.Tensor:
    return torch.zeros(1).expand(10**12)


BINS: dict[str, object] = {
    "a list": [torch.zeros(2)],
    "a number": 3,
    "nothing": None,
    "numbers by name": {"a": 3},
    "tensors by number": {1: torch.zeros(2)},
    "a model in a model": {"model": {"a": torch.zeros(2)}},
    "a tensor of a billion zeros": {"transformer.wte.weight": expanded()},
    "whole numbers": {"transformer.wte.weight": torch.zeros(280, 24, dtype=torch.int64)},
    "complex numbers": {"transformer.wte.weight": torch.zeros(280, 24, dtype=torch.complex64)},
    "sparse numbers": {"transformer.wte.weight": torch.zeros(280, 24).to_sparse()},
    "numbers without values": {"transformer.wte.weight": torch.zeros(280, 24, device="meta")},
    "no weights": {},
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", BINS)
def test_bin_files_of_other_things_cost_one_line(name, folder):
    path = folder("gpt2")
    bin_file(path, BINS[name])
    with pytest.raises(UserError, match=r"pytorch_model\.bin"), within(10):
        from_pretrained(path)


@pytest.mark.filterwarnings("ignore")
def test_spoiled_bin_files_cost_one_line_or_are_other_weights(folder):
    path = folder("gpt2")
    tensors = load_file(path / "model.safetensors")
    bin_file(path, tensors)
    file, refused = path / "pytorch_model.bin", 0
    whole = file.read_bytes()
    with zipfile.ZipFile(file) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    contents = list(spoiled(whole).values())
    pickled = next(name for name in parts if name.endswith("data.pkl"))
    for content in spoiled(parts[pickled]).values():
        with zipfile.ZipFile(path / "spoiled.zip", "w") as archive:
            for name, part in (parts | {pickled: content}).items():
                archive.writestr(name, part)
        contents.append((path / "spoiled.zip").read_bytes())
    for content in contents:
        file.write_bytes(content)
        try:
            with within(10):
                from_pretrained(path)
        except UserError as error:
            refused += "pytorch_model.bin" in str(error)
    assert refused > 20


def test_folders_without_weights_or_of_something_else_cost_one_line(folder, tmp_path, capsys):
    path = folder("gpt2")
    (path / "model.safetensors").unlink()
    complaint(capsys, "generate", path, "--prompt", "a")
    os.mkfifo(path / "model.safetensors")
    assert "pipe" in complaint(capsys, "generate", path, "--prompt", "a")
    (path / "model.safetensors").unlink()
    (path / "model.safetensors").mkdir()
    assert "folder" in complaint(capsys, "generate", path, "--prompt", "a")
    (path / "config.json").unlink()
    os.mkfifo(path / "config.json")
    assert "pipe" in complaint(capsys, "generate", path, "--prompt", "a")


def test_a_tokenizer_that_is_not_the_models_costs_one_line(folder, capsys):
    path = folder("gpt2")
    Tokenizer(OURS.merges, "gpt2", {"<|a|>": 5000}).save(path / "tokenizer.json")
    line = complaint(capsys, "generate", path, "--prompt", "a")
    assert "the tokenizer has 5,001 tokens, but the model 280" in line


def test_the_folders_that_are_spoiled_above_are_fine_as_they_are(exported):
    for name, path in exported.items():
        assert from_pretrained(path).config == replace(
            CONFIGS[name], dropout=0.0, attention_dropout=0.0
        )
        assert isinstance(hugging_face_config(path), ModelConfig)
