"""nanogpt prepare: turn text into token files."""

import shlex
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from nanogpt.cli.screen import Screen
from nanogpt.cli.settings import Parser, named, settings_in, standard_input
from nanogpt.config import DataConfig, choose, from_dict
from nanogpt.errors import Interrupted, UserError
from nanogpt.files import claimed, writing
from nanogpt.text.batches import BATCHES
from nanogpt.text.prepare import SIDES, Prepared, prepare
from nanogpt.text.remote import is_url, local_folder
from nanogpt.text.sources import COMPRESSIONS, HUB, READERS, has_unused_separators
from nanogpt.text.tokenizer import END_OF_TEXT
from nanogpt.workers import number_of_processes, usable_cores

TITLES = {"train": "training", "val": "held out"}


def main(arguments: Sequence[str]) -> int:
    """Prepare a corpus for training. Returns the exit code."""
    parser = Parser("prepare", "Turn text into token files for training and validation.")
    parser.add_argument(
        "source",
        nargs="?",
        type=named,
        help="a .txt, .md, .jsonl or .parquet file, also .gz or .zst; a folder of them; "
        "- for standard input; hub:NAME[:CONFIG] on the Hugging Face hub; or shakespeare (default)",
    )
    parser.add_argument("--processes", type=int, help="default: one for each core")
    parser.add_settings(DataConfig)
    options = parser.parse(arguments)
    if options.source is not None:
        setattr(options, "data.source", options.source)
    processes = 0  # which is one for each core, but no more than help
    if options.processes is not None:
        processes = number_of_processes("--processes", options.processes)
    data = from_dict(DataConfig, settings_in(options).get("data", {}))
    choose(BATCHES, "data.batches", data.batches)
    stream = is_stream(data.source)
    folder = Path(data.folder or Path("data") / ("stdin" if stream else name_of(data.source)))
    console = Screen()
    try:
        with kept(data.source, folder) if stream else nullcontext(data.source) as source:
            data = replace(data, source=str(source))
            prepared = prepare_with_progress(data, folder, console, processes)
    except KeyboardInterrupt:
        console.print("\nstopped; the same command goes on from here", highlight=False)
        return 130
    show_prepared(prepared, console)
    run = Path("runs") / folder.name  # a name of its own, not that of the recipe
    command = shlex.join(
        ["nanogpt", "train", "demo", "--data.folder", str(folder), "--run", str(run)]
    )
    console.print(f"\ntrain on it: {command}", highlight=False, markup=False, soft_wrap=True)
    return 0


def is_stream(source: str) -> bool:
    """Whether a source is what another program writes: -, /dev/stdin, or a shell's <(...)."""
    opened = source.startswith(("/dev/fd/", "/proc/self/fd/")) or source == "/dev/stdin"
    return source == "-" or (opened and Path(source).exists() and not Path(source).is_file())


@contextmanager
def kept(source: str, folder: Path) -> Iterator[Path]:
    """Keep a stream as a file beside its tokens, because a text is read three times.

    If it turns out to be no text, nothing stays.
    """
    path = folder / "source.txt"
    with claimed(folder):
        with ExitStack() as stack, writing(path) as file:
            stdin = standard_input().buffer if source == "-" else None
            shutil.copyfileobj(stdin or stack.enter_context(open(source, "rb")), file)
        try:
            yield path
        except Interrupted:
            raise
        except UserError:
            path.unlink()
            raise


def name_of(source: str) -> str:
    """What the folder of a prepared source is called: the source's name without its endings.

    >>> name_of("texts/v1.2.jsonl.gz"), name_of("hub:roneneldan/TinyStories:plain")
    ('v1.2', 'TinyStories-plain')
    """
    path = Path(source.removeprefix(HUB)).resolve()
    while path.suffix.lower() in (*READERS, *COMPRESSIONS):
        path = path.with_suffix("")
    return path.name.replace(":", "-")


def prepare_with_progress(
    data: DataConfig, folder: Path, console: Console, processes: int = 0
) -> Prepared:
    """Prepare a source, showing the progress."""
    if has_unused_separators(data):
        Screen(stderr=True).print(
            f"{data.source} holds many {END_OF_TEXT} markers, which are read as text; to cut it "
            f"into documents there, add --data.separator {shlex.quote(END_OF_TEXT)}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[done]} million characters"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    tasks: dict[str, TaskID] = {}
    titles = {
        "splitting": "choosing what is held out",
        "learning": "learning a vocabulary",
        "encoding": "encoding",
    }

    def report(phase: str, characters: int, total: int | None) -> None:
        if phase not in tasks:
            tasks[phase] = bar.add_task(titles[phase], total=total, done="0.0")
        done = f"{characters / 1e6:,.1f}"
        bar.update(tasks[phase], completed=characters, total=total, done=done)

    with bar:
        return prepare(data, folder, processes or min(usable_cores(), 16), report)


def fetch_with_progress(folder: str, console: Console) -> None:
    """Fetch token files that are at a URL, and show the progress; a folder here needs none."""
    if not is_url(folder):
        return
    bar = Progress(
        TextColumn("fetching token files"),
        BarColumn(bar_width=20),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task("")

        def report(fetched: int, size: int) -> None:
            bar.update(task, completed=fetched, total=size)

        place = local_folder(folder, report=report)
    line = f"[bold]data[/]  {escape(folder)} is in {escape(str(place))}"
    console.print(line, highlight=False, soft_wrap=True)


def show_prepared(prepared: Prepared, console: Console) -> None:
    """The report: what is on each side, and in how many tokens."""
    show_documents(prepared, console)
    made = tokens_made(prepared.tokenizer.vocab_size, prepared.asked)
    console.print(f"[bold]tokenizer[/]  {made}", highlight=False)
    show_files(prepared, console)


def tokens_made(size: int, asked: int) -> str:
    """How many tokens a vocabulary has, and why they may be fewer than were asked for."""
    fewer = f", not {asked:,}: no more pairs occur in this text" if size < asked else ""
    return f"{size:,} tokens{fewer}"


def show_documents(prepared: Prepared, console: Console) -> None:
    """Say what is trained on and what is held out."""
    for side in SIDES:
        about, names = prepared.files[side].about, prepared.names[side]
        more = about.documents - len(names)
        listed = ", ".join([*names, f"and {more:,} more"] if more else names)
        plural = "document" if about.documents == 1 else "documents"
        console.print(
            f"[bold]{TITLES[side]}[/]  {about.documents:,} {plural}, {about.bytes:,} bytes: "
            f"[dim]{escape(listed)}[/]",
            highlight=False,
        )


def show_files(prepared: Prepared, console: Console) -> None:
    """Say how many tokens each side has."""
    for side in SIDES:
        tokens = prepared.files[side]
        console.print(
            f"[bold]{escape(str(tokens.path))}[/]  {tokens.about.count:,} tokens, "
            f"{tokens.bytes_per_token:.2f} bytes per token",
            highlight=False,
            soft_wrap=True,
        )
