"""Label smoothing (Szegedy et al. 2016): a tenth of every target is shared out among all tokens."""

from torch.nn.functional import cross_entropy

from nanogpt.config import IGNORED
from nanogpt.training.objective import OBJECTIVES, NextToken


class Smoothed(NextToken):
    """The model should not be surer than the text can make it."""

    def forward(self, ids, targets, documents=None):
        logits = self.model(ids, documents=documents).flatten(0, 1)
        loss = cross_entropy(logits, targets.flatten(), reduction="sum", label_smoothing=0.1)
        return loss + self.model.auxiliary_loss() * (targets != IGNORED).sum()


OBJECTIVES["smoothed"] = Smoothed
