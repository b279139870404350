"""The choice of a blend's weights: its optimum, its parts, and its figure."""

import numpy as np
import numpy.typing as npt
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

from recvae.evaluation.metrics import ACCURACY_METRICS
from recvae.models.base import Recommender, State
from recvae.models.blending import weights as search
from recvae.models.blending.weights import Candidates, choose_weights, collect_candidates, fit_listwise, search_metric
from recvae.models.fit_context import FitContext
from recvae.models.validation import mean_metric
from recvae.topn import mask_seen, top_n
from recvae.types import FloatArray

N_USERS, N_ITEMS = 200, 60


class Known(Recommender):
    """Scores that are known beforehand, one row for each history in order."""

    def __init__(self, scores: FloatArray) -> None:
        self.scores = scores

    def _fit(self, user_items: sparse.csr_matrix, context: FitContext) -> None:
        del user_items, context

    def _score_histories(self, user_items: sparse.csr_matrix) -> FloatArray:
        users = user_items[:, 0].toarray()[:, 0].astype(int) - 1  # the first item's weight numbers the users
        scores: FloatArray = self.scores[users]
        return scores

    def _state(self) -> State:
        return {}

    def _restore(self, state: State) -> None:
        del state


def make_histories(n_users: int = N_USERS, n_items: int = N_ITEMS) -> sparse.csr_matrix:
    numbered = np.zeros((n_users, n_items), dtype=np.float32)
    numbered[:, 0] = np.arange(1, n_users + 1)
    return sparse.csr_matrix(numbered)


def collect(parts: FloatArray, held_out: sparse.csr_matrix, metric: str = "ndcg@10") -> Candidates:
    histories = make_histories(*held_out.shape)
    models = [Known(scores).fit(histories, show_progress=False) for scores in parts]
    return collect_candidates(models, (histories, held_out), metric, seed=0)


def make_parts(shares: npt.ArrayLike, n_users: int = N_USERS) -> tuple[FloatArray, sparse.csr_matrix]:
    """Parts that are independent, and held-out items that are drawn by a known sum of them."""
    rng = np.random.default_rng(0)
    share = np.asarray(shares, dtype=np.float64)
    parts = rng.standard_normal((len(share), n_users, N_ITEMS)).astype(np.float32)
    logits = np.tensordot(share, parts, 1) + rng.gumbel(size=parts.shape[1:])
    logits[:, 0] = -np.inf
    held_out = np.zeros(logits.shape, dtype=np.float32)
    np.put_along_axis(held_out, np.argsort(-logits, axis=1)[:, :5], 1, axis=1)
    return parts, sparse.csr_matrix(held_out)


def search_from_equal_weights(candidates: Candidates) -> npt.NDArray[np.float64]:
    """Search as version 0.1 did: scale one weight at a time, from equal weights on."""
    best = np.ones(len(candidates.scores))
    best_quality, before = candidates.mean(best), -np.inf
    while best_quality > before + 1e-5:
        before = best_quality
        for number in range(len(best)):
            for factor in (0.0, 0.5, 0.7, 1.4, 2.0):
                trial = best.copy()
                trial[number] *= factor
                if trial.any() and candidates.mean(trial) > best_quality + 1e-5:
                    best, best_quality = trial, candidates.mean(trial)
    weights: npt.NDArray[np.float64] = best / best.sum()
    return weights


def test_the_candidates_give_the_metric_of_whole_lists() -> None:
    parts, held_out = make_parts([1.0, 0.5])
    candidates = collect(parts, held_out)
    histories = make_histories()
    for weights in ([0.5, 0.5], [1.0, 0.0], [0.2, 0.8]):
        standard = (parts - parts.mean(axis=2, keepdims=True)) / parts.std(axis=2, keepdims=True)
        scores = np.tensordot(weights, standard, 1).astype(np.float32)
        mask_seen(scores, histories)
        expected = mean_metric(top_n(scores, 10)[0], held_out, "ndcg@10")
        assert candidates.mean(np.array(weights)) == pytest.approx(expected)


@pytest.mark.parametrize("metric", [f"{name}@{k}" for name in ACCURACY_METRICS for k in (1, 10, 100)])
def test_every_metric_and_cutoffs_beyond_the_catalogue(metric: str) -> None:
    parts, held_out = make_parts([1.0, 0.5], n_users=30)
    choice = choose_weights(collect(parts, held_out, metric))
    assert choice.weights.sum() == pytest.approx(1)
    assert 0 <= choice.cross_fitted <= 1


