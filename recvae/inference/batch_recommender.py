"""Lists for a batch of users, wherever the batch comes from: a file, Spark or Ray."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse

from recvae.errors import ArtifactError, ParameterError
from recvae.inference.histories import plain
from recvae.storage import artifact
from recvae.storage.artifact import Artifact
from recvae.storage.directories import read_manifest
from recvae.topn import FloatArray, IntArray


class BatchRecommender:
    """Top-N lists for a batch of users: what `recommend --users` calls, and a stage for Spark and Ray Data.

    An instance is small: it is sent to other processes as a path, and the artifact is loaded once in each of them.

        stage = BatchRecommender("models/multvae", n=10)
        users.mapInPandas(stage.in_pandas, "user_id bigint, items array<bigint>, scores array<float>, n_unknown int")
        users.map_batches(BatchRecommender, fn_constructor_args=("models/multvae", 10), batch_format="pyarrow")

    are Spark (where ids are text, `string` for `bigint`) and Ray Data; the path must be one that every machine reads.

    Parameters
    ----------
    model : path of an artifact
    n : int
        Length of the lists; they are shorter where fewer items remain.

    Raises
    ------
    ArtifactError
        If the artifact is damaged; in another process also if it is no longer the one that this stage was made with.
    ParameterError
        If n does not fit the catalogue.
    """

    def __init__(self, model: str | Path, n: int = 10) -> None:
        self.path, self.n = Path(model).absolute(), n
        self.identity = _identity(read_manifest(self.path, artifact.KIND, artifact.VERSION))
        n_items = len(self.item_ids)
        if not 1 <= n <= n_items:
            raise ParameterError(f"n is {n}; expected 1 to {n_items:,}, the items of the catalogue")

    def __call__(self, users: pa.Table) -> pa.Table:
        """The lists of some users.

        Parameters
        ----------
        users : Table
            `user_id`, and `history`, a list of item ids in any order; who has none gets the popular items. Ids may be
            numbers or text, whichever the model has.

        Returns
        -------
        Table
            One row a user in the same order: `user_id`, `items` (list of item ids, best first), `scores` (list of
            float32) and `n_unknown` (int32), how many of the history the model does not know.

        Raises
        ------
        ParameterError
            If the model ranks only for users it was trained on and one of these is not.
        """
        histories, n_unknown = self._histories(users["history"])
        ids, scores = self._best(users["user_id"], histories)
        listed = ids >= 0
        offsets = pa.array(np.concatenate([[0], np.cumsum(listed.sum(axis=1))]), pa.int32())
        items = self.item_ids.take(pa.array(ids[listed]))
        return pa.table(
            {
                "user_id": users["user_id"],
                "items": pa.ListArray.from_arrays(offsets, items),
                "scores": pa.ListArray.from_arrays(offsets, pa.array(scores[listed])),
                "n_unknown": n_unknown,
            }
        )

    def in_pandas(self, frames: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        """The same for DataFrames, as Spark's `mapInPandas` takes it."""
        for frame in frames:
            yield self(pa.Table.from_pandas(frame[["user_id", "history"]], preserve_index=False)).to_pandas()

    @property
    def _loaded(self) -> Artifact:
        return _artifact(self.path, self.identity)

    @property
    def item_ids(self) -> pa.Array:
        """The id of each item index."""
        return self._loaded.item_table["item_id"].combine_chunks()

    def _best(self, user_ids: pa.ChunkedArray, histories: sparse.csr_matrix) -> tuple[IntArray, FloatArray]:
        model = self._loaded.model
        rows = np.arange(len(user_ids)) if model.folds_in else self._rows(user_ids)
        return model.recommend(rows, histories, N=self.n, recalculate_user=model.folds_in)

    def _histories(self, column: pa.ChunkedArray) -> tuple[sparse.csr_matrix, npt.NDArray[np.int32]]:
        """Histories as rows of ones, and how many items of each are unknown."""
        if pa.types.is_null(column.type):  # nobody has any
            column = column.cast(pa.list_(self.item_ids.type))
        lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
        items = _indices(pc.list_flatten(column), self.item_ids)
        row = np.repeat(np.arange(len(lengths)), lengths)
        known = items >= 0
        shape = (len(lengths), len(self.item_ids))
        matrix = sparse.csr_matrix((np.ones(int(known.sum()), np.float32), (row[known], items[known])), shape=shape)
        matrix.data[:] = 1  # once, however often a history names an item
        return matrix, np.bincount(row[~known], minlength=len(lengths)).astype(np.int32)

    def _rows(self, user_ids: pa.ChunkedArray) -> npt.NDArray[np.int64]:
        users = self._loaded.user_table
        name = type(self._loaded.model).__name__
        if users is None:
            raise ParameterError(f"{name} cannot fold in new users, and {self.path} was saved without users")
        rows = _indices(user_ids, users["user_id"].combine_chunks())
        if (rows < 0).any():
            raise ParameterError(
                f"user_id {user_ids[int(np.argmin(rows))]} is not among the users {self.path} was trained on; {name} "
                "cannot fold in new users"
            )
        return rows


def _identity(manifest: dict[str, Any]) -> str:
    """SHA-256 of what makes a model: the same when it is trained again to the same weights."""
    parts = [manifest.get("class"), manifest.get("hyperparameters"), manifest["sha256"]]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@lru_cache(maxsize=1)
def _artifact(path: Path, identity: str) -> Artifact:
    loaded = artifact.load(path, frozen=True)
    if _identity(loaded.manifest) != identity:
        raise ArtifactError(f"{path} is no longer the artifact that this run began with; run it again")
    return loaded


def _indices(ids: pa.Array | pa.ChunkedArray, known: pa.Array) -> npt.NDArray[np.int64]:
    """Where each id stands among the known, -1 for the others; text and numbers that read the same are one id."""
    ids = plain(ids)
    if pa.types.is_integer(ids.type) and pa.types.is_integer(known.type):
        known, ids = known.cast(pa.int64()), ids.cast(pa.int64())
    elif ids.type != known.type:
        known, ids = known.cast(pa.large_string()), ids.cast(pa.large_string())
    indices: npt.NDArray[np.int64] = pc.fill_null(pc.index_in(ids, value_set=known), -1).to_numpy().astype(np.int64)
    return indices
