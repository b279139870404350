"""Standard errors of means over users, by hand."""

import numpy as np
import pytest

from recvae.evaluation.standard_error import is_ahead, standard_error


def test_the_lead_of_one_over_another_in_standard_errors() -> None:
    a, b = np.array([0.4, 0.6, 0.8, 0.6]), np.array([0.3, 0.3, 0.5, 0.5])
    assert standard_error(a - b) == pytest.approx(np.sqrt((0.01 + 0.01 + 0.01 + 0.01) / 3) / 2)  # mean lead .2
    assert is_ahead(a, b, 3.0)
    assert not is_ahead(b, a, 0.0)
    other = np.array([0.3, 0.7, 0.5, 0.5])  # mean .1, standard error .082
    assert is_ahead(a, other, 1.0)
    assert not is_ahead(a, other, 2.0)
    assert not is_ahead(a, a, 0.0)


@pytest.mark.parametrize("n_users", [2, 15, 100, 733])
@pytest.mark.parametrize("lead", [0.1, 0.387, 1.0])
def test_one_user_who_differs_is_within_one_standard_error(n_users: int, lead: float) -> None:
    a, b = np.full(n_users, 0.3), np.full(n_users, 0.3)
    a[-1] += lead
    assert not is_ahead(a, b)
    assert is_ahead(a, b, 0.99)


def test_nothing_is_clear_by_one_user() -> None:
    assert standard_error(np.array([0.5])) == np.inf
    assert not is_ahead(np.array([1.0]), np.array([0.0]), 1.0)
