"""nanogpt evaluate --questions, on a model that was fine-tuned for a moment."""

import json

import pytest

from nanogpt.cli import main
from nanogpt.evaluation.questions import wilson
from nanogpt.evaluation.rewards import REWARDS

from conftest import SMALL


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A run on conversations, and a file of questions."""
    folder = tmp_path_factory.mktemp("questions")
    lines = [
        {"messages": [{"role": "user", "content": f"{n}+{n}?"},
                      {"role": "assistant", "content": f"{2 * n}"}]}
        for n in range(40)
    ]  # fmt: skip
    (folder / "chats.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    options = [f"--data.source={folder / 'chats.jsonl'}", "--data.tokenizer=char"]
    options += ["--model.context-length=32"]
    assert main(["train", *SMALL, *options, f"--run={folder / 'run'}"]) == 0
    return folder / "run", folder / "chats.jsonl"


def test_accuracy_as_json(files, capsys):
    run, questions = files
    assert main(["evaluate", str(run), "--questions", str(questions), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    rewards = [REWARDS["exact"](each["answer"], each["expected"]) for each in found["answers"]]
    assert rewards == [each["reward"] for each in found["answers"]]
    assert [each["name"] for each in found["answers"][:2]] == ["chats.jsonl:1", "chats.jsonl:2"]
    assert found["right"] == sum(rewards)
    assert found["accuracy"] == found["mean_reward"] == sum(rewards) / 40
    assert found["interval_95"] == list(wilson(found["right"], 40))
    assert found["protocol"]["temperature"] == 0


def test_accuracy_for_people_shows_wrong_answers(files, capsys):
    run, questions = files
    assert main(["evaluate", str(run), "--questions", str(questions), "--temperature=1"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("accuracy")
    assert "95 % confidence" in shown
    assert "of 40 answers are right, by the reward 'exact'" in shown
    assert "answered" in shown


def test_questions_longer_than_the_context_are_said_to_be(files, tmp_path, capsys):
    run, questions = files
    long = {"messages": [{"role": "user", "content": "7+" * 40},
                         {"role": "assistant", "content": "0"}]}  # fmt: skip
    (tmp_path / "long.jsonl").write_text(questions.read_text() + json.dumps(long) + "\n")
    asked = ["evaluate", str(run), "--questions", str(tmp_path / "long.jsonl")]
    assert main(asked) == 0
    assert "questions longer than the context of 32 tokens: 1;" in capsys.readouterr().out
    assert main([*asked, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["too_long"] == 1
    assert main(["evaluate", str(run), "--questions", str(questions)]) == 0
    assert "longer than the context" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--documents"], "--documents does nothing beside --questions"),
        (["--reward", "nice"], "--reward='nice' is unknown"),
        (["--questions", "absent.jsonl"], "absent.jsonl: no such file"),
        (["--temperature", "-1"], "temperature=-1.0: use 0 for greedy"),
    ],
)
def test_mistakes_are_one_line(files, more, message, capsys):
    run, questions = files
    assert main(["evaluate", str(run), "--questions", str(questions), *more]) == 2
    check_line(capsys, message)
    assert main(["evaluate", str(run), "text.txt", "--questions", str(questions)]) == 2
    check_line(capsys, "a text does nothing beside --questions")
    assert main(["evaluate", str(run), str(questions)]) == 2
    check_line(capsys, "chats.jsonl holds conversations, and no plain text")


def check_line(capsys, message):
    """The error is one line with this message."""
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1


def test_a_model_without_roles_cannot_be_asked(files, small_trained_run, capsys):
    _, questions = files
    assert main(["evaluate", str(small_trained_run), "--questions", str(questions)]) == 2
    assert "no tokens for roles" in capsys.readouterr().err
