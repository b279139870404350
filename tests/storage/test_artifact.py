import errno
import hashlib
import json
import os
import shutil
import stat
import threading
from collections.abc import Callable
from datetime import date
from io import BytesIO
from pathlib import Path
from typing import Any, Never

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
from numpy.testing import assert_array_equal
from safetensors import SafetensorError

from recvae.errors import ArtifactError, NotFittedError, ParameterError
from recvae.memory import peak_memory
from recvae.models import registry
from recvae.models.autoencoders.multvae import MultVAE
from recvae.models.popularity import Popularity
from tests.contracts import N_ITEMS, random_interactions
from tests.contracts import one_thread as one_thread

MODEL, ITEMS, USERS, MANIFEST = "model.safetensors", "items.parquet", "users.parquet", "manifest.json"
State = dict[str, np.ndarray[Any, Any]]


def small(**options: Any) -> MultVAE:
    model = MultVAE(**{"hidden": 6, "latent": 4, "epochs": 1, **options})
    return model.fit(random_interactions(), show_progress=False)


def catalogue() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "item_id": [f"id-{number}" for number in range(N_ITEMS)],
            "title": ["Amélie"] * N_ITEMS,
            "year": range(N_ITEMS),
        }
    )


def members() -> pd.DataFrame:
    return pd.DataFrame({"user_id": ["ann", "bob"], "history": [[0, 3], [7]]})


@pytest.fixture(scope="module")
def model() -> MultVAE:
    return small()


