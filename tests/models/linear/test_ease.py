"""EASE and GraphFilter against their formulas, written out densely."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import sparse

from recvae.data.interactions import Interactions
from recvae.data.splitting import Holdout, strong_generalization
from recvae.datasets import load
from recvae.errors import ArtifactError, ParameterError
from recvae.evaluation.evaluate import evaluate
from recvae.models.linear.ease import EASE
from recvae.models.linear.graph_filter import WEIGHTS, GraphFilter
from recvae.models.linear.sparse_inverse import FactoredInverse
from tests.models.autoencoders.test_variational import tastes
from tests.test_tuning import split


def test_ease_is_the_closed_form() -> None:
    x = tastes().toarray().astype(np.float64)
    inverse = np.linalg.inv(x.T @ x + 30 * np.eye(x.shape[1]))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    model = EASE(l2=30).fit(tastes(), show_progress=False)
    assert_allclose(model.score(tastes()[:9]), x[:9] @ weights, rtol=1e-3, atol=1e-4)


def test_ease_fits_its_regularisation_to_the_data() -> None:
    model = EASE().fit(tastes(), show_progress=False)
    assert model.fitted_params() == {"l2": pytest.approx(2.5 * tastes().nnz / tastes().shape[1]), "density": None}


def test_ease_refuses_what_memory_cannot_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recvae.models.linear.ease.available_bytes", lambda: 1000)
    model = EASE()
    with pytest.raises(ParameterError, match=r"user_items has 60 columns.*use a sparse approximation \(density, such"):
        model.fit(tastes(), show_progress=False)
    assert not model.fitted_on(tastes())
    with pytest.raises(ParameterError, match=r"user_items has 60 columns.*use a lower density"):
        EASE(density=0.5).fit(tastes(), show_progress=False)


@pytest.mark.parametrize("density", [None, 1.0])
def test_ease_refuses_a_matrix_that_float32_cannot_invert(density: float | None) -> None:
    triplets = sparse.csr_matrix(np.ones((50, 3), dtype=np.float32))
    with pytest.raises(ParameterError, match="l2 is 1e-09, too small"):
        EASE(l2=1e-9, density=density).fit(triplets, show_progress=False)


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
    inverse = FactoredInverse.from_interactions(interactions, l2, per_item)
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


def test_graph_filter_is_the_papers_formula() -> None:
    interactions = tastes().toarray().astype(np.float64)
    users, items = interactions.sum(axis=1), interactions.sum(axis=0)
    normal = interactions / np.sqrt(users)[:, None] / np.sqrt(items)
    vectors = np.linalg.svd(normal)[2][:4]
    ideal = (1 / np.sqrt(items))[:, None] * (vectors.T @ vectors) * np.sqrt(items)
    expected = interactions[:9] @ (normal.T @ normal) + 0.7 * interactions[:9] @ ideal
    model = GraphFilter(factors=4, weight=0.7).fit(tastes(), show_progress=False)
    assert_allclose(model.score(tastes()[:9]), expected, rtol=1e-3, atol=1e-4)


def test_graph_filter_chooses_its_weight_on_validation() -> None:
    data = split()
    assert isinstance(data.validation, Holdout)
    chosen = GraphFilter(factors=4).fit(data.train, show_progress=False, validation=data.validation)
    assert chosen.weight_ in WEIGHTS
    assert chosen.fitted_params()["weight"] == chosen.weight_
    assert GraphFilter(factors=4).fit(data.train, show_progress=False).weight_ == 0.3


def test_graph_filter_scores_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    model = GraphFilter(factors=4).fit(tastes(), show_progress=False)
    whole = model.score(tastes())
    monkeypatch.setattr("recvae.memory.rows_at_once", lambda _: 7)
    assert_allclose(model.score(tastes()), whole, rtol=1e-6)
