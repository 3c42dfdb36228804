"""Files that are either whole or absent. A path may be a str or a Path.

Everything the package writes goes through here, except metrics.jsonl: a run appends to that.
"""

import csv
import hashlib
import importlib
import io
import json
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import MISSING, fields, is_dataclass
from importlib.metadata import PackagePath
from pathlib import Path
from types import NoneType, UnionType
from typing import IO, Any, TypeVar, get_args, get_origin, get_type_hints

from nanogpt.errors import UserError, did_you_mean

T = TypeVar("T")

LOCKED: set[str] = set()  # the folders that this process keeps from others
PATIENCE = 2.0  # seconds to wait for a lock

# Bytes that are read at once, and no more. Longer text is read in pieces: see corpus.read_pieces.
TEXT_LIMIT = 2**28
JSON_LIMIT = 40_000_000  # brackets may take twenty times their size; vocabularies have up to 34 MB


@contextmanager
def writing(path: str | Path) -> Iterator[IO[bytes]]:
    """Open a temporary neighbour of `path` for writing; on success it takes the path's place.

    A crash, a full disk or Ctrl-C leaves what stood at `path` before, untouched. The data are
    flushed to the disk before the rename, so a power cut cannot leave an empty file either.
    """
    path = Path(path)
    check_is_file_or_free(path)
    path = Path(os.path.realpath(path))  # a link stays, and what it leads to is written
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        open_to_others(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def check_is_file_or_free(path: str | Path) -> None:
    """Raise UserError if something else than a file is at a path that is to be written.

    A file is written beside the path and takes its place. In the place of /dev/null, that would
    take the device away from everybody.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path} is a folder; name a file")
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is a device or a pipe; name a file")


@contextmanager
def writing_folder(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes `path` on success and vanishes on failure."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    old = temporary.with_name(temporary.name + ".old")
    try:
        yield temporary
        for file in temporary.iterdir():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
            open_to_others(file)
        open_to_others(temporary)
        # One move cannot replace a folder that has files in it.
        if path.exists() and (not path.is_dir() or any(path.iterdir()) or os.name == "nt"):
            path.rename(old)
        temporary.replace(path)
    finally:
        if old.exists() and not path.exists():
            old.rename(path)  # it failed between the two moves
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def writing_files(folder: str | Path) -> Iterator[Path]:
    """Yield a temporary folder whose files move into `folder` once all of them are written."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix=".", dir=folder) as temporary:
            yield Path(temporary)
            for file in Path(temporary).iterdir():
                open_to_others(file)
                file.replace(folder / file.name)
    finally:
        with suppress(OSError):
            folder.rmdir()  # which fails unless the folder is empty


@contextmanager
def locked(folder: str | Path, patience: float = PATIENCE) -> Iterator[None]:
    """Keep other processes from writing to an existing folder.

    The lock ends with the process, however that ends, and leaves no file. A process may lock a
    folder that it has locked already. Where a file system or Windows has no locks for folders,
    nothing is locked. Raises UserError if another process has the lock, and keeps it for `patience`
    seconds.
    """
    place = str(Path(folder).resolve())
    if place in LOCKED:
        yield
        return
    try:
        descriptor = os.open(place, os.O_RDONLY)
    except OSError:
        yield
        return
    LOCKED.add(place)
    try:
        if not take_lock(descriptor, patience):
            raise UserError(
                f"another process is writing to {folder}; wait for its end, or name another folder"
            )
        yield
    finally:
        LOCKED.discard(place)
        os.close(descriptor)


@contextmanager
def claimed(folder: str | Path, patience: float = PATIENCE) -> Iterator[None]:
    """Make a folder and lock it. If it is empty in the end, it goes as it came.

    Raises UserError if another process has locked it, for longer than `patience` seconds.
    """
    folder = Path(folder)
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with locked(folder, patience):
            yield
    finally:
        with suppress(OSError):  # a folder with something in it stays
            for path in made:
                path.rmdir()


def take_lock(descriptor: int, patience: float = PATIENCE) -> bool:
    """Lock an open folder; False if another process has it, and keeps it for some seconds.

    The worker processes of one that was killed share its lock. They notice its end within half a
    second, and end, too.
    """
    try:
        import fcntl
    except ImportError:
        return True
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        except OSError:
            return True


def absolute(path: str) -> str:
    """The whole path of what exists, so that a run can be resumed from anywhere."""
    return str(Path(path).resolve()) if path and Path(path).exists() else path


def open_to_others(path: str | Path) -> None:
    """Give a temporary file or folder, which is private, the permissions of any new one."""
    path = Path(path)
    umask = os.umask(0)
    os.umask(umask)
    path.chmod((0o777 if path.is_dir() else 0o666) & ~umask)


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with writing(path) as file:
        file.write(text.encode())


def file_size(path: str | Path) -> int:
    """The bytes of a file that may be opened: a regular one, with an end.

    Raises UserError for anything else. Opening a pipe may wait for ever, and a device may never
    end. Files of 0 bytes should not be read: those of /proc say 0, and some of them never end.
    """
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path}: no such file; check the path") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise UserError(f"{str(path)[:80]!r} cannot be opened ({error}); check the path") from None
    if stat.S_ISDIR(found.st_mode):
        raise UserError(f"{path} is a folder; name a file in it")
    if not stat.S_ISREG(found.st_mode):
        raise UserError(f"{path} is a pipe or a device; save what it gives in a file first")
    return found.st_size


