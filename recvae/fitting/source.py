"""The data of a search: from any source to a prepared directory, with an honest split."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from recvae.data.columns import Columns, select_columns
from recvae.data.frames import to_frame
from recvae.data.interactions import Interactions
from recvae.data.items import check_item_ids, read_items
from recvae.data.prepared import KIND, Prepared, read_prepared
from recvae.datasets import Dataset
from recvae.errors import DataError, ParameterError
from recvae.fitting.continuation import Continuation, read_continuation
from recvae.preparation.pipeline import (
    OWN_DATA,
    Options,
    choose_backend,
    choose_filters,
    find_dataset,
    prepare,
    refuse_columns,
)
from recvae.storage.manifest import describe_directory

Source = Any
"""A path, a data set's name, `-` for standard input, `Prepared`, `Dataset`, `Interactions`, a table in memory, or a
`Continuation`."""
_TABLE = "table"


@dataclass(frozen=True, eq=False)
class UnsplittableData:
    """Interactions of which nothing can be held out, with the reason; `entries` are of the manifest's `data`."""

    interactions: Interactions
    entries: dict[str, Any]
    described: pd.DataFrame | None
    reason: str


@dataclass(frozen=True, eq=False)
class SplitData:
    """A prepared directory, and the table that has titles of items outside training too, where there is one.

    `entries` are of the manifest's `data`, beside what identifies the prepared directory.
    """

    prepared: Prepared
    described: pd.DataFrame | None
    entries: dict[str, Any] = field(default_factory=dict)


def choose_source(source: Source, from_store: str | None, since: str | Path | None) -> Source:
    """Choose between a source and what a store has gathered since a model, which is read.

    Raises
    ------
    ParameterError
        If both or neither are given, or only one of `from_store` and `since`.
    ArtifactError, DataError, StoreUnavailableError
        As `read_continuation`.
    """
    if (from_store is None) != (since is None):
        given, missing = ("since", "from_store") if from_store is None else ("from_store", "since")
        raise ParameterError(f"{given} is given without {missing}; expected a store's URL and the artifact before")
    if (source is None) == (from_store is None):
        given = "no source" if source is None else "a source and from_store"
        raise ParameterError(f"{given} given; expected a source, or from_store and since")
    return source if from_store is None or since is None else read_continuation(from_store, since)


def open_source(
    source: Source, directory: Path, options: Options, items: Any, say: Callable[[str], None]
) -> SplitData | UnsplittableData:
    """Prepare a source in `directory`; a directory that is prepared already keeps its own split.

    Parameters
    ----------
    items : path or table, optional
        Titles and other columns of the items.
    say : callable
        Called with each line for people.

    Raises
    ------
    DataError, DownloadError, ParameterError, ArtifactError
        If the source cannot be read, or has nothing to learn from.
    """
    if isinstance(source, Continuation):
        _refuse_options(options, items, "the artifact since has its own")
        say(source.note)
        return _prepare(source.dataset, directory, source.options, source.dataset.items, source.entries, say)
    if isinstance(source, Prepared) or _is_prepared(source):
        _refuse_options(options, items, "a prepared directory has its own")
        return SplitData(source if isinstance(source, Prepared) else read_prepared(source), None)
    if items is not None:
        options = replace(options, items=_write_items(items, directory.parent))
    described = None if options.items is None else read_items(options.items, options.columns.item)
    if isinstance(source, str | Path) and str(source) != "-" and (options.backend or choose_backend(source)):
        _say_all(prepare(source, directory, options), say)
        return SplitData(read_prepared(directory), described)
    if options.backend:
        raise ParameterError(f"backend is {options.backend}; expected a file, a folder or a table's name to read in it")
    if isinstance(source, Interactions) and source.repeats is not None:
        repeats = "sum" if source.repeats.summed else "once"
        if options.weights.repeats not in ("once", repeats):
            raise ParameterError("repeats is 'sum', but these Interactions were made without sum_repeats; leave it out")
        options = replace(options, weights=replace(options.weights, repeats=repeats))
    dataset = _read_dataset(source, options)
    named = Columns(item=options.columns.item) if options.items else Columns()  # the dataset has the usual names
    options = replace(options, columns=named)
    return _prepare(dataset, directory, options, dataset.items if described is None else described, {}, say)


