"""Checks of hyperparameters: the name, what was given, what was expected."""

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

from recvae.errors import ParameterError

LARGEST = 2**31 - 1
LARGEST_LAYER = 100_000


def whole(name: str, value: Any, minimum: int = 1, maximum: int = LARGEST) -> int:
    """A whole number from `minimum` to `maximum`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < minimum:
        raise ParameterError(f"{name} is {value!r}; expected a whole number of at least {minimum}")
    if int(value) > maximum:
        raise ParameterError(f"{name} is {value}; expected at most {maximum:,}")
    return int(value)


def real(name: str, value: Any, low: float = 0.0, high: float = float("inf"), *, open_low: bool = False) -> float:
    """A number from `low` to `high`; with `open_low` greater than `low`."""
    number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not low <= value <= high or (open_low and value == low):
        bound = f"above {low:g}" if open_low else f"of at least {low:g}"
        raise ParameterError(
            f"{name} is {value!r}; expected a number {bound}"
            + (f" and at most {high:g}" if high < float("inf") else "")
        )
    return float(value)


def sizes(name: str, value: Any) -> tuple[int, ...]:
    """Layer sizes, such as (600, 200); a single number is one layer."""
    layers = (value,) if isinstance(value, int) else value
    if not isinstance(layers, tuple | list) or not all(isinstance(n, int) and 0 < n <= LARGEST_LAYER for n in layers):
        raise ParameterError(f"{name} is {value!r}; expected layer sizes such as (600,), up to {LARGEST_LAYER:,}")
    return tuple(layers)


def equal_sizes(name: str, value: Any) -> tuple[int, ...]:
    """Sizes of one or more layers that are all the same."""
    layers = sizes(name, value)
    if len(set(layers)) != 1:
        raise ParameterError(f"{name} is {value!r}; a dense encoder needs one or more layers of one size")
    return layers


def shares(name: str, value: Any, count: int) -> tuple[float, ...]:
    """So many numbers that sum to 1."""
    given = [real(name, share, 0.0, 1.0) for share in value] if isinstance(value, tuple | list) else []
    if len(given) != count or not math.isclose(sum(given), 1.0, abs_tol=1e-6):
        raise ParameterError(f"{name} is {value!r}; expected {count} numbers that sum to 1")
    return tuple(given)


def one_of(name: str, value: Any, known: Sequence[str]) -> str:
    """One of a few words."""
    if value not in known:
        raise ParameterError(f"{name} is {value!r}; expected one of {', '.join(known)}")
    return str(value)
