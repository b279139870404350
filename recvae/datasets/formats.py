"""Readers of the file formats that data sets are published in: ratings and titles of a folder."""

import csv
import re
from collections.abc import Iterable, Iterator
from enum import Enum
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from recvae.data.columns import Columns
from recvae.data.readers import read_delimited, read_lists, read_table
from recvae.errors import DataError


class Layout(Enum):
    """File layout of a data set; each value is the file that it is recognised by."""

    U_DATA = "u.data"
    DAT = "ratings.dat"
    CSV = "ratings.csv"
    INTER = "ml-100k.inter"
    LISTS = "train.txt"
    TABLE = "interactions.parquet"


FILES: dict[Layout, tuple[str, ...]] = {
    Layout.U_DATA: ("u.data", "u.item", "u.genre"),
    Layout.DAT: ("ratings.dat", "movies.dat"),
    Layout.CSV: ("ratings.csv", "movies.csv"),
    Layout.INTER: ("ml-100k.inter", "ml-100k.item"),
    Layout.LISTS: ("train.txt", "valid.txt", "test.txt"),
    Layout.TABLE: ("interactions.parquet",),
}
RECOGNISED = tuple(layout for layout in Layout if layout is not Layout.TABLE)
EXPECTED = "u.data, ratings.dat, ratings.csv, ml-100k.inter, or train.txt with test.txt"

_STANDARD = Columns(rating="rating", timestamp="timestamp")
_GENRES = (
    "unknown|Action|Adventure|Animation|Children's|Comedy|Crime|Documentary|Drama|Fantasy|Film-Noir|Horror|Musical|"
    "Mystery|Romance|Sci-Fi|Thriller|War|Western"
)


class Parsed(NamedTuple):
    """Content of a data set's folder.

    Attributes
    ----------
    ratings : DataFrame
        `user_id`, `item_id` and either `rating` and `timestamp` (seconds since 1970) or, from user-item lists, `part`
        (int8: 0 train, 1 validation, 2 test); rows in the files' order.
    items : DataFrame, optional
        `item_id`, `title`, `genres` (joined by `|`), in the file's order.
    files : tuple of Path
        The files that were read.
    """

    ratings: pd.DataFrame
    items: pd.DataFrame | None
    files: tuple[Path, ...]


def locate(folder: Path, layouts: Iterable[Layout] = RECOGNISED) -> tuple[Path, Layout] | None:
    """Find the folder that holds a data set's files, `folder` or its only such sub-folder, and their layout.

    Parameters
    ----------
    layouts : iterable of Layout
        The layouts to look for. A table is none of the default: a folder of Parquet files may be anything.

    Raises
    ------
    DataError
        If several sub-folders hold a data set.
    """
    if layout := _find_layout(folder, layouts):
        return folder, layout
    children = [child for child in sorted(folder.iterdir()) if child.is_dir()]
    inner = [(child, layout) for child in children if (layout := _find_layout(child, layouts))]
    if len(inner) > 1:
        names = ", ".join(child.name for child, _ in inner)
        raise DataError(f"{folder} holds several data sets ({names}); expected the folder of one")
    return inner[0] if inner else None


def _find_layout(folder: Path, layouts: Iterable[Layout]) -> Layout | None:
    for layout in layouts:
        if (folder / layout.value).is_file() and (layout is not Layout.LISTS or (folder / "test.txt").is_file()):
            return layout
    return None


def parse(folder: Path, layout: Layout) -> Parsed:
    """Read the ratings, and the titles if there are any, of a folder that `locate` found.

    Raises
    ------
    DataError
        If a file cannot be read in its layout; the message names the file and, where it can, the line.
    """
    files = tuple(path for name in FILES[layout] if (path := folder / name).is_file())
    if layout is Layout.LISTS:
        return Parsed(_read_split_lists(files), None, files)
    if layout is Layout.TABLE:
        return Parsed(read_table(folder / layout.value), None, files)
    ratings = _read_ratings(folder / layout.value, layout)
    titles = folder / FILES[layout][1]
    items = None
    if titles.is_file():
        items = pd.DataFrame(_read_titles(titles, layout), columns=["item_id", "title", "genres"])
        items["item_id"] = _parse_item_ids(items["item_id"], ratings["item_id"], titles)
    return Parsed(ratings, items, files)


def _read_split_lists(files: Iterable[Path]) -> pd.DataFrame:
    codes = {"train.txt": 0, "valid.txt": 1, "test.txt": 2}
    frames = [read_lists(path).assign(part=np.int8(codes[path.name])) for path in files]
    for column in ("user_id", "item_id"):
        if len({frame[column].dtype for frame in frames}) > 1:
            frames = [frame.astype({column: "str"}) for frame in frames]
    return pd.concat(frames, ignore_index=True).astype({"part": "int8"})


