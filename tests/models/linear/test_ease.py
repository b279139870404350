"""EASE against its formulas, written out densely, and what it chooses."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

from recvae.data.interactions import Interactions
from recvae.data.splitting import strong_generalization
from recvae.datasets import load
from recvae.errors import ArtifactError, ParameterError
from recvae.evaluation.evaluate import evaluate
from recvae.models.linear import ease
from recvae.models.linear.ease import EASE
from recvae.models.linear.inverses import Problem
from recvae.models.linear.sparse_inverse import FactoredInverse
from recvae.models.validation import hold_out_users, validate
from tests.models.autoencoders.test_variational import tastes
from tests.test_tuning import split


def closed_form(x: np.ndarray, l2: float, dropout: float, user_exponent: float) -> np.ndarray:
    """B as the papers write it, in float64."""
    degrees = x.sum(axis=1)
    weights = np.where(degrees > 0, np.maximum(degrees, 1e-9) ** -user_exponent, 0)
    weights *= degrees.sum() / (weights * degrees).sum()
    gram = x.T @ np.diag(weights) @ x
    added = l2 + dropout / (1 - dropout) * np.diag(gram)
    inverse = np.linalg.inv(gram + np.diag(added))
    found: np.ndarray = -inverse / np.diag(inverse)
    np.fill_diagonal(found, 0)
    return found


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**32 - 1),
    st.tuples(st.integers(2, 40), st.integers(2, 40)),
    st.floats(0.5, 50.0),
    st.floats(0.0, 0.9),
    st.floats(0.0, 1.0),
    st.booleans(),
)
def test_ease_is_the_closed_form(
    seed: int, shape: tuple[int, int], l2: float, dropout: float, user_exponent: float, weighted: bool
) -> None:
    """Through users where they are fewer than items, through items where not."""
    rng = np.random.default_rng(seed)
    x = (rng.random(shape) < 0.3) * (rng.uniform(0.5, 2.0, shape) if weighted else 1.0)
    x[0, 0] = 1
    model = EASE(l2, None, dropout, user_exponent, device="cpu")
    model.fit(sparse.csr_matrix(x.astype(np.float32)), show_progress=False)
    expected = closed_form(x, l2, dropout, user_exponent)
    assert model.get_item_weights() is model.weights_
    assert_allclose(model.weights_, expected, rtol=1e-3, atol=1e-4)
    histories = sparse.csr_matrix(x[:3].astype(np.float32))
    assert_allclose(model._score_histories(histories), x[:3] @ expected, rtol=1e-3, atol=1e-3)


def test_ease_of_2019_is_two_zeros() -> None:
    x = tastes().toarray().astype(np.float64)
    inverse = np.linalg.inv(x.T @ x + 30 * np.eye(x.shape[1]))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    model = EASE(l2=30, dropout=0, user_exponent=0).fit(tastes(), show_progress=False)
    assert_allclose(model.score(tastes()[:9]), x[:9] @ weights, rtol=1e-3, atol=1e-4)


def test_a_small_matrix_takes_the_constants() -> None:
    model = EASE().fit(tastes()[:40], show_progress=False)
    mean = tastes()[:40].nnz / 60
    assert model.fitted_params() == EASE(5 * mean, None, 0.5, 0.5).get_params(deep=False)
    assert EASE(l2=3).fit(tastes()[:40], show_progress=False).fitted_params() == {
        "l2": 3,
        "density": None,
        "dropout": 0.5,
        "user_exponent": 0.5,
        "metric": "ndcg@100",
        "device": "auto",
    }


def couples() -> tuple[sparse.csr_matrix, tuple[sparse.csr_matrix, sparse.csr_matrix]]:
    """Items that come in pairs, and popular items that come with anything; one of a pair is to be found by the other.

    Under a large λ weights are counts of users in common, by which popular items win; a small one finds the partner.
    """
    rng = np.random.default_rng(3)
    pairs = np.repeat(rng.random((400, 15)) < 0.2, 2, axis=1)
    pairs[:, 0] = pairs[:, 1] = True
    x = np.hstack([pairs, rng.random((400, 10)) < 0.6]).astype(np.float32)
    held_out = np.zeros((100, 40), dtype=np.float32)
    held_out[:, 1] = 1
    fold_in = x[300:] - held_out
    x[:300, :2] *= rng.random((300, 1)) < 0.2
    return sparse.csr_matrix(x[:300]), (sparse.csr_matrix(fold_in), sparse.csr_matrix(held_out))


def test_ease_chooses_what_is_best_on_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    train, validation = couples()
    mean = train.nnz / 40
    monkeypatch.setattr(ease, "L2_PER_INTERACTION", (1e4, 0.01, 1e3))
    model = EASE(dropout=0, metric="ndcg@5").fit(train, show_progress=False, validation=validation)
    assert model.l2_ == pytest.approx(0.01 * mean)
    same = EASE(**model.fitted_params()).fit(train, show_progress=False)
    assert_array_equal(model.weights_, same.weights_)
    assert validate(model, validation, "ndcg@5") > 0.95
    assert validate(EASE(1e4 * mean, dropout=0).fit(train, show_progress=False), validation, "ndcg@5") < 0.6
    # Nothing is chosen where there is nothing to choose from, and what is given stays.
    assert EASE(l2=7.0).fit(train, show_progress=False, validation=validation).l2_ == 7


def test_ease_chooses_on_users_held_out_of_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chosen on a fit to the others, then fitted to everybody."""
    monkeypatch.setattr(ease, "L2_PER_INTERACTION", (1e-3, 1.0, 1e4))
    model = EASE().fit(tastes(), show_progress=False)
    held = hold_out_users(tastes())
    assert held is not None
    expected = EASE().fit(held[0], show_progress=False, validation=held[1])
    found = model.fitted_params()
    assert (found["l2"], found["user_exponent"]) == (
        pytest.approx(expected.l2_ * (tastes().nnz / held[0].nnz)),
        expected.user_exponent_,
    )
    assert_allclose(model.weights_, EASE(**found).fit(tastes(), show_progress=False).weights_)


