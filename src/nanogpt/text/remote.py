"""Token files in object storage, fetched to this machine once and then memory-mapped as always.

`data.folder` may be any URL that fsspec understands: s3://, gs://, hf://, https:// and more. What
was fetched is never asked for again, so what is at a URL should not change: new data, new URL.
"""

import hashlib
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanogpt.errors import UserError
from nanogpt.files import claimed, read_json, sha256, write_json, writing, writing_files
from nanogpt.text.tokenfiles import read_token_file, shard_paths, sidecar_path

URL = re.compile(r"[A-Za-z][\w+.-]+:[/\\]")  # two letters at least: C:\ is a disk of Windows
SIDES = ("train", "val")
SMALL = ("tokenizer.json", "prepared.json")  # what a folder of ours has beside its token files
FETCHED = "fetched.json"  # written last, with the names of all files
CHUNK = 2**24  # bytes of one request

Report = Callable[[int, int], None]  # is told how many bytes are here, and how many there are


def is_url(folder: str | Path) -> bool:
    """Whether token files are elsewhere.

    >>> is_url("s3://bucket/data"), is_url(Path("s3://bucket")), is_url("data/my"), is_url("C:/my")
    (True, True, False, False)
    """
    return bool(URL.match(str(folder)))


def cache_folder(url: str) -> Path:
    """Where the files of a URL are kept: in $NANOGPT_CACHE, or else in the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    place = os.environ.get("NANOGPT_CACHE") or Path(home, "nanogpt")
    url = url.rstrip("/")
    name = re.sub(r"[^\w.-]", "-", url.rpartition("/")[2])[-40:]
    return Path(place, "data", f"{name}-{hashlib.sha256(url.encode()).hexdigest()[:12]}")


def is_fetched(url: str) -> bool:
    """Whether all files of a URL are here. Some clusters remove files that were long not read."""
    place = cache_folder(url)
    with suppress(UserError, KeyError, TypeError):
        return all((place / name).is_file() for name in read_json(place / FETCHED)["files"])
    return False


def local_folder(
    folder: str, whole: bool = True, report: Report = lambda fetched, size: None
) -> Path:
    """The token files of data.folder on this machine: a path as it is, those of a URL fetched.

    `whole=False` fetches the tokenizer and the settings alone. Several processes fetch once: one
    works and the others wait. A fetch that was cut short goes on with the next file. Raises
    UserError, in one line, if the URL cannot be read, has no token files, or a damaged one.
    """
    if not is_url(folder):
        return Path(folder)
    place = cache_folder(folder)
    if not is_fetched(folder):
        # Whoever has the lock ends or gives up, because its requests have time limits.
        with claimed(place, patience=math.inf):
            if not is_fetched(folder):
                fetch(RemoteFolder.open(folder), place, whole, report)
    return place


@dataclass(frozen=True)
class RemoteFolder:
    """A folder at a URL: the file system of its driver, and what is known of each file."""

    url: str
    system: Any
    files: dict[str, dict[str, Any]]

    @classmethod
    def open(cls, url: str) -> "RemoteFolder":
        """List a folder. Raises UserError if that is not possible."""
        url = url.rstrip("/")
        with in_words(url):
            import fsspec

            protocol = url.partition(":")[0]
            if protocol not in fsspec.available_protocols():
                raise UserError(f"{url}: fsspec has no {protocol}://; use s3, gs, hf or https")
            system, path = fsspec.core.url_to_fs(url)
            found = [entry for entry in system.ls(path, detail=True) if entry["type"] == "file"]
        return cls(url, system, {entry["name"].rpartition("/")[2]: entry for entry in found})

    def token_files(self) -> list[str]:
        """The names of the token files. Raises UserError if a side or a shard is missing."""
        names = [n for n in self.files if re.fullmatch(r"[\w.-]*(train|val)[\w.-]*\.bin", n)]
        for side in SIDES:
            mine = sorted(name for name in names if side in name)
            if not mine:
                raise UserError(f"{self.url} has no token file {side}.bin; check the URL")
            if series := re.fullmatch(side + r"-\d+-of-(\d{1,5})\.bin", mine[0]):
                for path in shard_paths("", side, int(series[1])):
                    if path.name not in self.files:
                        raise UserError(f"{self.url} has no {path.name}; copy it there")
        return sorted(names)

    def size(self, name: str) -> int:
        """The bytes of a file; 0 where the server does not say."""
        with in_words(f"{self.url}/{name}"):
            entry = self.files[name]
            return entry.get("size") or self.system.size(entry["name"]) or 0

    def read(self, name: str) -> Iterator[bytes]:
        """The bytes of a file, a request at a time."""
        with in_words(f"{self.url}/{name}"):
            path = self.files[name]["name"]
            with self.system.open(path, "rb", block_size=CHUNK, cache_type="none") as file:
                while chunk := file.read(CHUNK):
                    yield chunk


def fetch(remote: RemoteFolder, place: Path, whole: bool, report: Report) -> None:
    """Bring files to a folder: those that are small, and with `whole` the missing token files."""
    names = remote.token_files()
    for name in SMALL:
        if name in remote.files:
            with writing(place / name) as file:
                file.writelines(remote.read(name))
    if not whole:
        return
    missing = {n: remote.size(n) for n in names if not is_here(place / n, remote)}
    done = 0
    for name in missing:
        for chunk in fetch_token_file(remote, name, place):
            done += chunk
            report(done, sum(missing.values()))
    names += [name for name in remote.files if (place / name).is_file()]
    write_json(place / FETCHED, {"url": remote.url, "files": sorted({*names})})
    for rest in place.glob(".*"):  # of a process that was killed
        shutil.rmtree(rest, ignore_errors=True)


def fetch_token_file(remote: RemoteFolder, name: str, place: Path) -> Iterator[int]:
    """Fetch a token file and its sidecar, check them, and only then put both in their place.

    Yields the bytes of each part. Raises UserError if the file is not what its sidecar promises.
    """
    with writing_files(place) as work:
        path = work / name
        with writing(path) as file:
            for chunk in remote.read(name):
                file.write(chunk)
                yield len(chunk)
        sidecar = sidecar_path(path)
        if sidecar.name in remote.files:
            with writing(sidecar) as file:
                file.writelines(remote.read(sidecar.name))
        if not is_whole(path, remote.size(name)):
            raise UserError(
                f"{remote.url}/{name} is damaged: it is not the file that was prepared; "
                "copy it there again"
            )


def is_here(path: Path, remote: RemoteFolder) -> bool:
    """Whether a token file was fetched before, with its sidecar if it has one."""
    sidecar = sidecar_path(path)
    return path.is_file() and (sidecar.name not in remote.files or sidecar.is_file())


def is_whole(path: Path, size: int) -> bool:
    """Whether a fetched token file has the size of the original and the content of its sidecar."""
    if size and path.stat().st_size != size:
        return False
    if not sidecar_path(path).exists():
        return True
    try:
        return read_token_file(path).about.sha256 == sha256(path)
    except UserError:
        return False


@contextmanager
def in_words(url: str) -> Iterator[None]:
    """Turn what a driver raises into one line. Each driver has exceptions of its own."""
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{url}: there is no such file or folder; check the URL") from None
    except ImportError as error:  # fsspec's message names the package
        raise UserError(f"{url}: {error}; pip install 'nanogpt[remote]'") from None
    except PermissionError as error:
        raise UserError(f"{url} may not be read ({error}); check the credentials") from None
    except Exception as error:
        raise UserError(f"{url} cannot be read ({type(error).__name__}: {error})") from None
