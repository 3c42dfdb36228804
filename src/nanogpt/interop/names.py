"""The same model under the names of Hugging Face Transformers: settings and weights, both ways.

`ARCHITECTURES` is a table of four model classes. A GPT-2 is a GPT-2 on both sides. With RoPE, RMS
norm and SwiGLU our model is a Llama, with a window a Mistral, with QK norm a Qwen3. These three
keep apart what is one matrix here: queries, keys and values; gate and value.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nanogpt.config import ModelConfig, from_dict
from nanogpt.errors import UserError
from nanogpt.model.layers import KERNELS, MLPS

Tensors = Mapping[str, Tensor]
Values = Mapping[str, Any]


@dataclass(frozen=True)
class Architecture:
    """A model class of Transformers, and how ours becomes it and it becomes ours."""

    class_name: str
    needs: Values  # the settings of ours that make it this one
    to_values: Callable[[ModelConfig], dict[str, Any]]  # our settings -> config.json
    from_values: Callable[[Values], dict[str, Any]]  # config.json -> our settings
    defaults: Values  # what a missing key means to Transformers, where ours is something else
    to_tensors: Callable[[Tensors, ModelConfig], dict[str, Tensor]]  # our weights -> theirs
    from_tensors: Callable[[Tensors], dict[str, Tensor]]  # their weights -> ours


# GPT-2. OpenAI's code kept the matrices of linear layers as (in, out), torch keeps them as
# (out, in), and Transformers puts the network inside a wrapper. So the map is: add or strip a
# prefix, transpose the weights with four suffixes.
PREFIX = "transformer."
TRANSPOSED = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
HEAD = "lm_head.weight"  # has the same name everywhere
# A tied head, which has no entry of its own here, and what old checkpoints carry along: the causal
# mask, the frequencies of RoPE.
NOT_WEIGHTS = (HEAD, ".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq")


def from_hugging_face(tensors: Tensors) -> dict[str, Tensor]:
    """The state of a GPT2LMHeadModel as the state of our GPT, without its head.

    >>> theirs = {"transformer.h.0.mlp.c_fc.weight": torch.zeros(2, 8)}
    >>> {name: tuple(t.shape) for name, t in from_hugging_face(theirs).items()}
    {'h.0.mlp.c_fc.weight': (8, 2)}
    """
    ours = {}
    for name, tensor in tensors.items():
        if not name.endswith(NOT_WEIGHTS):
            turned = name.endswith(TRANSPOSED)
            if turned and tensor.ndim != 2:
                raise UserError(f"{name} has the shape {tuple(tensor.shape)}, but is a matrix")
            ours[name.removeprefix(PREFIX)] = (tensor.T if turned else tensor).contiguous()
    return ours


def to_hugging_face(tensors: Tensors) -> dict[str, Tensor]:
    """The inverse: the state of our GPT as that of a GPT2LMHeadModel."""
    return {
        name if name == HEAD else PREFIX + name: (
            tensor.T if name.endswith(TRANSPOSED) else tensor
        ).contiguous()
        for name, tensor in tensors.items()
    }


def gpt2_values(config: ModelConfig) -> dict[str, Any]:
    """GPT-2's own keys."""
    return {
        "n_positions": config.context_length,
        "n_ctx": config.context_length,  # the older name, which llama.cpp reads
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "n_embd": config.n_embd,
        "n_inner": MLPS["gelu"].width(config),
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "add_cross_attention": False,
        "embd_pdrop": config.dropout,
        "resid_pdrop": config.dropout,
        "attn_pdrop": config.attention_dropout,
    }


def gpt2_settings(values: Values) -> dict[str, Any]:
    """Our settings in GPT-2's keys. Raises KeyError for one that is missing."""
    names = ("vocab_size", "n_layer", "n_head", "n_embd")
    return {name: values[name] for name in names} | {"context_length": values["n_positions"]}


def llama_values(config: ModelConfig) -> dict[str, Any]:
    """The keys that Llama, Mistral and Qwen3 share."""
    rope = {"rope_theta": 10_000.0}
    return {
        "max_position_embeddings": config.context_length,
        "num_hidden_layers": config.n_layer,
        "num_attention_heads": config.n_head,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_size,
        "hidden_size": config.n_embd,
        "intermediate_size": MLPS["swiglu"].width(config),
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        **rope,  # for Transformers before 5
        "rope_scaling": None,  # the same
        "rope_parameters": {"rope_type": "default", **rope},
        "attention_dropout": config.attention_dropout,
        "attention_bias": config.bias,
        "mlp_bias": config.bias,
    }


