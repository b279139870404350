"""One call of `fit`: how it reports, validates and keeps its state."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scipy import sparse

from recvae.data.csr import UserItems

Callback = Callable[[int, float, float], None]
Validation = tuple[UserItems, UserItems]


@dataclass(frozen=True)
class Run:
    """What `fit` was asked, beyond the matrix to learn from, and that matrix's fingerprint."""

    show_progress: bool
    callback: Callback | None
    validation: tuple[sparse.csr_matrix, sparse.csr_matrix] | None
    checkpoint: Path | None
    resume: bool
    data: str

    @property
    def bar(self) -> bool:
        """Whether to draw a progress bar: asked for, and there is a terminal to draw it on."""
        return self.show_progress and sys.stderr.isatty()

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Report the end of a fit that has no epochs."""
        started = time.perf_counter()
        yield
        if self.callback is not None:
            self.callback(0, time.perf_counter() - started, float("nan"))
