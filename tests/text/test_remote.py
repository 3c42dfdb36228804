"""Token files at a URL: fetched once, whole or not at all, and then as good as a folder here."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from nanogpt.cli import main
from nanogpt.config import DataConfig, with_settings
from nanogpt.errors import UserError
from nanogpt.explorer.questions import training_text
from nanogpt.explorer.runs import Run
from nanogpt.text.formats import load_tokenizer
from nanogpt.text.prepare import prepare
from nanogpt.text.remote import cache_folder, is_fetched, local_folder
from nanogpt.text.tokenfiles import open_split
from nanogpt.training.start import Trainer

from conftest import SMALL, TEXT, small_run

URL = "memory://bucket/data"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder."""
    monkeypatch.setenv("NANOGPT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Bucket:
    """Files at URL, in memory, and the names of those that were read, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.memory: Any = fsspec.filesystem("memory")
        self.memory.store.clear()
        self.read: list[str] = []
        plain = self.memory._open

        def noting(path: str, mode: str = "rb", **more: Any) -> Any:
            if mode == "rb":
                self.read.append(path.rpartition("/")[2])
            return plain(path, mode, **more)

        monkeypatch.setattr(self.memory, "_open", noting)

    def holds(self, folder: Path) -> None:
        self.memory.put(str(folder) + "/", "/bucket/data/", recursive=True)

    def write(self, name: str, content: bytes) -> None:
        self.memory.pipe_file(f"/bucket/data/{name}", content)

    def remove(self, name: str) -> None:
        self.memory.rm_file(f"/bucket/data/{name}")


@pytest.fixture
def bucket(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """What `prepared` holds, at URL. A test may spoil it."""
    bucket = Bucket(monkeypatch)
    bucket.holds(prepared)
    yield bucket
    bucket.memory.store.clear()


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared text in several shards. Read it, and write nothing into it."""
    folder = tmp_path_factory.mktemp("sharded")
    (folder / "my.txt").write_text(TEXT[:9000])
    source = str(folder / "my.txt")
    data = DataConfig(source=source, separator="\n\n", vocab_size=257, shard_tokens=2000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nanogpt.text.prepare.GROUP", 500)  # characters that stay in one shard
        prepare(data, folder / "data", processes=1)
    assert len(list((folder / "data").glob("train-*-of-*.bin"))) > 1
    return folder / "data"


def test_a_fetched_folder_holds_what_the_original_holds(bucket, prepared):
    bucket.write("README.md", b"no token file")
    place = local_folder(URL)
    assert {p.name for p in place.iterdir()} - {"fetched.json"} == {
        p.name for p in prepared.iterdir()
    }
    for path in prepared.iterdir():
        assert (place / path.name).read_bytes() == path.read_bytes(), path.name
    # The sidecar must not be older than its file: then the file would be read to its end.
    assert (place / "train.json").stat().st_mtime_ns >= (place / "train.bin").stat().st_mtime_ns
    tokenizer = load_tokenizer(place / "tokenizer.json")
    assert isinstance(open_split(place, "train", tokenizer).ids, np.memmap)


def test_a_folder_is_fetched_once_and_then_the_network_is_not_needed(bucket, monkeypatch):
    local_folder(URL)
    bucket.memory.store.clear()
    before = list(bucket.read)
    assert local_folder(URL + "/") == local_folder(URL) == cache_folder(URL)
    assert bucket.read == before
    # But a cluster may remove what was long not read: then it is fetched again.
    (cache_folder(URL) / "val.bin").unlink()
    assert not is_fetched(URL)
    with pytest.raises(UserError, match="has no token file"):
        local_folder(URL)


def test_a_fetch_that_was_cut_short_goes_on_with_the_next_file(bucket, sharded):
    bucket.memory.store.clear()
    bucket.holds(sharded)
    good = bucket.memory.cat_file("/bucket/data/val.bin")
    bucket.write("val.bin", good[:-2])
    with pytest.raises(UserError, match=r"val\.bin is damaged"):
        local_folder(URL)
    place = cache_folder(URL)
    shards = sorted(p.name for p in sharded.glob("train*.bin"))
    assert sorted(p.name for p in place.glob("*.bin")) == shards
    assert not is_fetched(URL)
    bucket.write("val.bin", good)
    (place / shards[0]).with_suffix(".json").unlink()  # killed between the file and its sidecar
    (place / ".killed").mkdir()
    bucket.read.clear()
    told: list[tuple[int, int]] = []
    local_folder(URL, report=lambda *numbers: told.append(numbers))
    assert {n for n in bucket.read if n.endswith(".bin")} == {shards[0], "val.bin"}
    size = (sharded / shards[0]).stat().st_size + len(good)
    assert told[-1] == (size, size)
    assert not (place / ".killed").exists()


def test_settings_are_checked_before_anything_large_is_fetched(bucket, sharded, capsys):
    bucket.memory.store.clear()
    bucket.holds(sharded)
    assert main(["train", *SMALL, "--data.folder", URL, "--data.vocab-size=999"]) == 2
    assert f"--data.vocab_size does nothing here: the text in {URL}" in capsys.readouterr().err
    assert main(["plan", "demo", "--data.folder", URL]) == 0
    assert {n for n in bucket.read if n.endswith(".bin")} == set()
    assert f"{257 * 192:,}" in capsys.readouterr().out  # embeddings of the tokenizer there


def test_a_run_on_a_url_is_the_run_on_the_folder_and_resumes_on_another_machine(
    bucket, prepared, tmp_path, monkeypatch
):
    config = small_run(prepared, max_steps=10)
    list(Trainer.start(tmp_path / "here", config).run())
    there = with_settings(config, data={"folder": URL})
    trainer = Trainer.start(tmp_path / "there", there)
    for record in trainer.run():
        if getattr(record, "step", 0) == 5:
            trainer.stop()
    monkeypatch.setenv("NANOGPT_CACHE", str(tmp_path / "other"))
    assert not is_fetched(URL)
    trainer = Trainer.resume(tmp_path / "there")
    assert trainer.config.data.folder == URL
    list(trainer.run())
    assert is_fetched(URL)
    one, other = (
        tmp_path / name / "checkpoints" / "step-000010" / "model.safetensors"
        for name in ("here", "there")
    )
    assert one.read_bytes() == other.read_bytes()


def test_a_run_notices_that_its_url_holds_another_text(bucket, sharded, tmp_path, monkeypatch):
    config = with_settings(small_run(Path()), data={"folder": URL})
    list(Trainer.start(tmp_path / "run", config).run())
    bucket.memory.store.clear()
    bucket.holds(sharded)
    monkeypatch.setenv("NANOGPT_CACHE", str(tmp_path / "other"))
    with pytest.raises(UserError, match="another tokenizer"):
        Trainer.resume(tmp_path / "run", train={"max_steps": 20})


def test_token_files_of_other_projects_need_a_tokenizer_by_name(bucket, capsys, tmp_path):
    bucket.memory.store.clear()
    for name in ("corpus_train_000001.bin", "corpus_train_000002.bin", "corpus_val_000000.bin"):
        bucket.write(name, np.arange(1, 9, dtype="<u2").repeat(60).tobytes())
    train = ["train", *SMALL, "--data.folder", URL, "--run", str(tmp_path / "run")]
    assert main(train) == 2
    said = capsys.readouterr()
    assert said.err == (
        f"nanogpt: {URL} has no tokenizer.json; name the tokenizer with data.tokenizer\n"
    )
    assert main([*train, "--data.tokenizer", "gpt2", "--train.max-steps=1"]) == 0
    said = capsys.readouterr()
    assert f"data  {URL} is in {cache_folder(URL)}" in said.out


def nothing(bucket: Bucket) -> None: ...


def lose_a_side(bucket: Bucket) -> None:
    bucket.remove("val.bin")


def lose_a_shard(bucket: Bucket) -> None:
    bucket.write("train-00000-of-00002.bin", b"ab")
    bucket.remove("train.bin")


def cut_the_sidecar(bucket: Bucket) -> None:
    bucket.write("train.json", b"{")


def change_a_bit(bucket: Bucket) -> None:
    content = bytearray(bucket.memory.cat_file("/bucket/data/train.bin"))
    content[8] ^= 1
    bucket.write("train.bin", bytes(content))


@pytest.mark.parametrize(
    ("spoil", "url", "expected"),
    [
        (nothing, "nowhere://x/y", "fsspec has no nowhere://; use s3, gs, hf or https"),
        (nothing, "memory://bucket/other", "there is no such file or folder; check the URL"),
        (lose_a_side, URL, f"{URL} has no token file val.bin; check the URL"),
        (lose_a_shard, URL, f"{URL} has no train-00001-of-00002.bin; copy it there"),
        (cut_the_sidecar, URL, f"{URL}/train.bin is damaged: it is not the file that was prepared"),
        (change_a_bit, URL, f"{URL}/train.bin is damaged: it is not the file that was prepared"),
    ],
)
def test_what_cannot_be_fetched_costs_one_line(bucket, spoil, url, expected, capsys, tmp_path):
    spoil(bucket)
    run = tmp_path / "run"
    assert main(["train", *SMALL, "--data.folder", url, "--run", str(run)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("nanogpt: ")
    assert said.count("\n") == 1
    assert expected in said
    assert not run.exists()
    assert main(["data", "fetch", url]) == 2
    assert capsys.readouterr().err == said
    assert not is_fetched(url)


def test_a_driver_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(UserError, match=r"Install s3fs to access S3; pip install 'nanogpt\[remote"):
        local_folder("s3://bucket/data")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (PermissionError("Forbidden"), r"may not be read \(Forbidden\); check the credentials"),
        (ConnectionError("no route"), r"cannot be read \(ConnectionError: no route\)"),
        (RuntimeError("of a driver"), r"cannot be read \(RuntimeError: of a driver\)"),
    ],
)
def test_what_drivers_raise_becomes_one_line(bucket, monkeypatch, error, expected):
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(bucket.memory, "ls", fail)
    with pytest.raises(UserError, match=expected):
        local_folder(URL)


def test_a_full_disk_here_is_not_blamed_on_the_url(bucket, monkeypatch):
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nanogpt.text.remote.fetch_token_file", full)
    with pytest.raises(OSError, match="No space left"):
        local_folder(URL)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no locks for folders")
def test_processes_of_a_machine_fetch_once(prepared, tmp_path):
    """Four at once, each of which says which files it read."""
    script = tmp_path / "fetch.py"
    script.write_text(
        "import sys\n"
        "import nanogpt.text.remote as remote\n"
        "plain = remote.fetch_token_file\n"
        "def noting(folder, name, place):\n"
        "    print(name, flush=True)\n"
        "    return plain(folder, name, place)\n"
        "remote.fetch_token_file = noting\n"
        "remote.local_folder(sys.argv[1])\n"
    )
    command = [sys.executable, str(script), f"file://{prepared}"]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    said = [process.communicate()[0].split() for process in running]
    assert [process.returncode for process in running] == [0] * 4
    assert sorted(said, key=len) == [[], [], [], ["train.bin", "val.bin"]]


@pytest.fixture
def server(prepared: Path) -> Iterator[str]:
    """A web server on this machine that lists its folder, as those of many institutes do."""
    pytest.importorskip("aiohttp", reason="fsspec's https driver; comes with nanogpt[remote]")

    class Silent(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None: ...

    handler = partial(Silent, directory=str(prepared.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/{prepared.name}"
        server.shutdown()
        thread.join()


def test_a_web_server_that_lists_its_folder_serves_token_files(server, prepared):
    place = local_folder(server)
    for name in ("train.bin", "val.json", "tokenizer.json"):
        assert (place / name).read_bytes() == (prepared / name).read_bytes()
    with pytest.raises(UserError, match="no such file or folder"):
        local_folder(f"{server}/elsewhere")


def test_a_server_that_is_not_there_costs_one_line(server):
    with pytest.raises(UserError, match=r"^http://127\.0\.0\.1:9/data cannot be read \(.*Connect"):
        local_folder("http://127.0.0.1:9/data")


def test_texts_are_not_prepared_at_a_url(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("my.txt").write_text("To be, or not to be.\n" * 100)
    assert main(["prepare", "my.txt", "--data.folder", "s3://bucket/my"]) == 2
    assert "is a URL: prepare the text in a folder, then copy that there" in capsys.readouterr().err
    assert {p.name for p in tmp_path.iterdir()} == {"my.txt"}


def test_the_explorer_fetches_nothing_by_itself(bucket, tmp_path):
    config = with_settings(small_run(Path()), data={"folder": URL})
    list(Trainer.start(tmp_path / "run", config).run())
    run = Run("run", str(tmp_path / "run"))
    assert len(training_text(run).ids) > 100
    (cache_folder(URL) / "fetched.json").unlink()
    with pytest.raises(UserError, match=f"nanogpt data fetch {URL}"):
        training_text(run)
