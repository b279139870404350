"""All interactions of a prepared directory in one matrix."""

from pathlib import Path

import numpy as np
import pandas as pd

from recvae.data.everything import read_everything
from recvae.data.prepared import read_prepared
from recvae.datasets.synthetic import generate
from recvae.preparation.pipeline import Options, prepare


def test_every_user_every_item_and_every_interaction(tmp_path: Path) -> None:
    prepare(generate(60, 40), tmp_path, Options(split="temporal"))
    prepared, everything = read_prepared(tmp_path), read_everything(read_prepared(tmp_path))
    interactions = pd.read_parquet(tmp_path / "interactions.parquet")
    assert everything.user_items.nnz == len(interactions) > prepared.split.train.nnz
    ids = everything.items["item_id"].to_numpy()
    for user, history in zip(everything.users["user_id"], everything.users["history"], strict=True):
        assert set(ids[history]) == set(interactions["item_id"][interactions["user_id"] == user])
    assert everything.user_items.shape == (len(everything.users), len(everything.items))
    assert everything.items["title"].notna().all()
    assert everything.describe()["fitted_counts"]["interactions"] == len(interactions)


def test_items_outside_training_take_their_titles_from_the_table_given(tmp_path: Path) -> None:
    users = np.repeat(np.arange(20), 10)
    frame = pd.DataFrame({"user_id": users, "item_id": np.tile(np.arange(10), 20), "timestamp": np.arange(200)})
    frame.loc[199, "item_id"] = 99  # the last interaction of all, and the only one of its item
    frame.to_csv(tmp_path / "interactions.csv", index=False)
    prepare(str(tmp_path / "interactions.csv"), tmp_path / "data", Options(split="strong", val_users=2, test_users=2))
    prepared = read_prepared(tmp_path / "data")
    described = pd.DataFrame({"item_id": [str(i) for i in (*range(10), 99)], "title": [f"t{i}" for i in range(11)]})
    assert read_everything(prepared, described).items["title"].tolist() == described["title"].tolist()
