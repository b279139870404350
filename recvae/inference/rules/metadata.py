"""`Metadata`: columns of an item table, and the items that a filter keeps."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any
from weakref import proxy

import numpy as np
import pyarrow as pa

from recvae.errors import shorten
from recvae.inference.rules.item_column import (
    BAR,
    MOST_TOGETHER,
    OPERATORS,
    ORDERS,
    WHOLE,
    Condition,
    ItemColumn,
    Mask,
    RuleError,
    alternatives,
)
from recvae.types import FloatArray

MASKS, PENALTIES = 64, 32
"""Masks and penalties that are kept: one byte and four bytes an item each."""
MOST_CONDITIONS = 32
"""Most conditions in a filter: each costs a pass over the items."""
MOST_CHOICES = 100

Filter = tuple[Condition, ...]
"""Conditions that an item must all meet."""


class Metadata:
    """Columns of an item table, ready to be filtered by.

    A column holds one value an item, or a set of values: lists, and text where values are joined by bars, as in
    `Comedy|Drama`. A set meets a condition if one of its values does, and "all" if every value named is in it. An item
    without a value meets no condition but "not".

    Parameters
    ----------
    table : Arrow table
        One row for each item.
    more : mapping, optional
        `item_id` and `title` of items that follow those of the table, and have no other values.
    titles : mapping of item index to str, optional
        In place of those of the table.
    """

    def __init__(
        self,
        table: pa.Table,
        more: Mapping[str, Sequence[Any]] | None = None,
        titles: Mapping[int, str] | None = None,
    ) -> None:
        self.table, self._more, self._titles = table, more or {"item_id": [], "title": []}, titles or {}
        self._columns: dict[str, ItemColumn] = {}
        # Bound methods would make a circle: what clients' changes replace would stay until the garbage collector ran.
        own = proxy(self)
        mask, penalty = lru_cache(MASKS), lru_cache(PENALTIES)
        self._cached_mask: Callable[[Filter], Mask] = mask(lambda conditions: own._compute_mask(conditions))
        self._cached_penalty: Callable[[Filter], FloatArray] = penalty(lambda given: own._compute_penalty(given))

    def __len__(self) -> int:
        return len(self.table) + len(self._more["item_id"])

    def parse_filter(self, given: Any, field: str = "filter") -> Filter:
        """Check a filter such as `{"genre": ["Drama"], "year": {"ge": 1990}, "in_stock": true}`.

        Each column has a value, a list of which one must be there, or an object with `ge`, `gt`, `le` and `lt` (a
        number or date), `not` (a value or list of which none may be there) and `all` (a list of which each must be).

        Raises
        ------
        RuleError
            For a column that the items do not have, or a value of the wrong kind.
        """
        if not isinstance(given, Mapping):
            raise RuleError(field, f"is {shorten(given)}; expected an object of columns and values")
        conditions: list[Condition] = []
        for name in sorted(given, key=str):
            column, place, wanted = self.find_column(name, field), f"{field}.{name}", given[name]
            if not isinstance(wanted, Mapping):
                conditions.append(Condition(name, "in", column.parse_values(wanted, place)))
                continue
            if not wanted:
                raise RuleError(place, f"is empty; expected {alternatives(OPERATORS)}")
            for operator in sorted(wanted, key=str):
                if operator not in OPERATORS:
                    raise RuleError(place, f"has {operator!r}; expected {alternatives(OPERATORS)}")
                parse = column.parse_bound if operator in ORDERS else column.parse_values
                values = parse(wanted[operator], f"{place}.{operator}")
                if operator == "all" and len(values) > MOST_TOGETHER:
                    raise RuleError(f"{place}.all", f"has {len(values)} values; expected at most {MOST_TOGETHER}")
                conditions.append(Condition(name, operator, values))
        if len(conditions) > MOST_CONDITIONS:
            raise RuleError(field, f"has {len(conditions)} conditions; expected at most {MOST_CONDITIONS}")
        return tuple(conditions)

    @property
    def names(self) -> set[str]:
        """Names of all columns, those that `updated` has added too."""
        return {*self.table.column_names, *self._columns}

    def parse_values(self, given: Mapping[str, Any]) -> dict[str, list[Any]]:
        """Check values of one item by column; a list is a set of values, and None is none.

        Raises
        ------
        RuleError
            For a column that comes with the model, or a value of another kind than the column's.
        """
        parsed: dict[str, list[Any]] = {}
        for name, value in given.items():
            if name in WHOLE:
                raise RuleError(name, "comes with the model and cannot be set")
            values = value if isinstance(value, list) else [] if value is None else [value]
            column = self.find_column(name, "") if name in self.names else ItemColumn.empty(values, len(self))
            split = column.kind == "text" and (column.starts is not None or BAR in "".join(map(str, values)))
            parts = [part for one in values for part in (one.split(BAR) if split and isinstance(one, str) else [one])]
            parsed[name] = [column.parse_value(part, name) for part in parts]
        return parsed

    def extended(self, ids: Sequence[int | str], titles: Sequence[str | None]) -> "Metadata":
        """Add items that have an id and a title, and no other values."""
        more = {"item_id": [*self._more["item_id"], *ids], "title": [*self._more["title"], *titles]}
        metadata = Metadata(self.table, more, self._titles)
        of_all = {name: column for name, column in self._columns.items() if name not in WHOLE}
        metadata._columns = {name: column.extended(len(ids)) for name, column in of_all.items()}
        return metadata

    def updated(self, changes: Mapping[int, Mapping[str, Any]]) -> "Metadata":
        """Lay other values over those of some items.

        Parameters
        ----------
        changes : mapping of item index to values by column
            Values that do not fit their column are left out.
        """
        titles = {item: title for item, given in changes.items() if isinstance(title := given.get("title"), str)}
        metadata = Metadata(self.table, self._more, {**self._titles, **titles})
        by_column = dict[str, dict[int, list[Any]]]()
        metadata._columns = {name: column for name, column in self._columns.items() if name != "title"}
        for item, given in changes.items():
            for name, value in given.items():
                with contextlib.suppress(RuleError):
                    values = metadata.parse_values({name: value})[name]
                    if name not in metadata.names:
                        if not values:  # no value says of what kind the column's values are
                            continue
                        metadata._columns[name] = ItemColumn.empty(values, len(self))
                    by_column.setdefault(name, {})[item] = values
        for name, values_of in by_column.items():
            metadata._columns[name] = metadata.find_column(name, "").replace_values(values_of)
        return metadata

    def mask(self, conditions: Filter) -> Mask:
        """Find the items that meet all conditions, (n_items,); kept for the next time, so it must not be changed."""
        return self._cached_mask(conditions)

    def penalty(self, conditions: Filter) -> FloatArray:
        """Give 0 for items that meet all conditions and -inf for others, (n_items,) float32, which must not be changed.

        Adding it to scores is many times faster than writing through a mask.
        """
        return self._cached_penalty(conditions)

    def find_column(self, name: Any, field: str) -> "ItemColumn":
        """Prepare a column; `RuleError` if there is none that rules can use."""
        found = self._columns.get(name) if isinstance(name, str) else None
        if found is None:
            if name not in self.table.column_names:
                names = ", ".join(sorted(self.names))
                raise RuleError(f"{field}.{name}", f"is no column of the items; expected one of {names}")
            first = len(self.table)
            found = ItemColumn.read(self.table[name], name, f"{field}.{name}").extended(len(self) - first)
            more = enumerate(self._more.get(name, ()), start=first)
            given = {item: [] if value is None else [value] for item, value in more}
            if name == "title":
                given |= {item: [title] if (title := text.strip()) else [] for item, text in self._titles.items()}
            self._columns[name] = found = found.replace_values(given) if given else found
        return found

    def kinds(self) -> dict[str, str]:
        """Give the kind of each column that rules can use: "text", "number", "truth value" or "date"."""
        found: dict[str, str] = {}
        for name in sorted(self.names):
            with contextlib.suppress(RuleError):
                found[name] = self.find_column(name, "").kind
        return found

    @cached_property
    def choices(self) -> dict[str, dict[str, Any]]:
        """Each column but ids and titles as `ItemColumn.describe` gives it, for people who choose what to filter by."""
        return {name: self.find_column(name, "").describe(MOST_CHOICES) for name in self.kinds() if name not in WHOLE}

    def _compute_penalty(self, conditions: Filter) -> FloatArray:
        penalty = np.where(self.mask(conditions), np.float32(0), np.float32(-np.inf))
        penalty.flags.writeable = False
        return penalty

    def _compute_mask(self, conditions: Filter) -> Mask:
        kept = np.ones(len(self), dtype=bool)
        for condition in conditions:
            kept &= self.find_column(condition.column, "filter").meet(condition)
        kept.flags.writeable = False
        return kept
