"""How much arithmetic a model takes."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from nanogpt.model.gpt import GPT


def flops_per_token(model: "GPT") -> int:
    """Floating-point operations of training on one token (Chowdhery et al. 2022, appendix B).

    6 for each weight that takes part in a matrix product: multiply and add, forward and twice
    backward. 4 for one that is frozen, which gets no gradient. Attention adds its scores and its
    weighted sum, 12 * n_layer * C * T, or a window.
    """
    from nanogpt.model.gpt import UntiedHead  # the command line names this function before torch

    config = model.config
    looked_up: list[Tensor] = [*model.wpe.parameters()]
    if isinstance(model.lm_head, UntiedHead) and model.wte:  # else they are one matrix
        looked_up.append(model.wte.weight)
    multiplied = {*model.parameters()} - {*looked_up}
    seen = min(config.window or config.context_length, config.context_length)
    attention = 12 * config.n_layer * config.n_embd * seen
    return sum((6 if p.requires_grad else 4) * p.numel() for p in multiplied) + attention
