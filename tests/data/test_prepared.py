"""Prepared directories: what is written is read again, and what is damaged or somebody else's is refused."""

import json
import os
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from scipy import sparse

from recvae.data.csr import check_csr
from recvae.data.interactions import Interactions
from recvae.data.prepared import KIND, VERSION, Prepared, read_prepared, write_prepared
from recvae.data.splitting import Holdout, Split, cold_items, given, leave_last_out, strong_generalization, temporal
from recvae.datasets import load
from recvae.errors import ArtifactError
from recvae.storage.manifest import write_manifest

ARRAYS = (
    "ones.npy",
    "train.indptr.npy",
    "train.indices.npy",
    *(
        f"{part}.{array}.npy"
        for part in ("validation", "test")
        for array in (
            *("fold_in.indptr", "fold_in.indices", "held_out.indptr", "held_out.indices"),
            "train_rows",
        )
    ),
)
FILES = ("interactions.parquet", "items.parquet", "users.parquet", *ARRAYS, "manifest.json")
SPLITS: dict[str, Callable[[Interactions], Split]] = {
    "strong": lambda data: strong_generalization(data, val_users=5, test_users=6, seed=3),
    "given": given,
    "given-without-validation": lambda data: given(data, val_users=0),
    "temporal": temporal,
    "leave-last": leave_last_out,
    "cold-items": cold_items,
}


def table(n_users: int = 30, n_items: int = 14) -> pd.DataFrame:
    """Text ids, and about two thirds of all interactions; the last of each user's are test in the list's own parts."""
    rng = np.random.default_rng(1)
    users, items = np.nonzero(rng.random((n_users, n_items)) < 0.6)
    frame = pd.DataFrame({"user_id": users, "item_id": items, "timestamp": rng.permutation(len(users))})
    frame["rating"] = rng.integers(1, 6, len(users)).astype(np.float64)
    frame["part"] = np.where(frame["user_id"].duplicated(keep="last"), 0, 2)
    frame = frame.sample(frac=1, random_state=1, ignore_index=True)
    return frame.assign(
        user_id=frame["user_id"].map("user {:02}".format), item_id=frame["item_id"].map("film, {:02}".format)
    )


def titles() -> pd.DataFrame:
    """Titles of some items and of one that nobody played, in an order of their own, one of them twice."""
    names = [f"film, {number:02}" for number in (9, 3, 77, 5, 3)]
    return pd.DataFrame({"item_id": names, "title": ["Nine", "Três", "Nobody's", "Five", "Three again"]})


def write(path: Path, data: Interactions, split: Split, items: pd.DataFrame | None = None) -> Prepared:
    write_prepared(
        path,
        data,
        split,
        dataset="toy",
        source={"origin": "here"},
        filters={"min_rating": None},
        counts={"rows": len(data)},
        items=items,
    )
    return read_prepared(path)


@pytest.fixture
def toy() -> Interactions:
    return Interactions.from_frame(table())


@pytest.fixture
def prepared(tmp_path: Path, toy: Interactions) -> Prepared:
    return write(tmp_path / "data", toy, SPLITS["strong"](toy), titles())


def assert_same_matrix(found: sparse.csr_matrix, expected: sparse.csr_matrix) -> None:
    assert isinstance(found, sparse.csr_matrix)
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    for part in ("indptr", "indices", "data"):
        assert_array_equal(getattr(found, part), getattr(expected, part))


def assert_same_holdout(found: Holdout | None, expected: Holdout | None) -> None:
    if found is None or expected is None:
        assert found is expected
        return
    assert_same_matrix(found.fold_in, expected.fold_in)
    assert_same_matrix(found.held_out, expected.held_out)
    assert found.user_ids.equals(expected.user_ids)
    assert found.train_rows.dtype == expected.train_rows.dtype
    assert_array_equal(found.train_rows, expected.train_rows)


def assert_same_split(found: Split, expected: Split) -> None:
    assert_same_matrix(found.train, expected.train)
    assert found.user_ids.equals(expected.user_ids)
    assert found.item_ids.equals(expected.item_ids)
    assert_same_holdout(found.validation, expected.validation)
    assert_same_holdout(found.test, expected.test)
    assert found.protocol == expected.protocol
    assert expected.counts.items() <= found.counts.items()


@pytest.mark.parametrize("name", SPLITS)
def test_round_trip_of_an_own_table(tmp_path: Path, toy: Interactions, name: str) -> None:
    split = SPLITS[name](toy)
    assert_same_split(write(tmp_path / "data", toy, split).split, split)
    files = [file for file in FILES if split.validation is not None or not file.startswith("validation.")]
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == sorted(files)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize("name", ["strong", "temporal", "leave-last"])
def test_round_trip_of_movielens(tmp_path: Path, data_dir: Path, name: str) -> None:
    source = load("ml-100k", data_dir)
    data, _ = Interactions.from_frame(source.ratings).filter(min_rating=4, min_user_items=5)
    split = SPLITS[name](data)
    prepared = write(tmp_path / "data", data, split, source.items)
    assert_same_split(prepared.split, split)
    assert source.items is not None
    named = dict(zip(source.items["item_id"], source.items["title"], strict=True))
    assert prepared.items["title"].tolist() == [named[item_id] for item_id in split.item_ids]


