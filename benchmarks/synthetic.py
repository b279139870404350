"""A ratings file of MovieLens-20M's shape and format, with power laws fitted to MovieLens-100K's.

    python benchmarks/synthetic.py ratings.csv [--seed 0] [--users 138493] [--items 26744] [--ratings 20000263]

The ratings of the user or item of rank r of n are taken as proportional to (n + 1 - r)^b / r^a (Martínez-Mekler et al.
2009), a power law at either end; a and b are fitted by maximum likelihood to MovieLens-100K's users and items (found as
`recvae prepare` finds them). Users lean to a few tastes, as in `recvae.datasets.synthetic`, so that there is something
to learn. Made in blocks of users: memory does not grow with the ratings.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
from scipy.optimize import minimize

from benchmarks import record
from recvae.datasets import load
from recvae.datasets.synthetic import N_TASTES, TASTE_WEIGHT, draw_tastes
from recvae.errors import RecvaeError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

HEADER = b"userId,movieId,rating,timestamp\n"
MIN_RATINGS = 20
BLOCK = 10_000
FIRST_SECOND, LAST_SECOND, SESSION = 789_652_009, 1_427_784_002, 20_000
LARGEST_ID = 5  # times the number of items: MovieLens's item ids have gaps
NOISE = 0.6
CURIOSITY = 0.3
HALF_STARS = 0.25


@dataclass(frozen=True)
class Shape:
    """Users, items and ratings; MovieLens-20M's by default."""

    n_users: int = 138_493
    n_items: int = 26_744
    n_ratings: int = 20_000_263


@dataclass(frozen=True)
class Laws:
    """Fitted parameters: (a, b) of users and of items, and the shares of 1 to 5 stars."""

    users: Floats
    items: Floats
    stars: Floats


def fit_laws() -> Laws:
    """Fit the laws to MovieLens-100K."""
    ratings = load("ml-100k").ratings
    users, items = (ratings[name].value_counts().to_numpy() for name in ("user_id", "item_id"))
    stars = ratings["rating"].value_counts(normalize=True).sort_index().to_numpy()
    return Laws(fit(users - MIN_RATINGS), fit(items), np.asarray(stars, dtype=np.float64))


def fit(counts: npt.NDArray[Any]) -> Floats:
    """Fit the exponents (a, b) by maximum likelihood to counts ordered by rank; a convex problem."""
    of_rank, log_ranks = np.sort(counts)[::-1] / counts.sum(), _log_ranks(len(counts))

    def loss(exponents: Floats) -> tuple[float, Floats]:
        shares = _shares(exponents, log_ranks)
        return -float(of_rank @ np.log(shares)), log_ranks @ (shares - of_rank)

    found: Floats = minimize(loss, np.full(2, 0.5), jac=True).x
    return found


def _log_ranks(n: int) -> Floats:
    rank = np.arange(1, n + 1)
    return np.stack([-np.log(rank), np.log(n + 1 - rank)])


def _shares(exponents: Floats, log_ranks: Floats) -> Floats:
    logs = exponents @ log_ranks
    shares = np.exp(logs - logs.max())
    shares /= shares.sum()
    return np.asarray(shares)


