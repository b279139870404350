"""GraphFilter against its formulas, written out densely, and what it chooses."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

from recvae.data.splitting import Holdout
from recvae.errors import ArtifactError, ParameterError
from recvae.models import registry
from recvae.models.linear import graph_filter, spectral
from recvae.models.linear.graph_filter import GraphFilter
from recvae.models.linear.spectral import SpectralFilter, Spectrum, respond
from recvae.models.validation import hold_out_users, validate
from tests.models.autoencoders.test_variational import tastes
from tests.test_tuning import split


def powers(degrees: np.ndarray, exponent: float) -> np.ndarray:
    raised: np.ndarray = np.where(degrees > 0, np.maximum(degrees, 1e-9) ** exponent, 0)
    return raised


def identity(n: int) -> sparse.csr_matrix:
    return sparse.csr_matrix(np.eye(n, dtype=np.float32))


def normalised(x: np.ndarray) -> np.ndarray:
    """R̃, in float64."""
    normal: np.ndarray = powers(x.sum(axis=1), -0.5)[:, None] * x * powers(x.sum(axis=0), -0.5)
    return normal


def dense_filter(x: np.ndarray, factors: int, weight: float, flatness: float, item_exponent: float) -> np.ndarray:
    """The filter as its documentation writes it, (n_items, n_items), in float64."""
    normal, items = normalised(x), x.sum(axis=0)
    _, values, vectors = np.linalg.svd(normal)
    kept = min(factors, int((values**2 > 1e-6).sum()))
    eigenvalues = np.minimum(values[:kept] ** 2, 1)
    responses = np.where(
        eigenvalues < 0.5,
        0.5 - 0.5 * np.abs(1 - 2 * eigenvalues) ** flatness,
        0.5 + 0.5 * np.abs(2 * eigenvalues - 1) ** flatness,
    )
    slope = responses[-1] / eigenvalues[-1]
    ideal = vectors[:kept].T @ np.diag(responses - slope * eigenvalues + weight) @ vectors[:kept]
    whole: np.ndarray = slope * normal.T @ normal + ideal
    scaled: np.ndarray = powers(items, -item_exponent)[:, None] * whole * powers(items, item_exponent)
    return scaled


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**32 - 1),
    st.tuples(st.integers(2, 40), st.integers(2, 40)),
    st.integers(1, 45),
    st.floats(0.0, 3.0),
    st.floats(1.0, 10.0),
    st.floats(0.0, 0.5),
    st.booleans(),
)
def test_graph_filter_is_its_formula(
    seed: int,
    shape: tuple[int, int],
    factors: int,
    weight: float,
    flatness: float,
    item_exponent: float,
    weighted: bool,
) -> None:
    """As one matrix, as a sparse one, and by the eigenvectors."""
    rng = np.random.default_rng(seed)
    x = (rng.random(shape) < 0.4) * (rng.uniform(0.5, 2.0, shape) if weighted else 1.0)
    x[0, 0] = 1
    values = np.linalg.svd(normalised(x), compute_uv=False)
    if factors < len(values) and np.diff(values)[factors - 1] > -1e-2:
        factors = len(values)  # which of two equal directions is the last to be kept is nobody's business
    model = GraphFilter(factors, weight, flatness=flatness, item_exponent=item_exponent)
    histories = sparse.csr_matrix(x.astype(np.float32))
    model.fit(histories, show_progress=False)
    expected = dense_filter(x, factors, weight, flatness, item_exponent)
    assert_allclose(model._score_histories(identity(shape[1])), expected, rtol=5e-3, atol=5e-3)
    assert model.get_item_weights() is not None
    assert_allclose(model._score_histories(histories), x @ expected, rtol=1e-2, atol=2e-2)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("LARGEST_MATRIX", "LARGEST_SPARSE_MATRIX"):  # the sparse one has all entries here
            patch.setattr(graph_filter, name, 0)
            model.fit(histories, show_progress=False)
            assert model.get_item_weights() is None
            assert_allclose(model._score_histories(histories), x @ expected, rtol=1e-2, atol=2e-2)
    assert isinstance(model.filter_, SpectralFilter)


def test_a_flatness_of_one_is_the_straight_line() -> None:
    assert_allclose(respond(np.linspace(0, 1, 11), 1.0), np.linspace(0, 1, 11))
    assert_allclose(respond(np.array([0, 0.25, 0.5, 0.75, 1]), 2.0), [0, 0.375, 0.5, 0.625, 1])


def test_the_leading_eigenvectors_of_a_large_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exact where they stand out, though the iteration has not the whole space; more users than items and fewer."""
    monkeypatch.setattr(spectral, "EXTRA_VECTORS", 10)
    for interactions in (tastes(), sparse.csr_matrix(tastes()[:50])):
        spectrum = Spectrum.from_interactions(interactions, 3, seed=0)
        _, values, vectors = np.linalg.svd(normalised(interactions.toarray().astype(np.float64)))
        assert_allclose(spectrum.eigenvalues, values[:3] ** 2, rtol=1e-4)
        expected = vectors[:3].T @ vectors[:3]  # three tastes, and so three eigenvalues of 1
        assert_allclose(spectrum.vectors @ spectrum.vectors.T, expected, atol=1e-4)


def test_a_small_matrix_takes_the_constants() -> None:
    found = GraphFilter().fit(tastes()[:40], show_progress=False).fitted_params()
    expected = {"factors": 512, "weight": 0.3, "flatness": 3.0, "item_exponent": 0.25}
    assert found == {**expected, "metric": "ndcg@100", "seed": 0}
    assert GraphFilter(**found).fit(tastes()[:40], show_progress=False).fitted_params() == found


