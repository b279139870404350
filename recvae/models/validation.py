"""The metric by which models choose their settings on validation users."""

from typing import Any

import numpy as np
from scipy import sparse

from recvae.errors import ParameterError
from recvae.metrics import ACCURACY_METRICS, hit_matrix, parse_metric
from recvae.models.base import Recommender
from recvae.topn import IntArray


def checked_metric(metric: Any) -> str:
    """The name of a metric that has a value for each user.

    Raises
    ------
    ParameterError
        If it is none.
    """
    if not isinstance(metric, str) or parse_metric(metric)[0] not in ACCURACY_METRICS:
        raise ParameterError(f"metric is {metric!r}; expected one of {', '.join(ACCURACY_METRICS)} with its cutoff")
    return metric


def mean_metric(ids: IntArray, held_out: sparse.csr_matrix, metric: str) -> float:
    """The mean over users of the metric of their lists, (n_users, K)."""
    name, k = parse_metric(metric)
    return float(np.nanmean(ACCURACY_METRICS[name](hit_matrix(ids, held_out), np.diff(held_out.indptr), k)))


def validated(model: Recommender, validation: tuple[sparse.csr_matrix, sparse.csr_matrix], metric: str) -> float:
    """The mean over validation users, (fold_in, held_out), of what the model as it is recommends."""
    fold_in, held_out = validation
    ids, _ = model.recommend(np.arange(fold_in.shape[0]), fold_in, N=parse_metric(metric)[1], recalculate_user=True)
    return mean_metric(ids, held_out, metric)
