"""The splits of `recvae.data.splitting` over plays in an engine: the same matrices, streamed to disk and mapped."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import ibis
import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse

from recvae.data.csr_files import read_matrix, write_ones, write_stream
from recvae.data.split import (
    MIN_PLAYS_TO_LEAVE_TWO,
    NO_TRAINING,
    NONE_LONG_ENOUGH,
    NOTHING_TO_FIND,
    TEST,
    TRAIN,
    VALIDATION,
    Holdout,
    Split,
    counted,
    drawn_holdout,
    inverse,
)
from recvae.data.splitting import permuted, refuse_empty_parts, temporal_protocol, time_bounds, untimed
from recvae.errors import DataError, ParameterError
from recvae.preparation.engine import Plays

Ints = npt.NDArray[Any]
_PLACES = ("user_idx", "item_idx")


def of(plays: Plays) -> dict[str, Callable[..., Split]]:
    """The splits of these plays by name."""
    return {
        "strong": partial(strong_generalization, plays),
        "given": _not_given,
        "temporal": partial(temporal, plays),
        "leave-last": partial(leave_last_out, plays),
    }


def _not_given(**_: Any) -> Split:
    raise ParameterError("split is 'given' but a backend reads no train.txt and test.txt; leave it out")


def strong_generalization(plays: Plays, *, val_users: int, test_users: int, seed: int) -> Split:
    """As `recvae.data.splitting.strong_generalization`; in memory are the users, and the plays of those held out."""
    user_ids, item_ids = plays.user_ids, plays.item_ids
    order, n_train = permuted(len(user_ids), val_users, test_users, seed)
    placed = _numbered(plays, plays.indexed, "user_idx", order, "user_row")
    first = placed.filter(placed.user_row < n_train).group_by("item_idx").aggregate(first=lambda t: t.row.min())
    vocabulary = _column(plays, first.order_by("first"), "item_idx")
    known = plays.engine.kept(_numbered(plays, placed, "item_idx", vocabulary, "column"))
    held = plays.engine.frame(known.filter(known.user_row >= n_train).order_by("row"))

    def holdout(which: int, users: Ints, begin: int) -> Holdout:
        of = held[(held["user_row"] >= begin) & (held["user_row"] < begin + len(users))]
        columns = of["column"].to_numpy(np.int64)
        return drawn_holdout(which, of["user_idx"].to_numpy(), columns, users, user_ids, len(vocabulary), seed)

    folder = _folder(plays)
    split = Split(
        train=_stored(folder, plays, known.filter(known.user_row < n_train), "train", (n_train, len(vocabulary))),
        user_ids=user_ids[order[:n_train]],
        item_ids=item_ids[vocabulary],
        validation=holdout(VALIDATION, order[n_train : n_train + val_users], n_train),
        test=holdout(TEST, order[n_train + val_users :], n_train + val_users),
        protocol={"split": "strong", "val_users": val_users, "test_users": test_users, "seed": seed},
        counts={},
    )
    return _counted(plays, split, known)


def temporal(plays: Plays, *, val_time: Any = None, test_time: Any = None) -> Split:
    """As `recvae.data.splitting.temporal`, for timestamps that are numbers."""
    table = _timed(plays, "temporal")

    def time_at(place: int) -> Any:
        return _column(plays, table.order_by("timestamp").limit(1, offset=place), "timestamp")[0]

    bounds = time_bounds(time_at, plays.n_plays, False, val_time, test_time)
    later = (table.timestamp >= bounds[0]).ifelse(VALIDATION, TRAIN)
    parted = table.mutate(part=(table.timestamp >= bounds[1]).ifelse(TEST, later))
    of_part = plays.engine.frame(parted.group_by("part").aggregate(n=lambda t: t.count()))
    sizes = dict(zip(of_part["part"], of_part["n"], strict=True))
    refuse_empty_parts(
        [sizes.get(part, 0) for part in (TRAIN, VALIDATION, TEST)], bounds, (time_at(0), time_at(plays.n_plays - 1))
    )
    return _by_part(plays, parted, temporal_protocol(bounds))


def leave_last_out(plays: Plays) -> Split:
    """As `recvae.data.splitting.leave_last_out`."""
    table = _timed(plays, "leave-last")
    ranked = table.group_by("user_idx").mutate(degree=lambda t: t.count())
    latest_first = ibis.window(group_by="user_idx", order_by=[ranked.timestamp.desc(), ranked.item_idx.desc()])
    ranked = ranked.mutate(place=ibis.row_number().over(latest_first))
    long_enough = ranked.degree >= MIN_PLAYS_TO_LEAVE_TWO
    if not plays.engine.value(ranked.filter(long_enough).count()):
        raise ParameterError(NONE_LONG_ENOUGH)
    before = (long_enough & (ranked.place == 1)).ifelse(VALIDATION, TRAIN)
    return _by_part(
        plays, ranked.mutate(part=(long_enough & (ranked.place == 0)).ifelse(TEST, before)), {"split": "leave-last"}
    )


def _by_part(plays: Plays, parted: Any, protocol: dict[str, Any]) -> Split:
    """Known users: rows of `train` are the users with training plays, columns the items those plays name."""
    train = parted.filter(parted.part == TRAIN)
    users, vocabulary = (_column(plays, train.select(name).distinct().order_by(name), name) for name in _PLACES)
    if not len(users):
        raise DataError(NO_TRAINING)
    known = plays.engine.kept(_numbered(plays, parted, "item_idx", vocabulary, "column"))
    folder, train_row = _folder(plays), inverse(users, len(plays.user_ids))

    def holdout(which: int, name: str) -> Holdout | None:
        shown, asked = known.filter(known.part < which), known.filter(known.part == which)
        rows = _column(
            plays,
            shown.select("user_idx").distinct().semi_join(asked, "user_idx").order_by("user_idx"),
            "user_idx",
        )
        if not len(rows):
            return None
        shape = (len(rows), len(vocabulary))
        fold_in, held_out = (
            _stored(folder, plays, _numbered(plays, of, "user_idx", rows, "user_row"), f"{name}.{half}", shape)
            for of, half in ((shown, "fold_in"), (asked, "held_out"))
        )
        return Holdout(fold_in, held_out, plays.user_ids[rows], train_row[rows].astype(np.int32))

    test = holdout(TEST, "test")
    if test is None:
        raise DataError(NOTHING_TO_FIND)
    rows = _numbered(plays, known.filter(known.part == TRAIN), "user_idx", users, "user_row")
    split = Split(
        train=_stored(folder, plays, rows, "train", (len(users), len(vocabulary))),
        user_ids=plays.user_ids[users],
        item_ids=plays.item_ids[vocabulary],
        validation=holdout(VALIDATION, "validation"),
        test=test,
        protocol=protocol,
        counts={},
    )
    return _counted(plays, split, known)


def _timed(plays: Plays, split: str) -> Any:
    """The indexed table, all of whose plays have a time."""
    table = plays.indexed
    if "timestamp" not in table.columns:
        raise untimed(split)
    if missing := plays.engine.value(table.timestamp.isnull().sum()):
        raise untimed(split, f"{missing:,} of {plays.n_plays:,} plays have no timestamp")
    return table


def _numbered(plays: Plays, table: Any, name: str, values: Ints, place: str) -> Any:
    """The rows of a table whose `name` is among the values, with its place among them."""
    places = pd.DataFrame({name: values.astype(np.int32), place: np.arange(len(values), dtype=np.int32)})
    return table.inner_join(plays.engine.table(places), name)


def _column(plays: Plays, expression: Any, name: str) -> Ints:
    return plays.engine.frame(expression.select(name))[name].to_numpy()


def _stored(folder: Path, plays: Plays, table: Any, name: str, shape: tuple[int, int]) -> sparse.csr_matrix:
    """The matrix of a table's `user_row` and `column`, streamed into the folder and mapped."""
    n_plays = plays.engine.value(table.count())
    write_stream(folder, name, shape[0], n_plays, plays.places(table))
    return read_matrix(folder, name, shape)


def _folder(plays: Plays) -> Path:
    folder = Path(mkdtemp(dir=plays.engine.scratch))
    write_ones(folder, plays.n_plays)
    return folder


def _counted(plays: Plays, split: Split, known: Any) -> Split:
    sizes = (len(plays.user_ids), len(plays.item_ids), plays.n_plays)
    return counted(split, sizes, dropped_plays=plays.n_plays - plays.engine.value(known.count()))
