"""A folder that Hugging Face's AutoModelForCausalLM and AutoTokenizer open.

A GPT-2 is written as a GPT-2. Three architectures of Transformers are what ours becomes with RoPE,
RMS norm and SwiGLU: Llama; with a window, Mistral; with QK norm, Qwen3. They keep apart what is one
matrix here: queries, keys and values; gate and value.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from nanogpt.config import ModelConfig, SampleConfig
from nanogpt.errors import UserError
from nanogpt.files import write_json, write_text, writing_files, writing_folder
from nanogpt.interop.huggingface import to_hugging_face
from nanogpt.interop.tokenizers import to_huggingface
from nanogpt.model.gpt import GPT
from nanogpt.text.tokenizer import END_OF_TEXT, BaseTokenizer

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Architecture:
    """A model class of Transformers, and how ours becomes it."""

    class_name: str
    needs: Mapping[str, Any]  # the settings of ours that make it this one
    config: Callable[[ModelConfig], dict[str, Any]]  # what goes into config.json
    tensors: Callable[[Tensors, ModelConfig], dict[str, Tensor]]


def gpt2_config(config: ModelConfig) -> dict[str, Any]:
    """GPT-2's own keys."""
    return {
        "n_positions": config.context_length,
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "n_embd": config.n_embd,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "embd_pdrop": config.dropout,
        "resid_pdrop": config.dropout,
        "attn_pdrop": config.attention_dropout,
    }


