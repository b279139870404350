"""From a source to the best model, fitted on everything: artifact, report, errors."""

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import recvae
from recvae.cli import main as cli
from recvae.data.prepared import read_prepared
from recvae.datasets.synthetic import generate
from recvae.errors import ArtifactError, DataError, ParameterError, RecvaeError
from recvae.evaluation.results import read_results
from recvae.fitting import fit as module
from recvae.fitting.budget import Clock
from recvae.fitting.reserve import Reserve
from recvae.fitting.trial import Leader, Trial
from recvae.inference.card import describe_artifact, format_card
from recvae.inference.recommend import recommend
from recvae.models import registry
from recvae.models.linear.ease import EASE
from recvae.preparation.pipeline import Options, prepare
from tests.fitting.conftest import SPLIT
from tests.preparation.test_weights import repeated_visits

SOURCE = generate(120, 40)
QUICK: dict[str, Any] = {"budget": "30s", "models": "popularity,bm25,ease", "show_progress": False}


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a whole run: plays.csv, items.csv, model, model.report."""
    folder = tmp_path_factory.mktemp("fitted")
    SOURCE.ratings.to_csv(folder / "plays.csv", index=False)
    assert SOURCE.items is not None
    SOURCE.items.to_csv(folder / "items.csv", index=False)
    recvae.fit(folder / "plays.csv", items=folder / "items.csv", out=folder / "model", **QUICK)
    return folder


def test_what_is_written(fitted: Path) -> None:
    assert sorted(path.name for path in fitted.iterdir()) == ["items.csv", "model", "model.report", "plays.csv"]
    assert sorted(path.name for path in (fitted / "model.report").iterdir()) == ["report.html", "results.json"]


def test_the_model_knows_everybody_with_the_whole_history(fitted: Path) -> None:
    artifact = registry.load(fitted / "model")
    assert artifact.users is not None
    ids = artifact.items["item_id"].to_numpy()
    for user, history in zip(artifact.users["user_id"], artifact.users["history"], strict=True):
        rows = SOURCE.ratings[SOURCE.ratings["user_id"] == user]
        assert set(ids[history]) == set(rows["item_id"])
    assert len(artifact.users) == SOURCE.ratings["user_id"].nunique()
    assert artifact.items["title"].notna().all()
    user = int(SOURCE.ratings["user_id"].iloc[0])
    items = recommend(fitted / "model", user=str(user), n=5).items
    seen = set(SOURCE.ratings["item_id"][SOURCE.ratings["user_id"] == user])
    assert len(items) == 5
    assert not {item["id"] for item in items} & seen


def test_the_manifest_says_on_what_it_was_evaluated_and_fitted(fitted: Path) -> None:
    manifest = registry.load(fitted / "model").manifest
    data = manifest["data"]
    assert data["dataset"] == "plays.csv"
    assert data["protocol"]["split"] == "temporal"
    assert data["fitted_on"] == "all"
    assert data["fitted_counts"]["interactions"] == len(SOURCE.ratings)
    assert data["search"]["winner"] in ("popularity", "bm25", "ease")
    assert 0 < manifest["metrics"]["validation"]["ndcg@10"]["mean"] < 1
    card = format_card(describe_artifact(registry.load(fitted / "model")))
    assert not any("±" in line for line in card if line.startswith("validation: "))
    assert 0 < manifest["metrics"]["test"]["ndcg@100"]["mean"] < 1


def test_results_and_report_have_all_candidates(fitted: Path) -> None:
    results = read_results(fitted / "model.report" / "results.json")
    search = results["search"]
    assert set(results["models"]) == {"popularity", "bm25", "ease"}
    assert {candidate["model"] for candidate in search["candidates"]} == {"popularity", "bm25", "ease"}
    assert search["metric"] == "ndcg@10"
    assert search["seconds"] <= 30
    assert not search["interrupted"]
    best = max(search["candidates"], key=lambda candidate: candidate["value"])
    assert search["winner"] == best["model"]
    assert {pair["metric"] for pair in results["comparisons"]} >= {"ndcg@10", "ndcg@100"}
    page = (fitted / "model.report" / "report.html").read_text()
    assert f"The best model is <b>{search['winner']}</b>, by ndcg@10" in page
    assert "<h2>Search</h2>" in page
    for name in ("popularity", "bm25", "ease"):
        assert f"<td>{name}</td>" in page
    assert "ndcg@10 minus that of" in page
    assert "<h2>Short and long histories</h2>" in page


def test_the_settings_are_those_found(fitted: Path) -> None:
    artifact = registry.load(fitted / "model")
    results = read_results(fitted / "model.report" / "results.json")
    assert artifact.manifest["hyperparameters"] == results["models"][results["search"]["winner"]]["params"]


def test_in_python(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fitted = recvae.fit(SOURCE.ratings, items=SOURCE.items, **QUICK)
    assert capsys.readouterr().err == ""
    assert fitted.results is not None
    assert fitted.name == fitted.results["search"]["winner"]
    assert fitted.written == ()
    assert fitted.model.n_items_ == len(fitted.items)
    ids, _ = fitted.model.recommend(0, np_row(fitted.users["history"][0], fitted.model.n_items_), N=3)
    assert not set(ids) & set(fitted.users["history"][0])
    fitted.save(tmp_path / "model")
    assert len(recommend(tmp_path / "model", user=str(fitted.users["user_id"][0])).items) == 10


def test_weights_reach_the_model_the_histories_and_the_card(tmp_path: Path) -> None:
    """From a column, from kinds and from age; what weighs 0 is dropped, and items are found or not all the same."""
    kinds = np.array(["view", "buy", "look"])[np.arange(len(SOURCE.ratings)) % 3]
    events = SOURCE.ratings.drop(columns="rating").assign(kind=kinds, amount=2.0)
    given: dict[str, Any] = {"weight_column": "amount", "event_column": "kind", "repeats": "sum", "half_life": "1000w"}
    fitted = recvae.fit(
        events, **given, event_weights={"view": 1, "buy": 5, "look": 0}, out=tmp_path / "model", **QUICK
    )
    assert fitted.data["filters"]["weights"]["events"] == {"view": 1, "buy": 5, "look": 0}
    assert sum(map(len, fitted.users["history"])) == (kinds != "look").sum()
    weights = np.concatenate(fitted.users["weights"])
    assert set(np.round(weights)) == {2, 10}
    assert fitted.results is not None
    assert 0 < next(iter(fitted.results["models"].values()))["metrics"]["ndcg@10"]["mean"] <= 1
    card = list(format_card(describe_artifact(registry.load(tmp_path / "model"))))
    assert "limit: was trained on weights; its figures are binary: an item was found or not" in card


def np_row(history: Any, n_items: int, weights: Any = 1) -> Any:
    from scipy import sparse

    row = np.zeros((1, n_items), dtype=np.float32)
    row[0, history] = weights
    return sparse.csr_matrix(row)


def test_weights_change_what_is_recommended() -> None:
    """The made-up users' taste, even items or odd ones, shows only in what they repeat."""
    shares = {}
    for repeats in ("once", "sum"):
        fitted = recvae.fit(repeated_visits(), repeats=repeats, **{**QUICK, "models": "ease"})
        users, ids = fitted.users, fitted.items["item_id"].to_numpy()
        weights = users["weights"] if repeats == "sum" else [1] * len(users)
        same = []
        for user, history, weight in zip(users["user_id"], users["history"], weights, strict=True):
            row = np_row(history, len(ids), weight)
            same += (ids[fitted.model.recommend(0, row, N=5, recalculate_user=True)[0]] % 2 == user % 2).tolist()
        shares[repeats] = float(np.mean(same))
    assert shares["sum"] > shares["once"] + 0.2


