"""Ways to damage a file, made by rule; for the tests in this folder."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

DEEP = 10_000  # levels of nesting
DIGITS = 5_000  # of a number

# What no JSON or TOML file of ours is, whatever it should hold.
NO_OBJECT = {
    "empty": b"",
    "spaces": b" \n ",
    "null": b"null",
    "number": b"3",
    "text": b'"text"',
    "list": b"[1, 2]",
    "open": b"{",
    "zeros": bytes(64),
    "latin-1": b'{"a": "\xe9"}',
    "utf-16": '{"a": 1}'.encode("utf-16"),
    "deep lists": b"[" * DEEP + b"]" * DEEP,
    "deep objects": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "endless lists": b"[" * DEEP * 10,
    "digits": b'{"a": ' + b"9" * DIGITS + b"}",
}

# JSON that may stand in the place of another value: one of each type, and numbers that are too
# large, negative, or no numbers.
VALUES = {
    "null": "null", "true": "true", "text": '"text"', "digits as text": '"12"', "list": "[]",
    "object": "{}", "minus one": "-1", "half": "0.5", "NaN": "NaN", "infinite": "Infinity",
    "400 digits": "9" * 400, "too many digits": "9" * DIGITS, "beyond 64 bits": str(2**70),
}  # fmt: skip


def paths_in(value: Any, prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The keys that lead to each value inside nested objects."""
    for key, inner in value.items() if isinstance(value, Mapping) else ():
        yield (*prefix, key)
        yield from paths_in(inner, (*prefix, key))


def replaced(content: bytes, path: tuple[str, ...], raw: str) -> bytes:
    """A JSON file in which one value is replaced by raw text; removed, with its key, if empty."""
    values = json.loads(content)
    place = values
    for key in path[:-1]:
        place = place[key]
    if not raw:
        del place[path[-1]]
        return json.dumps(values).encode()
    place[path[-1]] = "@@"
    return json.dumps(values).replace('"@@"', raw).encode()


def cut(content: bytes, parts: int = 8) -> Iterator[bytes]:
    """The file, cut off at several places."""
    for n in range(1, parts):
        yield content[: len(content) * n // parts]


def as_folder(path: Path) -> None:
    """Put a folder in the place of a file."""
    path.unlink()
    path.mkdir()


def as_loop(path: Path) -> None:
    """Put a symbolic link to itself in the place of a file."""
    path.unlink()
    path.symlink_to(path.name)


Damage = Callable[[Path], None]  # done to a file

NOT_A_FILE: dict[str, Damage] = {"missing": Path.unlink, "folder": as_folder, "loop": as_loop}


def contents(folder: Path) -> dict[str, bytes | None]:
    """Every file of a folder, by its path inside; None for folders and links."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        if path.is_file() and not path.is_symlink()
        else None
        for path in sorted(folder.rglob("*"))
    }
