"""Requests to stop, heard between updates instead of in the middle of one."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def interrupt_flag(armed: bool) -> Iterator[Callable[[], bool]]:
    """Turn Ctrl-C and SIGTERM, by which schedulers and torchrun end a process, into a flag."""
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
