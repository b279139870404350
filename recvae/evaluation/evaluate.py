"""Offline ranking evaluation of one model: metrics of its lists, with their standard errors."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from scipy import sparse

from recvae.data.csr import check_csr
from recvae.data.splitting import Holdout
from recvae.errors import DataError, ParameterError, shorten, whole
from recvae.evaluation.metrics import (
    ACCURACY_METRICS,
    CATALOGUE_METRICS,
    LIST_METRICS,
    PAIR_METRICS,
    PerUser,
    find_item_users,
    hit_matrix,
    parse_metric,
)
from recvae.evaluation.standard_error import standard_error
from recvae.memory import rows_at_once
from recvae.types import UserItems

PRIMARY_METRICS = ("recall@20", "recall@50", "ndcg@100")
DEFAULT_METRICS = (
    *PRIMARY_METRICS,
    "precision@10",
    "map@10",
    "mrr@10",
    "hit_rate@10",
    "recall_full@20",
    "ndcg@20",
)
BEYOND_ACCURACY_METRICS = ("coverage@20", "gini@20", "novelty@20", "popularity@20", "diversity@20")
MAX_BATCH_SIZE = 2048


class Ranks(Protocol):
    """Methods of a fitted model that `evaluate` calls."""

    @property
    def folds_in(self) -> bool:
        """True if the model can rank for a user it was not trained on, from the user's history."""

    def recommend(
        self,
        userid: Any,
        user_items: Any,
        N: int = ...,  # noqa: N803
        *,
        recalculate_user: bool = ...,
    ) -> Any:
        """Rank the N best unseen items: (ids int32, scores float32), both (n, N), padded with -1 and -inf."""


@dataclass(frozen=True, eq=False)
class EvalResult:
    """Figures of one model on one holdout.

    Attributes
    ----------
    per_user : mapping of metric to (n_users,) float64
        A value for each scored user, in the holdout's order.
    totals : mapping of metric to float
        Metrics of all lists together, such as coverage, which have no standard error.
    n_users : int
        Scored users: those with at least one held-out item.
    n_without_held_out : int
        Users without held-out items, who are not scored.
    score_seconds : float
        Seconds spent in `recommend`.
    history_lengths : (n_users,) int, optional
        Number of fold-in interactions of each scored user.
    """

    per_user: Mapping[str, PerUser]
    totals: Mapping[str, float]
    n_users: int
    n_without_held_out: int
    score_seconds: float
    history_lengths: npt.NDArray[np.intp] | None = None

    def mean(self, metric: str) -> float:
        """Compute the mean over users who have a value, or return the total; NaN if no user has a value."""
        if metric in self.totals:
            return self.totals[metric]
        values = self._known_values(metric)
        return float(values.mean()) if values.size else float("nan")

    def stderr(self, metric: str) -> float | None:
        """Compute the standard error of the mean over users, with n - 1; None for a total or fewer than two users."""
        values = np.empty(0) if metric in self.totals else self._known_values(metric)
        return standard_error(values) if values.size > 1 else None

    def as_dict(self) -> dict[str, dict[str, float | int | None]]:
        """Convert to `{"recall@20": {"mean", "stderr", "n_users"}, …}`, as in results.json."""
        figures: dict[str, dict[str, float | int | None]] = {}
        for metric in (*self.per_user, *self.totals):
            n_users = self.n_users if metric in self.totals else self._known_values(metric).size
            mean = self.mean(metric)
            figures[metric] = {
                "mean": None if np.isnan(mean) else mean,
                "stderr": self.stderr(metric),
                "n_users": n_users,
            }
        return figures

    def by_history_length(self, metric: str, groups: int = 4) -> list[dict[str, float | int | None]]:
        """Summarise a metric by history length, in groups of equal size: range, users, mean, standard error."""
        if self.history_lengths is None:
            return []
        order = np.argsort(self.history_lengths, kind="stable")
        result = []
        for users in np.array_split(order, min(groups, len(order))):
            values, lengths = self.values(metric)[users], self.history_lengths[users]
            error = standard_error(values) if values.size > 1 else None
            figures = {"n_users": values.size, "mean": float(values.mean()), "stderr": error}
            result.append({"from": int(lengths.min()), "to": int(lengths.max()), **figures})
        return result

    def values(self, metric: str) -> PerUser:
        """Get the value of each scored user, shape (n_users,).

        Raises
        ------
        ParameterError
            If the metric was not evaluated or is a total.
        """
        if metric not in self.per_user:
            raise ParameterError(
                f"metric is {metric!r}; expected one with a value for each user: {', '.join(self.per_user)}"
            )
        return self.per_user[metric]

    def _known_values(self, metric: str) -> PerUser:
        values = self.values(metric)
        return values[~np.isnan(values)]


