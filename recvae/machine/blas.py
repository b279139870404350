"""A limit of the threads of BLAS."""

from functools import cache
from importlib import import_module
from threading import Lock
from typing import Any


class BlasLimit:
    """Limits BLAS to one thread while any thread of the process is inside: for many small systems or products.

    More threads would wait for each other at every one, which takes a hundred times as long where something else
    keeps a core busy. The last one to leave restores the number, whoever came first. Without threadpoolctl nothing is
    limited.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._inside = 0
        self._limiter: Any = None

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1 and (controller := _find_blas()) is not None:
                self._limiter = controller.limit(limits=1, user_api="blas")

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0 and self._limiter is not None:
                self._limiter.restore_original_limits()


ONE_BLAS_THREAD = BlasLimit()


@cache
def _find_blas() -> Any:
    """The BLAS libraries that are loaded, found once: that takes milliseconds; None without threadpoolctl."""
    try:
        return import_module("threadpoolctl").ThreadpoolController()
    except ImportError:
        return None
