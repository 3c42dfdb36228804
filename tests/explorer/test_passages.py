"""Where it read this: the places of a text that end like another."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanogpt.errors import UserError
from nanogpt.explorer.passages import find_passages, show_passages
from nanogpt.text.tokenfiles import Shards
from nanogpt.text.tokenizer import CharTokenizer

few = st.lists(st.integers(0, 2), min_size=2, max_size=40)


def slowly(ids: list[int], ending: list[int]) -> dict[int, list[int]]:
    """What the search promises, one place after the other: length -> where next tokens stand."""
    found = {}
    for length in range(1, len(ending) + 1):
        tail = ending[-length:]
        places = [n for n in range(length, len(ids)) if ids[n - length : n] == tail]
        if places:
            found[length] = places
    return found


@given(few, few, st.integers(1, 39))
def test_all_lengths_are_found_as_by_looking_at_every_place(ids, ending, cut):
    expected = slowly(ids, ending)
    array = np.array(ids, dtype=np.uint16)
    in_two_files = Shards([array[:cut], array[cut:]]) if cut < len(ids) else array
    for tokens in (array, in_two_files):
        found = find_passages(tokens, ending, most=5)
        assert {e.length: e.count for e in found.endings} == {
            n: len(p) for n, p in expected.items()
        }
        for e in found.endings:
            counts = np.bincount([ids[p] for p in expected[e.length]])
            assert e.following == {int(i): int(counts[i]) for i in np.flatnonzero(counts)}
        best = sorted(
            {p: max(n for n in expected if p in expected[n]) for p in expected.get(1, [])}.items(),
            key=lambda item: (-item[1], item[0]),
        )
        assert found.places == best[:5]


def test_passages_are_shown_with_the_text_around_them():
    text = "to be or not to be that is"
    tokenizer = CharTokenizer.train([text])
    ids = tokenizer.encode_array(text)
    found = find_passages(ids, tokenizer.encode("not to b"), most=2)
    shown = show_passages(found, ids, tokenizer, context=6)
    first, second = shown["passages"]
    assert (
        first["before"] + "|" + first["match"] + "|" + first["next"]["text"] == "be or |not to b|e"
    )
    assert first["after"] == " that "
    assert (first["length"], second["length"]) == (8, 4)
    assert second["match"] + second["next"]["text"] == "to be"
    assert shown["endings"][0] == {
        "length": 8, "count": 1, "following": [{"id": ids[4], "text": "e", "count": 1}],
    }  # fmt: skip
    assert shown["searched"] == shown["total"] == len(text)


def test_only_the_start_of_a_very_long_text_is_looked_through():
    ids = np.tile(np.array([1, 2, 3], dtype=np.uint16), 1000)
    found = find_passages(ids, [1, 2], limit=300)
    assert (found.searched, found.total) == (300, 3000)
    assert found.endings[0].count == 100


def test_a_million_tokens_are_looked_through_in_a_second():
    ids = np.random.default_rng(0).integers(0, 20, 1_000_000).astype(np.uint16)
    began = time.monotonic()
    find_passages(ids, ids[500_000:500_064].tolist())
    assert time.monotonic() - began < 5  # 0.05 s on a machine that has nothing else to do


def test_without_a_text_there_is_nothing_to_look_for():
    with pytest.raises(UserError, match="at least one token"):
        find_passages(np.array([1, 2]), [])
