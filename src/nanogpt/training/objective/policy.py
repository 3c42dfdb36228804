"""Reinforcement learning from a reward: what turned out better than its group becomes likelier.

Let the model answer a question, and let R be the reward of its answer. What should rise is

    the mean reward  J = sum over answers of  p(answer) R(answer)

No gradient passes through R, which may be any program. But one line is enough, since
grad p = p grad log p:

    grad J = sum over answers of  p(answer) R(answer) grad log p(answer)

That is a mean over answers that the model itself draws: draw some, and raise the log-probability
of each by as much as it was rewarded (REINFORCE; Williams 1992). A constant may be taken from R
without changing the mean, for the p sum to 1 and their gradients to 0. With the mean reward of
other answers to the same question taken away, the noise is far smaller: what is left says whether
an answer was better or worse than this model usually does.

Axes: B sequences in a batch, T positions, V vocabulary, N answers.
"""

import torch
from torch import Tensor

from nanogpt.config import IGNORED, PolicyConfig
from nanogpt.model.gpt import GPT
from nanogpt.text.conversations import AnswerBatches
from nanogpt.training.objective.next_token import NextToken


def advantages(rewards: Tensor, group_size: int, normalize: bool = False) -> Tensor:
    """How much better each answer is than the answers to the same question: (N) -> (N).

    The answers to one question follow each other. `normalize` divides by the standard deviation of
    the group, too (GRPO; Shao et al. 2024, section 4.1): a lone success then counts more.

    >>> advantages(torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0]), group_size=4)
    tensor([ 0.7500, -0.2500, -0.2500, -0.2500,  0.0000,  0.0000,  0.0000,  0.0000])
    """
    groups = rewards.view(-1, group_size)
    better = groups - groups.mean(dim=1, keepdim=True)
    if normalize:
        better = better / (groups.std(dim=1, keepdim=True) + 1e-4)
    return better.flatten()


def log_probabilities(logits: Tensor, targets: Tensor) -> Tensor:
    """The log-probability of each target: logits (B, T, V) and targets (B, T) -> (B, T).

    0 where the target is ignored.
    """
    found = logits.float().log_softmax(-1)
    found = found.gather(-1, targets.clamp(min=0)[..., None])[..., 0]
    return found.masked_fill(targets == IGNORED, 0.0)


def gain(now: Tensor, old: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """What each token adds to the reward that is to be expected, each (B, T) -> (B, T).

    `now` and `old` are its log-probabilities, `old` those with which it was drawn. Without a clip
    this is the product of advantage and log-probability, whose gradient is that of the line above.

    With a clip, each token counts by how much likelier it has become, and no longer once that is
    more than the clip, in the direction of the advantage: several updates with the same answers
    cannot carry a token away (PPO; Schulman et al. 2017, equation 7).

    >>> now = torch.tensor([[0.0, 0.5]])  # as likely as when it was drawn, and 1.65 times as likely
    >>> gain(now, torch.zeros(1, 2), torch.ones(1, 2), clip=0.2)
    tensor([[1.0000, 1.2000]])
    """
    if not clip:
        return advantage * now
    ratio = (now - old).exp()
    return torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)


def distance(now: Tensor, reference: Tensor) -> Tensor:
    """How far the model has moved from the reference at tokens that it drew: nats, each (B, T).

    Both are log-probabilities of those tokens. Their plain difference has the Kullback-Leibler
    divergence as its mean, and is often negative. This estimate has the same mean, is never
    negative, and varies less (k3 in Schulman, "Approximating KL divergence", 2020).

    >>> distance(torch.tensor([-1.0, -1.0]), torch.tensor([-1.0, -2.0]))
    tensor([0.0000, 0.3679])
    """
    difference = reference - now
    return difference.exp() - difference - 1


class Policy(NextToken):
    """Raise what turned out well: the policy gradient, and the pull back to the reference.

    With an advantage of 1 for every answer it is the loss of the next token: supervised learning
    takes all that it is shown for good.
    """

    batches = AnswerBatches  # of the validation text

    def __init__(self, model: GPT, settings: PolicyConfig | None = None) -> None:
        super().__init__(model)
        self.settings = settings or PolicyConfig()
        self.tokens: int | None = None  # of the tokenizer; ids from here on are never drawn

    def forward(
        self, ids: Tensor, targets: Tensor, documents: Tensor | None = None,
        advantage: Tensor | None = None, old: Tensor | None = None, reference: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """The sum over all real targets: ids and targets (B, T) -> ().

        `advantage` (B) is that of the answer in each row; `old` and `reference` (B, T) are the
        log-probabilities with which the targets were drawn, and those of the reference model.
        """
        logits = self.model(ids, documents=documents)[..., : self.tokens]
        logits = logits / self.settings.temperature
        now = log_probabilities(logits, targets)
        old = now.detach() if old is None else old
        better = now.new_ones(len(now)) if advantage is None else advantage
        loss = -gain(now, old, better[:, None], self.settings.clip)
        if reference is not None:
            loss = loss + self.settings.beta * distance(now, reference)
        real = targets != IGNORED
        return loss.masked_fill(~real, 0.0).sum() + self.model.auxiliary_loss() * real.sum()
