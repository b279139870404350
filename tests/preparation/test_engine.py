"""Preparing in an engine: the same directory, byte for byte, as in memory, and errors as clear."""

import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recvae.data.columns import Columns
from recvae.data.prepared import read_prepared
from recvae.errors import DataError, MissingDependencyError, ParameterError, RecvaeError
from recvae.preparation import pipeline, staging
from recvae.preparation.pipeline import Options, prepare
from recvae.preparation.weights import WeightOptions
from tests.http_service import Postgres

pytest.importorskip("ibis", reason="the extra 'scale' is not installed")

SPLITS = {
    "strong": Options(min_rating=2, val_users=6, test_users=7, seed=3),
    "strong, items too": Options(min_rating=3, min_user_items=3, min_item_users=4, val_users=5, test_users=5),
    "temporal": Options(min_rating=2, split="temporal"),
    "temporal by times": Options(min_rating=2, split="temporal", val_time="300", test_time="1970-01-01T00:06:40"),
    "leave-last": Options(min_rating=0, split="leave-last", min_user_items=0),
}


def table(seed: int = 0, n_users: int = 40, n_items: int = 25, text: bool = False) -> pd.DataFrame:
    """Half of all pairs, some of them several times with other ratings and times, in random order."""
    rng = np.random.default_rng(seed)
    users, items = np.nonzero(rng.random((n_users, n_items)) < 0.5)
    again = rng.choice(len(users), len(users) // 8)
    users, items = np.concatenate([users, users[again]]), np.concatenate([items, items[again]])
    frame = pd.DataFrame({"user_id": users * 7 - 20, "item_id": items + 1})
    frame["rating"] = rng.integers(1, 11, len(frame)) / 2
    frame["timestamp"] = rng.integers(0, 500, len(frame))
    if text:
        frame["user_id"] = frame["user_id"].map("ü{:02}".format)
        frame["item_id"] = frame["item_id"].map("Film, {}".format)
    return frame.sample(frac=1, random_state=seed, ignore_index=True)


def content(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(path.iterdir())}


def assert_same(source: str | Path, options: Options, backend: str, out: Path, like: Path | None = None) -> None:
    """Prepared in the engine and in memory, from `like` where the engine's source is a table."""
    one = prepare(like or source, out / "memory", options)
    other = prepare(source, out / "engine", replace(options, backend=backend))
    assert one[1:] == other[1:]
    found, expected = content(out / "engine"), content(out / "memory")
    if like:  # the manifests name their sources
        del found["manifest.json"], expected["manifest.json"]
    assert found == expected
    assert sorted(path.name for path in out.iterdir() if path.is_dir()) == ["engine", "memory"]


@pytest.mark.parametrize("split", SPLITS)
def test_a_csv_file(tmp_path: Path, split: str) -> None:
    table().to_csv(tmp_path / "interactions.csv", index=False)
    assert_same(tmp_path / "interactions.csv", SPLITS[split], "duckdb", tmp_path)


@pytest.mark.parametrize("split", ["strong", "leave-last"])
def test_ids_of_text(tmp_path: Path, split: str) -> None:
    table(text=True).to_csv(tmp_path / "interactions.tsv", index=False, sep="\t")
    assert_same(tmp_path / "interactions.tsv", SPLITS[split], "duckdb", tmp_path)


@pytest.mark.parametrize("split", ["strong", "leave-last"])
def test_timestamps_that_are_no_numbers_are_missing(tmp_path: Path, split: str) -> None:
    frame = table().astype({"timestamp": np.float64})
    twice = frame.duplicated(["user_id", "item_id", "rating"], keep=False).to_numpy()
    frame.loc[(np.arange(len(frame)) % 20 == 0) | twice & (np.arange(len(frame)) % 2 == 0), "timestamp"] = np.nan
    values = [pa.array(frame[name].to_numpy(), from_pandas=False) for name in frame]  # pandas would write NULL
    pa.parquet.write_table(pa.table(values, list(frame)), tmp_path / "interactions.parquet")
    if split == "strong":
        assert_same(tmp_path / "interactions.parquet", SPLITS[split], "duckdb", tmp_path)
        return
    with pytest.raises(RecvaeError) as in_memory:
        prepare(tmp_path / "interactions.parquet", tmp_path / "out", SPLITS[split])
    with pytest.raises(RecvaeError, match=re.escape(str(in_memory.value))):
        prepare(tmp_path / "interactions.parquet", tmp_path / "out", replace(SPLITS[split], backend="duckdb"))


def test_a_parquet_file_keeps_its_order(tmp_path: Path) -> None:
    table().to_parquet(tmp_path / "interactions.parquet", index=False)
    assert_same(tmp_path / "interactions.parquet", SPLITS["strong"], "duckdb", tmp_path)


@pytest.mark.parametrize("kind", ["str", "category", "object"])
def test_ids_of_a_parquet_file_stay_what_they_are(tmp_path: Path, kind: Any) -> None:
    frame = table()
    frame["user_id"] = frame["user_id"].map("{}".format).astype(kind)
    frame["item_id"] = frame["item_id"].map(" {} ".format).astype(kind)
    frame.to_parquet(tmp_path / "interactions.parquet", index=False)
    assert_same(tmp_path / "interactions.parquet", SPLITS["strong"], "duckdb", tmp_path)


def test_columns_by_other_names_and_without_ratings(tmp_path: Path) -> None:
    frame = table().rename(columns={"user_id": "who", "item_id": "what"}).drop(columns="rating")
    frame.to_csv(tmp_path / "interactions.csv", index=False)
    options = replace(SPLITS["strong"], columns=Columns("who", "what"), min_rating=None)
    assert_same(tmp_path / "interactions.csv", options, "duckdb", tmp_path)


@pytest.mark.parametrize("times", [[7.5], ["", 3], [" 12 ", 3]])
def test_times_that_are_no_whole_numbers_or_missing(tmp_path: Path, times: list[Any]) -> None:
    frame = table()
    frame["timestamp"] = [times[number % len(times)] for number in range(len(frame))]
    frame.to_csv(tmp_path / "interactions.csv", index=False)
    assert_same(tmp_path / "interactions.csv", SPLITS["strong"], "duckdb", tmp_path)


DATES = {
    "days": ["2020-01-05", "2020-01-06", "2019-12-31", "2020-02-29"],
    "seconds": ["2020-01-05 10:00:00", "2020-01-06T11:00:07", "2019-12-31 23:59:59"],
    "minutes and days": ["2020-01-05 10:00", "2020-01-06", "2019-12-31 23:59"],
    "in UTC": ["2020-01-05T10:00:00Z", "2020-01-05T10:00:00+02:00", "2019-12-31T00:00:00-11:30"],
    "milliseconds": ["2020-01-05 10:00:00.123", "2020-01-06 11:00:00", "1969-12-31 23:59:59.5"],
    "nanoseconds in UTC": ["2020-01-05T10:00:00.123456789Z", "2020-01-06T11:00:00Z", "2020-01-05T10:00:00.1Z"],
    "nanoseconds of some": ["2020-01-05T10:00:00.123456789Z", "2020-01-06", "2020-01-07"],
    "with and without a zone": ["2020-01-05", "2020-01-06T11:00:00Z", "1066-10-14"],
    "compact": ["20200105T100000", "20200106", "2019"],
    "some missing": ["2020-01-05", "", "2019-12-31", "NA"],
    "some missing, by seconds": ["2020-01-05 10:00:00", "nan", " 2019-12-31 10:00:00"],
}


@pytest.mark.parametrize("kind", DATES)
@pytest.mark.parametrize("split", ["strong", "temporal", "temporal by days", "leave-last"])
def test_dates_as_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, split: str) -> None:
    options = SPLITS.get(split, Options(split="temporal", val_time="2020-01-01", test_time="2020-01-05T10:00:00.2Z"))
    monkeypatch.setattr(staging, "_ROWS_A_BATCH", 100)
    frame, dates = table(), DATES[kind]
    frame["timestamp"] = [dates[number * number % len(dates)] for number in range(len(frame))]
    frame.to_csv(tmp_path / "interactions.csv", index=False)
    outcomes = []
    for name, backend in (("memory", None), ("engine", "duckdb")):
        try:
            prepare(tmp_path / "interactions.csv", tmp_path / name, replace(options, backend=backend))
            outcomes.append(content(tmp_path / name))
        except ParameterError as error:
            outcomes.append({"error": str(error).encode()})
    assert outcomes[0] == outcomes[1]
    if split == "strong":
        assert "error" not in outcomes[0]