def _read_ratings(path: Path, layout: Layout) -> pd.DataFrame:
    if layout is Layout.U_DATA:
        names = ["user_id", "item_id", "rating", "timestamp"]
        return read_delimited(path, _STANDARD, delimiter="\t", names=names)
    if layout is Layout.DAT:
        # Arrow knows delimiters of one character only: `::` is two of them, around a column that is always empty.
        names = ["user_id", "_1", "item_id", "_2", "rating", "_3", "timestamp"]
        return read_delimited(path, _STANDARD, delimiter=":", names=names)
    if layout is Layout.INTER:
        columns = Columns("user_id:token", "item_id:token", "rating:float", "timestamp:float")
        return read_delimited(path, columns, delimiter="\t")
    return read_delimited(path, Columns("userId", "movieId", "rating", "timestamp"), delimiter=",")


def _read_titles(path: Path, layout: Layout) -> Iterator[tuple[str, str, str]]:
    if layout is Layout.U_DATA:
        return _read_u_item(path)
    if layout is Layout.DAT:
        return _read_movies_dat(path)
    return _read_inter_item(path) if layout is Layout.INTER else _read_movies_csv(path)


def _read_u_item(path: Path) -> Iterator[tuple[str, str, str]]:
    genres = _read_genres(path.with_name("u.genre"))
    for number, line in _number_lines(path.read_bytes().decode("latin-1")):
        fields = line.split("|")
        if len(fields) != 5 + len(genres):
            raise DataError(f"{path} line {number}: {len(fields)} fields; expected {5 + len(genres)} between '|'")
        flags = fields[5:]
        yield fields[0], fields[1], "|".join(name for name, flag in zip(genres, flags, strict=True) if flag == "1")


def _read_genres(path: Path) -> list[str]:
    if not path.is_file():
        return _GENRES.split("|")
    return [line.split("|")[0] for _, line in _number_lines(path.read_bytes().decode("latin-1"))]


def _read_movies_dat(path: Path) -> Iterator[tuple[str, str, str]]:
    for number, line in _number_lines(_read_text(path)):
        item_id, separator, rest = line.partition("::")
        title, last, genres = rest.rpartition("::")
        if not (separator and last):
            raise DataError(f"{path} line {number}: {line!r}; expected 'id::title::genres'")
        yield item_id, title, genres


def _read_movies_csv(path: Path) -> Iterator[tuple[str, str, str]]:
    reader = csv.DictReader(_read_text(path).removeprefix("\ufeff").splitlines(keepends=True))
    if missing := {"movieId", "title", "genres"} - set(reader.fieldnames or ()):
        raise DataError(f"{path} has no column {', '.join(sorted(missing))}; expected movieId, title, genres")
    for row in reader:
        if row["genres"] is None:
            raise DataError(f"{path} line {reader.line_num}: too few columns; expected movieId, title, genres")
        yield row["movieId"], row["title"], row["genres"]


def _read_inter_item(path: Path) -> Iterator[tuple[str, str, str]]:
    lines = _number_lines(_read_text(path))
    next(lines, None)
    for number, line in lines:
        fields = line.split("\t")
        if len(fields) != 4:
            raise DataError(f"{path} line {number}: {len(fields)} columns; expected id, title, year and genres")
        item_id, title, year, genres = fields
        # One film has no name: RecBole writes "unkonwn" in both columns.
        name = f"{title} ({year})" if re.fullmatch(r"\d{4}", year) else title.replace("unkonwn", "unknown")
        yield item_id, name, genres.replace(" ", "|")


def _number_lines(text: str) -> Iterator[tuple[int, str]]:
    """Number the lines that are not blank; only `\\n` ends a line, because titles may hold other line separators."""
    for number, line in enumerate(text.split("\n"), start=1):
        if stripped := line.rstrip("\r"):
            yield number, stripped


def _read_text(path: Path) -> str:
    """Read a text file in UTF-8 or latin-1."""
    # ML-1M is in latin-1, later sets in UTF-8; latin-1 text with accents is hardly ever valid UTF-8.
    content = path.read_bytes()
    try:
        return content.decode("utf8")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _parse_item_ids(ids: "pd.Series[str]", ratings_ids: "pd.Series[int]", path: Path) -> "pd.Series[int]":
    try:
        return ids.astype(ratings_ids.dtype)
    except ValueError:
        odd = ids[~ids.str.fullmatch(r"\d+")].iloc[0]
        raise DataError(f"{path}: item id {odd!r}; expected a whole number, as in the ratings") from None
