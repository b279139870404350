"""Matrix factorizations that the library `implicit` trains: ALS, BPR and LMF.

Ranking, filtering and metrics are this project's, so that every model is measured in the same way. Defaults are tuned
where noted instead of the library's, so that these models are strong opponents.
"""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from scipy import sparse

from recvae.data.stored_arrays import take_array
from recvae.errors import ArtifactError, MissingDependencyError, ParameterError, TrainingError, UnsupportedError
from recvae.models import hyperparameters as check
from recvae.models.base import Recommender, State
from recvae.models.fit_context import FitContext
from recvae.models.hyperparameters import RealRange, SearchSpace, WholeRange
from recvae.models.validation import check_metric, validate
from recvae.types import FloatArray

FACTORS_PER_CUBE_ROOT, MOST_FACTORS = 16.7, 512
ALPHA_BY_DENSITY = 1.7
REGULARIZATION_BY_INTERACTIONS = 4.4
LARGEST_WEIGHT = 1e6  # far beyond what helps; float32 sums overflow with much more
REGULARIZATIONS = (18.0, 27.0, 40.0, 60.0, 90.0)
VALIDATION_USERS = 1000
MOST_NEGATIVES = 10_000
FACTORS_TO_CHOOSE_BY = 128


def import_implicit(module: str) -> Any:
    """Import a module of the library `implicit`, such as "cpu.als"; `MissingDependencyError` without it."""
    try:
        return import_module(f"implicit.{module}")
    except ImportError as error:
        raise MissingDependencyError(
            f"this model needs the library implicit ({error}); install recvae with the extra 'baselines'"
        ) from None


def _limit_blas() -> Any:
    """Limit BLAS to one thread: `implicit` starts threads of its own, and both would compete for the same cores."""
    import_implicit("cpu.als")  # loads its BLAS, since only what is loaded can be limited
    return import_module("threadpoolctl").threadpool_limits(1, "blas")


class _Factorization(Recommender):
    """A model with a vector for each user and item; their inner product is the score."""

    stores_users: ClassVar[bool] = True
    user_factors_: npt.NDArray[np.float32]
    item_factors_: npt.NDArray[np.float32]

    @property
    def user_factors(self) -> npt.NDArray[np.float32]:
        """`user_factors_` by `implicit`'s name."""
        return self.user_factors_

    @property
    def item_factors(self) -> npt.NDArray[np.float32]:
        """`item_factors_` by `implicit`'s name."""
        return self.item_factors_

    @abstractmethod
    def _create_model(self) -> Any:
        """Create the library's model with this model's hyperparameters, not fitted."""

    def _fit(self, user_items: sparse.csr_matrix, context: FitContext) -> None:
        failure = import_implicit("recommender_base").ModelFitError
        try:
            with _limit_blas(), np.errstate(over="ignore", invalid="ignore"):  # it shows in the factors
                model = self._create_model()
                model.fit(user_items, show_progress=context.shows_bar, callback=_adapt_callback(context.callback))
        except failure as error:
            raise TrainingError(f"{self!r} failed: {error}; expected smaller settings or weights") from None
        self.user_factors_, self.item_factors_ = model.user_factors, model.item_factors
        if not (np.isfinite(self.user_factors_).all() and np.isfinite(self.item_factors_).all()):
            raise TrainingError(f"{self!r} gave factors that are not finite; expected smaller settings or weights")

    def _score_users(self, users: npt.NDArray[np.int64]) -> FloatArray:
        n_users = len(self.user_factors_)
        outside = users[(users < 0) | (users >= n_users)]
        if len(outside):
            raise ParameterError(f"userid is {outside[0]}; expected 0 to {n_users - 1:,}, or recalculate_user=True")
        return self.user_factors_[users] @ self.item_factors_.T

    def _item_vectors(self) -> npt.NDArray[np.float32]:
        return self.item_factors_

    def _user_vectors(self, user_items: sparse.csr_matrix | None) -> npt.NDArray[np.float32]:
        if user_items is not None:
            raise UnsupportedError(f"{type(self).__name__} compares the users it was trained on; leave user_items out")
        return self.user_factors_

    def _state(self) -> State:
        return {"user_factors": self.user_factors_, "item_factors": self.item_factors_}

    def _restore(self, state: State) -> None:
        self.item_factors_ = take_array(state, "item_factors", self.n_items_, None)
        self.user_factors_ = take_array(state, "user_factors", None, self.item_factors_.shape[1])


