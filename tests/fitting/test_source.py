"""Data of a search from every kind of source."""

import io
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from recvae.data.columns import Columns
from recvae.data.interactions import Interactions
from recvae.data.prepared import read_prepared
from recvae.datasets.synthetic import generate
from recvae.errors import DataError, ParameterError
from recvae.fitting.source import SplitData, UnsplittableData, open_source
from recvae.preparation.pipeline import Options, prepare
from recvae.preparation.weights import WeightOptions

SOURCE = generate(60, 40)
AUTO = Options(split="auto")


def opened(source: Any, folder: Path, options: Options = AUTO, items: Any = None) -> SplitData:
    data = open_source(source, folder / "data", options, items, lambda _: None)
    assert isinstance(data, SplitData)
    return data


@pytest.fixture
def file(tmp_path: Path) -> Path:
    SOURCE.ratings.to_csv(tmp_path / "plays.csv", index=False)
    return tmp_path / "plays.csv"


def test_file_table_and_interactions_give_the_same(tmp_path: Path, file: Path) -> None:
    text = pd.read_csv(file, dtype={"user_id": int, "item_id": int})
    sources = [file, str(file), text, Interactions.from_frame(SOURCE.ratings), SOURCE.ratings]
    digests = {opened(source, tmp_path / str(n)).prepared.identity["split_sha256"] for n, source in enumerate(sources)}
    assert len(digests) == 1


def test_lines_that_are_no_rows_are_told(tmp_path: Path) -> None:
    rows = "".join(f'{i % 8},{i % 5},"a\nb"\n' for i in range(40))
    (tmp_path / "reviews.csv").write_text(f"user_id,item_id,review\n{rows}")
    said: list[str] = []
    open_source(tmp_path / "reviews.csv", tmp_path / "data", AUTO, None, said.append)
    assert said[1].startswith("40 lines are no rows")


def test_columns_of_a_table(tmp_path: Path) -> None:
    table = SOURCE.ratings.rename(columns={"user_id": "who", "item_id": "what"})
    options = Options(split="auto", columns=Columns("who", "what"))
    assert opened(table, tmp_path, options).prepared.split.train.nnz > 0
    with pytest.raises(DataError, match=r"no column 'user_id'"):
        opened(table, tmp_path)


@pytest.mark.parametrize("source", [SOURCE, Interactions.from_frame(SOURCE.ratings)])
def test_columns_of_a_source_that_needs_none(tmp_path: Path, source: Any) -> None:
    for column in ("user", "event"):
        message = (
            f"{column}_column is 'who', but the source is of class {type(source).__name__}, whose columns are fixed"
        )
        with pytest.raises(ParameterError, match=message):
            opened(source, tmp_path, Options(split="auto", columns=Columns(**{column: "who"})))
    assert SOURCE.items is not None
    SOURCE.items.rename(columns={"item_id": "film"}).to_csv(tmp_path / "items.csv", index=False)
    data = opened(source, tmp_path, Options(split="auto", columns=Columns(item="film")), tmp_path / "items.csv")
    assert data.prepared.items["title"].notna().all()


@pytest.mark.parametrize("n_users", [60, 2])
def test_weights_stay(tmp_path: Path, n_users: int) -> None:
    weighted = SOURCE.ratings[SOURCE.ratings["user_id"] <= n_users]
    weighted = weighted.assign(weight=weighted["rating"] / 2).drop(columns="timestamp")
    data = open_source(
        Interactions.from_frame(weighted, Columns(weight="weight")), tmp_path / "data", AUTO, None, lambda _: None
    )
    interactions = data.prepared.read_interactions() if isinstance(data, SplitData) else data.interactions
    assert interactions.weight is not None
    assert sorted(interactions.weight) == sorted(weighted["weight"])


@pytest.mark.parametrize("columns", [[], ["rating"], ["part"]], ids=str)
@pytest.mark.parametrize("repeats", ["sum", "once"])
def test_interactions_keep_the_rows_of_repeated_pairs(tmp_path: Path, columns: list[str], repeats: str) -> None:
    """Weights in training are of the rows before the split's end only, as those of the table itself."""
    generator = np.random.default_rng(0)
    n = 2000
    table = pd.DataFrame({name: generator.integers(0, 30, n) for name in ("user_id", "item_id")})
    table = table.assign(timestamp=generator.integers(0, 500, n), weight=generator.integers(1, 9, n).astype(float))
    made = {"rating": generator.integers(1, 6, n).astype(float), "part": generator.integers(0, 3, n)}
    table = table.assign(**{name: made[name] for name in columns})
    options = Options(split="given" if "part" in columns else "temporal", weights=WeightOptions(repeats=repeats))
    interactions = Interactions.from_frame(table, Columns(weight="weight"), sum_repeats=repeats == "sum")
    from_table = opened(table, tmp_path / "1", replace(options, columns=Columns(weight="weight"))).prepared
    from_interactions = opened(interactions, tmp_path / "2", replace(options, weights=WeightOptions())).prepared
    assert from_table.identity == from_interactions.identity
    assert from_table.split.train.sum() < from_table.read_interactions().user_items.sum()
    if repeats == "once":
        with pytest.raises(ParameterError, match="repeats is 'sum', but these Interactions"):
            opened(interactions, tmp_path / "3", replace(options, weights=WeightOptions(repeats="sum")))


