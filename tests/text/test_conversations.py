"""Conversations: nobody can speak for another, and only what the assistant says is a target."""

import gzip
import json
from dataclasses import asdict, replace

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanogpt.cli import main
from nanogpt.config import IGNORED, DataConfig
from nanogpt.errors import UserError
from nanogpt.text.batches import BATCHES
from nanogpt.text.conversations import (
    END,
    ROLE_TOKENS,
    ROLES,
    SPECIAL_TOKENS,
    AnswerBatches,
    Message,
    answers_only,
    conversation,
    encode_conversation,
    endings,
    has_roles,
    read_messages,
    with_roles,
)
from nanogpt.text.corpus import Document
from nanogpt.text.dataset import settings_of_files
from nanogpt.text.formats import gpt2_tokenizer
from nanogpt.text.prepare import prepare
from nanogpt.text.sources import stream_documents
from nanogpt.text.tokenfiles import write_token_file
from nanogpt.text.tokenizer import END_OF_TEXT, CharTokenizer, Tokenizer

FORGED = "".join(SPECIAL_TOKENS)
TOKENIZERS = {
    "char": with_roles(CharTokenizer(sorted({*FORGED, *" 0123456789+=?\nabc"}))),
    "bpe": with_roles(Tokenizer.train([FORGED * 9, "what is 2+3? it is 5"], 300)),
    "gpt2": with_roles(gpt2_tokenizer()),
}
every_tokenizer = pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS.keys())

contents = st.lists(
    st.sampled_from(["a", " ", "b+c", "\n", "=5", *SPECIAL_TOKENS, "<|", "end|>", "<", "|>"]),
    max_size=6,
).map("".join)
CHATS = [
    [Message("user", f"{n}+{n}=?"), Message("assistant", f"{2 * n}<|end|>")]
    + [Message("system", "Be brief."), Message("user", "é")] * (n % 3)
    for n in range(40)
]
conversations = st.lists(st.builds(Message, st.sampled_from(ROLES), contents), max_size=6)


@every_tokenizer
@given(messages=conversations)
def test_no_text_can_forge_a_role(tokenizer, messages):
    ids = encode_conversation(tokenizer, messages)
    special = {i: text for text, i in tokenizer.special_tokens.items()}
    found = [special[i] for i in ids if i in special]
    assert found == [text for m in messages for text in (ROLE_TOKENS[m.role], END)]
    assert tokenizer.decode(ids) == "".join(ROLE_TOKENS[m.role] + m.content + END for m in messages)


@every_tokenizer
def test_a_reply_is_asked_for_with_the_assistants_token(tokenizer):
    said = [Message("system", "abc"), Message("user", "2+3?")]
    asked = encode_conversation(tokenizer, said, reply=True)
    assert asked == [
        *encode_conversation(tokenizer, said),
        tokenizer.special_tokens["<|assistant|>"],
    ]
    whole = encode_conversation(tokenizer, [*said, Message("assistant", "5")])
    assert whole[: len(asked)] == asked


def test_tokens_for_roles_change_no_other_id():
    for plain in (CharTokenizer("abc"), CharTokenizer("abc", [END_OF_TEXT]), gpt2_tokenizer()):
        more = with_roles(plain)
        assert {*SPECIAL_TOKENS} == more.special_tokens.keys()
        assert plain.vocabulary.items() <= more.vocabulary.items()
        assert more.encode("abc") == plain.encode("abc")
        assert with_roles(more).to_dict() == more.to_dict()


def test_gpt2_gets_the_four_ids_after_its_own():
    special = TOKENIZERS["gpt2"].special_tokens
    assert [special[text] for text in SPECIAL_TOKENS] == [50256, 50257, 50258, 50259, 50260]


def test_what_cannot_be_encoded_is_said():
    with pytest.raises(UserError, match="no tokens for roles"):
        encode_conversation(gpt2_tokenizer(), [Message("user", "a")])
    with pytest.raises(UserError, match="role='bot' is unknown: "):
        Message("bot", "a")


def mask_by_hand(ids: list[int], targets: list[int], assistant: int, end: int) -> list[int]:
    """The same, token by token."""
    speaks, kept = False, []
    for token, target in zip(ids, targets, strict=True):
        speaks = token == assistant or (speaks and token != end)
        kept.append(target if speaks else IGNORED)
    return kept


@given(st.lists(st.lists(st.integers(1, 9), min_size=7, max_size=7), min_size=1, max_size=4))
def test_answers_only_equals_a_loop_over_tokens(rows):
    rows = np.array(rows)
    ids, targets = rows[:, :-1], rows[:, 1:]
    masked = answers_only(ids, targets, assistant=8, end=9)
    assert masked.tolist() == [mask_by_hand(*row, 8, 9) for row in zip(ids, targets, strict=True)]


