"""Splits: the interactions that a model learns from, and those that it is asked to find again.

Strong generalization holds whole users out: a model is given some of a held-out user's interactions (`fold_in`) and
asked for the others (`held_out`). In the other splits every user is known and single interactions are held out.

Each split is written once, over the operations of `SplitBackend`, for interactions in memory and in a database engine.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from recvae.data.interactions import Interactions
from recvae.data.split import TEST, TRAIN, VALIDATION, Holdout, Split
from recvae.data.split_backend import (
    Indices,
    Mask,
    MemoryBackend,
    SplitBackend,
    build_matrix,
    find_times,
    invert_index,
    parse_time,
)
from recvae.errors import DataError, ParameterError, whole

__all__ = ["Holdout", "Split", "cold_items", "given", "leave_last_out", "strong_generalization", "temporal"]

HELD_OUT_FRACTION = COLD_FRACTION = 0.2
MIN_INTERACTIONS_TO_HOLD_OUT = 5
MIN_INTERACTIONS_TO_LEAVE_TWO = 3
SIDE_NAMES = {VALIDATION: "validation", TEST: "test"}


def strong_generalization(
    data: Interactions | SplitBackend, *, val_users: int, test_users: int, seed: int = 98765
) -> Split:
    """Hold whole users out, exactly as Liang et al. (2018) and their published notebook do.

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
    data = _to_backend(data)
    val_users, test_users = whole("val_users", val_users), whole("test_users", test_users)
    order, n_train = _permute_users(len(data.user_ids), val_users, test_users, seed)
    users = dict(zip((TRAIN, VALIDATION, TEST), np.split(order, [n_train, n_train + val_users]), strict=True))
    side_of_user = np.empty(len(order), dtype=np.int8)
    for side, of_side in users.items():
        side_of_user[of_side] = side
    sided = data.assign_by_user(side_of_user)
    known = sided.keep_items(sided.find_items_by_appearance(TRAIN))
    split = Split(
        train=known.build_matrix("train", users[TRAIN], [TRAIN]),
        user_ids=data.user_ids[users[TRAIN]],
        item_ids=known.item_ids,
        validation=_draw_holdout(known, VALIDATION, users[VALIDATION], seed),
        test=_draw_holdout(known, TEST, users[TEST], seed),
        protocol={"split": "strong", "val_users": val_users, "test_users": test_users, "seed": seed},
        counts={},
    )
    return replace(split, counts=_count(split, data, known))


def given(data: Interactions, *, val_users: int | None = None, seed: int = 98765) -> Split:
    """Use the train, validation and test lists that the source itself comes with.

    Where it has no validation list, one is taken from train: of `val_users` random users with at least five training
    interactions (a tenth of them when None, nobody when 0), `int(0.2·n)` interactions are held out, drawn in item
    order.

    Raises
    ------
    ParameterError
        If the source does not come split, or fewer users than `val_users` have enough training interactions.
    DataError
        If the training list is empty, or no user has both training and test interactions.
    """
    generator, val_users = _legacy_generator(seed), _check_val_users(val_users)
    if (part := _check_interactions(data).part) is None:
        raise ParameterError(
            "split is 'given' but the source does not come split; expected a folder with train.txt and test.txt"
        )
    # The vocabulary is that of the whole training list: an item whose only interaction moves to validation stays.
    vocabulary = MemoryBackend.from_interactions(data, part).find_items(TRAIN)
    side, protocol = part, dict[str, Any](split="given")
    if not (side == VALIDATION).any() and val_users != 0:
        side, n_users = _move_to_validation(data, side, val_users, generator)
        protocol |= {"val_users": n_users, "seed": seed}
    return _split_by_side(MemoryBackend.from_parts(data, side), protocol, vocabulary)


def temporal(data: Interactions | SplitBackend, *, val_time: Any = None, test_time: Any = None) -> Split:
    """Train before a global time point, test after it.

    Interactions from `test_time` on are held out of the test users, interactions from `val_time` on and before
    `test_time` of the validation users. By default the last tenth of the interactions is test, the tenth before it
    validation; where most have the earliest time of all, halves of those that came later. If only `test_time` is given,
    validation is the last ninth of what comes before it; if only `val_time`, test is the later half of what follows.

    Parameters
    ----------
    val_time, test_time : optional
        Numbers where the timestamps are numbers, else anything that pandas reads as a time in UTC.

    Raises
    ------
    ParameterError
        If timestamps are missing, or the time points are of another kind or leave a side of the split empty.
    DataError
        If no user has both interactions before `test_time` and test interactions.
    """
    data = _to_backend(data)
    dates = _check_timestamps(data, "temporal").kind == "M"
    given = (
        None if time is None else parse_time(name, time, dates)
        for name, time in (("val_time", val_time), ("test_time", test_time))
    )
    val_time, test_time = find_times(data, *given)
    sided = data.assign_by_time(val_time, test_time)
    for count, stretch in zip(
        sided.count_sides(), ("before val_time", "from val_time on", "from test_time on"), strict=True
    ):
        if not count:
            first, last = (data.find_timestamp(position) for position in (0, data.n_interactions - 1))
            raise ParameterError(
                f"no interactions {stretch}: val_time is {val_time}, test_time {test_time}, data from {first} to {last}"
            )
    return _split_by_side(
        sided, {"split": "temporal", "val_time": str(val_time), "test_time": str(test_time)}, sided.find_items(TRAIN)
    )


