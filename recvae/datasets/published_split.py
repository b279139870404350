"""Comparison of a split with the published MovieLens-20M split, byte for byte.

Liang et al. (2018) publish the notebook that makes the split (repository dawenl/vae_cf); repository psywaves/EVCF
publishes files that it made with that notebook and the same seed, whose checksums are below.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from recvae.data.interactions import Interactions
from recvae.data.splitting import Holdout, Split
from recvae.errors import DataError, ParameterError


@dataclass(frozen=True)
class SplitFile:
    """Known facts of one file of a split.

    Attributes
    ----------
    name : str
    md5 : str
    rows : int
        Lines without the header.
    first_rows : tuple of str
        First lines, to show where a difference begins.
    """

    name: str
    md5: str
    rows: int
    first_rows: tuple[str, ...]


@dataclass(frozen=True)
class Finding:
    """One file of a split, as published and as rebuilt."""

    expected: SplitFile
    found: SplitFile

    @property
    def matches(self) -> bool:
        return self.expected == self.found


ML_20M = (
    SplitFile("test_te.csv", "f67dd335d8b9a370d7658aaa920d8109", 139_775, ("134677,239",)),
    SplitFile("validation_te.csv", "65da1e5a5662b68af218bbe7d4ea8a49", 142_514, ("123737,3",)),
    SplitFile("unique_sid.txt", "40d5cf9dcd12d3994f10b872795b115b", 20_108, ("151", "223", "253")),
)


def check_published(data: Interactions, split: Split, oracle: Sequence[SplitFile] = ML_20M) -> list[Finding]:
    """Compare a strong-generalization split with the published one.

    Parameters
    ----------
    data : Interactions
        The interactions that were split: filtered, in the source's row order.
    split : Split
        Made by `recvae.data.splitting.strong_generalization`.
    oracle : sequence of SplitFile
        The published files.

    Returns
    -------
    One finding a file of `oracle`, in its order.

    Raises
    ------
    ParameterError
        If the split is not by strong generalization, or `oracle` names a file other than the three.
    DataError
        If the split has a user, an item or an interaction that is not in `data`.
    """
    contents = build_published_files(data, split)
    if unknown := {file.name for file in oracle} - contents.keys():
        raise ParameterError(f"oracle names {', '.join(sorted(unknown))}; expected {', '.join(contents)}")
    return [Finding(file, _summarise(file.name, contents[file.name], len(file.first_rows))) for file in oracle]


def describe(findings: Sequence[Finding]) -> list[str]:
    """Describe findings in lines: one line for each file that differs, or one that says that all match."""
    lines = [
        f"{finding.expected.name} differs from the published one: {_describe_differences(finding)}"
        for finding in findings
        if not finding.matches
    ]
    return lines or [f"the split matches the published one ({len(findings)} files)"]


def build_published_files(data: Interactions, split: Split) -> dict[str, bytes]:
    """Build `test_te.csv`, `validation_te.csv` and `unique_sid.txt` as the notebook writes them: name → content.

    Users are numbered in permuted order, training users first, then validation, then test; items by column.
    Rows of the held-out interactions are by raw user id, then in the source's order.
    """
    if split.protocol.get("split") != "strong" or split.validation is None:
        raise ParameterError(f"split is {split.protocol.get('split')!r}; expected 'strong', as published")
    first_validation_uid = split.train.shape[0]
    first_test_uid = first_validation_uid + split.validation.n_users
    return {
        "test_te.csv": _write_held_out_csv(data, split, split.test, first_test_uid),
        "validation_te.csv": _write_held_out_csv(data, split, split.validation, first_validation_uid),
        "unique_sid.txt": "".join(f"{item_id}\n" for item_id in split.item_ids).encode(),
    }


def _write_held_out_csv(data: Interactions, split: Split, holdout: Holdout, first_uid: int) -> bytes:
    row = _find_places(holdout.user_ids, data.user_ids, "user")
    column = _find_places(split.item_ids, data.item_ids, "item")
    rows, columns = row[data.user_idx], column[data.item_idx]
    interactions = np.flatnonzero((rows >= 0) & (columns >= 0))
    interactions = interactions[_is_held_out(holdout, rows[interactions], columns[interactions])]
    if len(interactions) != holdout.held_out.nnz:
        raise DataError(
            f"the split holds out {holdout.held_out.nnz:,} interactions, of which the data have {len(interactions):,}"
        )
    interactions = interactions[np.argsort(data.user_idx[interactions], kind="stable")]
    table = pd.DataFrame({"uid": rows[interactions] + first_uid, "sid": columns[interactions]})
    return table.to_csv(index=False, lineterminator="\n").encode()


def _find_places(ids: pd.Index, among: pd.Index, what: str) -> npt.NDArray[np.int32]:
    """Find the place in `ids` of each of `among`; -1 for those that are not in it."""
    known = among.get_indexer(ids)
    if (known < 0).any():
        missing = ids[known < 0].tolist()[0]
        raise DataError(f"{what} {missing!r} of the split is not in the data; was it made of other data?")
    places = np.full(len(among), -1, dtype=np.int32)
    places[known] = np.arange(len(ids), dtype=np.int32)
    return places


def _is_held_out(
    holdout: Holdout, rows: npt.NDArray[np.int32], columns: npt.NDArray[np.int32]
) -> npt.NDArray[np.bool_]:
    """Check whether each (row, column) is held out."""
    held_out, n_items = holdout.held_out.tocoo(), holdout.held_out.shape[1]
    return np.isin(rows.astype(np.int64) * n_items + columns, held_out.row.astype(np.int64) * n_items + held_out.col)


def _summarise(name: str, content: bytes, n_first: int) -> SplitFile:
    lines = content.decode().splitlines()[1 if name.endswith(".csv") else 0 :]
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    return SplitFile(name, md5, len(lines), tuple(lines[:n_first]))


def _describe_differences(finding: Finding) -> str:
    expected, found = finding.expected, finding.found
    pairs = (
        ("rows", f"{found.rows:,}", f"{expected.rows:,}"),
        ("start", repr(" ".join(found.first_rows)), repr(" ".join(expected.first_rows))),
        ("md5", found.md5, expected.md5),
    )
    return "; ".join(f"{what} {here}, expected {there}" for what, here, there in pairs if here != there)
