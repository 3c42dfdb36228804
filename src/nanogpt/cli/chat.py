"""nanogpt chat: write with a model, turn by turn, in the terminal."""

import importlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, fields
from typing import TYPE_CHECKING

from nanogpt.cli.generate import sample_settings
from nanogpt.cli.settings import Parser, read_line
from nanogpt.cli.text import printable
from nanogpt.cli.weights import add_model_options, load_model
from nanogpt.config import SampleConfig, choose, explanations, from_dict
from nanogpt.errors import UserError, did_you_mean
from nanogpt.text.conversations import (
    END,
    Message,
    encode_conversation,
    endings,
    has_roles,
    reply_prompt,
)
from nanogpt.text.tokenizer import BaseTokenizer

if TYPE_CHECKING:
    from nanogpt.generation.reader import Reader
    from nanogpt.model.gpt import GPT

ABOUT = """\
Write something, and the model continues it. It continues texts; it does not answer questions. It
sees your text and its own, up to its context length.

  /temperature 0.5   change a setting: {settings}
  /settings          show them; /help shows all of this
  (an empty line)    let the model continue
  /reset             begin a new text
  /quit              leave; so does Ctrl-D. Ctrl-C ends the model's turn
"""
ABOUT_ROLES = """\
Write something, and the model answers. It sees what you both said, up to its context length.

  /system TEXT       begin anew, with a message that says how the model should behave
  /temperature 0.5   change a setting: {settings}
  /settings          show them; /help shows all of this
  /reset             begin anew
  /quit              leave; so does Ctrl-D. Ctrl-C ends the model's turn
"""

# What a person can set here; the prompt is what they write.
CHANGEABLE = [field.name for field in fields(SampleConfig) if field.name != "prompt"]


