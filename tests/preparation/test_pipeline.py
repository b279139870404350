"""Preparation: each source's defaults, what each option does, and what is refused before anything is written."""

from csv import QUOTE_NONE
from importlib.util import find_spec
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from recvae import workflow
from recvae.data.columns import Columns
from recvae.data.prepared import read_prepared
from recvae.datasets import Dataset
from recvae.datasets.recipes import Recipe
from recvae.datasets.synthetic import generate
from recvae.errors import ArtifactError, DataError, ParameterError, RecvaeError
from recvae.models import registry
from recvae.preparation.pipeline import Options, prepare

without_engine = pytest.mark.skipif(find_spec("ibis") is None, reason="the extra 'scale' is not installed")
each_backend = pytest.mark.parametrize("backend", [None, pytest.param("duckdb", marks=without_engine)])
N_USERS, N_ITEMS = 60, 50
LISTS = {"train.txt": range(6), "test.txt": range(6, 9)}
FIRST, DAY = pd.Timestamp("2020-01-01", tz="UTC"), pd.Timedelta(days=1)


@pytest.fixture(scope="module")
def interactions() -> pd.DataFrame:
    return generate(N_USERS, N_ITEMS).ratings


@pytest.fixture
def csv(tmp_path: Path, interactions: pd.DataFrame) -> Path:
    interactions.to_csv(tmp_path / "interactions.csv", index=False)
    return tmp_path / "interactions.csv"


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    """A folder with the parts of a split: 30 users, six training and three test items each."""
    folder = tmp_path / "toy"
    folder.mkdir()
    for name, offsets in LISTS.items():
        lines = (f"{user} {' '.join(str((user + offset) % 12) for offset in offsets)}\n" for user in range(30))
        (folder / name).write_text("".join(lines))
    return folder


def prepared(source: Any, out: Path, options: Options | None = None, **named: Any) -> tuple[list[str], dict[str, Any]]:
    """The lines for people, and the manifest."""
    lines = prepare(source, out, options or Options(), **named)
    return lines, read_prepared(out).manifest


def refused(error: type[RecvaeError], message: str, source: Any, out: Path, **options: Any) -> None:
    with pytest.raises(error, match=message):
        prepare(source, out, Options(**options))
    assert not out.exists()


def test_defaults_of_an_own_file(tmp_path: Path, csv: Path, interactions: pd.DataFrame) -> None:
    lines, manifest = prepared(csv, tmp_path / "out")
    assert manifest["filters"] == {"min_rating": None, "min_user_items": 5, "min_item_users": 0}
    assert manifest["protocol"] == {"split": "strong", "val_users": 6, "test_users": 6, "seed": 98765}
    assert manifest["counts"]["interactions"] == len(interactions)
    assert manifest["dataset"] == "interactions.csv"
    assert list(manifest["source"]["sha256"]) == ["interactions.csv"]
    assert lines[0] == f"interactions.csv: {len(interactions):,} rows"
    assert lines[1].startswith(
        "ratings look like stars (1 to 5) and every row counts as an interaction; --min-rating 4 "
    )
    assert [line.split(":")[0] for line in lines[2:5]] == ["train", "validation", "test"]


@each_backend
@pytest.mark.parametrize(
    ("ratings", "stars"),
    [
        ([1, 2, 5], True),
        ([0.5, 3.5, 4], True),
        ([1, 2, 7], False),
        ([1, 1, 1], False),
        ([1, 2.3, 5], False),
        ([0, 5], False),
    ],
)
def test_stars_are_noticed(tmp_path: Path, ratings: list[float], stars: bool, backend: str | None) -> None:
    frame = pd.DataFrame([(user, item) for user in range(30) for item in range(8)], columns=["user_id", "item_id"])
    frame["rating"] = [ratings[number % len(ratings)] for number in range(len(frame))]
    frame.to_csv(tmp_path / "counts.csv", index=False)
    lines, manifest = prepared(tmp_path / "counts.csv", tmp_path / "out", Options(backend=backend))
    assert any("--min-rating 4" in line for line in lines) == stars
    assert manifest["counts"]["interactions"] == len(frame)
    asked = prepare(tmp_path / "counts.csv", tmp_path / "asked", Options(min_rating=0, backend=backend))
    assert not any("--min-rating 4" in line for line in asked)


