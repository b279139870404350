"""`ItemFeatures`: the metadata of items as a sparse matrix of numbers."""

import contextlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy import sparse

from recvae.inference.rules.item_column import WHOLE, ItemColumn, RuleError
from recvae.inference.rules.metadata import Metadata

FEWEST_ITEMS = 3
"""Items that must have a value for it to be a feature."""
MOST_VALUES = 500
"""Most values that are features, of all columns together: those that most items have."""
N_KNOTS = 11
"""Numbers of a column that have a feature each: its deciles, the least and the largest."""

WORD = re.compile(r"\w+")

Indices = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.float64]
Titles = Sequence[str | None]
Entries = tuple[Indices, Indices, Numbers]
"""Rows, columns and values of a sparse matrix."""


@dataclass(frozen=True, eq=False)
class ItemFeatures:
    """Features that the metadata of a catalogue give.

    A value of a column of text or truth values is a feature, and so is a word of the titles, if at least three items
    have it. A column of numbers or dates has a feature for each of its deciles, and a number between two of them has
    both, the nearer one more: what is learned of the column is a curve of straight pieces.

    Attributes
    ----------
    values : dict of column to the feature of each of its values
    knots : dict of column to (first feature, ascending numbers)
    n : int
        Number of features.
    """

    values: dict[str, dict[Any, int]]
    knots: dict[str, tuple[int, Numbers]]
    n: int

    @classmethod
    def choose(cls, metadata: Metadata, titles: Titles, items: Indices) -> Self:
        """Choose the features of a catalogue by what some of its items have.

        Parameters
        ----------
        metadata : Metadata
        titles : sequence of str or None
            Of these items.
        items : (k,) int
        """
        counts, knots, n = Counter[tuple[str, Any]](), dict[str, tuple[int, Numbers]](), 0
        for name, column, rows in _list_columns(metadata, titles, items):
            _, codes = _list_entries(column, rows)
            if column.kind in ("text", "truth value"):
                times = np.bincount(codes, minlength=len(column.values))
                often = np.flatnonzero(times >= FEWEST_ITEMS)
                found = zip(column.values[often].tolist(), times[often].tolist(), strict=True)
                counts.update({(name, value): n_items for value, n_items in found})
            elif len(places := _find_knots(column.values.astype(np.float64)[codes])) > 1:
                knots[name] = n, places
                n += len(places)
        values: dict[str, dict[Any, int]] = {}
        for (name, value), _ in counts.most_common(MOST_VALUES):
            values.setdefault(name, {})[value] = n
            n += 1
        return cls(values, knots, n)

    def describe(self) -> str:
        """Name the columns that have features."""
        return ", ".join([*self.values, *self.knots]) or "none"

    def encode(self, metadata: Metadata, titles: Titles, items: Indices) -> sparse.csr_matrix:
        """Give items their features; what is no feature counts for nothing.

        Parameters
        ----------
        metadata : Metadata
        titles : sequence of str or None
            Of these items.
        items : (m,) int

        Returns
        -------
        (m, n) float32
        """
        entries: list[Entries] = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))]
        for name, column, rows in _list_columns(metadata, titles, items):
            places, codes = _list_entries(column, rows)
            if column.kind in ("text", "truth value"):
                known = self.values.get(name, {})
                features = np.array([known.get(value, -1) for value in column.values.tolist()], np.int64)[codes]
                kept = features >= 0
                entries.append((places[kept], features[kept], np.ones(int(kept.sum()))))
            elif name in self.knots:
                entries += _interpolate(places, column.values.astype(np.float64)[codes], *self.knots[name])
        rows, features, data = (np.concatenate(arrays) for arrays in zip(*entries, strict=True))
        return sparse.csr_matrix((data.astype(np.float32), (rows, features)), shape=(len(items), self.n))


def _list_columns(metadata: Metadata, titles: Titles, items: Indices) -> Iterator[tuple[str, ItemColumn, Indices]]:
    """List the columns that can have features, with the items' rows in them; titles are a column of their words."""
    words = [list(dict.fromkeys(WORD.findall((title or "").lower()))) for title in titles]
    column = pa.chunked_array([pa.array(words, pa.list_(pa.string()))])
    yield "title", ItemColumn.read(column, "words", "title"), np.arange(len(titles))
    for name in sorted(metadata.names - WHOLE):
        with contextlib.suppress(RuleError):  # of a kind that has no features
            yield name, metadata.find_column(name, ""), items


def _list_entries(column: ItemColumn, items: Indices) -> tuple[Indices, npt.NDArray[np.int32]]:
    """List the place among the items, and the code, of each value that they have."""
    places, rows = np.arange(len(items)), items
    if column.starts is not None:
        lengths = np.diff(column.starts)[items]
        places = np.repeat(places, lengths)
        within = np.arange(len(places)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        rows = column.starts[items][places] + within
    codes = column.codes[rows]
    return places[codes >= 0], codes[codes >= 0]


def _find_knots(numbers: Numbers) -> Numbers:
    numbers = numbers[np.isfinite(numbers)]
    if not len(numbers):
        return numbers
    knots: Numbers = np.unique(np.quantile(numbers, np.linspace(0, 1, N_KNOTS)))
    return knots


def _interpolate(items: Indices, numbers: Numbers, first: int, knots: Numbers) -> list[Entries]:
    """Give each number the features of the knots on both sides of it, shares that sum to 1."""
    known = np.isfinite(numbers)
    items, numbers = items[known], numbers[known].clip(knots[0], knots[-1])
    right = np.searchsorted(knots, numbers, side="right").clip(1, len(knots) - 1)
    share = (numbers - knots[right - 1]) / (knots[right] - knots[right - 1])
    return [(items, first + right - 1, 1 - share), (items, first + right, share)]
