"""Small models for lessons, trained in seconds and kept, so that each is trained once."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nanogpt.config import Config, DataConfig, ModelConfig, SampleConfig, TrainConfig, with_settings
from nanogpt.model.gpt import GPT
from nanogpt.text.prepare import prepare
from nanogpt.text.tokenizer import BaseTokenizer, Tokenizer
from nanogpt.training.load import load
from nanogpt.training.records import Step, Validation
from nanogpt.training.start import Trainer
from nanogpt.workers import usable_cores

# Settings, apart from the size, in which a model may differ from GPT-2.
GPT2_KINDS = ("position", "block", "norm", "mlp", "head", "bias", "qk_norm", "n_kv_head", "window")


def small_model(
    steps: int = 200, run: str | Path = Path("runs/lesson")
) -> tuple[GPT, BaseTokenizer]:
    """A trained model to look into: the learner's demo, or a small one that is trained once.

    That takes about twenty seconds on two cores.
    """
    run = Path(run)
    demo = Path("runs/demo")
    if (demo / "checkpoints" / "latest").exists():
        model, tokenizer, config = load(demo)
        if is_as_lessons_say(config, tokenizer):
            return model, tokenizer
    if not (run / "checkpoints" / "latest").exists():
        short_run(steps, run, run / "data")
    return load(run)[:2]


def is_as_lessons_say(config: Config, tokenizer: BaseTokenizer) -> bool:
    """Whether a run is a GPT-2 with merged tokens, and no smaller than the lessons' own model."""
    least, gpt2 = small_config(1), ModelConfig()
    return (
        isinstance(tokenizer, Tokenizer)
        and tokenizer.vocab_size >= least.data.vocab_size
        and config.model.context_length >= least.model.context_length
        and all(getattr(config.model, kind) == getattr(gpt2, kind) for kind in GPT2_KINDS)
    )


def short_run(
    steps: int = 60,
    run: str | Path | None = None,
    tokens: str | Path = Path("runs/lesson/data"),
    watch: Callable[[GPT, int], None] = lambda model, step: None,
    **changes: Mapping[str, Any],
) -> list[Step | Validation]:
    """Train the lessons' small model with some settings changed, and give its records.

    `short_run(model={"block": "no-residual"})` takes about three seconds on two cores. The run is
    deleted unless `run` names a folder for it. `tokens` is the folder of the token files; they are
    prepared the first time. `watch` is called with the model and the number of steps done, before
    the first step and after each. Raises UserError as training does.
    """
    tokens = Path(tokens)
    config = with_settings(small_config(steps), **changes)
    config = with_settings(config, data={"folder": str(tokens)})
    if not (tokens / "tokenizer.json").exists():
        prepare(config.data, tokens, usable_cores())
    with tempfile.TemporaryDirectory() as temporary:
        trainer = Trainer.start(run or Path(temporary), config)
        watch(trainer.model, 0)
        records: list[Step | Validation] = []
        for record in trainer.run():
            if isinstance(record, Step):
                watch(trainer.model, record.step)
            if isinstance(record, Step | Validation):
                records.append(record)
        return records


def small_config(steps: int) -> Config:
    """Two layers of 96 channels on the built-in plays."""
    return Config(
        model=ModelConfig(context_length=64, n_layer=2, n_head=4, n_embd=96),
        data=DataConfig(vocab_size=512, max_documents=20),
        train=TrainConfig(
            max_steps=steps, batch_size=16, lr=3e-3, warmup_steps=40, eval_interval=steps,
            eval_batches=4, sample_interval=0, checkpoint_interval=steps, compile="off",
        ),
        sample=SampleConfig(max_new_tokens=60),
    )  # fmt: skip
