"""The training loop.

`Trainer.run` yields a record after every step and every evaluation and prints nothing; whoever
calls it decides what to show and when to stop.
"""

import json
import math
import time
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nanogpt.checkpoint import (
    TrainState,
    find_checkpoint,
    load_state,
    load_tensors,
    load_weights,
    restore_optimizer,
    save_checkpoint,
)
from nanogpt.config import Config, choose, load_config, to_toml, with_settings
from nanogpt.data import (
    BATCHES,
    Batch,
    Batches,
    Loader,
)
from nanogpt.device import Compute, resolve
from nanogpt.errors import UserError
from nanogpt.evaluate import estimate, summed_loss
from nanogpt.files import read_text, write_text
from nanogpt.generate import generate_text, prompt_ids
from nanogpt.model import GPT
from nanogpt.optim import SCHEDULES, build_optimizer, learning_rate
from nanogpt.tokenfiles import TokenFile, check_ids, check_length, end_of_text, open_split
from nanogpt.tokenizer import AnyTokenizer, find_tokenizer, load_tokenizer


@dataclass(frozen=True)
class Step:
    """What one optimizer step did."""

    step: int  # steps done, this one included
    loss: float  # mean training loss of the step's batch, nats per token, before the update
    lr: float
    grad_norm: float  # before clipping
    tokens_per_second: float
    data_wait: float  # share of the step's time spent waiting for its batches


@dataclass(frozen=True)
class Validation:
    """What a look at the validation text showed."""

    step: int
    val_loss: float  # nats per token
    bits_per_byte: float


@dataclass(frozen=True)
class Sample:
    """What the model writes at this point."""

    step: int
    sample: str  # prompt and continuation


Record = Step | Validation | Sample


def data_folder(run: Path, config: Config) -> Path:
    """Where the token files of a run are: in data.folder, or in the run itself."""
    return Path(config.data.folder) if config.data.folder else run / "data"


def tokenizer_of(data: Path, config: Config) -> AnyTokenizer:
    """The tokenizer kept beside token files, or the finished one that data.tokenizer names.

    Raises UserError if there is neither.
    """
    if not (data / "tokenizer.json").exists() and config.data.tokenizer not in ("bpe", "char"):
        return find_tokenizer(config.data.tokenizer)
    return load_tokenizer(data / "tokenizer.json")


@dataclass(frozen=True)
class Tokens:
    """The token files of a run."""

    train: TokenFile
    val: TokenFile

    @property
    def fingerprint(self) -> str:
        """What a run remembers of its data."""
        return f"{self.train.about.sha256[:16]}-{self.val.about.sha256[:16]}"


def open_tokens(folder: Path, config: Config, tokenizer: AnyTokenizer) -> Tokens:
    """Open both splits. Raises UserError if they do not fit the tokenizer and the settings."""
    tokens = Tokens(*(open_split(folder, name, tokenizer) for name in ("train", "val")))
    for file in (tokens.train, tokens.val):
        check_length(file, config.model.context_length)
        check_ids(file, config.model.vocab_size)
    return tokens