class ALS(_Factorization):
    """Implicit-feedback matrix factorization by alternating least squares (Hu, Koren & Volinsky 2008).

    A new user is folded in exactly: one least-squares solve against the item factors.

    Parameters
    ----------
    factors : int, optional
        None takes 16.7 times the cube root of the number of users or items, whichever is smaller, but at most 512.
    regularization : float, optional
        None chooses among five values on at most 1,000 validation users, with at most 128 factors. Without validation
        users it takes 4.4 times the root of the mean number of interactions of an item.
    alpha : float, optional
        Confidence of an interaction, where a missing interaction has 1. None takes 1.7 divided by the cube root of the
        matrix's density.
    iterations : int
    metric : str
        Metric by which the regularization is chosen.
    seed : int
        Decides the initial factors.

    Notes
    -----
    The three rules give the best settings found on validation users of MovieLens-1M (256 factors, α 5, λ 60) and of
    Gowalla (512, α 20, λ 20), and predicted those of MovieLens-100K. The library's own defaults reach .04 less NDCG on
    MovieLens-1M. No rule predicts λ well: half or twice the best value costs .05 on dense data.
    """

    SPACE: ClassVar[SearchSpace] = {
        "factors": WholeRange(32, 512),
        "alpha": RealRange(0.5, 50.0),
        "regularization": RealRange(1.0, 300.0),
    }

    factors_: int
    alpha_: float
    regularization_: float

    def __init__(
        self,
        factors: int | None = None,
        regularization: float | None = None,
        alpha: float | None = None,
        *,
        iterations: int = 15,
        metric: str = "ndcg@100",
        seed: int = 0,
    ) -> None:
        self.factors = None if factors is None else check.whole("factors", factors, maximum=check.LARGEST_LAYER)
        self.alpha = None if alpha is None else check.real("alpha", alpha, high=LARGEST_WEIGHT, open_low=True)
        self.regularization = (
            None if regularization is None else check.real("regularization", regularization, high=LARGEST_WEIGHT)
        )
        self.iterations = check.whole("iterations", iterations)
        self.metric = check_metric(metric)
        self.seed = check.whole("seed", seed, minimum=0)

    def _fit(self, user_items: sparse.csr_matrix, context: FitContext) -> None:
        n_users, n_items = user_items.shape
        cube_root = min(n_users, n_items) ** (1 / 3)
        self.factors_ = self.factors or min(MOST_FACTORS, round(FACTORS_PER_CUBE_ROOT * cube_root))
        self.alpha_ = self.alpha or ALPHA_BY_DENSITY * (n_users * n_items / user_items.nnz) ** (1 / 3)
        if self.regularization is not None:
            self.regularization_ = self.regularization
        elif context.validation is None:
            self.regularization_ = REGULARIZATION_BY_INTERACTIONS * (user_items.nnz / n_items) ** 0.5
        else:
            self.regularization_ = self._choose_regularization(user_items, context, context.validation)
        super()._fit(user_items, context)

    def _choose_regularization(
        self,
        user_items: sparse.csr_matrix,
        context: FitContext,
        validation: tuple[sparse.csr_matrix, sparse.csr_matrix],
    ) -> float:
        """Find the regularization that ranks best for the first validation users, with few factors."""
        users = validation[0][:VALIDATION_USERS], validation[1][:VALIDATION_USERS]
        factors, self.factors_ = self.factors_, min(self.factors_, FACTORS_TO_CHOOSE_BY)
        quality = {}
        for value in REGULARIZATIONS:
            self.regularization_ = value
            super()._fit(user_items, replace(context, callback=None))
            quality[value] = validate(self, users, self.metric)
        self.factors_ = factors
        return max(quality, key=lambda value: quality[value])

    def fitted_params(self) -> dict[str, Any]:
        fitted = {"factors": self.factors_, "alpha": self.alpha_, "regularization": self.regularization_}
        return {**self.get_params(deep=False), **fitted}

    def _create_model(self) -> Any:
        return import_implicit("cpu.als").AlternatingLeastSquares(
            factors=self.factors_,
            alpha=self.alpha_,
            regularization=self.regularization_,
            iterations=self.iterations,
            random_state=self.seed,
        )

    def _score_histories(self, user_items: sparse.csr_matrix) -> FloatArray:
        with _limit_blas():
            model = self._create_model()
            model.item_factors = self.item_factors_
            users = model.recalculate_user(np.arange(user_items.shape[0]), user_items)
        scores: FloatArray = users @ self.item_factors_.T
        return scores

    def _state(self) -> State:
        return {**super()._state(), "alpha_regularization": np.array([self.alpha_, self.regularization_])}

    def _restore(self, state: State) -> None:
        super()._restore(state)
        self.factors_ = self.item_factors_.shape[1]
        if self.factors not in (None, self.factors_):
            raise ArtifactError(f"item_factors has {self.factors_} columns; expected factors={self.factors}")
        self.alpha_, self.regularization_ = (
            float(value) for value in take_array(state, "alpha_regularization", 2, dtype="float64")
        )


