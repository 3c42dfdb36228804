"""A mixture of experts (Shazeer et al. 2017): each token goes through the best of four layers."""

import torch
from torch import Tensor, nn

from nanogpt.model.layers import MLP, MLPS


class MixtureOfExperts(MLP):
    def __init__(self, config):
        nn.Module.__init__(self)
        self.experts = nn.ModuleList(MLP(config) for _ in range(4))
        self.router = nn.Linear(config.n_embd, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        chances = self.router(x).softmax(-1)  # (B, T, experts)
        chance, chosen = chances.max(-1, keepdim=True)
        share = nn.functional.one_hot(chosen[..., 0], 4).float().mean((0, 1))
        # Balance (Fedus et al. 2021): smallest where all experts get as many tokens.
        self.auxiliary_loss = 0.01 * 4 * (share * chances.mean((0, 1))).sum()
        return sum(torch.where(chosen == n, chance * e(x), 0) for n, e in enumerate(self.experts))


MLPS["moe"] = MixtureOfExperts
