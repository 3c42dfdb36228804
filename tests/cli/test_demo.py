"""The demo itself, shortened by settings: it runs on the real plays, and its text decodes."""

import json
import re

from nanogpt.cli import main
from nanogpt.config import SampleConfig
from nanogpt.generation.stream import generate_text
from nanogpt.training.load import load
from nanogpt.training.records import read_metrics

SHORT = [
    "--train.max-steps=6", "--train.batch-size=4", "--train.eval-interval=3",
    "--train.eval-batches=1", "--train.sample-interval=3", "--train.warmup-steps=1",
    "--model.n-layer=1", "--model.n-head=2", "--model.n-embd=16", "--sample.max-new-tokens=12",
    "--data.vocab-size=320",
]  # fmt: skip


def test_the_demo_runs_from_raw_text_to_generated_text(tmp_path, capsys):
    run = tmp_path / "demo"
    assert main(["demo", "--run", str(run), *SHORT]) == 0
    shown = capsys.readouterr().out

    for part in ("Corpus", "Tokenizer", "Token files", "Training", "Generation", "How good"):
        assert re.search(rf"\d\. {part}", shown), part
    for play in ("Hamlet", "Macbeth", "The Tempest"):
        assert play in shown
    for way in ("greedy", "temperature 1", "top-k"):
        assert way in shown

    sidecars = [
        json.loads((run / "data" / f"{name}.json").read_text()) for name in ("train", "val")
    ]
    assert [s["documents"] for s in sidecars] == [34, 4]
    assert [s["vocab_size"] for s in sidecars] == [320, 320]

    bits = dict(re.findall(r"^ (\S.*?) {2,}(\d\.\d{3})", shown, re.MULTILINE))
    alone, primed = bits["xz -9, held-out text alone"], bits["xz -9, primed with the training text"]
    assert 2.6 < float(alone) < 2.9
    assert 2.2 < float(primed) < float(alone)
    assert float(bits["unigram: token frequencies"]) < float(bits["guessing any token"])
    assert 2 < float(bits["this model"]) < 8

    assert [r["step"] for r in read_metrics(run) if "val_loss" in r] == [0, 3, 6]
    assert (run / "loss.png").read_bytes().startswith(b"\x89PNG")
    samples = (run / "samples.md").read_text()
    assert "### After 6 steps" in samples
    assert "### Greedy" in samples

    model, tokenizer, config = load(run)
    assert config.train.max_steps == 6
    text = "".join(
        generate_text(model, tokenizer, SampleConfig(prompt="ROMEO:", max_new_tokens=20))
    )
    assert text
    text.encode()  # whole characters only


def test_a_demo_with_little_time_takes_fewer_steps(tmp_path, capsys):
    run = tmp_path / "demo"
    assert main(["demo", "--run", str(run), "--seconds=0", *SHORT]) == 0
    assert load(run)[2].train.max_steps < 6
    capsys.readouterr()
