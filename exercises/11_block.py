"""The Transformer block: attention, then the feed-forward layer; each adds to x."""

from torch import Tensor, nn

from nanogpt.config import ModelConfig, choose
from nanogpt.model.attention import AttentionContext, CausalSelfAttention
from nanogpt.model.layers import MLPS, NORMS


class Block(nn.Module):
    """A Transformer block: look around, then think. Each adds to the residual stream.

    The norms come before the layers (pre-norm): the residual path itself stays free, so gradients
    reach the first block undiminished.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        norm = choose(NORMS, "model.norm", config.norm)
        self.ln_1 = norm(config)
        self.attn = CausalSelfAttention(config)
        self.ln_2 = norm(config)
        self.mlp = choose(MLPS, "model.mlp", config.mlp)(config)

    def forward(self, x: Tensor, context: AttentionContext) -> Tensor:
        raise NotImplementedError("your turn")
