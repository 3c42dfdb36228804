"""The command line: it answers at once, and every mistake costs one line and nothing on disk."""

import io
import json
import math
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from nanogpt.cli import COMMANDS, main
from nanogpt.cli.settings import print_json
from nanogpt.config import SampleConfig, load_config
from nanogpt.text.batches import BATCHES
from nanogpt.text.corpus import Document, split_rule
from nanogpt.text.formats import gpt2_tokenizer, load_tokenizer
from nanogpt.text.tokenizer import CharTokenizer, Tokenizer
from nanogpt.training.checkpoint import find_checkpoint
from nanogpt.training.load import load
from nanogpt.training.records import read_metrics
from nanogpt.training.start import Trainer

from conftest import SMALL, TEXT, small_run


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty working directory."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def run(prepared, here) -> Path:
    """A finished run."""
    folder = here / "run"
    list(Trainer.start(folder, small_run(prepared, max_steps=2)).run())
    return folder


def files_in(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_help_answers_without_loading_anything_heavy():
    """What takes time is importing; `nanogpt --help` imports nothing but the standard library."""
    code = (
        "import sys; from nanogpt.cli import main; main(['--help']);"
        "print([m for m in ('torch', 'numpy', 'rich', 'regex', 'matplotlib') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.splitlines()[-1] == "[]"
    assert all(command in out.stdout for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command, capsys):
    assert main([command, "--help"]) == 0
    assert "usage: nanogpt " + command in capsys.readouterr().out


CHARS = ["--tokenizer", "chars.json"]

MISTAKES = {
    "unknown command": (["trian"], "'trian' is not a command: did you mean train?"),
    "unknown option": (
        ["train", "--model.n-layre", "3"],
        "--model.n-layre is not an option: did you mean --model.n-layer?",
    ),
    "no spread": (["train", "--model.init_std", "-1"], "init_std=-1.0: use a positive number"),
    "wrong type": (["train", "--model.n-layer", "x"], "model.n_layer='x' should be of type int"),
    "heads do not divide": (
        ["train", "--model.n-embd", "100"],
        "model.n_embd=100 is not divisible by model.n_head=12: use n_head=10 or n_embd=96",
    ),
    "unknown variant": (["train", "--model.position", "rop"], "model.position='rop' is unknown"),
    "unknown device": (["train", "--train.device", "gpu"], "did you mean cpu?"),
    "unknown recipe": (["train", "dmeo"], "recipe='dmeo' is unknown: did you mean demo?"),
    "no recipe": (["train"], "name a recipe, as in `nanogpt train demo`, or settings"),
    "empty text to measure": (["evaluate", "run", "empty.txt"], "empty.txt is empty; "),
    "missing recipe": (["train", "no/such.toml"], "no/such.toml: no such recipe"),
    "recipe with unknown key": (["train", "bad.toml"], "bad.toml: train.lrr is not a setting"),
    "missing text": (["prepare", "none.txt"], "none.txt: no such file; check the path"),
    "empty text": (["prepare", "empty.txt"], "empty.txt is empty; put some text in it"),
    "empty folder": (["prepare", "folder"], "folder has no .txt or .md or .jsonl"),
    "text of one character": (["prepare", "one.txt"], "one.txt holds too little text to split"),
    "binary": (["prepare", "binary.txt"], "binary.txt is not UTF-8 text (byte 0)"),
    "bad jsonl": (["prepare", "bad.jsonl"], 'bad.jsonl line 1 is not a JSON object with a "text"'),
    "missing tokenizer": (["prepare", "--data.tokenizer", "none.json"], "there is no tokenizer"),
    "small vocabulary": (["prepare", "--data.vocab-size", "9"], "data.vocab_size=9: use at least"),
    "data not prepared": (["train", "--data.folder", "none"], "make them with `nanogpt prepare`"),
    "no run": (["generate", "none"], "none: no such run folder"),
    "no checkpoint": (["generate", "folder"], "folder has no checkpoint yet; train it first"),
    "resume nothing": (["train", "--resume", "none"], "none: no such run folder"),
    "resume with settings": (["train", "--resume", "run", "--train.lr", "1"], "train.lr is fixed"),
    "no samples": (["generate", "run", "--num-samples", "0"], "--num-samples 0: use at least 1"),
    "which checkpoint": (["generate", "run", "--checkpoint", "x"], "invalid choice: 'x'"),
    "no batch": (["evaluate", "run", "--batch-size", "0"], "--batch-size 0: use at least 1"),
    "unknown weights": (["generate", "run", "--weights", "int4"], "invalid choice: 'int4'"),
    "top-p": (["generate", "run", "--sample.top-p", "0"], "sample.top_p=0.0: use a share above 0"),
    "min-p": (["generate", "run", "--sample.min-p", "1"], "sample.min_p=1.0: use a share from 0"),
    "penalty": (["generate", "run", "--sample.repetition-penalty", "0"], "use a number from 0.01"),
    "nowhere to export": (["export", "run", "run"], "exists and is not empty; name a"),
    "nothing to export": (["export", "none", "new"], "none: no such run folder"),
    "key heads": (
        ["train", *SMALL, "--model.n-head=4", "--model.n-kv-head=3"], "use a divisor of n_head: 1,",
    ),
    "window": (["train", *SMALL, "--model.window", "-1"], "model.window=-1: use at least 0"),
    "negative temperature": (["generate", "run", "--sample.temperature", "-1"], "use 0 for"),
    "prompt that is no text": (["generate", "run", "--prompt", "caf\udce9"], "not UTF-8 text"),
    "text that is no text": (["tokenizer", "encode", "\udce9", *CHARS], "not UTF-8 text"),
    "targets": (["train", *SMALL, "--train.targets", "low"], "train.targets='low': use losses"),
    "wrong boolean": (["train", *SMALL, "--model.bias", "maybe"], "model.bias='maybe' should be"),
    "unknown norm": (["train", *SMALL, "--model.norm", "rsm"], "did you mean rms?"),
    "unknown mlp": (["train", *SMALL, "--model.mlp", "relu"], "did you mean relu2?"),
    "unknown compile": (["train", *SMALL, "--train.compile", "yes"], "train.compile='yes'"),
    "odd heads": (
        ["train", *SMALL, "--model.position=rope", "--model.n-embd=9"], "needs an even head size",
    ),
    "nothing to begin with": (["train", *SMALL, "--train.init", "none"], "none: no such run"),
    "freeze": (["train", *SMALL, "--train.freeze", "x"], "'x' fits no parameter"),
    "unknown batches": (["train", *SMALL, "--data.batches", "pack"], "did you mean packed?"),
    "no data to show": (["data", "show", "none"], "none: no such folder; prepare some data first"),
    "tokens to show": (["data", "show", "--context-length", "0"], "--context-length 0: use at"),
    "which batch": (["data", "show", "--number", "-1"], "--number -1: use at least 0"),
    "unknown data action": (["data", "shwo"], "'shwo' is not an action: did you mean show?"),
    "nothing to compare": (["tokenizer", "compare", ""], "the text is empty; give some words"),
    "stats of characters": (["tokenizer", "stats", "abc.txt", *CHARS], "nothing is merged"),
    "no processes": (["prepare", "--processes", "-1"], "--processes -1: use 1 to "),
    "stride beyond": (
        ["train", *SMALL, "--data.batches=sliding", "--data.stride=99"], "data.stride=99: use 0 to",
    ),
    "huge seed": (["generate", "run", "--sample.seed", str(2**64)], "use a number below 2**63"),
    "huge model": (["train", *SMALL, "--model.n-embd", str(10**12)], "n_embd=1000000000000: use"),
    "device number": (["train", *SMALL, "--train.device", "cpu:99x"], "is not on this machine"),
    "endless demo": (["demo", "--seconds", "inf"], "--seconds inf: use a finite number"),
    "demo on data": (["demo", "--data.folder", "data"], "the demo prepares its own data; use"),
    "prompt unknown to the text": (
        ["train", "--run", "new", "--data.source=abc.txt", "--data.tokenizer=char",
         "--sample.prompt", "ROMEO", *SMALL],
        "sample.prompt='ROMEO': the character 'R' is not in this vocabulary",
    ),
    "text too short for the context": (
        ["train", "--run", "new", "--data.source=abc.txt", *SMALL, "--model.context-length=999"],
        "too few for model.context_length=999: add text or use at most",
    ),
    "long id": (["tokenizer", "decode", "9" * 5000, *CHARS], "is not an id"),
    "folder for a file": (["tokenizer", "train", "abc.txt", "--out=folder"], "folder is a folder"),
    "stride": (["evaluate", "run", "--stride", "17"], "stride=17: use 1 to the context length, 16"),
    "unknown character": (["tokenizer", "encode", "xyz", *CHARS], "the character 'x' is not"),
    "unknown id": (["tokenizer", "decode", "99", *CHARS], "id 99 is not in the vocabulary"),
    "no id": (["tokenizer", "decode", "-1", *CHARS], "'-1' is not an id; use whole numbers"),
    "word for an id": (["tokenizer", "decode", "a", *CHARS], "'a' is not an id"),
    "damaged tokenizer": (
        ["tokenizer", "encode", "a", "--tokenizer=empty.txt"], "empty.txt is not valid JSON",
    ),
    "unknown action": (["tokenizer", "lern"], "'lern' is not an action"),
    "run exists": (["train", "--run", "run", *SMALL], "run is not empty; choose another --run"),
    "run in the way": (["train", "--run", "one.txt", *SMALL], "one.txt"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_costs_one_line_and_nothing_on_disk(mistake, run, here, capsys):
    (here / "empty.txt").write_text("")
    (here / "one.txt").write_text("D")
    (here / "abc.txt").write_text("abc " * 500)
    (here / "binary.txt").write_bytes(b"\xff\xfe")
    (here / "bad.jsonl").write_text('{"txt": 1}\n')
    (here / "bad.toml").write_text("[train]\nlrr = 1\n")
    (here / "folder").mkdir()
    CharTokenizer("abc").save(here / "chars.json")
    before = files_in(here)
    arguments, message = MISTAKES[mistake]
    assert main(arguments) == 2
    complaint = capsys.readouterr().err
    assert complaint.startswith("nanogpt: ")
    assert complaint.count("\n") == 1
    assert message in complaint
    assert files_in(here) == before


@pytest.mark.parametrize("command", ["generate", "evaluate", "train"])
@pytest.mark.parametrize("damage", [b"", b"{", b"garbage" * 99])
def test_a_corrupted_checkpoint_costs_one_line(command, damage, run, here, capsys):
    path = find_checkpoint(run) / "model.safetensors"
    path.write_bytes(damage)
    before = files_in(here)
    assert main([command, *(["--resume"] if command == "train" else []), "run"]) == 2
    complaint = capsys.readouterr().err
    assert "model.safetensors is damaged; restore it or use another checkpoint" in complaint
    assert complaint.count("\n") == 1
    assert files_in(here) == before


def test_a_text_shorter_than_the_context_costs_one_line(prepared, here, capsys):
    """Also the validation text."""
    before = files_in(here)
    assert (
        main(["train", *SMALL, "--data.folder", str(prepared), "--model.context-length=99999"]) == 2
    )
    complaint = capsys.readouterr().err
    assert "too few for model.context_length=99999: add text or use at most" in complaint
    assert complaint.count("\n") == 1
    assert files_in(here) == before


@pytest.mark.parametrize("existed", [True, False])
def test_a_run_that_fails_to_start_leaves_nothing(here, existed):
    (here / "my.txt").write_text("abc " * 500)
    if existed:
        (here / "run").mkdir()
    arguments = ["--run", "run", "--data.source", "my.txt", "--model.context-length", "9999"]
    assert main(["train", *arguments]) == 2
    assert (here / "run").exists() is existed
    assert set(files_in(here)) == {here / "my.txt"}


def test_a_corrupted_token_file_costs_one_line(prepared, here, capsys):
    (prepared / "val.bin").write_bytes(b"\x00" * 7)
    assert main(["train", "--data.folder", str(prepared)]) == 2
    assert "val.bin has 7 bytes where val.json promises" in capsys.readouterr().err
    assert not files_in(here)


def test_an_id_beyond_the_vocabulary_in_a_token_file_costs_one_line(prepared, here, capsys):
    content = (prepared / "train.bin").read_bytes()
    (prepared / "train.bin").write_bytes(b"\xff\xff" + content[2:])
    assert main(["train", "--data.folder", str(prepared)]) == 2
    assert "train.bin holds id 65535, beyond the vocabulary of 300" in capsys.readouterr().err
    assert not files_in(here)


def test_a_prompt_a_character_model_cannot_read_costs_one_line(here, capsys):
    (here / "my.txt").write_text("abc " * 500)
    arguments = ["--data.source", "my.txt", "--data.tokenizer", "char", "--sample.prompt", "a"]
    assert main(["train", "--run", "run", *arguments, *SMALL]) == 0
    capsys.readouterr()
    before = files_in(here)
    assert main(["generate", "run", "--prompt", "z"]) == 2
    captured = capsys.readouterr()
    assert "sample.prompt='z': the character 'z' is not in this vocabulary: use" in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert files_in(here) == before


def test_your_own_text_from_file_to_generated_text(here, capsys):
    """The whole way, one command after the other."""
    (here / "my.txt").write_text(TEXT)
    assert main(["prepare", "my.txt", "--data.vocab-size", "300"]) == 0
    assert {p.name for p in (here / "data" / "my").iterdir()} == {
        "train.bin", "train.json", "val.bin", "val.json", "tokenizer.json", "prepared.json"
    }  # fmt: skip
    other = ["--data.source", "shakespeare"]
    assert main(["train", "demo", "--data.folder", "data/my", *other, *SMALL]) == 2
    assert "--data.source does nothing here" in capsys.readouterr().err
    assert main(["train", "demo", "--data.folder", "data/my", *SMALL]) == 0
    assert load_config(here / "runs" / "demo" / "config.toml").data.source == str(here / "my.txt")
    assert (here / "runs" / "demo" / "loss.png").read_bytes()[:4] == b"\x89PNG"
    assert "## At the end" in (here / "runs" / "demo" / "samples.md").read_text()
    capsys.readouterr()
    arguments = ["--prompt", "DUKE:", "--num-samples", "2", "--sample.max-new-tokens", "5"]
    assert main(["generate", "runs/demo", *arguments]) == 0
    first, second = capsys.readouterr().out.split("─" * 40 + "\n")
    assert first.startswith("DUKE:")
    assert second.startswith("\nDUKE:") or second.startswith("DUKE:")
    assert first.strip() != second.strip()
    assert main(["generate", "runs/demo", *arguments]) == 0
    assert capsys.readouterr().out.startswith(first)  # same seed, same text
    assert main(["evaluate", "runs/demo"]) == 0
    assert "bits per byte" in capsys.readouterr().out
    assert main(["evaluate", "runs/demo", "my.txt", "--stride", "8"]) == 0
    assert "windows of 8 tokens every 8" in capsys.readouterr().out
    assert main(["train", "demo", "--data.folder", "data/my", *SMALL]) == 0
    assert (here / "runs" / "demo-2").is_dir()  # no run ever overwrites another


def test_a_text_from_a_pipe_is_kept_beside_its_tokens(here, monkeypatch, capsys):
    def pipe(text: str) -> io.TextIOWrapper:
        return io.TextIOWrapper(io.BytesIO(text.encode()))

    monkeypatch.setattr("sys.stdin", pipe(TEXT))
    assert main(["prepare", "-", "--data.tokenizer", "char"]) == 0
    assert (here / "data" / "stdin" / "source.txt").read_text() == TEXT
    (here / "my.txt").write_text(TEXT)
    assert main(["prepare", "my.txt", "--data.tokenizer", "char"]) == 0
    tokens = [(here / "data" / name / "train.bin").read_bytes() for name in ("stdin", "my")]
    assert tokens[0] == tokens[1]
    monkeypatch.setattr("sys.stdin", pipe(""))
    assert main(["prepare", "-", "--data.folder", "empty"]) == 2
    assert "is empty; put some text in it" in capsys.readouterr().err
    assert not (here / "empty").exists()


def test_a_vocabulary_smaller_than_asked_for_says_so(here, capsys):
    (here / "my.txt").write_text("ha " * 200)
    size = ["--vocab-size", "1000"]
    for arguments in (["prepare", "my.txt", "--data.vocab-size", "1000"],
                      ["tokenizer", "train", "my.txt", *size]):  # fmt: skip
        assert main(arguments) == 0
        out = capsys.readouterr().out
        assert re.search(r"\b2\d\d tokens, not 1,000: no more pairs occur in this text", out)
    assert main(["tokenizer", "train", "my.txt", "--kind", "char", *size]) == 0
    assert "not 1,000" not in capsys.readouterr().out


def test_the_tokens_of_another_text_are_not_overwritten(here, capsys):
    for name in ("a", "b"):
        (here / name).mkdir()
        (here / name / "my.txt").write_text(name + TEXT)
    assert main(["prepare", "a/my.txt", "--data.tokenizer", "char"]) == 0
    before = files_in(here)
    assert main(["prepare", "b/my.txt", "--data.tokenizer", "char"]) == 2
    assert "a/my.txt; name another folder with --data.folder" in capsys.readouterr().err
    assert files_in(here) == before
    assert main(["prepare", "a/my.txt", "--data.vocab-size", "300"]) == 0  # the same text may


def test_the_checkpoint_that_is_named_is_the_one_that_writes(prepared, here, capsys):
    trainer = Trainer.start(here / "run", small_run(prepared, max_steps=8, lr=1e-2, min_lr=0))
    for record in trainer.run():
        if record.step == 4:
            with torch.no_grad():
                trainer.model.wte.weight.normal_()
    texts = {}
    for name in ("latest", "best"):
        assert main(["generate", "run", "--checkpoint", name]) == 0
        texts[name] = capsys.readouterr().out
    assert texts["latest"] != texts["best"]


def test_names_with_brackets_are_shown_as_they_are(here, capsys):
    """Rich reads [draft] as markup, and [/b] as a mistake in it."""
    (here / "notes [draft]").mkdir()
    for n in range(3):
        (here / "notes [draft]" / f"[b]{n}.txt").write_text(TEXT[n:3000] + "[/i]")
    assert main(["prepare", "notes [draft]", "--data.vocab-size", "300"]) == 0
    shown = capsys.readouterr().out.replace("\n", "")
    assert "[b]0.txt" in shown
    assert "nanogpt train demo --data.folder 'data/notes [draft]'" in shown
    arguments = ["--run", "r[/x]$\\foo{$", "--data.folder", "data/notes [draft]"]
    assert main(["train", *arguments, *SMALL]) == 0


def test_a_prepared_folder_survives_a_failed_preparation(here, capsys):
    (here / "my.txt").write_text(TEXT)
    assert main(["prepare", "my.txt", "--data.tokenizer", "char"]) == 0
    before = files_in(here / "data")
    (here / "my.txt").write_text(TEXT + "é")
    tokenizer = ["--data.tokenizer", "data/my/tokenizer.json"]
    assert main(["prepare", "my.txt", *tokenizer]) == 2
    assert "the character 'é' is not in this vocabulary" in capsys.readouterr().err
    assert files_in(here / "data") == before


@pytest.mark.parametrize("source", ["folder", "texts.jsonl"])
def test_folders_and_jsonl_are_prepared_document_by_document(source, here):
    if source == "folder":
        (here / "folder").mkdir()
        for n in range(5):
            (here / "folder" / f"{n}.txt").write_text(TEXT[n * 900 : n * 900 + 900])
    else:
        lines = [json.dumps({"text": TEXT[n * 900 : n * 900 + 900]}) for n in range(5)]
        (here / "texts.jsonl").write_text("\n".join(lines))
    assert main(["prepare", source, "--data.folder", "out", "--data.vocab-size", "280"]) == 0
    sidecars = [
        json.loads((here / "out" / f"{name}.json").read_text()) for name in ("train", "val")
    ]
    assert sum(s["documents"] for s in sidecars) == 5
    assert sum(s["bytes"] for s in sidecars) == 4500


def test_tokenizer_train_encode_and_decode(here, capsys):
    (here / "my.txt").write_text(TEXT)
    assert main(["tokenizer", "train", "my.txt", "--vocab-size", "300", "--out", "t.json"]) == 0
    assert load_tokenizer(here / "t.json").vocab_size == 300
    capsys.readouterr()
    assert main(["tokenizer", "encode", "If kings hold é", "--tokenizer", "t.json"]) == 0
    ids = capsys.readouterr().out.split()
    assert main(["tokenizer", "decode", *ids, "--tokenizer", "t.json"]) == 0
    assert capsys.readouterr().out == "If kings hold é\n"


def test_tokenizer_explain_shows_every_merge(here, capsys):
    Tokenizer([(111, 119), (108, 256)]).save(here / "t.json")
    assert main(["tokenizer", "explain", "low é", "--tokenizer", "t.json"]) == 0
    shown = capsys.readouterr().out
    assert "   0  l o w\n   1  l ow\n   2  low\n      3 bytes, 1 tokens\n" in shown
    assert "   0  · <c3> <a9>\n" in shown
    CharTokenizer("low").save(here / "c.json")
    assert main(["tokenizer", "explain", "low", "--tokenizer", "c.json"]) == 2
    assert "nothing is merged" in capsys.readouterr().err


def test_text_comes_from_standard_input_too(here):
    (here / "my.txt").write_text(TEXT)
    command = [sys.executable, "-m", "nanogpt", "tokenizer"]
    subprocess.run([*command, "train", "my.txt"], check=True, capture_output=True)
    ids = subprocess.run(
        [*command, "encode", "-", "--tokenizer", "tokenizer.json"],
        input=b"fools\npay",
        capture_output=True,
    )
    text = subprocess.run(
        [*command, "decode", "--tokenizer", "tokenizer.json"], input=ids.stdout, capture_output=True
    )
    assert text.stdout == b"fools\npay\n"


def test_a_reader_that_has_seen_enough_is_no_error(run):
    command = f"{sys.executable} -m nanogpt generate {run} --num-samples 50 | head -n 1"
    out = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert "Traceback" not in out.stderr


def test_ctrl_c_while_preparing_leaves_nothing(here, monkeypatch, capsys):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("nanogpt.training.start.GPT", interrupted)
    assert main(["demo", "--run", "run", "--data.vocab-size=257"]) == 130
    assert capsys.readouterr().err == "\nstopped\n"
    assert not list(here.iterdir())


def test_a_bug_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr("nanogpt.cli.dispatch", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["train"])


def test_a_folder_that_cannot_be_written_is_named(here, prepared, capsys):
    (here / "file").write_text("in the way")
    assert main(["train", "--run", "file/run", "--data.folder", str(prepared), *SMALL]) == 2
    complaint = capsys.readouterr().err
    assert "file" in complaint
    assert complaint.count("\n") == 1


def test_compare_shows_one_text_cut_in_four_ways(here, capsys):
    text = "Unbelievable: naïve kings 🎭!"
    assert main(["tokenizer", "compare", text]) == 0
    shown = capsys.readouterr().out
    gpt2 = gpt2_tokenizer().encode(text)
    counts = [int(n) for n in re.findall(r"(\d+) tokens, \d", shown)]
    assert counts[:2] == [len(text), len(text.encode())]
    assert counts[3] == len(gpt2) < counts[2] < counts[0]
    assert f"{len(text.encode()) / len(gpt2):.2f} bytes per token" in shown
    assert shown.splitlines()[1].split("|") == [c.replace(" ", "·") for c in text]
    assert "Un|bel|iev|able|:" in shown


def test_compare_takes_a_tokenizer_of_ones_own(prepared, here, capsys):
    tokenizer = str(prepared / "tokenizer.json")
    assert main(["tokenizer", "compare", "kings", "--tokenizer", tokenizer]) == 0
    assert f"{tokenizer}, 300 tokens  " in capsys.readouterr().out


def test_stats_agree_with_encoding_the_text(here, capsys):
    (here / "my.txt").write_text(TEXT)
    assert main(["tokenizer", "stats", "my.txt", "--vocab-size", "600", "--out", "p/s.png"]) == 0
    shown = capsys.readouterr().out
    rule = split_rule([Document("my.txt", TEXT)], 0.1)
    sides = {side: d.text for side, d in rule.divide([Document("my.txt", TEXT)])}
    tokenizer = Tokenizer.train([sides["train"]], 600)
    numbers = {side: len(tokenizer.encode(text)) for side, text in sides.items()}
    tokens = re.search(r" tokens +([\d,]+) +([\d,]+)", shown)
    assert [int(n.replace(",", "")) for n in tokens.groups()] == [numbers["train"], numbers["val"]]
    per_byte = re.search(r"bytes per token +([\d.]+)", shown)
    assert float(per_byte[1]) == pytest.approx(len(sides["train"]) / numbers["train"], abs=1e-3)
    sizes = re.findall(r"([\d,]+) tokens  ([\d.]+) bytes per token", shown)
    assert [size for size, _ in sizes][:2] == ["256", "512"]
    assert sizes[0][1] == "1.00"
    assert [float(b) for _, b in sizes] == sorted(float(b) for _, b in sizes)
    assert (here / "p" / "s.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("source", ["example", "prepared", "run"])
def test_data_show_draws_every_kind_of_batch(source, prepared, run, here, capsys):
    where = {"example": [], "prepared": [str(prepared)], "run": [str(run)]}[source]
    assert main(["data", "show", *where, "--out", "b.png", "--context-length", "8"]) == 0
    shown = capsys.readouterr().out
    for kind in BATCHES:
        assert f"{kind}: " in shown
    assert shown.count("sees     ") == 3 * len(BATCHES)
    triangle = ["  " + " ".join("■" * n + "·" * (8 - n)) for n in range(1, 9)]
    assert "\n".join(triangle) in shown  # random windows: plainly causal
    assert (here / "b.png").read_bytes().startswith(b"\x89PNG")


def test_data_show_of_characters_leaves_out_what_needs_borders(here, capsys):
    (here / "my.txt").write_text(TEXT)
    assert main(["prepare", "my.txt", "--data.tokenizer", "char"]) == 0
    assert main(["data", "show", "data/my"]) == 0
    shown = capsys.readouterr().out
    assert "sliding: " in shown
    assert "packed: " not in shown


@pytest.mark.parametrize("kind", BATCHES)
def test_every_kind_of_batch_trains_and_is_evaluated(kind, prepared, here, capsys):
    arguments = ["--data.folder", str(prepared), "--run", "new", "--data.batches", kind, *SMALL]
    assert main(["train", *arguments, "--train.max-steps", "3"]) == 0
    steps = [r for r in read_metrics(here / "new") if "loss" in r]
    assert len(steps) == 3
    assert all(0 <= r["data_wait"] < 1 for r in steps)
    assert main(["evaluate", "new"]) == 0
    assert "bits per byte" in capsys.readouterr().out


def test_token_files_of_other_projects_train_as_they_are(here, capsys):
    ids = np.array(gpt2_tokenizer().encode(TEXT), dtype="<u2").tobytes()
    (here / "theirs").mkdir()
    for name in ("train", "val"):
        (here / "theirs" / f"{name}.bin").write_bytes(ids)
    arguments = ["train", "--data.folder", "theirs", "--run", "new", *SMALL]
    assert main(arguments) == 2
    assert "theirs has no tokenizer.json; name the tokenizer" in capsys.readouterr().err
    assert main([*arguments, "--data.tokenizer", "gpt2", "--train.max-steps", "2"]) == 0
    assert main(["evaluate", "new"]) == 0
    assert main(["train", "--resume", "new"]) == 0


def test_ctrl_c_in_prepare_says_that_it_goes_on(here, monkeypatch, capsys):
    (here / "my.txt").write_text(TEXT)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("nanogpt.text.prepare.install", interrupted)
        assert main(["prepare", "my.txt"]) == 130
    assert "stopped; the same command goes on from here" in capsys.readouterr().out
    assert main(["prepare", "my.txt"]) == 0
    assert {p.name for p in files_in(here / "data")} == {
        "prepared.json", "tokenizer.json", "train.bin", "train.json", "val.bin", "val.json",
    }  # fmt: skip


def test_tensorboard_shows_what_metrics_hold(prepared, here, capsys):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    arguments = ["--data.folder", str(prepared), "--run", "new", *SMALL]
    assert main(["train", *arguments, "--train.tensorboard", "true"]) == 0
    events = EventAccumulator(str(here / "new" / "tensorboard")).Reload()
    shown = [(e.step, e.value) for e in events.Scalars("step/loss")]
    metrics = [(r["step"], r["loss"]) for r in read_metrics(here / "new") if "loss" in r]
    assert [step for step, _ in shown] == [step for step, _ in metrics]
    assert [loss for _, loss in shown] == pytest.approx([loss for _, loss in metrics], rel=1e-6)
    assert len(events.Scalars("validation/val_loss")) == 2


def test_reached_targets_are_shown(prepared, here, capsys):
    arguments = ["--data.folder", str(prepared), "--run", "new", *SMALL]
    assert main(["train", *arguments, "--train.targets", "99, 0.1"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"step +3  reached 99\.0 after \d+\.\d s of training", shown)
    assert "reached 0.1" not in shown
    assert "compiled  no: the run is too short to earn it back" in shown


def test_fine_tuning_takes_shape_and_tokenizer_from_a_run(run, here, capsys):
    (here / "other.txt").write_text(TEXT.replace("kings", "fools"))
    arguments = ["--data.source", "other.txt", "--run", "tuned", "--train.max-steps", "2"]
    assert main(["train", "--init", "run", *arguments, "--train.sample-interval=0"]) == 0
    _, base, before = load(run)
    _, tuned, after = load(here / "tuned")
    assert tuned.to_dict() == base.to_dict()
    assert after.model == before.model
    assert "step      0               validation" in capsys.readouterr().out


def test_samples_of_a_batch_are_those_of_single_ones(run, capsys):
    common = ["generate", str(run), "--prompt", "DUKE", "--sample.max-new-tokens", "12"]
    assert main([*common, "--num-samples", "3"]) == 0
    together = capsys.readouterr().out.split("\n" + "─" * 40 + "\n")
    alone = []
    for n in range(3):
        assert main([*common, "--sample.seed", str(SampleConfig.seed + n)]) == 0
        alone.append(capsys.readouterr().out)
    assert [text.rstrip("\n") for text in together] == [text.rstrip("\n") for text in alone]
    assert main([*common, "--num-samples", "3", "--stream"]) == 0
    assert capsys.readouterr().out.split("\n" + "─" * 40 + "\n") == together


def test_a_prompt_comes_from_standard_input_and_a_stop_ends_the_text(run, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"DUKE:\nIf")))
    arguments = ["generate", str(run), "--prompt", "-", "--sample.temperature", "0"]
    assert main([*arguments, "--sample.max-new-tokens", "30"]) == 0
    whole = capsys.readouterr().out.removesuffix("\n")
    assert whole.startswith("DUKE:\nIf")
    stop = whole[len("DUKE:\nIf") :][3:6]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"DUKE:\nIf")))
    assert main([*arguments, "--sample.max-new-tokens", "30", "--stop", stop]) == 0
    shown = capsys.readouterr().out.removesuffix("\n")
    assert shown == whole[: whole.index(stop, len("DUKE:\nIf"))]


def test_explain_shows_each_token_with_its_probability_and_the_runners_up(run, capsys, monkeypatch):
    arguments = ["generate", str(run), "--prompt", "DUKE", "--sample.max-new-tokens", "5"]
    assert main([*arguments, "--explain"]) == 0
    text, heading, table = capsys.readouterr().out.partition(" token  probability")
    assert text.startswith("DUKE")
    rows = table.splitlines()[1:]
    assert heading
    assert len([row for row in rows[:5] if row.count("%") == 4]) == 5
    assert "before temperature and filters" in rows[5]
    printed = []
    monkeypatch.setattr("builtins.print", lambda *values, **_: printed.append(" ".join(values)))
    assert main([*arguments, "--explain", "--stream"]) == 0
    assert printed[0] == "DUKE"  # and then piece by piece, before the table
    assert len(printed) > 5
    assert "".join(printed).startswith(text.rstrip("\n"))


def chatting(run: Path, lines: list[str], monkeypatch, *arguments: str) -> None:
    typed = iter(lines)

    def read(prompt: str = "") -> str:
        print(prompt, end="")
        try:
            return next(typed)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", read)
    settings = ["--sample.max-new-tokens", "6", "--sample.temperature", "0"]
    assert main(["chat", str(run), *settings, *arguments]) == 0


def test_chat_goes_on_with_both_texts(run, monkeypatch, capsys):
    from nanogpt.generation import stream

    turns, seeds = [], []
    original = stream.stream

    def watched(reader, tokenizer, config, *rest):
        turns.append(list(reader.rows[0]))
        seeds.append(config.seed)
        return original(reader, tokenizer, config, *rest)

    monkeypatch.setattr(stream, "stream", watched)
    chatting(run, ["DUKE:", "FOOL:", "", "/reset", "KING"], monkeypatch)
    assert len(turns) == 4
    assert len(set(seeds[:3])) == 3  # the same words twice need not get the same answer
    first, second, third, fourth = turns
    assert second[: len(first)] == first
    assert len(second) >= len(first) + 6 + 1
    assert third[: len(second)] == second
    assert fourth[: len(first)] != first
    assert "a new text" in capsys.readouterr().out


def test_chat_settings_change_and_mistakes_do_not_end_it(run, monkeypatch, capsys):
    lines = ["/temperature 0.5", "/temperature -1", "/tempreature 1", "/top-k", "/settings",
             "/seed x", "DUKE"]  # fmt: skip
    chatting(run, lines, monkeypatch)
    captured = capsys.readouterr()
    assert "temperature is 0.5" in captured.out
    assert "/temperature 0.5   below 1 plays safe" in captured.out
    for complaint in (
        "sample.temperature=-1.0: use 0 for greedy",
        "/tempreature is not a command: did you mean temperature?",
        "/top_k needs a value; it is 50",
        "sample.seed='x' should be of type int",
    ):
        assert complaint in captured.err


def test_chat_takes_no_prompt(run, capsys):
    assert main(["chat", str(run), "--sample.prompt", "DUKE"]) == 2
    assert "in a chat you write it; leave the option out" in capsys.readouterr().err


def test_chat_ends_the_turn_on_ctrl_c_and_leaves_on_quit(run, monkeypatch, capsys):
    from nanogpt.generation import stream

    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(stream, "stream", interrupted)
    chatting(run, ["DUKE", "/quit", "never"], monkeypatch)
    assert capsys.readouterr().out.count("> ") == 2


@pytest.mark.parametrize("weights", ["float32", "bfloat16", "int8", "plain"])
def test_every_form_of_weights_generates_and_is_measured(run, weights, capsys):
    arguments = ["--weights", weights]
    settings = ["--prompt", "DUKE", "--sample.max-new-tokens", "4"]
    assert main(["generate", str(run), *settings, *arguments]) == 0
    assert main(["evaluate", str(run), *arguments]) == 0
    loss = float(re.search(r"loss +([\d.]+)", capsys.readouterr().out)[1])
    assert main(["evaluate", str(run)]) == 0
    assert float(re.search(r"loss +([\d.]+)", capsys.readouterr().out)[1]) == pytest.approx(
        loss, abs=0.02
    )


def test_evaluate_shows_documents_tokens_references_and_novelty(run, capsys):
    flags = ["--documents", "--tokens", "--references", "--novelty", "--batch-size", "3"]
    assert main(["evaluate", str(run), *flags]) == 0
    out = capsys.readouterr().out
    parts = ["document", "bits/byte", "bits per token: up to 1", "bigram: the token before"]
    parts += ["xz -9, primed", "runs of words that are new", "longest run that the model"]
    assert not [part for part in parts if part not in out]


def test_evaluate_as_json_has_the_same_figures(run, capsys):
    assert main(["evaluate", str(run)]) == 0
    text = capsys.readouterr().out
    flags = ["--json", "--documents", "--tokens", "--references", "--novelty"]
    assert main(["evaluate", str(run), *flags]) == 0
    found = json.loads(capsys.readouterr().out)
    assert f"loss           {found['loss_nats_per_token']:.4f} nats per token" in text
    assert f"bits per byte  {found['bits_per_byte']:.4f}" in text
    assert found["perplexity_per_token"] == pytest.approx(math.exp(found["loss_nats_per_token"]))
    assert found["protocol"]["stride_tokens"] == 8
    losses = found["token_losses_nats"]
    assert len(losses) == found["tokens"]
    assert sum(losses) / len(losses) == pytest.approx(found["loss_nats_per_token"])
    assert found["documents"][0]["bits_per_byte"] > 0
    references = found["references_bits_per_byte"]
    assert references["this model"] == found["bits_per_byte"]
    assert set(found["novelty"]) == {"the model", "the held-out text"}
    assert found["novelty"]["the model"]["new_runs"]["1"] <= 1


def test_without_flags_the_json_of_evaluate_has_only_what_was_measured(run, capsys):
    assert main(["evaluate", str(run), "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == {
        "loss_nats_per_token", "perplexity_per_token", "bits_per_byte", "tokens",
        "bytes_per_token", "protocol",
    }  # fmt: skip


def test_what_json_cannot_hold_becomes_null(capsys):
    print_json({"a": math.nan, "b": [math.inf, 1.5], "c": {7: "é"}})
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [None, 1.5], "c": {"7": "é"}}


def test_a_run_of_packed_documents_is_measured_with_its_documents_apart(here, tmp_path, capsys):
    texts = "".join(json.dumps({"text": f"{n} kings. " * 3}) + "\n" for n in range(200))
    (here / "t.jsonl").write_text(texts)
    arguments = ["--data.source=t.jsonl", "--data.batches=packed", "--run=packed", *SMALL]
    assert main(["train", *arguments, "--train.max-steps=30", "--train.lr=1e-2"]) == 0
    capsys.readouterr()
    losses = []
    latest = here / "packed" / "checkpoints"
    path = latest / (latest / "latest").read_text().strip() / "state.json"
    for batches in ("packed", "random"):
        state = json.loads(path.read_text())
        state["config"]["data"]["batches"] = batches
        path.write_text(json.dumps(state))
        assert main(["evaluate", "packed"]) == 0
        losses.append(re.search(r"loss +([\d.]+)", capsys.readouterr().out)[1])
    assert losses[0] != losses[1]


def test_documents_are_scored_one_by_one(tmp_path):
    from nanogpt.evaluation.documents import document_scores
    from nanogpt.text.tokenfiles import write_token_file

    tokenizer = Tokenizer([], special_tokens={"<|endoftext|>": 256})
    tokens = write_token_file(tmp_path / "x.bin", ["abc", "é"], tokenizer)
    losses = np.array([1.0, 1.0, 1.0, 2.0, 2.0, 2.0], dtype=np.float32)
    first, second = document_scores(tokens, losses, tokenizer)
    assert (first.tokens, first.loss, first.start) == (3, 1.0, 0)
    assert first.bits_per_byte == pytest.approx(3 / math.log(2) / 2)  # of "bc": "a" has no loss
    assert (second.tokens, second.loss, second.start) == (3, 2.0, 4)
    assert second.bits_per_byte == pytest.approx(6 / math.log(2) / 2)


def test_a_model_that_is_no_run_is_measured_on_a_text_only(run, tmp_path, capsys):
    assert main(["export", str(run), str(tmp_path / "hf")]) == 0
    assert main(["evaluate", str(tmp_path / "hf")]) == 2
    assert "is no run and has no held-out text: name a text" in capsys.readouterr().err
    (tmp_path / "t.txt").write_text("DUKE:\nIf 3 kings hold the crown, then 9 fools. " * 9)
    assert main(["evaluate", str(tmp_path / "hf"), str(tmp_path / "t.txt")]) == 0
    assert main(["evaluate", str(tmp_path / "hf"), str(tmp_path / "t.txt"), "--novelty"]) == 2
    assert "what it was trained on is not known here" in capsys.readouterr().err


def test_an_exported_model_is_fine_tuned(run, here, tmp_path):
    assert main(["export", str(run), str(tmp_path / "hf")]) == 0
    text = tmp_path / "t.txt"
    text.write_text("DUKE:\nIf 3 kings hold the crown, then 9 fools. " * 90)
    arguments = ["--init", str(tmp_path / "hf"), "--data.source", str(text), "--run", "tuned"]
    assert main(["train", *arguments, "--train.max-steps", "2", "--train.batch-size", "2"]) == 0


def test_the_second_ctrl_c_ends_a_run_at_once(run):
    from rich.console import Console

    from nanogpt.cli.display import stop_on_interrupt

    trainer = Trainer.resume(run)
    with pytest.raises(KeyboardInterrupt), stop_on_interrupt(trainer, Console(quiet=True)):
        signal.raise_signal(signal.SIGINT)
        assert trainer.stopped
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_resuming_a_finished_run_says_so_and_changes_nothing(run, capsys):
    """But for its report, if it has none."""
    assert main(["train", "--resume", str(run)]) == 0
    before = files_in(run)
    capsys.readouterr()
    assert main(["train", "--resume", str(run)]) == 0
    assert "run is finished; go on from it with: nanogpt train --init" in capsys.readouterr().out
    assert files_in(run) == before


def test_a_fine_tuned_run_is_named_after_what_it_began_with(run, here):
    (here / "t.txt").write_text("DUKE:\nIf 3 kings hold the crown, then 9 fools. " * 90)
    arguments = ["--init", "run", "--data.source", "t.txt", "--train.max-steps", "2"]
    assert main(["train", *arguments, "--train.batch-size", "2"]) == 0
    assert (here / "runs" / "run-tuned" / "checkpoints" / "latest").exists()
