"""Faults of a prepared directory: all of them are listed, and none of a whole one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from recvae.data.interactions import Interactions
from recvae.data.prepared import find_faults
from tests.data.test_prepared import SPLITS, sign, table, write

Change = Callable[[Path], object]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    data = Interactions.from_frame(table())
    write(tmp_path / "data", data, SPLITS["leave-last"](data))
    return tmp_path / "data"


@pytest.mark.parametrize("name", SPLITS)
def test_a_whole_directory_has_none(tmp_path: Path, name: str) -> None:
    data = Interactions.from_frame(table())
    write(tmp_path / "data", data, SPLITS[name](data))
    assert find_faults(tmp_path / "data") == []


def change_array(name: str, change: Callable[[Any], Any]) -> Change:
    def damage(path: Path) -> None:
        array = np.load(path / f"{name}.npy")
        np.save(path / f"{name}.npy", change(array))

    return damage


def change_table(name: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Change:
    def damage(path: Path) -> None:
        change(pd.read_parquet(path / name)).to_parquet(path / name, index=False)

    return damage


def change_manifest(change: Callable[[dict[str, Any]], object]) -> Change:
    def damage(path: Path) -> None:
        manifest = json.loads((path / "manifest.json").read_bytes())
        change(manifest)
        (path / "manifest.json").write_text(json.dumps(manifest))

    return damage


def swap(array: Any) -> Any:
    array[[0, 1]] = array[[1, 0]]
    return array


FAULTS: dict[str, tuple[Change, str]] = {
    "no order": (change_array("train.indices", swap), "train has rows whose item indices are not ascending"),
    "values": (change_array("ones", lambda a: a * 2), "train has values other than 1"),
    "another user's row": (
        change_array("test.train_rows", swap),
        "test.train_rows.npy gives 2 users the row of another",
    ),
    "no such row": (change_array("test.train_rows", lambda a: a + np.int32(99)), "do not fit 30 training users"),
    "a row too few": (change_array("test.train_rows", lambda a: a[:-1]), "test.train_rows.npy has 29 rows that do not"),
    "known and asked": (
        lambda path: (path / "test.held_out.indices.npy").write_bytes(
            (path / "validation.held_out.indices.npy").read_bytes()
        ),
        "test has 30 interactions in fold_in and in held_out",
    ),
    "an id twice": (
        change_table(
            "items.parquet", lambda t: t.assign(item_id=t["item_id"].where(t.index > 0, t["item_id"].iloc[1]))
        ),
        "item_id is missing, or not a different one, in 1 rows",
    ),
    "an id of nobody": (
        change_table("users.parquet", lambda t: t.assign(user_id=t["user_id"].replace("user 03", "user 99"))),
        "user_id has 1 values that interactions.parquet does not have",
    ),
    "interactions missing": (
        change_table("interactions.parquet", lambda t: t[:-1]),
        "; its manifest counts ",
    ),
    "counts": (
        change_manifest(lambda manifest: manifest["counts"].update(train_interactions=7, test_users=8)),
        "its manifest counts 8",
    ),
    "no counts": (change_manifest(lambda manifest: manifest.pop("counts")), "its manifest has no counts"),
    "counts of another kind": (
        change_manifest(lambda manifest: manifest.update(counts=7)),
        "has counts 7; expected an object",
    ),
    "no item table": (lambda path: (path / "items.parquet").write_bytes(b"text"), "is damaged: "),
    "an item outside": (change_array("train.indices", lambda a: a + np.int32(99)), "is damaged: "),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_listed(path: Path, fault: str) -> None:
    damage, expected = FAULTS[fault]
    damage(path)
    if "manifest" not in fault and not fault.startswith(("counts", "no counts")):
        sign(path)
    found = find_faults(path)
    assert any(expected in line for line in found), found
    assert all("\n" not in line for line in found)


def test_all_damaged_and_foreign_files_are_listed(path: Path) -> None:
    (path / "notes.txt").write_text("mine")
    for name in ("items.parquet", "ones.npy"):
        content = bytearray((path / name).read_bytes())
        content[-1] ^= 1
        (path / name).write_bytes(content)
    (path / "users.parquet").unlink()
    found = find_faults(path)
    for expected in (
        "items.parquet is damaged",
        "ones.npy is damaged",
        "has no users.parquet",
        "holds notes.txt, which",
    ):
        assert any(expected in line for line in found), found


@pytest.mark.parametrize("content", [None, b"", b"[]", b'{"format": "recvae-model", "format_version": 2}'])
def test_what_is_no_prepared_directory(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "manifest.json").write_bytes(content)
    assert len(find_faults(tmp_path)) == 1
    assert len(find_faults(tmp_path / "nowhere")) == 1
