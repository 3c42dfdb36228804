"""Byte-pair encoding: the fast trainer is the naive one, and merging follows the rules."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanogpt.text.bpe import encode_word, merge, merge_steps, train, train_naive
from nanogpt.text.long_words import encode_long_word

# Few letters make many ties, overlaps and repeats: the hard cases.
words = st.dictionaries(
    st.text("ab", min_size=1, max_size=12).map(str.encode), st.integers(1, 5), max_size=12
)


@given(words, st.integers(0, 40))
def test_incremental_training_gives_the_merges_of_the_definition(corpus, n_merges):
    assert train(corpus, n_merges) == train_naive(corpus, n_merges)


def test_both_trainers_agree_on_a_larger_random_corpus():
    draw = random.Random(0)
    corpus = {
        bytes(draw.choices(b"abcde", k=draw.randint(1, 12))): draw.randint(1, 9) for _ in range(400)
    }
    assert train(corpus, 150) == train_naive(corpus, 150)


def test_a_word_without_letters_is_not_learned_from():
    corpus = {b"": 9, b"abab": 2, b"ab": 1}
    assert train(corpus, 3) == train_naive(corpus, 3) == [(97, 98), (256, 256)]


@given(words)
def test_training_does_not_depend_on_the_order_of_words(corpus):
    """Merges that follow dict order change from run to run."""
    backwards = dict(reversed(corpus.items()))
    assert train(corpus, 20) == train(backwards, 20)


def test_ties_go_to_the_lexicographically_greater_pair_of_byte_strings():
    """Among equally frequent pairs there is one rule."""
    assert train({b"ab": 1, b"cd": 1, b"ca": 1}, 3) == [(99, 100), (99, 97), (97, 98)]


def test_ties_compare_byte_strings_and_not_ids():
    # After b"ab" became id 256, the pairs (256, x) and (z, y) tie; "z" > "ab" although 256 > 122.
    merges = train({b"ab": 5, b"abx": 2, b"zy": 2}, 2)
    assert merges == [(97, 98), (122, 121)]


@pytest.mark.parametrize(("n", "expected"), [(2, [9]), (3, [9, 1]), (4, [9, 9]), (5, [9, 9, 1])])
def test_runs_merge_from_left_to_right_without_overlap(n, expected):
    """Merging the pair aa in aaa gives [aa, a]."""
    assert merge([1] * n, (1, 1), 9) == expected


def test_training_stops_when_nothing_is_left_to_merge():
    assert train({b"ab": 1, b"c": 3}, 10) == [(97, 98)]
    assert train({}, 10) == []


@given(st.binary(min_size=1, max_size=30), words)
def test_every_merge_step_spells_the_same_bytes(word, corpus):
    merges = train(corpus, 20)
    spelling = [bytes([b]) for b in range(256)]
    for a, b in merges:
        spelling.append(spelling[a] + spelling[b])
    ranks = {pair: 256 + n for n, pair in enumerate(merges)}
    steps = list(merge_steps(word, ranks))
    assert all(b"".join(spelling[i] for i in ids) == word for ids in steps)
    assert steps[-1] == encode_word(word, ranks)


@given(st.binary(max_size=40) | st.text("ab", max_size=60).map(str.encode), words)
def test_every_way_to_encode_a_word_gives_the_definition(word, corpus):
    ranks = {pair: 256 + n for n, pair in enumerate(train(corpus, 30))}
    *_, expected = merge_steps(word, ranks)
    assert encode_word(word, ranks) == expected
    assert encode_long_word(word, ranks) == expected


def test_a_million_letters_without_a_space_are_encoded_at_once():
    """A quadratic encoder would need hours, and the suite would hang here."""
    ranks = {pair: 256 + n for n, pair in enumerate(train({b"a" * 64: 1}, 6))}
    assert encode_word(b"a" * 1_000_003, ranks) == [261] * 15_625 + [257 - 1, 97]
