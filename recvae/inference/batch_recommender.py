"""`BatchRecommender`: top-N lists for tables of users, from a file, Spark or Ray."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from scipy import sparse

from recvae.errors import ArtifactError, DataError, ParameterError
from recvae.inference.histories import to_user_items
from recvae.inference.ids import IdIndex, common_type, decode_ids
from recvae.inference.new_items.reading import add_new_items
from recvae.inference.ranker import Query, Ranker
from recvae.inference.rules.item_column import alternatives
from recvae.inference.rules.selection import Rules, parse_rules
from recvae.models import hyperparameters as check
from recvae.models import registry
from recvae.models.registry import Artifact
from recvae.storage import artifact
from recvae.storage.checksums import digest_file
from recvae.storage.manifest import read_manifest
from recvae.types import FloatArray, IntArray

RULES = ("filter", "boost", "cap", "diversity")


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
    new_items : path, optional
        Items that the model does not know, to be listed too; see `recvae.inference.new_items.reading.add_new_items`.

    Raises
    ------
    ArtifactError
        If the artifact is damaged, or, in another process, if it is no longer the artifact of this instance.
    DataError
        If `new_items` cannot be read, or, in another process, is no longer the file of this instance.
    ParameterError
        If n does not fit the catalogue, a rule does not fit the items, or no new item can be recommended.
    """

    def __init__(
        self,
        model: str | Path,
        n: int = 10,
        rules: Mapping[str, Any] | None = None,
        new_items: str | Path | None = None,
    ) -> None:
        self.path, self.n = Path(model).absolute(), check.whole("n", n, minimum=-check.LARGEST)
        self.new_items = None if new_items is None else Path(new_items).absolute()
        self.new_items_sha256 = digest_file(self.new_items) if self.new_items and self.new_items.is_file() else None
        self.rules = _as_json(rules or {})
        self.identity = _identity(read_manifest(self.path, artifact.KIND, *artifact.READABLE))
        n_items = len(self._listed_ids)  # which refuses new items that cannot be recommended
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
        DataError
            If the users are no such table.
        ParameterError
            If the model ranks only for users it was trained on and one of these is not.
        """
        if not isinstance(users, pa.Table):
            raise DataError(f"users is a {type(users).__name__}; expected an Arrow table")
        if not {"user_id", "history"} <= set(users.column_names):
            raise DataError(f"users has columns {', '.join(users.column_names)}; expected user_id and history")
        weights = users["weights"] if "weights" in users.column_names else None
        histories, n_unknown = to_user_items(users["history"], IdIndex(self.item_ids), weights)
        ids, scores = self._rank(users, histories)
        listed = ids >= 0
        offsets = pa.array(np.concatenate([[0], np.cumsum(listed.sum(axis=1))]), pa.int32())
        items = self._listed_ids.take(pa.array(ids[listed]))
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
    def _listed_ids(self) -> pa.Array:
        new, known = self._ranker.new if self.new_items else None, self.item_ids
        if new is None:
            return known
        known = decode_ids(known)
        wide = common_type(known.type, new.ids.array.type)  # new ids may be larger
        return pa.concat_arrays([known.cast(wide), new.ids.array.cast(wide)])

    @property
    def _ranker(self) -> Ranker:
        return _make_ranker(self.path, self.identity, self.new_items, self.new_items_sha256)

    @property
    def _artifact(self) -> Artifact:
        return _load_once(self.path, self.identity)

    def _rank(self, users: pa.Table, histories: sparse.csr_matrix) -> tuple[IntArray, FloatArray]:
        model = self._artifact.model
        rows = np.arange(len(users)) if model.folds_in else self._find_rows(users["user_id"])
        rules = self._parse_rules()
        if rules is not None or self.new_items is not None:
            return self._rank_by_rules(rows, histories, rules, self._find_new(users["history"]))
        return model.recommend(rows, histories, N=self.n, recalculate_user=model.folds_in)

    def _rank_by_rules(
        self, rows: npt.NDArray[np.int64], histories: sparse.csr_matrix, rules: Rules | None, seen: list[list[int]]
    ) -> tuple[IntArray, FloatArray]:
        ranker = self._ranker
        folds_in = ranker.model.folds_in
        indices, weights = (np.split(array, histories.indptr[1:-1]) for array in (histories.indices, histories.data))
        queries = [
            Query(history.tolist(), self.n, new, None, None if folds_in else int(row), rules, given.tolist())
            for row, history, given, new in zip(rows, indices, weights, seen, strict=False)
        ]  # not strict, since `np.split` makes one part of no rows
        ids = np.full((len(queries), self.n), -1, dtype=np.int32)
        scores = np.full(ids.shape, -np.inf, dtype=np.float32)
        for i, ranked in enumerate(ranker.rank(queries)):
            for place, (item, score) in enumerate(ranked):
                ids[i, place], scores[i, place] = item, score
        return ids, scores

    def _find_new(self, column: pa.ChunkedArray) -> list[list[int]]:
        """Indices of the new items that histories hold."""
        new, n_known = self._ranker.new, len(self.item_ids)
        if new is None:
            return [[]] * len(column)
        histories, _ = to_user_items(column, new.ids)
        return [part.tolist() for part in np.split(histories.indices + n_known, histories.indptr[1:-1])]

    def _parse_rules(self) -> Rules | None:
        return parse_rules(self._ranker.metadata, **self.rules) if self.rules else None

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


def _as_json(rules: Mapping[str, Any]) -> dict[str, Any]:
    """Return the rules that are given as JSON has them, so that those of two runs can be compared.

    Raises
    ------
    ParameterError
        If there is no such rule, or JSON cannot hold one.
    """
    if unknown := next((name for name in rules if name not in RULES), None):
        raise ParameterError(f"rules has {unknown!r}; expected {alternatives(RULES)}")
    given = {name: value for name, value in rules.items() if value is not None}
    try:
        plain: dict[str, Any] = json.loads(json.dumps(given, default=_plain))
    except (TypeError, ValueError) as error:
        raise ParameterError(f"rules cannot be kept beside the lists: {error}; expected what JSON can hold") from None
    return {name: value for name, value in plain.items() if (name, value) != ("diversity", 0)}


def _plain(value: Any) -> Any:
    """Return a date as text, and a number of NumPy as Python's."""
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{value!r} is a {type(value).__name__}")


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
def _make_ranker(path: Path, identity: str, new_items: Path | None, sha256: str | None) -> Ranker:
    ranker = Ranker(_load_once(path, identity))
    if new_items is None:
        return ranker
    ranker = add_new_items(ranker, new_items)
    if digest_file(new_items) != sha256:
        raise DataError(f"{new_items} is no longer the file that this run began with; run it again")
    return ranker