def evaluate(
    model: Ranks,
    holdout: Holdout,
    metrics: Sequence[str] | None = None,
    *,
    train: UserItems | None = None,
    batch_size: int | None = None,
) -> EvalResult:
    """Rank items for every user of `holdout` who has held-out items, and compute metrics of the lists.

    Parameters
    ----------
    model : Ranks
        A fitted model. If it folds in, it is given the users' `fold_in` rows and nothing else about them.
    holdout : Holdout
    metrics : sequence of str, optional
        Such as "ndcg@100". Default `DEFAULT_METRICS`, and with `train` also `BEYOND_ACCURACY_METRICS`.
    train : sparse matrix, shape (n_train_users, n_items), optional
        The training interactions, which novelty, popularity and diversity need.
    batch_size : int, optional
        Users ranked at a time. By default as many as `recvae.memory.rows_at_once` allows, at most 2,048.

    Raises
    ------
    ParameterError
        If `model` is no model or `holdout` no `Holdout`, a metric is unknown or needs `train`, or the model knows
        training users only and others are asked for.
    DataError
        If no user has held-out items.
    """
    if isinstance(model, type) or not hasattr(model, "recommend"):
        raise ParameterError(f"model is {shorten(model)}; expected a fitted model")
    if not isinstance(holdout, Holdout):
        raise ParameterError(f"holdout is a {type(holdout).__name__}; expected a Holdout, such as `split.test`")
    train = None if train is None else check_csr(train, "train")
    cutoffs = _parse_cutoffs(metrics, train, holdout)
    refuse_new_users(model, holdout)
    fold_in, held_out = check_csr(holdout.fold_in, "fold_in"), check_csr(holdout.held_out, "held_out")
    scored = np.flatnonzero(np.diff(held_out.indptr))
    if not scored.size:
        raise DataError(f"none of the {holdout.n_users:,} users has held-out items; there is nothing to score")
    training = _describe_training(train, cutoffs)
    depth = max(k for _, k in cutoffs.values())
    widest = max((k for name, k in cutoffs.values() if name in CATALOGUE_METRICS), default=0)
    seconds, lists, values = 0.0, [], []
    for rows in _iter_batches(scored, held_out.shape[1], batch_size):
        started = perf_counter()
        userid = rows if model.folds_in else holdout.train_rows[rows]
        ids = _recommend(model, userid, fold_in[rows], depth)
        seconds += perf_counter() - started
        values.append(_score_users(ids, held_out[rows], cutoffs, training))
        lists.append(ids[:, :widest].copy())
    per_user = {metric: np.concatenate([batch[metric] for batch in values]) for metric in values[0]}
    totals = _score_catalogue(np.concatenate(lists), held_out.shape[1], cutoffs)
    lengths = np.diff(fold_in.indptr)[scored]
    return EvalResult(per_user, totals, len(scored), holdout.n_users - len(scored), seconds, lengths)


def refuse_new_users(model: Ranks, holdout: Holdout) -> None:
    """Raise `ParameterError` if `model` can rank for training users only and `holdout` has others."""
    n_new = int(np.count_nonzero(holdout.train_rows < 0))
    if n_new and not model.folds_in:
        raise ParameterError(
            f"{type(model).__name__} cannot fold in new users and {n_new:,} of {holdout.n_users:,} are new; "
            "such a model takes part in weak generalization only, where every user was trained on"
        )


