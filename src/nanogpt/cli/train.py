"""nanogpt train: train a model from a recipe, or resume a run."""

import re
import shlex
import shutil
from argparse import SUPPRESS
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from nanogpt.cli import many
from nanogpt.cli.display import watch
from nanogpt.cli.prepare import fetch_with_progress, prepare_with_progress, show_prepared
from nanogpt.cli.screen import Screen
from nanogpt.cli.settings import Parser, load_settings, named, named_path, settings_in
from nanogpt.config import (
    DIMENSIONS,
    Config,
    DataConfig,
    ModelConfig,
    ParallelConfig,
    PolicyConfig,
    SampleConfig,
    TrainConfig,
    load_config,
)
from nanogpt.errors import Interrupted, UserError
from nanogpt.files import absolute, claimed, locked
from nanogpt.text.dataset import ORDERED, data_folder, settings_of_files
from nanogpt.workers import rank, world

if TYPE_CHECKING:
    from nanogpt.training.start import Trainer

# What a run has written before its first checkpoint, whole or half-written.
OF_A_START = re.compile(
    r"data|checkpoints|snapshots|tensorboard|reference\.safetensors|\.unfinished|(train|val)(-\d+-of-\d+)?\.(bin|json)"
    r"|prepared\.json|config\.toml|tokenizer\.json|metrics\.jsonl|\.(config\.toml|tokenizer\.json)\.\w+"
)


def main(arguments: Sequence[str]) -> int:
    """Train from a recipe, or continue a run."""
    parser = Parser("train", "Train a model from a recipe, or resume a run.")
    parser.add_recipe()
    parser.add_argument("--run", type=named_path, help="the folder to write (default: runs/RECIPE)")
    parser.add_argument("--resume", type=named_path, metavar="RUN", help="continue a stopped run")
    parser.add_argument(
        "--init", dest="train.init", type=named, default=SUPPRESS,
        metavar="RUN",
        help="begin with the weights of a run or of a Hugging Face folder",
    )  # fmt: skip
    parser.add_settings(
        ModelConfig, DataConfig, TrainConfig, SampleConfig, PolicyConfig, ParallelConfig
    )
    options = parser.parse(arguments)
    console = Screen(quiet=rank() > 0)  # of several processes the first speaks for all
    if options.resume:
        if options.recipe or options.run:
            raise UserError("--resume continues with the settings of the run; name no other")
        return resume_here_or_by_many(options.resume, settings_in(options), arguments, console)
    given = settings_in(options)
    if not options.recipe and not given:
        raise UserError("name a recipe, as in `nanogpt train demo`, or settings; see --help")
    config = load_settings(options.recipe, options, trains=True)
    if world() == 1:  # else one rank says it for all
        config.sizes(config.parallel.processes)
    refuse_ignored(given.get("data", {}), config)
    fetch_with_progress(config.data.folder, console)
    from nanogpt.training.start import Trainer  # with torch: what is wrong so far costs no second

    init = given.get("train", {}).get("init", "")
    name = Path(options.recipe).stem if options.recipe else f"{Path(init).name}-tuned"
    place = Path("runs") / (name if options.recipe or init else "gpt2")
    if world() > 1:
        return many.start(options.run, place, config, console)
    run = options.run or free_folder(place)
    if is_taken(run):
        raise UserError(f"{run} is not empty; choose another --run, or --resume {run}")
    if config.parallel.processes > 1:
        return many.launch([*arguments, "--run", str(run)], config)
    with claimed(run):
        with undone_on_mistake(run):
            if not config.data.folder:
                prepared = prepare_with_progress(config.data, data_folder(run, config), console)
                show_prepared(prepared, console)
            trainer = Trainer.start(run, config)
        return finish(trainer, console)


def resume_here_or_by_many(
    run: Path, changes: Mapping[str, Mapping[str, str]], arguments: Sequence[str], console: Console
) -> int:
    """Continue a run by as many processes as it is laid out for. Returns the exit code."""
    fetch_with_progress(folder_of(run, changes), console)
    changes = for_so_many_processes(run, changes, console)
    if world() > 1:
        return many.resume(run, changes, console)
    config = settings_of(run, changes)
    config.sizes(config.parallel.processes)
    if config.parallel.processes > 1:
        return many.launch(arguments, config)
    with locked(run):
        return resume(run, changes, console)


