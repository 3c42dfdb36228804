"""Training from rewards and from preferences: what differs from the training loop stands here.

A step of the objective "policy" lets the model answer some questions, several times each; rewards
every answer; finds out which were better than the others to the same question; and makes those
likelier. The answers of a step are a pure function of the weights, the seed and the step, so a run
that was stopped and resumed ends with the same bits.

Axes: B answers in a batch, T positions, N answers of a step.
"""

import math
from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from nanogpt.config import IGNORED, Config, TrainConfig
from nanogpt.device import Compute, to_device
from nanogpt.errors import UserError
from nanogpt.evaluation.loss import Score, tensors
from nanogpt.evaluation.rewards import worth
from nanogpt.files import claimed, writing
from nanogpt.generation.rollouts import RollOut, roll_out
from nanogpt.model.gpt import GPT, evaluating
from nanogpt.text.batches import Batch, padded_batch, shuffled
from nanogpt.text.loader import Loader
from nanogpt.text.pairs import PairBatches
from nanogpt.text.prompts import Prompts
from nanogpt.training.objective.policy import (
    Policy,
    advantages,
    log_probabilities,
)
from nanogpt.training.objective.preference import Preference, preference_loss
from nanogpt.training.plan import cache_bytes
from nanogpt.training.records import Answered, Record, Rollout, Sample, Step
from nanogpt.training.start import Trainer
from nanogpt.training.trouble import divergence

REFERENCE = "reference.safetensors"  # in a run: the weights that it began with
WATCHED = 16  # answers of a step, from which the distance is measured
SPREAD = 1.25  # how much longer the longest row of a batch may be than the shortest
CACHE = 2**30  # bytes of keys and values; answers are drawn together as far as these suffice


class ReferenceTrainer(Trainer):
    """A run that keeps the model with which it began, to measure how far it has moved.

    The weights of that model stay in the run's folder: train.init may name a run that goes on.
    """

    def build_objective(
        self, model: GPT, settings: TrainConfig, compute: Compute, tokens: int
    ) -> tuple[nn.Module, str]:
        """The objective, and why it is not compiled. From now on there is a reference model."""
        self.reference = deepcopy(model).eval().requires_grad_(False)
        if self.state.step:  # the model has moved since
            load_reference(self.reference, self.folder / REFERENCE)
        plain = replace(settings, compile="off")
        objective, _ = super().build_objective(model, plain, compute, tokens)
        assert isinstance(objective, Policy | Preference)
        objective.settings = self.config.policy
        return objective, "its batches have many shapes"

    @classmethod
    def start(cls, folder: str | Path, config: Config) -> Trainer:
        """As Trainer.start does; and keeps the weights of the start."""
        trainer = super().start(folder, config)
        assert isinstance(trainer, ReferenceTrainer)
        found = {k: x.cpu().contiguous() for k, x in trainer.reference.state_dict().items()}
        with claimed(trainer.folder), writing(trainer.folder / REFERENCE) as file:
            file.write(save(found))
        return trainer


def load_reference(model: GPT, path: Path) -> None:
    """Give a model the weights of a file. Raises UserError if it cannot be read or does not fit."""
    try:
        model.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        why = str(error).strip().splitlines()[0]
        raise UserError(f"{path} cannot be read ({why}); restore it, or start again") from None


class PreferenceTrainer(ReferenceTrainer):
    """Training on pairs of answers, of which one was preferred."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        assert isinstance(self.train_batches, PairBatches)
        self.left_out = self.train_batches.left_out

    def build_objective(
        self, model: GPT, settings: TrainConfig, compute: Compute, tokens: int
    ) -> tuple[nn.Module, str]:
        """As ReferenceTrainer.build_objective does."""
        objective, why = super().build_objective(model, settings, compute, tokens)
        assert isinstance(objective, Preference)
        objective.reference = self.reference
        return objective, why

    def validate(self) -> Answered:
        """The loss of pairs of the validation text, and in how many the chosen answer is ahead.

        train.eval_batches x train.batch_size / 2 pairs, always the same ones, or all if that is 0.
        """
        train, pairs, objective = self.config.train, self.val_batches, self.objective
        assert isinstance(pairs, PairBatches)
        assert isinstance(objective, Preference)
        size = train.batch_size // 2
        count = min(train.eval_batches * size or len(pairs), len(pairs))
        chosen = shuffled(len(pairs), train.seed, 0, count)
        parts = []
        for n in range(0, count, size):
            batch = tensors(pairs.of(chosen[n : n + size]), self.compute.device)
            with evaluating(self.model), self.compute.autocast():
                parts.append(objective.risen(*batch).float().cpu())
        good, bad = torch.cat(parts)[0::2], torch.cat(parts)[1::2]
        loss = float(preference_loss(good, bad, self.config.policy.beta).mean())
        right = float((good > bad).float().mean())
        return Answered(self.state.step, loss, Score(loss, count, 1.0).bits_per_byte, right, count)


@dataclass(frozen=True)
class Attempt:
    """A question, an answer that the model has drawn, and what it was worth."""

    question: list[int]
    answer: RollOut
    reward: float
    advantage: float  # how much better than the other answers to this question

    @property
    def length(self) -> int:
        """Tokens of both."""
        return len(self.question) + self.answer.length


@dataclass(frozen=True, kw_only=True)
class Attempts(Batch):
    """Attempts as rows: the targets are the answers. Each (B, T), but for the advantage, (B)."""

    advantage: NDArray[np.float32]
    old: NDArray[np.float32]  # log-probabilities with which the targets were drawn
    reference: NDArray[np.float32] | None = None  # and those that the reference model gives them


def as_batch(attempts: Sequence[Attempt]) -> Attempts:
    """Attempts as a batch, the shorter ones padded on the right, where no token looks."""
    ids, targets, _ = padded_batch([a.question + a.answer.ids for a in attempts])
    ids, targets = ids[:, :-1], targets[:, :-1]
    old = np.zeros(ids.shape, np.float32)
    for row, attempt in enumerate(attempts):
        start = len(attempt.question) - 1  # this token predicts the first one of the answer
        targets[row, :start] = IGNORED
        old[row, start : start + attempt.answer.length] = attempt.answer.log_probabilities
    return Attempts(
        ids, targets, advantage=np.array([a.advantage for a in attempts], np.float32), old=old
    )


def alike(attempts: Iterable[Attempt], size: int) -> list[list[Attempt]]:
    """Attempts of about one length together, at most `size` of them, so that little is padded.

    A long question would else make all rows of its batch as long.
    """
    parts: list[list[Attempt]] = []
    for attempt in sorted(attempts, key=lambda each: each.length):
        if parts and len(parts[-1]) < size and attempt.length <= SPREAD * parts[-1][0].length:
            parts[-1].append(attempt)
        else:
            parts.append([attempt])
    return parts


def derived_seed(*parts: int) -> int:
    """A seed that is a pure function of these numbers."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0])


