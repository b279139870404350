"""Recipes of the known data sets: addresses, checksums, and the default evaluation protocol."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from recvae.datasets.fetch import Checksum
from recvae.datasets.formats import RECOGNISED, Layout

_MOVIELENS = (
    "F. M. Harper and J. A. Konstan, The MovieLens Datasets: History and Context, ACM TiiS 5(4), 2015; "
    "the licence forbids redistribution"
)
_GOWALLA = "E. Cho, S. A. Myers and J. Leskovec, Friendship and Mobility, KDD 2011"
_YELP = "Yelp Dataset Challenge 2018, under Yelp's terms of use"
_LASTFM = "I. Cantador, P. Brusilovsky and T. Kuflik, HetRec 2011, RecSys 2011: Last.fm"
_CITEULIKE = "H. Wang, B. Chen and W.-J. Li, Collaborative Topic Regression with Social Regularization, IJCAI 2013"
_SPLIT = "split by X. He et al., LightGCN, SIGIR 2020"
_LIGHTGCN = "https://raw.githubusercontent.com/gusye1234/LightGCN-PyTorch/master/data"
_LIGHTGCN_PLUS = "split by the authors of Revisiting LightGCN (LightGCN++), RecSys 2024"


@dataclass(frozen=True)
class Download:
    """File at its publisher's address; a `.zip` is unpacked."""

    url: str
    checksum: Checksum

    @property
    def filename(self) -> str:
        return self.url.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class WheelSource:
    """Members of a wheel on a Python package index that carry the same data.

    Attributes
    ----------
    requirement : str
        Requirement for pip, with an exact version.
    members : mapping of str to str
        Path inside the wheel → SHA-256.
    """

    requirement: str
    members: Mapping[str, str]


@dataclass(frozen=True)
class Recipe:
    """Sources of a data set and its default evaluation protocol.

    Attributes
    ----------
    name : str
    citation : str
        Publication to cite, and conditions of the licence; empty for a folder that is no known data set.
    split : "strong" or "given"
        Held-out users, or the files' own train, validation and test lists.
    min_rating : float, optional
        Lowest rating that counts as an interaction (inclusive); None where there are no ratings.
    min_user_items : int
        Users with fewer interactions are dropped.
    val_users, test_users : int, optional
        Users in validation and test; None where no protocol fixes them. With `split="given"` validation is
        taken from the training interactions of `val_users` users, and test is the files' own.
    downloads : tuple of Download
    wheel : WheelSource, optional
        A second source, for machines that reach only a Python package index.
    layouts, n_rows : tuple of Layout, int
        File layout and number of rows by which an unnamed folder is recognised.
    """

    name: str
    citation: str = ""
    split: Literal["strong", "given"] = "strong"
    min_rating: float | None = None
    min_user_items: int = 0
    val_users: int | None = None
    test_users: int | None = None
    downloads: tuple[Download, ...] = ()
    wheel: WheelSource | None = None
    layouts: tuple[Layout, ...] = field(default=(), repr=False)
    n_rows: int = field(default=0, repr=False)

    @property
    def found_by(self) -> tuple[Layout, ...]:
        """Layouts that a folder of this data set may have: any that gives itself away, or the recipe's table."""
        return self.layouts if Layout.TABLE in self.layouts else RECOGNISED


def _movielens(
    name: str, md5: str, users: int, layouts: tuple[Layout, ...], n_rows: int, wheel: WheelSource | None = None
) -> Recipe:
    archive = Download(f"https://files.grouplens.org/datasets/movielens/{name}.zip", Checksum("md5", md5))
    return Recipe(
        name,
        citation=_MOVIELENS,
        min_rating=4.0,
        min_user_items=5,
        val_users=users,
        test_users=users,
        downloads=(archive,),
        wheel=wheel,
        layouts=layouts,
        n_rows=n_rows,
    )


def _given_lists(
    name: str,
    citation: str,
    n_rows: int,
    *,
    val_users: int | None = None,
    address: str = "",
    pinned: Mapping[str, Checksum] = MappingProxyType({}),
) -> Recipe:
    return Recipe(
        name,
        citation=citation,
        split="given",
        val_users=val_users,
        downloads=tuple(Download(f"{address}/{file}", checksum) for file, checksum in pinned.items()),
        layouts=(Layout.LISTS,),
        n_rows=n_rows,
    )


