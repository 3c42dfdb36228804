"""GELU as it was defined, by the normal distribution, and not by GPT-2's tanh."""

from torch import Tensor
from torch.nn import functional as F

from nanogpt.model.layers import MLP, MLPS


class ExactGELU(MLP):
    def activation(self, x: Tensor) -> Tensor:
        return F.gelu(x)


MLPS["exact-gelu"] = ExactGELU
