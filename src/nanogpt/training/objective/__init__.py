"""What training makes smaller: each a module with the model inside, that gives a loss for ids.

In the order to read it:

    next_token  every token from those before it
    answers     only what the assistant says
    policy      answers that turned out better than others to the same question
    preference  the better one of two answers
"""

from nanogpt.training.objective.answers import Answers
from nanogpt.training.objective.next_token import NextToken
from nanogpt.training.objective.policy import Policy
from nanogpt.training.objective.preference import Preference

# A variant is made with the model alone, and called with ids, targets and documents, each (B, T).
# Its loss is a sum over targets; Preference's over pairs of rows. `batches`, if a class has it,
# makes its batches of others and the tokenizer.
OBJECTIVES: dict[str, type[NextToken]] = {
    "next-token": NextToken,
    "answers": Answers,
    "policy": Policy,
    "preference": Preference,
}
