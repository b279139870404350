"""Operations that splits are made of, and their implementation in memory.

`recvae.preparation.engine_splits` implements the same operations in a database engine.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse

from recvae.data.interactions import Interactions
from recvae.data.repeats import Repeats
from recvae.data.split import TEST, TRAIN, VALIDATION
from recvae.errors import ParameterError, shorten

Indices = npt.NDArray[np.integer[Any]]
Mask = npt.NDArray[np.bool_]


class SplitBackend(Protocol):
    """Interactions, each on one side of a split: `TRAIN`, `VALIDATION` or `TEST`.

    Users and items are given by their index in `user_ids` and `item_ids`. A method that assigns sides or drops items
    returns a new object.
    """

    @property
    def user_ids(self) -> pd.Index:
        """Raw id of each user index."""

    @property
    def item_ids(self) -> pd.Index:
        """Raw id of each item index."""

    @property
    def n_interactions(self) -> int:
        """Number of interactions."""

    @property
    def timestamp_type(self) -> np.dtype[Any] | None:
        """Type of the timestamps; None without timestamps."""

    def count_missing_timestamps(self) -> int:
        """Count the interactions without a timestamp."""

    def find_timestamp(self, position: int) -> Any:
        """Find the timestamp at a position, from 0, of all timestamps in ascending order."""

    def assign_by_user(self, side_of_user: npt.NDArray[np.int8]) -> Self:
        """Put each user's interactions on the side that `side_of_user`, shape (n_users,), names."""

    def assign_by_time(self, val_time: Any, test_time: Any) -> Self:
        """Put interactions from `val_time` on in validation, from `test_time` on in test, earlier ones in training."""

    def assign_last_two(self, min_interactions: int) -> Self:
        """Put the last interaction of each user with enough of them in test, the one before it in validation.

        Interactions of one user at the same time are ordered by item index.
        """

    def count_sides(self) -> list[int]:
        """Count the interactions in training, validation and test."""

    def find_users(self, sides: Sequence[int]) -> Indices:
        """Find the users with an interaction on one of the sides, ascending."""

    def find_items(self, side: int) -> Indices:
        """Find the items with an interaction on a side, ascending."""

    def find_items_by_appearance(self, side: int) -> Indices:
        """Find the items with an interaction on a side, in the order in which the source first names them."""

    def keep_items(self, items: Indices) -> Self:
        """Keep the interactions of `items`, whose places in it become their indices."""

    def list_interactions(self, side: int) -> tuple[Indices, Indices]:
        """List user and item index of each interaction on a side, in the source's order."""

    def list_weights(self, side: int) -> npt.NDArray[np.float32] | None:
        """List the weight of each of these interactions, as `build_matrix` has it; None where all are 1."""

    def drop_weights(self) -> Self:
        """Make every weight 1, for what is held out."""

    def build_matrix(self, name: str, users: Indices, sides: Sequence[int]) -> sparse.csr_matrix:
        """Build the matrix of the users' interactions on some sides, of their weights: a row for each of `users`.

        A pair that occurs several times weighs what its rows up to the last of the sides say.
        `name` is the matrix's name among files, for back ends that write it.
        """