@each_backend
def test_titles_of_an_own_file(tmp_path: Path, csv: Path, backend: str | None) -> None:
    rows = "".join(f"{number},Film {number},{1900 + number}\n" for number in range(2, N_ITEMS + 4))
    (tmp_path / "items.csv").write_text(f"item_id,title,year\n{rows}")
    lines, manifest = prepared(csv, tmp_path / "out", Options(items=tmp_path / "items.csv", backend=backend))
    items = read_prepared(tmp_path / "out").items.set_index("item_id")
    known = items.index > 1
    assert items["title"][known].tolist() == [f"Film {number}" for number in items.index[known]]
    assert items["year"][known].tolist() == [1900 + number for number in items.index[known]]
    surplus = N_ITEMS + 2 - known.sum()
    missing = "; 1 items have no row" if 1 in items.index else ""
    expected = f"items: item_id, title, year of {known.sum()} of {len(items)} items{missing}"
    assert lines[-1] == f"{expected}; {surplus} rows are of other items"
    assert set(manifest["source"]["sha256"]) == {"interactions.csv", "items.csv"}


def test_a_file_of_items_is_read_before_the_source(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("title\nA film\n")
    with pytest.raises(DataError, match=r"items.csv has no column 'item_id'; it has: title"):
        prepare("nowhere.csv", tmp_path / "out", Options(items=tmp_path / "items.csv"))


def test_a_tenth_of_the_users_is_at_least_one(tmp_path: Path, interactions: pd.DataFrame) -> None:
    few = Dataset("few", interactions[interactions["user_id"] <= 7], None, "here", {}, Recipe("few"))
    assert prepared(few, tmp_path / "out")[1]["protocol"]["val_users"] == 1


def test_the_sources_own_protocol_is_the_default(tmp_path: Path, interactions: pd.DataFrame) -> None:
    recipe = Recipe("theirs", citation="A. Author", min_rating=3.0, min_user_items=2, val_users=4, test_users=7)
    _, manifest = prepared(Dataset("theirs", interactions, None, "here", {}, recipe), tmp_path / "out")
    assert (manifest["filters"]["min_rating"], manifest["filters"]["min_user_items"]) == (3.0, 2)
    assert (manifest["protocol"]["val_users"], manifest["protocol"]["test_users"]) == (4, 7)
    assert manifest["source"]["citation"] == "A. Author"


def test_options_come_before_the_sources_protocol(tmp_path: Path, interactions: pd.DataFrame) -> None:
    recipe = Recipe("theirs", min_rating=3.0, min_user_items=2, val_users=4, test_users=7)
    options = Options(min_rating=0.0, min_user_items=0, min_item_users=3, val_users=2, test_users=3, seed=5)
    _, manifest = prepared(Dataset("theirs", interactions, None, "here", {}, recipe), tmp_path / "out", options)
    assert manifest["filters"] == {"min_rating": 0.0, "min_user_items": 0, "min_item_users": 3}
    assert manifest["protocol"] == {"split": "strong", "val_users": 2, "test_users": 3, "seed": 5}


def test_movielens_by_name(tmp_path: Path, data_dir: Path) -> None:
    lines, manifest = prepared("ml-100k", tmp_path / "out", data_dir=data_dir)
    assert manifest["filters"] == {"min_rating": 4.0, "min_user_items": 5, "min_item_users": 0}
    assert manifest["protocol"] == {"split": "strong", "val_users": 100, "test_users": 100, "seed": 98765}
    assert manifest["counts"]["rows"] == 100_000
    assert read_prepared(tmp_path / "out").items["title"].notna().all()
    assert "test: 100 users" in lines[-2]


@pytest.mark.parametrize(
    ("name", "validation_users", "test_users"), [("lastfm", 1_837, 1_858), ("citeulike", 5_537, 5_550)]
)
def test_lists_with_validation_by_name(
    tmp_path: Path, data_dir: Path, name: str, validation_users: int, test_users: int
) -> None:
    _, manifest = prepared(name, tmp_path / "out", data_dir=data_dir)
    assert manifest["protocol"] == {"split": "given"}
    assert manifest["counts"]["validation_users"] == validation_users
    assert manifest["counts"]["test_users"] == test_users


def test_columns_of_an_own_file(tmp_path: Path, interactions: pd.DataFrame) -> None:
    renamed = interactions.rename(columns={"user_id": "who", "item_id": "what", "rating": "stars"})
    renamed.to_csv(tmp_path / "interactions.tsv", index=False, sep="\t")
    options = Options(columns=Columns("who", "what", "stars"))
    _, manifest = prepared(tmp_path / "interactions.tsv", tmp_path / "out", options)
    assert manifest["counts"]["rows"] == len(interactions)


@pytest.mark.parametrize("name", ["user", "item", "rating", "timestamp", "weight", "event"])
def test_columns_of_folders_and_known_data_sets_are_fixed(tmp_path: Path, lists: Path, name: str) -> None:
    for source, message in (
        (
            lists,
            r"_column is 'w', but .*toy is a folder, whose columns are fixed; leave it out, or name the file in it",
        ),
        ("ml-100k", "_column is 'w', but ml-100k is a known data set, whose columns are fixed; leave it out"),
    ):
        refused(ParameterError, name + message, source, tmp_path / "out", columns=Columns(**{name: "w"}))


def test_the_column_of_ids_is_named_for_a_file_of_items_beside_a_folder(tmp_path: Path, lists: Path) -> None:
    (tmp_path / "items.csv").write_text("film,title\n3,A film\n")
    options = Options(items=tmp_path / "items.csv", columns=Columns(item="film"))
    lines, _ = prepared(lists, tmp_path / "out", options)
    assert lines[-1] == "items: item_id, title of 1 of 12 items; 11 items have no row"


@each_backend
@pytest.mark.parametrize("quotes", [True, False])
def test_lines_that_an_open_quote_takes_in_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interactions: pd.DataFrame, backend: str | None, quotes: bool
) -> None:
    table = interactions[["user_id", "item_id"]].assign(title="A film")
    table.loc[[2, 4], "title"] = ['"Quoted"', '5" pipe']
    if quotes:
        table.loc[[12, 50], "title"] = ['"Unclosed', '"end']
    table.to_csv(tmp_path / "stray.tsv", sep="\t", index=False, quoting=QUOTE_NONE)
    said, _ = prepared(tmp_path / "stray.tsv", tmp_path / "out", Options(backend=backend))
    assert said[0].endswith(f": {len(interactions) - 38 * quotes:,} rows")
    assert said[1].startswith("38 lines are no rows: they are inside quoted fields, or") == quotes
    if backend is None:
        monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO((tmp_path / "stray.tsv").read_bytes())))
        assert prepared("-", tmp_path / "piped")[0][1] == said[1]


