"""What a person sees while a model trains."""

import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict
from statistics import mean
from types import FrameType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from nanogpt.cli.text import printable
from nanogpt.errors import UserError
from nanogpt.model.size import flops_per_token
from nanogpt.training.records import (
    Answered,
    Chosen,
    Reached,
    Record,
    Rollout,
    Sample,
    Step,
    Validation,
)
from nanogpt.workers import rank

if TYPE_CHECKING:
    from nanogpt.training.start import Trainer


@contextmanager
def stop_on_interrupt(trainer: "Trainer", console: Console) -> Iterator[None]:
    """While inside, Ctrl-C, a polite kill and a closed terminal let the trainer finish its step.

    Then it saves. A second Ctrl-C ends it at once: a step may be long. Nothing else does: a
    terminal that is closed may send several signals.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        if trainer.stopped and number == signal.SIGINT:
            raise KeyboardInterrupt
        trainer.stop()
        with suppress(OSError):  # the terminal may be gone
            console.print("stopping after this step; Ctrl-C again stops at once", style="yellow")

    names = [name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    numbers = [signal.Signals[name] for name in names]
    previous = {
        number: signal.signal(number, stop)
        for number in numbers
        if signal.getsignal(number) is not signal.SIG_IGN  # as `nohup` wants it
    }
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class Events:
    """Records as TensorBoard shows them, if the run wants that.

    Raises UserError if the package is missing.
    """

    def __init__(self, trainer: "Trainer") -> None:
        self.writer: Any = None
        if trainer.config.train.tensorboard and rank() == 0:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                raise UserError(
                    "train.tensorboard needs a package; run: pip install tensorboard"
                ) from None
            self.writer = SummaryWriter(str(trainer.folder / "tensorboard"))

    def add(self, record: Record) -> None:
        """Write the numbers of a record."""
        if self.writer:
            for name, value in asdict(record).items():
                if isinstance(value, float):
                    kind = type(record).__name__.lower()
                    self.writer.add_scalar(f"{kind}/{name}", value, record.step)

    def close(self) -> None:
        """Finish writing."""
        if self.writer:
            self.writer.close()


class Display:
    """The progress line, and above it what is worth keeping on the screen."""

    def __init__(self, trainer: "Trainer", console: Console) -> None:
        self.console = console
        self.flops_per_token = flops_per_token(trainer.outline)
        self.peak = trainer.compute.peak_flops() * trainer.processes
        self.losses: list[float] = []
        self.rewards: list[float] = []  # of an objective that has them, in place of losses
        self.speeds: list[float] = []
        self.progress = Progress(
            MofNCompleteColumn(),
            BarColumn(bar_width=5),  # all of this fits into 80 characters
            TextColumn("{task.fields[what]} [cyan]{task.fields[loss]}[/]"),
            TextColumn("val [green]{task.fields[val]}[/]"),
            TextColumn("{task.fields[speed]} tok/s {task.fields[mfu]}"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=console,
            transient=True,
            disable=not console.is_terminal,  # a log wants the lines below, not a moving bar
        )
        self.task = self.progress.add_task(
            "",
            total=trainer.config.train.max_steps,
            completed=trainer.state.step,
            what="reward" if trainer.config.train.objective == "policy" else "loss",
            loss="-",
            val="-",
            speed="-",
            mfu="",
        )

    def show(self, record: Record) -> None:
        """Show a record, each kind in its way."""
        if isinstance(record, Step):
            self.show_step(record)
        elif isinstance(record, Validation):
            self.show_validation(record)
        elif isinstance(record, Rollout):
            self.rewards = [*self.rewards[-9:], record.reward]
            self.progress.update(self.task, loss=f"{mean(self.rewards):.3f}")
        elif isinstance(record, Reached):
            self.console.print(
                f"step {record.step:>6}  [bold green]reached {record.target} after "
                f"{record.seconds:.1f} s of training[/]",
                highlight=False,
            )
        elif isinstance(record, Chosen):
            few = record.threads < record.most
            why = ", as other programs run" if few else ""
            self.console.print(
                f"step {record.step:>6}  computing on {record.threads} of {record.most} "
                f"threads{why}", highlight=False,
            )  # fmt: skip
        elif isinstance(record, Sample):
            show_sample(record, self.console)

    def show_step(self, record: Step) -> None:
        """Move the progress line. Single batches are noisy: it shows the means of the last ones."""
        self.losses = [*self.losses[-49:], record.loss]
        self.speeds = [*self.speeds[-49:], record.tokens_per_second]
        speed = mean(self.speeds)
        self.progress.update(
            self.task,
            completed=record.step,
            loss=f"{mean(self.rewards or self.losses):.3f}",
            speed=f"{speed:,.0f}",
            mfu=f"{speed * self.flops_per_token / self.peak:.0%} mfu",
        )

    def show_validation(self, record: Validation) -> None:
        """Print the validation loss, and keep it in the progress line."""
        val, bits = f"{record.val_loss:.3f}", f"{record.bits_per_byte:.3f}"
        self.progress.update(self.task, val=val)
        train = f"train {mean(self.losses):.3f}  " if self.losses else " " * 13
        end = f"[green]{bits}[/] bits per byte"
        if isinstance(record, Answered):
            train = f"reward {mean(self.rewards):.3f}  " if self.rewards else " " * 14
            end = f"[green]{record.right:.1%}[/] of {record.questions} questions right"
        self.console.print(
            f"step {record.step:>6}  {train}validation [green]{val}[/]  {end}", highlight=False
        )


def watch(trainer: "Trainer", console: Console) -> bool:
    """Train with live progress. Returns whether the run reached its end."""
    events, display = Events(trainer), Display(trainer, console)
    with (
        closing(events),
        stop_on_interrupt(trainer, console),
        display.progress,
        closing(trainer.run()) as records,
    ):
        for record in records:
            events.add(record)
            display.show(record)
    return trainer.complete


def show_sample(record: Sample, console: Console) -> None:
    """Print what the model writes at this point, a few lines of it."""
    lines = [line for line in printable(record.sample).splitlines() if line.strip()]
    text = Text("\n".join(lines[:5]), style="italic dim", overflow="ellipsis", no_wrap=True)
    console.print(Padding(text, (0, 0, 0, 13)))
