"""Hyperparameters: the checks that constructors make, and the ranges that tuning may search."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

from recvae.errors import LARGEST as LARGEST
from recvae.errors import ParameterError, shorten
from recvae.errors import real as real
from recvae.errors import whole as whole

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


def sizes(name: str, value: Any) -> tuple[int, ...]:
    """Check layer sizes, such as (600, 200); a single number is one layer."""
    layers = (value,) if isinstance(value, Integral) else value
    if isinstance(layers, tuple | list) and len(layers) > MOST_LAYERS:
        raise ParameterError(f"{name} has {len(layers):,} layers; expected at most {MOST_LAYERS}")
    if not isinstance(layers, tuple | list) or not all(map(_is_size, layers)):
        raise ParameterError(
            f"{name} is {shorten(value)}; expected layer sizes such as (600,), up to {LARGEST_LAYER:,}"
        )
    if all(type(n) is int for n in layers):
        return tuple(layers)  # a tuple stays the same object, as scikit-learn's `clone` asks for
    return tuple(map(int, layers))


def _is_size(n: Any) -> bool:
    return isinstance(n, Integral) and not isinstance(n, bool) and 0 < int(n) <= LARGEST_LAYER


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
