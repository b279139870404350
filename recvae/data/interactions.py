"""Interactions of users with items: raw ids and their indices, ratings, timestamps, and the `user_items` matrix."""

from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse

from recvae.data.columns import (
    Columns,
    parse_ratings,
    parse_timestamps,
    parse_weights,
    refuse_first,
    select_columns,
)
from recvae.data.csr import list_entries
from recvae.data.frames import to_frame
from recvae.data.ids import IntArray, index_ids, renumber
from recvae.data.readers import read_table
from recvae.data.repeats import Repeats
from recvae.errors import LARGEST, DataError, ParameterError, real, whole


@dataclass(frozen=True)
class RatingSummary:
    """Range of some ratings, and whether all are whole or half numbers."""

    least: float
    largest: float
    in_halves: bool

    @property
    def look_like_stars(self) -> bool:
        """True for ratings from .5 or 1 up to 4 or 5; counts go further, and likes are all the same."""
        return self.in_halves and 0.5 <= self.least < 4 <= self.largest <= 5


@dataclass(frozen=True, eq=False)
class Interactions:
    """Interactions: one entry a (user, item) pair, in the order in which the source first names the pair.

    Indices follow the sorted ids, so the order of the source's rows changes neither `user_items` nor any
    index. It is kept all the same, because the published strong-generalization split draws by row order.
    A pair that occurs several times is one interaction, with its highest rating, its earliest timestamp and its
    lowest `part`: an interaction known in training is never held out. Its weight is the highest, or the sum.

    Attributes
    ----------
    user_ids, item_ids : Index
        Raw ids by index, sorted.
    user_idx, item_idx : (n_interactions,) int32
    rating : (n_interactions,) float64, optional
    timestamp : (n_interactions,) numbers or datetime64 in UTC, optional
    part : (n_interactions,) int8, optional
        0 train, 1 validation, 2 test, where the source itself comes split.
    weight : (n_interactions,) float32, optional
        Above 0; every interaction weighs 1 when None.
    n_duplicates : int
        Rows of the source that repeated an earlier pair.
    repeats : Repeats, optional
        The rows of repeated pairs, where these have weights, and timestamps or parts. A split makes the weights of such
        pairs of them: with other weights, give `repeats=None`.
    """

    user_ids: pd.Index
    item_ids: pd.Index
    user_idx: IntArray
    item_idx: IntArray
    rating: npt.NDArray[np.float64] | None = None
    timestamp: npt.NDArray[Any] | None = None
    part: npt.NDArray[np.int8] | None = None
    n_duplicates: int = 0
    weight: npt.NDArray[np.float32] | None = None
    repeats: Repeats | None = None

    def __len__(self) -> int:
        return len(self.user_idx)

    @property
    def n_users(self) -> int:
        return len(self.user_ids)

    @property
    def n_items(self) -> int:
        return len(self.item_ids)

    @property
    def timestamp_type(self) -> np.dtype[Any] | None:
        return None if self.timestamp is None else self.timestamp.dtype

    @cached_property
    def user_items(self) -> sparse.csr_matrix:
        """The matrix of weights, ones where there are none, CSR float32, shape (n_users, n_items), indices sorted."""
        weights = np.ones(len(self), dtype=np.float32) if self.weight is None else self.weight
        shape = (self.n_users, self.n_items)
        return sparse.csr_matrix((weights, (self.user_idx, self.item_idx)), shape=shape)

    @classmethod
    def from_frame(cls, frame: Any, columns: Columns | None = None, *, sum_repeats: bool = False) -> Self:
        """Make interactions of a table with one row an interaction.

        The table is a pandas DataFrame or has the Arrow stream interface, as tables of polars, pyarrow, DuckDB and
        Ibis do. Ids are numbers or text, one kind in each column. Timestamps are numbers, datetimes or ISO 8601 text.
        A column `part` (0 train, 1 validation, 2 test) gives the split that the source itself comes with. Weights,
        where `columns` names them, are numbers above 0.

        Parameters
        ----------
        columns : Columns, optional
        sum_repeats : bool
            Whether the weight of a pair that occurs several times is the sum of its weights, ones where there are none;
            else it is the highest.

        Raises
        ------
        ParameterError
            If the table is of no such kind.
        DataError
            If a column is missing, an id or rating is missing, a value is of the wrong kind, or there are no rows.
        """
        frame = select_columns(to_frame(frame, "the table"), columns or Columns())
        if sum_repeats and "weight" not in frame:
            frame = frame.assign(weight=1.0)
        if frame.empty:
            raise DataError("the table has no rows")
        user_idx, user_ids = index_ids(frame["user_id"], "user_id")
        item_idx, item_ids = index_ids(frame["item_id"], "item_id")
        return cls(
            user_ids,
            item_ids,
            user_idx,
            item_idx,
            rating=parse_ratings(frame["rating"]) if "rating" in frame else None,
            timestamp=parse_timestamps(frame["timestamp"]) if "timestamp" in frame else None,
            part=_check_parts(frame["part"]) if "part" in frame else None,
            weight=parse_weights(frame["weight"]).astype(np.float32) if "weight" in frame else None,
        )._collapse_duplicates(sum_repeats)

    @classmethod
    def from_file(cls, source: str | Path, columns: Columns | None = None) -> Self:
        """Read a CSV, TSV, JSON lines or Parquet file, or standard input (`-`); see `readers.read_table`."""
        return cls.from_frame(read_table(source, columns))

    @classmethod
    def from_csr(
        cls,
        user_items: sparse.csr_matrix | sparse.csr_array,
        user_ids: Iterable[Hashable] | None = None,
        item_ids: Iterable[Hashable] | None = None,
    ) -> Self:
        """Make interactions of a user-item matrix as in `implicit`: values other than 0, which become the ratings.

        Ids default to row and column numbers. Rows and columns without interactions are dropped.

        Raises
        ------
        ParameterError
            If it is no sparse matrix, has more or fewer rows or columns than there are ids, or an id is given twice.
        """
        entries = list_entries(user_items, "user_items")
        users = _check_labels(user_ids, entries.shape[0], "user_ids", "rows")
        items = _check_labels(item_ids, entries.shape[1], "item_ids", "columns")
        frame = {"user_id": users[entries.row], "item_id": items[entries.col], "rating": entries.data}
        return cls.from_frame(pd.DataFrame(frame))

    def iter_frames(self, n_rows: int) -> Iterator[pd.DataFrame]:
        """Yield the interactions in tables of so many rows, with raw ids and whatever else there is but the parts."""
        optional = {"rating": self.rating, "timestamp": self.timestamp, "weight": self.weight}
        given = {name: values for name, values in optional.items() if values is not None}
        for start in range(0, len(self), n_rows):
            rows = slice(start, start + n_rows)
            columns = {"user_id": self.user_ids[self.user_idx[rows]], "item_id": self.item_ids[self.item_idx[rows]]}
            yield pd.DataFrame(columns | {name: values[rows] for name, values in given.items()})

    def summarise_ratings(self) -> RatingSummary | None:
        """Summarise the ratings; None without ratings."""
        if self.rating is None:
            return None
        doubled = 2 * self.rating
        return RatingSummary(float(self.rating.min()), float(self.rating.max()), bool((doubled % 1 == 0).all()))

    def select(self, kept: npt.NDArray[np.bool_]) -> Self:
        """Keep the interactions where `kept` is true; drop ids that no longer occur."""
        user_codes, user_idx = renumber(self.user_idx[kept], self.n_users)
        item_codes, item_idx = renumber(self.item_idx[kept], self.n_items)
        return replace(
            self,
            user_ids=self.user_ids[user_codes],
            item_ids=self.item_ids[item_codes],
            user_idx=user_idx,
            item_idx=item_idx,
            rating=None if self.rating is None else self.rating[kept],
            timestamp=None if self.timestamp is None else self.timestamp[kept],
            part=None if self.part is None else self.part[kept],
            weight=None if self.weight is None else self.weight[kept],
            repeats=None if self.repeats is None else self.repeats.select(kept),
        )

    def filter(
        self, *, min_rating: float | None = None, min_user_items: int = 0, min_item_users: int = 0
    ) -> tuple[Self, dict[str, int]]:
        """Drop low ratings, then items with few users, then users with few items.

        An interaction stays with a rating of at least `min_rating`, an item with at least `min_item_users` users, a
        user with at least `min_user_items` items. One pass in that order, as in Liang et al. (2018): afterwards
        an item may have fewer users than asked for.

        Returns
        -------
        (interactions, counts)
            `counts` has how many interactions each filter dropped, and how many users.

        Raises
        ------
        ParameterError
            If a bound is no number, a negative count, or of ratings that there are none of.
        DataError
            If nothing is left; the message says how many interactions each filter dropped.
        """
        check_filters(min_rating, min_user_items, min_item_users)
        counts = {"rows": len(self) + self.n_duplicates, "duplicate_rows": self.n_duplicates}
        data = self
        if min_rating is not None:
            if data.rating is None:
                raise ParameterError(f"min_rating is {min_rating} but the data have no ratings")
            data = data._keep(data.rating >= min_rating, "min_rating", min_rating, counts)
        if min_item_users > 1:
            kept = _count_of_each(data.item_idx) >= min_item_users
            data = data._keep(kept, "min_item_users", min_item_users, counts)
        if min_user_items > 1:
            kept = _count_of_each(data.user_idx) >= min_user_items
            data = data._keep(kept, "min_user_items", min_user_items, counts)
        return data, counts | {"users_dropped": self.n_users - data.n_users}

    def _keep(self, kept: npt.NDArray[np.bool_], name: str, bound: float, counts: dict[str, int]) -> Self:
        counts[f"interactions_below_{name}"] = int((~kept).sum())
        if not kept.any():
            raise empty_data_error(counts, bound)
        return self if kept.all() else self.select(kept)

    def _collapse_duplicates(self, sum_weights: bool) -> Self:
        pairs = self.user_idx.astype(np.int64) * self.n_items + self.item_idx
        ordered = np.sort(pairs)
        if not (ordered[1:] == ordered[:-1]).any():
            return self
        repeated = pd.Series(pairs).duplicated().to_numpy()
        pair = pd.factorize(pairs)[0]  # numbered by first appearance, as the rows that stay
        ratings, parts = (
            None if values is None else pd.Series(values).groupby(pair) for values in (self.rating, self.part)
        )
        if (timestamp := self.timestamp) is not None:
            times = pd.Series(timestamp)
            if ratings is not None:  # an earlier, lower rating must not bring the interaction forward
                ignored = times.max() if timestamp.dtype.kind in "iu" else np.nan  # NaN would make floats of integers
                times = times.where(pd.Series(self.rating) == ratings.transform("max"), ignored)
            timestamp = times.groupby(pair).min().to_numpy(dtype=timestamp.dtype)
        weight, repeats = self.weight, None
        if weight is not None:
            repeats = Repeats.collect(pair, weight, sum_weights, self.timestamp, self.part)
            weight = repeats.weigh(weight[~repeated])
        return replace(
            self,
            user_idx=self.user_idx[~repeated],
            item_idx=self.item_idx[~repeated],
            rating=None if ratings is None else ratings.max().to_numpy(dtype=np.float64),
            timestamp=timestamp,
            part=None if parts is None else parts.min().to_numpy(dtype=np.int8),
            n_duplicates=self.n_duplicates + int(repeated.sum()),
            weight=weight,
            repeats=None if timestamp is None and parts is None else repeats,
        )