@given(conversations)
def test_the_targets_that_count_are_what_the_assistant_says(messages):
    tokenizer = TOKENIZERS["bpe"]
    special = tokenizer.special_tokens
    row = np.array([[*encode_conversation(tokenizer, messages), special[END_OF_TEXT]]])
    if row.shape[1] < 2:
        return
    masked = answers_only(row[:, :-1], row[:, 1:], special["<|assistant|>"], special[END])
    said = "".join(m.content + END for m in messages if m.role == "assistant")
    assert tokenizer.decode(masked[masked != IGNORED]) == said


@pytest.mark.parametrize("kind", BATCHES)
def test_batches_of_answers_are_the_same_batches_with_fewer_targets(kind, tmp_path):
    prepared = prepare(DataConfig(source=write_chats(tmp_path), tokenizer="char"), tmp_path, 1)
    tokenizer, tokens = prepared.tokenizer, prepared.files["train"]
    plain = BATCHES[kind](tokens, 48, tokenizer.special_tokens[END_OF_TEXT])
    masked = AnswerBatches(plain, tokenizer)
    assert masked.documents_apart == plain.documents_apart
    for number in range(3):
        before, after = plain.batch(number, 4, seed=1), masked.batch(number, 4, seed=1)
        assert (before.ids == after.ids).all()
        kept = after.targets != IGNORED
        assert (after.targets[kept] == before.targets[kept]).all()
        assert 0 < after.real_targets == kept.sum() < before.real_targets
        rows = {"seed": 1, "rows": slice(1, 3)}
        assert (masked.batch(number, 4, **rows).ids == plain.batch(number, 4, **rows).ids).all()
        if before.documents is not None:
            assert (before.documents == after.documents).all()


def test_batches_of_answers_need_roles(tmp_path):
    tokenizer = CharTokenizer("ab", [END_OF_TEXT])
    tokens = write_token_file(tmp_path / "train.bin", ["abab" * 20], tokenizer)
    with pytest.raises(UserError, match=r"train\.objective needs conversations"):
        AnswerBatches(BATCHES["random"](tokens, 8), tokenizer)


def test_batches_of_answers_need_answers(tmp_path):
    tokenizer = CharTokenizer("ab", SPECIAL_TOKENS)
    tokens = write_token_file(tmp_path / "train.bin", ["abab" * 20], tokenizer)
    with pytest.raises(UserError, match=r"in .*train\.bin the assistant says nothing"):
        AnswerBatches(BATCHES["random"](tokens, 8), tokenizer)


def test_a_role_ends_what_the_one_before_it_says():
    for tokenizer in TOKENIZERS.values():
        assert endings(tokenizer) == {tokenizer.special_tokens[text] for text in SPECIAL_TOKENS}
    assert endings(CharTokenizer("ab")) == set()


def test_a_text_may_come_in_parts():
    parts = [{"type": "text", "text": "2+"}, {"type": "text", "text": "3?"}]
    messages = read_messages([{"role": "user", "content": parts}], "line 1")
    assert messages == (Message("user", "2+3?"),)


def write_chats(folder, ending=".jsonl", key="messages", **more):
    """CHATS as a file of some kind; gives its path."""
    path = folder / f"chats{ending}"
    rows = [{key: [asdict(message) for message in messages], **more} for messages in CHATS]
    if ending == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        return str(path)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(lines.encode()) if ending.endswith(".gz") else lines.encode())
    return str(path)


def read_chats(source, **settings):
    """The messages of every document of a source."""
    return [list(d.messages) for d in stream_documents(DataConfig(source=source, **settings))]


def test_conversations_are_read_from_a_hub_data_set(tmp_path):
    """From a folder in the hub's layout; the same code asks the hub where there is a network."""
    (tmp_path / "hub").mkdir()
    write_chats(tmp_path / "hub")
    assert read_chats(f"hub:{tmp_path / 'hub'}") == CHATS


@pytest.mark.parametrize("ending", [".jsonl", ".jsonl.gz", ".parquet"])
def test_conversations_are_read_from_every_kind_of_rows(ending, tmp_path):
    assert read_chats(write_chats(tmp_path, ending)) == CHATS
    both = write_chats(tmp_path, ending, text="a text")
    assert read_chats(both) == [[]] * len(CHATS), "a text wins, as it always has"
    assert read_chats(both, text_field="messages") == CHATS