def test_graph_filter_chooses_on_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three tastes are found by three eigenvectors with some weight, and not by all of them without."""
    monkeypatch.setattr(graph_filter, "FACTORS", (60, 3, 1))
    monkeypatch.setattr(graph_filter, "WEIGHTS", (0.0, 100.0))
    data = split()
    assert isinstance(data.validation, Holdout)
    users = data.validation.fold_in, data.validation.held_out
    chosen = GraphFilter(metric="ndcg@10").fit(data.train, show_progress=False, validation=users)
    assert chosen.fitted_params()["factors"] == 3
    first = GraphFilter(60, 0.0, flatness=3, item_exponent=0.25).fit(data.train, show_progress=False)
    assert validate(chosen, users, "ndcg@10") > validate(first, users, "ndcg@10")
    same = GraphFilter(**chosen.fitted_params()).fit(data.train, show_progress=False)
    assert_allclose(same.score(users[0]), chosen.score(users[0]), rtol=1e-2, atol=1e-3)
    given = GraphFilter(weight=7.0).fit(data.train, show_progress=False, validation=users)
    assert given.fitted_params()["weight"] == 7


def test_graph_filter_chooses_on_users_held_out_of_training() -> None:
    """Chosen on a fit to the others, then fitted to everybody."""
    model = GraphFilter(metric="ndcg@10").fit(tastes(), show_progress=False)
    held = hold_out_users(tastes(), seed=0)
    assert held is not None
    others = GraphFilter(metric="ndcg@10").fit(held[0], show_progress=False, validation=held[1])
    assert model.fitted_params() == others.fitted_params()
    same = GraphFilter(**model.fitted_params()).fit(tastes(), show_progress=False)
    assert_array_equal(model.score(tastes()), same.score(tastes()))


FORMS = {"matrix": (8000, 0), "sparse": (0, 50_000), "filter": (0, 0)}


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """One form of the filter after the other, which models fitted in the test have."""
    name: str = request.param
    monkeypatch.setattr(graph_filter, "LARGEST_MATRIX", FORMS[name][0])
    monkeypatch.setattr(graph_filter, "LARGEST_SPARSE_MATRIX", FORMS[name][1])
    return name


@pytest.mark.usefixtures("form")
def test_graph_filter_scores_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    model = GraphFilter(factors=4).fit(tastes(), show_progress=False)
    whole = model.score(tastes())
    monkeypatch.setattr("recvae.memory.rows_at_once", lambda _: 7)
    assert_allclose(model.score(tastes()), whole, rtol=1e-5)
    again = GraphFilter(factors=4).fit(tastes(), show_progress=False)
    assert_allclose(again.score(tastes()), whole, rtol=1e-3, atol=1e-5)


def test_a_sparse_matrix_keeps_the_largest_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = GraphFilter(factors=4).fit(tastes(), show_progress=False).get_item_weights()
    assert whole is not None
    monkeypatch.setattr(graph_filter, "LARGEST_MATRIX", 0)
    monkeypatch.setattr(graph_filter, "ENTRIES_PER_ITEM", 20)
    matrix = GraphFilter(factors=4).fit(tastes(), show_progress=False).filter_
    assert isinstance(matrix, sparse.csr_matrix)
    assert matrix.has_sorted_indices
    smallest = np.sort(np.abs(whole), axis=1)[:, -20][:, None]
    assert_allclose(matrix.toarray(), np.where(np.abs(whole) >= smallest, whole, 0), rtol=1e-4, atol=1e-7)


def test_no_matrix_is_made_that_memory_cannot_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_filter, "available_bytes", lambda: 4 * 60 * 60)
    model = GraphFilter(factors=4).fit(tastes(), show_progress=False)
    assert model.get_item_weights() is None
    assert isinstance(model.filter_, SpectralFilter)
    monkeypatch.setattr(graph_filter, "available_bytes", lambda: None)
    assert GraphFilter(factors=4).fit(tastes(), show_progress=False).get_item_weights() is not None


def test_saved_and_loaded(form: str, tmp_path: Path) -> None:
    model = GraphFilter(factors=4).fit(tastes(), show_progress=False)
    model.save(tmp_path / "model")
    for frozen in (False, True):
        loaded = registry.load(tmp_path / "model", frozen=frozen).model
        assert loaded.fitted_params() == model.fitted_params()
        assert_array_equal(loaded.score(tastes()), model.score(tastes()))
        assert_array_equal(loaded.similar_items([3])[0], model.similar_items([3])[0])
    missing, message = {
        "matrix": ("matrix", "matrix: data is missing"),
        "sparse": ("indptr", "matrix: indptr is missing"),
        "filter": ("numbers", "numbers is missing"),
    }[form]
    with pytest.raises(ArtifactError, match=message):
        loaded._restore({name: array for name, array in model._state().items() if name != missing})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("factors", 0, "expected a whole number of at least 1"),
        ("weight", -1, "expected a number of at least 0"),
        ("flatness", 0.5, "expected a number of at least 1 and at most 100"),
        ("item_exponent", 1.5, "expected a number of at least 0 and at most 1"),
        ("item_exponent", "half", "expected a number"),
        ("metric", "coverage@10", "expected one of"),
    ],
)
def test_what_a_graph_filter_cannot_be_given(name: str, value: Any, message: str) -> None:
    with pytest.raises(ParameterError, match=rf"^{name} is .*; {message}"):
        GraphFilter(**{name: value})
