"""The time of a model, from that of samples."""

import time
from typing import Any

import pytest

from recvae.data.interactions import Interactions
from recvae.data.splitting import strong_generalization
from recvae.datasets.synthetic import generate
from recvae.errors import ParameterError
from recvae.fitting import cost
from recvae.fitting.candidates import Candidate
from recvae.fitting.cost import (
    Estimates,
    compare_cost,
    estimate_epochs,
    estimate_seconds,
    estimate_trainings,
    is_large,
    share_of_fit,
)
from recvae.fitting.epochs import EpochCost
from recvae.models.als import ALS, Training
from recvae.models.autoencoders.multdae import MultDAE
from recvae.models.linear.ease import EASE

SPLIT = strong_generalization(Interactions.from_frame(generate(160, 80).ratings), val_users=32, test_users=32)


@pytest.mark.parametrize(("exponent", "full"), [(1.0, 20.0), (1.5, 20.0), (2.5, 20.0), (2.0, 100.0)])
def test_the_growth_from_sample_to_sample_goes_on(
    monkeypatch: pytest.MonkeyPatch, exponent: float, full: float
) -> None:
    looked: list[float] = []

    def time_sample(_: Any, __: Any, share: float, *___: Any) -> tuple[float, float]:
        looked.append(share)
        return (99.0 if share == 1 / 16 else full * share**exponent,) * 2

    monkeypatch.setattr(cost, "_time_sample", time_sample)
    assert estimate_seconds(Candidate("graph", {}), SPLIT, 200, 0) == pytest.approx(full)
    assert looked == [1 / 16, 1 / 8, 1 / 4]


def test_a_sample_that_other_work_held_up_is_timed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = [9.0, 0.5, 5.0, 1.0]
    monkeypatch.setattr(cost, "_time_sample", lambda *_: (seconds.pop(0),) * 2)
    assert estimate_seconds(Candidate("graph", {}), SPLIT, 200, 0) == pytest.approx(1.0 * 2**2)
    assert not seconds


def test_an_inverse_is_cubic_whatever_small_samples_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "_time_sample", lambda *_: (0.1, 0.1))
    assert estimate_seconds(Candidate("ease", {}), SPLIT, 10, 0) == pytest.approx(0.1 * 36)  # few users, few items
    monkeypatch.setattr(cost, "LONG_SIDE", min(SPLIT.train.shape))
    assert estimate_seconds(Candidate("ease", {}), SPLIT, 10, 0) == pytest.approx(0.1 * 64)
    assert estimate_seconds(Candidate("ease", {}), SPLIT, 5, 0) == pytest.approx(0.1 * 8)  # the half was looked at


@pytest.mark.parametrize(
    ("most_items", "choosing"),
    [(5000, 36.0), (40, 6.0), (10, 1.0)],  # two doublings from a quarter of the 96 users and 80 items, one, none
)
def test_settings_of_a_large_inverse_are_chosen_on_fewer_items(
    monkeypatch: pytest.MonkeyPatch, most_items: int, choosing: float
) -> None:
    assert SPLIT.train.shape == (96, 80)
    monkeypatch.setattr(cost, "MOST_ITEMS", most_items)
    monkeypatch.setattr(cost, "_time_sample", lambda *_: (0.3, 0.1))
    assert estimate_seconds(Candidate("ease", {}), SPLIT, 20, 0) == pytest.approx(0.1 * 36 + 0.2 * choosing)


