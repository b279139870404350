"""`fit`: read, split, search, measure once on test users, fit the best again on everything, save."""

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from recvae import workflow
from recvae.data.columns import Columns
from recvae.data.everything import Everything, collect_everything, read_everything
from recvae.data.prepared import Prepared
from recvae.data.splitting import Split
from recvae.errors import ParameterError, RecvaeError, first_line
from recvae.evaluation import compare as comparison
from recvae.evaluation.evaluate import PRIMARY_METRICS
from recvae.fitting.budget import Clock, format_seconds, parse_budget
from recvae.fitting.candidates import check_names, run_params
from recvae.fitting.fitted_model import FittedModel
from recvae.fitting.interruption import Interruptions, note_interruptions
from recvae.fitting.reserve import can_be_fitted_again
from recvae.fitting.scored_users import choose_scored_users, compute_growth, describe_split
from recvae.fitting.search import Search
from recvae.fitting.source import Source, UnsplittableData, choose_source, open_source
from recvae.fitting.state import SearchState, clear_state, open_state
from recvae.fitting.trial import Leader
from recvae.inference.new_items.cold_split import rank_cold_items
from recvae.models.base import Recommender
from recvae.models.hyperparameters import whole
from recvae.models.registry import MODELS
from recvae.models.validation import check_metric
from recvae.preparation.pipeline import Options
from recvae.preparation.weights import WeightOptions
from recvae.progress import StatusLine
from recvae.storage import artifact
from recvae.storage.directories import follow_link, refuse_foreign

UNTRIED_MODELS = ("ease", "bm25", "popularity")
"""Models for data of which nothing can be held out, the first of those that may be tried."""


def fit(
    source: Source = None,
    *,
    budget: str | float | Clock = "10m",
    items: Any = None,
    models: str | Sequence[str] | None = None,
    metric: str = "ndcg@10",
    out: str | Path | None = None,
    report: str | Path | None = None,
    seed: int = 0,
    resume: bool = False,
    show_progress: bool = True,
    user_column: str = "user_id",
    item_column: str = "item_id",
    rating_column: str | None = None,
    timestamp_column: str | None = None,
    min_rating: float | None = None,
    min_user_items: int | None = None,
    backend: str | None = None,
    weight_column: str | None = None,
    event_column: str | None = None,
    event_weights: str | Mapping[str, float] | None = None,
    repeats: str = "once",
    half_life: str | float | None = None,
    from_store: str | None = None,
    since: str | Path | None = None,
) -> FittedModel:
    """Find the best model for some interactions within a time budget, and fit it on all of them.

    The data are split by time where there are timestamps and enough users come back, else by users; a prepared
    directory and a known data set keep their own split. Models from popularity to the blend are fitted with their
    defaults, variations of the better ones as long as there is time, all measured on validation users. The best is
    measured once on test users beside the others, and fitted again on everything with the settings and epochs found.

    The first Ctrl-C ends the search: the best so far is fitted, and the search is kept, to go on with `resume`.

    Parameters
    ----------
    source : path, str, table, Interactions or Prepared
        Whatever `recvae prepare` takes, a prepared directory, or a table in memory with one row an interaction.
    budget : str, float or Clock
        Such as "90s", "10m" or "1h30m", or seconds; for everything from reading to the report. Small data need less.
    items : path or table, optional
        `item_id`, `title` and other columns.
    models : sequence of str or str, optional
        Names of the models to try.
    metric : str
        Metric on the validation users that decides; by default that of lists of ten.
    out : path, optional
        Artifact directory to write. The search's state is kept beside it in OUT.search until the search is done and
        the model saved.
    report : path, optional
        Directory for results.json and report.html; OUT.report where only `out` is given.
    seed : int
    resume : bool
        Go on with an interrupted search for the same `out`.
    show_progress : bool
    user_column, item_column, rating_column, timestamp_column, min_rating, min_user_items, backend
        As for `recvae prepare`.
    weight_column, event_column, event_weights, repeats, half_life
        As for `recvae prepare`: models learn from weights, and the evaluation is binary. In Python, `event_weights`
        may be a mapping and `half_life` seconds.
    from_store, since : str and path, optional
        Instead of a source: the database URL of a service's store, whose events and the histories of the artifact
        `since` are the data. Weights, filters and items are the artifact's.

    Returns
    -------
    FittedModel

    Raises
    ------
    ParameterError
        For an unknown model or metric, a budget that is too small, a report inside `out`, or options that do not fit.
    DataError, DownloadError
        If the source cannot be read or has nothing to learn from.
    ArtifactError
        If `out`, `report` or OUT.search hold other files.
    """
    names, clock = check_names(models), budget if isinstance(budget, Clock) else Clock(parse_budget(budget))
    target = None if out is None else follow_link(Path(out))
    reports = _choose_report(target, report)
    if resume and target is None:
        raise ParameterError("resume needs out, beside which the state of a search is kept")
    columns = Columns(user_column, item_column, rating_column, timestamp_column, weight_column, event_column)
    weights = WeightOptions.parse(event_weights, repeats, half_life)
    options = Options(min_rating, min_user_items, split="auto", columns=columns, backend=backend, weights=weights)
    run = _Run(names, check_metric(metric), whole("seed", seed, minimum=0), clock, show_progress)
    source = choose_source(source, from_store, since)
    with _open_work(target, resume) as state, run.status, note_interruptions(run.status.say) as interruptions:
        fitted = run.fit(source, items, options, state, resume, interruptions)
        if target is not None:
            fitted.save(target)
        if reports is not None and fitted.results is not None:
            run.status.show("writing the report")
            fitted = replace(fitted, written=workflow.write_results_and_report(reports, fitted.results))
        if fitted.results is None or not fitted.results["search"]["interrupted"]:
            clear_state(state.directory)
        elif target is not None:
            run.status.say(f"{state.directory} keeps the search; the same command with --resume goes on")
    return fitted