@pytest.mark.parametrize("kind", ["datetime64[ms]", "datetime64[ns]", "datetime64[us, UTC]", "date", "text"])
def test_dates_of_a_parquet_file(tmp_path: Path, kind: Any) -> None:
    frame = table()
    times = pd.to_datetime(frame["timestamp"] * 86_400, unit="s")
    if kind == "date":
        frame["timestamp"] = times.dt.date
    elif kind == "text":
        frame["timestamp"] = times.astype(str)
    else:
        frame["timestamp"] = (times.dt.tz_localize("UTC") if "UTC" in kind else times).astype(kind)
    frame.to_parquet(tmp_path / "interactions.parquet", index=False)
    assert_same(tmp_path / "interactions.parquet", SPLITS["temporal"], "duckdb", tmp_path)


@pytest.mark.parametrize("backend", [None, "duckdb"])
def test_ids_that_look_like_missing_numbers(tmp_path: Path, backend: str | None) -> None:
    frame = table(text=True)
    frame["user_id"] = frame["user_id"].replace({"ü08": "NA", "ü01": "nan", "ü15": "NaN", "ü22": "null"})
    frame["item_id"] = frame["item_id"].replace({"Film, 1": "NA", "Film, 2": "None"})
    frame.to_csv(tmp_path / "interactions.csv", index=False)
    prepare(tmp_path / "interactions.csv", tmp_path / "out", replace(SPLITS["leave-last"], backend=backend))
    found = read_prepared(tmp_path / "out")
    assert {"NA", "nan", "NaN", "null"} <= set(found.split.user_ids)
    assert {"NA", "None"} <= set(found.split.item_ids)