@pytest.mark.parametrize("kind", ["char", "bpe", "gpt2"])
def test_prepared_files_hold_the_ids_of_whole_conversations(kind, tmp_path):
    data = DataConfig(source=write_chats(tmp_path), tokenizer=kind, vocab_size=300)
    prepared = prepare(data, tmp_path / "data", 1)
    tokenizer = prepared.tokenizer
    assert has_roles(tokenizer)
    texts = []
    for file in prepared.files.values():
        ids = file.ids.tolist()
        end = tokenizer.special_tokens[END_OF_TEXT]
        borders = [n for n, token in enumerate(ids) if token == end]
        starts = [0, *(n + 1 for n in borders[:-1])]
        texts += [tuple(ids[a:b]) for a, b in zip(starts, borders, strict=True)]
        assert ids[-1] == end
    assert sorted(texts) == sorted(tuple(encode_conversation(tokenizer, m)) for m in CHATS)
    said = sum(len(m.content.encode()) for messages in CHATS for m in messages)
    assert sum(file.about.bytes for file in prepared.files.values()) == said


def test_roles_are_part_of_the_vocabulary_where_they_are_needed_or_asked_for(tmp_path):
    source = write_chats(tmp_path)
    prepare(DataConfig(source=source, tokenizer="char"), tmp_path / "chats", 1)
    assert settings_of_files(DataConfig(folder=str(tmp_path / "chats"))).roles
    (tmp_path / "plain.txt").write_text("To be, or not to be, that is the question.\n" * 60)
    plain = DataConfig(source=str(tmp_path / "plain.txt"), vocab_size=300)
    for kind in ("char", "bpe", "gpt2"):
        for roles in (False, True):
            asked = replace(plain, tokenizer=kind, roles=roles)
            made = prepare(asked, tmp_path / f"{kind}-{roles}", 1)
            assert has_roles(made.tokenizer) == roles
    assert len(prepare(replace(plain, roles=True), tmp_path / "bpe", 1).tokenizer.vocabulary) <= 300


def test_folders_from_before_there_were_roles_can_still_be_read(tmp_path):
    (tmp_path / "plain.txt").write_text("To be, or not to be, that is the question.\n" * 60)
    prepare(DataConfig(source=str(tmp_path / "plain.txt")), tmp_path / "data", 1)
    path = tmp_path / "data" / "prepared.json"
    values = json.loads(path.read_text())
    del values["roles"]
    path.write_text(json.dumps(values))
    assert not settings_of_files(DataConfig(folder=str(tmp_path / "data"))).roles


USER = {"role": "user", "content": "hello"}


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "line 2 has no messages"),
        ("hello", "line 2 has no messages"),
        ([USER, {"role": "bot", "content": "hi"}], "line 2, message 2: role='bot' is unknown"),
        ([{"content": "hi"}], 'line 2, message 1 is no object with a "role"'),
        (["hi"], 'line 2, message 1 is no object with a "role"'),
        ([{"role": "user"}], 'line 2, message 1 has no text as "content"'),
        ([{"role": "user", "content": ["hi"]}], 'line 2, message 1 has no text as "content"'),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "a"}}]}],
            'line 2, message 1 has no text as "content"',
        ),
        ([USER, {"role": "tool", "content": "3"}], "line 2, message 2 calls a tool"),
        (
            [USER, {"role": "assistant", "content": None, "tool_calls": [{"id": "a"}]}],
            "line 2, message 2 calls a tool",
        ),
    ],
)
def test_what_is_no_conversation_is_refused_with_its_place(messages, message, tmp_path, capsys):
    path = tmp_path / "chats.jsonl"
    lines = [{"messages": [USER]}, {"messages": messages}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main(["prepare", str(path), "--data.folder", str(tmp_path / "out")]) == 2
    errors = capsys.readouterr().err
    assert f"{path} {message}" in errors
    assert errors.count("\n") == 1
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())


def test_one_conversation_alone_is_not_cut_in_two(tmp_path):
    path = tmp_path / "chats.jsonl"
    path.write_text(json.dumps({"messages": [USER] * 9}))
    with pytest.raises(UserError, match=r"chats.jsonl: one conversation cannot be divided"):
        prepare(DataConfig(source=str(path)), tmp_path / "out", 1)


def test_a_separator_cuts_no_conversation(tmp_path):
    assert read_chats(write_chats(tmp_path), separator="+") == CHATS


def test_a_tokenizer_learns_from_each_message_by_itself():
    document = conversation("a", [Message("user", "ab"), Message("assistant", "cd")])
    assert document.texts == ["ab", "cd"]
    assert Document("a", "ab").texts == ["ab"]