def _lightgcn(name: str, citation: str, n_rows: int, train_git: str, test_sha256: str) -> Recipe:
    pinned = {"train.txt": Checksum("git", train_git), "test.txt": Checksum("sha256", test_sha256)}
    address = f"{_LIGHTGCN}/{name}"
    return _given_lists(name, f"{citation}; {_SPLIT}", n_rows, val_users=6_000, address=address, pinned=pinned)


_RECBOLE = WheelSource(
    "recbole==1.2.1",
    MappingProxyType(
        {
            "recbole/dataset_example/ml-100k/ml-100k.inter": (
                "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff"
            ),
            "recbole/dataset_example/ml-100k/ml-100k.item": (
                "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532"
            ),
        }
    ),
)

_100K, _DAT, _CSV = (Layout.U_DATA, Layout.INTER), (Layout.DAT,), (Layout.CSV,)

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        _movielens("ml-100k", "0e33842e24a9c977be4e0107933c0723", 100, _100K, 100_000, _RECBOLE),
        _movielens("ml-1m", "c4d9eecfca2ab87c1945afe126590906", 600, _DAT, 1_000_209),
        _movielens("ml-10m", "ce571fd55effeba0271552578f2648bd", 5_000, _DAT, 10_000_054),
        _movielens("ml-20m", "cd245b17a1ae2cc31bb14903e1204af3", 10_000, _CSV, 20_000_263),
        _movielens("ml-25m", "6b51fb2759a8657d3bfcbfc42b592ada", 10_000, _CSV, 25_000_095),
        _movielens("ml-32m", "d472be332d4daa821edc399621853b57", 10_000, _CSV, 32_000_204),
        Recipe(
            "ml-10m-likes",
            citation=_MOVIELENS,
            min_user_items=5,
            val_users=5_000,
            test_users=5_000,
            layouts=(Layout.TABLE,),
            n_rows=2_105_971,
        ),
        _lightgcn(
            "gowalla",
            _GOWALLA,
            1_027_370,
            "a27782bd7a1d4d0744148dc0460ea94da74763f2",
            "099a2a73924e4b754dc6efd730d764f492321b53c38eb93298850c83acf57be3",
        ),
        _lightgcn(
            "yelp2018",
            _YELP,
            1_561_406,
            "cda12361055ba448ae4bd1070f6000c16dea8f22",
            "9cd9b37926cd1447a06625ffa7914527573fb097c10cb0bbdb1d1b8ded3742fe",
        ),
        _given_lists(
            "lastfm",
            f"{_LASTFM}; {_LIGHTGCN_PLUS}",
            91_779,
            address="https://raw.githubusercontent.com/geon0325/LightGCNpp/a18af1e1f65dc4b6a432ce5aeaae5bbe75ac1c2e"
            "/data/lastfm",
            pinned={
                "train.txt": Checksum("sha256", "1845769cb1a9834692d3cf884de523d23aa126fa6b58eb5f49e9628e8c317705"),
                "valid.txt": Checksum("sha256", "9ae3440becfcbba19d5a5a8298b7933126f89424a468de5765bf1c6f08a9e3eb"),
                "test.txt": Checksum("sha256", "0f0a15e3de2f868554ee1e32190c51db3e0ad0c4138e1428c66ba6de86102755"),
            },
        ),
        _given_lists("citeulike", f"{_CITEULIKE}; {_LIGHTGCN_PLUS}", 210_504),
    )
}
NAMES: tuple[str, ...] = tuple(RECIPES)

_FOLDER_NAMES = {"ml-10m100k": "ml-10m"}


def recognise(folder_names: tuple[str, ...], layout: Layout, n_rows: int) -> Recipe:
    """Find the recipe for a folder: by its name, then by its layout and number of rows, else a generic one.

    Parameters
    ----------
    folder_names : tuple of str
        The folder's own name first, then the name of the sub-folder that holds the files.
    """
    for folder_name in folder_names:
        name = folder_name.lower()
        if recipe := RECIPES.get(_FOLDER_NAMES.get(name, name)):
            return recipe
    for recipe in RECIPES.values():
        if layout in recipe.layouts and n_rows == recipe.n_rows:
            return recipe
    if layout is Layout.LISTS:
        return Recipe(folder_names[0], split="given")
    return Recipe(folder_names[0], min_rating=4.0, min_user_items=5)
