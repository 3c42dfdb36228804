"""To and from Hugging Face Transformers: the same weights under slightly different names.

OpenAI's code kept the matrices of linear layers as (in, out); torch keeps them as (out, in). And
Transformers puts the network inside a wrapper. So the map is: strip or add a prefix, transpose the
weights with four suffixes. The tied head has no entry of its own on either side.
"""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from nanogpt.config import ModelConfig
from nanogpt.errors import UserError
from nanogpt.files import read_json
from nanogpt.model import GPT

PREFIX = "transformer."
TRANSPOSED = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
# The tied head, and the causal masks that old checkpoints carry along.
NOT_WEIGHTS = ("lm_head.weight", ".attn.bias", ".attn.masked_bias")


def from_hugging_face(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of a GPT2LMHeadModel as the state of our GPT.

    >>> import torch
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


def hugging_face_config(folder: Path) -> ModelConfig:
    """The shape of a GPT-2 in Hugging Face's config.json.

    Raises UserError if the file is missing or damaged, or asks for what our GPT-2 has not.
    """
    values = read_json(folder / "config.json")
    for name, ours in {
        "model_type": "gpt2",
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "tie_word_embeddings": True,
        "n_inner": None,
    }.items():
        if values.get(name, ours) != ours:
            raise UserError(f"{folder}/config.json: {name}={values[name]!r} is not supported")
    try:
        return ModelConfig(
            vocab_size=values["vocab_size"],
            context_length=values["n_positions"],
            n_layer=values["n_layer"],
            n_head=values["n_head"],
            n_embd=values["n_embd"],
        )
    except KeyError as error:
        raise UserError(f"{folder}/config.json has no {error}; it is not a GPT-2's") from None


def load_hugging_face(folder: Path) -> GPT:
    """A GPT-2 from a folder with Hugging Face's config.json and model.safetensors.

    Raises UserError if a file is missing or damaged, or asks for what our GPT-2 has not.
    """
    path = folder / "model.safetensors"
    try:
        tensors = from_hugging_face(load_file(path))
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} cannot be read ({error}); fetch it again") from None
    model = GPT(hugging_face_config(folder))
    check_tensors(model, tensors, path)
    model.load_state_dict(tensors)
    return model


def check_tensors(model: GPT, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raise UserError naming the first tensor that is missing, too many, or of another shape."""
    ours = {name: tensor.shape for name, tensor in model.state_dict().items()}
    for name in sorted(ours.keys() | tensors.keys()):
        found = tuple(tensors[name].shape) if name in tensors else "absent"
        wanted = tuple(ours[name]) if name in ours else "absent"
        if found != wanted:
            raise UserError(f"{path}: {name} is {found}, but the settings make it {wanted}")
