"""The stage for a batch of users, alone and inside Spark and Ray, each on a real local session."""

import shutil
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from scipy import sparse

from recvae import workflow
from recvae.datasets.synthetic import generate
from recvae.errors import DataError, ParameterError
from recvae.inference.batch_recommender import BatchRecommender
from recvae.inference.bulk import recommend_everybody
from recvae.models import registry
from recvae.models.linear.ease import EASE
from recvae.preparation.pipeline import Options, prepare

N_ITEMS = 40


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stage")
    prepare(generate(60, N_ITEMS), folder / "data", Options())
    workflow.train(folder / "data", folder / "model", "multvae", params={"epochs": 1, "hidden": 16, "latent": 8})
    return folder / "model"


@pytest.fixture(scope="module")
def users(model: Path) -> Path:
    """Some with a history, one without."""
    interactions = generate(90, N_ITEMS, seed=3).ratings
    histories = interactions.groupby("user_id")["item_id"].agg(list).rename("history").reset_index()
    histories["history"] = histories["history"].where(histories.index != 4, None)
    histories["user_id"] = histories["user_id"].map("user {:03}".format)
    histories.to_parquet(model.with_name("users.parquet"), index=False)
    return model.with_name("users.parquet")


@pytest.fixture(scope="module")
def lists(model: Path, users: Path) -> pd.DataFrame:
    """Return the lists that the command writes."""
    recommend_everybody(model, users, model.with_name("lists"), n=7, show_progress=False)
    return pd.read_parquet(model.with_name("lists"))


def assert_same(found: pd.DataFrame, lists: pd.DataFrame) -> None:
    found = found.sort_values("user_id", ignore_index=True)
    assert found.columns.tolist() == lists.columns.tolist()
    for name in ("user_id", "n_unknown"):
        assert found[name].tolist() == lists[name].tolist()
    assert [list(row) for row in found["items"]] == [list(row) for row in lists["items"]]
    for mine, theirs in zip(found["scores"], lists["scores"], strict=True):
        assert list(mine) == pytest.approx(list(theirs), rel=1e-5)


@pytest.mark.parametrize("histories", [[[], []], [None, None], [[None], []]])
def test_a_batch_without_a_history(model: Path, histories: list[Any]) -> None:
    """pandas cannot tell what such a column holds, yet there are popular items for it."""
    frame = pd.DataFrame({"user_id": [1, 2], "history": histories})
    (found,) = BatchRecommender(model, 3).in_pandas([frame])
    assert [len(items) for items in found["items"]] == [3, 3]
    assert list(found["items"][0]) == list(found["items"][1])


def test_a_batch_without_users(model: Path) -> None:
    (found,) = BatchRecommender(model).in_pandas([pd.DataFrame({"user_id": [], "history": []}, dtype=object)])
    assert len(found) == 0
    assert found.columns.tolist() == ["user_id", "items", "scores", "n_unknown"]


@pytest.mark.parametrize(
    ("users", "said"),
    [
        (pa.table({"user_id": ["ann"]}), "users has columns user_id; expected user_id and history"),
        (pa.table({"id": ["ann"], "history": [[1]]}), "users has columns id, history; expected user_id and history"),
        (pa.table({"user_id": [1], "history": ["1|2"]}), "history is string; expected a list of item ids"),
        (pa.table({"user_id": [1], "history": [[[1]]]}), "history is list<.*; expected a list of item ids"),
        ({"user_id": [1], "history": [[1]]}, "users is a dict; expected an Arrow table"),
    ],
)
def test_users_that_cannot_be(model: Path, users: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        BatchRecommender(model)(users)


def test_any_batches_give_what_the_command_writes(model: Path, users: Path, lists: pd.DataFrame) -> None:
    stage, table = BatchRecommender(model, 7), pa.parquet.read_table(users)
    tables = [stage(table[start : start + 13]) for start in range(0, len(table), 13)]
    assert_same(pa.concat_tables(tables).to_pandas(), lists)


def test_weights_of_histories(model: Path, tmp_path: Path) -> None:
    """By a list a user, or a row an interaction; the model folds them in as the library does."""
    loaded = registry.load(model)
    ids = loaded.items["item_id"].to_numpy()
    row = sparse.csr_matrix((np.array([9, 1, 1], np.float32), [2, 5, 7], [0, 3]), shape=(1, len(ids)))
    expected = ids[loaded.model.recommend(0, row, N=7)[0]].tolist()
    plain = BatchRecommender(model, 7)(pa.table({"user_id": [1], "history": [ids[[2, 5, 7]].tolist()]}))
    users = pa.table({"user_id": [1], "history": [ids[[5, 2, 7]].tolist()], "weights": [[1.0, 9.0, 1.0]]})
    for rules in (None, {"filter": {"item_id": {"ge": 0}}}):
        weighted = BatchRecommender(model, 7, rules)(users)
        assert weighted["items"][0].as_py() == expected
        assert weighted["scores"] != plain["scores"]
    interactions = pa.table({"user_id": [1, 1, 1], "item_id": ids[[5, 2, 7]], "weight": [1, 9, 1]})
    pa.parquet.write_table(interactions, tmp_path / "users.parquet")
    recommend_everybody(model, tmp_path / "users.parquet", tmp_path / "lists", n=7, show_progress=False)
    assert pd.read_parquet(tmp_path / "lists")["items"][0].tolist() == expected


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ([[1.0]], "weights has other lengths than history"),
        ([[1.0, -1.0]], "weights holds -1; expected numbers above 0"),
        ([[1.0, float("nan")]], "weights holds nan"),
        ([["a", "b"]], "expected a list of numbers"),
        ([1.0], "weights is double; expected a list of numbers"),
    ],
)
def test_wrong_weights_of_histories(model: Path, weights: list[Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        BatchRecommender(model, 3)(pa.table({"user_id": [1], "history": [[1, 2]], "weights": weights}))


def test_weights_that_float32_holds_in_part(model: Path) -> None:
    """The least ones leave their items in the history, large whole numbers are rounded, and no history has none."""
    stage = BatchRecommender(model, N_ITEMS - 2)
    ids = stage.item_ids[:2].to_pylist()
    for weights in ([1e-50, 1.0], [1, 2**25 + 1]):
        listed = stage(pa.table({"user_id": [1], "history": [ids], "weights": [weights]}))["items"][0].as_py()
        assert not {*ids} & {*listed}
    (found,) = stage.in_pandas([pd.DataFrame({"user_id": [1], "history": [None], "weights": [None]})])
    assert len(found["items"][0]) == N_ITEMS - 2


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ({"filters": {}}, "rules has 'filters'; expected filter, boost, cap or diversity"),
        ({"cap": 0}, "cap is 0; expected an object"),
        ({"filter": {"item_id": {1}}}, "rules cannot be kept"),
    ],
)
def test_wrong_rules(model: Path, rules: dict[str, Any], said: str) -> None:
    with pytest.raises(ParameterError, match=said):
        BatchRecommender(model, 3, rules)


