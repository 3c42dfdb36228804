"""Preferences: how files have them, how they are stored, and how they become batches."""

import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from nanogpt.config import IGNORED, DataConfig
from nanogpt.errors import UserError
from nanogpt.text.batches import SlidingWindows
from nanogpt.text.conversations import Message, encode_conversation
from nanogpt.text.pairs import PairBatches, Pairs, read_pair
from nanogpt.text.prepare import Prepared, prepare
from nanogpt.text.sources import stream_documents
from nanogpt.training.start import Trainer

from conftest import small_run

USER, BOT = {"role": "user", "content": "ab?"}, {"role": "assistant", "content": "abc"}
BAD = {"role": "assistant", "content": "c"}
MORE = {"role": "system", "content": "be kind"}

FORMS = [
    {"chosen": [USER, BOT], "rejected": [USER, BAD]},
    {"prompt": "ab?", "chosen": "abc", "rejected": "c"},
    {"prompt": [USER], "chosen": [BOT], "rejected": [BAD]},
    {"prompt": "ab?", "chosen": [BOT], "rejected": "c", "score": 7},
]


def prepared(folder: Path, rows: list[dict]) -> Prepared:
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return prepare(DataConfig(source=str(path), tokenizer="char"), folder / "data", 1)


def many(count: int = 40) -> list[dict]:
    return [
        {"prompt": f"{n}?", "chosen": f"{n}" * (1 + n % 3), "rejected": "no"} for n in range(count)
    ]


@pytest.mark.parametrize("row", FORMS)
def test_every_form_means_the_same(row):
    found = read_pair(row, "a:1", "a line 1")
    assert found.messages == (Message("user", "ab?"), Message("assistant", "abc"))
    assert found.rejected == (Message("user", "ab?"), Message("assistant", "c"))
    assert found.texts == ["ab?", "abc", "c"]


@pytest.mark.parametrize("row", FORMS[:3])
def test_pairs_are_read_from_parquet(row, tmp_path):
    path = tmp_path / "pairs.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{**row, "score": 7}]), path)
    (found,) = stream_documents(DataConfig(source=str(path)))
    assert (found.messages, found.rejected) == (
        (Message("user", "ab?"), Message("assistant", "abc")),
        (Message("user", "ab?"), Message("assistant", "c")),
    )


@pytest.mark.parametrize(
    "row",
    [
        {"chosen": "abc", "rejected": "c"},
        {"chosen": [USER, BOT], "rejected": [MORE, USER, BAD]},
        {"chosen": [USER, BOT], "rejected": [USER]},
        {"prompt": "ab?", "chosen": [USER], "rejected": [BAD]},
    ],
)
def test_what_is_no_pair_is_named_with_its_line(tmp_path, row):
    (tmp_path / "a.jsonl").write_text(json.dumps(FORMS[0]) + "\n" + json.dumps(row) + "\n")
    data = DataConfig(source=str(tmp_path / "a.jsonl"), tokenizer="char")
    with pytest.raises(UserError, match=r"a\.jsonl line 2: chosen and rejected should be the same"):
        prepare(data, tmp_path / "data", 1)


def test_a_side_that_is_neither_text_nor_messages_is_named(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"prompt": "a", "chosen": 3, "rejected": "c"}\n')
    with pytest.raises(UserError, match=r"a\.jsonl line 1, chosen has no messages"):
        prepare(DataConfig(source=str(tmp_path / "a.jsonl")), tmp_path / "data", 1)


def test_rows_are_chosen_and_rejected_in_turn_and_only_answers_are_targets(tmp_path):
    made = prepared(tmp_path, many())
    plain = SlidingWindows(made.files["train"], 32, None, DataConfig())
    batches, special = PairBatches(plain, made.tokenizer), made.tokenizer.special_tokens
    asked = {}
    for number in range(6):
        batch = batches.batch(number, 8, seed=1)
        assert isinstance(batch, Pairs)
        assert batch.real_targets == 4
        for row in range(8):
            ids, targets = batch.ids[row].tolist(), batch.targets[row].tolist()
            said = made.tokenizer.decode([t for t in targets if t != IGNORED])
            mark = ids.index(special["<|assistant|>"])
            question = made.tokenizer.decode(ids[2 : mark - 1])
            assert ids[0] == special["<|endoftext|>"]
            n = int(question.removesuffix("?"))
            expected = f"{n}" * (1 + n % 3) if row % 2 == 0 else "no"
            assert said == expected + "<|end|>"
            asked.setdefault(n, []).append(row % 2)
    assert all(sides in ([0, 1], [0, 1] * 2) for sides in asked.values())


