"""Splits: which plays a model learns from, and which it is asked to find again.

Strong generalization holds whole users out: a model sees part of a held-out user's plays (`fold_in`) and is
asked for the rest (`held_out`). In the other splits the users are known and plays are held out.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse

from recvae.errors import DataError, ParameterError
from recvae.interactions import Interactions

HELD_OUT_FRACTION = 0.2
MIN_PLAYS_TO_HOLD_OUT = 5
TRAIN, VALIDATION, TEST = 0, 1, 2

Mask = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Holdout:
    """Users to evaluate on.

    Attributes
    ----------
    fold_in, held_out : csr_matrix, float32, shape (n_users, n_items)
        What a model is shown of each user, and what it is asked to find.
    user_ids : Index
        Raw id of each row.
    train_rows : (n_users,) int32
        The user's row in `Split.train`, or -1 for a user the model never saw.
    """

    fold_in: sparse.csr_matrix
    held_out: sparse.csr_matrix
    user_ids: pd.Index
    train_rows: npt.NDArray[np.int32]

    @property
    def n_users(self) -> int:
        return len(self.user_ids)


@dataclass(frozen=True, eq=False)
class Split:
    """Training matrix, validation and test users, all over one item vocabulary: the training users' items.

    Attributes
    ----------
    train : csr_matrix, float32, shape (n_train_users, n_items)
    user_ids, item_ids : Index
        Raw id of each row and column of `train`.
    validation : Holdout, optional
    test : Holdout
    protocol : mapping
        The split's name and parameters.
    counts : mapping
        Users, items and plays of each part, and what was dropped.
    """

    train: sparse.csr_matrix
    user_ids: pd.Index
    item_ids: pd.Index
    validation: Holdout | None
    test: Holdout
    protocol: Mapping[str, Any]
    counts: Mapping[str, int]


def strong_generalization(data: Interactions, *, val_users: int, test_users: int, seed: int = 98765) -> Split:
    """Hold whole users out, to the letter as Liang et al. (2018) and their published notebook do.

    Users, sorted by id, are permuted by NumPy's legacy generator; the last `test_users` are test users, the
    `val_users` before them validation users. Columns are the training users' items by first appearance.
    Of a held-out user's n ≥ 5 plays within that vocabulary `int(0.2·n)` are drawn, in the source's row order,
    as `held_out`; with n < 5 all are `fold_in`. The generator is seeded afresh for validation and for test.

    Raises
    ------
    ParameterError
        If a count is not positive or no user is left to train on.
    DataError
        If no validation or no test user has enough plays to hold any out.
    """
    generator = _generator(seed)
    for name, value in (("val_users", val_users), ("test_users", test_users)):
        if value < 1:
            raise ParameterError(f"{name} is {value}; expected at least 1")
    n_train = data.n_users - val_users - test_users
    if n_train < 1:
        raise ParameterError(
            f"val_users {val_users:,} and test_users {test_users:,} leave nobody of {data.n_users:,} to train on"
        )
    order = generator.permutation(data.n_users)
    position = _inverse(order, data.n_users)
    part = np.searchsorted([n_train, n_train + val_users], position, side="right")[data.user_idx]
    vocabulary = pd.unique(data.item_idx[part == TRAIN])
    column = _inverse(vocabulary, data.n_items)
    known = column[data.item_idx] >= 0

    def holdout(which: int, users: Indices) -> Holdout:
        plays = np.flatnonzero((part == which) & known)
        held = np.zeros(len(data), dtype=bool)
        held[plays] = _drawn(data.user_idx[plays], _generator(seed))
        if not held.any():
            raise DataError(
                f"no {'test' if which == TEST else 'validation'} user has {MIN_PLAYS_TO_HOLD_OUT} plays of items that "
                "occur in training, so nothing can be held out"
            )
        row = _inverse(users, data.n_users)[data.user_idx]
        fold_in, held_out = (
            _matrix(row, column[data.item_idx], mask, (len(users), len(vocabulary)))
            for mask in ((part == which) & known & ~held, held)
        )
        return Holdout(fold_in, held_out, data.user_ids[users], np.full(len(users), -1, dtype=np.int32))

    shape = (n_train, len(vocabulary))
    split = Split(
        train=_matrix(position[data.user_idx], column[data.item_idx], part == TRAIN, shape),
        user_ids=data.user_ids[order[:n_train]],
        item_ids=data.item_ids[vocabulary],
        validation=holdout(VALIDATION, order[n_train : n_train + val_users]),
        test=holdout(TEST, order[n_train + val_users :]),
        protocol={"split": "strong", "val_users": val_users, "test_users": test_users, "seed": seed},
        counts={},
    )
    return _counted(split, data, dropped_plays=int((~known).sum()))


def given(data: Interactions, *, val_users: int | None = None, seed: int = 98765) -> Split:
    """Use the train, validation and test lists that the source itself comes with.

    Where it has no validation list, one is carved out of train: of `val_users` random users with at least
    five training plays (a tenth of them when None, nobody when 0), `int(0.2·n)` plays are held out, drawn in
    item order.

    Raises
    ------
    ParameterError
        If the source does not come split, or has fewer users to carve from than asked for.
    DataError
        If the training list is empty, or no user has both training and test plays.
    """
    generator = _generator(seed)
    if data.part is None:
        raise ParameterError(
            "split is 'given' but the source does not come split; expected a folder with train.txt and test.txt"
        )
    part, in_train_list = data.part.copy(), data.part == TRAIN
    protocol: dict[str, Any] = {"split": "given"}
    if not (part == VALIDATION).any() and val_users != 0:
        degree = np.bincount(data.user_idx[part == TRAIN], minlength=data.n_users)
        eligible = np.flatnonzero(degree >= MIN_PLAYS_TO_HOLD_OUT)
        size = min(len(eligible), max(1, len(eligible) // 10)) if val_users is None else val_users
        if not 0 <= size <= len(eligible):
            raise ParameterError(
                f"val_users is {size:,}; expected 0 to {len(eligible):,}, the users with enough training plays"
            )
        chosen = np.isin(data.user_idx, generator.choice(eligible, size, replace=False))
        plays = np.flatnonzero(chosen & (part == TRAIN))
        plays = plays[np.argsort(data.item_idx[plays])]
        part[plays[_drawn(data.user_idx[plays], generator)]] = VALIDATION
        protocol |= {"val_users": int(size), "seed": seed}
    return _by_part(data, part, protocol, in_vocabulary=in_train_list)


def temporal(data: Interactions, *, val_time: Any = None, test_time: Any = None) -> Split:
    """Train before a global time point, test after it.

    Plays from `test_time` on are held out of the test users, plays from `val_time` on and before `test_time`
    of the validation users. By default the last tenth of the plays is test, the tenth before it validation.

    Parameters
    ----------
    val_time, test_time : optional
        Numbers where the timestamps are numbers, else anything that pandas reads as a time in UTC.

    Raises
    ------
    ParameterError
        If timestamps are missing, or the time points are of another kind or leave a part empty.
    DataError
        If no user has both plays before `test_time` and test plays.
    """
    timestamp = _timestamps(data, "temporal")
    times = np.sort(timestamp)
    val_time = times[int(0.8 * len(times))] if val_time is None else _time("val_time", val_time, times)
    test_time = times[int(0.9 * len(times))] if test_time is None else _time("test_time", test_time, times)
    part = np.where(timestamp >= test_time, TEST, np.where(timestamp >= val_time, VALIDATION, TRAIN))
    for which, name in (
        (TRAIN, "before val_time"),
        (VALIDATION, "from val_time on"),
        (TEST, "from test_time on"),
    ):
        if not (part == which).any():
            raise ParameterError(
                f"no plays {name}: val_time is {val_time}, test_time {test_time}, data from {times[0]} to {times[-1]}"
            )
    return _by_part(data, part, {"split": "temporal", "val_time": str(val_time), "test_time": str(test_time)})


def leave_last_out(data: Interactions) -> Split:
    """Hold out each user's last play as test and the one before as validation.

    Plays of one user at the same time are taken in item order. Users with fewer than three plays only train.

    Raises
    ------
    ParameterError
        If timestamps are missing, or no user has three plays.
    DataError
        If no test play is of an item that occurs in training.
    """
    order = np.lexsort((data.item_idx, _timestamps(data, "leave-last"), data.user_idx))
    degree = np.bincount(data.user_idx, minlength=data.n_users)
    last = np.cumsum(degree) - 1
    part = np.full(len(data), TRAIN, dtype=np.int8)
    long_enough = degree >= 3
    if not long_enough.any():
        raise ParameterError("split is 'leave-last' but no user has three plays")
    part[order[last[long_enough]]] = TEST
    part[order[last[long_enough] - 1]] = VALIDATION
    return _by_part(data, part, {"split": "leave-last"})


def _by_part(
    data: Interactions, part: npt.NDArray[Any], protocol: dict[str, Any], in_vocabulary: Mask | None = None
) -> Split:
    """Known users: rows of `train` are the users with training plays, columns the items those plays name.

    With `in_vocabulary` the columns are the items of those plays instead.
    """
    users = np.unique(data.user_idx[part == TRAIN])
    vocabulary = np.unique(data.item_idx[part == TRAIN if in_vocabulary is None else in_vocabulary])
    if not len(users):
        raise DataError("the training part of the split is empty")
    train_row, column = _inverse(users, data.n_users), _inverse(vocabulary, data.n_items)
    columns = column[data.item_idx]
    known = columns >= 0

    def holdout(which: int) -> Holdout | None:
        fold_in, held = known & (part < which), known & (part == which)
        rows = np.intersect1d(data.user_idx[fold_in], data.user_idx[held])
        if not len(rows):
            return None
        row = _inverse(rows, data.n_users)[data.user_idx]
        shape = (len(rows), len(vocabulary))
        shown, asked = (_matrix(row, columns, mask & (row >= 0), shape) for mask in (fold_in, held))
        return Holdout(shown, asked, data.user_ids[rows], train_row[rows].astype(np.int32))

    test = holdout(TEST)
    if test is None:
        raise DataError("no user has both plays to learn from and test plays of items that occur in training")
    split = Split(
        train=_matrix(train_row[data.user_idx], columns, part == TRAIN, (len(users), len(vocabulary))),
        user_ids=data.user_ids[users],
        item_ids=data.item_ids[vocabulary],
        validation=holdout(VALIDATION),
        test=test,
        protocol=protocol,
        counts={},
    )
    return _counted(split, data, dropped_plays=int((~known).sum()))


def _generator(seed: int) -> np.random.RandomState:
    if not 0 <= seed < 2**32:
        raise ParameterError(f"seed is {seed}; expected 0 to {2**32 - 1}")
    return np.random.RandomState(seed)


def _timestamps(data: Interactions, split: str) -> npt.NDArray[Any]:
    if data.timestamp is None:
        raise ParameterError(
            f"split is {split!r} but the data have no timestamps; name their column with --timestamp-column"
        )
    if missing := int(pd.isna(data.timestamp).sum()):
        raise ParameterError(f"split is {split!r} but {missing:,} of {len(data):,} plays have no timestamp")
    return data.timestamp


def _time(name: str, value: Any, times: npt.NDArray[Any]) -> Any:
    """A time point of the timestamps' own kind."""
    dates = times.dtype.kind == "M"
    try:
        return pd.to_datetime(value, utc=True).tz_convert(None).to_datetime64() if dates else float(value)
    except (TypeError, ValueError):
        kind = "a date" if dates else "a number"
        raise ParameterError(f"{name} is {value!r}; expected {kind}, as the timestamps are") from None


