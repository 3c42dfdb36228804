"""Plugins: a person's own file that adds variants to our dictionaries."""

import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType

from nanogpt.errors import UserError

LOADED: list[str] = []  # for the processes that a study starts


def load_plugin(name: str) -> None:
    """Run a Python file, which adds its variants when it is run.

    Raises UserError naming the line of the file that went wrong.
    """
    path = Path(name)
    if not name or not path.is_file():
        raise UserError(f"{name or 'the plugin'}: no such file; name a Python file")
    load_module(path)
    LOADED.append(str(path.resolve()))


def load_module(path: str | Path) -> ModuleType:
    """Run a Python file. Raises UserError naming the line of the file that went wrong."""
    path = Path(path)
    spec = importlib.util.spec_from_file_location(f"nanogpt_plugin_{path.stem}", path.resolve())
    if spec is None or spec.loader is None:
        raise UserError(f"{path}: not a Python file; its name should end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where classes of the file look for their own source
    try:
        spec.loader.exec_module(module)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{path}{line_of(error, path)}: {type(error).__name__}: {error}") from None
    return module


def line_of(error: Exception, path: Path) -> str:
    """Where in the file it happened, as " line 7"; empty if nowhere."""
    if isinstance(error, SyntaxError):
        return f" line {error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename) == path.resolve()]
    return f" line {lines[-1]}" if lines else ""