def test_standard_input(tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(file.read_bytes())))
    assert opened("-", tmp_path).prepared.manifest["dataset"] == "standard input"
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(ParameterError, match="standard input is closed"):
        opened("-", tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_pipe(tmp_path: Path, file: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(file.read_bytes(),))
    writer.start()
    digest = opened(tmp_path / "pipe", tmp_path).prepared.identity["split_sha256"]
    writer.join()
    assert digest == opened(file, tmp_path).prepared.identity["split_sha256"]


@pytest.mark.parametrize("given", ["path", "text", "prepared"])
def test_a_prepared_directory_keeps_its_own_split(tmp_path: Path, given: str) -> None:
    prepare(SOURCE, tmp_path / "mine", Options(split="leave-last"))
    path = tmp_path / "mine"
    source = {"path": path, "text": str(path), "prepared": read_prepared(path)}[given]
    assert opened(source, tmp_path).prepared.manifest["protocol"] == {"split": "leave-last"}
    assert not (tmp_path / "data").exists()
    with pytest.raises(ParameterError, match="items cannot be given here: a prepared directory has its own"):
        opened(source, tmp_path, items=SOURCE.items)
    for options, name in (
        (Options(min_rating=4), "min_rating"),
        (Options(columns=Columns(event="kind")), "event_column"),
        (Options(weights=WeightOptions(repeats="sum")), "repeats"),
    ):
        with pytest.raises(ParameterError, match=f"{name} cannot be given here: a prepared directory has its own"):
            opened(source, tmp_path, options)


@pytest.mark.parametrize("as_file", [True, False])
def test_titles(tmp_path: Path, file: Path, as_file: bool) -> None:
    assert SOURCE.items is not None
    items: Any = SOURCE.items
    if as_file:
        items = tmp_path / "items.csv"
        SOURCE.items.to_csv(items, index=False)
    data = opened(file, tmp_path, items=items)
    assert data.prepared.items["title"].notna().all()
    assert data.described is not None
    with pytest.raises(DataError, match="items has no column 'item_id'; it has: title"):
        opened(file, tmp_path, items=SOURCE.items[["title"]])


@pytest.mark.parametrize(
    ("items", "said"),
    [
        (pd.DataFrame({"item_id": [1, 2], "title": ["Alien", 1984]}), "items: .*'int' object.* column title .* type"),
        (pd.DataFrame([[1, "a", "b"]], columns=["item_id", "title", "title"]), "items: Duplicate column names .*title"),
    ],
)
def test_titles_that_no_file_can_hold(tmp_path: Path, file: Path, items: pd.DataFrame, said: str) -> None:
    with pytest.raises(DataError, match=said):
        opened(file, tmp_path, items=items)


def test_a_backend(tmp_path: Path, file: Path) -> None:
    pytest.importorskip("ibis", reason="the extra 'scale' is not installed")
    options = Options(split="auto", backend="duckdb")
    assert opened(file, tmp_path, options).prepared.split.train.nnz > 0
    with pytest.raises(ParameterError, match="backend is duckdb; expected a file"):
        opened(SOURCE.ratings, tmp_path, options)


def table(n_users: int, n_items: int) -> pd.DataFrame:
    users = np.repeat(np.arange(n_users), n_items)
    return pd.DataFrame({"user_id": users, "item_id": np.tile(np.arange(n_items), n_users)})


def test_data_of_which_nothing_can_be_held_out(tmp_path: Path) -> None:
    data = open_source(table(2, 8), tmp_path / "data", AUTO, None, lambda _: None)
    assert isinstance(data, UnsplittableData)
    assert "leave nobody of 2" in data.reason
    assert len(data.interactions) == 16


@pytest.mark.parametrize(
    ("n_users", "n_items", "reason"),
    [(1, 8, "the data have 1 user; expected at least two"), (20, 1, "the data have 1 item; expected at least two")],
)
def test_one_user_and_one_item(tmp_path: Path, n_users: int, n_items: int, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        opened(table(n_users, n_items), tmp_path, Options(split="auto", min_user_items=1))


def test_no_interactions_left(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"are left of 40 rows: .*40 interactions below min user items 5$"):
        opened(table(20, 2), tmp_path)


def test_a_table_of_items_is_named_as_one(tmp_path: Path) -> None:
    items = pd.DataFrame({"item_id": [1, 1], "title": "x"})
    with pytest.raises(DataError, match=r"^items has item_id 1 more than once"):
        opened(SOURCE.ratings, tmp_path, items=items)
    sparse = pd.DataFrame({"item_id": [1, 2], "drama": pd.arrays.SparseArray([0, 1])})
    with pytest.raises(DataError, match=r"^items: Sparse pandas data"):
        opened(SOURCE.ratings, tmp_path, items=sparse)