def _drawn(user_idx: npt.NDArray[np.int32], generator: np.random.RandomState) -> Mask:
    """Draw `int(0.2·n)` of each user's n ≥ 5 plays, users by index, plays in the order given."""
    order = np.argsort(user_idx, kind="stable")
    drawn = np.zeros(len(user_idx), dtype=bool)
    for plays in np.split(order, np.flatnonzero(np.diff(user_idx[order])) + 1):
        n = len(plays)
        if n >= MIN_PLAYS_TO_HOLD_OUT:
            drawn[plays[generator.choice(n, size=int(HELD_OUT_FRACTION * n), replace=False)]] = True
    return drawn


def _inverse(idx: npt.NDArray[Any], size: int) -> Indices:
    """Where each of `size` indices stands in `idx`, -1 for those that do not."""
    inverse = np.full(size, -1, dtype=np.int64)
    inverse[idx] = np.arange(len(idx))
    return inverse


def _matrix(rows: npt.NDArray[Any], columns: npt.NDArray[Any], mask: Mask, shape: tuple[int, int]) -> sparse.csr_matrix:
    plays = (np.ones(int(mask.sum()), dtype=np.float32), (rows[mask], columns[mask]))
    matrix = sparse.csr_matrix(plays, shape=shape)
    matrix.sort_indices()
    return matrix


def _counted(split: Split, data: Interactions, dropped_plays: int) -> Split:
    counts = {
        "users": data.n_users,
        "items": data.n_items,
        "plays": len(data),
        "train_users": split.train.shape[0],
        "train_items": split.train.shape[1],
        "train_plays": split.train.nnz,
        "items_outside_training": data.n_items - split.train.shape[1],
        "plays_outside_training_items": dropped_plays,
    }
    for name, part in (("validation", split.validation), ("test", split.test)):
        if part is not None:
            counts[f"{name}_users"] = part.n_users
            counts[f"{name}_users_without_held_out"] = int((np.diff(part.held_out.indptr) == 0).sum())
            counts[f"{name}_fold_in_plays"] = part.fold_in.nnz
            counts[f"{name}_held_out_plays"] = part.held_out.nnz
    return replace(split, counts=counts)