def test_lists_come_split_and_without_ratings(tmp_path: Path, lists: Path) -> None:
    lines, manifest = prepared(lists, tmp_path / "out")
    assert manifest["filters"] == {"min_rating": None, "min_user_items": 0, "min_item_users": 0}
    assert manifest["protocol"] == {"split": "given", "val_users": 3, "seed": 98765}
    assert manifest["counts"]["test_held_out_interactions"] == 30 * len(LISTS["test.txt"])
    assert not any("min_rating" in line for line in lines)


def test_a_lowest_rating_for_lists_is_noted_and_has_no_effect(tmp_path: Path, lists: Path) -> None:
    lines, manifest = prepared(lists, tmp_path / "out", Options(min_rating=4))
    assert lines[1] == "no ratings in this source: min_rating 4 has no effect"
    assert manifest["filters"]["min_rating"] is None
    assert manifest["counts"]["interactions"] == manifest["counts"]["rows"]


def test_lists_may_be_split_otherwise(tmp_path: Path, lists: Path) -> None:
    _, manifest = prepared(lists, tmp_path / "out", Options(split="strong", val_users=4, test_users=5))
    assert manifest["protocol"] == {"split": "strong", "val_users": 4, "test_users": 5, "seed": 98765}


def test_cold_items(tmp_path: Path, lists: Path) -> None:
    lines, manifest = prepared(lists, tmp_path / "out", Options(split="cold-items", min_user_items=0))
    assert manifest["protocol"]["split"] == "cold-items"
    n_cold = manifest["protocol"]["cold_items"]
    assert f"cold: {n_cold} of these items, held out with all their interactions" in lines


def test_leave_last(tmp_path: Path, csv: Path) -> None:
    _, manifest = prepared(csv, tmp_path / "out", Options(split="leave-last"))
    assert manifest["protocol"] == {"split": "leave-last"}
    assert manifest["counts"]["test_held_out_interactions"] == manifest["counts"]["test_users"]


