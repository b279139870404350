"""New items from a file: in the list of one user and in the lists of everybody."""

import json
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
from typer.testing import CliRunner

from recvae import create
from recvae.cli.main import app
from recvae.errors import ArtifactError, DataError, ParameterError
from recvae.inference.batch_recommender import BatchRecommender, _make_ranker
from recvae.inference.bulk import recommend_everybody
from recvae.inference.recommend import recommend
from recvae.models import registry
from tests.contracts import random_interactions

N_USERS, N_ITEMS = 60, 30


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reading") / "model"
    items = pd.DataFrame(
        {
            "item_id": range(N_ITEMS),
            "genre": [["Drama", "Comedy|Crime", "Crime"][i % 3] for i in range(N_ITEMS)],
            "released": [date(2000, 1, 1 + i) for i in range(N_ITEMS)],
        }
    )
    interactions = random_interactions(N_USERS, N_ITEMS)
    registry.save(create("ease").fit(interactions, show_progress=False), path, items=items)
    return path


@pytest.fixture(scope="module", params=["csv", "parquet"])
def new_items(request: pytest.FixtureRequest, model: Path) -> Path:
    table = pd.DataFrame(
        {
            "item_id": [100, 101, 102, 3],
            "title": ["A new film", None, None, "known"],
            "genre": ["Drama", "Crime|Comedy", None, "Drama"],
            "released": [date(2000, 1, 5), None, None, None],
        }
    )
    path = model.with_name(f"new.{request.param}")
    if request.param == "csv":
        table.to_csv(path, index=False)
    else:
        table.to_parquet(path, index=False)
    return path


def test_one_list(model: Path, new_items: Path) -> None:
    found = recommend(model, history=["1", "2", "101"], n=N_ITEMS, new_items=new_items)
    assert found.unknown == ["101"]
    listed = {item["id"]: item["title"] for item in found.items}
    assert listed[100] == "A new film"
    assert 101 not in listed  # it is in the history
    assert 102 not in listed  # nothing is known of it
    only = recommend(model, history=["1"], n=5, only=["100", "101", "4"], new_items=new_items)
    assert {item["id"] for item in only.items} == {100, 101, 4}
    new = recommend(model, history=["1"], n=5, filter={"item_id": [100, 5]}, new_items=new_items)
    assert {item["id"] for item in new.items} == {100, 5}


def test_lists_may_be_as_long_as_the_old_and_the_new_items(model: Path, new_items: Path) -> None:
    n = N_ITEMS + 2  # of the new items nothing is known of one
    found = recommend(model, history=["1"], n=n, new_items=new_items)
    assert len(found.items) == n - 1
    users = pa.table({"user_id": [7], "history": [[1]]})
    assert len(BatchRecommender(model, n, new_items=new_items)(users)["items"][0]) == n - 1
    for call in (
        lambda: recommend(model, history=["1"], n=n + 1, new_items=new_items),
        lambda: BatchRecommender(model, n + 1, new_items=new_items),
    ):
        with pytest.raises(ParameterError, match=f"n is {n + 1}; expected 1 to {n}"):
            call()


@pytest.mark.parametrize("ids", [pa.array([100.0, 3.0]), pa.array([100, 2**64 - 1], pa.uint64())])
def test_ids_of_any_number_type(model: Path, tmp_path: Path, ids: pa.Array) -> None:
    pa.parquet.write_table(pa.table({"item_id": ids, "genre": ["Drama", "Crime"]}), tmp_path / "new.parquet")
    found = recommend(model, history=["1"], n=N_ITEMS, new_items=tmp_path / "new.parquet")
    assert {item["id"] for item in found.items} == {0, *range(2, N_ITEMS), 100}


@pytest.mark.parametrize("ids", [[100.5, 7.0], [date(2024, 1, 1), date(2024, 1, 2)]])
def test_ids_that_the_model_cannot_have(model: Path, tmp_path: Path, ids: list[object]) -> None:
    pa.parquet.write_table(pa.table({"item_id": ids, "genre": ["Drama", "Crime"]}), tmp_path / "new.parquet")
    with pytest.raises(ParameterError, match="none with an id and a value like those of the model's"):
        recommend(model, history=["1"], new_items=tmp_path / "new.parquet")


def test_large_ids_of_users_and_items(model: Path, tmp_path: Path) -> None:
    ids = np.arange(N_ITEMS, dtype=np.uint64) * np.uint64(2**59) + np.uint64(1)
    registry.save(
        create("ease").fit(random_interactions(N_USERS, N_ITEMS), show_progress=False),
        tmp_path / "model",
        items=registry.load(model).items.assign(item_id=ids),
    )
    users = pa.table({"user_id": ids[:2], "history": [ids[:2], ids[-2:]]})
    lists = BatchRecommender(tmp_path / "model")(users)
    assert lists["n_unknown"].to_pylist() == [0, 0]
    pd.DataFrame({"item_id": [7], "genre": ["Drama"]}).to_parquet(tmp_path / "new.parquet")
    with_new = BatchRecommender(tmp_path / "model", N_ITEMS, new_items=tmp_path / "new.parquet")(users)
    assert "7" in with_new["items"][0].as_py()
    assert set(lists["items"][0].as_py()) <= {int(item) for item in with_new["items"][0].as_py()}


