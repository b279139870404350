"""`BatchRecommender`: top-N lists for tables of users, from a file, Spark or Ray."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from scipy import sparse

from recvae.errors import ArtifactError, ParameterError
from recvae.inference.histories import to_user_items
from recvae.inference.ids import IdIndex
from recvae.inference.ranker import Query, Ranker
from recvae.inference.rules.selection import Rules, parse_rules
from recvae.models import registry
from recvae.models.registry import Artifact
from recvae.storage import artifact
from recvae.storage.manifest import read_manifest
from recvae.types import FloatArray, IntArray


class BatchRecommender:
    """Makes top-N lists for a table of users: for `recommend --users`, and as a stage for Spark and Ray Data.

    An instance holds the artifact's path, so it is small to send to other processes; each of them loads the artifact
    once.

        stage = BatchRecommender("models/multvae", n=10)
        users.mapInPandas(stage.in_pandas, "user_id bigint, items array<bigint>, scores array<float>, n_unknown int")
        users.map_batches(BatchRecommender, fn_constructor_args=("models/multvae", 10), batch_format="pyarrow")

    are Spark (`string` instead of `bigint` where ids are text) and Ray Data; every machine must be able to read the
    path.

    Parameters
    ----------
    model : path of an artifact
    n : int
        Length of the lists; they are shorter where fewer items remain.
    rules : mapping, optional
        `filter`, `boost`, `cap` and `diversity` of every list; see `recvae.inference.rules.selection.parse_rules`.

    Raises
    ------
    ArtifactError
        If the artifact is damaged, or, in another process, if it is no longer the artifact of this instance.
    ParameterError
        If n does not fit the catalogue, or a rule does not fit the items.
    """

    def __init__(self, model: str | Path, n: int = 10, rules: Mapping[str, Any] | None = None) -> None:
        self.path, self.n = Path(model).absolute(), n
        self.rules = {name: value for name, value in (rules or {}).items() if value not in (None, 0)}
        self.identity = _identity(read_manifest(self.path, artifact.KIND, artifact.VERSION))
        n_items = len(self.item_ids)
        if not 1 <= n <= n_items:
            raise ParameterError(f"n is {n}; expected 1 to {n_items:,}, the items of the catalogue")
        self._parse_rules()

    def __call__(self, users: pa.Table) -> pa.Table:
        """Make the lists of some users.

        Parameters
        ----------
        users : Table
            `user_id`, and `history`, a list of item ids in any order; an empty history gives the popular items. Ids may
            be numbers or text, whichever the model has. `weights`, lists of numbers above 0, where items have them.

        Returns
        -------
        Table
            One row a user in the same order: `user_id`, `items` (list of item ids, best first), `scores` (list of
            float32) and `n_unknown` (int32), the number of items of the history that the model does not know.

        Raises
        ------
        ParameterError
            If the model ranks only for users it was trained on and one of these is not.
        """
        weights = users["weights"] if "weights" in users.column_names else None
        histories, n_unknown = to_user_items(users["history"], IdIndex(self.item_ids), weights)
        ids, scores = self._rank(users["user_id"], histories)
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
        """Make the lists of DataFrames of users, with the signature of Spark's `mapInPandas`."""
        for frame in frames:
            columns = [name for name in ("user_id", "history", "weights") if name in frame]
            yield self(pa.Table.from_pandas(frame[columns], preserve_index=False)).to_pandas()

    @property
    def item_ids(self) -> pa.Array:
        """Id of each item index."""
        return self._artifact.item_table["item_id"].combine_chunks()

    @property
    def _artifact(self) -> Artifact:
        return _load_once(self.path, self.identity)

    def _rank(self, user_ids: pa.ChunkedArray, histories: sparse.csr_matrix) -> tuple[IntArray, FloatArray]:
        model = self._artifact.model
        rows = np.arange(len(user_ids)) if model.folds_in else self._find_rows(user_ids)
        if (rules := self._parse_rules()) is not None:
            return self._rank_by_rules(rows, histories, rules)
        return model.recommend(rows, histories, N=self.n, recalculate_user=model.folds_in)

    def _rank_by_rules(
        self, rows: npt.NDArray[np.int64], histories: sparse.csr_matrix, rules: Rules
    ) -> tuple[IntArray, FloatArray]:
        ranker = _make_ranker(self.path, self.identity)
        folds_in = ranker.model.folds_in
        indices, weights = (np.split(array, histories.indptr[1:-1]) for array in (histories.indices, histories.data))
        queries = [
            Query(history.tolist(), self.n, user=None if folds_in else int(row), rules=rules, weights=given.tolist())
            for row, history, given in zip(rows, indices, weights, strict=False)  # `np.split` makes one part of no rows
        ]
        ids = np.full((len(queries), self.n), -1, dtype=np.int32)
        scores = np.full(ids.shape, -np.inf, dtype=np.float32)
        for i, ranked in enumerate(ranker.rank(queries)):
            for place, (item, score) in enumerate(ranked):
                ids[i, place], scores[i, place] = item, score
        return ids, scores

    def _parse_rules(self) -> Rules | None:
        return parse_rules(_make_ranker(self.path, self.identity).metadata, **self.rules) if self.rules else None

    def _find_rows(self, user_ids: pa.ChunkedArray) -> npt.NDArray[np.int64]:
        users = self._artifact.user_table
        name = type(self._artifact.model).__name__
        if users is None:
            raise ParameterError(f"{name} cannot fold in new users, and {self.path} was saved without users")
        rows = IdIndex(users["user_id"]).find_column(user_ids)
        if (rows < 0).any():
            raise ParameterError(
                f"user_id {user_ids[int(np.argmin(rows))]} is not among the users {self.path} was trained on; {name} "
                "cannot fold in new users"
            )
        return rows


def _identity(manifest: Mapping[str, Any]) -> str:
    """Return the SHA-256 of what defines a model; training again to the same weights gives the same."""
    parts = [manifest.get("class"), manifest.get("hyperparameters"), manifest["sha256"]]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@lru_cache(maxsize=1)
def _load_once(path: Path, identity: str) -> Artifact:
    loaded = registry.load(path, frozen=True)
    if _identity(loaded.manifest) != identity:
        raise ArtifactError(f"{path} is no longer the artifact that this run began with; run it again")
    return loaded


@lru_cache(maxsize=1)
def _make_ranker(path: Path, identity: str) -> Ranker:
    return Ranker(_load_once(path, identity))