def test_a_prepared_directory(tmp_path: Path) -> None:
    prepare(SOURCE, tmp_path / "data", Options())
    fitted = recvae.fit(tmp_path / "data", out=tmp_path / "model", report=tmp_path / "report", **QUICK)
    prepared = read_prepared(tmp_path / "data")
    assert fitted.data["split_sha256"] == prepared.identity["split_sha256"]
    assert fitted.results is not None
    assert fitted.results["n_users"] == prepared.split.test.n_users
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "model", "report"]


def test_cold_items_without_metadata_are_refused_before_the_search(tmp_path: Path) -> None:
    prepare(replace(SOURCE, items=None), tmp_path / "data", Options(split="cold-items"))
    with pytest.raises(DataError, match="the items have no metadata"):
        recvae.fit(tmp_path / "data", out=tmp_path / "model", **QUICK)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_the_metric_decides(tmp_path: Path) -> None:
    fitted = recvae.fit(SOURCE.ratings, report=tmp_path / "report", **QUICK, metric="recall@5")
    assert fitted.results is not None
    assert fitted.results["search"]["metric"] == "recall@5"
    assert "recall@5" in next(iter(fitted.results["models"].values()))["metrics"]
    assert "recall@5" in (tmp_path / "report" / "report.html").read_text()