class Chat:
    """One text that a person and a model write in turns."""

    about = ABOUT
    more_commands: tuple[str, ...] = ()

    def __init__(
        self, model: "GPT", tokenizer: BaseTokenizer, settings: SampleConfig, stops: Sequence[str]
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.settings = settings
        self.stops = stops
        self.reader: Reader | None = None
        self.turns = 0
        self.asked = 0  # tokens up to where the model's turn begins

    def answer(self, text: str) -> Iterator[str]:
        """Add a person's text, then let the model continue; its turn ends as a sample does.

        Raises UserError for text that the tokenizer cannot encode.
        """
        from nanogpt.generation.ahead import reader_for
        from nanogpt.generation.stream import stream

        ids = self.encode(text)
        if self.reader is None:
            self.reader = reader_for(self.model, [ids], self.settings)
        else:
            self.reader.append(0, ids)
        self.asked = len(self.reader.rows[0])
        # Each turn draws anew: the same words twice need not get the same answer.
        seed = (self.settings.seed + self.turns) % 2**63
        self.turns += 1
        turn = from_dict(SampleConfig, {**asdict(self.settings), "seed": seed})
        for piece in stream(self.reader, self.tokenizer, turn, self.stops):
            yield piece.text

    def encode(self, text: str) -> list[int]:
        """The ids of what a person writes, after what is there already."""
        from nanogpt.generation.stream import prompt_ids

        if self.reader is None:
            return prompt_ids(self.tokenizer, text)
        return prompt_ids(self.tokenizer, self.new_line() + text) if text else []

    def new_line(self) -> str:
        """What begins a new line: nothing, if one has begun or the vocabulary has no lines."""
        said = self.tokenizer.decode(self.reader.rows[0][-8:]) if self.reader else "\n"
        try:
            self.tokenizer.encode("\n")
        except UserError:
            return ""
        return "" if said.endswith("\n") else "\n"

    def command(self, line: str) -> str:
        """Carry out a line that begins with a slash; what to say about it.

        Raises UserError for an unknown command or an impossible value.
        """
        name, _, value = line[1:].strip().partition(" ")
        name = name.replace("-", "_")
        if name == "reset":
            self.reader, self.turns = None, 0
            return "a new text"
        if name == "help":
            return self.about.format(settings=", ".join(CHANGEABLE)).rstrip()
        if name == "settings":
            texts = explanations(SampleConfig)
            shown = [f"/{n} {getattr(self.settings, n)}   {texts[n]}" for n in CHANGEABLE]
            return "\n".join(shown)
        if name not in CHANGEABLE:
            known = [*CHANGEABLE, *self.more_commands, "settings", "help", "reset", "quit"]
            raise UserError(f"/{name} is not a command: {did_you_mean(name, known)}")
        if not value:
            raise UserError(f"/{name} needs a value; it is {getattr(self.settings, name)}")
        settings = from_dict(SampleConfig, {**asdict(self.settings), name: value})
        if name == "sampler":
            from nanogpt.generation.sampling import SAMPLERS

            choose(SAMPLERS, "sample.sampler", value)  # or say which there are
        self.settings = settings
        if name == "look_ahead" and self.reader:
            from nanogpt.generation.ahead import reader_for

            self.reader = reader_for(self.model, self.reader.rows, self.settings)
        return f"{name} is {getattr(self.settings, name)}"


class Conversation(Chat):
    """A conversation with a model that knows roles: turns are messages, each with its end."""

    about = ABOUT_ROLES
    more_commands = ("system",)
    system = ""

    def encode(self, text: str) -> list[int]:
        said = [Message("user", text)]
        if self.reader is None:
            first = [Message("system", self.system)] if self.system else []
            return reply_prompt(self.tokenizer, [*first, *said])
        answer = self.reader.rows[0]
        if len(answer) > self.asked and answer[-1] in endings(self.tokenizer):
            answer.pop()  # it was chosen and never read
        ids = encode_conversation(self.tokenizer, said, reply=True)
        return [self.tokenizer.special_tokens[END], *ids]

    def command(self, line: str) -> str:
        name, _, value = line[1:].strip().partition(" ")
        if name != "system":
            return super().command(line)
        encode_conversation(self.tokenizer, [Message("system", value)])  # or say why it cannot be
        self.system = value
        self.reader, self.turns = None, 0
        return "a new conversation" + ("" if value else " without a system message")


def main(arguments: Sequence[str]) -> None:
    """Read lines, answer them."""
    parser = Parser("chat", "Write with a model, turn by turn.")
    add_model_options(parser)
    parser.add_argument(
        "--stop", action="append", metavar="TEXT",
        help="ends the model's turn; may be given several times (default: an empty line; "
        "none for a model that knows roles)",
    )  # fmt: skip
    parser.add_settings(SampleConfig)
    options = parser.parse(arguments)
    if "sample.prompt" in vars(options):
        raise UserError("--sample.prompt: in a chat you write it; leave the option out")
    model, tokenizer, config = load_model(options)
    roles = has_roles(tokenizer)
    stops = options.stop if roles or options.stop is not None else ["\n\n"]
    kind = Conversation if roles else Chat
    chat = kind(model, tokenizer, sample_settings(config, options), stops or [])
    with suppress(ImportError):  # arrow keys and a history for input(); not on Windows
        importlib.import_module("readline")
    print(chat.about.format(settings=", ".join(CHANGEABLE)))
    while True:
        try:
            line = read_line("> ")
        except (EOFError, KeyboardInterrupt):
            print()
            return
        except UnicodeDecodeError:
            print("this is not UTF-8 text", file=sys.stderr)
            continue
        if line.split()[:1] in (["/quit"], ["/exit"]):
            return
        try:
            turn(chat, line)
        except UserError as error:
            print(f"{error}", file=sys.stderr)


def turn(chat: Chat, line: str) -> None:
    """Carry out a command, or print the model's turn as it is made; Ctrl-C ends it."""
    if line.startswith("/"):
        print(chat.command(line))
        return
    if not line and isinstance(chat, Conversation):
        return
    try:
        for text in chat.answer(line):
            print(printable(text), end="", flush=True)
    except KeyboardInterrupt:
        pass
    print()
