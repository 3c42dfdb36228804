"""nanogpt train: train a model from a recipe, or resume a run."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from nanogpt.cli.display import watch
from nanogpt.cli.prepare import learn_tokenizer, show_split, write_tokens
from nanogpt.cli.report import side_by_side, write_loss_plot, write_samples
from nanogpt.cli.settings import Parser, load_settings, settings_in
from nanogpt.config import Config, DataConfig, ModelConfig, SampleConfig, TrainConfig
from nanogpt.corpus import load_split
from nanogpt.errors import UserError
from nanogpt.train import Trainer, data_folder


def main(arguments: Sequence[str]) -> int:
    """Train from a recipe, or go on with a run."""
    parser = Parser("train", "Train a model from a recipe, or resume a run.")
    parser.add_argument("recipe", nargs="?", help="a TOML file, or the name of one in configs/")
    parser.add_argument("--run", type=Path, help="the folder to write (default: runs/RECIPE)")
    parser.add_argument("--resume", type=Path, metavar="RUN", help="go on with a stopped run")
    parser.add_settings(ModelConfig, DataConfig, TrainConfig, SampleConfig)
    options = parser.parse(arguments)
    console = Console()
    if options.resume:
        if options.recipe or options.run or settings_in(options):
            raise UserError("--resume goes on with the settings the run has; give it alone")
        return finish(Trainer.resume(options.resume), console)
    config = load_settings(options.recipe, options)
    run = options.run or free_folder(Path("runs") / Path(options.recipe or "gpt2").stem)
    if is_taken(run):
        raise UserError(f"{run} is not empty; choose another --run, or --resume {run}")
    return finish(start(run, config, console), console)


def free_folder(path: Path) -> Path:
    """The path itself, or path-2, path-3, ... so that no run ever overwrites another."""
    candidate, n = path, 1
    while is_taken(candidate):
        n += 1
        candidate = path.with_name(f"{path.name}-{n}")
    return candidate


def is_taken(path: Path) -> bool:
    """Whether a folder holds anything but token files, which any run may write again."""
    return path.exists() and (path.is_file() or any(p.name != "data" for p in path.iterdir()))


def start(run: Path, config: Config, console: Console) -> Trainer:
    """Prepare the data, unless data.folder names data that are, and set up the run."""
    if not config.data.folder:
        split = load_split(config.data.source, config.data.val_fraction)
        show_split(split, console)
        tokenizer = learn_tokenizer(config.data, split, console)
        write_tokens(data_folder(run, config), split, tokenizer, console)
    return Trainer.start(run, config)


def describe(trainer: Trainer, console: Console) -> None:
    """Say what is about to be trained, and on what."""
    model, train = trainer.config.model, trainer.config.train
    tokens = train.batch_size * train.grad_accum_steps * model.context_length
    console.print(
        f"[bold]model[/]  {trainer.model.num_parameters():,} parameters: {model.n_layer} layers, "
        f"{model.n_head} heads, {model.n_embd} channels, context {model.context_length}\n"
        f"[bold]steps[/]  {train.max_steps:,} of {tokens:,} tokens, "
        f"{train.max_steps * tokens / trainer.train_tokens.about.count:.1f} passes over the text, "
        f"on {trainer.compute.device} in {trainer.compute.precision}",
        highlight=False,
    )


def finish(trainer: Trainer, console: Console) -> int:
    """Train to the end, or until stopped, and write the report. Returns the exit code."""
    describe(trainer, console)
    complete = watch(trainer, console)
    return conclude(trainer, complete, console)


def conclude(trainer: Trainer, complete: bool, console: Console) -> int:
    """Write loss.png and samples.md and say how to go on. Returns the exit code."""
    run = trainer.folder
    write_loss_plot(run)
    samples = {}
    if complete:
        trainer.model.eval()
        with console.status("writing samples ..."):
            samples = side_by_side(trainer.model, trainer.tokenizer, trainer.config.sample)
    write_samples(run, trainer.config, samples)
    if not complete:
        console.print(
            f"stopped at step {trainer.state.step:,}; everything is in {run}\n"
            f"go on with: nanogpt train --resume {run}",
            highlight=False,
        )
        return 130
    console.print(
        f"done: {run / 'loss.png'}, {run / 'samples.md'}\n"
        f'try: nanogpt generate {run} --prompt "ROMEO:"\n'
        f"     nanogpt evaluate {run}",
        highlight=False,
    )
    return 0
