"""Questions cut from token files are what a model that is to answer reads."""

import json

from nanogpt.config import DataConfig
from nanogpt.text.conversations import Message, reply_prompt
from nanogpt.text.prepare import prepare
from nanogpt.text.prompts import Prompts


def test_questions_begin_as_conversations_do_in_training(tmp_path):
    """Also the first one of a file, before which no document ends."""
    asked = [[Message("user", f"{n}+{n}?"), Message("assistant", f"{2 * n}")] for n in range(30)]
    asked[5] = [*asked[4], *asked[5]]
    rows = [{"messages": [vars(message) for message in messages]} for messages in asked]
    path = tmp_path / "chats.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = prepare(DataConfig(source=str(path), tokenizer="char"), tmp_path / "data", 1)
    found = []
    for file in made.files.values():
        prompts = Prompts(file, made.tokenizer, longest=64)
        found += [(prompts.question(n), prompts.expected(n)) for n in range(len(prompts))]
    wanted = [(reply_prompt(made.tokenizer, m[:-1]), m[-1].content) for m in asked]
    assert sorted(found) == sorted(wanted)
    longest = max(len(question) for question, _ in wanted)
    train = made.files["train"]
    all_of_them, some = (Prompts(train, made.tokenizer, n) for n in (longest, longest - 1))
    assert (len(all_of_them), all_of_them.left_out) == (train.about.documents, 0)
    assert (len(some), some.left_out) == (train.about.documents - 1, 1)
    end, unknown = made.tokenizer.special_tokens["<|end|>"], made.tokenizer.vocab_size
    answer = made.tokenizer.encode("12")
    assert some.text_of([*answer, end]) == "12"
    assert some.text_of([*answer, unknown, end]) == "12�", "an id of no token is no right answer"
