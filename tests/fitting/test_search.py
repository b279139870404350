"""The rounds of a search, its time and what it leaves out."""

import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recvae.errors import MissingDependencyError
from recvae.fitting import search as module
from recvae.fitting.candidates import Candidate
from recvae.fitting.epochs import PATIENCE, EpochCost, EpochWatch
from recvae.fitting.interruption import OutOfTimeError
from recvae.fitting.reserve import FINISH_SECONDS
from recvae.fitting.search import Search
from recvae.models.base import Recommender
from recvae.models.blending.weights import Candidates, WeightChoice
from recvae.models.linear.ease import EASE
from recvae.models.registry import MODELS
from tests.fitting.conftest import Make


def names(search: Search) -> list[str]:
    return [trial.name for trial in search.state.trials]


def test_defaults_then_the_blend_then_variations_of_the_better_half(
    make: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def weigh_alike(candidates: Candidates) -> WeightChoice:  # 30 users may prefer one model alone, by chance
        n_models = len(candidates.scores)
        return WeightChoice(np.full(n_models, 1 / n_models), 0.9)

    monkeypatch.setattr("recvae.models.blending.blend.choose_weights", weigh_alike)
    search = make("popularity,bm25,ease,graph,blend")
    search.run()
    assert names(search)[:5] == ["popularity", "bm25", "ease", "graph", "blend"]
    assert "popularity" not in names(search)[5:]
    assert all(trial.varies for trial in search.state.trials[5:] if trial.name != "blend")
    assert search.ranking[0].trial.name == "blend"
    values = [leader.trial.value for leader in search.ranking[1:]]
    assert values == sorted(values, reverse=True)
    assert values[0] == max(trial.value for trial in search.state.trials if trial.name != "blend")
    said = capsys.readouterr().err
    lines = [line for line in said.splitlines() if " left" in line and " is left out: " not in line]
    said_of = [line.split()[0] for line in lines if not line.startswith("blend")]
    assert said_of == [name for name in names(search) if name != "blend"]
    assert said.count("no variation gains 2.9%; the last ") == 1  # 0.5% with a thousand users, and there are 30
    assert lines[1].startswith("bm25 ")
    assert " left" in lines[1]


def test_a_blend_that_is_one_model_alone_is_left_out(
    make: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    choice = WeightChoice(np.array([0.0, 1.0]), 0.9)
    monkeypatch.setattr("recvae.models.blending.blend.choose_weights", lambda _: choice)
    search = make("popularity,ease,blend")
    search.run()
    assert "blend" not in search.leaders
    assert search.state.left_out["blend"].startswith("no blend is better than ")
    assert names(search).count("blend") > 1
    blended = [line for line in capsys.readouterr().err.splitlines() if line.startswith("blend")]
    assert blended == [f"blend is left out: {search.state.left_out['blend']}"]


def test_a_blend_of_newer_models_takes_the_place_of_the_earlier_one(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    choice = WeightChoice(np.array([0.5, 0.5]), 0.3)
    monkeypatch.setattr("recvae.models.blending.blend.choose_weights", lambda _: choice)
    search = make("bm25,ease,blend")
    search._try_defaults("bm25")
    search._try_defaults("ease")
    search._try_blend()
    monkeypatch.setattr("recvae.fitting.trial.measure", lambda model, *_: 0.9 if isinstance(model, EASE) else 0.1)
    search._try_variation(search.leaders["ease"].trial)
    assert search.ranking[0].trial.name == "ease"
    search._try_blend()
    best = search.ranking[0]
    assert (best.trial.name, best.trial.value, best.parts) == ("blend", 0.1, ("bm25", "ease"))


@pytest.mark.parametrize(("share", "rounds"), [(0.0, 8), (1.0, 2)])  # one variation a round, or four
def test_the_search_ends_with_eight_variations_in_vain(
    make: Make, monkeypatch: pytest.MonkeyPatch, share: float, rounds: int
) -> None:
    monkeypatch.setattr(module, "VARIATION_SHARE", share)
    monkeypatch.setattr(module, "MIN_GAIN", np.inf)
    search = make("popularity,ease")
    begun: list[int] = []
    try_variations = search._try_variations

    def try_and_note(number: int) -> tuple[int, bool]:
        begun.append(number)
        return try_variations(number)

    monkeypatch.setattr(search, "_try_variations", try_and_note)
    search.run()
    assert names(search).count("ease") == 1 + 8
    assert begun == list(range(1, 1 + rounds))


def test_without_a_blend_among_the_names_there_is_none(make: Make) -> None:
    search = make("popularity,ease")
    search.run()
    assert set(names(search)) == {"popularity", "ease"}


def test_small_data_end_by_themselves(make: Make) -> None:
    search = make("popularity,ease,graph", budget=3600)
    started = time.monotonic()
    search.run()
    assert time.monotonic() - started < 60


def test_a_model_that_takes_too_long_is_ended(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*_: Any) -> None:
        for _step in range(600):
            time.sleep(0.05)

    monkeypatch.setattr(EASE, "_fit", slow)
    search = make("popularity,ease,graph", budget=8.0)
    started = time.monotonic()
    search.run()
    assert time.monotonic() - started < 8
    assert search.state.left_out["ease"].startswith("not done after ")
    assert set(names(search)) == {"popularity", "graph"}


def test_what_is_estimated_to_take_too_long_is_not_begun(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "is_large", lambda _: True)
    seconds = {"ease": 7300.0, "graph": 0.1}
    monkeypatch.setattr("recvae.fitting.cost.estimate_seconds", lambda candidate, *_: seconds[candidate.name])
    search = make("popularity,ease,graph")
    search.run()
    assert search.state.left_out["ease"].startswith("would take about 2:01:40, and there are ")
    assert "graph" in search.leaders


@pytest.mark.parametrize(
    "error", [MissingDependencyError("needs implicit"), MemoryError("needs 9 TiB"), RuntimeError("can't allocate")]
)
def test_what_cannot_be_fitted_is_left_out(make: Make, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(EASE, "_fit", fail)
    search = make("popularity,ease")
    search.run()
    assert search.state.left_out == {"ease": str(error)}
    assert list(search.leaders) == ["popularity"]


def test_a_bug_is_not_hidden(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(EASE, "_fit", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        make("popularity,ease").run()


class SlowEpochs:
    """A clock that goes ten seconds on whenever an epoch is trained, and stands still otherwise."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 0.0
        watch = EpochWatch.__call__

        def tick(this: EpochWatch, epoch: int, seconds: float, loss: float) -> None:
            self.seconds += 10
            watch(this, epoch, seconds, loss)

        monkeypatch.setattr(EpochWatch, "__call__", tick)

    def __call__(self) -> float:
        return self.seconds


def test_training_that_gets_slower_is_left_out_with_the_time_that_it_took(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        clock.seconds += 90
        raise OutOfTimeError

    clock = SlowEpochs(monkeypatch)
    monkeypatch.setattr(EpochWatch, "__call__", stop)
    search = make("popularity,multvae", budget=1000, now=clock)
    search._try_defaults("popularity")
    search._try_defaults("multvae")
    assert search.state.left_out["multvae"].startswith("not done after 1:30, ")


@pytest.mark.parametrize(("budget", "epochs"), [(1000, 6), (180, 6), (150, 2), (120, 1), (60, None)])
def test_an_autoencoder_trains_as_many_epochs_as_fit(
    make: Make, monkeypatch: pytest.MonkeyPatch, budget: float, epochs: int | None
) -> None:
    monkeypatch.setattr("recvae.fitting.trial.interrupt_after", lambda _: nullcontext())
    monkeypatch.setattr("recvae.fitting.epochs.LEAST_EPOCHS", 1)
    search = make("popularity,multvae", budget=budget, now=SlowEpochs(monkeypatch))
    search._try_defaults("popularity")
    search._try_defaults("multvae")
    if epochs is None:
        assert search.state.left_out["multvae"].startswith("would take about 1:20, and there are ")
    else:
        trial = search.leaders["multvae"].trial
        assert trial.params["epochs"] == epochs
        assert trial.planned_epochs == (6 if epochs < 6 else None)
        assert trial.seconds == 10 * epochs
        assert search.reserve.spare_seconds() > 0


@pytest.mark.parametrize(
    ("seconds", "order"), [(300.0, ["popularity", "ease", "graph"]), (500.0, ["popularity", "graph", "ease"])]
)
def test_a_model_that_takes_more_than_half_of_the_time_is_tried_last(
    make: Make, monkeypatch: pytest.MonkeyPatch, seconds: float, order: list[str]
) -> None:
    monkeypatch.setattr(module, "is_large", lambda _: True)
    estimated: list[str] = []

    def estimate(candidate: Candidate, *_: Any) -> float:
        estimated.append(candidate.name)
        return {"ease": seconds, "graph": 0.1}[candidate.name]

    monkeypatch.setattr("recvae.fitting.cost.estimate_seconds", estimate)
    search = make("popularity,ease,graph", budget=1000)
    search.run()
    assert names(search)[:3] == order
    assert sorted(estimated) == ["ease", "graph"]  # once each


@pytest.mark.parametrize(
    ("at_once", "seconds", "factors"),
    [(False, 900.0, 128), (True, 900.0, 128), (False, 500.0, 128), (True, 500.0, None), (False, 300.0, None)],
)  # of 1,000 s, which are to be enough to fit it again too
def test_als_is_tried_with_fewer_factors_where_all_take_too_long(
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    at_once: bool,
    seconds: float,
    factors: int | None,
) -> None:
    def estimate(candidate: Candidate, *_: Any) -> float:
        return 10.0 if candidate.params.get("factors") == 128 else seconds

    monkeypatch.setattr(module, "is_large", lambda _: True)
    monkeypatch.setattr("recvae.fitting.cost.estimate_trainings", estimate)
    monkeypatch.setattr(Search, "_try", lambda _, candidate, __: tried.append(candidate))
    tried: list[Candidate] = []
    search = make("popularity,als", budget=1000)
    assert search._try_defaults("als", at_once)
    assert [(one.params.get("factors"), one.varies) for one in tried] == [(factors, {})]
    said = "als is tried smaller (factors 128), as there is little time\n"
    assert capsys.readouterr().err == (said if factors else "")


def test_a_wrong_estimate_costs_half_of_the_time_or_half_as_much_again(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "is_large", lambda _: True)
    allowed: list[float] = []
    monkeypatch.setattr(Search, "_try", lambda _, __, seconds: allowed.append(seconds))
    search = make("popularity,ease,graph", budget=1000, now=lambda: 0.0)
    half, whole = (search.reserve.allow_defaults("ease", n) for n in (2, 1))
    estimates = iter((0.1 * half, 0.8 * half))
    monkeypatch.setattr("recvae.fitting.cost.estimate_seconds", lambda *_: next(estimates))
    search._try_defaults("ease", at_once=False)
    search._try_defaults("ease", at_once=True)
    search._try_defaults("graph", at_once=False)
    assert allowed == pytest.approx([half, whole, PATIENCE * 0.8 * half])
    assert allowed[-1] < search.reserve.allow_defaults("graph")


@pytest.mark.parametrize(
    ("estimated", "trained"),
    [(10.0, [3]), (15.0, [1]), (2.0, [2, 2])],  # right, too high, and too low, as two epochs show
)
def test_an_estimate_saves_the_epochs_that_would_tell(
    make: Make, monkeypatch: pytest.MonkeyPatch, estimated: float, trained: list[int]
) -> None:
    monkeypatch.setattr("recvae.fitting.trial.interrupt_after", lambda _: nullcontext())
    monkeypatch.setattr("recvae.fitting.epochs.LEAST_EPOCHS", 1)
    monkeypatch.setattr(module, "estimate_epochs", lambda *_: EpochCost(6, estimated))
    clock = SlowEpochs(monkeypatch)
    search = make("popularity,multvae", budget=150, now=clock)
    search._try_defaults("popularity")
    search._try_defaults("multvae")
    trial = search.leaders["multvae"].trial
    assert (trial.params["epochs"], clock.seconds) == (trained[-1], 10 * sum(trained))
    assert trial.planned_epochs == 6


def test_what_an_estimate_rules_out_is_not_begun(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "estimate_epochs", lambda *_: EpochCost(6, 1000.0))
    clock = SlowEpochs(monkeypatch)
    search = make("popularity,multvae", budget=120, now=clock)
    search._try_defaults("popularity")
    search._try_defaults("multvae")
    assert search.state.left_out["multvae"].startswith("would take about 2:13:20, and there are ")
    assert clock.seconds == 0


@pytest.mark.parametrize(("estimate", "tried"), [(300.0, ["ease"]), (800.0, ["", "ease"]), (1100.0, [""])])
def test_time_that_nothing_else_uses_is_not_kept_to_fit_again(
    make: Make, monkeypatch: pytest.MonkeyPatch, estimate: float, tried: list[str]
) -> None:
    """Of 1,000 s, of which EASE may take half, so that it can be fitted again; the end comes after the variations."""
    monkeypatch.setattr(module, "is_large", lambda _: True)
    monkeypatch.setattr("recvae.fitting.cost.estimate_seconds", lambda *_: estimate)
    events: list[str] = []
    search = make("popularity,ease", budget=1000)
    keep = search._keep

    def vary(_: int) -> tuple[int, bool]:
        events.append("")
        return 0, False

    def note(candidate: Candidate, *rest: Any) -> Any:
        events.append(candidate.name)
        return keep(candidate, *rest)

    monkeypatch.setattr(search, "_try_variations", vary)
    monkeypatch.setattr(search, "_keep", note)
    search.run()
    assert events[1 : 1 + len(tried)] == tried
    assert ("ease" in search.leaders) == ("ease" in tried)


@pytest.mark.parametrize(("needed", "tried"), [(0.6, True), (1e6, False)])
def test_what_there_was_no_time_for_is_tried_when_there_is_some(make: Make, needed: float, tried: bool) -> None:
    search = make("popularity,ease,blend")
    search._try_defaults("popularity")
    search._leave_out("ease", "would take too long", needed=needed)
    search._try_blend_and_left_out()
    assert ("ease" in search.leaders) == tried
    assert ("ease" in search.state.left_out) != tried
    assert ("blend" in names(search)) == tried


@pytest.mark.parametrize("resumed", [False, True])
def test_a_training_that_was_short_is_longer_when_there_is_time(
    make: Make, monkeypatch: pytest.MonkeyPatch, resumed: bool
) -> None:
    monkeypatch.setattr("recvae.fitting.trial.interrupt_after", lambda _: nullcontext())
    monkeypatch.setattr("recvae.fitting.epochs.LEAST_EPOCHS", 1)
    search = make("popularity,multvae", budget=120, now=SlowEpochs(monkeypatch))
    search._try_defaults("popularity")
    search._try_defaults("multvae")
    short = search.leaders["multvae"].trial
    assert (short.params["epochs"], short.planned_epochs, short.varies) == (1, 6, {})
    search.clock.budget = 1000
    if resumed:
        search = make("popularity,multvae", budget=1000, now=search.clock.now)
        assert search.state.resume({})
        search._take_over()
    longer = search._try_variation(search.leaders["multvae"].trial)
    assert longer is not None
    assert (longer.params["epochs"], longer.planned_epochs, longer.varies) == (6, None, {"epochs": 6})


def test_a_longer_training_without_gain_is_not_repeated(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recvae.fitting.trial.interrupt_after", lambda _: nullcontext())
    monkeypatch.setattr("recvae.fitting.epochs.LEAST_EPOCHS", 1)
    search = make("popularity,multvae", budget=120, now=SlowEpochs(monkeypatch))
    search._try_defaults("popularity")
    search._try_defaults("multvae")
    search.clock.budget = 1000
    monkeypatch.setattr("recvae.fitting.trial.measure", lambda *_: 0.0)
    varied = [search._try_variation(search.leaders["multvae"].trial) for _ in range(2)]
    assert [set(trial.varies) == {"epochs"} for trial in varied if trial] == [True, False]


def test_there_is_a_model_however_late_it_is(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    search = make("popularity,ease,graph,multvae", budget=5, now=lambda: 0.0, before=6)
    search.run()
    assert list(search.leaders) == ["popularity"]
    assert capsys.readouterr().err.splitlines()[1:] == ["no time is left for ease, graph, multvae"]


def test_without_time_for_another_try_the_first_stays_and_nothing_is_said(
    make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    search = make("ease")
    search._try_defaults("ease")
    before, lines = search.leaders["ease"], capsys.readouterr().err
    assert search._try(Candidate("ease", {}), 0.0) is None
    assert capsys.readouterr().err == ""
    assert "ease " in lines
    assert search.leaders["ease"] is before
    assert search.state.left_out == {}


def test_what_there_was_no_time_for_is_tried_when_a_search_goes_on(make: Make) -> None:
    make("popularity,ease", budget=5, now=lambda: 0.0, before=6).run()
    again = make("popularity,ease")
    assert again.state.resume({})
    assert again.state.left_out == {"ease": "no time is left for it"}
    again.run()
    assert set(again.leaders) == {"popularity", "ease"}


@pytest.mark.parametrize(("budget", "tried"), [(60.0, False), (90.0, True)])
def test_what_would_take_too_long_is_tried_with_a_longer_budget(make: Make, budget: float, tried: bool) -> None:
    first = make("popularity", budget=60)
    first.run()
    first.state.left_out["ease"] = "would take about 2:00, and there are 50 s for it"
    first.state.save()
    again = make("popularity,ease", budget=budget)
    assert again.state.resume({})
    again.run()
    assert ("ease" in again.leaders) == tried


def test_a_search_goes_on_where_it_stopped(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    first = make("popularity,ease,graph,blend")
    with monkeypatch.context() as patched:
        patched.setattr(MODELS["graph"], "_fit", stop)
        with pytest.raises(KeyboardInterrupt):
            first.run()
    assert names(first) == ["popularity", "ease"]

    fitted: list[str] = []
    fit = Recommender.fit

    def noted(self: Recommender, *args: Any, **options: Any) -> Recommender:
        fitted.append(type(self).__name__)
        return fit(self, *args, **options)

    monkeypatch.setattr(Recommender, "fit", noted)
    second = make("popularity,ease,graph,blend", before=first.state.seconds)
    assert second.state.resume({})
    second.run()
    assert names(second)[:4] == ["popularity", "ease", "graph", "blend"]
    assert fitted[:2] == ["GraphFilter", "Blend"]
    assert second.state.trials[:2] == first.state.trials


def test_a_search_that_had_used_up_its_budget_still_has_time_to_end(make: Make) -> None:
    make("popularity,ease", budget=30).run()
    again = make("popularity,ease", budget=30, before=500)
    assert again.state.resume({})
    again.run()
    assert again.clock.left > FINISH_SECONDS - 0.5


def test_a_model_that_was_not_kept_is_tried_again(make: Make, tmp_path: Path) -> None:
    first = make("popularity,ease")
    first.run()
    (tmp_path / "models" / "ease" / "model.safetensors").write_bytes(b"damaged")
    second = make("popularity,ease")
    assert second.state.resume({})
    second.run()
    assert {"popularity", "ease"} == set(second.leaders)