@pytest.mark.parametrize(
    ("refits", "first"), [((20, 1, 1), "blend"), ((40, 20, 1), "als"), ((90, 50, 40), "ease"), ((32, 1, 1), "blend")]
)
def test_a_model_that_there_is_no_time_to_fit_again_is_not_used(refits: tuple[float, ...], first: str) -> None:
    run = module._Run(("als", "ease", "blend"), "ndcg@10", 0, Clock(30, now=lambda: 0.0), show_progress=False)
    trials = [
        Trial(name, {}, {}, value, 1.0, refit, 0.1)
        for name, value, refit in zip(("blend", "als", "ease"), (0.4, 0.3, 0.2), refits, strict=True)
    ]
    ranking = run._keep_affordable([Leader(trial, EASE()) for trial in trials])
    assert ranking[0].trial.name == first
    assert {leader.trial.name for leader in ranking} == {"blend", "als", "ease"}


def test_a_model_that_ranks_too_slowly_leaves_the_time_to_others() -> None:
    names = ("graph", "als", "ease", "popularity")
    run = module._Run(names, "ndcg@10", 0, Clock(30, now=lambda: 0.0), show_progress=False)
    trials = [
        Trial(name, {}, {}, 0.5, 1.0, 5.0, seconds) for name, seconds in zip(names, (1.0, 90.0, 10.0, 1.0), strict=True)
    ]
    chosen = run._choose_finalists([Leader(trial, EASE()) for trial in trials], SPLIT)
    assert [leader.trial.name for leader in chosen] == ["graph", "popularity", "ease"]


def test_the_model_that_is_saved_is_one_that_there_is_time_to_fit_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Reserve, "refit_seconds", lambda _, candidate, *__: 3600.0 if candidate.name == "ease" else 0.0)
    monkeypatch.setattr("recvae.fitting.trial.measure", lambda model, *_: 0.9 if isinstance(model, EASE) else 0.1)
    fitted = recvae.fit(SOURCE.ratings, out=tmp_path / "model", **{**QUICK, "show_progress": True})
    assert fitted.name == "popularity"
    assert "ease is better, but fitting it on everything would take about 1:00:00" in capsys.readouterr().err
    assert registry.load(tmp_path / "model").manifest["class"] == "Popularity"


