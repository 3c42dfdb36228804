"""Learning from pairs: of two answers to the same question, one was preferred.

Axes: B sequences in a batch, T positions, P = B / 2 pairs.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanogpt.config import PolicyConfig
from nanogpt.model.gpt import GPT
from nanogpt.text.pairs import PairBatches
from nanogpt.training.objective.next_token import NextToken
from nanogpt.training.objective.policy import log_probabilities


def preference_loss(chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    """The loss of pairs of answers, in nats (DPO; Rafailov et al. 2023, equation 7): (P) -> (P).

    Each number says how much likelier an answer has become than the reference model makes it: the
    logarithm of p(answer) / p_reference(answer). beta times that is a reward, up to a constant of
    the question: it is the reward for which this model would be the best one, if leaving the
    reference costs beta a nat. The loss is that of telling which answer was chosen, if people
    choose by the difference of rewards.

    >>> preference_loss(torch.tensor([0.0, 20.0]), torch.tensor([0.0, -20.0]), beta=0.1)
    tensor([0.6931, 0.0181])
    """
    return -F.logsigmoid(beta * (chosen - rejected))


class Preference(NextToken):
    """Make the chosen answer likelier than the rejected one, measured from a reference model."""

    batches = PairBatches

    def __init__(
        self, model: GPT, settings: PolicyConfig | None = None, reference: nn.Module | None = None
    ) -> None:
        super().__init__(model)
        self.settings = settings or PolicyConfig(beta=0.1)
        self.reference = reference

    def forward(self, ids: Tensor, targets: Tensor, documents: Tensor | None = None) -> Tensor:
        """The sum over pairs: ids and targets (B, T) -> ().

        Rows 0, 2, 4, ... are chosen answers, and the row after each is the rejected one. Targets
        are the answers; all others are ignored.
        """
        risen = self.risen(ids, targets, documents)
        loss = preference_loss(risen[0::2], risen[1::2], self.settings.beta).sum()
        return loss + self.model.auxiliary_loss() * (len(ids) // 2)

    def risen(self, ids: Tensor, targets: Tensor, documents: Tensor | None = None) -> Tensor:
        """How much likelier the targets of each row are than the reference makes them: (B).

        In nats. Without a reference model, all answers count as equally likely there.
        """
        answer = log_probabilities(self.model(ids, documents=documents), targets).sum(-1)
        if self.reference is not None:
            with torch.no_grad():
                logits = self.reference(ids, documents=documents)
            answer = answer - log_probabilities(logits, targets).sum(-1)
        return answer
