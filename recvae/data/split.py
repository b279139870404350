"""Results of a split: the training matrix, and the users to evaluate on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from scipy import sparse

TRAIN, VALIDATION, TEST = 0, 1, 2  # the sides of a split


@dataclass(frozen=True, eq=False)
class Holdout:
    """Users to evaluate on.

    Attributes
    ----------
    fold_in, held_out : csr_matrix, float32, shape (n_users, n_items)
        Each user's history that a model is given, and the interactions that it is asked to find.
    user_ids : Index
        Raw id of each row.
    train_rows : (n_users,) int32
        The user's row in `Split.train`, or -1 for a user who is not in it.
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

    After `cold_items`, the vocabulary has the cold items too, of which `train` has no interaction.

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
        Users, items and interactions on each side, and how many were dropped.
    """

    train: sparse.csr_matrix
    user_ids: pd.Index
    item_ids: pd.Index
    validation: Holdout | None
    test: Holdout
    protocol: Mapping[str, Any]
    counts: Mapping[str, int]


def list_histories(user_ids: pd.Index, user_items: sparse.csr_matrix) -> pd.DataFrame:
    """Make the table of users: `user_id`, `history`, the item indices of each row, and `weights` unless all are 1."""
    starts = user_items.indptr.astype(np.int32)
    history = pa.ListArray.from_arrays(starts, user_items.indices.astype(np.int32))
    users = pd.DataFrame({"user_id": user_ids, "history": history.to_pandas()})
    if (user_items.data != 1).any():
        users["weights"] = pa.ListArray.from_arrays(starts, user_items.data.astype(np.float32)).to_pandas()
    return users
