"""Questions and the answers that are expected, from the token files of conversations."""

import numpy as np

from nanogpt.errors import UserError
from nanogpt.text.batches import IntArray
from nanogpt.text.conversations import END, ROLE_TOKENS, endings, has_roles
from nanogpt.text.tokenfiles import TokenFile, end_of_text
from nanogpt.text.tokenizer import END_OF_TEXT, BaseTokenizer


class Prompts:
    """The questions of a token file: each conversation up to its last answer.

    A conversation without an answer is left out, and so is a question of more than `longest`
    tokens; `left_out` says how many. Raises UserError if none are left, or if the tokenizer has no
    tokens for roles.
    """

    def __init__(self, tokens: TokenFile, tokenizer: BaseTokenizer, longest: int) -> None:
        if not has_roles(tokenizer):
            raise UserError(
                "questions are cut from conversations, but this tokenizer has no tokens for roles: "
                "use conversations as data.source, or prepare with --data.roles true"
            )
        special, self.tokens, self.tokenizer = tokenizer.special_tokens, tokens, tokenizer
        self.endings, self.opening = endings(tokenizer), special[END_OF_TEXT]
        separators = places_of(tokens, end_of_text(tokenizer))
        speaks = places_of(tokens, special[ROLE_TOKENS["assistant"]])
        ends = places_of(tokens, special[END])
        begins = np.concatenate([[0], separators + 1])
        stops = np.append(separators, len(tokens.ids))
        # The last <|assistant|> before each stop, and the first <|end|> after that.
        last = np.append(-1, speaks)[np.searchsorted(speaks, stops)]
        close = np.append(ends, len(tokens.ids))[np.searchsorted(ends, last)]
        answered = last >= begins
        usable = answered & (last + 2 - begins <= longest)
        self.left_out = int(answered.sum() - usable.sum())
        self.begins, self.speaks = begins[usable], last[usable]
        self.ends = np.minimum(close, stops)[usable]
        if not len(self.begins):
            raise UserError(
                f"{tokens.path} has no question of at most {longest} tokens with an answer: lower "
                "policy.max_new_tokens, raise model.context_length, or add conversations"
            )

    def __len__(self) -> int:
        return len(self.begins)

    def question(self, n: int) -> list[int]:
        """The ids of a question, from <|endoftext|> to the <|assistant|> that asks to speak.

        They are those of conversations.reply_prompt, which says why they begin as they do.
        """
        return [self.opening, *self.tokens.ids[self.begins[n] : self.speaks[n] + 1].tolist()]

    def expected(self, n: int) -> str:
        """The answer that the text has."""
        return self.text_of(self.tokens.ids[self.speaks[n] + 1 : self.ends[n]].tolist())

    def text_of(self, ids: list[int]) -> str:
        """The text of an answer, without the token that ends it.

        An id of no token, which a padded vocabulary has, is shown as �, so it is never right.
        """
        known = self.tokenizer.vocabulary
        said = [known.get(i, "�".encode()) for i in ids if i not in self.endings]
        return b"".join(said).decode("utf-8", "replace")


def places_of(tokens: TokenFile, wanted: int | None) -> IntArray:
    """Where a token stands, in order; a file of any size is read a part at a time."""
    found, done = [np.zeros(0, dtype=np.int64)], 0
    for chunk in tokens.chunks():
        found.append(done + np.flatnonzero(chunk == wanted) if wanted is not None else found[0])
        done += len(chunk)
    return np.concatenate(found)
