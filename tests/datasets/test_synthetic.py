"""Generated data: shaped like MovieLens-100K, the same for the same seed, and worth personalising."""

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from recvae.datasets.synthetic import generate
from recvae.errors import ParameterError


def test_shape_of_ml_100k() -> None:
    data = generate()
    ratings = data.ratings
    assert ratings["user_id"].nunique() == 943
    assert ratings["item_id"].between(1, 1682).all()
    assert 80_000 < len(ratings) < 120_000
    assert not ratings.duplicated(["user_id", "item_id"]).any()
    assert ratings["user_id"].value_counts().min() >= 20
    assert sorted(ratings["rating"].unique()) == [1, 2, 3, 4, 5]
    assert (ratings["rating"] >= 4).mean() == pytest.approx(0.56, abs=0.01)
    assert ratings["timestamp"].is_monotonic_increasing


def test_columns_as_of_a_real_data_set() -> None:
    data = generate(50, 60)
    assert data.ratings.dtypes.astype(str).to_dict() == {
        "user_id": "int64",
        "item_id": "int64",
        "rating": "float64",
        "timestamp": "int64",
    }
    assert data.items is not None
    assert data.items["item_id"].tolist() == list(range(1, 61))
    assert data.items["title"].str.fullmatch(r"Film \d+ \(\d{4}\)").all()
    assert (data.name, data.origin, data.sha256) == ("synthetic", "generated with seed 0", {})


def test_popularity_is_long_tailed() -> None:
    counts = generate().ratings["item_id"].value_counts()
    assert counts.iloc[:168].sum() > 0.3 * counts.sum()


def test_seed_decides_everything() -> None:
    state = np.random.get_state(legacy=False)  # noqa: NPY002  (that it stays untouched is the point)
    first, again, other = generate(50, 60, seed=1), generate(50, 60, seed=1), generate(50, 60, seed=2)
    pd.testing.assert_frame_equal(first.ratings, again.ratings)
    assert first.items is not None
    assert again.items is not None
    pd.testing.assert_frame_equal(first.items, again.items)
    assert not first.ratings.equals(other.ratings)
    np.testing.assert_equal(np.random.get_state(legacy=False), state)  # noqa: NPY002


def test_neighbours_beat_popularity() -> None:
    data = generate(600, 600)
    kept = data.ratings[data.ratings["rating"] >= 4]
    rng = np.random.default_rng(0)
    train, held_out = np.zeros((600, 600)), np.zeros((600, 600), dtype=bool)
    later = rng.random(len(kept)) < 0.2
    train[kept["user_id"][~later] - 1, kept["item_id"][~later] - 1] = 1
    held_out[kept["user_id"][later] - 1, kept["item_id"][later] - 1] = True
    norms = np.linalg.norm(train, axis=0) + 1
    neighbours = train @ (train.T @ train / np.outer(norms, norms))
    popular = np.tile(train.sum(axis=0), (600, 1))

    def recall_at_20(scores: npt.NDArray[np.float64]) -> float:
        top = np.argsort(-np.where(train > 0, -np.inf, scores), axis=1)[:, :20]
        users = held_out.any(axis=1)
        hits = np.take_along_axis(held_out, top, axis=1).sum(axis=1)
        return float((hits[users] / np.minimum(20, held_out.sum(axis=1)[users])).mean())

    assert recall_at_20(neighbours) > 1.5 * recall_at_20(popular)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_users": 0}, "n_users is 0; expected 1 or more"),
        ({"n_items": 39}, "n_items is 39; expected 40 or more"),
        ({"seed": -1}, "seed is -1; expected 0 or more"),
    ],
)
def test_too_small(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        generate(**arguments)
