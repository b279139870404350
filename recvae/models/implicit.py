"""Matrix factorizations from the `implicit` library behind this project's contract: ALS, BPR and LMF.

Training is `implicit`'s; ranking, filtering and metrics are this project's, so that every model is measured alike.
Defaults are honest opponents, tuned where noted, not the library's bare ones.
"""

from abc import abstractmethod
from collections.abc import Callable
from importlib import import_module
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from scipy import sparse

from recvae.errors import ArtifactError, MissingDependencyError, ParameterError, UnsupportedError
from recvae.models import parameters as check
from recvae.models.base import Recommender, State
from recvae.models.run import Run
from recvae.models.space import Real, Space, Whole
from recvae.topn import FloatArray


def library(module: str) -> Any:
    try:
        return import_module(f"implicit.{module}")
    except ImportError as error:
        raise MissingDependencyError(
            f"this model needs the library implicit ({error}); install recvae with the extra 'baselines'"
        ) from None


def _one_blas_thread() -> Any:
    """`implicit` runs its own threads; BLAS threads inside them would fight for the same cores."""
    return import_module("threadpoolctl").threadpool_limits(1, "blas")


class _Factorization(Recommender):
    """Users and items as vectors whose inner product is the score."""

    user_factors_: npt.NDArray[np.float32]
    item_factors_: npt.NDArray[np.float32]

    @abstractmethod
    def _model(self) -> Any:
        """The library's model with this one's hyperparameters, not fitted."""

    def _fit(self, user_items: sparse.csr_matrix, run: Run) -> None:
        with _one_blas_thread():
            model = self._model()
            model.fit(user_items, show_progress=run.bar, callback=_adapted(run.callback))
        self.user_factors_, self.item_factors_ = model.user_factors, model.item_factors

    def _scores(self, users: npt.NDArray[np.int64], histories: sparse.csr_matrix, recalculate_user: bool) -> FloatArray:
        if recalculate_user:
            return super()._scores(users, histories, recalculate_user)
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
        users, items = state["user_factors"], state["item_factors"]
        if items.ndim != 2 or len(items) != self.n_items_ or users.ndim != 2 or users.shape[1] != items.shape[1]:
            raise ArtifactError(
                f"factors have shapes {users.shape} and {items.shape}; expected equal columns and {self.n_items_} items"
            )
        self.user_factors_, self.item_factors_ = users, items


class ALS(_Factorization):
    """Implicit-feedback matrix factorization by alternating least squares (Hu, Koren & Volinsky 2008).

    A new user is folded in exactly: one least-squares solve against the item factors.

    Parameters
    ----------
    factors : int
    alpha : float
        Confidence of a play; a non-play has 1.
    regularization : float
    iterations : int
    seed : int
        Decides the initial factors.

    Notes
    -----
    Defaults are tuned on MovieLens-1M (validation NDCG@100), where the library's own fall .04 short.
    """

    SPACE: ClassVar[Space] = {
        "factors": Whole(32, 512),
        "alpha": Real(0.5, 50.0),
        "regularization": Real(1.0, 300.0),
    }

    def __init__(
        self,
        factors: int = 256,
        alpha: float = 5.0,
        regularization: float = 60.0,
        iterations: int = 15,
        seed: int = 0,
    ) -> None:
        self.factors = check.whole("factors", factors)
        self.alpha = check.real("alpha", alpha, open_low=True)
        self.regularization = check.real("regularization", regularization)
        self.iterations = check.whole("iterations", iterations)
        self.seed = check.whole("seed", seed, minimum=0)

    def _model(self) -> Any:
        return library("cpu.als").AlternatingLeastSquares(
            factors=self.factors,
            alpha=self.alpha,
            regularization=self.regularization,
            iterations=self.iterations,
            random_state=self.seed,
        )

    def _score(self, user_items: sparse.csr_matrix) -> FloatArray:
        with _one_blas_thread():
            model = self._model()
            model.item_factors = self.item_factors_
            users = model.recalculate_user(np.arange(user_items.shape[0]), user_items)
        scores: FloatArray = users @ self.item_factors_.T
        return scores

    def _restore(self, state: State) -> None:
        super()._restore(state)
        if self.item_factors_.shape[1] != self.factors:
            raise ArtifactError(
                f"item_factors has {self.item_factors_.shape[1]} columns; expected factors={self.factors}"
            )


