"""Ends of training before its time: a callback's wish, and signals, noted when they come, obeyed between updates."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class StopTrainingError(Exception):
    """Raised by a callback to end an autoencoder's training; `fit` returns with the best epoch so far."""


@contextmanager
def interrupt_flag(armed: bool) -> Iterator[Callable[[], bool]]:
    """Note Ctrl-C, and SIGTERM by which schedulers and torchrun end a process, instead of stopping at once.

    Parameters
    ----------
    armed : bool
        Without it signals keep their usual effect.

    Yields
    ------
    callable
        Tells whether such a signal has come.
    """
    # Python delivers signals to the main thread only, and lets no other thread set handlers.
    if not armed or threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    flag = threading.Event()
    previous = {number: signal.signal(number, lambda *_: flag.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield flag.is_set
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
