"""The training loop.

`TrainingLoop.run` yields a record after every step and every evaluation and prints nothing;
whoever calls it decides what to show and when to stop.
"""

import json
import math
import time
from collections.abc import Generator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from nanogpt.config import Config, choose
from nanogpt.device import Compute
from nanogpt.errors import UserError
from nanogpt.evaluation.loss import Score, estimate, evaluate, tensors
from nanogpt.generation.stream import generate_text
from nanogpt.model.gpt import GPT
from nanogpt.text.batches import BATCHES, Batch, Batches
from nanogpt.text.dataset import Tokens
from nanogpt.text.loader import Loader
from nanogpt.text.tokenfiles import TokenFile, end_of_text
from nanogpt.text.tokenizer import BaseTokenizer
from nanogpt.training.checkpoint import TrainState, latest_step, save_checkpoint
from nanogpt.training.execution import build_objective
from nanogpt.training.optim import build_optimizer, learning_rate
from nanogpt.training.records import Reached, Record, Sample, Step, Validation
from nanogpt.training.trouble import divergence, give_up_compiling


class TrainingLoop:
    """One run: its model, its optimizer, its data, and its folder. `Trainer` builds it from files.

    `run` trains; `stop` makes it end after the current step.
    """

    build_objective = staticmethod(build_objective)

    def __init__(
        self, folder: Path, config: Config, model: GPT, tokenizer: BaseTokenizer, tokens: Tokens,
        compute: Compute, state: TrainState,
    ) -> None:  # fmt: skip
        self.folder, self.metrics = folder, folder / "metrics.jsonl"
        self.config, self.compute, self.state = config, compute, state
        self.model = model.to(compute.device).train()
        self.optimizer = build_optimizer(self.model, config.train)
        self.scaler = compute.scaler()
        if state.scaler:
            self.scaler.load_state_dict(state.scaler)
        todo = config.tokens_per_step * (config.train.max_steps - state.step)  # tokens
        self.objective, self.not_compiled = self.build_objective(model, config.train, compute, todo)
        self.tokenizer, self.tokens = tokenizer, tokens
        self.train_batches = self.batches_of(tokens.train)
        self.val_batches = self.batches_of(tokens.val)
        self.loader = Loader(self.load_batches, config.train.max_steps)
        self.saved_step, self.stopped = state.step, False

    def run(self) -> Generator[Record, None, None]:
        """Train to max_steps or until stopped, yielding records; ends with a checkpoint.

        What is yielded is already in metrics.jsonl. Closing the iterator saves a checkpoint, too.
        """
        try:
            with self.metrics.open("a") as metrics:
                while not self.complete and not self.stopped:
                    records = self.advance()
                    metrics.writelines(json.dumps(asdict(record)) + "\n" for record in records)
                    metrics.flush()
                    self.save_if_due(records)
                    yield from records
        except GeneratorExit:
            self.save()
            raise
        finally:
            self.loader.close()
        self.save()

    @property
    def complete(self) -> bool:
        """Whether all steps are done, or the last target is reached where that ends the run."""
        settings, best = self.config.train, self.state.best_loss
        reached = best is not None and best <= min(settings.target_losses(), default=-math.inf)
        return self.state.step >= settings.max_steps or (settings.stop_at_target and reached)

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
            records += self.validate_and_compare()
        if settings.sample_interval and step % settings.sample_interval == 0:
            records.append(self.sample())
        return records

    def save_if_due(self, records: Sequence[Record]) -> None:
        """Write a checkpoint if it is time for one, or if the validation loss was never lower."""
        step = self.state.step
        losses = [r.score for r in records if isinstance(r, Validation) and r.step == step]
        best = math.inf if self.state.best_loss is None else self.state.best_loss
        if losses and losses[0] < best:
            self.state = replace(self.state, best_loss=losses[0])
            self.save(best=True)
        elif step % self.config.train.checkpoint_interval == 0:
            self.save()

    def save(self, best: bool = False) -> None:
        """Write a checkpoint of this moment, unless there is this one or a later one."""
        if self.saved_step != self.state.step and latest_step(self.folder) <= self.state.step:
            state = replace(self.state, scaler=self.scaler.state_dict())
            save_checkpoint(self.folder, self.model, self.optimizer, state, self.config, best)
            self.saved_step = self.state.step

    def train_step(self) -> Step:
        """One optimizer step. Raises UserError, before any weight moves, if the loss blows up.

        Seeds torch's global generator, from which dropout draws.
        """
        settings, step = self.config.train, self.state.step
        start = time.perf_counter()
        lr = learning_rate(step, settings)
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group.get("lr_factor", 1.0)
        torch.manual_seed(dropout_seed(settings.seed, step))
        batches = self.loader.load(step)
        loss, grad_norm = self.clip(self.gradients(batches))
        overflow = self.scaler.is_enabled() and math.isfinite(loss)  # the scaler deals with that
        if not math.isfinite(loss + grad_norm) and not overflow:
            raise UserError(divergence(self, loss, grad_norm))
        self.scaler.step(self.optimizer)
        self.scaler.update()
        seconds = time.perf_counter() - start
        self.state = replace(self.state, step=step + 1, seconds=self.state.seconds + seconds)
        speed = sum(batch.ids.size for batch in batches) / seconds  # tokens per second
        return Step(self.state.step, loss, lr, grad_norm, speed, self.loader.waited / seconds)

    def gradients(self, batches: Sequence[Batch]) -> Tensor:
        """The gradients of a step; returns its loss. What cannot be compiled runs as it is."""
        self.optimizer.zero_grad(set_to_none=True)
        try:
            return accumulate_gradients(self.objective, batches, self.compute, self.scaler)
        except torch._dynamo.exc.TorchDynamoException as error:
            give_up_compiling(self, error)
            return self.gradients(batches)

    def clip(self, loss: Tensor) -> tuple[float, float]:
        """Shorten the gradients to train.grad_clip. The loss, and the norm before, as numbers."""
        self.scaler.unscale_(self.optimizer)
        limit = self.config.train.grad_clip or math.inf
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        total, before = torch.stack([loss, norm.to(loss.device)]).tolist()  # the only wait here
        return total, before

    def batches_of(self, tokens: TokenFile) -> Batches:
        """The batches of a text, cut as data.batches says."""
        kind = choose(BATCHES, "data.batches", self.config.data.batches)
        length, data = self.config.model.context_length, self.config.data
        return kind(tokens, length, end_of_text(self.tokenizer), data)

    def load_batches(self, step: int) -> list[Batch]:
        """The batches whose gradients make one step."""
        settings, n = self.config.train, self.config.train.grad_accum_steps
        numbers = range(step * n, (step + 1) * n)
        return [self.train_batches.batch(n, settings.batch_size, settings.seed) for n in numbers]

    def validate_and_compare(self) -> list[Record]:
        """Estimate the validation loss, and say which targets were reached for the first time."""
        found = self.validate()
        best = math.inf if self.state.best_loss is None else self.state.best_loss
        reached = [
            Reached(self.state.step, target, self.state.seconds)
            for target in self.config.train.target_losses()
            if found.score <= target < best
        ]
        return [found, *reached]

    def validate(self) -> Validation:
        """Estimate the validation loss, or measure it on the whole text if eval_batches is 0."""
        settings, batches = self.config.train, self.val_batches
        size, count = settings.batch_size, settings.eval_batches
        if count:
            score = estimate(self.model, batches, self.compute, size, count, settings.seed)
        else:
            score = self.evaluate(stride=self.config.model.context_length)
        return Validation(self.state.step, score.loss, score.bits_per_byte)

    def evaluate(self, stride: int = 0) -> Score:
        """The loss over the whole validation text; documents are apart if training has them so."""
        separator = self.val_batches.separator if self.val_batches.documents_apart else None
        size = self.config.train.batch_size
        return evaluate(self.model, self.tokens.val, self.compute, size, stride, separator)

    def sample(self) -> Sample:
        """Let the model write, with the settings of the section sample, at most 64 tokens."""
        length = min(64, self.config.sample.max_new_tokens)
        settings = replace(self.config.sample, max_new_tokens=length)
        text = "".join(generate_text(self.model, self.tokenizer, settings))
        return Sample(self.state.step, settings.prompt + text)


def accumulate_gradients(
    objective: nn.Module, batches: Sequence[Batch], compute: Compute,
    scaler: torch.amp.GradScaler | None = None,
) -> Tensor:  # fmt: skip
    """Add up the gradients of several batches, as if they were one; returns their mean loss, ().

    Every real target weighs the same, however unevenly the batches share them.
    """
    scaler = scaler or compute.scaler()
    targets_in_all = max(1, sum(batch.real_targets for batch in batches))  # there may be none
    losses: list[Tensor] = []
    for batch in batches:
        with compute.autocast():
            loss = objective(*tensors(batch, compute.device)) / targets_in_all
        scaler.scale(loss).backward()
        losses.append(loss.detach())
    return torch.stack(losses).sum()  # still on the device: nothing waits for it here


def dropout_seed(seed: int, step: int) -> int:
    """The seed of a step's dropout: a pure function, so a resumed run drops the same units."""
    return int(np.random.SeedSequence([seed, step, 0]).generate_state(1, np.uint64)[0])
