"""An end to work that takes longer than it may."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SECONDS_BETWEEN_ALARMS = 5.0


class OutOfTimeError(BaseException):
    """Raised inside work that has used up its time; caught where the work was begun.

    Like `KeyboardInterrupt` it is no `Exception`, which the work itself might take for a failure of its own.
    """


@contextmanager
def interrupt_after(seconds: float) -> Iterator[None]:
    """Raise `OutOfTimeError` in the block after some seconds, between two steps of Python, as Ctrl-C would.

    It ends models that have no epochs to be stopped at. Only the main thread can be interrupted, and not on Windows:
    elsewhere the block runs to its end.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def stop(*_: object) -> None:
        raise OutOfTimeError

    previous = signal.signal(signal.SIGALRM, stop)
    # Repeated, because Python ignores an exception that happens to be raised in a destructor.
    signal.setitimer(signal.ITIMER_REAL, min(max(seconds, 0.001), threading.TIMEOUT_MAX), SECONDS_BETWEEN_ALARMS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


class Interruptions:
    """Ctrl-C in a search: the first one ends the search, but not the work that follows; the second one ends that too.

    Attributes
    ----------
    finishes : bool
        Whether the search is over.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self.finishes = False
        self.count = 0

    def handle(self, *_: object) -> None:
        """Called by the system's signal."""
        self.count += 1
        if self.finishes and self.count == 1:
            self._say("the best model is being fitted; Ctrl-C again ends at once")
            return
        raise KeyboardInterrupt


@contextmanager
def note_interruptions(say: Callable[[str], None]) -> Iterator[Interruptions]:
    """Let `Interruptions` handle Ctrl-C in the block, where this is the main thread."""
    interruptions = Interruptions(say)
    if threading.current_thread() is not threading.main_thread():
        yield interruptions
        return
    previous = signal.signal(signal.SIGINT, interruptions.handle)
    try:
        yield interruptions
    finally:
        signal.signal(signal.SIGINT, previous)