def resume(run: Path, changes: Mapping[str, Mapping[str, str]], console: Console) -> int:
    """Continue a run; of a finished one, write the report, which a kill may have prevented."""
    from nanogpt.training.checkpoint import find_checkpoint
    from nanogpt.training.start import Trainer

    trainer = Trainer.resume(run, **changes)
    if not trainer.complete:
        return finish(trainer, console)
    report, state = run / "samples.md", find_checkpoint(run) / "state.json"
    if not report.exists() or report.stat().st_mtime < state.stat().st_mtime:
        conclude(trainer, True, console)
    name = shlex.quote(str(run))
    text = f"{name} is finished; go on from it with: nanogpt train --init {name}"
    console.print(text, highlight=False, markup=False, soft_wrap=True)
    return 0


def folder_of(run: Path, changes: Mapping[str, Mapping[str, str]]) -> str:
    """Where the token files of a run are, with what changes now; empty: in the run itself."""
    path, given = run / "config.toml", changes.get("data", {}).get("folder", "")
    return load_config(path).data.folder if path.exists() and not given else given


def settings_of(run: Path, changes: Mapping[str, Mapping[str, str]]) -> Config:
    """The settings of a run, with what changes now."""
    from nanogpt.training.checkpoint import find_checkpoint, load_state
    from nanogpt.training.start import changed

    path = run / "config.toml"
    config = load_config(path) if path.exists() else load_state(find_checkpoint(run))[1]
    return changed(config, changes)


def for_so_many_processes(
    run: Path, changes: Mapping[str, Mapping[str, str]], console: Console
) -> Mapping[str, Mapping[str, str]]:
    """The changes, and whole copies of the model where processes cannot have the run's layout.

    So whoever asks for one process alone gets one, however many had parts of the model before.
    """
    given = changes.get("parallel", {})
    processes = world() if world() > 1 else given.get("processes")
    if not processes or given.keys() & DIMENSIONS:
        return changes
    parallel = settings_of(run, changes).parallel
    try:
        parallel.sizes(int(processes))
        return changes
    except UserError:
        if world() > 1 or parallel.processes == 1:  # else the first rank says it
            console.print(
                f"The layout of {run} needs other processes than {processes}: from now on each "
                "has a whole copy of the model.", highlight=False, markup=False, soft_wrap=True,
            )  # fmt: skip
        whole = {**dict.fromkeys(DIMENSIONS, "1"), "data": "0"}
        return {**changes, "parallel": {**given, **whole}}


def refuse_ignored(given: Mapping[str, str], config: Config) -> None:
    """Raise UserError for a setting of the text that is given beside a folder with another text."""
    if not config.data.folder:
        return
    made_with, asked = settings_of_files(config.data), config.data
    asked = replace(asked, source=absolute(asked.source))
    for name in ORDERED:
        if name in given and getattr(made_with, name) != getattr(asked, name):
            raise UserError(
                f"--data.{name} does nothing here: the text in {config.data.folder} is prepared "
                "already; leave it out, or leave out --data.folder"
            )


def free_folder(path: Path) -> Path:
    """The path itself, or path-2, path-3, ... so that no run ever overwrites another."""
    candidate, n = path, 1
    while is_taken(candidate) or is_in_use(candidate):
        n += 1
        candidate = path.with_name(f"{path.name}-{n}")
    return candidate


def is_taken(path: Path) -> bool:
    """Whether there is something at this path that a new run must not overwrite.

    What a run leaves that ended before its first checkpoint is nothing: the same command takes its
    place, and goes on with its preparation.
    """
    from nanogpt.training.checkpoint import has_checkpoint

    if not path.is_dir():
        return path.exists() or path.is_symlink()
    inside = [*path.iterdir(), *(path / "data").glob("*")]
    return has_checkpoint(path) or not all(OF_A_START.fullmatch(p.name) for p in inside)


