"""Errors that a user can correct, and the checks of numbers, which raise them.

Each message is one line: what was given and what was expected.
"""

import math
import numbers
import re
import reprlib
from typing import Any

LARGEST = 2**31 - 1
"""Whole number that a check lets through where its caller sets no other bound."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def escape_control_characters(text: str) -> str:
    """Return text with control characters as Python writes them, so that it stays one line and moves no cursor."""
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


def shorten(value: Any) -> str:
    """Return a value as Python writes it, on one line of a message whatever its size and however deep it is nested."""
    shortened = reprlib.Repr()
    shortened.maxlist = shortened.maxtuple = shortened.maxdict = 10
    shortened.maxstring = shortened.maxlong = shortened.maxother = 80
    return shortened.repr(value)


class RecvaeError(Exception):
    """Base of every error this package raises on purpose; the command line prints it and exits with 2.

    Control characters are escaped, since names and values from files appear in messages.
    """

    def __str__(self) -> str:
        return escape_control_characters(super().__str__())


class ParameterError(RecvaeError, ValueError):
    """An argument has a value that it cannot have."""


class ItemIndexError(ParameterError, IndexError):
    """An item index lies outside the catalogue the model was trained on."""


class DataError(RecvaeError, ValueError):
    """Input data cannot be read or used: missing file, missing column, bad value, no rows left."""


class DownloadError(RecvaeError):
    """A data set was not found; the message lists every place that was tried."""


class NotFittedError(RecvaeError, ValueError, AttributeError):
    """A model was asked to score or save before `fit`; the same kinds of error as scikit-learn's."""


class TrainingError(RecvaeError):
    """Training cannot continue, for instance because the loss is no longer finite."""


class ArtifactError(RecvaeError):
    """A saved model or prepared directory is damaged, incomplete or of an unknown version."""


class MissingDependencyError(RecvaeError, ImportError):
    """An optional dependency is not installed; the message names the extra that installs it."""


class UnsupportedError(RecvaeError, NotImplementedError):
    """A model was asked for something that models of its kind cannot do."""


def redact_url(url: str) -> str:
    """Hide the password of a URL, for messages."""
    url = re.sub(r"(?i)\b(password|passwd|pwd|secret|token)=[^&#]*", r"\1=***", url)
    credentials, at, host = url.rpartition("@")  # the last one, because a password may hold another
    scheme, separator, user = credentials.partition("://")
    name, colon, _ = user.partition(":")
    return f"{scheme}{separator}{name}:***@{host}" if at and separator and colon else url


def first_line(error: Exception) -> str:
    """Take the first line of an error's message that is not blank; the error's type if there is none."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


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


def _is_finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number too large for a float
        return False