def test_the_most_likely_weights_are_those_that_drew_the_items() -> None:
    parts, held_out = make_parts([1.2, 0.6, 0.0], n_users=2000)
    assert_allclose(fit_listwise(collect(parts, held_out)), [2 / 3, 1 / 3, 0], atol=0.04)


def test_a_search_from_equal_weights_gets_stuck() -> None:
    """One item's extreme score makes a perfect part small on all others, where noise that two parts share drowns it.

    No single weight of the noise can be dropped with a gain, since the other part keeps it.
    """
    parts, held_out = make_parts([100.0])
    noise = np.random.default_rng(1).standard_normal(parts.shape[1:]).astype(np.float32)
    good = parts[0] / 1000
    good[:, 0] = -50
    candidates = collect(np.stack([noise, noise, good]), held_out)
    assert candidates.mean(search_from_equal_weights(candidates)) < 0.3
    choice = choose_weights(candidates)
    assert candidates.mean(choice.weights) > 0.99
    assert choice.cross_fitted > 0.99


@pytest.mark.parametrize(("ahead", "taken"), [(20, False), (21, True)])
def test_a_part_is_taken_alone_where_it_is_clearly_better(ahead: int, taken: bool) -> None:
    """Of 100 users, it finds what the blend doesn't for `ahead`, and doesn't what the blend finds for 10.

    The lead of .10 has a standard error of .0539, that of .11 one of .0546.
    """
    blended = np.zeros(100)
    blended[:40] = 1
    found = np.zeros((2, 100), dtype=bool)
    found[0, 10 : 40 + ahead] = True
    scores = np.stack([found, ~found], axis=2).astype(np.float32)
    relevant = np.tile([True, False], (100, 1))
    candidates = Candidates(scores, np.ones_like(relevant), relevant, np.ones(100, dtype=np.int64), "recall@1")
    single = search._find_clearly_better(candidates, blended)
    if taken:
        assert_array_equal(single, [1, 0])
    else:
        assert single is None


def test_parts_without_use_are_left_out() -> None:
    parts, held_out = make_parts([1.5, 1.5, 0.0, 0.0])
    weights = choose_weights(collect(parts, held_out)).weights
    assert_array_equal(weights[2:], 0)
    assert_allclose(weights[:2], 0.5, atol=0.15)


def test_one_of_many_equal_parts_is_kept() -> None:
    (part,), held_out = make_parts([0.0])
    weights = choose_weights(collect(np.stack([part] * 12), held_out)).weights
    assert_array_equal(np.sort(weights), [0] * 11 + [1])


def test_weights_of_noise_promise_nothing() -> None:
    """Among thirty parts of noise one ranks well by chance; users who had no say in the choice show it."""
    rng = np.random.default_rng(0)
    _, held_out = make_parts([0.0], n_users=40)
    candidates = collect(rng.standard_normal((30, 40, N_ITEMS)).astype(np.float32), held_out)
    choice = choose_weights(candidates)
    chance = np.mean([candidates.mean(single) for single in np.eye(30)])
    assert candidates.mean(choice.weights) > 1.15 * chance
    assert choice.cross_fitted < 1.15 * chance


def test_one_validation_user_and_nothing_found() -> None:
    parts, held_out = make_parts([1.0, 0.0], n_users=1)
    assert np.isnan(choose_weights(collect(parts, held_out)).cross_fitted)
    nothing = collect(parts, held_out)
    nothing.relevant[:] = False
    assert_allclose(fit_listwise(nothing), 0.5)


def test_the_search_on_the_metric_improves_its_start() -> None:
    parts, held_out = make_parts([1.0, 0.7, 0.2])
    candidates = collect(parts, held_out)
    start = np.array([0.1, 0.1, 0.8])
    assert candidates.mean(search_metric(candidates, start)) > candidates.mean(start)


def test_users_are_drawn_within_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    parts, held_out = make_parts([1.0, 0.5])
    monkeypatch.setattr(search, "CANDIDATES_BYTES", 4 * N_ITEMS * 2 * 50)
    assert collect(parts, held_out).scores.shape[1] == 50
    monkeypatch.setattr(search, "MOST_USERS", 20)
    assert collect(parts, held_out).scores.shape[1] == 20