@dataclass(frozen=True, eq=False)
class MemoryBackend:
    """`SplitBackend` over arrays in memory, one entry an interaction, in the source's order."""

    user_ids: pd.Index
    item_ids: pd.Index
    user_idx: Indices
    item_idx: Indices
    timestamp: npt.NDArray[Any] | None
    side: npt.NDArray[np.int8]
    weight: npt.NDArray[np.float32] | None = None
    repeats: Repeats | None = None

    @classmethod
    def from_interactions(cls, data: Interactions, side: npt.NDArray[np.int8] | None = None) -> Self:
        """Make a back end with every interaction on its given `side`, or in training."""
        side = np.full(len(data), TRAIN, dtype=np.int8) if side is None else side
        ids, idx = (data.user_ids, data.item_ids), (data.user_idx, data.item_idx)
        return cls(*ids, *idx, data.timestamp, side, data.weight, data.repeats)._assign(side)

    @classmethod
    def from_parts(cls, data: Interactions, side: npt.NDArray[np.int8]) -> Self:
        """Make a back end of data that come split, whose repeated rows are not known before their own part."""
        backend = cls.from_interactions(data, side)
        if data.repeats is None or data.repeats.side is None:
            return backend
        return backend._assign(side, np.maximum(side[data.repeats.place], data.repeats.side))

    @property
    def n_interactions(self) -> int:
        return len(self.user_idx)

    @property
    def timestamp_type(self) -> np.dtype[Any] | None:
        return None if self.timestamp is None else self.timestamp.dtype

    def count_missing_timestamps(self) -> int:
        return int(pd.isna(self._timestamps).sum())

    def find_timestamp(self, position: int) -> Any:
        return self._sorted_timestamps[position]

    def assign_by_user(self, side_of_user: npt.NDArray[np.int8]) -> Self:
        return self._assign(side_of_user[self.user_idx])

    def assign_by_time(self, val_time: Any, test_time: Any) -> Self:
        def find_sides(times: npt.NDArray[Any]) -> npt.NDArray[np.int8]:
            # Not `>=`: a repeated row without a time is not known to be before any.
            side = np.where(~(times < test_time), TEST, np.where(~(times < val_time), VALIDATION, TRAIN))
            return side.astype(np.int8)

        times = None if self.repeats is None else self.repeats.timestamp
        return self._assign(find_sides(self._timestamps), None if times is None else find_sides(times))

    def assign_last_two(self, min_interactions: int) -> Self:
        order = np.lexsort((self.item_idx, self._timestamps, self.user_idx))
        degree = np.bincount(self.user_idx, minlength=len(self.user_ids))
        last = (np.cumsum(degree) - 1)[degree >= min_interactions]  # place in `order` of each user's last interaction
        side = np.full(self.n_interactions, TRAIN, dtype=np.int8)
        side[order[last]] = TEST
        side[order[last - 1]] = VALIDATION
        return self._assign(side, self._find_sides_of_rows({VALIDATION: order[last - 1], TEST: order[last]}))

    def count_sides(self) -> list[int]:
        counts: list[int] = np.bincount(self.side, minlength=3).tolist()
        return counts

    def find_users(self, sides: Sequence[int]) -> Indices:
        return _find_occurring(self.user_idx[self._mask(sides)], len(self.user_ids))

    def find_items(self, side: int) -> Indices:
        return _find_occurring(self.item_idx[self._mask([side])], len(self.item_ids))

    def find_items_by_appearance(self, side: int) -> Indices:
        return pd.unique(self.item_idx[self._mask([side])])

    def keep_items(self, items: Indices) -> Self:
        item_idx = invert_index(items, len(self.item_ids))[self.item_idx]
        kept = item_idx >= 0
        return replace(
            self,
            item_ids=self.item_ids[items],
            user_idx=self.user_idx[kept],
            item_idx=item_idx[kept],
            timestamp=None if self.timestamp is None else self.timestamp[kept],
            side=self.side[kept],
            weight=None if self.weight is None else self.weight[kept],
            repeats=None if self.repeats is None else self.repeats.select(kept),
        )

    def list_interactions(self, side: int) -> tuple[Indices, Indices]:
        mask = self._mask([side])
        return self.user_idx[mask], self.item_idx[mask]

    def list_weights(self, side: int) -> npt.NDArray[np.float32] | None:
        weights = self._weigh(side)
        return None if weights is None else weights[self._mask([side])]

    def drop_weights(self) -> Self:
        return replace(self, weight=None)

    def build_matrix(self, name: str, users: Indices, sides: Sequence[int]) -> sparse.csr_matrix:
        del name
        rows = invert_index(users, len(self.user_ids))[self.user_idx]
        kept = self._mask(sides) & (rows >= 0)
        weights = self._weigh(max(sides))
        shape = (len(users), len(self.item_ids))
        return build_matrix(rows[kept], self.item_idx[kept], shape, None if weights is None else weights[kept])

    @property
    def _timestamps(self) -> npt.NDArray[Any]:
        if self.timestamp is None:
            raise ValueError("these interactions have no timestamps")
        return self.timestamp

    @cached_property
    def _sorted_timestamps(self) -> npt.NDArray[Any]:
        return np.sort(self._timestamps)

    def _assign(self, side: npt.NDArray[np.int8], of_rows: npt.NDArray[np.int8] | None = None) -> Self:
        """Put each interaction on a side, and each row of repeated pairs, on its interaction's by default."""
        if self.repeats is None:
            return replace(self, side=side)
        of_rows = side[self.repeats.place] if of_rows is None else of_rows
        return replace(self, side=side, repeats=replace(self.repeats, side=of_rows))

    def _find_sides_of_rows(self, held_out: Mapping[int, Indices]) -> npt.NDArray[np.int8] | None:
        """Put each row of repeated pairs on the last side whose held-out interaction of its user it does not precede.

        `held_out` has the interactions of each side after training, at most one a user, in order of the sides.
        """
        if self.repeats is None or self.repeats.timestamp is None:
            return None
        place, times = self.repeats.place, self.repeats.timestamp
        side = np.full(len(place), TRAIN, dtype=np.int8)
        for later, interactions in held_out.items():
            of_user = np.full(len(self.user_ids), -1)
            of_user[self.user_idx[interactions]] = interactions
            bound = of_user[self.user_idx[place]]
            tied = (times == self._timestamps[bound]) & (self.item_idx[place] < self.item_idx[bound])
            side[(bound >= 0) & ~((times < self._timestamps[bound]) | tied)] = later
        return side

    def _weigh(self, last_side: int) -> npt.NDArray[np.float32] | None:
        """Weigh the interactions by what is known on a side; None where all weigh 1."""
        if self.weight is None or self.repeats is None:
            return self.weight
        return self.repeats.weigh(self.weight, last_side)

    def _mask(self, sides: Sequence[int]) -> Mask:
        chosen = np.zeros(3, dtype=bool)
        chosen[list(sides)] = True
        mask: Mask = chosen[self.side]
        return mask


