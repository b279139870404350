"""From a prepared directory to an artifact, figures and a list; interruptions, failures and what does not fit."""

import hashlib
import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from recvae import workflow
from recvae.data.everything import read_everything
from recvae.data.prepared import read_prepared
from recvae.datasets import Dataset
from recvae.datasets.synthetic import generate
from recvae.errors import ArtifactError, ParameterError, TrainingError, UnsupportedError
from recvae.evaluation.results import read_results
from recvae.evaluation.tables import markdown_table
from recvae.inference import recommend as inference
from recvae.models import registry
from recvae.models.blending.blend import Blend
from recvae.models.registry import MODELS
from recvae.preparation.pipeline import Options, prepare
from recvae.progress import EpochProgress

N_USERS, N_ITEMS = 60, 40
TINY = {"epochs": 3, "hidden": 16, "latent": 8, "batch_size": 20}
SMALL: dict[str, dict[str, Any]] = {
    "als": {"factors": 4, "iterations": 3},
    "bpr": {"factors": 4, "iterations": 3},
    "lmf": {"factors": 4, "iterations": 3},
    "tfidf": {"K": 5},
    "bm25": {"K": 5},
    "multvae": TINY,
    "multdae": TINY,
    "blend": {"models": ["popularity", "ease"]},
}