def leave_last_out(data: Interactions | SplitBackend) -> Split:
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
    data = _to_backend(data)
    _check_timestamps(data, "leave-last")
    sided = data.assign_last_two(MIN_INTERACTIONS_TO_LEAVE_TWO)
    if not sided.count_sides()[TEST]:
        raise ParameterError("split is 'leave-last' but no user has three interactions")
    return _split_by_side(sided, {"split": "leave-last"}, sided.find_items(TRAIN))


def cold_items(data: Interactions, *, val_users: int | None = None, seed: int = 98765) -> Split:
    """Hold a fifth of the items out with all their interactions, as items that nobody has played yet.

    Test users have interactions with items of both kinds: those with other items are their history, those with the cold
    items are held out. Columns are all items; in training those of the cold items are empty. Validation users and their
    held-out interactions, none of them with a cold item, are taken from training as in `given`.

    Raises
    ------
    ParameterError
        If fewer users than `val_users` have enough training interactions.
    DataError
        If there are fewer than five items, or no user has interactions with items of both kinds.
    """
    generator, val_users = _legacy_generator(seed), _check_val_users(val_users)
    n_cold = int(COLD_FRACTION * _check_interactions(data).n_items)
    if not n_cold:
        raise DataError(f"split is 'cold-items' but there are {data.n_items} items; expected at least 5")
    is_cold = np.zeros(data.n_items, dtype=bool)
    is_cold[generator.permutation(data.n_items)[:n_cold]] = True
    side = np.where(is_cold[data.item_idx], TEST, TRAIN).astype(np.int8)
    if val_users != 0:
        side, val_users = _move_to_validation(data, side, val_users, generator)
    protocol = {"split": "cold-items", "cold_items": n_cold, "val_users": val_users, "seed": seed}
    return _split_by_side(MemoryBackend.from_interactions(data, side), protocol, np.arange(data.n_items))


def _to_backend(data: Interactions | SplitBackend) -> SplitBackend:
    if not isinstance(data, Interactions) and hasattr(data, "assign_by_user"):
        return data
    return MemoryBackend.from_interactions(_check_interactions(data))


def _check_interactions(data: Any) -> Interactions:
    """Raise `ParameterError` for a table or a matrix, of which interactions are to be made first."""
    if not isinstance(data, Interactions):
        raise ParameterError(f"data is a {type(data).__name__}; expected Interactions, as their from_frame makes them")
    return data


def _permute_users(n_users: int, val_users: int, test_users: int, seed: int) -> tuple[Indices, int]:
    """Order the users as published; returns the order, and how many of them, from the first on, train."""
    generator = _legacy_generator(seed)
    n_train = n_users - val_users - test_users
    if n_train < 1:
        raise ParameterError(
            f"val_users {val_users:,} and test_users {test_users:,} leave nobody of {n_users:,} to train on"
        )
    return generator.permutation(n_users), n_train


def _legacy_generator(seed: int) -> np.random.RandomState:
    # The published split was drawn with RandomState; numpy's newer generators draw other users from the same seed.
    return np.random.RandomState(whole("seed", seed, minimum=0, maximum=2**32 - 1))


def _check_val_users(val_users: int | None) -> int | None:
    return None if val_users is None else whole("val_users", val_users, minimum=0)


def _draw_holdout(known: SplitBackend, side: int, users: Indices, seed: int) -> Holdout:
    """Draw the held-out interactions of a side's users, none of whom is in the training matrix."""
    user_idx, item_idx = known.list_interactions(side)
    # The notebook seeds its generator anew in each call of its splitting function: once for validation, once for test.
    held = _draw_held_out(user_idx, _legacy_generator(seed))
    if not held.any():
        raise DataError(
            f"no {SIDE_NAMES[side]} user has {MIN_INTERACTIONS_TO_HOLD_OUT} interactions of items that "
            "occur in training, so nothing can be held out"
        )
    rows, shape = invert_index(users, len(known.user_ids))[user_idx], (len(users), len(known.item_ids))
    weights = known.list_weights(side)
    fold_in = build_matrix(rows[~held], item_idx[~held], shape, None if weights is None else weights[~held])
    held_out = build_matrix(rows[held], item_idx[held], shape)
    return Holdout(fold_in, held_out, known.user_ids[users], np.full(len(users), -1, dtype=np.int32))


