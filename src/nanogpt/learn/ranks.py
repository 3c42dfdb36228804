"""Several ranks in one process: threads that share nothing and send each other tensors.

A rank is one of the machines of a training, known by its number. Here each rank is a thread, so
that a lesson can show what machines send each other, and count it. What would hang on real machines
ends here in a sentence.
"""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


class RankError(RuntimeError):
    """Why some ranks did not come to an end, in one sentence that names a rank."""


class Deadlock(RankError):
    """All ranks that are left wait for messages that nobody will send."""


class LeftOver(RankError):
    """A message that nobody received. On real machines it would be taken for the next one."""


class Stopped(BaseException):
    """Raised in the ranks that wait, as soon as another one has failed."""


@dataclass
class Rank:
    """One of `size` machines. It may send tensors, receive them, and compute."""

    number: int
    size: int
    post: "Post" = field(repr=False)
    messages: int = 0  # that it has sent
    sent: int = 0  # bytes

    def send(self, tensor: Tensor, to: int) -> None:
        """Send the numbers of a tensor to another rank, without waiting until they are received."""
        self.check(to)
        if not isinstance(tensor, Tensor):
            raise TypeError(f"a message is a tensor, and this is of type {type(tensor).__name__}")
        self.messages += 1
        self.sent += tensor.numel() * tensor.element_size()
        self.post.deliver(tensor.detach().clone(), self.number, to)  # a message has no history

    def receive(self, source: int) -> Tensor:
        """Wait for the next tensor from a rank. Messages of one rank arrive in their order."""
        self.check(source)
        return self.post.wait(self.number, source)

    def check(self, other: int) -> None:
        """Raise IndexError for a rank that does not exist."""
        if other not in range(self.size):
            raise IndexError(f"there is no rank {other}: the ranks are 0 to {self.size - 1}")


@dataclass(frozen=True)
class Ran:
    """What each rank gave, and how much it sent to others: entry r belongs to rank r."""

    results: list[Any]
    messages: list[int]
    sent: list[int]  # bytes


def run_ranks(size: int, function: Callable[[Rank], Any], seconds: float = 20.0) -> Ran:
    """Call function(rank) in `size` threads at once.

    Raises RankError if a rank raises an error (which is its cause) or after `seconds`, Deadlock if
    ranks wait for messages that nobody will send, LeftOver if nobody received a message.
    """
    post = Post(size)
    ranks = [Rank(number, size, post) for number in range(size)]
    results: list[Any] = [None] * size
    recording = torch.is_grad_enabled()  # which each thread has for itself

    def run(rank: Rank) -> None:
        try:
            with torch.set_grad_enabled(recording):
                results[rank.number] = function(rank)
        except Stopped:
            pass
        except BaseException as error:
            said = f"rank {rank.number}: {type(error).__name__}: {error}"
            post.fail(RankError(said), error)
        post.finish(rank.number)

    for rank in ranks:  # a daemon does not keep Python from ending
        threading.Thread(target=run, args=[rank], daemon=True).start()
    post.wait_for_all(seconds)
    return Ran(results, [rank.messages for rank in ranks], [rank.sent for rank in ranks])


class Post:
    """The messages on their way, and who waits for whom."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.boxes: dict[tuple[int, int], deque[Tensor]] = {}  # by source and target
        self.waiting: dict[int, int] = {}  # rank -> the rank that it waits for
        self.done: set[int] = set()
        self.problem: RankError | None = None
        self.lock = threading.RLock()
        self.news = [threading.Condition(self.lock) for _ in range(size)]  # for each rank
        self.end = threading.Condition(self.lock)

    def deliver(self, tensor: Tensor, source: int, target: int) -> None:
        """Put a message into the box of its target."""
        with self.lock:
            self.boxes.setdefault((source, target), deque()).append(tensor)
            self.news[target].notify()

    def wait(self, target: int, source: int) -> Tensor:
        """The next message from source to target."""
        with self.lock:
            box = self.boxes.setdefault((source, target), deque())
            self.waiting[target] = source
            self.look()
            self.news[target].wait_for(lambda: box or self.problem)
            if self.problem:
                raise Stopped
            del self.waiting[target]
            return box.popleft()

    def finish(self, number: int) -> None:
        """A rank has come to its end."""
        with self.lock:
            self.done.add(number)
            self.look()
            self.end.notify()

    def look(self) -> None:
        """Notice that no rank can go on: all that are not done wait for empty boxes."""
        open_ones = set(range(self.size)) - self.done
        pairs = [(self.waiting[r], r) for r in sorted(open_ones & set(self.waiting))]
        if pairs and len(pairs) == len(open_ones) and not any(self.boxes.get(p) for p in pairs):
            waits = (
                f"rank {r} waits for rank {s}{', which has ended' if s in self.done else ''}"
                for s, r in pairs
            )
            self.fail(Deadlock("no rank can go on: " + ", ".join(waits)))

    def fail(self, problem: RankError, cause: BaseException | None = None) -> None:
        """Stop all ranks that wait; the first problem counts."""
        with self.lock:
            if self.problem is None:
                self.problem, problem.__cause__ = problem, cause
            for condition in (*self.news, self.end):
                condition.notify()

    def wait_for_all(self, seconds: float) -> None:
        """Return when all ranks are done. Raises RankError if that does not go well."""
        with self.lock:
            self.end.wait_for(lambda: len(self.done) == self.size or self.problem, seconds)
            open_ones = set(range(self.size)) - self.done
            if open_ones and not self.problem:
                busy = min(open_ones - set(self.waiting), default=min(open_ones))
                self.fail(RankError(f"rank {busy} was not finished after {seconds:g} seconds"))
            if self.problem:
                raise self.problem
            for (source, target), box in self.boxes.items():
                if box:
                    raise LeftOver(f"rank {target} never receives a message from rank {source}")
