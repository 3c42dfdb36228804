"""Answers to conversations, many at once."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from nanogpt.config import SampleConfig
from nanogpt.generation.reader import Reader
from nanogpt.generation.stream import stream
from nanogpt.model.gpt import GPT
from nanogpt.text.conversations import Message, reply_prompt
from nanogpt.text.tokenizer import BaseTokenizer


def ask(
    model: GPT, tokenizer: BaseTokenizer, conversations: Sequence[Sequence[Message]],
    settings: SampleConfig, batch_size: int = 64,
) -> Iterator[str]:  # fmt: skip
    """What the assistant says next in each conversation, in order.

    An answer ends at <|end|>, or after max_new_tokens. At temperature 0 it does not depend on the
    other conversations, apart from rounding. Raises UserError if the tokenizer has no tokens for
    roles, or cannot encode a message.
    """
    for first in range(0, len(conversations), batch_size):
        some = conversations[first : first + batch_size]
        reader = Reader(model, [reply_prompt(tokenizer, messages) for messages in some])
        answers = [""] * len(some)
        # A row draws with the seed plus its number, so this gives each conversation its own.
        seed = (settings.seed + first) % 2**63
        for piece in stream(reader, tokenizer, replace(settings, seed=seed)):
            answers[piece.row] += piece.text
        yield from answers
