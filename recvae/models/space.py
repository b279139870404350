"""Search spaces: which values of a hyperparameter tuning may try, declared beside each model."""

import math
from dataclasses import dataclass

GRID_POINTS = 4


@dataclass(frozen=True)
class Real:
    """Numbers from `low` to `high`, evenly on a logarithmic scale with `log`."""

    low: float
    high: float
    log: bool = True

    def grid(self) -> list[float]:
        """A few values over the whole range."""
        shares = [i / (GRID_POINTS - 1) for i in range(GRID_POINTS)]
        if self.log:
            return [float(f"{self.low * (self.high / self.low) ** share:.4g}") for share in shares]
        return [self.low + (self.high - self.low) * share for share in shares]


@dataclass(frozen=True)
class Whole:
    """Whole numbers from `low` to `high`, evenly on a logarithmic scale with `log`."""

    low: int
    high: int
    log: bool = True

    def grid(self) -> list[int]:
        """A few values over the whole range."""
        return sorted({math.floor(value + 0.5) for value in Real(self.low, self.high, self.log).grid()})


Space = dict[str, Real | Whole]
