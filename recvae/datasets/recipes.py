"""Recipes of the known data sets: addresses, checksums, and the default evaluation protocol."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from recvae.datasets.fetch import Checksum
from recvae.datasets.formats import Layout

_MOVIELENS = (
    "F. M. Harper and J. A. Konstan, The MovieLens Datasets: History and Context, ACM TiiS 5(4), 2015; "
    "the licence forbids redistribution"
)
_GOWALLA = (
    "E. Cho, S. A. Myers and J. Leskovec, Friendship and Mobility, KDD 2011; split by X. He et al., LightGCN, "
    "SIGIR 2020"
)


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


def _gowalla() -> Recipe:
    address = "https://raw.githubusercontent.com/gusye1234/LightGCN-PyTorch/master/data/gowalla"
    pinned = {
        "train.txt": "0f086326b28a56c2e6dcb81d86ee72d4ccb7eed3a8d26788392356d8f51111cc",
        "test.txt": "95a7e4ee029370c4ccac0d6a0c8cc0615b574ac89642081cdf946090e0dd5bda",
    }
    return Recipe(
        "gowalla",
        citation=_GOWALLA,
        split="given",
        val_users=6000,
        downloads=tuple(Download(f"{address}/{file}", Checksum("sha256", hex_)) for file, hex_ in pinned.items()),
        layouts=(Layout.LISTS,),
        n_rows=1_027_370,
    )


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
        _gowalla(),
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
