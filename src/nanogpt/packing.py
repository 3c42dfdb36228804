"""The linear layers of a finished model in forms that a processor reads faster.

To generate one token, every weight is read once and used once per row; so speed is a matter of
memory, not of arithmetic. Packing lays the same float32 numbers out in the order in which oneDNN's
kernels read them, which doubles the speed and changes results by rounding only. Int8 stores each
weight in a quarter of the space. Both are for generation; a packed model cannot be trained.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanogpt.model import GPT

# From this many rows on, int8 weights are turned into floats first: arithmetic is the limit then.
ROWS_WORTH_UNPACKING = 32


class PackedLinear(nn.Module):
    """(..., in) -> (..., out), as nn.Linear, with the weight (out, in) in oneDNN's order."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach())
        self.bias = None if bias is None else bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")


class Int8Linear(nn.Module):
    """(..., in) -> (..., out), as nn.Linear, with weights of 8 bits.

    Each row of the weight (out, in) is divided by its largest entry and rounded to -127..127; the
    product is multiplied by that entry again (Dettmers et al. 2022, section 2.1, for the weights).
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        weight = weight.detach()
        self.scales = weight.abs().amax(1).clamp(min=1e-12) / 127  # (out)
        self.rounded = (weight / self.scales[:, None]).round().to(torch.int8)  # (out, in)
        self.bias = None if bias is None else bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        rows = x.numel() // x.shape[-1]
        if x.device.type == "cpu" and rows < ROWS_WORTH_UNPACKING:
            short = x.reshape(rows, -1).bfloat16()  # what the kernel takes
            y = torch._weight_int8pack_mm(short, self.rounded, self.scales.bfloat16())
            y = y.to(x.dtype).view(*x.shape[:-1], -1)
        else:
            y = F.linear(x, self.rounded.to(x.dtype)) * self.scales
        return y if self.bias is None else y + self.bias


def with_linear(model: GPT, linear: Callable[[Tensor, Tensor | None], nn.Module]) -> GPT:
    """Put another form of linear layer in the place of each, in place; the model in evaluation."""
    for name, layer in list(model.named_modules()):
        if isinstance(layer, nn.Linear):
            model.set_submodule(name, linear(layer.weight, layer.bias))
    # The head is a method, and uses the embedding; an attribute of the instance goes before it.
    model.__dict__["head"] = linear(model.wte.weight, None)
    return model.eval()


def pack(model: GPT) -> GPT:
    """Float32 in oneDNN's order; the model as it was where there is no oneDNN."""
    if model.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return model.eval()
    return with_linear(model, PackedLinear)


WEIGHTS: dict[str, Callable[[GPT], GPT]] = {
    "float32": pack,
    "bfloat16": lambda model: pack(model.bfloat16()),
    "int8": lambda model: with_linear(model, Int8Linear),
    "plain": lambda model: model.eval(),
}