@pytest.fixture
def daily() -> pd.DataFrame:
    """Thirty users who interaction one item a day for ten days."""
    pairs = [(user, day) for user in range(30) for day in range(10)]
    return pd.DataFrame(
        {
            "user_id": [user for user, _ in pairs],
            "item_id": [(user + day) % 7 for user, day in pairs],
            "timestamp": [FIRST + day * DAY for _, day in pairs],
        }
    ).drop_duplicates(["user_id", "item_id"])


@pytest.mark.parametrize("kind", ["seconds", "dates"])
@pytest.mark.parametrize(
    ("val_time", "test_time"),
    [("2020-01-05", "2020-01-06"), ("2020-01-05T00:00:00Z", "2020-01-06T02:00:00+02:00")],
)
def test_temporal_by_dates(tmp_path: Path, daily: pd.DataFrame, kind: str, val_time: str, test_time: str) -> None:
    if kind == "seconds":
        daily["timestamp"] = daily["timestamp"].map(lambda time: int(time.timestamp()))
    daily.to_csv(tmp_path / "daily.csv", index=False)
    options = Options(split="temporal", val_time=val_time, test_time=test_time)
    _, manifest = prepared(tmp_path / "daily.csv", tmp_path / "out", options)
    counts = manifest["counts"]
    assert (
        counts["train_interactions"],
        counts["validation_held_out_interactions"],
        counts["test_held_out_interactions"],
    ) == (120, 30, 60)


def test_temporal_by_numbers(tmp_path: Path, daily: pd.DataFrame) -> None:
    daily["timestamp"] = (daily["timestamp"] - FIRST) // DAY - 2
    daily.to_csv(tmp_path / "daily.csv", index=False)
    options = Options(split="temporal", val_time="-0.5", test_time="3")
    _, manifest = prepared(tmp_path / "daily.csv", tmp_path / "out", options)
    counts = manifest["counts"]
    assert (
        counts["train_interactions"],
        counts["validation_held_out_interactions"],
        counts["test_held_out_interactions"],
    ) == (60, 90, 60)
    assert manifest["protocol"] == {"split": "temporal", "val_time": "-0.5", "test_time": "3.0"}


def test_temporal_by_default_holds_the_last_fifth_out(tmp_path: Path, csv: Path) -> None:
    _, manifest = prepared(csv, tmp_path / "out", Options(split="temporal", min_rating=0))
    counts = manifest["counts"]
    assert counts["train_interactions"] == pytest.approx(0.8 * counts["interactions"], abs=1)


@pytest.mark.parametrize(("name", "value"), [("val_time", "yesterday"), ("test_time", "2008-13-01")])
@pytest.mark.parametrize("kind", ["seconds", "dates"])
def test_a_time_that_is_none_is_refused(tmp_path: Path, daily: pd.DataFrame, kind: str, name: str, value: str) -> None:
    if kind == "seconds":
        daily["timestamp"] = daily["timestamp"].map(lambda time: int(time.timestamp()))
    daily.to_csv(tmp_path / "daily.csv", index=False)
    message = rf"{name} is '{value}'; expected a number or a date such as"
    refused(ParameterError, message, tmp_path / "daily.csv", tmp_path / "out", split="temporal", **{name: value})


def test_times_outside_the_data_are_refused(tmp_path: Path, csv: Path) -> None:
    options = {"split": "temporal", "val_time": "2030-01-01", "test_time": "2031-01-01"}
    refused(ParameterError, "no interactions from val_time on: .* data from", csv, tmp_path / "out", **options)


@pytest.fixture
def ml_20m(tmp_path: Path, interactions: pd.DataFrame) -> Path:
    """A folder of the right name and layout with far too little in it."""
    folder = tmp_path / "ml-20m"
    folder.mkdir()
    names = {"user_id": "userId", "item_id": "movieId"}
    interactions.rename(columns=names).to_csv(folder / "ratings.csv", index=False)
    movies = pd.DataFrame({"movieId": range(1, N_ITEMS + 1), "title": "Film", "genres": "Drama"})
    movies.to_csv(folder / "movies.csv", index=False)
    return folder


def test_movielens_20m_compares_itself_with_the_published_split(tmp_path: Path, ml_20m: Path) -> None:
    lines, manifest = prepared(ml_20m, tmp_path / "out", Options(val_users=6, test_users=6))
    assert manifest["dataset"] == "ml-20m"
    held_out, items = manifest["counts"]["test_held_out_interactions"], manifest["counts"]["train_items"]
    test, validation, vocabulary = lines[-3:]
    assert test.startswith(f"test_te.csv differs from the published one: rows {held_out:,}, expected 139,775; start ")
    assert test.endswith(", expected f67dd335d8b9a370d7658aaa920d8109")
    assert validation.startswith("validation_te.csv differs from the published one: rows ")
    assert f"rows {items:,}, expected 20,108" in vocabulary


