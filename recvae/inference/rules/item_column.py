"""`ItemColumn`: a column of the items' metadata as codes of its distinct values, and the conditions on it."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from recvae.errors import ParameterError, shorten

ORDERS = {"ge": np.greater_equal, "gt": np.greater, "le": np.less_equal, "lt": np.less}
ORDERED = ("number", "date")
OPERATORS = (*ORDERS, "not", "all")
WHOLE = frozenset({"item_id", "title"})
"""Columns of text that are never taken for sets, whatever bars they hold."""
BAR = "|"
MOST_VALUES, MOST_TOGETHER = 1000, 16
"""Most values in a list, and in a list for "all", where each costs a pass over the items."""

Mask = npt.NDArray[np.bool_]


class RuleError(ParameterError):
    """A rule names a column that the items do not have, or a value that it cannot have; `field` is its place."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field} {message}")
        self.field = field


@dataclass(frozen=True)
class Condition:
    """One condition of a filter.

    Attributes
    ----------
    column : str
    operator : str
        "in", or one of `OPERATORS`.
    values : tuple
        As the column holds them; an order has one.
    """

    column: str
    operator: str
    values: tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class ItemColumn:
    """A column as codes of its distinct values.

    Attributes
    ----------
    kind : "text", "number", "truth value" or "date"
    values : (n_values,) array
        Distinct values; dates are microseconds since 1970, UTC.
    codes : (n_entries,) int32
        Value of each entry, -1 where it is missing.
    starts : (n_items + 1,) int64, optional
        Where the entries of each item begin, in a column of sets.
    """

    kind: str
    values: npt.NDArray[Any]
    codes: npt.NDArray[np.int32]
    starts: npt.NDArray[np.int64] | None

    @classmethod
    def read(cls, column: pa.ChunkedArray, name: str, field: str) -> "ItemColumn":
        """Read a column of an item table; `RuleError` if its type is none that has values to compare."""
        array, starts = _decode(_one_array(column)), None
        if _is_text(array.type) and name not in WHOLE and pc.any(pc.match_substring(array, BAR)).as_py():
            array = pc.split_pattern(array, BAR)
        if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
            lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
            starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
            array = _decode(array.flatten())
        kind, array = _simplify(array)
        if kind is None:
            raise RuleError(field, f"holds {column.type}, which rules cannot compare")
        encoded = pc.dictionary_encode(array)
        codes = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False)
        return cls(kind, encoded.dictionary.to_numpy(zero_copy_only=False), codes, starts)

    @classmethod
    def empty(cls, values: Sequence[Any], n_items: int) -> "ItemColumn":
        """Make a column without values, of the kind of the values given."""
        first = values[0] if values else ""
        kind = "truth value" if isinstance(first, bool) else "number" if is_number(first) else "text"
        types: dict[str, Any] = {"truth value": bool, "number": np.float64, "text": object}
        return cls(kind, np.empty(0, dtype=types[kind]), np.full(n_items, -1, dtype=np.int32), None)

    def extended(self, n_items: int) -> "ItemColumn":
        """Add items without values."""
        if not n_items:
            return self
        if self.starts is None:
            return replace(self, codes=np.concatenate([self.codes, np.full(n_items, -1, dtype=np.int32)]))
        return replace(self, starts=np.concatenate([self.starts, np.full(n_items, self.starts[-1])]))

    def replace_values(self, changes: Mapping[int, Sequence[Any]]) -> "ItemColumn":
        """Give some items other values, which were parsed."""
        index = {value: code for code, value in enumerate(self.values.tolist())}
        coded = {
            item: list(dict.fromkeys(index.setdefault(value, len(index)) for value in values))
            for item, values in changes.items()
        }
        values = np.array(list(index), dtype=object if self.kind == "text" else None)
        if self.starts is None and all(len(codes) <= 1 for codes in coded.values()):
            codes = self.codes.copy()
            codes[list(coded)] = [next(iter(of_item), -1) for of_item in coded.values()]
            return ItemColumn(self.kind, values, codes, None)
        n_items = len(self.codes) if self.starts is None else len(self.starts) - 1
        lengths = np.ones(n_items, dtype=np.int64) if self.starts is None else np.diff(self.starts)
        items = np.repeat(np.arange(n_items), lengths)
        kept = ~np.isin(items, list(coded))
        items = np.concatenate([items[kept], np.repeat(list(coded), [len(of_item) for of_item in coded.values()])])
        codes = np.concatenate([self.codes[kept], np.array([code for of in coded.values() for code in of], np.int32)])
        starts = np.concatenate([[0], np.cumsum(np.bincount(items, minlength=n_items), dtype=np.int64)])
        return ItemColumn(self.kind, values, codes[np.argsort(items, kind="stable")], starts)

    def to_arrow(self) -> pa.Array:
        """Write the column as it is read: a value for each item, or a list of values where the column is of sets."""
        values = pa.array(self.values.tolist(), pa.string() if self.kind == "text" else None)
        if self.kind == "date":
            values = values.cast(pa.timestamp("us"))
        kept = self.codes >= 0
        if self.starts is None:
            return values.take(pa.array(self.codes, mask=~kept))
        starts = np.concatenate([[0], np.cumsum(kept, dtype=np.int32)])[self.starts]
        return pa.ListArray.from_arrays(starts.astype(np.int32), values.take(pa.array(self.codes[kept])))

    def describe(self, most: int) -> dict[str, Any]:
        """Describe the values in use: the least and the largest of numbers and dates, else the most frequent ones.

        Returns
        -------
        dict
            `kind`, `n_values`, the number of distinct values, `values`, at most `most`, and `least` and `largest`.
            Dates are text, in ISO 8601, from year 1 to year 9999 at most.
        """
        counts = np.bincount(self.codes[self.codes >= 0], minlength=len(self.values))
        used = self.values[counts > 0]
        used = used[used == used]  # NaN is a missing value
        described = {"kind": self.kind, "n_values": len(used), "values": [], "least": None, "largest": None}
        if self.kind not in ORDERED:
            order = np.argsort(-counts, kind="stable")[: min(most, len(used))]
            return described | {"values": self.values[order].tolist()}
        if len(used):
            bounds = {"least": used.min().item(), "largest": used.max().item()}
            described |= {name: _format_moment(at) for name, at in bounds.items()} if self.kind == "date" else bounds
        return described

    def meet(self, condition: Condition) -> Mask:
        """Find the items that meet a condition, (n_items,)."""
        match condition.operator:
            case "in":
                return self._hold_any(condition.values)
            case "not":
                return ~self._hold_any(condition.values)
            case "all":
                kept: Mask = np.logical_and.reduce([self._hold_any((value,)) for value in condition.values])
                return kept
        with np.errstate(invalid="ignore"):  # NaN is a missing value
            return self._hold(ORDERS[condition.operator](self.values, condition.values[0]))

    def codes_of(self, item: int) -> set[int]:
        """Give the codes of an item's values."""
        span = slice(item, item + 1) if self.starts is None else slice(self.starts[item], self.starts[item + 1])
        return {code for code in self.codes[span].tolist() if code >= 0}

    def parse_values(self, given: Any, field: str) -> tuple[Any, ...]:
        """Check a value or a list of values."""
        if isinstance(given, list | tuple):
            if not given:
                raise RuleError(field, f"is empty; expected {self.kind}s")
            if len(given) > MOST_VALUES:
                raise RuleError(field, f"has {len(given):,} values; expected at most {MOST_VALUES:,}")
            return tuple(self.parse_value(value, f"{field}[{i}]") for i, value in enumerate(given))
        return (self.parse_value(given, field),)

    def parse_bound(self, given: Any, field: str) -> tuple[Any]:
        """Check the bound of an order."""
        if self.kind not in ORDERED:
            raise RuleError(field, f"needs numbers or dates, but the column holds {self.kind}s")
        return (self.parse_value(given, field),)

    def parse_value(self, given: Any, field: str) -> Any:
        """Check one value, and convert it to what the column holds."""
        match self.kind:
            case "text" if isinstance(given, str):
                if self.starts is not None and BAR in given and given.strip() not in self._index:
                    raise RuleError(field, f"is {shorten(given)}, several values; expected a list of them")
                return given.strip()
            case "truth value" if isinstance(given, bool):
                return given
            case "number" if is_number(given):
                return given if abs(given) < 2**63 else float(given)
            case "date" if isinstance(given, str | date):
                moment = _parse_moment(given)
                if moment is not None:
                    return moment
        expected = {"text": "text", "date": "a date such as 2024-01-31"}.get(self.kind, f"a {self.kind}")
        if self.kind == "truth value":
            expected = "true or false"
        raise RuleError(field, f"is {shorten(given)}; expected {expected}")

    def _hold_any(self, wanted: tuple[Any, ...]) -> Mask:
        if self.kind == "text":
            return self.hold_codes([self._index[value] for value in wanted if value in self._index])
        return self._hold(np.isin(self.values, np.array(wanted)))

    def hold_codes(self, codes: Sequence[int]) -> Mask:
        """Find the items that hold one of the values with these codes, (n_items,)."""
        accepted = np.zeros(len(self.values), dtype=bool)
        accepted[list(codes)] = True
        return self._hold(accepted)

    def _hold(self, accepted: Mask) -> Mask:
        """Find the items that hold one of the accepted values."""
        hits: Mask = np.append(accepted, False)[self.codes]  # the code of a missing value, -1, is the last entry
        if self.starts is None:
            return hits
        counted = np.concatenate([[0], np.cumsum(hits)])
        kept: Mask = counted[self.starts[1:]] > counted[self.starts[:-1]]
        return kept

    @cached_property
    def _index(self) -> dict[str, int]:
        return {value: code for code, value in enumerate(self.values.tolist())}


