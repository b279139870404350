"""GraphFilter: polynomial filters on the graph of items, without their polynomials."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from scipy import sparse

from recvae.data.csr import csr_arrays
from recvae.errors import ArtifactError
from recvae.memory import available_bytes
from recvae.models import hyperparameters as check
from recvae.models.base import Recommender, State
from recvae.models.fit_context import FitContext
from recvae.models.hyperparameters import RealRange, SearchSpace, WholeRange
from recvae.models.linear.choice import choose, keep_comparable, measure_lists
from recvae.models.linear.spectral import SpectralFilter, Spectrum
from recvae.models.stored_arrays import take_array, take_csr
from recvae.models.validation import ValidationUsers, check_metric, find_validation
from recvae.types import FloatArray

FACTORS = (512, 256, 128)
WEIGHTS = (0.3, 0.0, 0.1, 1.0, 3.0)
FLATNESSES = (3.0, 1.5, 10.0)
ITEM_EXPONENTS = (0.25, 0.0, 0.1, 0.4)
"""Values among which what is not given is chosen; the first of each is taken where there is nobody to choose by."""
LARGEST_MATRIX, LARGEST_SPARSE_MATRIX = 8000, 50_000
"""Items up to which the filter is kept as one array of items by items, and as a sparse one, where memory allows."""
ENTRIES_PER_ITEM = 2500
"""Of each row of the sparse one. On citeulike, with 16,908 items, these give an NDCG@100 a thousandth lower than all
do, and 1,000 entries one that is eight thousandths lower.
"""
MOST_SCORES = 2**27
"""Scores of validation users that are held at a time; of large catalogues fewer users choose."""
NAMES = ("factors", "weight", "flatness", "item_exponent")


class GraphFilter(Recommender):
    """A low-pass filter on the graph of items; nothing is trained by gradient descent.

    With R̃ = D_U^−½ R D_I^−½, P̃ = R̃ᵀR̃, and V its leading eigenvectors, of eigenvalues λ, the scores of a history r
    are r·D_I^−β·(c·P̃ + V diag(h(λ) − c·λ + α) Vᵀ)·D_I^β. h(λ) = ½ ± ½·|2λ − 1|^φ flattens what is near ½, and
    c = h(λ_η) / λ_η goes on in a straight line below the last eigenvalue.

    This is the family of GF-CF (Y. Shen et al., "How Powerful is Graph Convolution for Recommendation?", CIKM 2021:
    φ = 1, except that degrees weigh its linear term differently) and ChebyCF (C. Kim et al., "Graph Spectral Filtering
    with Chebyshev Interpolation for Recommendation", SIGIR 2025), whose polynomials approximate h; here h is exact on
    the leading eigenvalues. BSPM (J. Choi et al., SIGIR 2023) is a filter of this kind too, with a sharpening term that
    is not in it.

    Parameters
    ----------
    factors : int, optional
        η, the number of eigenvectors; fewer if the matrix has no more.
    weight : float, optional
        α, the weight of the ideal filter, which passes the leading eigenvectors alone.
    metric : str
        Metric by which what is None is chosen.
    seed : int
        Decides the start of the iteration for the eigenvectors.
    flatness : float, optional
        φ; 1 is the straight line.
    item_exponent : float, optional
        β: 0 takes histories as they are, .5 divides them by the square root of the items' interactions, and multiplies
        scores by it.

    Notes
    -----
    What is None is chosen on at most 1,000 validation users, or users held out of the training matrix where none are
    given: β of 0, .1, .25 and .4, φ of 1.5, 3 and 10, α of 0, .1, .3, 1 and 3, η of 512, 256 and 128. Matrices with
    fewer than fifty users with five interactions take β = .25, φ = 3, α = .3, η = 512.

    Scores of a user are a sum of rows of one matrix: up to 8,000 items the whole filter, up to 50,000 items the 2,500
    largest entries of each row, which costs a thousandth of NDCG@100. Above that, or if memory is too small, a user
    costs a product with the eigenvectors.
    """

    SPACE: ClassVar[SearchSpace] = {
        "factors": WholeRange(32, 1024),
        "weight": RealRange(0.01, 10.0),
        "flatness": RealRange(1.0, 20.0),
        "item_exponent": RealRange(0.0, 0.5, log=False),
    }

    settings_: dict[str, Any]
    values_: FloatArray
    vectors_: FloatArray
    filter_: FloatArray | sparse.csr_matrix | SpectralFilter

    def __init__(
        self,
        factors: int | None = None,
        weight: float | None = None,
        metric: str = "ndcg@100",
        seed: int = 0,
        flatness: float | None = None,
        item_exponent: float | None = None,
    ) -> None:
        self.factors = None if factors is None else check.whole("factors", factors, maximum=check.LARGEST_LAYER)
        self.weight = None if weight is None else check.real("weight", weight, high=1e6)
        self.metric = check_metric(metric)
        self.seed = check.whole("seed", seed, minimum=0)
        self.flatness = None if flatness is None else check.real("flatness", flatness, 1.0, 100.0)
        self.item_exponent = None if item_exponent is None else check.real("item_exponent", item_exponent, 0.0, 1.0)

    def _fit(self, user_items: sparse.csr_matrix, context: FitContext) -> None:
        with context.report_end():
            self.settings_, spectrum = self._choose_settings(user_items, context)
            if spectrum is None:
                spectrum = Spectrum.from_interactions(user_items, self.settings_["factors"], self.seed)
            chosen = spectrum.make_filter(**self.settings_)
            self.vectors_, self.values_ = chosen.vectors, np.sqrt(spectrum.eigenvalues[: len(chosen.gains)])
            self.filter_ = _make_matrix(chosen)

    def _choose_settings(
        self, user_items: sparse.csr_matrix, context: FitContext
    ) -> tuple[dict[str, Any], Spectrum | None]:
        """Take what is given, and find what is not; also the spectrum of `user_items`, if it was computed for that."""
        defaults = (FACTORS, WEIGHTS, FLATNESSES, ITEM_EXPONENTS)
        candidates: dict[str, Sequence[Any]] = {
            name: default if getattr(self, name) is None else (getattr(self, name),)
            for name, default in zip(NAMES, defaults, strict=True)
        }
        first = {name: values[0] for name, values in candidates.items()}
        if all(len(values) == 1 for values in candidates.values()):
            return first, None
        found = find_validation(user_items, context.validation, self.seed)
        if found is None:
            return first, None
        train, given = found
        users = keep_comparable(*given)
        if users is None:
            return first, None
        spectrum = Spectrum.from_interactions(train, int(max(candidates["factors"])), self.seed)
        with context.choosing():
            settings = _search(spectrum, candidates, users, self.metric)
        return settings, None if context.validation is None else spectrum

    def fitted_params(self) -> dict[str, Any]:
        return {**self._own_params(), **self.settings_}

    def get_item_weights(self) -> FloatArray | None:
        """The filter, (n_items, n_items), where scores are x times it; None for more than 8,000 items."""
        return self.filter_ if isinstance(self.filter_, np.ndarray) else None

    def _score_histories(self, user_items: sparse.csr_matrix) -> FloatArray:
        if isinstance(self.filter_, SpectralFilter):
            return self.filter_.score(user_items)
        if isinstance(self.filter_, np.ndarray):
            scores: FloatArray = user_items @ self.filter_
        else:
            scores = (user_items @ self.filter_).toarray()
        return scores

    def _item_vectors(self) -> npt.NDArray[np.float32]:
        vectors: npt.NDArray[np.float32] = self.vectors_ * self.values_
        return vectors

    def _state(self) -> State:
        state: State = {
            "values": self.values_,
            "item_vectors": self.vectors_,
            "settings": np.array([self.settings_[name] for name in NAMES], dtype=np.float64),
        }
        if isinstance(self.filter_, np.ndarray):
            return state | {"matrix": self.filter_}
        if not isinstance(self.filter_, SpectralFilter):
            return state | csr_arrays(self.filter_)
        return {
            **state,
            **csr_arrays(self.filter_.interactions),
            "item_degrees": self.filter_.item_degrees,
            "gains": self.filter_.gains,
            "numbers": np.array([self.filter_.slope, *self.filter_.exponents]),
        }

    def _restore(self, state: State) -> None:
        n_items = self.n_items_
        if "vectors" in state:
            self._restore_0_1_0(state)
            return
        self.vectors_ = take_array(state, "item_vectors", n_items, None)
        self.values_ = take_array(state, "values", self.vectors_.shape[1])
        factors, *others = take_array(state, "settings", len(NAMES), dtype="float64").tolist()
        self.settings_ = dict(zip(NAMES, (int(factors), *others), strict=True))
        if "matrix" in state:
            self.filter_ = take_array(state, "matrix", n_items, n_items)
            return
        if "gains" not in state:
            self.filter_ = take_csr(state, "matrix", n_items, n_items)
            return
        slope, *exponents = take_array(state, "numbers", 3, dtype="float64").tolist()
        self._restore_filter(state, take_array(state, "gains", len(self.values_)), slope, (exponents[0], exponents[1]))

    def _restore_0_1_0(self, state: State) -> None:
        """Restore the arrays of 0.1.0: GF-CF, whose linear term left degrees out."""
        self.vectors_ = np.ascontiguousarray(take_array(state, "vectors", None, self.n_items_).T)
        self.values_ = take_array(state, "values", self.vectors_.shape[1])
        weight = float(take_array(state, "weight", 1, dtype="float64")[0])
        factors = len(self.values_) if self.factors is None else self.factors
        self.settings_ = {"factors": factors, "weight": weight, "flatness": 1.0, "item_exponent": 0.5}
        self._restore_filter(state, np.full(len(self.values_), weight, dtype=np.float32), 1.0, (0.0, 0.5))

    def _restore_filter(self, state: State, gains: FloatArray, slope: float, exponents: tuple[float, float]) -> None:
        interactions = take_csr(state, "interactions", None, self.n_items_)
        degrees = take_array(state, "item_degrees", self.n_items_)
        if (degrees < 0).any():
            raise ArtifactError("item_degrees holds negative numbers; expected each item's sum of interactions")
        self.filter_ = SpectralFilter(interactions, degrees, self.vectors_, gains, slope, exponents)


def _make_matrix(chosen: SpectralFilter) -> FloatArray | sparse.csr_matrix | SpectralFilter:
    """The filter as one matrix, if items and memory allow that; else as it is."""
    n_items, available = len(chosen.item_degrees), available_bytes()
    free = available if available is not None else float("inf")
    if n_items <= LARGEST_MATRIX and 4 * n_items**2 < free:
        return chosen.make_matrix()
    if n_items <= LARGEST_SPARSE_MATRIX and 2 * 8 * n_items * ENTRIES_PER_ITEM < free:
        return chosen.make_sparse_matrix(ENTRIES_PER_ITEM)
    return chosen


def _search(
    spectrum: Spectrum, candidates: Mapping[str, Sequence[Any]], users: ValidationUsers, metric: str
) -> dict[str, Any]:
    """Find the settings that rank best; products with the graph are computed once for each exponent.

    Weight and flatness are tried in all combinations, because what is best of one depends on the other.
    """
    n_users = max(1, MOST_SCORES // users[0].shape[1])
    fold_in, held_out = (matrix[:n_users] for matrix in users)
    products: dict[float, FloatArray] = {}

    def measure(values: dict[str, Any]) -> float:
        settings = _separate(values)
        tried, exponent = spectrum.make_filter(**settings), settings["item_exponent"]
        if exponent not in products:
            products[exponent] = tried.multiply_by_graph(fold_in)

        def score(batch: slice) -> FloatArray:
            return tried.combine(products[exponent][batch], tried.project(fold_in[batch]))

        return measure_lists(score, (fold_in, held_out), metric)

    both = [(weight, flatness) for weight in candidates["weight"] for flatness in candidates["flatness"]]
    others = {name: candidates[name] for name in ("factors", "item_exponent")}
    return _separate(choose({"both": both, **others}, measure))


def _separate(values: dict[str, Any]) -> dict[str, Any]:
    """Settings by name, from those that are chosen together."""
    weight, flatness = values["both"]
    return {
        "factors": values["factors"],
        "weight": weight,
        "flatness": flatness,
        "item_exponent": values["item_exponent"],
    }
