"""nanogpt demo: from raw text to generated text in under three minutes, nothing downloaded."""

import math
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from nanogpt.cli.display import watch
from nanogpt.cli.prepare import prepare_with_progress, show_documents, show_files
from nanogpt.cli.screen import Screen
from nanogpt.cli.settings import Parser, load_settings, named_path, settings_in
from nanogpt.cli.text import printable, visible
from nanogpt.cli.train import conclude, describe, free_folder, undone_on_mistake
from nanogpt.config import (
    Config,
    DataConfig,
    ModelConfig,
    SampleConfig,
    TrainConfig,
    with_settings,
)
from nanogpt.errors import UserError
from nanogpt.evaluation.references import BIGRAM, reference_points
from nanogpt.files import claimed
from nanogpt.text.corpus import Split
from nanogpt.text.dataset import data_folder
from nanogpt.text.prepare import Prepared
from nanogpt.text.sources import load_split
from nanogpt.text.tokenizer import BaseTokenizer, Tokenizer

if TYPE_CHECKING:
    from nanogpt.training.start import Trainer

PROMPT = "ROMEO:\n"  # of the plays; another text starts where it likes

# What the parts after training take on two slow cores.
SECONDS_AFTER_TRAINING = 30


WHAT_NEXT = """\
everything is in {run}: loss.png, samples.md, config.toml, checkpoints

what to try next
  nanogpt explore {run}                                     look inside it, in the browser
  nanogpt generate {run} --prompt "JULIET:" --sample.temperature 1.2
  nanogpt train demo --run runs/longer                      all steps of the recipe
  nanogpt train demo --run runs/my --data.source my.txt     your own text"""

SENTENCE = "To be, or not to be: that is the question"


def main(arguments: Sequence[str]) -> int:
    """Run the whole pipeline and show every part of it. Returns the exit code."""
    began = time.perf_counter()
    parser = Parser("demo", "From raw text to generated text, without any download.")
    parser.add_argument("--run", type=named_path, default=Path("runs/demo"), help="folder to write")
    parser.add_argument(
        "--seconds", type=float, default=140, help="time for the whole demo (default: 140)"
    )
    parser.add_settings(ModelConfig, DataConfig, TrainConfig, SampleConfig)
    options = parser.parse(arguments)
    if not 0 <= options.seconds < math.inf:
        raise UserError(f"--seconds {options.seconds}: use a finite number, at least 0")
    if settings_in(options).get("data", {}).get("folder"):
        raise UserError("the demo prepares its own data; use: nanogpt train demo --data.folder ...")
    config = load_settings("demo", options, trains=True)
    if config.data.source == DataConfig.source and not config.sample.prompt:
        config = with_settings(config, sample={"prompt": PROMPT})
    run = free_folder(options.run)
    with claimed(run):
        return show_all(run, config, options.seconds, began)


def show_all(run: Path, config: Config, seconds: float, began: float) -> int:
    """The demo in its folder. Returns the exit code."""
    from nanogpt.training.report import write_loss_plot
    from nanogpt.training.start import Trainer

    console = Screen()
    with undone_on_mistake(run):
        prepared = prepare_with_progress(config.data, data_folder(run, config), console)
        split = load_split(config.data)
        show_preparation(prepared, split, console)
        console.rule("4. Training", align="left")
        time_left = seconds - (time.perf_counter() - began) - SECONDS_AFTER_TRAINING
        with console.status("timing a few steps ..."):
            config = fit_into(time_left, run, config)
        trainer = Trainer.start(run, config)
    describe(trainer, console)
    if not watch(trainer, console):
        return conclude(trainer, complete=False, console=console)

    console.rule("5. Generation", align="left")
    show_generation(trainer, console)
    write_loss_plot(run)

    console.rule("6. How good is it?", align="left")
    with console.status("measuring the held-out text ..."):
        rows = yardsticks(trainer)
    show_yardsticks(rows, console)
    if rows["this model"] > rows[BIGRAM]:
        console.print("[dim]worse than knowing the token before: it needs more --seconds[/]")

    console.rule(f"Done in {time.perf_counter() - began:.0f} seconds", align="left")
    text = WHAT_NEXT.format(run=shlex.quote(str(run)))
    console.print(text, highlight=False, markup=False, soft_wrap=True)
    return 0


