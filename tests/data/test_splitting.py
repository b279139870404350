"""Splits: strong generalization against the published notebook's own steps, the others against cases by hand."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given as examples
from hypothesis import settings
from hypothesis import strategies as st

from recvae.data.columns import Columns
from recvae.data.interactions import Interactions
from recvae.data.splitting import Holdout, Split, cold_items, given, leave_last_out, strong_generalization, temporal
from recvae.datasets import load
from recvae.datasets.published_split import SplitFile, build_published_files, check_published, describe
from recvae.errors import DataError, ParameterError

MOVIELENS = Columns("userId", "movieId", "rating", "timestamp")
quick = settings(max_examples=40, deadline=None, derandomize=True)


@pytest.fixture(scope="module")
def ratings_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half-star ratings in the format of ML-20M, rows in no order; some users have few interactions, most items too."""
    generator = np.random.default_rng(5)
    users = generator.permutation(np.arange(1, 3000))[:400]
    items = generator.permutation(np.arange(1, 130_000))[:700]
    rows = [
        (user, item)
        for user in users
        for item in items[np.unique((700 * generator.random(generator.integers(2, 60)) ** 3).astype(int))]
    ]
    frame = pd.DataFrame(generator.permutation(rows), columns=["userId", "movieId"])
    frame["rating"] = generator.integers(1, 11, len(frame)) / 2
    frame["timestamp"] = generator.integers(789_652_009, 1_427_784_002, len(frame))
    path = tmp_path_factory.mktemp("ml-20m") / "ratings.csv"
    frame.to_csv(path, index=False)
    return path


@dataclass
class Notebook:
    """Variables at the end of the published notebook."""

    unique_uid: "pd.Index[Any]"
    unique_sid: Any
    train: pd.DataFrame
    validation_tr: pd.DataFrame
    validation_te: pd.DataFrame
    test_tr: pd.DataFrame
    test_te: pd.DataFrame