@pytest.mark.parametrize("density", [None, 0.5])
def test_a_large_catalogue_is_represented_by_its_popular_items(
    density: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = []

    class Noted(Problem):
        def __init__(self, user_items: sparse.csr_matrix, device: str) -> None:
            shapes.append(user_items.shape)
            super().__init__(user_items, device)

    monkeypatch.setattr(ease, "Problem", Noted)
    data = split()
    whole = EASE(density=density).fit(data.train, show_progress=False, validation=data.validation)
    monkeypatch.setattr(ease, "MOST_ITEMS", 30)
    some = EASE(density=density).fit(data.train, show_progress=False, validation=data.validation)
    assert shapes == [(200, 60), (200, 60), (200, 30), (200, 60)]
    assert any(some.l2_ == pytest.approx(factor * data.train.nnz / 60) for factor in ease.L2_PER_INTERACTION)
    assert whole.fitted_params().keys() == some.fitted_params().keys()
    kept = ease._keep_popular(data.train, data.train)[1]
    assert_array_equal(np.sort(kept.getnnz(axis=0)), np.sort(data.train.getnnz(axis=0))[30:])


def test_validation_users_without_anything_to_rank_by_choose_nothing() -> None:
    nobody = sparse.csr_matrix(np.zeros((20, 60), dtype=np.float32))
    model = EASE().fit(tastes()[20:], show_progress=False, validation=(nobody, tastes()[:20]))
    assert model.user_exponent_ == 0.5
    assert model.l2_ == pytest.approx(5 * tastes()[20:].nnz / 60)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("dropout", 1.0, "expected a number of at least 0 and at most 0.99"),
        ("dropout", -0.1, "expected a number of at least 0"),
        ("user_exponent", 3, "expected a number of at least 0 and at most 2"),
        ("user_exponent", "half", "expected a number"),
        ("l2", 0, "expected a number above 0"),
        ("metric", "coverage@10", "expected one of"),
        ("device", "tpu", "expected auto, cpu, cuda or cuda:N"),
    ],
)
def test_what_ease_cannot_be_given(name: str, value: Any, message: str) -> None:
    with pytest.raises(ParameterError, match=rf"^{name} is .*; {message}"):
        EASE(**{name: value})


def test_settings_are_kept_with_the_weights(tmp_path: Path) -> None:
    model = EASE().fit(tastes(), show_progress=False)
    model.save(tmp_path / "model")
    assert EASE.load(tmp_path / "model").fitted_params() == model.fitted_params()


def test_ease_refuses_what_memory_cannot_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ease, "available_bytes", lambda: 1000)
    model = EASE()
    with pytest.raises(ParameterError, match=r"user_items has 60 columns.*use a sparse approximation \(density, such"):
        model.fit(tastes(), show_progress=False)
    assert not model.fitted_on(tastes())
    with pytest.raises(ParameterError, match=r"user_items has 60 columns.*use a lower density"):
        EASE(density=0.5).fit(tastes(), show_progress=False)
    monkeypatch.setattr(ease, "available_bytes", lambda: 4 * (60 * 60 + 20 * 20))
    EASE().fit(tastes()[:20], show_progress=False)  # through users, of whom there are few
    with pytest.raises(ParameterError, match="user_items has 60 columns"):
        EASE().fit(tastes()[:21], show_progress=False)


