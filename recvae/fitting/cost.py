"""The time that a model will take, from that of a smaller sample of the data."""

import math
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from recvae.data.splitting import Split
from recvae.errors import RecvaeError
from recvae.fitting.budget import format_seconds
from recvae.fitting.candidates import Candidate, shrink
from recvae.fitting.epochs import EpochCost
from recvae.fitting.interruption import OutOfTimeError, interrupt_after
from recvae.models.autoencoders.settings import choose_batch_size
from recvae.models.linear.ease import MOST_ITEMS
from recvae.models.registry import MODELS

LARGE_INTERACTIONS, LARGE_ITEMS = 100_000, 2_000
"""Smaller data are not sampled: they take a second or two."""
CUBIC = ("ease",)
"""Models whose time grows with the cube of the matrix's sides, whatever small samples show: an inverse."""
LEAST_GROWTH, USUAL_GROWTH, MOST_GROWTH, CUBIC_GROWTH = 1.5, 4.0, 6.0, 8.0
"""Growth of the time when both sides of the matrix are doubled, which quadruples the interactions: bounds, and what is
assumed before it is known.
"""
LONG_SIDE = 10_000
"""Below this number of users, or of items, an inverse is not all that takes time: from a quarter to the whole of four
data sets with 2,700 to 5,500 users the time of EASE doubled with the sides to 5.0 to 6.0 times, not 8.
"""
REFIT_SHARES = {"ease": 0.5, "graph": 0.5, "als": 0.25, "bm25": 0.15, "cosine": 0.25, "tfidf": 0.25}
"""Time of a fit with settings that are given, as a share of one that chooses them, for models that try several, until
their own fit has shown it: from .24 to .76 for EASE and .27 to .63 for the graph filter on eight data sets, at most so
much for the others on ten.
"""
SAMPLES = (1 / 16, 1 / 8, 1 / 4, 1 / 2)
"""Shares of the users and of the items; the first one only loads libraries and wakes threads."""
PROBE_SHARE = 0.25
LEAST_SECONDS = 0.5
"""A candidate with less time is not begun."""
EPOCH_SHARE = 1 / 16
EPOCH_MARGIN = 1.2
"""An estimate that is too low costs a training, one that is too high some epochs."""
SHORT_EPOCH = 2.0
"""Seconds below which a sample's first epoch, with what libraries take to wake up, is followed by another."""


class Growth(NamedTuple):
    """The time to fit a model on everything, as a multiple of the time on training: of most, and with an inverse."""

    usual: float
    cubic: float

    def of(self, name: str) -> float:
        """The growth for a model, by its name."""
        return self.cubic if name in CUBIC else self.usual


def is_large(split: Split) -> bool:
    """Tell whether a model's time should be estimated before it is fitted."""
    return bool(split.train.nnz > LARGE_INTERACTIONS or split.train.shape[1] > LARGE_ITEMS)


class Estimates:
    """The seconds that candidates without epochs will take, each estimated once."""

    def __init__(self, split: Split, seed: int) -> None:
        self.split, self.seed = split, seed
        self._known: dict[str, float] = {}

    def find(self, candidate: Candidate, allowed: float) -> float:
        """See `estimate_trainings`, for models that plan these, and `estimate_seconds`."""
        key = str((candidate.name, candidate.params))
        if key not in self._known:
            if hasattr(MODELS[candidate.name], "plan"):
                self._known[key] = estimate_trainings(candidate, self.split, allowed)
            else:
                self._known[key] = estimate_seconds(candidate, self.split, allowed, self.seed)
        return self._known[key]

    def choose(self, candidate: Candidate, allowed: float) -> tuple[Candidate, float]:
        """Choose a candidate or, where that takes too long, it with settings that take less; also its estimate."""
        estimate, smaller = self.find(candidate, allowed), shrink(candidate)
        return (smaller, self.find(smaller, allowed)) if estimate > allowed and smaller else (candidate, estimate)


def estimate_seconds(candidate: Candidate, split: Split, allowed: float, seed: int) -> float:
    """Estimate the seconds to fit a model without epochs, from samples of the users and of the items.

    From one sample to the next both sides of the matrix double, and the time grows by a factor that is taken to stay.
    The half is looked at only where the quarter's time does not show that the model fits into what is allowed, and does
    not rule it out. 0 where a sample cannot be fitted, which tells nothing.
    """
    estimate, before = 0.0, None
    for share in SAMPLES:
        timed = _time_sample(candidate, split, share, PROBE_SHARE * allowed, seed)
        if timed is None:
            return estimate
        if share == SAMPLES[0]:
            continue
        # No model's time grows so; other work had the cores.
        if before is not None and timed[0] > CUBIC_GROWTH * before:
            timed = min(timed, _time_sample(candidate, split, share, timed[0], seed) or timed)
        seconds = timed[0]
        growth = USUAL_GROWTH if before is None else min(max(seconds / before, LEAST_GROWTH), MOST_GROWTH)
        estimate, before = seconds * growth ** math.log2(1 / share), seconds
        if candidate.name in CUBIC:
            growth = CUBIC_GROWTH if min(split.train.shape) >= LONG_SIDE else MOST_GROWTH
            estimate = _extrapolate_inverses(*timed, share, min(split.train.shape), growth)
        if share >= 1 / 4 and (estimate <= allowed or growth * seconds > PROBE_SHARE * allowed):
            break
        if seconds >= PROBE_SHARE * allowed:
            break
    return estimate


def _extrapolate_inverses(seconds: float, again: float, share: float, side: int, growth: float) -> float:
    """Extrapolate the seconds of a sample with inverses: one for the model, and those that choose its settings.

    Settings of a large matrix are chosen on fewer items, so that their time stops growing.
    """
    choosing = max(1.0, min(side, MOST_ITEMS) / (share * side))
    return float(again * growth ** math.log2(1 / share) + (seconds - again) * MOST_GROWTH ** math.log2(choosing))


