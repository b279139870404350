"""`forget_users`: an artifact without some of its users."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recvae.data.delimited import DelimitedText, check_file, trim
from recvae.errors import ArtifactError, DataError, ParameterError
from recvae.inference.ids import IdIndex
from recvae.storage.artifact import StoredModel, read_artifact, write_artifact
from recvae.storage.directories import identify
from recvae.storage.files import check_path

OWN_ENTRIES = ("format", "format_version", "sha256", "n_items")


def forget_users(model: str | Path, users: str | Path) -> list[str]:
    """Rewrite an artifact without some users: without their ids, histories and vectors.

    What training learned from them together with everybody else stays in the item weights until the next fit.

    Parameters
    ----------
    model : path of an artifact
        It is replaced in one step, so that a service loads it as any other new model.
    users : path
        CSV, TSV or Parquet file with a column `user_id`.

    Returns
    -------
    list of str
        Lines for people.

    Raises
    ------
    ArtifactError
        If the artifact is damaged, cannot be written, is replaced by another one meanwhile, or holds vectors of more
        users than its table does, so that it does not tell whose they are.
    ParameterError
        If it was saved without users.
    DataError
        If the file of users cannot be read or names none.
    """
    path = check_path(model)
    known = identify(path)
    stored = read_artifact(path)
    if stored.users is None:
        raise ParameterError(f"{path} was saved without users, so there is nothing to forget")
    given = _read_users(Path(users))
    rows = IdIndex(stored.users["user_id"]).find_column(given)
    named = np.unique(rows[rows >= 0])
    kept = np.ones(len(stored.users), dtype=bool)
    kept[named] = False
    lost = stored.users.filter(pa.array(~kept))
    for name, n_rows in stored.user_rows().items():
        if n_rows > len(kept):
            raise ArtifactError(
                f"{path} has {len(kept):,} users and {name} of {n_rows:,}, so it does not tell whose they are; "
                "fit again without the users"
            )
    left = _keep_users(stored, kept)
    write_artifact(path, left, known)
    interactions = pc.sum(pc.list_value_length(lost["history"])).as_py() or 0
    unknown = int((rows < 0).sum())
    lines = [f"forgot {len(named):,} users with {interactions:,} interactions; {int(kept.sum()):,} users are left"]
    if unknown:
        lines.append(f"{unknown:,} ids of {users} are not among the users of {path}")
    return lines


def _keep_users(stored: StoredModel, kept: npt.NDArray[np.bool_]) -> StoredModel:
    # The training users come first: a model that folds users in may have been saved with others too.
    vectors = {name: stored.arrays[name][kept[:n_rows]] for name, n_rows in stored.user_rows().items()}
    manifest = {name: value for name, value in stored.manifest.items() if name not in OWN_ENTRIES}
    users = None if stored.users is None else stored.users.filter(pa.array(kept))
    return replace(stored, manifest=manifest, arrays={**stored.arrays, **vectors}, users=users)


def _read_users(path: Path) -> pa.ChunkedArray:
    check_file(path, "user ids")
    try:
        if path.suffix.lower() == ".parquet":
            names = pq.read_schema(path).names
            table = pq.read_table(path, columns=["user_id"]) if "user_id" in names else None
        else:
            text = DelimitedText.open(path, None)
            names = text.header
            table = replace(text, mapping={"user_id": "user_id"}).read() if "user_id" in names else None
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a readable Parquet file: {str(error).splitlines()[0]}") from None
    if table is None:
        raise DataError(f"{path} has no column 'user_id'; it has: {', '.join(names)}")
    ids = table["user_id"]
    ids = trim(ids, [""]) if pa.types.is_string(ids.type) else ids
    if not len(ids):
        raise DataError(f"{path} has no rows; expected a user to forget")
    if ids.null_count:
        raise DataError(
            f"{path}: user_id is missing in {ids.null_count:,} of {len(ids):,} rows; expected an id in each"
        )
    return ids