def refuse_occupied(out: Path | None, report: Path | None) -> None:
    """Raise `ArtifactError` before the work if the artifact or the report cannot be written.

    A report in the artifact's directory, or in that of its search, is a `ParameterError`.
    """
    if out is not None:
        workflow.refuse_unwritable(out)
        refuse_foreign(out, artifact.KIND)
    if report is not None:
        workflow.refuse_other_report(report)
    if out is not None and report is not None:
        for taken in (out, search_path(out)):
            if report.resolve().is_relative_to(taken.resolve()):
                raise ParameterError(f"report is {report}; expected a directory outside {taken}, which fit replaces")


def _choose_report(target: Path | None, report: str | Path | None) -> Path | None:
    """Choose the directory of the report, and check that it and the artifact can be written."""
    beside = None if target is None else target.with_name(f"{target.name}.report")
    chosen = beside if report is None else Path(report)
    refuse_occupied(target, chosen)
    return chosen


def search_path(out: Path) -> Path:
    """Give the directory where a search for the artifact `out` keeps its state."""
    target = follow_link(out).absolute()
    return target.with_name(f"{target.name}.search")


@contextlib.contextmanager
def _open_work(target: Path | None, resume: bool) -> Iterator[SearchState]:
    if target is not None:
        with open_state(search_path(target), resume) as state:
            yield state
        return
    with tempfile.TemporaryDirectory() as folder, open_state(Path(folder) / "search", resume=False) as state:
        yield state


