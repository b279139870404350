"""`Rules`: what a list may hold, and what comes first in it, by the items' metadata."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from recvae.errors import shorten
from recvae.inference.rules.item_column import RuleError, is_number
from recvae.inference.rules.metadata import Filter, Metadata
from recvae.topn import top_n
from recvae.types import FloatArray

POOL = 100
"""Best items, at least, among which diversity chooses; five times the list's length where that is more."""
SPARSE = 16
MOST_BOOSTS, MOST_DEVIATIONS = 8, 1000

Compare = Callable[[list[int]], FloatArray]
Ranked = list[tuple[int, float]]
"""Item indices and scores, best first."""


@dataclass(frozen=True)
class Rules:
    """Checked rules of a list.

    Attributes
    ----------
    filter : conditions
        Items must meet all of them.
    boosts : tuple of (conditions, float)
        Items that meet the conditions get so many standard deviations of the user's scores on top.
    caps : tuple of (str, int)
        For each value of a column, the most items of the list that have it. An item without a value is not counted.
    diversity : float from 0 to 1
        Weight of being unlike the items listed before, against the score.
    """

    filter: Filter = ()
    boosts: tuple[tuple[Filter, float], ...] = ()
    caps: tuple[tuple[str, int], ...] = ()
    diversity: float = 0.0

    @property
    def only_filters(self) -> bool:
        return not (self.boosts or self.caps or self.diversity)


def parse_rules(
    metadata: Metadata,
    *,
    filter: Any = None,  # noqa: A002 the name that clients know it by
    boost: Any = None,
    cap: Any = None,
    diversity: Any = 0,
) -> Rules | None:
    """Check rules as clients write them; None where there is nothing to do.

    Parameters
    ----------
    metadata : Metadata
    filter : mapping, optional
        See `Metadata.parse_filter`.
    boost : list of mappings, optional
        Each has a `filter`, and `by`, a number: standard deviations of the user's scores.
    cap : mapping of str to int, optional
        Column and the most items of each of its values.
    diversity : number from 0 to 1

    Raises
    ------
    RuleError
        If a rule does not fit the items; its `field` names the place, such as `filter.year.ge`.
    """
    if not is_number(diversity) or not 0 <= diversity <= 1:
        raise RuleError("diversity", f"is {shorten(diversity)}; expected a number from 0 to 1")
    rules = Rules(
        () if filter is None else metadata.parse_filter(filter),
        _parse_boosts(metadata, [] if boost is None else boost),
        _parse_caps(metadata, {} if cap is None else cap),
        float(diversity),
    )
    return None if rules == Rules() else rules


def prepare_scores(scores: FloatArray, rules: Rules, metadata: Metadata) -> None:
    """Add the boosts to the scores of one user, (n_items,), in place, and set those that are filtered out to -inf."""
    if rules.boosts:
        deviation = _compute_deviation(scores)
        for conditions, by in rules.boosts:
            scores += metadata.mask(conditions) * (np.float32(by) * deviation)
    if rules.filter:
        scores += metadata.penalty(rules.filter)


def best_items(scores: FloatArray, n: int) -> Ranked:
    """Rank the n best items of one user, without those of score -inf.

    Where few are left they are ranked alone: `top_n` sorts all items when -inf is among the n largest scores.
    """
    left = np.flatnonzero(scores > -np.inf)
    if SPARSE * len(left) >= len(scores) and len(left) >= n:
        ids, best = (row[0] for row in top_n(scores[None], n))
    else:
        places, best = (row[0] for row in top_n(scores[left][None], min(n, len(left))))
        ids = left[places]
    return list(zip(ids.tolist(), best.tolist(), strict=True))


def choose(scores: FloatArray, n: int, rules: Rules, metadata: Metadata, compare: Compare) -> Ranked:
    """Choose a list of n items by scores, caps and diversity.

    With caps alone, each item of the ranking is taken unless one of its values is there often enough. Diversity is
    maximal marginal relevance (Carbonell & Goldstein, SIGIR 1998, with λ = 1 - diversity) among a pool of the best
    items: the next item has the largest (1 - diversity) · score - diversity · similarity, where the pool's scores lie
    between 0 and 1, and the similarity is the largest cosine with an item chosen before. Where caps use up a pool, the
    best of the items that they still admit are the next one.

    Parameters
    ----------
    scores : (n_items,) float32
        -inf for items that may not be listed; changed in place.
    compare : callable
        Gives the cosines of some items with each other, (m, m).

    Returns
    -------
    list of (item index, score)
        In the order chosen; shorter where the caps leave too few items.
    """
    caps, chosen = _Caps(rules, metadata), Ranked()
    size = min(max(POOL, 5 * n), len(scores))
    while len(chosen) < n:
        pool = best_items(scores, size)
        if not pool:
            break
        _take_from(pool, chosen, n, caps, rules.diversity, compare)
        if len(chosen) < n:
            scores[[item for item, _ in pool]] = -np.inf
            caps.close(scores)
    return chosen


