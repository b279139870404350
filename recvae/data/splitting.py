"""Splits: which interactions a model learns from, and which it is asked to find again.

Strong generalization holds whole users out: a model sees part of a held-out user's interactions (`fold_in`) and is
asked for the rest (`held_out`). In the other splits the users are known and interactions are held out.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from recvae.data.interactions import Interactions
from recvae.data.split import (
    MIN_INTERACTIONS_TO_HOLD_OUT,
    MIN_INTERACTIONS_TO_LEAVE_TWO,
    NO_TRAINING,
    NONE_LONG_ENOUGH,
    NOTHING_TO_FIND,
    TEST,
    TRAIN,
    VALIDATION,
    Holdout,
    Indices,
    Mask,
    Split,
    counted,
    drawn,
    drawn_holdout,
    inverse,
    legacy_generator,
    matrix_of,
)
from recvae.errors import DataError, ParameterError

__all__ = ["Holdout", "Split", "given", "leave_last_out", "strong_generalization", "temporal"]


def strong_generalization(data: Interactions, *, val_users: int, test_users: int, seed: int = 98765) -> Split:
    """Hold whole users out, to the letter as Liang et al. (2018) and their published notebook do.

    Users, sorted by id, are permuted by NumPy's legacy generator; the last `test_users` are test users, the
    `val_users` before them validation users. Columns are the training users' items by first appearance.
    Of a held-out user's n ≥ 5 interactions within that vocabulary `int(0.2·n)` are drawn, in the source's row order,
    as `held_out`; with n < 5 all are `fold_in`. The generator is seeded afresh for validation and for test.

    Raises
    ------
    ParameterError
        If a count is not positive or no user is left to train on.
    DataError
        If no validation or no test user has enough interactions to hold any out.
    """
    order, n_train = permuted(data.n_users, val_users, test_users, seed)
    position = inverse(order, data.n_users)
    part = np.searchsorted([n_train, n_train + val_users], position, side="right")[data.user_idx]
    vocabulary = pd.unique(data.item_idx[part == TRAIN])
    columns = inverse(vocabulary, data.n_items)[data.item_idx]
    known = columns >= 0

    def holdout(which: int, users: Indices) -> Holdout:
        interactions = np.flatnonzero((part == which) & known)
        return drawn_holdout(
            which, data.user_idx[interactions], columns[interactions], users, data.user_ids, len(vocabulary), seed
        )

    shape = (n_train, len(vocabulary))
    split = Split(
        train=matrix_of(position[data.user_idx], columns, part == TRAIN, shape),
        user_ids=data.user_ids[order[:n_train]],
        item_ids=data.item_ids[vocabulary],
        validation=holdout(VALIDATION, order[n_train : n_train + val_users]),
        test=holdout(TEST, order[n_train + val_users :]),
        protocol={"split": "strong", "val_users": val_users, "test_users": test_users, "seed": seed},
        counts={},
    )
    return counted(split, (data.n_users, data.n_items, len(data)), dropped_interactions=int((~known).sum()))


def permuted(n_users: int, val_users: int, test_users: int, seed: int) -> tuple[Indices, int]:
    """The users in the published order, and how many of them, from the first on, train."""
    generator = legacy_generator(seed)
    for name, value in (("val_users", val_users), ("test_users", test_users)):
        if value < 1:
            raise ParameterError(f"{name} is {value}; expected at least 1")
    n_train = n_users - val_users - test_users
    if n_train < 1:
        raise ParameterError(
            f"val_users {val_users:,} and test_users {test_users:,} leave nobody of {n_users:,} to train on"
        )
    return generator.permutation(n_users), n_train


def given(data: Interactions, *, val_users: int | None = None, seed: int = 98765) -> Split:
    """Use the train, validation and test lists that the source itself comes with.

    Where it has no validation list, one is carved out of train: of `val_users` random users with at least five training
    interactions (a tenth of them when None, nobody when 0), `int(0.2·n)` interactions are held out, drawn in item
    order.

    Raises
    ------
    ParameterError
        If the source does not come split, or has fewer users to carve from than asked for.
    DataError
        If the training list is empty, or no user has both training and test interactions.
    """
    generator = legacy_generator(seed)
    if data.part is None:
        raise ParameterError(
            "split is 'given' but the source does not come split; expected a folder with train.txt and test.txt"
        )
    part, in_train_list = data.part.copy(), data.part == TRAIN
    protocol: dict[str, Any] = {"split": "given"}
    if not (part == VALIDATION).any() and val_users != 0:
        degree = np.bincount(data.user_idx[part == TRAIN], minlength=data.n_users)
        eligible = np.flatnonzero(degree >= MIN_INTERACTIONS_TO_HOLD_OUT)
        size = min(len(eligible), max(1, len(eligible) // 10)) if val_users is None else val_users
        if not 0 <= size <= len(eligible):
            raise ParameterError(
                f"val_users is {size:,}; expected 0 to {len(eligible):,}, the users with enough training interactions"
            )
        chosen = np.isin(data.user_idx, generator.choice(eligible, size, replace=False))
        interactions = np.flatnonzero(chosen & (part == TRAIN))
        interactions = interactions[np.argsort(data.item_idx[interactions])]
        part[interactions[drawn(data.user_idx[interactions], generator)]] = VALIDATION
        protocol |= {"val_users": int(size), "seed": seed}
    return _by_part(data, part, protocol, in_vocabulary=in_train_list)


def temporal(data: Interactions, *, val_time: Any = None, test_time: Any = None) -> Split:
    """Train before a global time point, test after it.

    Interactions from `test_time` on are held out of the test users, interactions from `val_time` on and before
    `test_time` of the validation users. By default the last tenth of the interactions is test, the tenth before it
    validation.

    Parameters
    ----------
    val_time, test_time : optional
        Numbers where the timestamps are numbers, else anything that pandas reads as a time in UTC.

    Raises
    ------
    ParameterError
        If timestamps are missing, or the time points are of another kind or leave a part empty.
    DataError
        If no user has both interactions before `test_time` and test interactions.
    """
    timestamp = _timestamps(data, "temporal")
    times = np.sort(timestamp)
    bounds = time_bounds(times.__getitem__, len(times), times.dtype.kind == "M", val_time, test_time)
    part = np.where(timestamp >= bounds[1], TEST, np.where(timestamp >= bounds[0], VALIDATION, TRAIN))
    refuse_empty_parts(np.bincount(part, minlength=3), bounds, (times[0], times[-1]))
    return _by_part(data, part, temporal_protocol(bounds))


def time_bounds(
    time_at: Callable[[int], Any], n_interactions: int, dates: bool, val_time: Any, test_time: Any
) -> tuple[Any, Any]:
    """Start times of validation and test; `time_at(k)`, the k-th earliest time, is for those not given."""
    given_or_at = (("val_time", val_time, 0.8), ("test_time", test_time, 0.9))
    val_time, test_time = (
        time_at(int(share * n_interactions)) if value is None else _time(name, value, dates)
        for name, value, share in given_or_at
    )
    return val_time, test_time


def refuse_empty_parts(
    n_interactions: Sequence[int] | npt.NDArray[Any], bounds: tuple[Any, Any], ends: tuple[Any, Any]
) -> None:
    """Raise `ParameterError` if no interaction lies in one of the three parts; `ends` are the first and last times."""
    for interactions, name in zip(
        n_interactions, ("before val_time", "from val_time on", "from test_time on"), strict=True
    ):
        if not interactions:
            raise ParameterError(
                f"no interactions {name}: val_time is {bounds[0]}, test_time {bounds[1]}, "
                f"data from {ends[0]} to {ends[1]}"
            )


def temporal_protocol(bounds: tuple[Any, Any]) -> dict[str, Any]:
    """What a temporal split records of itself."""
    return {"split": "temporal", "val_time": str(bounds[0]), "test_time": str(bounds[1])}


def leave_last_out(data: Interactions) -> Split:
    """Hold out each user's last interaction as test and the one before as validation.

    Interactions of one user at the same time are taken in item order. Users with fewer than three interactions only
    train.

    Raises
    ------
    ParameterError
        If timestamps are missing, or no user has three interactions.
    DataError
        If no test interaction is of an item that occurs in training.
    """
    order = np.lexsort((data.item_idx, _timestamps(data, "leave-last"), data.user_idx))
    degree = np.bincount(data.user_idx, minlength=data.n_users)
    last = np.cumsum(degree) - 1
    part = np.full(len(data), TRAIN, dtype=np.int8)
    long_enough = degree >= MIN_INTERACTIONS_TO_LEAVE_TWO
    if not long_enough.any():
        raise ParameterError(NONE_LONG_ENOUGH)
    part[order[last[long_enough]]] = TEST
    part[order[last[long_enough] - 1]] = VALIDATION
    return _by_part(data, part, {"split": "leave-last"})


def _by_part(
    data: Interactions, part: npt.NDArray[Any], protocol: dict[str, Any], in_vocabulary: Mask | None = None
) -> Split:
    """Known users: rows of `train` are the users with training interactions, columns the items those interactions name.

    With `in_vocabulary` the columns are the items of those interactions instead.
    """
    users = np.unique(data.user_idx[part == TRAIN])
    vocabulary = np.unique(data.item_idx[part == TRAIN if in_vocabulary is None else in_vocabulary])
    if not len(users):
        raise DataError(NO_TRAINING)
    train_row, column = inverse(users, data.n_users), inverse(vocabulary, data.n_items)
    columns = column[data.item_idx]
    known = columns >= 0

    def holdout(which: int) -> Holdout | None:
        fold_in, held = known & (part < which), known & (part == which)
        rows = np.intersect1d(data.user_idx[fold_in], data.user_idx[held])
        if not len(rows):
            return None
        row = inverse(rows, data.n_users)[data.user_idx]
        shape = (len(rows), len(vocabulary))
        shown, asked = (matrix_of(row, columns, mask & (row >= 0), shape) for mask in (fold_in, held))
        return Holdout(shown, asked, data.user_ids[rows], train_row[rows].astype(np.int32))

    test = holdout(TEST)
    if test is None:
        raise DataError(NOTHING_TO_FIND)
    split = Split(
        train=matrix_of(train_row[data.user_idx], columns, part == TRAIN, (len(users), len(vocabulary))),
        user_ids=data.user_ids[users],
        item_ids=data.item_ids[vocabulary],
        validation=holdout(VALIDATION),
        test=test,
        protocol=protocol,
        counts={},
    )
    return counted(split, (data.n_users, data.n_items, len(data)), dropped_interactions=int((~known).sum()))


def _timestamps(data: Interactions, split: str) -> npt.NDArray[Any]:
    if data.timestamp is None:
        raise untimed(split)
    if missing := int(pd.isna(data.timestamp).sum()):
        raise untimed(split, f"{missing:,} of {len(data):,} interactions have no timestamp")
    return data.timestamp


def untimed(
    split: str, what: str = "the data have no timestamps; name their column with --timestamp-column"
) -> ParameterError:
    """The error of a split by time where times are lacking."""
    return ParameterError(f"split is {split!r} but {what}")


def _time(name: str, value: Any, dates: bool) -> Any:
    """A time point of the timestamps' own kind."""
    try:
        return pd.to_datetime(value, utc=True).tz_convert(None).to_datetime64() if dates else float(value)
    except (TypeError, ValueError):
        kind = "a date" if dates else "a number"
        raise ParameterError(f"{name} is {value!r}; expected {kind}, as the timestamps are") from None
