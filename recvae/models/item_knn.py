"""Item-based neighbours from the `implicit` library behind this project's contract: cosine, TF-IDF and BM25."""

import warnings
from abc import abstractmethod
from collections.abc import Sequence
from itertools import product
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from scipy import sparse

from recvae.data.csr import csr_arrays
from recvae.errors import TrainingError
from recvae.evaluation.standard_error import is_ahead
from recvae.models import hyperparameters as check
from recvae.models.base import Recommender, State
from recvae.models.factorization import import_implicit
from recvae.models.fit_context import FitContext
from recvae.models.hyperparameters import RealRange, SearchSpace, WholeRange
from recvae.models.similarity import divide_by_lengths
from recvae.models.stored_arrays import take_array, take_csr
from recvae.models.validation import ValidationUsers, check_metric, find_validation, validate_users
from recvae.types import FloatArray

NEIGHBOURS = (20, 50, 100, 200, 500)
"""Values of K that are tried."""
LENGTH_NORMALISATIONS = (0.2, 0.5, 0.8)
"""Values of B that are tried."""
VALIDATION_USERS = 1000
Measured = tuple[dict[str, float], npt.NDArray[np.float64]]


class _ItemKNN(Recommender):
    """Item-based neighbours: an item's score is the sum of its similarities to the items of the history.

    Each item keeps its K nearest neighbours only.

    Attributes
    ----------
    settings_ : dict
        K, and for BM25 B, as `fit` used them.
    TRIED : dict
        Hyperparameters whose default is None, with the values among which validation users choose.
    CUSTOMARY : dict
        Their values where there is nobody to choose.
    """

    SPACE: ClassVar[SearchSpace] = {"K": WholeRange(10, 500)}
    TRIED: ClassVar[dict[str, tuple[float, ...]]] = {"K": NEIGHBOURS}
    CUSTOMARY: ClassVar[dict[str, float]] = {"K": 20}

    settings_: dict[str, float]
    similarity_: sparse.csr_matrix
    lengths_: npt.NDArray[np.float32]

    def __init__(self, K: int | None = None, *, metric: str = "ndcg@100") -> None:  # noqa: N803 implicit's name
        self.K = None if K is None else check.whole("K", K, maximum=check.LARGEST_LAYER)
        self.metric = check_metric(metric)

    @abstractmethod
    def _create_model(self) -> Any:
        """Create the library's model with `settings_`, not fitted."""

    def _fit(self, user_items: sparse.csr_matrix, context: FitContext) -> None:
        with context.report_end():
            self.settings_ = self._given_settings()
            if any(getattr(self, name) is None for name in self.TRIED):
                found = find_validation(user_items, context.validation)
                if found is not None:
                    with context.choosing():
                        self._choose(*found)
            self.similarity_ = self._find_neighbours(user_items, context.shows_bar)
            self.lengths_ = _measure_vectors(self.similarity_)

    def _given_settings(self) -> dict[str, float]:
        """The settings as they are given, and the customary ones for those that are None."""
        given = {name: getattr(self, name) for name in self.TRIED}
        return {name: self.CUSTOMARY[name] if value is None else value for name, value in given.items()}

    def _find_neighbours(self, user_items: sparse.csr_matrix, show_progress: bool = False) -> sparse.csr_matrix:
        """Compute each item's similarities to its K nearest, (n_items, n_items) float32."""
        with warnings.catch_warnings(), np.errstate(all="ignore"):  # it shows in the similarities
            # The library warns of a conversion to CSR that its own weighting causes.
            warnings.filterwarnings("ignore", "Method expects CSR input")
            model = self._create_model()
            model.fit(user_items, show_progress=show_progress)
            similarity = sparse.csr_matrix(model.similarity, dtype=np.float32)
        if not np.isfinite(similarity.data).all():
            raise TrainingError(
                f"{self!r} gave similarities that are not finite for weights from {user_items.data.min():g} to "
                f"{user_items.data.max():g}; expected weights nearer to 1, or another model"
            )
        return similarity

    def _choose(self, user_items: sparse.csr_matrix, validation: ValidationUsers) -> None:
        """Choose the settings by the lists of the first validation users.

        The K nearest are among those of a larger K, so that each item's are found once for all.
        """
        users = validation[0][:VALIDATION_USERS], validation[1][:VALIDATION_USERS]
        tried = {n: values if getattr(self, n) is None else (getattr(self, n),) for n, values in self.TRIED.items()}
        numbers = tried.pop("K")
        customary, measured = self.settings_, list[Measured]()
        for others in product(*tried.values()):
            settings = dict(zip(tried, others, strict=True))
            self.settings_ = {"K": max(numbers), **settings}
            most = self._find_neighbours(user_items)
            places = _rank_neighbours(most)
            for k in numbers:
                self.similarity_ = _keep(most, places < k)
                if len(values := validate_users(self, users, self.metric)):
                    measured.append(({"K": k, **settings}, values))
        self.settings_ = prefer_many(measured) if measured else customary

    def _score_histories(self, user_items: sparse.csr_matrix) -> FloatArray:
        scores: FloatArray = (user_items @ self.similarity_).toarray()
        return scores

    def _item_similarity(self, queries: npt.NDArray[np.int64]) -> FloatArray:
        products: FloatArray = self.similarity_[queries].toarray()
        products[np.arange(len(queries)), queries] = self.lengths_[queries] ** 2
        products[products == 0] = np.nan  # it is unknown of items that are not among the nearest
        return divide_by_lengths(products, self.lengths_, queries)

    def fitted_params(self) -> dict[str, Any]:
        return {**self._own_params(), **getattr(self, "settings_", {})}

    def _state(self) -> State:
        return {**csr_arrays(self.similarity_), "settings": np.array(list(self.settings_.values()), dtype=np.float64)}

    def _restore(self, state: State) -> None:
        self.similarity_ = take_csr(state, "similarity", self.n_items_, self.n_items_)
        self.lengths_ = _measure_vectors(self.similarity_)
        self.settings_ = self._given_settings()
        if "settings" in state:  # version 0.1 chose nothing
            stored = take_array(state, "settings", len(self.settings_), dtype="float64")
            self.settings_ = {
                name: int(value) if name == "K" else float(value)
                for name, value in zip(self.settings_, stored, strict=True)
            }


