"""Look around, then think; each adds to the stream."""

from typing import Any

from torch import Tensor, nn

from nanogpt.config import ModelConfig, choose
from nanogpt.model.attention import CausalSelfAttention
from nanogpt.model.layers import MLPS, NORMS


class Block(nn.Module):
    """A Transformer block: look around, then think. Each adds to the residual stream.

    The norms come before the layers (pre-norm): the residual path itself stays free, so gradients
    reach the first block undiminished. `how` is what attention needs to know of order and cache.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        norm = choose(NORMS, "model.norm", config.norm)
        self.ln_1 = norm(config)
        self.attn = CausalSelfAttention(config)
        self.ln_2 = norm(config)
        self.mlp = choose(MLPS, "model.mlp", config.mlp)(config)

    def forward(self, x: Tensor, *how: Any) -> Tensor:
        raise NotImplementedError("your turn")
