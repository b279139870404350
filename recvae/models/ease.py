"""EASE: H. Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019."""

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse

from recvae.errors import ArtifactError, ParameterError
from recvae.memory import available_bytes
from recvae.models import parameters as check
from recvae.models.base import Recommender, State
from recvae.models.run import Run
from recvae.models.space import Real, Space
from recvae.topn import FloatArray

PLAYS_PER_ITEM_FACTOR = 2.5
ROWS_AT_A_TIME = 1024


class EASE(Recommender):
    """Item-item weights in closed form: the linear autoencoder whose diagonal is zero.

    With G = XᵀX and P = (G + λI)⁻¹, equation 8: B_ij = −P_ij / P_jj off the diagonal, and a history's scores are x·B.

    Parameters
    ----------
    l2 : float, optional
        λ. None takes 2.5 times the mean number of plays of an item, which is near the best on dense (MovieLens) and
        on sparse (Gowalla) data alike.

    Notes
    -----
    Float32 throughout, in place: while fitting two n_items × n_items matrices are held at the peak, afterwards one.
    """

    SPACE: ClassVar[Space] = {"l2": Real(5.0, 5000.0)}

    weights_: npt.NDArray[np.float32]
    l2_: float

    def __init__(self, l2: float | None = None) -> None:
        self.l2 = None if l2 is None else check.real("l2", l2, open_low=True)

    def _fit(self, user_items: sparse.csr_matrix, run: Run) -> None:
        n_items = user_items.shape[1]
        _refuse_if_too_large(n_items)
        with run.timed():
            l2 = self.l2_ = self.l2 or float(PLAYS_PER_ITEM_FACTOR * user_items.sum() / n_items)
            gram = torch.from_numpy(_gram(user_items))
            gram.diagonal().add_(l2)
            try:
                torch.linalg.cholesky(gram, out=gram)
            except RuntimeError:  # torch's LinAlgError
                raise ParameterError(f"l2 is {l2:g}, too small for these plays in float32; expected more") from None
            inverse = torch.cholesky_inverse(gram, out=gram)
            weights = inverse.div_(-inverse.diagonal().clone())
            weights.diagonal().zero_()
            self.weights_ = weights.numpy()

    def fitted_params(self) -> dict[str, Any]:
        return {"l2": getattr(self, "l2_", self.l2)}

    def _score(self, user_items: sparse.csr_matrix) -> FloatArray:
        scores: FloatArray = user_items @ self.weights_
        return scores

    def _item_vectors(self) -> npt.NDArray[np.float32]:
        return self.weights_

    def _state(self) -> State:
        return {"weights": self.weights_}

    def _restore(self, state: State) -> None:
        self.weights_ = state["weights"]
        if self.weights_.shape != (self.n_items_, self.n_items_):
            raise ArtifactError(f"weights has shape {self.weights_.shape}; expected {self.n_items_} items each way")


def _gram(user_items: sparse.csr_matrix) -> npt.NDArray[np.float32]:
    """XᵀX, dense, made from blocks of rows so that its sparse form never stands beside it."""
    n_items = user_items.shape[1]
    gram = np.empty((n_items, n_items), dtype=np.float32)
    items = user_items.T.tocsr()
    for start in range(0, n_items, ROWS_AT_A_TIME):
        rows = slice(start, start + ROWS_AT_A_TIME)
        (items[rows] @ user_items).toarray(out=gram[rows])
    return gram


def _refuse_if_too_large(n_items: int) -> None:
    needed, available = 2 * 4 * n_items**2, available_bytes()
    if available is not None and needed > available:
        raise ParameterError(
            f"user_items has {n_items:,} columns, for which EASE needs about {needed / 1e9:.1f} GB; "
            f"{available / 1e9:.1f} GB are free; keep fewer items (min_item_users) or use another model"
        )
