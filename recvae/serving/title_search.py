"""`TitleSearch`: finds items by a part of their title."""

import unicodedata
from collections.abc import Mapping, Sequence
from copy import copy

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from recvae.serving.batching import Steps

TITLES_A_STEP = 8192
"""Titles that are searched in well under a millisecond."""


class TitleSearch:
    """Titles in order of popularity, so that a search can stop at the n-th match.

    Parameters
    ----------
    titles : sequence of str, length n_items
    counts : (n_items,) float32
        Popularity of each item.
    """

    def __init__(self, titles: Sequence[str], counts: npt.NDArray[np.float32]) -> None:
        self._order = np.lexsort((np.arange(len(counts)), -counts))
        folded = [_fold(titles[item]).encode() for item in self._order]
        offsets = np.cumsum([0, *map(len, folded)], dtype=np.int64)
        # From buffers, because `pa.array` would import pandas.
        self._titles = pa.LargeStringArray.from_buffers(
            len(folded), pa.py_buffer(offsets), pa.py_buffer(b"".join(folded))
        )
        self._changed: dict[int, str] = {}

    def with_titles(self, changed: Mapping[int, str]) -> "TitleSearch":
        """Lay the titles of some items, by index, over those it was made with."""
        search = copy(self)
        search._changed = {item: _fold(title) for item, title in changed.items()}
        return search

    def find(self, text: str, n: int) -> Steps[list[int]]:
        """Find the n most popular items whose title contains the text, whatever its case and accents.

        Returns
        -------
        list of item indices
            Most popular first; every item matches an empty text.
        """
        wanted = _fold(text).strip()
        changed, found = [item for item, title in self._changed.items() if wanted in title], list[int]()
        for start in range(0, len(self._order), TITLES_A_STEP):
            # Arrow searches without the interpreter's lock, so the event loop goes on meanwhile.
            matches = pc.match_substring(self._titles[start : start + TITLES_A_STEP], wanted).to_numpy(
                zero_copy_only=False
            )
            matching = self._order[start + np.flatnonzero(matches)].tolist()
            found += [item for item in matching if item not in self._changed]
            if len(found) >= n:
                break
            yield
        return self._sort([*found, *changed])[:n] if changed else found[:n]

    def _sort(self, items: list[int]) -> list[int]:
        """Sort items by popularity."""
        found: list[int] = self._order[np.isin(self._order, items)].tolist()
        return found


def _fold(text: str) -> str:
    """Return text without case and accents."""
    if text.isascii():
        return text.lower()
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return "".join(c for c in decomposed if not unicodedata.combining(c))
