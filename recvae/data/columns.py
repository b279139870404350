"""Columns of a user's own table: their names, and their values, of which messages name the first that is wrong."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from pandas.api.types import infer_dtype, is_datetime64_any_dtype

from recvae.errors import DataError

DescribeRow = Callable[[int], str]
"""Name a file and the place in it of a row, which is counted from 0."""
DATE = "a number or an ISO 8601 date"
_MOVIELENS = ["userId", "movieId", "rating", "timestamp"]


@dataclass(frozen=True)
class Columns:
    """Names of the columns of a table; `rating` and `timestamp` need not be there when they are None.

    Weights and kinds of events are read only where their columns are named. A column `rating` or `timestamp` that is
    named for something else, such as weights, is that alone.

    In a header of exactly `userId,movieId,rating,timestamp`, as MovieLens has it, the first two need not be named.
    """

    user: str = "user_id"
    item: str = "item_id"
    rating: str | None = None
    timestamp: str | None = None
    weight: str | None = None
    event: str | None = None

    def map_names(self, names: list[str], where: str) -> dict[str, str]:
        """Map the table's own column names to `user_id`, `item_id`, `rating`, `timestamp`, `weight` and
        `event`.

        Parameters
        ----------
        names : list of str
            The table's columns.
        where : str
            The table's name in messages.

        Raises
        ------
        DataError
            If a column is missing, is there twice, or is named for two purposes.
        """
        user, item = self.user, self.item
        if names == _MOVIELENS and (user, item) == (Columns.user, Columns.item):
            user, item = _MOVIELENS[:2]
        wanted = {"user_id": user, "item_id": item, "rating": self.rating, "timestamp": self.timestamp}
        wanted |= {name: given for name in ("weight", "event") if (given := getattr(self, name)) is not None}
        mapping: dict[str, str] = {}
        for standard, given in wanted.items():
            if given is None:
                if standard not in names or standard in wanted.values():
                    continue
                given = standard
            if given not in names:
                option = f"--{standard.removesuffix('_id')}-column"
                raise DataError(f"{where} has no column {given!r} ({option}); it has: {', '.join(names)}")
            if names.count(given) > 1:
                raise DataError(f"{where} has {names.count(given)} columns named {given!r}; expected one")
            if given in mapping:
                raise DataError(f"column {given!r} of {where} is named for both {mapping[given]} and {standard}")
            mapping[given] = standard
        return mapping


def select_columns(table: pd.DataFrame, columns: Columns) -> pd.DataFrame:
    """Select the columns of a table in memory that are read, and its column `part`, by the standard names.

    Raises
    ------
    DataError
        As `Columns.map_names`.
    """
    names = list(table.columns)
    mapping = columns.map_names(names, "the table")
    if names.count("part") > 1:
        raise DataError(f"the table has {names.count('part')} columns named 'part'; expected one")
    if "part" in table:
        mapping.setdefault("part", "part")
    return table[list(mapping)].rename(columns=mapping)


def parse_ratings(ratings: pd.Series, describe_row: DescribeRow | None = None) -> npt.NDArray[np.float64]:
    """Parse ratings; `DataError` unless all are finite numbers."""
    numbers = _to_floats(_to_numbers(ratings))
    refuse_first("rating", ratings, ~np.isfinite(numbers), "a number", describe_row)
    return numbers


def parse_weights(weights: pd.Series, describe_row: DescribeRow | None = None) -> npt.NDArray[np.float64]:
    """Parse weights; `DataError` unless all are numbers above 0, and still so in float32."""
    numbers = _to_floats(_to_numbers(weights))
    with np.errstate(over="ignore", under="ignore"):
        kept = numbers.astype(np.float32)
    wrong = ~((kept > 0) & np.isfinite(kept))
    refuse_first("weight", weights, wrong, "a number above 0 that float32 holds", describe_row)
    return numbers


def parse_timestamps(times: pd.Series, describe_row: DescribeRow | None = None) -> npt.NDArray[Any]:
    """Parse timestamps as numbers or as datetime64 in UTC; `DataError` if one is neither."""
    if isinstance(times.dtype, pd.PeriodDtype):
        times = times.dt.to_timestamp()
    elif isinstance(times.dtype, pd.ArrowDtype):
        times = _from_arrow(times, times.dtype.pyarrow_dtype)
    if not is_datetime64_any_dtype(times):
        if infer_dtype(times) == "boolean":  # with missing ones among them, too
            refuse_first("timestamp", times, times.notna().to_numpy(), DATE, describe_row)
        numbers = _to_numbers(times)
        if (numbers.isna() == times.isna()).all():
            values = _to_floats(numbers) if numbers.hasnans else numbers.to_numpy()
            if values.dtype.kind == "f":
                refuse_first("timestamp", times, np.isinf(values), "a finite number", describe_row)
            return values
        times = parse_dates(times, describe_row)
    return (times if times.dt.tz is None else times.dt.tz_convert(None)).to_numpy()


def _from_arrow(times: pd.Series, kind: pa.DataType) -> pd.Series:
    """Convert dates and text of Arrow to types of pandas, which tells missing values and what is no number apart."""
    if pa.types.is_date(kind):
        return times.astype("datetime64[ms]")
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    if is_number or pa.types.is_boolean(kind) or (pa.types.is_temporal(kind) and not pa.types.is_time(kind)):
        return times
    return times.astype("string")


def _to_numbers(values: pd.Series) -> pd.Series:
    """Convert numbers, and text of numbers; all else is missing: dates, durations and complex numbers are none."""
    if values.dtype.kind in "mMc":
        return pd.Series(np.nan, index=values.index)
    return pd.to_numeric(values, errors="coerce")


def _to_floats(numbers: pd.Series) -> npt.NDArray[np.float64]:
    return numbers.to_numpy(dtype=np.float64, na_value=np.nan)


def parse_dates(times: pd.Series, describe_row: DescribeRow | None = None) -> pd.Series:
    """Parse dates as datetime64 in UTC; of what is none, the error names what is no number either, if there is any."""
    dates: pd.Series = pd.to_datetime(times.astype("string"), format="ISO8601", errors="coerce", utc=True)
    wrong = (dates.isna() & times.notna()).to_numpy()
    if wrong.any():
        neither = wrong & _to_numbers(times).isna().to_numpy()
        refuse_first("timestamp", times, neither if neither.any() else wrong, DATE, describe_row)
    return dates


def refuse_first(
    name: str,
    values: pd.Series,
    wrong: npt.NDArray[np.bool_],
    expected: str,
    describe_row: DescribeRow | None = None,
) -> None:
    """Raise `DataError` for the first wrong value, if there is any."""
    if not wrong.any():
        return
    row = int(wrong.argmax())
    given = f"{name} is {values.iloc[[row]].tolist()[0]!r}"
    if describe_row is None:
        raise DataError(f"{given} in row {row}; expected {expected}")
    raise DataError(f"{describe_row(row)}: {given}; expected {expected}")
