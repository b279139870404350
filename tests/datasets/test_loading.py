"""Data sets by name and by folder: the order of look-up, the second source, and what an error lists."""

import hashlib
import sys
import threading
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

import recvae.datasets
from recvae.datasets import NAMES, load, publisher, wheel
from recvae.datasets.fetch import Checksum
from recvae.datasets.formats import Layout, parse
from recvae.datasets.recipes import RECIPES, WheelSource, recognise
from recvae.datasets.wheel import pip_download
from recvae.errors import DataError, DownloadError, ParameterError

U_DATA = b"1\t2\t5\t881250949\n2\t3\t4\t881250950\n"
INTER = b"user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\t2\t5\t881250949\n"
ITEM = b"item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n2\tFilm\t1995\tDrama\n"
SOURCE = WheelSource(
    "carrier==1.0",
    {"a/ml-100k.inter": hashlib.sha256(INTER).hexdigest(), "a/ml-100k.item": hashlib.sha256(ITEM).hexdigest()},
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, no data folder, no network and no pip."""
    monkeypatch.setenv("RECVAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RECVAE_DATA", raising=False)
    monkeypatch.delenv("RECVAE_OFFLINE", raising=False)
    monkeypatch.setattr(publisher, "download", no_network)
    monkeypatch.setattr(wheel, "pip_download", no_pip)
    return tmp_path / "cache"


def no_network(url: str, *_: object, **__: object) -> None:
    raise DownloadError(f"{url}: no connection (unreachable)")


def no_pip(requirement: str, into: Path) -> None:
    raise DownloadError(f"pip download {requirement}: nothing in {into.anchor} fits")


def serving(**contents: bytes) -> Callable[..., None]:
    """A `download` that writes the content named by the address's last part."""

    def download(url: str, target: Path, checksum: Checksum, *, show_progress: bool) -> None:
        del checksum, show_progress
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(contents[url.rsplit("/", 1)[-1].split(".")[0].replace("-", "_")])

    return download


def zipped(tmp_path: Path, **files: bytes) -> bytes:
    path = tmp_path / "made.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"ml-100k/{name.replace('_', '.')}", content)
    return path.read_bytes()


def put(folder: Path, content: bytes = U_DATA) -> Path:
    folder.mkdir(parents=True)
    (folder / "u.data").write_bytes(content)
    return folder


def wheel_of(members: dict[str, bytes]) -> wheel.PipDownload:
    def pip(requirement: str, into: Path) -> None:
        name = requirement.replace("==", "-")
        with zipfile.ZipFile(into / f"{name}-py3-none-any.whl", "w") as archive:
            for member, content in members.items():
                archive.writestr(member, content)

    return pip


def test_names() -> None:
    movielens = ["ml-100k", "ml-1m", "ml-10m", "ml-20m", "ml-25m", "ml-32m", "ml-10m-likes"]
    assert list(NAMES) == [*movielens, "gowalla", "yelp2018", "lastfm", "citeulike"]


def test_recipes_are_those_of_the_protocol() -> None:
    users = {"ml-100k": 100, "ml-1m": 600, "ml-10m": 5000, "ml-20m": 10000, "ml-25m": 10000, "ml-32m": 10000}
    for name, held_out in users.items():
        recipe = RECIPES[name]
        assert (recipe.split, recipe.min_rating, recipe.min_user_items) == ("strong", 4.0, 5)
        assert (recipe.val_users, recipe.test_users) == (held_out, held_out)
    likes = RECIPES["ml-10m-likes"]
    assert (likes.split, likes.min_rating, likes.min_user_items) == ("strong", None, 5)
    assert (likes.val_users, likes.test_users) == (5000, 5000)
    for name, val_users in {"gowalla": 6000, "yelp2018": 6000, "lastfm": None, "citeulike": None}.items():
        lists = RECIPES[name]
        assert (lists.split, lists.min_rating, lists.min_user_items) == ("given", None, 0)
        assert (lists.val_users, lists.test_users) == (val_users, None)


def test_order_of_look_up(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher, "download", serving(ml_100k=zipped(tmp_path, u_data=U_DATA)))
    explicit, root = tmp_path / "explicit", tmp_path / "root"
    monkeypatch.setenv("RECVAE_DATA", str(root))
    assert load("ml-100k", explicit).origin == RECIPES["ml-100k"].downloads[0].url
    assert load("ml-100k", explicit).origin == str(cache / "ml-100k")
    put(root / "ml-100k")
    assert load("ml-100k", explicit).origin == str(root / "ml-100k")
    put(explicit)
    assert load("ml-100k", explicit).origin == str(explicit)
    put(explicit / "ml-100k")
    assert load("ml-100k", explicit).origin == str(explicit / "ml-100k")


def test_published_archive_keeps_only_what_is_read(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = zipped(tmp_path, u_data=U_DATA, README=b"licence", u_user=b"1|24|M")
    monkeypatch.setattr(publisher, "download", serving(ml_100k=content))
    data = load("ml-100k")
    assert data.ratings["item_id"].tolist() == [2, 3]
    assert data.sha256 == {"u.data": hashlib.sha256(U_DATA).hexdigest()}
    kept = sorted(str(path.relative_to(cache)) for path in cache.rglob("*"))
    assert kept == ["ml-100k", "ml-100k/ml-100k", "ml-100k/ml-100k/README", "ml-100k/ml-100k/u.data"]


def test_published_lists(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher, "download", serving(train=b"0 1 2\n", test=b"0 3\n"))
    data = load("gowalla")
    assert data.ratings["part"].tolist() == [0, 0, 2]
    assert sorted(path.name for path in cache.rglob("*")) == ["gowalla", "test.txt", "train.txt"]


def test_published_lists_with_validation(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher, "download", serving(train=b"0 1 2\n", valid=b"0 4\n", test=b"0 3\n"))
    assert load("lastfm").ratings["part"].tolist() == [0, 0, 1, 2]
    assert sorted(path.name for path in (cache / "lastfm").iterdir()) == ["test.txt", "train.txt", "valid.txt"]


def test_table(tmp_path: Path) -> None:
    """The table of a known data set is found by its name; a folder of the same name elsewhere may be anything."""
    frame = pd.DataFrame({"user_id": [3, 3, 1], "item_id": [7, 9, 7]})
    (tmp_path / "ml-10m-likes").mkdir()
    frame.to_parquet(tmp_path / "ml-10m-likes" / "interactions.parquet")
    data = load("ml-10m-likes", tmp_path)
    pd.testing.assert_frame_equal(data.ratings, frame)
    assert (data.recipe, data.items, list(data.sha256)) == (RECIPES["ml-10m-likes"], None, ["interactions.parquet"])
    with pytest.raises(DataError, match="holds no data set"):
        load(tmp_path / "ml-10m-likes")


@pytest.mark.parametrize(
    ("name", "files"), [("ml-10m-likes", "interactions.parquet"), ("citeulike", "train.txt, valid.txt, test.txt")]
)
def test_data_set_without_an_address(
    name: str, files: str, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECVAE_DATA", str(tmp_path))
    with pytest.raises(DownloadError) as raised:
        load(name)
    assert str(raised.value) == (
        f"{name} was not found: {tmp_path / name} does not exist; {cache / name} does not exist; "
        f"no address is known to download it from: put {files} into $RECVAE_DATA/{name}"
    )
    (tmp_path / name).mkdir()
    with pytest.raises(DownloadError, match=f"{name} holds no"):
        load(name)


@pytest.mark.parametrize("name", ["ml-100k", "gowalla"])
def test_two_processes_at_once(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    both = threading.Barrier(2, timeout=60)
    written = serving(ml_100k=zipped(tmp_path, u_data=U_DATA), train=b"0 1 2\n", test=b"0 3\n")

    def together(url: str, target: Path, checksum: Checksum, *, show_progress: bool) -> None:
        written(url, target, checksum, show_progress=show_progress)
        both.wait()

    monkeypatch.setattr(publisher, "download", together)
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(load, [name, name])
    assert one.ratings.equals(other.ratings)
    assert [path.name for path in cache.iterdir()] == [name]


@pytest.mark.parametrize("content", [b"no archive", b""])
def test_bad_archive_is_not_kept(cache: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(publisher, "download", serving(ml_1m=content))
    with pytest.raises(DownloadError, match=r"ml-1m\.zip is not a whole zip archive"):
        load("ml-1m")
    assert [path for path in cache.rglob("*") if path.is_file()] == []


def test_archive_of_something_else(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher, "download", serving(ml_1m=zipped(tmp_path, README=b"moved")))
    with pytest.raises(DownloadError, match="holds none of the files of a data set"):
        load("ml-1m")
    assert not (cache / "ml-1m").exists()


def test_folder_in_the_way_in_the_cache(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cache / "ml-1m").mkdir(parents=True)
    (cache / "ml-1m" / "notes").touch()
    monkeypatch.setattr(publisher, "download", serving(ml_1m=zipped(tmp_path, u_data=U_DATA)))
    with pytest.raises(DownloadError, match=r"ml-1m holds none of u\.data.*cannot be stored in .*not empty"):
        load("ml-1m")
    assert (cache / "ml-1m" / "notes").exists()


def test_second_source(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    members = {"a/ml-100k.inter": INTER, "a/ml-100k.item": ITEM}
    monkeypatch.setattr(wheel, "pip_download", wheel_of(members))
    monkeypatch.setitem(RECIPES, "ml-100k", replace(RECIPES["ml-100k"], wheel=SOURCE))
    data = load("ml-100k")
    assert data.origin == "the wheel of carrier==1.0"
    assert data.items is not None
    assert data.items["title"].tolist() == ["Film (1995)"]
    assert {path.name: path.read_bytes() for path in (cache / "ml-100k").iterdir()} == {
        "ml-100k.inter": INTER,
        "ml-100k.item": ITEM,
    }
    assert load("ml-100k").origin == str(cache / "ml-100k")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"a/ml-100k.inter": INTER}, "has no a/ml-100k.item"),
        ({"a/ml-100k.inter": INTER, "a/ml-100k.item": ITEM + b"x"}, r"ml-100k\.item in .*whl: sha256 is .* expected"),
    ],
)
def test_other_wheel_is_refused(tmp_path: Path, members: dict[str, bytes], message: str) -> None:
    with pytest.raises(DownloadError, match=message):
        wheel.extract(SOURCE, tmp_path, wheel_of(members))
    assert list(tmp_path.iterdir()) == []


def test_damaged_wheel(tmp_path: Path) -> None:
    def pip(requirement: str, into: Path) -> None:
        (into / f"{requirement}.whl").write_bytes(b"PK")

    with pytest.raises(DownloadError, match=r"carrier==1\.0\.whl is not a whole wheel"):
        wheel.extract(SOURCE, tmp_path, pip)


def test_pip_that_brings_nothing(tmp_path: Path) -> None:
    def pip(requirement: str, into: Path) -> None:
        """Leave the folder empty."""

    with pytest.raises(DownloadError, match="0 wheels; expected 1"):
        wheel.extract(SOURCE, tmp_path, pip)


def program(folder: Path, script: str) -> str:
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_pip_is_asked_for_one_wheel_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", program(tmp_path, f'echo "$@" > {tmp_path}/asked'))
    pip_download("carrier==1.0", tmp_path)
    asked = (tmp_path / "asked").read_text().split()
    assert asked[:6] == ["-m", "pip", "download", "carrier==1.0", "--dest", str(tmp_path)]
    assert {"--no-deps", "--only-binary=:all:"} <= set(asked)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo 'WARNING: retrying' >&2; echo 'ERROR: No match' >&2; exit 1", r"^pip download carrier==1\.0: No match$"),
        ("exit 3", "failed without a message"),
        ("exec sleep 5", r"not finished after 0\.1 s"),
    ],
)
def test_pip_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, message: str) -> None:
    monkeypatch.setattr(sys, "executable", program(tmp_path, script))
    monkeypatch.setattr(wheel, "_PIP_SECONDS", 0.1 if "sleep" in script else 120)
    with pytest.raises(DownloadError, match=message):
        pip_download("carrier==1.0", tmp_path)