def test_interactions_are_written_in_the_order_of_the_source(tmp_path: Path, toy: Interactions) -> None:
    write(tmp_path / "data", toy, leave_last_out(toy))
    interactions = pd.read_parquet(tmp_path / "data" / "interactions.parquet")
    pd.testing.assert_frame_equal(interactions, table()[["user_id", "item_id", "rating", "timestamp"]])


def test_items_stand_in_the_order_of_the_columns(prepared: Prepared) -> None:
    assert prepared.items["item_id"].tolist() == prepared.split.item_ids.tolist()
    known = prepared.items.dropna(subset="title").set_index("item_id")["title"].to_dict()
    assert known == {"film, 09": "Nine", "film, 03": "Três", "film, 05": "Five"}
    assert len(prepared.items) == prepared.split.train.shape[1]


@pytest.mark.parametrize("name", SPLITS)
def test_histories_are_all_interactions_of_each_user_training_users_first(
    tmp_path: Path, toy: Interactions, name: str
) -> None:
    prepared = write(tmp_path / "data", toy, SPLITS[name](toy))
    histories = prepared.histories()
    n_train = prepared.split.train.shape[0]
    assert histories["user_id"][:n_train].tolist() == prepared.split.user_ids.tolist()
    assert histories["user_id"].is_unique
    assert set(prepared.split.test.user_ids) <= set(histories["user_id"])
    known = table()[lambda interactions: interactions["item_id"].isin(prepared.split.item_ids)]
    expected = known.groupby("user_id")["item_id"].agg(set)
    for user_id, history in zip(histories["user_id"], histories["history"], strict=True):
        assert {prepared.split.item_ids[item] for item in history} == expected[user_id]
        assert len(history) == len(expected[user_id])


def test_the_identity_tells_splits_apart_and_nothing_else(tmp_path: Path, toy: Interactions) -> None:
    one, again = (write(tmp_path / name, toy, SPLITS["strong"](toy)).identity for name in ("one", "again"))
    other = write(tmp_path / "other", toy, strong_generalization(toy, val_users=5, test_users=6, seed=4)).identity
    assert one == again
    assert one["split_sha256"] != other["split_sha256"]


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(prepared: Prepared, name: str) -> None:
    (prepared.path / name).unlink()
    with pytest.raises(ArtifactError, match=rf"has no {name}"):
        read_prepared(prepared.path)


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_named(prepared: Prepared, name: str) -> None:
    content = (prepared.path / name).read_bytes()
    (prepared.path / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(ArtifactError, match=rf"{name} is (damaged|not readable)"):
        read_prepared(prepared.path)


@pytest.mark.parametrize("name", FILES[:-1])
def test_an_altered_file_is_named(prepared: Prepared, name: str) -> None:
    content = bytearray((prepared.path / name).read_bytes())
    content[len(content) // 2] ^= 1
    (prepared.path / name).write_bytes(content)
    with pytest.raises(ArtifactError, match=rf"{name} is damaged"):
        read_prepared(prepared.path)


def test_a_missing_directory_and_one_of_another_kind_are_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"nowhere is missing; expected a recvae-data"):
        read_prepared(tmp_path / "nowhere")
    write_manifest(tmp_path, "recvae-model", 1, {})
    with pytest.raises(ArtifactError, match="does not describe a recvae-data"):
        read_prepared(tmp_path)


def sign(directory: Path, drop: str = "") -> None:
    """Write the manifest anew, with true checksums of whatever the files now hold."""
    manifest = json.loads((directory / "manifest.json").read_bytes())
    (directory / "manifest.json").unlink()
    content = {name: value for name, value in manifest.items() if name not in ("format", "format_version", drop)}
    content.pop("sha256")
    write_manifest(directory, KIND, VERSION, content)


@pytest.mark.parametrize("entry", ["dataset", "protocol", "filters", "counts"])
def test_a_manifest_that_lacks_an_entry_is_refused(prepared: Prepared, entry: str) -> None:
    sign(prepared.path, drop=entry)
    with pytest.raises(ArtifactError, match=f"its manifest has no {entry}"):
        read_prepared(prepared.path)


@pytest.mark.parametrize("name", [name for name in FILES[:-1] if name != "validation.train_rows.npy"])
def test_a_file_without_a_checksum_is_refused(prepared: Prepared, name: str) -> None:
    path = prepared.path / "manifest.json"
    manifest = json.loads(path.read_bytes())
    del manifest["sha256"][name]
    path.write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match=f"names no checksum for {name}"):
        read_prepared(prepared.path)