def test_als_is_estimated_from_iterations_of_each_size(monkeypatch: pytest.MonkeyPatch) -> None:
    timed: list[dict[str, Any]] = []

    def fit(model: ALS, user_items: Any, callback: Any, **_: Any) -> None:
        assert user_items.shape == SPLIT.train.shape
        timed.append(model.get_params())
        for epoch in range(model.iterations):
            callback(epoch, 0.5 + 0.01 * (model.factors or 0) * (2 - epoch), 0.0)  # the first takes longer

    monkeypatch.setattr(ALS, "fit", fit)
    monkeypatch.setattr(ALS, "plan", lambda *_: [Training(8, 3, 4), Training(40, 5, 2)])
    estimates = Estimates(SPLIT, 0)
    assert estimates.find(Candidate("als", {"seed": 3}), 200) == pytest.approx(0.58 * 12 + 0.9 * 10)
    assert [(params["factors"], params["seed"]) for params in timed] == [(8, 3), (40, 3)]
    at_least = 0.58 * 12 + 0.58 * 5 * 10  # as five times the factors take five times as long
    assert estimate_trainings(Candidate("als", {}), SPLIT, 5) == pytest.approx(at_least)
    assert estimates.find(Candidate("als", {"seed": 3}), 200) == pytest.approx(0.58 * 12 + 0.9 * 10)
    assert len(timed) == 3

    def refuse(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(ALS, "fit", refuse)
    assert estimate_trainings(Candidate("als", {}), SPLIT, 200) == 0


def test_samples_of_real_data_and_one_that_cannot_be_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 < estimate_seconds(Candidate("ease", {"l2": 10.0}), SPLIT, 100, 0) < 100

    def refuse(*_: Any) -> None:
        raise ParameterError("too large")

    monkeypatch.setattr(EASE, "_fit", refuse)
    assert estimate_seconds(Candidate("ease", {}), SPLIT, 100, 0) == 0


def test_an_epoch_is_estimated_from_some_of_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "LARGE_ITEMS", 1)
    monkeypatch.setattr(cost, "choose_batch_size", lambda _: 24)
    seen: list[tuple[tuple[int, int], int]] = []

    def fit(model: MultDAE, train: Any, *, callback: Any, **_: Any) -> None:
        seen.append((train.shape, model.batch_size or 0))
        callback(0, 0.75, 1.0)
        callback(1, 0.25, 1.0)

    monkeypatch.setattr(MultDAE, "fit", fit)
    estimated = estimate_epochs(Candidate("multdae", {"epochs": 7}), SPLIT, 100, 0)
    assert estimated == EpochCost(7, 1.2 * 1.0)  # the second epoch, a quarter of the users
    assert seen == [((24, 80), 24)]
    assert (EpochCost(7, 1.0).total, EpochCost(7, 1.0).least) == (9, 7)


def test_an_epoch_that_is_not_done_in_time_takes_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "LARGE_ITEMS", 1)
    monkeypatch.setattr(cost, "EPOCH_SHARE", 0.25)
    monkeypatch.setattr(cost, "choose_batch_size", lambda _: 24)
    monkeypatch.setattr(MultDAE, "fit", lambda *_, **__: time.sleep(9))
    estimated = estimate_epochs(Candidate("multdae", {}), SPLIT, 0.8, 0)
    assert estimated is not None
    assert 1.2 * 4 * 0.2 <= estimated.seconds < 5


@pytest.mark.parametrize("error", [ParameterError("too large"), RuntimeError("can't allocate memory")])
def test_an_epoch_that_cannot_be_trained_tells_nothing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(cost, "LARGE_ITEMS", 1)
    monkeypatch.setattr(MultDAE, "fit", refuse)
    assert estimate_epochs(Candidate("multdae", {}), SPLIT, 100, 0) is None


def test_one_long_epoch_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "LARGE_ITEMS", 1)
    monkeypatch.setattr(cost, "SHORT_EPOCH", 0.0)
    fitted: list[MultDAE] = []
    monkeypatch.setattr("recvae.training.trainer.Trainer.run", lambda self, *_, callback, **__: callback(0, 3.0, 1.0))
    create = Candidate.create
    monkeypatch.setattr(Candidate, "create", lambda self: fitted.append(create(self)) or fitted[-1])  # type: ignore[func-returns-value,arg-type]
    estimated = estimate_epochs(Candidate("multdae", {"hidden": [8], "latent": 4}), SPLIT, 100, 0)
    assert estimated is not None
    assert estimated.seconds == pytest.approx(1.2 * 3.0)  # a batch is larger than all users


def test_small_data_are_not_sampled() -> None:
    assert not is_large(SPLIT)
    assert estimate_epochs(Candidate("multdae", {}), SPLIT, 100, 0) is None


def test_larger_settings_take_longer() -> None:
    best = {"factors": 100, "l2": 3.0, "batch_size": 100}
    assert compare_cost(best, {"factors": 200, "l2": 9.0, "batch_size": 400}) == 2
    assert compare_cost(best, {"factors": 50}) == 1


def test_a_fit_with_given_settings_takes_a_share_of_one_that_chooses_them() -> None:
    assert share_of_fit("ease", {}, (90_000, 9_000)) == 0.5
    assert share_of_fit("ease", {}, (30_000, 40_000)) == 1  # which chooses on few of the items
    assert share_of_fit("ease", {"l2": 5.0}, (90_000, 9_000)) == 1
    assert share_of_fit("als", {}, (30_000, 40_000)) == 0.25
    assert share_of_fit("multvae", {}, (900, 900)) == 1
