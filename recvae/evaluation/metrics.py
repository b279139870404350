"""Ranking metrics: functions from arrays to one value for each user.

Accuracy metrics take `hits`, a bool matrix of shape (n_users, n): True where the listed item, best first, is held out
(`hit_matrix`), and `n_held_out`, the number of held-out items of each user, shape (n_users,).
They return float64 of shape (n_users,), between 0 and 1, and NaN for a user without held-out items.

Beyond-accuracy metrics take `ids`, the lists themselves: int32 of shape (n_users, n), padded with -1.

Every function raises `ParameterError` if the lists have fewer than `k` columns: short lists are padded.
"""

from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from scipy import sparse

from recvae.data.csr import check_csr
from recvae.errors import ParameterError, shorten

Hits = npt.NDArray[np.bool_]
Ids = npt.NDArray[np.integer[Any]]
Counts = npt.NDArray[np.integer[Any]]
PerUser = npt.NDArray[np.float64]
Value = TypeVar("Value", bound=np.generic)


def hit_matrix(ids: Ids, held_out: sparse.csr_matrix | sparse.csr_array) -> Hits:
    """Compare listed with held-out items: True where a listed item is held out; padding (-1) is False.

    Parameters
    ----------
    ids : (n_users, n) int32
        Item indices, best first, padded with -1.
    held_out : CSR, shape (n_users, n_items)
        Row u belongs to row u of `ids`. Stored zeros are no interactions.

    Returns
    -------
    (n_users, n) bool

    Raises
    ------
    ParameterError
        If the numbers of rows differ or an id lies outside the catalogue.
    """
    n_users, n_items = held_out.shape
    if ids.ndim != 2 or len(ids) != n_users:
        raise ParameterError(f"ids has shape {ids.shape} but held_out has {n_users:,} rows; expected one list a row")
    if ids.size and (ids.min() < -1 or ids.max() >= n_items):
        raise ParameterError(f"ids range from {ids.min()} to {ids.max()}; expected -1 to {n_items - 1}")
    interactions = held_out.tocoo()
    row, column = (
        np.asarray(axis, dtype=np.int64)[interactions.data != 0] for axis in (interactions.row, interactions.col)
    )
    # One number for each pair (user, item), so that one binary search finds all hits; the largest number of all at the
    # end, so that every search ends inside the array.
    keys = np.append(np.sort(row * n_items + column), np.iinfo(np.int64).max)
    listed = np.arange(n_users, dtype=np.int64)[:, np.newaxis] * n_items + ids
    found: Hits = keys[np.searchsorted(keys, listed)] == listed
    return found & (ids >= 0)


def recall_at_k(hits: Hits, n_held_out: Counts, k: int) -> PerUser:
    """Recall: hits in the top k, over min(k, held-out items), so that 1 is reachable for every user.

    Liang et al. (2018), "Variational Autoencoders for Collaborative Filtering", section 4.2.
    """
    return _ratio(_top(hits, k).sum(axis=1), np.minimum(n_held_out, k), n_held_out)


def recall_full_at_k(hits: Hits, n_held_out: Counts, k: int) -> PerUser:
    """Recall of textbooks: hits in the top k, over all held-out items, as in He et al. (2020), "LightGCN"."""
    return _ratio(_top(hits, k).sum(axis=1), n_held_out, n_held_out)


def precision_at_k(hits: Hits, n_held_out: Counts, k: int) -> PerUser:
    """Precision: hits in the top k, over k, even if fewer items are held out or listed (trec_eval's `P_k`)."""
    return _ratio(_top(hits, k).sum(axis=1), k, n_held_out)


def ndcg_at_k(hits: Hits, n_held_out: Counts, k: int) -> PerUser:
    """NDCG: discounted gain of the top k over that of the best possible list, both cut at k.

    Binary gain, discount 1 / log2(rank + 1), min(k, held-out items) hits in the ideal list: Järvelin and
    Kekäläinen (2002), "Cumulated gain-based evaluation of IR techniques", in the form of Liang et al. (2018).
    """
    discounts = 1.0 / np.log2(np.arange(2, k + 2))
    ideal = np.concatenate([[0.0], np.cumsum(discounts)])
    return _ratio(_top(hits, k) @ discounts, ideal[np.minimum(n_held_out, k)], n_held_out)


def average_precision_at_k(hits: Hits, n_held_out: Counts, k: int) -> PerUser:
    """Average precision: sum of the precision at each hit's rank, over min(k, held-out items); its mean is MAP@k.

    The definition of `implicit.evaluation`; trec_eval's `map_cut_k` divides by all held-out items instead.
    """
    top = _top(hits, k)
    precision = np.cumsum(top, axis=1) / np.arange(1, k + 1)
    return _ratio((precision * top).sum(axis=1), np.minimum(n_held_out, k), n_held_out)