def check_filters(min_rating: float | None, min_user_items: int, min_item_users: int) -> None:
    """Raise `ParameterError` unless the rating, if any, is a number, and the others whole numbers of at least 0."""
    if min_rating is not None:
        real("min_rating", min_rating, low=-LARGEST)
    whole("min_user_items", min_user_items, minimum=0)
    whole("min_item_users", min_item_users, minimum=0)


def empty_data_error(counts: Mapping[str, int], bound: float) -> DataError:
    """Make the error for filters that dropped every interaction; `bound` is the last filter's."""
    taken = ", ".join(f"{n:,} {what.replace('_', ' ')}" for what, n in counts.items() if what != "rows")
    return DataError(f"no interactions are left of {counts['rows']:,} rows: {taken} {bound:g}")


def _count_of_each(idx: IntArray) -> npt.NDArray[np.intp]:
    """Count, for each entry, the entries with the same index."""
    return np.bincount(idx)[idx]


def _check_labels(ids: Iterable[Hashable] | None, size: int, name: str, what: str) -> pd.Index:
    if ids is None:
        return pd.RangeIndex(size)
    labels = ids if isinstance(ids, pd.Index) else pd.Index(list(ids), tupleize_cols=False)
    if len(labels) != size:
        raise ParameterError(f"{name} has {len(labels):,} entries but user_items has {size:,} {what}")
    if not labels.is_unique:
        repeated = labels[labels.duplicated()].tolist()[0]
        raise ParameterError(f"{name} has {repeated!r} more than once; expected a different id for each of the {what}")
    return labels


def _check_parts(parts: pd.Series) -> npt.NDArray[np.int8]:
    refuse_first("part", parts, ~parts.isin([0, 1, 2]).to_numpy(), "0 (train), 1 (validation) or 2 (test)")
    return parts.to_numpy(dtype=np.int8)
