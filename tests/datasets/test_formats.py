"""Every published file format, from tiny files and from the real ones."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recvae.datasets.formats import Layout, Parsed, locate, parse
from recvae.errors import DataError

GENRES = (
    "unknown|Action|Adventure|Animation|Children's|Comedy|Crime|Documentary|Drama|Fantasy|Film-Noir|Horror|Musical|"
    "Mystery|Romance|Sci-Fi|Thriller|War|Western"
)


def folder_of(folder: Path, **files: str | bytes) -> Path:
    """Write `u_data=…` as `u.data` and so on."""
    for name, content in files.items():
        raw = content if isinstance(content, bytes) else content.encode()
        path = folder / name.replace("__", "-").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(raw)
    return folder


def parsed(folder: Path) -> Parsed:
    found = locate(folder)
    assert found is not None
    return parse(*found)


def u_item(number: int, title: str, *genres: str) -> str:
    flags = "|".join("1" if genre in genres else "0" for genre in GENRES.split("|"))
    return f"{number}|{title}|01-Jan-1995||http://example.org|{flags}\n"


def test_u_data_in_file_order(tmp_path: Path) -> None:
    ratings = parsed(folder_of(tmp_path, u_data="7\t2\t5\t881250949\n3\t9\t1\t881250948\n")).ratings
    expected = pd.DataFrame(
        {"user_id": [7, 3], "item_id": [2, 9], "rating": [5.0, 1.0], "timestamp": [881250949, 881250948]}
    )
    pd.testing.assert_frame_equal(ratings, expected)


def test_u_item_is_latin_1(tmp_path: Path) -> None:
    items = u_item(2, "Misérables, Les (1995)", "Drama", "Musical") + u_item(9, "unknown", "unknown")
    read = parsed(folder_of(tmp_path, u_data="7\t2\t5\t1\n", u_item=items.encode("latin-1"))).items
    assert read is not None
    assert read.to_dict("list") == {
        "item_id": [2, 9],
        "title": ["Misérables, Les (1995)", "unknown"],
        "genres": ["Drama|Musical", "unknown"],
    }


def test_u_genre_names_the_flags(tmp_path: Path) -> None:
    files = {"u_data": "7\t2\t5\t1\n", "u_genre": "Noir|0\nJazz|1\n\n", "u_item": "2|Film||||0|1\n"}
    read = parsed(folder_of(tmp_path, **files)).items
    assert read is not None
    assert read["genres"].tolist() == ["Jazz"]


@pytest.mark.parametrize("encoding", ["latin-1", "utf8"], ids=["as in ml-1m", "as in ml-10m"])
def test_dat(tmp_path: Path, encoding: str) -> None:
    movies = "5::Star Wars: Episode IV::A New Hope (1977)::Sci-Fi|War\n6::Café (1990)::Drama\n".encode(encoding)
    both = parsed(folder_of(tmp_path, ratings_dat="1::5::4.5::978300760\r\n2::6::3::978300761\r\n", movies_dat=movies))
    assert both.ratings.to_dict("list") == {
        "user_id": [1, 2],
        "item_id": [5, 6],
        "rating": [4.5, 3.0],
        "timestamp": [978300760, 978300761],
    }
    assert both.items is not None
    assert both.items["title"].tolist() == ["Star Wars: Episode IV::A New Hope (1977)", "Café (1990)"]
    assert both.items["genres"].tolist() == ["Sci-Fi|War", "Drama"]
    assert [path.name for path in both.files] == ["ratings.dat", "movies.dat"]


def test_csv(tmp_path: Path) -> None:
    ratings = "userId,movieId,rating,timestamp\n1,2,3.5,1112486027\n"
    movies = 'movieId,title,genres\n2,"American President, The (1995)",Comedy|Romance\n3,"""Cats"" (1998)",Musical\n'
    both = parsed(folder_of(tmp_path, ratings_csv=ratings, movies_csv=movies))
    assert both.ratings.to_dict("list") == {
        "user_id": [1],
        "item_id": [2],
        "rating": [3.5],
        "timestamp": [1112486027],
    }
    assert both.items is not None
    assert both.items["title"].tolist() == ["American President, The (1995)", '"Cats" (1998)']


def test_inter(tmp_path: Path) -> None:
    folder_of(
        tmp_path,
        ml__100k_inter="user_id:token\titem_id:token\trating:float\ttimestamp:float\n196\t242\t3\t881250949\n",
        ml__100k_item=(
            "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
            "1\tToy Story\t1995\tAnimation Children's Comedy\n267\tunkonwn\tunkonwn\tunknown\n"
        ),
    )
    both = parsed(tmp_path)
    assert both.ratings.to_dict("list") == {
        "user_id": [196],
        "item_id": [242],
        "rating": [3.0],
        "timestamp": [881250949],
    }
    assert both.items is not None
    assert both.items["title"].tolist() == ["Toy Story (1995)", "unknown"]
    assert both.items["genres"].tolist() == ["Animation|Children's|Comedy", "unknown"]


