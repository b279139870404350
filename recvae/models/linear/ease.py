"""EASE: H. Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019."""

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from numpy.linalg import LinAlgError
from scipy import sparse

from recvae.data.csr import csr_arrays
from recvae.data.stored_arrays import take_array, take_csr
from recvae.errors import ArtifactError, ParameterError
from recvae.memory import available_bytes
from recvae.models import hyperparameters as check
from recvae.models.base import Recommender, State
from recvae.models.fit_context import FitContext
from recvae.models.hyperparameters import RealRange, SearchSpace
from recvae.models.linear.sparse_inverse import FactoredInverse
from recvae.types import FloatArray

INTERACTIONS_PER_ITEM_FACTOR = 2.5
LARGEST_L2 = 1e12  # with far more, float32 has nothing left but zeros
ROWS_AT_A_TIME = 1024


class EASE(Recommender):
    """Item-item weights in closed form: the linear autoencoder whose diagonal is zero.

    With G = XᵀX and P = (G + λI)⁻¹, equation 8: B_ij = −P_ij / P_jj off the diagonal, and a history's scores are x·B.

    Parameters
    ----------
    l2 : float, optional
        λ. None takes 2.5 times the mean number of interactions of an item, which is close to the best value on dense
        data (MovieLens) and on sparse data (Gowalla).
    density : float, optional
        None computes P exactly. Where memory is too small for that, the share of the n_items × n_items entries that a
        sparse factor of P keeps, such as 0.001; 1 is exact again. See `FactoredInverse`. M. Spišák et al. ("Scalable
        Approximate NonSymmetric Autoencoder", RecSys 2023) factor P in a similar way, with CHOLMOD.

    Notes
    -----
    All arithmetic is float32 and in place: a fit holds at most two n_items × n_items matrices in memory, the fitted
    model one. With a density, memory is 16 bytes for each entry kept, and the time of a fit grows with
    n_items × (density × n_items)³.

    Similar items are found by the cosine of their weights, with a density by their partial correlation.
    """

    SPACE: ClassVar[SearchSpace] = {"l2": RealRange(5.0, 5000.0)}

    weights_: npt.NDArray[np.float32]
    inverse_: FactoredInverse
    l2_: float

    def __init__(self, l2: float | None = None, density: float | None = None) -> None:
        self.l2 = None if l2 is None else check.real("l2", l2, high=LARGEST_L2, open_low=True)
        self.density = None if density is None else check.real("density", density, 0.0, 1.0, open_low=True)

    def _fit(self, user_items: sparse.csr_matrix, context: FitContext) -> None:
        n_items = user_items.shape[1]
        _refuse_if_too_large(n_items, self.density)
        with context.report_end():
            l2 = self.l2_ = self.l2 or float(INTERACTIONS_PER_ITEM_FACTOR * user_items.sum() / n_items)
            try:
                if self.density is None:
                    self.weights_ = _solve_weights(user_items, l2)
                else:
                    self.inverse_ = FactoredInverse.from_interactions(
                        user_items, l2, _entries_per_item(n_items, self.density)
                    )
            except LinAlgError:
                raise ParameterError(
                    f"l2 is {l2:g}, too small for these interactions in float32; expected more"
                ) from None

    def fitted_params(self) -> dict[str, Any]:
        return {**self.get_params(deep=False), "l2": getattr(self, "l2_", self.l2)}

    def _score_histories(self, user_items: sparse.csr_matrix) -> FloatArray:
        scores: FloatArray
        if self.density is None:
            scores = user_items @ self.weights_
        else:
            scores = np.asarray(user_items - self.inverse_.multiply(user_items) / self.inverse_.diagonal)
        return scores

    def _item_vectors(self) -> npt.NDArray[np.float32]:
        return self.weights_

    def _item_similarity(self, queries: npt.NDArray[np.int64]) -> FloatArray:
        if self.density is None:
            return super()._item_similarity(queries)
        similarity = self.inverse_.partial_correlations(queries)
        similarity[np.arange(len(queries)), queries] = 1
        similarity[:, self.item_counts_ == 0] = -np.inf
        return similarity

    def _state(self) -> State:
        return {"weights": self.weights_} if self.density is None else csr_arrays(self.inverse_.factor)

    def _restore(self, state: State) -> None:
        n_items = self.n_items_
        if self.density is not None:
            self.inverse_ = FactoredInverse(take_csr(state, "factor", n_items, n_items))
            if not (self.inverse_.diagonal > 0).all():
                raise ArtifactError("factor has a column of zeros; expected an inverse matrix")
            return
        self.weights_ = take_array(state, "weights", n_items, n_items)


def _solve_weights(user_items: sparse.csr_matrix, l2: float) -> npt.NDArray[np.float32]:
    """Compute B exactly, in the memory of two matrices; `LinAlgError` if λ is too small for float32."""
    import torch  # here, since a process that only ranks needs no torch and saves its memory

    gram = torch.from_numpy(_compute_gram(user_items))
    gram.diagonal().add_(l2)
    _, failed = torch.linalg.cholesky_ex(gram, out=(gram, torch.empty((), dtype=torch.int32)))
    if failed:
        raise LinAlgError("not positive definite")
    inverse = torch.cholesky_inverse(gram, out=gram)
    inverse.div_(-inverse.diagonal().clone())
    inverse.diagonal().zero_()
    weights: npt.NDArray[np.float32] = inverse.numpy()
    return weights


def _compute_gram(user_items: sparse.csr_matrix) -> npt.NDArray[np.float32]:
    """Compute XᵀX as a dense matrix, a block of rows at a time.

    The sparse product of the whole would need as much memory again, since XᵀX is nearly dense.
    """
    n_items = user_items.shape[1]
    gram = np.empty((n_items, n_items), dtype=np.float32)
    items = user_items.T.tocsr()
    for start in range(0, n_items, ROWS_AT_A_TIME):
        rows = slice(start, start + ROWS_AT_A_TIME)
        (items[rows] @ user_items).toarray(out=gram[rows])
    return gram


def _entries_per_item(n_items: int, density: float) -> int:
    """Number of entries of each row of the factor."""
    return max(1, round(density * n_items))


def _refuse_if_too_large(n_items: int, density: float | None) -> None:
    needed, available = 2 * 4 * n_items**2, available_bytes()
    remedy = "a sparse approximation (density, such as 0.001)"
    if density is not None:
        needed, remedy = 16 * n_items * _entries_per_item(n_items, density), "a lower density"
    if available is not None and needed > available:
        raise ParameterError(
            f"user_items has {n_items:,} columns, for which EASE needs about {needed / 1e9:.1f} GB; "
            f"{available / 1e9:.1f} GB are free; use {remedy}, or keep fewer items (min_item_users)"
        )