def test_the_budget_counts_from_the_start_of_the_process(
    tmp_path: Path, fitted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ["recvae", "fit", str(fitted / "plays.csv"), "--out", str(tmp_path / "model"), "--models", "popularity"]
    monkeypatch.setattr(sys, "argv", line)
    with pytest.raises(SystemExit):
        cli.main(started=time.monotonic() - 1000)
    search = json.loads((tmp_path / "model.report" / "results.json").read_text())["search"]
    assert 1000 < search["seconds"] < 1030


def test_data_of_which_nothing_can_be_held_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = pd.DataFrame({"user_id": np.repeat([1, 2], 6), "item_id": [*range(6), *range(3, 9)], "w": 2.0})
    fitted = recvae.fit(table, out=tmp_path / "model", budget="10s", weight_column="w")
    assert set(np.concatenate(fitted.users["weights"])) == {2}
    assert fitted.data["filters"]["weights"] == {"column": True}
    assert (fitted.name, fitted.results) == ("ease", None)
    (warning,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert warning.startswith("warning: nothing could be compared, so ease is fitted by its defaults: ")
    assert len(recommend(tmp_path / "model", user="1", n=3).items) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


ERRORS: dict[str, tuple[dict[str, Any], type[RecvaeError], str]] = {
    "model": ({"models": "asl"}, ParameterError, "models has 'asl'; expected some of popularity, als"),
    "metric": ({"metric": "ndcg"}, ParameterError, "ndcg"),
    "metric of lists": ({"metric": "coverage@10"}, ParameterError, "metric is 'coverage@10'; expected one of recall@K"),
    "budget": ({"budget": "soon"}, ParameterError, "budget is 'soon'; expected a time such as 90s"),
    "small budget": ({"budget": "2s"}, ParameterError, "budget is '2s'; expected at least 5s"),
    "column": ({"user_column": "who"}, DataError, "no column 'who'.*it has: user_id, item_id, rating, timestamp"),
    "rating": ({"min_rating": 6}, DataError, "no interactions are left"),
    "weights": ({"event_weights": "view=1"}, ParameterError, "event_column is missing; expected event_column and"),
    "half-life": ({"half_life": 0}, ParameterError, "half_life is 0; expected a number above 0"),
    "seed": ({"seed": -1}, ParameterError, "seed is -1; expected a whole number of at least 0"),
    "fraction": ({"min_user_items": 1.5}, ParameterError, "min_user_items is 1.5; expected a whole number"),
    "text": ({"min_rating": "4"}, ParameterError, "min_rating is '4'; expected a number"),
    "root": ({"out": "/"}, ParameterError, "out is /; expected the path of a new directory"),
    "resume": ({"resume": True}, ParameterError, "resume needs out"),
    "only known users": ({"models": "bpr", "timestamp": False}, ParameterError, "no model could be fitted.*BPR cannot"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors(tmp_path: Path, case: str) -> None:
    options, error, message = ERRORS[case]
    table = SOURCE.ratings
    if not options.get("timestamp", True):
        table, options = table.drop(columns="timestamp"), {"models": options["models"]}
    target = {} if "resume" in options else {"out": tmp_path / "model"}
    with pytest.raises(error, match=message):
        recvae.fit(table, **{**QUICK, **target, **options})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["model", "model.report", "model.search"])
def test_what_is_in_the_way_is_refused_before_the_work(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "open_source", lambda *_: pytest.fail("it has begun"))
    (tmp_path / name).mkdir()
    (tmp_path / name / "mine.txt").write_text("mine")
    with pytest.raises(ArtifactError, match=rf"{name} exists and holds something else \(mine.txt\)"):
        recvae.fit(SOURCE.ratings, out=tmp_path / "model", **QUICK)
    assert [path.name for path in tmp_path.rglob("*")] == [name, "mine.txt"]


@pytest.mark.parametrize(("inside", "out"), [(".", ""), (".", "."), ("below", "..")])
def test_the_working_directory_may_become_the_artifact(
    tmp_path: Path, inside: str, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here" / inside).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here" / inside)
    if inside == ".":
        recvae.fit(SOURCE.ratings, out=out, **QUICK | {"models": "popularity"})
        assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "here.report"]
        assert recvae.load(tmp_path / "here").items is not None
        return
    with pytest.raises(ArtifactError, match=r"here exists and holds something else \(below\)"):
        recvae.fit(SOURCE.ratings, out=out, **QUICK)


def test_numbers_of_numpy_are_numbers(tmp_path: Path) -> None:
    fitted = recvae.fit(
        SOURCE.ratings,
        out=tmp_path / "model",
        seed=np.int64(3),  # type: ignore[arg-type]
        min_rating=np.float32(2),  # type: ignore[arg-type]
        min_user_items=np.int64(3),  # type: ignore[arg-type]
        half_life=np.int64(86_400),  # type: ignore[arg-type]
        timestamp_column="timestamp",
        **QUICK | {"models": "popularity"},
    )
    assert fitted.results is not None
    assert fitted.results["seed"] == 3


@pytest.mark.parametrize("name", ["model", "model/report", "link/report", "model.search"])
def test_a_report_does_not_go_into_what_is_replaced(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "open_source", lambda *_: pytest.fail("it has begun"))
    (tmp_path / "link").symlink_to(tmp_path / "model")
    with pytest.raises(ParameterError, match=rf"^report is .*{name}; expected a directory outside .*model"):
        recvae.fit(SOURCE.ratings, out=tmp_path / "model", report=tmp_path / name, **QUICK)
    assert [path.name for path in tmp_path.iterdir()] == ["link"]


def test_movielens_in_twenty_seconds(tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECVAE_DATA", str(data_dir))
    started = time.monotonic()
    fitted = recvae.fit("ml-100k", budget="20s", out=tmp_path / "model", show_progress=False)
    assert time.monotonic() - started < 30
    assert fitted.results is not None
    assert fitted.results["protocol"]["split"] == "strong"
    means = {name: model["metrics"]["ndcg@10"]["mean"] for name, model in fitted.results["models"].items()}
    assert means[fitted.name] > 1.5 * means["popularity"]
    assert fitted.items["title"].notna().all()
