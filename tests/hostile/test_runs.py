"""Run folders: damaged, exchanged, full, in use by another process, or left by a crash."""

import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from itertools import cycle
from pathlib import Path

import pytest
import torch
from hostile.damage import (
    NO_OBJECT,
    NOT_A_FILE,
    VALUES,
    Damage,
    contents,
    cut,
    replaced,
)
from safetensors.torch import load_file, save_file

from nanogpt.cli import main
from nanogpt.config import load_config
from nanogpt.errors import UserError
from nanogpt.files import claimed, locked, read_json, sha256, write_json
from nanogpt.text.tokenizer import CharTokenizer, Tokenizer
from nanogpt.training.checkpoint import TrainState, find_checkpoint, load_state, load_tensors
from nanogpt.training.records import Step, read_metrics
from nanogpt.training.start import Trainer

from conftest import SMALL, TEXT, small_run

CHECKPOINT = "checkpoints/step-000012/"
FILES = {
    "state": CHECKPOINT + "state.json",
    "weights": CHECKPOINT + "model.safetensors",
    "moments": CHECKPOINT + "optimizer.safetensors",
    "settings": "config.toml",
    "tokenizer": "tokenizer.json",
    "metrics": "metrics.jsonl",
    "latest": "checkpoints/latest",
    "best": "checkpoints/best",
}

# Every command that opens a run, and what it reads there.
COMMANDS: dict[str, tuple[str, list[str]]] = {
    "resume": ("train --resume RUN", [*FILES][:-1]),
    "generate": ("generate RUN --sample.max-new-tokens=2", ["state", "weights", "tokenizer"]),
    "best": ("generate RUN --checkpoint=best --prompt=", ["state", "weights", "best"]),
    "chat": ("chat RUN --sample.max-new-tokens=2", ["state", "weights", "tokenizer"]),
    "evaluate": ("evaluate RUN", ["state", "weights", "tokenizer", "latest"]),
    "compare": ("compare RUN --out OUT", ["state", "weights", "tokenizer"]),
    "export": ("export RUN OUT", ["state", "weights", "tokenizer", "metrics", "latest"]),
    "heads": ("lab heads RUN --out OUT", ["state", "weights", "tokenizer", "latest"]),
    "tune": ("train --init RUN --run OUT --data.folder=DATA --train.max-steps=1",
             ["state", "weights", "tokenizer"]),
    "plan": ("plan --train.init=RUN", ["state", "latest"]),
}  # fmt: skip


def arguments(command: str, run: Path, data: Path) -> list[str]:
    """The arguments of one of the commands above."""
    places = {"RUN": str(run), "OUT": str(run.with_name("out")), "DATA": str(data)}
    line = COMMANDS[command][0]
    for name, place in places.items():
        line = line.replace(name, place)
    return line.split()