def test_real_wheel_holds_the_original_ratings(data_dir: Path, tmp_path: Path) -> None:
    """The wheel's rows stand in the publisher's order, so that both sources give the same split."""
    original = parse(data_dir / "ml-100k", Layout.U_DATA)
    rows = original.ratings.astype("int64").to_csv(sep="\t", index=False, lineterminator="\n").split("\n", 1)[1]
    content = INTER.split(b"\n", 1)[0] + b"\n" + rows.encode()
    (pinned,) = [
        digest
        for source in [RECIPES["ml-100k"].wheel]
        if source
        for member, digest in source.members.items()
        if member.endswith(".inter")
    ]
    assert hashlib.sha256(content).hexdigest() == pinned
    (tmp_path / "ml-100k.inter").write_bytes(content)
    pd.testing.assert_frame_equal(parse(tmp_path, Layout.INTER).ratings, original.ratings)


def test_error_lists_every_place(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(DownloadError) as raised:
        load("ml-100k", tmp_path / "gone")
    assert str(raised.value) == (
        f"ml-100k was not found: $RECVAE_DATA is not set; {tmp_path / 'gone'} does not exist; "
        f"{cache / 'ml-100k'} does not exist; "
        "https://files.grouplens.org/datasets/movielens/ml-100k.zip: no connection (unreachable); "
        "pip download recbole==1.2.1: nothing in / fits"
    )
    assert not any(cache.rglob("ml-100k"))


def test_offline_is_obeyed_and_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RECVAE_OFFLINE", "1")
    monkeypatch.setattr(publisher, "download", lambda *_, **__: pytest.fail("used the network"))
    monkeypatch.setenv("RECVAE_DATA", str(tmp_path))
    with pytest.raises(DownloadError, match=r"ml-20m does not exist.*ml-20m\.zip: not tried, \$RECVAE_OFFLINE is set"):
        load("ml-20m")


def test_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("RECVAE_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(publisher, "download", serving(ml_1m=b""))
    with pytest.raises(DownloadError, match=r"ml-1m\.zip: cannot be stored in .*file \(Not a directory\)"):
        load("ml-1m")


def test_damaged_data_set_is_an_error_not_a_reason_to_look_on(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"u\.data line 1"):
        load("ml-100k", put(tmp_path / "broken", b"1\t2\tbad\t4\n"))


def test_folder_with_a_known_name(tmp_path: Path) -> None:
    data = load(put(tmp_path / "ml-100k"))
    assert (data.name, data.recipe) == ("ml-100k", RECIPES["ml-100k"])


def test_unpacked_folder_of_ml_10m(tmp_path: Path) -> None:
    (tmp_path / "any" / "ml-10M100K").mkdir(parents=True)
    (tmp_path / "any" / "ml-10M100K" / "ratings.dat").write_text("1::122::5::838985046\n")
    assert load(tmp_path / "any").recipe == RECIPES["ml-10m"]


def test_folder_without_a_known_name(tmp_path: Path) -> None:
    data = load(str(put(tmp_path / "mine")))
    assert (data.name, data.recipe.split, data.recipe.min_rating) == ("mine", "strong", 4.0)
    assert (data.recipe.val_users, data.recipe.downloads) == (None, ())


def test_lists_have_no_rating_filter(tmp_path: Path) -> None:
    for name in ("ml-1m", "mine"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.txt").write_text("0 1\n")
        (tmp_path / name / "test.txt").write_text("0 2\n")
    movielens = load("ml-1m", tmp_path).recipe
    assert movielens == replace(RECIPES["ml-1m"], min_rating=None)
    mine = load(tmp_path / "mine").recipe
    assert (mine.split, mine.min_rating, mine.min_user_items) == ("given", None, 0)


@pytest.mark.parametrize(
    ("layout", "n_rows", "name"),
    [
        (Layout.U_DATA, 100_000, "ml-100k"),
        (Layout.DAT, 10_000_054, "ml-10m"),
        (Layout.CSV, 20_000_263, "ml-20m"),
        (Layout.LISTS, 1_027_370, "gowalla"),
        (Layout.CSV, 100_000, "films"),
    ],
)
def test_folder_is_recognised_by_its_rows(layout: Layout, n_rows: int, name: str) -> None:
    assert recognise(("films", "films"), layout, n_rows).name == name


@pytest.mark.parametrize("given", ["ml-5m", Path("ml-100k")])
def test_neither_name_nor_folder(given: str | Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=rf"^{given} is neither a folder nor a data set's name \(ml-100k, ml-1m"):
        load(given)


def test_empty_folder_lists_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no data set; expected one of u\.data, ratings\.dat"):
        load(tmp_path)


def test_folder_with_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="is not the name of a data set"):
        load(tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("name", "n_users", "n_items"),
    [
        ("ml-100k", 943, 1_682),
        ("ml-1m", 6_039, 3_628),
        ("ml-10m-likes", 60_655, 8_641),
        ("gowalla", 29_858, 40_981),
        ("yelp2018", 31_668, 38_048),
        ("lastfm", 1_885, 17_388),
        ("citeulike", 5_551, 16_980),
    ],
)
def test_real_data_by_name(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, name: str, n_users: int, n_items: int
) -> None:
    monkeypatch.setenv("RECVAE_DATA", str(data_dir))
    data = load(name)
    assert (data.name, data.origin) == (name, str(data_dir / name))
    assert (data.ratings["user_id"].nunique(), data.ratings["item_id"].nunique()) == (n_users, n_items)
    if name != "ml-1m":  # lists of the higher ratings only
        assert len(data.ratings) == RECIPES[name].n_rows


def test_public_names() -> None:
    assert sorted(recvae.datasets.__all__) == ["Dataset", "NAMES", "Recipe", "load"]
