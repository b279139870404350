"""Histories that no real user has: drawn at random, mixed, replaced in part, and the profiles of shilling attacks."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse

REPLACED = {"a tenth replaced": 0.1, "a third replaced": 1 / 3, "half replaced": 0.5}
PROFILE_SIZES = 20, 50, 100
BANDWAGON, SEGMENT_SHARE, SEGMENT_POOL = 10, 0.25, 200
UNPOPULAR = 0.3
"""The target of an attack is one of this share of the items that have the fewest interactions."""

Items = npt.NDArray[np.int64]
Draw = Callable[[int], Items]


@dataclass(frozen=True)
class Attack:
    """Shilling profiles (Lam & Riedl 2004; Mobasher, Burke, Bhaumik & Williams 2007), for data without ratings.

    Each profile has the target item and fillers. Random: fillers are uniform. Average: they follow popularity, since an
    item's average rating does not exist here. Bandwagon: the ten most popular items, then random ones. Segment: a
    quarter are one popular item and those that most often go with it, then random ones.

    Attributes
    ----------
    train : csr_matrix
    generator : Generator
    target : int
    """

    train: sparse.csr_matrix
    generator: np.random.Generator
    target: int

    @classmethod
    def prepare(cls, train: sparse.csr_matrix, generator: np.random.Generator) -> "Attack":
        """Choose a target."""
        counts = count_items(train)
        known = counts[counts > 0]
        return cls(
            train,
            generator,
            int(generator.choice(np.flatnonzero((counts > 0) & (counts <= np.quantile(known, UNPOPULAR))))),
        )

    def profiles(self, kind: str, size: int, n: int) -> sparse.csr_matrix:
        """Make n profiles of about `size` items."""
        counts = count_items(self.train)
        weights = counts if kind == "average" else (counts > 0).astype(np.float64)
        popular = np.argsort(-counts)
        by_item = self.train.tocsc()
        rows = []
        for _ in range(n):
            chosen = np.array([self.target])
            if kind == "bandwagon":
                chosen = np.append(chosen, popular[:BANDWAGON])
            if kind == "segment":
                seed = self.generator.choice(popular[:SEGMENT_POOL])
                together = (self.train.T @ by_item[:, [seed]]).toarray()[:, 0] / np.sqrt(counts + 10)
                chosen = np.append(chosen, np.argsort(-together)[: int(SEGMENT_SHARE * size)])
            chosen = np.unique(chosen)
            fillers = draw_items(weights, max(size - len(chosen), 0), self.generator, chosen)
            rows.append(np.union1d(chosen, fillers))
        return to_matrix(rows, self.train.shape[1])


ATTACKS = ("random", "average", "bandwagon", "segment")


def make_unusual(
    test: sparse.csr_matrix, train: sparse.csr_matrix, generator: np.random.Generator
) -> dict[str, sparse.csr_matrix]:
    """Every kind of unusual history, as many as there are test users, by name."""
    counts, n_items = count_items(train), train.shape[1]
    histories = [test.indices[a:b].astype(np.int64) for a, b in zip(test.indptr, test.indptr[1:], strict=False)]
    known = (counts > 0).astype(np.float64)
    made = {
        "popularity draws": [draw_items(counts, len(history), generator) for history in histories],
        "uniform draws": [draw_items(known, len(history), generator) for history in histories],
        "two users in one": [
            np.union1d(history, histories[generator.integers(len(histories))]) for history in histories
        ],
    }
    for name, share in REPLACED.items():
        made[name] = [_replace(history, share, counts, generator) for history in histories]
    matrices = {name: to_matrix(rows, n_items) for name, rows in made.items()}
    attack = Attack.prepare(train, generator)
    for kind in ATTACKS:
        for size in PROFILE_SIZES:
            matrices[f"{kind} attack, {size} items"] = attack.profiles(kind, size, len(histories))
    return matrices


def count_items(user_items: sparse.csr_matrix) -> npt.NDArray[np.float64]:
    """Interactions of each item."""
    return np.bincount(user_items.indices, minlength=user_items.shape[1]).astype(np.float64)


def draw_items(
    weights: npt.NDArray[np.float64], n: int, generator: np.random.Generator, without: Items | None = None
) -> Items:
    """Draw n items without replacement, in proportion to weights."""
    with np.errstate(divide="ignore"):
        keys = np.log(weights) + generator.gumbel(size=len(weights))
    if without is not None:
        keys[without] = -np.inf
    return np.argsort(-keys)[:n]


def to_matrix(rows: list[Items], n_items: int) -> sparse.csr_matrix:
    """A row of ones for each list of items."""
    indptr = np.append(0, np.cumsum([len(row) for row in rows]))
    indices = np.concatenate([np.sort(row) for row in rows])
    return sparse.csr_matrix((np.ones(len(indices), np.float32), indices, indptr), shape=(len(rows), n_items))


def _replace(history: Items, share: float, counts: npt.NDArray[np.float64], generator: np.random.Generator) -> Items:
    n = max(1, round(share * len(history)))
    kept = generator.permutation(history)[n:]
    return np.append(kept, draw_items(counts, n, generator, history))