@pytest.fixture(scope="module")
def original(model: MultVAE, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("artifacts") / "model"
    registry.save(model, path, items=catalogue(), users=members(), data={"source": "here"}, metrics={"ndcg@5": 0.25})
    return path


@pytest.fixture
def saved(original: Path, tmp_path: Path) -> Path:
    """An artifact to damage."""
    return Path(shutil.copytree(original, tmp_path / "saved"))


def refused(path: Path, *, frozen: bool = True) -> str:
    """The error's text without the path, which holds the test's name; also with `frozen` there is an error."""
    with pytest.raises(ArtifactError) as error:
        registry.load(path)
    if frozen:
        with pytest.raises(ArtifactError):
            registry.load(path, frozen=True)
    return str(error.value).replace(str(path), path.name)


def edit(path: Path, **fields: Any) -> None:
    manifest = json.loads((path / MANIFEST).read_text())
    (path / MANIFEST).write_text(json.dumps(manifest | fields))


def set_hyperparameters(path: Path, **values: Any) -> None:
    edit(path, hyperparameters=json.loads((path / MANIFEST).read_text())["hyperparameters"] | values)


def reseal(path: Path) -> None:
    """Make the checksums true again, so that only what comes after them can refuse."""
    names = [file.name for file in path.iterdir() if file.name != MANIFEST]
    edit(path, sha256={name: hashlib.sha256((path / name).read_bytes()).hexdigest() for name in names})


def rewrite(path: Path, change: Callable[[State], State]) -> None:
    safetensors.numpy.save_file(change(safetensors.numpy.load_file(path / MODEL)), path / MODEL)
    reseal(path)


def contents(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_everything_comes_back(original: Path, model: MultVAE) -> None:
    loaded = registry.load(str(original))
    assert isinstance(loaded.model, MultVAE)
    assert loaded.model.get_params() == model.get_params()
    assert_array_equal(loaded.model.score(random_interactions()), model.score(random_interactions()))
    pd.testing.assert_frame_equal(loaded.items, catalogue())
    assert loaded.users is not None
    assert loaded.users["user_id"].tolist() == ["ann", "bob"]
    assert [list(history) for history in loaded.users["history"]] == [[0, 3], [7]]
    manifest = loaded.manifest
    assert manifest["format"] == "recvae-model"
    assert manifest["class"] == "MultVAE"
    assert manifest["n_items"] == N_ITEMS
    assert manifest["data"] == {"source": "here"}
    assert manifest["metrics"] == {"ndcg@5": 0.25}
    assert manifest["versions"].keys() == {"recvae", "torch", "numpy", "scipy", "pandas"}
    assert manifest["sha256"].keys() == {MODEL, ITEMS, USERS}


def test_a_loaded_model_can_be_saved_and_trained_again(original: Path, model: MultVAE, tmp_path: Path) -> None:
    loaded = MultVAE.load(original)
    loaded.save(tmp_path / "again")
    assert (tmp_path / "again" / MODEL).read_bytes() == (original / MODEL).read_bytes()
    loaded.fit(random_interactions(), show_progress=False)
    assert_array_equal(loaded.score(random_interactions()), model.score(random_interactions()))


def test_without_items_their_indices_serve_as_ids(model: MultVAE, tmp_path: Path) -> None:
    model.save(tmp_path / "model")
    loaded = registry.load(tmp_path / "model")
    assert loaded.items["item_id"].tolist() == list(range(N_ITEMS))
    assert loaded.users is None


@pytest.mark.parametrize("items", [catalogue()[:-1], catalogue().drop(columns="item_id")])
def test_items_must_fit_the_model(items: pd.DataFrame, model: MultVAE, tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match=rf"^items has {len(items)} rows; expected {N_ITEMS}, one for each item"):
        registry.save(model, tmp_path / "model", items=items)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_saved_of_a_model_that_is_not_fitted(tmp_path: Path) -> None:
    with pytest.raises(NotFittedError, match="MultVAE is not fitted"):
        registry.save(MultVAE(), tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [MODEL, ITEMS, USERS])
@pytest.mark.parametrize("place", [0, 0.5, 1])
def test_a_flipped_bit(name: str, place: float, saved: Path) -> None:
    content = bytearray((saved / name).read_bytes())
    content[round(place * (len(content) - 1))] ^= 1
    (saved / name).write_bytes(content)
    assert f"{name} is damaged" in refused(saved)


@pytest.mark.parametrize("name", [MODEL, ITEMS, USERS])
@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_a_truncated_file(name: str, share: float, saved: Path) -> None:
    content = (saved / name).read_bytes()
    (saved / name).write_bytes(content[: int(len(content) * share)])
    assert f"{name} is damaged" in refused(saved)
    reseal(saved)
    assert f"{name} is not readable" in refused(saved)


@pytest.mark.parametrize("name", [MODEL, ITEMS, USERS])
def test_a_missing_file(name: str, saved: Path) -> None:
    (saved / name).unlink()
    assert f"has no {name}, which its manifest names" in refused(saved)


@pytest.mark.parametrize("name", [MODEL, ITEMS])
def test_a_file_that_the_manifest_does_not_name(name: str, saved: Path) -> None:
    (saved / name).unlink()
    reseal(saved)
    assert f"names no checksum for {name}" in refused(saved)


def test_a_missing_manifest_and_a_missing_directory(saved: Path) -> None:
    (saved / MANIFEST).unlink()
    assert f"saved has no {MANIFEST}; expected a recvae-model directory" in refused(saved)
    assert "absent is missing; expected a recvae-model directory" in refused(saved.parent / "absent")


def test_each_bit_of_the_manifest_may_flip(saved: Path) -> None:
    """Whatever damage does to the manifest, it loads as a model or is an `ArtifactError`."""
    whole = (saved / MANIFEST).read_bytes()
    outcomes = {"loaded": 0, "refused": 0}
    for place in range(0, len(whole), 7):
        content = bytearray(whole)
        content[place] ^= 1 << place % 8
        (saved / MANIFEST).write_bytes(content)
        for frozen in (False, True):
            try:
                registry.load(saved, frozen=frozen)
                outcomes["loaded"] += 1
            except ArtifactError:
                outcomes["refused"] += 1
    assert outcomes["refused"] > outcomes["loaded"] > 0


@pytest.mark.parametrize("content", ["", "no JSON", '{"format": "recvae-model"', "[" * 100_000])
def test_a_manifest_that_is_no_json(content: str, saved: Path) -> None:
    (saved / MANIFEST).write_text(content)
    assert f"{MANIFEST} is not readable JSON" in refused(saved)


@pytest.mark.parametrize("content", ["[]", "[1, 2]", "7", "null", "{}"])
def test_a_manifest_of_something_else(content: str, saved: Path) -> None:
    (saved / MANIFEST).write_text(content)
    assert f"{MANIFEST} does not describe a recvae-model" in refused(saved)


def test_an_unknown_version(saved: Path) -> None:
    edit(saved, format_version=3)
    assert "has format_version 3; this version of recvae reads 1 and 2" in refused(saved)


@pytest.mark.parametrize("name", ["os.system", "Recommender", "Autoencoder", "multvae", "", None, 3, ["MultVAE"], {}])
def test_an_unknown_class(name: Any, saved: Path) -> None:
    edit(saved, **{"class": name})
    message = refused(saved)
    assert f"holds a model of class {name!r}; known are " in message
    assert "MultVAE" in message


@pytest.mark.parametrize("given", [None, [], "latent=4", 3])
def test_hyperparameters_of_another_type(given: Any, saved: Path) -> None:
    edit(saved, hyperparameters=given)
    assert f"the manifest's hyperparameters are {given!r}; expected names and values" in refused(saved)


@pytest.mark.parametrize("entry", ["data", "metrics", "versions"])
def test_entries_of_another_type(entry: str, saved: Path) -> None:
    edit(saved, **{entry: None})
    assert f"the manifest's {entry} is None; expected an object" in refused(saved)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("no_such_parameter", 1),
        ("latent", "four"),
        ("latent", 10**12),
        ("hidden", [10**30]),
        ("hidden", {"a": 1}),
        ("dropout", 7),
        ("learning_rate", "fast"),
        ("metric", None),
        ("metric", "best"),
        ("encoder", ["plain"]),
        ("schedule", {}),
        ("seed", 0.5),
        ("self", 1),
    ],
)
def test_hyperparameters_that_do_not_fit_the_class(name: str, value: Any, saved: Path) -> None:
    set_hyperparameters(saved, **{name: value})
    message = refused(saved, frozen=False)
    assert "the manifest's hyperparameters do not fit MultVAE" in message
    assert name in message


