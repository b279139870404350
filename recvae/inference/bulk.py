"""`recommend_everybody`: lists for any number of users, from Parquet to Parquet part files; resumable."""

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recvae.errors import ArtifactError, DataError
from recvae.inference.batch_recommender import BatchRecommender
from recvae.inference.histories import UserHistories
from recvae.progress import EpochProgress
from recvae.storage.directories import follow_link, refuse_other_files
from recvae.storage.files import replace_file, write_text
from recvae.storage.locks import hold_lock

USERS_A_PART = 100_000
SUCCESS = "_SUCCESS"
_JOB = b"recvae"
LOCK = ".lock"
_OWN = re.compile(rf"part-\d{{5,}}\.parquet|{SUCCESS}|\.(part-\d{{5,}}\.parquet|{SUCCESS})(\.\w+)?\.tmp|\{LOCK}")


def recommend_everybody(
    model: str | Path,
    users: str | Path,
    out: str | Path,
    n: int = 10,
    *,
    rules: Mapping[str, Any] | None = None,
    new_items: str | Path | None = None,
    show_progress: bool = True,
) -> list[str]:
    """Write lists for every user of a Parquet file or folder; return lines for the user.

    `out` gets part files `part-00000.parquet` and so on, each written whole or not at all, then `_SUCCESS` with the
    totals. They hold the tables of `BatchRecommender`, in the order of the input. A repeated call continues with the
    first part file that is missing. Memory is bounded by a batch of users, whatever their number. `rules` are those of
    every list, and `new_items` the items that the model does not know; see `BatchRecommender`.

    Raises
    ------
    ArtifactError
        If the model is damaged, if `out` holds other files, or lists of another model, other users, another n, other
        rules or new items, or if it cannot be written; finished part files stay.
    DataError
        If the users cannot be read, see `UserHistories`, or the model knows none of their items; or if the new items
        cannot be read.
    ParameterError
        If n does not fit the catalogue, a rule does not fit the items, or a model that cannot fold in is asked for
        users it does not know.
    """
    stage, histories, out = (
        BatchRecommender(model, n, rules, new_items),
        UserHistories.open(users),
        follow_link(Path(out)),
    )
    refuse_other_files(out, "earlier lists", lambda name: _OWN.fullmatch(name) is not None)
    job = {"model": stage.identity, "users": histories.sha256(), "n": stage.n}
    job |= {"rules": stage.rules} if stage.rules else {}
    job |= {"new_items": stage.new_items_sha256} if stage.new_items else {}
    with _lock_directory(out):
        if (out / SUCCESS).exists():
            totals = _read_summary(out / SUCCESS, job)
            return [f"{out} was complete already: {_summarize(totals)}"]
        parts = _write_parts(stage, histories, out, job, show_progress)
        totals = {
            "n_parts": len(parts),
            **{name: sum(part[name] for part in parts) for name in ("n_users", "n_interactions", "n_unknown")},
        }
        write_text(out / SUCCESS, json.dumps({"job": job, **totals}, indent=1) + "\n")
    return [f"wrote {out}: {_summarize(totals)}"]


def count_parts(out: Path) -> int:
    """Return the number of finished part files in a directory."""
    return len(list(out.glob("part-*.parquet")))


def _write_parts(
    stage: BatchRecommender, histories: UserHistories, out: Path, job: dict[str, Any], show_progress: bool
) -> list[dict[str, Any]]:
    """Write the part files that are missing; return the summary of each part file."""
    parts: list[dict[str, Any]] = []
    row, stream = 0, None
    with EpochProgress("recommend", histories.n_rows, show_progress, unit="row") as progress:
        while row < histories.n_rows:
            path = out / f"part-{len(parts):05}.parquet"
            if path.exists():
                part, stream = _read_summary(path, job), None
                progress.start = part["next_row"]
            else:
                stream = stream or _UserStream(histories.batches(row))
                part = _write_part(path, stage, stream, {"job": job, "first_row": row}, progress.update)
            if part["first_row"] != row:
                raise ArtifactError(f"{path} begins at row {part['first_row']:,}; expected {row:,}: remove it")
            row = part["next_row"]
            parts.append(part)
    return parts


