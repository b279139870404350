"""The options of one call of `fit`, as models receive them."""

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
class FitContext:
    """The checked arguments of `fit` beside the training matrix, and that matrix's fingerprint.

    Attributes
    ----------
    show_progress : bool
    callback : callable, optional
        Called as `callback(epoch, seconds, loss)`.
    validation : (fold_in, held_out), optional
        Two matrices with a row for each validation user.
    checkpoint : Path, optional
        Directory in which training keeps its state.
    resume : bool
        Continue from `checkpoint`.
    fingerprint : str
        SHA-256 of the training matrix.
    """

    show_progress: bool
    callback: Callback | None
    validation: tuple[sparse.csr_matrix, sparse.csr_matrix] | None
    checkpoint: Path | None
    resume: bool
    fingerprint: str

    @property
    def shows_bar(self) -> bool:
        """Whether to draw a progress bar: it was asked for, and standard error is a terminal."""
        return self.show_progress and sys.stderr.isatty()

    @contextmanager
    def report_end(self) -> Iterator[None]:
        """Call the callback once, at the end of a fit that has no epochs, with a loss of NaN."""
        started = time.perf_counter()
        yield
        if self.callback is not None:
            self.callback(0, time.perf_counter() - started, float("nan"))
