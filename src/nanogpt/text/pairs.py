"""Preferences: two answers to the same question, of which one was chosen.

In a token file the conversation with the chosen answer stands before the one with the rejected
answer, each closed by <|endoftext|>.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from nanogpt.errors import UserError
from nanogpt.text.batches import ALL, Batch, Batches, IntArray, padded_batch, shuffled
from nanogpt.text.conversations import AnswerBatches, Message, read_messages
from nanogpt.text.corpus import Document
from nanogpt.text.prompts import places_of
from nanogpt.text.tokenizer import END_OF_TEXT, BaseTokenizer

CHOSEN, REJECTED, PROMPT = "chosen", "rejected", "prompt"


def is_pair(row: Mapping[str, Any]) -> bool:
    """Whether a row of a file holds a preference."""
    return CHOSEN in row and REJECTED in row


def read_pair(row: Mapping[str, Any], name: str, place: str) -> Document:
    """A preference as files have it: two conversations, or a prompt and two answers.

    Both may be texts or lists of messages; a prompt stands before each answer. Raises UserError,
    naming the place, for what is neither, and where the two answer different questions.
    """
    prompt = as_messages(row[PROMPT], "user", place) if row.get(PROMPT) else ()
    chosen, rejected = (
        (*prompt, *as_messages(row[key], "assistant", f"{place}, {key}"))
        for key in (CHOSEN, REJECTED)
    )
    answered = all(side[-1].role == "assistant" and len(side) > 1 for side in (chosen, rejected))
    if not answered or chosen[:-1] != rejected[:-1]:
        raise UserError(
            f"{place}: chosen and rejected should be the same conversation, with another last "
            "answer of the assistant; fix it"
        )
    text = "\n".join(message.content for message in (*chosen, rejected[-1]))
    return Document(name, text, messages=chosen, rejected=rejected)


def as_messages(value: Any, role: str, place: str) -> tuple[Message, ...]:
    """A text as a message of this role, or messages as they are."""
    return (Message(role, value),) if isinstance(value, str) else read_messages(value, place)


class Pairs(Batch):
    """A batch of pairs: rows 0, 2, 4, ... are chosen, and the row after each is rejected."""

    @property
    def real_targets(self) -> int:
        """How many pairs count in the loss."""
        return len(self.ids) // 2


class PairBatches(AnswerBatches):
    """Pairs of conversations, padded, in which only what the assistant says counts.

    What both say before their last answer is the same, and so drops out of the difference. Pairs
    that are longer than the context are left out; `left_out` says how many. Raises UserError if
    none are left, or if the text is not made of pairs.
    """

    def __init__(self, batches: Batches, tokenizer: BaseTokenizer) -> None:
        super().__init__(batches, tokenizer)
        self.opening = tokenizer.special_tokens[END_OF_TEXT]
        stops = places_of(self.tokens, self.opening)
        if len(stops) % 2:
            raise UserError(f"{self.tokens.path} {NO_PAIRS}")
        # A document begins with the token that closes the one before it; -1 stands for the first.
        begins = np.append(-1, stops)[:-1]
        fits = (stops - begins).reshape(-1, 2).max(axis=1) <= self.context_length
        self.left_out = int((~fits).sum())
        self.begins, self.stops = (x.reshape(-1, 2)[fits] for x in (begins, stops))
        if not len(self.begins):
            raise UserError(
                f"{self.tokens.path} has no pair of at most {self.context_length} tokens each: "
                "raise model.context_length"
            )

    def __len__(self) -> int:
        return len(self.begins)

    def batch(self, number: int, batch_size: int, seed: int, rows: slice = ALL) -> Batch:
        count = batch_size // 2
        return self.of(shuffled(len(self), seed, number * count, count), rows)

    def speaks(self, text: IntArray) -> IntArray:
        """Where the assistant begins to speak."""
        return np.flatnonzero(text == self.assistant)

    def of(self, chosen: IntArray, rows: slice = ALL) -> Pairs:
        """The pairs of these numbers."""
        places = zip(self.begins[chosen].flat, self.stops[chosen].flat, strict=True)
        texts = [np.append(self.opening, self.tokens.ids[a + 1 : b]) for a, b in places]
        for one, other in zip(texts[0::2], texts[1::2], strict=True):
            asked, also = (t[: 1 + max(self.speaks(t), default=-1)] for t in (one, other))
            if not len(asked) or not np.array_equal(asked, also):
                raise UserError(f"{self.tokens.path} {NO_PAIRS}")
        ids, targets, _ = padded_batch(texts)
        batch = self.masked(Batch(ids[rows, :-1], targets[rows, :-1]))
        return Pairs(batch.ids, batch.targets)


NO_PAIRS = (
    "is not made of pairs: train.objective=preference needs a data.source with chosen and rejected "
    "answers"
)
