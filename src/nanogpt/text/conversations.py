"""Conversations: messages with roles, as ids, and which of their tokens the assistant says.

    <|user|>What is 2+3?<|end|><|assistant|>5<|end|>

A message is the token of its role, its text, and the token that ends it. Nothing stands between
them. The text is encoded as plain text, whatever it contains: a user who writes "<|assistant|>"
writes thirteen characters, and never the token. So the ids alone say for certain who speaks.

Axes: B sequences in a batch, T positions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nanogpt.config import IGNORED, choose
from nanogpt.errors import UserError
from nanogpt.text.batches import ALL, Batch, Batches, IntArray
from nanogpt.text.corpus import Document
from nanogpt.text.tokenizer import END_OF_TEXT, BaseTokenizer, CharTokenizer, Tokenizer

ROLES = ("system", "user", "assistant")
ROLE_TOKENS = {role: f"<|{role}|>" for role in ROLES}
END = "<|end|>"  # of a message
SPECIAL_TOKENS = (END_OF_TEXT, *ROLE_TOKENS.values(), END)

# Where files speak of tools, which have no tokens here.
TOOL_ROLES, TOOL_KEYS = ("tool", "function"), ("tool_calls", "function_call")

# The same for Transformers: what apply_chat_template fills in. It begins as reply_prompt does.
# Between the two marks of "generation" is what the assistant says, which trainers may ask for.
CHAT_TEMPLATE = """\
{{- bos_token }}
{%- for message in messages %}
{%- if message['role'] not in ['system', 'user', 'assistant'] %}
{{- raise_exception('unknown role: ' + message['role']) }}
{%- endif %}
{{- '<|' + message['role'] + '|>' }}
{%- if message['role'] == 'assistant' %}
{%- generation %}{{- message['content'] + '<|end|>' }}{%- endgeneration %}
{%- else %}
{{- message['content'] + '<|end|>' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|assistant|>' }}
{%- endif %}
"""


@dataclass(frozen=True)
class Message:
    """What one side says. Raises UserError for a role that there is not."""

    role: str  # one of ROLES
    content: str

    def __post_init__(self) -> None:
        choose(ROLE_TOKENS, "role", self.role)


def read_messages(values: Any, place: str) -> tuple[Message, ...]:
    """The messages of a conversation as files have them: a list of {"role", "content"}.

    Other keys are ignored. Any role may begin. Raises UserError, naming the place, for what is not
    a conversation, and for one in which tools are called.
    """
    if not isinstance(values, list) or not values:
        raise UserError(f"{place} has no messages; remove it")
    found = []
    for number, value in enumerate(values, start=1):
        where = f"{place}, message {number}"
        if not isinstance(value, Mapping) or not isinstance(value.get("role"), str):
            raise UserError(f'{where} is no object with a "role"; fix it')
        tools = value["role"] in TOOL_ROLES or any(map(value.get, TOOL_KEYS))
        if tools:
            raise UserError(f"{where} calls a tool, and only text can be learned; remove the line")
        text = text_in(value.get("content"), where)
        try:
            found.append(Message(value["role"], text))
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
    return tuple(found)


def text_in(content: Any, where: str) -> str:
    """The text of a message: a string, or a list of parts such as {"type": "text", "text": "Hi"}.

    Raises UserError, naming the place, for what is neither, and for a part that is a picture.
    """
    parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
    for part in parts:
        is_text = isinstance(part, Mapping) and part.get("type") == "text"
        if not is_text or not isinstance(part.get("text"), str):
            raise UserError(f'{where} has no text as "content"; fix it')
    return "".join(part["text"] for part in parts)


def conversation(name: str, messages: Sequence[Message]) -> Document:
    """A conversation as a document. Its text decides on which side of the split it is."""
    text = "\n".join(message.content for message in messages)
    return Document(name, text, messages=tuple(messages))


def with_roles(tokenizer: BaseTokenizer) -> BaseTokenizer:
    """The tokenizer with those of SPECIAL_TOKENS that it lacks; all other ids stay.

    >>> with_roles(CharTokenizer("ab")).special_tokens["<|endoftext|>"]
    2
    """
    new = [name for name in SPECIAL_TOKENS if name not in tokenizer.special_tokens]
    if new and isinstance(tokenizer, Tokenizer):
        return tokenizer.with_special_tokens(new)
    if new and isinstance(tokenizer, CharTokenizer):
        return CharTokenizer(tokenizer.characters, [*tokenizer.special_tokens, *new])
    return tokenizer


def has_roles(tokenizer: BaseTokenizer) -> bool:
    """Whether a tokenizer has the tokens of conversations."""
    return {*SPECIAL_TOKENS} <= tokenizer.special_tokens.keys()


def endings(tokenizer: BaseTokenizer) -> set[int]:
    """The tokens that end what a model says: those of SPECIAL_TOKENS, if there are such.

    <|end|> ends a message and <|endoftext|> a document. A role begins another message.
    """
    return {i for text, i in tokenizer.special_tokens.items() if text in SPECIAL_TOKENS}


def encode_conversation(
    tokenizer: BaseTokenizer, messages: Sequence[Message], reply: bool = False
) -> list[int]:
    """The ids of a conversation. With `reply` they end where the assistant is to speak.

    A model that is to answer reads `reply_prompt`, which has one token more.

    Raises UserError if the tokenizer lacks the tokens for roles, or cannot encode a text.

    >>> tokenizer = CharTokenizer("ab", SPECIAL_TOKENS)  # <|endoftext|> is 2, <|system|> is 3
    >>> encode_conversation(tokenizer, [Message("user", "aba")], reply=True)
    [4, 0, 1, 0, 6, 5]
    """
    if not has_roles(tokenizer):
        raise UserError("this tokenizer has no tokens for roles: prepare with --data.roles true")
    special = tokenizer.special_tokens
    parts = [
        [special[ROLE_TOKENS[message.role]], *tokenizer.encode(message.content), special[END]]
        for message in messages
    ]
    return [*chain(*parts), *[special[ROLE_TOKENS["assistant"]]] * reply]


def reply_prompt(tokenizer: BaseTokenizer, messages: Sequence[Message]) -> list[int]:
    """What a model reads that is to answer: <|endoftext|>, the conversation, <|assistant|>.

    In training the token that ends a document opens the next one (see text.batches), so every
    conversation begins with it. Without it, each message would stand one place earlier than the
    model has ever seen it. Raises UserError as encode_conversation does.
    """
    ids = encode_conversation(tokenizer, messages, reply=True)
    return [tokenizer.special_tokens[END_OF_TEXT], *ids]


def encode_document(tokenizer: BaseTokenizer, document: Document) -> NDArray[np.uint32]:
    """The ids of a document: of its conversation, if it is one, or else of its text.

    Of a preference, both conversations; <|endoftext|> stands between them.
    """
    if document.messages:
        ids = encode_conversation(tokenizer, document.messages)
        if document.rejected:
            ids += reply_prompt(tokenizer, document.rejected)[:-1]
        return np.array(ids, dtype=np.uint32)
    return tokenizer.encode_array(document.text)


def answers_only(ids: IntArray, targets: IntArray, assistant: int, end: int) -> IntArray:
    """The targets that the assistant says, its <|end|> included; all others are ignored.

    ids and targets (B, T) -> targets (B, T). A token is the assistant's if the last <|assistant|>
    before it came later than the last <|end|>. What a window shows before its first such token is
    ignored: who speaks there is not known.

    Here <|user|> is 7, <|assistant|> is 8, and <|end|> is 9:

    >>> ids, targets = np.array([[7, 1, 2, 9, 8, 3, 4]]), np.array([[1, 2, 9, 8, 3, 4, 9]])
    >>> answers_only(ids, targets, assistant=8, end=9).tolist()
    [[-100, -100, -100, -100, 3, 4, 9]]
    """
    places = np.arange(1, ids.shape[1] + 1)  # 0 stands for: not in this window
    began = np.maximum.accumulate(places * (ids == assistant), axis=1)
    ended = np.maximum.accumulate(places * (ids == end), axis=1)
    return np.where(began > ended, targets, IGNORED)


class AnswerBatches(Batches):
    """Other batches, in which only what the assistant says counts: see answers_only.

    Raises UserError if the tokenizer lacks the tokens for roles, or if there are no answers.
    """

    def __init__(self, batches: Batches, tokenizer: BaseTokenizer) -> None:
        super().__init__(
            batches.tokens, batches.context_length, batches.separator, batches.settings
        )
        if not has_roles(tokenizer):
            raise UserError(
                "this train.objective needs conversations, but this tokenizer has no tokens "
                "for roles: use conversations as data.source, or prepare with --data.roles true"
            )
        special = tokenizer.special_tokens
        self.batches, self.documents_apart = batches, batches.documents_apart
        self.assistant, self.end = special[ROLE_TOKENS["assistant"]], special[END]
        if not any((ids == self.assistant).any() for ids in self.tokens.chunks()):
            raise UserError(
                f"in {self.tokens.path} the assistant says nothing: use conversations with answers"
            )

    def batch(self, number: int, batch_size: int, seed: int, rows: slice = ALL) -> Batch:
        return self.masked(self.batches.batch(number, batch_size, seed, rows))

    def masked(self, batch: Batch) -> Batch:
        """A batch, in which only what the assistant says counts."""
        targets = answers_only(batch.ids, batch.targets, self.assistant, self.end)
        return replace(batch, targets=targets)