def prefer_many(measured: Sequence[Measured]) -> dict[str, float]:
    """Take the settings with the largest K within a standard error of the best, and the better of those with one K.

    By the highest figure alone few users would often choose 20 by luck, and sparse data lose most by too few.

    Parameters
    ----------
    measured : settings and the metric of each user, (n_users,)
    """
    best = max((values for _, values in measured), key=np.mean)
    near = [one for one in measured if not is_ahead(best, one[1])]
    return max(near, key=lambda one: (one[0]["K"], one[1].mean()))[0]


def _measure_vectors(similarity: sparse.csr_matrix) -> npt.NDArray[np.float32]:
    """Find the length of each item's vector, (n_items,): its square is the item's similarity to itself.

    Where an item is not among its own K nearest, all of which are then at least as similar, the last of these tells.
    """
    squares: npt.NDArray[np.float32] = similarity.diagonal()
    cut_off = np.flatnonzero(squares <= 0)
    nearest = similarity[cut_off]
    nearest.eliminate_zeros()
    known = np.diff(nearest.indptr) > 0
    squares[cut_off[known]] = np.minimum.reduceat(nearest.data, nearest.indptr[:-1][known])
    return np.sqrt(np.maximum(squares, 0))


def _rank_neighbours(similarity: sparse.csr_matrix) -> npt.NDArray[np.int64]:
    """Place of each stored value in its row, 0 for the largest, (nnz,)."""
    lengths = np.diff(similarity.indptr)
    rows = np.repeat(np.arange(len(lengths)), lengths)
    places = np.empty(similarity.nnz, dtype=np.int64)
    places[np.lexsort((-similarity.data, rows))] = np.arange(similarity.nnz) - similarity.indptr[rows]
    return places


def _keep(similarity: sparse.csr_matrix, kept: npt.NDArray[np.bool_]) -> sparse.csr_matrix:
    """Copy some of the stored values."""
    indptr = np.append(0, np.cumsum(kept))[similarity.indptr]
    return sparse.csr_matrix((similarity.data[kept], similarity.indices[kept], indptr), similarity.shape)


class CosineKNN(_ItemKNN):
    """Item-based neighbours by the cosine of their users.

    Parameters
    ----------
    K : int, optional
        Number of neighbours that each item keeps. None takes the largest of 20, 50, 100, 200 and 500 within a standard
        error of the best on at most 1,000 validation users. Without any, users are held out of the training matrix;
        with too few users for that it is 20.
    metric : str
        Metric by which K is chosen.
    """

    def _create_model(self) -> Any:
        return import_implicit("nearest_neighbours").CosineRecommender(**self.settings_)


class TFIDFKNN(_ItemKNN):
    """Item-based neighbours by the cosine of TF-IDF weights, in which active users count less.

    Parameters
    ----------
    K : int, optional
        Number of neighbours that each item keeps. None takes the largest of 20, 50, 100, 200 and 500 within a standard
        error of the best on at most 1,000 validation users. Without any, users are held out of the training matrix;
        with too few users for that it is 20.
    metric : str
        Metric by which K is chosen.
    """

    def _create_model(self) -> Any:
        return import_implicit("nearest_neighbours").TFIDFRecommender(**self.settings_)


class BM25KNN(_ItemKNN):
    """Item-based neighbours by BM25 weights.

    Parameters
    ----------
    K : int, optional
        Number of neighbours that each item keeps.
    K1 : float
        Saturation.
    B : float, optional
        Length normalisation. None for K or B chooses among 20, 50, 100, 200 and 500, or among .2, .5 and .8, as
        `CosineKNN` does; with too few users for that they are 50 and .5.
    metric : str
        Metric by which K and B are chosen.
    """

    SPACE: ClassVar[SearchSpace] = {
        "K": WholeRange(10, 500),
        "K1": RealRange(0.5, 200.0),
        "B": RealRange(0.0, 1.0, log=False),
    }

    TRIED: ClassVar[dict[str, tuple[float, ...]]] = {"K": NEIGHBOURS, "B": LENGTH_NORMALISATIONS}
    CUSTOMARY: ClassVar[dict[str, float]] = {"K": 50, "B": 0.5}

    def __init__(
        self,
        K: int | None = None,  # noqa: N803 implicit's name
        K1: float = 1.2,  # noqa: N803
        B: float | None = None,  # noqa: N803
        *,
        metric: str = "ndcg@100",
    ) -> None:
        super().__init__(K, metric=metric)
        self.K1 = check.real("K1", K1, high=1e6)
        self.B = None if B is None else check.real("B", B, 0.0, 1.0)

    def _create_model(self) -> Any:
        return import_implicit("nearest_neighbours").BM25Recommender(K1=self.K1, **self.settings_)
