"""Folders of Hugging Face Transformers: read one, fetch one from the hub, write one.

Which settings and names a model has there is in names.py.
"""

import os
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from nanogpt.config import PRESETS, ModelConfig, SampleConfig
from nanogpt.errors import Notice, UserError
from nanogpt.files import read_json, write_json, write_text, writing_files, writing_folder
from nanogpt.interop.names import (
    ARCHITECTURES,
    HEAD,
    NOT_WEIGHTS,
    architecture_of,
    config_json,
    settings_from_json,
)
from nanogpt.interop.tokenizers import to_huggingface
from nanogpt.model.build import build, write_tensors
from nanogpt.model.gpt import GPT
from nanogpt.text.conversations import END
from nanogpt.text.tokenizer import END_OF_TEXT, BaseTokenizer

READABLE = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
LONGEST_HEADER = 2**24  # bytes of a safetensors file; those of the largest models have a million


def hugging_face_config(folder: str | Path) -> ModelConfig:
    """The settings of the model in a Hugging Face folder, from its config.json.

    Raises UserError if the file is missing or damaged, or asks for what our model does not have.
    """
    path = Path(folder) / "config.json"
    values = read_json(path)
    if "auto_map" in values:
        message = f"{path} asks for Python code of its own (auto_map); it is not run"
        warnings.warn(message, Notice, stacklevel=2)
    try:
        return settings_from_json(values)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def from_pretrained(name: str | Path) -> GPT:
    """A model from a Hugging Face folder, or by its name on their hub, such as "gpt2".

    It may be a GPT-2, or a Llama, Mistral or Qwen3 with the settings that ours can have. Raises
    UserError if there is no such model, no network to fetch it, a file is missing or damaged, or
    the model is one that ours cannot be.
    """
    folder = Path(name) if Path(name).is_dir() else fetch(str(name))
    if (folder / "config.toml").exists() and not (folder / "config.json").exists():
        raise UserError(f"{folder} is a run folder: open it with nanogpt.load({str(folder)!r})")
    config = hugging_face_config(folder)
    path, tensors = read_weights(folder)
    try:
        head = tensors.pop(HEAD, None) if config.head == "untied" else None
        floats = {n: as_floats(n, t) for n, t in tensors.items() if not n.endswith(NOT_WEIGHTS)}
        del tensors  # or both would be in memory at once
        ours = ARCHITECTURES[architecture_of(config)].from_tensors(floats)
        if head is not None:
            ours[HEAD] = as_floats(HEAD, head)
        check_finite(ours)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return build(config, ours, path).eval()


def as_floats(name: str, tensor: Tensor) -> Tensor:
    """A tensor of weights in float32. Raises UserError if it holds other than plain numbers."""
    if tensor.dtype not in READABLE:
        raise UserError(f"{name} is of {tensor.dtype}; only {READABLE} can be read")
    return tensor.float()


def check_finite(tensors: Mapping[str, Tensor]) -> None:
    """Raise UserError naming the first tensor that holds NaN or infinity."""
    for name, tensor in tensors.items():
        # A sum needs no memory, and is finite where all numbers are, unless they are enormous.
        if not tensor.sum().isfinite() and not bool(tensor.isfinite().all()):
            raise UserError(f"{name} holds NaN or infinity; such a model says nothing")


def read_weights(folder: str | Path) -> tuple[Path, dict[str, Tensor]]:
    """All tensors of a folder, in one file or several, and the file that leads to them.

    Raises UserError naming the file that is missing or damaged.
    """
    folder = Path(folder)
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
        if Path(part).name != part or len(part) > 255:
            raise UserError(f"{path} leads out of its folder, to {part!r:.80}; fetch it again")
        try:
            tensors |= read_tensors(folder / part)
        except OSError as error:
            reason = error.strerror or str(error)
            raise UserError(f"{folder / part} cannot be read ({reason}); fetch it again") from None
        except UnpicklingError:  # its message says how to run what is in the file
            raise UserError(
                f"{folder / part} cannot be read: it is damaged, or holds more than tensors, "
                "perhaps a program; find the same model as safetensors"
            ) from None
        except Exception as error:  # a damaged .bin raises whatever torch's reader stumbles over
            reason = str(error).partition("\n")[0][:200] or type(error).__name__
            raise UserError(f"{folder / part} cannot be read ({reason}); fetch it again") from None
    return path, tensors


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """The tensors of one file. Of a .bin only tensors are unpickled, never code."""
    path = Path(path)
    if path.exists() and not path.is_file():
        raise ValueError("it is a folder, a pipe or a device")
    if path.suffix != ".bin":
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
        if length > LONGEST_HEADER:
            raise ValueError(f"its header has {length:,} bytes")
        return load_file(path)
    mapped = zipfile.is_zipfile(path)  # files from before torch 1.6 cannot be
    with warnings.catch_warnings(action="ignore"):  # of what is an error just below
        tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    named = isinstance(tensors, dict) and all(isinstance(name, str) for name in tensors)
    if not named or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise ValueError("it does not hold tensors by name")
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.is_meta:
            raise ValueError(f"{name} does not hold plain numbers")
        # One number in the file may stand for a billion in the tensor.
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise ValueError(f"{name} has more numbers than the file holds")
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


def generation_json(
    sample: SampleConfig, tokenizer: BaseTokenizer, context_length: int
) -> dict[str, Any]:
    """The content of generation_config.json: how the run samples, and which tokens end a text.

    Transformers does not go past the context of a GPT-2, so that is the most it should make.
    """
    end, message_end = (tokenizer.special_tokens.get(name) for name in (END_OF_TEXT, END))
    ends = end if message_end is None else [message_end, end]
    values: dict[str, Any] = {"bos_token_id": end, "eos_token_id": ends, "pad_token_id": end}
    values |= {"max_length": context_length, "repetition_penalty": sample.repetition_penalty}
    if sample.temperature == 0:
        return values | {"do_sample": False}
    names = ("temperature", "top_k", "top_p", "min_p")
    return values | {"do_sample": True} | {name: getattr(sample, name) for name in names}


def export(
    folder: str | Path, model: GPT, tokenizer: BaseTokenizer, sample: SampleConfig, card: str
) -> None:
    """Write a folder that AutoModelForCausalLM and AutoTokenizer open, whole or not at all.

    The card becomes its README.md. Raises UserError if there is something in the folder, for a
    model that Transformers has no architecture for, and for a tokenizer that it cannot have.
    """
    folder = Path(folder).resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and is not empty; name a new folder")
    end = tokenizer.special_tokens.get(END_OF_TEXT)
    values, length = config_json(model.config, end), model.config.context_length
    state = {name: tensor.detach().cpu().float() for name, tensor in model.state_dict().items()}
    tensors = ARCHITECTURES[values["model_type"]].to_tensors(state, model.config)
    # The current folder, or the place of a disk, cannot be replaced, only filled.
    fixed = folder == Path.cwd() or os.path.ismount(folder)
    with (writing_files if fixed else writing_folder)(folder) as temporary:
        write_json(temporary / "config.json", values)
        write_json(temporary / "generation_config.json", generation_json(sample, tokenizer, length))
        write_tensors(temporary / "model.safetensors", tensors, {"format": "pt"})
        to_huggingface(tokenizer, temporary, length)
        write_text(temporary / "README.md", card)
