"""Where each pair of tokens stands in a list of words: what makes training of BPE fast.

`bpe.train_naive` counts all pairs anew after each merge. But a merge changes only the places where
its pair stands, and their neighbours.
"""

from collections import defaultdict
from collections.abc import Mapping
from itertools import pairwise
from operator import itemgetter

Pair = tuple[int, int]

NONE = -1  # no place, and no token


class Places:
    """All words in one row of tokens, and for each pair the places where it stands or once stood.

    A merge takes a token out of the row. So each knows where its neighbours are, or that there are
    NONE, and nothing has to move up: a linked list.
    """

    def __init__(self, words: Mapping[bytes, int]) -> None:
        self.tokens = list(b"".join(words))
        self.before: list[int] = []  # where the token before stands
        self.after: list[int] = []
        self.frequencies: list[int] = []  # of the word that a token is in
        self.where: defaultdict[Pair, list[int]] = defaultdict(list)
        for word, frequency in filter(itemgetter(0), words.items()):
            first = len(self.before)
            self.before += [NONE, *range(first, first + len(word) - 1)]
            self.after += [*range(first + 1, first + len(word)), NONE]
            self.frequencies += [frequency] * len(word)
            for place, pair in enumerate(pairwise(word), first):
                self.where[pair].append(place)

    def merge(self, pair: Pair, new_id: int) -> dict[Pair, int]:
        """Merge a pair wherever it stands, from left to right, and say how counts change by it.

        >>> Places({b"abc": 2}).merge((98, 99), 256)
        {(98, 99): -2, (97, 98): -2, (97, 256): 2}
        """
        tokens, before, after, where = self.tokens, self.before, self.after, self.where
        lefts: defaultdict[int, int] = defaultdict(int)  # neighbours: token -> how often
        rights: defaultdict[int, int] = defaultdict(int)
        changes: defaultdict[Pair, int] = defaultdict(int)
        for place in where.pop(pair):
            gone, frequency = after[place], self.frequencies[place]
            if gone == NONE or (tokens[place], tokens[gone]) != pair:
                continue  # an earlier merge has taken one of the two
            left, right = before[place], after[gone]
            tokens[place], tokens[gone], after[place] = new_id, NONE, right
            changes[pair] -= frequency
            if left != NONE:
                lefts[tokens[left]] += frequency
                where[tokens[left], new_id].append(left)
            if right != NONE:
                before[right] = place
                rights[tokens[right]] += frequency
                where[new_id, tokens[right]].append(place)
        for token, frequency in lefts.items():
            changes[token, pair[0]] -= frequency
            changes[token, new_id] += frequency
        for token, frequency in rights.items():
            changes[pair[1], token] -= frequency
            changes[new_id, token] += frequency
        return dict(changes)
