"""Supervised fine-tuning: of a conversation, predict what the assistant says."""

from nanogpt.text.conversations import AnswerBatches
from nanogpt.training.objective.next_token import NextToken


class Answers(NextToken):
    """The cross-entropy of the assistant's words, and of the token that ends them.

    The loss is that of the next token. What differs is what counts: the batches ignore every other
    target, so the model learns to answer questions, and not to ask them (Ouyang et al. 2022).
    """

    batches = AnswerBatches
