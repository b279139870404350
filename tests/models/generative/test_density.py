"""The density of users, on points whose distribution is known."""

import numpy as np
import numpy.typing as npt
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from recvae.errors import ArtifactError
from recvae.models.generative.density import Density

MEANS = np.array([[-6.0, 0, 1], [6, 0, 1], [0, 9, -1]])
COVARIANCE = np.array([[1.0, 0.6, 0], [0.6, 2, 0.3], [0, 0.3, 0.5]])


def draw_points(n: int, n_groups: int, seed: int = 0) -> npt.NDArray[np.float64]:
    generator = np.random.default_rng(seed)
    noise = generator.multivariate_normal(np.zeros(3), COVARIANCE, n)
    return MEANS[generator.integers(n_groups, size=n)] + noise


@pytest.mark.parametrize(("n_groups", "at_least", "at_most"), [(1, 1, 2), (3, 2, 8)])
def test_the_number_of_components_follows_the_points(n_groups: int, at_least: int, at_most: int) -> None:
    density = Density.choose(draw_points(900, n_groups), np.random.default_rng(0))
    assert at_least <= len(density.weights) <= at_most


def test_samples_are_distributed_as_the_points() -> None:
    points = draw_points(3000, 3)
    density = Density.choose(points, np.random.default_rng(0))
    samples = density.sample(3000, np.random.default_rng(1))
    assert_allclose(samples.mean(axis=0), points.mean(axis=0), atol=0.3)
    assert_allclose(np.cov(samples.T), np.cov(points.T), atol=1.5)
    for dimension in range(3):
        assert stats.ks_2samp(samples[:, dimension], points[:, dimension]).statistic < 0.06


def test_one_gaussian_has_its_density() -> None:
    points = draw_points(500, 1)
    density = Density.fit(points, 1, np.random.default_rng(0))
    expected = stats.multivariate_normal(points.mean(axis=0), np.cov(points.T, bias=True)).logpdf(points)
    assert_allclose(density.log_density(points), expected, atol=0.02)


@pytest.mark.parametrize("points", [np.ones((1, 4)), np.ones((30, 4)), np.eye(3)])
def test_points_may_be_few_or_equal(points: npt.NDArray[np.float64]) -> None:
    samples = Density.choose(points, np.random.default_rng(0)).sample(5, np.random.default_rng(0))
    assert samples.shape == (5, points.shape[1])
    assert np.isfinite(samples).all()


def test_state_is_checked() -> None:
    density = Density.fit(draw_points(100, 2), 2, np.random.default_rng(0))
    state = density.state()
    assert_allclose(Density.from_state(state, 3).log_density(MEANS), density.log_density(MEANS), rtol=1e-4)
    weights, means, factor = state.values()
    for name, array in (
        ("density_weights", weights[:1]),
        ("density_weights", -weights),
        ("density_means", means * np.float32(np.nan)),
        ("density_cholesky", -factor),
        ("density_cholesky", factor[:2]),
    ):
        with pytest.raises(ArtifactError, match="density_"):
            Density.from_state({**state, name: array}, 3)
    with pytest.raises(ArtifactError, match="density_means is missing"):
        Density.from_state({"density_weights": weights, "density_cholesky": factor}, 3)