def read_text(path: str | Path, limit: int = TEXT_LIMIT) -> str:
    """Read UTF-8 text of at most `limit` bytes.

    Raises UserError if the file is missing, unreadable, larger, or not UTF-8.
    """
    size = file_size(path)
    if size > limit:
        raise UserError(f"{path} has {size:,} bytes, too many; use at most {limit:,}")
    try:
        with open(path, "rb") as file:
            return file.read(size).decode("utf-8-sig").replace("\r\n", "\n")
    except PermissionError:
        raise UserError(f"{path} cannot be read; check its permissions") from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 text (byte {error.start}); convert it to UTF-8 first"
        ) from None


def as_csv(rows: Sequence[Sequence[Any]]) -> str:
    """Rows as comma-separated text."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON that a person can read and a diff can show."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    if not text.isascii() and text != text.encode("utf-8", "replace").decode():
        text = json.dumps(value, indent=1)  # a name or token that is not valid Unicode
    write_text(path, text + "\n")


def read_json(path: str | Path) -> dict[str, Any]:
    """Read a JSON object. Raises UserError naming the file if it is missing or damaged."""
    text = read_text(path, JSON_LIMIT)
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path} is not valid JSON (line {error.lineno}); it may be cut off"
        ) from None
    except (ValueError, RecursionError):
        raise UserError(
            f"{path} is damaged: numbers too long or brackets too deep; restore it"
        ) from None
    if not isinstance(value, dict):
        raise UserError(f"{path} should hold a JSON object, not a {type(value).__name__}")
    return value


def checked(kind: type[T], values: Any) -> T:
    """A dataclass from the values of a JSON object, each of the type that its field has.

    Raises UserError naming the key that is missing, unknown, or of another type.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"a JSON object should be here, not {values!r:.40}")
    kinds = get_type_hints(kind)
    for name in values:
        if name not in kinds:
            raise UserError(f"{name!r:.40} has no meaning here: {did_you_mean(name, kinds)}")
    for f in fields(kind):  # type: ignore[arg-type]
        if f.name not in values and f.default is MISSING and f.default_factory is MISSING:
            raise UserError(f"{f.name} is missing")
    return kind(**{name: of_type(kinds[name], value, name) for name, value in values.items()})


def of_type(kind: Any, value: Any, name: str) -> Any:
    """A JSON value as a type: a dataclass, a plain type, None or a type, or many of one type.

    >>> of_type(dict[str, int], {"a": 1}, "counts"), of_type(float | None, None, "loss")
    ({'a': 1}, None)
    """
    outer, inner = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        return checked(kind, value)  # type: ignore
    if outer is UnionType:
        if value is None and NoneType in inner:
            return None
        return of_type(next(part for part in inner if part is not NoneType), value, name)
    if outer in (list, tuple) and isinstance(value, list):
        return outer(of_type(inner[0], part, name) for part in value)
    if outer is dict and isinstance(value, dict):
        return {key: of_type(inner[1], part, f"{name}.{key}") for key, part in value.items()}
    fits = kind is Any or type(value) is kind or (kind is float and type(value) is int)
    if not fits or (type(value) is int and abs(value) >= 2**63):
        wanted = getattr(outer or kind, "__name__", kind)
        raise UserError(f"{name} is {value!r:.40}, but should be of type {wanted}")
    return value


def installed_files(package: str) -> list[PackagePath]:
    """The files of an installed package. It is found by its metadata and never imported."""
    try:
        return list(importlib.metadata.files(package) or [])
    except importlib.metadata.PackageNotFoundError:
        raise UserError(f"{package} is not installed; run: pip install {package}") from None


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fenced(text: str) -> str:
    """Text as a Markdown code block, whatever it contains.

    >>> fenced("a")
    '```\\na\\n```'
    """
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}\n{text.strip()}\n{fence}"