def llama_settings(values: Values) -> dict[str, Any]:
    """Our settings in the keys of the three. Raises KeyError for one that is missing."""
    heads, kv_heads = values["num_attention_heads"], values["num_key_value_heads"]
    return {
        "vocab_size": values["vocab_size"],
        "context_length": values["max_position_embeddings"],
        "n_layer": values["num_hidden_layers"],
        "n_head": heads,
        "n_kv_head": 0 if kv_heads == heads else kv_heads,
        "n_embd": values["hidden_size"],
    }


LLAMA_NAMES = {
    "wte.": "model.embed_tokens.",
    "ln_f.": "model.norm.",
    "h.": "model.layers.",
    ".ln_1.": ".input_layernorm.",
    ".ln_2.": ".post_attention_layernorm.",
    ".attn.c_proj.": ".self_attn.o_proj.",
    ".mlp.c_proj.": ".mlp.down_proj.",
}
# What is one matrix here and several there, one above the other.
JOINED = {
    ".attn.c_attn.": (".self_attn.q_proj.", ".self_attn.k_proj.", ".self_attn.v_proj."),
    ".mlp.c_fc.": (".mlp.gate_proj.", ".mlp.up_proj."),
}


def renamed(name: str, names: Mapping[str, str]) -> str:
    """A name with its beginning and one part replaced.

    >>> renamed("h.3.ln_1.weight", LLAMA_NAMES)
    'model.layers.3.input_layernorm.weight'
    """
    for old, new in names.items():
        if name.startswith(old) or (old.startswith(".") and old in name):
            name = name.replace(old, new, 1)
    return name


def to_llama(tensors: Tensors, config: ModelConfig) -> dict[str, Tensor]:
    """Our weights under Llama's names, the joined matrices split.

    >>> to_llama({"h.3.mlp.c_fc.weight": torch.zeros(4, 3)}, ModelConfig()).keys()
    dict_keys(['model.layers.3.mlp.gate_proj.weight', 'model.layers.3.mlp.up_proj.weight'])
    """
    theirs: dict[str, Tensor] = {}
    heads = [config.n_head, config.kv_heads, config.kv_heads]
    for ours, tensor in tensors.items():
        name = renamed(ours, LLAMA_NAMES)
        joined = next((part for part in JOINED if part in ours), None)
        if joined is None:
            theirs[name] = tensor.contiguous()
            continue
        rows = [n * config.head_size for n in heads] if "attn" in joined else len(tensor) // 2
        for part, piece in zip(JOINED[joined], tensor.split(rows), strict=True):
            theirs[name.replace(joined, part)] = piece.contiguous()
    return theirs


def from_llama(tensors: Tensors) -> dict[str, Tensor]:
    """The inverse: Llama's weights under our names, the pieces joined.

    >>> gate_and_up = to_llama({"h.3.mlp.c_fc.weight": torch.zeros(4, 3)}, ModelConfig())
    >>> {name: tuple(tensor.shape) for name, tensor in from_llama(gate_and_up).items()}
    {'h.3.mlp.c_fc.weight': (4, 3)}
    """
    to_ours = {theirs: ours for ours, theirs in LLAMA_NAMES.items()}
    pieces = {part: joined for joined, parts in JOINED.items() for part in parts}
    ours: dict[str, Tensor] = {}
    for theirs, tensor in tensors.items():
        name = renamed(theirs, to_ours)
        part = next((part for part in pieces if part in name), None)
        if part is None:
            if not name.endswith(NOT_WEIGHTS):
                ours[name] = tensor
            continue
        whole = name.replace(part, pieces[part])
        if whole not in ours:  # all pieces at once, in our order, whatever the file's order is
            names = [theirs.replace(part, other) for other in JOINED[pieces[part]]]
            parts = [tensors[n] for n in names if n in tensors]
            if not tensor.ndim or len({part.shape[1:] for part in parts}) > 1:
                shapes = ", ".join(str(tuple(part.shape)) for part in parts)
                raise UserError(f"{theirs} and what belongs to it have the shapes {shapes}")
            ours[whole] = torch.cat(parts)
    return ours


QK_GAINS = (".self_attn.q_norm.weight", ".self_attn.k_norm.weight")


def to_qwen3(tensors: Tensors, config: ModelConfig) -> dict[str, Tensor]:
    """Llama's names, and the gains of QK norm, which our model does not have: ones."""
    theirs = to_llama(tensors, config)
    for layer in range(config.n_layer):
        for gain in QK_GAINS:
            theirs[f"model.layers.{layer}{gain}"] = torch.ones(config.head_size)
    return theirs


