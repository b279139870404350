"""Weights of a blend: chosen on validation users, cross-fitted, so that few users are not believed too much."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import optimize

from recvae.evaluation.metrics import ACCURACY_METRICS, parse_metric
from recvae.evaluation.standard_error import is_ahead
from recvae.memory import row_batches
from recvae.models.base import Recommender
from recvae.models.validation import ValidationUsers
from recvae.topn import mask_seen, top_n
from recvae.types import FloatArray

Weights = npt.NDArray[np.float64]

MOST_USERS, FOLDS = 1000, 5
CANDIDATES_BYTES = 2**28
FEWEST_CANDIDATES = 200
"""Items of each part's list, at least, that the search for weights ranks."""
FACTORS = (0.0, 0.5, 0.7, 1.4, 2.0)
MIN_GAIN = 1e-5
SMALL_WEIGHT, WORTH_A_PART = 0.1, 5e-4
"""The weight below which a part may be left out, and the share of the metric that this may cost; a cost within one
standard error is none."""
CLEARLY = 2.0
"""Standard errors by which one part must be ahead of the blend to be taken alone; found by `benchmarks.few_users`."""


@dataclass(frozen=True, eq=False)
class Candidates:
    """The items that any part ranks high for a validation user, with the parts' scores: all that blends can list.

    Attributes
    ----------
    scores : (n_models, n_users, n_candidates) float32
        Standardised over the catalogue; 0 in places of padding.
    valid, relevant : (n_users, n_candidates) bool
        False for padding; held out.
    n_held_out : (n_users,) int
        Held-out items of each user, at least 1, listed or not.
    metric : str
    """

    scores: FloatArray
    valid: npt.NDArray[np.bool_]
    relevant: npt.NDArray[np.bool_]
    n_held_out: npt.NDArray[np.int64]
    metric: str

    def take(self, users: npt.NDArray[np.int64]) -> "Candidates":
        """Take some users' candidates."""
        n = self.n_held_out[users]
        return Candidates(self.scores[:, users], self.valid[users], self.relevant[users], n, self.metric)

    def blend(self, weights: Weights) -> FloatArray:
        """Compute the weighted sum of the parts' scores, (n_users, n_candidates), -inf in places of padding."""
        total: FloatArray = np.tensordot(weights.astype(np.float32), self.scores, 1)
        total[~self.valid] = -np.inf
        return total

    def measure(self, weights: Weights) -> npt.NDArray[np.float64]:
        """Compute the metric of each user's list, (n_users,)."""
        name, k = parse_metric(self.metric)
        # Of the few candidates all are sorted, which is ten times as fast as `top_n`; padding, at the end, is no hit.
        places = np.argsort(-self.blend(weights), axis=1)[:, :k]
        return ACCURACY_METRICS[name](np.take_along_axis(self.relevant, places, axis=1), self.n_held_out, k)

    def mean(self, weights: Weights) -> float:
        """Average the metric over the users."""
        return float(self.measure(weights).mean())


@dataclass(frozen=True)
class WeightChoice:
    """Weights, (n_models,) with a sum of 1, and the metric of users who were ranked by weights chosen without them."""

    weights: Weights
    cross_fitted: float


def standardise(scores: FloatArray) -> FloatArray:
    """Subtract each row's mean and divide by its standard deviation, in place."""
    scores -= scores.mean(axis=1, keepdims=True)
    deviation = np.sqrt(np.einsum("ij,ij->i", scores, scores) / scores.shape[1])
    scores /= np.where(deviation > 0, deviation, 1)[:, None]
    return scores


