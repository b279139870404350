"""The options of one call of `fit`, as models receive them."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from scipy import sparse

from recvae.data.csr import check_csr
from recvae.errors import ParameterError
from recvae.types import UserItems

if TYPE_CHECKING:
    from recvae.data.splitting import Holdout

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
    choosing_seconds : list of float
        Times spent on choosing settings.
    """

    show_progress: bool
    callback: Callback | None
    validation: tuple[sparse.csr_matrix, sparse.csr_matrix] | None
    checkpoint: Path | None
    resume: bool
    fingerprint: str
    choosing_seconds: list[float] = field(default_factory=list)

    @property
    def shows_bar(self) -> bool:
        """True where a progress bar was asked for and standard error is a terminal."""
        return self.show_progress and sys.stderr.isatty()

    @contextmanager
    def report_end(self) -> Iterator[None]:
        """Call the callback once, at the end of a fit that has no epochs, with a loss of NaN."""
        started = time.perf_counter()
        yield
        if self.callback is not None:
            self.callback(0, time.perf_counter() - started, float("nan"))

    @contextmanager
    def choosing(self) -> Iterator[None]:
        """Count the block's time as spent on choosing settings, which `refit` does not do again."""
        started = time.perf_counter()
        yield
        self.choosing_seconds.append(time.perf_counter() - started)


def check_validation(
    validation: "Validation | Holdout", train: sparse.csr_matrix
) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    """Check the two matrices of the validation users, `fold_in` and `held_out`, beside the training matrix.

    Raises
    ------
    ParameterError
        If they are no matrices with the columns of `train` and the same rows, or nothing is held out.
    """
    try:
        pair = validation if isinstance(validation, tuple | list) else (validation.fold_in, validation.held_out)
        fold_in, held_out = pair
    except (AttributeError, ValueError):
        raise ParameterError(
            f"validation is a {type(validation).__name__}; expected a Holdout, or two matrices: (fold_in, held_out)"
        ) from None
    fold_in, held_out = check_csr(fold_in, "fold_in", train), check_csr(held_out, "held_out", train)
    if fold_in.shape != held_out.shape or held_out.nnz == 0:
        raise ParameterError(
            f"validation has {fold_in.shape[0]:,} fold_in rows, and {held_out.shape[0]:,} held_out rows with "
            f"{held_out.nnz:,} interactions; expected a row each for the same users, and interactions to find"
        )
    return fold_in, held_out
