"""The time that a model will take, from that of a smaller sample of the data."""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import sparse

from recvae.data.splitting import Split
from recvae.errors import RecvaeError
from recvae.fitting.candidates import Candidate
from recvae.fitting.interruption import OutOfTimeError, interrupt_after

LARGE_INTERACTIONS, LARGE_ITEMS = 500_000, 8_000
"""Smaller data are not sampled: they take seconds."""
EXPONENTS = {"ease": 3.0, "cosine": 3.0, "tfidf": 3.0, "bm25": 3.0, "als": 2.7}
"""Growth of the time with the side of the matrix: n³ for an inverse or for the products of all items, n^⅔ more than
the interactions for ALS, whose factors grow with the cube root of n.
"""
INTERACTIONS_EXPONENT = 2.0
REFIT_SHARES = {"ease": 0.35, "graph": 0.5, "als": 0.5}
"""Time of a fit with settings that are given, as a share of one that chooses them, for models that try several."""
WARM_UP, SAMPLE, LARGER_SAMPLE = 1 / 8, 1 / 4, 1 / 2
PROBE_SHARE = 0.25


def is_large(split: Split) -> bool:
    """Tell whether a model's time should be estimated before it is fitted."""
    return bool(split.train.nnz > LARGE_INTERACTIONS or split.train.shape[1] > LARGE_ITEMS)


def estimate_seconds(candidate: Candidate, split: Split, allowed: float, seed: int) -> float:
    """Estimate the seconds to fit a model without epochs, from samples of the users and of the items.

    A quarter of both is looked at first, and half of them where the quarter's time does not show that the model fits
    into what is allowed. 0 where a sample cannot be fitted, which tells nothing.
    """
    exponent = EXPONENTS.get(candidate.name, INTERACTIONS_EXPONENT)
    estimate = 0.0
    for share in (WARM_UP, SAMPLE, LARGER_SAMPLE):
        seconds = _time_sample(candidate, split, share, PROBE_SHARE * allowed, seed)
        if seconds is None:
            return estimate
        estimate = seconds * (1 / share) ** exponent
        if share != WARM_UP and (estimate <= allowed or seconds * (LARGER_SAMPLE / share) ** exponent > allowed / 4):
            break
    return estimate


def _time_sample(candidate: Candidate, split: Split, share: float, most: float, seed: int) -> float | None:
    """Seconds to fit a share of the users and of the items; None if that fails."""
    generator = np.random.default_rng(seed)
    items = np.sort(generator.choice(split.train.shape[1], int(share * split.train.shape[1]), replace=False))

    def sample(matrix: sparse.csr_matrix, n_rows: int) -> Any:
        return matrix[:n_rows][:, items]

    users = generator.permutation(split.train.shape[0])[: int(share * split.train.shape[0])]
    validation = None
    if split.validation is not None:
        n_rows = int(share * split.validation.n_users)
        validation = sample(split.validation.fold_in, n_rows), sample(split.validation.held_out, n_rows)
        validation = validation if validation[1].nnz else None
    started = time.monotonic()
    try:
        with interrupt_after(most):
            candidate.create().fit(split.train[users][:, items], show_progress=False, validation=validation)
    except OutOfTimeError:
        return time.monotonic() - started
    except (RecvaeError, MemoryError, ImportError):
        return None
    return time.monotonic() - started


def compare_cost(best: Mapping[str, Any], drawn: Mapping[str, Any]) -> float:
    """The growth of the time from one setting to another, whose whole numbers are sizes."""
    ratio = 1.0
    for name, value in drawn.items():
        if isinstance(value, int) and isinstance(best.get(name), int) and best[name] > 0 and name != "batch_size":
            ratio *= max(1.0, value / best[name])
    return ratio
