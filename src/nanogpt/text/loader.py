"""The batches of the next step, made while the model works on those of this one."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from nanogpt.text.batches import Batch


class Loader:
    """Makes batches one step ahead, in a thread.

    `load(step)` gives what `make(step)` gives, for steps below `end`; `waited` is how many seconds
    the last call took.
    """

    def __init__(self, make: Callable[[int], list[Batch]], end: int) -> None:
        self.make, self.end = make, end
        self.waited = 0.0
        self._pool: ThreadPoolExecutor | None = None
        self._next: tuple[int, Future[list[Batch]]] | None = None

    def load(self, step: int) -> list[Batch]:
        """The batches of a step, already made if the steps come in order."""
        start = time.perf_counter()
        if self._next and self._next[0] == step:
            batches = self._next[1].result()
        else:
            batches = self.make(step)
        self._next = None
        if step + 1 < self.end:
            self._pool = self._pool or ThreadPoolExecutor(1)
            self._next = step + 1, self._pool.submit(self.make, step + 1)
        self.waited = time.perf_counter() - start
        return batches

    def close(self) -> None:
        """End the thread. A later `load` begins a new one."""
        if self._pool:
            self._pool.shutdown(cancel_futures=True)
        self._pool = self._next = None