def _time_sample(
    candidate: Candidate, split: Split, share: float, most: float, seed: int
) -> tuple[float, float] | None:
    """Time a fit to a share of the users and of the items, and another with the settings that it found.

    Only inverses are fitted twice; of other models both are the same seconds. None if that fails.
    """
    generator = np.random.default_rng(seed)
    items = np.sort(generator.choice(split.train.shape[1], int(share * split.train.shape[1]), replace=False))

    def sample(matrix: sparse.csr_matrix, n_rows: int) -> Any:
        return matrix[:n_rows][:, items]

    users = generator.permutation(split.train.shape[0])[: int(share * split.train.shape[0])]
    train, validation = split.train[users][:, items], None
    if split.validation is not None:
        n_rows = int(share * split.validation.n_users)
        validation = sample(split.validation.fold_in, n_rows), sample(split.validation.held_out, n_rows)
        validation = validation if validation[1].nnz else None
    started = time.monotonic()
    try:
        with interrupt_after(most):
            model = candidate.create().fit(train, show_progress=False, validation=validation)
        seconds = again = time.monotonic() - started
        if candidate.name in CUBIC:
            started = time.monotonic()
            model.refit(train, show_progress=False)
            again = min(time.monotonic() - started, seconds)
    except OutOfTimeError:
        return (time.monotonic() - started,) * 2
    except (RecvaeError, MemoryError, ImportError):
        return None
    return seconds, again


def estimate_epochs(candidate: Candidate, split: Split, allowed: float, seed: int) -> EpochCost | None:
    """Estimate the time of a training epoch, from one on a share of the users; None for small data, or without time.

    All items are kept, and batches have as many users as those of all, so that their number alone makes the difference.
    """
    if not is_large(split) or allowed < LEAST_SECONDS:
        return None
    n_users = split.train.shape[0]
    batch_size = choose_batch_size(n_users)
    users = np.random.default_rng(seed).permutation(n_users)[: max(batch_size, int(EPOCH_SHARE * n_users))]
    settings: dict[str, Any] = {"epochs": 2, "batch_size": batch_size}
    if "initial" in MODELS[candidate.name].parameter_names():
        settings["initial"] = "random"  # the time to find singular vectors is not an epoch's
    seconds = _time_epoch(candidate, settings, split.train[users], PROBE_SHARE * allowed)
    if seconds is None:
        return None
    epochs = candidate.create().count_epochs(split.train)  # type: ignore[attr-defined]  # of autoencoders
    return EpochCost(epochs, EPOCH_MARGIN * seconds * n_users / len(users))


def estimate_trainings(candidate: Candidate, split: Split, allowed: float) -> float:
    """Estimate the seconds to fit a model that trains several times to choose its settings, from a few iterations.

    All users and items are in them, since the time of a smaller matrix grows in another way. Once it takes longer than
    is allowed, the larger trainings are not timed, and counted as if they grew with the factors, the least that they
    do. 0 where it cannot be trained, which tells nothing.
    """
    model, estimate, each, started = candidate.create(), 0.0, 0.0, time.monotonic()
    for training in model.plan(split.train):  # type: ignore[attr-defined]  # as `Estimates` looks for
        if estimate <= allowed:
            settings = {"factors": training.factors, "alpha": 1.0, "regularization": 1.0, "iterations": 2}
            most = PROBE_SHARE * allowed - (time.monotonic() - started)
            seconds = _time_epoch(candidate, settings, split.train, most)
            if seconds is None:
                return 0.0
            each = seconds / training.factors
        estimate += training.times * training.iterations * training.factors * each
    return estimate


def _time_epoch(
    candidate: Candidate, settings: Mapping[str, Any], matrix: sparse.csr_matrix, most: float
) -> float | None:
    """Time an epoch with these settings, the shorter of two if they are short; None if that fails."""
    times: list[float] = []

    def note(epoch: int, seconds: float, loss: float) -> None:
        del epoch, loss
        times.append(seconds)
        if seconds >= SHORT_EPOCH:
            raise OutOfTimeError

    started = time.monotonic()
    try:
        with interrupt_after(most):
            sample = replace(candidate, params={**candidate.params, **settings}).create()
            sample.fit(matrix, show_progress=False, callback=note)
    except OutOfTimeError:
        times = times or [time.monotonic() - started]
    except (RecvaeError, MemoryError, ImportError, RuntimeError):  # torch's lack of memory; the fit itself will tell
        return None
    return max(min(times), 1e-6)


def compare_cost(best: Mapping[str, Any], drawn: Mapping[str, Any]) -> float:
    """The growth of the time from one setting to another, whose whole numbers are sizes."""
    ratio = 1.0
    for name, value in drawn.items():
        if isinstance(value, int) and isinstance(best.get(name), int) and best[name] > 0 and name != "batch_size":
            ratio *= max(1.0, value / best[name])
    return ratio


def share_of_fit(name: str, varies: Mapping[str, Any], shape: tuple[int, int]) -> float:
    """Share of a fit's time that a fit with given settings takes: less than 1 for a model that has chosen its own.

    It is next to 1 for a large inverse, for which settings are chosen on fewer items.
    """
    if varies or (name in CUBIC and min(shape) >= LONG_SIDE):
        return 1.0
    return REFIT_SHARES.get(name, 1.0)


def describe_lack(needed: float, spare: float) -> str:
    """Say that a model needs more seconds than there are, if it is to be fitted again."""
    there_are = f"there are {format_seconds(spare)} for it beside the time to fit it again on everything"
    return f"would take about {format_seconds(needed)}, and {there_are}"
