"""The loader makes batches ahead, in a thread that ends."""

import threading
import time

import pytest

from nanogpt.errors import UserError
from nanogpt.text.batches import known_separator
from nanogpt.text.loader import Loader


def test_the_loader_gives_what_was_asked_for_and_works_ahead():
    made: list[int] = []

    def make(step: int) -> list[int]:
        made.append(step)
        return [step]

    loader = Loader(make, end=9)
    assert [loader.load(step) for step in (0, 1, 2, 7, 8)] == [[0], [1], [2], [7], [8]]
    loader.close()
    assert sorted(made) == [0, 1, 2, 3, 7, 8]  # 3 was made for nothing, and nothing after the end


def test_the_loader_says_how_long_it_was_waited_for():
    loader = Loader(lambda step: time.sleep(0.3), end=5)
    loader.load(0)
    assert loader.waited >= 0.3
    time.sleep(0.6)
    loader.load(1)
    assert loader.waited < 0.3
    loader.close()


def test_a_mistake_in_the_loaders_thread_is_raised():
    loader = Loader(lambda step: [] if step == 0 else known_separator(None), end=2)
    loader.load(0)
    with pytest.raises(UserError, match="no end-of-text token"):
        loader.load(1)
    loader.close()


def test_a_closed_loader_leaves_no_thread_and_can_be_used_again():
    before = threading.active_count()
    loader = Loader(lambda step: [], end=10)
    loader.load(0)
    assert threading.active_count() == before + 1
    loader.close()
    assert threading.active_count() == before
    loader.load(1)
    loader.close()