def test_the_command(model: Path, new_items: Path) -> None:
    options = ["--history", "1", "--only", "100", "--new-items", str(new_items), "--json"]
    answer = CliRunner().invoke(app, ["recommend", str(model), *options])
    assert answer.exit_code == 0, answer.output
    assert [item["id"] for item in json.loads(answer.output)["items"]] == [100]


def test_everybodys_lists_are_the_single_ones(model: Path, new_items: Path, tmp_path: Path) -> None:
    users = pd.DataFrame({"user_id": range(4), "history": [[1, 2], [5, 101], [], [100, 101]]})
    users.to_parquet(tmp_path / "users.parquet")
    out = tmp_path / "lists"
    recommend_everybody(model, tmp_path / "users.parquet", out, 12, new_items=new_items, show_progress=False)
    lists = pd.read_parquet(out)
    assert lists["n_unknown"].tolist() == [0, 1, 0, 2]
    for history, found in zip(users["history"][:2], lists["items"], strict=False):
        alone = recommend(model, history=list(map(str, history)), n=12, new_items=new_items)
        assert [item["id"] for item in alone.items] == found.tolist()
    assert {100, 101} & set(lists["items"][3]) == set()
    assert any({100, 101} & set(items) for items in lists["items"])
    again = recommend_everybody(model, tmp_path / "users.parquet", out, 12, new_items=new_items, show_progress=False)
    assert "complete already" in again[0]
    with pytest.raises(ArtifactError, match="lists of another new_items"):
        recommend_everybody(model, tmp_path / "users.parquet", out, 12, show_progress=False)


def test_new_ids_may_be_larger_than_the_models(model: Path, tmp_path: Path) -> None:
    known = registry.load(model)
    items = known.items.assign(item_id=known.items["item_id"].astype("int32"))
    registry.save(known.model, tmp_path / "model", items=items)
    pd.DataFrame({"item_id": [2**40], "genre": ["Drama"]}).to_csv(tmp_path / "new.csv", index=False)
    stage = BatchRecommender(tmp_path / "model", 30, new_items=tmp_path / "new.csv")
    lists = stage(pa.table({"user_id": [1], "history": [[1, 2]]}))
    assert 2**40 in lists["items"][0].as_py()


def test_a_changed_file_is_read_again(model: Path, tmp_path: Path) -> None:
    users = pa.table({"user_id": [1], "history": [[1, 2]]})
    for item in (100, 200):
        pd.DataFrame({"item_id": [item], "genre": ["Drama"]}).to_csv(tmp_path / "new.csv", index=False)
        (listed,) = BatchRecommender(model, N_ITEMS, new_items=tmp_path / "new.csv")(users)["items"].to_pylist()
        assert [found for found in listed if found >= N_ITEMS] == [item]


def test_a_file_that_changes_during_a_run_is_refused(model: Path, tmp_path: Path) -> None:
    table = pd.DataFrame({"item_id": [100, 200], "genre": ["Drama", "Drama"]})
    table.to_csv(tmp_path / "new.csv", index=False)
    stage = BatchRecommender(model, N_ITEMS, new_items=tmp_path / "new.csv")
    table[:1].to_csv(tmp_path / "new.csv", index=False)
    _make_ranker.cache_clear()  # as in another process
    with pytest.raises(DataError, match="no longer the file that this run began with"):
        stage(pa.table({"user_id": [1], "history": [[1, 2]]}))


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"item_id": [1, 2], "genre": ["Drama", "Crime"]}, "2 items, all of which the model knows"),
        ({"item_id": [100], "genre": ["Western"]}, "none with an id and a value like those .*: genre, released"),
        ({"item_id": ["new"], "genre": ["Drama"]}, "1 new items, none with an id and a value"),
    ],
)
def test_files_without_new_items_are_refused(
    model: Path, tmp_path: Path, table: dict[str, list[object]], said: str
) -> None:
    pd.DataFrame(table).to_csv(tmp_path / "new.csv", index=False)
    for refuse in (
        lambda: recommend(model, history=["1"], new_items=tmp_path / "new.csv"),
        lambda: BatchRecommender(model, new_items=tmp_path / "new.csv"),
    ):
        with pytest.raises(ParameterError, match=said):
            refuse()


def test_a_missing_file_is_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="missing; expected a file of items"):
        BatchRecommender(model, new_items=tmp_path / "new.csv")
