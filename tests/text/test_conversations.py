"""Conversations: nobody can speak for another, and only what the assistant says is a target."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanogpt.config import IGNORED
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
    encode_conversation,
    with_roles,
)
from nanogpt.text.formats import gpt2_tokenizer
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
    tokenizer = TOKENIZERS["char"]
    plain = BATCHES[kind](chats(tmp_path, tokenizer), 16, tokenizer.special_tokens[END_OF_TEXT])
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
    with pytest.raises(UserError, match=r"train\.objective=answers needs conversations"):
        AnswerBatches(BATCHES["random"](tokens, 8), tokenizer)


def chats(folder, tokenizer):
    """A token file of forty short conversations."""

    class Encoder(type(tokenizer)):
        """Encodes the text of a conversation, two messages with a tab between them."""

        def encode(self, text, special="as-text"):
            user, said = (super(Encoder, self).encode(part) for part in text.split("\t"))
            ids = self.special_tokens
            return [ids["<|user|>"], *user, ids[END], ids["<|assistant|>"], *said, ids[END]]

    encoder = Encoder(tokenizer.characters, [*tokenizer.special_tokens])
    texts = (f"{n}+{n}=?\t{2 * n}" for n in range(40))
    return write_token_file(folder / "train.bin", texts, encoder)
