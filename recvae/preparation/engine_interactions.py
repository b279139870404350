"""Interactions in a database engine: the filters, counts and indices of `recvae.data.interactions`.

The engine counts, joins and sorts, and spills to its disk where it must. Memory holds arrays over users or items, and
streams.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import pyarrow as pa

from recvae.data.columns import Columns
from recvae.data.ids import sort_ids
from recvae.data.interactions import RatingSummary, check_filters, empty_data_error
from recvae.datasets.loading import find_parts
from recvae.errors import DataError, ParameterError
from recvae.preparation.engine import Engine
from recvae.preparation.staging import stage

PAIR = ("user_id", "item_id")


def read_source(engine: Engine, source: str, columns: Columns) -> "EngineInteractions":
    """Read the interactions of a source.

    Parameters
    ----------
    source : str
        A CSV, TSV or Parquet file, whose rows are numbered; a folder of Parquet files, or a table's name, whose rows
        have no order.

    Raises
    ------
    DataError
        If it cannot be read, or a value is missing or of the wrong kind.
    """
    path = Path(source)
    if path.is_file():
        staged = stage(path, columns, engine.scratch / "staged.parquet")
        table = engine.connection.read_parquet(str(staged.path))
        numbers = {name: table[name].cast(kind) for name, kind in staged.numbers.items()}
        return EngineInteractions.from_table(engine, table.mutate(**numbers), source, staged.timestamp_unit)
    if path.is_dir():
        if engine.is_spark:
            table = engine.connection.read_parquet(str(path / "*.parquet"))
        else:  # a column that some files lack is missing in their rows
            table = engine.connection.read_parquet([str(part) for part in find_parts(path)], union_by_name=True)
    else:
        database, _, name = source.rpartition(".")
        try:
            table = engine.connection.table(name, database=database or None)
        except Exception as error:  # noqa: BLE001  (each driver has errors of its own)
            raise DataError(f"{source} is neither a file, a folder nor a table of the backend ({error})") from None
    mapping = columns.map_names(list(table.columns), source)
    selected = table.select(**{standard: table[given] for given, standard in mapping.items()})
    return EngineInteractions.from_table(engine, selected, source)


def _check_values(engine: Engine, table: Any, where: str, timestamp_unit: str | None) -> Any:
    """Check that no id or rating is missing; ratings become float64 and timestamps numbers."""
    types = table.schema()
    missing = {name: table[name].isnull().sum() for name in PAIR}
    if "rating" in types:
        if not (types["rating"].is_numeric() or types["rating"].is_boolean()):
            raise DataError(f"{where}: rating has values of type {types['rating']}; expected numbers")
        table = table.mutate(rating=table.rating.cast("float64"))
        missing["rating"] = (~(table.rating.abs() <= np.finfo(np.float64).max).fill_null(False)).sum()
    if "timestamp" in types:
        table = table.mutate(timestamp=_read_times(table.timestamp, where))
        missing["timestamp"] = table.timestamp.isnull().sum()
        if types["timestamp"].is_floating():
            missing["infinite"] = (table.timestamp.abs() > np.finfo(np.float64).max).sum()
    found = engine.read_row(table.aggregate(rows=table.count(), **missing))
    if not found["rows"]:
        raise DataError(f"{where} has no rows")
    for name in (*PAIR, "rating"):
        if found.get(name):
            raise DataError(f"{where}: {name} is missing or no number in {found[name]:,} rows")
    if found.get("infinite"):
        raise DataError(f"{where}: timestamp is infinite in {found['infinite']:,} rows; expected finite numbers")
    if found.get("timestamp") and not timestamp_unit:  # as in memory, where integers with missing values become floats
        table = table.mutate(timestamp=table.timestamp.cast("float64"))
    return table


def _read_times(times: Any, where: str) -> Any:
    """Make numbers of timestamps, NULL where one is missing."""
    kind = times.type()
    if kind.is_timestamp():
        return times.epoch_seconds().cast("int64")
    if not kind.is_numeric():
        raise DataError(f"{where}: timestamp has values of type {kind}; expected numbers or timestamps")
    return times.isnan().ifelse(None, times) if kind.is_floating() else times  # to an engine NaN is the latest moment


@dataclass(frozen=True, eq=False)
class EngineInteractions:
    """`Interactions` in a database engine, with the same filters and the same order of ids.

    Attributes
    ----------
    table : Ibis table
        `user_id`, `item_id`, and `rating`, `timestamp`, `row` where the source has them; one row a pair.
    n_duplicates : int
        Rows of the source that repeated an earlier pair.
    timestamp_unit : str, optional
        Unit of timestamps that are dates, which the table has as int64, since 1970 in UTC.
    """

    engine: Engine
    table: Any
    n_duplicates: int
    timestamp_unit: str | None = None

    @classmethod
    def from_table(cls, engine: Engine, table: Any, where: str, timestamp_unit: str | None = None) -> Self:
        """Make interactions of a table; a repeated pair is one interaction. `where` names the table in messages.

        Raises
        ------
        DataError
            If there are no rows, or a value is missing or of the wrong kind.
        """
        table = _check_values(engine, table, where, timestamp_unit)
        rows = engine.read_count(table.count())
        pairs = engine.read_count(table.select(*PAIR).distinct().count())
        if pairs < rows:
            table = engine.materialise(_collapse_duplicates(table))
        return cls(engine, table, rows - pairs, timestamp_unit)

    @cached_property
    def n_interactions(self) -> int:
        return self.engine.read_count(self.table.count())

    @property
    def timestamp_type(self) -> np.dtype[Any] | None:
        if "timestamp" not in self.table.columns:
            return None
        return np.dtype(f"datetime64[{self.timestamp_unit}]" if self.timestamp_unit else np.float64)

    @cached_property
    def user_ids(self) -> pd.Index:
        return self._read_ids("user_id")

    @cached_property
    def item_ids(self) -> pd.Index:
        return self._read_ids("item_id")

    def summarise_ratings(self) -> RatingSummary | None:
        """Summarise the ratings; None without ratings."""
        if "rating" not in self.table.columns:
            return None
        rating = self.table.rating
        doubled = 2 * rating
        found = self.engine.read_row(
            self.table.aggregate(least=rating.min(), largest=rating.max(), odd=(doubled.floor() != doubled).sum())
        )
        return RatingSummary(found["least"], found["largest"], not found["odd"])

    def filter(
        self, *, min_rating: float | None = None, min_user_items: int = 0, min_item_users: int = 0
    ) -> tuple[Self, dict[str, int]]:
        """Filter as `Interactions.filter` does, with the same counts and the same errors."""
        check_filters(min_rating, min_user_items, min_item_users)
        counts = {"rows": self.n_interactions + self.n_duplicates, "duplicate_rows": self.n_duplicates}
        n_users = self.engine.read_count(self.table.user_id.nunique())
        steps: list[tuple[str, float, Callable[[Any], Any]]] = []
        if min_rating is not None:
            if "rating" not in self.table.columns:
                raise ParameterError(f"min_rating is {min_rating} but the data have no ratings")
            steps.append(("min_rating", min_rating, lambda t: t.filter(t.rating >= min_rating)))
        if min_item_users > 1:
            steps.append(("min_item_users", min_item_users, lambda t: _keep_frequent(t, "item_id", min_item_users)))
        if min_user_items > 1:
            steps.append(("min_user_items", min_user_items, lambda t: _keep_frequent(t, "user_id", min_user_items)))
        data = self
        for name, bound, keep in steps:
            before = data.n_interactions
            data = replace(data, table=self.engine.materialise(keep(data.table)))
            counts[f"interactions_below_{name}"] = before - data.n_interactions
            if not data.n_interactions:
                raise empty_data_error(counts, bound)
        return data, counts | {"users_dropped": n_users - len(data.user_ids)}

    @cached_property
    def indexed_table(self) -> Any:
        """The table with `user_idx`, `item_idx` (int32) and `row` (int64) in place of the ids.

        Rows that have no order of their own are taken by user and by item.
        """
        table = self.table
        for name, ids in (("user", self.user_ids), ("item", self.item_ids)):
            indices = pd.DataFrame({f"{name}_id": ids, f"{name}_idx": np.arange(len(ids), dtype=np.int32)})
            table = table.inner_join(self.engine.create_table(indices), f"{name}_id").drop(f"{name}_id")
        if "row" not in table.columns:
            row = table.user_idx.cast("int64") * len(self.item_ids) + table.item_idx
            table = table.mutate(row=row)
        return self.engine.materialise(table)

    def iter_frames(self) -> Iterator[pd.DataFrame]:
        """Read all interactions in row order: `user_id`, `item_id`, and `rating` and `timestamp` where given."""
        names = [name for name in ("rating", "timestamp") if name in self.table.columns]
        ordered = self.indexed_table.order_by("row").select("user_idx", "item_idx", *names)
        for batch in self.engine.stream(ordered):
            ids = {"user_id": self.user_ids[batch["user_idx"]], "item_id": self.item_ids[batch["item_idx"]]}
            values = {name: batch[name] for name in names}
            if self.timestamp_unit and "timestamp" in values:
                values["timestamp"] = values["timestamp"].cast(pa.timestamp(self.timestamp_unit))
            yield pd.DataFrame(ids | {name: array.to_pandas() for name, array in values.items()})

    def _read_ids(self, name: str) -> pd.Index:
        # Sorted here, not by the engine: each engine orders text by a collation of its own.
        return sort_ids(self.engine.read_frame(self.table.select(name).distinct())[name])


def _collapse_duplicates(table: Any) -> Any:
    """Keep one row a pair: the highest rating, its earliest timestamp, the first row."""
    kept = {"row": table.row.min()} if "row" in table.columns else {}
    if "rating" in table.columns:
        table = table.group_by(*PAIR).mutate(best=lambda t: t.rating.max())
        kept = {name: table.row.min() for name in kept} | {"rating": table.rating.max()}
    if "timestamp" in table.columns:
        best = table.rating == table.best if "rating" in table.columns else None
        kept["timestamp"] = table.timestamp.min(where=best)
    return table.group_by(*PAIR).aggregate(**kept)


def _keep_frequent(table: Any, name: str, least: int) -> Any:
    """Keep the rows whose value in column `name` occurs in at least `least` rows."""
    with_counts = table.group_by(name).mutate(n_rows=lambda t: t.count())
    return with_counts.filter(with_counts.n_rows >= least).drop("n_rows")