def reciprocal_rank_at_k(hits: Hits, n_held_out: Counts, k: int) -> PerUser:
    """Reciprocal rank of the first hit, 0 without a hit in the top k; its mean over users is MRR@k.

    Voorhees (1999), "The TREC-8 Question Answering Track Report".
    """
    top = _top(hits, k)
    return _ratio(top.any(axis=1), top.argmax(axis=1) + 1, n_held_out)


def hit_rate_at_k(hits: Hits, n_held_out: Counts, k: int) -> PerUser:
    """Hit rate: 1 if the top k have at least one held-out item, else 0 (trec_eval's `success_k`)."""
    return _ratio(_top(hits, k).any(axis=1), 1, n_held_out)


def coverage_at_k(ids: Ids, n_items: int, k: int) -> float:
    """Coverage: share of the `n_items` items that are in at least one user's top k, from 0 to 1.

    Catalogue coverage in Ge et al. (2010), "Beyond accuracy: evaluating recommender systems by coverage and
    serendipity", section 3.
    """
    return float(np.count_nonzero(_exposure(ids, n_items, k)) / n_items)


def gini_at_k(ids: Ids, n_items: int, k: int) -> float:
    """Gini coefficient of exposure: 0 if every item is listed equally often, (n_items - 1) / n_items if only one is.

    Exposure is how often an item is listed; items that are never listed are included. NaN if no list has an item.
    Shani and Gunawardana (2011), "Evaluating recommendation systems", section 3.3.
    """
    exposure = np.sort(_exposure(ids, n_items, k))
    if not exposure.any():
        return float("nan")
    weights = 2 * np.arange(1, n_items + 1) - n_items - 1
    return float(weights @ exposure / (n_items * exposure.sum()))


def novelty_at_k(ids: Ids, item_counts: Counts, n_train_users: int, k: int) -> PerUser:
    """Novelty: mean self-information of the top k in bits, -log2 of the share of training users who have the item.

    Vargas and Castells (2011), "Rank and relevance in novelty and diversity metrics for recommender systems",
    without their rank discount. Deviation: an item that no training user has counts as if one had it, which
    keeps the mean finite.

    Parameters
    ----------
    ids : (n_users, n) int32
    item_counts : (n_items,) int
        Training users who have each item.
    n_train_users : int
    k : int

    Returns
    -------
    (n_users,) float64
        NaN for an empty list.
    """
    return _mean_listed(-np.log2(np.maximum(item_counts, 1) / n_train_users), _top(ids, k))


def popularity_at_k(ids: Ids, item_counts: Counts, n_train_users: int, k: int) -> PerUser:
    """Popularity: mean share of training users who have the items of the top k, 0 to 1; arguments as `novelty_at_k`.

    Average recommendation popularity in Abdollahpouri et al. (2019), "Managing popularity bias in recommender
    systems with personalized re-ranking", as a share.
    """
    return _mean_listed(item_counts / n_train_users, _top(ids, k))


def diversity_at_k(ids: Ids, item_users: sparse.csr_matrix, k: int) -> PerUser:
    """Diversity: mean of 1 - cosine over all pairs of the top k, 0 to 1, by who has the items; NaN for fewer than two.

    The intra-list diversity of Smyth and McClave (2001), "Similarity vs. diversity", and Ziegler et al. (2005),
    "Improving recommendation lists through topic diversification", in one pass over the list:
    with unit vectors v the cosines of all ordered pairs of different items sum to |Σv|² - Σ|v|².

    Parameters
    ----------
    ids : (n_users, n) int32
    item_users : CSR, shape (n_items, n_train_users)
        Training users who have each item: rows of unit length (`find_item_users`). An item that no training user has,
        a row of zeros, is at distance 1 from all others.
    k : int

    Returns
    -------
    (n_users,) float64
    """
    top, diversity = _top(ids, k), np.full(len(ids), np.nan)
    _check_listed(top, item_users.shape[0], "item_users")
    ends = item_users.indptr
    for row, items in enumerate(top):
        listed = items[items >= 0]
        if len(listed) > 1:
            spans = [slice(ends[item], ends[item + 1]) for item in listed]
            users, parts = (
                np.concatenate([of[span] for span in spans]) for of in (item_users.indices, item_users.data)
            )
            total = np.bincount(users, parts)
            # Not `total @ total`: BLAS would wake its threads for each list, and wait for them where cores are busy.
            squares = np.square(total).sum() - np.square(parts).sum()
            diversity[row] = 1 - squares / (len(listed) * (len(listed) - 1))
    bounded: PerUser = np.clip(diversity, 0, 1)  # which rounding may leave
    return bounded


