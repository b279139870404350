"""Paired tests against scipy and by hand; Holm's correction by hand and by its bounds."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from recvae.errors import ParameterError
from recvae.evaluation.significance import holm, paired_test
from tests.evaluation.test_evaluate import result

thoroughly = settings(max_examples=100, deadline=None, derandomize=True)


@given(st.lists(st.tuples(st.floats(0, 1, width=16), st.floats(0, 1, width=16)), min_size=2, max_size=30))
@thoroughly
def test_paired_test_agrees_with_scipy(values: list[tuple[float, float]]) -> None:
    a, b = np.array(values).T
    found = paired_test(result(a.tolist()), result(b.tolist()), "recall@20")
    assert found.difference == pytest.approx((a - b).mean())
    if (a - b).std() > 0:
        expected = stats.ttest_rel(a, b)
        interval = expected.confidence_interval(0.95)
        assert found.p_value == pytest.approx(expected.pvalue)
        assert found.ci95 == pytest.approx((interval.low, interval.high), abs=1e-12)


def test_paired_test_of_models_that_never_or_always_differ_alike() -> None:
    values = [0.25, 0.5, 1.0]
    same = paired_test(result(values), result(values), "recall@20")
    assert (same.difference, same.ci95, same.p_value) == (0, (0, 0), 1)
    above = paired_test(result([value + 1 for value in values]), result(values), "recall@20")
    assert (above.difference, above.ci95, above.p_value) == (1, (1, 1), 0)


def test_paired_test_leaves_users_without_a_value_out() -> None:
    a, b = result([1, math.nan, 3, 5]), result([0, 1, 1, math.nan])
    assert paired_test(a, b, "recall@20") == paired_test(result([1, 3]), result([0, 1]), "recall@20")


def test_paired_test_of_one_user_decides_nothing() -> None:
    found = paired_test(result([1]), result([0]), "recall@20")
    assert (found.difference, found.p_value) == (1, 1)
    assert all(map(math.isnan, found.ci95))


def test_paired_test_refuses_other_users() -> None:
    with pytest.raises(ParameterError, match="a has 2 users and b has 1"):
        paired_test(result([1, 2]), result([1]), "recall@20")


def test_holm_by_hand() -> None:
    # Sorted .005 .01 .03 .04, times 4 3 2 1: .02 .03 .06 .04, and never below the one before.
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.6, 0.7]), [1, 1])
    assert holm([]).shape == (0,)


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
def test_holm_refuses_what_is_no_probability(value: float) -> None:
    with pytest.raises(ParameterError, match="expected numbers from 0 to 1"):
        holm([0.5, value])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
@thoroughly
def test_holm_keeps_the_order_and_lies_between_uncorrected_and_bonferroni(p_values: list[float]) -> None:
    raw, adjusted = np.array(p_values), holm(p_values)
    assert np.all(adjusted >= raw)
    assert np.all(adjusted <= np.minimum(raw * len(raw) + 1e-12, 1))
    assert all(low <= high for low, high in pairwise(adjusted[np.argsort(raw, kind="stable")]))