@st.composite
def csv_files(draw: st.DrawFn) -> str:
    ids = st.sampled_from(["1", "2", "10", "007", "a", "ä", " 3", "1e3", "-4", "99999999999999999999", "NA", "nan"])
    some = draw(st.lists(ids, min_size=1, max_size=4, unique=True))
    row = st.tuples(st.sampled_from(some), st.integers(0, 6), st.integers(0, 4), st.integers(0, 9))
    rows = draw(st.lists(row, min_size=1, max_size=60))
    return "user_id,item_id,rating,timestamp\n" + "".join(f"{u},{i},{r},{t}\n" for u, i, r, t in rows)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(csv_files(), st.sampled_from(["strong", "temporal", "leave-last"]))
def test_any_file_ends_alike(tmp_path_factory: pytest.TempPathFactory, text: str, split: str) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder / "interactions.csv").write_text(text)
    options = Options(min_rating=1, min_user_items=2, split=split)
    outcomes = []
    for name, backend in (("memory", None), ("engine", "duckdb")):
        try:
            prepare(folder / "interactions.csv", folder / name, replace(options, backend=backend))
            outcomes.append(content(folder / name))
        except RecvaeError as error:
            outcomes.append({type(error).__name__: str(error).encode()})
    assert outcomes[0] == outcomes[1]


def in_order(frame: pd.DataFrame, path: Path) -> Path:
    """Write a table in the order that an engine gives rows without an order: by user and by item."""
    frame.sort_values(["user_id", "item_id"], kind="stable").to_parquet(path, index=False)
    return path


def test_a_folder_of_parquet_files_needs_no_option(tmp_path: Path) -> None:
    frame, folder = table(), tmp_path / "in" / "interactions"
    folder.mkdir(parents=True)
    for number in range(3):
        frame[number::3].to_parquet(folder / f"{number}.parquet", index=False)
    like = in_order(frame, tmp_path / "in" / "whole.parquet")
    out = tmp_path / "out"
    assert_same(folder, SPLITS["strong"], "duckdb", out, like)
    prepare(folder, out / "again", SPLITS["strong"])
    assert content(out / "again") == content(out / "engine")


def test_files_of_a_folder_need_not_have_the_same_columns(tmp_path: Path) -> None:
    frame, folder = table(), tmp_path / "interactions"
    folder.mkdir()
    lacking = ["timestamp", "rating"]
    for first, second in ((frame, frame.drop(columns=lacking)), (frame.drop(columns=lacking), frame)):
        first[:300].to_parquet(folder / "a.parquet", index=False)
        second[300:].to_parquet(folder / "b.parquet", index=False)
        n_missing = 300 if "rating" not in first else len(frame) - 300
        with pytest.raises(DataError, match=f"interactions: rating is missing or no number in {n_missing} rows"):
            prepare(folder, tmp_path / "out", SPLITS["strong"])
    frame.drop(columns=lacking).to_parquet(folder / "b.parquet", index=False)
    frame.drop(columns="rating").to_parquet(folder / "a.parquet", index=False)
    prepare(folder, tmp_path / "out", replace(SPLITS["strong"], min_rating=None))
    assert len(pd.read_parquet(tmp_path / "out" / "interactions.parquet")) > 0


