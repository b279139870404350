"""EASE: H. Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019, and its family."""

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from numpy.linalg import LinAlgError
from scipy import sparse

from recvae.data.csr import csr_arrays
from recvae.errors import ArtifactError, ParameterError
from recvae.memory import available_bytes
from recvae.models import hyperparameters as check
from recvae.models.base import Recommender, State
from recvae.models.fit_context import FitContext
from recvae.models.hyperparameters import RealRange, SearchSpace
from recvae.models.linear.choice import choose, keep_comparable, measure_lists
from recvae.models.linear.inverses import Inverse, Problem, count_bytes
from recvae.models.linear.sparse_inverse import FactoredInverse
from recvae.models.stored_arrays import take_array, take_csr
from recvae.models.validation import ValidationUsers, check_metric, find_validation
from recvae.nn.device import check_device_name
from recvae.types import FloatArray

L2_PER_INTERACTION = (5.0, 1.5, 15.0)
DROPOUTS = (0.5,)
USER_EXPONENTS = (0.5, 0.0)
"""Values among which what is not given is chosen; the first of each is taken where there is nobody to choose by. λ is
in units of the mean number of interactions of an item.
"""
MOST_ITEMS = 5000
"""If users and items are both more than that, values are chosen on the most popular items. λ that is best for those is
best for all: with a quarter of the items of ML-1M and of last.fm the order of the values is the same.
"""
LARGEST_L2 = 1e12  # with far more, float32 has nothing left but zeros
LARGEST_DROPOUT = 0.99


class EASE(Recommender):
    """Item-item weights in closed form: the linear autoencoder whose diagonal is zero.

    With P = (XᵀWX + diag λ)⁻¹, the weights are B_ij = −P_ij / P_jj off the diagonal (equation 8), and a history's
    scores are x·B. W weighs users by a power of the length of their histories, and λ_i = l2 + dropout / (1 − dropout) ·
    (XᵀWX)_ii, where the second term is what dropping interactions at random would come to (H. Steck, "Autoencoders that
    don't overfit towards the identity", NeurIPS 2020). With no dropout and an exponent of 0 this is the EASE of 2019.

    Parameters
    ----------
    l2 : float, optional
        The part of λ that all items have in common.
    density : float, optional
        None computes P exactly. Where memory is too small for that, the share of the n_items × n_items entries that a
        sparse factor of P keeps, such as 0.001; 1 is exact again. See `FactoredInverse`. M. Spišák et al. ("Scalable
        Approximate NonSymmetric Autoencoder", RecSys 2023) factor P in a similar way, with CHOLMOD.
    dropout : float, optional
        Share of the interactions that are thought dropped, below 1.
    user_exponent : float, optional
        A user whose interactions sum to d weighs d to the power of minus this; 0 weighs all alike.
    metric : str
        Metric by which what is None is chosen.
    device : str
        Where a fit computes: "auto" takes the GPU where there is one.

    Notes
    -----
    What is None of `l2`, `dropout` and `user_exponent` is chosen on at most 1,000 validation users, or users held out
    of the training matrix where none are given: λ of 1.5, 5 and 15 times the mean number of interactions of an item,
    exponents of .5 and 0, a dropout of .5. Matrices with fewer than fifty users with five interactions take 5 times the
    mean, .5 and .5.

    All arithmetic is float32 and in place: a fit holds at most two n_items × n_items matrices in memory, or one and an
    n_users × n_users matrix if users are fewer; the fitted model holds one. With a density, memory is 16 bytes for each
    entry kept, and the time of a fit grows with n_items × (density × n_items)³.

    Similar items are found by the cosine of their weights, with a density by their partial correlation.
    """

    SPACE: ClassVar[SearchSpace] = {
        "l2": RealRange(2.0, 10_000.0),
        "dropout": RealRange(0.0, 0.8, log=False),
        "user_exponent": RealRange(0.0, 1.0, log=False),
    }

    weights_: npt.NDArray[np.float32]
    inverse_: FactoredInverse
    l2_: float
    dropout_: float
    user_exponent_: float

    def __init__(
        self,
        l2: float | None = None,
        density: float | None = None,
        dropout: float | None = None,
        user_exponent: float | None = None,
        metric: str = "ndcg@100",
        device: str = "auto",
    ) -> None:
        self.l2 = None if l2 is None else check.real("l2", l2, high=LARGEST_L2, open_low=True)
        self.density = None if density is None else check.real("density", density, 0.0, 1.0, open_low=True)
        self.dropout = None if dropout is None else check.real("dropout", dropout, high=LARGEST_DROPOUT)
        self.user_exponent = None if user_exponent is None else check.real("user_exponent", user_exponent, high=2.0)
        self.metric = check_metric(metric)
        self.device = check_device_name(device)

    def _fit(self, user_items: sparse.csr_matrix, context: FitContext) -> None:
        _refuse_if_too_large(user_items.shape, self.density)
        with context.report_end():
            with context.choosing():
                settings = self._choose_settings(user_items, context.validation)
            self.l2_, self.dropout_, self.user_exponent_ = (
                settings[name] for name in ("l2", "dropout", "user_exponent")
            )
            problem = Problem(user_items, self.device)
            try:
                if self.density is None:
                    self.weights_ = problem.invert(settings, last=True).make_weights()
                else:
                    per_item = _entries_per_item(user_items.shape[1], self.density)
                    self.inverse_ = FactoredInverse.from_interactions(*problem.weigh(settings), per_item)
            except LinAlgError:
                raise ParameterError(
                    f"l2 is {self.l2_:g}, too small for these interactions in float32; expected more"
                ) from None

    def _choose_settings(self, user_items: sparse.csr_matrix, validation: ValidationUsers | None) -> dict[str, float]:
        """Take what is given, and find what is not."""
        mean = float(user_items.sum(dtype=np.float64) / user_items.shape[1])
        candidates = {
            "l2": [mean * factor for factor in L2_PER_INTERACTION] if self.l2 is None else [self.l2],
            "user_exponent": USER_EXPONENTS if self.user_exponent is None else [self.user_exponent],
            "dropout": DROPOUTS if self.dropout is None else [self.dropout],
        }
        first = {name: values[0] for name, values in candidates.items()}
        if all(len(values) == 1 for values in candidates.values()):
            return first
        found = find_validation(user_items, validation)
        if found is None:
            return first
        train, (fold_in, held_out) = found
        if min(train.shape) > MOST_ITEMS:
            train, fold_in, held_out = _keep_popular(train, fold_in, held_out)
        users = keep_comparable(fold_in, held_out)
        if users is None:
            return first
        problem = Problem(train, self.device)

        def measure(settings: dict[str, float]) -> float:
            try:
                inverse = problem.invert(settings)
            except LinAlgError:
                return float("nan")
            return measure_lists(lambda batch: _score(users[0][batch], inverse), users, self.metric)

        return choose(candidates, measure)

    def fitted_params(self) -> dict[str, Any]:
        found = {name: getattr(self, f"{name}_", getattr(self, name)) for name in ("l2", "dropout", "user_exponent")}
        return {**self._own_params(), **found}

    def get_item_weights(self) -> FloatArray | None:
        """B, (n_items, n_items), where scores are x·B; None with a density, which makes it never whole."""
        return self.weights_ if self.density is None else None

    def _score_histories(self, user_items: sparse.csr_matrix) -> FloatArray:
        if self.density is not None:
            return _score(user_items, self.inverse_)
        scores: FloatArray = user_items @ self.weights_
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
        learned = {"weights": self.weights_} if self.density is None else csr_arrays(self.inverse_.factor)
        if not hasattr(self, "l2_"):  # it was read from an artifact of 0.1.0
            return learned
        return learned | {"settings": np.array([self.l2_, self.dropout_, self.user_exponent_])}

    def _restore(self, state: State) -> None:
        n_items = self.n_items_
        if "settings" in state:
            self.l2_, self.dropout_, self.user_exponent_ = take_array(state, "settings", 3, dtype="float64").tolist()
        else:  # 0.1.0 had λ alone, and kept it only where it was given
            self.dropout_ = self.user_exponent_ = 0.0
        if self.density is None:
            self.weights_ = take_array(state, "weights", n_items, n_items)
            return
        self.inverse_ = FactoredInverse(take_csr(state, "factor", n_items, n_items))
        if not (self.inverse_.diagonal > 0).all():
            raise ArtifactError("factor has a column of zeros; expected an inverse matrix")


