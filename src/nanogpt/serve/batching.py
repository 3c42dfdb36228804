"""Continuous batching: texts of many requests grow in one batch, and join and leave between steps.

A forward pass for one token reads every weight once, for one text or for thirty. So texts that come
at different moments share the passes (Yu et al. 2022, "Orca", section 3.1): one that is done leaves
its row at once, and one that waits takes it. What a text sees and what it draws depends on itself
alone: its tokens are those of `generate`.

Axes: B rows, T new tokens, S tokens in the cache, V vocabulary.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from nanogpt.config import IGNORED, ModelConfig, SampleConfig, choose
from nanogpt.errors import UserError
from nanogpt.evaluation.loss import default_stride
from nanogpt.generation.reader import forgotten
from nanogpt.generation.sampling import SAMPLERS
from nanogpt.generation.stream import TextStream
from nanogpt.model.cache import KVCache
from nanogpt.model.gpt import GPT, evaluating
from nanogpt.serve.settings import LimitsConfig
from nanogpt.text.batches import document_numbers, sliding_windows
from nanogpt.text.conversations import endings
from nanogpt.text.tokenizer import BaseTokenizer


class Busy(Exception):
    """There is no place for a request now."""


class Guess(NamedTuple):
    """A token, how likely the model found it, and what it found likeliest."""

    token: int
    log_probability: float | None  # in nats; None for the first token of a prompt
    likeliest: list[tuple[int, float]]


@dataclass(eq=False)
class Row:
    """One text that grows: what was asked for, and what has come of it.

    The worker adds to it, and calls `notify` when there is something to hand out.
    """

    ids: list[int]
    config: SampleConfig
    stops: Sequence[str] = ()
    top: int = 0  # how many of the likeliest tokens are wanted
    scores_prompt: bool = False
    streams: bool = False  # hand out each token; else the whole
    deadline: float = float("inf")  # on the clock of time.monotonic
    notify: Callable[[], None] = lambda: None
    gone: bool = False  # the client does not wait any more
    prompt: list[Guess] = field(default_factory=list)
    said: list[tuple[Guess, str]] = field(default_factory=list)  # with the text that is sure now
    finish: str = ""  # "stop", "length", "busy" or "error" once it has ended

    def __post_init__(self) -> None:
        self.prompt_tokens = len(self.ids)
        self.text = TextStream(self.stops)
        self.sampler = choose(SAMPLERS, "sample.sampler", self.config.sampler)(self.config, 1)

    def end(self, finish: str) -> None:
        """It does not grow any more."""
        self.finish = finish
        self.notify()

    def choose(self, logits: Tensor) -> int:
        """The next token: logits (1, V)."""
        seen = None
        if self.config.repetition_penalty != 1:
            seen = torch.zeros_like(logits, dtype=torch.bool)
            seen[0, self.ids] = True
        return int(self.sampler(logits, seen))

    def take(self, guess: Guess, data: bytes, ended: bool) -> None:
        """Grow by a token of these bytes; `ended` if it ends the document."""
        self.ids.append(guess.token)
        last = ended or len(self.said) + 1 == self.config.max_new_tokens
        self.said.append((guess, self.text.push(data, final=last)))
        if last or self.text.stopped:
            self.end("stop" if ended or self.text.stopped else "length")
        elif self.streams:
            self.notify()


class SharedCache(KVCache):
    """A KV cache whose rows come and go.

    All rows end at the same column, `length`: a text of n tokens stands in the last n columns
    before it, and what is left of it is padding. So one forward pass writes one column.
    """

    def __init__(
        self, config: ModelConfig, rows: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        super().__init__(config, rows, device, dtype)
        self.room = self.keys, self.values, self.pos
        self.counts: list[int] = []  # tokens of each row
        self.resize(0)

    def resize(self, rows: int) -> None:
        """Show the model the first rows only."""
        keys, values, pos = self.room
        self.keys, self.values, self.pos = keys[:, :rows], values[:, :rows], pos[:rows]

    def advance(self, pos: Tensor) -> None:
        super().advance(pos)
        self.counts = [count + pos.shape[1] for count in self.counts]

    def documents(self) -> Tensor | None:
        """What is padding once each row has one token more: (B, S), see GPT.hidden_states."""
        starts = torch.tensor([self.length - n for n in self.counts], device=self.pos.device)
        if not starts.any():
            return None
        return (torch.arange(self.length + 1, device=starts.device) >= starts[:, None]).long()

    def align(self, length: int) -> None:
        """Move all columns, so that they end at another length."""
        kept = min(length, self.length)
        for part in (self.keys, self.values, self.pos[..., None]):  # (..., columns, numbers)
            part[..., length - kept : length, :] = part[
                ..., self.length - kept : self.length, :
            ].clone()
            # Nobody sees padding, but a product with something that is no number is none either.
            part[..., : length - kept, :] = 0
        self.length = length

    def add(self, other: KVCache) -> None:
        """A new row, with the text that stands in the only row of another cache."""
        row, start = len(self.counts), self.length - other.length
        if not row or start < 0:
            self.align(other.length)
            start = 0
        self.counts.append(other.length)
        self.resize(row + 1)
        for mine, its in ((self.keys, other.keys), (self.values, other.values)):
            mine[:, row, :, :start] = 0
            mine[:, row, :, start : self.length] = its[:, 0, :, : other.length]
        self.pos[row, :start] = 0
        self.pos[row, start : self.length] = other.pos[0, : other.length]

    def remove(self, row: int) -> None:
        """Give up a row. The last one takes its place."""
        last = self.counts.pop()
        if row < len(self.counts):
            self.counts[row] = last
            for part in (self.keys, self.values):
                part[:, row, :, : self.length] = part[:, -1, :, : self.length]
            self.pos[row, : self.length] = self.pos[-1, : self.length]
        self.resize(len(self.counts))


class Batch:
    """Texts that grow together, and what a model expects to come next in each."""

    def __init__(self, model: GPT, size: int) -> None:
        config, device, dtype = model.config, model.device, model.dtype
        self.model = model
        self.cache = SharedCache(config, size, device, dtype)
        self.alone = KVCache(config, 1, device, dtype)  # where a text is read before it joins
        self.rows: list[Row] = []
        self.ends: list[int] = []  # how much of each text has been read

    def predict(self, rows: Collection[Row]) -> Tensor:
        """Logits (B, V) of what comes next in each text, in the order of `self.rows` afterwards.

        Those that are here and not wanted leave. Those that have grown by one token go on. Those
        that are new, or have forgotten their beginning (reader.forgotten), are read whole.
        """
        wanted, length = set(rows), self.model.config.context_length
        for n in reversed(range(len(self.rows))):  # from the end: the last one fills the gap
            row, end = self.rows[n], self.ends[n]
            same_start = forgotten(end, length) == forgotten(end + 1, length)
            if row not in wanted or len(row.ids) != end + 1 or not same_start:
                self.remove(n)
        with evaluating(self.model):
            logits = [self.read_one_more()] if self.rows else []
            logits += [self.read_whole(row) for row in rows if row not in set(self.rows)]
        return torch.cat(logits)

    def read_one_more(self) -> Tensor:
        """The next token of every row: logits (B, V)."""
        longest = max(self.cache.counts)
        if self.cache.length == self.model.config.context_length or self.cache.length > 2 * longest:
            self.cache.align(longest)
        ids = torch.tensor([row.ids[-1:] for row in self.rows], device=self.model.device)
        x = self.model.hidden_states(ids, documents=self.cache.documents(), cache=self.cache)
        self.ends = [end + 1 for end in self.ends]
        return self.model.head(x[:, -1])

    def read_whole(self, row: Row) -> Tensor:
        """All of a text that the model sees; it joins the batch: logits (1, V)."""
        start = forgotten(len(row.ids), self.model.config.context_length)
        self.alone.clear()
        ids = torch.tensor([row.ids[start:]], device=self.model.device)
        x = self.model.hidden_states(ids, cache=self.alone)
        self.cache.add(self.alone)
        self.rows.append(row)
        self.ends.append(len(row.ids))
        return self.model.head(x[:, -1])

    def remove(self, n: int) -> None:
        """Row n leaves."""
        self.cache.remove(n)
        self.rows[n], self.ends[n] = self.rows[-1], self.ends[-1]
        self.rows.pop()
        self.ends.pop()


def guesses(log_probabilities: Tensor, tokens: Sequence[int], top: int) -> Iterator[Guess]:
    """What was thought of each token: log-probabilities (N, V) and N tokens.

    Raises UserError for a model whose weights are not numbers.
    """
    if log_probabilities.isnan().any():
        raise UserError("the model's weights are not numbers; use an earlier checkpoint")
    values, ids = (part.tolist() for part in log_probabilities.topk(top))  # (N, top)
    for n, token in enumerate(tokens):
        yield Guess(
            token, float(log_probabilities[n, token]), list(zip(ids[n], values[n], strict=True))
        )


def score(
    model: GPT, ids: Sequence[int], top: int, ruled_out: Tensor, separator: int | None
) -> Iterator[Guess]:
    """What the model thinks of each token of a text, as `evaluation.loss.token_losses` measures it.

    `ruled_out` are never among the likeliest.
    """
    yield Guess(ids[0], None, [])
    length = model.config.context_length
    for window, targets in sliding_windows(np.array(ids), length, default_stride(length)):
        documents = None
        if separator is not None:
            numbers = document_numbers(window[None], separator)
            documents = torch.from_numpy(numbers).to(model.device)
        with evaluating(model):
            logits = model(torch.from_numpy(window)[None].to(model.device), documents=documents)
        due = np.flatnonzero(targets != IGNORED)
        log_probabilities = logits[0, due].float().log_softmax(-1)
        log_probabilities[:, ruled_out] = -torch.inf
        yield from guesses(log_probabilities, targets[due].tolist(), top)


class Batcher:
    """A worker thread that lets the texts of all requests to one model grow.

    `separator` keeps the documents of a prompt apart, see `evaluation.documents.separator_of`.
    """

    def __init__(
        self, model: GPT, tokenizer: BaseTokenizer, limits: LimitsConfig, separator: int | None
    ) -> None:
        self.model, self.tokenizer, self.limits = model, tokenizer, limits
        self.separator = separator
        self.ends = endings(tokenizer)
        # A model may have more rows than the tokenizer has tokens.
        rows = range(model.config.vocab_size)
        self.ruled_out = torch.tensor([i for i in rows if i not in tokenizer.vocabulary]).long()
        self.batch = Batch(model, limits.rows)
        self.running: list[Row] = []
        self.waiting: deque[Row] = deque()
        self.changed = threading.Condition()
        self.thread: threading.Thread | None = None
        self.closed = False

    def submit(self, rows: Sequence[Row]) -> None:
        """Let texts grow as soon as there is a place for them. Raises Busy."""
        with self.changed:
            places = self.limits.rows + self.limits.waiting
            there = len(self.running) + len(self.waiting)
            if self.closed or there + len(rows) > places:
                raise Busy
            self.waiting.extend(rows)
            if self.thread is None:
                self.thread = threading.Thread(target=self.work, name="batcher", daemon=True)
                self.thread.start()
            self.changed.notify()

    def close(self) -> None:
        """End all texts and the thread."""
        with self.changed:
            self.closed = True
            self.changed.notify()
        if self.thread:
            self.thread.join()

    def work(self) -> None:
        """What the thread does, until it is closed."""
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.closed or self.running or self.waiting)
                self.admit()
            if self.closed:
                break
            try:
                self.step()
                continue
            except Exception:
                # The rows fail, and the server does not: the next request finds an empty batch.
                logging.getLogger(__name__).exception("a batch failed")
                self.drop_all("error")
            # Not before the error is forgotten, which holds the old one: two may be too much.
            del self.batch
            self.batch = Batch(self.model, self.limits.rows)
        self.drop_all("busy")

    def admit(self) -> None:
        """Drop what nobody waits for, or what has taken too long; fill the places with others."""
        now = time.monotonic()
        for place, finish in ((self.running, "length"), (self.waiting, "busy")):
            for row in place:
                if not row.finish and (row.gone or row.deadline < now):
                    row.end("busy" if row.scores_prompt else finish)
        self.running = [row for row in self.running if not row.finish]
        self.waiting = deque(row for row in self.waiting if not row.finish)
        while self.waiting and len(self.running) < self.limits.rows:
            self.running.append(self.waiting.popleft())

    def drop_all(self, finish: str) -> None:
        """End every text that is here."""
        with self.changed:
            rows = [*self.running, *self.waiting]
            self.running, self.waiting = [], deque()
        for row in rows:
            if not row.finish:
                row.end(finish)

    def step(self) -> None:
        """One more token for every text. Of new prompts, one is scored: the others go on."""
        row = next((row for row in self.running if row.scores_prompt), None)
        if row:
            scores = score(self.model, row.ids, row.top, self.ruled_out, self.separator)
            row.prompt, row.scores_prompt = list(scores), False
        for row in self.running:
            if row.config.max_new_tokens == 0 and not row.scores_prompt:
                row.end("length")
        growing = [row for row in self.running if not row.finish and not row.scores_prompt]
        if growing:
            self.grow(self.batch.predict(growing))

    def grow(self, logits: Tensor) -> None:
        """Choose a token for each row of the batch: logits (B, V)."""
        logits[:, self.ruled_out] = -torch.inf
        rows = self.batch.rows
        chosen = [row.choose(logits[n : n + 1]) for n, row in enumerate(rows)]
        log_probabilities = logits.float().log_softmax(-1)
        found = guesses(log_probabilities, chosen, max(row.top for row in rows))
        for row, guess in zip(rows, found, strict=True):
            ended = guess.token in self.ends
            data = b"" if ended else self.tokenizer.decode_bytes([guess.token])
            row.take(guess._replace(likeliest=guess.likeliest[: row.top]), data, ended)
