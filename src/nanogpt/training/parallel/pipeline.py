"""Pipeline parallelism: every rank has some of the layers, and hands activations on to the next.

A batch goes through in parts: the first rank works on the second part while the next works on the
first. At both ends of a step some ranks wait, with n ranks and m parts for (n - 1) / (m + n - 1) of
the time. `gpipe` does all forward passes, then all backward passes (Huang et al. 2019). `1f1b`
takes turns, and so keeps the activations of at most n parts (Narayanan et al. 2019). `interleaved`
gives every rank two stages: half the waiting for twice the messages (Narayanan et al. 2021).
Torch has these schedules.

The head is tied to the token embedding: the first and the last rank have the same matrix, and
add up its gradients.

Axes: B batch, T time, C channels, V vocabulary.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from nanogpt.config import PIPELINES, Config
from nanogpt.device import Compute
from nanogpt.errors import UserError
from nanogpt.evaluation.loss import tensors
from nanogpt.model.gpt import GPT, UntiedHead
from nanogpt.text.batches import Batch
from nanogpt.training.parallel.limits import microbatches
from nanogpt.training.parallel.mesh import Ranks, share

SCHEDULES = {"1f1b": "1F1B", "gpipe": "GPipe", "interleaved": "Interleaved1F1B"}  # torch's names


class Blocks(nn.ModuleDict):
    """Some of a model's blocks, which keep their numbers in their names."""

    def __iter__(self) -> Iterator[Any]:
        return iter(self.values())


class Stage(nn.Module):
    """Some layers in a row: the first begins with the embeddings, the last ends with the head."""

    def __init__(self, model: GPT, number: int, stages: int, compute: Compute) -> None:
        super().__init__()
        self.number, self.is_first, self.is_last = number, number == 0, number == stages - 1
        self.compute, self.outline = compute, [model]  # in a list, so that it is no submodule
        own = share(model.config.n_layer, number, stages)
        self.h = Blocks(
            {n: b for n, b in model.h.named_children() if own.start <= int(n) < own.stop}
        )
        ends = ["wte", "wpe", "drop"] * self.is_first + ["ln_f", "lm_head"] * self.is_last
        ends += ["wte"] * (self.is_last and not isinstance(model.lm_head, UntiedHead))
        self.ends = nn.ModuleDict({name: getattr(model, name) for name in ends})

    def forward(self, x: Tensor, ids: Tensor, documents: Tensor | None = None) -> Tensor:
        """From the ids (B, T), or activations (B, T, C), to activations, or logits (B, T, V)."""
        model = self.outline[0]
        with self.compute.autocast():
            context = model.context(ids, documents, None)
            if self.is_first:
                x = model.drop(model.wpe.embed(model.wte(x), context.pos))
            for number, block in self.h.items():
                x = block(x, replace(context, layer=int(number)))
            if any(hasattr(module, "auxiliary_loss") for module in self.h.modules()):
                raise UserError(
                    "a layer adds to the loss, which a pipeline cannot hand on; use others"
                )
            return self.head(model.ln_f(x)) if self.is_last else x

    def head(self, x: Tensor) -> Tensor:
        """As GPT.head, also on a rank without the token embedding."""
        model = self.outline[0]
        return model.lm_head(x, model.wte.weight if model.wte else None)


class Pipeline:
    """The stages of this rank, and the schedule by which all ranks work."""

    def __init__(self, config: Config, ranks: Ranks) -> None:
        self.ranks, self.schedule = ranks, config.parallel.schedule
        size = ranks.size("pipeline")
        self.count = size * PIPELINES[self.schedule]
        self.numbers = range(ranks.place("pipeline"), self.count, size)  # the stages of this rank
        self.has_first, self.has_last = 0 in self.numbers, self.count - 1 in self.numbers
        self.microbatches = microbatches(config, ranks.world)
        self.targets = 1  # of a whole step

    def cut_model(self, model: GPT) -> list[str]:
        """Leave to this rank its own layers. Returns the parameters that it has borrowed."""
        shares = [share(model.config.n_layer, number, self.count) for number in self.numbers]
        layers = [n for own in shares for n in range(own.start, own.stop)]
        model.h = Blocks({str(n): model.h[n] for n in layers})  # type: ignore[assignment]
        absent: Any = None
        for name, _ in () if self.has_first else list(model.wpe.named_parameters(recurse=False)):
            model.wpe.register_parameter(name, absent)
        self.tied = not isinstance(model.lm_head, UntiedHead)
        if not self.has_last:
            model.ln_f = model.lm_head = absent
        if not (self.has_first or (self.has_last and self.tied)):
            model.wte = absent
        return ["wte.weight"] if self.tied and not self.has_first else []

    def stages(self, model: GPT, compute: Compute) -> list[Stage]:
        """The stages of this rank."""
        return [Stage(model, number, self.count, compute) for number in self.numbers]

    def build(self, model: GPT, stages: list[Stage]) -> None:
        """Connect the stages of all ranks."""
        from torch.distributed import pipelining  # takes a second, which other layouts save

        self.model, device = model, self.ranks.device
        # Groups of its own: waiting for one message ends after the time that they are made with.
        columns, limit = self.ranks.mesh.mesh.flatten(1), self.ranks.limit
        group, _ = dist.new_subgroups_by_enumeration(columns.T.tolist(), limit)
        self.ends, _ = dist.new_subgroups_by_enumeration(columns[[0, -1]].T.tolist(), limit)
        ready = [
            pipelining.PipelineStage(s, s.number, self.count, device, group=group) for s in stages
        ]
        given: Any = ready if len(ready) > 1 else ready[0]
        schedule: Any = pipelining.schedules.get_schedule_class(SCHEDULES[self.schedule])
        self.work = schedule(given, self.microbatches, loss_fn=self.loss, scale_grads=False)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """What a part adds to the loss of the step."""
        return self.model.loss(logits, targets, reduction="sum") / self.targets

    def run(self, batch: Batch, targets: int, train: bool) -> Tensor:
        """Send a batch through all stages, and its gradients back if it is for training.

        Returns the sum of its losses, over the number of `targets` of the step: on the last rank;
        0 elsewhere.
        """
        self.targets = targets
        ids, wanted, documents = tensors(batch, self.ranks.device)
        options: dict[str, Any] = {"ids": ids, "target": wanted, "losses": []}
        if documents is not None:
            options["documents"] = documents
        if train:
            options["return_outputs"] = False
        try:
            (self.work.step if train else self.work.eval)(*[ids] * self.has_first, **options)
        except RuntimeError as error:  # torch says which stage; its cause is what happened there
            raise (error.__cause__ or error) from None
        return sum(options["losses"], torch.zeros((), device=ids.device)).detach()

    def tie(self, gradient: Tensor | None) -> None:
        """Add up the gradients of the token embedding and of the head, which are one matrix."""
        if self.tied and gradient is not None and (self.has_first or self.has_last):
            dist.all_reduce(gradient, group=self.ends)
