"""How much arithmetic a model takes."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nanogpt.model.gpt import GPT


def flops_per_token(model: "GPT") -> int:
    """Floating-point operations of training on one token (Chowdhery et al. 2022, appendix B).

    6 for each weight that takes part in a matrix product: multiply and add, forward and twice
    backward. 4 for one that is frozen, which gets no gradient. Attention adds its scores and its
    weighted sum, 12 * n_layer * C * T, or a window.
    """
    config = model.config
    looked_up = sum(p.numel() for p in model.wpe.parameters())
    if hasattr(model.lm_head, "weight") and model.wte:  # else they are one matrix
        looked_up += model.wte.weight.numel()
    seen = min(config.window or config.context_length, config.context_length)
    attention = 12 * config.n_layer * config.n_embd * seen
    frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    return 6 * (model.num_parameters() - looked_up) - 2 * frozen + attention