def notebook(path: Path, n_heldout_users: int, seed: int = 98765) -> Notebook:
    """The cells of VAE_ML20M_WWW2018.ipynb one after the other, `size()` as it was on the pandas of the time."""
    raw_data = pd.read_csv(path, header=0)
    raw_data = raw_data[raw_data["rating"] > 3.5]
    usercount = raw_data.groupby("userId").size()
    raw_data = raw_data[raw_data["userId"].isin(usercount.index[usercount >= 5])]
    unique_uid = raw_data.groupby("userId").size().index

    idx_perm = np.random.RandomState(seed).permutation(unique_uid.size)
    unique_uid = unique_uid[idx_perm]
    n_users = unique_uid.size
    tr_users = unique_uid[: (n_users - n_heldout_users * 2)]
    vd_users = unique_uid[(n_users - n_heldout_users * 2) : (n_users - n_heldout_users)]
    te_users = unique_uid[(n_users - n_heldout_users) :]
    train_interactions = raw_data.loc[raw_data["userId"].isin(tr_users)]
    unique_sid = pd.unique(train_interactions["movieId"])
    show2id = {sid: i for (i, sid) in enumerate(unique_sid)}
    profile2id = {pid: i for (i, pid) in enumerate(unique_uid)}

    def split_train_test_proportion(data: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
        tr_list, te_list = [], []
        random = np.random.RandomState(seed)
        for _, group in data.groupby("userId"):
            n_items_u = len(group)
            if n_items_u >= 5:
                idx = np.zeros(n_items_u, dtype="bool")
                idx[random.choice(n_items_u, size=int(0.2 * n_items_u), replace=False).astype("int64")] = True
                tr_list.append(group[np.logical_not(idx)])
                te_list.append(group[idx])
            else:
                tr_list.append(group)
        return pd.concat(tr_list), pd.concat(te_list)

    def numerize(interactions: pd.DataFrame) -> pd.DataFrame:
        uid = [profile2id[x] for x in interactions["userId"]]
        sid = [show2id[x] for x in interactions["movieId"]]
        return pd.DataFrame({"uid": uid, "sid": sid}, columns=["uid", "sid"])

    vad_interactions = raw_data.loc[raw_data["userId"].isin(vd_users)]
    vad_interactions = vad_interactions.loc[vad_interactions["movieId"].isin(unique_sid)]
    test_interactions = raw_data.loc[raw_data["userId"].isin(te_users)]
    test_interactions = test_interactions.loc[test_interactions["movieId"].isin(unique_sid)]
    parts = (*split_train_test_proportion(vad_interactions), *split_train_test_proportion(test_interactions))
    return Notebook(unique_uid, unique_sid, numerize(train_interactions), *(numerize(part) for part in parts))


def places(matrix: Any, first_row: int = 0) -> set[tuple[int, int]]:
    rows, columns = matrix.nonzero()
    return set(zip((rows + first_row).tolist(), columns.tolist(), strict=True))


def rows_of(table: pd.DataFrame) -> set[tuple[int, int]]:
    return set(zip(table["uid"], table["sid"], strict=True))


def interactions_of(matrix: Any, user_ids: Any, item_ids: Any) -> set[tuple[Any, Any]]:
    return {(user_ids[row], item_ids[column]) for row, column in places(matrix)}


def same_split(a: Split, b: Split) -> bool:
    """Compare two splits over the same vocabulary: the same interactions of the same users in the same rows."""
    if not (a.user_ids.equals(b.user_ids) and a.item_ids.equals(b.item_ids) and a.counts == b.counts):
        return False
    pairs = [(a.train, b.train)]
    for one, other in ((a.validation, b.validation), (a.test, b.test)):
        if one is None or other is None:
            if one is not other:
                return False
            continue
        if not (one.user_ids.equals(other.user_ids) and np.array_equal(one.train_rows, other.train_rows)):
            return False
        pairs += [(one.fold_in, other.fold_in), (one.held_out, other.held_out)]
    return all(first.shape == second.shape and places(first) == places(second) for first, second in pairs)


@pytest.mark.parametrize("n_heldout_users", [40, 100])
def test_strong_generalization_is_the_notebooks_split(ratings_csv: Path, n_heldout_users: int) -> None:
    expected = notebook(ratings_csv, n_heldout_users)
    data, counts = Interactions.from_file(ratings_csv, MOVIELENS).filter(min_rating=4.0, min_user_items=5)
    split = strong_generalization(data, val_users=n_heldout_users, test_users=n_heldout_users)
    n_train = split.train.shape[0]

    assert counts["users_dropped"] > 0
    assert split.counts["interactions_outside_training_items"] > 0
    assert split.item_ids.tolist() == expected.unique_sid.tolist()
    assert split.user_ids.tolist() == expected.unique_uid[:n_train].tolist()
    assert places(split.train) == rows_of(expected.train)
    assert split.validation is not None
    for part, first_row, fold_in, held_out in (
        (split.validation, n_train, expected.validation_tr, expected.validation_te),
        (split.test, n_train + n_heldout_users, expected.test_tr, expected.test_te),
    ):
        assert part.user_ids.tolist() == expected.unique_uid[first_row : first_row + n_heldout_users].tolist()
        assert places(part.fold_in, first_row) == rows_of(fold_in)
        assert places(part.held_out, first_row) == rows_of(held_out)


def test_strong_generalization_gives_the_notebooks_files(ratings_csv: Path, tmp_path: Path) -> None:
    expected = notebook(ratings_csv, 60)
    data, _ = Interactions.from_file(ratings_csv, MOVIELENS).filter(min_rating=4.0, min_user_items=5)
    split = strong_generalization(data, val_users=60, test_users=60)

    expected.test_te.to_csv(tmp_path / "test_te.csv", index=False)
    expected.validation_te.to_csv(tmp_path / "validation_te.csv", index=False)
    with (tmp_path / "unique_sid.txt").open("w") as file:
        file.writelines(f"{sid}\n" for sid in expected.unique_sid)

    written = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert build_published_files(data, split) == written
    oracle = [
        SplitFile(
            name,
            md5=hashlib.md5(written[name], usedforsecurity=False).hexdigest(),
            rows=len(table),
            first_rows=(written[name].decode().split("\n")[name.endswith(".csv")],),
        )
        for name, table in (
            ("test_te.csv", expected.test_te),
            ("validation_te.csv", expected.validation_te),
            ("unique_sid.txt", expected.unique_sid),
        )
    ]
    assert describe(check_published(data, split, oracle)) == ["the split matches the published one (3 files)"]


def test_another_seed_is_another_split(ratings_csv: Path) -> None:
    data = Interactions.from_file(ratings_csv, MOVIELENS)
    published, other = (strong_generalization(data, val_users=50, test_users=50, seed=seed) for seed in (98765, 1))
    assert published.protocol == {"split": "strong", "val_users": 50, "test_users": 50, "seed": 98765}
    assert not same_split(published, other)
    permuted = data.user_ids[np.random.RandomState(1).permutation(data.n_users)]
    assert other.test.user_ids.tolist() == permuted[-50:].tolist()


def test_users_with_fewer_than_five_known_interactions_are_asked_for_none() -> None:
    # Everybody interactions items 0 to 4 and one that nobody else interactions, which a held-out user therefore loses.
    interactions = [(user, item) for user in range(12) for item in [0, 1, 2, 3, 4, 100 + user]]
    data = Interactions.from_frame(pd.DataFrame(interactions, columns=["user_id", "item_id"]))
    split = strong_generalization(data, val_users=3, test_users=2)
    assert split.counts["interactions_outside_training_items"] == split.counts["items_outside_training"] == 5
    assert np.diff(split.test.held_out.indptr).tolist() == [1, 1]
    assert np.diff(split.test.fold_in.indptr).tolist() == [4, 4]

    first = data.user_ids.get_loc(split.test.user_ids[0])
    fewer = data.select((data.user_idx != first) | (data.item_idx != 4))
    split = strong_generalization(fewer, val_users=3, test_users=2)
    assert np.diff(split.test.held_out.indptr).tolist() == [0, 1]
    assert np.diff(split.test.fold_in.indptr).tolist() == [4, 4]
    assert split.counts["test_users_without_held_out"] == 1


def test_strong_counts_add_up(ratings_csv: Path) -> None:
    data = Interactions.from_file(ratings_csv, MOVIELENS)
    counts = strong_generalization(data, val_users=30, test_users=70).counts
    assert (counts["users"], counts["interactions"]) == (data.n_users, len(data))
    assert (counts["validation_users"], counts["test_users"]) == (30, 70)
    assert counts["train_users"] + 100 == data.n_users
    kinds = ("validation_fold_in", "validation_held_out", "test_fold_in", "test_held_out", "train")
    assert sum(counts[f"{kind}_interactions"] for kind in kinds) + counts["interactions_outside_training_items"] == len(
        data
    )
    assert counts["train_items"] + counts["items_outside_training"] == data.n_items


GIVEN = pd.DataFrame(
    [
        *(("ann", item, 0) for item in "abcdef"),
        ("ann", "g", 2),
        ("bob", "a", 0),
        ("bob", "g", 0),
        ("bob", "b", 1),
        ("bob", "c", 2),
        ("bob", "new", 2),
        ("cat", "a", 2),
        ("dan", "b", 1),
        ("dan", "a", 2),
    ],
    columns=["user_id", "item_id", "part"],
).astype({"part": "int8"})


def test_given_lists_by_hand() -> None:
    split = given(Interactions.from_frame(GIVEN))
    assert split.protocol == {"split": "given"}
    assert split.user_ids.tolist() == ["ann", "bob"]
    assert split.item_ids.tolist() == ["a", "b", "c", "d", "e", "f", "g"]
    assert split.train.toarray().tolist() == [[1, 1, 1, 1, 1, 1, 0], [1, 0, 0, 0, 0, 0, 1]]
    assert split.validation is not None
    assert split.validation.user_ids.tolist() == ["bob"]
    assert split.validation.train_rows.tolist() == [1]
    assert interactions_of(split.validation.held_out, split.validation.user_ids, split.item_ids) == {("bob", "b")}
    # dan, whom training does not know, is shown the validation interaction; cat has nothing to be shown.
    assert split.test.user_ids.tolist() == ["ann", "bob", "dan"]
    assert split.test.train_rows.tolist() == [0, 1, -1]
    held_out = interactions_of(split.test.held_out, split.test.user_ids, split.item_ids)
    assert held_out == {("ann", "g"), ("bob", "c"), ("dan", "a")}
    fold_in = interactions_of(split.test.fold_in, split.test.user_ids, split.item_ids)
    assert fold_in == {*(("ann", i) for i in "abcdef"), ("bob", "a"), ("bob", "g"), ("bob", "b"), ("dan", "b")}
    assert split.counts["interactions_outside_training_items"] == 1
    assert split.counts["items_outside_training"] == 1


def test_given_carves_validation_out_of_train() -> None:
    data = Interactions.from_frame(GIVEN[GIVEN["part"] != 1])
    split = given(data, val_users=1)
    assert split.protocol == {"split": "given", "val_users": 1, "seed": 98765}
    assert split.validation is not None
    assert split.validation.user_ids.tolist() == ["ann"]
    assert split.validation.held_out.nnz == 1
    assert split.validation.fold_in.nnz == split.train[0].nnz == 5
    # The vocabulary is that of the whole training list, whatever is drawn from it.
    assert split.item_ids.tolist() == ["a", "b", "c", "d", "e", "f", "g"]
    assert split.test.fold_in.nnz == 8
    assert same_split(split, given(data))


def test_given_without_validation() -> None:
    data = Interactions.from_frame(GIVEN[GIVEN["part"] != 1])
    split = given(data, val_users=0)
    assert split.validation is None
    assert split.protocol == {"split": "given"}
    assert "validation_users" not in split.counts
    few = Interactions.from_frame(GIVEN[(GIVEN["part"] != 1) & ~GIVEN["item_id"].isin(["e", "f"])])
    assert given(few).validation is None


TIMED = pd.DataFrame(
    [
        ("ann", "a", 10),
        ("ann", "b", 20),
        ("ann", "c", 30),
        ("bob", "a", 11),
        ("bob", "c", 12),
        ("bob", "b", 40),
        ("cat", "b", 13),
        ("cat", "new", 41),
        ("dan", "a", 31),
        ("dan", "c", 42),
    ],
    columns=["user_id", "item_id", "timestamp"],
)


def test_temporal_by_hand() -> None:
    split = temporal(Interactions.from_frame(TIMED), val_time=30, test_time=40)
    assert split.user_ids.tolist() == ["ann", "bob", "cat"]
    assert split.item_ids.tolist() == ["a", "b", "c"]
    assert split.train.toarray().tolist() == [[1, 1, 0], [1, 0, 1], [0, 1, 0]]
    assert split.validation is not None
    assert split.validation.user_ids.tolist() == ["ann"]
    assert split.validation.train_rows.tolist() == [0]
    assert interactions_of(split.validation.held_out, split.validation.user_ids, split.item_ids) == {("ann", "c")}
    # cat's only test interaction is of an item that training does not know; dan is new, with one to be shown.
    assert split.test.user_ids.tolist() == ["bob", "dan"]
    assert split.test.train_rows.tolist() == [1, -1]
    assert interactions_of(split.test.held_out, split.test.user_ids, split.item_ids) == {("bob", "b"), ("dan", "c")}
    assert interactions_of(split.test.fold_in, split.test.user_ids, split.item_ids) == {
        ("bob", "a"),
        ("bob", "c"),
        ("dan", "a"),
    }
    assert split.counts["interactions_outside_training_items"] == 1


def test_temporal_default_is_the_last_two_tenths() -> None:
    # Play k, at time k, is of user k mod 5 and item k // 5.
    frame = pd.DataFrame([(k % 5, k // 5, k) for k in range(20)], columns=["user_id", "item_id", "timestamp"])
    split = temporal(Interactions.from_frame(frame))
    assert split.protocol == {"split": "temporal", "val_time": "16", "test_time": "18"}
    assert split.train.nnz == 16
    assert split.validation is not None
    assert interactions_of(split.validation.held_out, split.validation.user_ids, split.item_ids) == {(1, 3), (2, 3)}
    assert interactions_of(split.test.held_out, split.test.user_ids, split.item_ids) == {(3, 3), (4, 3)}


@pytest.mark.parametrize(
    ("point", "found"),
    [({"test_time": 9}, ("8", "9.0")), ({"val_time": 16}, ("16.0", "18")), ({"val_time": 17}, ("17.0", "18"))],
)
def test_the_other_time_point_follows_the_given_one(point: dict[str, float], found: tuple[str, str]) -> None:
    frame = pd.DataFrame([(k % 5, k // 5, k) for k in range(20)], columns=["user_id", "item_id", "timestamp"])
    protocol = temporal(Interactions.from_frame(frame), **point).protocol
    assert (protocol["val_time"], protocol["test_time"]) == found


def test_temporal_of_dates() -> None:
    dates = TIMED.assign(timestamp=pd.to_datetime("2024-01-01") + pd.to_timedelta(TIMED["timestamp"], unit="D"))
    by_number = temporal(Interactions.from_frame(TIMED), val_time=30, test_time=40)
    by_date = temporal(Interactions.from_frame(dates), val_time="2024-01-31", test_time=pd.Timestamp("2024-02-10"))
    assert same_split(by_number, by_date)


def test_leave_last_out_by_hand() -> None:
    split = leave_last_out(Interactions.from_frame(TIMED))
    assert split.protocol == {"split": "leave-last"}
    assert split.user_ids.tolist() == ["ann", "bob", "cat", "dan"]
    assert split.item_ids.tolist() == ["a", "b", "c", "new"]
    assert split.train.toarray().tolist() == [[1, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 1], [1, 0, 1, 0]]
    assert split.validation is not None
    assert split.validation.user_ids.tolist() == split.test.user_ids.tolist() == ["ann", "bob"]
    assert split.test.train_rows.tolist() == [0, 1]
    assert interactions_of(split.validation.held_out, split.test.user_ids, split.item_ids) == {
        ("ann", "b"),
        ("bob", "c"),
    }
    assert interactions_of(split.test.held_out, split.test.user_ids, split.item_ids) == {("ann", "c"), ("bob", "b")}
    assert split.test.fold_in.toarray().tolist() == [[1, 1, 0, 0], [1, 0, 1, 0]]


def test_leave_last_out_takes_interactions_at_the_same_time_in_item_order() -> None:
    frame = pd.DataFrame({"user_id": [1, 1, 1, 2, 2], "item_id": [7, 9, 8, 8, 9], "timestamp": [5, 5, 5, 1, 2]})
    split = leave_last_out(Interactions.from_frame(frame))
    assert interactions_of(split.test.held_out, split.test.user_ids, split.item_ids) == {(1, 9)}
    assert split.validation is not None
    assert interactions_of(split.validation.held_out, split.validation.user_ids, split.item_ids) == {(1, 8)}


def test_cold_items_are_held_out_with_all_their_interactions() -> None:
    frame = pd.DataFrame([(user, item) for user in range(30) for item in range(12) if (user + item) % 3])
    data = Interactions.from_frame(frame.set_axis(["user_id", "item_id"], axis=1))
    split = cold_items(data)
    assert split.protocol == {"split": "cold-items", "cold_items": 2, "val_users": 3, "seed": 98765}
    assert split.item_ids.tolist() == list(range(12))
    cold = np.unique(split.test.held_out.indices)
    assert len(cold) == 2
    assert split.validation is not None
    for matrix in (split.train, split.test.fold_in, split.validation.fold_in, split.validation.held_out):
        assert matrix.nnz
        assert not matrix[:, cold].nnz
    assert split.test.held_out.nnz == data.user_items[:, cold].nnz
    assert split.test.fold_in.nnz + split.test.held_out.nnz == len(frame)
    assert not same_split(split, cold_items(data, seed=1))
    assert cold_items(data, val_users=0).validation is None


def test_cold_items_need_five_items() -> None:
    with pytest.raises(DataError, match="there are 4 items; expected at least 5"):
        cold_items(Interactions.from_frame(pd.DataFrame({"user_id": [1, 1, 2, 2], "item_id": [1, 2, 3, 4]})))


@st.composite
def tables(draw: st.DrawFn, min_users: int = 1) -> pd.DataFrame:
    """Distinct interactions with a timestamp and a part, in any order."""
    interactions = draw(
        st.dictionaries(
            st.tuples(st.integers(0, 9), st.integers(0, 11)),
            st.tuples(st.integers(0, 20), st.sampled_from([0, 0, 0, 1, 2])),
            min_size=min_users,
        )
    )
    return pd.DataFrame(
        [(*pair, *rest) for pair, rest in interactions.items()], columns=["user_id", "item_id", "timestamp", "part"]
    )


def any_split(kind: str, frame: pd.DataFrame) -> Split | None:
    """A split, or None where the table allows none."""
    data = Interactions.from_frame(frame)
    try:
        if kind == "strong":
            return strong_generalization(data, val_users=2, test_users=2)
        if kind == "given":
            return given(data)
        if kind == "cold-items":
            return cold_items(data)
        return temporal(data) if kind == "temporal" else leave_last_out(data)
    except (DataError, ParameterError):
        return None


def check_holdout(split: Split, part: Holdout, all_interactions: set[tuple[Any, Any]]) -> None:
    fold_in, held_out = (interactions_of(m, part.user_ids, split.item_ids) for m in (part.fold_in, part.held_out))
    assert not fold_in & held_out
    assert fold_in | held_out <= all_interactions
    rows = part.train_rows
    assert len(rows) == part.n_users == part.fold_in.shape[0] == part.held_out.shape[0]
    known = rows >= 0
    assert split.user_ids[rows[known]].tolist() == part.user_ids[known].tolist()
    assert not set(part.user_ids[~known]) & set(split.user_ids)
    for matrix in (part.fold_in, part.held_out):
        assert matrix.has_canonical_format
        assert matrix.dtype == np.float32
        assert (matrix.data == 1).all()


@pytest.mark.parametrize("kind", ["strong", "given", "temporal", "leave-last", "cold-items"])
def test_no_play_is_lost_or_in_two_places(kind: str) -> None:
    reached = 0

    @quick
    @examples(tables(min_users=25))
    def check(frame: pd.DataFrame) -> None:
        nonlocal reached
        split = any_split(kind, frame)
        if split is None:
            return
        reached += 1
        all_interactions = set(zip(frame["user_id"], frame["item_id"], strict=True))
        train = interactions_of(split.train, split.user_ids, split.item_ids)
        parts = [part for part in (split.validation, split.test) if part is not None]
        for part in parts:
            check_holdout(split, part, all_interactions)
            held_out = interactions_of(part.held_out, part.user_ids, split.item_ids)
            assert not held_out & train
            if kind == "strong":
                assert (part.train_rows == -1).all()
                fold_in = interactions_of(part.fold_in, part.user_ids, split.item_ids)
                in_vocabulary = {(u, i) for u, i in all_interactions if u in part.user_ids and i in split.item_ids}
                assert fold_in | held_out == in_vocabulary
        lost = split.counts["interactions_outside_training_items"]
        assert lost == sum(item not in split.item_ids for _, item in all_interactions)
        if kind == "strong":
            assert len(train) + sum(part.fold_in.nnz + part.held_out.nnz for part in parts) + lost == len(
                all_interactions
            )

    check()
    assert reached >= 10


@pytest.mark.parametrize("kind", ["given", "temporal", "leave-last", "cold-items"])
def test_row_order_changes_nothing(kind: str) -> None:
    @quick
    @examples(tables(min_users=20), st.randoms(use_true_random=False))
    def check(frame: pd.DataFrame, random: Any) -> None:
        order = list(range(len(frame)))
        random.shuffle(order)
        split, shuffled = any_split(kind, frame), any_split(kind, frame.iloc[order])
        assert (split is None) == (shuffled is None)
        if split is not None and shuffled is not None:
            assert same_split(split, shuffled)

    check()


def test_row_order_does_not_change_a_carved_validation() -> None:
    frame = pd.DataFrame([(user, item, 2 * (item == user % 9)) for user in range(20) for item in range(9)])
    frame.columns = pd.Index(["user_id", "item_id", "part"])
    once, again = (
        given(Interactions.from_frame(f), val_users=7) for f in (frame, frame.sample(frac=1, random_state=3))
    )
    assert same_split(once, again)
    assert once.validation is not None
    assert once.validation.n_users == 7


TEN = Interactions.from_frame(
    pd.DataFrame([(user, item, item) for user in range(10) for item in range(6)]).set_axis(
        ["user_id", "item_id", "timestamp"], axis=1
    )
)


@pytest.mark.parametrize(
    ("val_users", "test_users", "seed", "message"),
    [
        (0, 2, 0, "val_users is 0; expected a whole number of at least 1"),
        (2, -1, 0, "test_users is -1; expected a whole number of at least 1"),
        ("a", 2, 0, "val_users is 'a'; expected a whole number of at least 1"),
        (True, 2, 0, "val_users is True; expected a whole number of at least 1"),
        (2, 2.0, 0, "test_users is 2.0; expected a whole number of at least 1"),
        (5, 5, 0, "val_users 5 and test_users 5 leave nobody of 10 to train on"),
        (1, 5000, 0, "val_users 1 and test_users 5,000 leave nobody of 10 to train on"),
        (1, 1, -1, "seed is -1; expected a whole number of at least 0"),
        (1, 1, None, "seed is None; expected a whole number of at least 0"),
        (1, 1, 1.5, "seed is 1.5; expected a whole number of at least 0"),
        (1, 1, 2**32, "seed is 4294967296; expected at most 4,294,967,295"),
    ],
)
def test_strong_generalization_refuses(val_users: Any, test_users: Any, seed: Any, message: str) -> None:
    with pytest.raises(ParameterError) as error:
        strong_generalization(TEN, val_users=val_users, test_users=test_users, seed=seed)
    assert str(error.value) == message


def test_strong_generalization_needs_somebody_with_five_interactions() -> None:
    few = TEN.select(TEN.item_idx < 4)
    with pytest.raises(DataError, match=r"no validation user has 5 interactions of items that occur in training"):
        strong_generalization(few, val_users=2, test_users=2)


@pytest.mark.parametrize("make", [given, cold_items])
@pytest.mark.parametrize(
    ("argument", "value"), [("val_users", -1), ("val_users", 3.5), ("val_users", False), ("seed", None), ("seed", "7")]
)
def test_splits_of_known_users_refuse_what_is_no_count(make: Callable[..., Any], argument: str, value: Any) -> None:
    with pytest.raises(ParameterError) as refused:
        make(Interactions.from_frame(GIVEN), **{argument: value})
    assert str(refused.value) == f"{argument} is {value!r}; expected a whole number of at least 0"


@pytest.mark.parametrize("val_users", [2, 50])
def test_given_refuses_more_users_than_there_are(val_users: int) -> None:
    data = Interactions.from_frame(GIVEN[GIVEN["part"] != 1])
    with pytest.raises(ParameterError, match=rf"val_users is {val_users}; expected 0 to 1, the users with enough"):
        given(data, val_users=val_users)


def test_given_needs_a_source_that_comes_split() -> None:
    with pytest.raises(ParameterError, match=r"does not come split; expected a folder with train\.txt"):
        given(TEN)


def test_given_needs_training_and_test_interactions() -> None:
    with pytest.raises(DataError, match="the training side of the split is empty"):
        given(Interactions.from_frame(GIVEN[GIVEN["part"] == 2]))
    with pytest.raises(DataError, match="no user has both interactions to learn from and test interactions"):
        given(Interactions.from_frame(GIVEN[GIVEN["part"] == 0]))


def test_time_splits_need_timestamps() -> None:
    untimed = Interactions.from_frame(TIMED.drop(columns="timestamp"))
    missing = Interactions.from_frame(TIMED.assign(timestamp=[np.nan, *range(9)]))
    for name, split in (("temporal", temporal), ("leave-last", leave_last_out)):
        with pytest.raises(ParameterError, match=f"split is '{name}' but the data have no timestamps"):
            split(untimed)
        with pytest.raises(ParameterError, match=f"split is '{name}' but 1 of 10 interactions have no timestamp"):
            split(missing)


@pytest.mark.parametrize(
    ("val_time", "test_time", "message"),
    [
        (0, 40, r"no interactions before val_time: val_time is 0\.0, test_time 40\.0, data from 10 to 42"),
        (40, 40, "no interactions from val_time on"),
        (41, 30, "no interactions from val_time on"),
        (30, 43, "no interactions from test_time on"),
        ("soon", 40, "val_time is 'soon'; expected a number, as the timestamps are"),
        (30, "2024-01-01", "test_time is '2024-01-01'; expected a number, as the timestamps are"),
    ],
)
def test_temporal_refuses(val_time: Any, test_time: Any, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        temporal(Interactions.from_frame(TIMED), val_time=val_time, test_time=test_time)


@pytest.mark.parametrize(
    "make",
    [lambda data: strong_generalization(data, val_users=1, test_users=1), temporal, leave_last_out, cold_items, given],
)
@pytest.mark.parametrize("data", [TIMED, Interactions.from_frame(TIMED).user_items], ids=["table", "matrix"])
def test_splits_are_made_of_interactions(make: Callable[..., Any], data: Any) -> None:
    with pytest.raises(ParameterError, match=f"data is a {type(data).__name__}; expected Interactions"):
        make(data)


def test_temporal_of_dates_refuses_what_is_no_date() -> None:
    dates = Interactions.from_frame(TIMED.assign(timestamp=pd.to_datetime(TIMED["timestamp"], unit="D")))
    with pytest.raises(ParameterError, match="val_time is 'soon'; expected a date, as the timestamps are"):
        temporal(dates, val_time="soon")
    with pytest.raises(ParameterError, match=r"test_time is \['1970-01-09'\]; expected a date, as the timestamps are"):
        temporal(dates, test_time=["1970-01-09"])
    with pytest.raises(ParameterError, match=r"test_time is 10*\.\.\.0*; expected a number, as the timestamps are"):
        temporal(Interactions.from_frame(TIMED), test_time=10**400)


def test_leave_last_out_needs_three_interactions() -> None:
    with pytest.raises(ParameterError, match="no user has three interactions"):
        leave_last_out(TEN.select(TEN.item_idx < 2))


def test_nothing_to_find_that_training_knows() -> None:
    frame = pd.DataFrame({"user_id": [1, 1, 1], "item_id": ["a", "b", "c"], "timestamp": [1, 2, 3]})
    with pytest.raises(DataError, match="no user has both interactions to learn from and test interactions"):
        leave_last_out(Interactions.from_frame(frame))


@pytest.fixture
def real(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECVAE_DATA", str(data_dir))


@pytest.mark.usefixtures("real")
def test_movielens_1m_strong() -> None:
    data, _ = Interactions.from_frame(load("ml-1m").ratings).filter(min_user_items=5)
    split = strong_generalization(data, val_users=600, test_users=600, seed=98765)
    assert split.train.shape == (4838, 3600)
    assert split.train.nnz == 673_678
    assert split.validation is not None
    assert (split.validation.n_users, split.test.n_users) == (600, 600)


@pytest.mark.usefixtures("real")
def test_gowalla_given() -> None:
    split = given(Interactions.from_frame(load("gowalla").ratings), val_users=6000)
    assert split.train.shape == (29_858, 40_981)
    assert split.test.held_out.nnz == 217_242
    assert split.test.fold_in.nnz == 810_128
    assert split.validation is not None
    assert split.validation.n_users == 6000
    assert split.train.nnz + split.validation.held_out.nnz == 810_128


def test_temporal_where_most_have_the_earliest_time() -> None:
    """Such as data of unknown times before others: what came later is halved between validation and test."""
    times = [0] * 90 + list(range(1, 11))
    pairs = {"user_id": [i % 5 for i in range(100)], "item_id": [i // 5 for i in range(100)]}
    frame = pd.DataFrame(pairs).sample(frac=1, random_state=0).assign(timestamp=times)
    split = temporal(Interactions.from_frame(frame))
    assert split.protocol == {"split": "temporal", "val_time": "1", "test_time": "6"}
