"""The time budget of a search: its notation, and the clock that says how much is left."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from recvae.errors import ParameterError

LEAST_SECONDS = 5
MOST_SLOWDOWN = 3.0
SCHEDULER = Path("/proc/thread-self/schedstat")
"""Linux's count of the nanoseconds for which the thread that reads it has had a core, and has waited for one."""
UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0}
_NOTATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?")


def parse_budget(budget: str | float) -> float:
    """Convert a budget such as "90s", "10m" or "1h30m", or a number of seconds, to seconds.

    Raises
    ------
    ParameterError
        For anything else, and for less than `LEAST_SECONDS`.
    """
    if isinstance(budget, int | float) and not isinstance(budget, bool):
        seconds = float(budget)
    else:
        found = _NOTATION.fullmatch(budget.strip().lower()) if isinstance(budget, str) else None
        if not found or not any(found.groups()):
            raise ParameterError(f"budget is {budget!r}; expected a time such as 90s, 10m or 1h30m")
        seconds = sum(float(n or 0) * size for n, size in zip(found.groups(), UNITS.values(), strict=True))
    if not LEAST_SECONDS <= seconds < float("inf"):
        raise ParameterError(f"budget is {budget!r}; expected at least {LEAST_SECONDS}s")
    return seconds


def format_seconds(seconds: float) -> str:
    """Write a time as "7 s", "7:32" (minutes and seconds) or "1:07:32"."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


@dataclass
class Clock:
    """The time that a search has used and has left.

    Attributes
    ----------
    budget : float
        Seconds.
    before : float
        Seconds that earlier runs of the same search took.
    now : callable
        Seconds of a clock that never goes back.
    started : float
        Time of that clock from which the budget is counted.
    """

    budget: float
    before: float = 0.0
    now: Callable[[], float] = time.monotonic
    started: float = field(init=False)
    _before_start: tuple[float, float] = field(init=False)

    def __post_init__(self) -> None:
        self.started = self.now()
        self._before_start = read_core_time()

    @property
    def elapsed(self) -> float:
        """Seconds used, those of earlier runs included."""
        return self.before + self.now() - self.started

    @property
    def left(self) -> float:
        """Seconds left; negative when the budget is spent."""
        return self.budget - self.elapsed

    @property
    def slowdown(self) -> float:
        """Seconds in which this thread wanted a core for each one that it had it: 2 beside as much other work as cores.

        At most `MOST_SLOWDOWN`; 1 where the system does not tell.
        """
        worked, waited = (now - before for now, before in zip(read_core_time(), self._before_start, strict=True))
        return min(1 + waited / max(worked, 1e-3), MOST_SLOWDOWN)


def read_core_time() -> tuple[float, float]:
    """Read the seconds that this thread has had a core, and those that it has waited for one; 0 where it is unknown."""
    try:
        worked, waited, _ = SCHEDULER.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return 0.0, 0.0
    return int(worked) / 1e9, int(waited) / 1e9
