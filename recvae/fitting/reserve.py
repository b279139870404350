"""The time that a search keeps for its end, and what that leaves for the next candidate."""

from collections.abc import Mapping, Sequence

from recvae.data.splitting import Split
from recvae.fitting.budget import Clock
from recvae.fitting.candidates import Candidate
from recvae.fitting.cost import LEAST_SECONDS, Growth, share_of_fit
from recvae.fitting.state import SearchState
from recvae.fitting.trial import BLEND, Leader, Trial, rank
from recvae.models.base import Recommender
from recvae.models.blending.weights import MOST_USERS
from recvae.models.registry import MODELS

FINISH_SECONDS = 1.4
"""Time kept for the comparison, the report and the end of the process, on a machine without other work."""
SCORE_SAFETY, FIT_SAFETY = 1.5, 1.2
LATE = 0.1
"""A model whose fit on everything is expected to end later than this share of the budget after it is not used."""
OVERRUN = 0.025
"""Share of the budget by which candidates may end later than they should: one is ended between two steps only."""
MOST_PARTS = 6
BLEND_SECONDS = 0.001
"""Time to choose a blend's weights, for a validation user and a part, beside the scores, until a blend has shown it."""


class Reserve:
    """The time kept for a last blend, for the figures on test users, and to fit the best model on everything.

    Parameters
    ----------
    split : Split
    names : sequence of str
        Models that are tried.
    growth : Growth
        The time to fit a model on everything, as a multiple of the time on training.
    clock : Clock
    leaders : mapping of str to Leader
        The best of each model, as the search goes on.
    state : SearchState

    Attributes
    ----------
    save_seconds : dict of str to float
        Time that it took to save a model, by name.
    unfinished_blend : float
        The longest time in which a blend was not done.
    """

    def __init__(
        self,
        split: Split,
        names: Sequence[str],
        growth: Growth,
        clock: Clock,
        leaders: Mapping[str, Leader],
        state: SearchState,
    ) -> None:
        self.blends, self.growth, self.clock, self.leaders, self.state = BLEND in names, growth, clock, leaders, state
        self.shape = split.train.shape
        self.save_seconds: dict[str, float] = {}
        self.unfinished_blend = 0.0
        self.n_validation = split.validation.n_users if split.validation else 0
        self.n_test = split.test.n_users

    def allow(self, n: int = 1, *, refit_share: float = 1.0, kept: float = 0.0) -> float:
        """Seconds that each of `n` candidates may take, so that one of them can be fitted again beside the best.

        `kept` are seconds that are kept already to fit the candidate's model again. Tried in vain, candidates leave the
        time for a blend of those before.
        """
        spare = self.spare_seconds()
        allowed = min(
            spare - self._partner_seconds(spare), (spare + kept) / (n + self.growth.usual * FIT_SAFETY * refit_share)
        )
        return allowed if self.leaders else max(allowed, LEAST_SECONDS)  # there is to be a model, however late

    def allow_defaults(self, name: str, n: int = 1, *, last: bool = False) -> float:
        """Seconds that each of `n` models such as this may take with its defaults.

        With `last` nothing else will use the time that is left, so that none is kept to fit this model again: its own
        fit shows whether there is enough. Epochs, which can be fewer, are not so chosen.
        """
        if last and not MODELS[name].resumable:
            return self.allow(n, refit_share=0)
        share = share_of_fit(name, {}, self.shape) * self.growth.of(name) / self.growth.usual
        return self.allow(n, refit_share=share)

    def spare_seconds(self) -> float:
        """Seconds left beside those of the end."""
        ranked = rank(self.leaders.values(), self.n_validation)
        likely = [leader for leader in ranked if leader is ranked[0] or leader.trial.name == BLEND]
        refit = max((leader.trial.refit_seconds for leader in likely), default=0.0)
        return self.clock.left - self.blend_seconds() - self.measure_seconds() - refit

    def rank_parts(self) -> list[Leader]:
        """Rank the models that can be parts of a blend, the best first."""
        ranked = rank(self.leaders.values(), self.n_validation)
        return [leader for leader in ranked if leader.trial.name != BLEND and leader.model.folds_in]

    def choose_parts(self) -> list[Leader]:
        """Choose parts of a blend that can all be fitted again in the time that is left, the best first."""
        parts: list[Leader] = []
        spare = self.clock.left - self.measure_seconds() - self.blend_seconds()
        for leader in self.rank_parts():
            if leader.trial.refit_seconds <= spare and len(parts) < MOST_PARTS:
                parts.append(leader)
                spare -= leader.trial.refit_seconds
        return parts

    def _partner_seconds(self, spare: float) -> float:
        """Seconds to fit a model again that could be blended with the best, until there is a blend, with a margin."""
        if not self.blends or BLEND in {*self.leaders, *self.state.left_out}:
            return 0.0
        partners = [part.trial.refit_seconds for part in self.rank_parts()[1:]]
        kept = next((seconds for seconds in partners if seconds <= spare), 0.0)
        return kept + OVERRUN * self.clock.budget if kept else 0.0

    def refit_seconds(
        self, candidate: Candidate, model: Recommender, seconds: float, parts: Sequence[str] = ()
    ) -> float:
        """Estimate the time to fit a model on everything, from the part of its fit that did not choose settings.

        The time to save it is in it, as much as it took to save it for `--resume`.
        """
        if parts:
            return sum(self.leaders[part].trial.refit_seconds for part in parts)
        seconds = seconds if model.refit_seconds_ is None else model.refit_seconds_
        best_epoch, history = getattr(model, "best_epoch_", None), getattr(model, "history_", [])
        if best_epoch is not None and history:
            seconds *= best_epoch / len(history)
        known = [t.refit_seconds for t in self.state.trials if t.name == candidate.name and t.varies]
        estimate = FIT_SAFETY * self.growth.of(candidate.name) * seconds + self.save_seconds.get(candidate.name, 0.0)
        return estimate if candidate.varies else min([estimate, *known])

    def measure_seconds(self) -> float:
        """Seconds to measure the models on the test users, with a blend of them, and to report."""
        scoring = sum(leader.trial.score_seconds for leader in self.leaders.values() if leader.trial.name != BLEND)
        times = SCORE_SAFETY * self.n_test / max(1, self.n_validation)
        return FINISH_SECONDS * self.clock.slowdown + times * scoring * (2 if self.blends else 1)

    def blend_seconds(self) -> float:
        """Seconds to blend the best models once more, and to measure the blend."""
        parts = self.rank_parts()[:MOST_PARTS]
        if not self.blends or len(parts) < 2:
            return 0.0
        known = [trial.seconds + trial.score_seconds for trial in self.state.trials if trial.name == BLEND]
        if known:
            return FIT_SAFETY * max(known)
        chosen_by = min(self.n_validation, MOST_USERS)
        # More are ranked by the blend once more, to measure it.
        scored = chosen_by if self.n_validation <= MOST_USERS else chosen_by + self.n_validation
        scoring = sum(part.trial.score_seconds for part in parts) * scored / max(1, self.n_validation)
        return FIT_SAFETY * max(BLEND_SECONDS * len(parts) * chosen_by + scoring, 2 * self.unfinished_blend)


def can_be_fitted_again(trial: Trial, clock: Clock) -> bool:
    """Tell whether there is time to fit a model on everything, or about as much."""
    return trial.refit_seconds <= max(clock.left, 0) + LATE * clock.budget
