"""A process that works for hours does not grow: nothing of its work stays in memory."""

import gc
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nanogpt.config import SampleConfig
from nanogpt.generation.stream import generate_text
from nanogpt.training.start import Trainer

from conftest import small_run

MEGABYTES = 20


def resident() -> float:
    """Megabytes of memory that this process has now, after what is no longer needed has gone."""
    gc.collect()
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024


@pytest.fixture
def trainer(prepared: Path, tmp_path: Path) -> Trainer:
    """A run that has not begun."""
    config = small_run(prepared, max_steps=1000, eval_interval=1000, checkpoint_interval=1000)
    return Trainer.start(tmp_path / "run", config)


def generate(trainer: Trainer) -> None:
    """A hundred tokens, past the context of 16."""
    settings = SampleConfig(prompt="DUKE", max_new_tokens=100)
    assert "".join(generate_text(trainer.model, trainer.tokenizer, settings))


def evaluate(trainer: Trainer) -> None:
    """One estimate, and one look at the whole validation text."""
    assert trainer.validate().val_loss > 0
    assert trainer.evaluate(stride=16).loss > 0


def save(trainer: Trainer) -> None:
    """A step, and its checkpoint."""
    trainer.train_step()
    trainer.save()
    assert trainer.saved_step == trainer.state.step


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("share", [0.2, pytest.param(1.0, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("work", "times"),
    [(generate, 100), (evaluate, 200), (save, 200)],
    ids=["tokens", "evaluations", "checkpoints"],
)
def test_long_work_leaves_no_memory_behind(
    work: Callable[[Trainer], None], times: int, share: float, trainer: Trainer
):
    for _ in range(5):  # what is imported and allocated once
        work(trainer)
    before = resident()
    for _ in range(round(share * times)):
        work(trainer)
    assert resident() - before < share * MEGABYTES  # observed: 0.4 after all 200 checkpoints