def llama_config(config: ModelConfig) -> dict[str, Any]:
    """The keys that Llama and its kin share, and each one's own."""
    width = 8 * -(-config.n_embd // 3)  # see layers.SwiGLU
    rope = {"rope_theta": 10_000.0}
    return {
        "max_position_embeddings": config.context_length,
        "num_hidden_layers": config.n_layer,
        "num_attention_heads": config.n_head,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_size,
        "hidden_size": config.n_embd,
        "intermediate_size": width,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        **rope,  # for Transformers before 5
        "rope_parameters": {"rope_type": "default", **rope},
        "attention_dropout": config.attention_dropout,
        "attention_bias": config.bias,
        "mlp_bias": config.bias,
        "sliding_window": config.window or None,
    }


LLAMA_NAMES = {
    "wte.": "model.embed_tokens.",
    "ln_f.": "model.norm.",
    ".ln_1.": ".input_layernorm.",
    ".ln_2.": ".post_attention_layernorm.",
    ".attn.c_proj.": ".self_attn.o_proj.",
    ".mlp.c_proj.": ".mlp.down_proj.",
}


def llama_tensors(tensors: Tensors, config: ModelConfig) -> dict[str, Tensor]:
    """The same weights under Llama's names, the joined matrices cut apart.

    >>> llama_tensors({"h.3.mlp.c_fc.weight": torch.zeros(4, 3)}, ModelConfig()).keys()
    dict_keys(['model.layers.3.mlp.gate_proj.weight', 'model.layers.3.mlp.up_proj.weight'])
    """
    theirs: dict[str, Tensor] = {}
    heads = [config.n_head, config.kv_heads, config.kv_heads]
    for ours, tensor in tensors.items():
        name = "model.layers." + ours.removeprefix("h.") if ours.startswith("h.") else ours
        if ".c_attn." in name:
            pieces = zip("qkv", tensor.split([n * config.head_size for n in heads]), strict=True)
            for letter, piece in pieces:
                part = f".self_attn.{letter}_proj."
                theirs[name.replace(".attn.c_attn.", part)] = piece.contiguous()
        elif ".c_fc." in name:
            for part, piece in zip(("gate", "up"), tensor.chunk(2), strict=True):
                theirs[name.replace(".c_fc.", f".{part}_proj.")] = piece.contiguous()
        else:
            for old, new in LLAMA_NAMES.items():
                name = name.replace(old, new)
            theirs[name] = tensor.contiguous()
    return theirs


def qwen3_tensors(tensors: Tensors, config: ModelConfig) -> dict[str, Tensor]:
    """Llama's, with the gains of QK norm, which ours has not: ones."""
    theirs = llama_tensors(tensors, config)
    for layer in range(config.n_layer):
        for letter in "qk":
            gain = torch.ones(config.head_size)
            theirs[f"model.layers.{layer}.self_attn.{letter}_norm.weight"] = gain
    return theirs


LLAMA = {"position": "rope", "norm": "rms", "mlp": "swiglu", "block": "pre-norm"}
ARCHITECTURES = {
    "gpt2": Architecture(
        "GPT2LMHeadModel",
        {"position": "learned", "norm": "layer", "mlp": "gelu", "bias": True, "n_kv_head": 0}
        | {"qk_norm": False, "window": 0, "block": "pre-norm"},
        gpt2_config,
        lambda tensors, config: to_hugging_face(tensors),
    ),
    "llama": Architecture(
        "LlamaForCausalLM", LLAMA | {"qk_norm": False, "window": 0}, llama_config, llama_tensors
    ),
    "mistral": Architecture(
        "MistralForCausalLM", LLAMA | {"qk_norm": False, "bias": False}, llama_config, llama_tensors
    ),
    "qwen3": Architecture(
        "Qwen3ForCausalLM",
        LLAMA | {"qk_norm": True, "bias": False, "window": 0},
        llama_config,
        qwen3_tensors,
    ),
}


def architecture_of(config: ModelConfig) -> str:
    """The architecture of Transformers that a model is. Raises UserError if it is none of them."""
    settings = {**vars(config), "n_kv_head": config.kv_heads % config.n_head}
    wrong = {
        name: [
            f"model.{key}={str(value).lower()}"
            for key, value in architecture.needs.items()
            if settings[key] != value
        ]
        for name, architecture in ARCHITECTURES.items()
    }
    nearest = min(wrong, key=lambda name: len(wrong[name]))
    if wrong[nearest]:
        raise UserError(
            "Transformers has no architecture with these settings; the nearest is "
            f"{ARCHITECTURES[nearest].class_name}, which needs {' '.join(wrong[nearest])}"
        )
    return nearest


def config_json(config: ModelConfig, end: int | None) -> dict[str, Any]:
    """The content of config.json. `end` is the id of the end-of-text token, None without one.

    Raises UserError for a model that Transformers has no architecture for.
    """
    name = architecture_of(config)
    return {
        "architectures": [ARCHITECTURES[name].class_name],
        "model_type": name,
        "vocab_size": config.vocab_size,
        "bos_token_id": end,
        "eos_token_id": end,
        "tie_word_embeddings": True,
        "dtype": "float32",
        **ARCHITECTURES[name].config(config),
    }


def generation_json(sample: SampleConfig, end: int | None, context_length: int) -> dict[str, Any]:
    """The content of generation_config.json: how the run samples.

    Transformers does not go past the context of a GPT-2, so that is the most it should make.
    """
    values: dict[str, Any] = {"bos_token_id": end, "eos_token_id": end, "pad_token_id": end}
    values |= {"max_length": context_length, "repetition_penalty": sample.repetition_penalty}
    if sample.temperature == 0:
        return values | {"do_sample": False}
    names = ("temperature", "top_k", "top_p", "min_p")
    return values | {"do_sample": True} | {name: getattr(sample, name) for name in names}


def export(
    folder: Path, model: GPT, tokenizer: BaseTokenizer, sample: SampleConfig, card: str
) -> None:
    """Write the folder, whole or not at all; the card becomes its README.md.

    Raises UserError if there is something in it, for a model that Transformers has no architecture
    for, and for a tokenizer that it cannot have.
    """
    folder = folder.resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and is not empty; name a new folder")
    end = tokenizer.special_tokens.get(END_OF_TEXT)
    values, length = config_json(model.config, end), model.config.context_length
    state = {name: tensor.detach().cpu().float() for name, tensor in model.state_dict().items()}
    tensors = ARCHITECTURES[values["model_type"]].tensors(state, model.config)
    # An empty folder may be the one we stand in, which cannot be replaced, only filled.
    with (writing_files if folder.exists() else writing_folder)(folder) as temporary:
        write_json(temporary / "config.json", values)
        write_json(temporary / "generation_config.json", generation_json(sample, end, length))
        save_file(tensors, temporary / "model.safetensors", metadata={"format": "pt"})
        to_huggingface(tokenizer, temporary)
        write_text(temporary / "README.md", card)
