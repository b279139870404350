"""A new model as an exercise: one class, one line of the registry, and it works everywhere."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import numpy.typing as npt
import pytest
from scipy import sparse

import recvae
from recvae.data.prepared import read_prepared
from recvae.errors import ArtifactError, ParameterError
from recvae.models import hyperparameters as check
from recvae.models import registry
from recvae.models.base import Recommender, State
from recvae.models.fit_context import FitContext
from recvae.models.hyperparameters import RealRange
from recvae.models.linear.ease import EASE
from recvae.serving import Settings
from recvae.types import FloatArray
from tests.contracts import Factory, RecommenderContract, checkerboard, fit, random_interactions
from tests.contracts import one_thread as one_thread
from tests.http_service import asked
from tests.test_former_versions import FOLDER


class CoOccurrence(Recommender):
    """Items by the number of training users that they share with a history's items.

    Parameters
    ----------
    shrinkage : float
        Added to the interactions of an item before its counts are divided by them.
    """

    SPACE = {"shrinkage": RealRange(0.1, 100.0)}  # noqa: RUF012 typed by the base class

    weights_: npt.NDArray[np.float32]

    def __init__(self, shrinkage: float = 1.0) -> None:
        self.shrinkage = check.real("shrinkage", shrinkage)

    def _fit(self, user_items: sparse.csr_matrix, context: FitContext) -> None:
        with context.report_end():
            shared = (user_items.T @ user_items).toarray()  # (n_items, n_items)
            np.fill_diagonal(shared, 0)
            self.weights_ = shared / (self.item_counts_ + np.float32(self.shrinkage))

    def _score_histories(self, histories: sparse.csr_matrix) -> FloatArray:
        scores: FloatArray = histories @ self.weights_
        return scores

    def _item_vectors(self) -> npt.NDArray[np.float32]:
        return self.weights_

    def _state(self) -> State:
        return {"weights": self.weights_}

    def _restore(self, state: State) -> None:
        self.weights_ = state["weights"]
        if self.weights_.shape != (self.n_items_, self.n_items_):
            raise ArtifactError(f"weights has shape {self.weights_.shape}; expected {self.n_items_} items each way")


LINE = {"cooccurrence": (__name__, "CoOccurrence")}


@pytest.fixture(autouse=True, scope="module")
def registered() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "CLASSES", registry.CLASSES | LINE)
        yield


@pytest.fixture(scope="module")
def make() -> Factory:
    return CoOccurrence


@pytest.fixture
def make_plain() -> Factory:
    return CoOccurrence


@pytest.fixture(scope="module")
def make_folding() -> Factory:
    return CoOccurrence


@pytest.fixture(scope="module")
def make_comparing() -> Factory:
    return CoOccurrence


@pytest.fixture(scope="module")
def fitted() -> Recommender:
    return fit(CoOccurrence, random_interactions())


@pytest.fixture(scope="module")
def folding() -> Recommender:
    return fit(CoOccurrence, random_interactions())


@pytest.fixture(scope="module")
def personal() -> Recommender:
    return fit(CoOccurrence, checkerboard())


@pytest.fixture(scope="module")
def comparing() -> Recommender:
    return fit(CoOccurrence, checkerboard())


class TestContract(RecommenderContract):
    """The new model against every test of the contract."""


def test_it_is_created_by_name_and_compared() -> None:
    model, data = recvae.create("cooccurrence", shrinkage=2.0), read_prepared(FOLDER / "prepared").split
    compared = recvae.compare({"new": model, "blend": recvae.create("blend", models="cooccurrence,ease")}, data)
    assert set(compared.runs) == {"new", "blend"}
    assert compared.runs["new"].params["shrinkage"] == 2.0


def test_the_service_answers_from_it(tmp_path: Path) -> None:
    fit(CoOccurrence, random_interactions()).save(tmp_path / "model", items=[f"i{i}" for i in range(25)])

    async def ask(http: httpx.AsyncClient) -> httpx.Response:
        return await http.post("/recommend", json={"history": ["i3", "i4"], "n": 3})

    answer = asked(Settings(tmp_path / "model"), ask).json()
    assert len(answer["items"]) == 3
    assert answer["model"]["name"] == "CoOccurrence"


def test_a_model_outside_the_registry_is_not_saved(tmp_path: Path) -> None:
    class Mine(EASE):
        """A user's own."""

    class Renamed(EASE):
        """A user's own, under a name that the registry knows."""

    Renamed.__name__ = "EASE"
    for model in (Mine(l2=5.0), Renamed(l2=5.0)):
        model.fit(random_interactions(), show_progress=False)
        with pytest.raises(ParameterError, match=r"is not in recvae\.models\.registry"):
            model.save(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []
