"""The search: every model with its defaults, then variations of the better half, then the blend of the best."""

from dataclasses import replace
from math import inf

import numpy as np

from recvae.data.splitting import Holdout, Split
from recvae.fitting.budget import Clock, format_seconds
from recvae.fitting.candidates import SMALLER, Candidate, describe_settings, run_params, train_for, vary
from recvae.fitting.cost import (
    LEAST_SECONDS,
    Estimates,
    Growth,
    compare_cost,
    describe_lack,
    estimate_epochs,
    is_large,
    share_of_fit,
)
from recvae.fitting.epochs import PATIENCE, TooManyEpochsError
from recvae.fitting.interruption import OutOfTimeError
from recvae.fitting.reserve import FIT_SAFETY, Reserve, can_be_fitted_again
from recvae.fitting.state import SearchState
from recvae.fitting.trial import BLEND, Attempt, FailedAttemptError, Leader, Trial, attempt, name_parts, rank, to_plain
from recvae.models.base import Recommender
from recvae.models.registry import MODELS
from recvae.progress import StatusLine

MOST_VARIATIONS, VARIATION_SHARE = 4, 0.05
ENOUGH_VARIATIONS = 8
"""Variations one after the other without gain, of all models together, with which the search ends."""
MIN_GAIN, MANY_USERS = 0.005, 1000
"""Smallest relative gain that counts, with so many validation users or more; of fewer, chance decides more."""
NO_TIME = "no time is left for it"


