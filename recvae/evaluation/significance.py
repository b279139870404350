"""Significance of the difference between two models: paired t-test over users, correction for many tests."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from recvae.errors import ParameterError
from recvae.evaluation.evaluate import EvalResult


@dataclass(frozen=True)
class PairedTest:
    """Mean difference between two models over the same users, its 95% confidence interval and its p-value."""

    difference: float
    ci95: tuple[float, float]
    p_value: float


def paired_test(a: EvalResult, b: EvalResult, metric: str) -> PairedTest:
    """Two-sided paired t-test of `a` minus `b` over the same users.

    Users without a value in either result are left out. With fewer than two users there is no test: p is 1 and the
    interval NaN.

    Raises
    ------
    ParameterError
        If either result has no value for each user of the metric, or the numbers of users differ.
    """
    if a.n_users != b.n_users:
        raise ParameterError(f"a has {a.n_users:,} users and b has {b.n_users:,}; a paired test needs the same ones")
    first, second = a.values(metric), b.values(metric)
    present = ~np.isnan(first - second)
    first, second = first[present], second[present]
    differences = first - second
    if differences.size < 2:
        mean = float(differences.mean()) if differences.size else float("nan")
        return PairedTest(mean, (float("nan"), float("nan")), 1.0)
    mean = float(differences.mean())
    if differences.std() == 0:  # t is 0/0, or infinite: scipy answers NaN
        return PairedTest(mean, (mean, mean), 1.0 if mean == 0 else 0.0)
    with warnings.catch_warnings():
        # It warns where differences are equal but for rounding; p is next to 0 then, and its digits say nothing.
        warnings.filterwarnings("ignore", message="Precision loss occurred", category=RuntimeWarning)
        test = stats.ttest_rel(first, second)
    low, high = test.confidence_interval(0.95)
    return PairedTest(mean, (float(low), float(high)), float(test.pvalue))


def holm(p_values: Sequence[float]) -> npt.NDArray[np.float64]:
    """Holm-adjusted p-values, in the order given, none above 1.

    Holm (1979), "A simple sequentially rejective multiple test procedure".

    Raises
    ------
    ParameterError
        If a value lies outside 0 to 1.
    """
    raw = np.asarray(p_values, dtype=np.float64)
    if not np.all((raw >= 0) & (raw <= 1)):
        raise ParameterError(f"p_values is {list(p_values)}; expected numbers from 0 to 1")
    order = np.argsort(raw, kind="stable")
    adjusted = np.empty_like(raw)
    adjusted[order] = np.minimum(np.maximum.accumulate(np.arange(len(raw), 0, -1) * raw[order]), 1.0)
    return adjusted
