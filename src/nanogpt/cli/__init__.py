"""The command line: one thin module per command, loaded only when it is called.

`nanogpt --help` must answer at once, so this file imports nothing heavy.
"""

import errno
import importlib
import os
import signal
import sys
import warnings
from collections.abc import Sequence

from nanogpt import __version__
from nanogpt.cli.streams import STREAMS, complain, open_standard_streams, shown_meanwhile
from nanogpt.cli.text import printable
from nanogpt.errors import Notice, UserError, did_you_mean, one_line

COMMANDS = {
    "demo": "from raw text to generated text in under three minutes",
    "assistant": "from a base model to one that answers, in three stages",
    "prepare": "turn text into token files: files, folders, the hub, or the built-in plays",
    "data": "look at the batches that a model is trained on",
    "tokenizer": "train a tokenizer, and look at what tokenizers do with text",
    "plan": "what a run will need: parameters, operations, memory, time, cost",
    "train": "train a model from a recipe, or resume a run",
    "generate": "continue a prompt with a trained model",
    "chat": "write with a trained model, turn by turn",
    "evaluate": "measure a trained model: loss, perplexity, bits per byte",
    "compare": "the same model in Hugging Face Transformers: same numbers, speed side by side",
    "lab": "studies, scaling laws, attention heads, and checks of your own ideas",
    "speedrun": "hold five runs to the rules of the speedrun, for a row in its table",
    "explore": "look inside your own models in the browser, live while they learn",
    "publish": "the page of explore as one file, with the model inside",
    "learn": "the learning path: lessons that run in the browser, and your progress",
    "exercise": "write the parts of a GPT yourself; learn what is wrong, and how to fix it",
    "serve": "trained models for programs, by the completions API",
    "export": "a folder that Hugging Face Transformers opens",
    "eject": "one file that holds a recipe and nothing else, for a fork",
    "completion": "a script that lets the shell complete commands, options and recipes",
}

PYTHONS_FORMAT = warnings.formatwarning

HELP = """\
nanogpt: a GPT-2 to learn from

usage: nanogpt COMMAND [options]

{commands}

`nanogpt COMMAND --help` explains the options. Start with `nanogpt demo`.
Every command takes --plugin FILE.py, which adds variants of your own: docs/extending.md."""


def help_text() -> str:
    """What `nanogpt --help` prints."""
    return HELP.format(commands="\n".join(f"  {n:<12}{text}" for n, text in COMMANDS.items()))


SIGPIPE = 128 + 13  # what a shell reports of a program whose reader has gone


def main(argv: Sequence[str]) -> int:
    """Run one command and return the exit code.

    0 for success, 2 for a mistake that the user can fix (one line on stderr), 130 when
    interrupted, 141 when the reader of the output has gone. Any other exception is a bug and
    keeps its traceback.
    """
    try:
        code = dispatch(argv)
        sys.stdout.flush()
        return code
    except UserError as error:
        complaint = str(error)
    except OSError as error:
        if isinstance(error, BrokenPipeError) and error.filename in STREAMS:
            return SIGPIPE  # `head`, for example, has seen enough
        if error.strerror is None:
            raise
        place = "standard input" if error.errno == errno.EBADF else error.filename or "the disk"
        standard = place in ("standard input", *STREAMS)
        fix = "connect it to another file or pipe" if standard else "check path, space and rights"
        complaint = f"{place}: {error.strerror}; {fix}"
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        complaint = (
            "not enough memory: lower train.batch_size or --num-samples, or make the model smaller"
        )
    except KeyboardInterrupt:
        if "RANK" not in os.environ:  # who started several processes says it once
            complain("\nstopped")
        return 130
    complain("nanogpt: " + one_line(printable(complaint)))
    return 2


def dispatch(argv: Sequence[str]) -> int:
    """Import the module of the command and call it."""
    if argv and argv[0].partition("=")[0] == "--plugin":  # after the command, its parser knows it
        from nanogpt.lab.plugin import load_plugin

        _, equals, path = argv[0].partition("=")
        rest = argv[1:] if equals else argv[2:]
        load_plugin(path if equals else "".join(argv[1:2]))
        return dispatch(rest)
    if not argv or argv[0] in ("-h", "--help"):
        print(help_text())
        return 0
    if argv[0] in ("-V", "--version"):
        print(__version__)
        return 0
    name, *arguments = argv
    if name not in COMMANDS:
        raise UserError(f"{name!r} is not a command: {did_you_mean(name, COMMANDS)}")
    with shown_meanwhile(f"loading {name} ..."):
        module = importlib.import_module(f"nanogpt.cli.{name}")
    try:
        return module.main(arguments) or 0
    except SystemExit as end:  # argparse ends a command after its --help
        if not isinstance(end.code, int):
            raise
        return end.code


def is_out_of_memory(error: Exception) -> bool:
    """Whether Python, or torch in one of its several ways, ran out of memory."""
    return isinstance(error, MemoryError) or any(
        sign in f"{type(error).__name__}: {error}"
        for sign in (
            "OutOfMemoryError",
            "can't allocate memory",
            "bad_alloc",
            "Storage size calculation overflowed",
        )
    )


def format_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    line: str | None = None,
) -> str:
    """A notice of ours as one line, and any other warning as Python writes it."""
    if issubclass(category, Notice):
        return f"nanogpt: {message}\n"
    return PYTHONS_FORMAT(message, category, filename, lineno, line)


def stop_on_signals() -> None:
    """Let a polite kill and a closed terminal end a command as Ctrl-C does."""
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    number = getattr(signal, "SIGHUP", None)  # Windows has none
    if number and signal.getsignal(number) is signal.SIG_DFL:  # `nohup` has it ignored
        # A server of uvicorn's knows SIGTERM alone, and ends its answers before it stops.
        signal.signal(number, lambda *_: signal.raise_signal(signal.SIGTERM))


def run() -> None:
    """The entry point of the `nanogpt` command."""
    open_standard_streams()
    stop_on_signals()
    warnings.formatwarning = format_warning
    warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)  # a picture's title
    sys.exit(main(sys.argv[1:]))
