"""Reference points, novelty, and the comparison with Transformers."""

import math
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nanogpt.config import Config
from nanogpt.evaluation.novelty import Known, run_hashes
from nanogpt.evaluation.references import (
    bigram_bits,
    reference_points,
    text_of,
    unigram_bits,
    xz_size,
)
from nanogpt.text.loader import Loader
from nanogpt.text.tokenfiles import write_token_file
from nanogpt.text.tokenizer import CharTokenizer, Tokenizer
from nanogpt.training import timing

ALPHABET = CharTokenizer("ab")


def file(folder, text: str, tokenizer=ALPHABET):
    return write_token_file(folder / f"{abs(hash(text))}.bin", [text], tokenizer)


def test_the_unigram_score_is_the_cross_entropy_of_the_frequencies(tmp_path):
    train, val = file(tmp_path, "aab" * 1000), file(tmp_path, "ab")
    expected = -(math.log2(2 / 3) + math.log2(1 / 3)) / 2
    assert unigram_bits(np.asarray(train.ids), val) == pytest.approx(expected, abs=1e-3)


def test_the_bigram_score_is_worked_out_by_hand(tmp_path):
    train, val = file(tmp_path, "aabaab"), file(tmp_path, "aba")
    # Unigram, one more than counted: a 5/8, b 3/8. Pairs: aa 2, ab 2, ba 1.
    # After a: 4 seen, 2 kinds: P(b|a) = (2 + 2 * 3/8) / 6. After b: 1 seen, 1 kind.
    chances = [5 / 8, (2 + 2 * 3 / 8) / 6, (1 + 1 * 5 / 8) / 2]
    expected = -sum(map(math.log2, chances)) / 3
    assert bigram_bits(np.asarray(train.ids), val) == pytest.approx(expected)


def test_the_bigram_probabilities_sum_to_one(tmp_path):
    tokenizer = CharTokenizer("abcd")
    train = np.asarray(file(tmp_path, "abacabadabaabc", tokenizer).ids)
    for before in "abcd":
        # Bits of the pair less bits of its first token, for every token that can follow.
        alone = bigram_bits(train, file(tmp_path, before, tokenizer))
        pairs = [bigram_bits(train, file(tmp_path, before + x, tokenizer)) * 2 for x in "abcd"]
        assert sum(2 ** -(pair - alone) for pair in pairs) == pytest.approx(1)


def test_reference_points_get_better_with_what_they_know(tmp_path):
    text = "".join(f"{n} kings hold {n * n} crowns. " for n in range(900))
    tokenizer = Tokenizer.train([text], 300)
    train, val = file(tmp_path, text[:20000], tokenizer), file(tmp_path, text[20000:], tokenizer)
    points = list(reference_points(train, val, tokenizer).values())
    assert points[0] > points[1] > points[2]
    assert points[3] > points[4]
    assert len(reference_points(train, val, tokenizer, slow=False)) == 3
    raw = text[20000:].encode()
    assert points[3] == pytest.approx(8 * xz_size(raw) / len(raw))
    before = text[:20000].encode()
    primed = xz_size(before + raw) - xz_size(before)
    assert points[4] == pytest.approx(8 * primed / len(raw))


def naive_longest(text: list[str], known: list[str]) -> int:
    runs = {tuple(known[i:j]) for i in range(len(known)) for j in range(i + 1, len(known) + 1)}
    best = [j - i for i in range(len(text)) for j in range(i + 1, len(text) + 1)
            if tuple(text[i:j]) in runs]  # fmt: skip
    return max(best, default=0)


@given(
    st.lists(st.sampled_from("abc"), max_size=25),
    st.lists(st.lists(st.sampled_from("abcd"), max_size=12), min_size=1, max_size=3),
)
def test_novelty_equals_its_definition(known, texts):
    found = Known(" ".join(known)).novelty([" ".join(text) for text in texts])
    assert found.words == sum(map(len, texts))
    assert found.longest_words == max(naive_longest(text, known) for text in texts)
    assert len(found.longest.split()) == found.longest_words
    for n, share in found.novel.items():
        runs = {tuple(known[i : i + n]) for i in range(len(known) - n + 1)}
        ours = [tuple(t[i : i + n]) for t in texts for i in range(len(t) - n + 1)]
        assert share == pytest.approx(sum(run not in runs for run in ours) / len(ours))


def test_a_copied_text_is_found_word_for_word():
    text = " ".join(f"word{n}" for n in range(1000))
    found = Known(text).novelty([" ".join(text.split()[100:350]), "word5 word7"])
    assert found.longest_words == 250
    assert found.longest == " ".join(text.split()[100:350])
    assert found.novel[1] == 0
    assert found.novel[2] == pytest.approx(1 / 250)


def test_documents_are_kept_apart(tmp_path):
    tokenizer = Tokenizer([], special_tokens={"<|endoftext|>": 256})
    tokens = write_token_file(tmp_path / "x.bin", ["one two", "three four"], tokenizer)
    assert text_of(tokens, tokenizer) == b"one twothree four"
    assert text_of(tokens, tokenizer, b"\n").split() == [b"one", b"two", b"three", b"four"]


def test_nothing_to_compare_is_no_error():
    found = Known("").novelty(["", "a"])
    assert (found.words, found.longest_words, found.longest) == (1, 0, "")
    assert found.novel == {1: 1.0}


def test_different_runs_have_different_hashes():
    """Of 400,000 runs: the hashes are as good as the runs themselves."""
    ids = np.random.default_rng(0).integers(0, 50, 100_000).astype(np.uint64)
    for n in (2, 3, 5, 8):
        runs = np.unique(np.lib.stride_tricks.sliding_window_view(ids, n), axis=0)
        assert len(np.unique(run_hashes(ids, n))) == len(runs)


def test_swapped_words_are_another_run():
    a, b = (run_hashes(np.array(x, dtype=np.uint64), 3)[0] for x in ([1, 2, 3], [1, 3, 2]))
    assert a != b


def test_a_step_is_timed_on_the_threads_that_are_asked_for(monkeypatch):
    """A clock on which every step takes half a second, and a trainer that counts its steps."""
    clock, threads = [0.0], []

    class Counted:
        loader = Loader(lambda step: [], end=0)

        on_its_threads = nullcontext

        def train_step(self):
            clock[0] += 0.5
            threads.append(torch.get_num_threads())

        advance = train_step

    monkeypatch.setattr(timing.Trainer, "start", lambda folder, config: Counted())
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert timing.seconds_per_step(Config(), threads=1) == 0.5
        assert threads == [1] * (timing.WARM_UP + 4)  # two seconds of them count
        assert torch.get_num_threads() == 2
        assert timing.steps_within(10.0, Config()) == 20
        assert threads[-1] == 2
    finally:
        torch.set_num_threads(before)
