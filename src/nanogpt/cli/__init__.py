"""The command line: one thin module per command, loaded only when it is called.

`nanogpt --help` must answer at once, so this file imports nothing heavy.
"""

import importlib
import io
import os
import sys
from collections.abc import Sequence

from nanogpt import __version__
from nanogpt.errors import UserError, did_you_mean

COMMANDS = {
    "demo": "from raw text to generated text in under three minutes",
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
    "learn": "the learning path: lessons that run in the browser, and your progress",
    "exercise": "write the parts of a GPT yourself; learn what is wrong, and how to fix it",
    "export": "a folder that Hugging Face Transformers opens",
    "completion": "a script that lets the shell complete commands, options and recipes",
}

HELP = """\
nanogpt: a GPT-2 to learn from

usage: nanogpt COMMAND [options]

{commands}

`nanogpt COMMAND --help` explains the options. Start with `nanogpt demo`.
Every command takes --plugin FILE.py, which adds variants of your own: docs/extending.md."""


def help_text() -> str:
    """What `nanogpt --help` prints."""
    return HELP.format(commands="\n".join(f"  {n:<12}{text}" for n, text in COMMANDS.items()))


def main(argv: Sequence[str]) -> int:
    """Run one command and return the exit code.

    0 for success, 2 for a mistake that the user can fix (one line on stderr), 130 when
    interrupted. Any other exception is a bug and keeps its traceback.
    """
    try:
        code = dispatch(argv)
        sys.stdout.flush()
        return code
    except UserError as error:
        complaint = str(error)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.strerror is None:
            raise
        complaint = (
            f"{error.filename or 'the disk'}: {error.strerror}; check path, space and rights"
        )
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        complaint = (
            "not enough memory: lower train.batch_size or --num-samples, or make the model smaller"
        )
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    print("nanogpt: " + " ".join(complaint.split()), file=sys.stderr)
    return 2


def dispatch(argv: Sequence[str]) -> int:
    """Import the module of the command and call it."""
    if not argv or argv[0] in ("-h", "--help"):
        print(help_text())
        return 0
    if argv[0] in ("-V", "--version"):
        print(__version__)
        return 0
    name, *arguments = with_plugins(argv)
    if name not in COMMANDS:
        raise UserError(f"{name!r} is not a command: {did_you_mean(name, COMMANDS)}")
    return importlib.import_module(f"nanogpt.cli.{name}").main(arguments) or 0


def with_plugins(argv: Sequence[str]) -> list[str]:
    """Take every `--plugin FILE` out of the arguments and load the file: any command has it."""
    rest: list[str] = []
    arguments = iter(argv)
    for argument in arguments:
        if argument == "--":  # what follows is no option
            return [*rest, argument, *arguments]
        option, equals, path = argument.partition("=")
        if option != "--plugin":
            rest.append(argument)
            continue
        if not equals:
            path = next(arguments, "")
        from nanogpt.lab.plugin import load_plugin

        load_plugin(path)
    return rest


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


def run() -> None:
    """The entry point of the `nanogpt` command."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character shows a question mark instead of a traceback.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    sys.exit(main(sys.argv[1:]))
