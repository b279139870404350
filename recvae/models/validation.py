"""The metric by which models choose their settings on validation users."""

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from recvae.errors import ParameterError
from recvae.evaluation.metrics import ACCURACY_METRICS, hit_matrix, parse_metric
from recvae.models.base import Recommender
from recvae.types import IntArray

if TYPE_CHECKING:
    from recvae.nn.parallelism import Parallelism


LARGEST_CUTOFF = 10_000
"""Longest lists that are made for every validation user."""


def check_metric(metric: Any) -> str:
    """Check the name of a metric that has a value for each user.

    Raises
    ------
    ParameterError
        For anything else.
    """
    if not isinstance(metric, str) or parse_metric(metric)[0] not in ACCURACY_METRICS:
        raise ParameterError(f"metric is {metric!r}; expected one of {', '.join(ACCURACY_METRICS)} with its cutoff")
    if parse_metric(metric)[1] > LARGEST_CUTOFF:
        raise ParameterError(f"metric is {metric!r}; expected a cutoff of at most {LARGEST_CUTOFF:,}")
    return metric


def metric_by_user(ids: IntArray, held_out: sparse.csr_matrix, metric: str) -> npt.NDArray[np.float64]:
    """Compute the metric of each user's list.

    Parameters
    ----------
    ids : (n_users, K) int32
    held_out : csr_matrix, shape (n_users, n_items)

    Returns
    -------
    (n_users,) float64
        NaN for users without held-out items.
    """
    name, k = parse_metric(metric)
    return ACCURACY_METRICS[name](hit_matrix(ids, held_out), np.diff(held_out.indptr), k)


def mean_metric(ids: IntArray, held_out: sparse.csr_matrix, metric: str) -> float:
    """Average `metric_by_user` over the users that have held-out items."""
    return float(np.nanmean(metric_by_user(ids, held_out, metric)))


def validate(
    model: Recommender,
    validation: tuple[sparse.csr_matrix, sparse.csr_matrix],
    metric: str,
    parallelism: "Parallelism | None" = None,
) -> float:
    """Average the metric over the validation users, (fold_in, held_out), for the model as it is now.

    Several processes share these users.
    """
    fold_in, held_out = validation
    if parallelism is not None:
        users = parallelism.own_users(fold_in.shape[0])
        fold_in, held_out = fold_in[users], held_out[users]
    ids, _ = model.recommend(np.arange(fold_in.shape[0]), fold_in, N=parse_metric(metric)[1], recalculate_user=True)
    values = metric_by_user(ids, held_out, metric)
    sums = float(np.nansum(values)), float(np.isfinite(values).sum())
    total, n_users = sums if parallelism is None else parallelism.sum_over_users(*sums)
    return total / n_users