def test_pairs_stay_together_and_both_sides_have_whole_ones(tmp_path):
    made = prepared(tmp_path, many())
    counts = []
    for file in made.files.values():
        plain = SlidingWindows(file, 32, None, DataConfig())
        counts.append(len(PairBatches(plain, made.tokenizer)))
        assert counts[-1] == file.about.documents
    assert sum(counts) == 40
    assert min(counts) >= 1


def test_pairs_longer_than_the_context_are_left_out(tmp_path):
    made = prepared(tmp_path, [*many(), *(many(1)[0] | {"rejected": "no" * 30} for _ in range(1))])
    train = made.files["train"]
    found = [
        PairBatches(SlidingWindows(train, n, None, DataConfig()), made.tokenizer)
        for n in (90, 32, 10)
    ]
    lengths = [len(batches) for batches in found]
    assert lengths[0] >= lengths[1] > lengths[2] > 0
    assert {len(batches) + batches.left_out for batches in found} == {lengths[0]}
    with pytest.raises(UserError, match="no pair of at most 4 tokens each"):
        PairBatches(SlidingWindows(train, 4, None, DataConfig()), made.tokenizer)


@pytest.mark.parametrize("first", [0, 1])
def test_pairs_and_conversations_do_not_mix(tmp_path, first):
    """Or the rejected answers would be learned as if they were right."""
    rows = [many(1)[0], {"messages": [USER, BOT]}]
    with pytest.raises(UserError, match=r"is (no|a) pair of answers, and the documents before it"):
        prepared(tmp_path, [rows[first], rows[1 - first], *[rows[first]] * 9])
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("objective", ["next-token", "answers", "policy"])
def test_rejected_answers_are_learned_by_no_other_objective(tmp_path, objective):
    prepared(tmp_path, many())
    config = small_run(tmp_path / "data", objective=objective, batch_size=8)
    with pytest.raises(UserError, match=rf"objective={objective} would learn rejected answers"):
        Trainer.start(tmp_path / "run", config)
    assert not (tmp_path / "run").exists()


def test_conversations_are_no_pairs(tmp_path):
    """With an odd number of them as with an even one, where questions differ in length."""
    rows = [{"messages": [{**USER, "content": "a" * n}, BOT]} for n in range(1, 52)]
    made = prepared(tmp_path, rows)
    for file in made.files.values():
        with pytest.raises(UserError, match="is not made of pairs"):
            batches = PairBatches(SlidingWindows(file, 32, None, DataConfig()), made.tokenizer)
            for number in range(len(batches)):
                batches.batch(number, 2, seed=0)


def test_the_ids_of_a_pair_are_those_of_two_conversations(tmp_path):
    made = prepared(tmp_path, many())
    found = [file.ids[:].tolist() for file in made.files.values()]
    ids = [i for side in found for i in side]
    end = made.tokenizer.special_tokens["<|endoftext|>"]
    texts = "\x00".join(made.tokenizer.decode([i]) for i in ids)
    for answer in ("777"[: 1 + 7 % 3], "no"):
        expected = encode_conversation(
            made.tokenizer, [Message("user", "7?"), Message("assistant", answer)]
        )
        assert "\x00".join(made.tokenizer.decode([i]) for i in [*expected, end]) in texts


def test_conversations_with_questions_of_one_length_are_no_pairs(tmp_path):
    rows = [{"messages": [{**USER, "content": f"{n}"}, BOT]} for n in range(10, 62)]
    made = prepared(tmp_path, rows)
    batches = PairBatches(
        SlidingWindows(made.files["train"], 32, None, DataConfig()), made.tokenizer
    )
    with pytest.raises(UserError, match="is not made of pairs"):
        batches.batch(0, 4, seed=0)
