"""T5's relative positions (Raffel et al. 2020): a learned number for each distance and head."""

import torch
from torch import Tensor, nn

from nanogpt.model.position import POSITIONS, Position

BUCKETS = 16  # the near half one by one, the far half in steps that grow


class T5Bias(Position):
    def __init__(self, config):
        super().__init__(config)
        self.by_distance = nn.Parameter(torch.empty(BUCKETS, config.n_head))

    def bias(self, q_pos: Tensor, k_pos: Tensor) -> Tensor:
        distance = (q_pos[:, :, None] - k_pos[:, None, :]).clamp(min=0)  # (B, T, S)
        near = BUCKETS // 2
        far = near + (distance.clamp(min=near) / near).log2().mul(2).long()
        bucket = torch.where(distance < near, distance, far.clamp(max=BUCKETS - 1))
        return self.by_distance[bucket].permute(0, 3, 1, 2)  # (B, nh, T, S)


POSITIONS["t5"] = T5Bias
