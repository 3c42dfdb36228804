"""nanogpt data: look at what a model is trained on."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.text import Text

from nanogpt.cli.settings import Parser, load_settings, run_action
from nanogpt.cli.text import visible
from nanogpt.config import IGNORED, Config, DataConfig, load_config
from nanogpt.errors import UserError
from nanogpt.files import writing
from nanogpt.model.attention import attention_mask, same_document
from nanogpt.text.batches import BATCHES, Batch
from nanogpt.text.dataset import data_folder, tokenizer_of
from nanogpt.text.formats import gpt2_tokenizer, load_tokenizer
from nanogpt.text.tokenfiles import (
    TokenFile,
    check_length,
    end_of_text,
    open_split,
    write_token_file,
)
from nanogpt.text.tokenizer import BaseTokenizer

# Short enough that a window of a dozen tokens meets several documents.
EXAMPLE = [
    "Who's there?",
    "Nay, answer me.",
    "Long live the king!",
    "Bernardo?",
    "He.",
    "You come most carefully upon your hour.",
    "'Tis now struck twelve; get thee to bed, Francisco.",
    "For this relief much thanks.",
    "'Tis bitter cold, and I am sick at heart.",
]

COLOURS = ("cyan", "green", "yellow", "magenta", "blue")


def main(arguments: Sequence[str]) -> None:
    """Dispatch to one of the actions."""
    actions = {"show": show}
    run_action("data", __doc__ or "", actions, arguments)


def show(arguments: Sequence[str]) -> None:
    """Draw batches: tokens, targets, and who may look at whom."""
    parser = Parser("data show", "Draw batches: tokens, targets, and who may look at whom.")
    parser.add_argument(
        "folder", nargs="?", type=Path, help="prepared data, or a run (default: a small example)"
    )
    parser.add_argument("--kind", choices=list(BATCHES), help="how to cut (default: each way)")
    parser.add_argument("--context-length", type=int, default=12, help="tokens (default: 12)")
    parser.add_argument("--batch-size", type=int, default=3, help="sequences (default: 3)")
    parser.add_argument("--number", type=int, default=0, help="which batch (default: 0)")
    parser.add_argument("--out", type=Path, default=Path("batches.png"), help="the picture")
    parser.add_settings(DataConfig)
    options = parser.parse(arguments)
    for name in ("context_length", "batch_size"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} {getattr(options, name)}: use at least 1")
    if options.number < 0:
        raise UserError(f"--number {options.number}: use at least 0")
    config, console = load_settings(None, options), Console()
    with tempfile.TemporaryDirectory() as temporary:
        tokens, tokenizer = open_tokens(options.folder, config, Path(temporary))
        check_length(tokens, options.context_length)
        describe(tokens, console)
        kinds = [options.kind] if options.kind else list(BATCHES)
        if not options.kind and end_of_text(tokenizer) is None:
            kinds = [kind for kind in BATCHES if not BATCHES[kind].documents_apart]
        drawn = {}
        for kind in kinds:
            separator = end_of_text(tokenizer)
            batches = BATCHES[kind](tokens, options.context_length, separator, config.data)
            drawn[kind] = batches.batch(options.number, options.batch_size, seed=1337)
            console.rule(f"{kind}: {(BATCHES[kind].__doc__ or '').splitlines()[0]}", align="left")
            print_batch(drawn[kind], tokenizer, console)
        draw_batches(drawn, tokenizer, options.out)
    console.print(f"{options.out}", highlight=False, markup=False, soft_wrap=True)


def open_tokens(
    folder: Path | None, config: Config, temporary: Path
) -> tuple[TokenFile, BaseTokenizer]:
    """The training tokens of prepared data or of a run, or those of the example."""
    if folder is None:
        tokenizer = gpt2_tokenizer()
        return write_token_file(temporary / "example.bin", EXAMPLE, tokenizer), tokenizer
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; prepare some data first")
    if (folder / "config.toml").exists():
        data = data_folder(folder, load_config(folder / "config.toml"))
        found = load_tokenizer(folder / "tokenizer.json")
    else:
        data, found = folder, tokenizer_of(folder, config)
    return open_split(data, "train", found), found


def describe(tokens: TokenFile, console: Console) -> None:
    """Say what is in the token files."""
    about = tokens.about
    console.print(
        f"[bold]{tokens.path.name}[/]  {about.count:,} tokens of {about.dtype}, "
        f"{about.documents:,} documents, {tokens.bytes_per_token:.2f} bytes per token",
        highlight=False,
    )


def labels(batch: Batch, tokenizer: BaseTokenizer) -> tuple[list[list[str]], list[list[str]]]:
    """Inputs and targets of a batch as short printable strings."""

    def name(i: int) -> str:
        if i == IGNORED:
            return ""
        return "<end>" if i == end_of_text(tokenizer) else visible(tokenizer.decode_bytes([i]))

    ids, targets = (
        [[name(i) for i in row] for row in a.tolist()] for a in (batch.ids, batch.targets)
    )
    return ids, targets


def documents(batch: Batch) -> torch.Tensor:
    """The number of the document that each token is in, 0 for padding: (B, T)."""
    one = torch.ones(batch.ids.shape, dtype=torch.long)
    return one if batch.documents is None else torch.from_numpy(batch.documents)


def seen(batch: Batch) -> tuple[int, list[list[bool]]]:
    """The row with the most borders, and which token (down) may look at which (across) in it."""
    mask = documents(batch)
    row = max(range(len(mask)), key=lambda n: len(mask[n].unique()))
    length = mask.shape[1]
    same = same_document(mask[row : row + 1], length)
    return row, attention_mask(length, length, same=same)[0, 0].tolist()


def print_batch(batch: Batch, tokenizer: BaseTokenizer, console: Console) -> None:
    """Each row with its targets below, coloured by document; then the first row's mask."""
    ids, targets = labels(batch, tokenizer)
    for row, (inputs, outputs) in enumerate(zip(ids, targets, strict=True)):
        numbers = documents(batch)[row].tolist()
        above, below = Text("sees     ", style="dim"), Text("predicts ", style="dim")
        for token, target, number in zip(inputs, outputs, numbers, strict=True):
            width = max(len(token), len(target)) + 1
            colour = f"black on {COLOURS[(number - 1) % len(COLOURS)]}" if number else "dim strike"
            above.append(token if number else "-", style=colour)
            above.append(" " * (width - len(token if number else "-")))
            below.append(f"{target or '-':<{width}}", style="" if target else "dim")
        console.print(above, no_wrap=True, overflow="crop")
        console.print(below, no_wrap=True, overflow="crop")
    row, lines = seen(batch)
    console.print(f"row {row}: who looks (down) at whom (across)", style="dim", highlight=False)
    for line in lines:
        console.print("  " + " ".join("■" if cell else "·" for cell in line), highlight=False)