def test_movielens_20m_under_another_split_has_nothing_to_compare(tmp_path: Path, ml_20m: Path) -> None:
    lines, _ = prepared(ml_20m, tmp_path / "out", Options(split="leave-last"))
    assert not any("published" in line for line in lines)


def test_other_data_are_not_compared_with_the_published_split(tmp_path: Path, csv: Path) -> None:
    assert not any("published" in line for line in prepared(csv, tmp_path / "out")[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"min_rating": 6},
            r"no interactions are left of {rows} rows: 0 duplicate rows, {rows} interactions below min rating",
        ),
        (
            {"min_rating": 0, "min_user_items": 900},
            r"0 interactions below min rating, {rows} interactions below min user items 900",
        ),
        (
            {"min_rating": 0, "min_item_users": 900},
            r"0 interactions below min rating, {rows} interactions below min item users 900",
        ),
    ],
)
def test_filters_that_leave_nothing_say_which_took_how_many(
    tmp_path: Path, csv: Path, interactions: pd.DataFrame, options: dict[str, Any], message: str
) -> None:
    refused(DataError, message.format(rows=f"{len(interactions):,}"), csv, tmp_path / "out", **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"val_users": 40, "test_users": 20}, "val_users 40 and test_users 20 leave nobody of 60 to train on"),
        ({"val_users": 0}, "val_users is 0; expected a whole number of at least 1"),
        ({"test_users": -3}, "test_users is -3; expected a whole number of at least 1"),
        ({"split": "given"}, "'given' but the source does not come split"),
        ({"split": "leave-last", "val_users": 3}, "val_users is 3, but split is 'leave-last', which takes none"),
        ({"split": "temporal", "test_users": 3}, "test_users is 3, .* which takes test_time, val_time"),
        ({"test_time": "2020-01-01"}, "test_time is 2020-01-01, .* 'strong', which takes test_users, val_users"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path: Path, csv: Path, options: dict[str, Any], message: str) -> None:
    refused(ParameterError, message, csv, tmp_path / "out", **options)


def test_more_users_to_validate_on_than_the_lists_have(tmp_path: Path, lists: Path) -> None:
    refused(ParameterError, "val_users is 31; expected 0 to 30", lists, tmp_path / "out", val_users=31)


def test_leave_last_without_times_names_the_option(tmp_path: Path, lists: Path) -> None:
    message = r"no timestamps; .* timestamp_column \(--timestamp-column\)"
    refused(ParameterError, message, lists, tmp_path / "out", split="leave-last")


def test_a_source_that_is_nowhere(tmp_path: Path) -> None:
    message = r"interactions.csv is neither a file, a folder nor a data set's name \(ml-100k, "
    refused(DataError, message, tmp_path / "interactions.csv", tmp_path / "out")


def test_a_foreign_directory_is_refused_before_the_source_is_read(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ArtifactError, match=r"holds something else \(mine.txt\); expected a new path"):
        prepare("nowhere.csv", tmp_path, Options())
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@each_backend
def test_a_model_saved_inside_an_earlier_directory_is_not_deleted(
    tmp_path: Path, csv: Path, backend: str | None
) -> None:
    prepare(csv, tmp_path / "out", Options())
    (tmp_path / "out" / "model").mkdir()
    (tmp_path / "out" / "model" / "weights").write_text("mine")
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    with pytest.raises(ArtifactError, match=r"holds files that its manifest does not name \(model\)"):
        prepare("nowhere.csv", tmp_path / "out", Options(backend=backend))
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == before


def test_columns_of_items_reach_the_artifact(tmp_path: Path, csv: Path) -> None:
    rows = "".join(f"{number},Film {number},{number / 2}\n" for number in range(1, N_ITEMS + 1))
    (tmp_path / "items.csv").write_text(f"item_id,title,price\n{rows}")
    prepare(csv, tmp_path / "data", Options(items=tmp_path / "items.csv"))
    workflow.train(tmp_path / "data", tmp_path / "model", "popularity")
    items = registry.load(tmp_path / "model").items
    assert items["title"].tolist() == [f"Film {number}" for number in items["item_id"]]
    assert items["price"].tolist() == [number / 2 for number in items["item_id"]]
