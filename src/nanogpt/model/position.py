"""How the model knows the order of tokens.

Attention by itself is blind to order: it sees a set. Order can enter in exactly three places, so a
position encoding has three hooks. The base class leaves all of them as they are; that is itself a
variant, a model whose only sense of order is that it cannot see the future.

`pos` holds the position of each token, counted from 0: (B, T), or (1, T) where all rows are alike.
"""

import torch
from torch import Tensor, nn

from nanogpt.config import ModelConfig
from nanogpt.errors import UserError


class Position(nn.Module):
    """No position encoding (Haviv et al. 2022), and the interface of all others."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()

    def embed(self, x: Tensor, pos: Tensor) -> Tensor:
        """Add order to the token embeddings x (B, T, C)."""
        return x

    def rotate(self, q: Tensor, k: Tensor, pos: Tensor) -> tuple[Tensor, Tensor]:
        """Rotate queries (B, nh, T, hs) and keys (B, nkv, T, hs) by their positions."""
        return q, k

    def bias(self, q_pos: Tensor, k_pos: Tensor) -> Tensor | None:
        """What to add to the attention scores, (B, nh, T, S), or None."""
        return None


class Learned(Position):
    """One learned vector for each position, added to the token's (GPT-2)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.weight = nn.Parameter(torch.empty(config.context_length, config.n_embd))

    def collapse(self) -> None:
        """Add nothing any more."""
        nn.init.zeros_(self.weight)

    def embed(self, x: Tensor, pos: Tensor) -> Tensor:
        return x + self.weight[pos]  # (B, T, C)


class Sinusoidal(Position):
    """A fixed vector of waves for each position, added to the token's (Vaswani et al. 2017).

    The first pair of channels rotates by one radian a token, the last by about 1e-4: like the
    hands of a clock. It has nothing to learn, and the first Transformer did as well with it as with
    learned positions.
    """

    def embed(self, x: Tensor, pos: Tensor) -> Tensor:
        channels = torch.arange(0, x.shape[-1], 2, device=x.device)
        angles = pos[..., None] * 10_000.0 ** (-channels / x.shape[-1])  # (..., T, C / 2)
        waves = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)  # (..., T, C)
        # Tokens start with a standard deviation of 0.02: waves of full height would drown them.
        return x + 0.02 * waves[..., : x.shape[-1]].to(x.dtype)  # (B, T, C)


class RoPE(Position):
    """Rotate queries and keys by an angle that grows with their position (Su et al. 2021).

    The product of a query and a key then depends on the distance between them alone, which is what
    words mostly care about, and nothing has to be learned. Channels are paired, i with i + hs / 2;
    each pair rotates at its own speed, the first by one radian a token, the last by about 1e-4.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        if config.head_size % 2:
            raise UserError(
                f"model.position=rope needs an even head size, not {config.head_size}: "
                "change n_embd or n_head"
            )
        self.first_speed = 1.0  # radians per token

    def collapse(self) -> None:
        """Rotate nothing any more."""
        self.first_speed = 0.0

    def rotate(self, q: Tensor, k: Tensor, pos: Tensor) -> tuple[Tensor, Tensor]:
        # Worked out in float32 whatever the model is made of: 16 bits cannot tell angles apart.
        channels = torch.arange(0, q.shape[-1], 2, device=q.device, dtype=torch.float32)
        speeds = self.first_speed * 10_000.0 ** (-channels / q.shape[-1])  # (hs / 2)
        angles = pos[:, None, :, None] * speeds  # (..., 1, T, hs / 2)
        cos, sin = angles.cos().to(q.dtype), angles.sin().to(q.dtype)
        return apply_rotary(q, cos, sin), apply_rotary(k, cos, sin)


def apply_rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate each pair of channels (i, i + hs / 2) of x (..., T, hs).

    >>> x = torch.tensor([1.0, 5.0, 0.0, 0.0]).view(1, 1, 1, 4)
    >>> apply_rotary(x, torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0])).flatten().tolist()
    [0.0, 5.0, 1.0, 0.0]
    """
    a, b = x.chunk(2, dim=-1)  # (..., T, hs / 2)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)  # (..., T, hs)


class ALiBi(Position):
    """The further away a key, the lower its score, in a straight line (Press et al. 2022).

    Each head has its own slope, so some look near and some look far. It goes on past the length
    of training, where learned positions end. With slopes of zero it is the variant "none".
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.n_head = config.n_head
        self.steepness = 1.0

    def collapse(self) -> None:
        """Add nothing any more."""
        self.steepness = 0.0

    def bias(self, q_pos: Tensor, k_pos: Tensor) -> Tensor:
        heads = torch.arange(1, self.n_head + 1, device=q_pos.device, dtype=torch.float32)
        slopes = self.steepness * 2.0 ** (-8 * heads / self.n_head)  # (nh)
        distance = (q_pos[:, :, None] - k_pos[:, None, :]).clamp(min=0)  # (..., T, S)
        return -slopes[:, None, None] * distance[:, None]  # (..., nh, T, S)


POSITIONS: dict[str, type[Position]] = {
    "learned": Learned,
    "sinusoidal": Sinusoidal,
    "rope": RoPE,
    "alibi": ALiBi,
    "none": Position,
}
