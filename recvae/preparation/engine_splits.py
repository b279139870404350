"""Operations that splits are made of, in a database engine: matrices are streamed to disk and read as memory maps."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Self

import ibis
import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse

from recvae.data.csr_files import read_matrix, write_ones, write_stream
from recvae.data.split import TEST, TRAIN, VALIDATION
from recvae.data.split_backend import Indices
from recvae.preparation.engine import Engine
from recvae.preparation.engine_interactions import EngineInteractions


@dataclass(frozen=True, eq=False)
class EngineBackend:
    """`recvae.data.split_backend.SplitBackend` over a table of an engine.

    Memory holds arrays over users or over items, and one side's interactions where they are listed.

    Attributes
    ----------
    table : Ibis table
        `user_idx`, `item_idx`, `row`, `side` once it is assigned, and `timestamp` where the source has one.
    folder : Path
        Directory that matrices are written to, with the values that they share.
    """

    engine: Engine
    user_ids: pd.Index
    item_ids: pd.Index
    table: Any
    timestamp_type: np.dtype[Any] | None
    folder: Path

    @classmethod
    def from_interactions(cls, interactions: EngineInteractions) -> Self:
        """Make a back end; its matrices live as long as the engine's scratch folder."""
        folder = Path(mkdtemp(dir=interactions.engine.scratch))
        write_ones(folder, interactions.n_interactions)
        return cls(
            interactions.engine,
            interactions.user_ids,
            interactions.item_ids,
            interactions.indexed_table,
            interactions.timestamp_type,
            folder,
        )

    @cached_property
    def n_interactions(self) -> int:
        return self.engine.read_count(self.table.count())

    def count_missing_timestamps(self) -> int:
        return self.engine.read_count(self.table.timestamp.isnull().sum())

    def find_timestamp(self, position: int) -> Any:
        found = self._read_column(self.table.order_by("timestamp").limit(1, offset=position), "timestamp")[0]
        return np.datetime64(int(found), self._date_unit) if self._date_unit else found

    def assign_by_user(self, side_of_user: npt.NDArray[np.int8]) -> Self:
        sides = pd.DataFrame({"user_idx": np.arange(len(side_of_user), dtype=np.int32), "side": side_of_user})
        return replace(self, table=self.table.inner_join(self.engine.create_table(sides), "user_idx"))

    def assign_by_time(self, val_time: Any, test_time: Any) -> Self:
        times = self.table.timestamp
        val_time, test_time = self._to_number(val_time), self._to_number(test_time)
        before_test = (times >= val_time).ifelse(VALIDATION, TRAIN)
        return replace(self, table=self.table.mutate(side=(times >= test_time).ifelse(TEST, before_test)))

    def assign_last_two(self, min_interactions: int) -> Self:
        table = self.table.group_by("user_idx").mutate(degree=lambda t: t.count())
        latest_first = ibis.window(group_by="user_idx", order_by=[table.timestamp.desc(), table.item_idx.desc()])
        table = table.mutate(place=ibis.row_number().over(latest_first))
        enough = table.degree >= min_interactions
        one_before = (enough & (table.place == 1)).ifelse(VALIDATION, TRAIN)
        return replace(self, table=table.mutate(side=(enough & (table.place == 0)).ifelse(TEST, one_before)))

    def count_sides(self) -> list[int]:
        counts = self.engine.read_frame(self.table.group_by("side").aggregate(n=lambda t: t.count()))
        of_side = dict(zip(counts["side"], counts["n"], strict=True))
        return [int(of_side.get(side, 0)) for side in (TRAIN, VALIDATION, TEST)]

    def find_users(self, sides: Sequence[int]) -> Indices:
        return self._read_distinct(self._select(sides), "user_idx")

    def find_items(self, side: int) -> Indices:
        return self._read_distinct(self._select([side]), "item_idx")

    def find_items_by_appearance(self, side: int) -> Indices:
        first = self._select([side]).group_by("item_idx").aggregate(first=lambda t: t.row.min())
        return self._read_column(first.order_by("first"), "item_idx")

    def keep_items(self, items: Indices) -> Self:
        kept = self._join_places(self.table, "item_idx", items, "place_of_item")
        table = self.engine.materialise(kept.drop("item_idx").rename(item_idx="place_of_item"))
        return replace(self, item_ids=self.item_ids[items], table=table)

    def list_interactions(self, side: int) -> tuple[Indices, Indices]:
        frame = self.engine.read_frame(self._select([side]).order_by("row").select("user_idx", "item_idx"))
        return frame["user_idx"].to_numpy(), frame["item_idx"].to_numpy()

    def list_weights(self, side: int) -> None:
        return None

    def drop_weights(self) -> Self:
        return self

    def build_matrix(self, name: str, users: Indices, sides: Sequence[int]) -> sparse.csr_matrix:
        table = self._join_places(self._select(sides), "user_idx", users, "user_row").select("user_row", "item_idx")
        shape = (len(users), len(self.item_ids))
        n_interactions = self.engine.read_count(table.count())
        write_stream(self.folder, name, shape[0], n_interactions, self._stream_by_row(table))
        return read_matrix(self.folder, name, shape)

    @property
    def _date_unit(self) -> Any:
        """Unit of timestamps that are dates, which the table has as numbers; None for other timestamps."""
        kind = self.timestamp_type
        return np.datetime_data(kind)[0] if kind is not None and kind.kind == "M" else None

    def _to_number(self, time: Any) -> Any:
        if not self._date_unit:
            return time
        whole = time.astype(self.timestamp_type)  # of a finer time the unit that it lies in: the next one is the bound
        return int(whole.astype(np.int64)) + bool(whole < time)

    def _stream_by_row(self, table: Any) -> Iterator[tuple[Indices, Indices]]:
        for batch in self.engine.stream(table.order_by("user_row", "item_idx")):
            yield batch["user_row"].to_numpy(), batch["item_idx"].to_numpy()

    def _select(self, sides: Sequence[int]) -> Any:
        return self.table.filter(self.table.side.isin(list(sides)))

    def _join_places(self, table: Any, name: str, values: Indices, place: str) -> Any:
        """Keep the rows of a table whose `name` is among the values, with its place in them as column `place`."""
        places = pd.DataFrame({name: values.astype(np.int32), place: np.arange(len(values), dtype=np.int32)})
        return table.inner_join(self.engine.create_table(places), name)

    def _read_distinct(self, table: Any, name: str) -> npt.NDArray[Any]:
        # Not `distinct()`: after a filter on another column, Ibis puts that column into SELECT DISTINCT as well.
        return self._read_column(table.group_by(name).aggregate(n=lambda t: t.count()).order_by(name), name)

    def _read_column(self, expression: Any, name: str) -> npt.NDArray[Any]:
        return self.engine.read_frame(expression.select(name))[name].to_numpy()
