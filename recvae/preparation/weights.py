"""Weights of interactions: from a column, from the kind of event, from repetition, and from age."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from recvae.data.columns import Columns, parse_timestamps, parse_weights
from recvae.data.interactions import Interactions
from recvae.errors import DataError, ParameterError, real, shorten

LARGEST_WEIGHT = float(np.finfo(np.float32).max)
LEAST = 1e-6
"""Factor of the oldest interactions: one of 0 would drop them."""
END_OF_DATES = 253_402_300_800
"""The year 10000 in seconds since 1970; timestamps in milliseconds are later."""
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}


@dataclass(frozen=True)
class WeightOptions:
    """Sources of an interaction's weight, which are multiplied; without any, every interaction weighs 1.

    Attributes
    ----------
    events : mapping of str to float
        Weight of each kind of event, as text; rows of kinds that weigh 0 are dropped.
    repeats : "sum" or "once"
        Whether a pair's weight is the sum of its rows' weights, or the highest.
    half_life : float, optional
        Seconds in which a weight halves, counted back from the latest interaction. Numbers as timestamps are seconds.

    Raises
    ------
    ParameterError
        If an option has a value that it cannot have.
    """

    events: Mapping[str, float] = field(default_factory=dict)
    repeats: str = "once"
    half_life: float | None = None

    def __post_init__(self) -> None:
        if self.repeats not in ("sum", "once"):
            raise ParameterError(f"repeats is {self.repeats!r}; expected sum or once")
        if not isinstance(self.events, Mapping):
            raise ParameterError(f"event_weights is {shorten(self.events)}; expected kinds and numbers")
        events = {
            str(kind): real(f"event_weights[{kind!r}]", weight, high=LARGEST_WEIGHT)
            for kind, weight in self.events.items()
        }
        object.__setattr__(self, "events", events)
        if self.half_life is not None:
            real("half_life", self.half_life, open_low=True)

    @classmethod
    def parse(
        cls, event_weights: str | Mapping[str, float] | None, repeats: str, half_life: str | float | None
    ) -> Self:
        """Parse options as they are written: `view=1,buy=5`, `sum` or `once`, and a time such as `90d`."""
        return cls(
            parse_event_weights(event_weights) if isinstance(event_weights, str) else event_weights or {},
            repeats,
            parse_half_life(half_life) if isinstance(half_life, str) else half_life,
        )

    @property
    def are_default(self) -> bool:
        return self == WeightOptions()

    def make_interactions(self, frame: pd.DataFrame) -> tuple[Interactions, dict[str, Any]]:
        """Make interactions of a table, with the weights that `weigh` gives them.

        Returns
        -------
        (interactions, filters)
            `filters` has the manifest's entry `weights`, if there are any.

        Raises
        ------
        DataError, ParameterError
            As `weigh` and `Interactions.from_frame`.
        """
        frame, weights = self.weigh(frame)
        columns = Columns(weight="weight") if weights else None
        interactions = Interactions.from_frame(frame, columns, sum_repeats=self.repeats == "sum")
        return interactions, {"weights": weights} if weights else {}

    def weigh(self, frame: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, Any]]:
        """Add the column `weight` to a table of interactions, where anything gives it.

        Parameters
        ----------
        frame : DataFrame
            With `weight`, `event` and `timestamp` where the source has them.

        Returns
        -------
        (frame, described)
            The rows that weigh more than 0, without `event`; and what their weights come from, for the manifest.

        Raises
        ------
        DataError
            If a weight is no number above 0, a kind of event has no weight, or a timestamp is missing.
        ParameterError
            If `event` has weights and the table no such column, or the other way round.
        """
        if ("event" in frame) != bool(self.events):
            missing = "event_weights" if "event" in frame else "event_column"
            raise ParameterError(f"{missing} is missing; expected event_column and event_weights together")
        weights = parse_weights(frame["weight"]) if "weight" in frame else np.ones(len(frame))
        described: dict[str, Any] = {"column": True} if "weight" in frame else {}
        if self.events:
            weights = weights * self._weigh_events(frame["event"])
            described["events"] = dict(self.events)
        if self.half_life is not None:
            factors, latest = self._weigh_age(frame)
            weights = weights * factors
            described |= {"half_life_seconds": float(self.half_life), "latest_seconds": latest}
        if self.repeats == "sum":
            described["repeats"] = "sum"
        if not described:
            return frame, {}
        frame = frame.drop(columns="event", errors="ignore").assign(weight=weights)[weights > 0]
        if frame.empty:
            raise DataError("no interactions are left: every kind of event weighs 0")
        return frame.reset_index(drop=True), described

    def _weigh_events(self, kinds: pd.Series) -> npt.NDArray[np.float64]:
        texts = kinds.astype("str").str.strip()
        weights = np.asarray(texts.map(dict(self.events)), dtype=np.float64)
        if np.isnan(weights).any():
            found = sorted(texts.unique())
            unknown = next(kind for kind in found if kind not in self.events)
            raise DataError(
                f"event is {unknown!r}, which event_weights does not name: it has {', '.join(self.events)}, and the "
                f"table {', '.join(found[:10])}"
            )
        return weights

    def _weigh_age(self, frame: pd.DataFrame) -> tuple[npt.NDArray[np.float64], float]:
        """Compute the factor of each row, and the time that age is counted from, in seconds."""
        if "timestamp" not in frame:
            raise ParameterError(
                "half_life needs timestamps; name their column by timestamp_column (--timestamp-column)"
            )
        times = parse_timestamps(frame["timestamp"])
        if missing := int(pd.isna(times).sum()):
            raise DataError(f"half_life needs timestamps, but {missing:,} of {len(times):,} rows have none")
        in_seconds = times.astype("datetime64[us]").astype(np.int64) / 1e6 if times.dtype.kind == "M" else times
        if (latest := float(in_seconds.max())) >= END_OF_DATES:
            raise DataError(
                f"half_life needs timestamps in seconds since 1970 or dates; the latest is {latest:,.0f}, which is "
                "after the year 9999"
            )
        if times.dtype.kind != "M" and _are_dates(in_seconds):
            raise DataError(
                f"half_life needs timestamps in seconds since 1970 or dates; {latest:.0f} and all others look like "
                "dates without their dashes, as in 2020-11-30"
            )
        factors: npt.NDArray[np.float64] = np.maximum(np.exp2((in_seconds - latest) / (self.half_life or 1)), LEAST)
        return factors, latest


def _are_dates(numbers: npt.NDArray[np.float64]) -> bool:
    """Check for dates that are written as numbers, such as 20201130; as seconds they would be of the 1970s."""
    whole = numbers.astype(np.int64)
    bounds = ((whole // 10_000, 1900, 2199), (whole // 100 % 100, 1, 12), (whole % 100, 1, 31))
    in_range = all(((values >= low) & (values <= high)).all() for values, low, high in bounds)
    return in_range and bool((whole == numbers).all())


def parse_event_weights(text: str) -> dict[str, float]:
    """Parse `view=1,buy=5`."""
    weights: dict[str, float] = {}
    for entry in filter(None, map(str.strip, text.split(","))):
        kind, _, number = (part.strip() for part in entry.rpartition("="))
        if kind in weights:
            raise ParameterError(f"event_weights is {text!r}; expected one number for {kind}")
        try:
            weights[kind] = float(number)
        except ValueError:
            kind = ""
        if not kind:
            raise ParameterError(f"event_weights is {text!r}; expected kinds and numbers such as view=1,buy=5")
    return weights


def parse_half_life(text: str) -> float:
    """Parse a time such as `90d`, `12h` or `4w` into seconds."""
    found = re.fullmatch(r"(\d{1,9}(?:\.\d+)?)([smhdw])", text.strip())
    if found is None:
        raise ParameterError(f"half_life is {text!r}; expected a time such as 90d, 12h or 4w")
    return float(found[1]) * UNITS[found[2]]
