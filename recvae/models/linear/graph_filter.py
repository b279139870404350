"""GraphFilter: GF-CF of Y. Shen et al., "How Powerful is Graph Convolution for Recommendation?", CIKM 2021."""

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse.linalg import svds

from recvae.data.csr import csr_arrays, inverse_square_roots, normalise_by_degrees
from recvae.data.stored_arrays import take_array, take_csr
from recvae.errors import ArtifactError
from recvae.memory import row_batches
from recvae.models import hyperparameters as check
from recvae.models.base import Recommender, State
from recvae.models.fit_context import FitContext
from recvae.models.hyperparameters import RealRange, SearchSpace, WholeRange
from recvae.models.validation import check_metric, validate
from recvae.types import FloatArray

PAPER_WEIGHT = 0.3
WEIGHTS = (0.1, PAPER_WEIGHT, 1.0, 3.0, 10.0)
VALIDATION_USERS = 1000


class GraphFilter(Recommender):
    """A linear plus an ideal low-pass filter on the graph of items; nothing is trained by gradient descent.

    Equation 10: the scores of a history r are r·R̃ᵀR̃ + weight·r·D_I^−½ V Vᵀ D_I^½, where R̃ = D_U^−½ R D_I^−½ and V
    are its leading right singular vectors.

    Parameters
    ----------
    factors : int
        Number of singular vectors, 256 as in the paper; fewer if the matrix has no more.
    weight : float, optional
        α, the weight of the ideal filter: .3 in the paper, good on sparse data; up to 3 on dense data. None chooses
        among five values on at most 1,000 validation users, or takes .3 if there are none.
    metric : str
        Metric by which the weight is chosen.
    seed : int
        Decides the start vector of the iteration for the singular vectors.
    """

    SPACE: ClassVar[SearchSpace] = {"factors": WholeRange(16, 1024), "weight": RealRange(0.05, 20.0)}

    weight_: float
    interactions_: sparse.csr_matrix
    item_degrees_: npt.NDArray[np.float32]
    values_: npt.NDArray[np.float32]
    vectors_: npt.NDArray[np.float32]

    def __init__(
        self, factors: int = 256, weight: float | None = None, metric: str = "ndcg@100", seed: int = 0
    ) -> None:
        self.factors = check.whole("factors", factors, maximum=check.LARGEST_LAYER)
        self.weight = None if weight is None else check.real("weight", weight)
        self.metric = check_metric(metric)
        self.seed = check.whole("seed", seed, minimum=0)

    def _fit(self, user_items: sparse.csr_matrix, context: FitContext) -> None:
        with context.report_end():
            self.item_degrees_ = np.asarray(user_items.sum(axis=0), dtype=np.float32).ravel()
            self.interactions_ = normalise_by_degrees(user_items)
            self.values_, self.vectors_ = self._decompose()
            self.weight_ = PAPER_WEIGHT if self.weight is None else self.weight
            if self.weight is None and context.validation is not None:
                self.weight_ = self._choose_weight(*context.validation)

    def _choose_weight(self, fold_in: sparse.csr_matrix, held_out: sparse.csr_matrix) -> float:
        """Find the weight that ranks best for the first validation users."""
        users = fold_in[:VALIDATION_USERS], held_out[:VALIDATION_USERS]
        quality = {}
        for weight in WEIGHTS:
            self.weight_ = weight
            quality[weight] = validate(self, users, self.metric)
        return max(quality, key=lambda weight: quality[weight])

    def _decompose(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Compute the leading singular values of R̃, (factors,), and right singular vectors, (factors, n_items)."""
        smaller = min(self.interactions_.shape)
        k = min(self.factors, smaller - 1)
        if k == 0:
            return np.empty(0, dtype=np.float32), np.empty((0, self.interactions_.shape[1]), dtype=np.float32)
        start = np.random.default_rng(self.seed).standard_normal(smaller).astype(np.float32)
        _, values, vectors = svds(self.interactions_, k=k, v0=start)
        return values.astype(np.float32), np.ascontiguousarray(vectors, dtype=np.float32)

    def fitted_params(self) -> dict[str, Any]:
        return {**self.get_params(deep=False), "weight": self.weight_}

    def _score_histories(self, user_items: sparse.csr_matrix) -> FloatArray:
        near = np.empty(user_items.shape, dtype=np.float32)
        # user_items · R̃ᵀ is nearly dense, so that a row of it takes a float32 and an index for each training user.
        for batch in row_batches(len(near), 8 * self.interactions_.shape[0]):
            near[batch] = ((user_items[batch] @ self.interactions_.T) @ self.interactions_).toarray()
        wide = user_items @ (inverse_square_roots(self.item_degrees_)[:, None] * self.vectors_.T)  # (n_users, factors)
        scores: FloatArray = near + self.weight_ * (wide @ self.vectors_) * np.sqrt(self.item_degrees_)
        return scores

    def _item_vectors(self) -> npt.NDArray[np.float32]:
        return (self.values_[:, None] * self.vectors_).T

    def _state(self) -> State:
        return {
            **csr_arrays(self.interactions_),
            "item_degrees": self.item_degrees_,
            "weight": np.array([self.weight_]),
            "values": self.values_,
            "vectors": self.vectors_,
        }

    def _restore(self, state: State) -> None:
        n_items = self.n_items_
        self.interactions_ = take_csr(state, "interactions", None, n_items)
        self.weight_ = float(take_array(state, "weight", 1, dtype="float64")[0])
        self.item_degrees_ = take_array(state, "item_degrees", n_items)
        if (self.item_degrees_ < 0).any():
            raise ArtifactError("item_degrees holds negative numbers; expected each item's sum of interactions")
        self.vectors_ = take_array(state, "vectors", None, n_items)
        self.values_ = take_array(state, "values", len(self.vectors_))
