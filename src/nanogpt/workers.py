"""Work shared out among processes, with results in order."""

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, TypeVar

from nanogpt.errors import Interrupted, UserError

T = TypeVar("T")
R = TypeVar("R")

# What asks a process to end. Windows has no SIGHUP.
STOPPING = [s for s in signal.Signals if s.name in ("SIGINT", "SIGTERM", "SIGHUP")]
MOST_FOR_A_CORE = 16

_function: Callable[[Any], Any]  # what this process was started to do


def map_in_order(function: Callable[[T], R], items: Iterable[T], processes: int) -> Iterator[R]:
    """Like map(function, items), computed by several processes; one process is map itself.

    Only a few items per process are taken in advance, so there may be any number of them. The
    function travels once to each process, not with every item. Raises Interrupted if one of the
    processes dies.

    >>> list(map_in_order(str.upper, "abc", processes=2))
    ['A', 'B', 'C']
    """
    if processes <= 1:
        yield from map(function, items)
        return
    pool = ProcessPoolExecutor(processes, initializer=_begin, initargs=(function,))
    pending: deque[Future[R]] = deque()
    try:
        for item in items:
            with signals_held_back():  # it may start processes
                pending.append(pool.submit(_call, item))
            if len(pending) > 2 * processes:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except BrokenProcessPool:
        raise Interrupted(
            "a working process was killed, perhaps because memory ran out; use fewer processes"
        ) from None
    finally:
        with deaf_to_interrupts():  # a second Ctrl-C must not break the farewell
            pool.shutdown(cancel_futures=True)


def rank() -> int:
    """The number of this process among those that train one model together; 0 if it is alone."""
    return int(os.environ.get("RANK", 0)) if world() > 1 else 0


def world() -> int:
    """How many processes train one model together."""
    return int(os.environ.get("WORLD_SIZE", 1))


def number_of_processes(option: str, given: int | None) -> int:
    """How many processes an option asks for; where it is not given, one for each core.

    Raises UserError for fewer than one, and for so many that the machine would only switch
    between them.
    """
    most = MOST_FOR_A_CORE * usable_cores()
    if given is None:
        return usable_cores()
    if not 1 <= given <= most:
        raise UserError(f"{option} {given}: use 1 to {most}, which is {MOST_FOR_A_CORE} a core")
    return given


@contextmanager
def signals_held_back() -> Iterator[None]:
    """Let signals wait inside. In the middle of a fork Python would report and forget them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def deaf_to_interrupts() -> Iterator[None]:
    """Ignore Ctrl-C and the like inside, where only the main thread could be interrupted at all."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, signal.SIG_IGN) for number in STOPPING}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _begin(function: Callable[[Any], Any]) -> None:
    """What a new process does first."""
    global _function
    _function = function
    # These reach every process of a terminal; the one that handed out the work deals with them.
    for number in STOPPING:
        signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.SIG_IGN)
    hear_signals()
    end_with_parent()


def hear_signals() -> None:
    """Hear them again, in a process that was started while they were held back."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)


def end_with_parent() -> None:
    """From now on, end this process when the one that started it is gone."""
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def _end_with(parent: int) -> None:
    """Wait for that: nobody would ever tell this process to end."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _call(item: Any) -> Any:
    """What it does with each item."""
    return _function(item)


def grouped(
    items: Iterable[T], size: Callable[[T], int], limit: int = 1_000_000
) -> Iterator[list[T]]:
    """Group consecutive items until their sizes reach a limit: enough work to be worth sending.

    >>> list(grouped(["aaa", "b", "cc", "d"], len, limit=4))
    [['aaa', 'b'], ['cc', 'd']]
    """
    group: list[T] = []
    total = 0
    for item in items:
        group.append(item)
        total += size(item)
        if total >= limit:
            yield group
            group, total = [], 0
    if group:
        yield group


def usable_cores() -> int:
    """How many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