@pytest.mark.parametrize("density", [None, 1.0])
def test_ease_refuses_a_matrix_that_float32_cannot_invert(density: float | None) -> None:
    triplets = sparse.csr_matrix(np.ones((50, 3), dtype=np.float32))
    with pytest.raises(ParameterError, match="l2 is 1e-09, too small"):
        EASE(1e-9, density, dropout=0, user_exponent=0).fit(triplets, show_progress=False)


def weighted(seed: int = 4) -> sparse.csr_matrix:
    """The tastes, each interaction with a weight of its own, and one item that nobody played."""
    interactions = tastes()
    interactions.data = np.random.default_rng(seed).uniform(0.5, 2.0, interactions.nnz).astype(np.float32)
    keep = np.ones(interactions.shape[1], dtype=np.float32)
    keep[17] = 0
    interactions = sparse.csr_matrix(interactions @ sparse.diags_array(keep), dtype=np.float32)
    interactions.eliminate_zeros()
    return interactions


@pytest.mark.parametrize("interactions", [tastes(), weighted()], ids=["interactions", "weighted"])
def test_sparse_ease_is_exact_where_nothing_is_left_out(
    interactions: sparse.csr_matrix, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = EASE(l2=30).fit(interactions, show_progress=False)
    expected = exact.score(interactions)
    for rows_at_a_time in (60, 7):
        monkeypatch.setattr("recvae.models.linear.sparse_inverse.rows_at_once", lambda _, n=rows_at_a_time: n)
        factored = EASE(l2=30, density=1.0).fit(interactions, show_progress=False)
        assert_allclose(factored.score(interactions), expected, rtol=1e-3, atol=1e-4)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.floats(0.5, 50.0))
def test_the_factored_inverse_is_made_of_ridge_regressions(seed: int, per_item: int, l2: float) -> None:
    rng = np.random.default_rng(seed)
    x = (rng.random((30, 12)) < rng.uniform(0.1, 0.6, 12)) * rng.uniform(0.5, 2.0, (30, 12))
    x[0] = rng.uniform(0.5, 2.0, 12)  # with one user who played everything no two items are equally near
    interactions = sparse.csr_matrix(x.astype(np.float32))
    gram = x.T @ x + l2 * np.eye(12)
    order = sorted(range(12), key=lambda item: (-np.count_nonzero(x[:, item]), item))
    factor = np.zeros((12, 12))
    for place, item in enumerate(order):
        before = sorted(order[:place], key=lambda other: -gram[other, item] / gram[other, other])[: per_item - 1]
        weights = np.linalg.solve(gram[np.ix_(before, before)], gram[before, item])
        factor[item, before], factor[item, item] = -weights, 1
        factor[item] /= np.sqrt(gram[item, item] - weights @ gram[before, item])
    inverse = FactoredInverse.from_interactions(interactions, np.full(12, l2, dtype=np.float32), per_item)
    expected = factor.T @ factor
    assert_allclose(inverse.multiply(sparse.identity(12, dtype=np.float32, format="csr")), expected, atol=1e-4)
    assert_allclose(inverse.diagonal, np.diag(expected), rtol=1e-3)
    assert np.diff(inverse.factor.indptr).max() <= per_item


def test_sparse_ease_keeps_what_density_says() -> None:
    model = EASE(density=0.1).fit(tastes(), show_progress=False)
    assert model.inverse_.factor.nnz == sum(min(row + 1, 6) for row in range(60))
    assert EASE(density=1e-9).fit(tastes(), show_progress=False).inverse_.factor.nnz == 60


def test_sparse_ease_ranks_nearly_as_exact_ease_does(data_dir: Path) -> None:
    interactions, _ = Interactions.from_frame(load("ml-100k", data_dir).ratings).filter(min_rating=4, min_user_items=5)
    data = strong_generalization(interactions, val_users=100, test_users=100)
    assert data.validation is not None
    exact, some, few = (
        evaluate(EASE(density=density).fit(data.train, show_progress=False), data.validation).mean("ndcg@100")
        for density in (None, 0.05, 0.01)
    )
    assert exact > some - 0.005 > few - 0.02 > exact - 0.05


@pytest.mark.parametrize("density", [0.0, -0.1, 1.1, True, "half"])
def test_a_density_is_a_share(density: object) -> None:
    with pytest.raises(ParameterError, match=r"^density is .*; expected a number above 0 and at most 1$"):
        EASE(density=density)  # type: ignore[arg-type]


def test_a_saved_factor_is_not_trusted(tmp_path: Path) -> None:
    model = EASE(density=0.1).fit(tastes(), show_progress=False)
    state = model._state()
    for broken, message in (
        ({**state, "indptr": state["indptr"][:-1]}, "factor has 59 rows; expected 60"),
        ({**state, "indices": state["indices"] + 1}, "factor is no "),
    ):
        with pytest.raises(ArtifactError, match=message):
            model._restore(broken)