def parse_time(name: str, value: Any, dates: bool) -> Any:
    """Read a time point in the type of the timestamps."""
    try:
        return pd.to_datetime(value, utc=True).tz_convert(None).to_datetime64() if dates else float(value)
    except (TypeError, ValueError, OverflowError, AttributeError):  # of several dates pandas makes an index
        kind = "a date" if dates else "a number"
        raise ParameterError(f"{name} is {shorten(value)}; expected {kind}, as the timestamps are") from None


def find_times(data: SplitBackend, val_time: Any = None, test_time: Any = None) -> tuple[Any, Any]:
    """Find the time points at which validation and test begin, if every interaction has a timestamp.

    The last tenth of the interactions is test, the tenth before it validation; where most have the earliest time of
    all, halves of those that came later. If one of the points is given, validation is the last ninth of what comes
    before the test, or test the later half of what comes after training.
    """
    n = data.n_interactions
    if val_time is not None and test_time is not None:
        return val_time, test_time
    if test_time is not None:
        return data.find_timestamp(_count_before(data, test_time) * 8 // 9), test_time
    if val_time is not None:
        return val_time, data.find_timestamp(min((_count_before(data, val_time) + n) // 2, n - 1))
    first, *usual = (data.find_timestamp(int(share * n)) for share in (0, 0.8, 0.9))
    later = n if usual[0] > first else bisect_right(range(n), first, key=data.find_timestamp)
    if later == n:
        return usual[0], usual[1]
    return data.find_timestamp(later), data.find_timestamp((later + n) // 2)


def _count_before(data: SplitBackend, time: Any) -> int:
    return int(data.assign_by_time(time, time).count_sides()[TRAIN])


def invert_index(idx: Indices, size: int) -> npt.NDArray[np.int32]:
    """Find the place in `idx` of each index from 0 to size - 1; -1 for those that are not in it."""
    places = np.full(size, -1, dtype=np.int32)
    places[idx] = np.arange(len(idx), dtype=np.int32)
    return places


def build_matrix(
    rows: Indices, columns: Indices, shape: tuple[int, int], weights: npt.NDArray[np.float32] | None = None
) -> sparse.csr_matrix:
    """Build the canonical CSR matrix, float32, with the weights, or ones, at each row and column."""
    weights = np.ones(len(rows), dtype=np.float32) if weights is None else weights
    matrix = sparse.csr_matrix((weights, (rows, columns)), shape=shape)
    matrix.sort_indices()
    return matrix


def _find_occurring(idx: Indices, size: int) -> Indices:
    """Find the indices from 0 to size - 1 that occur, ascending: `np.unique` without sorting."""
    occurs = np.zeros(size, dtype=bool)
    occurs[idx] = True
    return np.flatnonzero(occurs)
