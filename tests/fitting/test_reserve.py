"""The time that a search keeps for its end, and what that leaves for the next candidate."""

from dataclasses import replace
from typing import Any

import pytest

from recvae.fitting import search as module
from recvae.fitting.candidates import Candidate
from recvae.fitting.cost import Growth
from recvae.fitting.interruption import OutOfTimeError
from recvae.fitting.reserve import BLEND_SECONDS, FINISH_SECONDS, FIT_SAFETY
from recvae.fitting.search import Search
from recvae.fitting.state import SearchState
from recvae.fitting.trial import Leader, Trial
from recvae.models.blending.blend import Blend
from recvae.models.blending.weights import MOST_USERS
from recvae.models.linear.ease import EASE
from tests.fitting.conftest import Make


def lead(search: Search, **refits: float) -> None:
    """Give a search models that take so long to fit again, the first the best, and no time to rank."""
    for rank, (name, seconds) in enumerate(refits.items()):
        search.leaders[name] = Leader(Trial(name, {}, {}, 0.9 - 0.1 * rank, seconds, seconds, 0.0), EASE())


@pytest.mark.parametrize(
    ("left", "parts"),
    [
        (196.5, ["multvae", "als", "ease", "bm25"]),
        (76.5, ["multvae", "ease", "bm25"]),
        (34.5, ["als", "bm25"]),
        (6.5, ["ease", "bm25"]),
        (-0.5, []),
    ],
)
def test_the_parts_of_a_blend_can_all_be_fitted_again(make: Make, left: float, parts: list[str]) -> None:
    search = make("bm25,ease,als,multvae,blend", budget=left + FINISH_SECONDS, now=lambda: 0.0)
    lead(search, multvae=60, als=30, ease=5, bm25=1)
    assert [leader.trial.name for leader in search.reserve.choose_parts()] == parts


def test_time_is_kept_to_fit_the_best_again_and_not_what_may_be_blended(make: Make) -> None:
    search = make("bm25,ease,als,multvae,blend", budget=100, now=lambda: 0.0)
    lead(search, ease=5, als=60, bm25=60)
    assert search.reserve.spare_seconds() == pytest.approx(100 - 5 - FINISH_SECONDS, abs=0.5)
    search.leaders["blend"] = Leader(Trial("blend", {}, {}, 0.95, 2.0, 65.0, 0.0), Blend([EASE()]), ("ease", "als"))
    assert search.reserve.spare_seconds() == pytest.approx(100 - 65 - FINISH_SECONDS, abs=0.5)


def test_candidates_in_vain_leave_the_time_for_a_blend(make: Make) -> None:
    search = make("bm25,ease,als,multvae,blend", budget=100 + FINISH_SECONDS, now=lambda: 0.0)
    lead(search, multvae=20, ease=70, als=50, bm25=1)
    spare, margin = 100 - 20, 2.5
    assert search.reserve.allow() == pytest.approx(min(spare - 70 - margin, spare / 2.8), abs=0.5)
    search.clock.budget -= 20  # no time for EASE again, but for ALS
    assert search.reserve.allow() == pytest.approx(min(spare - 20 - 50 - margin, (spare - 20) / 2.8), abs=0.5)
    search.clock.budget -= 9  # a candidate would leave too little time for ALS if it ended late
    assert search.reserve.allow() < 0
    search.clock.budget += 9
    search.state.left_out["blend"] = "no blend is better than multvae alone"
    assert search.reserve.allow() == pytest.approx((spare - 20) / 2.8, abs=0.5)


def test_a_blend_that_could_not_be_fitted_again_is_left_out(make: Make) -> None:
    search = make("bm25,ease,blend", budget=30, now=lambda: 0.0)
    lead(search, ease=20, bm25=20)
    search._try_blend()
    assert search.state.left_out == {"blend": "no time is left to fit two models again on everything"}
    search.state.left_out["blend"] = "not done after 7 s, all the time that there was for it"
    lead(search, ease=21, bm25=21)
    search._try_blend()
    assert search.state.left_out == {"blend": "not done after 7 s, all the time that there was for it"}


