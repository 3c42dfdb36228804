"""From tokens to text as it is made: whole characters, stop strings, the end of a document."""

import codecs
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nanogpt.config import Config, SampleConfig
from nanogpt.errors import UserError
from nanogpt.generation.ahead import reader_for
from nanogpt.generation.reader import Reader, generate
from nanogpt.model.gpt import GPT
from nanogpt.text.conversations import Message, endings, has_roles, reply_prompt
from nanogpt.text.tokenizer import END_OF_TEXT, BaseTokenizer


@dataclass(frozen=True)
class Piece:
    """A token that was chosen, and the text that it completes."""

    row: int
    token: int
    text: str  # may be empty: bytes of a character, or the start of a stop string, are held back
    log_probability: float  # the model's own, in nats, before temperature and filters
    likeliest: list[tuple[int, float]]  # tokens with their log-probabilities, the likeliest first
    last: bool = False  # the row ends here


class TextStream:
    """Bytes in, text out as soon as it is sure: no half characters, nothing of a stop string."""

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self.stops = [stop for stop in stops if stop]
        self.characters = codecs.getincrementaldecoder("utf-8")("replace")
        self.held = ""
        self.stopped = False

    def push(self, data: bytes, final: bool = False) -> str:
        """The text that is sure now. Sets `stopped` at a stop string, which is left out."""
        text = self.held + self.characters.decode(data, final)
        found = [text.index(stop) for stop in self.stops if stop in text]
        if found:
            self.stopped, self.held = True, ""
            return text[: min(found)]
        starts = [n for stop in self.stops for n in range(1, len(stop)) if text.endswith(stop[:n])]
        sure = len(text) if final else len(text) - max(starts, default=0)
        self.held = text[sure:]
        return text[:sure]


def stream(
    reader: Reader,
    tokenizer: BaseTokenizer,
    config: SampleConfig,
    stops: Sequence[str] = (),
    top: int = 0,
) -> Iterator[Piece]:
    """Continue the texts of a reader piece by piece.

    A row ends at the end-of-text token or the end of a message, before a stop string, or after
    max_new_tokens; the others go on. Joined, the pieces of a row are its new text. Each piece comes
    with the `top` likeliest tokens.
    """
    ends = endings(tokenizer)
    texts = {row: TextStream(stops) for row in range(len(reader.rows))}
    steps = generate(reader, config, tokenizer.vocabulary)
    for number, step in zip(range(config.max_new_tokens), steps, strict=False):
        log_probabilities = step.logits.float().log_softmax(-1)  # (B, V)
        values, ids = log_probabilities.topk(min(top, len(tokenizer.vocabulary)))
        for row, text in list(texts.items()):
            token = int(step.chosen[row])
            ended = token in ends
            last = ended or number == config.max_new_tokens - 1
            data = b"" if ended else tokenizer.decode_bytes([token])
            said = text.push(data, final=last)
            likeliest = list(zip(ids[row].tolist(), values[row].tolist(), strict=True))
            last = last or text.stopped
            yield Piece(row, token, said, float(log_probabilities[row, token]), likeliest, last)
            if last:
                del texts[row]
        if not texts:
            return


def generate_text(
    model: GPT, tokenizer: BaseTokenizer, config: SampleConfig, stops: Sequence[str] = (),
    chat: bool = False,
) -> Iterator[str]:  # fmt: skip
    """Continue the prompt of the settings, or answer it as a message, piece by piece.

    Raises UserError for a prompt that the tokenizer cannot encode.
    """
    reader = reader_for(model, [prompt_ids(tokenizer, config.prompt, chat)], config)
    for piece in stream(reader, tokenizer, config, stops):
        if piece.text:
            yield piece.text


def is_chat(config: Config, tokenizer: BaseTokenizer) -> bool:
    """Whether the prompt of a run is a message, if there is one: the run has learned to answer."""
    learned = has_roles(tokenizer) and config.train.objective != "next-token"
    return learned and bool(config.sample.prompt)


def prompt_ids(tokenizer: BaseTokenizer, prompt: str, chat: bool = False) -> list[int]:
    """The ids to continue. An empty prompt starts a document, or a line, or with any token.

    In a chat the prompt is what the user says, and the assistant is to answer.

    Raises UserError for a prompt that the tokenizer cannot encode.
    """
    if not prompt and not chat and END_OF_TEXT in tokenizer.special_tokens:
        return [tokenizer.special_tokens[END_OF_TEXT]]
    try:
        if chat:
            return reply_prompt(tokenizer, [Message("user", prompt)])
        return tokenizer.encode(prompt or "\n")
    except UserError as error:
        if not prompt and not chat:
            return [0]
        raise UserError(f"sample.prompt={prompt!r}: {error}") from None