class Trainer:
    """One run: its model, its optimizer, its data, and its folder.

    Build one with `start` or `resume`. `run` trains; `stop` makes it end after the current step.
    """

    def __init__(
        self,
        folder: Path,
        config: Config,
        model: GPT,
        tokenizer: AnyTokenizer,
        tokens: Tokens,
        compute: Compute,
        state: TrainState,
    ) -> None:
        self.folder = folder
        self.config = config
        self.model = model.to(compute.device).train()
        self.optimizer = build_optimizer(self.model, config.train)
        self.tokenizer = tokenizer
        self.tokens = tokens
        self.train_batches = self.batches_of(tokens.train)
        self.val_batches = self.batches_of(tokens.val)
        self.loader = Loader(self.load_batches)
        self.compute = compute
        self.state = state
        self.saved_step = state.step
        self.stopped = False

    @classmethod
    def start(cls, folder: Path, config: Config) -> "Trainer":
        """A new run from prepared token files. Writes its settings and tokenizer.

        Raises UserError, and writes nothing, if a setting or a token file is unusable.
        """
        compute = resolve(config.train.device, config.train.precision)
        choose(SCHEDULES, "train.schedule", config.train.schedule)
        data = data_folder(folder, config)
        tokenizer = tokenizer_of(data, config)
        prompt_ids(tokenizer, config.sample.prompt)
        config = with_settings(
            config,
            model={"vocab_size": tokenizer.vocab_size},
            # An absolute path, so that the run can be resumed from anywhere.
            data={"folder": str(data.resolve()) if config.data.folder else ""},
            train={"precision": compute.precision},
        )
        tokens = open_tokens(data, config, tokenizer)
        torch.manual_seed(config.train.seed)
        model = GPT(config.model)
        state = TrainState(tokens=tokens.fingerprint)
        trainer = cls(folder, config, model, tokenizer, tokens, compute, state)
        write_text(folder / "config.toml", to_toml(config))
        tokenizer.save(folder / "tokenizer.json")
        write_text(folder / "metrics.jsonl", "")
        return trainer

    @classmethod
    def resume(cls, folder: Path) -> "Trainer":
        """Go on from the latest checkpoint, exactly as if the run had never stopped.

        A run that was stopped before its first checkpoint starts again from its settings. Raises
        UserError if a file is missing or damaged, or if the data are not those of the run.
        """
        if (folder / "config.toml").exists() and not (folder / "checkpoints" / "latest").exists():
            return cls.start(folder, load_config(folder / "config.toml"))
        checkpoint = find_checkpoint(folder)
        state, config = load_state(checkpoint)
        compute = resolve(config.train.device, config.train.precision)
        tokenizer = load_tokenizer(folder / "tokenizer.json")
        data = data_folder(folder, config)
        tokens = open_tokens(data, config, tokenizer)
        if tokens.fingerprint != state.tokens:
            raise UserError(f"{data} has changed since {folder} began; prepare the same text again")
        model = load_weights(checkpoint, config.model)
        trainer = cls(folder, config, model, tokenizer, tokens, compute, state)
        moments = load_tensors(checkpoint, "optimizer.safetensors")
        restore_optimizer(trainer.model, trainer.optimizer, moments)
        # Records after the checkpoint belong to steps that will be done again.
        records = [r for r in read_metrics(folder) if r["step"] <= state.step]
        write_text(folder / "metrics.jsonl", "".join(json.dumps(r) + "\n" for r in records))
        return trainer

    def run(self) -> Generator[Record, None, None]:
        """Train to max_steps or until stopped, yielding records; ends with a checkpoint.

        What is yielded is already in metrics.jsonl. Closing the iterator saves a checkpoint, too.
        """
        try:
            with (self.folder / "metrics.jsonl").open("a") as metrics:
                while self.state.step < self.config.train.max_steps and not self.stopped:
                    records = self.advance()
                    metrics.writelines(json.dumps(asdict(record)) + "\n" for record in records)
                    metrics.flush()
                    self.save_if_due(records)
                    yield from records
        except GeneratorExit:
            self.save()
            raise
        self.save()

    def stop(self) -> None:
        """Ask `run` to save a checkpoint and end after the step it is in."""
        self.stopped = True

    def advance(self) -> list[Record]:
        """One step and what is due after it: a look at the validation text, a sample."""
        settings = self.config.train
        records: list[Record] = []
        if self.state.step == 0:
            records.append(self.validate())
            if settings.sample_interval:
                records.append(self.sample())
        records.append(self.train_step())
        step = self.state.step
        if step == settings.max_steps or step % settings.eval_interval == 0:
            records.append(self.validate())
        if settings.sample_interval and step % settings.sample_interval == 0:
            records.append(self.sample())
        return records

    def save_if_due(self, records: Sequence[Record]) -> None:
        """Write a checkpoint if it is time for one, or if the validation loss was never lower."""
        step = self.state.step
        losses = [r.val_loss for r in records if isinstance(r, Validation) and r.step == step]
        best = math.inf if self.state.best_loss is None else self.state.best_loss
        if losses and losses[0] < best:
            self.state = replace(self.state, best_loss=losses[0])
            self.save(best=True)
        elif step % self.config.train.checkpoint_interval == 0:
            self.save()

    def save(self, best: bool = False) -> None:
        """Write a checkpoint of this moment, unless there is one."""
        if self.saved_step != self.state.step:
            save_checkpoint(self.folder, self.model, self.optimizer, self.state, self.config, best)
            self.saved_step = self.state.step

    def train_step(self) -> Step:
        """One optimizer step. Raises UserError, before any weight moves, if the loss blows up.

        Seeds torch's global generator, from which dropout draws.
        """
        settings, step = self.config.train, self.state.step
        start = time.perf_counter()
        lr = learning_rate(step, settings)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        torch.manual_seed(dropout_seed(settings.seed, step))
        batches = self.loader.load(step)
        self.optimizer.zero_grad(set_to_none=True)
        loss = accumulate_gradients(self.model, batches, self.compute)
        limit = settings.grad_clip or math.inf
        grad_norm = float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit))
        if not math.isfinite(loss + grad_norm):
            raise UserError(
                f"training diverged at step {step + 1} (loss {loss}, gradient norm {grad_norm}): "
                f"start again with a train.lr below {settings.lr}"
            )
        self.optimizer.step()
        seconds = time.perf_counter() - start
        self.state = replace(self.state, step=step + 1, seconds=self.state.seconds + seconds)
        tokens = sum(batch.ids.size for batch in batches)
        wait = self.loader.waited / seconds
        return Step(self.state.step, loss, lr, grad_norm, tokens / seconds, wait)

    def batches_of(self, tokens: TokenFile) -> Batches:
        """The batches of a text, cut as data.batches says."""
        config = self.config
        kind = choose(BATCHES, "data.batches", config.data.batches)
        separator = end_of_text(self.tokenizer)
        return kind(tokens, config.model.context_length, separator, config.data.stride)

    def load_batches(self, step: int) -> list[Batch]:
        """The batches whose gradients make one step."""
        settings = self.config.train
        first = step * settings.grad_accum_steps
        numbers = range(first, first + settings.grad_accum_steps)
        return [self.train_batches.batch(n, settings.batch_size, settings.seed) for n in numbers]

    def validate(self) -> Validation:
        """Estimate the validation loss."""
        settings = self.config.train
        score = estimate(
            self.model,
            self.val_batches,
            self.compute,
            settings.batch_size,
            settings.eval_batches,
            settings.seed,
        )
        return Validation(self.state.step, score.loss, score.bits_per_byte)

    def sample(self) -> Sample:
        """Let the model write, with the settings of the section sample, at most 64 tokens."""
        settings = replace(
            self.config.sample, max_new_tokens=min(64, self.config.sample.max_new_tokens)
        )
        text = "".join(generate_text(self.model, self.tokenizer, settings))
        return Sample(self.state.step, settings.prompt + text)


def accumulate_gradients(model: GPT, batches: Sequence[Batch], compute: Compute) -> float:
    """Add up the gradients of several batches, as if they were one; returns their mean loss.

    Every real target weighs the same, however unevenly the batches share them.
    """
    targets_in_all = sum(batch.real_targets for batch in batches)
    total = 0.0
    for batch in batches:
        loss = summed_loss(model, batch, compute) / targets_in_all
        loss.backward()
        total += loss.item()
    return total


def dropout_seed(seed: int, step: int, rank: int = 0) -> int:
    """The seed of a step's dropout: a pure function, so a resumed run drops the same units."""
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0])


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The records of a run in order; a line cut off by a crash ends the list."""
    records = []
    for line in read_text(folder / "metrics.jsonl").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records
