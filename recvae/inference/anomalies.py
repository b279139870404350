"""`find_anomalies`: scores and p-values of any number of users' histories, from Parquet to a Parquet file."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse

from recvae.errors import DataError, ParameterError
from recvae.inference.detector import detector
from recvae.inference.histories import UserHistories, to_user_items
from recvae.inference.ids import IdIndex
from recvae.inference.parquet import write_parquet
from recvae.models import registry
from recvae.models.generative.anomaly import AnomalyDetector
from recvae.progress import EpochProgress

N_REASONS = 5
"""Items, at most, that are named for an unusual history."""


@dataclass
class _Totals:
    users: int = 0
    unusual: int = 0
    empty: int = 0
    single: int = 0
    interactions: int = 0
    unknown: int = 0

    def lines(self, out: Path, level: float) -> list[str]:
        lines = [f"wrote {out}: {self.unusual:,} of {self.users:,} users are unusual at level {level:g}"]
        if self.unknown:
            lines.append(
                f"{self.unknown:,} of {self.interactions:,} interactions are of unknown items and were left out"
            )
        if self.single:
            lines.append(f"{self.single:,} histories of one interaction were scored by its popularity alone")
        if self.empty:
            lines.append(f"{self.empty:,} histories without a known item have neither score nor p-value")
        return lines


def find_anomalies(
    model: str | Path, users: str | Path, out: str | Path, level: float = 0.01, *, show_progress: bool = True
) -> list[str]:
    """Score every user of a Parquet file or folder; return lines for the user.

    `out` is written whole or not at all: a row for each user in the order of the input, with `user_id`, `score`,
    `p_value`, `unusual` (whether the p-value is at most the level), `n_interactions` (of known items) and, for unusual
    users, `items`, those that fit the rest least. Memory is bounded by a batch of users.

    Raises
    ------
    ArtifactError
        If the model is damaged or `out` cannot be written.
    DataError
        If the users cannot be read, see `UserHistories`, or the model knows none of their items.
    ParameterError
        If the level is outside (0, 1), or lower than the calibration can tell, or `out` is among what is read.
    UnsupportedError
        If the model does not say how unusual a history is.
    """
    if not 0 < level < 1:
        raise ParameterError(f"level is {level:g}; expected a number between 0 and 1")
    read, written = Path(users).resolve(), Path(out).resolve()
    if written.is_relative_to(read):
        raise ParameterError(f"out is {out}, where users are read from; expected another file")
    loaded, histories = registry.load(model, frozen=True), UserHistories.open(users)
    judge, index = detector(loaded.model), IdIndex(loaded.item_table["item_id"])
    if level < judge.smallest_p_value():
        raise ParameterError(
            f"level is {level:g}; expected at least {judge.smallest_p_value():.3g}, since the model knows "
            f"{round(1 / judge.smallest_p_value()) - 1:,} users that tell what is usual"
        )
    totals = _Totals()

    def tables() -> Iterator[pa.Table]:
        with EpochProgress("anomalies", histories.n_rows, show_progress, unit="row") as progress:
            for batch in histories.batches():
                user_items, n_unknown = to_user_items(batch["history"], index)
                yield _describe(batch["user_id"], user_items, judge, index.array, level, totals)
                totals.interactions += pc.sum(pc.list_value_length(batch["history"])).as_py() or 0
                totals.unknown += int(n_unknown.sum())
                progress.update(batch["next_row"][-1].as_py(), {})
        if totals.unknown == totals.interactions > 0:
            raise DataError(f"users is {users}, all of whose items are unknown to {model}; expected the model's ids")

    write_parquet(Path(out), tables())
    return totals.lines(Path(out), level)


def _describe(
    user_ids: pa.ChunkedArray,
    user_items: sparse.csr_matrix,
    judge: AnomalyDetector,
    item_ids: pa.Array,
    level: float,
    totals: _Totals,
) -> pa.Table:
    scores, p_values = judge.find_anomalies(user_items)
    lengths = np.diff(user_items.indptr)
    unusual = p_values <= level  # False for NaN
    items, counts = np.empty(0, np.int32), np.zeros(len(lengths), np.int64)
    if unusual.any():
        ids, _ = judge.explain_anomaly(user_items[unusual], N_REASONS)
        items, counts[unusual] = ids[ids >= 0], (ids >= 0).sum(axis=1)
    totals.users += len(lengths)
    totals.unusual += int(unusual.sum())
    totals.empty += int((lengths == 0).sum())
    totals.single += int((lengths == 1).sum())
    offsets = pa.array(np.append(0, np.cumsum(counts)), pa.int32())
    return pa.table(
        {
            "user_id": user_ids,
            "score": _without_nan(scores),
            "p_value": _without_nan(p_values),
            "unusual": pa.array(unusual),
            "n_interactions": pa.array(lengths.astype(np.int32)),
            "items": pa.ListArray.from_arrays(offsets, item_ids.take(pa.array(items))),
        }
    )


def _without_nan(values: npt.NDArray[Any]) -> pa.Array:
    return pa.array(values, mask=np.isnan(values))
