"""The training loop of one rank of several, which together train as one process would.

What differs from `TrainingLoop` stands here: a rank has its own part of the weights and of every
batch, sums go over all ranks, and the first rank speaks and writes for all.
"""

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from nanogpt.config import Config, ModelConfig, TrainConfig, choose
from nanogpt.device import Compute, compile_or_why_not
from nanogpt.errors import UserError
from nanogpt.evaluation.loss import Score, stacked, tensors
from nanogpt.model.build import build
from nanogpt.model.gpt import GPT, evaluating
from nanogpt.model.size import flops_per_token
from nanogpt.text.batches import Batch, sliding_windows
from nanogpt.text.conversations import AnswerBatches
from nanogpt.training.execution import checkpoint_activations
from nanogpt.training.objective import OBJECTIVES
from nanogpt.training.optim import Muon
from nanogpt.training.parallel import data
from nanogpt.training.parallel.checkpoint import Saver
from nanogpt.training.parallel.context import cut_context
from nanogpt.training.parallel.layout import Layout
from nanogpt.training.parallel.limits import refuse_impossible, refuse_model
from nanogpt.training.parallel.mesh import ROWS, TOKENS, Ranks
from nanogpt.training.parallel.messages import receive_gradients, send_gradients
from nanogpt.training.parallel.pipeline import Pipeline
from nanogpt.training.parallel.shard import shard_model
from nanogpt.training.parallel.tensor import cut_model
from nanogpt.training.records import Sample, Step, Validation
from nanogpt.training.start import Trainer


def broadcast(value: Any) -> Any:
    """The first rank's value, on every rank."""
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]


def empty_model(config: ModelConfig) -> GPT:
    """A model of these settings without numbers."""
    with torch.device("meta"):
        return GPT(config)


