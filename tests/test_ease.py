"""EASE and GraphFilter against their formulas, written out densely."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import sparse

from recvae.errors import ParameterError
from recvae.models.ease import EASE
from recvae.models.graph_filter import WEIGHTS, GraphFilter
from recvae.splits import Holdout
from tests.test_tuning import split
from tests.test_variational import tastes


def test_ease_is_the_closed_form() -> None:
    x = tastes().toarray().astype(np.float64)
    inverse = np.linalg.inv(x.T @ x + 30 * np.eye(x.shape[1]))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    model = EASE(l2=30).fit(tastes(), show_progress=False)
    assert_allclose(model.score(tastes()[:9]), x[:9] @ weights, rtol=1e-3, atol=1e-4)


def test_ease_fits_its_regularisation_to_the_data() -> None:
    model = EASE().fit(tastes(), show_progress=False)
    assert model.fitted_params() == {"l2": pytest.approx(2.5 * tastes().nnz / tastes().shape[1])}


def test_ease_refuses_what_memory_cannot_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recvae.models.ease.available_bytes", lambda: 1000)
    model = EASE()
    with pytest.raises(ParameterError, match="user_items has 60 columns"):
        model.fit(tastes(), show_progress=False)
    assert not model.fitted_on(tastes())


def test_ease_refuses_a_matrix_that_float32_cannot_invert() -> None:
    twins = sparse.csr_matrix(np.ones((50, 2), dtype=np.float32))
    with pytest.raises(ParameterError, match="l2 is 1e-09, too small"):
        EASE(l2=1e-9).fit(twins, show_progress=False)


def test_graph_filter_is_the_papers_formula() -> None:
    plays = tastes().toarray().astype(np.float64)
    users, items = plays.sum(axis=1), plays.sum(axis=0)
    normal = plays / np.sqrt(users)[:, None] / np.sqrt(items)
    vectors = np.linalg.svd(normal)[2][:4]
    ideal = (1 / np.sqrt(items))[:, None] * (vectors.T @ vectors) * np.sqrt(items)
    expected = plays[:9] @ (normal.T @ normal) + 0.7 * plays[:9] @ ideal
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
    monkeypatch.setattr("recvae.models.graph_filter.BATCH_BYTES", 7 * 8 * tastes().shape[0])
    assert_allclose(model.score(tastes()), whole, rtol=1e-6)
