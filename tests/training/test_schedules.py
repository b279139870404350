import pytest

from recvae.training.schedules import annealed_beta, learning_rate_factor


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        ("constant", [1, 1, 1, 1, 1]),
        ("cosine", [1, 0.853553, 0.5, 0.146447, 0]),
        ("exponential", [1, 0.316228, 0.1, 0.0316228, 0.01]),
        ("step", [1, 1, 0.1, 0.01, 0.01]),
        ("one-cycle", [0.04, 0.935692, 0.811745, 0.283058, 0]),
    ],
)
def test_schedules_by_hand(schedule: str, factors: list[float]) -> None:
    assert [learning_rate_factor(schedule, quarter / 4) for quarter in range(5)] == pytest.approx(
        factors, rel=1e-5, abs=1e-12
    )


def test_one_cycle_peaks_after_three_tenths() -> None:
    assert learning_rate_factor("one-cycle", 0.3) == pytest.approx(1)
    assert learning_rate_factor("one-cycle", 0.3 - 1e-9) == pytest.approx(1)


@pytest.mark.parametrize(
    ("step", "cap", "total", "beta"),
    [
        (0, 0.2, 1000, 0.0),
        (1, 0.2, 1000, 0.001),
        (199, 0.2, 1000, 0.199),
        (200, 0.2, 1000, 0.2),
        (201, 0.2, 1000, 0.2),
        (10**9, 0.2, 1000, 0.2),
        (500, 1.0, 1000, 0.5),
        (0, 0.2, 0, 0.2),
        (7, 0.0, 1000, 0.0),
    ],
)
def test_annealed_beta(step: int, cap: float, total: int, beta: float) -> None:
    assert annealed_beta(step, cap, total) == pytest.approx(beta, abs=1e-15)