def _simplify(array: pa.Array) -> tuple[str | None, pa.Array]:
    """Return the kind of a column's values, and the column as texts, numbers, truth values or microseconds."""
    kind = array.type
    if _is_text(kind):
        trimmed = pc.utf8_trim_whitespace(array)
        return "text", pc.if_else(pc.equal(trimmed, ""), pa.scalar(None, kind), trimmed)
    if pa.types.is_boolean(kind):
        return "truth value", array
    if pa.types.is_integer(kind):
        return "number", array
    if pa.types.is_floating(kind):
        return "number", pc.if_else(pc.is_nan(array), pa.scalar(None, kind), array)
    if pa.types.is_decimal(kind):
        return "number", array.cast(pa.float64())
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        return "date", array.cast(pa.timestamp("us"), safe=False).cast(pa.int64())
    if pa.types.is_null(kind):
        return "text", array.cast(pa.string())
    return None, array


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EARLIEST, _LATEST = (
    (end.replace(tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1) for end in (datetime.min, datetime.max)
)


def _parse_moment(given: str | date) -> int | None:
    """Parse a date or a time, UTC unless it says otherwise, as microseconds since 1970."""
    try:
        moment = datetime.fromisoformat(given if isinstance(given, str) else given.isoformat())
    except ValueError:
        return None
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return round((moment - _EPOCH).total_seconds() * 1_000_000)


def _format_moment(moment: int) -> str:
    """Write microseconds since 1970 as a date that can be given in a filter: of the years 1 to 9999."""
    bounded = max(_EARLIEST, min(moment, _LATEST))
    return (_EPOCH + timedelta(microseconds=bounded)).isoformat()


def is_number(given: Any) -> bool:
    """Check that a value from outside is a finite number, and no truth value."""
    number = isinstance(given, int | float) and not isinstance(given, bool)
    return number and abs(given) <= sys.float_info.max  # which is not so for NaN


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    array = column.combine_chunks()
    return array.chunk(0) if isinstance(array, pa.ChunkedArray) else array


def _decode(array: pa.Array) -> pa.Array:
    return array.cast(array.type.value_type) if pa.types.is_dictionary(array.type) else array


def alternatives(names: Sequence[str]) -> str:
    """Write names as `a, b or c`."""
    return f"{', '.join(names[:-1])} or {names[-1]}"