@pytest.mark.parametrize("n_items", [N_ITEMS + 1, 0, -1, "25", None, [25]])
def test_a_number_of_items_that_lies(n_items: Any, saved: Path) -> None:
    edit(saved, n_items=n_items)
    assert f"n_items is {n_items!r} but the weights are not for as many items" in refused(saved)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"latent": 5}, "decoder.0.weight is float32 (6, 4); expected float32 (6, 5)"),
        ({"hidden": [7]}, "decoder.0.bias is float32 (6,); expected float32 (7,)"),
        ({"hidden": [6, 6]}, "decoder.1.bias is missing; expected float32 (6,)"),
        ({"hidden": []}, "decoder.0.bias is float32 (6,); expected none"),
        ({"encoder": "dense"}, "decoder.0.bias is float32 (6,); expected none"),
        ({"hidden": [100_000] * 6}, "decoder.0.bias is float32 (6,); expected float32 (100000,)"),
    ],
)
def test_hyperparameters_that_lie_about_shapes(values: dict[str, Any], named: str, saved: Path) -> None:
    set_hyperparameters(saved, **values)
    assert f"the weights do not fit the manifest: {named}" in refused(saved, frozen=False)


def test_a_tensor_too_many(saved: Path) -> None:
    rewrite(saved, lambda state: state | {"extra": np.zeros(3, dtype=np.float32)})
    assert "the weights do not fit the manifest: extra is float32 (3,); expected none" in refused(saved)


@pytest.mark.parametrize("name", ["output.weight", "encoder.input.bias"])
def test_a_tensor_too_few(name: str, saved: Path) -> None:
    rewrite(saved, lambda state: {key: array for key, array in state.items() if key != name})
    assert f"the weights do not fit the manifest: {name} is missing; expected float32 (" in refused(saved)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int32])
def test_a_tensor_of_another_type(dtype: type, saved: Path) -> None:
    rewrite(saved, lambda state: state | {"output.bias": state["output.bias"].astype(dtype)})
    assert f"output.bias is {np.dtype(dtype)} ({N_ITEMS},); expected float32 ({N_ITEMS},)" in refused(saved)


@pytest.mark.parametrize("change", [lambda counts: counts[:-1], lambda counts: counts.astype(np.int64), None])
def test_item_counts_that_do_not_fit(change: Any, saved: Path) -> None:
    def changed(state: State) -> State:
        counts = state.pop("item_counts")
        return state if change is None else state | {"item_counts": change(counts)}

    rewrite(saved, changed)
    assert "n_items is 25 but the weights are not for as many items" in refused(saved)


