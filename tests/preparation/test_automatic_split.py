"""The split of data whose user names none."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from recvae.data.interactions import Interactions
from recvae.errors import ParameterError
from recvae.fitting.scored_users import describe_split
from recvae.preparation.automatic_split import count_held_out_users, split_automatically
from recvae.preparation.notes import summarise


def interactions(n_users: int, *, spread: bool, timestamps: bool = True) -> Interactions:
    """Ten interactions of each user: over the whole time, or all of a user's at once."""
    users = np.repeat(np.arange(n_users), 10)
    items = np.random.default_rng(0).permuted(np.tile(np.arange(30), (n_users, 1)), axis=1)[:, :10].ravel()
    times = np.tile(np.arange(10), n_users) if spread else users
    frame = pd.DataFrame({"user_id": users, "item_id": items, "timestamp": times})
    return Interactions.from_frame(frame if timestamps else frame.drop(columns="timestamp"))


@pytest.mark.parametrize(
    ("n_users", "expected"), [(2, 1), (10, 2), (100, 20), (300, 50), (1_000, 100), (40_000, 4_000), (900_000, 5_000)]
)
def test_users_to_hold_out(n_users: int, expected: int) -> None:
    assert count_held_out_users(n_users) == expected


def test_one_missing_timestamp_is_told() -> None:
    frame = next(interactions(60, spread=True).iter_frames(600))
    frame["timestamp"] = frame["timestamp"].astype(float).where(np.arange(600) != 7)
    split = split_automatically(Interactions.from_frame(frame), 3)
    assert (split.protocol["split"], split.protocol["missing_timestamps"]) == ("strong", 1)
    told = "interactions without a timestamp: 1, so that nothing is split by time"
    assert told in summarise({"rows": 600}, split)
    assert describe_split(split).startswith("split by users, as some interactions (1) have no timestamp: a fifth of")


def test_by_time_where_users_come_back() -> None:
    split = split_automatically(interactions(60, spread=True), 0)
    assert split.protocol["split"] == "temporal"
    assert split.test.n_users == 60
    assert (split.test.train_rows >= 0).all()


@pytest.mark.parametrize(("spread", "timestamps"), [(False, True), (True, False)])
def test_by_users_where_nobody_comes_back_or_times_are_unknown(spread: bool, timestamps: bool) -> None:
    split = split_automatically(interactions(60, spread=spread, timestamps=timestamps), 3)
    assert split.protocol == {"split": "strong", "val_users": 12, "test_users": 12, "seed": 3}


def test_times_that_are_all_the_same_say_nothing() -> None:
    data = interactions(60, spread=True)
    same = replace(data, timestamp=np.full(len(data), 7))
    assert split_automatically(same, 0).protocol["split"] == "strong"


def test_one_user_cannot_be_split() -> None:
    with pytest.raises(ParameterError, match="nobody of 1"):
        split_automatically(interactions(1, spread=False), 0)
