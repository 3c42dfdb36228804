"""The Transformer block: attention, then the feed-forward layer; each adds to x."""

from torch import Tensor, nn

from nanogpt.config import ModelConfig, choose
from nanogpt.model.attention import AttentionContext, CausalSelfAttention
from nanogpt.model.layers import MLPS, NORMS


class Block(nn.Module):
    """A Transformer block: attention, then the feed-forward layer.

    Four parts are there, made in __init__: the norms self.ln_1 and self.ln_2, attention
    self.attn(x, context), and the feed-forward layer self.mlp(x). Each takes x (B, T, C) and
    gives (B, T, C).

    forward is yours. Both layers add their result to the residual stream x, attention first.
    The input of each layer is normalized before, attention's by ln_1 and the other's by ln_2;
    the residual stream itself is not. `context` says what attention may see: pass it on as it
    is. x stays as it is; give a new tensor.
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
