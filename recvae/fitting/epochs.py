"""Epochs that fit into the time: a training run is watched, and begun again with fewer where it would take too long."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from recvae.fitting.interruption import OutOfTimeError
from recvae.models.base import Recommender
from recvae.training.interrupts import StopTrainingError

EPOCHS_TO_MEASURE, LONG_EPOCH = 2, 10.0
"""Epochs after which the time of one is known, and seconds from which on the first alone tells it: those that libraries
take to wake up are few beside it.
"""
LEAST_EPOCHS = 5
"""Training with fewer epochs is not worth its time."""
START_EPOCHS = 2
"""The time to find singular vectors to start from, in epochs: from half a one to two and a half on four data sets."""
PATIENCE = 1.5
"""Training that was expected to fit may take longer than it may by this factor."""
END_SHARE = 0.1
"""Of the time of training that is not done in it, for what follows the last epoch: with 700 users .6 s after 11 to 14.
"""


@dataclass(frozen=True)
class EpochCost:
    """The epochs that a model would train, and the seconds of one."""

    epochs: int
    seconds: float

    @property
    def total(self) -> float:
        """Seconds of the whole training."""
        return self.of(self.epochs)

    @property
    def least(self) -> float:
        """Seconds of the shortest training that is worth its time."""
        return self.of(LEAST_EPOCHS)

    def of(self, epochs: int) -> float:
        """Seconds of a training of so many epochs, with those before the first."""
        return (epochs + START_EPOCHS) * self.seconds

    def choose_epochs(self, allowed: float, most: float) -> int | None:
        """Choose the epochs that fit into the seconds `allowed`, or else into `most`; None if too few do.

        A learning rate that follows a cycle must know its length beforehand, so fewer epochs are another training run.
        """
        for available in (allowed, most):
            if (epochs := int(available / self.seconds) - START_EPOCHS) >= LEAST_EPOCHS:
                return min(epochs, self.epochs)
        return None


class TooManyEpochsError(Exception):
    """Raised in training that would take longer than it may.

    Attributes
    ----------
    cost : EpochCost
        As it was measured.
    """

    def __init__(self, cost: EpochCost) -> None:
        super().__init__(cost)
        self.cost = cost


class EpochWatch:
    """A callback of `fit` that ends training which takes longer than it may, and reports its epochs.

    Parameters
    ----------
    model : Recommender
        The model in training.
    allowed : float
        Seconds that it may be expected to take.
    most : float
        Seconds after which it is interrupted.
    now : callable
        Seconds of a clock.
    report : callable
        Called with the number of epochs done and of epochs in all, where the model knows it.
    """

    def __init__(
        self,
        model: Recommender,
        allowed: float,
        most: float,
        now: Callable[[], float],
        report: Callable[[int, int | None], None],
    ) -> None:
        self.model, self.allowed, self.now, self.report = model, allowed, now, report
        self.end = min(PATIENCE * allowed, most)
        self.started = now()
        self.before = 0.0
        self.done = 0

    def __call__(self, epoch: int, seconds: float, loss: float) -> None:
        """Called after each epoch.

        Raises
        ------
        TooManyEpochsError
            Once an epoch's time is known, if they will take longer than `allowed`.
        StopTrainingError, OutOfTimeError
            If not all can be done, and the next one would end too late: enough epochs are kept, few are not.
        """
        del epoch, loss
        self.done += 1
        elapsed = self.now() - self.started
        epochs = self._count_epochs()
        self.report(self.done, epochs)
        an_epoch = max(elapsed - self.before, 1e-6) if self.before else seconds  # not what comes before the first
        self.before = elapsed
        remaining = inf if epochs is None else an_epoch * (epochs - self.done)
        measured = self.done == EPOCHS_TO_MEASURE or (self.done == 1 and seconds >= LONG_EPOCH)
        if epochs is not None and measured and elapsed + remaining > self.allowed:
            raise TooManyEpochsError(EpochCost(epochs, an_epoch))
        if remaining and elapsed + remaining > self.end and elapsed + an_epoch > (1 - END_SHARE) * self.end:
            raise StopTrainingError if self.done >= LEAST_EPOCHS else OutOfTimeError

    def _count_epochs(self) -> int | None:
        if self.model.resumable:
            with contextlib.suppress(AttributeError, KeyError):  # not yet known
                return int(self.model.fitted_params()["epochs"])
        return None
