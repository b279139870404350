"""The splits of `recvae.data.splitting` in an engine: the same matrices, streamed to disk and mapped."""

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
    MIN_INTERACTIONS_TO_LEAVE_TWO,
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


def of(interactions: Plays) -> dict[str, Callable[..., Split]]:
    """The splits of these interactions by name."""
    return {
        "strong": partial(strong_generalization, interactions),
        "given": _not_given,
        "temporal": partial(temporal, interactions),
        "leave-last": partial(leave_last_out, interactions),
    }


def _not_given(**_: Any) -> Split:
    raise ParameterError("split is 'given' but a backend reads no train.txt and test.txt; leave it out")


def strong_generalization(interactions: Plays, *, val_users: int, test_users: int, seed: int) -> Split:
    """As `recvae.data.splitting.strong_generalization`; only users and held-out interactions are in memory."""
    user_ids, item_ids = interactions.user_ids, interactions.item_ids
    order, n_train = permuted(len(user_ids), val_users, test_users, seed)
    placed = _numbered(interactions, interactions.indexed, "user_idx", order, "user_row")
    first = placed.filter(placed.user_row < n_train).group_by("item_idx").aggregate(first=lambda t: t.row.min())
    vocabulary = _column(interactions, first.order_by("first"), "item_idx")
    known = interactions.engine.kept(_numbered(interactions, placed, "item_idx", vocabulary, "column"))
    held = interactions.engine.frame(known.filter(known.user_row >= n_train).order_by("row"))

    def holdout(which: int, users: Ints, begin: int) -> Holdout:
        of = held[(held["user_row"] >= begin) & (held["user_row"] < begin + len(users))]
        columns = of["column"].to_numpy(np.int64)
        return drawn_holdout(which, of["user_idx"].to_numpy(), columns, users, user_ids, len(vocabulary), seed)

    folder = _folder(interactions)
    split = Split(
        train=_stored(
            folder, interactions, known.filter(known.user_row < n_train), "train", (n_train, len(vocabulary))
        ),
        user_ids=user_ids[order[:n_train]],
        item_ids=item_ids[vocabulary],
        validation=holdout(VALIDATION, order[n_train : n_train + val_users], n_train),
        test=holdout(TEST, order[n_train + val_users :], n_train + val_users),
        protocol={"split": "strong", "val_users": val_users, "test_users": test_users, "seed": seed},
        counts={},
    )
    return _counted(interactions, split, known)


def temporal(interactions: Plays, *, val_time: Any = None, test_time: Any = None) -> Split:
    """As `recvae.data.splitting.temporal`, for timestamps that are numbers."""
    table = _timed(interactions, "temporal")

    def time_at(place: int) -> Any:
        return _column(interactions, table.order_by("timestamp").limit(1, offset=place), "timestamp")[0]

    bounds = time_bounds(time_at, interactions.n_interactions, False, val_time, test_time)
    later = (table.timestamp >= bounds[0]).ifelse(VALIDATION, TRAIN)
    parted = table.mutate(part=(table.timestamp >= bounds[1]).ifelse(TEST, later))
    of_part = interactions.engine.frame(parted.group_by("part").aggregate(n=lambda t: t.count()))
    sizes = dict(zip(of_part["part"], of_part["n"], strict=True))
    refuse_empty_parts(
        [sizes.get(part, 0) for part in (TRAIN, VALIDATION, TEST)],
        bounds,
        (time_at(0), time_at(interactions.n_interactions - 1)),
    )
    return _by_part(interactions, parted, temporal_protocol(bounds))


def leave_last_out(interactions: Plays) -> Split:
    """As `recvae.data.splitting.leave_last_out`."""
    table = _timed(interactions, "leave-last")
    ranked = table.group_by("user_idx").mutate(degree=lambda t: t.count())
    latest_first = ibis.window(group_by="user_idx", order_by=[ranked.timestamp.desc(), ranked.item_idx.desc()])
    ranked = ranked.mutate(place=ibis.row_number().over(latest_first))
    long_enough = ranked.degree >= MIN_INTERACTIONS_TO_LEAVE_TWO
    if not interactions.engine.value(ranked.filter(long_enough).count()):
        raise ParameterError(NONE_LONG_ENOUGH)
    before = (long_enough & (ranked.place == 1)).ifelse(VALIDATION, TRAIN)
    return _by_part(
        interactions,
        ranked.mutate(part=(long_enough & (ranked.place == 0)).ifelse(TEST, before)),
        {"split": "leave-last"},
    )