def test_a_blend_that_is_not_done_is_tried_of_fewer_models(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def fit(blend: Blend, *_: object, **__: object) -> None:
        tried.append(len(blend.models))
        raise OutOfTimeError

    monkeypatch.setattr(Blend, "fit", fit)
    search = make("bm25,ease,als,blend", budget=40 + FINISH_SECONDS, now=lambda: 0.0)
    lead(search, ease=10, als=10, bm25=12)
    search._try_blend()
    assert tried == [3, 2]
    assert search.reserve.unfinished_blend == pytest.approx(20)
    assert search.state.left_out["blend"].startswith("not done after ")


def test_time_is_kept_to_score_what_a_blend_ranks(make: Make) -> None:
    search = make("bm25,ease,als,blend", budget=100 + FINISH_SECONDS, now=lambda: 0.0)
    lead(search, ease=1, als=1, bm25=1)
    for name, leader in search.leaders.items():
        search.leaders[name] = replace(leader, trial=replace(leader.trial, score_seconds=2.0))
    reserve = search.reserve
    reserve.n_validation = MOST_USERS
    assert reserve.blend_seconds() == pytest.approx(FIT_SAFETY * (MOST_USERS * 3 * BLEND_SECONDS + 3 * 2))
    reserve.n_validation = 2 * MOST_USERS  # half of them choose the weights, and all are ranked by the blend
    assert reserve.blend_seconds() == pytest.approx(FIT_SAFETY * (MOST_USERS * 3 * BLEND_SECONDS + 3 * (1 + 2)))
    reserve.state.trials.append(Trial("blend", {}, {}, 0.9, seconds=5.0, refit_seconds=3.0, score_seconds=4.0))
    assert reserve.blend_seconds() == pytest.approx(FIT_SAFETY * 9)


def test_a_blend_of_lesser_models_takes_no_time_from_the_best(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    allowed: list[float] = []
    monkeypatch.setattr(Search, "_try", lambda _, candidate, seconds: allowed.append(seconds))
    for refit in (20, 40):
        search = make("bm25,ease,als,blend", budget=20 + FINISH_SECONDS, now=lambda: 0.0)
        lead(search, ease=refit, als=5, bm25=5)
        search._try_blend()
    assert allowed == pytest.approx([0, 10])


def test_a_variation_of_what_is_fitted_again_anyway_may_take_longer(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = make("ease,als", budget=50 + FINISH_SECONDS, now=lambda: 0.0)
    lead(search, ease=20, als=15)
    tried: list[tuple[str, float]] = []
    monkeypatch.setattr(module, "compare_cost", lambda *_: 0.0)
    monkeypatch.setattr(module, "vary", lambda name, *_: Candidate(name, {}))
    monkeypatch.setattr(Search, "_try", lambda _, candidate, allowed, **__: tried.append((candidate.name, allowed)))
    for leader in search.ranking:
        search._try_variation(leader.trial)
    assert [name for name, _ in tried] == ["ease", "als"]
    assert [allowed for _, allowed in tried] == pytest.approx([50 / 2.8, 30 / 2.8])


def test_the_time_to_save_a_model_is_kept(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = 0.0

    def save(*_: Any) -> None:
        nonlocal seconds
        seconds += 9

    monkeypatch.setattr(SearchState, "save_model", save)
    search = make("popularity,ease", now=lambda: seconds)
    search._try_defaults("ease")
    assert search.leaders["ease"].trial.refit_seconds == pytest.approx(9, abs=1)


def test_fitting_again_takes_the_time_that_did_not_choose_settings(make: Make) -> None:
    reserve = make("ease,als").reserve
    reserve.growth = Growth(1.5, 2.0)
    model = EASE()
    assert reserve.refit_seconds(Candidate("ease", {}), model, 30.0) == pytest.approx(FIT_SAFETY * 2.0 * 30)
    model.refit_seconds_ = 4.0
    assert reserve.refit_seconds(Candidate("ease", {}), model, 30.0) == pytest.approx(FIT_SAFETY * 2.0 * 4)
    assert reserve.refit_seconds(Candidate("als", {}), model, 30.0) == pytest.approx(FIT_SAFETY * 1.5 * 4)
    spare = reserve.spare_seconds()
    assert reserve.allow_defaults("als") == pytest.approx(spare / (1 + 1.5 * FIT_SAFETY * 0.25), rel=0.01)
    assert reserve.allow_defaults("ease") == pytest.approx(spare / (1 + 2.0 * FIT_SAFETY * 0.5), rel=0.01)


def test_the_end_takes_longer_beside_other_work(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    search = make("popularity", budget=100, now=lambda: 20.0)
    worked, waited = search.clock._before_start
    monkeypatch.setattr("recvae.fitting.budget.read_core_time", lambda: (worked + 10, waited + 10))
    search.clock.started = 0.0
    assert search.reserve.spare_seconds() == pytest.approx(80 - 2 * FINISH_SECONDS)
