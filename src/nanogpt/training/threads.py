"""How many threads a run on a CPU computes on: all of them, or one.

After every small operation torch's threads wait for the slowest of them. Where another program
uses a core, that wait can be longer than the work, and one thread alone is several times faster.
Nothing but a measurement tells. It takes a few of the run's own steps.

The order of sums depends on the number of threads, and so do the last bits of a run. So one thread
is taken only where it clearly wins, and every change is written down.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median

import torch

# Times as fast as all threads. Where other programs merely take their share, one thread and all are
# about as fast; where threads wait for one that was put off, one is several times faster.
CLEARLY = 1.5
DROPPED = 0.5  # of the usual speed: something else has begun, or has ended
RECENT = 9  # steps whose median is the speed of now
AT_MOST = 1.0  # seconds of a piece of work that is worth trying again and again


@contextmanager
def limited_to(threads: int) -> Iterator[None]:
    """Let torch compute on so many threads, and on as many as before when this ends."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def seconds_of(work: Callable[[], object], threads: int) -> float:
    """How long some work takes on so many threads."""
    torch.set_num_threads(threads)
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def faster(work: Callable[[], object], most: int, now: int) -> int:
    """One thread or `most`, whichever does the work faster at the moment.

    Both are tried in turn, three times; the first try also pays for memory, and does not count.
    Work of over a second is long enough not to suffer: then it stays as it is `now`.
    """
    if seconds_of(work, now) > AT_MOST:
        return now
    seconds = dict.fromkeys((1, most), 0.0)
    for _ in range(3):
        for threads in seconds:
            seconds[threads] += seconds_of(work, threads)
    return 1 if CLEARLY * seconds[1] < seconds[most] else most


class Threads:
    """Chooses the number of threads of a run, and doubts it when its speed has changed.

    Args:
        work: a step of the run that changes nothing.
        most: threads that there are.
        now: how many the run has used so far; 0 if nothing was chosen yet.
    """

    def __init__(self, work: Callable[[], object], most: int, now: int) -> None:
        self.work, self.most = work, most
        self.doubtful = not now
        self.usual, self.recent = 0.0, deque[float](maxlen=RECENT)
        torch.set_num_threads(min(now, most) or most)

    def choose(self) -> int:
        """Measure, and use what is faster from now on. Returns how many threads that are."""
        threads = faster(self.work, self.most, torch.get_num_threads())
        torch.set_num_threads(threads)
        self.doubtful, self.usual = False, 0.0
        self.recent.clear()
        return threads

    def notice(self, speed: float, occasion: bool) -> None:
        """Look at the speed of one more step, in any unit.

        Half the usual speed is a reason for doubt. So is an `occasion` if not all threads are used:
        nothing else would show that the machine is free again.
        """
        self.recent.append(speed)
        if len(self.recent) == RECENT:
            now = median(self.recent)
            self.usual = max(self.usual, now)
            self.doubtful = now < DROPPED * self.usual
        self.doubtful |= occasion and torch.get_num_threads() < self.most
