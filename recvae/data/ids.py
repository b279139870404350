"""Raw ids of users and items, and their indices from 0 in the order of the sorted ids."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from pandas.api.types import infer_dtype, is_complex_dtype, is_float_dtype, is_integer_dtype

from recvae.errors import DataError

IntArray = npt.NDArray[np.int32]
# Integer ids within a range of at most so many times their number are indexed by a table over the whole range: several
# times faster than hashing them, for a few bytes a possible id.
DENSE_IDS = 4
FIRST_INEXACT = 2**53
"""Floats tell this number and the next one not apart."""
LARGEST = np.iinfo(np.int64).max


def index_ids(ids: pd.Series, name: str) -> tuple[IntArray, pd.Index]:
    """Number ids by their place among the sorted distinct ids; returns the indices and the distinct ids.

    Whole numbers of any type that int64 holds become int64, so that the id 1 is never written as 1.0 somewhere.

    Raises
    ------
    DataError
        If an id is missing, or ids are of several kinds or of one that no file can hold. `name` names them.
    """
    missing = ids.isna().to_numpy()
    if missing.any():
        raise DataError(f"{name} is missing in {missing.sum()} rows, first in row {missing.argmax()}")
    if isinstance(ids.dtype, pd.CategoricalDtype):  # whose own order need not be that of the ids
        ids = ids.astype(ids.cat.categories.dtype)
    elif isinstance(ids.dtype, pd.ArrowDtype) and pa.types.is_dictionary(ids.dtype.pyarrow_dtype):
        ids = ids.astype(pd.ArrowDtype(ids.dtype.pyarrow_dtype.value_type))
    if isinstance(ids.dtype, np.dtype) and ids.dtype == np.int64:
        values = ids.to_numpy()
        least, span = values.min(), int(values.max()) - int(values.min()) + 1
        if span <= DENSE_IDS * len(values):
            found, idx = renumber(values - least, span)
            return idx, pd.Index(found + least)
    try:
        codes, uniques = pd.factorize(ids)
    except TypeError as error:
        raise DataError(f"{name} has values of {error}; expected numbers or text") from None
    unique_ids = pd.Index(uniques, tupleize_cols=False)
    own_types = pd.IntervalDtype, pd.PeriodDtype  # of pandas, which no file holds
    if unique_ids.dtype == object or is_complex_dtype(unique_ids.dtype) or isinstance(unique_ids.dtype, own_types):
        _check_one_kind(unique_ids, name)
    unique_ids = make_whole(unique_ids, name)
    order = unique_ids.argsort()
    rank = np.empty(len(order), dtype=np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    return rank[codes], unique_ids[order]


def make_whole(ids: pd.Index, name: str) -> pd.Index:
    """Convert numbers to int64, if it holds all of them; raise `DataError` for floats that are not exact."""
    kind = "floating" if is_float_dtype(ids.dtype) else infer_dtype(ids)
    if kind in ("floating", "mixed-integer-float"):
        values = ids.to_numpy(dtype=np.float64)
        if (np.abs(values) >= FIRST_INEXACT).any():
            raise DataError(
                f"{name} has floats of 2^53 and more, which do not tell all whole numbers apart; expected text"
            )
        if (values % 1 != 0).any():
            return ids
    elif kind == "decimal":
        if not all(number.is_finite() for number in ids):
            raise DataError(f"{name} has numbers that are not finite; expected finite ones or text")
        if any(number % 1 or abs(number) > LARGEST for number in ids):
            return ids
    elif not is_integer_dtype(ids.dtype) or ids.max() > LARGEST:
        return ids
    return ids.astype(np.int64)


def _check_one_kind(ids: pd.Index, name: str) -> None:
    """Raise `DataError` unless distinct ids are all text, all numbers, or all of another kind that a file can hold."""
    kinds = {_kind(value): value for value in reversed(ids.tolist())}
    if len(kinds) > 1:
        examples = " and ".join(f"{kind} such as {value!r}" for kind, value in sorted(kinds.items()))
        raise DataError(f"{name} has {examples}; expected ids of one kind, numbers or text")
    ((kind, value),) = kinds.items()
    if kind == "numbers" and not all(-LARGEST - 1 <= number <= LARGEST for number in ids):
        raise DataError(f"{name} has numbers that int64 does not hold; expected text, or a column of uint64")
    try:
        stored = pa.array(ids if kind == "text" else [value]).type
    except UnicodeEncodeError as error:
        raise DataError(f"{name} is {error.object!r} somewhere, which no file can hold ({error.reason})") from None
    except (pa.ArrowException, TypeError):
        stored = pa.null()
    refused = (pa.types.is_null, pa.types.is_nested, pa.types.is_binary)
    if any(is_refused(stored) for is_refused in refused) or isinstance(stored, pa.BaseExtensionType):
        raise DataError(f"{name} has values of type {kind} such as {value!r}; expected numbers or text")


def _kind(value: Any) -> str:
    if isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool):
        return "numbers"
    return "text" if isinstance(value, str) else type(value).__name__


def sort_ids(ids: pd.Series) -> pd.Index:
    """Sort the distinct ids, in the order of their indices."""
    return index_ids(ids, str(ids.name))[1]


def renumber(values: npt.NDArray[Any], size: int) -> tuple[npt.NDArray[np.intp], IntArray]:
    """Find the values from 0 to size - 1 that occur, and each value's place among them: `np.unique` without sorting."""
    occurs = np.zeros(size, dtype=bool)
    occurs[values] = True
    place = np.cumsum(occurs, dtype=np.int32) - np.int32(1)
    return np.flatnonzero(occurs), place[values]