def test_items_that_do_not_fit(saved: Path) -> None:
    catalogue()[:-1].to_parquet(saved / ITEMS, index=False)
    reseal(saved)
    assert f"{ITEMS} has 24 rows; expected 25, one for each item" in refused(saved)
    catalogue().drop(columns="item_id").to_parquet(saved / ITEMS, index=False)
    reseal(saved)
    assert f"{ITEMS} has 25 rows; expected 25, one for each item, with an item_id" in refused(saved)


SOUND: dict[str, dict[str, list[Any]]] = {
    "items": {"item_id": [f"id-{i}" for i in range(N_ITEMS)]},
    "users": {"user_id": ["a"], "history": [[0]]},
}
BAD_ITEMS: dict[str, tuple[list[Any], str]] = {
    "an id twice": ([*range(N_ITEMS - 1), 0], "item_id 0 more than once"),
    "a missing id": ([*map(str, range(N_ITEMS - 1)), None], "1 rows without item_id"),
    "no number": ([*map(float, range(N_ITEMS - 1)), float("nan")], "1 rows without item_id"),
    "mixed ids": ([*range(N_ITEMS - 1), "x"], "expected ids of one type"),
    "numbers too large": ([*range(N_ITEMS - 1), 2**64], "expected ids of one type"),
    "tuples and numbers": ([*range(N_ITEMS - 1), (1, 2)], "expected ids of one type"),
}
BAD_USERS: dict[str, tuple[dict[str, list[Any]], str]] = {
    "no history": ({"user_id": ["a"]}, "has columns user_id; expected user_id and history"),
    "rows of items": ({"user_id": ["a"], "history": [[0]], "item_rows": [[0]]}, "has a column item_rows, as the file"),
    "a user twice": ({"user_id": ["a", "a"], "history": [[0], [1]]}, "user_id a more than once"),
    "a missing user": ({"user_id": ["a", None], "history": [[0], [1]]}, "1 rows without user_id"),
    "mixed users": ({"user_id": ["a", 3], "history": [[0], [1]]}, "expected ids of one type"),
    "too large": ({"user_id": ["a", "b"], "history": [[0], [50_000_000]]}, "item index 50000000; expected 0 to 24"),
    "one too large": ({"user_id": ["a", "b"], "history": [[0], [1, 25]]}, "item index 25; expected 0 to 24"),
    "negative": ({"user_id": ["a", "b"], "history": [[0], [-3]]}, "item index -3; expected 0 to 24"),
    "a missing index": ({"user_id": ["a", "b"], "history": [[0], [1, None]]}, "a missing item index"),
    "a missing history": ({"user_id": ["a", "b"], "history": [[0], None]}, "1 missing histories"),
    "fractions": ({"user_id": ["a"], "history": [[0.5]]}, "expected lists of item indices"),
    "texts": ({"user_id": ["a"], "history": [["0"]]}, "expected lists of item indices"),
    "no lists": ({"user_id": ["a"], "history": [0]}, "expected lists of item indices"),
}


@pytest.mark.parametrize("case", BAD_ITEMS)
@pytest.mark.parametrize("make", [list, lambda ids: pd.DataFrame({"item_id": ids})], ids=["list", "frame"])
def test_items_that_load_would_refuse_are_not_saved(case: str, make: Any, model: MultVAE, saved: Path) -> None:
    before = contents(saved)
    ids, message = BAD_ITEMS[case]
    with pytest.raises(ParameterError, match=message):
        model.save(saved, items=make(ids))
    assert contents(saved) == before


@pytest.mark.parametrize("case", BAD_USERS)
def test_users_that_load_would_refuse_are_not_saved(case: str, model: MultVAE, saved: Path) -> None:
    before = contents(saved)
    users, message = BAD_USERS[case]
    with pytest.raises(ParameterError, match=message):
        model.save(saved, users=pd.DataFrame(users))
    assert contents(saved) == before


@pytest.mark.parametrize("case", [case for case in BAD_USERS if case not in ("mixed users", "rows of items")])
def test_users_in_a_file_are_checked_every_one(case: str, saved: Path) -> None:
    users, message = BAD_USERS[case]
    pq.write_table(pa.table({"item_rows" if name == "history" else name: users[name] for name in users}), saved / USERS)
    reseal(saved)
    assert message in refused(saved)