class ParallelTrainer(Trainer):
    """The training loop of this rank. Raises UserError for a layout that cannot be."""

    def __init__(self, folder: Path, config: Config, model: GPT, *others: Any) -> None:
        compute: Compute = others[2]
        self.ranks = ranks = Ranks(config.parallel, compute.device)
        refuse_impossible(config, ranks.world)
        refuse_model(config, model, ranks.sizes)
        self.pipeline = Pipeline(config, ranks) if ranks.size("pipeline") > 1 else None
        self.outline, self.processes = empty_model(model.config), ranks.world
        super().__init__(folder, config, self.cut(model, compute), *others)
        self.metrics = self.metrics if ranks.first else Path(os.devnull)
        self.saver, self.asked_to_stop = Saver(ranks), False
        self.use_local_tensors()
        passes = config.train.grad_accum_steps
        passes *= self.pipeline.microbatches if self.pipeline else 1
        copied = [] if self.sharded else [p.tensor for p in self.layout.parts.values()]
        self.sums = data.GradientSums(copied, ranks.copies, passes)

    def cut(self, model: GPT, compute: Compute) -> GPT:
        """This rank's part of a model, its numbers still missing."""
        ranks, own = self.ranks, empty_model(model.config)
        for name, parameter in model.named_parameters():
            own.get_parameter(name).requires_grad_(parameter.requires_grad)
        data.share_dropout(own, ranks)
        borrowed = self.pipeline.cut_model(own) if self.pipeline else []
        cuts = cut_model(own, ranks) if ranks.size("tensor") > 1 else {}
        if ranks.size("context") > 1:
            cut_context(own, ranks)
        for layer in (*own.h, *(layer for name, layer in own.named_children() if name != "h")):
            layer.to_empty(device=compute.device)
        stages = self.pipeline.stages(own, compute) if self.pipeline else []
        roots: Any = stages or [own]
        self.sharded: list[FSDPModule] = []
        for root in roots if ranks.size("shard") > 1 else ():
            self.sharded += shard_model(root, root.h, ranks, compute)
        self.layout = Layout(ranks, own, self.outline, cuts, borrowed)
        if self.pipeline:
            self.pipeline.build(own, stages)
        return own

    def use_local_tensors(self) -> None:
        """Let the optimizer move this rank's numbers, whatever the model wraps them in.

        Muon needs whole matrices: each rank puts them together and keeps its part of the result.
        """
        local = {id(part.parameter): part.tensor for part in self.layout.parts.values()}
        for group in self.optimizer.param_groups:
            group["params"] = [local[id(parameter)] for parameter in group["params"]]
        if isinstance(self.optimizer, Muon):
            way = self.optimizer.way

            def way_of_part(parameter: Tensor, ahead: Tensor, group: dict[str, Any]) -> Tensor:
                part = self.layout.by_tensor[id(parameter)]
                return part.cut_from(way(parameter, self.layout.all_gather(part, ahead), group))

            self.optimizer.way = way_of_part  # type: ignore[method-assign]

    @staticmethod
    def build_objective(
        model: GPT, settings: TrainConfig, compute: Compute, tokens: int
    ) -> tuple[nn.Module, str]:
        """As in execution, but blocks are compiled one by one, with messages between them."""
        checkpoint_activations(model, settings.activation_checkpointing)
        flops = flops_per_token(model) * tokens
        not_compiled = broadcast(compile_or_why_not(settings.compile, compute, flops))
        for block in () if not_compiled else model.h:
            block.compile()
        return choose(OBJECTIVES, "train.objective", settings.objective)(model), not_compiled

    @classmethod
    def fresh_model(cls, config: Config, tokens: int) -> GPT:
        """The whole model on the first rank; on the others its shapes."""
        model = super().fresh_model(config, tokens) if dist.get_rank() == 0 else None
        settings = broadcast(model and model.config)
        return model or empty_model(settings)

    def begin(self, model: GPT) -> None:
        self.layout.scatter(model)

    @classmethod
    def saved_model(cls, checkpoint: Path, config: Config) -> GPT:
        """The shapes of a saved model: every rank reads its own part later."""
        return empty_model(config.model)

    def restore(self, checkpoint: Path) -> None:
        self.saver.restore(checkpoint, self.layout, self.optimizer)

    def whole_model(self) -> GPT:
        found = self.layout.gather({n: part.tensor for n, part in self.layout.parts.items()})
        return build(self.outline.config, found, self.folder) if found else self.outline

    def finish_writing(self) -> None:
        """Wait for the last checkpoint. That of a finished run becomes one file of all weights."""
        self.saver.finish()
        if self.complete:
            self.saver.merge(self.folder)

    def stop(self) -> None:
        """Ask all ranks to end after the step that they are in: see `clip`."""
        self.asked_to_stop = True

    def save(self, best: bool = False) -> None:
        if self.saved_step != self.state.step:
            self.saver.save(self.folder, self.layout, self.optimizer, self.state, self.config, best)
            self.saved_step = self.state.step

    def sample(self) -> Sample:
        """What the whole model writes, on the first rank."""
        own, self.model = self.model, self.whole_model()
        found = super().sample() if self.ranks.first else Sample(self.state.step, "")
        self.model = own
        return found

    def load_batches(self, step: int) -> list[Batch]:
        n, batches = self.config.train.grad_accum_steps, self.train_batches
        numbers = range(step * n, (step + 1) * n)
        return [data.own_batch(batches, n, self.config, self.ranks) for n in numbers]

    def train_step(self) -> Step:
        record = super().train_step()
        speed = record.tokens_per_second * self.ranks.size(*TOKENS)
        return replace(record, tokens_per_second=speed)

    def gradients(self, batches: Sequence[Batch]) -> Tensor:
        """This rank's part of the gradients of a step; returns its part of the loss."""
        self.model.zero_grad(set_to_none=True)
        count = torch.tensor(sum(batch.real_targets for batch in batches))
        dist.all_reduce(count, group=self.ranks.tokens)  # each target of the step weighs the same
        targets = max(1, int(count))  # there may be none
        losses: list[Tensor] = []
        for batch in batches:
            if self.pipeline:
                losses.append(self.pipeline.run(batch, targets, train=True))
                continue
            for module in self.sharded:  # sums are due once, at the end
                module.set_requires_gradient_sync(batch is batches[-1], recurse=False)
            with self.compute.autocast():
                loss = self.objective(*tensors(batch, self.compute.device)) / targets
            loss.backward()
            losses.append(loss.detach())
        self.sums.finish()
        parts = self.layout.parts
        for part in parts.values():
            if isinstance(gradient := part.parameter.grad, DTensor):
                part.tensor.grad = gradient.to_local()
        if self.ranks.size("tensor") > 1:  # each rank has seen its own tokens in norms and the like
            trained = [part for part in parts.values() if part.parameter.requires_grad]
            whole = [part.tensor for part in trained if "tensor" not in part.cut_by]
            if whole:  # without norms and biases there are none
                receive_gradients(whole, *send_gradients(whole, self.ranks.group("tensor")))
        if self.pipeline and "wte.weight" in parts:
            self.pipeline.tie(parts["wte.weight"].tensor.grad)
        return torch.stack(losses).sum()

    def clip(self, loss: Tensor) -> tuple[float, float]:
        """As TrainingLoop.clip, over all ranks; they also tell each other whether to stop.

        Raises UserError that names a rank which met what is no number.
        """
        parts = [(p, g) for p in self.layout.parts.values() if (g := p.tensor.grad) is not None]
        owned = [gradient.float().square().sum() for part, gradient in parts if part.owned]
        zero = torch.zeros_like(loss, dtype=torch.float32)
        numbers = [loss if self.has_loss else zero, sum(owned, zero), zero + self.asked_to_stop]
        rows = self.ranks.all_gather(torch.stack(numbers))
        for number, row in enumerate(rows):
            if not math.isfinite(sum(row)):
                raise UserError(
                    f"rank {number} met a loss or a gradient that is no number at step "
                    f"{self.state.step + 1}: use a train.lr below {self.config.train.lr}"
                )
        total, squares, stops = map(sum, zip(*rows, strict=True))
        self.stopped = stops > 0
        norm, limit = math.sqrt(squares), self.config.train.grad_clip or math.inf
        for _, gradient in parts if norm > limit else ():
            gradient.mul_(limit / (norm + 1e-6))
        return total, norm

    @property
    def has_loss(self) -> bool:
        """Whether this rank counts a loss that no other rank counts."""
        return self.ranks.place("tensor") == 0 and (not self.pipeline or self.pipeline.has_last)

    def validate(self) -> Validation:
        """The loss on the validation text, of which every rank has a part."""
        total, count = torch.zeros(2, dtype=torch.float64)
        with evaluating(self.model), self.compute.autocast():
            for batch in self.validation_batches():
                if self.pipeline:
                    loss = self.pipeline.run(batch, 1, train=False)
                else:
                    ids, targets, documents = tensors(batch, self.compute.device)
                    loss = self.model.loss(self.model(ids, documents=documents), targets, "sum")
                count += batch.real_targets * self.has_loss
                total += loss.item() * self.has_loss
        for module in self.sharded:
            module.reshard()  # gathered weights would be those of before the next step
        rows = self.ranks.all_gather(torch.stack([total, count]))
        losses, tokens = map(sum, zip(*rows, strict=True))
        if not tokens:
            raise UserError(
                "nothing to predict: use a longer text, or a context that answers fit into"
            )
        score = Score(losses / tokens, int(tokens), self.tokens.val.bytes_per_token)
        return Validation(self.state.step, score.loss, score.bits_per_byte)

    def validation_batches(self) -> Iterator[Batch]:
        """This rank's part of a sample of the validation text, or of all of it."""
        settings, batches = self.config.train, self.val_batches
        for number in range(settings.eval_batches):
            yield data.own_batch(batches, number, self.config, self.ranks)
        if not settings.eval_batches:
            length, size = self.config.model.context_length, settings.batch_size
            separator = batches.separator if batches.documents_apart else None
            windows = sliding_windows(batches.tokens.ids, length, length)
            for batch in stacked(windows, size, separator):
                if isinstance(batches, AnswerBatches):
                    batch = batches.masked(batch)
                rows = data.some_rows(batch, self.ranks.share(size, *ROWS))
                yield data.own_tokens(rows, self.config, self.ranks)
