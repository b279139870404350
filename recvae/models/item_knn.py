"""Item-based neighbours from the `implicit` library behind this project's contract: cosine, TF-IDF and BM25."""

import warnings
from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from scipy import sparse

from recvae.data.csr import csr_arrays
from recvae.data.stored_arrays import take_csr
from recvae.models import hyperparameters as check
from recvae.models.base import Recommender, State
from recvae.models.factorization import import_implicit
from recvae.models.fit_context import FitContext
from recvae.models.hyperparameters import RealRange, SearchSpace, WholeRange
from recvae.types import FloatArray


class _ItemKNN(Recommender):
    """Item-based neighbours: an item's score is the sum of its similarities to the items of the history.

    Each item keeps its K nearest neighbours only.

    Parameters
    ----------
    K : int
        Number of neighbours that each item keeps.
    """

    SPACE: ClassVar[SearchSpace] = {"K": WholeRange(10, 500)}

    similarity_: sparse.csr_matrix

    def __init__(self, K: int = 20) -> None:  # noqa: N803 implicit's name
        self.K = check.whole("K", K, maximum=check.LARGEST_LAYER)

    @abstractmethod
    def _create_model(self) -> Any:
        """Create the library's model, not fitted."""

    def _fit(self, user_items: sparse.csr_matrix, context: FitContext) -> None:
        with context.report_end(), warnings.catch_warnings():
            # The library warns of a conversion to CSR that its own weighting causes.
            warnings.filterwarnings("ignore", "Method expects CSR input")
            model = self._create_model()
            model.fit(user_items, show_progress=context.shows_bar)
            self.similarity_ = sparse.csr_matrix(model.similarity, dtype=np.float32)

    def _score_histories(self, user_items: sparse.csr_matrix) -> FloatArray:
        scores: FloatArray = (user_items @ self.similarity_).toarray()
        return scores

    def _item_similarity(self, queries: npt.NDArray[np.int64]) -> FloatArray:
        similar: FloatArray = self.similarity_[queries].toarray()
        similar[similar == 0] = -np.inf
        return similar

    def _state(self) -> State:
        return csr_arrays(self.similarity_)

    def _restore(self, state: State) -> None:
        self.similarity_ = take_csr(state, "similarity", self.n_items_, self.n_items_)


class CosineKNN(_ItemKNN):
    """Item-based neighbours by the cosine of their users.

    Parameters
    ----------
    K : int
        Number of neighbours that each item keeps.
    """

    def _create_model(self) -> Any:
        return import_implicit("nearest_neighbours").CosineRecommender(K=self.K)


class TFIDFKNN(_ItemKNN):
    """Item-based neighbours by the cosine of TF-IDF weights, in which active users count less.

    Parameters
    ----------
    K : int
        Number of neighbours that each item keeps.
    """

    def _create_model(self) -> Any:
        return import_implicit("nearest_neighbours").TFIDFRecommender(K=self.K)


class BM25KNN(_ItemKNN):
    """Item-based neighbours by BM25 weights.

    Parameters
    ----------
    K : int
        Number of neighbours that each item keeps.
    K1, B : float
        Saturation, and length normalisation, of BM25.
    """

    SPACE: ClassVar[SearchSpace] = {
        "K": WholeRange(10, 500),
        "K1": RealRange(0.5, 200.0),
        "B": RealRange(0.0, 1.0, log=False),
    }

    def __init__(self, K: int = 50, K1: float = 1.2, B: float = 0.5) -> None:  # noqa: N803 implicit's names
        super().__init__(K)
        self.K1 = check.real("K1", K1, high=1e6)
        self.B = check.real("B", B, 0.0, 1.0)

    def _create_model(self) -> Any:
        return import_implicit("nearest_neighbours").BM25Recommender(K=self.K, K1=self.K1, B=self.B)
