"""Preparation of one source: find it, filter it, split it, write the prepared directory."""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from recvae.data.columns import Columns
from recvae.data.interactions import Interactions, check_filters
from recvae.data.items import match_items, read_items
from recvae.data.prepared import KIND, write_prepared
from recvae.data.readers import is_json_lines, read_delimited, read_table
from recvae.data.split_backend import SplitBackend
from recvae.data.splitting import Split, cold_items, given, leave_last_out, strong_generalization, temporal
from recvae.datasets import NAMES, Dataset, Recipe, load
from recvae.datasets.formats import locate
from recvae.datasets.loading import digest_sources, find_parts
from recvae.datasets.published_split import check_published, describe
from recvae.errors import DataError, MissingDependencyError, ParameterError, shorten, whole
from recvae.memory import available_bytes
from recvae.preparation.automatic_split import split_automatically
from recvae.preparation.notes import note_stars, note_unread, note_weights, summarise
from recvae.preparation.weights import WeightOptions
from recvae.storage.directories import refuse_foreign

if TYPE_CHECKING:
    from recvae.preparation.engine_interactions import EngineInteractions

OWN_DATA = Recipe("own", split="strong", min_user_items=5)
LARGEST_HOLDOUT = 10_000
MEMORY_A_TEXT_BYTE = 6  # bytes of memory that preparation takes for each byte of a file
MEMORY_A_BYTE = {".parquet": 40, ".gz": 30, ".zst": 30}
SPLIT_OPTIONS = {
    "strong": {"val_users", "test_users"},
    "given": {"val_users"},
    "temporal": {"val_time", "test_time"},
    "leave-last": set[str](),
    "cold-items": {"val_users"},
    "auto": set[str](),
}


@dataclass(frozen=True)
class Options:
    """Options of `prepare`; None takes the data set's default.

    Attributes
    ----------
    min_rating : float, optional
        Lowest rating that counts as an interaction.
    min_user_items, min_item_users : int
        Users and items with fewer interactions are dropped.
    split : "strong", "given", "temporal", "leave-last", "cold-items" or "auto"
        "auto" takes the protocol of a data set that has one, else `split_automatically`.
    val_users, test_users : int, optional
        Held-out users of a strong split; `val_users` also those from whom other splits take validation.
    val_time, test_time : str, optional
        Time points of a temporal split: numbers or dates.
    seed : int
    columns : Columns
        Column names in the user's own file.
    backend : str, optional
        The database engine to prepare in, "duckdb" or a URL that Ibis knows; None prepares in memory, unless the source
        is too large.
    items : Path, optional
        A CSV, TSV, JSON lines or Parquet file with `item_id` (or the name in `columns` of the item column), `title` and
        other columns.
    weights : WeightOptions
        Sources of the interactions' weights, beside the column that `columns` names.

    Raises
    ------
    ParameterError
        If a filter, the split or the seed has a value that it cannot have.
    """

    min_rating: float | None = None
    min_user_items: int | None = None
    min_item_users: int = 0
    split: str | None = None
    val_users: int | None = None
    test_users: int | None = None
    val_time: str | None = None
    test_time: str | None = None
    seed: int = 98765
    columns: Columns = field(default_factory=Columns)
    backend: str | None = None
    items: Path | None = None
    weights: WeightOptions = field(default_factory=WeightOptions)

    def __post_init__(self) -> None:
        check_filters(self.min_rating, 0 if self.min_user_items is None else self.min_user_items, self.min_item_users)
        object.__setattr__(self, "seed", whole("seed", self.seed, minimum=0, maximum=2**32 - 1))
        if self.split not in (None, *SPLIT_OPTIONS):
            raise ParameterError(f"split is {shorten(self.split)}; expected one of {', '.join(SPLIT_OPTIONS)}")


def prepare(
    source: str | Path | Dataset, out: str | Path, options: Options, *, data_dir: Path | None = None
) -> list[str]:
    """Prepare a source and write the prepared directory `out`.

    Parameters
    ----------
    source : str, Path or Dataset
        A data set's name, a folder, a CSV, TSV, JSON lines or Parquet file, or `-` for standard input; with a backend a
        file, a folder of Parquet files, or the name of a table in the backend.
    data_dir : Path, optional
        First place to look for a data set that is given by name.

    Returns
    -------
    list of str
        Summary for people: the source, what the filters dropped, the size of each side of the split.

    Raises
    ------
    DataError, DownloadError
        If the source cannot be found or read, or nothing is left of it.
    ParameterError
        If an option does not fit the data.
    ArtifactError
        If `out` holds something else or cannot be written.
    """
    refuse_foreign(Path(out), KIND)
    described = read_items(options.items, options.columns.item) if options.items else None
    if not isinstance(source, Dataset) and (backend := options.backend or choose_backend(source)):
        return _prepare_in_engine(backend, str(source), Path(out), options, described)
    if isinstance(source, Dataset):
        refuse_columns(options, "the source is of class Dataset", "leave it out")
    found = source if isinstance(source, Dataset) else find_dataset(source, options, data_dir)
    origin = "" if found.origin == found.name else f" from {found.origin}"
    notes = [f"{found.name}{origin}: {len(found.ratings):,} rows", *found.notes]
    data, weights = options.weights.make_interactions(found.ratings)
    filters = choose_filters(found.recipe, data.rating is not None, options, notes)
    if found.recipe is OWN_DATA and filters["min_rating"] is None:
        notes += note_stars(data.summarise_ratings())
    data, counts = data.filter(**filters)
    split = _split(data, found.recipe, options)
    items, item_notes = _match(described, split) if described is not None else (found.items, [])
    write_prepared(
        out,
        data,
        split,
        dataset=found.name,
        source=_describe_source(found.origin, found.sha256, found.recipe, options),
        filters=filters | weights,
        counts=counts,
        items=items,
    )
    notes += note_weights(data, len(found.ratings) - counts["rows"])
    notes += summarise(counts, split, summed=options.weights.repeats == "sum") + item_notes
    if found.name == "ml-20m" and split.protocol["split"] == "strong":
        notes += describe(check_published(data, split))
    return notes