class _KnownUsers(_Factorization):
    """Factorizations that learn a user only in training."""

    folds_in: ClassVar[bool] = False

    def _score(self, user_items: sparse.csr_matrix) -> FloatArray:
        raise UnsupportedError(
            f"{type(self).__name__} cannot fold in new users: it knows only those it was trained on, so it takes "
            "part in weak generalization only"
        )


class BPR(_KnownUsers):
    """Bayesian personalised ranking (Rendle et al. 2009); knows only the users it was trained on.

    Parameters
    ----------
    factors : int
    learning_rate, regularization : float
    iterations : int
    seed : int
        Trains on one thread, since the library's parallel updates are not reproducible.
    """

    SPACE: ClassVar[Space] = {
        "factors": Whole(32, 256),
        "learning_rate": Real(0.005, 0.2),
        "regularization": Real(1e-4, 0.1),
        "iterations": Whole(50, 400),
    }

    def __init__(
        self,
        factors: int = 128,
        learning_rate: float = 0.05,
        regularization: float = 0.01,
        iterations: int = 100,
        seed: int = 0,
    ) -> None:
        self.factors = check.whole("factors", factors)
        self.learning_rate = check.real("learning_rate", learning_rate, open_low=True)
        self.regularization = check.real("regularization", regularization)
        self.iterations = check.whole("iterations", iterations)
        self.seed = check.whole("seed", seed, minimum=0)

    def _model(self) -> Any:
        return library("cpu.bpr").BayesianPersonalizedRanking(
            factors=self.factors,
            learning_rate=self.learning_rate,
            regularization=self.regularization,
            iterations=self.iterations,
            num_threads=1,
            random_state=self.seed,
        )


class LMF(_KnownUsers):
    """Logistic matrix factorization (Johnson 2014); knows only the users it was trained on.

    Parameters
    ----------
    factors : int
    learning_rate, regularization : float
    iterations : int
    neg_prop : int
        Negatives drawn for each play.
    seed : int
    """

    SPACE: ClassVar[Space] = {
        "factors": Whole(8, 128),
        "learning_rate": Real(0.1, 2.0),
        "regularization": Real(0.01, 10.0),
        "neg_prop": Whole(2, 60),
    }

    def __init__(
        self,
        factors: int = 30,
        learning_rate: float = 1.0,
        regularization: float = 0.6,
        iterations: int = 30,
        neg_prop: int = 30,
        seed: int = 0,
    ) -> None:
        self.factors = check.whole("factors", factors)
        self.learning_rate = check.real("learning_rate", learning_rate, open_low=True)
        self.regularization = check.real("regularization", regularization)
        self.iterations = check.whole("iterations", iterations)
        self.neg_prop = check.whole("neg_prop", neg_prop)
        self.seed = check.whole("seed", seed, minimum=0)

    def _model(self) -> Any:
        return library("cpu.lmf").LogisticMatrixFactorization(
            factors=self.factors,
            learning_rate=self.learning_rate,
            regularization=self.regularization,
            iterations=self.iterations,
            neg_prop=self.neg_prop,
            num_threads=1,
            random_state=self.seed,
        )


def _adapted(callback: Callable[[int, float, float], None] | None) -> Callable[..., None] | None:
    """`implicit`'s models call back with a loss, without one, or with counts of pairs."""
    if callback is None:
        return None
    return lambda epoch, seconds, *figures: callback(epoch, seconds, _loss(figures))


def _loss(figures: tuple[Any, ...]) -> float:
    return float(figures[0]) if len(figures) == 1 and figures[0] is not None else float("nan")