def show_preparation(prepared: Prepared, split: Split, console: Console) -> None:
    """Parts 1 to 3: the corpus, the tokenizer, the token files."""
    console.rule("1. Corpus", align="left")
    show_documents(prepared, console)
    console.rule("2. Tokenizer", align="left")
    console.print(f"[bold]learned[/]  {prepared.tokenizer.vocab_size:,} tokens", highlight=False)
    show_tokenizer(prepared.tokenizer, familiar_sentence(split), console)
    console.rule("3. Token files", align="left")
    show_files(prepared, console)


def show_generation(trainer: "Trainer", console: Console) -> None:
    """Part 5: one prompt continued in three ways, side by side; also written to samples.md."""
    from nanogpt.training.report import side_by_side, write_samples

    with console.status("writing samples ..."):
        texts = side_by_side(trainer.model, trainer.tokenizer, trainer.config.sample)
    table = Table(*texts, expand=True, padding=(0, 1))
    table.add_row(*(Text(printable(text).strip()) for text in texts.values()))
    for column in table.columns:
        column.ratio = 1
    console.print(table)
    write_samples(trainer.folder, trainer.config, texts)


def familiar_sentence(split: Split) -> str:
    """A sentence that the training text holds: a famous one, or else its beginning."""
    if any(SENTENCE in document.text for document in split.train):
        return SENTENCE
    return split.train[0].text[:60]


def show_tokenizer(tokenizer: BaseTokenizer, sentence: str, console: Console) -> None:
    """Show what was learned first, what last, and how a sentence is cut."""
    if isinstance(tokenizer, Tokenizer):
        for title, merges in (("first", tokenizer.merges[:6]), ("last", tokenizer.merges[-6:])):
            shown = "   ".join(
                f"{visible(tokenizer.vocabulary[a])} + {visible(tokenizer.vocabulary[b])}"
                for a, b in merges
            )
            console.print(f"[bold]{title} merges[/]  {escape(shown)}", highlight=False)
    ids = tokenizer.encode(sentence)
    pieces = Text("a sentence  ", style="bold")
    for n, i in enumerate(ids):
        pieces.append(
            visible(tokenizer.decode_bytes([i])),
            style="black on cyan" if n % 2 else "black on green",
        )
    console.print(pieces)
    n_bytes = len(sentence.encode("utf-8", "surrogatepass"))
    console.print(f"{n_bytes} bytes became {len(ids)} tokens: {ids}", highlight=False)


def fit_into(seconds: float, run: Path, config: Config) -> Config:
    """Lower max_steps to what this machine does in the time, measured on a trainer of its own.

    The number of steps becomes part of the run's settings, so that it can be resumed and repeated
    exactly; a clock could not be.
    """
    from nanogpt.training.timing import steps_within

    trial = with_settings(config, data={"folder": str(data_folder(run, config))})
    steps = min(config.train.max_steps, steps_within(seconds, trial))
    warmup = min(config.train.warmup_steps, steps // 4)
    return with_settings(config, train={"max_steps": steps, "warmup_steps": warmup})


def yardsticks(trainer: "Trainer") -> dict[str, float]:
    """Bits per byte of the held-out text under several ways to guess it, the model's last."""
    tokens = trainer.tokens
    score = trainer.evaluate()
    points = reference_points(tokens.train, tokens.val, trainer.tokenizer)
    return points | {"this model": score.bits_per_byte}


def show_yardsticks(rows: dict[str, float], console: Console) -> None:
    """A table of bits per byte with bars."""
    table = Table("bits per byte of the held-out text", "", "", box=None, header_style="dim")
    widest = max(rows.values())
    for name, bits in rows.items():
        style = "bold green" if name == "this model" else ""
        table.add_row(name, f"{bits:.3f}", "█" * round(30 * bits / widest), style=style)
    console.print(table)
