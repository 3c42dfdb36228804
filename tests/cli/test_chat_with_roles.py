"""Chat and generate with a model that knows roles: turns are messages, and answers end."""

import json
from dataclasses import replace

import pytest

from nanogpt.cli import main
from nanogpt.cli.chat import Conversation
from nanogpt.config import SampleConfig
from nanogpt.errors import UserError
from nanogpt.generation.ahead import LookAhead
from nanogpt.generation.replies import ask
from nanogpt.text.conversations import (
    END,
    Message,
    encode_conversation,
    endings,
    reply_prompt,
)
from nanogpt.training.load import load
from nanogpt.training.records import read_metrics

from conftest import SMALL

GREEDY = SampleConfig(temperature=0, max_new_tokens=5)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that has learned to answer for three steps."""
    folder = tmp_path_factory.mktemp("chat")
    lines = [
        {"messages": [{"role": "user", "content": f"{n}+{n}?"},
                      {"role": "assistant", "content": f"{2 * n}"}]}
        for n in range(40)
    ]  # fmt: skip
    (folder / "chats.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    options = [f"--data.source={folder / 'chats.jsonl'}", "--data.tokenizer=char",
               "--train.objective=answers", "--sample.prompt=7+7?",
               "--train.sample-interval=2"]  # fmt: skip
    options += ["--model.context-length=48"]
    assert main(["train", *SMALL, *options, f"--run={folder / 'run'}"]) == 0
    return folder / "run"


def test_turns_are_messages_whether_an_answer_ended_or_was_cut_short(run):
    loaded = load(run)
    chat = Conversation(loaded.model, loaded.tokenizer, GREEDY, [])
    assert chat.command("/system 1+1") == "a new conversation"
    expected = reply_prompt(loaded.tokenizer, [Message("system", "1+1"), Message("user", "2+3?")])
    for turn, text in enumerate(["2+3?", "4", "5?", "6?"]):
        said = "".join(chat.answer(text))
        row = chat.reader.rows[0]
        assert row[: len(expected)] == expected
        if turn == 3:
            break
        answer = row[len(expected) :]
        end = loaded.tokenizer.special_tokens[END]
        # As if the model had ended its answer, or gone on with another role.
        chat.reader.append(0, [[], [end], [loaded.tokenizer.special_tokens["<|user|>"]]][turn])
        spoken = [i for i in answer if i not in endings(loaded.tokenizer)]
        assert loaded.tokenizer.decode(spoken) == said
        following = [Message("user", ["4", "5?", "6?"][turn])]
        expected = [*expected, *spoken, end]
        expected += encode_conversation(loaded.tokenizer, following, reply=True)
    assert chat.command("/look_ahead 4") == "look_ahead is 4"
    assert isinstance(chat.reader, LookAhead)
    assert chat.reader.rows[0][: len(expected)] == expected
    assert chat.command("/look_ahead 0") == "look_ahead is 0"
    assert not isinstance(chat.reader, LookAhead)
    chat.command("/reset")
    assert "".join(chat.answer("2+3?")) == next(
        ask(*loaded[:2], [[Message("system", "1+1"), Message("user", "2+3?")]], GREEDY)
    )
    assert chat.command("/system") == "a new conversation without a system message"
    assert "".join(chat.answer("2+3?")) == next(
        ask(*loaded[:2], [[Message("user", "2+3?")]], GREEDY)
    )


def test_a_turn_that_was_stopped_at_once_leaves_a_whole_conversation(run):
    """Without an answer the last token is the one that asks for it, and the model has read it."""
    loaded = load(run)
    chat = Conversation(loaded.model, loaded.tokenizer, replace(GREEDY, max_new_tokens=0), [])
    said = [Message("user", "2+3?")]
    assert "".join(chat.answer("2+3?")) == ""
    expected = reply_prompt(loaded.tokenizer, said)
    assert chat.reader.rows[0] == expected
    assert "".join(chat.answer("2+3?")) == ""
    expected = [*expected, loaded.tokenizer.special_tokens[END]]
    assert chat.reader.rows[0] == [
        *expected, *encode_conversation(loaded.tokenizer, said, reply=True)
    ]  # fmt: skip


def test_a_sampler_that_does_not_exist_is_refused_when_it_is_named(run):
    loaded = load(run)
    chat = Conversation(loaded.model, loaded.tokenizer, GREEDY, [])
    with pytest.raises(UserError, match=r"sample\.sampler"):
        chat.command("/sampler nobody")
    assert chat.settings == GREEDY


def test_the_command_answers_messages(run, monkeypatch, capsys):
    typed = iter(["2+3?", "", "/system é", "/sistem", "/quit"])
    monkeypatch.setattr("builtins.input", lambda prompt="": next(typed))
    options = ["--sample.temperature=0", "--sample.max-new-tokens=5"]
    assert main(["chat", str(run), *options]) == 0
    captured = capsys.readouterr()
    (answer,) = ask(*load(run)[:2], [[Message("user", "2+3?")]], GREEDY)
    assert "the model answers" in captured.out
    assert answer in captured.out
    assert "the character 'é' is not in this vocabulary" in captured.err
    assert "/sistem is not a command: did you mean system?" in captured.err


def test_generate_answers_where_answers_were_learned(run, capsys):
    loaded = load(run)
    options = ["--prompt=2+3?", "--sample.temperature=0", "--sample.max-new-tokens=5"]
    (answer,) = ask(*loaded[:2], [[Message("user", "2+3?")]], GREEDY)
    for chat in ([], ["--chat"]):
        assert main(["generate", str(run), *options, *chat]) == 0
        assert capsys.readouterr().out == f"2+3?\n{answer}\n"
    assert main(["generate", str(run), *options, "--no-chat"]) == 0
    assert capsys.readouterr().out.startswith("2+3?")
    assert main(["generate", str(run), "--prompt=", "--chat"]) == 2
    assert "--chat answers a message: add it with --prompt" in capsys.readouterr().err


def test_a_model_without_roles_cannot_chat(small_trained_run, capsys):
    assert main(["generate", str(small_trained_run), "--prompt=DUKE", "--chat"]) == 2
    assert "no tokens for roles" in capsys.readouterr().err


def test_samples_in_training_are_answers(run):
    samples = [record["sample"] for record in read_metrics(run) if "sample" in record]
    assert len(samples) == 2
    assert all(sample.startswith("7+7?\n") for sample in samples)
    assert "7+7?\n" in (run / "samples.md").read_text()