def collect_candidates(
    models: Sequence[Recommender], validation: ValidationUsers, metric: str, seed: int
) -> Candidates:
    """Score validation users by every model, and keep the items that any of them ranks high.

    Parameters
    ----------
    models : sequence of fitted Recommender
    validation : (fold_in, held_out)
        Of those with held-out items at most `MOST_USERS` are drawn, fewer if their scores would take more than
        `CANDIDATES_BYTES`.
    metric : str
    seed : int
    """
    fold_in, held_out = validation
    _, k = parse_metric(metric)
    depth = max(FEWEST_CANDIDATES, 2 * k)
    width = max(k, min(depth * len(models), fold_in.shape[1]))
    n_users = max(1, min(MOST_USERS, CANDIDATES_BYTES // (4 * width * len(models))))
    eligible = np.random.default_rng(seed).permutation(np.flatnonzero(np.diff(held_out.indptr)))[:n_users]
    fold_in, held_out = fold_in[eligible], held_out[eligible]
    scores = np.zeros((len(models), len(eligible), width), dtype=np.float32)
    valid = np.zeros(scores.shape[1:], dtype=bool)
    relevant = valid.copy()
    for batch in row_batches(len(eligible), 4 * len(models) * fold_in.shape[1]):
        by_model = [standardise(model.score(fold_in[batch])) for model in models]
        listed = np.zeros(by_model[0].shape, dtype=bool)
        for one in by_model:
            mask_seen(one, fold_in[batch])
            ids, _ = top_n(one, depth)
            rows, places = np.nonzero(ids >= 0)
            listed[rows, ids[rows, places]] = True
        rows, items = np.nonzero(listed)
        places = np.arange(len(rows)) - np.searchsorted(rows, rows)
        valid[batch][rows, places] = True
        relevant[batch][rows, places] = held_out[batch].toarray()[rows, items] > 0
        for own, one in zip(scores, by_model, strict=True):
            own[batch][rows, places] = one[rows, items]
    used = max(k, int(valid.sum(axis=1).max()))
    n_held_out = np.diff(held_out.indptr).astype(np.int64)
    return Candidates(scores[:, :, :used], valid[:, :used], relevant[:, :used], n_held_out, metric)


def choose_weights(candidates: Candidates) -> WeightChoice:
    """Find the weights of the parts, with 0 for those that are not worth their cost.

    Two rules compete: the weights under which the held-out items are most likely, and a search on the metric that
    starts there. Each is applied to four fifths of the users, five times, and measured on the others; the weights are
    the average of the better rule's five, which moves them less than a choice on all users would. Parts with the
    weights below `SMALL_WEIGHT` are left out if that costs next to nothing, and the best part alone is taken if it is
    clearly better than the blend is on users without whom its weights were chosen.
    """
    n_users = len(candidates.n_held_out)
    folds = [fold for fold in np.array_split(np.arange(n_users), FOLDS) if 0 < len(fold) < n_users]
    if not folds:
        return WeightChoice(fit_listwise(candidates), float("nan"))
    others = [candidates.take(np.setdiff1d(np.arange(n_users), fold)) for fold in folds]
    choices = []
    starts = [fit_listwise(train) for train in others]
    found = [search_metric(train, start) for train, start in zip(others, starts, strict=True)]
    for by_fold in (starts, found):
        measured = [candidates.take(fold).measure(w) for fold, w in zip(folds, by_fold, strict=True)]
        choices.append((np.concatenate(measured), np.mean(by_fold, axis=0)))
    cross_fitted, weights = max(choices, key=lambda choice: choice[0].mean())
    single = _find_clearly_better(candidates, cross_fitted)
    weights = _leave_out(candidates, weights) if single is None else single
    return WeightChoice(weights, float(cross_fitted.mean()))


def fit_listwise(candidates: Candidates) -> Weights:
    """Find the non-negative weights under which a softmax over the candidates makes the held-out ones most likely.

    The loss -Σ log softmax(Σ_m w_m·s_m) is convex, so that there is one optimum, whatever the start.

    Returns
    -------
    (n_models,) float64, summing to 1
        All alike where nothing that is held out is among the candidates.
    """
    n_relevant = candidates.relevant.sum(axis=1).astype(np.float32)
    n_models = len(candidates.scores)
    equal = np.full(n_models, 1 / n_models)
    if not n_relevant.any():
        return equal
    found = candidates.take(np.flatnonzero(n_relevant))
    n_relevant = n_relevant[n_relevant > 0]
    target = np.tensordot(found.scores, found.relevant, 2)

    def loss(weights: Weights) -> tuple[float, Weights]:
        logits = found.blend(weights)
        largest = logits.max(axis=1)
        np.exp(np.subtract(logits, largest[:, None], out=logits), out=logits)
        total = logits.sum(axis=1)
        value = ((np.log(total) + largest) * n_relevant).sum(dtype=np.float64) - target @ weights
        logits *= (n_relevant / total)[:, None]
        gradient = np.tensordot(found.scores, logits, 2) - target
        return float(value / n_relevant.sum()), (gradient / n_relevant.sum()).astype(np.float64)

    solved = optimize.minimize(loss, equal, jac=True, method="L-BFGS-B", bounds=[(0, None)] * n_models)
    weights: Weights = solved.x
    return weights / weights.sum() if weights.sum() > 0 else equal


def search_metric(candidates: Candidates, start: Weights) -> Weights:
    """Search the metric itself, one weight at a time, from the best of a start, equal weights and each part alone."""
    equal = np.full(len(start), 1 / len(start))
    best, best_quality = _best_of([start, equal, *np.eye(len(start))], candidates.mean)
    before = -np.inf
    while best_quality > before + MIN_GAIN:
        before = best_quality
        for number in range(len(best)):
            weight = best[number] or 0.1
            trials = [_replace(best, number, factor * weight) for factor in FACTORS]
            trial, quality = _best_of([trial / trial.sum() for trial in trials if trial.any()], candidates.mean)
            if quality > best_quality + MIN_GAIN:
                best, best_quality = trial, quality
    return best


def _leave_out(candidates: Candidates, weights: Weights) -> Weights:
    """Leave out parts with small weights that cost more than they give, but not the last."""
    measured = candidates.measure(weights)
    for number in np.argsort(weights, kind="stable"):
        if 0 < weights[number] < SMALL_WEIGHT and np.count_nonzero(weights) > 1:
            fewer = _replace(weights, number, 0.0)
            without = candidates.measure(fewer)
            if not is_ahead(measured, without) or measured.mean() - without.mean() <= WORTH_A_PART * measured.mean():
                weights = fewer
    kept: Weights = weights / weights.sum()
    return kept


def _find_clearly_better(candidates: Candidates, blended: npt.NDArray[np.float64]) -> Weights | None:
    """Find the best part, as weights, where it is clearly better than what a blend has for each user."""
    single, _ = _best_of(list(np.eye(len(candidates.scores))), candidates.mean)
    return single if is_ahead(candidates.measure(single), blended, CLEARLY) else None


def _replace(weights: Weights, number: int, value: float) -> Weights:
    """Copy the weights with another value in one place."""
    replaced = weights.copy()
    replaced[number] = value
    return replaced


def _best_of(trials: Sequence[Weights], quality: Callable[[Weights], float]) -> tuple[Weights, float]:
    """The first of the trials with the highest quality, and that quality."""
    found = [quality(trial) for trial in trials]
    best = int(np.argmax(found))
    return trials[best], found[best]
