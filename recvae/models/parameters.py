"""Checks of hyperparameters: the name, what was given, what was expected."""

from collections.abc import Sequence
from typing import Any

from recvae.errors import ParameterError


def whole(name: str, value: Any, minimum: int = 1) -> int:
    """A whole number of at least `minimum`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise ParameterError(f"{name} is {value!r}; expected a whole number of at least {minimum}")
    return value


def real(name: str, value: Any, low: float = 0.0, high: float = float("inf"), *, open_low: bool = False) -> float:
    """A number from `low` to `high`; with `open_low` greater than `low`."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
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
    if not isinstance(layers, tuple | list) or not all(isinstance(n, int) and n > 0 for n in layers):
        raise ParameterError(f"{name} is {value!r}; expected layer sizes such as (600,)")
    return tuple(layers)


def one_of(name: str, value: Any, known: Sequence[str]) -> str:
    """One of a few words."""
    if value not in known:
        raise ParameterError(f"{name} is {value!r}; expected one of {', '.join(known)}")
    return str(value)
