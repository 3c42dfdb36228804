"""Norms before and after each layer (Ding et al. 2021, "CogView"): the stream itself stays free."""

from torch import Tensor

from nanogpt.model.attention import AttentionContext
from nanogpt.model.gpt import BLOCKS, Block
from nanogpt.model.layers import NORMS


class Sandwich(Block):
    def __init__(self, config):
        super().__init__(config)
        self.ln_after_1, self.ln_after_2 = (NORMS[config.norm](config) for _ in range(2))

    def forward(self, x: Tensor, context: AttentionContext) -> Tensor:
        x = x + self.ln_after_1(self.attn(self.ln_1(x), context))
        return x + self.ln_after_2(self.mlp(self.ln_2(x)))


BLOCKS["sandwich"] = Sandwich