@pytest.mark.parametrize("ids", [[0] * N_ITEMS, [None] * N_ITEMS])
def test_item_ids_in_a_file_are_checked(ids: list[Any], saved: Path) -> None:
    pq.write_table(pa.table({"item_id": pa.array(ids, pa.int64())}), saved / ITEMS)
    reseal(saved)
    assert "item_id" in refused(saved)


def test_tables_of_other_libraries_are_saved(model: MultVAE, tmp_path: Path) -> None:
    tables = {name: pa.table(columns) for name, columns in SOUND.items()}
    registry.save(model, tmp_path / "model", **tables)
    loaded = registry.load(tmp_path / "model")
    assert loaded.item_table["item_id"].to_pylist() == SOUND["items"]["item_id"]
    assert loaded.user_table is not None
    assert loaded.user_table["history"].to_pylist() == [[0]]


def to_polars(values: Any) -> Any:
    polars = pytest.importorskip("polars")
    return polars.from_pandas(values) if isinstance(values, pd.DataFrame) else polars.Series(values)


@pytest.mark.parametrize("make", [pd.Series, np.array, lambda ids: pa.chunked_array([ids]), to_polars])
@pytest.mark.parametrize("ids", [SOUND["items"]["item_id"], list(range(100, 100 + N_ITEMS))], ids=["texts", "numbers"])
def test_ids_of_other_libraries_are_saved(make: Any, ids: list[Any], model: MultVAE, tmp_path: Path) -> None:
    registry.save(model, tmp_path / "model", items=make(ids))
    assert registry.load(tmp_path / "model").item_table["item_id"].to_pylist() == ids


@pytest.mark.parametrize("make", [pd.Series, pd.Index, np.array])
def test_numbers_that_int64_does_not_hold_are_saved(make: Any, model: MultVAE, tmp_path: Path) -> None:
    ids = list(range(2**63, 2**63 + N_ITEMS))
    registry.save(model, tmp_path / "model", items=make(ids))
    assert registry.load(tmp_path / "model").item_table["item_id"].to_pylist() == ids


@pytest.mark.parametrize("convert", [to_polars, pa.Table.from_pandas, pd.DataFrame])
def test_texts_and_categories_are_stored_as_texts(convert: Any, model: MultVAE, tmp_path: Path) -> None:
    genre, tags = pd.Series(["drama", None, "war", "drama", "war"] * 5), pd.Series([["a", "b"]] * N_ITEMS)
    texts = catalogue().assign(genre=genre, tags=tags)
    items = texts.astype({"item_id": "category", "genre": "category"})
    registry.save(model, tmp_path / "model", items=convert(items), users=convert(members()))
    loaded = registry.load(tmp_path / "model")
    assert loaded.item_table.to_pylist() == pa.Table.from_pandas(texts).to_pylist()
    assert not pa.types.is_string_view(loaded.item_table.schema.field("tags").type.value_type)  # no rule can compare it
    assert loaded.users is not None
    assert loaded.users["user_id"].tolist() == ["ann", "bob"]


@pytest.mark.parametrize("name", [ITEMS, USERS])
def test_column_names_are_given_once(name: str, model: MultVAE, saved: Path) -> None:
    before, what = contents(saved), name.removesuffix(".parquet")
    columns = {**SOUND[what], "genre": ["x"] * len(next(iter(SOUND[what].values())))}
    table = pa.table([*columns.values(), columns["genre"]], names=[*columns, "genre"])
    message = "has the column 'genre' 2 times; expected every name once"
    with pytest.raises(ParameterError, match=f"^{what} {message}$"):
        registry.save(model, saved, **{what: table})
    assert contents(saved) == before
    pq.write_table(table, saved / name)
    reseal(saved)
    assert f"{name} {message}" in refused(saved)


def test_figures_are_numbers_of_any_kind(model: MultVAE, tmp_path: Path) -> None:
    figures = {"ndcg": np.float32(0.25), "users": np.int64(3), "best": np.bool_(True), "k": (5, 10)}
    registry.save(model, tmp_path / "model", metrics=figures, data={"counts": {"events": np.uint8(7)}})
    manifest = registry.load(tmp_path / "model").manifest
    assert manifest["metrics"] == {"ndcg": 0.25, "users": 3, "best": True, "k": [5, 10]}
    assert manifest["data"] == {"counts": {"events": 7}}


