"""GPT-2 as Hugging Face Transformers keeps it: the same weights under slightly different names.

OpenAI's code kept the matrices of linear layers as (in, out), torch keeps them as (out, in). And
Transformers puts the network inside a wrapper. So the map is: add or strip a prefix, transpose the
weights with four suffixes. The tied head has no entry of its own on either side.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from nanogpt.config import PRESETS, ModelConfig, from_dict
from nanogpt.errors import UserError
from nanogpt.files import read_json
from nanogpt.model.build import build
from nanogpt.model.gpt import GPT

PREFIX = "transformer."
TRANSPOSED = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
# The tied head, and the causal masks that old checkpoints carry along.
NOT_WEIGHTS = ("lm_head.weight", ".attn.bias", ".attn.masked_bias")


def from_hugging_face(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of a GPT2LMHeadModel as the state of our GPT.

    >>> theirs = {"transformer.h.0.mlp.c_fc.weight": torch.zeros(2, 8)}
    >>> {name: tuple(t.shape) for name, t in from_hugging_face(theirs).items()}
    {'h.0.mlp.c_fc.weight': (8, 2)}
    """
    ours = {}
    for name, tensor in tensors.items():
        if not name.endswith(NOT_WEIGHTS):
            turned = tensor.T if name.endswith(TRANSPOSED) else tensor
            ours[name.removeprefix(PREFIX)] = turned.contiguous()
    return ours


def to_hugging_face(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse: the state of our GPT as that of a GPT2LMHeadModel, without its tied head."""
    return {
        PREFIX + name: (tensor.T if name.endswith(TRANSPOSED) else tensor).contiguous()
        for name, tensor in tensors.items()
    }


# What a config.json may say of settings that we have only one way of.
SUPPORTED: dict[str, Any] = {
    "model_type": "gpt2",
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-5,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
}


def hugging_face_config(folder: Path) -> ModelConfig:
    """The shape of a GPT-2 in Hugging Face's config.json.

    Raises UserError if the file is missing or damaged, or asks for what our GPT-2 has not.
    """
    path = folder / "config.json"
    values = read_json(path)
    if "model_type" not in values:
        raise UserError(f"{path} has no model_type; it describes no model of Transformers'")
    own_width = {"n_inner": 4 * values.get("n_embd", 0)} if values.get("n_inner") else {}
    for name, ours in (SUPPORTED | own_width).items():
        if values.get(name, ours) != ours:
            raise UserError(f"{path}: {name}={values[name]!r} is not supported, only {ours!r}")
    keys = {"context_length": "n_positions"}
    keys |= {name: name for name in ("vocab_size", "n_layer", "n_head", "n_embd")}
    try:
        return from_dict(ModelConfig, {ours: values[theirs] for ours, theirs in keys.items()})
    except KeyError as error:
        raise UserError(f"{path} has no {error}; it is not a GPT-2's") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def from_pretrained(name: str | Path) -> GPT:
    """A GPT-2 from a folder of Hugging Face's, or by its name on their hub, such as "gpt2".

    Raises UserError if there is no such model, no network to fetch it, a file is missing or
    damaged, or the model is one that our GPT-2 cannot be.
    """
    folder = Path(name) if Path(name).is_dir() else fetch(str(name))
    config = hugging_face_config(folder)
    path, tensors = read_weights(folder)
    floats = {name: tensor.float() for name, tensor in tensors.items()}
    return build(config, from_hugging_face(floats), path).eval()


def read_weights(folder: Path) -> tuple[Path, dict[str, Tensor]]:
    """All tensors of a folder, in one file or several, and the file that leads to them.

    Raises UserError naming the file that is missing or damaged.
    """
    names = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
    path = next((folder / name for name in names if (folder / name).exists()), folder / names[0])
    parts = [path.name]
    if path.suffix == ".json":
        places = read_json(path).get("weight_map")
        if not isinstance(places, dict) or not all(isinstance(p, str) for p in places.values()):
            raise UserError(f"{path} does not say which file holds which weights; fetch it again")
        parts = sorted(set(places.values()))
    tensors: dict[str, Tensor] = {}
    for part in parts:
        try:
            tensors |= read_tensors(folder / part)
        except OSError as error:
            reason = error.strerror or str(error)
            raise UserError(f"{folder / part} cannot be read ({reason}); fetch it again") from None
        except (SafetensorError, UnpicklingError, RuntimeError, ValueError, EOFError) as error:
            reason = str(error).partition("\n")[0].partition(" This file can")[0]
            raise UserError(f"{folder / part} cannot be read ({reason}); fetch it again") from None
    return path, tensors


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of one file. Of a .bin only tensors are unpickled, never code."""
    if path.suffix != ".bin":
        return load_file(path)
    mapped = zipfile.is_zipfile(path)  # files from before torch 1.6 cannot be
    tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    named = isinstance(tensors, dict) and all(isinstance(name, str) for name in tensors)
    if not named or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise ValueError("it does not hold tensors by name")
    return tensors


def fetch(name: str) -> Path:
    """Fetch a model's files from the Hugging Face hub, once, and return their folder.

    Raises UserError if the hub cannot be reached or has no such model.
    """
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
    except ImportError:
        raise UserError(
            f"{name!r} is no folder here; fetching it needs: pip install 'nanogpt[data]'"
        ) from None
    repository = f"openai-community/{name}" if name in PRESETS else name
    wanted = ["config.json", "model*.safetensors*", "*token*.json", "vocab.json", "merges.txt"]
    try:
        folder = Path(snapshot_download(repository, allow_patterns=wanted))
        if not any(folder.glob("model*.safetensors")):
            snapshot_download(repository, allow_patterns=["pytorch_model.bin"])
        return folder
    except HFValidationError:
        reason = "this cannot be the name of a model"
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError) as error:
        responses = [getattr(e, "response", None) for e in (error, error.__cause__)]
        absent = any(getattr(r, "status_code", 0) in (401, 404) for r in responses)
        reason = "the hub has no such model" if absent else "the hub cannot be reached"
    raise UserError(f"{name!r} is no folder here and cannot be fetched: {reason}")
