"""The reward: a learner's own functions in the real model, which trains and generates with them."""

import functools
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nanogpt.config import Config, with_settings
from nanogpt.evaluation.loss import mean_loss, token_losses
from nanogpt.files import writing
from nanogpt.generation.stream import generate_text
from nanogpt.learn.exercise import Exercise
from nanogpt.text import bpe
from nanogpt.text.prepare import prepare
from nanogpt.training.records import Record, Validation
from nanogpt.training.start import Trainer

# What the package has twice, in a plain and in a fast form: the plain one is the exercise.
FAST_TWINS: dict[Any, Any] = {bpe.train_naive: bpe.train}


@contextmanager
def substituted(candidates: Mapping[Exercise, Any]) -> Iterator[None]:
    """Put the learner's functions wherever the package uses its own; afterwards undo that.

    Where two exercises are about the same part, the later one counts: it does more.
    """
    parts: dict[Any, Any] = {}
    for exercise, candidate in candidates.items():
        part = exercise.replaces or exercise.reference
        used = exercise.adapt(candidate) if exercise.adapt else candidate
        parts[part] = as_called(part, used)
    with ExitStack() as undo:
        for part, used in parts.items():
            for reference in (part, FAST_TWINS.get(part)):
                if reference is not None:
                    put(reference, used, undo)
        yield


def as_called(reference: Any, candidate: Any) -> Any:
    """A candidate that gives an iterator if the package's does; the judge accepts a list, too."""
    if not inspect.isgeneratorfunction(reference):
        return candidate

    @functools.wraps(candidate)
    def iterated(*args: Any, **kwargs: Any) -> Iterator[Any]:
        return iter(candidate(*args, **kwargs))

    return iterated


def put(reference: Any, candidate: Any, undo: ExitStack) -> None:
    """Replace one function everywhere: in modules, in dictionaries of variants, in kernels."""
    modules = [m for name, m in sys.modules.items() if name.partition(".")[0] == "nanogpt"]
    for module in modules:
        if module.__name__.startswith("nanogpt.learn"):
            continue  # the judge still compares with the package's own
        for name, value in list(vars(module).items()):
            if value is reference:
                undo.callback(setattr, module, name, value)
                setattr(module, name, candidate)
            elif isinstance(value, dict) and name.isupper():
                for key, entry in list(value.items()):
                    changed = exchanged(entry, reference, candidate)
                    if changed is not entry:
                        undo.callback(value.__setitem__, key, entry)
                        value[key] = changed


def exchanged(entry: Any, reference: Any, candidate: Any) -> Any:
    """An entry of a dictionary, itself the function or with the function inside."""
    if entry is reference:
        return candidate
    if hasattr(entry, "_replace"):  # a named tuple of kernels
        parts = {name: candidate for name in entry._fields if getattr(entry, name) is reference}
        return entry._replace(**parts) if parts else entry
    return entry


@dataclass(frozen=True)
class Played:
    """One of the two runs."""

    losses: list[tuple[int, float]]  # validation loss by step
    held_out: float  # loss of the whole validation text at the end
    text: str  # what the model writes


def play(
    folder: str | Path,
    config: Config,
    candidates: Mapping[Exercise, Any],
    say: Callable[[Record], None] = lambda record: None,
    evaluated: Callable[[float], None] = lambda share: None,
) -> Played:
    """Prepare text, train and generate in a folder, with the candidates in place.

    The run uses the plain, hand-written kernels, because the exercises are part of them. `say` is
    told each record of the training, `evaluated` the share of the evaluation that is done.
    """
    folder = Path(folder)
    with substituted(candidates), one_thread():
        prepare(config.data, folder / "data", processes=1)
        trainer = Trainer.start(folder, config)
        losses = []
        for record in trainer.run():
            say(record)
            if isinstance(record, Validation):
                losses.append((record.step, record.val_loss))
        held_out = held_out_loss(trainer, evaluated)
        text = "".join(generate_text(trainer.model, trainer.tokenizer, trainer.config.sample))
    return Played(losses, held_out, config.sample.prompt + text)


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread inside: in a model this small, several wait for each other."""
    usual = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(usual)


def held_out_loss(trainer: Trainer, evaluated: Callable[[float], None]) -> float:
    """The loss of the whole validation text, as Trainer.evaluate gives it."""
    batches, ids, config = trainer.val_batches, trainer.tokens.val.ids, trainer.config
    separator = batches.separator if batches.documents_apart else None
    stride = config.model.context_length  # each token in one window only: half the work
    done = 0

    def counted(parts: Iterator[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
        nonlocal done
        for part in parts:
            done += len(part)
            evaluated(done / (len(ids) - 1))
            yield part

    size = config.train.batch_size
    losses = token_losses(trainer.model, ids, trainer.compute, size, stride, separator)
    return mean_loss(counted(losses))[0]


def settings_for(config: Config, exercises: Sequence[Exercise], steps: int) -> Config:
    """A short run that uses what the exercises are about."""
    names = {exercise.name for exercise in exercises}
    # Heads in plain form know no mask but the causal one.
    windows = "full-mask" in names and ("heads" not in names or "grouped-heads" in names)
    return with_settings(
        config,
        model={
            "kernels": "plain",
            "n_embd": 96,
            "position": "rope" if "rope" in names else config.model.position,
            "window": config.model.context_length // 2 if windows else 0,
        },
        data={"max_documents": 8, "vocab_size": 288},  # few: the plain trainer recounts everything
        train={
            "optimizer": "adamw",
            "precision": "float32",  # the check used nothing else
            "compile": "off",
            "max_steps": steps,
            "warmup_steps": min(config.train.warmup_steps, steps // 4),
            "eval_interval": max(1, steps // 10),
            "eval_batches": 8,
            "sample_interval": 0,
            "checkpoint_interval": steps,
        },
        sample={"max_new_tokens": 120},
    )


def draw_both(path: str | Path, ours: Played, yours: Played, names: Sequence[str]) -> None:
    """Draw the two loss curves on top of each other."""
    path = Path(path)
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    axes.plot(*zip(*ours.losses, strict=True), lw=7, color="#c9d9ea", label="the package")
    axes.plot(*zip(*yours.losses, strict=True), "o-", ms=4, color="#d1602b", label="with yours")
    axes.set(xlabel="step", ylabel="validation loss, nats per token")
    axes.set_title("trained with your " + ", ".join(names), wrap=True, fontsize=10)
    axes.legend(frameon=False)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    with writing(path) as file:
        figure.savefig(file, format="png", dpi=110)
    plt.close(figure)