def refusal(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a command prints when it refuses; fails if it does anything else."""
    code = main(argv)
    error = capsys.readouterr().err
    assert code == 2, f"exit code {code}: {error}"
    assert error.startswith("nanogpt: "), error
    assert error.count("\n") == 1, error
    assert "Error" not in error, error
    return error


def wrong(path: tuple[str, ...], name: str, raw: str) -> bool:
    """Whether raw JSON cannot stand at this place of state.json, by its type and its range."""
    kinds = {f.name: f.type for f in fields(TrainState)}
    wanted = {"format": int, "step": int, "best_loss": float, "seconds": float}.get(path[-1])
    if raw == "":
        return path[-1] not in ("scaler", "tokenizer", "threads", "model.safetensors")
    value = json.loads(raw) if name != "too many digits" else None
    if name == "too many digits" or (value is None and path[-1] != "best_loss"):
        return True
    if wanted:
        number = type(value) is int or (type(value) is float and wanted is float)
        return value is not None and not (number and 0 <= value < 2**63 and path[-1] != "format")
    text = kinds.get(path[-1]) is str or path[-1] == "model.safetensors"
    return not isinstance(value, str if text else dict)


STATE_PATHS = [
    ("format",), ("state",), *(("state", f.name) for f in fields(TrainState)),
    ("config",), ("config", "model"), ("config", "train"), ("sha256",),
    ("sha256", "model.safetensors"),
]  # fmt: skip


def damages() -> Iterator[tuple[str, str, Callable[[bytes], bytes] | Damage]]:
    """Names of damages, the files that they are done to, and what is done to their content."""
    for kind in FILES:
        for name, damage in NOT_A_FILE.items():
            # Without `latest` the newest checkpoint is the latest; without config.toml that of the
            # checkpoint counts.
            if not (name != "folder" and kind in ("latest", "settings")):
                yield f"{kind} {name}", kind, damage
        for name, content in NO_OBJECT.items():
            lines = content + b"\n"  # without it, it is the last line of a crash
            if not (kind == "settings" and name in ("empty", "spaces")):
                yield f"{kind} {name}", kind, lambda _, lines=lines: lines
        if kind in ("latest", "best", "settings", "metrics"):
            continue
        for number in range(7):
            change = lambda content, number=number: [*cut(content, 8)][number]  # noqa: E731
            yield f"{kind} cut {number}", kind, change
    for path in STATE_PATHS:
        for name, raw in {**VALUES, "gone": ""}.items():
            if wrong(path, name, raw):
                change = lambda content, path=path, raw=raw: replaced(content, path, raw)  # noqa: E731
                yield f"{'.'.join(path)} {name}", "state", change


def cases() -> Iterator[object]:
    """Each damage with one of the commands that read the file, in turn."""
    turns = {
        kind: cycle([name for name, (_, reads) in COMMANDS.items() if kind in reads])
        for kind in FILES
    }
    for name, kind, damage in damages():
        command = next(turns[kind])
        yield pytest.param(kind, damage, command, id=f"{command}: {name}")


CASES = [*cases()]


def test_there_are_many_cases():
    assert len(CASES) > 250


@pytest.fixture
def run(small_trained_run: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run of twelve steps, and somebody at the keyboard of a chat."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("DUKE\n/quit\n"))
    return small_trained_run


@pytest.mark.parametrize(("kind", "damage", "command"), CASES)
def test_a_damaged_run_is_refused_in_a_line(kind, damage, command, run, prepared_once, capsys):
    """It names the file, and nothing is written anywhere."""
    path = run / FILES[kind]
    if damage in NOT_A_FILE.values():
        damage(path)
    else:
        path.write_bytes(damage(path.read_bytes()))
    before = contents(run.parent)
    error = refusal(arguments(command, run, prepared_once), capsys)
    assert path.name in error
    assert contents(run.parent) == before


@pytest.mark.parametrize("command", sorted(COMMANDS.keys() - {"compare"}))  # test_compare has that
def test_a_whole_run_is_opened(command, run, prepared_once, capsys):
    assert main(arguments(command, run, prepared_once)) == 0, capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_a_run_without_a_checkpoint_says_so(command, run, prepared_once, capsys):
    shutil.rmtree(run / "checkpoints")
    if command == "resume":
        assert main(arguments(command, run, prepared_once)) == 0  # it starts again
    else:
        assert "has no checkpoint" in refusal(arguments(command, run, prepared_once), capsys)


@pytest.mark.parametrize("name", [
    "../../other/checkpoints/step-000012", "/", ".", "..", "", "step-000012/", "step-999999",
    "step-000012\nstep-000012", "9" * 5000, "step-" + "9" * 5000, "step-٣", "\x00",
])  # fmt: skip
@pytest.mark.parametrize("pointer", ["latest", "best"])
def test_a_pointer_leads_to_a_folder_beside_it_and_nowhere_else(name, pointer, run, capsys):
    shutil.copytree(run, run.parent / "other")
    (run / "checkpoints" / pointer).write_text(name)
    argv = ["generate", str(run), "--checkpoint", pointer]
    assert f"checkpoints/{pointer} names" in refusal(argv, capsys)
    if pointer == "latest":
        assert f"checkpoints/{pointer} names" in refusal(["train", "--resume", str(run)], capsys)


def test_without_its_pointer_the_newest_checkpoint_is_the_latest(prepared, tmp_path):
    """It used to begin again at step 0, and to empty the metrics."""
    list(Trainer.start(tmp_path / "run", small_run(prepared)).run())
    before = read_metrics(tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "latest").unlink()
    trainer = Trainer.resume(tmp_path / "run")
    assert trainer.state.step == 12
    assert read_metrics(tmp_path / "run") == before
    with pytest.raises(UserError, match="holds a run"):
        Trainer.start(tmp_path / "run", small_run(prepared))


def test_a_missing_best_is_not_called_an_untrained_run(run, capsys):
    (run / "checkpoints" / "best").unlink()
    argv = ["generate", str(run), "--checkpoint=best"]
    assert "checkpoints/best is missing; use the latest checkpoint" in refusal(argv, capsys)


def test_the_clean_up_removes_only_what_a_run_made(prepared, tmp_path):
    checkpoints = tmp_path / "run" / "checkpoints"
    copy, link, kept = checkpoints / "step-000001-mine", checkpoints / "step-000002", tmp_path / "k"
    for folder in (copy, kept, checkpoints / ".step-000003.abcd", checkpoints / "step-000003"):
        folder.mkdir(parents=True)
        (folder / "file").write_text("x")
    link.symlink_to(kept)
    (checkpoints / "step-000000").write_text("a file")
    shutil.rmtree(checkpoints / "step-000003")  # a checkpoint there would be one to go on from
    list(Trainer.start(tmp_path / "run", small_run(prepared, max_steps=6)).run())
    names = {path.name for path in checkpoints.iterdir()}
    assert {"step-000001-mine", "step-000002", "step-000000"} < names
    assert not [name for name in names if name.startswith(".")]
    assert (copy / "file").exists()
    assert (kept / "file").exists()


def test_a_kill_in_the_clean_up_leaves_no_half_checkpoint(prepared, tmp_path, monkeypatch):
    config = small_run(prepared, max_steps=9, eval_interval=99, checkpoint_interval=3)
    trainer = Trainer.start(tmp_path / "run", config)

    def killed(folder: Path, ignore_errors: bool = False) -> None:
        if folder.is_dir() and any(folder.iterdir()):
            next(folder.iterdir()).unlink()
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("nanogpt.training.checkpoint.shutil.rmtree", killed)
        list(trainer.run())
    checkpoints = tmp_path / "run" / "checkpoints"
    for checkpoint in checkpoints.glob("step-*"):
        assert load_tensors(checkpoint, "model.safetensors")
    assert list(checkpoints.glob(".step-*.old"))  # it was cut off
    list(Trainer.resume(tmp_path / "run").run())
    assert {p.name for p in checkpoints.iterdir()} == {"step-000009", "latest", "best"}


def rewritten(
    checkpoint: Path, name: str, change: Callable[[dict[str, torch.Tensor]], object]
) -> None:
    """Change tensors of a checkpoint, and the hash that state.json has of them."""
    path = checkpoint / name
    tensors = {key: tensor.clone() for key, tensor in load_file(path).items()}
    change(tensors)
    save_file(tensors, path)
    values = read_json(checkpoint / "state.json")
    values["sha256"][name] = sha256(path)
    write_json(checkpoint / "state.json", values)


TENSORS: dict[str, Callable[[dict[str, torch.Tensor]], object]] = {
    "one missing": lambda t: t.pop(min(t)),
    "one too many": lambda t: t.update({"h.0.attn.more.exp_avg": torch.zeros(3)}),
    "name without a dot": lambda t: t.update({"more": torch.zeros(3)}),
    "none at all": lambda t: t.clear() or t.update({"h.9.exp_avg": torch.zeros(1)}),
    "wrong shape": lambda t: t.update({max(t): torch.zeros(7, 7)}),
    "one number": lambda t: t.update({min(t): torch.tensor(0.0)}),
    "whole numbers": lambda t: t.update({min(t): t[min(t)].long()}),
    "half precision": lambda t: t.update({max(t): t[max(t)].half()}),
    "complex numbers": lambda t: t.update({min(t): t[min(t)].to(torch.complex64)}),
}


@pytest.mark.parametrize("optimizer", ["fused-adamw", "adamw", "muon", "sgd"])
@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors"])
@pytest.mark.parametrize("change", TENSORS)
def test_tensors_that_do_not_fit_are_refused(
    change, name, optimizer, trained_run, tmp_path, capsys
):
    """Also where their file is whole: each optimizer has a state of its own."""
    if name == "model.safetensors" and optimizer != "sgd":
        return
    run = shutil.copytree(trained_run(optimizer=optimizer), tmp_path / "run")
    if change == "one missing" and (name, optimizer) == ("optimizer.safetensors", "sgd"):
        return  # it has one tensor a parameter; without it, the parameter begins anew
    rewritten(find_checkpoint(run), name, TENSORS[change])
    error = refusal(["train", "--resume", str(run)], capsys)
    assert name in error


@pytest.mark.parametrize("optimizer", ["fused-adamw", "adamw", "muon", "sgd"])
def test_the_state_of_every_optimizer_is_restored(optimizer, trained_run, tmp_path):
    run = shutil.copytree(trained_run(optimizer=optimizer), tmp_path / "run")
    trainer = Trainer.resume(run, train={"max_steps": 14})
    assert len([r for r in trainer.run() if isinstance(r, Step)]) == 2


EXCHANGED = {
    "as many tokens": lambda: Tokenizer.train(["Another text altogether. " * 99] * 9, 300),
    "more tokens": lambda: Tokenizer.train([TEXT], 320),
    "fewer tokens": lambda: Tokenizer.train([TEXT], 280),
    "characters": lambda: CharTokenizer.train([TEXT]),
}


@pytest.mark.parametrize("command", [c for c, (_, reads) in COMMANDS.items() if "state" in reads])
@pytest.mark.parametrize("kind", EXCHANGED)
def test_an_exchanged_tokenizer_is_noticed(kind, command, run, prepared_once, capsys):
    if command == "plan":
        return  # it reads no text
    EXCHANGED[kind]().save(run / "tokenizer.json")
    error = refusal(arguments(command, run, prepared_once), capsys)
    assert "tokenizer.json is not the tokenizer that the run began with; restore it" in error


def test_older_checkpoints_without_a_fingerprint_are_opened(run, capsys):
    """There the number of tokens is all that can be compared."""
    path = run / FILES["state"]
    path.write_bytes(replaced(path.read_bytes(), ("state", "tokenizer"), ""))
    assert main(["generate", str(run)]) == 0
    Tokenizer.train([TEXT], 320).save(run / "tokenizer.json")
    assert "tokenizer.json is not" in refusal(["generate", str(run)], capsys)


METRICS = {
    "broken": '{"step": 3, "lo', "list": "[3]", "text": '"x"', "null": "null", "empty": "",
    "no step": '{"val_loss": 1.0, "bits_per_byte": 1.0}', "no rate": '{"step": 1, "loss": 1.0}',
    "text as loss": '{"step": 3, "val_loss": "1", "bits_per_byte": 1.0}',
    "half a step": '{"step": 0.5, "val_loss": 1.0, "bits_per_byte": 1.0}',
    "digits": '{"step": ' + "9" * 5000 + ', "val_loss": 1.0, "bits_per_byte": 1.0}',
    "deep": "[" * 10_000, "sample of numbers": '{"step": 3, "sample": 4}',
}  # fmt: skip


@pytest.mark.parametrize("line", METRICS)
@pytest.mark.parametrize("command", ["resume", "export"])
def test_a_damaged_line_of_the_metrics_is_named_and_the_last_one_may_be_cut(
    line, command, run, prepared_once, capsys
):
    path = run / "metrics.jsonl"
    whole = path.read_text()
    path.write_text(METRICS[line] + "\n" + whole)
    error = refusal(arguments(command, run, prepared_once), capsys)
    assert "metrics.jsonl line 1 is damaged; remove that line" in error
    path.write_text(whole + METRICS[line])
    assert main(arguments(command, run, prepared_once)) == 0


# Locks.

HOLD = """
import sys
from nanogpt.files import locked
with locked(sys.argv[1]):
    print("locked", flush=True)
    sys.stdin.read()
"""


@contextmanager
def in_use(folder: Path) -> Iterator["subprocess.Popen[str]"]:
    """Inside, another process writes to the folder, as far as anyone can tell."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=-1, stdout=-1, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield process
    finally:
        process.kill()
        process.communicate()


STUDY = """
recipe = "tiny.toml"
seeds = [1, 2]
[budget]
steps = 4
[vary]
"model.position" = ["learned", "none"]
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, beside a text, a recipe and a study."""
    (tmp_path / "text.txt").write_text(TEXT)
    settings = [line.removeprefix("--") for line in SMALL]
    sections: dict[str, list[str]] = {"data": ['source = "text.txt"']}
    for setting in settings:
        section, _, rest = setting.partition(".")
        sections.setdefault(section, []).append(rest.replace("-", "_").replace("=", " = "))
    recipe = "\n".join(f"[{name}]\n" + "\n".join(lines) for name, lines in sections.items())
    (tmp_path / "tiny.toml").write_text(recipe)
    (tmp_path / "order.toml").write_text(STUDY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("nanogpt.files.PATIENCE", 0.2)
    return tmp_path


def test_what_another_process_writes_to_is_left_alone(here, capsys):
    """Training, resuming, preparing and a study; and the default folder of a run is the next."""
    main(["train", "tiny.toml", "--run", "run"])
    capsys.readouterr()
    for folder, command in {
        "run": "train --resume run",
        "new": "train tiny.toml --run new",
        "tokens": "prepare text.txt --data.folder=tokens --data.vocab-size=300",
        "studies/order": "lab run order.toml",
    }.items():
        Path(folder).mkdir(parents=True, exist_ok=True)
        before = contents(here)
        with in_use(here / folder) as process:
            assert "another process is writing to" in refusal(command.split(), capsys)
            assert contents(here) == before
            process.kill()  # a crash leaves no lock
            process.wait()
            if folder != "studies/order":  # test_lab runs studies
                assert main(command.split()) == 0
    Path("runs/tiny").mkdir(parents=True)
    with in_use(here / "runs" / "tiny"):
        assert main(["train", "tiny.toml"]) == 0
    assert Path("runs/tiny-2/checkpoints/latest").exists()
    assert not any(Path("runs/tiny").iterdir())


def test_a_lock_leaves_no_file_and_may_be_taken_twice_by_one_process(tmp_path):
    with claimed(tmp_path / "a" / "b"), locked(tmp_path / "a" / "b"):
        with in_use(tmp_path):  # another folder
            pass
        assert contents(tmp_path) == {"a": None, "a/b": None}
    assert contents(tmp_path) == {}


# A full disk.


@contextmanager
def full_above(size: int) -> Iterator[None]:
    """Inside, no file can grow beyond so many bytes; the error is EFBIG instead of ENOSPC."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", [0, 400, 4000, 20_000, 40_000])
def test_a_full_disk_ends_training_in_a_line_and_leaves_the_last_checkpoint(
    size, prepared, tmp_path, capsys
):
    run = tmp_path / "run"
    trainer = Trainer.start(run, small_run(prepared))
    for record in trainer.run():
        if record.step == 6:
            trainer.stop()
    before = contents(run / "checkpoints")
    with full_above(size):
        error = refusal(["train", "--resume", str(run)], capsys)
    assert "File too large; check path, space and rights" in error
    assert contents(run / "checkpoints") == before
    assert main(["train", "--resume", str(run)]) == 0
    assert load_state(find_checkpoint(run))[0].step == 12


@pytest.mark.parametrize("size", [0, 700, 4000, 40_000])
def test_a_full_disk_leaves_no_part_of_an_export(size, run, capsys):
    out = run.parent / "out"
    for place in ("new", "empty"):
        if place == "empty":
            out.mkdir()
        with full_above(size):
            assert "File too large" in refusal(["export", str(run), str(out)], capsys)
        assert out.exists() is (place == "empty")
        assert {p.name for p in run.parent.iterdir()} - {"out"} == {"run"}
    assert main(["export", str(run), str(out)]) == 0


@pytest.mark.parametrize("size", [0, 500, 6000])
def test_a_full_disk_leaves_no_tokens_under_their_final_names(size, here, capsys):
    argv = ["prepare", "text.txt", "--data.folder=tokens", "--data.vocab-size=300"]
    with full_above(size):
        assert "File too large" in refusal([*argv, "--processes=1"], capsys)
    assert not [p for p in here.glob("tokens/*") if p.name != ".unfinished"]
    assert main(argv) == 0


# What a crash or a refusal leaves.

LATE = {
    "text too short": ["--model.context-length=20000"],
    "no such character": ["--data.tokenizer=char", "--sample.prompt=€"],
    "frozen nothing": ["--train.freeze=h.9.*"],
    "frozen everything": ["--train.freeze=*"],
    "documents not apart": ["--data.tokenizer=char", "--data.batches=packed"],
    "no weights": ["--init", "nowhere"],
}


@pytest.mark.parametrize("place", ["run", "deep/in/run", "empty"])
@pytest.mark.parametrize("mistake", LATE)
def test_a_refusal_after_preparing_leaves_the_folder_as_it_was(mistake, place, here, capsys):
    Path("empty").mkdir()
    before = contents(here)
    argv = ["train", "tiny.toml", "--run", place]
    refusal([*argv, *LATE[mistake]], capsys)
    assert contents(here) == before
    assert main(argv) == 0


def killed_in_preparing(run: Path) -> None:
    """What a kill leaves then."""
    (run / "data" / ".unfinished").mkdir(parents=True)
    (run / "data" / ".unfinished" / "journal.json").write_text('{"cut')
    (run / "data" / "train-00000-of-00002.bin").write_bytes(b"\0\0")


def killed_at_its_start(run: Path) -> None:
    """After its settings were written, and in the middle of its tokenizer."""
    killed_in_preparing(run)
    (run / "config.toml").write_text("[train]\nlr = 1e9\n")
    (run / ".tokenizer.json.ab12_x").write_text("{")


def out_of_memory(run: Path) -> None:
    """At the first step."""
    assert main(["train", "tiny.toml", "--run", str(run)]) == 0
    shutil.rmtree(run / "checkpoints")


@pytest.mark.parametrize("place", ["runs/tiny", "mine"])
@pytest.mark.parametrize("end", [killed_in_preparing, killed_at_its_start, out_of_memory])
def test_what_ended_before_its_first_checkpoint_can_be_started_again(end, place, here, capsys):
    end(here / place)
    for name in ("loss.png", "samples.md"):
        (here / place / name).unlink(missing_ok=True)
    argv = ["train", "tiny.toml", *(["--run", place] if place == "mine" else [])]
    assert main(argv) == 0, capsys.readouterr().err
    assert find_checkpoint(here / place).name == "step-000003"
    assert not Path("runs/tiny-2").exists()


@pytest.mark.parametrize("name", [
    "notes.txt", "data/notes.txt", "data/mine.bin", "config.toml.bak", "checkpoints/step-000001/x",
    "training.json",
])  # fmt: skip
def test_a_folder_with_something_else_in_it_is_never_taken(name, here, capsys):
    path = here / "run" / name
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    before = contents(here)
    error = refusal(["train", "tiny.toml", "--run", "run"], capsys)
    assert "is not empty; choose another --run" in error
    assert contents(here) == before


def test_a_run_that_was_killed_after_its_last_step_gets_its_report(run, capsys):
    """However often it was resumed, it had no loss.png and no samples.md."""
    assert not (run / "loss.png").exists()
    assert main(["train", "--resume", str(run)]) == 0
    assert "is finished" in capsys.readouterr().out
    assert "## At the end" in (run / "samples.md").read_text()
    assert (run / "loss.png").stat().st_size > 1000


# What may change while a run is stopped.


def test_a_run_can_be_extended_and_its_schedule_is_that_of_the_new_number(trained_run, tmp_path):
    """By an option, or in config.toml, which used to be ignored without a word."""
    runs = [shutil.copytree(trained_run(), tmp_path / name) for name in ("option", "edited")]
    toml = runs[1] / "config.toml"
    toml.write_text(toml.read_text().replace("max_steps = 12 ", "max_steps = 20 "))
    assert main(["train", "--resume", str(runs[0]), "--train.max-steps=20"]) == 0
    assert main(["train", "--resume", str(runs[1])]) == 0
    tensors = [load_tensors(find_checkpoint(run), "model.safetensors") for run in runs]
    assert all(torch.equal(tensors[0][key], tensors[1][key]) for key in tensors[0])
    assert find_checkpoint(runs[0]).name == "step-000020"
    assert load_config(runs[0] / "config.toml").train.max_steps == 20
    rates = [r["lr"] for r in read_metrics(runs[0]) if "lr" in r]
    assert rates[12] > rates[11]  # cosine over 20 steps is higher there than at the end of 12


@pytest.mark.parametrize(("given", "complaint"), [
    ("--train.max-steps=5", "max_steps=5, but .* has done 12 steps: use at least as many"),
    ("--train.lr=1e-4", "train.lr is fixed when a run begins; only data.folder, train.max_st"),
    ("--model.n-layer=9", "model.n_layer is fixed"),
    ("--train.max-steps=many", "train.max_steps='many' should be of type int"),
    ("--data.folder=nowhere", "nowhere is not there; name the folder of the token files"),
    ("--run=other", "--resume continues with the settings of the run"),
])  # fmt: skip
def test_nothing_else_of_a_run_can_change(given, complaint, run, capsys):
    before = contents(run)
    error = refusal(["train", "--resume", str(run), given], capsys)
    assert re.search(complaint, error), error
    assert contents(run) == before


def test_an_edited_setting_that_cannot_change_is_refused(run, capsys):
    toml = run / "config.toml"
    toml.write_text(toml.read_text().replace("lr = 0.001 ", "lr = 0.5 "))
    error = refusal(["train", "--resume", str(run)], capsys)
    assert "config.toml: train.lr is fixed when a run begins" in error


def test_moved_data_can_be_named(prepared, tmp_path, capsys):
    run = tmp_path / "run"
    list(Trainer.start(run, small_run(prepared, max_steps=2)).run())
    prepared.rename(tmp_path / "moved")
    error = refusal(["train", "--resume", str(run)], capsys)
    assert "prepared is not there; name the folder of the token files with --data.folder" in error
    moved = f"--data.folder={tmp_path / 'moved'}"
    assert main(["train", "--resume", str(run), moved, "--train.max-steps=4"]) == 0
    assert load_state(find_checkpoint(run))[1].data.folder == str(tmp_path / "moved")