def _prepare(
    dataset: Dataset,
    directory: Path,
    options: Options,
    described: pd.DataFrame | None,
    entries: dict[str, Any],
    say: Callable[[str], None],
) -> SplitData | UnsplittableData:
    try:
        _say_all(prepare(dataset, directory, options), say)
    except (DataError, ParameterError) as error:
        interactions, filters = _read_unsplit(dataset, options, error)
        own = {"dataset": "own", "protocol": {}, "filters": filters}
        return UnsplittableData(interactions, own | entries, described, str(error))
    prepared = read_prepared(directory)
    return SplitData(replace(prepared, manifest=prepared.manifest | entries), described, entries)


def _is_prepared(source: Source) -> bool:
    return isinstance(source, str | Path) and describe_directory(Path(source))[0] == KIND


def _refuse_options(options: Options, items: Any, why: str) -> None:
    """Raise `ParameterError` for options of reading and filtering, which would have no effect."""
    given, usual = _name_options(options), _name_options(Options())
    ignored = [name for name in given if given[name] != usual[name]]
    if items is not None or ignored:
        raise ParameterError(f"{'items' if items is not None else ignored[0]} cannot be given here: {why}")


def _name_options(options: Options) -> dict[str, Any]:
    return {
        **{name: getattr(options, name) for name in ("min_rating", "min_user_items", "backend")},
        **{f"{name}_column": value for name, value in vars(options.columns).items()},
        "event_weights": options.weights.events,
        **{name: getattr(options.weights, name) for name in ("repeats", "half_life")},
    }


def _say_all(lines: list[str], say: Callable[[str], None]) -> None:
    for line in lines:
        say(line)


def _write_items(items: Any, folder: Path) -> Path:
    """Give the path of a table of items; one in memory is written to `folder`."""
    if isinstance(items, str | Path):
        return Path(items)
    frame = to_frame(items, "items")
    if "item_id" not in frame:
        raise DataError(f"items has no column 'item_id'; it has: {', '.join(map(str, frame.columns))}")
    check_item_ids(frame["item_id"], "items")
    path = folder / "items.parquet"
    try:
        frame.to_parquet(path, index=False)
    except (pa.ArrowException, ValueError, TypeError) as error:
        reason = "; ".join(map(str, error.args))
        raise DataError(f"items: {reason}; expected columns of different names, each with values of one type") from None
    return path


def _read_dataset(source: Source, options: Options) -> Dataset:
    if isinstance(source, Dataset | Interactions):
        refuse_columns(options, f"the source is of class {type(source).__name__}", "leave it out")
    if isinstance(source, Dataset):
        return source
    if isinstance(source, str | Path):
        if str(source) == "-" and sys.stdin is None:
            raise ParameterError("source is -, but standard input is closed; expected a table on standard input")
        return find_dataset(source, options)
    if isinstance(source, Interactions):
        frame = _list_rows(source)
    else:
        frame = select_columns(to_frame(source, "the table"), options.columns)
    recipe = replace(OWN_DATA, split="given") if "part" in frame else OWN_DATA
    return Dataset(_TABLE, frame, None, "memory", {}, recipe)


def _list_rows(data: Interactions) -> pd.DataFrame:
    """Make a table of interactions that gives them again, with all rows of repeated pairs whose weights are kept.

    A row dates from its interaction on: an earlier one, with a lower rating, must not bring the interaction forward.
    """
    frame = pd.concat(data.iter_frames(len(data)))
    if data.part is not None:
        frame = frame.assign(part=data.part)
    if (repeats := data.repeats) is None:
        return frame
    rows = frame.iloc[repeats.place].assign(weight=repeats.weight)
    if data.timestamp is not None and repeats.timestamp is not None:
        rows["timestamp"] = np.maximum(data.timestamp[repeats.place], repeats.timestamp)
    if repeats.side is not None:
        rows["part"] = repeats.side
    rows = pd.concat([frame.drop(index=pd.Index(repeats.place)), rows])
    return rows.sort_index(kind="stable")  # the order in which pairs first occur decides what a strong split holds out


def _read_unsplit(dataset: Dataset, options: Options, error: Exception) -> tuple[Interactions, dict[str, Any]]:
    """Filter the data that `prepare` could not split; raise its error where the split was not the reason."""
    interactions, weights = options.weights.make_interactions(dataset.ratings)
    filters = choose_filters(dataset.recipe, interactions.rating is not None, options, [])
    interactions, _ = interactions.filter(**filters)
    for n, what in ((interactions.n_users, "user"), (interactions.n_items, "item")):
        if n < 2:
            raise DataError(f"the data have {n} {what}; expected at least two, to choose and to rank by") from error
    return interactions, filters | weights
