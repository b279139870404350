"""Choice of settings that are not given, by the lists of validation users."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import sparse

from recvae.evaluation.metrics import parse_metric
from recvae.memory import row_batches
from recvae.models.validation import ValidationUsers, mean_metric
from recvae.topn import mask_seen, top_n
from recvae.types import FloatArray

MOST_USERS = 1000
"""Validation users whose lists are made for each setting."""


def choose(candidates: Mapping[str, Sequence[Any]], measure: Callable[[dict[str, Any]], float]) -> dict[str, Any]:
    """Find the best values, one setting after the other, until no change of one makes it better.

    Parameters
    ----------
    candidates : mapping of name to values
        The search starts from the first value of each, so that what it finds is never worse than those.
    measure : callable
        Gives the quality of values by name; NaN is worse than anything.
    """
    best = {name: values[0] for name, values in candidates.items()}
    if all(len(values) == 1 for values in candidates.values()):
        return best
    measured: dict[tuple[Any, ...], float] = {}

    def quality(values: dict[str, Any]) -> float:
        key = tuple(values.values())
        if key not in measured:
            measured[key] = np.nan_to_num(measure(values), nan=-np.inf)
        return measured[key]

    before = None
    while before != best:
        before = best
        for name, values in candidates.items():
            best = max(({**best, name: value} for value in (best[name], *values)), key=quality)
    return best


def keep_comparable(fold_in: sparse.csr_matrix, held_out: sparse.csr_matrix) -> ValidationUsers | None:
    """The first `MOST_USERS` users who have both a history and something to find; None if there are none."""
    both = np.flatnonzero((np.diff(fold_in.indptr) > 0) & (np.diff(held_out.indptr) > 0))[:MOST_USERS]
    return (fold_in[both], held_out[both]) if len(both) else None


def measure_lists(score: Callable[[slice], FloatArray], validation: ValidationUsers, metric: str) -> float:
    """Average the metric over the lists of the validation users, each of whom has something to find.

    Parameters
    ----------
    score : callable
        Gives a new (n_users, n_items) array of scores for a slice of the rows of fold_in.
    """
    fold_in, held_out = validation
    ids = []
    for batch in row_batches(fold_in.shape[0], 4 * fold_in.shape[1]):
        scores = score(batch)
        mask_seen(scores, fold_in[batch])
        ids.append(top_n(scores, parse_metric(metric)[1])[0])
    return mean_metric(np.concatenate(ids), held_out, metric)
