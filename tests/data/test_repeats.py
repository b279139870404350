"""Weights of repeated pairs: on each side of a split they are made of the rows that are known there, and no other."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, settings
from hypothesis import given as examples
from hypothesis import strategies as st

from recvae.data.columns import Columns
from recvae.data.everything import read_everything
from recvae.data.interactions import Interactions
from recvae.data.prepared import find_faults, read_prepared
from recvae.data.splitting import Split, given, leave_last_out, strong_generalization, temporal
from recvae.errors import DataError, ParameterError
from recvae.preparation.pipeline import Options, prepare
from recvae.preparation.weights import WeightOptions

WEIGHTS = Columns(weight="weight")
Pairs = dict[tuple[Any, Any], float]


def table(rows: list[tuple[Any, ...]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp", "weight"])


def read(matrix: Any, users: Any, items: Any) -> Pairs:
    entries = matrix.tocoo()
    return dict(zip(zip(users[entries.row], items[entries.col], strict=True), entries.data.tolist(), strict=True))


def read_sides(split: Split) -> tuple[Pairs, Pairs, Pairs]:
    """The weights in training, and in the histories of validation and of test users."""
    validation = split.validation
    return (
        read(split.train, split.user_ids, split.item_ids),
        {} if validation is None else read(validation.fold_in, validation.user_ids, split.item_ids),
        read(split.test.fold_in, split.test.user_ids, split.item_ids),
    )


# Item 1 of user a: bought again at times 5 (validation) and 8 (test). Item 2 of user b: again at 9.
ROWS = [("a", 1, 1, 1), ("a", 2, 2, 2), ("b", 1, 2, 3), ("b", 2, 3, 4)]
ROWS += [("a", 1, 5, 10), ("a", 3, 5, 20), ("b", 3, 3, 30), ("a", 3, 7, 40)]
ROWS += [("a", 1, 8, 100), ("b", 4, 3, 200), ("a", 4, 8, 300), ("b", 5, 9, 400), ("b", 2, 9, 500)]


def test_by_hand_a_split_by_time() -> None:
    for summed, once in ((True, 0), (False, 1)):
        data = Interactions.from_frame(table(ROWS), WEIGHTS, sum_repeats=summed)
        train, validation, test = read_sides(temporal(data, val_time=5, test_time=8))
        known = {("a", 1): 1, ("a", 2): 2, ("b", 1): 3, ("b", 2): 4, ("b", 3): 30, ("b", 4): 200}
        assert train == known
        of_a = {pair: weight for pair, weight in known.items() if pair[0] == "a"}
        assert validation == of_a
        assert test == of_a | {("a", 1): 11 - once, ("a", 3): 60 - 20 * once}
        whole = read(data.user_items, data.user_ids, data.item_ids)
        assert whole[("a", 1)] == 111 - 11 * once
        assert whole[("b", 2)] == 504 - 4 * once


def test_by_hand_the_last_two_left_out() -> None:
    """User a leaves 3 (time 5) and 4 (time 8); item 1, again at 5 and at 8, goes before both. User b leaves 4 and 5."""
    rows = [*ROWS, ("b", 4, 9, 1000), ("c", 4, 1, 7), ("c", 4, 99, 70), ("c", 5, 2, 5)]
    data = Interactions.from_frame(table(rows), WEIGHTS, sum_repeats=True)
    train, validation, test = read_sides(leave_last_out(data))
    known = {("a", 1): 11, ("a", 2): 2, ("b", 1): 3, ("b", 2): 4, ("b", 3): 30}
    assert validation == known
    assert train == known | {("c", 4): 77, ("c", 5): 5}  # of whom too little is known to leave any
    later = {("a", 1): 111, ("a", 3): 60, ("b", 2): 504, ("b", 4): 1200}
    assert test == known | later


def test_by_hand_the_parts_of_a_source() -> None:
    rows = [(1, 1, 0, 1.0), (1, 1, 2, 10.0), (1, 2, 1, 2.0), (1, 2, 2, 20.0), (1, 3, 2, 3.0), (1, 1, 1, 100.0)]
    rows += [(2, 1, 0, 4.0), (2, 2, 0, 5.0), (2, 3, 0, 6.0), (2, 3, 0, 60.0)]
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "part", "weight"])
    data = Interactions.from_frame(frame, WEIGHTS, sum_repeats=True)
    train, validation, test = read_sides(given(data))
    assert train == {(1, 1): 1, (2, 1): 4, (2, 2): 5, (2, 3): 66}
    assert validation == {(1, 1): 1}
    assert test == {(1, 1): 101, (1, 2): 2}
    assert data.user_items.sum() == frame["weight"].sum()


def test_rows_without_a_time_are_known_to_be_before_none() -> None:
    rows = [*ROWS, ("a", 2, None, 50), ("b", 2, None, 60)]
    data = Interactions.from_frame(table(rows), WEIGHTS, sum_repeats=True)
    for pairs in read_sides(temporal(data, val_time=5, test_time=8)):
        assert pairs[("a", 2)] == 2
    assert read(data.user_items, data.user_ids, data.item_ids)[("a", 2)] == 52


def test_users_held_out_have_all_their_rows() -> None:
    rows = [(user, item, time, 1) for user in range(20) for item in range(8) for time in range(user % 3 + 1)]
    data = Interactions.from_frame(table(rows), WEIGHTS, sum_repeats=True)
    for side in read_sides(strong_generalization(data, val_users=4, test_users=4)):
        assert side
        assert all(weight == user % 3 + 1 for (user, _), weight in side.items())


ROW = st.tuples(st.integers(0, 4), st.integers(0, 5), st.integers(0, 15), st.integers(1, 9))
some = settings(max_examples=150, deadline=None, derandomize=True)


def weigh(frame: pd.DataFrame, sum_repeats: bool) -> Pairs:
    """Prepare what is left of a table."""
    data = Interactions.from_frame(frame, WEIGHTS, sum_repeats=sum_repeats)
    return read(data.user_items, data.user_ids, data.item_ids)


def restrict(pairs: Pairs, split: Split, users: Any) -> Pairs:
    """Keep the pairs of some users, with the items that a split has."""
    return {(user, item): w for (user, item), w in pairs.items() if user in set(users) and item in set(split.item_ids)}


def check_sides(split: Split, before: list[pd.DataFrame], sum_repeats: bool) -> None:
    """Compare with tables from which everything on a later side is deleted."""
    train, validation, test = read_sides(split)
    assert train == weigh(before[0], sum_repeats)
    if split.validation is not None:
        assert validation == restrict(train, split, split.validation.user_ids)
    assert test == restrict(weigh(before[1], sum_repeats), split, split.test.user_ids)


@examples(
    rows=st.lists(ROW, min_size=8, max_size=60), sum_repeats=st.booleans(), dates=st.booleans(), drop=st.booleans()
)
@some
def test_by_time_as_if_later_rows_were_deleted(
    rows: list[tuple[int, ...]], sum_repeats: bool, dates: bool, drop: bool
) -> None:
    frame = table(rows)
    bounds: list[Any] = [8, 12]
    if dates:
        frame["timestamp"] = pd.to_datetime(frame["timestamp"], unit="D")
        bounds = [pd.Timestamp(day, unit="D") for day in bounds]
    data = Interactions.from_frame(frame, WEIGHTS, sum_repeats=sum_repeats)
    if drop:  # a filter that leaves the rest as it is
        assume(data.n_users > 1)
        data = data.select(data.user_idx != 0)
        frame = frame[frame["user_id"] != min(frame["user_id"])]
    try:
        split = temporal(data, val_time=bounds[0], test_time=bounds[1])
    except (DataError, ParameterError):
        return
    check_sides(split, [frame[frame["timestamp"] < bound] for bound in bounds], sum_repeats)


def delete_from_last(frame: pd.DataFrame, place: int) -> pd.DataFrame:
    """Delete the rows of each user from a held-out interaction on: the last has place 1, the one before it place 2."""
    kept = []
    for _, of_user in frame.groupby("user_id"):
        first: dict[int, tuple[int, int]] = {}
        for _, row in of_user.iterrows():
            moment = (row["timestamp"], row["item_id"])
            first[row["item_id"]] = min(moment, first.get(row["item_id"], moment))
        order = sorted(first.values())
        for index, row in of_user.iterrows():
            if len(order) < 3 or (row["timestamp"], row["item_id"]) < order[-place]:
                kept.append(index)
    return frame[frame.index.isin(kept)]


@examples(rows=st.lists(ROW, min_size=8, max_size=60), sum_repeats=st.booleans())
@some
def test_last_left_out_as_if_later_rows_were_deleted(rows: list[tuple[int, ...]], sum_repeats: bool) -> None:
    frame = table(rows)
    try:
        split = leave_last_out(Interactions.from_frame(frame, WEIGHTS, sum_repeats=sum_repeats))
    except (DataError, ParameterError):
        return
    check_sides(split, [delete_from_last(frame, 2), delete_from_last(frame, 1)], sum_repeats)


def visits() -> pd.DataFrame:
    """Make events of 40 users over 100 days, many of them of an item that the user had before."""
    generator = np.random.default_rng(1)
    n = 3000
    return pd.DataFrame(
        {
            "user_id": generator.integers(0, 40, n),
            "item_id": generator.integers(0, 40, n),
            "timestamp": np.sort(generator.integers(0, 100 * 86_400, n)),
            "kind": generator.choice(["view", "buy"], n),
        }
    )


@pytest.mark.parametrize("repeats", ["sum", "once"])
def test_prepared_matrices_know_nothing_of_later_repeats(tmp_path: Path, repeats: str) -> None:
    frame = visits()
    latest = frame.index == len(frame) - 1  # which age is counted from
    repeated = frame.duplicated(["user_id", "item_id"]) & ~latest
    options = Options(
        split="temporal",
        val_time=str(60 * 86_400),
        test_time=str(80 * 86_400),
        columns=Columns(event="kind"),
        weights=WeightOptions({"view": 1, "buy": 5}, repeats, 30 * 86_400),
    )
    tables = {
        "all": frame,
        "train": frame[~repeated | (frame["timestamp"] < 60 * 86_400)],
        "test.fold_in": frame[~repeated | (frame["timestamp"] < 80 * 86_400)],
    }
    for name, rows in tables.items():
        rows.to_csv(tmp_path / "visits.csv", index=False)
        prepare(tmp_path / "visits.csv", tmp_path / name, options)
    assert find_faults(tmp_path / "all") == []

    def weights(directory: str, name: str) -> bytes:
        return (tmp_path / directory / f"{name}.weights.npy").read_bytes()

    for name in ("train", "validation.fold_in"):
        assert weights("all", name) == weights("train", name)
    assert weights("all", "test.fold_in") == weights("test.fold_in", "test.fold_in") != weights("train", "test.fold_in")
    totals = [read_everything(read_prepared(tmp_path / name)).user_items.sum() for name in tables]
    assert totals[0] > totals[2] > totals[1]


def test_weights_that_only_later_rows_give_are_kept_for_the_last_fit(tmp_path: Path) -> None:
    """All weigh 1 before the split's end; the directory is one with weights all the same."""
    rows = [(user, item, item) for user in range(10) for item in range(10)] + [(10, 8, 0), (10, 9, 0)]
    rows += [(user, 0, 20) for user in range(10)]
    columns = ["user_id", "item_id", "timestamp"]
    pd.DataFrame(rows, columns=columns).to_csv(tmp_path / "visits.csv", index=False)
    options = Options(split="leave-last", min_user_items=0, weights=WeightOptions(repeats="sum"))
    prepare(tmp_path / "visits.csv", tmp_path / "data", options)
    prepared = read_prepared(tmp_path / "data")
    assert set(prepared.split.train.data) == set(prepared.split.test.fold_in.data) == {1}
    assert prepared.manifest["format_version"] == 3
    assert find_faults(tmp_path / "data") == []
    assert read_everything(prepared).user_items.sum() == len(rows)
    assert sum(map(sum, prepared.histories()["weights"])) == len(rows)