def _score(user_items: sparse.csr_matrix, inverse: Inverse) -> FloatArray:
    """Compute X·B = X − X·P / diag P."""
    products = inverse.multiply(user_items)
    products /= -inverse.diagonal
    rows = np.repeat(np.arange(user_items.shape[0]), np.diff(user_items.indptr))
    products[rows, user_items.indices] += user_items.data
    return products


def _keep_popular(train: sparse.csr_matrix, *others: sparse.csr_matrix) -> list[sparse.csr_matrix]:
    """The columns of the `MOST_ITEMS` items with the most interactions in training, of each matrix."""
    counts = np.bincount(train.indices, minlength=train.shape[1])
    kept = np.sort(np.argsort(-counts, kind="stable")[:MOST_ITEMS])
    return [matrix[:, kept] for matrix in (train, *others)]


def _entries_per_item(n_items: int, density: float) -> int:
    """Number of entries of each row of the factor."""
    return max(1, round(density * n_items))


def _refuse_if_too_large(shape: tuple[int, int], density: float | None) -> None:
    n_items = shape[1]
    needed, available = count_bytes(*shape), available_bytes()
    remedy = "a sparse approximation (density, such as 0.001)"
    if density is not None:
        needed, remedy = 16 * n_items * _entries_per_item(n_items, density), "a lower density"
    if available is not None and needed > available:
        raise ParameterError(
            f"user_items has {n_items:,} columns, for which EASE needs about {needed / 1e9:.1f} GB; "
            f"{available / 1e9:.1f} GB are free; use {remedy}, or keep fewer items (min_item_users)"
        )