def _take_from(pool: Ranked, chosen: Ranked, n: int, caps: "_Caps", diversity: float, compare: Compare) -> None:
    """Append items of a pool to those chosen, until there are n of them or the pool is used up."""
    if not diversity:
        for item, score in pool:
            if len(chosen) < n and caps.take(item):
                chosen.append((item, score))
        return
    scores = np.array([score for _, score in pool])
    relevance = (1 - diversity) * (scores - scores.min()) / (float(np.ptp(scores)) or 1.0)
    cosines = compare([item for item, _ in pool + chosen])
    nearest = cosines[: len(pool), len(pool) :].max(axis=1) if chosen else np.zeros(len(pool))
    left = np.ones(len(pool), dtype=bool)
    while len(chosen) < n and left.any():
        value = np.where(left, relevance - diversity * nearest, -np.inf)
        place = int(value.argmax())  # the first, which has the best score, where several are the largest
        left[place] = False
        if caps.take(pool[place][0]):
            to_this = cosines[: len(pool), place]
            nearest = np.maximum(nearest, to_this) if chosen else to_this
            chosen.append(pool[place])


def _compute_deviation(scores: FloatArray) -> np.float32:
    """Compute the standard deviation of the scores that are finite; several times faster than `numpy.std`."""
    if not np.isfinite(scores.sum()):
        scores = scores[np.isfinite(scores)]
    around = scores - scores.mean()
    return np.float32(math.sqrt(float(around @ around) / max(len(scores), 1)))


class _Caps:
    """Counts of a list's values under the caps."""

    def __init__(self, rules: Rules, metadata: Metadata) -> None:
        self._caps = [(metadata.find_column(name, "cap"), most, dict[int, int]()) for name, most in rules.caps]

    def close(self, scores: FloatArray) -> None:
        """Set the scores of items that no cap admits any more to -inf."""
        for column, most, counts in self._caps:
            scores[column.hold_codes([code for code, count in counts.items() if count >= most])] = -np.inf

    def take(self, item: int) -> bool:
        """Count an item, unless one of its values is there as often as may be."""
        found = [(column.codes_of(item), most, counts) for column, most, counts in self._caps]
        if any(counts.get(code, 0) >= most for codes, most, counts in found for code in codes):
            return False
        for codes, _, counts in found:
            for code in codes:
                counts[code] = counts.get(code, 0) + 1
        return True


def _parse_boosts(metadata: Metadata, given: Any) -> tuple[tuple[Filter, float], ...]:
    if not isinstance(given, list | tuple) or len(given) > MOST_BOOSTS:
        raise RuleError("boost", f"is no list of at most {MOST_BOOSTS} objects with filter and by")
    boosts: list[tuple[Filter, float]] = []
    for i, entry in enumerate(given):
        field = f"boost[{i}]"
        if not isinstance(entry, Mapping) or set(entry) != {"filter", "by"}:
            raise RuleError(field, "is no object with filter and by")
        if not is_number(entry["by"]) or abs(entry["by"]) > MOST_DEVIATIONS:
            expected = f"expected a number from -{MOST_DEVIATIONS} to {MOST_DEVIATIONS}"
            raise RuleError(f"{field}.by", f"is {shorten(entry['by'])}; {expected}")
        boosts.append((metadata.parse_filter(entry["filter"], f"{field}.filter"), float(entry["by"])))
    return tuple(boosts)


def _parse_caps(metadata: Metadata, given: Any) -> tuple[tuple[str, int], ...]:
    if not isinstance(given, Mapping):
        raise RuleError("cap", f"is {shorten(given)}; expected an object of columns and whole numbers")
    caps: list[tuple[str, int]] = []
    for name, most in given.items():
        metadata.find_column(name, "cap")
        if not is_number(most) or most < 1 or most != int(most):  # 2.0 is whole: JSON knows one kind of number
            raise RuleError(f"cap.{name}", f"is {shorten(most)}; expected a whole number of at least 1")
        caps.append((name, int(most)))
    return tuple(sorted(caps))
