"""Rows of pairs that occur several times, so that a split weighs a pair by those that are known on its side."""

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from recvae.errors import DataError


@dataclass(frozen=True, eq=False)
class Repeats:
    """All rows of the (user, item) pairs that occur several times, each of which is one interaction.

    Attributes
    ----------
    place : (n_rows,) int64
        The place of each row's interaction among all interactions.
    weight : (n_rows,) float32
    summed : bool
        Whether an interaction's weight is the sum of its rows' weights; else it is the highest.
    timestamp : (n_rows,) numbers or datetime64 in UTC, optional
    side : (n_rows,) int8, optional
        0 train, 1 validation, 2 test: the side of a split from which on the row is known.
    """

    place: npt.NDArray[np.int64]
    weight: npt.NDArray[np.float32]
    summed: bool
    timestamp: npt.NDArray[Any] | None = None
    side: npt.NDArray[np.int8] | None = None

    @classmethod
    def collect(
        cls,
        place: npt.NDArray[np.int64],
        weight: npt.NDArray[np.float32],
        summed: bool,
        timestamp: npt.NDArray[Any] | None,
        side: npt.NDArray[np.int8] | None,
    ) -> Self:
        """Collect, of all rows, those whose place occurs several times."""
        rows = np.bincount(place)[place] > 1
        times, sides = (None if values is None else values[rows] for values in (timestamp, side))
        return cls(place[rows], weight[rows], summed, times, sides)

    def select(self, kept: npt.NDArray[np.bool_]) -> Self:
        """Keep the rows of the interactions where `kept`, (n_interactions,), is true."""
        rows = kept[self.place]
        return replace(
            self,
            place=(np.cumsum(kept) - 1)[self.place[rows]],
            weight=self.weight[rows],
            timestamp=None if self.timestamp is None else self.timestamp[rows],
            side=None if self.side is None else self.side[rows],
        )

    def weigh(self, weight: npt.NDArray[np.float32], last_side: int | None = None) -> npt.NDArray[np.float32]:
        """Copy the weights of all interactions, with those of repeated pairs made anew.

        Parameters
        ----------
        last_side : int, optional
            The rows of this side and of earlier ones count; all when None. Pairs without such a row stay as they are.

        Raises
        ------
        DataError
            If a sum is more than float32 holds.
        """
        known = (
            np.ones(len(self.place), dtype=bool) if last_side is None or self.side is None else self.side <= last_side
        )
        rows = pd.Series(self.weight[known]).groupby(self.place[known])
        with np.errstate(over="ignore"):
            found = rows.sum() if self.summed else rows.max()
        if not np.isfinite(found).all():
            raise DataError("the weights of a repeated pair sum to more than float32 holds; expected smaller weights")
        weight = weight.copy()
        weight[found.index] = found
        return weight