@pytest.mark.parametrize(
    "value", [date(2024, 1, 2), np.datetime64("2024-01-02"), np.zeros(2), {1, 2}, {(1, 2): 3}, "\ud800"]
)
def test_what_json_cannot_hold_is_not_saved(value: Any, model: MultVAE, saved: Path) -> None:
    before = contents(saved)
    for name in ("data", "metrics"):
        with pytest.raises(ParameterError, match=f"^{name} cannot be stored: .*; expected texts, numbers, lists and "):
            registry.save(model, saved, **dict[str, Any]({name: {"a": value}}))
    assert contents(saved) == before


def test_a_column_that_parquet_cannot_hold(model: MultVAE, saved: Path) -> None:
    before = contents(saved)
    with pytest.raises(ArtifactError, match=r"^items\.parquet cannot be written: Cannot write struct type 'extra'"):
        registry.save(model, saved, items=catalogue().assign(extra=pd.Series([{}] * N_ITEMS)))
    assert contents(saved) == before


def test_nobody_with_a_history(model: MultVAE, tmp_path: Path) -> None:
    registry.save(model, tmp_path / "model", users=pd.DataFrame({"user_id": ["a", "b"], "history": [[], []]}))
    loaded = registry.load(tmp_path / "model")
    assert loaded.user_table is not None
    assert loaded.user_table["history"].to_pylist() == [[], []]


@pytest.mark.parametrize("name", [ITEMS, USERS])
def test_small_files_that_hold_much_more(name: str, saved: Path) -> None:
    """Refused before they are expanded: the memory of this process hardly grows."""
    if name == ITEMS:
        ids, title = pa.array([f"id-{i}" for i in range(N_ITEMS)]), pa.array(["x" * 12_000_000])
        titles = pa.DictionaryArray.from_arrays(pa.array([0] * N_ITEMS, pa.int32()), title)
        pq.write_table(
            pa.table({"item_id": ids, "title": titles}), saved / name, compression="zstd", store_schema=False
        )
    else:
        n = 12_000_000
        history = pa.ListArray.from_arrays(pa.array(np.zeros(n + 1, np.int32)), pa.array([], pa.int32()))
        table = pa.table({"user_id": np.arange(n), "history": history})
        encodings = {"user_id": "DELTA_BINARY_PACKED", "history.list.element": "PLAIN"}
        pq.write_table(table, saved / name, compression="zstd", use_dictionary=False, column_encoding=encodings)
    assert (saved / name).stat().st_size < 200_000
    reseal(saved)
    before = peak_now()
    with peak_memory() as peak:
        assert "bytes of values; expected at most" in refused(saved)
    assert peak.mb is not None
    assert peak.mb < before + 100


def peak_now() -> float:
    with peak_memory() as peak:
        pass
    assert peak.mb is not None
    return peak.mb


def test_modes_follow_the_umask(model: MultVAE, tmp_path: Path) -> None:
    former = os.umask(0o022)
    try:
        model.save(tmp_path / "model", users=members())
    finally:
        os.umask(former)
    assert {stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "model").iterdir()} == {0o644}


def test_open_files_are_refused_by_name(model: MultVAE) -> None:
    with pytest.raises(ParameterError, match="path is a BytesIO; expected the path of a directory"):
        model.save(BytesIO())  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="path is a BytesIO; expected the path of a directory"):
        MultVAE.load(BytesIO())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("entry", "value"),
    [("trained_at", "yesterday"), ("trained_at", 5), ("fit_seconds", "long"), ("fit_seconds", True), ("trained_on", 3)],
)
def test_an_origin_that_is_none(entry: str, value: Any, saved: Path) -> None:
    edit(saved, **{entry: value})
    assert f"{entry} is {value!r}; expected a" in refused(saved)


@pytest.mark.parametrize("name", ["../x", "/etc/hostname", "sub/model.safetensors"])
def test_a_manifest_that_names_files_outside_the_directory(name: str, saved: Path) -> None:
    (saved.parent / "x").write_text("x")
    sums = json.loads((saved / MANIFEST).read_text())["sha256"]
    edit(saved, sha256=sums | {name: hashlib.sha256(b"x").hexdigest()})
    assert "of files outside the directory" in refused(saved)


