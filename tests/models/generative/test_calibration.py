"""Calibration: p-values of users like those it was measured on are uniform, at every length."""

import numpy as np
import numpy.typing as npt
import pytest

from recvae.errors import ArtifactError
from recvae.models.generative.calibration import FEWEST_USERS, Calibration, Summary
from recvae.models.generative.held_out_likelihood import HeldOutLikelihood


def draw_users(n: int, generator: np.random.Generator) -> Summary:
    """Users whose misfit falls, and whose spread shrinks, with the length of the history."""
    lengths = np.exp(generator.uniform(1, 5, n)).round()
    misfit = -np.log(lengths) + generator.normal(size=n) * 3 / np.sqrt(lengths)
    return Summary(lengths, misfit, 5 + generator.normal(size=n) / np.sqrt(lengths))


def draw_p_values(n: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Lengths and p-values of users, n for each of 40 calibrations."""
    generator = np.random.default_rng(0)
    lengths, p_values = [], []
    for _ in range(40):
        calibration, users = Calibration(draw_users(200, generator), 1.0), draw_users(n, generator)
        lengths.append(users.lengths)
        p_values.append(calibration.p_values(calibration.scores(users)))
    return np.concatenate(lengths), np.concatenate(p_values)


@pytest.mark.parametrize("level", [0.01, 0.05, 0.2, 0.5])
def test_the_level_is_the_share_of_real_users_below_it(level: float) -> None:
    _, p_values = draw_p_values(500)
    assert (p_values <= level).mean() == pytest.approx(level, abs=0.2 * level)


def test_the_level_holds_for_short_and_for_long_histories() -> None:
    lengths, p_values = draw_p_values(500)
    for bound in ((0, 10), (10, 50), (50, 1000)):
        among = (lengths > bound[0]) & (lengths <= bound[1])
        assert (p_values[among] <= 0.1).mean() == pytest.approx(0.1, abs=0.05)


def test_the_smallest_p_value_is_one_of_all_users() -> None:
    calibration = Calibration(draw_users(200, np.random.default_rng(0)), 1.0)
    assert calibration.p_values(np.array([1e9, -1e9])).tolist() == [1 / 201, 1]


def test_rare_items_count_where_they_are_rarer_than_usual() -> None:
    calibration = Calibration(draw_users(200, np.random.default_rng(0)), 1.0)
    usual = Summary(np.array([30.0]), np.array([-3.4]), np.array([5.0]))
    for rarity, louder in ((4.0, False), (5.1, False), (9.0, True)):
        other = Summary(usual.lengths, usual.misfit, np.array([rarity]))
        assert (calibration.scores(other)[0] > calibration.scores(usual)[0] + 0.1) == louder


def test_users_of_one_length_need_no_line() -> None:
    generator = np.random.default_rng(0)
    users = Summary(np.full(50, 7.0), generator.normal(size=50), generator.normal(size=50))
    scores = Calibration(users, 1.0).scores(users)
    assert np.isfinite(scores).all()


@pytest.mark.parametrize("wrong", [0.0, 0.4])
def test_a_model_that_is_too_sure_is_mixed_with_popularity(wrong: float) -> None:
    generator = np.random.default_rng(0)
    gains = np.where(generator.random(5000) < wrong, -20.0, 1.0)
    likelihood = HeldOutLikelihood(gains - 5, np.full(5000, -5.0))
    calibration = Calibration.measure(likelihood, np.arange(0, 5001, 50, dtype=np.int32))
    # The likelihood of a weight w is (1 - wrong) log(1 + w(e - 1)) + wrong log(1 - w).
    expected = 1 - wrong / (1 - 1 / np.e) if wrong else 1
    assert calibration.weight == pytest.approx(expected, abs=0.02)
    assert calibration.users.misfit.mean() == pytest.approx(-0.11 if wrong else -1, abs=0.02)


def test_state_is_checked() -> None:
    calibration = Calibration(draw_users(200, np.random.default_rng(0)), 1.0)
    state = list(calibration.state().values())
    again = Calibration.from_state(*state)
    scores = calibration.scores(calibration.users)
    np.testing.assert_allclose(again.scores(again.users), scores, atol=1e-4)
    broken = [
        (state[0][:2], state[1]),
        (state[0][:, : FEWEST_USERS - 1], state[1]),
        (np.full_like(state[0], np.nan), state[1]),
        (np.zeros_like(state[0]), state[1]),
        (state[0], state[1][:1]),
        (state[0], np.array([1, 0], np.float32)),
    ]
    for arrays in broken:
        with pytest.raises(ArtifactError, match="calibration_users"):
            Calibration.from_state(*arrays)


def test_a_few_short_histories_do_not_hide_others() -> None:
    generator = np.random.default_rng(0)
    lengths = np.append(generator.integers(40, 51, 180), generator.integers(4, 40, 12)).astype(np.float64)
    misfit = np.append(generator.normal(-2, 0.3, 180), generator.normal(0, 1, 12))
    calibration = Calibration(Summary(lengths, misfit, generator.normal(size=192)), 1.0)
    short = Summary(np.array([20.0]), np.array([0.0]), np.array([0.0]))
    assert calibration.p_values(calibration.scores(short))[0] < 0.05
