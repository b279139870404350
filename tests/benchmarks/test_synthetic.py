"""The generated ratings file: the shape asked for, MovieLens-20M's format, fitted laws, the same for the same seed."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.synthetic import Laws, Shape, draw_blocks, draw_degrees, fit, write
from recvae.preparation.pipeline import Options, prepare

SMALL = Shape(n_users=700, n_items=300, n_ratings=30_000)
LAWS = Laws(np.array([0.25, 2.0]), np.array([0.3, 2.0]), np.array([0.06, 0.11, 0.27, 0.34, 0.22]))


@pytest.fixture(scope="module")
def csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("synthetic") / "ratings.csv"
    write(path, SMALL, LAWS, seed=1)
    return path


def test_shape_and_format(csv: Path) -> None:
    assert csv.read_text().startswith("userId,movieId,rating,timestamp\n1,")
    ratings = pd.read_csv(csv)
    assert (len(ratings), ratings["userId"].nunique(), ratings["movieId"].nunique()) == (30_000, 700, 300)
    assert ratings["userId"].value_counts().min() >= 20
    assert not ratings.duplicated(["userId", "movieId"]).any()
    assert ratings.equals(ratings.sort_values(["userId", "movieId"]))
    assert sorted(ratings["rating"].unique()) == [half / 2 for half in range(1, 11)]
    assert pd.api.types.is_integer_dtype(ratings["timestamp"])


def test_seed_decides_everything(csv: Path, tmp_path: Path) -> None:
    write(tmp_path / "again.csv", SMALL, LAWS, seed=1)
    write(tmp_path / "other.csv", SMALL, LAWS, seed=2)
    assert (tmp_path / "again.csv").read_bytes() == csv.read_bytes()
    assert (tmp_path / "other.csv").read_bytes() != csv.read_bytes()


@pytest.mark.parametrize("exponents", [(0.3, 2.0), (0.8, 0.5)])
def test_exponents_are_found_again(exponents: tuple[float, float]) -> None:
    rank = np.arange(1, 1001)
    counts = np.random.default_rng(0).permutation(rank[::-1] ** exponents[1] / rank ** exponents[0])
    np.testing.assert_allclose(fit(counts), exponents, rtol=1e-3)


def test_popularity_follows_its_law() -> None:
    shape = Shape(n_users=2000, n_items=1000, n_ratings=100_000)
    items = np.concatenate([block["movieId"].to_numpy() for block in draw_blocks(shape, LAWS, seed=0)])
    found = fit(np.unique(items, return_counts=True)[1])
    np.testing.assert_allclose(found, LAWS.items, atol=0.15)


def test_degrees_are_bounded_and_add_up() -> None:
    steep = draw_degrees(Shape(100, 100, 3000), np.array([2.0, 2.0]), np.random.default_rng(0))
    assert (steep.sum(), steep.min(), steep.max()) == (3000, 20, 50)
    with pytest.raises(SystemExit, match="1,999 ratings do not fit 100 users and 100 items"):
        draw_degrees(Shape(100, 100, 1999), np.array([2.0, 2.0]), np.random.default_rng(0))


def test_prepare_knows_the_header(csv: Path, tmp_path: Path) -> None:
    lines = prepare(csv, tmp_path / "out", Options())
    assert lines[0] == "ratings.csv: 30,000 rows"
