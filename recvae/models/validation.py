"""The users on which models choose their settings, and the metric by which they do."""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy import sparse

from recvae.errors import ParameterError
from recvae.evaluation.metrics import ACCURACY_METRICS, hit_matrix, parse_metric
from recvae.models.base import Recommender
from recvae.types import IntArray

if TYPE_CHECKING:
    from recvae.nn.parallelism import Parallelism


ValidationUsers = tuple[sparse.csr_matrix, sparse.csr_matrix]
"""(fold_in, held_out), a row for each validation user."""

LARGEST_CUTOFF = 10_000
"""Longest lists that are made for every validation user."""
FEWEST_USERS, FEWEST_INTERACTIONS = 50, 5
"""Users with that many interactions that a matrix needs before users are held out of it."""
MOST_HELD_OUT_USERS, HELD_OUT_SHARE = 1000, 0.2
"""Held-out users, their largest share of the users with enough interactions, and the share of each one's interactions
that is to be found.
"""


def check_metric(metric: str) -> str:
    """Check the name of a metric that has a value for each user.

    Raises
    ------
    ParameterError
        For anything else.
    """
    if parse_metric(metric, ACCURACY_METRICS)[1] > LARGEST_CUTOFF:
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


def validate(model: Recommender, validation: ValidationUsers, metric: str) -> float:
    """Average the metric over the validation users, (fold_in, held_out); NaN where none has held-out items."""
    values = validate_users(model, validation, metric)
    return float(values.mean()) if len(values) else float("nan")


def validate_users(
    model: Recommender, validation: ValidationUsers, metric: str, parallelism: "Parallelism | None" = None
) -> npt.NDArray[np.float64]:
    """Compute the metric of each validation user who has held-out items, for the model as it is now.

    Several processes share these users, and all get everyone's figures.
    """
    fold_in, held_out = validation
    n_users = fold_in.shape[0]
    users = slice(0, n_users) if parallelism is None else parallelism.own_users(n_users)
    own = users.stop - users.start
    ids, _ = model.recommend(np.arange(own), fold_in[users], N=parse_metric(metric)[1], recalculate_user=True)
    values, counts = np.zeros(n_users), np.zeros(n_users)
    values[users], counts[users] = metric_by_user(ids, held_out[users], metric), 1
    if parallelism is not None:
        values, counts = np.split(np.array(parallelism.sum_over_users(*values, *counts)), 2)
    return (values / counts)[np.diff(held_out.indptr) > 0]


def find_validation(
    user_items: sparse.csr_matrix, validation: ValidationUsers | None, seed: int = 0
) -> tuple[sparse.csr_matrix, ValidationUsers] | None:
    """Find the matrix to learn from and the users to choose by: those given, else some held out of the matrix.

    Returns
    -------
    (train, (fold_in, held_out)), or None
        As of `hold_out_users`; None where nobody is given and the matrix has too few.
    """
    return hold_out_users(user_items, seed) if validation is None else (user_items, validation)


def hold_out_users(user_items: sparse.csr_matrix, seed: int = 0) -> tuple[sparse.csr_matrix, ValidationUsers] | None:
    """Hold users out of a training matrix, for a model that has settings to choose and was given no validation users.

    Of the users with at least `FEWEST_INTERACTIONS` interactions a fifth is drawn, at most 1,000, and a fifth of each
    one's interactions, rounded down, is to be found.

    Parameters
    ----------
    user_items : csr_matrix, shape (n_users, n_items)
    seed : int

    Returns
    -------
    (train, (fold_in, held_out)), or None
        The rows of the other users, and two matrices with a row for each user held out. None where fewer than
        `FEWEST_USERS` users have enough interactions, too few to choose anything by.
    """
    lengths = np.diff(user_items.indptr)
    eligible = np.flatnonzero(lengths >= FEWEST_INTERACTIONS)
    if len(eligible) < FEWEST_USERS:
        return None
    generator = np.random.default_rng(seed)
    n_users = min(MOST_HELD_OUT_USERS, int(HELD_OUT_SHARE * len(eligible)))
    users = np.sort(generator.choice(eligible, n_users, replace=False))
    fold_in = user_items[users]
    held_out = fold_in.copy()
    rows = np.repeat(np.arange(n_users), lengths[users])
    order = np.lexsort((generator.random(fold_in.nnz), rows))
    places = np.empty(fold_in.nnz, dtype=np.int64)
    places[order] = np.arange(fold_in.nnz) - fold_in.indptr[rows]  # of each interaction among its user's, at random
    held = places < (HELD_OUT_SHARE * lengths[users]).astype(np.int64)[rows]
    fold_in.data[held] = held_out.data[~held] = 0
    fold_in.eliminate_zeros()
    held_out.eliminate_zeros()
    return user_items[np.setdiff1d(np.arange(user_items.shape[0]), users)], (fold_in, held_out)
