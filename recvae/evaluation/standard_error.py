"""The standard error of a mean over users, and who is ahead by more than that."""

import numpy as np
import numpy.typing as npt

ROUNDING = 1e-9
"""Share by which rounding may not put a mean above one standard error, which it is where one user alone differs."""


def standard_error(values: npt.NDArray[np.float64]) -> float:
    """Compute the standard error of the mean of (n_users,) values, with n - 1; infinite for a single one."""
    return float(values.std(ddof=1) / np.sqrt(values.size)) if values.size > 1 else float("inf")


def is_ahead(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64], errors: float = 1.0) -> bool:
    """Tell if the mean of `a` is ahead of that of `b`, (n_users,) each, by more than so many standard errors.

    The best of many on a few users owes much of its lead to chance, and is worse on others; what several numbers of
    errors choose stands in `benchmarks/results/tried.md`.
    """
    lead = a - b
    return bool(lead.mean() > (1 + ROUNDING) * errors * standard_error(lead))
