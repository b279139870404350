"""Events of users as the store keeps them: `Event`, `UserEvent`, and `EventWeights`, by which a model weighs them."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from recvae.errors import ArtifactError

LEAST = 1e-6
"""Factor of the oldest events, as in training: one of 0 would drop them."""
SMALLEST, LARGEST = 1.2e-38, 3.4e38
"""Weights that float32 holds with all its digits."""


class Event(NamedTuple):
    """An interaction of a user with an item.

    Attributes
    ----------
    item : str
        Id as text.
    type : str
        Kind of interaction, such as `buy`; empty where none was given.
    weight : float
        Above 0, as it was given; 1 where none was.
    time : float
        Unix seconds by the client's clock; 0 where none was given, for which the store gives back when it came.
    """

    item: str
    type: str = ""
    weight: float = 1.0
    time: float = 0.0


class UserEvent(NamedTuple):
    """An event with its user, and when it was stored, in Unix seconds, which is its time where the client gave none."""

    user: str
    item: str
    type: str
    weight: float
    time: float
    stored_at: float


@dataclass(frozen=True)
class EventWeights:
    """Weights of a user's events for a model, by the rules with which its training data were weighed.

    Attributes
    ----------
    types : mapping of str to float, optional
        Weight of each type, times that of the event. A type that it does not name weighs 0; events without a type weigh
        1. When None, types count for nothing.
    half_life : float, optional
        Seconds in which a weight halves, counted back from now.
    sums_repeats : bool
        Whether an item's weight is the sum of its events' weights, or the highest.
    """

    types: Mapping[str, float] | None = None
    half_life: float | None = None
    sums_repeats: bool = False

    @classmethod
    def of(cls, manifest: Mapping[str, Any]) -> Self:
        """Read the rules from an artifact's manifest; `ArtifactError` if they are none."""
        found = manifest["data"]
        try:
            found = (found.get("filters") or {}).get("weights") or {}
            types, half_life = found.get("events"), found.get("half_life_seconds")
            if types is not None:
                types = {"": 1.0, **{name: float(weight) for name, weight in types.items()}}
            numbers = [*(types or {}).values(), 1.0 if half_life is None else 1 / half_life]
            if not all(0 <= number < math.inf for number in numbers):
                raise ValueError
            return cls(types, half_life, found.get("repeats") == "sum")
        except (AttributeError, TypeError, ValueError, ArithmeticError):
            raise ArtifactError(f": weights of the data are {found!r}; expected event types and numbers") from None

    def find_unknown(self, types: Iterable[str]) -> list[str]:
        """List the types that have no weight, so that their events count for nothing."""
        return [] if self.types is None else [one for one in dict.fromkeys(types) if one not in self.types]

    def weigh(self, events: Iterable[Event], now: float) -> dict[str, float]:
        """Return the weight of each item, in the order of its first event.

        Events that weigh 0 are left out, and those of more than float32 holds; less than it holds becomes the least.
        """
        weights: dict[str, float] = {}
        for event in events:
            weight = event.weight if self.types is None else event.weight * self.types.get(event.type, 0.0)
            if self.half_life is not None:
                weight *= max(2.0 ** min(0.0, (event.time - now) / self.half_life), LEAST)
            if 0 < weight <= LARGEST:
                before, weight = weights.get(event.item, 0.0), max(weight, SMALLEST)
                weights[event.item] = min(before + weight, LARGEST) if self.sums_repeats else max(before, weight)
        return weights
