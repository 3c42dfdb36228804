"""The linear layers of a finished model in forms that a processor reads faster.

To generate one token, every weight is read once and used once per row; so speed is a matter of
memory, not of arithmetic. Packing lays the same float32 numbers out in the order in which oneDNN's
kernels read them. That saves most where several rows are read, and changes results by rounding
only. Int8 stores each weight in a quarter of the space. Both are for generation; a packed model
cannot be trained.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanogpt.model.build import layers_of_tokens
from nanogpt.model.gpt import GPT, LMHead, UntiedHead

# A smaller matrix stays in the processor's own memory, and its order there does not matter.
WEIGHTS_WORTH_PACKING = 2**19

# From this many rows on, int8 weights are turned into floats first: arithmetic is the limit then.
ROWS_WORTH_UNPACKING = 32

# Torch's int8 kernel reads this many weights at a time, past the end of a row that has fewer.
KERNEL_WIDTH = 64


class PackedLinear(nn.Module):
    """(..., in) -> (..., out), as nn.Linear, with the weight (out, in) in oneDNN's order."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach())
        self.bias = None if bias is None else bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.packed.dtype)  # autocast does not reach in here
        return torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")


class Int8Linear(nn.Module):
    """(..., in) -> (..., out), as nn.Linear, with weights of 8 bits.

    Each row of the weight (out, in) is divided by its largest entry and rounded to -127..127; the
    product is multiplied by that entry again (Dettmers et al. 2022, section 2.1, for the weights).
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        weight = weight.detach()
        # The kernel takes scales of 16 bits: round them first, and the weights to what they are.
        self.scales = (weight.abs().amax(1).clamp(min=1e-12) / 127).bfloat16()  # (out)
        steps = weight / self.scales[:, None].to(weight.dtype)
        self.rounded = steps.round().clamp(-127, 127).to(torch.int8)  # (out, in)
        self.bias = None if bias is None else bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        rows = x.numel() // x.shape[-1]
        fits = x.shape[-1] % KERNEL_WIDTH == 0 and x.device.type == "cpu"
        if fits and rows < ROWS_WORTH_UNPACKING:
            short = x.reshape(rows, -1).bfloat16()  # and so must the activations be
            y = torch._weight_int8pack_mm(short, self.rounded, self.scales)
            y = y.to(x.dtype).view(*x.shape[:-1], -1)
        else:
            y = F.linear(x, self.rounded.to(x.dtype)) * self.scales.to(x.dtype)
        return y if self.bias is None else y + self.bias


class PackedHead(nn.Module):
    """The head in another form, though it may be tied to the embedding: (..., C) -> (..., V)."""

    def __init__(self, linear: nn.Module) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        return self.linear(x)


def with_linear(
    model: GPT, linear: Callable[[Tensor, Tensor | None], nn.Module], smallest: int = 0
) -> GPT:
    """Put another form in the place of each linear layer of so many weights, in place."""
    for name, layer in list(model.named_modules()):
        if name == "lm_head":  # is called with the embedding as well, and follows below
            continue
        if isinstance(layer, nn.Linear) and layer.weight.numel() >= smallest:
            model.set_submodule(name, linear(layer.weight, layer.bias))
    weight = layers_of_tokens(model)[-1].weight
    if type(model.lm_head) in (LMHead, UntiedHead) and weight.numel() >= smallest:
        model.lm_head = PackedHead(linear(weight, None))
    return model.eval()


def pack(model: GPT) -> GPT:
    """The same numbers in oneDNN's order; the model as it was where oneDNN has no such kernel."""
    able = model.device.type == "cpu" and torch.backends.mkldnn.is_available()
    if able and model.dtype == torch.bfloat16:
        able = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    if not able:
        return model.eval()
    return with_linear(model, PackedLinear, WEIGHTS_WORTH_PACKING)


def halve(model: GPT) -> GPT:
    """Weights of 16 bits."""
    return pack(model.bfloat16())


WEIGHTS: dict[str, Callable[[GPT], GPT]] = {
    "float32": pack,
    "bfloat16": halve,
    "int8": lambda model: with_linear(model, Int8Linear),
    "plain": lambda model: model.eval(),
}
