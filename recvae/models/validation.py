"""The metric by which models choose their settings on validation users."""

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from recvae.errors import ParameterError
from recvae.evaluation.metrics import ACCURACY_METRICS, hit_matrix, parse_metric
from recvae.models.base import Recommender
from recvae.topn import IntArray

if TYPE_CHECKING:
    from recvae.nn.parallelism import Parallelism


def check_metric(metric: Any) -> str:
    """The name of a metric that has a value for each user.

    Raises
    ------
    ParameterError
        If it is none.
    """
    if not isinstance(metric, str) or parse_metric(metric)[0] not in ACCURACY_METRICS:
        raise ParameterError(f"metric is {metric!r}; expected one of {', '.join(ACCURACY_METRICS)} with its cutoff")
    return metric


def metric_by_user(ids: IntArray, held_out: sparse.csr_matrix, metric: str) -> npt.NDArray[np.float64]:
    """(n_users,) the metric of their lists, (n_users, K); NaN for those without held-out items."""
    name, k = parse_metric(metric)
    return ACCURACY_METRICS[name](hit_matrix(ids, held_out), np.diff(held_out.indptr), k)


def mean_metric(ids: IntArray, held_out: sparse.csr_matrix, metric: str) -> float:
    """The mean over users of the metric of their lists, (n_users, K)."""
    return float(np.nanmean(metric_by_user(ids, held_out, metric)))


def validate(
    model: Recommender,
    validation: tuple[sparse.csr_matrix, sparse.csr_matrix],
    metric: str,
    parallelism: "Parallelism | None" = None,
) -> float:
    """The mean over validation users, (fold_in, held_out), of what the model as it is recommends.

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
