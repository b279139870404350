"""Cold items are ranked by metadata, by every model, better than chance; other items are not ranked."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from recvae import create, evaluate
from recvae.data.interactions import Interactions
from recvae.data.splitting import Split, cold_items, leave_last_out
from recvae.errors import DataError
from recvae.inference.new_items.cold_split import rank_cold_items

N_USERS, N_ITEMS = 120, 80


@pytest.fixture(scope="module")
def data() -> tuple[Split, pd.DataFrame]:
    """Users who play items of the two genres that they like, nine times of ten."""
    rng = np.random.default_rng(0)
    genre = rng.integers(0, 6, N_ITEMS)
    likes = rng.permuted(np.tile(np.repeat([True, False], [2, 4]), (N_USERS, 1)), axis=1)
    plays = rng.random((N_USERS, N_ITEMS)) < np.where(likes[:, genre], 0.45, 0.025)
    users, items = np.nonzero(plays)
    frame = pd.DataFrame({"user_id": users, "item_id": items, "timestamp": np.arange(len(users))})
    split = cold_items(Interactions.from_frame(frame))
    described = pd.DataFrame({"item_id": np.arange(N_ITEMS), "genre": [f"genre {g}" for g in genre]})
    return split, pd.DataFrame({"item_id": split.item_ids}).merge(described, on="item_id")


@pytest.mark.parametrize("name", ["ease", "als", "bpr", "graph", "multdae"])
def test_every_model_finds_cold_items_by_metadata(data: tuple[Split, pd.DataFrame], name: str) -> None:
    split, items = data
    params: dict[str, Any] = {"epochs": 20} if name == "multdae" else {}
    model = create(name, **params).fit(split.train, show_progress=False)
    ranker = rank_cold_items(model, split, items)
    found = evaluate(ranker, split.test, ["recall@5"], train=split.train)
    chance = 5 / len(np.unique(split.test.held_out.indices))
    assert found.mean("recall@5") > 1.6 * chance
    ids, scores = ranker.recommend(np.array([0]), split.test.fold_in[:1], N=30, recalculate_user=model.folds_in)
    cold = np.unique(split.test.held_out.indices)
    assert sorted(ids[0, : len(cold)]) == cold.tolist()
    assert (ids[0, len(cold) :] == -1).all()
    assert (np.diff(scores[0, : len(cold)]) <= 0).all()


def test_other_splits_are_ranked_by_the_model_itself(data: tuple[Split, pd.DataFrame]) -> None:
    frame = pd.DataFrame([(u, i, (u + i) % 4) for u in range(5) for i in range(4)], columns=["user_id", "item_id", "t"])
    split = leave_last_out(Interactions.from_frame(frame.rename(columns={"t": "timestamp"})))
    model = create("popularity")
    assert rank_cold_items(model, split, data[1]) is model


def test_cold_items_need_metadata(data: tuple[Split, pd.DataFrame]) -> None:
    split, items = data
    with pytest.raises(DataError, match="items have no metadata that several share; expected data prepared with"):
        rank_cold_items(create("popularity"), split, items[["item_id"]])
