"""Training that is watched by a clock that is moved by hand."""

from math import inf
from typing import Any

import pytest

from recvae.fitting.epochs import EpochCost, EpochWatch, TooManyEpochsError
from recvae.fitting.interruption import OutOfTimeError
from recvae.training.interrupts import StopTrainingError


class Trained:
    resumable = True

    def __init__(self, epochs: int | None) -> None:
        self.epochs = epochs

    def fitted_params(self) -> dict[str, Any]:
        if self.epochs is None:
            raise AttributeError
        return {"epochs": self.epochs}


class Clockwork:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def train(
    epochs: int | None, seconds: float, allowed: float, start: float = 0.0, most: float = inf
) -> list[tuple[int, int | None]]:
    """Call the watch after each epoch of `seconds`, the first of which begins late."""
    clock, seen = Clockwork(), list[tuple[int, int | None]]()
    watch = EpochWatch(Trained(epochs), allowed, most, clock, lambda done, of: seen.append((done, of)))  # type: ignore[arg-type]
    clock.now = start
    for epoch in range(epochs or 100):
        clock.now += seconds
        watch(epoch, seconds, 0.0)
    return seen


def test_training_that_fits_runs_to_its_end() -> None:
    assert train(20, 1.0, allowed=25.0, start=4.0)[-1] == (20, 20)


def test_training_that_is_too_long_is_stopped_once_an_epoch_is_known() -> None:
    with pytest.raises(TooManyEpochsError) as stopped:
        train(20, 1.0, allowed=15.0, start=4.0)
    assert stopped.value.cost == EpochCost(20, 1.0)


def test_training_with_long_epochs_is_stopped_after_the_first() -> None:
    clock = Clockwork()
    watch = EpochWatch(Trained(20), 500.0, inf, clock, lambda *_: None)  # type: ignore[arg-type]
    clock.now = 70.0  # 40 of them to find what to start from
    with pytest.raises(TooManyEpochsError) as stopped:
        watch(0, 30.0, 0.0)
    assert stopped.value.cost.seconds == 30.0
    assert train(20, 30.0, allowed=600.0)[-1] == (20, 20)


@pytest.mark.parametrize(
    ("seconds", "most", "end"),
    [(1.0, inf, StopTrainingError), (1.0, 4.5, OutOfTimeError), (4.0, inf, StopTrainingError)],
)
def test_training_of_unknown_length_is_stopped_when_its_time_is_over(
    seconds: float, most: float, end: type[BaseException]
) -> None:
    """As long as it may have 1.5 times the time allowed; fewer than five epochs are not kept."""
    with pytest.raises(end):
        train(None, seconds, allowed=15.0, most=most)


def test_training_that_gets_slower_keeps_the_epochs_that_fit() -> None:
    clock = Clockwork()
    watch = EpochWatch(Trained(15), 12.0, 14.0, clock, lambda *_: None)  # type: ignore[arg-type]

    def train_on() -> None:
        for epoch in range(15):
            clock.now += (seconds := 0.7 if epoch < 3 else 1.3)
            watch(epoch, seconds, 0.0)

    with pytest.raises(StopTrainingError):
        train_on()
    assert watch.done == 11
    assert clock.now == pytest.approx(3 * 0.7 + 8 * 1.3)  # one more would leave .2 s for the rest


@pytest.mark.parametrize(
    ("allowed", "most", "epochs"),
    [(200, 300, 100), (101, 300, 99), (50, 300, 48), (6, 40, 38), (7, 40, 5), (6, 6, None), (-5, -1, None)],
)
def test_epochs_that_fit(allowed: float, most: float, epochs: int | None) -> None:
    """Two epochs' time is kept for the singular vectors to start from."""
    assert EpochCost(100, 1.0).choose_epochs(allowed, most) == epochs
