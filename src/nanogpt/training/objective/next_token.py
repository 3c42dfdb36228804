"""What training minimises, as a module: batches in, loss out, the model inside.

Forward pass and loss are one module, so that they are compiled and distributed as one, and another
objective can stand in this one's place without a change to the loop.

Axes: B batch, T time, V vocabulary.
"""

from torch import Tensor, nn

from nanogpt.config import IGNORED
from nanogpt.model.gpt import GPT


class NextToken(nn.Module):
    """Predict each next token: the cross-entropy, and what the model's modules add to it."""

    def __init__(self, model: GPT) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, targets: Tensor, documents: Tensor | None = None) -> Tensor:
        """The sum of the losses of all real targets, in nats: ids and targets (B, T) -> ().

        A sum and not a mean, so that batches with unlike numbers of targets can be added up.
        """
        logits = self.model(ids, documents=documents)  # (B, T, V)
        loss = self.model.loss(logits, targets, reduction="sum")
        return loss + self.model.auxiliary_loss() * (targets != IGNORED).sum()
