"""Reference points: how well other means predict the same text, in bits per byte."""

import lzma
import math

import numpy as np
from numpy.typing import NDArray

from nanogpt.text.tokenfiles import TokenFile, end_of_text
from nanogpt.text.tokenizer import BaseTokenizer

# Statistics of the training text are taken from at most this much of it.
MOST_TOKENS = 20_000_000
MOST_BYTES = 64_000_000

BIGRAM = "bigram: the token before"


def reference_points(
    train: TokenFile, val: TokenFile, tokenizer: BaseTokenizer, slow: bool = True
) -> dict[str, float]:
    """Bits per byte of the held-out text under several ways to guess it.

    A compressor and a language model do the same thing: whoever predicts the next byte well needs
    few bits to store it. `xz` primed with the training text is the fair rival, since it knows what
    the model has read. The two of xz are left out unless `slow`.
    """
    known = np.asarray(train.ids[:MOST_TOKENS])
    points = {
        "guessing any token": math.log2(len(tokenizer.vocabulary)) / val.bytes_per_token,
        "unigram: token frequencies": unigram_bits(known, val),
        BIGRAM: bigram_bits(known, val),
    }
    if slow:
        train_text, val_text = (text_of(tokens, tokenizer) for tokens in (train, val))
        points["xz -9, held-out text alone"] = 8 * xz_size(val_text) / len(val_text)
        primed = xz_size(train_text + val_text) - xz_size(train_text)
        points["xz -9, primed with the training text"] = 8 * primed / len(val_text)
    return points


def text_of(tokens: TokenFile, tokenizer: BaseTokenizer, between: bytes = b"") -> bytes:
    """The text behind token files, at most MOST_BYTES, and what stands between its documents."""
    ids = np.asarray(tokens.ids[:MOST_TOKENS])
    ends = np.flatnonzero(ids == end_of_text(tokenizer))
    documents = [part[part != end_of_text(tokenizer)] for part in np.split(ids, ends + 1)]
    return between.join(tokenizer.decode_bytes(d.tolist()) for d in documents)[:MOST_BYTES]


def unigram_bits(train: NDArray, val: TokenFile) -> float:
    """The score of a model that knows only how often each token occurs in the training text."""
    bits = -np.log2(frequencies(train, val.about.vocab_size))
    return sum(float(bits[chunk].sum()) for chunk in val.chunks()) / val.about.bytes


def frequencies(train: NDArray, vocab_size: int) -> NDArray[np.float64]:
    """The share of each token, having seen each once more than it occurs: none is impossible."""
    counts = np.bincount(train, minlength=vocab_size) + 1.0
    return counts / counts.sum()


def bigram_bits(train: NDArray, val: TokenFile) -> float:
    """The score of a model that knows how often each token follows each other one.

    Pairs that training never met fall back to the unigram, by the rule of Witten & Bell (1991): a
    token that was followed by many different ones is expected to be followed by yet another.
    """
    size = val.about.vocab_size
    unigram = frequencies(train, size)
    codes, counts = np.unique(pair_codes(train, size), return_counts=True)  # sorted
    followed = np.bincount(codes // size, weights=counts, minlength=size)
    kinds = np.bincount(codes // size, minlength=size)
    ids = np.asarray(val.ids[:])
    pairs = pair_codes(ids, size)
    place = np.searchsorted(codes, pairs).clip(max=max(len(codes) - 1, 0))
    met = np.where(codes[place] == pairs, counts[place], 0) if len(codes) else np.zeros(len(pairs))
    before, after = ids[:-1], ids[1:]
    total = followed[before] + kinds[before]
    backed = (met + kinds[before] * unigram[after]) / np.maximum(total, 1)
    chances = np.where(total > 0, backed, unigram[after])
    bits = -np.log2(chances).sum() - np.log2(unigram[ids[0]])
    return float(bits) / val.about.bytes


def pair_codes(ids: NDArray, vocab_size: int) -> NDArray[np.uint64]:
    """One number for each pair of neighbours."""
    wide = ids.astype(np.uint64)
    return wide[:-1] * np.uint64(vocab_size) + wide[1:]


def xz_size(text: bytes) -> int:
    """Bytes that `xz -9` needs for the text."""
    return len(lzma.compress(text, preset=9))
