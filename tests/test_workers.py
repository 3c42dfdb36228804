"""Work in several processes: in order, in bounded memory, and nobody left behind."""

import os
import signal
import subprocess
import sys
import time
from itertools import count, islice

import pytest

from nanogpt.errors import UserError
from nanogpt.workers import grouped, map_in_order


def test_results_come_in_order_however_long_each_takes():
    def work(n: int) -> int:
        time.sleep(0.02 * (n % 3 == 0))
        return n * n

    assert list(map_in_order(work, range(20), processes=3)) == [n * n for n in range(20)]


@pytest.mark.parametrize("processes", [1, 2])
def test_an_endless_stream_is_taken_only_as_needed(processes):
    taken = []

    def stream():
        for n in count():
            taken.append(n)
            yield n

    results = map_in_order(abs, stream(), processes)
    assert list(islice(results, 3)) == [0, 1, 2]
    results.close()
    assert len(taken) <= 3 + 2 * processes + 1


@pytest.mark.parametrize("processes", [1, 2])
def test_a_mistake_in_a_process_is_raised_here(processes):
    def work(n: int) -> int:
        if n == 3:
            raise UserError("three is one too many")
        return n

    with pytest.raises(UserError, match="three is one too many"):
        list(map_in_order(work, range(9), processes))


def test_a_killed_process_is_named():
    def work(n: int) -> None:
        if n == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(UserError, match="perhaps because memory ran out; use fewer processes"):
        list(map_in_order(work, range(9), 2))


def test_no_process_outlives_the_one_that_started_it():
    """Killed without warning, it cannot tell them to end."""
    code = """
import multiprocessing, os, signal, time
from nanogpt.workers import map_in_order
results = map_in_order(abs, range(10**9), 2)
next(results)
print(*(child.pid for child in multiprocessing.active_children()), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=False)
    workers = [int(pid) for pid in done.stdout.split()]
    assert len(workers) == 2
    deadline = time.monotonic() + 20
    while any(map(is_alive, workers)):
        assert time.monotonic() < deadline, "still there"
        time.sleep(0.1)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] != "Z"


def test_groups_hold_everything_in_order():
    items = ["a" * n for n in (3, 1, 4, 1, 5, 9, 2, 6)]
    groups = list(grouped(items, len, limit=7))
    assert [item for group in groups for item in group] == items
    assert [sum(map(len, group)) for group in groups] == [8, 15, 8]