class _UserStream:
    """Batches of users, cut anew into batches of a given total size."""

    def __init__(self, batches: Iterator[pa.Table]) -> None:
        self._batches, self._rest = batches, pa.table({})

    def take(self, n_users: int) -> Iterator[pa.Table]:
        while n_users > 0:
            batch = self._rest if len(self._rest) else next(self._batches, None)
            if batch is None:
                return
            taken, self._rest = batch[:n_users], batch[n_users:]
            n_users -= len(taken)
            yield taken


def _write_part(
    path: Path,
    stage: BatchRecommender,
    stream: _UserStream,
    part: dict[str, Any],
    show: Callable[[int, dict[str, float]], None],
) -> dict[str, Any]:
    part = {**part, "n_users": 0, "n_interactions": 0, "n_unknown": 0}
    with _replace_part(path) as temporary, contextlib.ExitStack() as stack:
        writer = None
        for users in stream.take(USERS_A_PART):
            lists = stage(users)
            writer = writer or stack.enter_context(pq.ParquetWriter(temporary, lists.schema))
            writer.write_table(lists)
            part["n_users"] += len(lists)
            part["n_interactions"] += pc.sum(pc.list_value_length(users["history"])).as_py() or 0
            part["n_unknown"] += pc.sum(lists["n_unknown"]).as_py()
            part["next_row"] = users["next_row"][-1].as_py()
            show(part["next_row"], {})
        if writer is not None:
            _refuse_unknown(stage, part, users)
            writer.add_key_value_metadata({_JOB: json.dumps(part)})
    return part


def _refuse_unknown(stage: BatchRecommender, part: dict[str, Any], users: pa.Table) -> None:
    """Raise `DataError` if the model knows no item of the first part file's users: their ids are of another kind."""
    if part["first_row"] == 0 and part["n_unknown"] == part["n_interactions"] > 0:
        given = ", ".join(map(str, pc.list_flatten(users["history"])[:3].to_pylist()))
        ids = ", ".join(map(str, stage.item_ids[:3].to_pylist()))
        raise DataError(
            f"users have interactions of {given}, …; none of the {part['n_interactions']:,} interactions of the "
            f"first {part['n_users']:,} "
            f"users is of an item that {stage.path} knows: ids look like {ids}"
        )


def _read_summary(path: Path, job: dict[str, Any]) -> dict[str, Any]:
    """Return the summary that a part file or `_SUCCESS` carries, if it belongs to this job."""
    try:
        text = path.read_bytes() if path.name == SUCCESS else (pq.read_metadata(path).metadata or {}).get(_JOB)
        if text is None:
            raise ArtifactError(f"{path} holds no lists of recvae's; expected a new directory")
        part: dict[str, Any] = json.loads(text)
        theirs = part["job"]
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise ArtifactError(f"{path} is damaged: {error}; remove it and run again") from None
    for name in [*job, *theirs]:
        if theirs.get(name) != job.get(name):
            raise ArtifactError(
                f"{path} holds lists of another {name} ({theirs.get(name)!r}, not {job.get(name)!r}); expected a new "
                f"directory, or remove {path.parent}"
            )
    return part


@contextmanager
def _lock_directory(out: Path) -> Iterator[None]:
    """Create a directory and lock out other processes; an empty directory is removed afterwards."""
    try:
        with contextlib.ExitStack() as stack:
            try:
                out.mkdir(parents=True, exist_ok=True)
                stack.enter_context(hold_lock(out / LOCK))
                for left in out.glob(".*.tmp"):  # files of a run that was killed
                    left.unlink()
            except BlockingIOError:
                raise ArtifactError(
                    f"{out} is being written by another process; expected a directory of its own"
                ) from None
            except OSError as error:
                raise ArtifactError(f"{out} could not be written: {error.strerror}") from None
            yield
    finally:
        with contextlib.suppress(OSError):
            out.rmdir()


@contextmanager
def _replace_part(path: Path) -> Iterator[Path]:
    """Give a temporary file beside `path` to write into, then rename it."""
    try:
        with replace_file(path) as temporary:
            yield temporary
    except OSError as error:
        raise ArtifactError(
            f"{path} could not be written: {error.strerror or error}; finished part files stay"
        ) from None


def _summarize(totals: dict[str, Any]) -> str:
    text = f"lists for {totals['n_users']:,} users in {totals['n_parts']:,} part files"
    if not totals["n_unknown"]:
        return text
    counts = f"{totals['n_unknown']:,} of {totals['n_interactions']:,} interactions"
    return f"{text}; {counts} are of unknown items and were left out"
