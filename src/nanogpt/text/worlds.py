"""Toy worlds: texts made by a rule. How well they can be predicted at best is known.

A world is drawn with known probabilities, so its entropy can be computed. On average, no model can
do better than that floor, and a model that reaches it has understood the rule. Use them with
`--data.source toy:copy --data.tokenizer char`.
"""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from string import ascii_letters, ascii_lowercase

from nanogpt.config import choose
from nanogpt.text import tutor
from nanogpt.text.corpus import Document

TOY = "toy:"
DOCUMENTS = 1000
LINES = 100  # in each document


@dataclass(frozen=True)
class World:
    """Lines, each drawn independently of the others."""

    def line(self, draw: random.Random) -> str:
        """A line, without its newline."""
        raise NotImplementedError

    def bits(self) -> float:
        """The entropy of a line: how many yes-no questions it takes, on average, to know it."""
        raise NotImplementedError

    def length(self) -> float:
        """Bytes of a line on average, its newline included."""
        raise NotImplementedError

    def floor(self) -> float:
        """Bits per byte that no model can go below, on average over long texts."""
        return self.bits() / self.length()


@dataclass(frozen=True)
class Copy(World):
    """Letters, then the same again: "hbacgdfe=hbacgdfe". The second half is free."""

    letters: int = 8
    alphabet: int = 8

    def line(self, draw: random.Random) -> str:
        word = "".join(draw.choices(ascii_lowercase[: self.alphabet], k=self.letters))
        return f"{word}={word}"

    def bits(self) -> float:
        return self.letters * math.log2(self.alphabet)

    def length(self) -> float:
        return 2 * self.letters + 2


@dataclass(frozen=True)
class Addition(World):
    """Two numbers and their sum: "07+95=102". The sum is free."""

    digits: int = 2

    def line(self, draw: random.Random) -> str:
        a, b = (draw.randrange(10**self.digits) for _ in range(2))
        return f"{a:0{self.digits}}+{b:0{self.digits}}={a + b:0{self.digits + 1}}"

    def bits(self) -> float:
        return 2 * self.digits * math.log2(10)

    def length(self) -> float:
        return 3 * self.digits + 1 + 3


@dataclass(frozen=True)
class Induction(World):
    """Different letters in a row, then some of them, each with its successor: "kxmpz:mpkx".

    After the colon, every other letter costs bits. The letter after it is free for a model that
    looks up what followed it before: the task that induction heads solve (Olsson et al. 2022).
    """

    letters: int = 8
    questions: int = 8

    def line(self, draw: random.Random) -> str:
        row = draw.sample(ascii_lowercase, self.letters)
        asked = [draw.randrange(self.letters - 1) for _ in range(self.questions)]
        return "".join(row) + ":" + "".join(row[n] + row[n + 1] for n in asked)

    def bits(self) -> float:
        row = sum(math.log2(26 - n) for n in range(self.letters))
        return row + self.questions * math.log2(self.letters - 1)

    def length(self) -> float:
        return self.letters + 1 + 2 * self.questions + 1


@dataclass(frozen=True)
class Repeat(World):
    """Different letters in a row, again and again: "qHbeWmxoqHbeWmxoqHbeWmxo".

    Only the first row costs bits. The rows differ so much in length that counting back does not
    help. Only looking up what followed this letter before helps, so a model that comes near the
    floor has induction heads.
    """

    shortest: int = 10
    longest: int = 50
    times: int = 5
    alphabet: int = 52

    def line(self, draw: random.Random) -> str:
        letters = draw.randint(self.shortest, self.longest)
        return "".join(draw.sample(ascii_letters[: self.alphabet], letters)) * self.times

    def bits(self) -> float:
        lengths = range(self.shortest, self.longest + 1)
        rows = sum(math.log2(math.perm(self.alphabet, n)) for n in lengths) / len(lengths)
        return math.log2(len(lengths)) + rows

    def length(self) -> float:
        return self.times * (self.shortest + self.longest) / 2 + 1


@dataclass(frozen=True)
class Grammar(World):
    """Sentences of a small grammar: "the old king sees a fool who sings".

    Subject, verb, object; a noun may have an adjective, and may have a relative clause at its end.
    """

    nouns: tuple[str, ...] = ("king", "fool", "queen", "ghost", "duke", "witch", "page", "clown")
    adjectives: tuple[str, ...] = ("old", "young", "mad", "wise")
    verbs: tuple[str, ...] = ("sees", "loves", "fears", "hears")
    clauses: tuple[str, ...] = ("who sings", "who weeps")
    adjective_chance: float = 0.5
    clause_chance: float = 0.25

    def noun(self, draw: random.Random) -> str:
        """An article, perhaps an adjective, a noun, perhaps a clause."""
        words = [draw.choice(("the", "a"))]
        if draw.random() < self.adjective_chance:
            words.append(draw.choice(self.adjectives))
        words.append(draw.choice(self.nouns))
        if draw.random() < self.clause_chance:
            words.append(draw.choice(self.clauses))
        return " ".join(words)

    def line(self, draw: random.Random) -> str:
        return f"{self.noun(draw)} {draw.choice(self.verbs)} {self.noun(draw)}"

    def bits(self) -> float:
        def coin(p: float) -> float:
            return -p * math.log2(p) - (1 - p) * math.log2(1 - p)

        noun = 1 + coin(self.adjective_chance) + coin(self.clause_chance)
        noun += self.adjective_chance * math.log2(len(self.adjectives))
        noun += math.log2(len(self.nouns)) + self.clause_chance * math.log2(len(self.clauses))
        return 2 * noun + math.log2(len(self.verbs))

    def length(self) -> float:
        def mean(words: tuple[str, ...]) -> float:
            return sum(map(len, words)) / len(words)

        noun = mean(("the", "a")) + 1 + mean(self.nouns)
        noun += self.adjective_chance * (1 + mean(self.adjectives))
        noun += self.clause_chance * (1 + mean(self.clauses))
        return 2 * noun + 1 + mean(self.verbs) + 1 + 1


WORLDS: dict[str, World] = {
    "copy": Copy(),
    "addition": Addition(),
    "induction": Induction(),
    "repeat": Repeat(),
    "grammar": Grammar(),
}


def find_world(source: str) -> World | None:
    """The world that a source names as toy:NAME; None for any other source.

    Also for those of `tutor`, of which no floor is known. Raises UserError for an unknown name.
    """
    if not source.startswith(TOY):
        return None
    known: dict[str, object] = {**WORLDS, **tutor.SOURCES}
    found = choose(known, "data.source toy", source.removeprefix(TOY))
    return found if isinstance(found, World) else None


def documents(world: World) -> Iterator[Document]:
    """A hundred thousand lines, always the same, in documents of a hundred."""
    draw = random.Random(0)
    for number in range(DOCUMENTS):
        lines = (world.line(draw) + "\n" for _ in range(LINES))
        yield Document(f"document {number + 1}", "".join(lines))
