"""One run of a study, in a process of its own: `python -m nanogpt.lab.one FOLDER`.

The folder holds settings.json. The run resumes if it was begun, and does nothing if it is finished.
"""

import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import mean

import torch

from nanogpt.config import config_from_dict, with_settings
from nanogpt.device import peak_memory
from nanogpt.evaluation.loss import Score, evaluate
from nanogpt.files import checked, read_json, write_json
from nanogpt.generation.stream import generate_text
from nanogpt.lab.plugin import load_plugin
from nanogpt.lab.study import Order, Result, with_steps
from nanogpt.text.tokenfiles import open_split
from nanogpt.training.checkpoint import has_checkpoint
from nanogpt.training.records import read_metrics
from nanogpt.training.start import Trainer
from nanogpt.training.timing import steps_within
from nanogpt.workers import end_with_parent


def main(folder: Path) -> int:
    """Train, measure, and write result.json. Returns 0 if the run is finished, else 130."""
    if (folder / "result.json").exists():
        return 0
    order = checked(Order, read_json(folder / "settings.json"))
    for plugin in order.plugins:
        load_plugin(plugin)
    torch.set_num_threads(order.threads)
    run = folder / "run"
    if has_checkpoint(run):
        trainer = Trainer.resume(run)
    else:
        config = config_from_dict(order.config)
        if config.train.precision == "auto":
            config = with_settings(config, train={"precision": order.precision})
        if order.seconds:
            config = with_steps(config, steps_within(order.seconds, config))
        trainer = Trainer.start(run, config)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: trainer.stop())
    for _ in trainer.run():
        pass
    if not trainer.complete:
        return 130
    write_json(folder / "result.json", asdict(result(trainer, order)))
    return 0


def result(trainer: Trainer, order: Order) -> Result:
    """What a report needs to know of a finished run."""
    score = trainer.evaluate()
    sample = "".join(generate_text(trainer.model, trainer.tokenizer, trainer.config.sample))
    records = read_metrics(trainer.folder)
    curve = [[r["step"], r[order.measure]] for r in records if order.measure in r]
    tokens = trainer.state.step * trainer.config.tokens_per_step
    return Result(
        val_loss=score.loss,
        bits_per_byte=score.bits_per_byte,
        parameters=trainer.model.num_parameters(),
        steps=trainer.state.step,
        seconds=trainer.state.seconds,
        tokens_per_second=tokens / max(trainer.state.seconds, 1e-9),
        memory_mb=peak_memory() / 1e6,
        curve=curve,
        sample=trainer.config.sample.prompt + sample,
        measured=measured(trainer, order, score, curve),
    )


def measured(
    trainer: Trainer, order: Order, score: Score, curve: Sequence[Sequence[float]]
) -> float:
    """What the arms of the study are compared by."""
    if order.text:
        other = open_split(order.text, "val", trainer.tokenizer)
        size = trainer.config.train.batch_size
        return evaluate(trainer.model, other, trainer.compute, size).bits_per_byte
    return score.bits_per_byte if order.measure == "bits_per_byte" else late(curve)


def late(curve: Sequence[Sequence[float]]) -> float:
    """The mean of the last tenth of a curve, of its last point at least.

    >>> late([[1, 5.0], [2, 4.0]]), late([[step, float(step)] for step in range(20)])
    (4.0, 18.5)
    """
    return mean(value for _, value in curve[-max(1, len(curve) // 10) :])


if __name__ == "__main__":
    end_with_parent()
    sys.exit(main(Path(sys.argv[1])))