def is_in_use(path: Path) -> bool:
    """Whether another process is writing to the folder."""
    try:
        with locked(path):
            return False
    except UserError:
        return True


@contextmanager
def undone_on_mistake(run: Path) -> Iterator[None]:
    """If setting up a run in a free folder fails, or is interrupted, leave nothing in it."""
    try:
        yield
    except Interrupted:  # what is prepared stays, for the same command to go on with it
        raise
    except BaseException:
        remove_start(run)
        raise


def remove_start(run: Path) -> None:
    """Remove what a run wrote before its first checkpoint."""
    for name in ("data", "checkpoints", "snapshots", "tensorboard"):
        shutil.rmtree(run / name, ignore_errors=True)
    for name in ("config.toml", "tokenizer.json", "metrics.jsonl", "reference.safetensors"):
        (run / name).unlink(missing_ok=True)


def describe(trainer: "Trainer", console: Console) -> None:
    """Say what is about to be trained, and on what."""
    model, train = trainer.config.model, trainer.config.train
    tokens, group = trainer.config.tokens_per_step, trainer.config.policy.group_size
    passes = train.max_steps * tokens / trainer.tokens.train.about.count
    work = f"{tokens:,} tokens, {passes:.1f} passes over the text"
    if train.objective == "policy":
        work = f"{trainer.config.answers_per_step:,} answers, {group} to each question"
    all_weights = trainer.outline.num_parameters()
    trained = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    some = f", of which {trained:,} are trained" if train.lora_rank else ""
    together = f" by {trainer.processes} processes" if trainer.processes > 1 else ""
    console.print(
        f"[bold]model[/]  {all_weights:,} parameters{some}: {model.n_layer} layers, "
        f"{model.n_head} heads, {model.n_embd} channels, context {model.context_length}\n"
        f"[bold]steps[/]  {train.max_steps:,} of {work}, on {trainer.compute.device} in "
        f"{trainer.compute.precision}{together}\n"
        f"[bold]compiled[/]  {'no: ' + trainer.not_compiled if trainer.not_compiled else 'yes'}",
        highlight=False,
    )
    if trainer.left_out:
        kind = "questions" if train.objective == "policy" else "pairs"
        console.print(
            f"[bold]left out[/]  {trainer.left_out:,} {kind} of the training text, which do not "
            f"fit into a context of {model.context_length}", highlight=False,
        )  # fmt: skip


def finish(trainer: "Trainer", console: Console) -> int:
    """Train to the end, or until stopped, and write the report. Returns the exit code."""
    describe(trainer, console)
    complete = watch(trainer, console)
    return conclude(trainer, complete, console)


def conclude(trainer: "Trainer", complete: bool, console: Console) -> int:
    """Write loss.png and samples.md and say how to continue. Returns the exit code."""
    from nanogpt.generation.stream import is_chat
    from nanogpt.training.report import (
        side_by_side,
        write_loss_plot,
        write_reward_plot,
        write_samples,
    )

    run = trainer.folder
    name = shlex.quote(str(run))
    model = trainer.whole_model() if complete else None
    if rank():  # the first rank writes for all
        return 0 if complete else 130
    pictures = [write_loss_plot(run), write_reward_plot(run)]
    names = ", ".join(picture.name for picture in pictures if picture)
    samples = {}
    if model:
        with console.status("writing samples ..."):
            tokenizer, config = trainer.tokenizer, trainer.config
            samples = side_by_side(model, tokenizer, config.sample, is_chat(config, tokenizer))
    write_samples(run, trainer.config, samples)
    plain = trainer.config.train.objective == "next-token"
    if complete:
        lines = [
            f"done after {trainer.state.seconds:.0f} s of training: {names}, samples.md in {name}",
            f"try: nanogpt {'generate' if plain else 'chat'} {name}",
            f"     nanogpt evaluate {name}",
        ]
    else:
        lines = [
            f"stopped at step {trainer.state.step:,}; everything is in {name}",
            f"go on with: nanogpt train --resume {name}",
        ]
    console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)
    return 0 if complete else 130