def _by_part(interactions: Plays, parted: Any, protocol: dict[str, Any]) -> Split:
    """Split known users: rows of `train` are the users with training interactions, columns their items."""
    train = parted.filter(parted.part == TRAIN)
    users, vocabulary = (_column(interactions, train.select(name).distinct().order_by(name), name) for name in _PLACES)
    if not len(users):
        raise DataError(NO_TRAINING)
    known = interactions.engine.kept(_numbered(interactions, parted, "item_idx", vocabulary, "column"))
    folder, train_row = _folder(interactions), inverse(users, len(interactions.user_ids))

    def holdout(which: int, name: str) -> Holdout | None:
        shown, asked = known.filter(known.part < which), known.filter(known.part == which)
        rows = _column(
            interactions,
            shown.select("user_idx").distinct().semi_join(asked, "user_idx").order_by("user_idx"),
            "user_idx",
        )
        if not len(rows):
            return None
        shape = (len(rows), len(vocabulary))
        fold_in, held_out = (
            _stored(
                folder, interactions, _numbered(interactions, of, "user_idx", rows, "user_row"), f"{name}.{half}", shape
            )
            for of, half in ((shown, "fold_in"), (asked, "held_out"))
        )
        return Holdout(fold_in, held_out, interactions.user_ids[rows], train_row[rows].astype(np.int32))

    test = holdout(TEST, "test")
    if test is None:
        raise DataError(NOTHING_TO_FIND)
    rows = _numbered(interactions, known.filter(known.part == TRAIN), "user_idx", users, "user_row")
    split = Split(
        train=_stored(folder, interactions, rows, "train", (len(users), len(vocabulary))),
        user_ids=interactions.user_ids[users],
        item_ids=interactions.item_ids[vocabulary],
        validation=holdout(VALIDATION, "validation"),
        test=test,
        protocol=protocol,
        counts={},
    )
    return _counted(interactions, split, known)


def _timed(interactions: Plays, split: str) -> Any:
    """The indexed table, all of whose interactions have a time."""
    table = interactions.indexed
    if "timestamp" not in table.columns:
        raise untimed(split)
    if missing := interactions.engine.value(table.timestamp.isnull().sum()):
        raise untimed(split, f"{missing:,} of {interactions.n_interactions:,} interactions have no timestamp")
    return table


def _numbered(interactions: Plays, table: Any, name: str, values: Ints, place: str) -> Any:
    """The rows of a table whose `name` is among the values, with its place among them."""
    places = pd.DataFrame({name: values.astype(np.int32), place: np.arange(len(values), dtype=np.int32)})
    return table.inner_join(interactions.engine.table(places), name)


def _column(interactions: Plays, expression: Any, name: str) -> Ints:
    return interactions.engine.frame(expression.select(name))[name].to_numpy()


def _stored(folder: Path, interactions: Plays, table: Any, name: str, shape: tuple[int, int]) -> sparse.csr_matrix:
    """The matrix of a table's `user_row` and `column`, streamed into the folder and mapped."""
    n_interactions = interactions.engine.value(table.count())
    write_stream(folder, name, shape[0], n_interactions, interactions.places(table))
    return read_matrix(folder, name, shape)


def _folder(interactions: Plays) -> Path:
    folder = Path(mkdtemp(dir=interactions.engine.scratch))
    write_ones(folder, interactions.n_interactions)
    return folder


def _counted(interactions: Plays, split: Split, known: Any) -> Split:
    sizes = (len(interactions.user_ids), len(interactions.item_ids), interactions.n_interactions)
    return counted(
        split, sizes, dropped_interactions=interactions.n_interactions - interactions.engine.value(known.count())
    )