class _KnownUserFactorization(_Factorization):
    """A factorization that learns users only in training."""

    folds_in: ClassVar[bool] = False

    def _score_histories(self, user_items: sparse.csr_matrix) -> FloatArray:
        raise UnsupportedError(
            f"{type(self).__name__} cannot fold in new users: it knows only those it was trained on, so it takes "
            "part in weak generalization only"
        )


class BPR(_KnownUserFactorization):
    """Bayesian personalised ranking (Rendle et al. 2009); ranks only for the users it was trained on.

    Parameters
    ----------
    factors : int
    learning_rate, regularization : float
    iterations : int
    seed : int
        Training uses one thread, since the library's parallel updates are not reproducible.
    """

    SPACE: ClassVar[SearchSpace] = {
        "factors": WholeRange(32, 256),
        "learning_rate": RealRange(0.005, 0.2),
        "regularization": RealRange(1e-4, 0.1),
        "iterations": WholeRange(50, 400),
    }

    def __init__(
        self,
        factors: int = 128,
        learning_rate: float = 0.05,
        regularization: float = 0.01,
        *,
        iterations: int = 100,
        seed: int = 0,
    ) -> None:
        self.factors = check.whole("factors", factors, maximum=check.LARGEST_LAYER)
        self.learning_rate = check.real("learning_rate", learning_rate, high=LARGEST_WEIGHT, open_low=True)
        self.regularization = check.real("regularization", regularization, high=LARGEST_WEIGHT)
        self.iterations = check.whole("iterations", iterations)
        self.seed = check.whole("seed", seed, minimum=0)

    def _create_model(self) -> Any:
        return import_implicit("cpu.bpr").BayesianPersonalizedRanking(
            factors=self.factors,
            learning_rate=self.learning_rate,
            regularization=self.regularization,
            iterations=self.iterations,
            num_threads=1,
            random_state=self.seed,
        )


class LMF(_KnownUserFactorization):
    """Logistic matrix factorization (Johnson 2014); ranks only for the users it was trained on.

    Parameters
    ----------
    factors : int
    learning_rate, regularization : float
    iterations : int
    neg_prop : int
        Number of negatives drawn for each interaction.
    seed : int
    """

    SPACE: ClassVar[SearchSpace] = {
        "factors": WholeRange(8, 128),
        "learning_rate": RealRange(0.1, 2.0),
        "regularization": RealRange(0.01, 10.0),
        "neg_prop": WholeRange(2, 60),
    }

    def __init__(
        self,
        factors: int = 30,
        learning_rate: float = 1.0,
        regularization: float = 0.6,
        *,
        iterations: int = 30,
        neg_prop: int = 30,
        seed: int = 0,
    ) -> None:
        self.factors = check.whole("factors", factors, maximum=check.LARGEST_LAYER)
        self.learning_rate = check.real("learning_rate", learning_rate, high=LARGEST_WEIGHT, open_low=True)
        self.regularization = check.real("regularization", regularization, high=LARGEST_WEIGHT)
        self.iterations = check.whole("iterations", iterations)
        self.neg_prop = check.whole("neg_prop", neg_prop, maximum=MOST_NEGATIVES)
        self.seed = check.whole("seed", seed, minimum=0)

    def _create_model(self) -> Any:
        return import_implicit("cpu.lmf").LogisticMatrixFactorization(
            factors=self.factors,
            learning_rate=self.learning_rate,
            regularization=self.regularization,
            iterations=self.iterations,
            neg_prop=self.neg_prop,
            num_threads=1,
            random_state=self.seed,
        )


def _adapt_callback(callback: Callable[[int, float, float], None] | None) -> Callable[..., None] | None:
    """Wrap a callback for `implicit`, whose models call it with a loss, without one, or with counts of pairs."""
    if callback is None:
        return None
    return lambda epoch, seconds, *figures: callback(epoch, seconds, _loss(figures))


def _loss(figures: tuple[Any, ...]) -> float:
    return float(figures[0]) if len(figures) == 1 and figures[0] is not None else float("nan")