def average_results(results: Sequence[EvalResult]) -> EvalResult:
    """Average the results of several models, such as seeds of one, on the same users: the mean for each user."""
    first = results[0]
    per_user = {m: np.mean([result.values(m) for result in results], axis=0) for m in first.per_user}
    totals = {m: float(np.mean([result.totals[m] for result in results])) for m in first.totals}
    seconds = float(np.mean([result.score_seconds for result in results]))
    return replace(first, per_user=per_user, totals=totals, score_seconds=seconds)


def _parse_cutoffs(
    metrics: Sequence[str] | None, train: UserItems | None, holdout: Holdout
) -> dict[str, tuple[str, int]]:
    """Parse each metric to its name and cutoff, and check that it can be computed."""
    if metrics is None:
        metrics = DEFAULT_METRICS if train is None else (*DEFAULT_METRICS, *BEYOND_ACCURACY_METRICS)
    if isinstance(metrics, str) or not isinstance(metrics, Iterable):
        raise ParameterError(f"metrics is {shorten(metrics)}; expected a list such as ['ndcg@100']")
    cutoffs = {metric: parse_metric(metric) for metric in metrics}
    if not cutoffs:
        raise ParameterError("metrics is empty; expected at least one such as 'ndcg@100'")
    for metric, (name, _) in cutoffs.items():
        if name in {**LIST_METRICS, **PAIR_METRICS} and train is None:
            raise ParameterError(f"{metric} needs train, the training interactions, and none was given")
    n_items = holdout.held_out.shape[1]
    if train is not None and train.shape[1] != n_items:
        raise ParameterError(f"train has {train.shape[1]:,} columns but holdout has {n_items:,} items")
    return cutoffs


def _iter_batches(users: npt.NDArray[np.intp], n_items: int, batch_size: int | None) -> Iterator[npt.NDArray[np.intp]]:
    if batch_size is None:
        batch_size = min(MAX_BATCH_SIZE, rows_at_once(4 * n_items))
    batch_size = whole("batch_size", batch_size)
    for start in range(0, len(users), batch_size):
        yield users[start : start + batch_size]


def _recommend(model: Ranks, userid: npt.NDArray[Any], histories: sparse.csr_matrix, n: int) -> npt.NDArray[np.int32]:
    ids, _ = model.recommend(userid, histories, N=n, recalculate_user=model.folds_in)
    return np.asarray(ids, dtype=np.int32)


def _score_users(
    ids: npt.NDArray[np.int32],
    held_out: sparse.csr_matrix,
    cutoffs: Mapping[str, tuple[str, int]],
    training: "_Training",
) -> dict[str, PerUser]:
    hits, n_held_out = hit_matrix(ids, held_out), np.diff(held_out.indptr)
    values = {}
    for metric, (name, k) in cutoffs.items():
        if name in ACCURACY_METRICS:
            values[metric] = ACCURACY_METRICS[name](hits, n_held_out, k)
        elif name in LIST_METRICS:
            values[metric] = LIST_METRICS[name](ids, training.item_counts, training.n_users, k)
        elif name in PAIR_METRICS:
            values[metric] = PAIR_METRICS[name](ids, training.item_users, k)
    return values


def _score_catalogue(
    ids: npt.NDArray[np.int32], n_items: int, cutoffs: Mapping[str, tuple[str, int]]
) -> dict[str, float]:
    wanted = {metric: parsed for metric, parsed in cutoffs.items() if parsed[0] in CATALOGUE_METRICS}
    return {metric: CATALOGUE_METRICS[name](ids, n_items, k) for metric, (name, k) in wanted.items()}


@dataclass(frozen=True, eq=False)
class _Training:
    """Training interactions as the metrics of lists need them; empty where there are none."""

    item_counts: npt.NDArray[np.intp]
    n_users: int
    item_users: sparse.csr_matrix


def _describe_training(train: sparse.csr_matrix | None, cutoffs: Mapping[str, tuple[str, int]]) -> _Training:
    if train is None:
        return _Training(np.zeros(0, dtype=np.intp), 0, sparse.csr_matrix((0, 0)))
    compared = any(name in PAIR_METRICS for name, _ in cutoffs.values())
    item_users = find_item_users(train) if compared else sparse.csr_matrix((0, 0))
    item_counts = np.bincount(train.indices, minlength=train.shape[1])
    return _Training(item_counts, train.shape[0], item_users)