def draw_batches(drawn: dict[str, Batch], tokenizer: BaseTokenizer, path: Path) -> None:
    """The same as a picture: for each kind the tokens with their targets, and the mask."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 2.9 * len(drawn)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(drawn), 2, squeeze=False, width_ratios=[4, 1])
    for (kind, batch), (left, right) in zip(drawn.items(), grid, strict=True):
        ids, targets = labels(batch, tokenizer)
        numbers = documents(batch)
        left.imshow(
            torch.where(numbers > 0, (numbers - 1) % 8 + 1, 0), cmap="Pastel1_r", vmin=0, vmax=8,
            aspect="auto",
        )  # fmt: skip
        for y, (inputs, outputs) in enumerate(zip(ids, targets, strict=True)):
            for x, (token, target) in enumerate(zip(inputs, outputs, strict=True)):
                shown = token if numbers[y, x] else "·"
                left.text(x, y - 0.15, shown, ha="center", parse_math=False, fontsize=9)
                left.text(
                    x, y + 0.3, f"→ {target or '–'}", ha="center", parse_math=False, fontsize=8,
                    color="#a03010" if target else "#999999",
                )  # fmt: skip
        left.set_title(f"{kind}: token above, its target below, coloured by document", loc="left")
        left.set_yticks(range(len(ids)), [f"row {n}" for n in range(len(ids))])
        row, matrix = seen(batch)
        right.imshow(matrix, cmap="Blues", vmin=0, vmax=1.4)
        right.set_title(f"row {row}: who looks at whom", loc="left")
        for axes in (left, right):
            axes.set_xticks([])
            axes.tick_params(length=0)
        right.set_yticks([])
    with writing(path) as file:
        figure.savefig(file, format="png", dpi=100)
