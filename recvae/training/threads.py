"""The number of threads of a training run: fewer while other processes keep the cores busy."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import process_time

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
USED = 0.85
"""Share of its threads' time that a training uses up at least where no other process keeps it from the cores: the first
trial follows at once where it gets less. On two cores it is .99 on a quiet machine, .75 beside one busy process and .5
beside two, where updates with both threads can take twenty times as long.
"""
HOPELESS = 4.0
"""A trial ends with its first update if that takes so many times as long as those before. Libraries prepare their
kernels again when the number changes, which makes the first one up to twice as long.
"""


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
        self._seconds, self._used, self._updates = 0.0, 0.0, 0
        self._trained, self._made = 0.0, 0
        self._is_first = True  # of the updates with this number
        self._before: tuple[int, float] | None = None  # while another number is tried: the last one, and its time
        self._halves, self._has_tried = True, False
        self._until_trial = FIRST_TRIAL

    def record(self, seconds: float, used: float) -> None:
        """Take note of an update, and choose the number of threads for the next one.

        Parameters
        ----------
        seconds : float
        used : float
            Processor time of all threads, in seconds.
        """
        self._trained, self._made = self._trained + seconds, self._made + 1
        if self._is_first:  # libraries prepare their kernels
            self._is_first = False
            if self._before is not None and seconds > HOPELESS * self._before[1]:
                self._end_trial(self._before, seconds, seconds)
            return
        self._seconds, self._used, self._updates = self._seconds + seconds, self._used + used, self._updates + 1
        if self._seconds < WINDOW or self._updates < FEWEST_UPDATES:
            return
        elapsed, mean, used = self._seconds, self._seconds / self._updates, self._used
        self._seconds, self._used, self._updates = 0.0, 0.0, 0
        if self._before is not None:
            self._end_trial(self._before, elapsed, mean)
            return
        self._until_trial -= elapsed
        is_due = self._until_trial <= 0 and self._made >= FIRST_UPDATES
        if is_due or (not self._has_tried and used < USED * self.number * elapsed):
            self._has_tried = True
            self._halves = self.number > 1 and (self.number == self.most or not self._halves)
            self._before = self.number, mean
            self._change(self.number // 2 if self._halves else min(2 * self.number, self.most))

    def _end_trial(self, before: tuple[int, float], elapsed: float, mean: float) -> None:
        self._before = None
        self._until_trial = min(elapsed / TRIAL_SHARE, max(elapsed / EARLY_SHARE, self._trained))
        if mean > GAIN * before[1]:
            self._change(before[0])

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
    choice, until = ThreadChoice(most, torch.set_num_threads), process_time()

    def record(seconds: float) -> None:
        nonlocal until
        now = process_time()
        used, until = now - until, now
        choice.record(seconds, min(used, choice.number * seconds))  # validation between epochs uses some, too

    try:
        yield record
    finally:
        torch.set_num_threads(most)