def _match(described: pd.DataFrame, split: Split) -> tuple[pd.DataFrame, list[str]]:
    items, note = match_items(described, split.item_ids)
    return items, [note]


def _describe_source(origin: str, sums: Mapping[str, str], recipe: Recipe, options: Options) -> dict[str, Any]:
    of_items = digest_sources(options.items) if options.items else {}
    return {"origin": origin, "sha256": {**of_items, **sums}, "citation": recipe.citation}


def find_dataset(source: str | Path, options: Options, data_dir: Path | None = None) -> Dataset:
    """Load a data set by its name or its folder, or read a table into memory.

    Raises
    ------
    DataError, DownloadError
        If it cannot be found or read.
    ParameterError
        If columns are named of a source whose columns are fixed.
    """
    if source in NAMES:
        refuse_columns(options, f"{source} is a known data set", "leave it out")
        return load(str(source), data_dir)
    path = Path(source)
    if path.is_dir():
        if locate(path):
            refuse_columns(options, f"{path} is a folder", "leave it out, or name the file in it")
        return load(path)
    is_stdin = str(source) == "-"
    if not is_stdin and not path.exists():
        raise DataError(f"{source} is neither a file, a folder nor a data set's name ({', '.join(NAMES)})")
    if is_stdin or path.is_fifo():  # they can be read only once
        text, name = (sys.stdin.buffer.read(), "standard input") if is_stdin else (path.read_bytes(), str(path))
        ratings = read_delimited(text, options.columns, where=name)
        return Dataset(name, ratings, None, name, {}, OWN_DATA, note_unread(text, len(ratings)))
    ratings = read_table(source, options.columns)
    notes = note_unread(path, len(ratings))
    return Dataset(path.name, ratings, None, path.name, digest_sources(path), OWN_DATA, notes)


def refuse_columns(options: Options, why: str, advice: str) -> None:
    """Raise `ParameterError` for columns that are named; where there is a file of items, the items' is a name in it."""
    usual = Columns(item=options.columns.item) if options.items else Columns()
    for name, value in vars(options.columns).items():
        if value != getattr(usual, name):
            raise ParameterError(f"{name}_column is {value!r}, but {why}, whose columns are fixed; {advice}")


def choose_filters(recipe: Recipe, has_ratings: bool, options: Options, notes: list[str]) -> dict[str, Any]:
    """Choose the filters' settings; append to `notes` where an option has no effect."""
    min_rating = recipe.min_rating if options.min_rating is None else options.min_rating
    if not has_ratings and min_rating is not None:
        if options.min_rating is not None:
            notes.append(f"no ratings in this source: min_rating {options.min_rating:g} has no effect")
        min_rating = None
    min_user_items = recipe.min_user_items if options.min_user_items is None else options.min_user_items
    return {  # NumPy's numbers are none that the manifest can have
        "min_rating": None if min_rating is None else float(min_rating),
        "min_user_items": int(min_user_items),
        "min_item_users": int(options.min_item_users),
    }