def _draw_held_out(user_idx: Indices, generator: np.random.RandomState) -> Mask:
    """Draw `int(0.2·n)` of each user's n ≥ 5 interactions, users by index, interactions in the order given.

    Both orders decide what is drawn: the notebook goes through users by ascending id, and `choice` draws places in the
    list of a user's interactions.
    """
    order = np.argsort(user_idx, kind="stable")
    held = np.zeros(len(user_idx), dtype=bool)
    for interactions in np.split(order, np.flatnonzero(np.diff(user_idx[order])) + 1):
        n = len(interactions)
        if n >= MIN_INTERACTIONS_TO_HOLD_OUT:
            held[interactions[generator.choice(n, size=int(HELD_OUT_FRACTION * n), replace=False)]] = True
    return held


def _move_to_validation(
    data: Interactions, side: npt.NDArray[np.int8], val_users: int | None, generator: np.random.RandomState
) -> tuple[npt.NDArray[np.int8], int]:
    """Move training interactions of random users to validation; returns each interaction's side, and how many users."""
    in_training, side = side == TRAIN, side.copy()
    degree = np.bincount(data.user_idx[in_training], minlength=data.n_users)
    eligible = np.flatnonzero(degree >= MIN_INTERACTIONS_TO_HOLD_OUT)
    size = min(len(eligible), max(1, len(eligible) // 10)) if val_users is None else val_users
    if size > len(eligible):
        raise ParameterError(
            f"val_users is {size:,}; expected 0 to {len(eligible):,}, the users with enough training interactions"
        )
    chosen = np.isin(data.user_idx, generator.choice(eligible, size, replace=False))
    interactions = np.flatnonzero(chosen & in_training)
    interactions = interactions[np.argsort(data.item_idx[interactions])]
    side[interactions[_draw_held_out(data.user_idx[interactions], generator)]] = VALIDATION
    return side, int(size)


def _split_by_side(data: SplitBackend, protocol: dict[str, Any], vocabulary: Indices) -> Split:
    """Split known users: rows of `train` are the users with training interactions, columns the vocabulary."""
    users = data.find_users([TRAIN])
    if not len(users):
        raise DataError("the training side of the split is empty")
    known = data.keep_items(vocabulary)
    train_row = invert_index(users, len(data.user_ids))

    def holdout(side: int) -> Holdout | None:
        """Users with interactions on the side, and on an earlier one, which is their history."""
        earlier = list(range(side))
        rows = np.intersect1d(known.find_users(earlier), known.find_users([side]), assume_unique=True)
        if not len(rows):
            return None
        fold_in = known.build_matrix(f"{SIDE_NAMES[side]}.fold_in", rows, earlier)
        held_out = known.drop_weights().build_matrix(f"{SIDE_NAMES[side]}.held_out", rows, [side])
        return Holdout(fold_in, held_out, data.user_ids[rows], train_row[rows])

    test = holdout(TEST)
    if test is None:
        raise DataError(
            "no user has both interactions to learn from and test interactions of items that occur in training"
        )
    split = Split(
        train=known.build_matrix("train", users, [TRAIN]),
        user_ids=data.user_ids[users],
        item_ids=known.item_ids,
        validation=holdout(VALIDATION),
        test=test,
        protocol=protocol,
        counts={},
    )
    return replace(split, counts=_count(split, data, known))


def _count(split: Split, data: SplitBackend, known: SplitBackend) -> dict[str, int]:
    """Count the data, each side of the split, and the interactions of `data` that are not in `known`."""
    return {
        "users": len(data.user_ids),
        "items": len(data.item_ids),
        "interactions": data.n_interactions,
        "train_users": split.train.shape[0],
        "train_items": split.train.shape[1],
        "train_interactions": split.train.nnz,
        "items_outside_training": len(data.item_ids) - split.train.shape[1],
        "interactions_outside_training_items": data.n_interactions - known.n_interactions,
        **count_holdouts(split),
    }


def count_holdouts(split: Split) -> dict[str, int]:
    """Count users and interactions of the validation and the test side."""
    counts = {}
    for name, holdout in (("validation", split.validation), ("test", split.test)):
        if holdout is not None:
            counts[f"{name}_users"] = holdout.n_users
            counts[f"{name}_users_without_held_out"] = int((np.diff(holdout.held_out.indptr) == 0).sum())
            counts[f"{name}_fold_in_interactions"] = holdout.fold_in.nnz
            counts[f"{name}_held_out_interactions"] = holdout.held_out.nnz
    return counts


def _check_timestamps(data: SplitBackend, split: str) -> np.dtype[Any]:
    """Raise `ParameterError` unless every interaction has a timestamp; returns their type."""
    kind = data.timestamp_type
    if kind is None:
        raise ParameterError(
            f"split is {split!r} but the data have no timestamps; name their column by timestamp_column "
            "(--timestamp-column)"
        )
    if missing := data.count_missing_timestamps():
        raise ParameterError(
            f"split is {split!r} but {missing:,} of {data.n_interactions:,} interactions have no timestamp"
        )
    return kind