def test_rules_are_kept_as_json_has_them(tmp_path: Path) -> None:
    """So that a run that goes on, or is repeated, finds those of the earlier one."""
    fitted = EASE(l2=1).fit(sparse.eye_array(4, format="csr", dtype=np.float32), show_progress=False)
    released = [date(2000 + i, 1, 1) for i in range(4)]
    registry.save(fitted, tmp_path / "model", items=pa.table({"item_id": range(4), "released": released}))
    pa.parquet.write_table(pa.table({"user_id": [1], "history": [[0]]}), tmp_path / "users.parquet")
    rules = {"filter": {"released": {"ge": date(2001, 5, 5)}, "item_id": (1, np.int64(2), 3)}, "diversity": 0}
    for _ in range(2):
        recommend_everybody(
            tmp_path / "model", tmp_path / "users.parquet", tmp_path / "lists", n=np.arange(5)[4], rules=rules
        )
    assert sorted(pd.read_parquet(tmp_path / "lists")["items"][0]) == [2, 3]


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    sql = pytest.importorskip("pyspark.sql", reason="pyspark is not installed: recvae's extra 'spark' brings it")
    if shutil.which("java") is None:
        pytest.skip("Spark needs java, which is not installed")
    settings = {
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.sql.shuffle.partitions": "2",
        "spark.sql.execution.arrow.maxRecordsPerBatch": "20",
        "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1",
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYSPARK_PYTHON", sys.executable)
        session = sql.SparkSession.builder.master("local[1]").config(map=settings).getOrCreate()
        session.sparkContext.setLogLevel("ERROR")
        yield session
        session.stop()


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning:pyspark", "ignore::FutureWarning")
def test_as_a_stage_of_spark(spark: Any, model: Path, users: Path, lists: pd.DataFrame, tmp_path: Path) -> None:
    """From Parquet to Parquet in two partitions, each of several batches."""
    stage = BatchRecommender(model, 7)
    schema = "user_id string, items array<bigint>, scores array<float>, n_unknown int"
    written = spark.read.parquet(str(users)).repartition(2).mapInPandas(stage.in_pandas, schema)
    written.write.parquet(str(tmp_path / "lists"))
    assert_same(pd.read_parquet(tmp_path / "lists"), lists)


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """Ray with so many nominal processors that an actor and the tasks beside it all find one."""
    ray = pytest.importorskip("ray", reason="Ray is not installed: recvae's extra 'ray' brings it")
    pytest.importorskip("ray.data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(num_cpus=4, include_dashboard=False, object_store_memory=100_000_000, log_to_driver=False)
        yield ray
        ray.shutdown()


@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_as_a_stage_of_ray(ray: Any, model: Path, users: Path, lists: pd.DataFrame, tmp_path: Path) -> None:
    """From Parquet to Parquet, where an actor loads the model once."""
    everybody = ray.data.read_parquet(str(users))
    written = everybody.map_batches(
        BatchRecommender,
        fn_constructor_args=(model, 7),
        batch_format="pyarrow",
        batch_size=20,
        compute=ray.data.ActorPoolStrategy(size=1),
    )
    written.write_parquet(str(tmp_path / "lists"))
    assert_same(pd.read_parquet(tmp_path / "lists"), lists)
