"""The number of threads of a training run: fewer while other processes keep the cores busy."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from recvae.machine.cores import THREADS_ARE_GIVEN

WINDOW = 0.1
"""Seconds for which updates are timed with one number of threads."""
FEWEST_UPDATES = 2
FIRST_TRIAL, FIRST_UPDATES = 1.0, 10
"""Seconds of training, and updates, before another number is tried; the next trials follow when it has lasted twice as
long, and so on.
"""
TRIAL_SHARE, EARLY_SHARE = 0.02, 0.1
"""Share of the time in which another number is tried, and largest one of the first trials."""
GAIN = 0.95
"""Another number is taken if an update's time falls below this share."""


class ThreadChoice:
    """The number of threads with which updates are fastest, found by trying half and twice as many now and then.

    Threads wait for each other several times in each layer. As soon as another process keeps a core busy, the thread
    that shares its core with it holds up all others, and one thread is faster than two.

    Parameters
    ----------
    most : int
        Number of threads to begin with; there are never more.
    set_threads : callable
        Called with each new number.

    Attributes
    ----------
    number : int
        Threads of the next update.
    """

    def __init__(self, most: int, set_threads: Callable[[int], None]) -> None:
        self.most, self.number, self._set_threads = most, most, set_threads
        self._seconds, self._updates = 0.0, 0
        self._trained, self._made = 0.0, 0
        self._is_first = False
        self._before: tuple[int, float] | None = None  # while another number is tried: the last one, and its time
        self._halves = True
        self._until_trial = FIRST_TRIAL

    def record(self, seconds: float) -> None:
        """Take note of an update's seconds, and choose the number of threads for the next one."""
        self._trained, self._made = self._trained + seconds, self._made + 1
        if self._is_first:  # with a new number of threads libraries prepare their kernels again
            self._is_first = False
            return
        self._seconds, self._updates = self._seconds + seconds, self._updates + 1
        if self._seconds < WINDOW or self._updates < FEWEST_UPDATES:
            return
        elapsed, mean = self._seconds, self._seconds / self._updates
        self._seconds, self._updates = 0.0, 0
        if self._before is not None:
            number, before = self._before
            self._before = None
            self._until_trial = min(elapsed / TRIAL_SHARE, max(elapsed / EARLY_SHARE, self._trained))
            if mean > GAIN * before:
                self._change(number)
            return
        self._until_trial -= elapsed
        if self._until_trial <= 0 and self._made >= FIRST_UPDATES:
            self._halves = self.number > 1 and (self.number == self.most or not self._halves)
            self._before = self.number, mean
            self._change(self.number // 2 if self._halves else min(2 * self.number, self.most))

    def _change(self, number: int) -> None:
        self.number, self._is_first = number, True
        self._set_threads(number)


@contextmanager
def adapted_threads(enabled: bool) -> Iterator[Callable[[float], None]]:
    """Adapt the number of PyTorch's threads to a machine that other processes use too; at the end it is as before.

    A number that the environment gives, as `OMP_NUM_THREADS` does, stays as it is.

    Yields
    ------
    callable
        To be called with each update's seconds.
    """
    most = torch.get_num_threads()
    if not enabled or most == 1 or THREADS_ARE_GIVEN:
        yield lambda _: None
        return
    try:
        yield ThreadChoice(most, torch.set_num_threads).record
    finally:
        torch.set_num_threads(most)