def find_item_users(train: sparse.csr_matrix | sparse.csr_array) -> sparse.csr_matrix:
    """Give the training users of each item as vectors of unit length, (n_items, n_train_users), for `diversity_at_k`.

    Weights do not count: the evaluation is binary.
    """
    item_users: sparse.csr_matrix = check_csr(train, "train").T.tocsr().astype(np.float64)
    lengths = np.diff(item_users.indptr)
    item_users.data = np.repeat(1 / np.sqrt(np.maximum(lengths, 1)), lengths)
    return item_users


AccuracyMetric = Callable[[Hits, Counts, int], PerUser]
CatalogueMetric = Callable[[Ids, int, int], float]
ListMetric = Callable[[Ids, Counts, int, int], PerUser]
PairMetric = Callable[[Ids, sparse.csr_matrix, int], PerUser]

ACCURACY_METRICS: Mapping[str, AccuracyMetric] = MappingProxyType(
    {
        "recall": recall_at_k,
        "recall_full": recall_full_at_k,
        "precision": precision_at_k,
        "ndcg": ndcg_at_k,
        "map": average_precision_at_k,
        "mrr": reciprocal_rank_at_k,
        "hit_rate": hit_rate_at_k,
    }
)
CATALOGUE_METRICS: Mapping[str, CatalogueMetric] = MappingProxyType({"coverage": coverage_at_k, "gini": gini_at_k})
LIST_METRICS: Mapping[str, ListMetric] = MappingProxyType({"novelty": novelty_at_k, "popularity": popularity_at_k})
PAIR_METRICS: Mapping[str, PairMetric] = MappingProxyType({"diversity": diversity_at_k})
METRICS: Mapping[str, AccuracyMetric | CatalogueMetric | ListMetric | PairMetric] = MappingProxyType(
    {**ACCURACY_METRICS, **CATALOGUE_METRICS, **LIST_METRICS, **PAIR_METRICS}
)


def parse_metric(metric: str, known: Collection[str] = METRICS) -> tuple[str, int]:
    """Parse a metric with its cutoff: `"ndcg@100"` → `("ndcg", 100)`.

    Raises
    ------
    ParameterError
        If the name is not one of those known or the cutoff is no whole number above 0.
    """
    name, _, cutoff = metric.partition("@") if isinstance(metric, str) else ("", "", "")
    if name not in known or not (cutoff.isascii() and cutoff.isdigit() and len(cutoff) < 10) or int(cutoff) < 1:
        expected = ", ".join(f"{one}@K" for one in known)
        raise ParameterError(f"metric is {shorten(metric)}; expected one of {expected} with K a whole number above 0")
    return name, int(cutoff)


def _top(lists: npt.NDArray[Value], k: int) -> npt.NDArray[Value]:
    if not 1 <= k <= lists.shape[1]:
        raise ParameterError(f"k is {k} but the lists have {lists.shape[1]} columns; expected 1 to {lists.shape[1]}")
    return lists[:, :k]


def _ratio(numerator: Any, denominator: npt.NDArray[Any] | int, n_held_out: Counts) -> PerUser:
    """Divide where a user has held-out items; NaN elsewhere."""
    if n_held_out.shape != numerator.shape:
        raise ParameterError(
            f"n_held_out has shape {n_held_out.shape}; expected {numerator.shape}, one number for each list"
        )
    quotient: PerUser = np.full(len(numerator), np.nan)
    np.divide(numerator, denominator, out=quotient, where=n_held_out > 0)
    return quotient


def _exposure(ids: Ids, n_items: int, k: int) -> npt.NDArray[np.intp]:
    """Count the lists that hold each item, shape (n_items,)."""
    top = _top(ids, k)
    listed = top[top >= 0]
    if listed.size and listed.max() >= n_items:
        raise ParameterError(f"ids go up to {listed.max()} but n_items is {n_items}")
    return np.bincount(listed, minlength=n_items)


def _mean_listed(item_values: npt.NDArray[np.float64], ids: Ids) -> PerUser:
    """Average `item_values` over each user's listed items; NaN for an empty list."""
    _check_listed(ids, len(item_values), "item_counts")
    listed = ids >= 0
    total = np.where(listed, item_values[ids], 0.0).sum(axis=1)
    n_listed = listed.sum(axis=1)
    return _ratio(total, n_listed, n_listed)


def _check_listed(ids: Ids, n_items: int, name: str) -> None:
    if ids.size and ids.max() >= n_items:
        raise ParameterError(f"ids go up to {ids.max()} but {name} has {n_items} entries")