def test_lists_with_and_without_validation(tmp_path: Path) -> None:
    folder_of(tmp_path, train_txt="0 5 6\n1 7\n", test_txt="0 8\n1\n")
    pd.testing.assert_frame_equal(
        parsed(tmp_path).ratings,
        pd.DataFrame({"user_id": [0, 0, 1, 0], "item_id": [5, 6, 7, 8], "part": np.array([0, 0, 0, 2], dtype=np.int8)}),
    )
    folder_of(tmp_path, valid_txt="1 9\n")
    assert parsed(tmp_path).ratings["part"].tolist() == [0, 0, 0, 1, 2]


def test_lists_of_names_and_numbers_agree_on_one_type(tmp_path: Path) -> None:
    ratings = parsed(folder_of(tmp_path, train_txt="0 5\n", test_txt="0 five\n")).ratings
    assert ratings["item_id"].tolist() == ["5", "five"]
    assert ratings["user_id"].tolist() == [0, 0]


def test_titles_are_optional(tmp_path: Path) -> None:
    assert parsed(folder_of(tmp_path, u_data="7\t2\t5\t1\n")).items is None


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"u_data": "1\t2\t3\t4\n1\tx\n"}, "u.data line 2: 2 columns; expected 4"),
        ({"u_data": "1\t2\tgood\t4\n"}, "u.data line 1: rating is 'good'; expected a number"),
        ({"u_data": ""}, "u.data is empty"),
        ({"u_data": "1\t2\t3\t4\n", "u_item": "2|Film\n"}, "u.item line 1: 2 fields; expected 24"),
        ({"u_data": "1\t2\t3\t4\n", "u_item": u_item(1, "F").replace("1|", "x|", 1)}, "item id 'x'; expected a whole"),
        ({"ratings_dat": "1::2::3::4\n", "movies_dat": "2::Film\n"}, "movies.dat line 1: '2::Film'; expected"),
        ({"ratings_csv": "a,b\n1,2\n"}, "ratings.csv has no column 'userId'"),
        ({"ratings_csv": "userId,movieId,rating,timestamp\n1,2,3,4\n", "movies_csv": "id\n"}, "no column genres"),
        (
            {"ratings_csv": "userId,movieId,rating,timestamp\n1,2,3,4\n", "movies_csv": "movieId,title,genres\n1\n"},
            "movies.csv line 2: too few columns",
        ),
        ({"train_txt": "\n", "test_txt": "1 2\n"}, "train.txt is empty"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, files: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        parsed(folder_of(tmp_path, **files))


def test_item_file_of_the_wheel_with_a_column_too_few(tmp_path: Path) -> None:
    header = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    folder_of(tmp_path, ml__100k_inter=header + "1\t2\t3\t4\n", ml__100k_item="header\n1\tFilm\n")
    with pytest.raises(DataError, match=r"ml-100k.item line 2: 2 columns"):
        parsed(tmp_path)


def test_locate_looks_one_folder_down(tmp_path: Path) -> None:
    inner = folder_of(tmp_path / "ml-10M100K", ratings_dat="1::2::3::4\n")
    assert locate(tmp_path) == (inner, Layout.DAT)


def test_locate_refuses_to_choose(tmp_path: Path) -> None:
    for name in ("a", "b"):
        folder_of(tmp_path / name, u_data="1\t2\t3\t4\n")
    with pytest.raises(DataError, match=r"several data sets \(a, b\)"):
        locate(tmp_path)


def test_train_list_alone_is_no_data_set(tmp_path: Path) -> None:
    assert locate(folder_of(tmp_path, train_txt="0 1\n")) is None


def test_real_ml_100k(data_dir: Path) -> None:
    both = parsed(data_dir / "ml-100k")
    assert len(both.ratings) == 100_000
    assert both.ratings[["user_id", "item_id"]].nunique().tolist() == [943, 1682]
    assert both.ratings.iloc[0].tolist() == [196, 242, 3, 881250949]
    assert both.items is not None
    assert both.items.iloc[0].tolist() == [1, "Toy Story (1995)", "Animation|Children's|Comedy"]
    assert len(both.items) == 1682


def test_real_ml_1m_lists(data_dir: Path) -> None:
    ratings = parsed(data_dir / "ml-1m").ratings
    assert len(ratings) == 836_478
    assert ratings[["user_id", "item_id"]].nunique().tolist() == [6039, 3628]
    assert ratings["part"].is_monotonic_increasing
    assert ratings["part"].unique().tolist() == [0, 1, 2]


def test_real_gowalla(data_dir: Path) -> None:
    ratings = parsed(data_dir / "gowalla").ratings
    assert ratings["part"].value_counts().to_dict() == {0: 810_128, 2: 217_242}
    assert ratings[["user_id", "item_id"]].nunique().tolist() == [29_858, 40_981]