def draw_degrees(shape: Shape, law: Floats, rng: np.random.Generator) -> Ints:
    """Draw the number of ratings of each user: at least 20, at most half the items, `n_ratings` in all."""
    spare = np.full(shape.n_users, shape.n_items // 2 - MIN_RATINGS)
    left = shape.n_ratings - MIN_RATINGS * shape.n_users
    if not 0 <= left <= spare.sum():
        sys.exit(f"{shape.n_ratings:,} ratings do not fit {shape.n_users:,} users and {shape.n_items:,} items")
    wanted = np.cumsum(left * _shares(law, _log_ranks(shape.n_users)))
    extra = np.minimum(np.diff(np.rint(wanted).astype(np.int64), prepend=0), spare)
    missing = left - extra.sum()  # what the bound took from the most active users goes to those after them
    room = np.cumsum(spare - extra)
    extra += np.diff(np.minimum(room, missing), prepend=0)
    return MIN_RATINGS + rng.permutation(extra)


def draw_blocks(shape: Shape, laws: Laws, seed: int) -> Iterator[pa.Table]:
    """Draw the ratings, a block of users at a time, by user and then by item."""
    rng = np.random.default_rng(seed)
    n_items = shape.n_items
    degree = draw_degrees(shape, laws.users, rng)
    films = draw_tastes(n_items, rng)
    popularity = rng.permutation(_shares(laws.items, _log_ranks(n_items)))
    by_taste = np.cumsum(films * popularity[:, None], axis=0)
    ladder = (by_taste / by_taste[-1] + np.arange(N_TASTES)).T.ravel()
    first = np.full(shape.n_users, -1)  # every item is somebody's first, so that all occur
    placed = min(n_items, shape.n_users)
    first[rng.choice(shape.n_users, placed, replace=False)] = rng.permutation(n_items)[:placed]
    item_ids = np.sort(rng.choice(LARGEST_ID * n_items, n_items, replace=False)) + 1
    stars = pa.array([str(half / 2) for half in range(1, 11)])
    bounds: Floats | None = None
    for start in range(0, shape.n_users, BLOCK):
        part = slice(start, min(start + BLOCK, shape.n_users))
        tastes = draw_tastes(part.stop - start, rng)
        user, item = _draw_interactions(degree[part], first[part], tastes, ladder, n_items, rng)
        liking = TASTE_WEIGHT * np.einsum("pt,pt->p", np.sqrt(films)[item], np.sqrt(tastes)[user])
        liking += rng.normal(0.0, NOISE, len(liking))
        if bounds is None:
            bounds = np.quantile(liking, np.cumsum(laws.stars)[:-1])
        halves = 2 * np.searchsorted(bounds, liking) + 1 - (rng.random(len(liking)) < HALF_STARS)
        session = rng.integers(FIRST_SECOND, LAST_SECOND - SESSION, len(tastes))
        yield pa.table(
            {
                "userId": start + user + 1,
                "movieId": item_ids[item],
                "rating": stars.take(pa.array(halves)),
                "timestamp": session[user] + rng.integers(0, SESSION, len(user)),
            }
        )


def _draw_interactions(
    degree: Ints, first: Ints, tastes: Floats, ladder: Floats, n_items: int, rng: np.random.Generator
) -> tuple[Ints, Ints]:
    """Draw users and items of a block, by user and item, each pair once: drawn again until users have enough."""
    mixed = (1 - CURIOSITY) * tastes + CURIOSITY / N_TASTES
    mixes = (np.cumsum(mixed, axis=1) + np.arange(len(tastes))[:, None]).ravel()
    placed = np.flatnonzero(first >= 0)
    pairs: Ints = placed * n_items + first[placed]
    whole = []
    while len(pairs) or degree.any():
        user = np.repeat(np.arange(len(degree)), degree - np.bincount(pairs // n_items, minlength=len(degree)))
        drawn = user * n_items + _draw_rung(ladder, _draw_rung(mixes, user, N_TASTES, rng), n_items, rng)
        pairs = np.union1d(pairs, drawn)
        finished = np.bincount(pairs // n_items, minlength=len(degree)) == degree
        whole.append(pairs[finished[pairs // n_items]])
        pairs, degree = pairs[~finished[pairs // n_items]], np.where(finished, 0, degree)
    user, item = np.divmod(np.sort(np.concatenate(whole)), n_items)
    return user, item


def _draw_rung(ladder: Floats, flight: Ints, n_rungs: int, rng: np.random.Generator) -> Ints:
    """Draw one of the rungs, 0 to n_rungs - 1, of a flight: rung i of flight f ends at f + its cumulated share."""
    rungs = np.searchsorted(ladder, flight + rng.random(len(flight)), side="right") - flight * n_rungs
    return np.asarray(np.clip(rungs, 0, n_rungs - 1))  # shares may add up to a little less than 1


def write(path: Path, shape: Shape, laws: Laws, seed: int) -> None:
    """Write the ratings file."""
    options = pa.csv.WriteOptions(include_header=False, quoting_style="none")
    with path.open("wb") as file:
        file.write(HEADER)
        for block in draw_blocks(shape, laws, seed):
            pa.csv.write_csv(block, file, options)


def main() -> None:
    """Fit, generate and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="the file to write")
    parser.add_argument("--users", type=record.parse_count, default=Shape.n_users)
    parser.add_argument("--items", type=record.parse_count, default=Shape.n_items)
    parser.add_argument("--ratings", type=record.parse_count, default=Shape.n_ratings)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    try:
        laws = fit_laws()
    except RecvaeError as error:
        sys.exit(f"nothing to fit the power laws to: {error}")
    shape = Shape(arguments.users, arguments.items, arguments.ratings)
    write(arguments.out, shape, laws, arguments.seed)
    print(f"wrote {arguments.out}: {shape.n_ratings:,} ratings, {shape.n_users:,} users, {shape.n_items:,} items")


if __name__ == "__main__":
    main()