DAMAGE: dict[str, tuple[str, Callable[[np.ndarray[Any, Any]], Any]]] = {
    "an item lies outside": ("train.indices", lambda array: array + np.int32(99)),
    "an item lies before the first": ("train.indices", lambda array: array - np.int32(99)),
    "users are missing": ("test.fold_in.indptr", lambda array: array[:-1]),
    "interactions are missing": ("test.held_out.indices", lambda array: array[:-1]),
    "interactions are counted down": ("test.held_out.indptr", lambda array: array[::-1]),
    "indices of another type": ("train.indices", lambda array: array.astype(np.int64)),
    "indices that are no integers": ("train.indices", lambda array: array.astype(np.float32)),
    "too few values": ("ones", lambda array: array[:3]),
    "a table": ("ones", lambda array: array[:, None]),
    "an object": ("train.indices", lambda array: np.array([{}])),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_parts_that_do_not_fit_together_are_refused(prepared: Prepared, damage: str) -> None:
    name, change = DAMAGE[damage]
    path = prepared.path / f"{name}.npy"
    np.save(path, change(np.load(path)))
    sign(prepared.path)
    with pytest.raises(ArtifactError, match="is damaged: "):
        read_prepared(prepared.path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive", b"text"])
@pytest.mark.parametrize("name", ["train.indices.npy", "test.train_rows.npy", "items.parquet", "users.parquet"])
def test_files_of_another_format_are_refused(prepared: Prepared, name: str, content: bytes) -> None:
    (prepared.path / name).write_bytes(content)
    sign(prepared.path)
    with pytest.raises(ArtifactError, match="is damaged: "):
        read_prepared(prepared.path)


def test_an_earlier_directory_is_replaced(prepared: Prepared, toy: Interactions) -> None:
    later = leave_last_out(toy)
    assert_same_split(write(prepared.path, toy, later).split, later)
    assert [path.name for path in prepared.path.parent.iterdir()] == ["data"]


def test_what_was_read_outlives_its_directory(prepared: Prepared, toy: Interactions) -> None:
    before, histories = SPLITS["strong"](toy), prepared.histories()
    later = leave_last_out(toy)
    write(prepared.path, toy, later)
    assert_same_split(prepared.split, before)
    pd.testing.assert_frame_equal(prepared.histories(), histories)
    shutil.rmtree(prepared.path)
    assert_same_split(prepared.split, before)


def test_two_writers_and_a_reader_at_once(tmp_path: Path, toy: Interactions) -> None:
    splits = [SPLITS["strong"](toy), leave_last_out(toy)]
    path = tmp_path / "data"
    write(path, toy, splits[0])
    stop = threading.Event()

    def keep_writing(split: Split) -> int:
        times = 0
        while not stop.is_set() or not times:
            write_prepared(path, toy, split, dataset="toy", source={}, filters={}, counts={})
            times += 1
        return times

    with ThreadPoolExecutor(2) as pool:
        writers = [pool.submit(keep_writing, split) for split in splits]
        try:
            for _ in range(15):
                found = read_prepared(path).split
                assert_same_split(found, splits[found.protocol["split"] == "leave-last"])
        finally:
            stop.set()
        assert all(writer.result(60) for writer in writers)
    assert [entry.name for entry in tmp_path.iterdir()] == ["data"]


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_a_directory_that_cannot_be_written_is_named_and_left_alone(prepared: Prepared, toy: Interactions) -> None:
    before = prepared.split
    prepared.path.parent.chmod(0o500)
    try:
        with pytest.raises(ArtifactError, match="data could not be written: Permission denied; what was there is unch"):
            write(prepared.path, toy, leave_last_out(toy))
    finally:
        prepared.path.parent.chmod(0o700)
    assert_same_split(read_prepared(prepared.path).split, before)


def test_matrices_are_mapped_and_not_read(prepared: Prepared) -> None:
    train = prepared.split.train
    for array in (train.indptr, train.indices, train.data):
        base: Any = array
        while base is not None and not isinstance(base, np.memmap):
            base = base.base
        assert base is not None
    assert check_csr(train, "train").indices.base is not None
    train.data[:] = 7  # a private copy of the page
    assert read_prepared(prepared.path).split.train.data.max() == 1


def test_a_foreign_directory_is_refused_and_untouched(tmp_path: Path, toy: Interactions) -> None:
    foreign = tmp_path / "thesis"
    foreign.mkdir()
    (foreign / "chapter.txt").write_text("mine")
    with pytest.raises(ArtifactError, match=r"thesis exists and holds something else \(chapter.txt\)"):
        write(foreign, toy, leave_last_out(toy))
    assert [(path.name, path.read_text()) for path in foreign.iterdir()] == [("chapter.txt", "mine")]
    assert [path.name for path in tmp_path.iterdir()] == ["thesis"]
