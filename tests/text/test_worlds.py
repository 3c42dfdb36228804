"""Toy worlds: the floor that is stated is the entropy of what is drawn."""

import math
import random
from collections import Counter

import pytest

from nanogpt.cli import main
from nanogpt.config import DataConfig
from nanogpt.errors import UserError
from nanogpt.text.sources import stream_documents
from nanogpt.text.worlds import (
    LINES,
    WORLDS,
    Addition,
    Copy,
    Grammar,
    Induction,
    Repeat,
    documents,
    find_world,
)


def entropy(counts: Counter) -> float:
    total = sum(counts.values())
    return -sum(n / total * math.log2(n / total) for n in counts.values())


# Small enough that every line is drawn many times.
SMALL_WORLDS = {
    "copy": Copy(letters=2, alphabet=4),
    "addition": Addition(digits=1),
    "induction": Induction(letters=2, questions=1),
    "repeat": Repeat(shortest=1, longest=2, alphabet=3),
    "grammar": Grammar(
        nouns=("king", "fool"), adjectives=("old", "mad"), verbs=("sees",), clauses=("who sings",)
    ),
}


@pytest.mark.parametrize("name", WORLDS)
def test_the_entropy_is_that_of_the_lines(name):
    world, draw = SMALL_WORLDS[name], random.Random(1)
    counts = Counter(world.line(draw) for _ in range(200_000))
    # With n different lines the estimate is too low by about n / (2 ln 2 x draws).
    bias = len(counts) / (2 * math.log(2) * 200_000)
    assert entropy(counts) + bias == pytest.approx(world.bits(), abs=0.02)


@pytest.mark.parametrize("name", WORLDS)
def test_the_length_is_that_of_the_lines(name):
    world, draw = WORLDS[name], random.Random(2)
    lengths = [len(world.line(draw).encode()) + 1 for _ in range(20_000)]
    assert sum(lengths) / len(lengths) == pytest.approx(world.length(), rel=0.01)
    assert world.floor() == pytest.approx(world.bits() / world.length())
    small = SMALL_WORLDS[name]
    lines = [len(small.line(draw).encode()) + 1 for _ in range(20_000)]
    assert sum(lines) / len(lines) == pytest.approx(small.length(), rel=0.02)  # short: \n shows
    assert sum(1 for _ in documents(small)) * LINES == 100_000


def test_the_lines_keep_their_rules():
    draw = random.Random(3)
    for _ in range(200):
        word, _, again = WORLDS["copy"].line(draw).partition("=")
        assert word == again
        numbers, _, total = WORLDS["addition"].line(draw).partition("=")
        assert sum(map(int, numbers.split("+"))) == int(total)
        row, _, answers = WORLDS["induction"].line(draw).partition(":")
        pairs = {row[n : n + 2] for n in range(len(row) - 1)}
        assert {answers[n : n + 2] for n in range(0, len(answers), 2)} <= pairs
        assert len(set(row)) == len(row)
        line = WORLDS["repeat"].line(draw)
        row = line[: len(line) // 5]
        assert 10 <= len(row) <= 50
        assert line == row * 5


def test_worlds_are_sources_like_any_other():
    first = list(stream_documents(DataConfig(source="toy:copy", max_documents=3)))
    assert first == list(stream_documents(DataConfig(source="toy:copy", max_documents=3)))
    assert [document.text.count("\n") for document in first] == [100, 100, 100]
    assert len({document.text for document in first}) == 3
    assert find_world("shakespeare") is None
    with pytest.raises(UserError, match=r"toy='cpoy' is unknown: did you mean copy"):
        find_world("toy:cpoy")


def test_the_report_shows_how_close_the_model_came(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = [
        "--data.source=toy:addition", "--data.tokenizer=char", "--data.max-documents=60",
        "--model.n-layer=1", "--model.n-head=1", "--model.n-embd=16", "--model.context-length=20",
        "--train.max-steps=20", "--train.batch-size=4", "--train.eval-batches=1",
        "--sample.prompt=1", "--sample.max-new-tokens=4", "--run=sum",
    ]  # fmt: skip
    assert main(["train", *arguments]) == 0
    assert main(["evaluate", "sum", "--references"]) == 0
    out = capsys.readouterr().out
    assert f"the floor: the entropy of this toy world  {WORLDS['addition'].floor():.4f}" in out
