"""A run that LoRA has tuned, as a folder that the package peft opens.

It holds what was trained and nothing else: some megabytes, to be put on the model that the run
began with. For GPT-2 alone, whose layers have one name in both worlds.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nanogpt.config import TrainConfig
from nanogpt.errors import UserError
from nanogpt.files import write_json, writing_folder
from nanogpt.interop.names import PREFIX, architecture_of
from nanogpt.model.build import write_tensors
from nanogpt.model.gpt import GPT
from nanogpt.model.lora import lora_tensors

THEIRS = {"lora_a": "lora_A.weight", "lora_b": "lora_B.weight"}


def export_adapter(folder: str | Path, model: GPT, settings: TrainConfig) -> None:
    """Write adapter_config.json and adapter_model.safetensors, whole or not at all.

    `model` has LoRA as it is trained: see checkpoint.load_for_training. Raises UserError for a
    model without LoRA, for another model than a GPT-2, for new tokens in its vocabulary, which
    the format cannot keep, and for a folder that is not empty.
    """
    folder = Path(folder).resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and is not empty; name a new folder")
    tensors = lora_tensors(model)
    if not tensors:
        raise UserError("--adapter is for a run with train.lora_rank; leave it out")
    if architecture_of(model.config) != "gpt2" or "wte.lora_rows" in tensors:
        raise UserError("--adapter is for a GPT-2 whose vocabulary did not grow; leave it out")
    theirs = {}
    for name, tensor in tensors.items():
        layer, _, which = name.rpartition(".")
        theirs[f"base_model.model.{PREFIX}{layer}.{THEIRS[which]}"] = tensor.cpu().contiguous()
    with writing_folder(folder) as temporary:
        write_json(temporary / "adapter_config.json", adapter_json(tensors, settings))
        write_tensors(temporary / "adapter_model.safetensors", theirs, {"format": "pt"})


def adapter_json(names: Iterable[str], settings: TrainConfig) -> dict[str, Any]:
    """The content of adapter_config.json for tensors of these names."""
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": settings.init,
        "r": settings.lora_rank,
        "lora_alpha": settings.lora_alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": True,  # GPT-2's matrices are (in, out) there
        "target_modules": sorted({name.rpartition(".")[0] for name in names}),
        "inference_mode": True,
    }