def _split(data: Interactions | SplitBackend, recipe: Recipe, options: Options) -> Split:
    name = options.split or recipe.split
    _refuse_ignored_options(name, options)
    if name == "auto":
        if recipe.split == "strong" and recipe.val_users is None:
            return split_automatically(data, options.seed)
        name = recipe.split
    usual = recipe if name == recipe.split else OWN_DATA  # a recipe's numbers are for its own split
    val_users = usual.val_users if options.val_users is None else options.val_users
    test_users = usual.test_users if options.test_users is None else options.test_users
    if name == "strong":
        a_tenth = max(1, min(LARGEST_HOLDOUT, len(data.user_ids) // 10))
        val_users, test_users = (a_tenth if users is None else users for users in (val_users, test_users))
        return strong_generalization(data, val_users=val_users, test_users=test_users, seed=options.seed)
    if isinstance(data, Interactions) and name in ("given", "cold-items"):  # else refused before
        return (given if name == "given" else cold_items)(data, val_users=val_users, seed=options.seed)
    if name == "temporal":
        val_time, test_time = (
            _parse_time(which, value, data.timestamp_type)
            for which, value in (("val_time", options.val_time), ("test_time", options.test_time))
        )
        return temporal(data, val_time=val_time, test_time=test_time)
    return leave_last_out(data)


def choose_backend(source: str | Path) -> str | None:
    """Choose the engine for a folder of Parquet files, or a file too large to be read into memory; else None."""
    path = Path(source)
    if path.is_dir():
        return "duckdb" if locate(path) is None and find_parts(path) else None
    if not path.is_file() or find_spec("ibis") is None or is_json_lines(path):
        return None
    available = available_bytes()
    return "duckdb" if available is not None and _estimate_memory(path) > available else None


def _estimate_memory(path: Path) -> int:
    return path.stat().st_size * MEMORY_A_BYTE.get(path.suffix.lower(), MEMORY_A_TEXT_BYTE)


def _refuse_work_in_memory(source: Path, options: Options) -> None:
    """Raise `ParameterError` for what no engine makes; the message says why there is one that nobody named."""
    if options.split == "given":
        raise ParameterError("split is 'given' but a backend reads no train.txt and test.txt; leave it out")
    if options.columns.weight or options.columns.event or not options.weights.are_default:
        work = "weights are made in memory"
    elif options.split == "cold-items":
        work = "split is 'cold-items', which is made in memory"
    else:
        return
    advice = "leave backend out"
    if options.backend is None and source.is_dir():
        advice = f"put the files of {source} into one"
    elif options.backend is None:
        needed, free = _estimate_memory(source) / 1e9, (available_bytes() or 0) / 1e9
        advice = f"{source} takes about {needed:.1f} GB, and {free:.1f} GB are free"
    raise ParameterError(f"{work}; {advice}")


def _prepare_in_engine(
    backend: str, source: str, out: Path, options: Options, described: pd.DataFrame | None
) -> list[str]:
    try:
        from recvae.preparation.engine import open_engine
        from recvae.preparation.engine_interactions import read_source
    except ImportError as error:
        raise MissingDependencyError(f"backend {backend} needs {error.name}; install recvae[scale]") from None

    if source in NAMES or source == "-":
        raise ParameterError(
            f"backend is {backend}, which reads a file, a folder of Parquet files or a table: {source}"
        )
    _refuse_work_in_memory(Path(source), options)
    out.absolute().parent.mkdir(parents=True, exist_ok=True)
    with open_engine(backend, out.absolute().parent) as engine:
        whole = read_source(engine, source, options.columns)
        return _prepare_interactions(whole, Path(source), out, options, described)


def _prepare_interactions(
    whole: "EngineInteractions", source: Path, out: Path, options: Options, described: pd.DataFrame | None
) -> list[str]:
    from recvae.preparation.engine_splits import EngineBackend

    name, sums = (source.name, digest_sources(source)) if source.is_file() else (str(source), {})
    n_rows = whole.n_interactions + whole.n_duplicates
    notes = [f"{name} in {whole.engine.connection.name}: {n_rows:,} rows"]
    notes += note_unread(source, n_rows)
    filters = choose_filters(OWN_DATA, "rating" in whole.table.columns, options, notes)
    if filters["min_rating"] is None:
        notes += note_stars(whole.summarise_ratings())
    interactions, counts = whole.filter(**filters)
    split = _split(EngineBackend.from_interactions(interactions), OWN_DATA, options)
    items, item_notes = _match(described, split) if described is not None else (None, [])
    write_prepared(
        out,
        interactions.iter_frames(),
        split,
        dataset=name,
        source=_describe_source(name, sums, OWN_DATA, options),
        filters=filters,
        counts=counts,
        items=items,
    )
    return notes + summarise(counts, split) + item_notes


def _refuse_ignored_options(split: str, options: Options) -> None:
    for name in ("val_users", "test_users", "val_time", "test_time"):
        if (value := getattr(options, name)) is not None and name not in SPLIT_OPTIONS[split]:
            takes = ", ".join(sorted(SPLIT_OPTIONS[split])) or "none of these options"
            raise ParameterError(f"{name} is {value}, but split is {split!r}, which takes {takes}")


def _parse_time(name: str, value: str | None, timestamps: np.dtype[Any] | None) -> Any:
    """Parse a time point as the type of the timestamps: a number or a date, which is UTC seconds among numbers."""
    if value is None or timestamps is None:
        return None
    try:
        if np.issubdtype(timestamps, np.number):
            return float(value) if re.fullmatch(r"-?\d+(\.\d*)?", value) else pd.Timestamp(value, tz="UTC").timestamp()
        return pd.Timestamp(value).to_datetime64()
    except ValueError:
        raise ParameterError(f"{name} is {value!r}; expected a number or a date such as 2008-01-31") from None
