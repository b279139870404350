"""Synthetic ratings by users with tastes, for a demonstration without any data set."""

import numpy as np
import numpy.typing as npt
import pandas as pd

from recvae.datasets.loading import Dataset
from recvae.datasets.recipes import Recipe
from recvae.errors import ParameterError

Floats = npt.NDArray[np.float64]

N_TASTES = 18
TASTE_WEIGHT = 6.0
_POPULARITY_EXPONENT = 1.2
_MIN_RATINGS = 20
_RATING_SHARES = (0.06, 0.11, 0.27, 0.34, 0.22)  # of 1 to 5 stars, about as in MovieLens-100K
_FIRST_SECOND, _SECONDS = 874_724_710, 18_000_000


def generate(n_users: int = 943, n_items: int = 1682, seed: int = 0) -> Dataset:
    """Generate ratings, by default in the shape of MovieLens-100K: ids from 1, 1 to 5 stars, timestamps.

    Each film belongs to a few of 18 tastes and each user likes a few of them; films differ in popularity by a
    power law. Users rate popular films and films to their taste, the latter higher, so a personalised model
    beats the list of the most popular films.

    Parameters
    ----------
    n_users, n_items : int
        At least 1 user and 40 films.
    seed : int
        Same seed, same data.

    Raises
    ------
    ParameterError
        If there are too few users or films, or the seed is negative.
    """
    for name, value, least in (("n_users", n_users, 1), ("n_items", n_items, 2 * _MIN_RATINGS), ("seed", seed, 0)):
        if value < least:
            raise ParameterError(f"{name} is {value}; expected {least} or more")
    rng = np.random.default_rng(seed)
    users, films = draw_tastes(n_users, rng), draw_tastes(n_items, rng)
    popularity = -_POPULARITY_EXPONENT * np.log(rng.permutation(n_items) + 5.0)
    interactions = [_draw_interactions(taste, films, popularity, rng) for taste in users]
    user_idx = np.repeat(np.arange(n_users), [len(items) for items, _ in interactions])
    liking = np.concatenate([values for _, values in interactions])
    ratings = pd.DataFrame(
        {
            "user_id": user_idx + 1,
            "item_id": np.concatenate([items for items, _ in interactions]) + 1,
            "rating": _to_stars(liking + rng.normal(0.0, 0.6, len(liking))),
            "timestamp": _FIRST_SECOND + rng.integers(0, _SECONDS, len(liking)),
        }
    ).sort_values("timestamp", kind="stable", ignore_index=True)
    held_out = max(1, min(100, n_users // 10))
    recipe = Recipe("synthetic", min_rating=4.0, min_user_items=5, val_users=held_out, test_users=held_out)
    return Dataset("synthetic", ratings, _name_items(films, rng), f"generated with seed {seed}", {}, recipe)


def draw_tastes(n: int, rng: np.random.Generator) -> Floats:
    """Draw the share of each taste in n users or films, (n, n_tastes), rows summing to 1; most have few tastes."""
    return rng.dirichlet(np.full(N_TASTES, 0.15), n)


def _draw_interactions(
    taste: Floats, films: Floats, popularity: Floats, rng: np.random.Generator
) -> tuple[npt.NDArray[np.int64], Floats]:
    """Draw one user's films, without replacement by the Gumbel trick, and return each film's affinity to the user."""
    affinity = TASTE_WEIGHT * np.sqrt(films) @ np.sqrt(taste)
    n_interactions = min(_MIN_RATINGS + int(rng.lognormal(3.9, 1.0)), len(films) // 2)
    keys = popularity + affinity + rng.gumbel(size=len(films))
    items = np.argpartition(-keys, n_interactions - 1)[:n_interactions]
    return items, affinity[items]


def _to_stars(liking: Floats) -> Floats:
    bounds = np.quantile(liking, np.cumsum(_RATING_SHARES)[:-1])
    return 1.0 + np.searchsorted(bounds, liking).astype(np.float64)


def _name_items(films: Floats, rng: np.random.Generator) -> pd.DataFrame:
    years = 1999 - np.minimum(rng.geometric(0.1, len(films)), 70)
    numbers = np.arange(1, len(films) + 1)
    return pd.DataFrame(
        {
            "item_id": numbers,
            "title": [f"Film {number} ({year})" for number, year in zip(numbers, years, strict=True)],
            "genres": [f"Taste {taste}" for taste in films.argmax(axis=1) + 1],
        }
    )
