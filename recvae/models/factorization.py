"""Matrix factorizations that the library `implicit` trains: their base class, BPR and LMF.

Ranking, filtering and metrics are this project's, so that every model is measured in the same way. Defaults are tuned
where noted instead of the library's, so that these models are strong opponents.
"""

from abc import abstractmethod
from collections.abc import Callable
from importlib import import_module
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from scipy import sparse

from recvae.errors import MissingDependencyError, ParameterError, TrainingError, UnsupportedError
from recvae.models import hyperparameters as check
from recvae.models.base import Recommender, State
from recvae.models.fit_context import FitContext
from recvae.models.hyperparameters import RealRange, SearchSpace, WholeRange
from recvae.models.stored_arrays import take_array
from recvae.types import FloatArray

LARGEST_WEIGHT = 1e6  # far beyond what helps; float32 sums overflow with much more
MOST_NEGATIVES = 10_000


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


class Factorization(Recommender):
    """A model with a vector for each user and item; their inner product is the score.

    The vector of a user without interactions in training is 0, which stands for the popularity prior.
    """

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
                if not all(a.flags.writeable for a in (user_items.data, user_items.indices, user_items.indptr)):
                    user_items = user_items.copy()  # BPR and LMF refuse what they cannot write to
                model.fit(user_items, show_progress=context.shows_bar, callback=_adapt_callback(context.callback))
        except failure as error:
            raise TrainingError(f"{self!r} failed: {error}; expected smaller settings or weights") from None
        self.user_factors_, self.item_factors_ = model.user_factors, model.item_factors
        if not (np.isfinite(self.user_factors_).all() and np.isfinite(self.item_factors_).all()):
            raise TrainingError(f"{self!r} gave factors that are not finite; expected smaller settings or weights")
        self.user_factors_[np.diff(user_items.indptr) == 0] = 0  # the library may leave what it drew at the start

    def _score_users(self, users: npt.NDArray[np.int64]) -> FloatArray:
        n_users = len(self.user_factors_)
        outside = users[(users < 0) | (users >= n_users)]
        if len(outside):
            raise ParameterError(f"userid is {outside[0]}; expected 0 to {n_users - 1:,}, or recalculate_user=True")
        vectors = self.user_factors_[users]
        scores: FloatArray = vectors @ self.item_factors_.T
        scores[~vectors.any(axis=1)] = self._popularity_prior()
        return scores

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


class _KnownUserFactorization(Factorization):
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