@pytest.fixture(scope="module")
def strong(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prepared") / "strong"
    prepare(generate(N_USERS, N_ITEMS), path, Options())
    return path


@pytest.fixture(scope="module")
def known(strong: Path) -> Path:
    """The same interactions, where every test user is a training user."""
    prepare(generate(N_USERS, N_ITEMS), strong.with_name("known"), Options(split="leave-last"))
    return strong.with_name("known")


@pytest.fixture(scope="module")
def popularity(strong: Path) -> Path:
    out = strong.with_name("popularity")
    workflow.train(strong, out, "popularity")
    return out


def digests(directory: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in directory.iterdir()}


@pytest.mark.parametrize("name", MODELS)
def test_train_evaluate_recommend(tmp_path: Path, known: Path, name: str) -> None:
    out, prepared = tmp_path / "model", read_prepared(known)
    lines = workflow.train(known, out, name, params=SMALL.get(name), seed=4)
    model = registry.load(out).model
    assert lines[0].startswith(f"saved {out}: {type(model).__name__}(")
    assert lines[1].startswith("validation: recall@20 0.")
    assert model.get_params().get("seed", 4) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["model"]

    results = workflow.evaluate(out, known)
    (figures,) = results["models"].values()
    assert results["n_users"] == prepared.split.test.n_users
    assert 0 < figures["metrics"]["ndcg@100"]["mean"] < 1
    assert figures["params"] == json.loads(json.dumps(model.fitted_params()))
    assert "ndcg@100" in markdown_table(results)
    assert json.loads(json.dumps(results, allow_nan=False))["dataset"] == "synthetic"

    user = prepared.split.user_ids[3]
    answer = inference.recommend(out, user=str(user), n=7)
    titles = dict(zip(prepared.items["item_id"], prepared.items["title"], strict=True))
    assert [item["title"] for item in answer.items] == [titles[item["id"]] for item in answer.items]
    histories = prepared.histories().set_index("user_id")["history"]
    assert not {item["id"] for item in answer.items} & set(prepared.items["item_id"][histories[user]])
    assert len(answer.items) == 7
    scores = [item["score"] for item in answer.items]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("name", ["als", "bm25", "multvae"])
def test_a_history_and_the_user_who_has_it_get_the_same_list(tmp_path: Path, strong: Path, name: str) -> None:
    workflow.train(strong, tmp_path / "model", name, params=SMALL[name])
    prepared = read_prepared(strong)
    user = prepared.histories().iloc[-1]
    history = [str(item_id) for item_id in prepared.items["item_id"][user["history"]]]
    by_user = inference.recommend(tmp_path / "model", user=str(user["user_id"]))
    assert inference.recommend(tmp_path / "model", history=history) == by_user
    assert user["user_id"] in prepared.split.test.user_ids


def test_unknown_items_of_a_history_are_reported(popularity: Path) -> None:
    answer = inference.recommend(popularity, history=["1", "Heat", "2", "900000"], n=5)
    assert answer.unknown == ["Heat", "900000"]
    assert answer == inference.Recommendation(
        inference.recommend(popularity, history=["2", "1"], n=5).items, answer.unknown
    )
    assert not {item["id"] for item in answer.items} & {1, 2}


def test_a_list_is_no_longer_than_what_is_left_of_the_catalogue(popularity: Path) -> None:
    everything = inference.recommend(popularity, history=["1"], n=N_ITEMS).items
    assert sorted(item["id"] for item in everything) == list(range(2, N_ITEMS + 1))


def test_text_ids_and_items_without_titles(tmp_path: Path) -> None:
    interactions = generate(N_USERS, N_ITEMS).ratings
    interactions = interactions.assign(
        user_id=interactions["user_id"].map("u{}".format), item_id=interactions["item_id"].map("{:03}".format)
    )
    interactions.to_csv(tmp_path / "interactions.csv", index=False)
    prepare(tmp_path / "interactions.csv", tmp_path / "data", Options())
    workflow.train(tmp_path / "data", tmp_path / "model", "popularity")
    answer = inference.recommend(tmp_path / "model", history=["001", "1"], n=3)
    assert answer.unknown == ["1"]
    assert all(isinstance(item["id"], str) and item["title"] is None for item in answer.items)
    assert len(inference.recommend(tmp_path / "model", user="u5").items) == 10


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"history": ["1"], "n": 0}, "n is 0; expected 1 to 40, the items of the catalogue"),
        ({"history": ["1"], "n": N_ITEMS + 1}, "n is 41; expected 1 to 40"),
        ({"history": ["Heat", "Alien"]}, "history is Heat, Alien; none is known: ids look like "),
        ({"history": []}, "history is empty"),
        ({"user": "Ripley"}, "user is Ripley, which .* does not know; ids look like "),
    ],
)
def test_requests_that_cannot_be_answered(popularity: Path, request_: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        inference.recommend(popularity, **request_)


def test_a_user_where_the_artifact_holds_none(tmp_path: Path, popularity: Path) -> None:
    registry.save(registry.load(popularity).model, tmp_path / "bare")
    with pytest.raises(ParameterError, match=r"user is 1, but .* was saved without users; give a history instead"):
        inference.recommend(tmp_path / "bare", user="1")


def test_a_model_of_known_users_trains_on_any_split_but_is_not_evaluated_on_new_ones(
    tmp_path: Path, strong: Path
) -> None:
    saved, not_validated = workflow.train(strong, tmp_path / "model", "bpr", params=SMALL["bpr"])
    assert saved.startswith("saved ")
    assert not_validated.startswith("not validated: BPR cannot fold in new users and 6 of 6 are new")
    assert registry.load(tmp_path / "model").manifest["metrics"] == {}
    with pytest.raises(ParameterError, match=r"BPR cannot fold in new users and 6 of 6 are new; .* weak"):
        workflow.evaluate(tmp_path / "model", strong)
    with pytest.raises(UnsupportedError, match="BPR cannot fold in"):
        inference.recommend(tmp_path / "model", history=["1"])
    prepared = read_prepared(strong)
    assert len(inference.recommend(tmp_path / "model", user=str(prepared.split.user_ids[0])).items) == 10
    with pytest.raises(ParameterError, match="does not know"):
        inference.recommend(tmp_path / "model", user=str(prepared.split.test.user_ids[0]))


def test_a_split_without_validation_users(tmp_path: Path) -> None:
    interactions = generate(N_USERS, N_ITEMS).ratings
    interactions["part"] = interactions.groupby("user_id").cumcount(ascending=False).lt(3) * 2
    source = generate(N_USERS, N_ITEMS)
    data = Dataset("toy", interactions.drop(columns="rating"), source.items, "here", {}, source.recipe)
    prepare(data, tmp_path / "data", Options(split="given", val_users=0))
    _, line = workflow.train(tmp_path / "data", tmp_path / "model", "multvae", params=TINY)
    assert line == "not validated: the split has no validation users"


def test_other_items_are_refused(tmp_path: Path, popularity: Path) -> None:
    prepare(generate(N_USERS, N_ITEMS + 5), tmp_path / "data", Options())
    with pytest.raises(ArtifactError, match=r"popularity was trained on other items than .*data holds"):
        workflow.evaluate(popularity, tmp_path / "data")


def test_another_split_of_the_same_items_is_refused(tmp_path: Path) -> None:
    interactions = pd.DataFrame([(user, item, user * item % 7) for user in range(30) for item in range(12)])
    interactions.set_axis(["user_id", "item_id", "timestamp"], axis=1).to_csv(
        tmp_path / "interactions.csv", index=False
    )
    for seed in (1, 2):
        prepare(tmp_path / "interactions.csv", tmp_path / f"data{seed}", Options(seed=seed))
    workflow.train(tmp_path / "data1", tmp_path / "model", "popularity")
    items = [read_prepared(tmp_path / f"data{seed}").items["item_id"].tolist() for seed in (1, 2)]
    assert items[0] == items[1]
    with pytest.raises(ArtifactError, match=r"model was trained on another split than .*data2 holds"):
        workflow.evaluate(tmp_path / "model", tmp_path / "data2")


def interrupt_after(epochs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    update = EpochProgress.update

    def interrupting(self: EpochProgress, done: int, figures: dict[str, float]) -> None:
        update(self, done, figures)
        if done == epochs:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(EpochProgress, "update", interrupting)


@pytest.mark.parametrize("name", ["multvae", "multdae"])
def test_interrupted_training_goes_on_as_if_it_never_stopped(
    tmp_path: Path, strong: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    params = {**TINY, "epochs": 5}
    workflow.train(strong, tmp_path / "straight", name, params=params)
    out = tmp_path / "model"
    with monkeypatch.context() as patch:
        interrupt_after(2, patch)
        with pytest.raises(KeyboardInterrupt):
            workflow.train(strong, out, name, params=params)
    assert not out.exists()
    assert workflow.checkpoint_path(out).is_dir()
    with pytest.raises(ParameterError, match=r"latent .*cannot be resumed"):
        workflow.train(strong, out, name, params={**params, "latent": 9}, resume=True)
    workflow.train(strong, out, name, params=params, resume=True)
    assert not workflow.checkpoint_path(out).exists()
    weights = [digests(path)["model.safetensors"] for path in (out, tmp_path / "straight")]
    assert weights[0] == weights[1]


def test_resuming_what_never_began(tmp_path: Path, strong: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workflow.train(strong, tmp_path / "model", "multvae", params=SMALL["multvae"], resume=True)
    assert "model.checkpoint does not exist yet; training starts from the beginning" in capsys.readouterr().err
    assert registry.load(tmp_path / "model").manifest["class"] == "MultVAE"
    with pytest.raises(ParameterError, match="ALS does not train in epochs, so there is nothing to resume"):
        workflow.train(strong, tmp_path / "als", "als", resume=True)


def test_somebody_elses_directory_in_the_checkpoints_place_is_refused_and_untouched(
    tmp_path: Path, strong: Path
) -> None:
    foreign = workflow.checkpoint_path(tmp_path / "model")
    foreign.mkdir()
    (foreign / "mine.txt").write_text("mine")
    with pytest.raises(ArtifactError, match=r"model.checkpoint exists and holds something else \(mine.txt\)"):
        workflow.train(strong, tmp_path / "model", "popularity")
    assert (foreign / "mine.txt").read_text() == "mine"


def test_failed_training_leaves_an_earlier_artifact_untouched(tmp_path: Path, strong: Path) -> None:
    out = tmp_path / "model"
    workflow.train(strong, out, "multvae", params=TINY)
    before = digests(out)
    with pytest.raises(TrainingError, match="a lower learning_rate may help"):
        workflow.train(strong, out, "multvae", params={**TINY, "learning_rate": 1e30})
    assert digests(out) == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_an_earlier_artifact_is_replaced(tmp_path: Path, strong: Path) -> None:
    for name in ("popularity", "cosine"):
        workflow.train(strong, tmp_path / "model", name)
    assert registry.load(tmp_path / "model").manifest["class"] == "CosineKNN"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_the_working_directory_may_become_the_artifact(
    tmp_path: Path, strong: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    workflow.train(strong, Path(), "popularity")
    assert registry.load(tmp_path / "here").manifest["class"] == "Popularity"


@pytest.mark.parametrize("seed", [-1, 2**32, 10**30])
@pytest.mark.parametrize("name", ["als", "multvae"])
def test_seeds_out_of_range(tmp_path: Path, strong: Path, name: str, seed: int) -> None:
    with pytest.raises(ParameterError, match=f"seed is {seed}; expected"):
        workflow.train(strong, tmp_path / "model", name, seed=seed)
    with pytest.raises(ParameterError, match=f"seed is {seed}; expected"):
        workflow.train(strong, tmp_path / "model", name, params={"seed": seed})


def test_a_seed_among_the_settings_wins(tmp_path: Path, strong: Path) -> None:
    workflow.train(strong, tmp_path / "model", "als", params={**SMALL["als"], "seed": 8}, seed=4)
    assert registry.load(tmp_path / "model").model.get_params()["seed"] == 8


def test_compare_trains_random_models_once_a_seed(tmp_path: Path, strong: Path) -> None:
    params = {"multdae": TINY, "als": {**SMALL["als"], "seed": 8}, "blend": {"models": ["multdae", "popularity"]}}
    compared = workflow.compare(
        strong, tmp_path / "report", ["blend", "multdae", "als", "popularity"], params=params, seed=3, n_seeds=2
    )
    entries = compared.results["models"]
    by_seed = {name: [len(figures) for figures in entry.get("by_seed", {}).values()] for name, entry in entries.items()}
    assert by_seed == {"multdae": [2, 2, 2], "als": [], "popularity": [], "blend": [2, 2, 2]}
    assert len(set(entries["multdae"]["by_seed"]["ndcg@100"])) == 2
    assert compared.models["multdae"].get_params()["seed"] == 3
    assert isinstance(compared.models["blend"], Blend)
    assert compared.models["blend"].models[0] is compared.models["multdae"]


def test_compare_writes_what_it_returns(tmp_path: Path, known: Path) -> None:
    names = ["popularity", "bm25", "bpr", "multdae"]
    params = {name: SMALL.get(name, {}) for name in names} | {"multdae": {**TINY, "preset": "paper"}}
    seen: list[str] = []
    out = tmp_path / "new" / "report"
    compared = workflow.compare(known, out, names, params=params, seed=3, on_result=lambda name, _: seen.append(name))
    results = read_results(out / workflow.RESULTS)
    assert results == compared.results
    assert seen == list(results["models"]) == list(compared.models) == names
    assert results["seed"] == 3
    assert results["protocol"] == {"split": "leave-last", "filters": read_prepared(known).manifest["filters"]}
    assert results["models"]["multdae"]["params"]["latent"] == TINY["latent"]
    assert results["models"]["bpr"]["params"]["seed"] == 3
    assert len(results["comparisons"]) == 6 * 3
    assert results["item_map"]["model"] == results["user_map"]["model"] == "multdae"
    assert {title for *_, title in results["item_map"]["points"]} <= set(read_prepared(known).items["title"])
    page = (out / workflow.REPORT).read_text(encoding="utf-8")
    assert page.index("Map of items") < page.index("Map of users")
    assert workflow.compare(known, out, ["popularity"]).results["models"].keys() == {"popularity"}
    assert "item_map" not in read_results(out / workflow.RESULTS)


def test_cold_items_are_found_by_their_metadata(tmp_path: Path) -> None:
    prepared, dataset = tmp_path / "prepared", generate(N_USERS, N_ITEMS)
    assert dataset.items is not None
    kinds = dataset.items.assign(kind=[f"kind {item % 3}" for item in range(len(dataset.items))])
    prepare(replace(dataset, items=kinds), prepared, Options(split="cold-items"))
    compared = workflow.compare(prepared, tmp_path / "report", ["popularity", "bpr"], params={"bpr": SMALL["bpr"]})
    entries = compared.results["models"]
    assert list(entries) == ["popularity", "bpr"]
    assert compared.results["protocol"]["split"] == "cold-items"
    workflow.train(prepared, tmp_path / "model", "popularity")
    results = workflow.evaluate(tmp_path / "model", prepared)
    assert results["models"]["Popularity"]["metrics"] == {
        metric: entries["popularity"]["metrics"][metric] for metric in results["models"]["Popularity"]["metrics"]
    }


def test_compare_says_who_cannot_take_part(tmp_path: Path, strong: Path) -> None:
    results = workflow.compare(strong, tmp_path / "report", ["popularity", "bpr"]).results
    assert list(results["models"]) == ["popularity"]
    assert "cannot fold in new users" in results["refused"]["bpr"]


@pytest.mark.parametrize(
    ("names", "params", "message"),
    [
        ([], {}, "models is empty; expected at least one"),
        (["popularity", "alss"], {}, "model is 'alss'; expected one of popularity, als, "),
        (
            ["popularity"],
            {"als": {"factors": 4}},
            "params .--set. has settings of als, .* not among those compared: popularity",
        ),
        (["als"], {"als": {"factor": 4}}, "als has no hyperparameter 'factor'; it has factors, "),
        (["als"], {"als": {"factors": 0}}, "factors is 0; expected"),
        (["multvae"], {"multvae": {"preset": "best"}}, "preset is 'best'; multvae has "),
    ],
)
def test_compare_refuses_before_it_fits(
    tmp_path: Path, strong: Path, names: list[str], params: dict[str, dict[str, Any]], message: str
) -> None:
    with pytest.raises(ParameterError, match=message):
        workflow.compare(strong, tmp_path / "report", names, params=params)
    assert list(tmp_path.iterdir()) == []


def test_out_is_checked_before_the_work(tmp_path: Path) -> None:
    """The data do not exist, so the first thing that is refused is what is checked first."""
    file = tmp_path / "file"
    file.write_text("mine")
    nowhere = tmp_path / "nowhere"
    with pytest.raises(ArtifactError, match="file exists and is not a directory"):
        workflow.train(nowhere, file, "popularity")
    with pytest.raises(ArtifactError, match="file is not a directory that can be written to"):
        workflow.train(nowhere, file / "model", "popularity")
    with pytest.raises(ArtifactError, match="file exists and is not a directory"):
        workflow.compare(nowhere, file, ["popularity"])
    with pytest.raises(ArtifactError, match="file is not a directory that can be written to"):
        workflow.compare(nowhere, file / "report", ["popularity"])
    with pytest.raises(ArtifactError, match="exists and holds something else"):
        workflow.compare(nowhere, tmp_path, ["popularity"])
    assert file.read_text() == "mine"


def test_a_study_stands_beside_its_model(strong: Path, tmp_path: Path) -> None:
    for out in ("a?b", "{a}"):
        with pytest.raises(ParameterError, match="expected a path without"):
            workflow.tune(strong, tmp_path / out, "ease", trials=1)
    assert not list(tmp_path.iterdir())
    workflow.tune(strong, tmp_path / "new" / "folder" / "ease", "ease", trials=1)
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == ["ease", "ease.study.db"]


def test_a_report_is_not_written_among_files_of_others(strong: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    workflow.compare(strong, out, ["popularity"])
    workflow.compare(strong, out, ["popularity"])
    (out / "notes.txt").write_text("mine")
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    with pytest.raises(ArtifactError, match=r"report exists and holds something else \(notes\.txt\)"):
        workflow.compare(strong, out, ["popularity"])
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before


def test_training_writes_through_a_link(strong: Path, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to("models/first")
    for _ in range(2):
        workflow.train(strong, tmp_path / "current", "popularity")
        assert (tmp_path / "current").is_symlink()
        assert registry.load(tmp_path / "models" / "first").manifest["class"] == "Popularity"


@pytest.mark.parametrize("name", ["popularity", "als", "multvae", "blend"])
def test_train_on_all(tmp_path: Path, strong: Path, name: str) -> None:
    out, prepared = tmp_path / "model", read_prepared(strong)
    lines = workflow.train(strong, out, name, params=SMALL.get(name), seed=4, on="all")
    assert lines[1].startswith("validation: recall@20 ")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    artifact = registry.load(out)
    everything = read_everything(prepared)
    assert artifact.model.fitted_on(everything.user_items)
    assert artifact.manifest["data"]["fitted_on"] == "all"
    assert artifact.manifest["data"]["split_sha256"] == prepared.identity["split_sha256"]
    assert set(artifact.manifest["metrics"]) == {"validation"}
    user = str(prepared.split.test.user_ids[0])
    assert len(inference.recommend(out, user=user, n=5).items) == 5
    with pytest.raises(ArtifactError, match="was fitted on everything, so it has seen every test user"):
        workflow.evaluate(out, strong)


def test_sides_to_train_on(tmp_path: Path, strong: Path) -> None:
    with pytest.raises(ParameterError, match="on is 'test'; expected one of train, all"):
        workflow.train(strong, tmp_path / "model", "popularity", on="test")
