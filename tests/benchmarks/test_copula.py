"""The copula: tetrachoric correlations of known pairs, and histories with the marginals and pairs of the given ones."""

import numpy as np
import numpy.typing as npt
import pytest
from numpy.testing import assert_allclose
from scipy import sparse

from benchmarks.copula import correlate, draw_by_copula


def correlations(of_the_pair: float) -> npt.NDArray[np.float64]:
    matrix = np.eye(3)
    matrix[[0, 1], [1, 0]] = of_the_pair
    return matrix


def draw_pairs(n: int, correlation: float, seed: int) -> sparse.csr_matrix:
    """Two correlated items and an independent one, of popularity .16, .31 and .5."""
    generator = np.random.default_rng(seed)
    normal = generator.multivariate_normal(np.zeros(3), correlations(correlation), n)
    return sparse.csr_matrix(normal > [1, 0.5, 0], dtype=np.float32)


@pytest.mark.parametrize("correlation", [-0.5, 0.3, 0.8])
def test_correlations_are_found(correlation: float) -> None:
    found = correlate(draw_pairs(100_000, correlation, seed=0), np.array([1, 0.5, 0]))
    assert_allclose(found, correlations(correlation), atol=0.03)


def test_draws_are_like_what_they_are_made_after() -> None:
    real = draw_pairs(5000, 0.8, seed=1)
    made = draw_by_copula(real, 5000, np.random.default_rng(0))
    assert made.shape == real.shape
    assert (np.diff(made.indptr) > 0).all()
    real = real[np.diff(real.indptr) > 0]
    assert made.toarray().mean(axis=0) == pytest.approx(real.toarray().mean(axis=0), abs=0.03)
    together = [float(matrix[:, [0]].multiply(matrix[:, [1]]).mean()) for matrix in (made, real)]
    assert together[0] == pytest.approx(together[1], abs=0.02)
