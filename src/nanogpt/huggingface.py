"""To and from Hugging Face Transformers: the same weights under slightly different names.

OpenAI's code kept the matrices of linear layers as (in, out); torch keeps them as (out, in). And
Transformers puts the network inside a wrapper. So the map is: strip or add a prefix, transpose the
weights with four suffixes. The tied head has no entry of its own on either side.
"""

from collections.abc import Mapping

from torch import Tensor

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
