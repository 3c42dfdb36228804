"""Several tokens in one reading: guess what comes, and keep what would have been drawn anyway.

To generate one token, a processor reads every weight once; to score nine tokens it reads them once,
too. So the tokens that might come next are guessed from the text itself: what followed the last few
tokens where they stood before (prompt lookup; Saxena 2023). The model reads all of them at once,
and says after each what it expects. The sampler then draws as it always does. As long as it draws
what was guessed, the next expectation is there already; at the first other token the rest of the
guess is forgotten. So no draw depends on a guess, and the text is the one that would have come
without guesses, at any temperature. (Leviathan et al. 2023 guess with a smaller model, and need a
rule of their own for what to keep.) Only the rounding of logits differs.

Axes: T time, V vocabulary.
"""

from collections.abc import Sequence
from itertools import cycle, islice

import torch
from torch import Tensor

from nanogpt.config import SampleConfig, check
from nanogpt.generation.reader import Reader, forgotten
from nanogpt.model.gpt import GPT, evaluating

LENGTHS = (3, 2)  # tokens that must have stood together before, the longer match first


class Guesses:
    """What came after the last tokens of a text, where they stood in it before."""

    def __init__(self) -> None:
        self.places: dict[tuple[int, ...], int] = {}  # some tokens -> where they ended last
        self.known = 0  # tokens whose places are known

    def after(self, text: Sequence[int], most: int) -> list[int]:
        """So many tokens that may come next; none if the last tokens are new.

        Where the place is near, its text is repeated. A text that is given later must begin as the
        one before did.

        >>> Guesses().after([7, 1, 2, 3, 9, 8, 1, 2, 3], most=2)
        [9, 8]
        >>> Guesses().after([7, 1, 2, 1, 2], most=5)
        [1, 2, 1, 2, 1]
        """
        for end in range(self.known, len(text)):  # the end itself is not yet a place before
            for length in LENGTHS:
                self.places[tuple(text[max(0, end - length) : end])] = end
        self.known = len(text)
        for length in LENGTHS:
            place = self.places.get(tuple(text[-length:]))
            if place is not None and len(text) >= length:
                return list(islice(cycle(text[place:]), most))
        return []


class LookAhead(Reader):
    """A reader of one text that reads up to `most` guessed tokens together with the last one.

    It guesses more after a guess that came true to its end, and fewer after one that did not.
    """

    def __init__(self, model: GPT, prompt: Sequence[int], most: int) -> None:
        super().__init__(model, [prompt])
        self.most, self.width, self.passes = most, 1, 0
        self.guesses = Guesses()
        self.guessed: list[int] = []  # tokens at the end of the cache of which nobody knows yet
        self.expected: list[Tensor] = []  # logits (1, V) after each of them

    def predict(self) -> Tensor:
        """Logits (1, V) of what comes next: known already, if the last token was guessed."""
        text, length = self.rows[0], self.model.config.context_length
        start, read = self.in_cache[0]
        if self.guessed and (len(text), text[-1]) == (read + 1, self.guessed[0]):
            del self.guessed[0]
            self.in_cache = [(start, read + 1)]
            self.width = min(self.most, 2 * self.width) if not self.guessed else self.width
            return self.expected.pop(0)
        self.forget_guesses()
        visible = [(forgotten(len(text), length), len(text))]
        new, self.passes = self.continues(visible), self.passes + 1
        room = length - (len(text) - visible[0][0])
        guessed = self.guesses.after(text, min(self.width, room))
        if not (new and guessed):
            return super().predict()
        ids = torch.tensor([text[-new:] + guessed], device=self.model.device)
        with evaluating(self.model):
            x = self.model.hidden_states(ids, cache=self.cache)
            first, *self.expected = self.model.head(x[0, -1 - len(guessed) :]).split(1)
        self.in_cache, self.guessed = visible, guessed
        return first

    def forget_guesses(self) -> None:
        """Take out of the cache what was guessed and did not come."""
        if self.guessed and self.cache:
            self.cache.length -= len(self.guessed)
            self.width = max(1, self.width // 2)
        self.guessed, self.expected = [], []


def reader_for(model: GPT, prompts: Sequence[Sequence[int]], config: SampleConfig) -> Reader:
    """A reader of prompts; with sample.look_ahead one that guesses.

    Raises UserError for several prompts with it, which do not come true together.
    """
    if not config.look_ahead:
        return Reader(model, prompts)
    check(len(prompts) == 1, config, "look_ahead", "use 0 for several texts at once")
    return LookAhead(model, prompts[0], config.look_ahead)
