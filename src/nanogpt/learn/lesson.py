"""What lessons are made of: the list of them, the package's own source, a small trained model."""

import inspect
import tempfile
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from nanogpt.config import Config, DataConfig, ModelConfig, SampleConfig, TrainConfig, with_settings
from nanogpt.errors import UserError
from nanogpt.model.gpt import GPT
from nanogpt.text.prepare import prepare
from nanogpt.text.tokenizer import BaseTokenizer, Tokenizer
from nanogpt.training.load import load
from nanogpt.training.records import Step, Validation
from nanogpt.training.start import Trainer
from nanogpt.workers import usable_cores

# Settings, apart from the size, in which a model may differ from GPT-2.
GPT2_KINDS = ("position", "block", "norm", "mlp", "bias", "qk_norm", "n_kv_head", "window")

# What someone reads to understand GPT-2. No file in this order uses a later one.
READING_PATH = (
    "text.bpe", "text.tokenizer", "text.batches", "model.layers", "model.position", "model.cache",
    "model.attention", "model.gpt", "generation.sampling", "generation.reader", "evaluation.loss",
    "training.optim", "training.objective", "training.loop",
)  # fmt: skip

STAGES = {
    1: "Overall grasp",
    2: "In-depth module study",
    3: "Hands-on experiments",
    4: "Comparative learning",
}


@dataclass(frozen=True)
class Lesson:
    """A notebook, and the exercises that belong to it."""

    number: int
    stage: int
    name: str
    title: str

    @property
    def path(self) -> Path:
        """The notebook: inside an installed package, or next to the source in a checkout."""
        package = Path(str(files("nanogpt")))
        installed = package / "lessons"
        folder = installed if installed.is_dir() else package.parent.parent / "lessons"
        return folder / f"{self.number:02}_{self.name}.py"


LESSONS = {
    lesson.number: lesson
    for lesson in (
        Lesson(1, 1, "trip", "The whole trip of a text to its next token, with every shape"),
        Lesson(2, 1, "tour", "A tour of the code, in reading order"),
        Lesson(3, 2, "tokens", "Why subwords, and how a vocabulary is built"),
        Lesson(4, 2, "embeddings", "What a token is, and where it stands"),
        Lesson(5, 2, "attention", "One head by hand, then many"),
        Lesson(6, 2, "block", "The feed-forward layer, norms, residuals, and life without each"),
        Lesson(7, 2, "sampling", "The head: softmax, temperature, top-k"),
        Lesson(8, 2, "training", "Batches, loss, AdamW, learning rate, reading a loss curve"),
        Lesson(9, 3, "one_thing", "Change one thing, and know whether to believe it"),
        Lesson(10, 3, "own_idea", "A position encoding and an attention of your own"),
        Lesson(11, 3, "own_data", "Your own data, from collecting it to generated text"),
        Lesson(12, 4, "transformers", "The same model in Hugging Face Transformers"),
    )
}


def find_lesson(number: int) -> Lesson:
    """A lesson by its number. Raises UserError with the numbers there are."""
    if number not in LESSONS:
        there = ", ".join(map(str, LESSONS))
        raise UserError(f"there is no lesson {number}; use one of {there}")
    return LESSONS[number]


def source(*things: Callable[..., Any]) -> str:
    """The source of functions and classes as it is in the package, as Markdown."""
    parts = []
    for thing in things:
        file = inspect.getsourcefile(thing)
        lines, first = inspect.getsourcelines(thing)
        where = f"{Path(file).name}, line {first}" if file else ""
        code = textwrap.dedent("".join(lines)).rstrip()
        parts.append(f"*{where}*\n\n```python\n{code}\n```")
    return "\n\n".join(parts)


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
    **changes: Mapping[str, Any],
) -> list[Step | Validation]:
    """Train the lessons' small model with some settings changed, and give its records.

    `short_run(model={"block": "no-residual"})` takes about three seconds on two cores. The run is
    deleted unless `run` names a folder for it. `tokens` is the folder of the token files; they are
    prepared the first time. Raises UserError as training does.
    """
    tokens = Path(tokens)
    config = with_settings(small_config(steps), **changes)
    config = with_settings(config, data={"folder": str(tokens)})
    if not (tokens / "tokenizer.json").exists():
        prepare(config.data, tokens, usable_cores())
    with tempfile.TemporaryDirectory() as temporary:
        records = Trainer.start(run or Path(temporary), config).run()
        return [record for record in records if isinstance(record, Step | Validation)]


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