def test_what_is_not_read_of_a_folder_is_said(tmp_path: Path) -> None:
    frame, folder = table(), tmp_path / "interactions"
    (folder / "day=1").mkdir(parents=True)
    frame.to_parquet(folder / "a.parquet", index=False)
    for name in ("_hidden.parquet", ".hidden.parquet", "day=1/b.parquet"):
        frame.to_parquet(folder / name, index=False)
    for name in ("b.csv", "c.csv", "_SUCCESS", "items.json"):
        (folder / name).write_text("")
    n_rows, others = prepare(folder, tmp_path / "out", SPLITS["strong"])[:2]
    assert n_rows == f"{folder} in duckdb: {len(frame):,} rows"
    assert others == "only *.parquet are read, not b.csv, c.csv, day=1 and 1 more"
    (folder / "a.parquet").unlink()
    with pytest.raises(DataError, match=r"interactions holds no data set; expected .*, or \*\.parquet directly in it"):
        prepare(folder, tmp_path / "other", replace(SPLITS["strong"], columns=Columns(rating="rating")))
    with pytest.raises(DataError, match="out is a recvae-data directory; expected a table or a data set"):
        prepare(tmp_path / "out", tmp_path / "other", SPLITS["strong"])


def test_what_is_too_large_for_memory_goes_to_an_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table().to_csv(tmp_path / "interactions.csv", index=False)
    size = (tmp_path / "interactions.csv").stat().st_size
    for free, where in ((None, ""), (7 * size, ""), (5 * size, " in duckdb")):
        monkeypatch.setattr(pipeline, "available_bytes", lambda free=free: free)
        assert prepare(tmp_path / "interactions.csv", tmp_path / "out", SPLITS["strong"])[0].startswith(
            f"interactions.csv{where}: "
        )


def test_work_in_memory_for_a_source_that_goes_to_an_engine_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table().to_csv(tmp_path / "interactions.csv", index=False)
    (tmp_path / "parts").mkdir()
    table().to_parquet(tmp_path / "parts" / "0.parquet")
    monkeypatch.setattr(pipeline, "MEMORY_A_TEXT_BYTE", 10**6)
    monkeypatch.setattr(pipeline, "available_bytes", lambda: 2 * 10**9)
    size = (tmp_path / "interactions.csv").stat().st_size / 1000
    for source, advice in (
        ("interactions.csv", rf"\S*interactions.csv takes about {size:.1f} GB, and 2.0 GB are free"),
        ("parts", r"put the files of \S*parts into one"),
    ):
        with pytest.raises(ParameterError, match=f"split is 'cold-items', which is made in memory; {advice}"):
            prepare(tmp_path / source, tmp_path / "out", Options(split="cold-items"))
        with pytest.raises(ParameterError, match=f"weights are made in memory; {advice}"):
            prepare(tmp_path / source, tmp_path / "out", Options(weights=WeightOptions(repeats="sum")))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("user_id,item_id\n1,2\n\n,3\n", r"interactions.csv line 4: user_id is missing"),
        ("user_id,item_id,rating\n1,2,\n", r"interactions.csv line 2: rating is missing"),
        ("user_id,item_id,rating\n1,2,3\n1,3,good\n", r"rating is 'good'; expected a number"),
        ("user_id,item_id,rating\n1,2,3\n1,3,inf\n", r"line 3: rating is inf; expected a number"),
        ("user_id,item_id\n1,2\n3\n", r"1 columns; expected 2, as in the first line"),
        (
            "user_id,item_id,timestamp\n1,2,2020-01-01\n\n1,3,yesterday\n",
            "interactions.csv line 4: timestamp is 'yesterday'; expected a number or an ISO 8601 date",
        ),
        (
            "user_id,item_id,timestamp\n1,2,3\n1,3,2020-01-01x\n",
            "line 3: timestamp is '2020-01-01x'; expected a number or an ISO",
        ),
        ("user_id,movie\n1,2\n", "has no column 'item_id'"),
        ("user_id,item_id\n", "has no rows"),
        ("", "is empty"),
    ],
)
def test_a_file_that_cannot_be_read(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "interactions.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        prepare(tmp_path / "interactions.csv", tmp_path / "out", Options(backend="duckdb"))
    assert [path.name for path in tmp_path.iterdir()] == ["interactions.csv"]


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("ml-100k", Options(backend="duckdb"), "reads a file, a folder of Parquet files or a table: ml-100k"),
        (
            "interactions.csv",
            Options(backend="nowhere"),
            "backend is nowhere, which cannot be opened: expected duckdb or a URL",
        ),
        (
            "interactions.csv",
            Options(backend="postgres://me:secret@127.0.0.1:1/x"),
            "backend is postgres://me:\\*\\*\\*@127.0.0.1:1/x, which",
        ),
        ("interactions.csv", Options(backend="oracles://x"), "backend is oracles://x, which cannot be opened"),
        (
            "interactions",
            Options(backend="duckdb"),
            "interactions is neither a file, a folder nor a table of the backend",
        ),
        ("interactions.csv", Options(backend="duckdb", split="given"), "a backend reads no train.txt"),
        ("interactions.csv", Options(backend="duckdb", split="cold-items"), "made in memory; leave backend out"),
        ("interactions.csv", Options(backend="duckdb", val_users=40), "leave nobody"),
        (
            "interactions.csv",
            Options(backend="duckdb", min_rating=9),
            r"no interactions are left of .* below min rating 9",
        ),
    ],
)
def test_what_does_not_fit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, options: Options, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    table().to_csv("interactions.csv", index=False)
    with pytest.raises(RecvaeError, match=message):
        prepare(source, tmp_path / "out", options)
    assert [path.name for path in tmp_path.iterdir()] == ["interactions.csv"]


