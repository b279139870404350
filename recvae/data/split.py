"""What splits are made of: their parts as matrices, the draw of held-out interactions, and the counts."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse

from recvae.errors import DataError, ParameterError

HELD_OUT_FRACTION = 0.2
MIN_INTERACTIONS_TO_HOLD_OUT = 5
MIN_INTERACTIONS_TO_LEAVE_TWO = 3
TRAIN, VALIDATION, TEST = 0, 1, 2
NO_TRAINING = "the training part of the split is empty"
NOTHING_TO_FIND = "no user has both interactions to learn from and test interactions of items that occur in training"
NONE_LONG_ENOUGH = "split is 'leave-last' but no user has three interactions"

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
        Users, items and interactions of each part, and what was dropped.
    """

    train: sparse.csr_matrix
    user_ids: pd.Index
    item_ids: pd.Index
    validation: Holdout | None
    test: Holdout
    protocol: Mapping[str, Any]
    counts: Mapping[str, int]


def drawn_holdout(
    which: int,
    user_idx: npt.NDArray[Any],
    columns: npt.NDArray[Any],
    users: Indices,
    user_ids: pd.Index,
    n_columns: int,
    seed: int,
) -> Holdout:
    """Validation or test users, whose held-out interactions are drawn from those given, in the source's order."""
    held = drawn(user_idx, legacy_generator(seed))
    if not held.any():
        raise DataError(
            f"no {'test' if which == TEST else 'validation'} user has {MIN_INTERACTIONS_TO_HOLD_OUT} "
            "interactions of items that "
            "occur in training, so nothing can be held out"
        )
    row = inverse(users, len(user_ids))[user_idx]
    fold_in, held_out = (matrix_of(row, columns, mask, (len(users), n_columns)) for mask in (~held, held))
    return Holdout(fold_in, held_out, user_ids[users], np.full(len(users), -1, dtype=np.int32))


def legacy_generator(seed: int) -> np.random.RandomState:
    """NumPy's generator of old, which the published split was drawn with."""
    if not 0 <= seed < 2**32:
        raise ParameterError(f"seed is {seed}; expected 0 to {2**32 - 1}")
    return np.random.RandomState(seed)


def drawn(user_idx: npt.NDArray[np.int32], generator: np.random.RandomState) -> Mask:
    """Draw `int(0.2·n)` of each user's n ≥ 5 interactions, users by index, interactions in the order given."""
    order = np.argsort(user_idx, kind="stable")
    held = np.zeros(len(user_idx), dtype=bool)
    for interactions in np.split(order, np.flatnonzero(np.diff(user_idx[order])) + 1):
        n = len(interactions)
        if n >= MIN_INTERACTIONS_TO_HOLD_OUT:
            held[interactions[generator.choice(n, size=int(HELD_OUT_FRACTION * n), replace=False)]] = True
    return held


def inverse(idx: npt.NDArray[Any], size: int) -> Indices:
    """Where each of `size` indices stands in `idx`, -1 for those that do not."""
    places = np.full(size, -1, dtype=np.int64)
    places[idx] = np.arange(len(idx))
    return places


def matrix_of(
    rows: npt.NDArray[Any], columns: npt.NDArray[Any], mask: Mask, shape: tuple[int, int]
) -> sparse.csr_matrix:
    """The interactions under `mask` as a canonical binary matrix."""
    interactions = (np.ones(int(mask.sum()), dtype=np.float32), (rows[mask], columns[mask]))
    matrix = sparse.csr_matrix(interactions, shape=shape)
    matrix.sort_indices()
    return matrix


def counted(split: Split, sizes: tuple[int, int, int], dropped_interactions: int) -> Split:
    """The split with its counts; `sizes` are the users, items and interactions that it was made of."""
    counts = {
        **dict(zip(("users", "items", "interactions"), sizes, strict=True)),
        "train_users": split.train.shape[0],
        "train_items": split.train.shape[1],
        "train_interactions": split.train.nnz,
        "items_outside_training": sizes[1] - split.train.shape[1],
        "interactions_outside_training_items": dropped_interactions,
    }
    for name, part in (("validation", split.validation), ("test", split.test)):
        if part is not None:
            counts[f"{name}_users"] = part.n_users
            counts[f"{name}_users_without_held_out"] = int((np.diff(part.held_out.indptr) == 0).sum())
            counts[f"{name}_fold_in_interactions"] = part.fold_in.nnz
            counts[f"{name}_held_out_interactions"] = part.held_out.nnz
    return replace(split, counts=counts)
