"""Ids of items or users and their indices."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

LARGEST_NUMBER = 2**53 - 1
"""Larger whole numbers are written as text, since many JSON readers round them to a double."""
LONGEST_NUMBER = 20
"""Digits of a 64-bit number and its sign: longer text is not read as a number."""

Id = int | str


class IdIndex:
    """Ids in the order of their indices, and the index of each id.

    Clients write ids as JSON numbers or as text, whatever the training data had, so `7` and `"7"` are the same id;
    `"007"` is another one.

    Parameters
    ----------
    ids : pyarrow array
        Whole numbers or text, without repetition.
    """

    def __init__(self, ids: pa.Array | pa.ChunkedArray) -> None:
        self.array = ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids

    def __len__(self) -> int:
        return len(self.array)

    @cached_property
    def ids(self) -> list[Id]:
        """Ids as JSON can write them."""
        return [_json_safe(value) for value in self.array.to_pylist()]

    def get(self, given: Id) -> int | None:
        """Return the index of an id, or None for an unknown one."""
        index = self._indices.get(given)
        return self._indices.get(_respell(given)) if index is None else index

    def find(self, given: Sequence[Id]) -> tuple[list[int], list[Id]]:
        """Return the indices of the known ids, in order and each once, and the unknown ids."""
        try:
            indices = [self._indices[one] for one in given]
        except KeyError:
            pairs = [(one, self.get(one)) for one in given]
            unknown = [one for one, index in pairs if index is None]
            return list(dict.fromkeys(index for _, index in pairs if index is not None)), unknown
        return (indices if len(set(indices)) == len(indices) else list(dict.fromkeys(indices))), []

    def spell(self, given: Id) -> Id | None:
        """Return an id in the type of these ids, a number or text; None for text that is no number among numbers."""
        if not self.ids or isinstance(self.ids[0], str):
            return str(given)
        number = given if isinstance(given, int) else _respell(given)
        return number if isinstance(number, int) and abs(number) <= LARGEST_NUMBER else None

    def find_column(self, given: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.int64]:
        """Return the index of each id of a column, -1 for unknown ones.

        Floats that are whole are the whole numbers; as text, known floats are what `ids` has: 1.0.

        Parameters
        ----------
        given : pyarrow array, shape (n,)

        Returns
        -------
        (n,) int64
        """
        known, given = self.array, decode_ids(given)
        if given.type != known.type:
            if pa.types.is_floating(known.type):
                known = pa.array(self.ids, pa.large_string()) if is_text(given.type) else _keep_whole(known)
            given = _keep_whole(given) if pa.types.is_floating(given.type) else given
            kind = common_type(known.type, given.type)
            known, given = known.cast(kind), given.cast(kind)
        places = pc.index_in(given, value_set=known, skip_nulls=True)
        found: npt.NDArray[np.int64] = pc.fill_null(places, -1).to_numpy().astype(np.int64)
        return found

    @cached_property
    def _indices(self) -> Mapping[Any, int]:
        return {one: index for index, one in enumerate(self.ids)}


def decode_ids(ids: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Return ids themselves where a column holds them dictionary-encoded."""
    return ids.cast(ids.type.value_type) if pa.types.is_dictionary(ids.type) else ids


def is_text(kind: pa.DataType) -> bool:
    """Tell whether ids of an Arrow type are text."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def common_type(*kinds: pa.DataType) -> pa.DataType:
    """Return the type that ids of several types are compared in: int64 if it holds them all, else text."""
    held = all(pa.types.is_integer(kind) and not pa.types.is_uint64(kind) for kind in kinds)
    return pa.int64() if held else pa.large_string()


def _keep_whole(ids: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Convert floats to int64; those that are not whole, or too large to be exact, become null."""
    exact = pc.and_(pc.equal(ids, pc.floor(ids)), pc.less_equal(pc.abs(ids), LARGEST_NUMBER))
    return pc.if_else(exact, ids, pa.scalar(None, ids.type)).cast(pa.int64())


def _json_safe(value: Any) -> Id:
    whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) <= LARGEST_NUMBER
    return value if whole or isinstance(value, str) else str(value)


def _respell(given: Id) -> Id | None:
    """Return a number as text, or text that is exactly what Python writes for a number as that number."""
    if isinstance(given, int):
        return str(given)
    if len(given) <= LONGEST_NUMBER and given.removeprefix("-").isdecimal() and given == str(int(given)):
        return int(given)
    return None