def from_qwen3(tensors: Tensors) -> dict[str, Tensor]:
    """The inverse. Raises UserError for gains of QK norm that are not 1."""
    for name, tensor in tensors.items():
        if name.endswith(QK_GAINS) and not bool((tensor == 1).all()):
            raise UserError(f"{name} has learned gains, and our QK norm has none: all must be 1")
    return from_llama({n: tensor for n, tensor in tensors.items() if not n.endswith(QK_GAINS)})


LLAMA = {"position": "rope", "norm": "rms", "mlp": "swiglu", "block": "pre-norm"}
LLAMA_DEFAULTS = {"rms_norm_eps": 1e-6, "tie_word_embeddings": False, "attention_bias": False}
ARCHITECTURES = {
    "gpt2": Architecture(
        "GPT2LMHeadModel",
        {"position": "learned", "norm": "layer", "mlp": "gelu", "bias": True, "n_kv_head": 0}
        | {"qk_norm": False, "window": 0, "block": "pre-norm"},
        gpt2_values,
        gpt2_settings,
        {},
        lambda tensors, config: to_hugging_face(tensors),
        from_hugging_face,
    ),
    "llama": Architecture(
        "LlamaForCausalLM",
        LLAMA | {"qk_norm": False, "window": 0},
        llama_values,
        lambda values: llama_settings(values) | {"bias": values.get("attention_bias", False)},
        LLAMA_DEFAULTS | {"mlp_bias": False},
        to_llama,
        from_llama,
    ),
    "mistral": Architecture(
        "MistralForCausalLM",
        LLAMA | {"qk_norm": False, "bias": False},
        lambda config: llama_values(config) | {"sliding_window": config.window or None},
        lambda values: llama_settings(values) | {"window": values.get("sliding_window", 4096) or 0},
        LLAMA_DEFAULTS,
        to_llama,
        from_llama,
    ),
    "qwen3": Architecture(
        "Qwen3ForCausalLM",
        LLAMA | {"qk_norm": True, "bias": False, "window": 0},
        lambda config: (
            llama_values(config)
            | {"use_sliding_window": False, "layer_types": ["full_attention"] * config.n_layer}
        ),
        llama_settings,
        LLAMA_DEFAULTS | {"head_dim": 128},
        to_qwen3,
        from_qwen3,
    ),
}


def architecture_of(config: ModelConfig) -> str:
    """The architecture of Transformers that a model is. Raises UserError if it is none of them."""
    settings = {**vars(config), "n_kv_head": config.kv_heads % config.n_head}
    if config.attention in (*KERNELS, "flex"):  # the same numbers, computed differently
        settings["attention"] = ""
    if config.head in ("tied", "untied"):  # all of them may have either
        settings["head"] = "tied"
    wrong = {
        name: [
            f"model.{key}={str(value).lower()}"
            for key, value in {"attention": "", "head": "tied", **architecture.needs}.items()
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


def config_json(config: ModelConfig, end: int | None = None) -> dict[str, Any]:
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
        "tie_word_embeddings": config.head == "tied",
        "dtype": "float32",
        **ARCHITECTURES[name].to_values(config),
    }


# Keys that do not change what the model computes from its weights.
NO_MATTER = ("n_ctx", "embd_pdrop", "resid_pdrop", "attn_pdrop", "attention_dropout")


def settings_from_json(values: Values) -> ModelConfig:
    """Our settings for a model that a config.json describes; the inverse of config_json.

    Every key that we would write for these settings has to say the same there, because our model
    has only one way of it. Raises UserError naming the first key that does not, or is missing.
    """
    name = values.get("model_type")
    if name is None:
        raise UserError("there is no model_type; this describes no Transformers model")
    if name not in list(ARCHITECTURES):
        raise UserError(
            f"model_type={name!r:.80} is not supported, only {', '.join(ARCHITECTURES)}"
        )
    architecture = ARCHITECTURES[name]
    try:
        settings = {**architecture.needs, **architecture.from_values(values)}
        tied = values.get("tie_word_embeddings")
        tied = architecture.defaults.get("tie_word_embeddings", True) if tied is None else tied
        settings["head"] = "untied" if tied is False else "tied"
    except KeyError as error:
        raise UserError(f"there is no {error.args[0]}, which {name} needs") from None
    config = from_dict(ModelConfig, settings)
    ours = {"tie_word_embeddings": config.head == "tied", **architecture.to_values(config)}
    for key, value in ours.items():
        found = values.get(key)
        if found is None:
            found = architecture.defaults.get(key, value)
        if found != value and key not in NO_MATTER:
            raise UserError(f"{key}={found!r:.80} is not supported, only {value!r:.80}")
    return config