def test_nothing_in_an_artifact_is_executed(saved: Path, tmp_path: Path) -> None:
    code = f"__import__('pathlib').Path({str(tmp_path / 'executed')!r}).touch()"
    edit(saved, data={"source": code}, metrics={code: code}, versions={"recvae": code})
    assert registry.load(saved).manifest["data"] == {"source": code}
    set_hyperparameters(saved, metric=code)
    assert "metric is " in refused(saved, frozen=False)
    edit(saved, **{"class": code})
    assert "holds a model of class" in refused(saved)
    assert not (tmp_path / "executed").exists()


def test_no_pickle_anywhere(original: Path) -> None:
    assert sorted(file.name for file in original.iterdir()) == [ITEMS, MANIFEST, MODEL, USERS]
    for file in original.iterdir():
        content = file.read_bytes()
        assert b"\x80\x04" not in content[:2]
        assert b"pickle" not in content


def test_saving_again_replaces_the_artifact(saved: Path) -> None:
    popularity = Popularity().fit(random_interactions(), show_progress=False)
    popularity.save(saved)
    assert isinstance(registry.load(saved).model, Popularity)
    assert sorted(file.name for file in saved.iterdir()) == [ITEMS, MANIFEST, MODEL]
    assert list(saved.parent.iterdir()) == [saved]


def test_saving_over_something_else_leaves_it_alone(model: MultVAE, tmp_path: Path) -> None:
    (tmp_path / "thesis" / "chapters").mkdir(parents=True)
    (tmp_path / "thesis" / "chapters" / "one.tex").write_text("It was a dark night.")
    (tmp_path / "notes.txt").write_text("mine")
    before = contents(tmp_path)
    with pytest.raises(ArtifactError, match=r"thesis exists and holds something else \(chapters\)"):
        model.save(tmp_path / "thesis")
    with pytest.raises(ArtifactError, match=r"notes\.txt exists and is not a directory"):
        model.save(tmp_path / "notes.txt")
    with pytest.raises(ArtifactError, match=r"model could not be written: "):
        model.save(tmp_path / "notes.txt" / "model")
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    "failure",
    [OSError(errno.ENOSPC, "no matter"), SafetensorError("No space left on device")],
    ids=["os", "safetensors"],
)
def test_a_full_disk_leaves_the_old_artifact(
    failure: Exception, saved: Path, model: MultVAE, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: State, file: Path) -> Never:
        file.write_bytes(b"half of it")
        raise failure

    before = contents(saved.parent)
    monkeypatch.setattr(safetensors.numpy, "save_file", full)
    with pytest.raises(ArtifactError, match=r"saved could not be written: No space left on device; what was there is"):
        model.save(saved)
    assert contents(saved.parent) == before
    assert registry.load(saved).manifest["metrics"] == {"ndcg@5": 0.25}
    assert list(saved.parent.iterdir()) == [saved]


def test_a_parent_that_cannot_be_written(model: MultVAE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Never:
        raise PermissionError(errno.EACCES, "no matter")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(ArtifactError, match=r"model could not be written: Permission denied"):
        model.save(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_reader_never_sees_half(tmp_path: Path) -> None:
    """Two models of other shapes take turns at one path while a reader loads it over and over."""
    path, rounds = tmp_path / "model", 20
    models = [small(), small(hidden=(5, 5), latent=3, seed=9)]
    scores = [model.score(random_interactions()) for model in models]
    models[0].save(path, metrics={"which": 0})
    found: list[int] = []
    failures: list[Exception] = []
    finished = threading.Event()

    def read() -> None:
        while not finished.is_set():
            try:
                loaded = registry.load(path)
                which = loaded.manifest["metrics"]["which"]
                assert_array_equal(loaded.model.score(random_interactions()), scores[which])
                found.append(which)
            except Exception as error:  # noqa: BLE001 whatever it is, it must not happen
                failures.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(1, rounds + 1):
        models[number % 2].save(path, metrics={"which": number % 2})
    finished.set()
    reader.join()
    assert failures == []
    assert set(found) <= {0, 1}
    assert len(found) >= 2
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]