class PolicyTrainer(ReferenceTrainer):
    """Training on the model's own answers to the questions of conversations.

    train.batch_size x train.grad_accum_steps answers make a step, policy.group_size of them to
    each question.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        assert isinstance(self.objective, Policy)
        self.objective.tokens = self.tokenizer.vocab_size
        room = self.config.model.context_length - self.config.policy.max_new_tokens
        self.questions = Prompts(self.tokens.train, self.tokenizer, room)
        self.examination = Prompts(self.tokens.val, self.tokenizer, room)
        self.left_out = self.questions.left_out
        self.loader = Loader(self.load_batches, end=0)  # nothing ahead: first the model has to move
        self.drawn, self.rolled = 0, Rollout(0, 0.0, 0.0, 0.0, 0.0)  # tokens, and what was drawn

    def advance(self) -> list[Record]:
        """As TrainingLoop.advance does, with what the answers of the step were like."""
        records = super().advance()
        after = 1 + next(n for n, record in enumerate(records) if isinstance(record, Step))
        return [*records[:after], self.rolled, *records[after:]]

    def train_step(self) -> Step:
        """As TrainingLoop.train_step does; its speed counts all tokens that were drawn.

        Those that teach something may be few, or none, and the step is no slower for that.
        """
        before = self.state.seconds
        step = super().train_step()
        return replace(step, tokens_per_second=self.drawn / (self.state.seconds - before))

    def load_batches(self, step: int) -> list[Batch]:
        """Let the model of now answer the questions of a step: the answers that teach something.

        An answer as good as its group has an advantage of 0, and so is its gradient. Such answers
        are left out, unless the distance from the reference counts, too.
        """
        attempts = self.attempts(step)
        self.drawn = sum(attempt.answer.length for attempt in attempts)
        self.rolled = self.describe(step + 1, attempts)
        pull = self.config.policy.beta > 0
        useful = [attempt for attempt in attempts if attempt.advantage or pull]
        parts = map(as_batch, alike(useful, self.config.train.batch_size))
        return [replace(p, reference=self.by_reference(p)) if pull else p for p in parts]

    def attempts(self, step: int) -> list[Attempt]:
        """The questions of a step, answered and rewarded. Raises UserError for no number."""
        settings, seed = self.config.policy, self.config.train.seed
        count = self.config.answers_per_step // settings.group_size
        chosen = shuffled(len(self.questions), seed, step * count, count).tolist()
        answers = self.answer(self.questions, chosen, settings.group_size, [seed, step, 1])
        numbers = np.repeat(chosen, settings.group_size).tolist()
        rewards = self.rewards(settings.reward, self.questions, numbers, answers)
        better = advantages(torch.tensor(rewards), settings.group_size, settings.normalize)
        asked = map(self.questions.question, numbers)
        return [
            Attempt(*attempt)
            for attempt in zip(asked, answers, rewards, better.tolist(), strict=True)
        ]

    def answer(
        self, questions: Prompts, numbers: Sequence[int], copies: int, seed: Sequence[int] = ()
    ) -> list[RollOut]:
        """Answers of the model of now, `copies` to each question; the likeliest without a seed."""
        settings, model = self.config.policy, self.config.model
        asked, answers = [questions.question(number) for number in numbers], list[RollOut]()
        longest = max(map(len, asked)) + settings.max_new_tokens
        row = cache_bytes(replace(model, context_length=longest))
        some, endings = max(1, CACHE // row // copies), questions.endings
        known = self.tokenizer.vocab_size
        temperature = settings.temperature if seed else 0.0
        for n in range(0, len(asked), some):
            now, own = asked[n : n + some], derived_seed(*seed, n)
            with self.compute.autocast():  # as in the update: the probabilities should be the same
                answers += roll_out(
                    self.model, now, endings, settings.max_new_tokens, own, copies, temperature,
                    known,
                )  # fmt: skip
        return answers

    def rewards(
        self, name: str, questions: Prompts, numbers: Sequence[int], answers: Sequence[RollOut]
    ) -> list[float]:
        """What answers are worth, beside the expected ones. Raises UserError for no number."""
        return [
            worth(name, questions.text_of(answer.ids), questions.expected(number))
            for number, answer in zip(numbers, answers, strict=True)
        ]

    def describe(self, step: int, attempts: Sequence[Attempt]) -> Rollout:
        """What the answers of a step are like."""
        entropies = [e for attempt in attempts for e in attempt.answer.entropies]
        some = as_batch(attempts[:: -(-len(attempts) // WATCHED)])  # to different questions
        now, before = (self.log_distributions(m, some) for m in (self.model, self.reference))
        real = to_device(some.targets, self.compute.device) != IGNORED
        moved = (now.exp() * (now - before)).sum(-1)[real]  # the divergence itself, no estimate
        return Rollout(
            step,
            reward=float(np.mean([attempt.reward for attempt in attempts])),
            length=float(np.mean([attempt.answer.length for attempt in attempts])),
            entropy=float(np.mean(entropies)),
            distance=float(moved.mean()),
        )

    def log_distributions(self, model: GPT, batch: Batch) -> Tensor:
        """What a model expects at every place, at the temperature of the draws: (B, T, V)."""
        ids, _, documents = tensors(batch, self.compute.device)
        with evaluating(model), self.compute.autocast():
            logits = model(ids, documents=documents)[..., : self.tokenizer.vocab_size]
            logits = logits / self.config.policy.temperature
            return logits.float().log_softmax(-1)

    def by_reference(self, batch: Batch) -> NDArray[np.float32]:
        """The log-probabilities that the reference model gives the targets, (B, T)."""
        expected = self.log_distributions(self.reference, batch)
        found = log_probabilities(expected, to_device(batch.targets, self.compute.device))
        return found.cpu().numpy()

    def try_step(self) -> None:
        """As Trainer.try_step does: no update, also where a step has several."""
        self.one_gradient(self.load_batches(self.state.step))

    def gradients(self, batches: Sequence[Batch]) -> Tensor:
        """The gradients of the last update of a step, after all others; returns its loss."""
        for _ in range(self.config.policy.updates - 1):
            loss, norm = self.clip(self.one_gradient(batches))
            if not math.isfinite(loss + norm) and not self.scaler.is_enabled():
                raise UserError(divergence(self, loss, norm))
            self.scaler.step(self.optimizer)
            self.scaler.update()
        return self.one_gradient(batches)

    def one_gradient(self, batches: Sequence[Batch]) -> Tensor:
        """Add up the gradients of all attempts; returns their loss, each token counting the same.

        Also those of the attempts that were left out, as their gradient is 0.
        """
        self.optimizer.zero_grad(set_to_none=True)
        device, total = self.compute.device, torch.zeros((), device=self.compute.device)
        for batch in batches:
            assert isinstance(batch, Attempts)
            weights = [batch.advantage, batch.old, batch.reference]
            more = [None if array is None else to_device(array, device) for array in weights]
            with self.compute.autocast():
                loss = self.objective(*tensors(batch, device), *more) / self.drawn
            self.scaler.scale(loss).backward()
            total = total + loss.detach()
        if not batches and self.scaler.is_enabled():  # which asks for gradients to look through
            for parameter in self.model.parameters():
                parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
        return total

    def validate(self) -> Answered:
        """The loss on the answers of the validation text, and how many of its questions are right.

        They are answered with the likeliest tokens: train.eval_batches x train.batch_size of them,
        always the same ones, or all if that is 0.
        """
        found, train = super().validate(), self.config.train
        count = train.eval_batches * train.batch_size or len(self.examination)
        count = min(count, len(self.examination))
        chosen = shuffled(len(self.examination), train.seed, 0, count).tolist()
        answers = self.answer(self.examination, chosen, copies=1)
        right = sum(self.rewards("exact", self.examination, chosen, answers)) / count
        return Answered(found.step, found.val_loss, found.bits_per_byte, right, count)

    def sample(self) -> Sample:
        """A question of the validation text, and what the model of now answers."""
        (answer,) = self.answer(self.examination, [0], copies=1)
        asked = self.tokenizer.decode(self.examination.question(0)[1:])  # without <|endoftext|>
        said = self.examination.text_of(answer.ids)
        return Sample(self.state.step, f"{asked}{said}")


TRAINERS: dict[str, type[Trainer]] = {"policy": PolicyTrainer, "preference": PreferenceTrainer}