def test_what_the_engine_fails_at_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import recvae.preparation.engine_interactions

    table().to_csv(tmp_path / "interactions.csv", index=False)
    monkeypatch.setattr(
        recvae.preparation.engine_interactions,
        "_collapse_duplicates",
        lambda t: t.filter((t.user_id.cast("string") + "x").cast("int64") > 0),
    )
    with pytest.raises(DataError, match="backend duckdb failed: Conversion Error"):
        prepare(tmp_path / "interactions.csv", tmp_path / "out", Options(backend="duckdb"))
    assert [path.name for path in tmp_path.iterdir()] == ["interactions.csv"]


def test_without_ibis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table().to_csv(tmp_path / "interactions.csv", index=False)
    monkeypatch.setitem(__import__("sys").modules, "recvae.preparation.engine", None)
    monkeypatch.delattr("recvae.preparation.engine", raising=False)
    with pytest.raises(MissingDependencyError, match=r"install .*recvae\[scale\]"):
        prepare(tmp_path / "interactions.csv", tmp_path / "out", Options(backend="duckdb"))


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Spark session in this process, whose workers run this Python."""
    pytest.importorskip("pyspark", reason="the extra 'spark' is not installed")
    if not shutil.which("java"):
        pytest.skip("no java for a local Spark session")
    warehouse = tmp_path_factory.mktemp("spark")
    quick = {
        "spark.master": "local[1]",
        "spark.ui.enabled": "false",
        "spark.sql.shuffle.partitions": "2",
        "spark.default.parallelism": "1",
        "spark.sql.warehouse.dir": str(warehouse),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYSPARK_PYTHON", sys.executable)
        yield "pyspark://?" + "&".join(f"{name}={value}" for name, value in quick.items())


def test_spark(tmp_path: Path, spark: str) -> None:
    table(text=True).to_csv(tmp_path / "interactions.csv", index=False)
    assert_same(tmp_path / "interactions.csv", SPLITS["strong, items too"], spark, tmp_path)


@pytest.mark.parametrize("split", ["strong, items too", "temporal"])
def test_postgresql(tmp_path: Path, postgres: Postgres, split: str) -> None:
    import ibis

    frame, url = table(text=True), postgres.fresh().replace("postgresql+psycopg", "postgres")
    connection = ibis.connect(url)
    connection.create_table("interactions", frame, overwrite=True)
    connection.disconnect()
    like = in_order(frame, tmp_path / "whole.parquet")
    assert_same("interactions", SPLITS[split], url, tmp_path, like)
