"""Hyperparameters: the checks that constructors make, and the ranges that tuning may search."""

import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from recvae.errors import ParameterError, shorten

LARGEST = 2**31 - 1
LARGEST_LAYER, MOST_LAYERS = 100_000, 100
LARGEST_BATCH, LARGEST_SAMPLE = 1_000_000, 1_000_000
MOST_EPOCHS, MOST_PASSES = 1_000_000, 1000
"""Far above what any network is trained with, and few enough that a wrong number is refused instead of filling the
memory.
"""
GRID_POINTS = 4


@dataclass(frozen=True)
class RealRange:
    """Numbers from `low` to `high`, spaced evenly on a logarithmic scale if `log`, else on a linear one."""

    low: float
    high: float
    log: bool = True

    def grid(self, points: int = GRID_POINTS) -> list[float]:
        """Values over the whole range, at least two."""
        shares = [i / (points - 1) for i in range(points)]
        if self.log:
            return [float(f"{self.low * (self.high / self.low) ** share:.4g}") for share in shares]
        return [self.low + (self.high - self.low) * share for share in shares]


@dataclass(frozen=True)
class WholeRange:
    """Whole numbers from `low` to `high`, spaced evenly on a logarithmic scale if `log`, else on a linear one."""

    low: int
    high: int
    log: bool = True

    def grid(self, points: int = GRID_POINTS) -> list[int]:
        """At most so many values over the whole range."""
        return sorted({math.floor(value + 0.5) for value in RealRange(self.low, self.high, self.log).grid(points)})


SearchSpace = dict[str, RealRange | WholeRange]
"""The range of each hyperparameter that tuning may change."""


def whole(name: str, value: Any, minimum: int = 1, maximum: int = LARGEST) -> int:
    """Check a whole number from `minimum` to `maximum`; `ParameterError` for anything else, as in all checks here."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or int(value) < minimum:
        raise ParameterError(f"{name} is {shorten(value)}; expected a whole number of at least {minimum}")
    if int(value) > maximum:
        raise ParameterError(f"{name} is {shorten(value)}; expected at most {maximum:,}")
    return int(value)


def real(name: str, value: Any, low: float = 0.0, high: float = float("inf"), *, open_low: bool = False) -> float:
    """Check a finite number from `low` to `high`; with `open_low` it must be greater than `low`."""
    number = isinstance(value, numbers.Real) and not isinstance(value, bool) and _is_finite(value)
    if not number or not low <= value <= high or (open_low and value == low):
        bound = f"above {low:g}" if open_low else f"of at least {low:g}"
        raise ParameterError(
            f"{name} is {shorten(value)}; expected a number {bound}"
            + (f" and at most {high:g}" if high < float("inf") else "")
        )
    return float(value)


def sizes(name: str, value: Any) -> tuple[int, ...]:
    """Check layer sizes, such as (600, 200); a single number is one layer."""
    layers = (value,) if isinstance(value, int) else value
    if isinstance(layers, tuple | list) and len(layers) > MOST_LAYERS:
        raise ParameterError(f"{name} has {len(layers):,} layers; expected at most {MOST_LAYERS}")
    if not isinstance(layers, tuple | list) or not all(type(n) is int and 0 < n <= LARGEST_LAYER for n in layers):
        raise ParameterError(
            f"{name} is {shorten(value)}; expected layer sizes such as (600,), up to {LARGEST_LAYER:,}"
        )
    return tuple(layers)


def equal_sizes(name: str, value: Any) -> tuple[int, ...]:
    """Check the sizes of one or more layers, all the same."""
    layers = sizes(name, value)
    if len(set(layers)) != 1:
        raise ParameterError(f"{name} is {shorten(value)}; a dense encoder needs one or more layers of one size")
    return layers


def shares(name: str, value: Any, count: int) -> tuple[float, ...]:
    """Check `count` numbers from 0 to 1 that sum to 1."""
    given = [real(name, share, 0.0, 1.0) for share in value] if isinstance(value, tuple | list) else []
    if len(given) != count or not math.isclose(sum(given), 1.0, abs_tol=1e-6):
        raise ParameterError(f"{name} is {shorten(value)}; expected {count} numbers that sum to 1")
    return keep_tuple(value, given)


def keep_tuple(value: Any, checked: Sequence[Any]) -> tuple[Any, ...]:
    """The given value if it is the checked one as a tuple already: scikit-learn's `clone` demands the same object."""
    as_tuple = tuple(checked)
    return value if isinstance(value, tuple) and all(a is b for a, b in zip(value, as_tuple, strict=True)) else as_tuple


def one_of(name: str, value: Any, known: Sequence[str]) -> str:
    """Check that a word is among those known."""
    if value not in known:
        raise ParameterError(f"{name} is {shorten(value)}; expected one of {', '.join(known)}")
    return str(value)


def _is_finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number too large for a float
        return False