class Search:
    """Candidates tried one after the other as long as there is time to fit the best of them on everything.

    Parameters
    ----------
    split : Split
        Only `train` and `validation` are used; of `test` the number of users.
    names : sequence of str
        Models to try, in this order, the blend last.
    metric : str
        Metric to maximise on the validation users.
    seed : int
    clock : Clock
    growth : Growth
    state : SearchState
        What earlier runs have done; every trial is added to it.
    status : StatusLine

    Attributes
    ----------
    leaders : dict of str to Leader
        Best trial by name.
    """

    def __init__(
        self,
        split: Split,
        names: tuple[str, ...],
        metric: str,
        seed: int,
        *,
        clock: Clock,
        growth: Growth,
        state: SearchState,
        status: StatusLine,
    ) -> None:
        if split.validation is None:
            raise ValueError("a search needs validation users")
        self.split, self.names, self.metric, self.seed = split, names, metric, seed
        self.validation: Holdout = split.validation
        self.clock, self.state, self.status = clock, state, status
        self.leaders: dict[str, Leader] = {}
        self.reserve = Reserve(split, names, growth, clock, self.leaders, state)
        self._estimates = Estimates(split, seed)
        self._lacking: dict[str, float] = {}
        self._blended: list[Trial] = []
        self._min_gain = MIN_GAIN * max(1.0, (MANY_USERS / max(1, self.validation.n_users)) ** 0.5)

    @property
    def ranking(self) -> list[Leader]:
        """The best of each model, best first; of equal ones that which was tried first."""
        return rank(self.leaders.values(), self.validation.n_users)

    def run(self) -> None:
        """Search until the time is used up or nothing gets better."""
        self._take_over()
        postponed = [name for name in self._list_untried() if not self._try_defaults(name, at_once=False)]
        for name in postponed:
            self._try_defaults(name)
        self._try_blend_and_left_out()
        number = in_vain = 0
        while in_vain < ENOUGH_VARIATIONS:
            number += 1
            tried, gained = self._try_variations(number)
            if not tried:
                break
            in_vain = 0 if gained else in_vain + tried
        self._try_blend_and_left_out(last=True)
        if untried := [name for name, reason in self.state.left_out.items() if reason == NO_TIME]:
            self.status.say(f"no time is left for {', '.join(untried)}")
        if in_vain and (spare := self.reserve.spare_seconds()) >= LEAST_SECONDS:
            self.status.say(f"no variation gains {self._min_gain:.1%}; the last {format_seconds(spare)} stay unused")
        if len(ranking := self.ranking) > 1 and (best := ranking[1].trial).value > ranking[0].trial.value:
            self.status.say(f"{best.name} is ahead of the blend by no more than chance, so the blend is taken")

    def _take_over(self) -> None:
        """Load the best models of an earlier run; the time that it used is not taken from the end.

        Models that it had no time for are tried, if there is time now; with a longer budget, all that it left out.
        """
        longer, self.state.budget = self.clock.budget > self.state.budget, self.clock.budget
        for name in [name for name, reason in self.state.left_out.items() if longer or reason == NO_TIME]:
            del self.state.left_out[name]
        blended = max((trial.refit_seconds for trial in self.state.trials if trial.name == BLEND), default=0.0)
        for name in dict.fromkeys(trial.name for trial in self.state.trials):
            best = max((t for t in self.state.trials if t.name == name), key=lambda trial: trial.value)
            model = self.state.load_model(best)
            if model is None or name == BLEND:
                self.state.trials = [trial for trial in self.state.trials if trial.name != name]
            else:
                self.leaders[name] = Leader(best, model)
        late = max(0.0, blended - self.reserve.spare_seconds())
        self.clock.before -= min(late, self.clock.before)

    def _list_untried(self) -> list[str]:
        return [name for name in self.names if name not in {BLEND, *self.leaders, *self.state.left_out}]

    def _try_defaults(self, name: str, at_once: bool = True, *, last: bool = False) -> bool:
        """Try a model with its defaults, or smaller; False if it would take more than half of the time and may not."""
        chosen = candidate = Candidate(name, run_params(name, self.metric, self.seed))
        if MODELS[name].resumable:
            self._try_epochs(candidate)
            return True
        spare = self.reserve.allow_defaults(name, last=last)
        if is_large(self.split) and name != "popularity" and spare >= LEAST_SECONDS:
            self.status.show(f"estimating {name}")
            half = spare if at_once else self.reserve.allow_defaults(name, 2)
            chosen, estimate = self._estimates.choose(candidate, half)
            if estimate > spare:
                self._leave_out(name, describe_lack(estimate, spare), needed=estimate)
                return True
            if estimate > half:
                return False
            spare = min(spare, max(half, PATIENCE * estimate))
            if chosen is not candidate:
                self.status.say(f"{name} is tried smaller{describe_settings(SMALLER[name])}, as there is little time")
        self._try(chosen, spare)
        return True

    def _try_epochs(self, candidate: Candidate) -> None:
        """Try a model that trains in epochs: as many as it would choose, or as fit into the time."""
        name, planned, measured = candidate.name, None, False
        untried = [other for other in self._list_untried() if MODELS[other].resumable]
        self.status.show(f"estimating {name}")
        cost = estimate_epochs(candidate, self.split, self.reserve.allow(), self.seed)
        while True:
            allowed = spare = self.reserve.allow()
            watched = each = self.reserve.allow(len(untried))
            if cost is not None and (measured or cost.total > each):
                epochs = cost.choose_epochs(each, spare)
                if epochs is None:
                    return self._leave_out(name, describe_lack(cost.total, spare), needed=cost.least)
                planned = planned or cost.epochs
                candidate = replace(train_for(name, self.metric, self.seed, epochs), varies={})
                watched = inf if measured else min(spare, PATIENCE * cost.of(epochs))
                allowed = FIT_SAFETY * cost.of(epochs) + 1 if measured else spare
            shorter = planned if planned and candidate.params["epochs"] < planned else None
            try:
                self._try(candidate, allowed, watched=watched, planned_epochs=shorter)
                return None
            except TooManyEpochsError as error:
                cost, measured = error.cost, True

    def _try_variations(self, number: int) -> tuple[int, bool]:
        """Try variations of the better half, of which less is left in each round; count them, tell if one gained."""
        ranked = [leader.trial for leader in self.ranking if leader.trial.name != BLEND]
        kept = ranked[: max(2, len(ranked) >> number)]
        tried, gained = 0, False
        for best in sorted(kept, key=lambda trial: trial.seconds):
            seconds = max(best.seconds * share_of_fit(best.name, best.varies, self.split.train.shape), 1e-3)
            for _ in range(int(np.clip(VARIATION_SHARE * self.clock.left / seconds, 1, MOST_VARIATIONS))):
                before = self.leaders[best.name].trial
                trial = self._try_variation(before)
                if trial is None:
                    break
                tried, gained = tried + 1, gained or trial.value > before.value * (1 + self._min_gain)
        return tried, gained

    def _try_variation(self, best: Trial) -> Trial | None:
        """Try one variation of the best settings; first, more epochs where there was no time for them."""
        generator = np.random.default_rng([self.seed, len(self.state.trials)])
        fitted_again = best.name in {self.ranking[0].trial.name, *self.ranking[0].parts}
        spare = self.reserve.allow(kept=best.refit_seconds * fitted_again)
        if spare < LEAST_SECONDS:
            return None
        planned, trained = best.planned_epochs, best.params.get("epochs", 0)
        if planned and not any(t.params["epochs"] > trained for t in self.state.trials if t.name == best.name):
            epochs = int(min(planned, trained * spare / max(best.seconds, 1e-3) / FIT_SAFETY))
            if epochs < 1.5 * trained and epochs != planned:
                return None
            candidate = train_for(best.name, self.metric, self.seed, epochs)
            return self._try(candidate, spare, planned_epochs=planned if epochs < planned else None)
        drawn = vary(best.name, best.params, generator)
        seconds = FIT_SAFETY * best.seconds * share_of_fit(best.name, best.varies, self.split.train.shape)
        if drawn is None or seconds * compare_cost(best.params, drawn.params) > spare:
            return None
        return self._try(drawn, spare)

    def _try_blend_and_left_out(self, *, last: bool = False) -> None:
        """Blend the best models, and try what there was no time for, as long as there is some now."""
        self._try_blend()
        allow = self.reserve.allow_defaults
        while names := [name for name, needed in self._lacking.items() if needed <= allow(name, last=last)]:
            for name in names:
                del self._lacking[name], self.state.left_out[name]
                self._try_defaults(name, last=last)
            self._try_blend()

    def _try_blend(self) -> None:
        """Blend the best models, unless these are blended already."""
        if BLEND not in self.names or len(self.reserve.rank_parts()) < 2:
            return
        parts = self.reserve.choose_parts()
        if [part.trial for part in parts] == self._blended:
            return
        self._blended = [part.trial for part in parts]
        if len(parts) < 2:
            if BLEND not in {*self.leaders, *self.state.left_out}:
                self._leave_out(BLEND, "no time is left to fit two models again on everything")
            return
        params = {**run_params(BLEND, self.metric, self.seed), "models": [part.model for part in parts]}
        kept, best = sum(part.trial.refit_seconds for part in parts), self.ranking[0].trial
        if can_be_fitted_again(best, self.clock):  # which may be none of the parts, and is used if they are not better
            kept = max(kept, best.refit_seconds)
        if not self._try(Candidate(BLEND, params), self.clock.left - self.reserve.measure_seconds() - kept):
            self._try_blend()  # of fewer parts, if it was not done: more time is kept for it now

    def _try(
        self, candidate: Candidate, allowed: float, *, watched: float = inf, planned_epochs: int | None = None
    ) -> Trial | None:
        """Fit a candidate, measure it and keep it; None if it could not be fitted in the seconds allowed.

        With `watched`, training that would take more seconds than these raises `TooManyEpochsError`.
        """
        name = candidate.name
        if allowed < LEAST_SECONDS:
            self._leave_out(name, NO_TIME, needed=LEAST_SECONDS)
            return None
        doing = f"trying {name}{describe_settings(candidate.varies)}"
        self.status.show(doing)
        began = self.clock.now()
        try:
            attempted = attempt(
                candidate,
                self.split.train,
                self.validation,
                self.metric,
                allowed=allowed,
                watched=watched,
                now=self.clock.now,
                report=lambda done, of: self.status.show(f"{doing}, epoch {done} of {of or '?'}"),
            )
        except OutOfTimeError:
            taken = format_seconds(self.clock.now() - began)
            if name == BLEND:
                self.reserve.unfinished_blend = max(allowed, self.reserve.unfinished_blend)
            self._leave_out(name, f"not done after {taken}, all the time that there was for it", candidate)
            return None
        except FailedAttemptError as error:
            self._leave_out(name, str(error), candidate)
            return None
        return self._keep(candidate, attempted, planned_epochs)

    def _keep(self, candidate: Candidate, attempted: Attempt, planned_epochs: int | None) -> Trial:
        model, value = attempted.model, attempted.value
        name, before = candidate.name, self.leaders.get(candidate.name)
        parts = name_parts(model, self.leaders) if name == BLEND else ()
        # A blend that was chosen among newer models says more of these than an earlier one with a higher figure.
        renewed = name == BLEND and before is not None and {*before.parts} <= {part.name for part in self._blended}
        is_best = before is None or renewed or value > before.trial.value
        if is_best and name != BLEND:  # it is quickly blended again
            self._save_model(name, model)
        trial = Trial(
            name,
            to_plain(model.fitted_params()),
            dict(candidate.varies),
            value,
            attempted.seconds,
            self.reserve.refit_seconds(candidate, model, attempted.seconds, parts),
            attempted.score_seconds,
            getattr(model, "best_epoch_", None),
            planned_epochs,
        )
        self.state.trials.append(trial)
        if is_best and len(parts) == 1:
            self.leaders.pop(name, None)
            self._leave_out(name, f"no blend is better than {self.ranking[0].trial.name} alone")
            return trial
        if is_best:
            self.leaders[name] = Leader(trial, model, parts)
        self.state.left_out.pop(name, None)
        self._save_state()
        best = self.ranking[0].trial
        self.status.say(
            f"{name:<10}  {self.metric} {value:.4f}  {attempted.seconds:7.1f} s   best {best.name} {best.value:.4f}   "
            f"{format_seconds(self.clock.left)} left  {describe_settings(trial.varies)}".rstrip()
        )
        return trial

    def _leave_out(
        self, name: str, reason: str, candidate: Candidate | None = None, *, needed: float | None = None
    ) -> None:
        """Note a model that cannot be tried, and the seconds that it would need if that is what it lacks."""
        if name in self.leaders:  # which stay
            if reason != NO_TIME:
                self.status.say(f"{name}{describe_settings(candidate.varies if candidate else {})}: {reason}")
            return
        if needed is not None and name != BLEND:
            self._lacking[name] = needed
        said = reason == self.state.left_out.get(name)
        self.state.left_out[name] = reason
        self._save_state()
        if reason != NO_TIME and not said:
            self.status.say(f"{name} is left out: {reason}")

    def _save_model(self, name: str, model: Recommender) -> None:
        """Keep a model for `--resume`; the time shows what saving the one that is fitted on everything will take."""
        started = self.clock.now()
        self.state.save_model(name, model)
        self.reserve.save_seconds[name] = self.clock.now() - started

    def _save_state(self) -> None:
        self.state.seconds = self.clock.elapsed
        self.state.save()
