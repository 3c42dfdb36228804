"""What a tokenizer does to a corpus: how short it makes the text, and how it cuts its words."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from nanogpt.config import DataConfig
from nanogpt.errors import UserError
from nanogpt.files import writing
from nanogpt.text.corpus import Side
from nanogpt.text.encoding import count_words
from nanogpt.text.prepare import SIDES, pieces
from nanogpt.text.sources import rule_for
from nanogpt.text.tokenizer import Tokenizer, to_bytes

Words = Counter[str]


def words_of(data: DataConfig, pattern: str, processes: int) -> dict[Side, Words]:
    """How often each word occurs on each side of a corpus."""
    words: dict[Side, Words] = {}
    rule = rule_for(data)
    for side in SIDES:
        texts = (document.text for of, document in pieces(data, rule) if of == side)
        words[side] = count_words(texts, pattern, processes, whole=True)
        if not words[side]:
            raise UserError(f"{data.source} holds too little text to split; add text")
    return words


@dataclass(frozen=True)
class Cutting:
    """How a tokenizer cuts a text, from the counts of its words alone."""

    bytes: int
    tokens: int
    words: int  # with at least one letter
    word_tokens: int  # tokens in those
    whole_words: int  # those that are one token

    @property
    def bytes_per_token(self) -> float:
        """How much text one token carries."""
        return self.bytes / self.tokens

    @property
    def tokens_per_word(self) -> float:
        """How many tokens a word is cut into, on average over the text."""
        return self.word_tokens / max(1, self.words)


def cutting(tokenizer: Tokenizer, words: Words) -> Cutting:
    """Cut every distinct word once, and weigh it by how often it occurs."""
    n_bytes = tokens = count = word_tokens = whole = 0
    for word, frequency in words.items():
        length = len(tokenizer.encode_word(word))
        n_bytes += frequency * len(to_bytes(word))
        tokens += frequency * length
        if any(map(str.isalpha, word)):
            count += frequency
            word_tokens += frequency * length
            whole += frequency * (length == 1)
    return Cutting(n_bytes, tokens, count, word_tokens, whole)


def growth(tokenizer: Tokenizer, words: dict[Side, Words]) -> dict[int, dict[Side, float]]:
    """Bytes per token on both sides, if training had stopped at a smaller vocabulary.

    Merges are learned one after another, so the first n merges are the smaller vocabulary.
    """
    sizes = [256 * 2**n for n in range(20) if 256 * 2**n < 256 + len(tokenizer.merges)]
    sizes.append(256 + len(tokenizer.merges))
    rest = tokenizer.pattern, tokenizer.special_tokens, tokenizer.byte_order
    smaller = {size: Tokenizer(tokenizer.merges[: size - 256], *rest) for size in sizes}
    return {
        size: {side: cutting(small, words[side]).bytes_per_token for side in SIDES}
        for size, small in smaller.items()
    }


def examples(words: Words, each: int = 6) -> dict[str, list[tuple[str, int]]]:
    """Common words, words of middling frequency, and words that occur once, with their counts."""
    ranked = [(w, n) for w, n in sorted(words.items(), key=lambda item: (-item[1], item[0]))]
    ranked = [(w, n) for w, n in ranked if any(map(str.isalpha, w)) and len(w.strip()) > 2]
    once = [(w, n) for w, n in ranked if n == ranked[-1][1]]
    middle = len(ranked) // 20
    return {
        "common": ranked[:each],
        "in between": ranked[middle : middle + each],
        "rare": once[:: max(1, len(once) // each)][:each],
    }


def plot_growth(sizes: dict[int, dict[Side, float]], path: str | Path) -> None:
    """Draw vocabulary size against compression as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    titles: dict[Side, str] = {"train": "training text", "val": "held-out text"}
    for side, title in titles.items():
        axes.plot(list(sizes), [values[side] for values in sizes.values()], "o-", label=title)
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(sizes), [f"{size:,}" for size in sizes], rotation=30)
    axes.minorticks_off()
    axes.set_xlabel("tokens in the vocabulary")
    axes.set_ylabel("bytes per token")
    axes.set_title("A larger vocabulary makes text shorter, with less and less to gain")
    axes.grid(alpha=0.3)
    axes.legend()
    with writing(path) as file:
        figure.savefig(file, format="png", dpi=120)