class _Run:
    """One run of `fit`: its options, its clock, and the line that shows its progress."""

    def __init__(self, names: tuple[str, ...], metric: str, seed: int, clock: Clock, show_progress: bool) -> None:
        self.names, self.metric, self.seed, self.clock = names, metric, seed, clock
        self.search: Search | None = None
        self.status = StatusLine(show_progress, self._describe_progress)

    def _describe_progress(self) -> str:
        ranking = [] if self.search is None else self.search.ranking
        best = f"best {ranking[0].trial.name} {ranking[0].trial.value:.4f}   " if ranking else ""
        return f"{best}{format_seconds(self.clock.left)} left"

    def fit(
        self,
        source: Source,
        items: Any,
        options: Options,
        state: SearchState,
        resume: bool,
        interruptions: Interruptions,
    ) -> FittedModel:
        """Do all steps but saving."""
        self.status.show("reading")
        data = open_source(source, state.data, options, items, self.status.say)
        if isinstance(data, UnsplittableData):
            everything = collect_everything(data.interactions, data.described)
            return self._fit_untried(everything, data.entries, data.reason)
        prepared, everything = data.prepared, read_everything(data.prepared, data.described)
        split = choose_scored_users(prepared.split, self.seed)
        if split is None:
            return self._fit_untried(everything, prepared.identity | data.entries, "the split has no validation users")
        rank_cold_items(MODELS["popularity"](), split, prepared.items)  # refuses items without metadata
        self.status.say(describe_split(split))
        identity = {"data": prepared.identity["split_sha256"], "models": list(self.names), "metric": self.metric}
        state.identity = {**identity, "seed": self.seed}
        if resume:
            self._take_over(state)
        self.search = Search(
            split,
            self.names,
            self.metric,
            self.seed,
            clock=self.clock,
            growth=compute_growth(everything, split),
            state=state,
            status=self.status,
        )
        interrupted = False
        try:
            self.search.run()
        except KeyboardInterrupt:
            if not self.search.leaders:
                raise
            interrupted = True
            best = self.search.ranking[0].trial.name
            self.status.say(f"interrupted: the best so far, {best}, is fitted on everything; Ctrl-C again ends at once")
        interruptions.finishes = True
        fitted = self._finish(self.search, prepared, split, everything, interrupted)
        return replace(fitted, data=fitted.data | data.entries)

    def _take_over(self, state: SearchState) -> None:
        if state.resume(state.identity):
            self.clock.before = state.seconds
            self.status.say(f"resumed: {len(state.trials)} candidates, {format_seconds(state.seconds)} used before")
        else:
            self.status.say(f"{state.directory} has no state yet; the search starts from the beginning")

    def _fit_untried(self, everything: Everything, identity: Mapping[str, Any], reason: str) -> FittedModel:
        """Fit a model by its defaults to data that cannot be split, and say so."""
        name = next((name for name in UNTRIED_MODELS if name in self.names), self.names[0])
        self.status.say(f"warning: nothing could be compared, so {name} is fitted by its defaults: {reason}")
        model = MODELS.create(name, None, run_params(name, self.metric, self.seed))
        model.fit(everything.user_items, show_progress=False)
        data = {**identity, **everything.describe()}
        return FittedModel(model, name, everything.items, everything.users, None, data, {})

    def _finish(
        self, search: Search, prepared: Prepared, split: Split, everything: Everything, interrupted: bool
    ) -> FittedModel:
        """Measure the best models on the test users, and fit the best of them on everything."""
        ranking = search.ranking
        if not ranking:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in search.state.left_out.items())
            raise ParameterError(
                f"no model could be fitted within budget {format_seconds(self.clock.budget)}: {reasons}"
            )
        ranking = self._keep_affordable(ranking)
        finalists = self._choose_finalists(ranking, split)
        self.status.show("measuring on the test users")
        compared = comparison.compare(
            {leader.trial.name: rank_cold_items(leader.model, split, prepared.items) for leader in finalists},
            split,
            primary=tuple(dict.fromkeys((*PRIMARY_METRICS, self.metric))),
            show_progress=False,
        )
        winner, model = self._refit(ranking, everything)
        trial = winner.trial
        fitted_on = everything.describe()
        results = workflow.describe_results(compared, prepared, self.seed)
        results["search"] = {
            "metric": self.metric,
            "budget_seconds": self.clock.budget,
            "seconds": round(self.clock.elapsed, 1),
            "interrupted": interrupted,
            "winner": trial.name,
            "split": describe_split(split),
            "fitted_on": fitted_on["fitted_counts"],
            "candidates": [
                {"model": t.name, "varies": t.varies, "value": t.value, "seconds": round(t.seconds, 2)}
                for t in search.state.trials
            ],
            "left_out": dict(search.state.left_out),
        }
        metrics: dict[str, Any] = {"validation": {self.metric: {"mean": trial.value, "stderr": None}}}
        if trial.name in compared.runs:
            metrics["test"] = compared.runs[trial.name].result.as_dict()
        data = {**prepared.identity, **fitted_on, "search": results["search"]}
        return FittedModel(model, trial.name, everything.items, everything.users, results, data, metrics)

    def _keep_affordable(self, ranking: list[Leader]) -> list[Leader]:
        """Begin the ranking with a model that there is time to fit on everything, where there is one."""
        quick = [leader for leader in ranking if can_be_fitted_again(leader.trial, self.clock)]
        first = quick[0] if quick else min(ranking, key=lambda leader: leader.trial.refit_seconds)
        for leader in ranking[: ranking.index(first)]:
            needed = format_seconds(leader.trial.refit_seconds)
            self.status.say(f"{leader.trial.name} is better, but fitting it on everything would take about {needed}")
        return [first, *(leader for leader in ranking if leader is not first)]

    def _choose_finalists(self, ranking: list[Leader], split: Split) -> list[Leader]:
        """Choose the models to measure on the test users: as many as there is time for, the best first."""
        spare = self.clock.left - ranking[0].trial.refit_seconds
        users = split.test.n_users / max(1, split.validation.n_users if split.validation else 1)
        order = sorted(ranking, key=lambda leader: (leader is not ranking[0], leader.trial.name != "popularity"))
        chosen: list[Leader] = []
        for leader in order:
            seconds = users * leader.trial.score_seconds
            if seconds < spare or not chosen:
                chosen.append(leader)
                spare -= seconds
        return chosen

    def _refit(self, ranking: list[Leader], everything: Everything) -> tuple[Leader, Recommender]:
        """Fit the best model on everything, or the next best where that one cannot be."""
        for number, leader in enumerate(ranking):
            name = leader.trial.name
            self.status.show(f"fitting {name} on everything")
            try:
                return leader, leader.model.refit(everything.user_items, show_progress=False)
            except (RecvaeError, MemoryError) as error:
                if number + 1 == len(ranking):
                    raise
                self.status.say(f"{name} cannot be fitted on everything: {first_line(error)}")
        raise AssertionError
